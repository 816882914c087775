// gdb in a terminal, in step with the focus. A gdb lives as long as its pane, also while that is folded.
import { effect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { findPane, type Pane, paneId } from "../../model/layout";
import { Gdb } from "../../state/gdb";
import { inHand, layout, openView } from "../../state/layout";
import type { Terminal } from "./terminal";

/** What there is for a pane. The terminal's element stays with it, in the page or not. */
class Shown {
  readonly host = document.createElement("div");
  readonly gdb: Gdb;
  terminal: Terminal | null = null;
  private loading = false;
  private gone = false;

  constructor() {
    this.host.className = "terminal-host";
    this.gdb = new Gdb((bytes, shown) => {
      this.terminal?.write(bytes, shown); // which is there before gdb begins
    });
  }

  /** Puts it into the page; the first time that begins it. */
  async show(place: HTMLElement, takeKeys: () => boolean): Promise<void> {
    place.append(this.host);
    if (!this.terminal && !this.loading) {
      this.loading = true;
      const { Terminal } = await import("./terminal");
      await document.fonts.load("12px 'JetBrains Mono Variable'"); // cells are measured once
      if (this.gone) return;
      this.terminal = new Terminal(this.host, {
        typed: (text) => this.gdb.type(text),
        resized: (columns, rows) => this.gdb.resize(columns, rows),
      });
      this.begin();
    }
    if (takeKeys()) this.terminal?.focus();
  }

  begin(): void {
    if (this.terminal) this.gdb.begin(this.terminal.columns, this.terminal.rows);
  }

  end(): void {
    this.gone = true;
    this.gdb.end();
    this.terminal?.destroy();
    this.host.remove();
  }
}

const shown = new Map<string, Shown>();

// A pane that was closed takes its gdb with it.
effect(() => {
  const l = layout.value;
  for (const [id, s] of shown) {
    if (findPane(l, id)) continue;
    shown.delete(id);
    s.end();
  }
});

export function GdbView(props: { pane: Pane }) {
  const place = useRef<HTMLDivElement>(null);
  const id = paneId(props.pane);
  const s = shown.get(id) ?? new Shown();
  shown.set(id, s);
  const held = inHand.value === id;
  useEffect(() => {
    if (!place.current) return undefined;
    const takeKeys = (): boolean => {
      const at = document.activeElement;
      return inHand.peek() === id && (at === document.body || at === null || at.closest(".view.gdb") !== null);
    };
    void s.show(place.current, takeKeys);
    return () => s.host.remove();
  }, [s]);
  useEffect(() => {
    if (held && document.activeElement === document.body) s.terminal?.focus();
  }, [held]);
  const closed = s.gdb.closed.value;
  return (
    <div class="contents">
      <div class="terminal-place" ref={place} />
      {closed !== null && closed !== "not begun" && (
        <p class="closed" role="status">
          <span class="why">{closed}</span>
          <button onClick={() => s.begin()}>Start again</button>
        </p>
      )}
    </div>
  );
}

/** A further one beside this. */
export function GdbTools() {
  const another = (): void => {
    let of = 2;
    while (findPane(layout.value, paneId({ view: "gdb", of: String(of) }))) of++;
    openView({ view: "gdb", of: String(of) });
  };
  return (
    <button title="Another gdb" onClick={another}>
      another
    </button>
  );
}
