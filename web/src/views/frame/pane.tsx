// A pane: its title, which can be dragged, and its view.
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { baseName, classes } from "../../base/text";
import { canJoin, partsOf } from "../../model/join";
import { dropTarget, type Layout, type Pane, paneId, type PlacedPane, type Rect, type Target } from "../../model/layout";
import { fileInView, frame } from "../../state/focus";
import { closeView, inHand, layout, moveView, takeInHand, toggleCollapsed } from "../../state/layout";
import { DataflowView } from "../dataflow/dataflow";
import { CallsView } from "../calls/calls";
import { UsesView } from "../dataflow/uses";
import { AddressExecutionView, BreakpointView, ExecutionView } from "../executions/executions";
import { EventsView } from "../events/events";
import { GdbTools, GdbView } from "../gdb/gdb";
import { JoinedView } from "../joined/joined";
import { InstructionsView } from "../instructions/instructions";
import { HeapView, LifeView } from "../heap/heap";
import { VIEWS } from "../kinds";
import { MemoryView } from "../memory/memory";
import { NotebookView } from "../notebook/notebook";
import { OutputView } from "../output/output";
import { RegistersView } from "../registers/registers";
import { AlertsView, SignalsView } from "../signals/signals";
import { SourceTools, SourceView } from "../source/source";
import { StackView } from "../stack/stack";
import { TasksView } from "../tasks/tasks";
import { EvaluateView, VariablesView } from "../variables/variables";
import { WatchpointView } from "../writes/writes";

const SHOW: { readonly [view: string]: (pane: Pane) => ComponentChildren } = {
  source: () => <SourceView />,
  stack: () => <StackView />,
  variables: () => <VariablesView />,
  execution: (pane) => <ExecutionView pane={pane} />,
  breakpoint: (pane) => <BreakpointView pane={pane} />,
  "address-execution": (pane) => <AddressExecutionView pane={pane} />,
  evaluate: (pane) => <EvaluateView pane={pane} />,
  watchpoint: (pane) => <WatchpointView pane={pane} />,
  dataflow: (pane) => <DataflowView pane={pane} />,
  callees: () => <CallsView />,
  uses: (pane) => <UsesView pane={pane} />,
  allocation: (pane) => <LifeView pane={pane} />,
  allocations: () => <HeapView />,
  instructions: () => <InstructionsView />,
  memory: (pane) => <MemoryView pane={pane} />,
  registers: () => <RegistersView />,
  stdouterr: (pane) => <OutputView pane={pane} />,
  notebook: () => <NotebookView />,
  signals: () => <SignalsView />,
  alerts: () => <AlertsView />,
  join: (pane) => <JoinedView pane={pane} titles={partsOf(pane).map((p) => titleOf(p).title)} />,
  events: () => <EventsView />,
  gdb: (pane) => <GdbView pane={pane} />,
  "task-tree": () => <TasksView query="task-tree" />,
  "current-tasks": () => <TasksView query="current-tasks" />,
};
const TOOLS: { readonly [view: string]: () => ComponentChildren } = { source: () => <SourceTools />, gdb: () => <GdbTools /> };
const QUESTIONS: { readonly [view: string]: string } = {
  execution: "Executions of",
  breakpoint: "Executions of",
  "address-execution": "Executions of",
  watchpoint: "Writes of",
  memory: "Memory of",
  dataflow: "Dataflow of",
  uses: "Uses of",
  allocation: "Life of",
};

function titleOf(pane: Pane): { readonly title: string; readonly detail: string } {
  if (pane.view === "source") {
    const file = fileInView.value;
    const module = frame.value?.module;
    if (file) return { title: baseName(file), detail: file.slice(0, file.lastIndexOf("/")) };
    return { title: module ? baseName(module) : "source", detail: "" };
  }
  if (pane.view === "join") return { title: partsOf(pane).map((p) => titleOf(p).title).join(" + "), detail: "" };
  if (pane.view === "gdb") return { title: pane.of === undefined ? "gdb" : `gdb ${pane.of}`, detail: "" };
  const question = QUESTIONS[pane.view];
  if (question && pane.of !== undefined) return { title: `${question} ${pane.label ?? pane.of}`, detail: "" };
  return { title: VIEWS.find((v) => v.view === pane.view)?.title ?? pane.view, detail: "" };
}

