// Scrolling through more rows than a browser's layout can be high (some 10 to 30 million pixels). Up to MAX_HEIGHT a pixel of the
// scroll bar is a pixel of the list; above it the bar is a scale of the list, and the wheel moves the list itself.

export const MAX_HEIGHT = 8_000_000;

export interface Extent {
  readonly count: number;
  readonly rowHeight: number;
  /** Of the part that is seen. */
  readonly viewHeight: number;
}

export function listHeight(e: Extent): number {
  return e.count * e.rowHeight;
}

/** Height of what the browser scrolls. */
export function barHeight(e: Extent): number {
  return Math.min(listHeight(e), MAX_HEIGHT);
}

export function isScaled(e: Extent): boolean {
  return listHeight(e) > MAX_HEIGHT;
}

function ratio(e: Extent): number {
  const bar = barHeight(e) - e.viewHeight;
  return bar > 0 ? (listHeight(e) - e.viewHeight) / bar : 1;
}

/** Place in the list, in pixels, of a place of the scroll bar. */
export function listTop(e: Extent, barTop: number): number {
  return isScaled(e) ? barTop * ratio(e) : barTop;
}

export function barTop(e: Extent, top: number): number {
  const most = Math.max(listHeight(e) - e.viewHeight, 0);
  const within = Math.min(Math.max(top, 0), most);
  return isScaled(e) ? within / ratio(e) : within;
}

/** Rows [first, end) that are seen, with a few on both sides. */
export function rowsSeen(e: Extent, top: number, margin = 6): { first: number; end: number } {
  const first = Math.max(Math.floor(top / e.rowHeight) - margin, 0);
  const end = Math.min(Math.ceil((top + e.viewHeight) / e.rowHeight) + margin, e.count);
  return { first: Math.min(first, end), end };
}
