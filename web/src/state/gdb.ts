// gdbs of this window: each in a view, in step with the focus both ways. Where a gdb goes by itself, the focus goes.
import { effect, signal } from "@preact/signals";
import { bytesOfHex } from "../model/bytes";
import { sameFocus } from "../model/moment";
import type { Focus } from "../wire/types";
import { focus, go } from "./focus";
import { connected, hearGdbs, notice, tellGdb } from "./session";

/** What a request may have, with each of its characters escaped. */
const MOST_TYPED = 8000;

const running = new Map<number, Gdb>();
let last = 0;

export class Gdb {
  /** Why there is none (any more). */
  readonly closed = signal<string | null>("not begun");
  private readonly output: (bytes: Uint8Array, shown: () => void) => void;
  private number = 0;
  /** Where it is, or has been told to go. */
  private at: Focus | null = null;

  /** output: shows bytes, and calls back when it has. */
  constructor(output: (bytes: Uint8Array, shown: () => void) => void) {
    this.output = output;
  }

  /** Starts one at the focus. */
  begin(columns: number, rows: number): void {
    const f = focus.peek();
    if (!f || this.closed.peek() === null) return;
    this.number = ++last;
    this.at = f;
    this.closed.value = null;
    running.set(this.number, this);
    this.tell({ open: { focus: f, size: [columns, rows] } });
  }

  end(): void {
    this.tell({ close: true });
    this.hearEnd("closed");
  }

  type(text: string): void {
    for (let i = 0; i < text.length; i += MOST_TYPED) this.tell({ input: text.slice(i, i + MOST_TYPED) });
  }

  resize(columns: number, rows: number): void {
    this.tell({ size: [columns, rows] });
  }

  follow(f: Focus): void {
    if (sameFocus(f, this.at)) return;
    this.at = f;
    this.tell({ focus: f });
  }

  private tell(message: object): void {
    if (running.get(this.number) === this) tellGdb(this.number, message);
  }

  hear(m: { readonly [key: string]: unknown }): void {
    const { output, focus: moved, closed, error } = m;
    if (typeof output === "string") {
      const bytes = bytesOfHex(output);
      this.output(bytes, () => this.tell({ taken: bytes.length }));
    } else if (typeof closed === "string") this.hearEnd(closed);
    else if (moved) {
      this.at = moved as Focus;
      go(this.at);
    } else if (error) notice.value = { text: `gdb: ${String((error as { readonly message?: unknown }).message)}` };
  }

  hearEnd(why: string): void {
    running.delete(this.number);
    this.closed.value = why;
  }
}

hearGdbs((number, message) => running.get(number)?.hear(message));

effect(() => {
  const f = focus.value;
  if (f) for (const gdb of running.values()) gdb.follow(f);
});
effect(() => {
  if (connected.value === false) for (const gdb of [...running.values()]) gdb.hearEnd("the connection was lost");
});
