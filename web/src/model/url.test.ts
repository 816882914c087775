import { describe, expect, it } from "vitest";
import { decodeFocus, decodeLayout, encodeFocus, encodeLayout, readHash, writeHash } from "./url";

describe("the URL", () => {
  const focus = { moment: { event: 263, instr: 645 }, task: { tid: 0, serial: 2 }, frame: 1 };
  const layout = {
    columns: [[{ view: "source" }, { view: "stdouterr" }], [{ view: "execution", of: "1:12,9b", label: "a|b~c" }]],
  };
  it("holds a focus", () => expect(decodeFocus(encodeFocus(focus))).toEqual(focus));
  it("holds a layout with any label", () => expect(decodeLayout(encodeLayout(layout))).toEqual(layout));
  it("holds both", () => expect(readHash(writeHash(focus, layout))).toEqual({ focus, layout }));
  it("refuses what is no focus", () => {
    expect(decodeFocus("")).toBeNull();
    expect(decodeFocus("1.x")).toBeNull();
    expect(decodeFocus("-1.2")).toBeNull();
  });
  it("refuses a damaged layout", () => expect(decodeLayout("%zz")).toBeNull());
});
