// The menu of a thing: a value, a moment. What can be asked about it, in one place for mouse and keyboard.
import { signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { type FlowSource, flowText } from "../../model/dataflow";
import { momentText } from "../../model/moment";
import { go, linkTo } from "../../state/focus";
import { openView } from "../../state/layout";
import { addNote } from "../../state/notes";
import { notice } from "../../state/session";
import type { Focus, Value } from "../../wire/types";

export interface MenuItem {
  readonly label: string;
  readonly key?: string;
  readonly act: () => void;
}
interface OpenMenu {
  readonly x: number;
  readonly y: number;
  readonly items: readonly MenuItem[];
  readonly back: Element | null;
}
const menu = signal<OpenMenu | null>(null);

export interface ValueThing {
  readonly name: string;
  readonly value: Value;
  readonly at: Focus | null;
}

export function openMenu(x: number, y: number, items: readonly MenuItem[]): void {
  if (items.length > 0) menu.value = { x, y, items, back: document.activeElement };
}

function copy(text: string): void {
  navigator.clipboard?.writeText(text).then(
    () => {
      notice.value = { text: `Copied ${text.length > 60 ? `${text.slice(0, 60)}…` : text}` };
    },
    () => {
      notice.value = { text: "The browser does not allow copying here" };
    },
  );
}

const WATCH_MAX = 4096;

export function whoWrote(thing: ValueThing): void {
  const { address, size } = thing.value;
  if (address === undefined || size === undefined) return;
  openView({
    view: "watchpoint",
    of: `${address}:${Math.min(Math.max(size, 1), WATCH_MAX)}`,
    label: thing.name || address,
  });
}

/** Where the value came from that is there at a moment. */
export function openFlow(what: FlowSource, at: Focus, label: string): void {
  openView({ view: "dataflow", of: flowText(what, at), label });
}

/** Where it is used from then on. */
export function openUses(what: FlowSource, at: Focus, label: string): void {
  openView({ view: "uses", of: flowText(what, at), label });
}

/** What becomes of the memory at an address: who allocated it, who frees it. */
export function openLife(address: string, at: Focus, label: string): void {
  openView({ view: "allocation", of: flowText({ address, length: 1 }, at), label });
}

/** Of the memory that a value points to, or else of that which it is in. */
export function lifeOf(thing: ValueThing): void {
  const { name, value, at } = thing;
  if (!at) return;
  if (isPointer(value.pointer)) openLife(value.pointer, at, name ? `*${name}` : value.pointer);
  else if (value.address !== undefined) openLife(value.address, at, name || value.address);
}

function isPointer(text: string | undefined): text is string {
  return text !== undefined && !/^0x0?$/.test(text);
}

function memoryAt(address: string, label: string): void {
  openView({ view: "memory", of: address, label });
}

export function valueMenu(thing: ValueThing): MenuItem[] {
  const { name, value, at } = thing;
  const items: MenuItem[] = [];
  const { address, pointer, text } = value;
  if (address !== undefined && value.size !== undefined) {
    const { size } = value;
    items.push({ label: "Who wrote this?", key: "w", act: () => whoWrote(thing) });
    if (at) {
      items.push({ label: "Where did it come from?", act: () => openFlow({ address, length: size }, at, name || address) });
      items.push({ label: "Where is it used?", act: () => openUses({ address, length: size }, at, name || address) });
    }
    items.push({ label: `Memory of ${name || "this"}`, act: () => memoryAt(address, name || address) });
    if (at && !isPointer(pointer)) items.push({ label: "Life of this memory", key: "l", act: () => lifeOf(thing) });
  }
  if (isPointer(pointer)) {
    if (at) items.push({ label: "Life of the memory that it points to", key: "l", act: () => lifeOf(thing) });
    items.push({ label: "Memory that it points to", act: () => memoryAt(pointer, name ? `*${name}` : pointer) });
    items.push({
      label: "Who wrote the 8 bytes that it points to?",
      act: () => openView({ view: "watchpoint", of: `${pointer}:8`, label: name ? `*${name}` : pointer }),
    });
  }
  if (text !== undefined) {
    items.push({ label: "Copy value", act: () => copy(text) });
    if (at) items.push({ label: "Add to notebook", act: () => void addNote(at, name ? `${name} = ${text}` : text) });
  }
  return items;
}

export function momentMenu(to: Focus): MenuItem[] {
  return [
    { label: `Go to ${momentText(to.moment)}`, key: "Enter", act: () => go(to) },
    { label: "Add to notebook", act: () => void addNote(to, momentText(to.moment)) },
    { label: "Copy link to this moment", act: () => copy(linkTo(to)) },
    { label: "Copy moment", act: () => copy(`${to.moment.event}+${to.moment.instr}`) },
  ];
}

export function Menu() {
  const open = menu.value;
  const box = useRef<HTMLDivElement>(null);
  const [shift, setShift] = useState({ x: 0, y: 0 });
  const close = (): void => {
    menu.value = null;
    if (open?.back instanceof HTMLElement) open.back.focus();
  };
  useLayoutEffect(() => {
    const at = box.current?.getBoundingClientRect();
    if (!at || !open) return;
    setShift({ x: Math.min(0, innerWidth - 4 - open.x - at.width), y: Math.min(0, innerHeight - 4 - open.y - at.height) });
    box.current?.querySelector("button")?.focus();
  }, [open]);
  useEffect(() => {
    if (!open) return undefined;
    const away = (e: Event): void => {
      if (!box.current?.contains(e.target as Node)) menu.value = null;
    };
    const blurred = (): void => {
      menu.value = null;
    };
    addEventListener("pointerdown", away, true);
    addEventListener("blur", blurred);
    return () => {
      removeEventListener("pointerdown", away, true);
      removeEventListener("blur", blurred);
    };
  }, [open]);
  if (!open) return null;
  const key = (e: KeyboardEvent): void => {
    const buttons = [...(box.current?.querySelectorAll("button") ?? [])];
    const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
    if (e.key === "ArrowDown" || e.key === "j") buttons[(at + 1) % buttons.length]?.focus();
    else if (e.key === "ArrowUp" || e.key === "k") buttons[(at - 1 + buttons.length) % buttons.length]?.focus();
    else if (e.key === "Escape" || e.key === "Tab") close();
    else if (e.key === "Enter" || e.key === " ") {
      e.stopPropagation();
      return;
    }
    e.preventDefault();
    e.stopPropagation();
  };
  return (
    <div
      ref={box}
      class="menu"
      role="menu"
      style={{ left: `${open.x + shift.x}px`, top: `${open.y + shift.y}px` }}
      onKeyDown={key}
    >
      {open.items.map((item) => (
        <button
          key={item.label}
          role="menuitem"
          onClick={() => {
            close();
            item.act();
          }}
        >
          <span>{item.label}</span>
          {item.key && <kbd>{item.key}</kbd>}
        </button>
      ))}
    </div>
  );
}
