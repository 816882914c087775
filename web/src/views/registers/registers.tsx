// Registers of the focus' task.
import { useRef } from "preact/hooks";
import { List } from "../../base/list";
import { addressText } from "../../model/bytes";
import { focus } from "../../state/focus";
import { openView } from "../../state/layout";
import { useRows } from "../../state/rows";
import type { RegisterRow } from "../../wire/types";
import { openFlow, openMenu, openUses, valueMenu } from "../menu/menu";
import { Status } from "../parts/parts";

export function RegistersView() {
  const at = focus.value;
  const list = useRows<RegisterRow>("registers", at && { focus: { ...at, frame: 0 } });
  // What differs from the moment that was looked at before is marked.
  const shown = useRef<{ rows: readonly RegisterRow[]; before: ReadonlyMap<string, string> }>({ rows: [], before: new Map() });
  if (!list.busy && list.rows !== shown.current.rows)
    shown.current = { rows: list.rows, before: new Map(shown.current.rows.map((r) => [r.name, r.value])) };
  const { before } = shown.current;
  return (
    <>
      <List
        label="registers"
        count={list.rows.length}
        row={(i) => {
          const r = list.rows[i];
          if (!r) return null;
          const changed = before.has(r.name) && before.get(r.name) !== r.value;
          const value = { text: r.value, pointer: r.value };
          const pointer = r.value.startsWith("0x") && r.value.length > 8;
          return {
            key: r.name,
            class: `pair ${changed ? "changed" : ""}`,
            title: changed ? `was ${before.get(r.name)} at the focus before` : undefined,
            act: pointer
              ? () => openView({ view: "memory", of: addressText(BigInt(r.value)), label: r.name })
              : undefined,
            menu: (x, y) => openMenu(x, y, [
                ...(at
                  ? [
                      { label: "Where did it come from?", act: () => openFlow({ register: r.name }, { ...at, frame: 0 }, r.name) },
                      { label: "Where is it used?", act: () => openUses({ register: r.name }, { ...at, frame: 0 }, r.name) },
                    ]
                  : []),
                ...valueMenu({ name: r.name, value: pointer ? value : { text: r.value }, at }),
              ]),
            body: (
              <>
                <span class="name">{r.name}</span>
                <span class="value">{r.value}</span>
              </>
            ),
          };
        }}
      />
      <Status of={list} />
    </>
  );
}
