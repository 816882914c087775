// Where a value is used next: each read of it and of its copies, until all are overwritten.
import { useState } from "preact/hooks";
import type { Pane } from "../../model/layout";
import { parseFlow } from "../../model/dataflow";
import { momentText } from "../../model/moment";
import { useRows } from "../../state/rows";
import type { DataflowRow } from "../../wire/types";
import { Status } from "../parts/parts";
import { FlowRows } from "./rows";

/** What was done with the row's bytes, in a word or two. */
const KINDS: { readonly [kind: string]: string } = {
  copy: "copied",
  extension: "extended",
  arithmetic: "computed with",
  comparison: "compared",
  jump: "jumped to",
  address: "used as address",
  other: "read",
  overwritten: "overwritten",
  "system-call": "argument",
  output: "output",
};

export function UsesView(props: { pane: Pane }) {
  const [copies, setCopies] = useState(true);
  const asked = parseFlow(props.pane.of ?? "");
  const list = useRows<DataflowRow>("uses", asked && { focus: asked.focus, ...asked.what, copies });
  const rows = list.failed === null ? list.rows : [];
  return (
    <>
      <div class="bar">
        <span class="dim">{asked ? `from ${momentText(asked.focus.moment)} on` : ""}</span>
        <span class="gap" />
        <label title="Follows the bytes where they are copied to">
          <input type="checkbox" checked={copies} onChange={(e) => setCopies(e.currentTarget.checked)} /> with its copies
        </label>
      </div>
      <FlowRows label="uses" rows={rows} kinds={KINDS} />
      <Status of={list} empty={asked ? rows.length === 0 && "it is not used any more" : "no value is given"} />
      {list.more && <p class="why">It goes on; these are the first {rows.length} uses.</p>}
    </>
  );
}
