// The panes of this window. The layout travels in the URL and is stored as the one that new windows begin with.
import { signal } from "@preact/signals";
import {
  changePane, closePane, DEFAULT_LAYOUT, findPane, type Layout, movePane, nudgePane, openPane, type Pane, paneId, type Target,
} from "../model/layout";
import { joinPanes, neighbourToJoin, takeOut } from "../model/join";
import { addExpression } from "../model/expressions";
import { decodeLayout, encodeLayout } from "../model/url";
import { notice, store, type StoreListener } from "./session";

export const layout = signal<Layout>(DEFAULT_LAYOUT);
/** The pane that keys and the timeline's density are about. */
export const inHand = signal("source");
/** The layout that is stored on the server. */
let storedLayout: Layout | null = null;
let storing: ReturnType<typeof setTimeout> | undefined;
const closed: { pane: Pane; before: Layout }[] = [];

export const layoutListener: StoreListener = {
  stored(key, value) {
    if (key === "layout" && typeof value === "object" && value !== null && "hash" in value)
      storedLayout = decodeLayout(String(value.hash));
  },
  removed() {},
};

export function beginLayout(fromUrl: Layout | null): void {
  layout.value = fromUrl ?? storedLayout ?? DEFAULT_LAYOUT;
}

export function setLayout(next: Layout): void {
  if (next === layout.value) return;
  layout.value = next;
  clearTimeout(storing);
  storing = setTimeout(() => store("layout", { hash: encodeLayout(next) }), 400);
}

/** Shows a pane (there already, or new) and takes it in hand. */
export function openView(pane: Omit<Pane, "size">): void {
  setLayout(openPane(layout.value, pane));
  takeInHand(paneId(pane));
}

/** Shows an expression's value, with those that are looked at already. */
export function openExpression(expression: string): void {
  const pane = { view: "evaluate" };
  const found = findPane(layout.value, paneId(pane));
  openView({ ...pane, print: expression });
  setPane(paneId(pane), { print: addExpression(found?.pane.print ?? "", expression) });
}

export function takeInHand(id: string): void {
  inHand.value = id;
}

export function closeView(id: string): void {
  const found = findPane(layout.value, id);
  if (!found) return;
  closed.push({ pane: found.pane, before: layout.value });
  setLayout(closePane(layout.value, id));
  notice.value = { text: "Pane closed", undo: reopen };
}

/** Brings back the pane that was closed last. */
export function reopen(): void {
  const last = closed.pop();
  if (!last) return;
  const now = encodeLayout(closePane(last.before, paneId(last.pane)));
  setLayout(now === encodeLayout(layout.value) ? last.before : openPane(layout.value, last.pane));
  notice.value = null;
  takeInHand(paneId(last.pane));
}

export function toggleCollapsed(id: string): void {
  const found = findPane(layout.value, id);
  if (found) setLayout(changePane(layout.value, id, { collapsed: !found.pane.collapsed }));
}

export function moveView(id: string, to: Target): void {
  if (to.into === undefined) setLayout(movePane(layout.value, id, to));
  else joinView(id, to.into);
}

function joinView(id: string, into: string): void {
  const before = layout.value;
  const next = joinPanes(before, id, into);
  if (next === before) return;
  setLayout(next);
  const fresh = next.columns.flatMap((c) => c.panes).find((p) => !findPane(before, paneId(p)));
  if (fresh) takeInHand(paneId(fresh));
}

/** Joins the pane in hand to its neighbour. */
export function joinInHand(): void {
  const into = neighbourToJoin(layout.value, inHand.value);
  if (into !== null) joinView(inHand.value, into);
  else notice.value = { text: "No pane of this column can be joined to this one: lists of executions, writes, output and events can" };
}

export function takeOutOfView(id: string, index: number): void {
  setLayout(takeOut(layout.value, id, index));
}

export function nudgeView(id: string, direction: "left" | "right" | "up" | "down"): void {
  setLayout(nudgePane(layout.value, id, direction));
}

export function setPane(id: string, change: Partial<Pane>): void {
  setLayout(changePane(layout.value, id, change));
}

export function resetLayout(): void {
  setLayout(DEFAULT_LAYOUT);
}
