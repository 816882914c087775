// Pieces that all views share.
import type { ComponentChildren } from "preact";
import { focus, go, openView } from "../state/state";
import { compareMoments, sameFocus } from "../model/moment";
import type { Focus, Func, Location, NamedValue, Value } from "../wire/types";

export function Status(props: { busy: boolean; failed: string | null; empty?: string | false }) {
  if (props.failed !== null) return <p class="why">{props.failed}</p>;
  if (props.busy) return <p class="busy" aria-live="polite" />;
  return props.empty ? <p class="why">{props.empty}</p> : null;
}

/** A row that is a place in time: a click or Enter goes there. */
export function Row(props: { to: Focus; class?: string; title?: string; children: ComponentChildren }) {
  const here = sameFocus(props.to, focus.value);
  return (
    <div
      class={`row ${props.class ?? ""} ${here ? "focus" : ""}`}
      role="button"
      tabIndex={0}
      title={props.title}
      aria-current={here ? "true" : undefined}
      onClick={() => go(props.to)}
      onKeyDown={(e) => {
        if (e.key === "Enter") go(props.to);
      }}
    >
      {props.children}
    </div>
  );
}

export function isPast(f: Focus): boolean {
  return focus.value !== null && compareMoments(f.moment, focus.value.moment) <= 0;
}

export function Place(props: { location: Location | undefined; fallback?: string | undefined }) {
  const l = props.location;
  if (!l) return props.fallback ? <span class="place">{props.fallback}</span> : null;
  return (
    <span class="place" title={`${l.file}:${l.line}`}>
      {l.file.split("/").pop()}:{l.line}
    </span>
  );
}

/** C++ names: template arguments fold. */
export function FuncName(props: { of: Func | undefined; pc: string }) {
  if (!props.of) return <span class="fn unknown">{props.pc}</span>;
  return (
    <span class="fn" title={props.of.full}>
      {props.of.name.replace(/<[^<>]*(?:<[^<>]*>[^<>]*)*>/g, "<…>")}
    </span>
  );
}

/** A value; one that lies in memory can be asked for its history. */
export function ValueText(props: { value: Value; name?: string }) {
  const v = props.value;
  if (v.text === undefined) return <span class="why" title={v.type}>{v.why}</span>;
  const { address, size } = v;
  if (address === undefined || size === undefined || size > 4096)
    return <span class="value" title={v.type}>{v.text}</span>;
  const ask = (e: Event): void => {
    e.stopPropagation();
    openView({ view: "watchpoint", of: `${address}:${size}`, label: props.name ?? address });
  };
  return (
    <button class="value link" title={`${v.type ?? ""} at ${address}: who wrote this?`} onClick={ask}>
      {v.text}
    </button>
  );
}

export function Args(props: { args: readonly NamedValue[] }) {
  return (
    <span class="args">
      (
      {props.args.map((a, i) => (
        <span key={i}>
          {i > 0 ? ", " : ""}
          <span class="name">{a.name}</span>=<ValueText value={a.value} name={a.name} />
        </span>
      ))}
      )
    </span>
  );
}
