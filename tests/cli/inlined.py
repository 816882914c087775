#!/usr/bin/env python3
"""inlined.py PERNOSCO TRACES - calls that the compiler inlined, in tests/programs/inlined.c: scale(), also called through a pointer, and both(), of
which all calls were inlined. What they were is computed here. Prints each failure; status 1 if any."""
import sys
import tempfile

from asking import Recording

ROUNDS = 40
program, traces = sys.argv[1:]


def calls():
    """(inlined, value, by) of each call of scale(), in order."""
    total = 0
    for i in range(ROUNDS):
        by_pointer = i % 4 == 3
        by = 100 if by_pointer else 2
        yield not by_pointer, i, by
        total += (i * by + 1) % 1000
        b = total % 100
        yield True, i, b
        yield True, b, 3
        total += (i * b + 1) % 1000 + (b * 3 + 1) % 1000


def moments(rows):
    return [(r["focus"]["moment"]["event"], r["focus"]["moment"]["instr"]) for r in rows]


def count(**params):
    return t.query("counts", **params)[0]["total"]


with tempfile.TemporaryDirectory() as directory:
    t = Recording(program, traces, "inlined", directory)
    wanted = list(calls())
    found = {r["title"]: r for r in t.query("search", input="both")}
    t.check("both" in found and found["both"]["inlined"] and found["both"]["location"]["line"] == 21, f"search: {found}")
    t.check("inlined" not in {r["title"]: r for r in t.query("search", input="scale")}["scale"], "scale() is not only inlined")

    for name in "both", found["both"]["action"]["function"]["id"]:
        t.check(count(function=name) == ROUNDS, f"counts of {name}")
        rows = t.query("execution", function=name, limit=1000)
        t.check(len(rows) == ROUNDS and all(r["inlined"] for r in rows), f"{len(rows)} calls of {name}")

    rows = t.query("execution", function="scale", limit=1000)
    t.check(count(function="scale") == len(wanted), "counts of scale")
    t.check(moments(rows) == sorted(moments(rows)), "order")
    t.check([bool(r.get("inlined")) for r in rows] == [w[0] for w in wanted], f"{len(rows)} calls of scale(), want {len(wanted)}")
    known = 0
    for row, want in zip(rows, wanted):
        for argument, value in zip(row["args"], want[1:]):
            text = argument["value"].get("text")
            known += text is not None
            t.check(text in (None, str(value)), f"{argument['name']} is {text} instead of {value} in {row}")
    t.check(known > 2 * len(wanted) * 3 / 4, f"only {known} arguments have values")
    t.check(count(function="scale", condition="by == 3 || by == 100") == sum(w[2] in (3, 100) for w in wanted), "counts under a condition")
    some = t.query("execution", function="scale", limit=1000, condition="by == 3 || by == 100", print=["value"])
    t.check([r["prints"][0]["value"].get("text") for r in some] == [str(w[1]) for w in wanted if w[2] in (3, 100)], f"values printed: {some}")

    end = t.query("info")[0]["end"]
    back = t.query("execution", function="scale", limit=1000, **{"direction": "backward", "from": end})
    t.check(moments(back) == moments(rows)[::-1], f"backward: {len(back)}")
    t.check(moments(t.query("execution", function="scale", limit=7)) == moments(rows)[:7], "the first 7")
    back = t.query("execution", function="scale", limit=7, **{"direction": "backward", "from": end})
    t.check(moments(back) == moments(rows)[:-8:-1], "the last 7")

    # Each once, though rows of scale()'s lines stand in both.
    functions = t.query("functions-in-file", **{"file": "inlined.c"})
    t.check(sorted(r["function"]["name"] for r in functions) == ["_start", "scale"], f"functions of the file: {functions}")
sys.exit(t.failures > 0)
