// Processes and threads: all that ever were, or those at the focus.
import { List } from "../../base/list";
import { taskTree } from "../../model/tasks";
import { focus } from "../../state/focus";
import { info } from "../../state/session";
import { useRows } from "../../state/rows";
import type { TaskRow } from "../../wire/types";
import { momentRow, Status, When } from "../parts/parts";

const HOW: { readonly [how: string]: string } = { initial: "", fork: "forked", vfork: "vforked", clone: "" };

export function TasksView(props: { query: "task-tree" | "current-tasks" }) {
  const now = props.query === "current-tasks";
  const at = focus.value;
  const list = useRows<TaskRow>(props.query, now ? at && { focus: at } : info.value && {});
  const tree = taskTree(list.rows);
  return (
    <>
      <List
        label={now ? "current tasks" : "task tree"}
        count={tree.length}
        row={(i) => {
          const node = tree[i];
          if (!node) return null;
          const r = node.row;
          // Of all tasks: where it began. Of those that are: the same moment, in that task.
          const to = now && at ? { moment: at.moment, task: r.task, frame: 0 } : { moment: r.start, task: r.task };
          return {
            ...momentRow(
              to,
              String(r.task.serial),
              <>
                <span class="indent">{"  ".repeat(Math.min(node.depth, 20))}</span>
                <span class="fn">{r.name}</span>
                <span class="dim">
                  {r.kind} {r.task.tid} {HOW[r.how] ?? r.how}
                </span>
                {r.bits === 32 && <span class="fatal">32-bit: not replayed</span>}
                <span class="text">{r.execs.map((x) => x.argv.join(" ")).join(" → ")}</span>
                <span class="gap" />
                {r.exits && (
                  <span class={r.exits.signal ? "fatal" : "dim"}>
                    {r.exits.signal ? `killed by ${r.exits.signal}` : `exit ${r.exits.status}`}
                  </span>
                )}
                {!now && <When of={{ moment: r.start }} />}
              </>,
            ),
            current: at?.task?.serial === r.task.serial,
          };
        }}
      />
      <Status of={list} empty={tree.length === 0 && "no tasks"} />
    </>
  );
}
