// What the program wrote to its standard output and standard error.
import type { ComponentChildren } from "preact";
import type { Pane } from "../../model/layout";
import { info } from "../../state/session";
import { useWindow } from "../../state/rows";
import type { OutputRow } from "../../wire/types";
import { useDensity, WindowList } from "../executions/executions";

export function outputRow(r: OutputRow): ComponentChildren {
  return <span class="text">{r.text.replace(/\n$/, "").replace(/\n/g, " ⏎ ")}</span>;
}

export function OutputView(props: { pane: Pane }) {
  const list = useWindow<OutputRow>("stdouterr", info.value && {});
  useDensity(props.pane, null, list.window.rows);
  return (
    <WindowList
      label="output"
      class="text-rows"
      list={list}
      empty="the program wrote nothing"
      rowClass={(r) => (r.fd === 2 ? "stderr" : "")}
      body={outputRow}
    />
  );
}
