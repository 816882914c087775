// All views, each with its answer at the focus in miniature.
import { useEffect, useRef } from "preact/hooks";
import { openView } from "../../state/layout";
import { toolboxOpen } from "../keys/keys";
import { VIEWS } from "../kinds";
import { ViewMiniature } from "./miniature";

export function Toolbox() {
  const box = useRef<HTMLDivElement>(null);
  const open = toolboxOpen.value;
  useEffect(() => {
    if (open) box.current?.querySelector("button")?.focus();
  }, [open]);
  if (!open) return null;
  const close = (): void => {
    toolboxOpen.value = false;
  };
  const key = (e: KeyboardEvent): void => {
    const cards = [...(box.current?.querySelectorAll("button") ?? [])];
    const at = cards.indexOf(document.activeElement as HTMLButtonElement);
    const moves: { readonly [key: string]: number } = { ArrowRight: 1, ArrowDown: 1, j: 1, ArrowLeft: -1, ArrowUp: -1, k: -1 };
    const by = moves[e.key];
    if (by !== undefined) cards[(at + by + cards.length) % cards.length]?.focus();
    else if (e.key === "Escape") close();
    else return;
    e.preventDefault();
    e.stopPropagation();
  };
  return (
    <div class="veil" onClick={close}>
      <div ref={box} class="toolbox" role="dialog" aria-modal="true" aria-label="all views" onKeyDown={key}>
        {VIEWS.map((v) => (
          <button
            key={v.view}
            onClick={() => {
              close();
              openView({ view: v.view });
            }}
          >
            <span class="title">{v.title}</span>
            <ViewMiniature view={v.view} />
          </button>
        ))}
      </div>
    </div>
  );
}
