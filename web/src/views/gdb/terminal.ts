// A terminal: xterm.js, kept within the page's policy, which allows no <style> elements: what it would put there goes into
// adoptedStyleSheets, which the policy allows.
import { FitAddon } from "@xterm/addon-fit";
import { type ITheme, Terminal as Xterm } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";

export interface TerminalEvents {
  typed(text: string): void;
  resized(columns: number, rows: number): void;
}

/** Stands in for a <style> element: has no text of its own, but a style sheet. */
function styleStandIn(doc: Document): HTMLElement {
  const sheet = new CSSStyleSheet();
  const element = Document.prototype.createElement.call(doc, "span");
  element.hidden = true;
  doc.adoptedStyleSheets = [...doc.adoptedStyleSheets, sheet];
  Object.defineProperty(element, "textContent", { set: (text: string) => sheet.replaceSync(text) });
  element.remove = () => {
    doc.adoptedStyleSheets = doc.adoptedStyleSheets.filter((s) => s !== sheet);
    Element.prototype.remove.call(element);
  };
  return element;
}

/** While `act` is at work, elements that it makes for styles are stand-ins. (The option documentOverride does not reach all of xterm.) */
function withoutStyles(doc: Document, act: () => void): void {
  const make = (tag: string, options?: ElementCreationOptions): HTMLElement =>
    tag === "style" ? styleStandIn(doc) : Document.prototype.createElement.call(doc, tag, options);
  Object.defineProperty(doc, "createElement", { value: make, configurable: true });
  try {
    act();
  } finally {
    Reflect.deleteProperty(doc, "createElement"); // the prototype's is seen again
  }
}

/** The page's colours, light or dark as they are now. gdb uses the first eight. */
function themeOf(element: HTMLElement): ITheme {
  const style = getComputedStyle(element);
  const colour = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  return {
    background: colour("pane"),
    foreground: colour("text"),
    cursor: colour("text"),
    cursorAccent: colour("pane"),
    selectionBackground: colour("selection"),
    black: colour("text"),
    red: colour("macro"),
    green: colour("string"),
    yellow: colour("keyword"),
    blue: colour("type"),
    magenta: colour("keyword"),
    cyan: colour("value"),
    white: colour("dim"),
  };
}

/** SGR 38;2 and 48;2 (ECMA-48 8.3.117, ITU-T T.416 13.1.8). */
function beyondPalette(params: readonly number[]): boolean {
  return params.some((p, i) => (p === 38 || p === 48) && params[i + 1] === 2);
}

export class Terminal {
  readonly host: HTMLElement;
  private readonly xterm: Xterm;
  private readonly fitting = new FitAddon();
  private readonly sizes: ResizeObserver;
  private readonly scheme = matchMedia("(prefers-color-scheme: dark)");

  /** host: in the document, with a size. */
  constructor(host: HTMLElement, events: TerminalEvents) {
    this.host = host;
    this.xterm = new Xterm({
      fontFamily: getComputedStyle(host).getPropertyValue("--mono"),
      fontSize: 12,
      lineHeight: 1.25,
      scrollback: 10_000,
      theme: themeOf(host),
      // What a program prints is no reason to leave this page.
      linkHandler: { activate: () => {} },
    });
    this.xterm.loadAddon(this.fitting);
    // Colours beyond the palette would be inline styles: such a change of attributes is left out.
    this.xterm.parser.registerCsiHandler({ final: "m" }, (params) => beyondPalette(params.flat()));
    withoutStyles(document, () => this.xterm.open(host));
    this.xterm.onData((text) => events.typed(text));
    this.xterm.onResize(({ cols, rows }) => events.resized(cols, rows));
    // The page's own keys: search, back and forward.
    this.xterm.attachCustomKeyEventHandler(
      (e) => !(e.ctrlKey && !e.altKey && e.key.toLowerCase() === "s") && !(e.altKey && (e.key === "ArrowLeft" || e.key === "ArrowRight")),
    );
    this.sizes = new ResizeObserver(() => this.fit());
    this.sizes.observe(host);
    this.scheme.addEventListener("change", this.recolour);
    this.fit();
  }

  private fit(): void {
    if (this.host.clientWidth > 0 && this.host.clientHeight > 0) this.fitting.fit();
  }

  private readonly recolour = (): void => {
    this.xterm.options.theme = themeOf(this.host);
  };

  get columns(): number {
    return this.xterm.cols;
  }

  get rows(): number {
    return this.xterm.rows;
  }

  write(bytes: Uint8Array, shown: () => void): void {
    this.xterm.write(bytes, shown);
  }

  focus(): void {
    this.xterm.focus();
  }

  destroy(): void {
    this.sizes.disconnect();
    this.scheme.removeEventListener("change", this.recolour);
    this.xterm.dispose();
  }
}
