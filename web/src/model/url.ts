// Focus and layout in the URL's hash: #f=EVENT.INSTR.TASK.FRAME&l=COLUMN/COLUMN, a column SIZE:PANE,PANE, a pane
// VIEW*SIZE~OF~LABEL~CONDITION~PRINT (trailing empty parts left out; SIZE with a trailing "-": folded). Readable, and the whole
// state of a window.
import type { Focus } from "../wire/types";
import type { Column, Layout, Pane } from "./layout";

const MAX_PANES = 40;

export function encodeFocus(f: Focus): string {
  return [f.moment.event, f.moment.instr, f.task?.serial ?? 0, f.frame ?? 0].join(".");
}

export function decodeFocus(text: string): Focus | null {
  const parts = text.split(".").map((p) => (/^\d+$/.test(p) ? Number(p) : Number.NaN));
  const [event, instr, serial, frame] = parts;
  if (event === undefined || instr === undefined || parts.some((n) => !Number.isSafeInteger(n))) return null;
  return {
    moment: { event, instr },
    ...(serial ? { task: { tid: 0, serial } } : {}),
    frame: frame ?? 0,
  };
}

const quote = (s: string): string =>
  encodeURIComponent(s).replace(/[~*.!'()]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
const sizeText = (n: number): string => String(Math.round(n * 10) / 10);

function encodePane(p: Pane): string {
  const rest = [p.of, p.label, p.condition, p.print].map((s) => quote(s ?? "")).join("~").replace(/~+$/, "");
  return `${quote(p.view)}*${sizeText(p.size)}${p.collapsed ? "-" : ""}${rest ? `~${rest}` : ""}`;
}

/** Panes as one text, as in a column. */
export function encodePanes(panes: readonly Pane[]): string {
  return panes.map(encodePane).join(",");
}

export function encodeLayout(l: Layout): string {
  return l.columns.map((c) => `${sizeText(c.size)}:${encodePanes(c.panes)}`).join("/");
}

const sizeOf = (text: string | undefined): number => {
  const n = Number(text);
  return Number.isFinite(n) && n > 0 && n < 1e6 ? n : 30;
};

function decodePane(text: string): Pane {
  const [head = "", of, label, condition, print] = text.split("~");
  const [view = "", size = ""] = head.split("*");
  const part = (name: string, s: string | undefined): object => (s ? { [name]: decodeURIComponent(s) } : {});
  return {
    view: decodeURIComponent(view),
    size: sizeOf(size.replace("-", "")),
    ...part("of", of),
    ...part("label", label),
    ...part("condition", condition),
    ...part("print", print),
    ...(size.endsWith("-") ? { collapsed: true } : {}),
  };
}

/** What encodePanes() made. What is damaged is no pane. */
export function decodePanes(text: string): Pane[] {
  try {
    return text.split(",").filter((p) => p !== "").map(decodePane);
  } catch {
    return [];
  }
}

export function decodeLayout(text: string): Layout | null {
  try {
    const columns = text.split("/").map((c): Column => {
      const colon = c.indexOf(":");
      if (colon < 0) throw new Error("no column");
      const panes = c.slice(colon + 1).split(",").filter((p) => p !== "").map(decodePane);
      return { size: sizeOf(c.slice(0, colon)), panes };
    });
    const kept = columns.filter((c) => c.panes.length > 0);
    const count = kept.reduce((sum, c) => sum + c.panes.length, 0);
    return count > 0 && count <= MAX_PANES ? { columns: kept } : null;
  } catch {
    return null;
  }
}

export function readHash(hash: string): { focus: Focus | null; layout: Layout | null } {
  const params = new Map(
    hash
      .replace(/^#/, "")
      .split("&")
      .map((p): [string, string] => {
        const eq = p.indexOf("=");
        return [p.slice(0, eq), p.slice(eq + 1)];
      }),
  );
  const f = params.get("f");
  const l = params.get("l");
  return { focus: f === undefined ? null : decodeFocus(f), layout: l === undefined ? null : decodeLayout(l) };
}

export function writeHash(focus: Focus, layout: Layout): string {
  return `#f=${encodeFocus(focus)}&l=${encodeLayout(layout)}`;
}
