// The timeline: the whole recording, or a part that was zoomed to. A lane for each task, marks for output and signals, the density
// of the pane in hand, and the focus. A click goes there, a drag zooms.
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { numberText, shortNumber } from "../../base/text";
import { momentText, sameMoment } from "../../model/moment";
import { bars, columnCount, momentAt, positionOf, type Span, widened, zoomed } from "../../model/timeline";
import { taskLabel } from "../../model/tasks";
import { densityInHand } from "../../state/density";
import { focus, go } from "../../state/focus";
import { noteList } from "../../state/notes";
import { useRows } from "../../state/rows";
import { info } from "../../state/session";
import type { OutputRow, SignalRow, TaskRow, TimelineRow } from "../../wire/types";
import { draw, type Drawing, heightOf, LANE, type Mark, positionAt, TOP } from "./draw";

const MAX_LANES = 8;
const COLUMNS = 1200;
const GLIDE_MS = 180;
const DRAG = 4;

export function Timeline() {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [span, setSpan] = useState<Span | null>(null);
  const [hover, setHover] = useState<number | null>(null);
  const [selection, setSelection] = useState<readonly [number, number] | null>(null);
  const [glide, setGlide] = useState<number | null>(null);
  const [width, setWidth] = useState(0);
  const ready = info.value !== null;
  const wholeRows = useRows<TimelineRow>("timeline", ready ? { columns: COLUMNS } : null);
  const partRows = useRows<TimelineRow>("timeline", ready && span ? { columns: COLUMNS, ...span } : null);
  const tasks = useRows<TaskRow>("task-tree", ready ? {} : null);
  const output = useRows<OutputRow>("stdouterr", ready ? { limit: 3000, all: true } : null);
  const signals = useRows<SignalRow>("signals", ready ? { limit: 1000 } : null);
  const whole = wholeRows.rows[0];
  const part = partRows.rows[0];
  const axis = span && part && sameMoment(part.from, span.from) && sameMoment(part.to, span.to) ? part : whole;
  const lanes = Math.min(Math.max(tasks.rows.length, 1), MAX_LANES);
  const laneOf = useMemo(() => {
    const places = new Map(tasks.rows.map((t, i) => [t.task.serial, i]));
    return (serial: number | undefined): number => Math.min(places.get(serial ?? 0) ?? lanes - 1, lanes - 1);
  }, [tasks.rows, lanes]);
  const marks = useMemo((): Mark[] => {
    const out = output.rows.map((r): Mark => ({ moment: r.focus.moment, lane: laneOf(r.task.serial), kind: "output" }));
    const sig = signals.rows.map((r): Mark => ({ moment: r.focus.moment, lane: laneOf(r.task.serial), kind: r.fatal ? "fatal" : "signal" }));
    return [...out, ...sig];
  }, [output.rows, signals.rows, laneOf]);
  const dense = densityInHand.value;
  const showDensity = dense !== null;
  const height = heightOf(lanes, showDensity);
  const at = focus.value;

  // The cursor glides when the focus moved far.
  const oldPosition = useRef<number | null>(null);
  const position = axis && at ? positionOf(axis, at.moment) : null;
  useEffect(() => {
    const from = oldPosition.current;
    oldPosition.current = position;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (from === null || position === null || !axis || still || Math.abs(from - position) < columnCount(axis) / 100) {
      setGlide(null);
      return undefined;
    }
    const begun = performance.now();
    let request = requestAnimationFrame(function frame(time: number) {
      const share = Math.min(Math.max((time - begun) / GLIDE_MS, 0), 1);
      setGlide(share < 1 ? from + (position - from) * (1 - (1 - share) ** 3) : null);
      if (share < 1) request = requestAnimationFrame(frame);
    });
    return () => cancelAnimationFrame(request);
  }, [position]);

  useLayoutEffect(() => {
    const c = canvas.current;
    if (!c) return undefined;
    const watch = new ResizeObserver(() => setWidth(c.clientWidth));
    watch.observe(c);
    return () => watch.disconnect();
  }, []);
  const [scheme, setScheme] = useState(0);
  useEffect(() => {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const changed = (): void => setScheme((n) => n + 1);
    dark.addEventListener("change", changed);
    return () => dark.removeEventListener("change", changed);
  }, []);

  useLayoutEffect(() => {
    const c = canvas.current;
    const g = c?.getContext("2d");
    if (!c || !g || width === 0) return;
    const ratio = devicePixelRatio || 1;
    c.style.height = `${height}px`;
    c.width = Math.round(width * ratio);
    c.height = Math.round(height * ratio);
    g.scale(ratio, ratio);
    if (!axis) return;
    const style = getComputedStyle(c);
    const drawing: Drawing = {
      axis,
      lanes,
      laneOf,
      marks,
      notes: noteList.value.flatMap(([, n]) => (n.color ? [{ moment: n.focus.moment, colour: n.color }] : [])),
      // Few segments say nothing about where; then the rows that are there do.
      bars: dense && axis.segments.length >= 16 ? bars(axis, dense.buckets) : [],
      ticks: dense?.moments ?? [],
      focus: at,
      glide,
      selection,
      hover,
    };
    draw(g, drawing, width, height, (name) => style.getPropertyValue(name));
  }, [axis, lanes, laneOf, marks, noteList.value, dense, at, glide, selection, hover, width, height, scheme]);

  const zoomTo = (next: Span | null): void => {
    setSpan(next);
    setHover(null);
    oldPosition.current = null;
  };
  const down = (e: PointerEvent): void => {
    const c = canvas.current;
    if (!c || !axis || e.button !== 0) return;
    const left = c.getBoundingClientRect().left;
    const startX = e.clientX;
    const start = positionAt({ axis }, width, startX - left);
    c.setPointerCapture(e.pointerId);
    let dragged = false;
    c.onpointermove = (m) => {
      if (!dragged && Math.abs(m.clientX - startX) < DRAG) return;
      dragged = true;
      setSelection([start, positionAt({ axis }, width, m.clientX - left)]);
    };
    c.onpointerup = (m) => {
      c.onpointermove = null;
      c.onpointerup = null;
      setSelection(null);
      const end = positionAt({ axis }, width, m.clientX - left);
      if (!dragged) {
        // The task that runs there, unless another lane was clicked at.
        const lane = Math.floor((m.clientY - c.getBoundingClientRect().top - TOP) / LANE);
        const task = lane >= 0 && lane < lanes && tasks.rows.length <= MAX_LANES ? tasks.rows[lane]?.task : undefined;
        go({ moment: momentAt(axis, start), ...(task ? { task } : {}), frame: 0 });
        return;
      }
      const from = momentAt(axis, Math.min(start, end));
      const to = momentAt(axis, Math.max(start, end));
      if (!sameMoment(from, to)) zoomTo({ from, to });
    };
  };
  const wheel = (e: WheelEvent): void => {
    if (!axis || !whole || e.deltaY === 0 || Math.abs(e.deltaX) > Math.abs(e.deltaY)) return;
    e.preventDefault();
    const x = e.clientX - (canvas.current?.getBoundingClientRect().left ?? 0);
    zoomTo(e.deltaY < 0 ? zoomed(axis, positionAt({ axis }, width, x), 0.7) : span && widened(whole, span, 2));
  };
  const key = (e: KeyboardEvent): void => {
    if (!axis || !whole || e.ctrlKey || e.altKey || e.metaKey || e.shiftKey) return;
    const columns = columnCount(axis);
    const here = position ?? 0;
    const stride = columns / 100;
    const moves: { readonly [key: string]: number } = { ArrowLeft: here - stride, ArrowRight: here + stride, Home: 0, End: columns };
    const to = moves[e.key];
    if (to !== undefined) go({ moment: momentAt(axis, to), frame: 0 });
    else if (e.key === "+" || e.key === "=") zoomTo(zoomed(axis, here, 0.5));
    else if (e.key === "-") zoomTo(span && widened(whole, span, 2));
    else if (e.key === "Escape" && span) zoomTo(null);
    else return;
    e.preventDefault();
    e.stopPropagation();
  };

  const hoverMoment = axis && hover !== null ? momentAt(axis, hover) : null;
  const shownMoment = hoverMoment ?? at?.moment;
  return (
    <div class="timeline-box">
      <canvas
        ref={canvas}
        class="timeline"
        role="slider"
        tabIndex={0}
        aria-label="timeline"
        aria-valuemin={0}
        aria-valuemax={axis ? columnCount(axis) : 0}
        aria-valuenow={Math.round(position ?? 0)}
        aria-valuetext={at ? momentText(at.moment) : ""}
        title={`${tasks.rows.slice(0, MAX_LANES).map(taskLabel).join("\n")}${tasks.rows.length > MAX_LANES ? "\n…" : ""}`}
        onPointerDown={down}
        onMouseMove={(e) => axis && setHover(positionAt({ axis }, width, e.offsetX))}
        onMouseLeave={() => setHover(null)}
        onDblClick={() => zoomTo(null)}
        onWheel={wheel}
        onKeyDown={key}
      />
      <div class="timeline-side">
        <span class={hoverMoment ? "when" : "when here"} title="event + instructions since">
          {shownMoment && momentText(shownMoment)}
        </span>
        {axis && (
          <span class="dim" title={`${numberText(axis.instructions)} instructions are shown`}>
            {span ? (
              <button onClick={() => zoomTo(null)}>whole</button>
            ) : (
              `${shortNumber(axis.instructions)} instr.`
            )}
          </span>
        )}
        {showDensity && <span class="dim density-label">{dense.label}</span>}
      </div>
    </div>
  );
}
