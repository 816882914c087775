// Expressions as users type them: lists of them in one field, and values that unfold into their parts.
import type { NamedValue } from "../wire/types";

const CLOSES: { readonly [open: string]: string } = { "(": ")", "[": "]", "{": "}" };

/** The expressions of a field: between commas and semicolons that are in no brackets and no quotes. */
export function splitExpressions(text: string): string[] {
  const parts: string[] = [];
  const open: string[] = [];
  let quote = "";
  let part = "";
  for (let i = 0; i < text.length; i++) {
    const c = text.charAt(i);
    if (quote) {
      if (c === "\\") part += text.charAt(i++);
      else if (c === quote) quote = "";
    } else if (c === '"' || c === "'") quote = c;
    else if (CLOSES[c]) open.push(CLOSES[c] ?? "");
    else if (c === open[open.length - 1]) open.pop();
    else if ((c === "," || c === ";") && open.length === 0) {
      parts.push(part);
      part = "";
      continue;
    }
    part += text.charAt(i);
  }
  return [...parts, part].map((p) => p.trim()).filter((p) => p !== "");
}

/** The field with one more expression, if it is not there yet. */
export function addExpression(text: string, more: string): string {
  const all = splitExpressions(text);
  return all.includes(more.trim()) ? text : [...all, more.trim()].join("; ");
}

/** What is sent along with a question about executions. */
export function probes(condition: string | undefined, print: string | undefined): { condition?: string; print?: string[] } {
  const list = splitExpressions(print ?? "");
  return { ...(condition?.trim() ? { condition: condition.trim() } : {}), ...(list.length > 0 ? { print: list } : {}) };
}

/** Might it be an expression, rather than a name of something to find? A register, a member, an operator or brackets say so; a word may be one. */
export function expressionLikely(text: string): "yes" | "perhaps" | "no" {
  if (/^[A-Za-z_]\w*(::[A-Za-z_]\w*)*$/.test(text)) return "perhaps";
  if (!/[A-Za-z_$]/.test(text) || /^[\w./+-]+:\d*$/.test(text) || /^0x[0-9a-f]*$/i.test(text)) return "no";
  if (/^\$\w+$|->|[[\]()*&<>=!|^~%?]/.test(text)) return "yes";
  return /^[A-Za-z_$]\w*(\.\w+)+$/.test(text) || /\w\s+[-+/]\s*\w/.test(text) ? "perhaps" : "no";
}

export interface Parts {
  readonly rows: readonly NamedValue[];
  readonly more: boolean;
  readonly failed: string | null;
}
/** A line of a list of values of which some are unfolded. */
export interface ValueLine {
  readonly key: string;
  readonly depth: number;
  readonly row: NamedValue;
  readonly open: boolean;
  /** In place of a value: that there is more, or why there is nothing. */
  readonly note?: string;
}

const DEEPEST = 40;

/** Lines of values with the parts of those that are open. `parts` has them by the value's expression, as far as they are known. */
export function unfold(
  rows: readonly NamedValue[],
  open: ReadonlySet<string>,
  parts: (expression: string) => Parts | undefined,
  depth = 0,
  above = "",
): ValueLine[] {
  const lines: ValueLine[] = [];
  rows.forEach((row, i) => {
    const key = `${above}/${i} ${row.name}`;
    const isOpen = row.unfolds === true && row.expression !== undefined && open.has(row.expression) && depth < DEEPEST;
    lines.push({ key, depth, row, open: isOpen });
    if (!isOpen) return;
    const inside = parts(row.expression ?? "");
    if (!inside) return;
    lines.push(...unfold(inside.rows, open, parts, depth + 1, key));
    const note = inside.failed ?? (inside.more ? "and more" : null);
    if (note !== null) lines.push({ key: `${key}/note`, depth: depth + 1, row: { name: "", value: {} }, open: false, note });
  });
  return lines;
}
