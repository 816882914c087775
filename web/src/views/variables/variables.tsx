// Parameters and locals of the frame at the focus.
import { List } from "../../base/list";
import { focus } from "../../state/focus";
import { useRows } from "../../state/rows";
import type { NamedValue } from "../../wire/types";
import { openMenu, valueMenu, whoWrote } from "../menu/menu";
import { Status, ValueText } from "../parts/parts";

export function VariablesView() {
  const at = focus.value;
  const list = useRows<NamedValue>("variables", at && { focus: at });
  const rows = list.failed === null ? list.rows : [];
  return (
    <>
      <List
        label="variables"
        count={rows.length}
        row={(i) => {
          const r = rows[i];
          if (!r) return null;
          const thing = { name: r.name, value: r.value, at };
          return {
            key: `${i} ${r.name}`,
            class: `pair ${r.kind ?? ""}`,
            act: () => whoWrote(thing),
            menu: (x, y) => openMenu(x, y, valueMenu(thing)),
            body: (
              <>
                <span class="name">{r.name}</span>
                <ValueText value={r.value} name={r.name} />
                <span class="type">{r.value.type}</span>
              </>
            ),
          };
        }}
      />
      <Status of={list} empty={rows.length === 0 && "no variables in scope here"} />
    </>
  );
}
