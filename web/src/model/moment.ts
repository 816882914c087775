import type { Focus, Moment } from "../wire/types";

export function compareMoments(a: Moment, b: Moment): number {
  return a.event - b.event || a.instr - b.instr;
}

export function sameFocus(a: Focus | null, b: Focus | null): boolean {
  return (
    a !== null &&
    b !== null &&
    compareMoments(a.moment, b.moment) === 0 &&
    (a.task?.serial ?? 0) === (b.task?.serial ?? 0) &&
    (a.frame ?? 0) === (b.frame ?? 0)
  );
}

/** One short form everywhere: event, and instructions since. */
export function momentText(m: Moment): string {
  return m.instr ? `${m.event}+${m.instr.toLocaleString("en")}` : `${m.event}`;
}
