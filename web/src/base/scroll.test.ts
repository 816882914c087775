import { describe, expect, it } from "vitest";
import { barHeight, barTop, listTop, MAX_HEIGHT, rowsSeen } from "./scroll";

describe("a short list", () => {
  const e = { count: 100, rowHeight: 21, viewHeight: 210 };
  it("is scrolled pixel by pixel", () => {
    expect(barHeight(e)).toBe(2100);
    expect(listTop(e, 333)).toBe(333);
  });
  it("shows the rows of the view and a margin", () =>
    expect(rowsSeen(e, 420, 2)).toEqual({ first: 18, end: 32 }));
  it("does not go past its ends", () => {
    expect(barTop(e, 1e9)).toBe(1890);
    expect(barTop(e, -5)).toBe(0);
    expect(rowsSeen(e, 0)).toEqual({ first: 0, end: 16 });
  });
  it("may be empty", () => expect(rowsSeen({ ...e, count: 0 }, 0)).toEqual({ first: 0, end: 0 }));
});

describe("a list of ten million rows", () => {
  const e = { count: 10_000_000, rowHeight: 21, viewHeight: 420 };
  it("fits what browsers can lay out", () => expect(barHeight(e)).toBe(MAX_HEIGHT));
  it("reaches its last row at the bar's end", () => {
    const top = listTop(e, MAX_HEIGHT - e.viewHeight);
    expect(rowsSeen(e, top, 0).end).toBe(e.count);
  });
  it("comes back to where it was", () => {
    const top = 123_456_789;
    expect(listTop(e, barTop(e, top))).toBeCloseTo(top, 3);
  });
});
