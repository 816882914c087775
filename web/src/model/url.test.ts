import { describe, expect, it } from "vitest";
import { DEFAULT_LAYOUT, type Layout } from "./layout";
import { decodeFocus, decodeLayout, encodeFocus, encodeLayout, readHash, writeHash } from "./url";

describe("the URL", () => {
  const focus = { moment: { event: 263, instr: 645 }, task: { tid: 0, serial: 2 }, frame: 1 };
  const layout: Layout = {
    columns: [
      { size: 61.5, panes: [{ view: "source", size: 70 }, { view: "stdouterr", size: 30, collapsed: true }] },
      {
        size: 38.5,
        panes: [
          { view: "execution", of: "1:12,9b", label: "a~b*c|d&e#f%20 ü", condition: "x > 3 && y != 'z'", print: "x; *p", size: 50 },
        ],
      },
    ],
  };
  it("holds a focus", () => expect(decodeFocus(encodeFocus(focus))).toEqual(focus));
  it("holds a layout with any text", () => expect(decodeLayout(encodeLayout(layout))).toEqual(layout));
  it("holds both", () => expect(readHash(writeHash(focus, layout))).toEqual({ focus, layout }));
  it("needs no quoting itself", () => expect(writeHash(focus, layout)).toMatch(/^#f=[\d.]+&l=[\w:*~,/.%-]+$/));
  it("refuses what is no focus", () => {
    for (const bad of ["", "1.x", "-1.2", "1e3.0", "1", "1..2", "99999999999999999999.0"]) expect(decodeFocus(bad)).toBeNull();
  });
  it("refuses a damaged layout", () => {
    for (const bad of ["%zz", "", "/", "30:", "30:%zz*3"]) expect(decodeLayout(bad)).toBeNull();
    expect(decodeLayout(`1:${"a*1,".repeat(1000)}`)).toBeNull();
  });
  it("gives absurd sizes a sane one", () =>
    expect(decodeLayout("nan:stack*-5")).toEqual({ columns: [{ size: 30, panes: [{ view: "stack", size: 5 }] }] }));
  it("can be empty", () => expect(readHash("")).toEqual({ focus: null, layout: null }));
  it("holds the layout that a session begins with", () =>
    expect(decodeLayout(encodeLayout(DEFAULT_LAYOUT))).toEqual(DEFAULT_LAYOUT));
});
