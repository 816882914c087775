// The notebook: notes on moments, shared by all windows. The present focus has a tentative one until it is kept.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { classes, plural } from "../../base/text";
import { momentText, sameFocus } from "../../model/moment";
import { COLOURS, markdown, tentativeIndex } from "../../model/notebook";
import { focus, frame, go, linkTo } from "../../state/focus";
import { addNote, changeNote, moveNote, noteHere, noteList, removeNote, snippetOf, typing } from "../../state/notes";
import { persistent, title } from "../../state/session";
import type { Note } from "../../wire/types";

function NoteRow(props: { id: string; note: Note; index: number; count: number }) {
  const { id, note, index } = props;
  const text = useRef<HTMLTextAreaElement>(null);
  const row = useRef<HTMLDivElement>(null);
  const here = sameFocus(note.focus, focus.value);
  const wanted = typing.value === id;
  useEffect(() => {
    if (!wanted) return;
    text.current?.focus();
    typing.value = "";
  }, [wanted]);
  useEffect(() => {
    if (here) row.current?.scrollIntoView({ block: "nearest" });
  }, [here]);
  // As high as its text.
  useLayoutEffect(() => {
    const el = text.current;
    if (!el) return;
    el.style.height = "auto";
    el.style.height = `${el.scrollHeight}px`;
  }, [note.text]);
  return (
    <div
      ref={row}
      class={classes("note", here && "focus", note.color && `mark ${note.color}`)}
      aria-current={here ? "true" : undefined}
      onClick={() => {
        go(note.focus);
        text.current?.focus();
      }}
      onDragOver={(e) => e.preventDefault()}
      onDrop={(e) => {
        const moved = e.dataTransfer?.getData("text/note");
        if (moved && moved !== id) moveNote(moved, index);
      }}
    >
      <div class="snippet" draggable onDragStart={(e) => e.dataTransfer?.setData("text/note", id)}>
        <span class="what">{note.snippet || momentText(note.focus.moment)}</span>
        <span class="tools" onClick={(e) => e.stopPropagation()}>
          {COLOURS.map((c) => (
            <button
              key={c}
              class={classes("swatch", c, note.color === c && "chosen")}
              aria-label={`${c}: show this moment in other views`}
              aria-pressed={note.color === c}
              title="Display this event in other views"
              onClick={() => changeNote(id, { color: note.color === c ? "" : c })}
            />
          ))}
          <button aria-label="move up" title="Move up" disabled={index === 0} onClick={() => moveNote(id, index - 1)}>
            ↑
          </button>
          <button aria-label="move down" title="Move down" disabled={index === props.count - 1} onClick={() => moveNote(id, index + 1)}>
            ↓
          </button>
          <button aria-label="delete note" title="Delete" onClick={() => removeNote(id)}>
            ×
          </button>
        </span>
        <span class="when">{momentText(note.focus.moment)}</span>
      </div>
      <div>
        <textarea
          ref={text}
          rows={1}
          value={note.text}
          aria-label="note"
          placeholder="write…"
          onClick={(e) => e.stopPropagation()}
          onInput={(e) => changeNote(id, { text: e.currentTarget.value })}
          onKeyDown={(e) => {
            if (e.key === "Escape") e.currentTarget.blur();
          }}
        />
      </div>
    </div>
  );
}

function Tentative() {
  const keep = (): void => {
    typing.value = addNote();
  };
  const f = focus.value;
  return (
    <div class="note focus" aria-current="true">
      <div
        class="tentative snippet"
        role="button"
        tabIndex={0}
        title="Keep a note of this moment (m)"
        onClick={keep}
        onKeyDown={(e) => {
          if (e.key !== "Enter" && e.key !== " ") return;
          e.preventDefault();
          keep();
        }}
      >
        <span class="what">{snippetOf(frame.value)}</span>
        <span class="keep">keep</span>
        <span class="when">{f && momentText(f.moment)}</span>
      </div>
    </div>
  );
}

function save(): void {
  const text = markdown(title.value, noteList.value, linkTo);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/markdown" }));
  link.download = `${title.value.replace(/[^\w.-]+/g, "-") || "notebook"}.md`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

export function NotebookView() {
  const [older, setOlder] = useState(400);
  const all = noteList.value;
  const f = focus.value;
  const at = f && noteHere.value === null ? tentativeIndex(all, f) : -1;
  // Thousands of notes: those near the focus, and the rest on demand.
  const first = all.length > older ? Math.max(0, Math.min(at < 0 ? 0 : at - older / 2, all.length - older)) : 0;
  const shown = all.slice(first, first + older);
  const show = (from: number, end: number) =>
    shown.slice(from, end).map(([id, note], i) => <NoteRow key={id} id={id} note={note} index={first + from + i} count={all.length} />);
  const split = at < 0 ? shown.length : Math.min(Math.max(at - first, 0), shown.length);
  return (
    <>
      {all.length > 0 && (
        <div class="bar">
          <span class="dim">{plural(all.length, "note")}</span>
          {!persistent.value && <span class="why">not kept: the server runs without --storage</span>}
          <span class="gap" />
          <button onClick={save}>Export as Markdown</button>
        </div>
      )}
      <div class="contents" role="list" aria-label="notes">
        {show(0, split)}
        {at >= 0 && <Tentative />}
        {show(split, shown.length)}
        {shown.length < all.length && (
          <p>
            <button onClick={() => setOlder(older * 4)}>more notes</button>
          </p>
        )}
      </div>
    </>
  );
}
