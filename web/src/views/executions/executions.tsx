// Executions of a function, a line or an address, before and after now; of those for which a condition holds, with values printed at each.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { List } from "../../base/list";
import { baseName, numberText, plural } from "../../base/text";
import { addressText } from "../../model/bytes";
import { parseFlow } from "../../model/dataflow";
import { probes } from "../../model/expressions";
import type { Pane } from "../../model/layout";
import { paneId } from "../../model/layout";
import { momentKey } from "../../model/moment";
import { countPast } from "../../model/window";
import { focus } from "../../state/focus";
import { density, type Density } from "../../state/density";
import { setPane } from "../../state/layout";
import { useRows, useWindow, type Windowed } from "../../state/rows";
import type { CountsRow, Focus, HitRow, Timed } from "../../wire/types";
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
export function useDensity(pane: Pane, params: object | null, rows: readonly Timed[]): CountsRow | null {
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
  return row ?? null;
}

/** One of the pane's expressions. It counts when Enter is pressed and when the field is left. */
function ProbeField(props: { pane: Pane; name: "condition" | "print"; hint: string }) {
  const { pane, name } = props;
  const kept = pane[name] ?? "";
  const [typed, setTyped] = useState(kept);
  useEffect(() => setTyped(kept), [kept]); // by Back, for one
  const set = (): void => {
    if (typed.trim() !== kept) setPane(paneId(pane), { [name]: typed.trim() });
  };
  return (
    <input
      class="field"
      aria-label={name}
      placeholder={props.hint}
      spellcheck={false}
      autocomplete="off"
      value={typed}
      onInput={(e) => setTyped(e.currentTarget.value)}
      onBlur={set}
      onKeyDown={(e) => {
        if (e.key === "Enter") set();
      }}
    />
  );
}

function ProbeFields(props: { pane: Pane }) {
  return (
    <div class="bar">
      <ProbeField pane={props.pane} name="condition" hint="condition: count == 3" />
      <ProbeField pane={props.pane} name="print" hint="print: count, list->first" />
    </div>
  );
}

/** All executions are counted by the index; those of which a condition holds only when asked for, since everything is run for that. */
function Total(props: { pane: Pane; params: object; rows: readonly Timed[]; noun: string }) {
  const { pane, params, noun } = props;
  const condition = probes(pane.condition, undefined);
  const [counted, setCounted] = useState("");
  const all = useRows<CountsRow>("counts", params);
  const counting = condition.condition !== undefined && counted === condition.condition;
  const row = useDensity(pane, condition.condition === undefined ? params : counting ? { ...params, ...condition } : null, props.rows);
  const total = all.failed === null ? all.rows[0]?.total : undefined;
  if (total === undefined) return null;
  return (
    <div class="bar">
      <span class="dim" title={numberText(total)}>
        {plural(total, noun)} in the whole recording
      </span>
      {counting && row && (
        <span class="dim" role="status">
          {`the condition holds ${plural(row.total, "time")}${row.failed ? `, and fails ${plural(row.failed, "time")}` : ""}`}
        </span>
      )}
      {condition.condition !== undefined && !counting && (
        <button onClick={() => setCounted(condition.condition ?? "")}>count those of which it holds</button>
      )}
    </div>
  );
}

/** What the condition and the printed expressions have to say of an execution. */
function Probed(props: { of: HitRow }) {
  const r = props.of;
  return (
    <>
      {r.conditionError !== undefined && <span class="why">condition failed: {r.conditionError}</span>}
      {r.prints?.map((p, i) => (
        <span key={i} class="print">
          <span class="name">{p.name}</span>=<ValueText value={p.value} name={p.name} at={r.focus} quiet />
        </span>
      ))}
    </>
  );
}

export function callRow(r: HitRow): ComponentChildren {
  return (
    <>
      <FuncName of={r.function} pc={r.pc} />
      <Args args={r.args ?? []} at={r.focus} quiet />
      {r.result && (
        <span class="result">
          = <ValueText value={r.result} quiet />
        </span>
      )}
      {r.noReturn && <span class="why">never returned</span>}
      {r.inlined && <span class="why">inlined</span>}
      <Probed of={r} />
      <When of={r.focus} />
    </>
  );
}

export function hitRow(r: HitRow): ComponentChildren {
  return (
    <>
      {r.function && <FuncName of={r.function} />}
      {r.location && <span class="dim">{`${baseName(r.location.file)}:${r.location.line}`}</span>}
      <Probed of={r} />
      <span class="gap" />
      <Task tid={r.task.tid} />
      <When of={r.focus} />
    </>
  );
}

export function ExecutionView(props: { pane: Pane }) {
  const { pane } = props;
  const params = { function: pane.of ?? "" };
  const list = useWindow<HitRow>("execution", { ...params, ...probes(pane.condition, pane.print) });
  return (
    <>
      <Total pane={pane} params={params} rows={list.window.rows} noun="call" />
      <ProbeFields pane={pane} />
      <WindowList
        label="executions"
        list={list}
        empty={pane.condition ? "never executed so" : "never executed"}
        body={callRow}
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

/** Executions of code that has no function of its own: a line, an address. */
function PlainExecutions(props: { pane: Pane; query: string; params: object; counted: object; label: string; empty: string }) {
  const { pane } = props;
  const list = useWindow<HitRow>(props.query, { ...props.params, ...probes(pane.condition, pane.print) });
  return (
    <>
      <Total pane={pane} params={props.counted} rows={list.window.rows} noun="execution" />
      <ProbeFields pane={pane} />
      <WindowList
        label={props.label}
        list={list}
        empty={pane.condition ? "no execution is like that" : props.empty}
        body={hitRow}
      />
    </>
  );
}

export function BreakpointView(props: { pane: Pane }) {
  const params = lineOf(props.pane);
  return (
    <PlainExecutions
      pane={props.pane}
      query="breakpoint"
      params={params}
      counted={params}
      label="executions of the line"
      empty="no code of this line ever ran"
    />
  );
}

/** An address, as code was mapped at a focus; null: the pane does not tell. */
export function addressOf(pane: Pane): { start: string; end: string; focus: Focus } | null {
  const flow = parseFlow(pane.of ?? "");
  if (!flow || !("address" in flow.what)) return null;
  const start = BigInt(flow.what.address);
  return { start: addressText(start), end: addressText(start + 1n), focus: flow.focus };
}

export function AddressExecutionView(props: { pane: Pane }) {
  const params = addressOf(props.pane);
  if (!params) return <p class="why">an address is wanted</p>;
  return (
    <PlainExecutions
      pane={props.pane}
      query="address-execution"
      params={params}
      counted={params}
      label="executions of the address"
      empty="nothing was executed there"
    />
  );
}
