// The panes of a window: columns of panes, with sizes as shares. Pure: a layout in, a layout out.

export interface Pane {
  readonly view: string;
  /** What the view is of: a function's id, file:line, address:length. */
  readonly of?: string;
  /** How `of` is called in the title. */
  readonly label?: string;
  readonly condition?: string;
  readonly print?: string;
  /** Share of its column's height, relative to its neighbours. */
  readonly size: number;
  readonly collapsed?: boolean;
}
export interface Column {
  readonly size: number;
  readonly panes: readonly Pane[];
}
export interface Layout {
  readonly columns: readonly Column[];
}
export interface Rect {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}
export interface PlacedPane extends Rect {
  readonly pane: Pane;
  readonly column: number;
  readonly index: number;
}
/** A border that can be dragged: between columns (index null), or between a pane and the next one. */
export interface Border extends Rect {
  readonly column: number;
  readonly index: number | null;
}

export const TITLE_HEIGHT = 24;
const MIN_COLUMN = 160;
const GAP = 1;

export const DEFAULT_LAYOUT: Layout = {
  columns: [
    {
      size: 58,
      panes: [
        { view: "source", size: 72 },
        { view: "stdouterr", size: 28 },
      ],
    },
    {
      size: 42,
      panes: [
        { view: "stack", size: 34 },
        { view: "variables", size: 32 },
        { view: "notebook", size: 34 },
      ],
    },
  ],
};

/** Two panes of the same kind of the same thing are one. */
export function paneId(p: Pick<Pane, "view" | "of">): string {
  return p.of === undefined ? p.view : `${p.view} ${p.of}`;
}

export function findPane(l: Layout, id: string): { column: number; index: number; pane: Pane } | null {
  for (const [column, c] of l.columns.entries())
    for (const [index, pane] of c.panes.entries()) if (paneId(pane) === id) return { column, index, pane };
  return null;
}

function withoutEmpty(columns: readonly Column[]): Layout {
  return { columns: columns.filter((c) => c.panes.length > 0) };
}

export function closePane(l: Layout, id: string): Layout {
  return withoutEmpty(l.columns.map((c) => ({ ...c, panes: c.panes.filter((p) => paneId(p) !== id) })));
}

export function changePane(l: Layout, id: string, change: Partial<Pane>): Layout {
  return {
    columns: l.columns.map((c) => ({
      ...c,
      panes: c.panes.map((p) => (paneId(p) === id ? { ...p, ...change } : p)),
    })),
  };
}

const average = (panes: readonly Pane[]): number =>
  panes.length ? panes.reduce((sum, p) => sum + p.size, 0) / panes.length : 30;

/** Panes of one column that are open at most, when another one comes; and those of them that answer one question. */
const MOST_OPEN = 5;
const MOST_ANSWERS = 3;

/** A further gdb has an `of`, too, but nobody wants it to end because of another question. */
const isAnswer = (p: Pick<Pane, "view" | "of">): boolean => p.of !== undefined && p.view !== "gdb";

/** The pane of a full column that is folded first: old answers, then what was opened later than the panes of the beginning. */
function leastWanted(panes: readonly Pane[], fresh: Pane): Pane | undefined {
  const open = panes.filter((p) => !p.collapsed && p !== fresh).reverse();
  const beginning = (p: Pane): boolean => DEFAULT_LAYOUT.columns.some((c) => c.panes.some((d) => d.view === p.view));
  return open.find(isAnswer) ?? open.find((p) => !beginning(p)) ?? open.find((p) => p.view !== "stack");
}

/**
 * Adds a pane at the top of the rightmost column, or shows it if it is there. So that panes stay high enough to be read, those that
 * answer one question (they have an `of`) make room for each other, the newest few stay; and a full column folds others.
 */
