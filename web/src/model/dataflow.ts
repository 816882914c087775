// What a dataflow pane is of: a register or a range of memory, at a moment. In text: WHAT@FOCUS, where WHAT is a register's name or
// ADDRESS:LENGTH.
import type { DataflowRow, Focus } from "../wire/types";
import { decodeFocus, encodeFocus } from "./url";

export type FlowSource = { readonly register: string } | { readonly address: string; readonly length: number };

/** The most that one question follows. */
const MOST_BYTES = 64;

export function flowText(what: FlowSource, at: Focus): string {
  const name = "register" in what ? what.register : `${what.address}:${Math.min(Math.max(what.length, 1), MOST_BYTES)}`;
  return `${name}@${encodeFocus(at)}`;
}

export function parseFlow(text: string): { readonly what: FlowSource; readonly focus: Focus } | null {
  const at = text.lastIndexOf("@");
  const focus = decodeFocus(text.slice(at + 1));
  if (at < 1 || !focus) return null;
  const [name = "", length] = text.slice(0, at).split(":");
  if (length === undefined) return { what: { register: name }, focus };
  return /^0x[0-9a-f]+$/i.test(name) && /^\d+$/.test(length) ? { what: { address: name, length: Number(length) }, focus } : null;
}

/** What the bytes are in a row of this kind, in a word or two. */
export function kindText(r: DataflowRow, kinds: { readonly [kind: string]: string }): string {
  const text = r.kind === "transfer" ? `through a ${r.through ?? "stream"}` : (kinds[r.kind] ?? r.kind);
  return r.faulted ? `${text}, faulted` : text;
}

/** Kinds of rows behind which the bytes are the same as before. */
const SAME = ["copy", "transfer", "output"];

/** How many operations lie between each row and the value that was asked about. A row's parent comes before it. */
export function flowDepths(rows: readonly DataflowRow[]): number[] {
  const byId = new Map<number, number>();
  return rows.map((r) => {
    const parent = r.parent === undefined ? undefined : rows[r.parent - 1];
    const above = r.parent === undefined ? 0 : (byId.get(r.parent) ?? 0);
    const depth = above + (parent && !SAME.includes(parent.kind) ? 1 : 0);
    byId.set(r.id, depth);
    return depth;
  });
}

/** A place as programmers write it. */
export function placeText(place: { readonly register?: string; readonly address?: string; readonly length?: number }): string {
  return place.register ?? `[${place.address ?? "?"}]`;
}
