// The notebook, shared by all windows.
import { computed, signal } from "@preact/signals";
import { baseName } from "../base/text";
import { momentKey } from "../model/moment";
import { inOrder, type NamedNote, naturalOrder, noteAt, orderingAt } from "../model/notebook";
import type { CompleteFrame, Focus, Note } from "../wire/types";
import { focus, frame } from "./focus";
import { layout, openView } from "./layout";
import { notice, store, type StoreListener, unstore } from "./session";

export const notes = signal<ReadonlyMap<string, Note>>(new Map());
export const noteList = computed<readonly NamedNote[]>(() => inOrder(notes.value));
/** The note on the present focus, if there is one. */
export const noteHere = computed(() => noteAt(notes.value, focus.value));
/** The note whose text is to be typed next. */
export const typing = signal("");

/** Colours that users gave to moments; all panes and the timeline show them. */
export const highlights = computed<ReadonlyMap<string, string>>(
  () => new Map(noteList.value.flatMap(([, n]) => (n.color ? [[momentKey(n.focus.moment), n.color]] : []))),
);

const isNote = (v: unknown): v is Note =>
  typeof v === "object" &&
  v !== null &&
  "ordering" in v &&
  typeof v.ordering === "number" &&
  "text" in v &&
  typeof v.text === "string" &&
  "focus" in v &&
  typeof v.focus === "object" &&
  v.focus !== null &&
  "moment" in v.focus &&
  typeof v.focus.moment === "object" &&
  v.focus.moment !== null &&
  "event" in v.focus.moment &&
  "instr" in v.focus.moment;

function set(key: string, note: Note | null): void {
  const next = new Map(notes.value);
  if (note) next.set(key, note);
  else next.delete(key);
  notes.value = next;
}

export const notesListener: StoreListener = {
  stored(key, value) {
    if (key.startsWith("notebook/") && isNote(value)) set(key, value);
  },
  removed(key) {
    if (notes.value.has(key)) set(key, null);
  },
};

/** Where notes are, their pane comes up by itself. */
export function showNotebook(): void {
  if (notes.value.size === 0) return;
  const there = layout.value.columns.some((c) => c.panes.some((p) => p.view === "notebook"));
  if (!there) openView({ view: "notebook" });
}

export function snippetOf(f: CompleteFrame | null): string {
  if (!f) return "";
  const name = f.function?.name ?? f.pc;
  return f.location ? `${name} at ${baseName(f.location.file)}:${f.location.line}` : name;
}

/** Keeps a note, by default of the focus; returns its key, "" if there is no focus yet. */
export function addNote(at: Focus | null = focus.value, snippet: string = snippetOf(frame.value), text = ""): string {
  if (!at) return "";
  const key = `notebook/${Math.floor(Math.random() * 2 ** 48)}`;
  const note: Note = { focus: at, ordering: naturalOrder(at), text, snippet };
  set(key, note);
  store(key, note);
  return key;
}

/** Keeps a note of the focus, if there is none, and goes on with typing its text. */
export function noteAndType(): void {
  openView({ view: "notebook" });
  typing.value = noteHere.value ?? addNote();
}

export function changeNote(key: string, change: Partial<Note>): void {
  const old = notes.value.get(key);
  if (!old) return;
  const note = { ...old, ...change };
  set(key, note);
  store(key, note);
}

export function moveNote(key: string, index: number): void {
  const others = noteList.value.filter(([k]) => k !== key);
  changeNote(key, { ordering: orderingAt(others, index) });
}

export function removeNote(key: string): void {
  const note = notes.value.get(key);
  if (!note) return;
  set(key, null);
  unstore(key);
  notice.value = {
    text: "Note deleted",
    undo: () => {
      set(key, note);
      store(key, note);
      notice.value = null;
    },
  };
}
