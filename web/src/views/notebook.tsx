// The notebook: notes on moments, shared by all windows. The present focus has a tentative one until it is kept.
import { useEffect, useRef } from "preact/hooks";
import { momentText, sameFocus } from "../model/moment";
import { addNote, changeNote, focus, frame, go, noteHere, notes, persistent, removeNote, snippetOf } from "../state/state";
import type { Note } from "../wire/types";

const COLOURS = ["", "amber", "green", "blue", "violet"];
/** The note whose text is to be typed next. */
let wantsTyping = "";

function NoteRow(props: { id: string; note: Note }) {
  const text = useRef<HTMLTextAreaElement>(null);
  const here = sameFocus(props.note.focus, focus.value);
  useEffect(() => {
    if (wantsTyping === props.id) {
      text.current?.focus();
      wantsTyping = "";
    }
  });
  const next = COLOURS[(COLOURS.indexOf(props.note.color ?? "") + 1) % COLOURS.length] ?? "";
  return (
    <div
      class={`note ${here ? "focus" : ""} ${props.note.color ?? ""}`}
      onClick={() => {
        go(props.note.focus);
        text.current?.focus();
      }}
    >
      <div class="snippet">
        <button
          class={`swatch ${props.note.color ?? ""}`}
          title="Colour of this note"
          onClick={(e) => {
            e.stopPropagation();
            changeNote(props.id, { color: next });
          }}
        />
        <span>{props.note.snippet}</span>
        <span class="dim right">{momentText(props.note.focus.moment)}</span>
        <button class="close" title="Delete this note" onClick={(e) => (e.stopPropagation(), removeNote(props.id))}>
          ×
        </button>
      </div>
      <div>
        <textarea
          ref={text}
          rows={1}
          value={props.note.text}
          aria-label="note"
          placeholder="…"
          onInput={(e) => changeNote(props.id, { text: e.currentTarget.value })}
        />
      </div>
    </div>
  );
}

export function NotebookView() {
  const list = [...notes.value].sort((a, b) => a[1].ordering - b[1].ordering);
  const f = focus.value;
  const before = f ? list.filter(([, n]) => n.ordering < f.moment.event + f.moment.instr / 2 ** 40) : list;
  const after = list.slice(before.length);
  const show = ([id, note]: [string, Note]) => <NoteRow key={id} id={id} note={note} />;
  return (
    <>
      {before.map(show)}
      {f && noteHere.value === null && (
        <div class="note focus">
          <div
            class="tentative snippet"
            role="button"
            tabIndex={0}
            title="Keep a note of this moment (m)"
            onClick={() => (wantsTyping = addNote())}
            onKeyDown={(e) => {
              if (e.key === "Enter") wantsTyping = addNote();
            }}
          >
            <span>{snippetOf(frame.value)}</span>
            <span class="dim right">{momentText(f.moment)} · keep</span>
          </div>
        </div>
      )}
      {after.map(show)}
      {!persistent.value && <p class="why">Notes are not kept: the server was started without --storage.</p>}
    </>
  );
}
