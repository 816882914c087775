// Hooks that ask. A question that is no longer wanted is cancelled, so an old answer never overwrites a newer one.
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { compareMoments } from "../model/moment";
import { addAfter, addBefore, covers, EMPTY_WINDOW, fromAfter, fromBefore, type RowWindow } from "../model/window";
import type { Moment, Timed } from "../wire/types";
import { focus } from "./focus";
import { askShared } from "./answers";
import { growth } from "./session";

export interface Asked {
  readonly busy: boolean;
  /** Share done, where the server tells it. */
  readonly progress: number | null;
  readonly failed: string | null;
  /** Stops what is under way. */
  readonly stop: () => void;
}
export interface Rows<Row> extends Asked {
  readonly rows: readonly Row[];
  readonly more: boolean;
}

const STOPPED = "stopped";

/** Rows of a query; asked again when params change. The old rows stay until new ones are there. params null: nothing is asked. */
export function useRows<Row>(query: string, params: object | null): Rows<Row> {
  const [state, setState] = useState<Omit<Rows<Row>, "stop">>({ rows: [], busy: true, progress: null, more: false, failed: null });
  const cancel = useRef<() => void>(() => {});
  const key = params === null ? null : JSON.stringify(params);
  useEffect(() => {
    if (key === null) {
      setState({ rows: [], busy: false, progress: null, more: false, failed: null });
      return undefined;
    }
    let rows: Row[] = [];
    setState((s) => ({ ...s, busy: true, progress: null }));
    cancel.current = askShared<Row>(query, JSON.parse(key) as object, {
      restart: () => {
        rows = [];
      },
      rows: (more) => {
        rows = rows.concat(more);
        setState({ rows, busy: true, progress: null, more: false, failed: null });
      },
      progress: (progress) => setState((s) => ({ ...s, progress })),
      end: (more, failed) => setState({ rows, busy: false, progress: null, more, failed }),
    });
    return () => cancel.current();
  }, [query, key, growth.value]);
  const stop = useCallback(() => {
    cancel.current();
    setState((s) => (s.busy ? { ...s, busy: false, progress: null, failed: STOPPED } : s));
  }, []);
  return { ...state, stop };
}

export interface SlotRows<Row> {
  readonly rows: readonly Row[];
  readonly busy: boolean;
  readonly more: boolean;
  readonly failed: string | null;
}

/** Rows of any number of questions to one query, each in a slot of its own; a slot's old rows stay until new ones are there. */
export function useSlots<Row>(query: string, asked: ReadonlyMap<string, object>): ReadonlyMap<string, SlotRows<Row>> {
  const [, redraw] = useState(0);
  const slots = useRef(new Map<string, { key: string; state: SlotRows<Row>; cancel: () => void }>());
  const wanted = JSON.stringify([...asked]);
  useEffect(() => {
    for (const [name, slot] of slots.current)
      if (!asked.has(name)) {
        slot.cancel();
        slots.current.delete(name);
      }
    for (const [name, params] of asked) {
      const key = `${growth.value} ${JSON.stringify(params)}`;
      const old = slots.current.get(name);
      if (old?.key === key) continue;
      old?.cancel();
      let rows: Row[] = [];
      const slot = { key, state: { rows: [], more: false, failed: null, ...old?.state, busy: true } as SlotRows<Row>, cancel: () => {} };
      slots.current.set(name, slot);
      slot.cancel = askShared<Row>(query, params, {
        restart: () => {
          rows = [];
        },
        rows: (next) => {
          rows = rows.concat(next);
        },
        end: (more, failed) => {
          slot.state = { rows, busy: false, more, failed };
          redraw((n) => n + 1);
        },
      });
    }
    redraw((n) => n + 1);
  }, [query, wanted, growth.value]);
  useEffect(
    () => () => {
      for (const slot of slots.current.values()) slot.cancel();
    },
    [],
  );
  return new Map([...slots.current].map(([name, slot]) => [name, slot.state]));
}

export interface Windowed<Row> extends Asked {
  readonly window: RowWindow<Row>;
  readonly extend: (end: "before" | "after") => void;
}

const FIRST_PAGE = 60;
const PAGE = 200;

type Direction = "backward" | "forward";

/**
 * Rows of a windowed query around the focus, and more at either end when asked. A focus within the rows that are there moves nothing;
 * one elsewhere begins a new window around it.
 */