/** Where a dragged pane would go. */
export const dropMark = signal<Rect | null>(null);
const DRAG = 5;

/** Drags a pane by its title until the pointer is released; Escape ends it without a move. */
function drag(e: PointerEvent, pane: Pane, main: HTMLElement): void {
  if (e.button !== 0 || (e.target as Element).closest("button")) return;
  const title = e.currentTarget as HTMLElement;
  const box = main.getBoundingClientRect();
  let to: Target | null = null;
  let moved = false;
  title.setPointerCapture(e.pointerId);
  const move = (m: PointerEvent): void => {
    if (!moved && Math.hypot(m.clientX - e.clientX, m.clientY - e.clientY) < DRAG) return;
    moved = true;
    const found = dropTarget(layout.value, box.width, box.height, m.clientX - box.left, m.clientY - box.top, (p) => canJoin(pane, p));
    to = found?.to ?? null;
    dropMark.value = found?.mark ?? null;
  };
  const end = (): void => {
    title.removeEventListener("pointermove", move);
    title.removeEventListener("pointerup", up);
    title.removeEventListener("pointercancel", end);
    removeEventListener("keydown", escape, true);
    dropMark.value = null;
  };
  const up = (): void => {
    end();
    if (moved && to) moveView(paneId(pane), to);
  };
  const escape = (k: KeyboardEvent): void => {
    if (k.key === "Escape") end();
  };
  title.addEventListener("pointermove", move);
  title.addEventListener("pointerup", up);
  title.addEventListener("pointercancel", end);
  addEventListener("keydown", escape, true);
}

export function PaneBox(props: { placed: PlacedPane; of: Layout }) {
  const { pane, left, top, width, height } = props.placed;
  const box = useRef<HTMLElement>(null);
  const id = paneId(pane);
  const show = SHOW[pane.view];
  const { title, detail } = titleOf(pane);
  const held = inHand.value === id;
  // A pane that was just asked for is where the keys go next.
  useEffect(() => {
    const list = box.current?.querySelector<HTMLElement>(".list");
    const searching = document.activeElement instanceof HTMLInputElement || document.activeElement instanceof HTMLTextAreaElement;
    if (held && list && !searching && !box.current?.contains(document.activeElement)) list.focus({ preventScroll: true });
  }, [held]);
  return (
    <section
      ref={box}
      class={classes("view", pane.view, held && "in-hand", pane.collapsed && "collapsed")}
      aria-label={title}
      style={{ left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` }}
      onFocusCapture={() => takeInHand(id)}
      onPointerDown={() => takeInHand(id)}
    >
      <header
        class="viewTitle"
        title={detail ? `${detail}/${title}` : title}
        onPointerDown={(e) => {
          if (box.current?.parentElement) drag(e, pane, box.current.parentElement);
        }}
        onDblClick={() => toggleCollapsed(id)}
      >
        <h2>{title}</h2>
        <span class="detail">{detail}</span>
        <span class="tools">
          {!pane.collapsed && TOOLS[pane.view]?.()}
          <button
            aria-label={pane.collapsed ? "unfold" : "fold"}
            title={pane.collapsed ? "Unfold (c)" : "Fold (c)"}
            aria-expanded={!pane.collapsed}
            onClick={() => toggleCollapsed(id)}
          >
            {pane.collapsed ? "+" : "–"}
          </button>
          <button aria-label="close" title="Close (q)" onClick={() => closeView(id)}>
            ×
          </button>
        </span>
      </header>
      {!pane.collapsed && (show ? show(pane) : <p class="why">There is no view {pane.view}.</p>)}
    </section>
  );
}
