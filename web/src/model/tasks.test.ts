import { expect, it } from "vitest";
import type { TaskRow } from "../wire/types";
import { taskTree } from "./tasks";

const task = (serial: number, parent?: number): TaskRow => ({
  task: { tid: 100 + serial, serial },
  ...(parent ? { parent: { tid: 100 + parent, serial: parent } } : {}),
  kind: "process",
  how: "fork",
  name: "p",
  start: { event: serial, instr: 0 },
  execs: [],
});

it("puts children under their parents, in the order of their births", () =>
  expect(taskTree([task(1), task(2, 1), task(3, 1), task(4, 2)]).map((n) => [n.row.task.serial, n.depth])).toEqual([
    [1, 0],
    [2, 1],
    [4, 2],
    [3, 1],
  ]));
it("loses no task when parents are missing or absurd", () =>
  expect(taskTree([task(2, 7), task(3, 3), task(4, 5), task(5, 4)]).map((n) => n.row.task.serial)).toEqual([2, 3, 4, 5]));
