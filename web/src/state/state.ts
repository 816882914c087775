// The window's state: focus and layout (the URL holds both), what is stored on the server, and the connection.
import { computed, effect, signal } from "@preact/signals";
import { sameFocus } from "../model/moment";
import { encodeLayout, type Layout, readHash, type ViewSpec, writeHash } from "../model/url";
import { type Handler, Socket } from "../wire/socket";
import type { CompleteFrame, Focus, Info, Note } from "../wire/types";

export const focus = signal<Focus | null>(null);
export const layout = signal<Layout>({
  columns: [
    [{ view: "source" }, { view: "stdouterr" }],
    [{ view: "stack" }, { view: "variables" }, { view: "notebook" }],
  ],
});
export const info = signal<Info | null>(null);
export const frame = signal<CompleteFrame | null>(null);
export const notes = signal<ReadonlyMap<string, Note>>(new Map());
export const connected = signal(false);
export const persistent = signal(false);
export const title = signal("pernosco");
export const helpOpen = signal(false);
export const failure = signal("");

/** A file shown in place of the focus' one, until the focus moves. */
export const shownFile = signal<{ file: string; line: number } | null>(null);
export const fileInView = computed(() => shownFile.value?.file ?? frame.value?.location?.file ?? null);

const isNote = (v: unknown): v is Note =>
  typeof v === "object" && v !== null && "focus" in v && "ordering" in v && "text" in v;

/** Our own changes on their way: their echoes are older than what is typed meanwhile. */
const underWay = new Map<string, number>();
function put(key: string, value: unknown): void {
  underWay.set(key, (underWay.get(key) ?? 0) + 1);
  socket.put(key, value);
}

const socket = new Socket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`, {
  hello(t, p) {
    title.value = t;
    persistent.value = p;
    document.title = `${t} - pernosco`;
  },
  stored(key, value) {
    const waiting = underWay.get(key) ?? 0;
    if (waiting > 0) underWay.set(key, waiting - 1);
    if (waiting > 0 || !key.startsWith("notebook/") || !isNote(value)) return;
    const next = new Map(notes.value);
    next.set(key, value);
    notes.value = next;
  },
  removed(key) {
    const next = new Map(notes.value);
    next.delete(key);
    notes.value = next;
  },
  storedAll() {
    start();
  },
  connected(up) {
    connected.value = up;
    underWay.clear();
  },
});

/** Asks for rows of a shape that the protocol promises. Returns what cancels. */
export function ask<Row>(
  query: string,
  params: object,
  on: { rows: (rows: readonly Row[]) => void; end: (more: boolean, failed: string | null) => void },
): () => void {
  const handler: Handler = {
    rows: (rows) => on.rows(rows as readonly Row[]),
    end: (more, failed) => on.end(more, failed ? failed.message : null),
  };
  return socket.ask(query, params, handler);
}

export function askOne<Row>(query: string, params: object, then: (row: Row) => void, failed?: (why: string) => void): () => void {
  return ask<Row>(query, params, {
    rows: (rows) => {
      const row = rows[0];
      if (row !== undefined) then(row);
    },
    end: (_more, why) => {
      if (why !== null) (failed ?? ((w) => (failure.value = w)))(why);
    },
  });
}

let started = false;
function start(): void {
  if (started) return;
  started = true;
  askOne<Info>("info", {}, (row) => {
    info.value = row;
    const fromUrl = readHash(location.hash);
    if (fromUrl.layout) layout.value = fromUrl.layout;
    focus.value = fromUrl.focus ?? row.firstFocus;
    history.replaceState(null, "", writeHash(focus.value, layout.value));
  });
}

/** Moves the focus; the browser's back button undoes it. */
export function go(to: Focus): void {
  if (sameFocus(to, focus.value)) {
    shownFile.value = null;
    return;
  }
  focus.value = to;
  shownFile.value = null;
  history.pushState(null, "", writeHash(to, layout.value));
}

function setLayout(next: Layout): void {
  if (encodeLayout(next) === encodeLayout(layout.value)) return;
  layout.value = next;
  if (focus.value) history.replaceState(null, "", writeHash(focus.value, next));
}

/** Shows a view: there already, or new at the top of the right column. The notebook and the like are there once. */
export function openView(v: ViewSpec): void {
  const same = (o: ViewSpec): boolean => o.view === v.view && (o.of ?? "") === (v.of ?? "");
  if (layout.value.columns.some((c) => c.some(same))) return;
  const [left, right] = layout.value.columns;
  const many = v.view === "execution" || v.view === "breakpoint" || v.view === "watchpoint";
  const rest = (right ?? []).filter((o) => many || o.view !== v.view);
  // Of views that answer questions the newest few are kept.
  const answers = rest.filter((o) => o.of !== undefined).slice(0, 1);
  setLayout({ columns: [left ?? [], [v, ...rest.filter((o) => o.of === undefined || answers.includes(o))]] });
}

export function closeView(v: ViewSpec): void {
  setLayout({ columns: layout.value.columns.map((c) => c.filter((o) => o !== v)) });
}

export function moveView(v: ViewSpec, column: number): void {
  setLayout({
    columns: layout.value.columns.map((c, i) => (i === column ? [...c.filter((o) => o !== v), v] : c.filter((o) => o !== v))),
  });
}

window.addEventListener("popstate", () => {
  const fromUrl = readHash(location.hash);
  if (fromUrl.layout) layout.value = fromUrl.layout;
  if (fromUrl.focus) focus.value = fromUrl.focus;
  shownFile.value = null;
});

// What is at the focus: asked once for all views. An old answer never overwrites a newer one, since the question is cancelled.
effect(() => {
  const f = focus.value;
  if (!f) return undefined;
  return askOne<CompleteFrame>("complete-frame", { focus: f }, (row) => {
    frame.value = row;
    failure.value = "";
  });
});

// The notebook comes back by itself where there are notes.
effect(() => {
  if (notes.value.size > 0) openView({ view: "notebook" });
});

/* --- notes --- */

export function snippetOf(f: CompleteFrame | null): string {
  if (!f) return "";
  const name = f.function?.name ?? f.pc;
  const where = f.location ? ` at ${f.location.file.split("/").pop()}:${f.location.line}` : "";
  return `${name}${where}`;
}

export function addNote(): string {
  const f = focus.value;
  if (!f) return "";
  const key = `notebook/${Math.floor(Math.random() * 2 ** 48)}`;
  const note: Note = { focus: f, ordering: f.moment.event + f.moment.instr / 2 ** 40, text: "", snippet: snippetOf(frame.value) };
  put(key, note);
  const next = new Map(notes.value);
  next.set(key, note);
  notes.value = next;
  return key;
}

export function changeNote(key: string, change: Partial<Note>): void {
  const old = notes.value.get(key);
  if (!old) return;
  const note = { ...old, ...change };
  const next = new Map(notes.value);
  next.set(key, note);
  notes.value = next;
  put(key, note);
}

export function removeNote(key: string): void {
  socket.remove(key);
}

/** The note on the present focus, if there is one. */
export const noteHere = computed(() => {
  for (const [key, n] of notes.value) if (sameFocus(n.focus, focus.value)) return key;
  return null;
});

export function step(kind: string, direction: "forward" | "backward"): void {
  const f = focus.value;
  if (!f) return;
  askOne<CompleteFrame>("step", { focus: f, kind, direction }, (row) => go(row.focus));
}
