// Values in the frame at the focus: its parameters and locals, and expressions. Those that have parts unfold.
import { useState } from "preact/hooks";
import { List } from "../../base/list";
import { addExpression, splitExpressions, unfold } from "../../model/expressions";
import { type Pane, paneId } from "../../model/layout";
import { focus } from "../../state/focus";
import { setPane } from "../../state/layout";
import { useRows, useSlots } from "../../state/rows";
import type { NamedValue } from "../../wire/types";
import { openMenu, valueMenu, whoWrote } from "../menu/menu";
import { Status, ValueText } from "../parts/parts";

const MOST_PARTS = 100;

/** A list of values, with the parts of those that are open. `remove`: of the rows themselves, not their parts. */
function ValueList(props: { label: string; rows: readonly NamedValue[]; remove?: (name: string) => void }) {
  const at = focus.value;
  const [open, setOpen] = useState<ReadonlySet<string>>(new Set());
  const asked = new Map([...open].map((expression) => [expression, { focus: at, expression, children: true, max: MOST_PARTS }]));
  const parts = useSlots<NamedValue>("evaluate", at ? asked : new Map());
  const lines = unfold(props.rows, open, (expression) => parts.get(expression));
  const toggle = (expression: string): void => {
    const next = new Set(open);
    if (!next.delete(expression)) next.add(expression);
    setOpen(next);
  };
  return (
    <List
      label={props.label}
      count={lines.length}
      row={(i) => {
        const line = lines[i];
        if (!line) return null;
        const r = line.row;
        const { expression, unfolds } = r;
        const indent = line.depth > 0 && <span class="indent">{"  ".repeat(line.depth)}</span>;
        if (line.note !== undefined)
          return {
            key: line.key,
            body: (
              <>
                {indent}
                <span class="why">{line.note}</span>
              </>
            ),
          };
        const thing = { name: expression ?? r.name, value: r.value, at };
        const remove = line.depth === 0 ? props.remove : undefined;
        return {
          key: line.key,
          class: `pair ${r.kind ?? ""}`,
          act: () => (r.value.address === undefined && unfolds && expression ? toggle(expression) : whoWrote(thing)),
          menu: (x, y) => openMenu(x, y, valueMenu(thing)),
          body: (
            <>
              {indent}
              {unfolds && expression ? (
                <button
                  class="unfold"
                  tabIndex={-1}
                  aria-label={`parts of ${r.name}`}
                  aria-expanded={line.open}
                  onClick={(e) => {
                    e.stopPropagation();
                    toggle(expression);
                  }}
                >
                  {line.open ? "▾" : "▸"}
                </button>
              ) : (
                <span class="unfold" />
              )}
              <span class="name">{r.name}</span>
              <ValueText value={r.value} name={thing.name} />
              <span class="type">{r.value.type}</span>
              {remove && (
                <button
                  class="remove"
                  tabIndex={-1}
                  aria-label={`remove ${r.name}`}
                  onClick={(e) => {
                    e.stopPropagation();
                    remove(r.name);
                  }}
                >
                  ×
                </button>
              )}
            </>
          ),
        };
      }}
    />
  );
}

export function VariablesView() {
  const at = focus.value;
  const list = useRows<NamedValue>("variables", at && { focus: at });
  const rows = list.failed === null ? list.rows : [];
  return (
    <>
      <ValueList label="variables" rows={rows} />
      <Status of={list} empty={rows.length === 0 && "no variables in scope here"} />
    </>
  );
}

/** Expressions, computed anew wherever the focus goes. The pane's `print` holds them. */
export function EvaluateView(props: { pane: Pane }) {
  const at = focus.value;
  const [typed, setTyped] = useState("");
  const text = props.pane.print ?? "";
  const expressions = splitExpressions(text);
  const set = (print: string): void => setPane(paneId(props.pane), { print });
  const asked = new Map(expressions.map((expression) => [expression, { focus: at, expression }]));
  const values = useSlots<NamedValue>("evaluate", at ? asked : new Map());
  const rows = expressions.map((name): NamedValue => {
    const slot = values.get(name);
    const [row] = slot?.rows ?? [];
    return row && slot?.failed === null ? row : { name, value: { why: slot?.failed ?? "…" } };
  });
  return (
    <>
      <form
        class="bar"
        onSubmit={(e) => {
          e.preventDefault();
          let all = text;
          for (const more of splitExpressions(typed)) all = addExpression(all, more);
          set(all);
          setTyped("");
        }}
      >
        <input
          class="field"
          aria-label="expression"
          placeholder="an expression: list->count, $rdi, *p, a[3], length(p)"
          spellcheck={false}
          autocomplete="off"
          value={typed}
          onInput={(e) => setTyped(e.currentTarget.value)}
        />
      </form>
      <ValueList label="expressions" rows={rows} remove={(name) => set(expressions.filter((e) => e !== name).join("; "))} />
    </>
  );
}
