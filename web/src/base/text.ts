// Numbers, paths and identifiers as text.

/** Thin separators, in the one form used everywhere. */
export function numberText(n: number): string {
  return n.toLocaleString("en").replace(/,/g, "\u202f");
}

/** "12.3 M": for scales, where three digits are enough. */
export function shortNumber(n: number): string {
  const units = ["", " k", " M", " G", " T"];
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) {
    n /= 1000;
    unit++;
  }
  return `${unit === 0 || n >= 100 ? Math.round(n) : n.toPrecision(3).replace(/\.?0+$/, "")}${units[unit]}`;
}

export function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${numberText(n)} ${n === 1 ? one : many}`;
}

/** Class names, without the empty ones. */
export function classes(...names: readonly (string | false | null | undefined)[]): string {
  return names.filter(Boolean).join(" ");
}
