// What the timeline can show of panes: where their rows lie in the recording.
import { computed, signal } from "@preact/signals";
import type { Moment } from "../wire/types";
import { inHand } from "./layout";

export interface Density {
  readonly label: string;
  /** How many, in each segment of the recording; empty: not known. */
  readonly buckets: readonly number[];
  /** Of the rows that are there. */
  readonly moments: readonly Moment[];
}

/** By pane. */
export const density = signal<ReadonlyMap<string, Density>>(new Map());
/** That of the pane in hand; else of the newest pane that has one. */
export const densityInHand = computed<Density | null>(() => {
  const all = density.value;
  return all.get(inHand.value) ?? [...all.values()].pop() ?? null;
});
