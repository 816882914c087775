// A list of rows of one height, of which only those that are seen exist. The list is one stop of the Tab key: arrows, j and k move
// its active row, Enter acts on it. Rows are direct `div` children of the scrolled element.
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { barHeight, barTop, type Extent, isScaled, listTop, rowsSeen } from "./scroll";
import { classes } from "./text";

export const ROW_HEIGHT = 21;
/** Room behind the last row, for the line of now. */
const END = 4;

export interface ListRow {
  readonly key: string;
  readonly class?: string | undefined;
  readonly title?: string | undefined;
  readonly current?: boolean;
  readonly act?: (() => void) | undefined;
  readonly menu?: ((x: number, y: number) => void) | undefined;
  readonly body: ComponentChildren;
}

export interface ListProps {
  readonly label: string;
  readonly count: number;
  /** null: not there yet. */
  readonly row: (index: number) => ListRow | null;
  /** Place of row 0 among all rows there ever were: when it falls by n, n rows came in front, and what is seen stays. */
  readonly origin?: number;
  /** Draws the line of now before this row. */
  readonly now?: number | undefined;
  /** Is kept in view when it (or followKey) changes. */
  readonly follow?: number | undefined;
  readonly followKey?: string | undefined;
  readonly onSeen?: (first: number, end: number) => void;
  readonly class?: string;
}

