// The window: search on top, the timeline, columns of panes.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { numberText, plural, shortNumber } from "../../base/text";
import { type Border, moveBorder, paneId, place } from "../../model/layout";
import { frame } from "../../state/focus";
import { layout, setLayout } from "../../state/layout";
import { connected, info, notice, sessionFailure, title } from "../../state/session";
import { HelpDialog, helpOpen, toolboxOpen } from "../keys/keys";
import { Menu } from "../menu/menu";
import { SearchBox } from "../search/search";
import { Timeline } from "../timeline/timeline";
import { Toolbox } from "../toolbox/toolbox";
import { dropMark, PaneBox } from "./pane";

function Splitter(props: { border: Border; width: number; height: number }) {
  const { border, width, height } = props;
  const columns = border.index === null;
  const move = (by: number): void => setLayout(moveBorder(layout.value, border, by, width, height));
  const drag = (e: PointerEvent): void => {
    const bar = e.currentTarget as HTMLElement;
    const begun = layout.value;
    const start = columns ? e.clientX : e.clientY;
    bar.setPointerCapture(e.pointerId);
    bar.onpointermove = (m) =>
      setLayout(moveBorder(begun, border, (columns ? m.clientX : m.clientY) - start, width, height));
    bar.onpointerup = () => {
      bar.onpointermove = null;
      bar.onpointerup = null;
    };
  };
  const key = (e: KeyboardEvent): void => {
    const less = columns ? "ArrowLeft" : "ArrowUp";
    const more = columns ? "ArrowRight" : "ArrowDown";
    if (e.shiftKey || (e.key !== less && e.key !== more)) return;
    e.preventDefault();
    move(e.key === less ? -24 : 24);
  };
  return (
    <div
      class={columns ? "splitter columns" : "splitter"}
      role="separator"
      tabIndex={0}
      aria-orientation={columns ? "vertical" : "horizontal"}
      aria-label={columns ? "width of columns" : "height of panes"}
      aria-valuenow={Math.round(columns ? (border.left / Math.max(width, 1)) * 100 : (border.top / Math.max(height, 1)) * 100)}
      style={{ left: `${border.left}px`, top: `${border.top}px`, width: `${border.width}px`, height: `${border.height}px` }}
      onPointerDown={drag}
      onKeyDown={key}
    />
  );
}

function Panes() {
  const main = useRef<HTMLElement>(null);
  const [size, setSize] = useState({ width: 0, height: 0 });
  useLayoutEffect(() => {
    const el = main.current;
    if (!el) return undefined;
    const watch = new ResizeObserver(() => setSize({ width: el.clientWidth, height: el.clientHeight }));
    watch.observe(el);
    setSize({ width: el.clientWidth, height: el.clientHeight });
    return () => watch.disconnect();
  }, []);
  const l = layout.value;
  const { panes, borders } = place(l, size.width, size.height);
  const mark = dropMark.value;
  // In the order of their names: moving a pane must not move its element, since a frame that is moved loads anew.
  const ordered = [...panes].sort((a, b) => (paneId(a.pane) < paneId(b.pane) ? -1 : 1));
  return (
    <main id="main" ref={main} class={mark ? "dragging" : ""}>
      {info.value && ordered.map((p) => <PaneBox key={paneId(p.pane)} placed={p} of={l} />)}
      {info.value &&
        borders.map((b) => <Splitter key={`${b.column} ${b.index}`} border={b} width={size.width} height={size.height} />)}
      {mark && (
        <div
          class="drop"
          style={{ left: `${mark.left}px`, top: `${mark.top}px`, width: `${mark.width}px`, height: `${mark.height}px` }}
        />
      )}
      {panes.length === 0 && info.value && <p class="why">All panes are closed: search for one (Ctrl+S), t shows all, 0 begins anew.</p>}
      {!info.value && sessionFailure.value === null && <p class="why">Opening the recording…</p>}
      {sessionFailure.value !== null && <p class="why">The recording cannot be shown: {sessionFailure.value}</p>}
    </main>
  );
}

const NOTICE_MS = 6000;

function Notices() {
  const n = notice.value;
  useEffect(() => {
    if (!n) return undefined;
    const timer = setTimeout(() => {
      if (notice.value === n) notice.value = null;
    }, NOTICE_MS);
    return () => clearTimeout(timer);
  }, [n]);
  return (
    <div class="notices" aria-live="polite">
      {connected.value === false && (
        <p class="notice lost" role="status">
          The server does not answer. Trying again…
        </p>
      )}
      {n && (
        <p class="notice" role="status">
          <span>{n.text}</span>
          {n.undo && <button onClick={n.undo}>Undo</button>}
          <button
            aria-label="dismiss"
            onClick={() => {
              notice.value = null;
            }}
          >
            ×
          </button>
        </p>
      )}
    </div>
  );
}

export function App() {
  const i = info.value;
  const f = frame.value;
  const about = i
    ? [
        `${numberText(i.instructions)} instructions, ${plural(i.events, "event")}, ${plural(i.tasks, "task")}`,
        `database of ${shortNumber(i.databaseBytes)}B`,
        i.trace ?? "",
      ].join("\n")
    : "";
  return (
    <>
      <header class="top">
        <span class="session" title={about}>
          {title.value}
        </span>
        {i && !i.complete && (
          <span class="growing" title="The database is being made: what is there can be looked at">
            being built: so far {numberText(i.instructions)} instructions
          </span>
        )}
        <SearchBox />
        <span class="task" title="the task at the focus">
          {f?.task && `${f.taskName ?? "task"} ${f.task.tid}`}
        </span>
        <button title="All views (t)" aria-haspopup="dialog" onClick={() => (toolboxOpen.value = true)}>
          Views
        </button>
        <button title="Keys (?)" aria-label="keys" aria-haspopup="dialog" onClick={() => (helpOpen.value = true)}>
          ?
        </button>
      </header>
      <Timeline />
      <Panes />
      <Toolbox />
      <HelpDialog />
      <Menu />
      <Notices />
    </>
  );
}
