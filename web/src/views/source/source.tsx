// The source view: the file of the focus' frame, with the lines executed in this call, and values where now is.
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { baseName } from "../../base/text";
import { mentioned, valuesText } from "../../model/annotate";
import { fileInView, focus, frame, frameFailure, go, shownPlace } from "../../state/focus";
import { openView, takeInHand } from "../../state/layout";
import { noteList } from "../../state/notes";
import { useRows } from "../../state/rows";
import { askOne, notice } from "../../state/session";
import { linePane } from "../executions/executions";
import { onKey } from "../keys/keys";
import { type MenuItem, openMenu, valueMenu } from "../menu/menu";
import { Status } from "../parts/parts";
import type { FunctionLineRow, LineRow, NamedValue, SourceFileRow } from "../../wire/types";
import type { Editor, EditorEvents, LineMark } from "./editor";
import { sourceHand } from "./hand";

interface Loaded {
  readonly file: string;
  readonly why: string | null;
  readonly address: string | null; // where the file is on the web, if it is not here
}

function hint(file: string): string {
  const folder = file.slice(0, file.lastIndexOf("/")) || "/";
  return file.startsWith("/") ? `--sources ${folder}` : "--sources FROM=TO";
}

export function SourceView() {
  const frameElement = useRef<HTMLIFrameElement>(null);
  const [editor, setEditor] = useState<Editor | null>(null);
  const [loaded, setLoaded] = useState<Loaded | null>(null);
  const [loading, setLoading] = useState(false);
  const file = fileInView.value;
  const at = focus.value;
  const here = frame.value?.location;
  const there = loaded?.file === file && loaded?.why === null;
  const marks = useRows<LineRow>("dynamicAnnotations", at && file ? { focus: at, file } : null);
  const variables = useRows<NamedValue>("variables", at ? { focus: at } : null);
  const byLine = useMemo(() => new Map(marks.rows.map((r) => [r.line, r])), [marks.rows]);

  // What the editor's events need of the newest render.
  const now = useRef({ file, byLine, variables: variables.rows, at });
  now.current = { file, byLine, variables: variables.failed === null ? variables.rows : [], at };

  const openLine = useCallback((line: number, onNumber: boolean) => {
    const { file: f, byLine: lines } = now.current;
    const mark = lines.get(line);
    // A line of this iteration: go there. Any other: all of its executions.
    if (!onNumber && mark?.strength === "strong") go(mark.focus);
    else if (f) openView(linePane(f, line));
  }, []);

  const start = useCallback(async () => {
    const element = frameElement.current;
    const doc = element?.contentDocument;
    if (!element || !doc) return;
    const { Editor } = await import("./editor");
    doc.head?.remove();
    doc.body.textContent = "";
    doc.body.className = "source-frame";
    for (const link of document.querySelectorAll('link[rel="stylesheet"]')) doc.body.append(doc.importNode(link, true));
    const box = doc.createElement("div");
    box.id = "monaco-container"; // as in the product whose tests and users come here
    doc.body.append(box);
    doc.addEventListener("keydown", onKey);
    doc.addEventListener("pointerdown", () => takeInHand("source"));
    const find = (word: string): NamedValue | undefined => [...now.current.variables].reverse().find((v) => v.name === word);
    const events: EditorEvents = {
      line: openLine,
      hover(word) {
        const v = find(word);
        if (!v) return null;
        const tip = doc.createElement("div");
        tip.className = "tip";
        const text = doc.createElement("span");
        text.className = v.value.text === undefined ? "why" : "value";
        text.textContent = v.value.text ?? v.value.why ?? "no value";
        const type = doc.createElement("span");
        type.className = "type";
        type.textContent = v.value.type ?? "";
        tip.append(text, type);
        return tip;
      },
      menu(word, line, x, y) {
        const v = find(word);
        const items: MenuItem[] = v ? valueMenu({ name: v.name, value: v.value, at: now.current.at }) : [];
        items.push({ label: `Executions of line ${line}`, key: "x", act: () => openLine(line, true) });
        const box = element.getBoundingClientRect();
        openMenu(box.left + x, box.top + y, items);
      },
    };
    setEditor(new Editor(box, events));
  }, []);
  useEffect(() => () => editor?.destroy(), [editor]);
  useEffect(() => {
    sourceHand.value = editor && {
      cursorLine: () => editor.cursorLine,
      file: () => now.current.file,
      openLine,
      focus: () => editor.focus(),
      find: () => {
        editor.focus();
        editor.find();
      },
    };
    return () => {
      sourceHand.value = null;
    };
  }, [editor]);

  useEffect(() => {
    setLoading(false);
    if (!editor || !file || loaded?.file === file) return undefined;
    const abort = new AbortController();
    setLoading(true);
    const done = (why: string | null, address: string | null = null): void => {
      setLoading(false);
      setLoaded({ file, why, address });
    };
    const cancel = askOne<SourceFileRow>(
      "source",
      { file },
      (row) => {
        if (!row.found) return done(row.why ?? "this file is not to be had", row.address ?? null);
        fetch(row.url, { signal: abort.signal })
          .then((r) => (r.ok ? r.text() : r.text().then((text) => Promise.reject(new Error(text.trim() || String(r.status))))))
          .then((text) => {
            if (abort.signal.aborted) return;
            editor.show(file, text);
            done(null);
          })
          .catch((e: unknown) => {
            if (!abort.signal.aborted) done(e instanceof Error ? e.message : "the server does not give it");
          });
        return undefined;
      },
      (failure) => done(failure),
    );
    return () => {
      abort.abort();
      cancel();
    };
    // A text may come after the file in view has changed back, and before this runs: then what is loaded tells.
  }, [editor, file, loaded]);

  const line = here && here.file === file ? here.line : null;
  const shown = shownPlace.value?.file === file ? shownPlace.value.line : null;
  const notes = noteList.value;
  useEffect(() => {
    if (!editor || !there) return;
    const values = line === null ? [] : mentioned(editor.lineText(line), now.current.variables);
    editor.mark({
      lines: new Map([...byLine].map(([n, r]): [number, LineMark] => [n, { strength: r.strength, count: r.count }])),
      focus: line,
      shown,
      notes: new Map(
        marks.rows.flatMap((r) => {
          const note = notes.find(
            ([, n]) =>
              n.color &&
              n.focus.moment.event === r.focus.moment.event &&
              n.focus.moment.instr === r.focus.moment.instr,
          );
          return note?.[1].color ? [[r.line, note[1].color] as [number, string]] : [];
        }),
      ),
      values: line !== null && values.length > 0 ? { line, text: valuesText(values) } : null,
    });
  }, [editor, there, loaded, byLine, line, shown, variables.rows, notes]);
  const target = shown ?? line;
  useEffect(() => {
    if (editor && there && target !== null) editor.reveal(target);
  }, [editor, there, loaded, target, at]);

  const why =
    frameFailure.value ??
    (file === null && frame.value
      ? `no line information for this code${frame.value.module ? ` of ${baseName(frame.value.module)}` : ""}`
      : null) ??
    (loaded && loaded.file === file ? loaded.why : null);
  return (
    <div class="contents">
      <iframe
        ref={frameElement}
        class={why === null ? "" : "hidden"}
        title="source text"
        srcdoc="<!doctype html><html lang='en'><body></body></html>"
        onLoad={() => void start()}
      />
      {why !== null && (
        <p class="why">
          {why}
          {loaded?.address && loaded.file === file && /^https?:\/\//.test(loaded.address) && (
            <>
              :{" "}
              <a href={loaded.address} target="_blank" rel="noopener noreferrer">
                {loaded.address}
              </a>
            </>
          )}
          {loaded?.why && file && loaded.file === file && (
            <>
              . The server can be given a place to look in: <code>{hint(file)}</code>
            </>
          )}
        </p>
      )}
      <Status of={{ busy: loading || (marks.busy && there), progress: marks.progress, failed: null, stop: marks.stop }} />
    </div>
  );
}

