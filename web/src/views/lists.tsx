// Views that are lists of rows: stack, variables, executions, writes, output, tasks, registers, signals, events.
import { useEffect, useRef } from "preact/hooks";
import { compareMoments, momentText } from "../model/moment";
import type { ViewSpec } from "../model/url";
import { useRows, useWindow } from "../state/rows";
import { focus, frame, go, info } from "../state/state";
import type {
  EventRow, FrameRow, HitRow, Moment, NamedValue, OutputRow, RegisterRow, SignalRow, TaskRow, WriteRow,
} from "../wire/types";
import { Args, FuncName, isPast, Place, Row, Status, ValueText } from "./parts";

export function StackView() {
  const f = focus.value;
  const list = useRows<FrameRow>("stack", f && { focus: { ...f, frame: 0 } });
  const current = f?.frame ?? 0;
  return (
    <>
      {list.rows.map((r) => (
        <div
          key={r.frame}
          class={`row ${r.frame === current ? "focus" : ""}`}
          role="button"
          tabIndex={0}
          onClick={() => go({ ...r.focus, frame: r.frame })}
          onKeyDown={(e) => {
            if (e.key === "Enter") go({ ...r.focus, frame: r.frame });
          }}
        >
          <FuncName of={r.function} pc={r.pc} />
          <Args args={r.args} />
          <Place location={r.location} fallback={r.module?.split("/").pop()} />
        </div>
      ))}
      <Status busy={list.busy} failed={list.failed} />
    </>
  );
}

export function VariablesView() {
  const list = useRows<NamedValue>("variables", focus.value && { focus: focus.value });
  return (
    <>
      {list.failed === null &&
        list.rows.map((r, i) => (
          <div key={i} class={`pair ${r.kind ?? ""}`}>
            <span class="name" title={r.value.type}>{r.name}</span>
            <ValueText value={r.value} name={r.name} />
          </div>
        ))}
      <Status busy={list.busy} failed={list.failed} empty={list.rows.length === 0 && "no variables in scope here"} />
    </>
  );
}

export function RegistersView() {
  const list = useRows<RegisterRow>("registers", focus.value && { focus: focus.value });
  return (
    <>
      {list.rows.map((r) => (
        <div key={r.name} class="pair">
          <span class="name">{r.name}</span>
          <span class="value">{r.value}</span>
        </div>
      ))}
      <Status busy={list.busy} failed={list.failed} />
    </>
  );
}

function More(props: { ask: (() => void) | null }) {
  return props.ask ? (
    <button class="more" onClick={props.ask}>
      more…
    </button>
  ) : null;
}

/** The moment that a list is asked around: it stays while the focus is on one of the list's own rows. */
function useAnchor<R extends { focus: { moment: Moment } }>(rows: () => readonly R[]): Moment {
  const now = focus.value?.moment ?? { event: 0, instr: 0 };
  const anchor = useRef(now);
  if (!rows().some((r) => compareMoments(r.focus.moment, now) === 0)) anchor.current = now;
  return anchor.current;
}

function HitRows(props: { query: string; params: object; text: (r: HitRow) => preact.ComponentChildren }) {
  const seen = useRef<readonly HitRow[]>([]);
  const anchor = useAnchor(() => seen.current);
  const list = useWindow<HitRow>(props.query, props.params, anchor, 40);
  const rows = [...list.before, ...list.after];
  seen.current = rows;
  const past = rows.filter((r) => isPast(r.focus)).length;
  const line = useRef<HTMLHRElement>(null);
  useEffect(() => line.current?.scrollIntoView({ block: "nearest" }), [past, rows.length]);
  const show = (r: HitRow) => (
    <Row key={`${r.focus.moment.event}.${r.focus.moment.instr}`} to={r.focus} title={momentText(r.focus.moment)}>
      {props.text(r)}
    </Row>
  );
  return (
    <>
      <More ask={list.moreBefore} />
      {rows.slice(0, past).map(show)}
      <hr class="now" ref={line} aria-label="now" />
      {rows.slice(past).map(show)}
      <More ask={list.moreAfter} />
      <Status busy={list.busy} failed={list.failed} empty={rows.length === 0 && "never executed"} />
    </>
  );
}

export function ExecutionView(props: { spec: ViewSpec }) {
  return (
    <HitRows
      query="execution"
      params={{ function: props.spec.of ?? "" }}
      text={(r) => (
        <>
          <FuncName of={r.function} pc={r.pc ?? ""} />
          <Args args={r.args ?? []} />
          {r.result && <span class="result"> = <ValueText value={r.result} /></span>}
          {r.noReturn && <span class="why"> never returned</span>}
        </>
      )}
    />
  );
}

export function BreakpointView(props: { spec: ViewSpec }) {
  const of = props.spec.of ?? "";
  const colon = of.lastIndexOf(":");
  return (
    <HitRows
      query="breakpoint"
      params={{ file: of.slice(0, colon), line: Number(of.slice(colon + 1)) }}
      text={(r) => (
        <>
          <Place location={r.location} />
          <span class="dim">task {r.task.tid}</span>
          <span class="dim right">{momentText(r.focus.moment)}</span>
        </>
      )}
    />
  );
}

