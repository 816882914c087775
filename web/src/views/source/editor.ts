// The source text: a CodeMirror that is only read, in a frame of its own.
//
// Its document has no <head>: CodeMirror puts its styles into a <style> there, which the page's policy forbids, or, where there is
// none, into adoptedStyleSheets, which it allows (style-mod.js, StyleSet).
import { HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import { findNext, findPrevious, getSearchQuery, openSearchPanel, search, searchKeymap, searchPanelOpen, SearchQuery, setSearchQuery } from "@codemirror/search";
import { Compartment, EditorState, type Extension, RangeSetBuilder, StateEffect, StateField } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView, hoverTooltip, keymap, lineNumbers, type Tooltip, WidgetType } from "@codemirror/view";
import { tags as t } from "@lezer/highlight";
import { languageOf } from "./languages";

export interface LineMark {
  readonly strength: "strong" | "weak";
  readonly count: number;
}
/** What is marked: executed lines, the focus' line, one that was asked for, the cursor's, and values behind a line. */
export interface Marks {
  readonly lines: ReadonlyMap<number, LineMark>;
  readonly focus: number | null;
  readonly shown: number | null;
  /** Colours of notes. */
  readonly notes: ReadonlyMap<number, string>;
  readonly values: { readonly line: number; readonly text: string } | null;
}
export const NO_MARKS: Marks = { lines: new Map(), focus: null, shown: null, notes: new Map(), values: null };

export interface EditorEvents {
  line(line: number, onNumber: boolean): void;
  /** A value for the word at a place, or null. */
  hover(word: string): HTMLElement | null;
  menu(word: string, line: number, x: number, y: number): void;
}

const setMarks = StateEffect.define<Marks>();
const setCursor = StateEffect.define<number | null>();

class Values extends WidgetType {
  readonly text: string;
  constructor(text: string) {
    super();
    this.text = text;
  }
  override eq(other: Values): boolean {
    return other.text === this.text;
  }
  override toDOM(view: EditorView): HTMLElement {
    const el = view.dom.ownerDocument.createElement("span");
    el.className = "line-values";
    el.textContent = this.text;
    return el;
  }
  override ignoreEvent(): boolean {
    return true;
  }
}

interface Marked {
  readonly marks: Marks;
  readonly cursor: number | null;
  readonly decorations: DecorationSet;
}

function decorate(state: EditorState, marks: Marks, cursor: number | null): DecorationSet {
  const lines = new Map<number, string[]>();
  const add = (line: number | null, name: string): void => {
    if (line !== null && line >= 1 && line <= state.doc.lines) lines.set(line, [...(lines.get(line) ?? []), name]);
  };
  for (const [line, m] of marks.lines) add(line, m.strength);
  for (const [line, colour] of marks.notes) add(line, `mark ${colour}`);
  add(marks.shown, "shown");
  add(marks.focus, "focus");
  add(cursor, "cursor");
  const values = marks.values;
  if (values) add(values.line, "with-values");
  const builder = new RangeSetBuilder<Decoration>();
  for (const [number, names] of [...lines].sort((a, b) => a[0] - b[0])) {
    const line = state.doc.line(number);
    const mark = marks.lines.get(number);
    const title = mark ? `executed ${mark.count}× in this call` : "";
    builder.add(line.from, line.from, Decoration.line({ class: names.join(" "), attributes: title ? { title } : {} }));
    if (values && values.line === number && values.text)
      builder.add(line.to, line.to, Decoration.widget({ widget: new Values(values.text), side: 1 }));
  }
  return builder.finish();
}

const marked = StateField.define<Marked>({
  create: () => ({ marks: NO_MARKS, cursor: null, decorations: Decoration.none }),
  update(value, tr) {
    let { marks, cursor } = value;
    for (const e of tr.effects) {
      if (e.is(setMarks)) marks = e.value;
      if (e.is(setCursor)) cursor = e.value;
    }
    if (marks === value.marks && cursor === value.cursor && !tr.docChanged) return value;
    return { marks, cursor, decorations: decorate(tr.state, marks, cursor) };
  },
  provide: (f) => EditorView.decorations.from(f, (v) => v.decorations),
});

const colours = HighlightStyle.define([
  { tag: [t.keyword, t.modifier, t.controlKeyword, t.operatorKeyword, t.definitionKeyword], color: "var(--keyword)" },
  { tag: [t.string, t.character, t.special(t.string)], color: "var(--string)" },
  { tag: [t.comment, t.lineComment, t.blockComment], color: "var(--comment)" },
  { tag: [t.number, t.bool, t.null, t.literal], color: "var(--number)" },
  { tag: [t.typeName, t.className, t.namespace], color: "var(--type)" },
  { tag: [t.processingInstruction, t.meta, t.macroName], color: "var(--macro)" },
]);

/** The identifier at a place, with members before it: `message->author`. */
export function wordAt(state: EditorState, pos: number): { from: number; to: number; text: string } | null {
  const word = state.wordAt(pos);
  if (!word) return null;
  const text = state.sliceDoc(word.from, word.to);
  return /^[A-Za-z_$]/.test(text) ? { from: word.from, to: word.to, text } : null;
}

export class Editor {
  private readonly view: EditorView;
  private readonly language = new Compartment();
  private file = "";
  private cursor: number | null = null;

