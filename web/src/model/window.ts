// A stretch of a question's rows around a moment, in order of time, that grows at both ends and never grows beyond a bound.
import type { Moment, Timed } from "../wire/types";
import { after, compareMoments } from "./moment";

export interface RowWindow<Row> {
  readonly rows: readonly Row[];
  /** There are further rows before the first one, behind the last one. */
  readonly moreBefore: boolean;
  readonly moreAfter: boolean;
  /** Place of rows[0], counted from where the window began: falls when rows come in front. */
  readonly origin: number;
}

/** Rows kept at most; the far end goes when the near one grows. */
export const MAX_ROWS = 4000;

export const EMPTY_WINDOW: RowWindow<never> = { rows: [], moreBefore: true, moreAfter: true, origin: 0 };

/** Rows before the window as they come from the server: nearest first. */
export function addBefore<Row>(w: RowWindow<Row>, nearestFirst: readonly Row[], more: boolean, most = MAX_ROWS): RowWindow<Row> {
  const rows = [...[...nearestFirst].reverse(), ...w.rows];
  const kept = rows.slice(0, most);
  return {
    rows: kept,
    moreBefore: more,
    moreAfter: w.moreAfter || kept.length < rows.length,
    origin: w.origin - nearestFirst.length,
  };
}

export function addAfter<Row>(w: RowWindow<Row>, next: readonly Row[], more: boolean, most = MAX_ROWS): RowWindow<Row> {
  const rows = [...w.rows, ...next];
  const gone = Math.max(rows.length - most, 0);
  return {
    rows: rows.slice(gone),
    moreBefore: w.moreBefore || gone > 0,
    moreAfter: more,
    origin: w.origin + gone,
  };
}

/** Where to ask on: the `from` of the next query at an end. null: the window is empty. */
export function fromBefore<Row extends Timed>(w: RowWindow<Row>): Moment | null {
  return w.rows[0]?.focus.moment ?? null;
}
export function fromAfter<Row extends Timed>(w: RowWindow<Row>): Moment | null {
  const last = w.rows[w.rows.length - 1];
  return last ? after(last.focus.moment) : null;
}

/** Does the window hold what is next to `m` on both sides? Then a focus there needs no new question. */
export function covers<Row extends Timed>(w: RowWindow<Row>, m: Moment): boolean {
  const first = w.rows[0];
  const last = w.rows[w.rows.length - 1];
  if (!first || !last) return !w.moreBefore && !w.moreAfter;
  return (
    (!w.moreBefore || compareMoments(first.focus.moment, m) < 0) &&
    (!w.moreAfter || compareMoments(m, last.focus.moment) < 0)
  );
}

/** Number of rows at or before `m`: where the line of now is. rows: in order of time. */
export function countPast<Row extends Timed>(rows: readonly Row[], m: Moment): number {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    const row = rows[mid];
    if (row && compareMoments(row.focus.moment, m) <= 0) low = mid + 1;
    else high = mid;
  }
  return low;
}
