// Panes that were joined: the rows of all of them, in order of time.
import type { ComponentChildren } from "preact";
import { partsOf } from "../../model/join";
import type { Pane } from "../../model/layout";
import { paneId } from "../../model/layout";
import { momentText } from "../../model/moment";
import { probes } from "../../model/expressions";
import { focus } from "../../state/focus";
import { takeOutOfView } from "../../state/layout";
import { useWindow } from "../../state/rows";
import type { Timed } from "../../wire/types";
import { calleeRow } from "../calls/calls";
import { eventRow } from "../events/events";
import { addressOf, callRow, hitRow, lineOf, useDensity, WindowList } from "../executions/executions";
import { outputRow } from "../output/output";
import { alertRow, signalRow } from "../signals/signals";
import { When } from "../parts/parts";
import { rangeOf, writeRow } from "../writes/writes";

interface Part {
  readonly params: (pane: Pane) => object | null;
  readonly body: (row: never, pane: Pane) => ComponentChildren;
}
const part = <Row,>(params: Part["params"], body: (row: Row, pane: Pane) => ComponentChildren): Part => ({
  params,
  body: body as Part["body"],
});
const probed = (p: Pane): object => probes(p.condition, p.print);
const here = (): object => (focus.value?.task ? { space: focus.value.task } : {});

const PARTS: { readonly [view: string]: Part } = {
  execution: part((p) => ({ function: p.of ?? "", ...probed(p) }), callRow),
  breakpoint: part((p) => ({ ...lineOf(p), ...probed(p) }), hitRow),
  "address-execution": part((p) => ({ ...addressOf(p), ...probed(p) }), hitRow),
  watchpoint: part((p) => ({ ...rangeOf(p), ...here() }), writeRow),
  callees: part(() => ({ focus: focus.value }), calleeRow),
  stdouterr: part(() => ({}), outputRow),
  signals: part(() => ({}), signalRow),
  alerts: part(() => ({}), alertRow),
  events: part(() => ({}), eventRow),
};

type JoinedRow = Timed & { readonly of: number; readonly fd?: number };

/** titles: of the parts. */
export function JoinedView(props: { pane: Pane; titles: readonly string[] }) {
  const parts = partsOf(props.pane);
  const subqueries = parts.map((p) => ({ query: p.view, params: PARTS[p.view]?.params(p) ?? {} }));
  const list = useWindow<JoinedRow>("join", focus.value && parts.length > 0 ? { subqueries } : null);
  useDensity(props.pane, null, list.window.rows);
  return (
    <>
      <div class="bar parts">
        {parts.map((p, i) => (
          <span key={`${paneId(p)} ${i}`} class="part">
            <span class="number">{i + 1}</span> {props.titles[i]}
            <button
              aria-label={`take out ${props.titles[i]}`}
              title="Take out: a pane of its own again"
              onClick={() => takeOutOfView(paneId(props.pane), i)}
            >
              ×
            </button>
          </span>
        ))}
      </div>
      <WindowList
        label="joined"
        list={list}
        keyOf={(r) => `${r.of} `}
        rowClass={(r) => (r.fd === 2 ? "stderr" : "")}
        title={(r) => `${props.titles[r.of] ?? ""}, ${momentText(r.focus.moment)}`}
        empty="nothing of the kind happened"
        body={(r) => {
          const of = parts[r.of];
          const shown = of && PARTS[of.view];
          return (
            <>
              <span class="number">{r.of + 1}</span>
              {of && shown?.body(r as never, of)}
              {r.fd !== undefined && <When of={r.focus} />}
            </>
          );
        }}
      />
    </>
  );
}
