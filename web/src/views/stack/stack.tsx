// The stack of the focus' task: calls that have not returned, innermost first.
import { List } from "../../base/list";
import { baseName } from "../../base/text";
import { isRecorder } from "../../model/frames";
import { focus, go } from "../../state/focus";
import { useRows } from "../../state/rows";
import type { FrameRow } from "../../wire/types";
import { momentMenu, openMenu } from "../menu/menu";
import { Args, FuncName, Place, Status } from "../parts/parts";

const KINDS: { readonly [kind: string]: string } = { signal: "signal handler", start: "where the task began" };

export function StackView() {
  const f = focus.value;
  const list = useRows<FrameRow>("stack", f && { focus: { ...f, frame: 0 } });
  const current = f?.frame ?? 0;
  return (
    <>
      <List
        label="stack"
        count={list.rows.length}
        follow={current}
        row={(i) => {
          const r = list.rows[i];
          if (!r) return null;
          const to = { ...r.focus, frame: r.frame };
          return {
            key: String(r.frame),
            class: isRecorder(r.module) ? `${r.kind} recorder` : r.kind,
            title: KINDS[r.kind] ?? (isRecorder(r.module) ? "rr's library, by which the program is recorded" : r.function?.full),
            current: r.frame === current,
            act: () => go(to),
            menu: (x, y) => openMenu(x, y, momentMenu(r.entry ?? to)),
            body: (
              <>
                <FuncName of={r.function} pc={r.pc} />
                <Args args={r.args} at={r.entry ?? to} />
                {r.inline && <span class="tag">inline</span>}
                <Place location={r.location} fallback={r.module && baseName(r.module)} />
              </>
            ),
          };
        }}
      />
      <Status of={list} empty={list.rows.length === 0 && "no frames here"} />
    </>
  );
}
