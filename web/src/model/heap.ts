// The life of heap memory, as rows in order of time.
import type { AllocationRow, HeapPlaceRow, LifeRow, Timed } from "../wire/types";
import { numberText, plural } from "../base/text";
import { compareMoments } from "./moment";

/** What happened to memory, and when. */
export type LifeEvent = Timed & Exclude<LifeRow, HeapPlaceRow>;

export function placeOf(rows: readonly LifeRow[]): HeapPlaceRow | null {
  const first = rows[0];
  return first?.kind === "place" ? first : null;
}

export function lifeEvents(rows: readonly LifeRow[]): LifeEvent[] {
  const events = rows.filter((r): r is LifeEvent => r.kind !== "place");
  return events.sort((a, b) => compareMoments(a.focus.moment, b.focus.moment));
}

/** What the row says happened, in a word or two. */
export function lifeText(r: LifeEvent): string {
  if (r.kind === "allocation") return "allocated";
  if (r.again) return "freed again";
  return r.moved ? "resized" : "freed";
}

/** How much it is, and where the address is in it. */
export function sizeText(r: AllocationRow): string {
  const where = r.behind !== undefined ? `, ${numberText(r.behind)} behind its end` : r.offset ? `, at +${numberText(r.offset)}` : "";
  return `${plural(r.size, "byte")}${where}`;
}

/** What the address is at the moment that was asked about. */
export function stateText(rows: readonly LifeRow[], busy: boolean): string {
  const place = placeOf(rows);
  if (!place) return "";
  const found = rows.filter((r): r is AllocationRow => r.kind === "allocation");
  const live = found.find((r) => r.state === "alive" && r.behind === undefined);
  const beside = found.find((r) => r.behind !== undefined);
  const where = !place.mapping
    ? "not mapped"
    : place.stackOf
      ? `stack of ${place.stackOf.tid}`
      : place.mapping.name || "anonymous memory";
  if (live) return "allocated";
  if (beside) return "in no allocation: behind one";
  if (found.length > 0) return "freed";
  return busy || place.stackOf ? where : `${where}, never allocated until then`;
}
