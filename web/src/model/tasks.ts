// Tasks as a tree, in the order in which they began.
import type { TaskRow } from "../wire/types";

export interface TaskNode {
  readonly row: TaskRow;
  readonly depth: number;
}

/** Parents before their children. Tasks whose parent is not there, or is among their own children, are roots. */
export function taskTree(rows: readonly TaskRow[]): TaskNode[] {
  const children = new Map<number, TaskRow[]>();
  const known = new Set(rows.map((r) => r.task.serial));
  for (const r of rows) {
    const parent = r.parent && known.has(r.parent.serial) && r.parent.serial < r.task.serial ? r.parent.serial : 0;
    children.set(parent, [...(children.get(parent) ?? []), r]);
  }
  const out: TaskNode[] = [];
  const stack = (children.get(0) ?? []).map((row): TaskNode => ({ row, depth: 0 })).reverse();
  for (let node = stack.pop(); node; node = stack.pop()) {
    out.push(node);
    for (const row of [...(children.get(node.row.task.serial) ?? [])].reverse()) stack.push({ row, depth: node.depth + 1 });
  }
  return out;
}

export function taskLabel(row: TaskRow): string {
  return `${row.name || row.kind} ${row.task.tid}`;
}
