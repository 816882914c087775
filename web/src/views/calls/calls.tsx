// What the frame at the focus called itself: a click goes into a call, and shows what that one called.
import type { ComponentChildren } from "preact";
import { baseName } from "../../base/text";
import { focus } from "../../state/focus";
import { useWindow } from "../../state/rows";
import type { CallRow } from "../../wire/types";
import { WindowList } from "../executions/executions";
import { Args, FuncName, ValueText, When } from "../parts/parts";

/** How a call ended, where it did not just return. */
function endingOf(r: CallRow): string | null {
  if (r.noReturn) return "never returned";
  if (r.left === "unwound") return "left by a jump or an exception";
  if (r.left === "exit") return "its task ended there";
  return null;
}

export function calleeRow(r: CallRow): ComponentChildren {
  return (
    <>
      {r.location && <span class="dim">{`${baseName(r.location.file)}:${r.location.line}`}</span>}
      {r.kind !== "call" && <span class="dim">{r.kind === "tail" ? "tail call" : r.kind}</span>}
      <FuncName of={r.function} pc={r.pc} />
      <Args args={r.args ?? []} at={r.focus} quiet />
      {(r.result || r.rax) && (
        <span class="result">
          = {r.result ? <ValueText value={r.result} quiet /> : <span title="rax: the type of the result is not known">{r.rax}</span>}
        </span>
      )}
      {endingOf(r) && <span class="why">{endingOf(r)}</span>}
      <When of={r.focus} />
    </>
  );
}

export function CallsView() {
  const at = focus.value;
  const list = useWindow<CallRow>("callees", at && { focus: at });
  return (
    <WindowList
      label="calls"
      list={list}
      empty="this frame calls nothing"
      keyOf={(r) => r.kind}
      body={calleeRow}
    />
  );
}
