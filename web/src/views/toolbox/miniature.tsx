// A question's answer in miniature: the few rows nearest to now.
import { useEffect, useState } from "preact/hooks";
import { baseName } from "../../base/text";
import type { Hit } from "../../model/search";
import { focus, frame } from "../../state/focus";
import { noteList, snippetOf } from "../../state/notes";
import { useRows } from "../../state/rows";
import type { AlertRow, FrameRow, HitRow, NamedValue, OutputRow, SignalRow, TaskRow } from "../../wire/types";
import { Args, FuncName, When } from "../parts/parts";

/** A value that has not changed for a while: what is passed over quickly is not asked for. */
function useSettled<T>(value: T, ms: number): T | null {
  const [settled, setSettled] = useState<T | null>(null);
  const key = JSON.stringify(value);
  useEffect(() => {
    setSettled(null);
    const timer = setTimeout(() => setSettled(value), ms);
    return () => clearTimeout(timer);
  }, [key, ms]);
  return settled;
}

export function Miniature(props: { hit: Hit }) {
  const { action } = props.hit;
  const settled = useSettled({ of: action.function?.id, at: action.location, view: action.view }, 120);
  if (!settled) return null;
  if (settled.view === "execution" && settled.of) return <Executions query="execution" params={{ function: settled.of }} />;
  if (settled.view === "breakpoint" && settled.at)
    return <Executions query="breakpoint" params={{ file: settled.at.file, line: settled.at.line }} />;
  return settled.view ? <ViewMiniature view={settled.view} /> : null;
}

function Executions(props: { query: string; params: object }) {
  const from = focus.value?.moment;
  const params = from ? { ...props.params, from, limit: 2 } : null;
  const back = useRows<HitRow>(props.query, params && { ...params, direction: "backward" });
  const forth = useRows<HitRow>(props.query, params && { ...params, direction: "forward" });
  const busy = back.busy || forth.busy;
  const show = (r: HitRow) => (
    <div key={`${r.focus.moment.event}.${r.focus.moment.instr}`} class="row">
      {r.function ? <FuncName of={r.function} pc={r.pc} /> : <span class="dim">{r.location && `${baseName(r.location.file)}:${r.location.line}`}</span>}
      {r.args && <Args args={r.args} quiet />}
      {r.result?.text !== undefined && <span class="result">= {r.result.text}</span>}
      <When of={r.focus} />
    </div>
  );
  return (
    <div class="miniature" aria-label="nearest executions">
      {[...back.rows].reverse().map(show)}
      <hr class="now" />
      {forth.rows.map(show)}
      {!busy && back.rows.length + forth.rows.length === 0 && <p class="why">{back.failed ?? "never executed"}</p>}
    </div>
  );
}

function Lines(props: { lines: readonly string[]; busy: boolean; failed: string | null; empty: string }) {
  return (
    <div class="miniature">
      {props.lines.map((l, i) => (
        <div key={i} class="row text">
          {l}
        </div>
      ))}
      {props.lines.length === 0 && !props.busy && <p class="why">{props.failed ?? props.empty}</p>}
    </div>
  );
}

const name = (r: { readonly function?: { readonly name: string }; readonly pc?: string }): string => r.function?.name ?? r.pc ?? "?";

interface Small {
  readonly query: string;
  readonly params: (at: object, from: object) => object;
  readonly line: (row: never) => string;
  readonly empty: string;
}
const small = <Row,>(query: string, params: Small["params"], line: (row: Row) => string, empty: string): Small => ({
  query,
  params,
  line: line as (row: never) => string,
  empty,
});

const SMALL: { readonly [view: string]: Small } = {
  stack: small<FrameRow>("stack", (focus) => ({ focus }), name, "no frames"),
  variables: small<NamedValue>("variables", (focus) => ({ focus }), (v) => `${v.name} = ${v.value.text ?? v.value.why ?? ""}`, "none in scope"),
  registers: small<{ name: string; value: string }>("registers", (focus) => ({ focus }), (r) => `${r.name} ${r.value}`, "none"),
  callees: small<HitRow>("callees", (focus) => ({ focus, limit: 3 }), (r) => r.function?.name ?? r.pc ?? "", "none"),
  instructions: small<{ text?: string; name?: string }>("instructions", (focus) => ({ focus, limit: 3 }), (r) => r.text ?? r.name ?? "", "none"),
  stdouterr: small<OutputRow>("stdouterr", (_f, from) => ({ from, direction: "backward", limit: 3 }), (r) => r.text.trimEnd(), "nothing was written yet"),
  signals: small<SignalRow>("signals", () => ({ limit: 3 }), (r) => `${r.signal} ${r.disposition}`, "no signals"),
  alerts: small<AlertRow>("alerts", () => ({ limit: 3 }), (r) => r.text, "nothing went wrong"),
  events: small<{ number: number; name: string }>("events", (_f, from) => ({ from, direction: "backward", limit: 3 }), (r) => `${r.number} ${r.name}`, "none before"),
  "task-tree": small<TaskRow>("task-tree", () => ({}), (r) => `${r.name} ${r.kind} ${r.task.tid}`, "no tasks"),
  "current-tasks": small<TaskRow>("current-tasks", (focus) => ({ focus }), (r) => `${r.name} ${r.kind} ${r.task.tid}`, "no tasks"),
};

/** Those that need no question. */
const KNOWN: { readonly [view: string]: () => readonly string[] } = {
  source: () => [snippetOf(frame.value)],
  notebook: () => noteList.value.slice(-3).map(([, n]) => n.text.split("\n")[0] || n.snippet),
  memory: () => ["bytes at an address"],
  gdb: () => ["a gdb at the focus, in step with it"],
};

export function ViewMiniature(props: { view: string }) {
  const known = KNOWN[props.view];
  return known ? <Lines lines={known()} busy={false} failed={null} empty="nothing yet" /> : <AskedMiniature view={props.view} />;
}

function AskedMiniature(props: { view: string }) {
  const s = SMALL[props.view];
  const at = focus.value;
  const list = useRows<never>(s?.query ?? "", s && at ? s.params(at, at.moment) : null);
  if (!s) return null;
  return <Lines lines={list.rows.slice(0, 3).map(s.line)} busy={list.busy} failed={list.failed} empty={s.empty} />;
}