  constructor(parent: HTMLElement, events: EditorEvents) {
    const own: Extension = [
      EditorState.readOnly.of(true),
      EditorView.editable.of(false),
      EditorView.contentAttributes.of({ tabindex: "0", "aria-label": "source text", "aria-readonly": "true" }),
      EditorState.tabSize.of(4),
      lineNumbers({
        domEventHandlers: {
          mousedown: (view, line) => {
            events.line(view.state.doc.lineAt(line.from).number, true);
            return true;
          },
        },
      }),
      syntaxHighlighting(colours),
      marked,
      search({ top: true }),
      keymap.of(searchKeymap),
      hoverTooltip(
        (view, pos): Tooltip | null => {
          const word = wordAt(view.state, pos);
          const dom = word && events.hover(word.text);
          return word && dom ? { pos: word.from, end: word.to, above: true, create: () => ({ dom }) } : null;
        },
        { hoverTime: 250 },
      ),
      EditorView.domEventHandlers({
        keydown: (e) => this.moveCursor(e),
        mouseup: (e, view) => {
          if (e.button !== 0 || !view.state.selection.main.empty) return false;
          // By place, not by element: marks may have been drawn anew since the button went down.
          const y = e.clientY - view.documentTop;
          if (y < 0 || y >= view.contentHeight) return false;
          const line = view.state.doc.lineAt(view.lineBlockAtHeight(y).from).number;
          this.setCursorLine(line);
          events.line(line, false);
          return false;
        },
        contextmenu: (e, view) => {
          const pos = view.posAtCoords({ x: e.clientX, y: e.clientY });
          if (pos === null || !view.state.selection.main.empty) return false;
          events.menu(wordAt(view.state, pos)?.text ?? "", view.state.doc.lineAt(pos).number, e.clientX, e.clientY);
          e.preventDefault();
          return true;
        },
      }),
      this.language.of([]),
    ];
    this.extensions = own;
    this.view = new EditorView({ parent, root: parent.ownerDocument, state: EditorState.create({ doc: "", extensions: own }) });
  }
  private readonly extensions: Extension;

  destroy(): void {
    this.view.destroy();
  }

  /** Shows another text; marks and cursor are those of the old one no more. */
  show(file: string, text: string): void {
    this.file = file;
    this.cursor = null;
    this.view.setState(EditorState.create({ doc: text, extensions: this.extensions }));
    languageOf(file)?.then(
      (l) => {
        if (this.file === file) this.view.dispatch({ effects: this.language.reconfigure(l) });
      },
      () => {}, // without colours it can be read as well
    );
  }

  lineText(line: number): string {
    const { doc } = this.view.state;
    return line >= 1 && line <= doc.lines ? doc.line(line).text : "";
  }

  mark(marks: Marks): void {
    this.view.dispatch({ effects: setMarks.of(marks) });
  }

  /** Brings a line into view; in the middle if it was out of view. */
  reveal(line: number): void {
    const { doc } = this.view.state;
    if (line < 1 || line > doc.lines) return;
    const block = this.view.lineBlockAt(doc.line(line).from);
    const box = this.view.scrollDOM;
    const margin = Math.min(60, box.clientHeight / 4);
    const seen = block.top >= box.scrollTop + margin && block.bottom <= box.scrollTop + box.clientHeight - margin;
    if (!seen) this.view.dispatch({ effects: EditorView.scrollIntoView(doc.line(line).from, { y: "center" }) });
  }

  setCursorLine(line: number | null): void {
    this.cursor = line;
    this.view.dispatch({ effects: setCursor.of(line) });
  }
  get cursorLine(): number | null {
    return this.cursor;
  }

  focus(): void {
    this.view.contentDOM.focus();
  }

  find(): void {
    if (searchPanelOpen(this.view.state)) {
      const field = this.view.dom.querySelector<HTMLInputElement>(".cm-search input");
      field?.focus();
      field?.select();
    } else openSearchPanel(this.view);
  }
  findAgain(forward: boolean): void {
    (forward ? findNext : findPrevious)(this.view);
  }
  highlight(text: string): void {
    if (getSearchQuery(this.view.state).search !== text)
      this.view.dispatch({ effects: setSearchQuery.of(new SearchQuery({ search: text, literal: true })) });
  }

  /** Arrow keys move a cursor line by line, which Enter and x are about. */
  private moveCursor(e: KeyboardEvent): boolean {
    if (e.ctrlKey || e.altKey || e.metaKey) return false;
    const { doc } = this.view.state;
    const page = Math.max(Math.floor(this.view.scrollDOM.clientHeight / this.view.defaultLineHeight) - 2, 1);
    const moves: { readonly [key: string]: number } = {
      ArrowDown: 1,
      j: 1,
      ArrowUp: -1,
      k: -1,
      PageDown: page,
      PageUp: -page,
      Home: -doc.lines,
      End: doc.lines,
    };
    const by = moves[e.key];
    if (by === undefined) return false;
    const { marks } = this.view.state.field(marked);
    const from = this.cursor ?? marks.focus ?? marks.shown ?? 1;
    const line = Math.min(Math.max(from + by, 1), doc.lines);
    this.setCursorLine(line);
    this.reveal(line);
    e.preventDefault();
    return true;
  }
}
