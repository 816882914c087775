// The axis of the timeline: instructions executed, in equal columns (query `timeline`). Positions are in columns, 0 to `count`.
import type { Moment, TimelineRow } from "../wire/types";
import { compareMoments } from "./moment";

export interface Span {
  readonly from: Moment;
  readonly to: Moment;
}

export function columnCount(t: TimelineRow): number {
  return Math.max(t.columns.length - 1, 1);
}

/** Where a moment is; outside of the axis: at its nearer end. */
export function positionOf(t: TimelineRow, m: Moment): number {
  const c = t.columns;
  let low = 0;
  let high = c.length - 1;
  while (low < high) {
    const mid = (low + high + 1) >> 1;
    const at = c[mid];
    if (at && compareMoments(at, m) <= 0) low = mid;
    else high = mid - 1;
  }
  const start = c[low];
  const end = c[low + 1];
  if (!start || !end || compareMoments(m, start) <= 0) return low;
  // Within one event instructions are known; over several, events are taken as equally long: it is less than a column.
  const share =
    start.event === end.event
      ? (m.instr - start.instr) / Math.max(end.instr - start.instr, 1)
      : (m.event - start.event) / Math.max(end.event - start.event, 1);
  return low + Math.min(Math.max(share, 0), 1);
}

/** The moment at a position. Within a column of several events: the column's start, rather than a made-up one. */
export function momentAt(t: TimelineRow, position: number): Moment {
  const last = t.columns.length - 1;
  const column = Math.min(Math.max(Math.floor(position), 0), last);
  const start = t.columns[column] ?? t.from;
  const end = t.columns[column + 1];
  if (!end || start.event !== end.event) return start;
  const share = Math.min(Math.max(position - column, 0), 1);
  return { event: start.event, instr: start.instr + Math.floor((end.instr - start.instr) * share) };
}

export function inSpan(t: TimelineRow, m: Moment): boolean {
  return compareMoments(m, t.from) >= 0 && compareMoments(m, t.to) <= 0;
}

export interface Bar {
  readonly start: number;
  readonly end: number;
  readonly count: number;
}

/** The buckets of `counts`, one for each segment of the recording, as bars of the axis; those outside of it are left out. */
export function bars(t: TimelineRow, buckets: readonly number[]): Bar[] {
  const columns = columnCount(t);
  const out: Bar[] = [];
  buckets.forEach((count, i) => {
    const start = t.segments[i];
    const end = t.segments[i + 1] ?? Math.max(columns, start ?? 0);
    if (count > 0 && start !== undefined && end > 0 && start < columns)
      out.push({ start: Math.max(start, 0), end: Math.min(end, columns), count });
  });
  return out;
}

/** A shorter span about a position, which stays where it is. */
export function zoomed(t: TimelineRow, position: number, factor: number): Span {
  const from = momentAt(t, position * (1 - factor));
  const to = momentAt(t, position * (1 - factor) + columnCount(t) * factor);
  return compareMoments(from, to) < 0 ? { from, to } : { from: t.from, to: t.to };
}

/** A longer span about the middle of one, as precise as the axis of the whole recording. null: the whole. */
export function widened(whole: TimelineRow, span: Span, factor: number): Span | null {
  const start = positionOf(whole, span.from);
  const end = positionOf(whole, span.to);
  const half = (Math.max(end - start, 0.02) * factor) / 2;
  const middle = (start + end) / 2;
  if (middle - half <= 0 && middle + half >= columnCount(whole)) return null;
  return { from: momentAt(whole, middle - half), to: momentAt(whole, middle + half) };
}
