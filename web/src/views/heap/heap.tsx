// Heap memory: the life of what is at an address, and all that is allocated at the focus.
import { List } from "../../base/list";
import { numberText, plural } from "../../base/text";
import { parseFlow } from "../../model/dataflow";
import { lifeEvents, lifeText, sizeText, stateText } from "../../model/heap";
import type { Pane } from "../../model/layout";
import { momentKey, momentText } from "../../model/moment";
import { countPast } from "../../model/window";
import { focus } from "../../state/focus";
import { useRows } from "../../state/rows";
import type { HeapRow, HeapTotalRow, LifeRow } from "../../wire/types";
import { momentMenu, openLife, openMenu } from "../menu/menu";
import { FuncName, momentRow, Place, Status, Task, When } from "../parts/parts";

const LIVES = 20;

export function LifeView(props: { pane: Pane }) {
  const asked = parseFlow(props.pane.of ?? "");
  const address = asked && "address" in asked.what ? asked.what.address : null;
  const list = useRows<LifeRow>("allocation", asked && address !== null ? { focus: asked.focus, address, limit: LIVES } : null);
  const rows = list.failed === null ? list.rows : [];
  const events = lifeEvents(rows);
  const now = focus.value?.moment;
  const past = now ? countPast(events, now) : 0;
  return (
    <>
      <div class="bar">
        <span class="state">{stateText(rows, list.busy)}</span>
        <span class="dim">{asked ? `at ${momentText(asked.focus.moment)}` : ""}</span>
        <span class="gap" />
        <span class="dim">{address}</span>
      </div>
      <List
        label="life of memory"
        count={events.length}
        now={past}
        follow={Math.max(past - 1, 0)}
        followKey={now ? `${momentKey(now)} ${events.length}` : ""}
        row={(i) => {
          const r = events[i];
          if (!r) return null;
          return momentRow(
            r.focus,
            `${r.kind} ${momentKey(r.focus.moment)} ${r.task.serial}`,
            <>
              <span class={r.kind === "free" && r.again ? "fatal" : "tag kind"}>{lifeText(r)}</span>
              <span class="text">
                {r.kind === "allocation" ? sizeText(r) : r.moved ? `to ${plural(r.moved.size, "byte")}${address === r.moved.start ? "" : ` at ${r.moved.start}`}` : ""}
              </span>
              <span class="dim">by {r.call} in</span>
              <FuncName of={r.function} pc="unknown" />
              <span class="gap" />
              <Place location={r.location} />
              <Task tid={r.task.tid} />
              <When of={r.focus} />
            </>,
            {
              class: r.kind,
              title: r.kind === "allocation" ? `from ${r.start}, at ${momentText(r.focus.moment)}` : momentText(r.focus.moment),
            },
          );
        }}
      />
      <Status of={list} empty={asked ? false : "no address is given"} />
      {list.more && <p class="why">These are its latest {LIVES} lives; there may be earlier ones.</p>}
    </>
  );
}

const CALLERS = 200;

/** What is allocated at the focus, by who allocated it; a row goes to the newest one's allocation. */
export function HeapView() {
  const at = focus.value;
  const list = useRows<HeapTotalRow | HeapRow>("allocations", at && { focus: { ...at, frame: 0 }, limit: CALLERS });
  const rows = list.failed === null ? list.rows : [];
  const total = rows.find((r): r is HeapTotalRow => r.kind === "total");
  const callers = rows.filter((r): r is HeapRow => r.kind === "caller");
  return (
    <>
      <div class="bar">
        <span>{total ? `${plural(total.bytes, "byte")} in ${plural(total.count, "allocation")}` : ""}</span>
        <span class="gap" />
        <span class="dim">{total ? `of ${plural(total.callers, "place")} in the program` : ""}</span>
      </div>
      <List
        label="allocations"
        count={callers.length}
        row={(i) => {
          const r = callers[i];
          if (!r) return null;
          return momentRow(
            r.focus,
            `${momentKey(r.focus.moment)} ${r.task.serial}`,
            <>
              <span class="number">{plural(r.bytes, "byte")}</span>
              <span class="dim">in {numberText(r.count)}</span>
              <span class="dim">by {r.call} in</span>
              <FuncName of={r.function} pc="unknown" />
              <span class="gap" />
              <Place location={r.location} />
              <When of={r.focus} />
            </>,
            {
              title: `the newest of them: ${plural(r.size, "byte")} at ${r.start}`,
              menu: (x, y) =>
                openMenu(x, y, [
                  ...momentMenu(r.focus),
                  ...(at ? [{ label: "Life of the newest of them", act: () => openLife(r.start, at, r.start) }] : []),
                ]),
            },
          );
        }}
      />
      <Status of={list} empty={total?.count === 0 && "nothing is allocated"} />
      {list.more && <p class="why">These are the largest {CALLERS} of {total?.callers ?? 0} places.</p>}
    </>
  );
}
