// Which frames of a stack there is something to read in.
import { baseName } from "../base/text";
import type { FrameRow } from "../wire/types";

/** Does a module belong to rr? It puts a library into each process, which makes some system calls in the program's place. */
export function isRecorder(module: string | undefined): boolean {
  return module !== undefined && /^librr(preload|page)/.test(baseName(module));
}

/** The innermost frame whose source may be there; -1: none. */
export function frameWithSource(frames: readonly FrameRow[], missing: ReadonlySet<string>): number {
  return frames.findIndex((r) => r.location !== undefined && !missing.has(r.location.file) && !isRecorder(r.module));
}

/** The innermost frame of the program's own. */
export function ownFrame(frames: readonly FrameRow[]): number {
  return Math.max(
    0,
    frames.findIndex((r) => !isRecorder(r.module)),
  );
}
