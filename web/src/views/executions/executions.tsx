// Executions of a function or of a line, before and after now.
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { List } from "../../base/list";
import { baseName, numberText, plural } from "../../base/text";
import type { Pane } from "../../model/layout";
import { paneId } from "../../model/layout";
import { momentKey } from "../../model/moment";
import { countPast } from "../../model/window";
import { focus } from "../../state/focus";
import { density, type Density } from "../../state/density";
import { useRows, useWindow, type Windowed } from "../../state/rows";
import type { CountsRow, HitRow, Timed } from "../../wire/types";
import { Args, FuncName, momentRow, Status, Task, ValueText, When } from "../parts/parts";

/** The rows of a windowed question: now is a line between them, the nearest are there first, more come by scrolling. */
export function WindowList<Row extends Timed>(props: {
  label: string;
  list: Windowed<Row>;
  keyOf?: (r: Row) => string;
  body: (r: Row) => ComponentChildren;
  rowClass?: (r: Row) => string;
  title?: (r: Row) => string | undefined;
  empty: string;
  class?: string;
}) {
  const { window } = props.list;
  const now = focus.value?.moment;
  const past = now ? countPast(window.rows, now) : 0;
  return (
    <>
      <List
        label={props.label}
        {...(props.class ? { class: props.class } : {})}
        count={window.rows.length}
        origin={window.origin}
        now={past}
        follow={Math.max(past - 1, 0)}
        followKey={now ? `${momentKey(now)} ${past > 0} ${past < window.rows.length}` : ""}
        onSeen={(first, end) => {
          if (first === 0) props.list.extend("before");
          if (end === window.rows.length) props.list.extend("after");
        }}
        row={(i) => {
          const r = window.rows[i];
          if (!r) return null;
          const title = props.title?.(r);
          return momentRow(r.focus, `${props.keyOf?.(r) ?? ""}${momentKey(r.focus.moment)} ${r.focus.task?.serial ?? ""}`, props.body(r), {
            class: props.rowClass?.(r),
            ...(title === undefined ? {} : { title }),
          });
        }}
      />
      <Status of={props.list} empty={window.rows.length === 0 && props.empty} />
    </>
  );
}

/** How often it happened, for the pane's bar; the timeline shows where. */
export function useDensity(pane: Pane, params: object | null, rows: readonly Timed[]): number | null {
  const counts = useRows<CountsRow>("counts", params);
  const row = counts.failed === null ? counts.rows[0] : undefined;
  const id = paneId(pane);
  useEffect(() => {
    const mine: Density = { label: pane.label ?? "", buckets: row?.buckets ?? [], moments: rows.map((r) => r.focus.moment) };
    density.value = new Map(density.value).set(id, mine);
    return () => {
      const next = new Map(density.value);
      next.delete(id);
      density.value = next;
    };
  }, [id, row, rows]);
  return row ? row.total : null;
}

function Total(props: { count: number | null; noun: string }) {
  return props.count === null ? null : (
    <div class="bar">
      <span class="dim" title={numberText(props.count)}>
        {plural(props.count, props.noun)} in the whole recording
      </span>
    </div>
  );
}

export function ExecutionView(props: { pane: Pane }) {
  const params = { function: props.pane.of ?? "" };
  const list = useWindow<HitRow>("execution", params);
  const total = useDensity(props.pane, params, list.window.rows);
  return (
    <>
      <Total count={total} noun="call" />
      <WindowList
        label="executions"
        list={list}
        empty="never executed"
        body={(r) => (
          <>
            <FuncName of={r.function} pc={r.pc} />
            <Args args={r.args ?? []} at={r.focus} quiet />
            {r.result && (
              <span class="result">
                = <ValueText value={r.result} quiet />
              </span>
            )}
            {r.noReturn && <span class="why">never returned</span>}
            <When of={r.focus} />
          </>
        )}
      />
    </>
  );
}

export function linePane(file: string, line: number): Omit<Pane, "size"> {
  return { view: "breakpoint", of: `${file}:${line}`, label: `${file.slice(file.lastIndexOf("/") + 1)}:${line}` };
}

export function lineOf(pane: Pane): { file: string; line: number } {
  const of = pane.of ?? "";
  const colon = of.lastIndexOf(":");
  return { file: of.slice(0, colon), line: Number(of.slice(colon + 1)) || 0 };
}

export function BreakpointView(props: { pane: Pane }) {
  const params = lineOf(props.pane);
  const list = useWindow<HitRow>("breakpoint", params);
  const total = useDensity(props.pane, params, list.window.rows);
  return (
    <>
      <Total count={total} noun="execution" />
      <WindowList
        label="executions of the line"
        list={list}
        empty="no code of this line ever ran"
        body={(r) => (
          <>
            {r.function && <FuncName of={r.function} />}
            {r.location && <span class="dim">{`${baseName(r.location.file)}:${r.location.line}`}</span>}
            <span class="gap" />
            <Task tid={r.task.tid} />
            <When of={r.focus} />
          </>
        )}
      />
    </>
  );
}
