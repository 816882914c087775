import { describe, expect, it } from "vitest";
import { changePane, closePane, DEFAULT_LAYOUT, dropTarget, findPane, type Layout, moveBorder, movePane, nudgePane, openPane, paneId, place } from "./layout";

const names = (l: Layout): string[][] => l.columns.map((c) => c.panes.map(paneId));

describe("opening", () => {
  it("puts a pane at the top of the right column", () =>
    expect(names(openPane(DEFAULT_LAYOUT, { view: "events" }))[1]?.[0]).toBe("events"));
  it("does not open one twice", () => expect(openPane(DEFAULT_LAYOUT, { view: "stack" })).toBe(DEFAULT_LAYOUT));
  it("unfolds one that is folded", () => {
    const folded = changePane(DEFAULT_LAYOUT, "stack", { collapsed: true });
    expect(findPane(openPane(folded, { view: "stack" }), "stack")?.pane.collapsed).toBe(false);
  });
  it("keeps the newest few answers only", () => {
    let l = DEFAULT_LAYOUT;
    for (const of of ["a", "b", "c", "d"]) l = openPane(l, { view: "execution", of });
    expect(names(l)[1]).toEqual(["execution d", "execution c", "execution b", "stack", "variables", "notebook"]);
  });
  it("folds what is wanted least when a column is full", () => {
    let l = openPane(DEFAULT_LAYOUT, { view: "execution", of: "a" });
    for (const view of ["events", "registers", "signals"]) l = openPane(l, { view });
    const open = l.columns[1]?.panes.filter((p) => !p.collapsed).map(paneId);
    expect(open).toEqual(["signals", "registers", "stack", "variables", "notebook"]);
    expect(names(l)[1]).toHaveLength(7);
  });
  it("works without any column", () => expect(names(openPane({ columns: [] }, { view: "stack" }))).toEqual([["stack"]]));
});

describe("closing", () => {
  it("takes the last pane's column away", () => {
    const l = closePane(closePane(DEFAULT_LAYOUT, "source"), "stdouterr");
    expect(names(l)).toEqual([["stack", "variables", "notebook"]]);
  });
});

describe("moving", () => {
  it("within a column, down and up", () => {
    const down = movePane(DEFAULT_LAYOUT, "stack", { column: 1, index: 2 });
    expect(names(down)[1]).toEqual(["variables", "stack", "notebook"]);
    expect(names(movePane(down, "stack", { column: 1, index: 0 }))).toEqual(names(DEFAULT_LAYOUT));
  });
  it("to another column", () =>
    expect(names(movePane(DEFAULT_LAYOUT, "stack", { column: 0, index: 1 }))).toEqual([
      ["source", "stack", "stdouterr"],
      ["variables", "notebook"],
    ]));
  it("to a column of its own", () =>
    expect(names(movePane(DEFAULT_LAYOUT, "stack", { column: 1, index: null }))).toEqual([
      ["source", "stdouterr"],
      ["stack"],
      ["variables", "notebook"],
    ]));
  it("with the keyboard, and stops at the edges", () => {
    expect(names(nudgePane(DEFAULT_LAYOUT, "notebook", "up"))[1]).toEqual(["stack", "notebook", "variables"]);
    expect(names(nudgePane(DEFAULT_LAYOUT, "notebook", "right")).length).toBe(3);
    expect(nudgePane(DEFAULT_LAYOUT, "stack", "up")).toBe(DEFAULT_LAYOUT);
    const single: Layout = { columns: [{ size: 1, panes: [{ view: "stack", size: 1 }] }] };
    expect(nudgePane(single, "stack", "left")).toBe(single);
  });
});

describe("placing", () => {
  it("fills the space with one pixel between panes", () => {
    const { panes, borders } = place(DEFAULT_LAYOUT, 1001, 500);
    expect(borders).toHaveLength(4);
    const [source, output, stack] = panes;
    expect(source?.height).toBe(359);
    expect(output?.top).toBe(360);
    expect((output?.top ?? 0) + (output?.height ?? 0)).toBe(499);
    expect((stack?.left ?? 0) + (stack?.width ?? 0)).toBe(1001);
  });
  it("leaves a folded pane its title", () => {
    const { panes } = place(changePane(DEFAULT_LAYOUT, "stdouterr", { collapsed: true }), 1000, 500);
    expect(panes[1]?.height).toBe(24);
    expect(panes[0]?.height).toBe(474);
  });
  it("moves a border by pixels, and not past its neighbours", () => {
    const wider = moveBorder(DEFAULT_LAYOUT, { column: 0, index: null }, 100, 1000, 500);
    expect(wider.columns[0]?.size).toBeCloseTo(68);
    const far = moveBorder(DEFAULT_LAYOUT, { column: 0, index: null }, 9999, 1000, 500);
    expect(far.columns[1]?.size).toBeCloseTo(16);
    const lower = moveBorder(DEFAULT_LAYOUT, { column: 0, index: 0 }, -50, 1000, 500);
    expect(place(lower, 1000, 500).panes[0]?.height).toBe(309);
  });
});

describe("dropping", () => {
  it("before, behind, and beside a pane", () => {
    expect(dropTarget(DEFAULT_LAYOUT, 1000, 500, 300, 10)?.to).toEqual({ column: 0, index: 0 });
    expect(dropTarget(DEFAULT_LAYOUT, 1000, 500, 300, 490)?.to).toEqual({ column: 0, index: 2 });
    expect(dropTarget(DEFAULT_LAYOUT, 1000, 500, 5, 100)?.to).toEqual({ column: 0, index: null });
    expect(dropTarget(DEFAULT_LAYOUT, 1000, 500, 995, 100)?.to).toEqual({ column: 2, index: null });
    expect(dropTarget(DEFAULT_LAYOUT, 1000, 500, 2000, 100)).toBeNull();
  });
});