export function openPane(l: Layout, pane: Omit<Pane, "size">): Layout {
  const id = paneId(pane);
  const found = findPane(l, id);
  if (found) return found.pane.collapsed ? changePane(l, id, { collapsed: false }) : l;
  const last = l.columns[l.columns.length - 1];
  if (!last) return { columns: [{ size: 100, panes: [{ ...pane, size: 100 }] }] };
  const answers = last.panes.filter(isAnswer);
  const leaving = !isAnswer(pane) ? [] : answers.slice(MOST_ANSWERS - 1);
  const kept = last.panes.filter((p) => !leaving.includes(p));
  const size = Math.max(average(kept), 10) * (pane.view === "gdb" ? 2 : 1); // a terminal needs lines
  const fresh: Pane = { ...pane, size };
  let panes = [fresh, ...kept];
  while (panes.filter((p) => !p.collapsed).length > MOST_OPEN) {
    const folded = leastWanted(panes, fresh);
    if (!folded) break;
    panes = panes.map((p) => (p === folded ? { ...p, collapsed: true } : p));
  }
  return { columns: [...l.columns.slice(0, -1), { ...last, panes }] };
}

export interface Target {
  readonly column: number;
  /** Place within the column; null: a new column before `column`. */
  readonly index: number | null;
  /** The pane there, if the moved one is to be joined to it. */
  readonly into?: string;
}

/** Moves a pane. The target is meant as the layout is now, with the pane still in its old place. */
export function movePane(l: Layout, id: string, to: Target): Layout {
  const from = findPane(l, id);
  if (!from) return l;
  if (to.index === null) {
    const size = l.columns.reduce((sum, c) => sum + c.size, 0) / (l.columns.length + 1);
    const fresh: Column = { size, panes: [{ ...from.pane, size: 100 }] };
    const columns = l.columns.map((c) => ({ ...c, panes: c.panes.filter((p) => p !== from.pane) }));
    return withoutEmpty([...columns.slice(0, to.column), fresh, ...columns.slice(to.column)]);
  }
  const index = to.index - (from.column === to.column && from.index < to.index ? 1 : 0);
  const columns = l.columns.map((c, i) => {
    const panes = c.panes.filter((p) => p !== from.pane);
    if (i !== to.column) return { ...c, panes };
    const pane = from.column === to.column ? from.pane : { ...from.pane, size: average(panes) };
    return { ...c, panes: [...panes.slice(0, index), pane, ...panes.slice(index)] };
  });
  return withoutEmpty(columns);
}

/** Moves a pane with the keyboard: within its column, or to the column beside (a new one at the edge). */
export function nudgePane(l: Layout, id: string, direction: "left" | "right" | "up" | "down"): Layout {
  const from = findPane(l, id);
  if (!from) return l;
  const alone = l.columns[from.column]?.panes.length === 1;
  switch (direction) {
    case "up":
      return from.index > 0 ? movePane(l, id, { column: from.column, index: from.index - 1 }) : l;
    case "down":
      return movePane(l, id, { column: from.column, index: from.index + 2 });
    case "left":
      if (from.column > 0) return movePane(l, id, { column: from.column - 1, index: 0 });
      return alone ? l : movePane(l, id, { column: 0, index: null });
    case "right":
      if (from.column < l.columns.length - 1) return movePane(l, id, { column: from.column + 1, index: 0 });
      return alone ? l : movePane(l, id, { column: l.columns.length, index: null });
  }
}

