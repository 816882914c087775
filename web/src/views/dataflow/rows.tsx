// The rows of a value's way, back or forth: what happened to it, its bytes, from where to where.
import { asciiText, bytesText, decimalText } from "../../model/bytes";
import { flowDepths, kindText, placeText } from "../../model/dataflow";
import { List } from "../../base/list";
import { momentText } from "../../model/moment";
import { go } from "../../state/focus";
import type { DataflowRow } from "../../wire/types";
import { FuncName, momentRow, Place, When } from "../parts/parts";

function Bytes(props: { hex: string | undefined }) {
  if (props.hex === undefined) return null;
  const extra = asciiText(props.hex) || decimalText(props.hex);
  return (
    <span class="bytes new">
      {bytesText(props.hex)}
      {extra && <span class="dim"> {extra}</span>}
    </span>
  );
}

/** Who wrote what the row's task read: a click goes there. */
function Writer(props: { of: DataflowRow["writer"] }) {
  const w = props.of;
  if (!w) return null;
  return (
    <button
      class="writer dim"
      tabIndex={-1}
      title={w.text}
      onClick={(e) => {
        e.stopPropagation();
        go(w.focus);
      }}
    >
      written by {w.task.tid} at {momentText(w.focus.moment)}
    </button>
  );
}

function whatItDid(r: DataflowRow): string {
  if (r.path !== undefined) return `${r.path} +${r.fileOffset ?? 0}`;
  return r.text ?? r.event?.name ?? r.why ?? "";
}

export function FlowRows(props: {
  readonly label: string;
  readonly rows: readonly DataflowRow[];
  /** What a row's kind is, in a word or two. */
  readonly kinds: { readonly [kind: string]: string };
}) {
  const { rows, kinds } = props;
  const depths = flowDepths(rows);
  return (
    <List
      label={props.label}
      count={rows.length}
      row={(i) => {
        const r = rows[i];
        if (!r) return null;
        return momentRow(
          r.focus,
          String(r.id),
          <>
            <span class="indent">{"  ".repeat(depths[i] ?? 0)}</span>
            <span class="tag kind">{kindText(r, kinds)}</span>
            <span class="text">{whatItDid(r)}</span>
            {r.decides && (
              <span class="dim">
                {r.decides.text}
                {r.decides.taken !== undefined && (r.decides.taken ? " taken" : " not taken")}
              </span>
            )}
            <Writer of={r.writer} />
            <Bytes hex={r.value} />
            <span class="dim">
              {r.to && placeText(r.to)}
              {r.from && ` ← ${placeText(r.from)}`}
            </span>
            {r.why !== undefined && r.text !== undefined && <span class="why">{r.why}</span>}
            {r.pc !== undefined && <FuncName of={r.function} pc={r.pc} />}
            <span class="gap" />
            <Place location={r.location} />
            <When of={r.focus} />
          </>,
          { class: r.kind, title: r.why ?? whatItDid(r) },
        );
      }}
    />
  );
}
