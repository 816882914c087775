import { expect, it } from "vitest";
import { identifiers, mentioned, valuesText } from "./annotate";

it("finds identifiers, not members, strings and comments", () =>
  expect(identifiers('  a->b = c.d + "e" + f(x1, \'g\'); /* h */ // i')).toEqual(["a", "c", "f", "x1"]));
it("takes the innermost of variables with one name", () => {
  const variables = [
    { name: "i", value: { text: "1" } },
    { name: "n", value: { why: "optimized out here" } },
    { name: "i", value: { text: "2" } },
  ];
  expect(valuesText(mentioned("for (; i < n; i++)", variables))).toBe("i = 2");
});
it("is short", () => expect(valuesText([{ name: "s", value: { text: "x".repeat(99) } }]).length).toBe(45));
