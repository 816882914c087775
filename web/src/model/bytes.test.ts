import { describe, expect, it } from "vitest";
import { addressText, asciiText, bytesOfHex, bytesText, decimalText, dumpLines, parseAddress, writtenPart } from "./bytes";

describe("bytes", () => {
  it("come as pairs of digits", () => {
    expect([...bytesOfHex("1b5B00ff")]).toEqual([0x1b, 0x5b, 0, 0xff]);
    expect([...bytesOfHex("")]).toEqual([]);
  });
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

it("of a range only what was written is shown", () => {
  expect(writtenPart("00112233", 0x100n, 0x101n, 2)).toBe("1122");
  expect(writtenPart("00112233", 0x100n, 0xf0n, 0x12)).toBe("0011");
  expect(writtenPart("00112233", 0x100n, 0x103n, 8)).toBe("33");
  expect(writtenPart("00112233", 0x100n, 0x200n, 8)).toBe("00112233");
  expect(writtenPart(null, 0x100n, 0x100n, 8)).toBeNull();
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
