// Notes: their order, where a moved one goes, and all of them as Markdown.
import type { Focus, Note } from "../wire/types";
import { compareMoments, momentText, sameFocus } from "./moment";

export const COLOURS = ["amber", "green", "blue", "violet"] as const;

export type NamedNote = readonly [key: string, note: Note];

/** A place by time; users may then move notes between others. */
export function naturalOrder(f: Focus): number {
  return f.moment.event + f.moment.instr / 2 ** 40;
}

export function inOrder(notes: ReadonlyMap<string, Note>): NamedNote[] {
  return [...notes].sort(
    (a, b) =>
      a[1].ordering - b[1].ordering || compareMoments(a[1].focus.moment, b[1].focus.moment) || (a[0] < b[0] ? -1 : 1),
  );
}

/** An ordering that puts a note at `index` among the others (which do not contain it). */
export function orderingAt(others: readonly NamedNote[], index: number): number {
  const before = others[index - 1]?.[1].ordering;
  const behind = others[index]?.[1].ordering;
  if (before === undefined) return behind === undefined ? 0 : behind - 1;
  return behind === undefined ? before + 1 : (before + behind) / 2;
}

/** Where the tentative note of a focus is shown: behind the last note that is not later than it. */
export function tentativeIndex(notes: readonly NamedNote[], f: Focus): number {
  const order = naturalOrder(f);
  const later = notes.findIndex(([, n]) => n.ordering > order);
  return later < 0 ? notes.length : later;
}

export function noteAt(notes: ReadonlyMap<string, Note>, f: Focus | null): string | null {
  for (const [key, n] of notes) if (sameFocus(n.focus, f)) return key;
  return null;
}

/** Text that means itself in Markdown. */
const escape = (s: string): string => s.replace(/[\\`*_[\]<>#|~]/g, "\\$&");

export function markdown(title: string, notes: readonly NamedNote[], link: (f: Focus) => string): string {
  const lines = [`# ${escape(title)}`, ""];
  for (const [, n] of notes) {
    lines.push(`- [${escape(n.snippet || momentText(n.focus.moment))}](${link(n.focus)}) (${momentText(n.focus.moment)})`);
    for (const line of n.text.split("\n")) if (line.trim() !== "") lines.push(`  ${line}`);
  }
  return `${lines.join("\n")}\n`;
}
