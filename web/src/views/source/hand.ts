// What the keyboard can do with the source view that is there.
import { signal } from "@preact/signals";

export interface SourceHand {
  readonly cursorLine: () => number | null;
  readonly file: () => string | null;
  readonly openLine: (line: number, onNumber: boolean) => void;
  readonly focus: () => void;
  readonly find: () => void;
}
export const sourceHand = signal<SourceHand | null>(null);
