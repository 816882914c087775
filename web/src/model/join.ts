// Panes that are one: their rows together, in order of time. Pure: a layout in, a layout out.
import { closePane, findPane, type Layout, openPane, type Pane, paneId } from "./layout";
import { decodePanes, encodePanes } from "./url";

/** Views of rows that are moments, asked for around now. */
const JOINABLE: ReadonlySet<string> = new Set([
  "execution", "breakpoint", "address-execution", "watchpoint", "stdouterr", "signals", "alerts", "events", "callees",
]);
/** As many as the server joins. */
const MOST = 16;

/** The panes that a pane is made of: itself, if it was not joined. */
export function partsOf(pane: Pane): readonly Pane[] {
  return pane.view === "join" ? decodePanes(pane.of ?? "").filter((p) => JOINABLE.has(p.view)) : [pane];
}

/** Two panes of the same question with other conditions are not the same part. */
const partKey = (p: Pane): string => [paneId(p), p.condition ?? "", p.print ?? ""].join("\n");

export function canJoin(pane: Pane, other: Pane): boolean {
  const parts = [...partsOf(pane), ...partsOf(other)];
  return paneId(pane) !== paneId(other) && parts.every((p) => JOINABLE.has(p.view)) && parts.length <= MOST;
}

function paneOf(parts: readonly Pane[], place: Pane): Pane {
  const [only] = parts;
  if (parts.length === 1 && only) return { ...only, size: place.size };
  // Sizes are the whole pane's.
  return { view: "join", of: encodePanes(parts.map((p) => ({ ...p, size: 1 }))), size: place.size };
}

const replace = (l: Layout, id: string, pane: Pane): Layout => ({
  columns: l.columns.map((c) => ({ ...c, panes: c.panes.map((p) => (paneId(p) === id ? pane : p)) })),
});

/** Puts a pane into another, which takes both their places. */
export function joinPanes(l: Layout, id: string, into: string): Layout {
  const pane = findPane(l, id)?.pane;
  const other = findPane(l, into)?.pane;
  if (!pane || !other || !canJoin(pane, other)) return l;
  const parts = [...partsOf(other)];
  for (const p of partsOf(pane)) if (!parts.some((o) => partKey(o) === partKey(p))) parts.push(p);
  const both = paneOf(parts, other);
  const there = findPane(l, paneId(both)) !== null; // these very panes are joined already
  return closePane(there ? closePane(l, into) : replace(l, into, both), id);
}

/** Takes a part out of a pane; it is a pane of its own again. */
export function takeOut(l: Layout, id: string, index: number): Layout {
  const pane = findPane(l, id)?.pane;
  const part = pane && partsOf(pane)[index];
  if (!pane || !part) return l;
  const rest = paneOf(partsOf(pane).filter((_p, i) => i !== index), pane);
  const left = findPane(l, paneId(rest)) ? closePane(l, id) : replace(l, id, rest);
  return openPane(left, part);
}

/** The pane that a pane is joined to by the keyboard: the next one of its column that it can be joined to, else one before it. */
export function neighbourToJoin(l: Layout, id: string): string | null {
  const found = findPane(l, id);
  const panes = found ? (l.columns[found.column]?.panes ?? []) : [];
  if (!found) return null;
  const order = [...panes.slice(found.index + 1), ...panes.slice(0, found.index).reverse()];
  const other = order.find((p) => canJoin(found.pane, p));
  return other ? paneId(other) : null;
}