export function useWindow<Row extends Timed>(query: string, params: object | null): Windowed<Row> {
  const now = focus.value?.moment ?? null;
  const key = params === null ? null : JSON.stringify(params);
  const [state, setState] = useState<{
    readonly window: RowWindow<Row>;
    readonly busy: Readonly<Record<Direction, boolean>>;
    readonly progress: number | null;
    readonly failed: string | null;
  }>({ window: EMPTY_WINDOW, busy: { backward: true, forward: true }, progress: null, failed: null });
  const work = useRef<{
    key: string | null;
    anchor: Moment | null;
    window: RowWindow<Row>;
    cancels: Map<Direction, () => void>;
    failed: string | null;
    growth: number;
  }>({ growth: 0, key: null, anchor: null, window: EMPTY_WINDOW, cancels: new Map(), failed: null });

  const show = useCallback((progress: number | null = null) => {
    const w = work.current;
    const busy = { backward: w.cancels.has("backward"), forward: w.cancels.has("forward") };
    setState({ window: w.window, busy, progress, failed: w.failed });
  }, []);

  const page = useCallback(
    (direction: Direction, from: Moment, limit: number) => {
      const w = work.current;
      if (w.key === null || w.cancels.has(direction)) return;
      const add = direction === "backward" ? addBefore<Row> : addAfter<Row>;
      const base = w.window;
      let rows: Row[] = [];
      // Rows are shown as they come; each time from the window as it was, with the other end's news.
      const update = (more: boolean): void => {
        const fresh = rows.splice(0);
        w.window = add(w.window, fresh, more);
      };
      let ended = false;
      const cancel = askShared<Row>(query, { ...(JSON.parse(w.key) as object), direction, from, limit }, {
        restart: () => {
          rows = [];
          w.window = base;
        },
        rows: (next) => {
          rows = rows.concat(next);
          update(true);
          show();
        },
        progress: (share) => show(share),
        end: (more, failed) => {
          ended = true;
          w.cancels.delete(direction);
          if (failed === null) update(more);
          w.failed = failed ?? w.failed;
          show();
        },
      });
      if (!ended) w.cancels.set(direction, cancel);
    },
    [query, show],
  );

  const stopAll = useCallback(() => {
    for (const cancel of work.current.cancels.values()) cancel();
    work.current.cancels.clear();
  }, []);

  useEffect(() => {
    const w = work.current;
    if (key === null || now === null) return;
    const settled = w.cancels.size === 0;
    const grown = growth.value !== w.growth;
    if (!grown && w.key === key && w.failed === null && settled && covers(w.window, now)) return;
    if (!grown && w.key === key && !settled && w.anchor && compareMoments(w.anchor, now) === 0) return;
    stopAll();
    Object.assign(w, { key, anchor: now, window: EMPTY_WINDOW, failed: null, growth: growth.value });
    page("backward", now, FIRST_PAGE);
    page("forward", now, FIRST_PAGE);
    // What was shown stays until the first rows are there.
    const busy = { backward: w.cancels.has("backward"), forward: w.cancels.has("forward") };
    setState((s) => ({ ...s, busy, progress: null }));
  }, [query, key, now?.event, now?.instr, growth.value]);
  useEffect(() => stopAll, [stopAll]);

  const extend = useCallback(
    (end: "before" | "after") => {
      const { window } = work.current;
      const from = end === "before" ? fromBefore(window) : fromAfter(window);
      if (from === null || !(end === "before" ? window.moreBefore : window.moreAfter)) return;
      const direction = end === "before" ? "backward" : "forward";
      page(direction, from, PAGE);
      const busy = work.current.cancels.has(direction);
      setState((s) => ({ ...s, busy: { ...s.busy, [direction]: busy } }));
    },
    [page],
  );
  const stop = useCallback(() => {
    stopAll();
    work.current.failed = STOPPED;
    show();
  }, [show, stopAll]);
  const busy = state.busy.backward || state.busy.forward;
  return useMemo(
    () => ({ window: state.window, busy, progress: state.progress, failed: state.failed, extend, stop }),
    [state, busy, extend, stop],
  );
}

const PAGE_ROWS = 100;
const PAGES_KEPT = 60;

/** Rows of a list whose length is known and whose rows can be asked for by number; those that are looked at are there. */
export function usePages<Row>(query: string, count: number, fromOf: (index: number) => Moment): {
  readonly at: (index: number) => Row | null;
  readonly want: (first: number, end: number) => void;
  readonly failed: string | null;
  readonly busy: boolean;
} {
  const pages = useRef(new Map<number, readonly Row[] | null>());
  const cancels = useRef(new Map<number, () => void>());
  const [, redraw] = useState(0);
  const [failed, setFailed] = useState<string | null>(null);
  const forget = useCallback(() => {
    for (const cancel of cancels.current.values()) cancel();
    cancels.current.clear();
    pages.current.clear();
  }, []);
  // Before rows are wanted, which those who draw the list do.
  const age = useRef(growth.value);
  if (age.current !== growth.value) {
    age.current = growth.value;
    forget();
  }
  const seen = useRef({ first: 0, end: 0 });
  const want = useCallback(
    (first: number, end: number) => {
      seen.current = { first, end };
      const firstPage = Math.floor(first / PAGE_ROWS);
      const endPage = Math.ceil(Math.min(end, count) / PAGE_ROWS);
      for (const [page, cancel] of cancels.current)
        if (page < firstPage || page >= endPage) {
          cancel();
          cancels.current.delete(page);
          pages.current.delete(page);
        }
      for (let page = firstPage; page < endPage; page++) {
        if (pages.current.has(page)) continue;
        pages.current.set(page, null);
        let rows: Row[] = [];
        const params = { direction: "forward", from: fromOf(page * PAGE_ROWS), limit: PAGE_ROWS };
        let ended = false;
        const cancel = askShared<Row>(query, params, {
          restart: () => {
            rows = [];
          },
          rows: (next) => {
            rows = rows.concat(next);
          },
          end: (_more, why) => {
            ended = true;
            cancels.current.delete(page);
            pages.current.set(page, rows);
            if (why !== null) setFailed(why);
            redraw((n) => n + 1);
          },
        });
        if (!ended) cancels.current.set(page, cancel);
      }
      for (const page of pages.current.keys()) {
        if (pages.current.size <= PAGES_KEPT) break;
        if (page < firstPage || page >= endPage) pages.current.delete(page);
      }
    },
    [query, count, growth.value],
  );
  useEffect(() => forget, [forget]);
  useEffect(() => want(seen.current.first, seen.current.end), [want]);
  const at = (index: number): Row | null => pages.current.get(Math.floor(index / PAGE_ROWS))?.[index % PAGE_ROWS] ?? null;
  return { at, want, failed, busy: cancels.current.size > 0 };
}