const bytesText = (hex: string | null): string => {
  if (hex === null) return "not mapped";
  if (hex.length > 32) return `${hex.slice(0, 32)}…`;
  // Little-endian, as numbers are read.
  return hex.length <= 16 ? `0x${(hex.match(/../g) ?? []).reverse().join("").replace(/^0+(?=.)/, "")}` : hex;
};

export function WatchpointView(props: { spec: ViewSpec }) {
  const [address = "", length = "8"] = (props.spec.of ?? "").split(":");
  const seen = useRef<readonly WriteRow[]>([]);
  const anchor = useAnchor(() => seen.current);
  const task = focus.value?.task;
  const list = useWindow<WriteRow>(
    "watchpoint",
    { address, length: Number(length), focus: { moment: anchor, ...(task ? { task } : {}) } },
    anchor,
    20,
  );
  const rows = [...list.before, ...list.after];
  seen.current = rows;
  const past = rows.filter((r) => isPast(r.focus)).length;
  const show = (r: WriteRow) => (
    <Row key={`${r.focus.moment.event}.${r.focus.moment.instr}`} to={r.focus} title={momentText(r.focus.moment)}>
      <span class="value">{bytesText(r.before)}</span>
      <span class="dim">→</span>
      <span class="value new">{bytesText(r.after)}</span>
      {r.event ? <span class="fn">{r.event.name}</span> : <FuncName of={r.function} pc="" />}
      <Place location={r.event ? undefined : r.location} />
      {r.possible && <span class="why">perhaps</span>}
    </Row>
  );
  return (
    <>
      <More ask={list.moreBefore} />
      {rows.slice(0, past).map(show)}
      <hr class="now" aria-label="now" />
      {rows.slice(past).map(show)}
      <More ask={list.moreAfter} />
      <Status busy={list.busy} failed={list.failed} empty={rows.length === 0 && "never written"} />
    </>
  );
}

export function OutputView() {
  const list = useRows<OutputRow>("stdouterr", info.value && { limit: 5000 });
  const past = list.rows.filter((r) => isPast(r.focus)).length;
  const line = useRef<HTMLHRElement>(null);
  useEffect(() => line.current?.scrollIntoView({ block: "nearest" }), [past, list.rows.length]);
  const show = (r: OutputRow) => (
    <Row key={r.focus.moment.event} to={r.focus} class={r.fd === 2 ? "stderr" : ""} title={momentText(r.focus.moment)}>
      <span class="text">{r.text.replace(/\n$/, "")}</span>
    </Row>
  );
  return (
    <>
      {list.rows.slice(0, past).map(show)}
      <hr class="now" ref={line} aria-label="now" />
      {list.rows.slice(past).map(show)}
      <Status busy={list.busy} failed={list.failed} empty={list.rows.length === 0 && "the program wrote nothing"} />
    </>
  );
}

export function TaskTreeView() {
  const list = useRows<TaskRow>("task-tree", info.value && {});
  const depth = (r: TaskRow): number => {
    const parent = r.parent && list.rows.find((o) => o.task.serial === r.parent?.serial);
    return parent ? depth(parent) + 1 : 0;
  };
  return (
    <>
      {list.rows.map((r) => (
        <Row key={r.task.serial} to={{ moment: r.start, task: r.task }}>
          <span class="indent">{"  ".repeat(Math.min(depth(r), 20))}</span>
          <span class="fn">{r.name}</span>
          <span class="dim">
            {r.kind} {r.task.tid} {r.how === "initial" ? "" : `by ${r.how}`}
          </span>
          {r.execs.length > 0 && <span class="text">{r.execs.map((x) => x.argv.join(" ")).join(" → ")}</span>}
          {r.exits && (
            <span class={r.exits.signal ? "fatal right" : "dim right"}>
              {r.exits.signal ? `killed by ${r.exits.signal}` : `exit ${r.exits.status}`}
            </span>
          )}
        </Row>
      ))}
      <Status busy={list.busy} failed={list.failed} />
    </>
  );
}

export function SignalsView(props: { query: "signals" | "alerts" }) {
  const list = useRows<SignalRow>(props.query, info.value && { limit: 500 });
  return (
    <>
      {list.rows.map((r, i) => (
        <Row key={i} to={r.focus}>
          <span class={r.fatal ? "fatal" : "fn"}>{r.signal}</span>
          <span class="dim">{r.disposition}</span>
          {r.address && <span class="value">{r.address}</span>}
          <span class="dim right">task {r.task.tid} · {momentText(r.focus.moment)}</span>
        </Row>
      ))}
      <Status busy={list.busy} failed={list.failed} empty={list.rows.length === 0 && "none"} />
    </>
  );
}

export function EventsView() {
  const now = focus.value?.moment ?? { event: 0, instr: 0 };
  const list = useWindow<EventRow>("events", {}, now, 60);
  const show = (r: EventRow) => (
    <Row key={r.number} to={r.focus}>
      <span class="dim number">{r.number}</span>
      <span class="fn">{r.name}</span>
      <span class="value">{r.detail ?? ""}</span>
      <span class="dim right">task {r.task.tid}</span>
    </Row>
  );
  return (
    <>
      <More ask={list.moreBefore} />
      {list.before.map(show)}
      <hr class="now" aria-label="now" />
      {list.after.map(show)}
      <More ask={list.moreAfter} />
      <Status busy={list.busy} failed={list.failed} />
    </>
  );
}

export function focusTitle(): string {
  return frame.value?.location?.file ?? frame.value?.module ?? "source";
}
