// The focus: one moment, task and frame that every pane shows. The URL holds it with the layout; Back undoes a change of it.
import { computed, effect, signal, untracked } from "@preact/signals";
import { frameWithSource, ownFrame } from "../model/frames";
import { compareMoments, sameFocus } from "../model/moment";
import { readHash, writeHash } from "../model/url";
import type { CompleteFrame, Focus, FrameRow, Info, Location, SourceFileRow } from "../wire/types";
import { beginLayout, layout } from "./layout";
import { ask, askOne, growth, info, notice, sessionFailure } from "./session";

export const focus = signal<Focus | null>(null);
/** What is at the focus. That of the focus before, until the answer is there. */
export const frame = signal<CompleteFrame | null>(null);
/** Why there is nothing at the focus. */
export const frameFailure = signal<string | null>(null);

/** A place in the sources shown in place of the focus' one, until the focus moves. */
export const shownPlace = signal<Location | null>(null);
export const fileInView = computed(() => shownPlace.value?.file ?? frame.value?.location?.file ?? null);

/** Asks for the session and its first focus, or that of the URL; `begun` is called when both are known, with whether the URL said which panes. */
export function begin(begun: (panesGiven: boolean) => void): void {
  askOne<Info>(
    "info",
    {},
    (row) => {
      info.value = row;
      const fromUrl = readHash(location.hash);
      beginLayout(fromUrl.layout);
      focus.value = fromUrl.focus ?? row.firstFocus;
      history.replaceState({ ours: true }, "", writeHash(focus.value, layout.value));
      if (!fromUrl.focus) chooseFrame(row.firstFocus);
      begun(fromUrl.layout !== null);
      if (!row.complete) setTimeout(followGrowth, LOOK_MS);
    },
    (why) => {
      sessionFailure.value = why;
    },
  );
}

/** Frames that are looked through for one with source. */
const LOOK_FRAMES = 20;

/** A session begins where there is something to read: in the innermost frame of which the source is there, or else the program's innermost one, unless
 * the user has gone elsewhere. */
function chooseFrame(first: Focus): void {
  let frames: readonly FrameRow[] = [];
  const missing = new Set<string>();
  const choose = (frame: number): void => {
    if (focus.value !== first || frame === 0) return;
    focus.value = { ...first, frame };
    history.replaceState({ ours: true }, "", writeHash(focus.value, layout.value));
  };
  const look = (): void => {
    const i = frameWithSource(frames, missing);
    const file = frames[i]?.location?.file;
    if (file === undefined) return choose(ownFrame(frames));
    const next = (): void => {
      missing.add(file);
      look();
    };
    askOne<SourceFileRow>("source", { file }, (row) => (row.found ? choose(i) : next()), next);
  };
  ask<FrameRow>("stack", { focus: first, limit: LOOK_FRAMES }, {
    rows: (rows) => {
      frames = frames.concat(rows);
    },
    end: look,
  });
}

const LOOK_MS = 2000;

/** Looks from time to time whether there is more of a database that is being made, until it is complete. */
function followGrowth(): void {
  const again = (): void => void setTimeout(followGrowth, LOOK_MS);
  askOne<Info>(
    "info",
    {},
    (row) => {
      const grown = compareMoments(row.end, info.value?.end ?? row.end) !== 0 || row.complete;
      if (grown) {
        info.value = row;
        growth.value++;
      }
      if (!row.complete) again();
    },
    again,
  );
}

/** Moves the focus; the browser's back button undoes it. */
export function go(to: Focus): void {
  shownPlace.value = null;
  if (sameFocus(to, focus.value)) return;
  history.pushState({ ours: true }, "", writeHash(to, layout.value));
  focus.value = to;
}

/** Address of a window that begins with this focus. */
export function linkTo(f: Focus): string {
  return location.href.replace(/#.*/, "") + writeHash(f, layout.value);
}

// Back and forward move the focus; the panes stay as they are now. An address that was pasted in brings its panes with it.
window.addEventListener("popstate", (e: PopStateEvent) => {
  const fromUrl = readHash(location.hash);
  const state: unknown = e.state;
  const ours = typeof state === "object" && state !== null && "ours" in state;
  if (!ours && fromUrl.layout) layout.value = fromUrl.layout;
  shownPlace.value = null;
  if (!fromUrl.focus) return;
  history.replaceState({ ours: true }, "", writeHash(fromUrl.focus, layout.value));
  focus.value = fromUrl.focus;
});

effect(() => {
  const l = layout.value;
  const f = untracked(() => focus.value);
  if (f) history.replaceState({ ours: true }, "", writeHash(f, l));
});
// What is at the focus: asked once for all panes.
effect(() => {
  const f = focus.value;
  void growth.value; // asked again when the database has grown
  if (!f) return undefined;
  return askOne<CompleteFrame>(
    "complete-frame",
    { focus: f },
    (row) => {
      frame.value = row;
      frameFailure.value = null;
      frameFocus = f;
      const act = waiting;
      waiting = null;
      if (act?.focus === f) act.act(row);
    },
    (why) => {
      frame.value = null;
      frameFailure.value = why;
      frameFocus = f;
    },
  );
});

let frameFocus: Focus | null = null;
let waiting: { readonly focus: Focus; readonly act: (f: CompleteFrame) => void } | null = null;

/** Does something with what is at the focus: now, or when it is known. Nothing, if the focus moves on before. */
export function withFrame(act: (f: CompleteFrame) => void): void {
  const at = focus.value;
  if (!at) return;
  if (frameFocus !== at) waiting = { focus: at, act };
  else if (frame.value) act(frame.value);
}

/** Steps of the focus' task: query `step`. A later step or move makes an earlier one void. */
let stepping: (() => void) | null = null;
export function step(kind: string, direction: "forward" | "backward"): void {
  const f = focus.value;
  if (!f) return;
  stepping?.();
  stepping = askOne<{ readonly focus: Focus }>("step", { focus: f, kind, direction }, (row) => {
    if (focus.value === f) go(row.focus);
  });
}

/** Goes to the nearest row of a windowed question on one side of now. */
export function goNearest(query: string, params: object, direction: "forward" | "backward", none: string): void {
  const f = focus.value;
  if (!f) return;
  stepping?.();
  const from = direction === "forward" ? { event: f.moment.event, instr: f.moment.instr + 1 } : f.moment;
  let found = false;
  stepping = ask<{ readonly focus: Focus }>(query, { ...params, direction, from, limit: 1 }, {
    rows: (rows) => {
      const row = rows[0];
      if (!row || found || focus.value !== f) return;
      found = true;
      go(row.focus);
    },
    end: (_more, why) => {
      if (why !== null) notice.value = { text: why };
      else if (!found) notice.value = { text: none };
    },
  });
}

export function frameBy(by: number): void {
  const f = focus.value;
  const frameNumber = (f?.frame ?? 0) + by;
  if (f && frameNumber >= 0) go({ ...f, frame: frameNumber });
}
