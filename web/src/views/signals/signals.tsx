// Signals, or the fatal ones only.
import { info } from "../../state/session";
import { useWindow } from "../../state/rows";
import type { SignalRow } from "../../wire/types";
import { WindowList } from "../executions/executions";
import { Task, When } from "../parts/parts";

export function SignalsView(props: { query: "signals" | "alerts" }) {
  const list = useWindow<SignalRow>(props.query, info.value && {});
  return (
    <WindowList
      label={props.query}
      list={list}
      empty={props.query === "alerts" ? "no fatal signal, no abnormal exit" : "no signals"}
      body={(r) => (
        <>
          <span class={r.fatal ? "fatal" : "fn"}>{r.signal}</span>
          <span class="dim">{r.disposition}</span>
          {r.address && <span class="value">{r.address}</span>}
          <span class="gap" />
          <Task tid={r.task.tid} />
          <When of={r.focus} />
        </>
      )}
    />
  );
}