/** Where everything is, in pixels of the space that panes share. */
export function place(l: Layout, width: number, height: number): { panes: PlacedPane[]; borders: Border[] } {
  const panes: PlacedPane[] = [];
  const borders: Border[] = [];
  const total = l.columns.reduce((sum, c) => sum + c.size, 0) || 1;
  let left = 0;
  let share = 0;
  l.columns.forEach((c, column) => {
    share += c.size;
    const right = column === l.columns.length - 1 ? width : Math.round((share / total) * width);
    const columnWidth = Math.max(right - left - (column < l.columns.length - 1 ? GAP : 0), 0);
    const open = c.panes.filter((p) => !p.collapsed);
    const openTotal = open.reduce((sum, p) => sum + p.size, 0) || 1;
    const room = Math.max(height - (c.panes.length - open.length) * (TITLE_HEIGHT + GAP), 0);
    let top = 0;
    let used = 0;
    let openShare = 0;
    c.panes.forEach((pane, index) => {
      let h = TITLE_HEIGHT;
      if (!pane.collapsed) {
        openShare += pane.size;
        const end = Math.round((openShare / openTotal) * room);
        h = Math.max(end - used - GAP, 0);
        used = end;
      }
      panes.push({ pane, column, index, left, top, width: columnWidth, height: h });
      top += h + GAP;
      if (index < c.panes.length - 1)
        borders.push({ column, index, left, top: top - GAP, width: columnWidth, height: GAP });
    });
    if (column < l.columns.length - 1)
      borders.push({ column, index: null, left: right - GAP, top: 0, width: GAP, height });
    left = right;
  });
  return { panes, borders };
}

/** Drags a border by so many pixels. */
export function moveBorder(l: Layout, b: Pick<Border, "column" | "index">, by: number, width: number, height: number): Layout {
  if (b.index === null) {
    const total = l.columns.reduce((sum, c) => sum + c.size, 0);
    const one = l.columns[b.column];
    const two = l.columns[b.column + 1];
    if (!one || !two || width <= 0) return l;
    const least = Math.min((MIN_COLUMN / width) * total, one.size, two.size);
    const delta = Math.min(Math.max((by / width) * total, least - one.size), two.size - least);
    return {
      columns: l.columns.map((c, i) =>
        i === b.column ? { ...c, size: c.size + delta } : i === b.column + 1 ? { ...c, size: c.size - delta } : c,
      ),
    };
  }
  const column = l.columns[b.column];
  if (!column || height <= 0) return l;
  // The border moves the nearest open panes above and below it.
  const above = column.panes.slice(0, b.index + 1).reverse().find((p) => !p.collapsed);
  const below = column.panes.slice(b.index + 1).find((p) => !p.collapsed);
  if (!above || !below) return l;
  const total = column.panes.reduce((sum, p) => sum + (p.collapsed ? 0 : p.size), 0);
  const least = Math.min(((2 * TITLE_HEIGHT) / height) * total, above.size, below.size);
  const delta = Math.min(Math.max((by / height) * total, least - above.size), below.size - least);
  const panes = column.panes.map((p) =>
    p === above ? { ...p, size: p.size + delta } : p === below ? { ...p, size: p.size - delta } : p,
  );
  return { columns: l.columns.map((c) => (c === column ? { ...c, panes } : c)) };
}

/**
 * Where a pane dropped at (x, y) goes, and what to show there. Near a column's side edges a new column is made; in the middle of a pane that it can be
 * joined to (`joins`) it is.
 */
export function dropTarget(
  l: Layout,
  width: number,
  height: number,
  x: number,
  y: number,
  joins: (pane: Pane) => boolean = () => false,
): { to: Target; mark: Rect } | null {
  const { panes } = place(l, width, height);
  const at = panes.find((p) => x >= p.left && x < p.left + p.width + GAP && y >= p.top && y < p.top + p.height + GAP);
  if (!at) return null;
  const edge = Math.min(48, at.width / 5);
  if (x < at.left + edge)
    return { to: { column: at.column, index: null }, mark: { left: at.left, top: 0, width: edge, height } };
  if (x > at.left + at.width - edge)
    return {
      to: { column: at.column + 1, index: null },
      mark: { left: at.left + at.width - edge, top: 0, width: edge, height },
    };
  if (Math.abs(y - at.top - at.height / 2) < at.height / 4 && joins(at.pane)) {
    const { left, top, width: across, height: down } = at;
    return { to: { column: at.column, index: at.index, into: paneId(at.pane) }, mark: { left, top, width: across, height: down } };
  }
  const upper = y < at.top + at.height / 2;
  const half = at.height / 2;
  return {
    to: { column: at.column, index: upper ? at.index : at.index + 1 },
    mark: { left: at.left, top: upper ? at.top : at.top + half, width: at.width, height: half },
  };
}
