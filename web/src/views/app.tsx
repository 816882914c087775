// The window: search on top, the timeline, columns of views.
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { momentText } from "../model/moment";
import type { ViewSpec } from "../model/url";
import { closeView, connected, failure, fileInView, focus, frame, helpOpen, info, layout, moveView, openView, title } from "../state/state";
import { KEYS } from "./keys";
import {
  BreakpointView, EventsView, ExecutionView, OutputView, RegistersView, SignalsView, StackView, TaskTreeView, VariablesView,
  WatchpointView,
} from "./lists";
import { NotebookView } from "./notebook";
import { SearchBox } from "./search";
import { SourceView } from "./source";
import { Timeline } from "./timeline";

interface Kind {
  readonly title: string;
  readonly weight: number;
  readonly tool: boolean;
  readonly show: (spec: ViewSpec) => ComponentChildren;
}

const KINDS: { readonly [view: string]: Kind } = {
  source: { title: "Source", weight: 42, tool: true, show: () => <SourceView /> },
  stack: { title: "Stack", weight: 14, tool: true, show: () => <StackView /> },
  variables: { title: "Variables", weight: 14, tool: true, show: () => <VariablesView /> },
  execution: { title: "Executions", weight: 18, tool: false, show: (spec) => <ExecutionView spec={spec} /> },
  breakpoint: { title: "Executions", weight: 18, tool: false, show: (spec) => <BreakpointView spec={spec} /> },
  watchpoint: { title: "Writes", weight: 16, tool: false, show: (spec) => <WatchpointView spec={spec} /> },
  stdouterr: { title: "Output", weight: 14, tool: true, show: () => <OutputView /> },
  notebook: { title: "Notebook", weight: 14, tool: true, show: () => <NotebookView /> },
  "task-tree": { title: "Task tree", weight: 12, tool: true, show: () => <TaskTreeView /> },
  registers: { title: "Registers", weight: 14, tool: true, show: () => <RegistersView /> },
  signals: { title: "Signals", weight: 10, tool: true, show: () => <SignalsView query="signals" /> },
  alerts: { title: "Alerts", weight: 10, tool: true, show: () => <SignalsView query="alerts" /> },
  events: { title: "Events", weight: 16, tool: true, show: () => <EventsView /> },
  toolbox: { title: "Toolbox", weight: 16, tool: false, show: () => <Toolbox /> },
};

function Toolbox() {
  return (
    <>
      {Object.entries(KINDS)
        .filter(([, k]) => k.tool)
        .map(([view, k]) => (
          <div key={view} class="row" role="button" tabIndex={0} onClick={() => openView({ view })}
            onKeyDown={(e) => { if (e.key === "Enter") openView({ view }); }}>
            <span class="fn">{k.title}</span>
          </div>
        ))}
    </>
  );
}

function titleOf(spec: ViewSpec): string {
  if (spec.view === "source") return fileInView.value?.split("/").pop() ?? frame.value?.module?.split("/").pop() ?? "source";
  const kind = KINDS[spec.view];
  return spec.label ? `${kind?.title ?? spec.view} of ${spec.label}` : (kind?.title ?? spec.view);
}

const GRID_ROWS = 120;

function View(props: { spec: ViewSpec; column: number; from: number; span: number }) {
  const kind = KINDS[props.spec.view];
  if (!kind) return null;
  return (
    <section
      class={`view ${props.spec.view}`}
      aria-label={titleOf(props.spec)}
      style={{ gridColumn: String(props.column + 1), gridRow: `${props.from + 1} / span ${props.span}` }}
    >
      <header
        class="viewTitle"
        title={props.spec.view === "source" ? (fileInView.value ?? "") : ""}
        draggable
        onDragStart={(e) => e.dataTransfer?.setData("text/plain", "view")}
      >
        <span>{titleOf(props.spec)}</span>
        <button title="Move to the other column" onClick={() => moveView(props.spec, 1 - props.column)}>
          ⇄
        </button>
        <button title="Close" onClick={() => closeView(props.spec)}>
          ×
        </button>
      </header>
      <div class="contents">{kind.show(props.spec)}</div>
    </section>
  );
}

function spans(views: readonly ViewSpec[]): { from: number; span: number }[] {
  const weights = views.map((v) => KINDS[v.view]?.weight ?? 1);
  const total = weights.reduce((a, b) => a + b, 0);
  let at = 0;
  let sum = 0;
  return weights.map((w) => {
    sum += w;
    const end = Math.round((sum / total) * GRID_ROWS);
    const piece = { from: at, span: end - at };
    at = end;
    return piece;
  });
}

function Help() {
  return (
    <div class="help" role="dialog" aria-label="keys" onClick={() => (helpOpen.value = false)}>
      <table>
        <tbody>
          {KEYS.map(([key, what]) => (
            <tr key={key}>
              <th>{key}</th>
              <td>{what}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function App() {
  const [split, setSplit] = useState(60);
  const i = info.value;
  const f = focus.value;
  const drag = (e: PointerEvent): void => {
    const bar = e.currentTarget as HTMLElement;
    bar.setPointerCapture(e.pointerId);
    bar.onpointermove = (m) => setSplit(Math.min(Math.max((m.clientX / window.innerWidth) * 100, 20), 80));
    bar.onpointerup = () => (bar.onpointermove = null);
  };
  return (
    <>
      <header class="top">
        <span class="brand">pernosco</span>
        <SearchBox />
        <span class="session" title={i ? `${i.instructions.toLocaleString("en")} instructions, ${i.events} events` : ""}>
          {title.value}
        </span>
        {f && (
          <span class="now-at" title="event + instructions">
            {momentText(f.moment)}
            {frame.value?.task ? ` · task ${frame.value.task.tid}` : ""}
          </span>
        )}
        <button title="Toolbox (t)" onClick={() => openView({ view: "toolbox" })}>
          ▤
        </button>
        <button title="Keys (?)" onClick={() => (helpOpen.value = true)}>
          ?
        </button>
      </header>
      <Timeline />
      <main id="main" style={{ gridTemplateColumns: `minmax(0, ${split}fr) minmax(0, ${100 - split}fr)` }}>
        {layout.value.columns.map((views, column) => {
          const places = spans(views);
          return views.map((spec, k) => (
            <View
              key={`${spec.view} ${spec.of ?? ""}`}
              spec={spec}
              column={column}
              from={places[k]?.from ?? 0}
              span={places[k]?.span ?? 1}
            />
          ));
        })}
      </main>
      <div class="splitter" style={{ left: `${split}%` }} onPointerDown={drag} />
      {failure.value !== "" && (
        <div class="toast" role="status" onClick={() => (failure.value = "")}>
          {failure.value}
        </div>
      )}
      {!connected.value && <div class="toast">connecting to the server…</div>}
      {helpOpen.value && <Help />}
    </>
  );
}
