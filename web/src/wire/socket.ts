// The connection: requests with numbers, rows that stream in, stored values. Lost connections come back by themselves.
import type { Failure } from "./types";

export interface Handler {
  rows(rows: readonly unknown[]): void;
  end(more: boolean, failure: Failure | null): void;
}
export interface StoreListener {
  hello(title: string, persistent: boolean): void;
  stored(key: string, value: unknown): void;
  removed(key: string): void;
  storedAll(): void;
  connected(up: boolean): void;
}

type Json = { readonly [key: string]: unknown };
const isObject = (v: unknown): v is Json => typeof v === "object" && v !== null && !Array.isArray(v);

export class Socket {
  private ws: WebSocket | null = null;
  private next = 1;
  private readonly open = new Map<number, { message: string; handler: Handler }>();
  private readonly unsent: string[] = [];

  constructor(
    private readonly url: string,
    private readonly listener: StoreListener,
  ) {
    this.connect();
  }

  private connect(): void {
    const ws = new WebSocket(this.url);
    this.ws = ws;
    ws.onopen = () => {
      this.listener.connected(true);
      for (const { message } of this.open.values()) ws.send(message); // questions that were under way are asked again
      for (const message of this.unsent.splice(0)) ws.send(message);
    };
    ws.onmessage = (e: MessageEvent<string>) => this.receive(e.data);
    ws.onclose = () => {
      this.listener.connected(false);
      this.ws = null;
      setTimeout(() => this.connect(), 1000);
    };
  }

  private send(message: string): void {
    if (this.ws?.readyState === WebSocket.OPEN) this.ws.send(message);
    else this.unsent.push(message);
  }

  private receive(text: string): void {
    let m: unknown;
    try {
      m = JSON.parse(text);
    } catch {
      return;
    }
    if (!isObject(m)) return;
    if (typeof m["id"] === "number") {
      const asked = this.open.get(m["id"]);
      if (!asked) return;
      if (Array.isArray(m["rows"])) asked.handler.rows(m["rows"]);
      const error = m["error"];
      if (m["done"] === true || isObject(error)) {
        this.open.delete(m["id"]);
        asked.handler.end(
          m["more"] === true,
          isObject(error) ? { kind: String(error["kind"]), message: String(error["message"]) } : null,
        );
      }
    } else if (isObject(m["hello"])) {
      this.listener.hello(String(m["hello"]["title"]), m["hello"]["persistent"] === true);
    } else if (isObject(m["stored"])) {
      this.listener.stored(String(m["stored"]["key"]), m["stored"]["value"]);
    } else if (isObject(m["removed"])) {
      this.listener.removed(String(m["removed"]["key"]));
    } else if (m["storedAll"] === true) {
      this.listener.storedAll();
    }
  }

  /** Asks; the returned function cancels (the handler then hears nothing more). */
  ask(query: string, params: object, handler: Handler): () => void {
    const id = this.next++;
    const message = JSON.stringify({ id, query, params });
    this.open.set(id, { message, handler });
    if (this.ws?.readyState === WebSocket.OPEN) this.ws.send(message);
    return () => {
      if (this.open.delete(id) && this.ws?.readyState === WebSocket.OPEN) this.ws.send(JSON.stringify({ cancel: id }));
    };
  }

  put(key: string, value: unknown): void {
    this.send(JSON.stringify({ put: key, value }));
  }

  remove(key: string): void {
    this.send(JSON.stringify({ delete: key }));
  }
}
