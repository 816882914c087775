import { numberText } from "../base/text";
import type { Focus, Moment } from "../wire/types";

export function compareMoments(a: Moment, b: Moment): number {
  return a.event - b.event || a.instr - b.instr;
}

export function sameMoment(a: Moment, b: Moment): boolean {
  return a.event === b.event && a.instr === b.instr;
}

export function sameFocus(a: Focus | null, b: Focus | null): boolean {
  return (
    a !== null &&
    b !== null &&
    sameMoment(a.moment, b.moment) &&
    (a.task?.serial ?? 0) === (b.task?.serial ?? 0) &&
    (a.frame ?? 0) === (b.frame ?? 0)
  );
}

export function momentKey(m: Moment): string {
  return `${m.event}.${m.instr}`;
}

/** One short form everywhere: event, and instructions since. */
export function momentText(m: Moment): string {
  return m.instr ? `${numberText(m.event)}+${numberText(m.instr)}` : numberText(m.event);
}

/** What momentText() writes, or what a user types: `263+645`, `1,024 + 7`. null: no moment. */
export function parseMoment(text: string): Moment | null {
  const m = /^(\d+)(?:\+(\d+))?$/.exec(text.replace(/[\s,\u202f]/g, ""));
  if (!m) return null;
  const moment = { event: Number(m[1]), instr: Number(m[2] ?? 0) };
  return Number.isSafeInteger(moment.event) && Number.isSafeInteger(moment.instr) ? moment : null;
}

/** The moment right behind. */
export function after(m: Moment): Moment {
  return { event: m.event, instr: m.instr + 1 };
}
