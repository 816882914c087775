#!/usr/bin/env python3
"""alerts.py PERNOSCO TRACES - what goes wrong in tests/programs/alerts.c, and several questions as one. Prints each failure; status 1 if any."""
import sys
import tempfile

from asking import Recording

# (kind, text, function that called) in order.
WANTED = [
    ("assertion", "Assertion `value == 7 && \"seven is wanted\"' failed at alerts.c:12 (check)", "check"),
    ("signal", "SIGABRT", None),
    ("assertion", "Assertion `value == 9' failed at alerts.c:18 (__cxa_check)", "fails_in_runtime"),
    ("signal", "SIGABRT", None),
    ("corruption", "double free or corruption (!prev)", "free_twice"),
    ("signal", "SIGABRT", None),
    ("exit", "exit status 42", None),
    ("corruption", "stack smashing detected", "overrun"),
    ("signal", "SIGABRT", None),
    ("exit", "killed by SIGKILL", None),
    ("signal", "SIGSEGV", None),
    ("exit", "exit status 3", None),
]
program, traces = sys.argv[1:]


def moment(row):
    m = row["focus"]["moment"]
    return m["event"], m["instr"]


with tempfile.TemporaryDirectory() as directory:
    t = Recording(program, traces, "alerts", directory)
    rows = t.query("alerts")
    found = [(r["kind"], r["text"], r.get("function", {}).get("name") if r["kind"] not in ("signal", "exit") else None) for r in rows]
    t.check(found == WANTED, f"alerts are {found}")
    freed = [r for r in rows if r["text"].startswith("double free")]
    pointer = t.query("evaluate", focus=freed[0]["focus"], expression="p")[0]["value"]["pointer"]
    t.check([r for r in rows if "heap" in r] == freed and freed[0]["heap"] == pointer, f"what is freed twice is {pointer}: {freed}")
    t.check([moment(r) for r in rows] == sorted(moment(r) for r in rows), "order")
    first = t.query("complete-frame", focus=rows[0]["focus"])[0]
    t.check(first["function"]["name"] == "check" and first["location"]["line"] == 12, f"the focus of an assertion is in {first}")
    end = t.query("info")[0]["end"]
    t.check(t.query("alerts", direction="backward", limit=4, **{"from": end}) == rows[:-5:-1], "the last four, backward")
    t.check(t.query("alerts", limit=3, **{"from": rows[2]["focus"]["moment"]}) == rows[2:5], "three of those in the middle")

    # Each part's rows are there once, in order, also when they are fetched a few at a time.
    parts = [{"query": "stdouterr", "params": {"all": True}}, {"query": "execution", "params": {"function": "in_child"}}, {"query": "signals"}]
    single = [t.query(p["query"], limit=1000, **p.get("params", {})) for p in parts]
    t.check(all(single), "each part has rows")
    wanted = sorted(((moment(r), i) for i, part in enumerate(single) for r in part), key=lambda x: (x[0], x[1]))
    joined = t.query("join", subqueries=parts, limit=1000)
    t.check([(moment(r), r["of"]) for r in joined] == wanted, "rows of a join")
    for r in joined:
        plain = dict(r)
        t.check(plain in [dict(x, of=r["of"]) for x in single[r["of"]]], f"{plain} is no row of its part")
    forward, at = [], {"event": 0, "instr": 0}
    while rows := t.query("join", subqueries=parts, limit=6, **{"from": at}):
        forward += rows
        at = {"event": moment(rows[-1])[0], "instr": moment(rows[-1])[1] + 1}
    t.check(forward == joined, f"forward by sixes: {len(forward)} rows, not {len(joined)}")
    backward, at = [], {"event": end["event"] + 1, "instr": 0}
    while rows := t.query("join", subqueries=parts, limit=5, direction="backward", **{"from": at}):
        backward += rows
        at = rows[-1]["focus"]["moment"]
    t.check(backward == joined[::-1], f"backward by fives: {len(backward)} rows, not {len(joined)}")
sys.exit(t.failures > 0)
