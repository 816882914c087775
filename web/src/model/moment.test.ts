import { expect, it } from "vitest";
import { compareMoments, momentText, parseMoment } from "./moment";

it("orders by event, then instructions", () => {
  const moments = [
    { event: 2, instr: 0 },
    { event: 1, instr: 9 },
    { event: 1, instr: 10 },
  ];
  expect(moments.sort(compareMoments).map((m) => m.instr)).toEqual([9, 10, 0]);
});
it("is written with thin separators, and read again", () => {
  const m = { event: 1024, instr: 1_234_567 };
  expect(momentText(m)).toBe("1\u202f024+1\u202f234\u202f567");
  expect(parseMoment(momentText(m))).toEqual(m);
  expect(momentText({ event: 5, instr: 0 })).toBe("5");
});
it("is read as users type it", () => {
  expect(parseMoment("263+645")).toEqual({ event: 263, instr: 645 });
  expect(parseMoment(" 1,024 + 7 ")).toEqual({ event: 1024, instr: 7 });
  expect(parseMoment("0x12")).toBeNull();
  expect(parseMoment("main")).toBeNull();
  expect(parseMoment("99999999999999999999")).toBeNull();
});
