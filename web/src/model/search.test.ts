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
const titles = (input: string, rows: SearchRow[] = []): string[] => hits(input, rows, views, null).map((h) => h.title);

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
