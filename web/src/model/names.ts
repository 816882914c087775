// Long names, shortened in the middle of their structure: template arguments and outer scopes fold to an ellipsis, the innermost
// name stays whole.

export interface NamePiece {
  readonly text: string;
  /** The text stands for this. */
  readonly folded?: string;
}

const LONG = 36;

/** End of the bracketed part that begins at `at`, behind its closing bracket. */
function closing(name: string, at: number): number {
  const open = name[at];
  const close = open === "<" ? ">" : ")";
  let depth = 0;
  for (let i = at; i < name.length; i++) {
    if (name[i] === open) depth++;
    else if (name[i] === close && name[i - 1] !== "-" && --depth === 0) return i + 1;
  }
  return name.length;
}

const isOperator = (before: string): boolean => /(^|[^\w])operator[<>=-]*$/.test(before);

/** Parts between `::` of the outermost level. */
export function scopes(name: string): string[] {
  const parts: string[] = [];
  let begin = 0;
  for (let i = 0; i < name.length; i++) {
    const c = name[i];
    if ((c === "<" && !isOperator(name.slice(0, i))) || (c === "(" && !name.slice(0, i).endsWith("operator"))) {
      i = closing(name, i) - 1;
    } else if (c === ":" && name[i + 1] === ":") {
      parts.push(name.slice(begin, i));
      begin = i + 2;
      i++;
    }
  }
  parts.push(name.slice(begin));
  return parts;
}

function foldArguments(part: string): NamePiece[] {
  const pieces: NamePiece[] = [];
  let begin = 0;
  for (let i = 0; i < part.length; i++) {
    if (part[i] !== "<" || isOperator(part.slice(0, i))) continue;
    const end = closing(part, i);
    pieces.push({ text: part.slice(begin, i) }, { text: "<…>", folded: part.slice(i, end) });
    begin = end;
    i = end - 1;
  }
  pieces.push({ text: part.slice(begin) });
  return pieces.filter((p) => p.text !== "");
}

/** Pieces which, folded ones unfolded, are the name again. Short names come whole. */
export function shorten(name: string): NamePiece[] {
  if (name.length <= LONG) return [{ text: name }];
  const parts = scopes(name);
  const last = parts.pop() ?? name;
  const inner = foldArguments(last);
  return parts.length > 0 ? [{ text: "…::", folded: `${parts.join("::")}::` }, ...inner] : inner;
}
