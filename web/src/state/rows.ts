// Hooks that ask: rows of one question, or of both directions from now.
import { useEffect, useState } from "preact/hooks";
import type { Focus, Moment } from "../wire/types";
import { ask } from "./state";

export interface Rows<Row> {
  readonly rows: readonly Row[];
  readonly busy: boolean;
  readonly more: boolean;
  readonly failed: string | null;
}

const EMPTY = { rows: [], busy: true, more: false, failed: null };

/** Rows of a query; asked again when params change. The old rows stay until the first new ones are there. params null: nothing. */
export function useRows<Row>(query: string, params: object | null): Rows<Row> {
  const [state, setState] = useState<Rows<Row>>(EMPTY);
  const key = params === null ? null : JSON.stringify(params);
  useEffect(() => {
    if (key === null) return undefined;
    let rows: Row[] = [];
    setState((s) => ({ ...s, busy: true }));
    return ask<Row>(query, JSON.parse(key) as object, {
      rows: (more) => {
        rows = rows.concat(more);
        setState({ rows, busy: true, more: false, failed: null });
      },
      end: (more, failed) => setState({ rows, busy: false, more, failed }),
    });
  }, [query, key]);
  return state;
}

interface Timed {
  readonly focus: Focus;
}

/** Rows before and after a moment, in order of time, with a way to ask for more at either end. */
export function useWindow<Row extends Timed>(query: string, params: object, from: Moment, page: number) {
  const [before, setBefore] = useState(page);
  const [after, setAfter] = useState(page);
  const back = useRows<Row>(query, { ...params, direction: "backward", from, limit: before });
  const forth = useRows<Row>(query, { ...params, direction: "forward", from, limit: after });
  return {
    before: [...back.rows].reverse(),
    after: forth.rows,
    busy: back.busy || forth.busy,
    failed: back.failed ?? forth.failed,
    moreBefore: back.more ? () => setBefore(before * 4) : null,
    moreAfter: forth.more ? () => setAfter(after * 4) : null,
  };
}
