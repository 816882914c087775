// Who wrote these bytes: all writes to a range of memory, by instructions and by the kernel, before and after now. On request who read
// them, too: reads are in no index, so that takes longer.
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { plural } from "../../base/text";
import type { Pane } from "../../model/layout";
import { addressText, asciiText, bytesText, decimalText, parseAddress, writtenPart } from "../../model/bytes";
import { focus } from "../../state/focus";
import { useWindow } from "../../state/rows";
import type { WriteRow } from "../../wire/types";
import { useDensity, WindowList } from "../executions/executions";
import { FuncName, Place, Task, When } from "../parts/parts";

function Bytes(props: { hex: string | null; new?: boolean }) {
  const extra = asciiText(props.hex) || decimalText(props.hex);
  return (
    <span class={props.new ? "bytes new" : "bytes"}>
      {bytesText(props.hex)}
      {extra && <span class="dim"> {extra}</span>}
    </span>
  );
}

export function rangeOf(pane: Pane): { address: string; length: number } {
  const [address = "", length = "8"] = (pane.of ?? "").split(":");
  return { address, length: Number(length) };
}

export function writeRow(r: WriteRow, pane: Pane): ComponentChildren {
  const start = parseAddress(rangeOf(pane).address) ?? 0n;
  const part = (hex: string | null): string | null => writtenPart(hex, start, BigInt(r.address), r.size);
  const at = BigInt(r.address) - start;
  return (
    <>
      <span class="dim">{at > 0n ? `+${addressText(at)}` : ""}</span>
      <Bytes hex={part(r.before)} />
      {r.after === undefined ? (
        <span class="tag">read</span>
      ) : (
        <>
          <span class="arrow">→</span>
          <Bytes hex={part(r.after)} new />
        </>
      )}
      {r.event ? <span class="fn">{r.event.name}</span> : <FuncName of={r.function} />}
      {r.possible && <span class="why">perhaps</span>}
      {!r.event && <Place location={r.location} />}
      <Task tid={r.task.tid} />
      <When of={r.focus} />
    </>
  );
}

export function WatchpointView(props: { pane: Pane }) {
  const { address, length } = rangeOf(props.pane);
  const [reads, setReads] = useState(false);
  // The memory of which process: that of the focus' task.
  const task = focus.value?.task;
  const list = useWindow<WriteRow>(
    "watchpoint",
    focus.value && { address, length, access: reads ? "both" : "write", ...(task ? { space: task } : {}) },
  );
  useDensity(props.pane, null, list.window.rows);
  return (
    <>
      <div class="bar">
        <span class="dim">
          {plural(length, "byte")} at {address}
        </span>
        <span class="gap" />
        <label title="Reads by instructions; what the kernel reads is not recorded">
          <input type="checkbox" checked={reads} onChange={(e) => setReads(e.currentTarget.checked)} /> reads, too
        </label>
      </div>
      <WindowList
        label="writes"
        list={list}
        keyOf={(r) => `${r.address} ${r.access}`}
        empty={reads ? "never used" : "never written"}
        title={(r) => `${r.size} bytes at ${r.address}`}
        body={(r) => writeRow(r, props.pane)}
      />
    </>
  );
}
