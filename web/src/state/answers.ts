// Answers that panes share. A recording never changes, so an answer is right for good (unless its database is still being made, and
// grows): the newest ones are kept, which makes Back instant, and two panes that ask the same are one question. A question nobody listens to is cancelled.
import { effect } from "@preact/signals";
import { type Answer, ask, growth } from "./session";

interface Question {
  rows: readonly unknown[];
  more: boolean;
  done: boolean;
  cancel: () => void;
  readonly listeners: Set<Answer<unknown>>;
}

const KEPT_ROWS = 60_000;

/** In order of their last use. Those that are not done have listeners. */
const questions = new Map<string, Question>();
let keptRows = 0;

function forget(key: string, q: Question): void {
  questions.delete(key);
  if (q.done) keptRows -= q.rows.length + 1;
}

effect(() => {
  if (growth.value === 0) return;
  for (const [key, q] of questions) if (q.done) forget(key, q);
});

function keep(key: string, q: Question): void {
  keptRows += q.rows.length + 1;
  for (const [k, old] of questions) {
    if (keptRows <= KEPT_ROWS) break;
    if (old.done && k !== key) forget(k, old);
  }
}

function begin(key: string, query: string, params: object): Question {
  const q: Question = { rows: [], more: false, done: false, cancel: () => {}, listeners: new Set() };
  q.cancel = ask<unknown>(query, params, {
    restart: () => {
      q.rows = [];
      for (const l of q.listeners) l.restart?.();
    },
    rows: (rows) => {
      q.rows = q.rows.concat(rows);
      for (const l of q.listeners) l.rows(rows);
    },
    progress: (share) => {
      for (const l of q.listeners) l.progress?.(share);
    },
    end: (more, failed) => {
      q.more = more;
      if (failed === null) {
        q.done = true;
        keep(key, q);
      } else questions.delete(key); // asked again, it may go better
      for (const l of [...q.listeners]) l.end(more, failed);
    },
  });
  return q;
}

/** As ask(), but what is known already comes at once, within the call. */
export function askShared<Row>(query: string, params: object, on: Answer<Row>): () => void {
  const key = `${query} ${JSON.stringify(params)}`;
  const q = questions.get(key) ?? begin(key, query, params);
  questions.delete(key);
  questions.set(key, q);
  const listener = on as Answer<unknown>;
  if (q.rows.length > 0) listener.rows(q.rows);
  if (q.done) {
    listener.end(q.more, null);
    return () => {};
  }
  q.listeners.add(listener);
  return () => {
    if (!q.listeners.delete(listener) || q.listeners.size > 0 || q.done) return;
    q.cancel();
    if (questions.get(key) === q) questions.delete(key);
  };
}
