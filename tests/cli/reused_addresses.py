#!/usr/bin/env python3
"""reused_addresses.py PERNOSCO TRACES - code that takes another's place: of tests/programs/library-locals.c a library that is loaded where one was that
is not there any more, of reused-addresses.c a program that is executed by another one, of replaced-file.c
a file that is replaced by another one of its name. And thread-local variables of libraries: at each call of
report() they hold what its arguments say. Prints each failure; status 1 if any."""
import sys
import tempfile

from asking import Recording

program, traces = sys.argv[1:]


def moments(rows):
    return [(r["focus"]["moment"]["event"], r["focus"]["moment"]["instr"]) for r in rows]


def calls(t, name, expected):
    """The function's calls, by all questions that find them."""
    rows = t.query("execution", function=name, limit=100)
    t.check(len(rows) == expected, f"{len(rows)} calls of {name}, not {expected}")
    t.check(all(r["function"]["name"] == name for r in rows), f"functions of {name}")
    end = t.query("info")[0]["end"]
    back = t.query("execution", function=name, limit=100, **{"direction": "backward", "from": end})
    t.check(moments(back) == moments(rows)[::-1], f"{name} backward")
    for r in rows:
        frame = t.query("complete-frame", focus=r["focus"])[0]
        t.check(frame["function"]["name"] == name, f"a call of {name} is one of {frame['function']}")
    t.check(t.query("counts", function=name)[0]["total"] == expected, f"count of {name}")
    t.check(t.query("counts", function=name, condition="$rip != 0")[0]["total"] == expected, f"count of {name} under a condition")
    found = [r for r in t.query("search", input=name, maxResults=20) if r["title"] == name]
    t.check(len(found) == 1 and found[0]["count"] == expected, f"search of {name}: {found}")
    return rows


def text(t, focus, expression):
    return t.query("evaluate", focus=focus, expression=expression)[0]["value"].get("text")


with tempfile.TemporaryDirectory() as directory:
    t = Recording(program, traces, "reused-addresses", directory)
    first, second = calls(t, "first_step", 3), calls(t, "second_step", 5)
    pcs = {t.query("complete-frame", focus=r["focus"])[0]["pc"] for r in first + second}
    t.check(len(pcs) == 1, f"the addresses are not the same: {pcs}")
    lines = t.query("breakpoint", file="/programs/reused-addresses.c", line=13, limit=100)
    t.check(moments(lines) == moments(first + second), f"executions of a line of both: {len(lines)}")
    failures = t.failures

    t = Recording(program, traces, "replaced-file", directory)
    both = calls(t, "old_step", 3) + calls(t, "new_step", 5)
    lines = t.query("breakpoint", file="/programs/replaced-file.c", line=6, limit=100)
    t.check(moments(lines) == moments(both), f"executions of a line of both files: {len(lines)}")
    failures += t.failures

    t = Recording(program, traces, "library-locals", directory)
    reports = calls(t, "linked_report", 2 + 2 + 1) + calls(t, "first_report", 2) + calls(t, "second_report", 1)
    for r in reports:
        for argument, variable in zip(r["args"], ["count", "who.level"]):
            value = text(t, r["focus"], variable)
            t.check(value == argument["value"]["text"], f"{variable} is {value}, want {argument} in {r['function']['name']}")
    # The second thread has not used the variables of the second library, but those of the first one, whose entry in its table is still there.
    idle = calls(t, "second_idle", 2)
    for r in idle:
        why = t.error("evaluate", focus=r["focus"], expression="count")
        t.check("cannot be found here" in why, f"before its first use: {why}")
    t.failures += failures
sys.exit(t.failures > 0)
