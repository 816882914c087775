import { describe, expect, it } from "vitest";
import type { TimelineRow } from "../wire/types";
import { bars, columnCount, inSpan, momentAt, positionOf, widened, zoomed } from "./timeline";

const m = (event: number, instr: number) => ({ event, instr });
const axis: TimelineRow = {
  from: m(0, 0),
  to: m(10, 0),
  instructions: 400,
  columns: [m(0, 0), m(2, 50), m(2, 150), m(5, 0), m(10, 0)],
  lanes: [],
  segments: [0, 1.5, 3],
};

describe("the timeline's axis", () => {
  it("has a column less than boundaries", () => expect(columnCount(axis)).toBe(4));
  it("places moments of one event by instructions", () => expect(positionOf(axis, m(2, 100))).toBe(1.5));
  it("places moments of several events by events", () => expect(positionOf(axis, m(1, 7))).toBe(0.5));
  it("ends where the recording does", () => {
    expect(positionOf(axis, m(99, 0))).toBe(4);
    expect(positionOf(axis, m(0, 0))).toBe(0);
  });
  it("gives back the moment of a position", () => {
    expect(momentAt(axis, 1.5)).toEqual(m(2, 100));
    expect(momentAt(axis, 2.9)).toEqual(m(2, 150));
    expect(momentAt(axis, -1)).toEqual(m(0, 0));
    expect(momentAt(axis, 99)).toEqual(m(10, 0));
  });
  it("knows what is in it", () => {
    expect(inSpan(axis, m(10, 0))).toBe(true);
    expect(inSpan(axis, m(10, 1))).toBe(false);
  });
  it("zooms in about a position", () => {
    expect(zoomed(axis, 2, 0.5)).toEqual({ from: m(2, 50), to: m(5, 0) });
    expect(zoomed(axis, 2, 1e-9)).toEqual({ from: m(2, 149), to: m(2, 150) });
  });
  it("zooms out to a longer part, and then to the whole", () => {
    expect(widened(axis, { from: m(2, 75), to: m(2, 125) }, 1.5)).toEqual({ from: m(2, 62), to: m(2, 137) });
    expect(widened(axis, { from: m(2, 50), to: m(5, 0) }, 2)).toBeNull();
  });
});

describe("density", () => {
  it("lies between segments, cut to the axis", () => {
    expect(bars(axis, [3, 0, 8])).toEqual([
      { start: 0, end: 1.5, count: 3 },
      { start: 3, end: 4, count: 8 },
    ]);
    expect(bars({ ...axis, segments: [-9, -2, 7] }, [3, 4, 8])).toEqual([{ start: 0, end: 4, count: 4 }]);
  });
  it("ignores buckets without a segment", () => expect(bars(axis, [0, 0, 0, 5])).toEqual([]));
});
