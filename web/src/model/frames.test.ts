import { expect, test } from "vitest";
import type { FrameRow } from "../wire/types";
import { frameWithSource, isRecorder, ownFrame } from "./frames";

const at = (module: string, file?: string): FrameRow => ({
  frame: 0,
  pc: "0x1",
  module,
  args: [],
  kind: "call",
  focus: { moment: { event: 1, instr: 0 }, frame: 0, task: { tid: 1, serial: 1 } },
  ...(file === undefined ? {} : { location: { file, line: 1 } }),
});
const frames = [at("/usr/lib/rr/librrpreload.so", "/rr/raw_syscall.S"), at("/lib/libc.so.6"), at("/lib/libc.so.6", "/libc/exit.c"), at("/bin/a", "/src/a.c")];

test("rr's libraries are known, a program's are not taken for them", () => {
  expect(["/usr/lib/rr/librrpreload.so", "librrpage.so", "/opt/rr/librrpreload_32.so"].map(isRecorder)).toEqual([true, true, true]);
  expect(["/lib/librrd.so", "/home/librrpreload/a.out", undefined].map(isRecorder)).toEqual([false, false, false]);
});

test("the first frame is the innermost one with source that is not rr's", () => {
  expect(frameWithSource(frames, new Set())).toBe(2);
  expect(frameWithSource(frames, new Set(["/libc/exit.c"]))).toBe(3);
  expect(frameWithSource(frames, new Set(["/libc/exit.c", "/src/a.c"]))).toBe(-1);
});

test("with no source it is the program's innermost one", () => {
  expect(ownFrame(frames)).toBe(1);
  expect(ownFrame(frames.slice(0, 1))).toBe(0);
  expect(ownFrame([])).toBe(0);
});
