import { describe, expect, it } from "vitest";
import type { DataflowRow } from "../wire/types";
import { flowDepths, flowText, kindText, parseFlow } from "./dataflow";

const at = { moment: { event: 263, instr: 645 }, task: { tid: 0, serial: 2 }, frame: 0 };

describe("a value at a moment", () => {
  it("is read back as it was written", () => {
    for (const what of [{ register: "rdi" }, { address: "0x7ffe10", length: 8 }])
      expect(parseFlow(flowText(what, at))).toEqual({ what, focus: at });
  });
  it("is of no more bytes than one question follows", () => {
    expect(flowText({ address: "0x10", length: 4096 }, at)).toMatch(/^0x10:64@/);
  });
  it("is nothing when it makes no sense", () => {
    for (const text of ["", "rdi", "@263.645.2.0", "rdi@x", "stack:8@263.645.2.0"]) expect(parseFlow(text)).toBeNull();
  });
});

describe("what a row says of the bytes", () => {
  const row = (more: object): DataflowRow => ({ id: 1, ...more }) as DataflowRow;
  it("names what they came through", () => {
    expect(kindText(row({ kind: "transfer", through: "pipe" }), {})).toBe("through a pipe");
  });
  it("is the kind's word, or the kind", () => {
    expect(kindText(row({ kind: "copy" }), { copy: "copied" })).toBe("copied");
    expect(kindText(row({ kind: "new", faulted: true }), {})).toBe("new, faulted");
  });
});

describe("rows of a tree", () => {
  it("lie deeper behind operations, not behind copies", () => {
    const row = (id: number, parent: number | undefined, kind: string): DataflowRow =>
      ({ id, kind, ...(parent === undefined ? {} : { parent }) }) as DataflowRow;
    const rows = [row(1, undefined, "copy"), row(2, 1, "arithmetic"), row(3, 2, "copy"), row(4, 3, "constant"), row(5, 2, "input")];
    expect(flowDepths(rows)).toEqual([0, 0, 1, 1, 1]);
  });
  it("lie no deeper in another task", () => {
    const rows = [{ id: 1, kind: "output" }, { id: 2, parent: 1, kind: "transfer" }, { id: 3, parent: 2, kind: "copy" }] as DataflowRow[];
    expect(flowDepths(rows)).toEqual([0, 0, 0]);
  });
});
