// The keyboard, everywhere the same; also inside of the source text's frame.
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { focus, frameBy, goNearest, step, withFrame } from "../../state/focus";
import { inHand, joinInHand, nudgeView, openView, reopen, closeView, resetLayout, toggleCollapsed } from "../../state/layout";
import { noteAndType } from "../../state/notes";
import { linePane } from "../executions/executions";
import { lifeOf, whoWrote } from "../menu/menu";
import { sourceHand } from "../source/hand";
import { notice } from "../../state/session";

export const helpOpen = signal(false);
export const toolboxOpen = signal(false);

type Help = readonly (readonly [keys: string, what: string])[];
const HELP: { readonly [group: string]: Help } = {
  Go: [
    ["Ctrl+S  /", "search"],
    ["Alt+←  Alt+→", "back, forward"],
    ["n  p", "next, previous execution of this line"],
    ["]  [", "next, previous line of this call"],
    ["s  S", "step into, and back"],
    ["i  I", "next, previous instruction"],
    ["}  {", "return of this call, its entry"],
    ["u  d", "frame up, down"],
  ],
  Ask: [
    ["w", "who wrote the selected value"],
    ["l", "life of the memory that the selected value points to, or is in"],
    ["x", "executions of the line under the cursor, or of this function"],
    ["m", "write a note"],
    ["t", "all views"],
    ["Ctrl+F", "search in the source"],
  ],
  Lists: [
    ["j  k  ↑  ↓", "rows"],
    ["Enter", "go to the row"],
    ["→  ←", "values within the row"],
    ["Menu", "what can be asked about it"],
  ],
  Panes: [
    ["Tab", "next pane"],
    ["c", "fold the pane in hand"],
    ["q", "close it"],
    ["z", "bring back what was closed"],
    ["Shift+arrows", "move it"],
    ["J", "join it to its neighbour: their rows in order of time"],
    ["0", "the panes of the beginning"],
    ["?", "these keys"],
    ["Ctrl+S", "out of gdb, which has all other keys"],
  ],
};

function moveRow(key: string): void {
  const list = document.querySelector<HTMLElement>(".view.in-hand .list") ?? document.querySelector<HTMLElement>(".list");
  if (!list) return;
  list.focus();
  list.dispatchEvent(new KeyboardEvent("keydown", { key })); // not bubbling: it would come back here
}

const IN_MEMORY = "[data-address]";
const POINTER = "[data-pointer]";

/** The value that is selected: focused, under the pointer, or else the active row's first one; of those that are of a kind. */
function selectedValue(kind: string): HTMLElement | null {
  const at = document.activeElement;
  if (at instanceof HTMLElement && at.matches(kind)) return at;
  return (
    document.querySelector<HTMLElement>(`${kind}:hover`) ??
    document.querySelector<HTMLElement>(`.row:hover ${kind}`) ??
    document.querySelector<HTMLElement>(`.list:focus .active ${kind}, .in-hand .active ${kind}`)
  );
}

function askWhoWrote(): void {
  const el = selectedValue(IN_MEMORY);
  const { address, size, name } = el?.dataset ?? {};
  if (address && size) whoWrote({ name: name ?? "", value: { address, size: Number(size) }, at: focus.value });
}

function askLife(): void {
  const { address, name, pointer } = (selectedValue(POINTER) ?? selectedValue(IN_MEMORY))?.dataset ?? {};
  lifeOf({ name: name ?? "", value: { ...(address ? { address } : {}), ...(pointer ? { pointer } : {}) }, at: focus.value });
}

function executions(): void {
  const source = sourceHand.value;
  const file = source?.file();
  const line = source?.cursorLine();
  const inSource = document.activeElement?.tagName === "IFRAME";
  if (inSource && file && line) openView(linePane(file, line));
  else
    withFrame((f) => {
      if (f.function) openView({ view: "execution", of: f.function.id, label: f.function.name });
      else notice.value = { text: "no function is known here" };
    });
}

function ofThisLine(direction: "forward" | "backward"): void {
  withFrame(({ location: place }) => {
    const none = `no ${direction === "forward" ? "later" : "earlier"} execution of this line`;
    if (place) goNearest("breakpoint", { file: place.file, line: place.line }, direction, none);
    else notice.value = { text: "no line is known here" };
  });
}

const ACTIONS: { readonly [key: string]: () => void } = {
  "/": focusSearch,
  "?": () => {
    helpOpen.value = !helpOpen.value;
  },
  j: () => moveRow("j"),
  k: () => moveRow("k"),
  "]": () => step("over", "forward"),
  "[": () => step("over", "backward"),
  s: () => step("line", "forward"),
  S: () => step("line", "backward"),
  i: () => step("instruction", "forward"),
  I: () => step("instruction", "backward"),
  "}": () => step("out", "forward"),
  "{": () => step("entry", "backward"),
  u: () => frameBy(1),
  d: () => frameBy(-1),
  n: () => ofThisLine("forward"),
  p: () => ofThisLine("backward"),
  w: askWhoWrote,
  l: askLife,
  x: executions,
  m: noteAndType,
  t: () => {
    toolboxOpen.value = true;
  },
  c: () => toggleCollapsed(inHand.value),
  q: () => closeView(inHand.value),
  z: reopen,
  J: joinInHand,
  "0": resetLayout,
};
const SHIFTED: { readonly [key: string]: "left" | "right" | "up" | "down" } = {
  ArrowLeft: "left",
  ArrowRight: "right",
  ArrowUp: "up",
  ArrowDown: "down",
};

export function focusSearch(): void {
  const box = document.getElementById("searchInput");
  window.focus();
  if (!(box instanceof HTMLInputElement)) return;
  box.focus();
  box.select();
}

export function onKey(e: KeyboardEvent): void {
  if (e.defaultPrevented) return;
  if (e.ctrlKey && !e.altKey && e.key.toLowerCase() === "s") {
    e.preventDefault();
    focusSearch();
    return;
  }
  const target = e.target as Element | null;
  if (e.ctrlKey || e.altKey || e.metaKey || target?.closest?.("input, textarea, select")) return;
  if (e.key === "Escape") {
    helpOpen.value = false;
    toolboxOpen.value = false;
    return;
  }
  if (e.key === "Enter" && document.activeElement?.tagName === "IFRAME") {
    const line = sourceHand.value?.cursorLine();
    if (line) sourceHand.value?.openLine(line, false);
    return;
  }
  const nudge = e.shiftKey ? SHIFTED[e.key] : undefined;
  const action = nudge ? () => nudgeView(inHand.value, nudge) : ACTIONS[e.key];
  if (!action) return;
  e.preventDefault();
  action();
}

export function HelpDialog() {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (helpOpen.value) box.current?.focus();
  }, [helpOpen.value]);
  if (!helpOpen.value) return null;
  return (
    <div class="veil" onClick={() => (helpOpen.value = false)}>
      <div ref={box} class="help" role="dialog" aria-modal="true" aria-label="keys" tabIndex={-1}>
        {Object.entries(HELP).map(([group, keys]) => (
          <section key={group}>
            <h2>{group}</h2>
            <dl>
              {keys.map(([k, what]) => (
                <div key={k}>
                  <dt>
                    {k.split("  ").map((one) => (
                      <kbd key={one}>{one}</kbd>
                    ))}
                  </dt>
                  <dd>{what}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
    </div>
  );
}
