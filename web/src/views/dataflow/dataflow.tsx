// Where a value came from: each copy on its way, back to what made it; through arithmetic on request.
import { useState } from "preact/hooks";
import type { Pane } from "../../model/layout";
import { parseFlow } from "../../model/dataflow";
import { momentText } from "../../model/moment";
import { useRows } from "../../state/rows";
import type { DataflowRow } from "../../wire/types";
import { Status } from "../parts/parts";
import { FlowRows } from "./rows";

/** What the row's bytes are, in a word or two. */
const KINDS: { readonly [kind: string]: string } = {
  copy: "copied",
  constant: "constant",
  extension: "extended",
  arithmetic: "computed",
  instruction: "by the CPU",
  input: "input",
  kernel: "by the kernel",
  signal: "by a signal",
  file: "file",
  zero: "zero",
  start: "at start",
  unknown: "unknown",
};

export function DataflowView(props: { pane: Pane }) {
  const [arithmetic, setArithmetic] = useState(false);
  const asked = parseFlow(props.pane.of ?? "");
  const list = useRows<DataflowRow>("dataflow", asked && { focus: asked.focus, ...asked.what, arithmetic });
  const rows = list.failed === null ? list.rows : [];
  return (
    <>
      <div class="bar">
        <span class="dim">{asked ? `as it is at ${momentText(asked.focus.moment)}` : ""}</span>
        <span class="gap" />
        <label title="Goes on with what the value was computed from">
          <input type="checkbox" checked={arithmetic} onChange={(e) => setArithmetic(e.currentTarget.checked)} /> through arithmetic
        </label>
      </div>
      <FlowRows label="dataflow" rows={rows} kinds={KINDS} />
      <Status of={list} empty={asked ? rows.length === 0 && "nothing is known of it" : "no value is given"} />
      {list.more && <p class="why">It goes on; these are the first {rows.length} steps.</p>}
    </>
  );
}
