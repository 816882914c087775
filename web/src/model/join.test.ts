import { describe, expect, it } from "vitest";
import { canJoin, joinPanes, neighbourToJoin, partsOf, takeOut } from "./join";
import { dropTarget, findPane, type Layout, type Pane, paneId, place } from "./layout";
import { decodeLayout, encodeLayout } from "./url";

const calls: Pane = { view: "execution", of: "0:12", label: "f", condition: "x > 3, 4", size: 20 };
const output: Pane = { view: "stdouterr", size: 50 };
const writes: Pane = { view: "watchpoint", of: "0x10:8", label: "p->n", size: 30 };
const layout: Layout = { columns: [{ size: 60, panes: [{ view: "source", size: 50 }, output] }, { size: 40, panes: [{ view: "stack", size: 50 }, calls, writes] }] };
const names = (l: Layout): string[][] => l.columns.map((c) => c.panes.map((p) => p.view));

describe("joining", () => {
  const two = joinPanes(layout, "stdouterr", paneId(calls));
  const pane = two.columns[1]?.panes[1];
  it("puts a pane into another's place", () => {
    expect(names(two)).toEqual([["source"], ["stack", "join", "watchpoint"]]);
    expect(pane && partsOf(pane).map((p) => ({ ...p, size: 0 }))).toEqual([{ ...calls, size: 0 }, { ...output, size: 0 }]);
    expect(pane?.size).toBe(20);
  });
  it("goes on with what is joined", () => {
    const id = pane ? paneId(pane) : "";
    const three = joinPanes(two, id, paneId(writes));
    expect(names(three)).toEqual([["source"], ["stack", "join"]]);
    expect(partsOf(three.columns[1]?.panes[1] as Pane).map((p) => p.view)).toEqual(["watchpoint", "execution", "stdouterr"]);
    expect(decodeLayout(encodeLayout(three))).toEqual(three);
  });
  it("is for lists of moments", () => {
    expect(joinPanes(layout, "stack", paneId(calls))).toBe(layout);
    expect(joinPanes(layout, "stdouterr", "source")).toBe(layout);
    expect(canJoin(output, output)).toBe(false);
  });
  it("is undone part by part", () => {
    const back = takeOut(two, pane ? paneId(pane) : "", 1);
    expect(names(back)).toEqual([["source"], ["stdouterr", "stack", "execution", "watchpoint"]]);
    expect(findPane(back, paneId(calls))?.pane).toEqual(calls);
  });
  it("finds a neighbour", () => {
    expect(neighbourToJoin(layout, paneId(calls))).toBe(paneId(writes));
    expect(neighbourToJoin(layout, paneId(writes))).toBe(paneId(calls));
    expect(neighbourToJoin(layout, "stdouterr")).toBeNull();
  });
});

describe("dropping", () => {
  const { panes } = place(layout, 1000, 800);
  const at = panes.find((p) => p.pane === calls);
  const middle = { x: (at?.left ?? 0) + 200, y: (at?.top ?? 0) + (at?.height ?? 0) / 2 };
  it("onto the middle joins", () =>
    expect(dropTarget(layout, 1000, 800, middle.x, middle.y, (p) => canJoin(output, p))?.to).toEqual({ column: 1, index: 1, into: paneId(calls) }));
  it("onto the middle of another kind moves", () =>
    expect(dropTarget(layout, 1000, 800, middle.x, middle.y + 1)?.to).toEqual({ column: 1, index: 2 }));
});
