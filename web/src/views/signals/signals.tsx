// Signals; and alerts: where the program went wrong.
import type { ComponentChildren } from "preact";
import { info } from "../../state/session";
import { useWindow } from "../../state/rows";
import type { AlertRow, SignalRow } from "../../wire/types";
import { WindowList } from "../executions/executions";
import { openLife } from "../menu/menu";
import { FuncName, Place, Task, When } from "../parts/parts";

export function signalRow(r: SignalRow): ComponentChildren {
  return (
    <>
      <span class={r.fatal ? "fatal" : "fn"}>{r.signal}</span>
      <span class="dim">{r.disposition}</span>
      {r.address && <span class="value">{r.address}</span>}
      <span class="gap" />
      <Task tid={r.task.tid} />
      <When of={r.focus} />
    </>
  );
}

export function SignalsView() {
  const list = useWindow<SignalRow>("signals", info.value && {});
  return <WindowList label="signals" list={list} empty="no signals" body={signalRow} />;
}

export function alertRow(r: AlertRow): ComponentChildren {
  return (
    <>
      <span class={r.kind === "signal" ? "fatal" : "told"}>{r.text}</span>
      {r.address && <span class="value">{r.address}</span>}
      {r.heap && (
        <button
          class="writer dim"
          tabIndex={-1}
          title="who allocated it, who freed it"
          onClick={(e) => {
            e.stopPropagation();
            if (r.heap) openLife(r.heap, r.focus, r.heap);
          }}
        >
          life of {r.heap}
        </button>
      )}
      {r.function && <FuncName of={r.function} />}
      <Place location={r.location} />
      <Task tid={r.task.tid} />
      <When of={r.focus} />
    </>
  );
}

export function AlertsView() {
  const list = useWindow<AlertRow>("alerts", info.value && {});
  return (
    <WindowList
      label="alerts"
      list={list}
      empty="no fatal signal, no abnormal exit, no failed assertion"
      title={(r) => r.text}
      body={alertRow}
    />
  );
}
