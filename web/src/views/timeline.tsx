// The timeline: a lane per task over the whole recording, marks for output and signals, the focus. A click goes there.
import { useEffect, useRef } from "preact/hooks";
import { useRows } from "../state/rows";
import { focus, go, info } from "../state/state";
import type { OutputRow, SignalRow, TaskRow } from "../wire/types";

const LANE = 7;
const MAX_LANES = 8;

export function Timeline() {
  const canvas = useRef<HTMLCanvasElement>(null);
  const tasks = useRows<TaskRow>("task-tree", info.value && {});
  const output = useRows<OutputRow>("stdouterr", info.value && { limit: 5000, all: true });
  const signals = useRows<SignalRow>("signals", info.value && { limit: 500 });
  const end = Math.max(info.value?.end.event ?? 1, 1);
  const lanes = Math.min(Math.max(tasks.rows.length, 1), MAX_LANES);
  const laneOf = (serial: number | undefined): number =>
    Math.max(0, Math.min(tasks.rows.findIndex((t) => t.task.serial === serial), MAX_LANES - 1));

  useEffect(() => {
    const c = canvas.current;
    const g = c?.getContext("2d");
    if (!c || !g) return undefined;
    const draw = (): void => {
      const ratio = window.devicePixelRatio || 1;
      const width = c.clientWidth;
      const height = lanes * LANE + 8;
      c.style.height = `${height}px`;
      c.width = width * ratio;
      c.height = height * ratio;
      g.scale(ratio, ratio);
      const style = getComputedStyle(c);
      const colour = (name: string): string => style.getPropertyValue(name);
      const x = (event: number): number => 4 + ((width - 8) * event) / end;
      g.fillStyle = colour("--lane");
      for (const t of tasks.rows) {
        const from = x(t.start.event);
        g.fillRect(from, 4 + laneOf(t.task.serial) * LANE, Math.max(x(t.end?.event ?? end) - from, 1), LANE - 3);
      }
      g.fillStyle = colour("--dim");
      for (const o of output.rows) g.fillRect(x(o.focus.moment.event), 4 + laneOf(o.task.serial) * LANE, 1.5, LANE - 3);
      for (const s of signals.rows) {
        g.fillStyle = s.fatal ? colour("--fatal") : colour("--text");
        g.fillRect(x(s.focus.moment.event) - 1, 3 + laneOf(s.task.serial) * LANE, 3, LANE - 1);
      }
      const now = focus.value;
      if (now) {
        g.fillStyle = colour("--accent");
        g.fillRect(x(now.moment.event) - 0.75, 0, 1.5, height);
        g.beginPath();
        g.moveTo(x(now.moment.event) - 4, 0);
        g.lineTo(x(now.moment.event) + 4, 0);
        g.lineTo(x(now.moment.event), 5);
        g.fill();
      }
    };
    draw();
    const watch = new ResizeObserver(draw);
    watch.observe(c);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", draw);
    return () => {
      watch.disconnect();
      scheme.removeEventListener("change", draw);
    };
  }, [tasks.rows, output.rows, signals.rows, end, lanes, focus.value]);

  return (
    <canvas
      ref={canvas}
      class="timeline"
      role="slider"
      aria-label="timeline"
      aria-valuemin={0}
      aria-valuemax={end}
      aria-valuenow={focus.value?.moment.event ?? 0}
      onClick={(e) => {
        const box = e.currentTarget.getBoundingClientRect();
        const share = (e.clientX - box.left - 4) / (box.width - 8);
        const event = Math.round(Math.min(Math.max(share, 0), 1) * end);
        const task = tasks.rows[Math.floor((e.clientY - box.top - 3) / LANE)]?.task;
        go({ moment: { event, instr: 0 }, ...(task ? { task } : {}) });
      }}
    />
  );
}
