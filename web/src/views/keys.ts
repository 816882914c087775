// The keyboard, everywhere the same; also inside of the source text's frame.
import { addNote, focus, frame, go, helpOpen, openView, step } from "../state/state";

export const KEYS: readonly (readonly [string, string])[] = [
  ["Ctrl+S  /", "search"],
  ["Alt+← Alt+→", "back, forward"],
  ["j k", "next, previous row"],
  ["Enter", "go to the row"],
  ["] [", "next, previous line of this call"],
  ["s S", "step into, back"],
  ["i I", "next, previous instruction"],
  ["} {", "return of this call, its entry"],
  ["u d", "frame up, down"],
  ["x", "executions of this function"],
  ["n p", "executions of this line"],
  ["m", "keep a note of this moment"],
  ["t", "toolbox"],
  ["?", "these keys"],
];

function moveRow(by: number): void {
  const rows = [...document.querySelectorAll<HTMLElement>(".view .row")];
  const at = rows.findIndex((r) => r === document.activeElement);
  rows[Math.min(Math.max(at + by, 0), rows.length - 1)]?.focus();
}

function frameBy(by: number): void {
  const f = focus.value;
  if (f) go({ ...f, frame: Math.max((f.frame ?? 0) + by, 0) });
}

export function onKey(e: KeyboardEvent): void {
  if (e.ctrlKey && (e.key === "s" || e.key === "S")) {
    e.preventDefault();
    const box = document.getElementById("searchInput");
    window.focus();
    if (box instanceof HTMLInputElement) {
      box.focus();
      box.select();
    }
    return;
  }
  const target = e.target as Element | null;
  if (e.ctrlKey || e.altKey || e.metaKey || target?.closest("input, textarea, select")) return;
  const f = frame.value;
  const actions: { readonly [key: string]: () => void } = {
    "/": () => document.getElementById("searchInput")?.focus(),
    "?": () => (helpOpen.value = !helpOpen.value),
    Escape: () => (helpOpen.value = false),
    j: () => moveRow(1),
    k: () => moveRow(-1),
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
    m: () => void addNote(),
    t: () => openView({ view: "toolbox" }),
    x: () => {
      if (f?.function) openView({ view: "execution", of: f.function.id, label: f.function.name });
    },
    n: () => {
      if (f?.location)
        openView({
          view: "breakpoint",
          of: `${f.location.file}:${f.location.line}`,
          label: `${f.location.file.split("/").pop()}:${f.location.line}`,
        });
    },
  };
  const action = actions[e.key === "p" ? "n" : e.key];
  if (action) {
    e.preventDefault();
    action();
  }
}
