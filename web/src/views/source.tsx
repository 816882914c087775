// The source view. The text lives in a frame of its own, so that its thousands of lines are laid out apart from the rest.
import { useEffect, useRef, useState } from "preact/hooks";
import { tokens } from "../model/highlight";
import { useRows } from "../state/rows";
import { askOne, fileInView, focus, frame, go, openView, shownFile } from "../state/state";
import type { LineRow } from "../wire/types";
import { onKey } from "./keys";

interface SourceRow {
  readonly found: boolean;
  readonly url: string;
  readonly why?: string;
}

function fill(doc: Document, text: string): void {
  const root = doc.getElementById("monaco-container");
  if (!root) return;
  root.textContent = "";
  let inComment = false;
  const all = doc.createDocumentFragment();
  text
    .split("\n")
    .slice(0, 60000)
    .forEach((line, i) => {
      const row = doc.createElement("div");
      row.className = "line";
      row.dataset["line"] = String(i + 1);
      const number = doc.createElement("span");
      number.className = "number";
      number.textContent = String(i + 1);
      const code = doc.createElement("span");
      code.className = "code";
      const t = tokens(line, inComment);
      inComment = t.inComment;
      for (const token of t.tokens) {
        if (token.kind === "plain" || token.kind === "word") code.append(token.text);
        else {
          const span = doc.createElement("span");
          span.className = token.kind;
          span.textContent = token.text;
          code.append(span);
        }
      }
      row.append(number, code);
      all.append(row);
    });
  root.append(all);
}

export function SourceView() {
  const iframe = useRef<HTMLIFrameElement>(null);
  const [doc, setDoc] = useState<Document | null>(null);
  const [loaded, setLoaded] = useState("");
  const [why, setWhy] = useState<string | null>(null);
  const file = fileInView.value;
  const here = frame.value?.location;
  const marks = useRows<LineRow>("dynamicAnnotations", focus.value && file ? { focus: focus.value, file } : null);

  useEffect(() => {
    const d = iframe.current?.contentDocument;
    if (!d) return;
    d.head.textContent = "";
    d.body.textContent = "";
    for (const link of document.querySelectorAll('link[rel="stylesheet"]')) d.head.append(d.importNode(link, true));
    const root = d.createElement("div");
    root.id = "monaco-container";
    root.tabIndex = 0;
    d.body.className = "source-frame";
    d.body.append(root);
    d.addEventListener("keydown", onKey);
    setDoc(d);
  }, []);

  useEffect(() => {
    if (!doc || !file) return undefined;
    const abort = new AbortController();
    const cancel = askOne<SourceRow>(
      "source",
      { file },
      (row) => {
        if (!row.found) {
          setWhy(row.why ?? "not found");
          setLoaded("");
          return;
        }
        fetch(row.url, { signal: abort.signal })
          .then((r) => (r.ok ? r.text() : Promise.reject(new Error(`${r.status}`))))
          .then((text) => {
            fill(doc, text);
            setWhy(null);
            setLoaded(file);
          })
          .catch(() => undefined);
      },
      setWhy,
    );
    return () => {
      abort.abort();
      cancel();
    };
  }, [doc, file]);

  useEffect(() => {
    if (!doc || loaded !== file) return;
    const byLine = new Map(marks.rows.map((r) => [r.line, r]));
    const current = shownFile.value?.line ?? (here && here.file === file ? here.line : 0);
    let target: HTMLElement | null = null;
    for (const el of doc.querySelectorAll<HTMLElement>(".line")) {
      const n = Number(el.dataset["line"]);
      const mark = byLine.get(n);
      el.className = `line ${mark?.strength ?? ""} ${n === current ? (shownFile.value ? "shown" : "focus") : ""}`;
      el.title = mark ? `executed ${mark.count}× in this call` : "";
      if (n === current) target = el;
    }
    if (target) {
      const box = target.getBoundingClientRect();
      const height = doc.defaultView?.innerHeight ?? 0;
      if (box.top < 40 || box.bottom > height - 40) target.scrollIntoView({ block: "center" });
    }
    const click = (e: Event): void => {
      const el = (e.target as Element | null)?.closest<HTMLElement>(".line");
      if (!el || doc.getSelection()?.toString()) return;
      const n = Number(el.dataset["line"]);
      const mark = byLine.get(n);
      // A line of this iteration: go there. Any other: all of its executions.
      if (mark?.strength === "strong") go(mark.focus);
      else openView({ view: "breakpoint", of: `${file}:${n}`, label: `${file.split("/").pop()}:${n}` });
    };
    doc.addEventListener("click", click);
    return () => doc.removeEventListener("click", click);
  }, [doc, loaded, file, marks.rows, here?.line, here?.file, shownFile.value]);

  return (
    <>
      <div class={why !== null || !file ? "hidden" : "fill"}>
        <iframe ref={iframe} title="source text" />
      </div>
      {file === null && <p class="why">no line information for this code{frame.value?.module ? ` in ${frame.value.module}` : ""}</p>}
      {why !== null && file !== null && (
        <p class="why">
          {why}. Start the server with <code>--sources {file.split("/").slice(0, 2).join("/") || "/"}</code> or{" "}
          <code>--sources FROM=TO</code>.
        </p>
      )}
    </>
  );
}
