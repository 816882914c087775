// All events of the recording, by number: however many there are, the list scrolls through them.
import type { ComponentChildren } from "preact";
import { List } from "../../base/list";
import { numberText } from "../../base/text";
import { focus } from "../../state/focus";
import { info } from "../../state/session";
import { usePages } from "../../state/rows";
import type { EventRow } from "../../wire/types";
import { momentRow, Status, Task } from "../parts/parts";

/** Event n is reached from the moment of the event before it. */
const fromOf = (index: number) => ({ event: index, instr: 0 });

export function eventRow(r: EventRow): ComponentChildren {
  return (
    <>
      <span class="number">{numberText(r.number)}</span>
      <span class="fn">{r.name}</span>
      <span class="value">{r.detail ?? ""}</span>
      <span class="gap" />
      <Task tid={r.task.tid} />
    </>
  );
}

export function EventsView() {
  const count = info.value?.events ?? 0;
  const list = usePages<EventRow>("events", count, fromOf);
  const at = focus.value?.moment.event ?? 0;
  return (
    <>
      <List
        label="events"
        count={count}
        now={at}
        follow={Math.max(at - 1, 0)}
        onSeen={list.want}
        row={(i) => {
          const r = list.at(i);
          if (!r) return null;
          return momentRow(
            r.focus,
            String(r.number),
            eventRow(r),
          );
        }}
      />
      <Status of={{ busy: list.busy, progress: null, failed: list.failed, stop: () => {} }} empty={count === 0 && "no events"} />
    </>
  );
}
