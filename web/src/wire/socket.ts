// The connection: requests with numbers, rows that stream in, stored values. A lost connection comes back by itself: then questions
// that were under way are asked again, and values that were not yet written are written.
import type { Failure } from "./types";

export interface Handler {
  rows(rows: readonly unknown[]): void;
  progress(share: number): void;
  end(more: boolean, failure: Failure | null): void;
  /** The question is asked again from its beginning: what came so far is void. */
  restart(): void;
}
export interface Listener {
  hello(title: string, persistent: boolean): void;
  stored(key: string, value: unknown): void;
  removed(key: string): void;
  storedAll(): void;
  connected(up: boolean): void;
  /** A message about one of our gdbs. */
  gdb(number: number, message: { readonly [key: string]: unknown }): void;
}

type Json = { readonly [key: string]: unknown };
const isObject = (v: unknown): v is Json => typeof v === "object" && v !== null && !Array.isArray(v);

interface Question {
  readonly message: string;
  readonly handler: Handler;
}

const RETRY_MS = [300, 1000, 2000, 4000] as const;

export class Socket {
  private ws: WebSocket | null = null;
  private next = 1;
  private failures = 0;
  private readonly open = new Map<number, Question>();
  /** Writes in order, by key the last one only, until the connection is there. */
  private readonly unsent = new Map<string, string>();
  private readonly url: string;
  private readonly listener: Listener;

  constructor(url: string, listener: Listener) {
    this.url = url;
    this.listener = listener;
  }

  connect(): void {
    const ws = new WebSocket(this.url);
    this.ws = ws;
    ws.onopen = () => {
      this.failures = 0;
      this.listener.connected(true);
      for (const { message, handler } of this.open.values()) {
        handler.restart();
        ws.send(message);
      }
      for (const message of this.unsent.values()) ws.send(message);
      this.unsent.clear();
    };
    ws.onmessage = (e: MessageEvent<unknown>) => this.receive(e.data);
    ws.onclose = () => {
      if (this.ws !== ws) return;
      this.ws = null;
      this.listener.connected(false);
      const wait = RETRY_MS[Math.min(this.failures++, RETRY_MS.length - 1)];
      setTimeout(() => this.connect(), wait);
    };
  }

  private get live(): WebSocket | null {
    return this.ws?.readyState === WebSocket.OPEN ? this.ws : null;
  }

  private write(key: string, message: object): void {
    const text = JSON.stringify(message);
    if (this.live) this.live.send(text);
    else {
      this.unsent.delete(key);
      this.unsent.set(key, text);
    }
  }

  private receive(data: unknown): void {
    let m: unknown;
    try {
      m = JSON.parse(String(data));
    } catch {
      return;
    }
    if (!isObject(m)) return;
    if (typeof m["id"] === "number") this.answer(m["id"], m);
    else if (typeof m["gdb"] === "number") this.listener.gdb(m["gdb"], m);
    else if (isObject(m["hello"])) this.listener.hello(String(m["hello"]["title"]), m["hello"]["persistent"] === true);
    else if (isObject(m["stored"])) this.listener.stored(String(m["stored"]["key"]), m["stored"]["value"]);
    else if (isObject(m["removed"])) this.listener.removed(String(m["removed"]["key"]));
    else if (m["storedAll"] === true) this.listener.storedAll();
  }

  private answer(id: number, m: Json): void {
    const asked = this.open.get(id);
    if (!asked) return; // cancelled: an old answer never overwrites a newer one
    if (Array.isArray(m["rows"])) asked.handler.rows(m["rows"].filter(isObject));
    if (typeof m["progress"] === "number") asked.handler.progress(m["progress"]);
    const error = m["error"];
    if (m["done"] !== true && !isObject(error)) return;
    this.open.delete(id);
    const failure = isObject(error) ? { kind: String(error["kind"]), message: String(error["message"]) } : null;
    asked.handler.end(m["more"] === true, failure);
  }

  /** Asks; the returned function cancels: the handler then hears nothing more. */
  ask(query: string, params: object, handler: Handler): () => void {
    const id = this.next++;
    const message = JSON.stringify({ id, query, params });
    this.open.set(id, { message, handler });
    this.live?.send(message);
    return () => {
      if (this.open.delete(id)) this.live?.send(JSON.stringify({ cancel: id }));
    };
  }

  put(key: string, value: unknown): void {
    this.write(key, { put: key, value });
  }

  /** About a gdb: those end with the connection, so that without one there is nothing to say. */
  tellGdb(number: number, message: object): void {
    this.live?.send(JSON.stringify({ gdb: number, ...message }));
  }

  remove(key: string): void {
    this.write(key, { delete: key });
  }
}
