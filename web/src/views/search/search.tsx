// The search box: functions, files, file:line, views, moments, addresses. Results come while typing; the chosen one is shown in
// miniature.
import { useEffect, useRef, useState } from "preact/hooks";
import { classes, numberText } from "../../base/text";
import { type Hit, hits } from "../../model/search";
import { focus, go, shownPlace } from "../../state/focus";
import { openExpression, openView } from "../../state/layout";
import { useRows } from "../../state/rows";
import { linePane } from "../executions/executions";
import { VIEWS } from "../kinds";
import { Miniature } from "../toolbox/miniature";
import type { SearchRow } from "../../wire/types";

export function act(hit: Hit): void {
  const { view, location, focus: to, of, label, expression } = hit.action;
  const fn = hit.action.function;
  if (to) go(to);
  else if (expression !== undefined) openExpression(expression);
  else if (view === "execution" && fn) openView({ view, of: fn.id, label: fn.name });
  else if (location) {
    shownPlace.value = location;
    if (view === "breakpoint") openView(linePane(location.file, location.line));
    else openView({ view: "source" });
  } else if (view) openView({ view, ...(of ? { of } : {}), ...(label ? { label } : {}) });
}

export function SearchBox() {
  const input = useRef<HTMLInputElement>(null);
  const drop = useRef<HTMLDivElement>(null);
  const [text, setText] = useState("");
  const [chosen, setChosen] = useState(0);
  const [open, setOpen] = useState(false);
  const wanted = text.trim();
  const list = useRows<SearchRow>("search", wanted ? { input: wanted, maxResults: 40 } : null);
  useEffect(() => setChosen(0), [text]);
  // Enter typed ahead of the answer runs the first hit when it is there.
  const [pending, setPending] = useState(false);
  const shown = wanted ? hits(wanted, list.rows, VIEWS, focus.value) : [];
  const hit = shown[Math.min(chosen, shown.length - 1)];
  const run = (h: Hit | undefined): void => {
    setPending(false);
    if (!h) return;
    setText("");
    setOpen(false);
    input.current?.blur();
    act(h);
  };
  useEffect(() => {
    if (pending && !list.busy) run(shown[0]);
  }, [pending, list.busy]);
  useEffect(() => {
    drop.current?.querySelector(".chosen")?.scrollIntoView({ block: "nearest" });
  }, [chosen]);
  const expanded = open && wanted !== "";
  return (
    <div class="search" role="search">
      <input
        id="searchInput"
        ref={input}
        value={text}
        placeholder="Search functions, files, file:line, addresses, expressions, moments, views"
        autocomplete="off"
        spellcheck={false}
        role="combobox"
        aria-label="search"
        aria-autocomplete="list"
        aria-expanded={expanded}
        aria-controls="searchDropdown"
        aria-activedescendant={expanded && hit ? `hit ${hit.key}` : undefined}
        onFocus={(e) => {
          e.currentTarget.select();
          setOpen(true);
        }}
        onBlur={() => setOpen(false)}
        onInput={(e) => {
          setText(e.currentTarget.value);
          setOpen(true);
        }}
        onKeyDown={(e) => {
          if (e.key === "ArrowDown") setChosen(Math.min(chosen + 1, shown.length - 1));
          else if (e.key === "ArrowUp") setChosen(Math.max(chosen - 1, 0));
          else if (e.key === "Enter") list.busy ? setPending(true) : run(hit);
          else if (e.key === "Escape") input.current?.blur();
          else return;
          e.preventDefault();
        }}
      />
      {text === "" && <kbd class="hint">Ctrl S</kbd>}
      {list.busy && wanted !== "" && <span class="working" />}
      {expanded && (
        <div class="dropdown" onMouseDown={(e) => e.preventDefault()}>
          <div id="searchDropdown" ref={drop} role="listbox" aria-label="results">
            {shown.map((h, i) => (
              <div
                key={h.key}
                id={`hit ${h.key}`}
                role="option"
                aria-selected={h === hit}
                class={classes("hit", h === hit && "chosen")}
                onMouseMove={() => h !== hit && setChosen(i)}
                onClick={() => run(h)}
              >
                <span class="kind">{h.kind}</span>
                <span class="title">
                  <Found text={h.title} wanted={wanted} />
                </span>
                <span class="detail">{h.detail}</span>
                {h.count !== undefined && <span class="count">{numberText(h.count)}</span>}
              </div>
            ))}
          </div>
          {list.failed !== null && <p class="why">{list.failed}</p>}
          {!list.busy && list.failed === null && shown.length === 0 && <p class="why">nothing is called so</p>}
          {hit && <Miniature hit={hit} />}
        </div>
      )}
    </div>
  );
}

function Found(props: { text: string; wanted: string }) {
  const at = props.text.toLowerCase().indexOf(props.wanted.toLowerCase());
  if (at < 0) return <>{props.text}</>;
  const end = at + props.wanted.length;
  return (
    <>
      {props.text.slice(0, at)}
      <mark>{props.text.slice(at, end)}</mark>
      {props.text.slice(end)}
    </>
  );
}
