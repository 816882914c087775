import { beforeEach, describe, expect, it, vi } from "vitest";
import { type Handler, type Listener, Socket } from "./socket";

class FakeWebSocket {
  static readonly OPEN = 1;
  static all: FakeWebSocket[] = [];
  readyState = 0;
  readonly sent: unknown[] = [];
  onopen: (() => void) | null = null;
  onclose: (() => void) | null = null;
  onmessage: ((e: { data: string }) => void) | null = null;
  readonly url: string;
  constructor(url: string) {
    this.url = url;
    FakeWebSocket.all.push(this);
  }
  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }
  opens(): void {
    this.readyState = 1;
    this.onopen?.();
  }
  closes(): void {
    this.readyState = 3;
    this.onclose?.();
  }
  says(message: unknown): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
}

const last = (): FakeWebSocket => FakeWebSocket.all[FakeWebSocket.all.length - 1] as FakeWebSocket;
const listener = (): Listener => ({
  hello: vi.fn(),
  stored: vi.fn(),
  removed: vi.fn(),
  storedAll: vi.fn(),
  connected: vi.fn(),
  gdb: vi.fn(),
});
const handler = (): Handler => ({ rows: vi.fn(), progress: vi.fn(), end: vi.fn(), restart: vi.fn() });

describe("the connection", () => {
  beforeEach(() => {
    vi.useFakeTimers();
    vi.stubGlobal("WebSocket", FakeWebSocket);
    FakeWebSocket.all = [];
  });

  it("says what is for a gdb while it is connected, and hands on what a gdb says", () => {
    const l = listener();
    const s = new Socket("ws://h/ws", l);
    s.connect();
    s.tellGdb(1, { input: "lost" });
    last().opens();
    s.tellGdb(1, { input: "next\r" });
    expect(last().sent).toEqual([{ gdb: 1, input: "next\r" }]);
    last().says({ gdb: 1, output: "6869" });
    expect(l.gdb).toHaveBeenCalledWith(1, { gdb: 1, output: "6869" });
  });

  it("sends a question and hands on its rows, progress and end", () => {
    const s = new Socket("ws://h/ws", listener());
    s.connect();
    last().opens();
    const h = handler();
    s.ask("stack", { a: 1 }, h);
    expect(last().sent).toEqual([{ id: 1, query: "stack", params: { a: 1 } }]);
    last().says({ id: 1, rows: [{ x: 1 }, 7] });
    last().says({ id: 1, progress: 0.5 });
    last().says({ id: 1, done: true, more: true });
    last().says({ id: 1, rows: [{ x: 2 }] });
    expect(h.rows).toHaveBeenCalledTimes(1);
    expect(h.rows).toHaveBeenCalledWith([{ x: 1 }]);
    expect(h.progress).toHaveBeenCalledWith(0.5);
    expect(h.end).toHaveBeenCalledWith(true, null);
  });

  it("gives the reason of a failure", () => {
    const s = new Socket("ws://h/ws", listener());
    s.connect();
    last().opens();
    const h = handler();
    s.ask("memory", {}, h);
    last().says({ id: 1, error: { kind: "fault", message: "no memory there" } });
    expect(h.end).toHaveBeenCalledWith(false, { kind: "fault", message: "no memory there" });
  });

  it("hears nothing of a cancelled question", () => {
    const s = new Socket("ws://h/ws", listener());
    s.connect();
    last().opens();
    const h = handler();
    const cancel = s.ask("stack", {}, h);
    cancel();
    cancel();
    expect(last().sent.slice(1)).toEqual([{ cancel: 1 }]);
    last().says({ id: 1, rows: [{ x: 1 }] });
    last().says({ id: 1, done: true, cancelled: true });
    expect(h.rows).not.toHaveBeenCalled();
    expect(h.end).not.toHaveBeenCalled();
  });

  it("comes back, asks again what was under way, and writes what was not written", () => {
    const l = listener();
    const s = new Socket("ws://h/ws", l);
    s.connect();
    const h = handler();
    s.ask("stack", {}, h);
    last().closes();
    s.put("notebook/1", { text: "a" });
    s.put("notebook/2", { text: "b" });
    s.put("notebook/1", { text: "c" });
    vi.advanceTimersByTime(5000);
    expect(FakeWebSocket.all).toHaveLength(2);
    last().opens();
    expect(h.restart).toHaveBeenCalledTimes(1);
    expect(last().sent).toEqual([
      { id: 1, query: "stack", params: {} },
      { put: "notebook/2", value: { text: "b" } },
      { put: "notebook/1", value: { text: "c" } },
    ]);
    expect(l.connected).toHaveBeenLastCalledWith(true);
  });

  it("ignores what is no message", () => {
    const l = listener();
    const s = new Socket("ws://h/ws", l);
    s.connect();
    last().opens();
    last().onmessage?.({ data: "{" });
    for (const m of [null, 3, [], {}, { id: 99, rows: [] }, { stored: 3 }]) last().says(m);
    expect(l.stored).not.toHaveBeenCalled();
    last().says({ stored: { key: "k", value: 1 } });
    expect(l.stored).toHaveBeenCalledWith("k", 1);
  });
});
