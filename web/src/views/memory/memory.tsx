// Memory at the focus: lines of bytes around an address. A click on a byte asks who wrote the eight bytes there.
import { useState } from "preact/hooks";
import { List } from "../../base/list";
import type { Pane } from "../../model/layout";
import { addressText, DUMP_WIDTH, dumpLines, parseAddress } from "../../model/bytes";
import { focus } from "../../state/focus";
import { openView } from "../../state/layout";
import { useRows } from "../../state/rows";
import type { MapRow, MemoryRow } from "../../wire/types";
import { openFlow, openLife, openMenu, openUses } from "../menu/menu";
import { Status } from "../parts/parts";

const LINES = 256;
const TOP = 1n << 64n;

export function MemoryView(props: { pane: Pane }) {
  const wanted = parseAddress(props.pane.of ?? "");
  const at = focus.value;
  const [typed, setTyped] = useState("");
  const [lines, setLines] = useState(LINES);
  const start = wanted === null ? null : wanted - (wanted % BigInt(DUMP_WIDTH));
  const length = start === null ? 0 : Math.min(lines * DUMP_WIDTH, 65536, Number(TOP - start < 65536n ? TOP - start : 65536n));
  const asked = useRows<MemoryRow>(
    "memory",
    at && start !== null ? { focus: at, address: addressText(start), length } : null,
  );
  const maps = useRows<MapRow>("maps", at && wanted !== null ? { focus: at } : null);
  const row = asked.rows[0];
  const dump = row ? dumpLines(BigInt(row.address), row.bytes, row.unmapped ?? []) : [];
  const map = wanted === null ? undefined : maps.rows.find((m) => wanted >= BigInt(m.start) && wanted < BigInt(m.end));
  const ask = (address: bigint): void =>
    openView({ view: "watchpoint", of: `${addressText(address)}:8`, label: addressText(address) });
  return (
    <>
      <form
        class="bar"
        onSubmit={(e) => {
          e.preventDefault();
          const address = parseAddress(typed);
          if (address !== null) openView({ view: "memory", of: addressText(address), label: addressText(address) });
        }}
      >
        <input
          class="field"
          aria-label="address"
          placeholder={wanted === null ? "an address: 0x…" : addressText(wanted)}
          value={typed}
          onInput={(e) => setTyped(e.currentTarget.value)}
        />
        <span class="dim">{map ? `${map.prot} ${map.name || "anonymous"}` : ""}</span>
      </form>
      <List
        label="memory"
        class="dump"
        count={dump.length}
        onSeen={(_first, end) => {
          if (end >= dump.length && dump.length === lines && lines * DUMP_WIDTH < 65536) setLines(lines * 2);
        }}
        row={(i) => {
          const line = dump[i];
          if (!line) return null;
          const first8 = { address: addressText(line.address), length: 8 };
          return {
            key: String(line.address),
            act: () => ask(line.address),
            menu: (x, y) =>
              openMenu(x, y, [
                { label: "Who wrote these 16 bytes?", act: () => openView({ view: "watchpoint", of: `${addressText(line.address)}:16`, label: addressText(line.address) }) },
                ...(at
                  ? [
                      { label: "Where did the first 8 bytes come from?", act: () => openFlow(first8, at, first8.address) },
                      { label: "Where are the first 8 bytes used?", act: () => openUses(first8, at, first8.address) },
                    ]
                  : []),
                ...(at ? [{ label: "Life of this memory", act: () => openLife(first8.address, at, first8.address) }] : []),
                { label: "Follow the first 8 bytes", act: () => follow(line.bytes) },
              ]),
            body: (
              <>
                <span class="address">{addressText(line.address)}</span>
                <span class="bytes">
                  {line.bytes.map((b, k) => (
                    <span
                      key={k}
                      class={b === null ? "absent" : b === "00" ? "zero" : wanted === line.address + BigInt(k) ? "wanted" : ""}
                      onClick={(e) => {
                        e.stopPropagation();
                        ask(line.address + BigInt(k));
                      }}
                    >
                      {b ?? "··"}
                    </span>
                  ))}
                </span>
                <span class="ascii">{line.ascii}</span>
              </>
            ),
          };
        }}
      />
      <Status of={asked} empty={wanted === null && "no address is given"} />
    </>
  );
}

function follow(bytes: readonly (string | null)[]): void {
  const eight = bytes.slice(0, 8);
  if (eight.length < 8 || eight.includes(null)) return;
  const address = BigInt(`0x${[...eight].reverse().join("")}`);
  openView({ view: "memory", of: addressText(address), label: addressText(address) });
}
