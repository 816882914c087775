// Focus and layout in the URL's hash: #f=EVENT.INSTR.TASK.FRAME&l=VIEW,VIEW|VIEW... Readable, and the whole state of a window.
import type { Focus } from "../wire/types";

export interface ViewSpec {
  readonly view: string;
  /** What the view is of: a function's id, file:line, address:length. */
  readonly of?: string;
  readonly label?: string;
}
export interface Layout {
  readonly columns: readonly (readonly ViewSpec[])[];
}

export function encodeFocus(f: Focus): string {
  return [f.moment.event, f.moment.instr, f.task?.serial ?? 0, f.frame ?? 0].join(".");
}

export function decodeFocus(text: string): Focus | null {
  const parts = text.split(".").map(Number);
  const [event, instr, serial, frame] = parts;
  if (event === undefined || instr === undefined || parts.some((n) => !Number.isSafeInteger(n) || n < 0)) return null;
  return {
    moment: { event, instr },
    ...(serial ? { task: { tid: 0, serial } } : {}),
    frame: frame ?? 0,
  };
}

function encodeView(v: ViewSpec): string {
  return [v.view, v.of ?? "", v.label ?? ""].map((s) => encodeURIComponent(s).replace(/~/g, "%7E")).join("~").replace(/~+$/, "");
}

export function encodeLayout(l: Layout): string {
  return l.columns.map((c) => c.map(encodeView).join(",")).join("|");
}

export function decodeLayout(text: string): Layout | null {
  try {
    const columns = text.split("|").map((c) =>
      c
        .split(",")
        .filter((v) => v !== "")
        .map((v): ViewSpec => {
          const [view, of, label] = v.split("~").map(decodeURIComponent);
          return { view: view ?? "", ...(of ? { of } : {}), ...(label ? { label } : {}) };
        }),
    );
    return columns.length === 2 ? { columns } : null;
  } catch {
    return null;
  }
}

export function readHash(hash: string): { focus: Focus | null; layout: Layout | null } {
  const params = new URLSearchParams(hash.replace(/^#/, ""));
  const f = params.get("f");
  const l = params.get("l");
  return { focus: f === null ? null : decodeFocus(f), layout: l === null ? null : decodeLayout(l) };
}

export function writeHash(focus: Focus, layout: Layout): string {
  return `#f=${encodeFocus(focus)}&l=${encodeURIComponent(encodeLayout(layout))}`;
}
