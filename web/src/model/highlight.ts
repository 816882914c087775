// Just enough colour for C-like sources: comments, strings, numbers, keywords. Works line by line; a block comment carries over.
export interface Token {
  readonly text: string;
  readonly kind: "plain" | "comment" | "string" | "number" | "keyword" | "word";
}

const KEYWORDS = new Set(
  ("auto break case char const continue default do double else enum extern float for goto if inline int long register " +
    "restrict return short signed sizeof static struct switch typedef union unsigned void volatile while bool true false " +
    "class namespace template typename public private protected virtual override new delete this nullptr using try catch " +
    "throw constexpr operator friend explicit fn let mut pub impl use match loop trait").split(" "),
);

const PATTERN =
  /(\/\/.*|\/\*[\s\S]*?(?:\*\/|$))|("(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?)|(\b\d[\w.]*)|([A-Za-z_$][\w$]*)|([^\w"'/$]+|.)/g;

export function tokens(line: string, inComment: boolean): { tokens: Token[]; inComment: boolean } {
  const out: Token[] = [];
  let rest = line;
  if (inComment) {
    const end = rest.indexOf("*/");
    if (end < 0) return { tokens: [{ text: rest, kind: "comment" }], inComment: true };
    out.push({ text: rest.slice(0, end + 2), kind: "comment" });
    rest = rest.slice(end + 2);
  }
  let open = false;
  for (const m of rest.matchAll(PATTERN)) {
    const text = m[0];
    if (m[1] !== undefined) {
      open = text.startsWith("/*") && !(text.length >= 4 && text.endsWith("*/"));
      out.push({ text, kind: "comment" });
    } else if (m[2] !== undefined) out.push({ text, kind: "string" });
    else if (m[3] !== undefined) out.push({ text, kind: "number" });
    else if (m[4] !== undefined) out.push({ text, kind: KEYWORDS.has(text) ? "keyword" : "word" });
    else out.push({ text, kind: "plain" });
  }
  return { tokens: out, inComment: open };
}