/** Buttons of the pane's title: the functions of the file, search in it. */
export function SourceTools() {
  const file = fileInView.value;
  const functions = useRows<FunctionLineRow>("functions-in-file", file ? { file } : null);
  const list = functions.failed === null ? functions.rows : [];
  if (!file) return null;
  return (
    <>
      <button
        title="Functions of this file"
        aria-haspopup="menu"
        disabled={list.length === 0}
        onClick={(e) => {
          const box = e.currentTarget.getBoundingClientRect();
          openMenu(box.left, box.bottom, functionItems(file, list));
        }}
      >
        ƒ {list.length > 0 ? list.length : ""}
      </button>
      <button title="Search in this file (Ctrl+F)" onClick={() => sourceHand.value?.find()}>
        find
      </button>
      {shownPlace.value && (
        <button title="Back to the focus" onClick={() => (shownPlace.value = null)}>
          to focus
        </button>
      )}
    </>
  );
}

function functionItems(file: string, rows: readonly FunctionLineRow[]): MenuItem[] {
  return [...rows]
    .sort((a, b) => a.line - b.line)
    .map((r) => ({
      label: r.function.name,
      key: String(r.line),
      act: () => {
        shownPlace.value = { file, line: r.line };
        if (r.line === 0) notice.value = { text: "where it begins is not known" };
      },
    }));
}
