import { signal } from "@preact/signals";
import { beforeEach, describe, expect, it, vi } from "vitest";
import type { Answer } from "./session";

const asked: { query: string; on: Answer<unknown>; cancel: () => void }[] = [];
vi.mock("./session", () => ({
  growth: signal(0),
  ask: (query: string, _params: object, on: Answer<unknown>) => {
    const cancel = vi.fn();
    asked.push({ query, on, cancel });
    return cancel;
  },
}));
const { askShared } = await import("./answers");
const { growth } = await import("./session");
const listener = () => ({ rows: vi.fn(), end: vi.fn(), restart: vi.fn(), progress: vi.fn() });
const last = () => asked[asked.length - 1] as (typeof asked)[number];

describe("shared answers", () => {
  beforeEach(() => {
    asked.length = 0;
  });
  it("asks once for two who want the same, and gives the later one what came before", () => {
    const one = listener();
    const two = listener();
    askShared("stack", { a: 1 }, one);
    last().on.rows([1, 2]);
    askShared("stack", { a: 1 }, two);
    expect(asked).toHaveLength(1);
    expect(two.rows).toHaveBeenCalledWith([1, 2]);
    last().on.rows([3]);
    last().on.end(true, null);
    for (const l of [one, two]) {
      expect(l.rows).toHaveBeenLastCalledWith([3]);
      expect(l.end).toHaveBeenCalledWith(true, null);
    }
  });
  it("knows an answer for good", () => {
    const late = listener();
    askShared("stack", { a: 1 }, late);
    expect(asked).toHaveLength(0);
    expect(late.rows).toHaveBeenCalledWith([1, 2, 3]);
    expect(late.end).toHaveBeenCalledWith(true, null);
  });
  it("asks again what it knew of a database that has grown, and lets those who wait have their answer", () => {
    const waiting = listener();
    askShared("counts", {}, listener());
    last().on.end(false, null);
    askShared("events", {}, waiting);
    const events = last();
    growth.value++;
    askShared("counts", {}, listener());
    expect(asked).toHaveLength(3);
    events.on.rows([1]);
    events.on.end(false, null);
    expect(waiting.rows).toHaveBeenCalledWith([1]);
    expect(waiting.end).toHaveBeenCalledWith(false, null);
  });
  it("cancels when the last one goes, and asks anew later", () => {
    const stopOne = askShared("memory", {}, listener());
    const stopTwo = askShared("memory", {}, listener());
    stopOne();
    expect(last().cancel).not.toHaveBeenCalled();
    stopTwo();
    stopTwo();
    expect(last().cancel).toHaveBeenCalledTimes(1);
    askShared("memory", {}, listener());
    expect(asked).toHaveLength(2);
  });
  it("does not keep failures", () => {
    const one = listener();
    askShared("maps", {}, one);
    last().on.end(false, "no");
    expect(one.end).toHaveBeenCalledWith(false, "no");
    askShared("maps", {}, listener());
    expect(asked).toHaveLength(2);
  });
  it("lets go of the oldest answers when it holds too many rows", () => {
    for (let i = 0; i < 4; i++) {
      askShared("events", { i }, listener());
      last().on.rows(new Array(20_000).fill(0));
      last().on.end(false, null);
    }
    asked.length = 0;
    askShared("events", { i: 3 }, listener());
    expect(asked).toHaveLength(0);
    askShared("events", { i: 0 }, listener());
    expect(asked).toHaveLength(1);
  });
});
