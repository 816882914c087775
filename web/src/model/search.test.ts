import { expect, it } from "vitest";
import type { SearchRow } from "../wire/types";
import { hits } from "./search";

const views = [
  { view: "notebook", title: "Notebook", words: "notes" },
  { view: "stack", title: "Stack", words: "frames callers" },
  { view: "task-tree", title: "Task tree", words: "processes threads" },
];
const fn = (name: string): SearchRow => ({
  kind: "function",
  title: name,
  detail: "",
  action: { view: "execution", function: { name, full: name, id: name } },
});
const titles = (input: string, rows: SearchRow[] = []): string[] =>
  hits(input, rows, views, null)
    .filter((h) => h.kind !== "expression")
    .map((h) => h.title);

it("puts a function that is called so first, then views, then the rest", () =>
  expect(titles("stack", [fn("stack_push"), fn("stack")])).toEqual(["stack", "Stack", "stack_push"]));
it("finds views by the beginnings of their words, in either case", () => {
  expect(titles("NOTE")).toEqual(["Notebook"]);
  expect(titles("thre")).toEqual(["Task tree"]);
  expect(titles("task tr")).toEqual(["Task tree"]);
  expect(titles("ook")).toEqual([]);
});
it("understands moments and addresses", () => {
  expect(hits("263+645", [], views, null)[0]?.action.focus).toEqual({ moment: { event: 263, instr: 645 } });
  expect(hits("0x7ffe", [], views, null).map((h) => h.action.view)).toEqual(["memory", "watchpoint"]);
});
it("takes its own views, not those of the server", () =>
  expect(titles("notebook", [{ kind: "view", title: "Notebook", detail: "", action: { view: "notebook" } }])).toEqual(["Notebook"]));
it("offers to evaluate what may be an expression: first if it can be nothing else, last if it may be a name", () => {
  const kinds = (input: string, rows: SearchRow[] = []): string[] => hits(input, rows, views, null).map((h) => h.kind);
  expect(kinds("list->first")).toEqual(["expression"]);
  expect(kinds("stack", [fn("stack_push"), fn("stack")])).toEqual(["function", "view", "function", "expression"]);
  expect(kinds("main.c:12")).toEqual([]);
  expect(hits("a[1]", [], views, null)[0]?.action).toEqual({ view: "evaluate", expression: "a[1]" });
});
it("finds the executions of an address, as code is mapped now", () =>
  expect(hits("0x401000", [], views, { moment: { event: 3, instr: 4 } }).map((h) => h.action.of)).toEqual([
    "0x401000",
    "0x401000:1@3.4.0.0",
    "0x401000:8",
    "0x401000:1@3.4.0.0",
  ]));
