import { describe, expect, it } from "vitest";
import { addressText, asciiText, bytesText, decimalText, dumpLines, parseAddress } from "./bytes";

describe("bytes", () => {
  it("are little-endian numbers where they can be", () => {
    expect(bytesText("0100")).toBe("0x1");
    expect(bytesText("00000000")).toBe("0x0");
    expect(bytesText("7269")).toBe("0x6972");
    expect(bytesText("010203")).toBe("010203");
    expect(bytesText(null)).toBe("not mapped");
  });
  it("are decimal when that is short", () => {
    expect(decimalText("ff")).toBe("255");
    expect(decimalText("ffffffff")).toBe("-1");
    expect(decimalText("0010000000000000")).toBe("4096");
    expect(decimalText("f0debc9a78563412")).toBe("");
    expect(decimalText("010203")).toBe("");
  });
  it("are text when all of them are", () => {
    expect(asciiText("72696e6720746865")).toBe('"ring the"');
    expect(asciiText("726900ff")).toBe('"ri"');
    expect(asciiText("7200")).toBe("");
    expect(asciiText("ff69")).toBe("");
  });
});

describe("a dump", () => {
  it("has sixteen bytes a line, and says what is not mapped", () => {
    const lines = dumpLines(0x1000n, "41".repeat(18), [["0x1011", "0x1012"]]);
    expect(lines.map((l) => addressText(l.address))).toEqual(["0x1000", "0x1010"]);
    expect(lines[0]?.ascii).toBe("A".repeat(16));
    expect(lines[1]?.bytes).toEqual(["41", null]);
    expect(lines[1]?.ascii).toBe("A ");
  });
});

it("addresses are read as they are written", () => {
  expect(parseAddress("0x7FFE0010")).toBe(0x7ffe0010n);
  expect(parseAddress("12")).toBeNull();
  expect(parseAddress("0x12345678901234567")).toBeNull();
});
