// The connection to the server: what session this is, questions, and stored values (which notes.ts and layout.ts interpret).
import { signal } from "@preact/signals";
import { type Handler, Socket } from "../wire/socket";
import type { Info } from "../wire/types";

export const info = signal<Info | null>(null);
export const title = signal("pernosco");
/** Counts up whenever the database, which is still being made, has more to tell: all answers so far are void then. */
export const growth = signal(0);
/** null: not yet known. */
export const connected = signal<boolean | null>(null);
export const persistent = signal(true);
/** Why the session cannot begin. */
export const sessionFailure = signal<string | null>(null);
/** A line at the bottom of the window, until the next one or a click. */
export const notice = signal<{ readonly text: string; readonly undo?: () => void } | null>(null);

export interface StoreListener {
  stored(key: string, value: unknown): void;
  removed(key: string): void;
}
const storeListeners: StoreListener[] = [];
let onReady: (() => void) | null = null;

/** Our own changes on their way: their echoes are older than what is typed meanwhile. */
const underWay = new Map<string, number>();

const socket = new Socket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`, {
  hello(t, p) {
    title.value = t;
    persistent.value = p;
    document.title = `${t} - pernosco`;
  },
  stored(key, value) {
    const waiting = underWay.get(key) ?? 0;
    if (waiting > 1) underWay.set(key, waiting - 1);
    else underWay.delete(key);
    if (waiting === 0) for (const l of storeListeners) l.stored(key, value);
  },
  removed(key) {
    for (const l of storeListeners) l.removed(key);
  },
  storedAll() {
    onReady?.();
    onReady = null;
  },
  connected(up) {
    connected.value = up;
    underWay.clear();
  },
  gdb(number, message) {
    onGdb?.(number, message);
  },
});

let onGdb: ((number: number, message: { readonly [key: string]: unknown }) => void) | null = null;

/** Who hears of gdbs: state/gdb.ts. */
export function hearGdbs(hear: typeof onGdb): void {
  onGdb = hear;
}

export function tellGdb(number: number, message: object): void {
  socket.tellGdb(number, message);
}

/** Connects; `ready` is called once, when all stored values have been heard. */
export function connect(listeners: readonly StoreListener[], ready: () => void): void {
  storeListeners.push(...listeners);
  onReady = ready;
  socket.connect();
}

export function store(key: string, value: unknown): void {
  if (connected.value) underWay.set(key, (underWay.get(key) ?? 0) + 1);
  socket.put(key, value);
}

export function unstore(key: string): void {
  socket.remove(key);
}

export interface Answer<Row> {
  rows(rows: readonly Row[]): void;
  end(more: boolean, failed: string | null): void;
  progress?(share: number): void;
  restart?(): void;
}

/** Asks for rows of a shape that the protocol promises. Returns what cancels. */
export function ask<Row>(query: string, params: object, on: Answer<Row>): () => void {
  const handler: Handler = {
    rows: (rows) => on.rows(rows as readonly Row[]),
    progress: (share) => on.progress?.(share),
    end: (more, failed) => on.end(more, failed ? failed.message : null),
    restart: () => on.restart?.(),
  };
  return socket.ask(query, params, handler);
}

/** Asks for one row. Failures without a handler of their own are told at the bottom of the window. */
export function askOne<Row>(
  query: string,
  params: object,
  then: (row: Row) => void,
  failed: (why: string) => void = (text) => {
    notice.value = { text };
  },
): () => void {
  let got = false;
  return ask<Row>(query, params, {
    rows: (rows) => {
      const row = rows[0];
      if (row === undefined || got) return;
      got = true;
      then(row);
    },
    end: (_more, why) => {
      if (why !== null) failed(why);
    },
  });
}
