// Where a value came from: each copy on its way, back to what made it; through arithmetic on request.
import { useState } from "preact/hooks";
import { List } from "../../base/list";
import type { Pane } from "../../model/layout";
import { asciiText, bytesText, decimalText } from "../../model/bytes";
import { flowDepths, parseFlow, placeText } from "../../model/dataflow";
import { momentText } from "../../model/moment";
import { useRows } from "../../state/rows";
import type { DataflowRow } from "../../wire/types";
import { FuncName, momentRow, Place, Status, When } from "../parts/parts";

/** What the row's bytes are, in a word or two. */
const KINDS: { readonly [kind: string]: string } = {
  copy: "copied",
  constant: "constant",
  extension: "extended",
  arithmetic: "computed",
  instruction: "by the CPU",
  input: "input",
  kernel: "by the kernel",
  signal: "by a signal",
  file: "file",
  zero: "zero",
  start: "at start",
  unknown: "unknown",
};

function Bytes(props: { hex: string | undefined }) {
  if (props.hex === undefined) return null;
  const extra = asciiText(props.hex) || decimalText(props.hex);
  return (
    <span class="bytes new">
      {bytesText(props.hex)}
      {extra && <span class="dim"> {extra}</span>}
    </span>
  );
}

function whatItDid(r: DataflowRow): string {
  if (r.path !== undefined) return `${r.path} +${r.fileOffset ?? 0}`;
  return r.text ?? r.event?.name ?? r.why ?? "";
}

export function DataflowView(props: { pane: Pane }) {
  const [arithmetic, setArithmetic] = useState(false);
  const asked = parseFlow(props.pane.of ?? "");
  const list = useRows<DataflowRow>("dataflow", asked && { focus: asked.focus, ...asked.what, arithmetic });
  const rows = list.failed === null ? list.rows : [];
  const depths = flowDepths(rows);
  return (
    <>
      <div class="bar">
        <span class="dim">{asked ? `as it is at ${momentText(asked.focus.moment)}` : ""}</span>
        <span class="gap" />
        <label title="Goes on with what the value was computed from">
          <input type="checkbox" checked={arithmetic} onChange={(e) => setArithmetic(e.currentTarget.checked)} /> through arithmetic
        </label>
      </div>
      <List
        label="dataflow"
        count={rows.length}
        row={(i) => {
          const r = rows[i];
          if (!r) return null;
          return momentRow(
            r.focus,
            String(r.id),
            <>
              <span class="indent">{"  ".repeat(depths[i] ?? 0)}</span>
              <span class="tag kind">{KINDS[r.kind] ?? r.kind}</span>
              <span class="text">{whatItDid(r)}</span>
              <Bytes hex={r.value} />
              <span class="dim">
                {placeText(r.to)}
                {r.from && ` ← ${placeText(r.from)}`}
              </span>
              {r.pc !== undefined && <FuncName of={r.function} pc={r.pc} />}
              <span class="gap" />
              <Place location={r.location} />
              <When of={r.focus} />
            </>,
            { class: r.kind, title: r.why ?? whatItDid(r) },
          );
        }}
      />
      <Status of={list} empty={asked ? rows.length === 0 && "nothing is known of it" : "no value is given"} />
      {list.more && <p class="why">It goes on; these are the first {rows.length} steps.</p>}
    </>
  );
}
