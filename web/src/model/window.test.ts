import { describe, expect, it } from "vitest";
import { addAfter, addBefore, countPast, covers, EMPTY_WINDOW, fromAfter, fromBefore, type RowWindow } from "./window";

const row = (event: number) => ({ focus: { moment: { event, instr: 0 } } });
type Row = ReturnType<typeof row>;
const events = (w: RowWindow<Row>): number[] => w.rows.map((r) => r.focus.moment.event);
const at = (event: number) => ({ event, instr: 0 });

describe("a window of rows", () => {
  const w = addAfter(addBefore<Row>(EMPTY_WINDOW, [row(4), row(3)], true), [row(5), row(6)], false);
  it("is in order of time", () => expect(events(w)).toEqual([3, 4, 5, 6]));
  it("knows which end has more", () => expect([w.moreBefore, w.moreAfter]).toEqual([true, false]));
  it("asks on from its ends", () => {
    expect(fromBefore(w)).toEqual(at(3));
    expect(fromAfter(w)).toEqual({ event: 6, instr: 1 });
    expect(fromBefore(EMPTY_WINDOW)).toBeNull();
  });
  it("covers moments between its rows, and beyond an end without more", () => {
    expect(covers(w, at(4))).toBe(true);
    expect(covers(w, at(3))).toBe(false);
    expect(covers(w, at(99))).toBe(true);
    expect(covers(EMPTY_WINDOW, at(1))).toBe(false);
    expect(covers({ rows: [], moreBefore: false, moreAfter: false, origin: 0 }, at(1))).toBe(true);
  });
  it("counts the rows up to now", () => {
    expect(countPast(w.rows, at(2))).toBe(0);
    expect(countPast(w.rows, at(4))).toBe(2);
    expect(countPast(w.rows, { event: 4, instr: 9 })).toBe(2);
    expect(countPast(w.rows, at(7))).toBe(4);
  });
  it("lets go of the far end when it is full, and knows that there is more", () => {
    const later = addAfter(w, [row(7), row(8)], true, 4);
    expect(events(later)).toEqual([5, 6, 7, 8]);
    expect([later.moreBefore, later.moreAfter]).toEqual([true, true]);
    const earlier = addBefore(w, [row(2), row(1)], false, 4);
    expect(events(earlier)).toEqual([1, 2, 3, 4]);
    expect([earlier.moreBefore, earlier.moreAfter]).toEqual([false, true]);
  });
  it("keeps rows at their place when others come or go in front", () => {
    expect(w.origin).toBe(-2);
    expect(addBefore(w, [row(2), row(1)], true).origin).toBe(-4);
    expect(addAfter(w, [row(7), row(8)], true, 4).origin).toBe(0);
  });
});
