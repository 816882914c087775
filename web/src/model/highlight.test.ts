import { expect, it } from "vitest";
import { tokens } from "./highlight";

it("keeps every character", () => {
  const line = 'int x = f("a\\"b", 0x1f); // done';
  expect(tokens(line, false).tokens.map((t) => t.text).join("")).toBe(line);
});
it("carries a block comment over lines", () => {
  expect(tokens("a /* b", false).inComment).toBe(true);
  expect(tokens("c */ d", true)).toEqual({
    tokens: [
      { text: "c */", kind: "comment" },
      { text: " ", kind: "plain" },
      { text: "d", kind: "word" },
    ],
    inComment: false,
  });
});
