// The timeline's drawing: lanes, density, marks, and the focus, on a canvas.
import { type Bar, columnCount, inSpan, positionOf } from "../../model/timeline";
import type { Focus, Moment, TimelineRow } from "../../wire/types";

export interface Mark {
  readonly moment: Moment;
  readonly lane: number;
  readonly kind: "output" | "signal" | "fatal";
}
export interface Drawing {
  readonly axis: TimelineRow;
  readonly lanes: number;
  readonly laneOf: (serial: number | undefined) => number;
  readonly marks: readonly Mark[];
  readonly notes: readonly { readonly moment: Moment; readonly colour: string }[];
  readonly bars: readonly Bar[];
  readonly ticks: readonly Moment[];
  readonly focus: Focus | null;
  /** Where the cursor is drawn while it glides; null: at the focus. */
  readonly glide: number | null;
  readonly selection: readonly [number, number] | null;
  readonly hover: number | null;
}

export const LANE = 9;
export const DENSITY = 22;
export const PAD = 8;
export const TOP = 7;

export function heightOf(lanes: number, density: boolean): number {
  return TOP + lanes * LANE + 5 + (density ? DENSITY : 0);
}

export function xOf(d: { readonly axis: TimelineRow }, width: number, position: number): number {
  return PAD + ((width - 2 * PAD) * position) / columnCount(d.axis);
}

export function positionAt(d: { readonly axis: TimelineRow }, width: number, x: number): number {
  const columns = columnCount(d.axis);
  return Math.min(Math.max(((x - PAD) / (width - 2 * PAD)) * columns, 0), columns);
}

export function draw(g: CanvasRenderingContext2D, d: Drawing, width: number, height: number, colour: (name: string) => string): void {
  const x = (m: Moment): number => xOf(d, width, positionOf(d.axis, m));
  const top = (lane: number): number => TOP + lane * LANE;
  g.clearRect(0, 0, width, height);

  g.fillStyle = colour("--lane-back");
  for (let lane = 0; lane < d.lanes; lane++) g.fillRect(PAD, top(lane), width - 2 * PAD, LANE - 3);
  g.fillStyle = colour("--lane");
  for (const lane of d.axis.lanes) {
    const y = top(d.laneOf(lane.task?.serial));
    for (const [first, end, percent] of lane.runs) {
      const left = xOf(d, width, first);
      g.globalAlpha = 0.25 + 0.75 * (percent / 100);
      g.fillRect(left, y, Math.max(xOf(d, width, end) - left, 1), LANE - 3);
    }
  }
  g.globalAlpha = 1;

  // Density and ticks: where the rows of the pane in hand are.
  const base = height - 3;
  const most = d.bars.reduce((m, b) => Math.max(m, b.count / Math.max(b.end - b.start, 0.01)), 0);
  g.fillStyle = colour("--density");
  for (const b of d.bars) {
    const left = xOf(d, width, b.start);
    const share = b.count / Math.max(b.end - b.start, 0.01) / most;
    const h = Math.max((DENSITY - 6) * share, 1.5);
    g.fillRect(left, base - h, Math.max(xOf(d, width, b.end) - left, 1), h);
  }
  g.fillStyle = colour("--tick");
  for (const m of d.ticks) if (inSpan(d.axis, m)) g.fillRect(Math.round(x(m)) - 0.5, base - DENSITY + 8, 1, DENSITY - 8);

  for (const m of d.marks) {
    if (!inSpan(d.axis, m.moment)) continue;
    const at = x(m.moment);
    if (m.kind === "output") {
      g.fillStyle = colour("--text");
      g.globalAlpha = 0.55;
      g.fillRect(at - 0.5, top(m.lane), 1, LANE - 3);
      g.globalAlpha = 1;
    } else {
      g.fillStyle = colour(m.kind === "fatal" ? "--fatal" : "--text");
      g.beginPath();
      g.moveTo(at - 3.5, top(m.lane) - 2);
      g.lineTo(at + 3.5, top(m.lane) - 2);
      g.lineTo(at, top(m.lane) + LANE - 3);
      g.fill();
    }
  }
  for (const n of d.notes) {
    if (!inSpan(d.axis, n.moment)) continue;
    const at = Math.round(x(n.moment));
    g.fillStyle = colour(`--mark-${n.colour}`);
    g.fillRect(at - 1, 2, 2, height - 4);
    g.fillRect(at - 1, 2, 6, 4);
  }

  if (d.hover !== null) {
    g.fillStyle = colour("--dim");
    g.globalAlpha = 0.5;
    g.fillRect(Math.round(xOf(d, width, d.hover)), 0, 1, height);
    g.globalAlpha = 1;
  }
  if (d.selection) {
    const [a, b] = d.selection;
    g.fillStyle = colour("--accent");
    g.globalAlpha = 0.18;
    g.fillRect(xOf(d, width, Math.min(a, b)), 0, Math.abs(xOf(d, width, b) - xOf(d, width, a)), height);
    g.globalAlpha = 1;
  }
  const f = d.focus;
  if (f && (d.glide !== null || inSpan(d.axis, f.moment))) {
    const at = d.glide === null ? x(f.moment) : xOf(d, width, d.glide);
    g.fillStyle = colour("--accent");
    g.fillRect(at - 0.75, 0, 1.5, height);
    g.beginPath();
    g.moveTo(at - 5, 0);
    g.lineTo(at + 5, 0);
    g.lineTo(at, 6);
    g.fill();
  }
}
