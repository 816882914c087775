import { describe, expect, it } from "vitest";
import type { Note } from "../wire/types";
import { inOrder, markdown, type NamedNote, naturalOrder, noteAt, orderingAt, tentativeIndex } from "./notebook";

const note = (event: number, ordering = event, text = ""): Note => ({
  focus: { moment: { event, instr: 0 } },
  ordering,
  text,
  snippet: `f at a_b.c:${event}`,
});
const named = (...notes: Note[]): NamedNote[] => notes.map((n, i): NamedNote => [`notebook/${i}`, n]);

describe("notes", () => {
  it("stand in the order of time until they are moved", () => {
    const notes = new Map(named(note(9), note(3), note(5, 100)));
    expect(inOrder(notes).map(([, n]) => n.focus.moment.event)).toEqual([3, 9, 5]);
  });
  it("can be moved between any two", () => {
    const others = named(note(1), note(2));
    expect(orderingAt(others, 0)).toBeLessThan(1);
    expect(orderingAt(others, 1)).toBe(1.5);
    expect(orderingAt(others, 2)).toBeGreaterThan(2);
    expect(orderingAt([], 0)).toBe(0);
  });
  it("leave the tentative one its place in time", () => {
    const notes = named(note(1), note(5));
    expect(tentativeIndex(notes, { moment: { event: 3, instr: 0 } })).toBe(1);
    expect(tentativeIndex(notes, { moment: { event: 5, instr: 7 } })).toBe(2);
    expect(tentativeIndex(notes, { moment: { event: 0, instr: 7 } })).toBe(0);
  });
  it("order by instructions within an event", () =>
    expect(naturalOrder({ moment: { event: 3, instr: 8 } })).toBeGreaterThan(naturalOrder({ moment: { event: 3, instr: 7 } })));
  it("are found by their focus", () => {
    const notes = new Map(named(note(1), note(5)));
    expect(noteAt(notes, { moment: { event: 5, instr: 0 }, frame: 0 })).toBe("notebook/1");
    expect(noteAt(notes, { moment: { event: 5, instr: 0 }, frame: 1 })).toBeNull();
  });
  it("become Markdown with links", () => {
    const text = markdown("a*b", named(note(5, 5, "why?\n\nbecause")), (f) => `http://h/#f=${f.moment.event}`);
    expect(text).toBe("# a\\*b\n\n- [f at a\\_b.c:5](http://h/#f=5) (5)\n  why?\n  because\n");
  });
});
