// What the search box finds by itself, and in which order: views, moments, addresses; functions, files and lines come from the server.
import type { Focus, SearchRow } from "../wire/types";
import { addressText, parseAddress } from "./bytes";
import { flowText } from "./dataflow";
import { expressionLikely } from "./expressions";
import { momentText, parseMoment } from "./moment";

export interface Hit {
  readonly key: string;
  readonly kind: string;
  readonly title: string;
  readonly detail: string;
  readonly count?: number | undefined;
  readonly action: SearchRow["action"] & { readonly of?: string; readonly label?: string; readonly expression?: string };
}

export interface ViewName {
  readonly view: string;
  readonly title: string;
  readonly words: string;
}

/** Views whose title or other words have a word that begins with the input; then those that contain it. */
function viewHits(input: string, views: readonly ViewName[]): Hit[] {
  const text = input.toLowerCase();
  const begins = (v: ViewName): boolean =>
    `${v.title} ${v.words}`.toLowerCase().split(/[\s/-]+/).some((w) => w.startsWith(text)) || v.title.toLowerCase().startsWith(text);
  return views
    .filter((v) => text.length > 0 && begins(v))
    .map((v) => ({ key: `view ${v.view}`, kind: "view", title: v.title, detail: "", action: { view: v.view } }));
}

export function hits(input: string, rows: readonly SearchRow[], views: readonly ViewName[], now: Focus | null): Hit[] {
  const text = input.trim();
  const own: Hit[] = [];
  const moment = parseMoment(text);
  if (moment)
    own.push({
      key: "moment",
      kind: "moment",
      title: momentText(moment),
      detail: "go there",
      action: { focus: { moment, ...(now?.task ? {} : {}) } },
    });
  const address = parseAddress(text);
  if (address !== null) {
    const of = addressText(address);
    own.push({ key: "memory", kind: "memory", title: of, detail: "what is there now", action: { view: "memory", of, label: of } });
    if (now)
      own.push({
        key: "executions",
        kind: "executions",
        title: of,
        detail: "when the code there ran",
        action: { view: "address-execution", of: flowText({ address: of, length: 1 }, now), label: of },
      });
    own.push({
      key: "writes",
      kind: "writes",
      title: of,
      detail: "who writes the 8 bytes there",
      action: { view: "watchpoint", of: `${of}:8`, label: of },
    });
  }
  if (address !== null && now)
    own.push({
      key: "life",
      kind: "heap",
      title: addressText(address),
      detail: "who allocated it, who frees it",
      action: { view: "allocation", of: flowText({ address: addressText(address), length: 1 }, now), label: addressText(address) },
    });
  const server = rows
    .filter((r) => r.kind !== "view" && r.kind !== "moment")
    .map(
      (r): Hit => ({
        key: `${r.kind} ${r.title} ${r.detail} ${r.action.function?.id ?? ""}`,
        kind: r.kind,
        title: r.title,
        detail: r.detail,
        count: r.count,
        action: r.action,
      }),
    );
  const exact = server.filter((r) => r.kind === "function" && r.title === text);
  const rest = server.filter((r) => !exact.includes(r));
  const likely = expressionLikely(text);
  const evaluate: Hit = { key: "evaluate", kind: "expression", title: text, detail: "its value", action: { view: "evaluate", expression: text } };
  return [
    ...own,
    ...(likely === "yes" ? [evaluate] : []),
    ...exact,
    ...viewHits(text, views),
    ...rest,
    ...(likely === "perhaps" ? [evaluate] : []),
  ];
}
