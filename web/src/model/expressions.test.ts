import { expect, it } from "vitest";
import { addExpression, expressionLikely, probes, splitExpressions, unfold } from "./expressions";

it("splits a field at commas and semicolons, but not within brackets or quotes", () => {
  expect(splitExpressions("a, b->c; d")).toEqual(["a", "b->c", "d"]);
  expect(splitExpressions("a[f(1, 2)], (x, y)")).toEqual(["a[f(1, 2)]", "(x, y)"]);
  expect(splitExpressions(`s == "a, \\", b", c == ','`)).toEqual([`s == "a, \\", b"`, "c == ','"]);
  expect(splitExpressions(" , ;")).toEqual([]);
});
it("adds an expression once", () => {
  expect(addExpression("", "a")).toBe("a");
  expect(addExpression("a, b", " c ")).toBe("a; b; c");
  expect(addExpression("a, b", "b")).toBe("a, b");
});
it("asks for nothing where the fields are blank", () => {
  expect(probes(" ", undefined)).toEqual({});
  expect(probes("p", "a, b")).toEqual({ condition: "p", print: ["a", "b"] });
});
it("tells expressions from names, places, addresses and moments", () => {
  for (const text of ["$rdi", "a->b", "list[3]", "*p", "x == 3", "(int)c", "!done"]) expect(expressionLikely(text)).toBe("yes");
  for (const text of ["count", "ns::total", "box.count", "a + b"]) expect(expressionLikely(text)).toBe("perhaps");
  for (const text of ["main.c:12", "0x7ffe", "263+645", "12", "dir/file-name"]) expect(expressionLikely(text)).toBe("no");
});

const leaf = (name: string) => ({ name, value: { text: name } });
const node = (name: string, expression: string) => ({ ...leaf(name), expression, unfolds: true });

it("lists the parts of open values below them, as deep as they are open", () => {
  const parts = new Map([
    ["p", { rows: [node("*", "*(p)")], more: false, failed: null }],
    ["*(p)", { rows: [leaf("a"), leaf("b")], more: true, failed: null }],
  ]);
  const lines = (open: string[]) => unfold([node("p", "p"), leaf("n")], new Set(open), (e) => parts.get(e)).map((l) => `${l.depth} ${l.note ?? l.row.name}`);
  expect(lines([])).toEqual(["0 p", "0 n"]);
  expect(lines(["p"])).toEqual(["0 p", "1 *", "0 n"]);
  expect(lines(["p", "*(p)"])).toEqual(["0 p", "1 *", "2 a", "2 b", "2 and more", "0 n"]);
  expect(lines(["*(p)"])).toEqual(["0 p", "0 n"]);
});
it("says why an open value has no parts, and shows nothing while they are not known", () => {
  const failed = { rows: [], more: false, failed: "0x10 cannot be read" };
  expect(unfold([node("p", "p")], new Set(["p"]), () => failed).map((l) => l.note ?? l.row.name)).toEqual(["p", "0x10 cannot be read"]);
  expect(unfold([node("p", "p")], new Set(["p"]), () => undefined)).toHaveLength(1);
});
