// What rows are made of: names, values, places, states.
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import type { ListRow } from "../../base/list";
import { baseName, classes } from "../../base/text";
import { momentKey, momentText, sameFocus } from "../../model/moment";
import { shorten } from "../../model/names";
import { focus, go, shownPlace } from "../../state/focus";
import { highlights } from "../../state/notes";
import type { Asked } from "../../state/rows";
import type { Focus, Func, Location, NamedValue, Value } from "../../wire/types";
import { momentMenu, openMenu, valueMenu, whoWrote } from "../menu/menu";

/** The state of a question: a thin line while it is at work, and reasons where something is missing. */
export function Status(props: { of: Asked; empty?: string | false }) {
  const { busy, progress, failed } = props.of;
  return (
    <>
      {busy && (
        <p class="progress" role="progressbar" aria-label="asking" aria-valuenow={progress ?? undefined} aria-valuemin={0} aria-valuemax={1}>
          <span class={progress === null ? "unknown" : ""} style={progress === null ? {} : { width: `${progress * 100}%` }} />
          <button class="stop" onClick={props.of.stop}>
            stop
          </button>
        </p>
      )}
      {failed !== null && <p class="why" role="status">{failed}</p>}
      {!busy && failed === null && props.empty && <p class="why">{props.empty}</p>}
    </>
  );
}

/** A row that is a moment: a click or Enter goes there. */
export function momentRow(to: Focus, key: string, body: ComponentChildren, more: Partial<ListRow> = {}): ListRow {
  const colour = highlights.value.get(momentKey(to.moment));
  return {
    title: momentText(to.moment),
    act: () => go(to),
    menu: (x, y) => openMenu(x, y, momentMenu(to)),
    ...more,
    key,
    class: classes(more.class, colour && `mark ${colour}`),
    current: sameFocus(to, focus.value),
    body,
  };
}

export function Place(props: { location: Location | undefined; fallback?: string | undefined }) {
  const l = props.location;
  if (!l) return props.fallback ? <span class="place">{props.fallback}</span> : null;
  return (
    <button
      class="place"
      tabIndex={-1}
      title={`${l.file}:${l.line}`}
      onClick={(e) => {
        e.stopPropagation();
        shownPlace.value = l;
      }}
    >
      {baseName(l.file)}:{l.line}
    </button>
  );
}

/** A function's name; folded parts unfold with a click. */
export function FuncName(props: { of: Func | undefined; pc?: string | undefined }) {
  const [unfolded, setUnfolded] = useState(false);
  const f = props.of;
  if (!f) return <span class="fn unknown">{props.pc ?? "unknown"}</span>;
  if (unfolded) return <span class="fn">{f.name}</span>;
  return (
    <span class="fn" title={f.full}>
      {shorten(f.name).map((p, i) =>
        p.folded ? (
          <button
            key={i}
            class="fold"
            tabIndex={-1}
            title={p.folded}
            onClick={(e) => {
              e.stopPropagation();
              setUnfolded(true);
            }}
          >
            {p.text}
          </button>
        ) : (
          p.text
        ),
      )}
    </span>
  );
}

/** A value. One that lies in memory can be asked who wrote it; a quiet one by its menu only, since a click goes to its row. */
export function ValueText(props: { value: Value; name?: string; at?: Focus | undefined; quiet?: boolean }) {
  const v = props.value;
  const at = props.at ?? focus.value;
  if (v.text === undefined)
    return (
      <span class="why" title={v.type}>
        {v.why ?? "no value"}
      </span>
    );
  const thing = { name: props.name ?? "", value: v, at };
  const menu = (e: MouseEvent): void => {
    e.preventDefault();
    e.stopPropagation();
    openMenu(e.clientX, e.clientY, valueMenu(thing));
  };
  if (props.quiet || v.address === undefined || v.size === undefined)
    return (
      <span class="value" title={v.type} data-name={thing.name} data-pointer={v.pointer} onContextMenu={menu}>
        {v.text}
      </span>
    );
  return (
    <button
      class="value"
      tabIndex={-1}
      title={`${v.type ?? ""} at ${v.address} - who wrote this?`}
      data-address={v.address}
      data-size={v.size}
      data-name={thing.name}
      data-pointer={v.pointer}
      onClick={(e) => {
        e.stopPropagation();
        whoWrote(thing);
      }}
      onContextMenu={menu}
      onKeyDown={(e) => {
        if (e.key === "Enter") e.stopPropagation();
      }}
    >
      {v.text}
    </button>
  );
}

export function Args(props: { args: readonly NamedValue[]; at?: Focus | undefined; quiet?: boolean }) {
  return (
    <span class="args">
      (
      {props.args.map((a, i) => (
        <span key={i}>
          {i > 0 ? ", " : ""}
          <span class="name">{a.name}</span>=<ValueText value={a.value} name={a.name} at={props.at} quiet={props.quiet ?? false} />
        </span>
      ))}
      )
    </span>
  );
}

export function Task(props: { tid: number }) {
  return props.tid > 0 ? <span class="dim">{props.tid}</span> : null;
}

export function When(props: { of: Focus }) {
  return <span class="when">{momentText(props.of.moment)}</span>;
}
