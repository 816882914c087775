import { expect, test } from "vitest";
import type { LifeRow } from "../wire/types";
import { lifeEvents, lifeText, sizeText, stateText } from "./heap";

const at = (event: number) => ({ moment: { event, instr: 0 }, task: { tid: 7, serial: 1 }, frame: 1 });
const task = { tid: 7, serial: 1 };
const place: LifeRow = { kind: "place", address: "0x1010", mapping: { start: "0x1000", end: "0x2000", prot: "rw-p", name: "[heap]" } };
const allocation = (id: number, event: number, more: object): LifeRow =>
  ({ kind: "allocation", id, state: "freed", start: "0x1000", size: 24, call: "malloc", focus: at(event), end: at(event).moment, task, ...more });
const free = (of: number, event: number, more: object = {}): LifeRow => ({ kind: "free", of, call: "free", focus: at(event), task, ...more });

test("rows of lives are in order of time, and say what happened", () => {
  const rows = [place, allocation(1, 30, { offset: 16 }), free(1, 40), free(1, 50, { again: true }), allocation(2, 10, { offset: 0 }), free(2, 20, { moved: { start: "0x3000", size: 99 } })];
  const events = lifeEvents(rows);
  expect(events.map((r) => r.focus.moment.event)).toEqual([10, 20, 30, 40, 50]);
  expect(events.map(lifeText)).toEqual(["allocated", "resized", "allocated", "freed", "freed again"]);
});

test("where the address is within an allocation, or behind it", () => {
  const text = (more: object): string => {
    const [event] = lifeEvents([allocation(1, 1, more)]);
    return event?.kind === "allocation" ? sizeText(event) : "";
  };
  expect(text({ offset: 0 })).toBe("24 bytes");
  expect(text({ offset: 8 })).toBe("24 bytes, at +8");
  expect(text({ behind: 0 })).toBe("24 bytes, 0 behind its end");
});

test("what the address is", () => {
  expect(stateText([], true)).toBe("");
  expect(stateText([place], true)).toBe("[heap]");
  expect(stateText([place], false)).toBe("[heap], never allocated until then");
  expect(stateText([{ kind: "place", address: "0x8" }], false)).toBe("not mapped, never allocated until then");
  expect(stateText([{ ...place, stackOf: task }], false)).toBe("stack of 7");
  expect(stateText([place, allocation(1, 1, { offset: 1 }), free(1, 2)], false)).toBe("freed");
  expect(stateText([place, allocation(1, 1, { offset: 1, state: "alive" })], false)).toBe("allocated");
  expect(stateText([place, allocation(1, 1, { offset: 1 }), allocation(2, 0, { behind: 4, state: "alive" })], false)).toBe("in no allocation: behind one");
});
