// Values beside source lines: which variables a line mentions.
import type { NamedValue } from "../wire/types";

/** Identifiers of a line, without comments, strings, and members behind `.` or `->`; each once, in order. */
export function identifiers(line: string): string[] {
  const code = line.replace(/"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\/\/.*|\/\*.*?(\*\/|$)/g, " ");
  const found = new Set<string>();
  for (const m of code.matchAll(/(\.|->|::)?\s*\b([A-Za-z_$][\w$]*)/g)) if (!m[1] && m[2]) found.add(m[2]);
  return [...found];
}

/** The variables that a line mentions; of several with one name the innermost (the last) one. */
export function mentioned(line: string, variables: readonly NamedValue[]): NamedValue[] {
  const byName = new Map(variables.map((v) => [v.name, v]));
  return identifiers(line).flatMap((name) => byName.get(name) ?? []);
}

const MAX_TEXT = 40;

/** "i = 3   p = 0x55…": short, since it stands behind the code. */
export function valuesText(values: readonly NamedValue[]): string {
  return values
    .filter((v) => v.value.text !== undefined)
    .map((v) => {
      const text = v.value.text ?? "";
      return `${v.name} = ${text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text}`;
    })
    .join("   ");
}