export function List(props: ListProps) {
  const { count, row } = props;
  const box = useRef<HTMLDivElement>(null);
  const [viewHeight, setViewHeight] = useState(0);
  const [top, setTop] = useState(0);
  const [active, setActive] = useState<number | null>(null);
  const extent: Extent = { count, rowHeight: ROW_HEIGHT, viewHeight };
  const latest = useRef({ extent, top });
  latest.current = { extent, top };

  const scrollTo = (to: number): void => {
    const el = box.current;
    if (!el) return;
    const bar = barTop(extent, to);
    el.scrollTop = bar;
    setTop(isScaled(extent) ? listTop(extent, bar) : el.scrollTop);
  };
  const reveal = (index: number, margin: number): void => {
    const at = index * ROW_HEIGHT;
    if (at < top + margin || at + ROW_HEIGHT > top + viewHeight - margin)
      scrollTo(margin > 0 ? at - viewHeight / 2 : at < top ? at : at + ROW_HEIGHT - viewHeight);
  };

  useLayoutEffect(() => {
    const el = box.current;
    if (!el) return undefined;
    const watch = new ResizeObserver(() => setViewHeight(el.clientHeight));
    watch.observe(el);
    setViewHeight(el.clientHeight);
    // In a scaled list a notch of the wheel would be thousands of rows.
    const wheel = (e: WheelEvent): void => {
      const now = latest.current;
      if (!isScaled(now.extent) || e.deltaMode !== WheelEvent.DOM_DELTA_PIXEL) return;
      e.preventDefault();
      const to = Math.min(Math.max(now.top + e.deltaY, 0), now.extent.count * ROW_HEIGHT - now.extent.viewHeight);
      el.scrollTop = barTop(now.extent, to);
      setTop(to);
    };
    el.addEventListener("wheel", wheel, { passive: false });
    return () => {
      watch.disconnect();
      el.removeEventListener("wheel", wheel);
    };
  }, []);

  const origin = props.origin ?? 0;
  const oldOrigin = useRef(origin);
  useLayoutEffect(() => {
    const shift = oldOrigin.current - origin;
    oldOrigin.current = origin;
    if (shift === 0) return;
    scrollTo(top + shift * ROW_HEIGHT);
    if (active !== null) setActive(active + shift);
  }, [origin]);

  // Follows once a new place is known and its row exists; and when the list's height changes, if it was in view before.
  const followed = useRef("");
  const oldHeight = useRef(viewHeight);
  useLayoutEffect(() => {
    const before = oldHeight.current;
    oldHeight.current = viewHeight;
    if (before === viewHeight) return;
    // The scale of a scaled list's bar depends on what is seen of it.
    if (isScaled(extent) && box.current) box.current.scrollTop = barTop(extent, top);
    if (props.follow === undefined || before === 0) return;
    const at = props.follow * ROW_HEIGHT;
    if (at >= top - ROW_HEIGHT && at < top + before) reveal(props.follow, Math.min(2 * ROW_HEIGHT, viewHeight / 4));
  }, [viewHeight]);
  const followKey = props.follow === undefined ? "" : `${props.followKey ?? props.follow}`;
  useLayoutEffect(() => {
    if (props.follow === undefined || count === 0 || viewHeight === 0 || followKey === followed.current) return;
    followed.current = followKey;
    reveal(Math.min(props.follow, count - 1), Math.min(2 * ROW_HEIGHT, viewHeight / 4));
  });

  const { first, end } = rowsSeen(extent, top);
  const told = useRef("");
  useEffect(() => {
    // Not what was drawn before the list went to where it is now.
    const still = box.current && Math.abs(barTop(extent, top) - box.current.scrollTop) <= 1;
    const seen = `${first} ${end} ${count}`;
    if (viewHeight === 0 || !still || told.current === seen) return;
    told.current = seen;
    props.onSeen?.(first, end);
  });

  const key = (e: KeyboardEvent): void => {
    if (e.ctrlKey || e.altKey || e.metaKey) return;
    const from = active ?? props.follow ?? -1;
    const pageRows = Math.max(Math.floor(viewHeight / ROW_HEIGHT) - 1, 1);
    const moves: { readonly [key: string]: number } = {
      ArrowDown: from + 1,
      j: from + 1,
      ArrowUp: from - 1,
      k: from - 1,
      PageDown: from + pageRows,
      PageUp: from - pageRows,
      Home: 0,
      End: count - 1,
    };
    const to = moves[e.key];
    if (to !== undefined && count > 0) {
      const at = Math.min(Math.max(to, 0), count - 1);
      setActive(at);
      reveal(at, 0);
    } else if (e.key === "Enter" && e.target === box.current && active !== null) row(active)?.act?.();
    else if ((e.key === "ArrowRight" || e.key === "ArrowLeft") && active !== null) focusThing(e.key === "ArrowRight" ? 1 : -1);
    else if (e.key === "ContextMenu" && active !== null) {
      const at = box.current?.querySelector(".active")?.getBoundingClientRect();
      if (at) row(active)?.menu?.(at.left + 40, at.bottom);
    } else return;
    e.preventDefault();
    e.stopPropagation();
  };
  /** Values and the like within the active row. */
  const focusThing = (by: number): void => {
    const things = [...(box.current?.querySelectorAll<HTMLElement>(".active button") ?? [])];
    const at = things.indexOf(document.activeElement as HTMLElement);
    const next = at + by;
    if (next < 0 || at < 0 ? by < 0 : false) box.current?.focus();
    else things[Math.min(next, things.length - 1)]?.focus();
  };

  const shift = isScaled(extent) ? top - (box.current?.scrollTop ?? 0) : 0;
  const place = (index: number): { top: string } => ({ top: `${index * ROW_HEIGHT - shift}px` });
  const shown = [];
  for (let i = first; i < end; i++) {
    const r = row(i);
    const id = `${props.label} ${i}`;
    shown.push(
      <div
        key={r?.key ?? `empty ${i}`}
        id={id}
        class={classes("row", r?.class, r?.current && "focus", i === active && "active", !r && "absent")}
        style={place(i)}
        role="option"
        aria-selected={r?.current ?? false}
        aria-current={r?.current ? "true" : undefined}
        aria-posinset={i + 1}
        aria-setsize={count}
        title={r?.title}
        onClick={(e) => {
          if (getSelection()?.isCollapsed === false) return;
          box.current?.focus();
          setActive(i);
          e.stopPropagation();
          r?.act?.();
        }}
        onContextMenu={(e) => {
          if (!r?.menu) return;
          e.preventDefault();
          setActive(i);
          r.menu(e.clientX, e.clientY);
        }}
      >
        {r?.body}
      </div>,
    );
  }
  return (
    <div
      ref={box}
      class={classes("contents list", props.class)}
      role="listbox"
      aria-label={props.label}
      aria-activedescendant={active !== null ? `${props.label} ${active}` : undefined}
      tabIndex={0}
      onKeyDown={key}
      onScroll={(e) => {
        const bar = e.currentTarget.scrollTop;
        // A scaled list that was moved by the wheel stands between two places of its bar.
        if (!isScaled(extent) || Math.abs(barTop(extent, top) - bar) > 1) setTop(listTop(extent, bar));
      }}
    >
      <span class="sizer" style={{ height: `${barHeight(extent) + (isScaled(extent) ? 0 : END)}px` }} />
      {shown}
      {props.now !== undefined && count > 0 && props.now >= first && props.now <= end && <hr class="now" style={place(props.now)} aria-label="now" />}
    </div>
  );
}
