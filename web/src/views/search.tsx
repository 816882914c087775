// The search box: functions, files, file:line, views. Results come while typing.
import { useEffect, useRef, useState } from "preact/hooks";
import { useRows } from "../state/rows";
import { openView, shownFile } from "../state/state";
import type { SearchRow } from "../wire/types";

export function act(r: SearchRow): void {
  const { view, location } = r.action;
  const fn = r.action.function;
  if (view === "execution" && fn) openView({ view, of: fn.id, label: fn.name });
  else if (view === "breakpoint" && location) {
    shownFile.value = { file: location.file, line: location.line };
    openView({ view, of: `${location.file}:${location.line}`, label: `${location.file.split("/").pop()}:${location.line}` });
  } else if (view === "source" && location) shownFile.value = { file: location.file, line: location.line };
  else openView({ view });
}

export function SearchBox() {
  const input = useRef<HTMLInputElement>(null);
  const [text, setText] = useState("");
  const [chosen, setChosen] = useState(0);
  const [open, setOpen] = useState(false);
  const list = useRows<SearchRow>("search", text.trim() ? { input: text.trim(), maxResults: 30 } : null);
  useEffect(() => setChosen(0), [text]);
  // Enter typed ahead of the answer runs the first hit when it is there.
  const [pending, setPending] = useState(false);
  const rows = text.trim() ? list.rows : [];
  const run = (r: SearchRow | undefined): void => {
    if (!r) return;
    act(r);
    setText("");
    setOpen(false);
    setPending(false);
    input.current?.blur();
  };
  useEffect(() => {
    if (pending && !list.busy) run(rows[0]);
  }, [pending, list.busy, rows]);
  return (
    <div class="search">
      <input
        id="searchInput"
        ref={input}
        value={text}
        placeholder="functions, files, file:line, views        Ctrl+S"
        autocomplete="off"
        spellcheck={false}
        role="combobox"
        aria-expanded={open && rows.length > 0}
        aria-controls="searchDropdown"
        onFocus={(e) => {
          e.currentTarget.select();
          setOpen(true);
        }}
        onBlur={() => setTimeout(() => setOpen(false), 150)}
        onInput={(e) => {
          setText(e.currentTarget.value);
          setOpen(true);
        }}
        onKeyDown={(e) => {
          if (e.key === "ArrowDown") setChosen(Math.min(chosen + 1, rows.length - 1));
          else if (e.key === "ArrowUp") setChosen(Math.max(chosen - 1, 0));
          else if (e.key === "Enter") list.busy ? setPending(true) : run(rows[chosen]);
          else if (e.key === "Escape") input.current?.blur();
          else return;
          e.preventDefault();
        }}
      />
      {open && text.trim() !== "" && (
        <div id="searchDropdown" role="listbox">
          {rows.map((r, i) => (
            <div
              key={`${r.kind}${r.title}${r.detail}`}
              role="option"
              aria-selected={i === chosen}
              class={i === chosen ? "chosen" : ""}
              onMouseDown={(e) => {
                e.preventDefault();
                run(r);
              }}
            >
              <span class="kind">{r.kind}</span>
              <span class="title">{r.title}</span>
              <span class="dim">{r.detail}</span>
              {r.count !== undefined && <span class="count">{r.count.toLocaleString("en")}×</span>}
            </div>
          ))}
          {!list.busy && rows.length === 0 && <p class="why">nothing found</p>}
        </div>
      )}
    </div>
  );
}
