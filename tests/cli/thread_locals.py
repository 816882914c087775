#!/usr/bin/env python3
"""thread_locals.py PERNOSCO TRACES - thread-local variables: at each call of report() of tests/programs/thread-locals.c they hold what its arguments
say, evaluated at that moment, printed in passing, and in a condition. Prints each failure; status 1 if any."""
import sys
import tempfile

from asking import Recording

program, traces = sys.argv[1:]


def numbers(values):
    return [v["value"].get("text") for v in values]


with tempfile.TemporaryDirectory() as directory:
    t = Recording(program, traces, "thread-locals", directory)
    names = ["count", "wide", "who.level"]
    rows = t.query("execution", function="report", limit=100, print=names)
    t.check(len(rows) == 3 + 4 + 5 + 1, f"{len(rows)} calls")
    for row in rows:
        t.check(numbers(row["prints"]) == numbers(row["args"]), f"printed {row['prints']}, arguments {row['args']}")
    t.check(len({row["task"]["serial"] for row in rows}) == 4, "tasks")
    for row in rows[::4]:
        for name, want in zip(names, numbers(row["args"])):
            value = t.query("evaluate", focus=row["focus"], expression=name)[0]["value"]
            t.check(value.get("text") == want, f"{name} is {value}, want {want}")
    t.check(t.query("evaluate", focus=rows[0]["focus"], expression="who.name")[0]["value"]["text"].startswith('"none"'), "who.name")
    few = t.query("execution", function="report", limit=100, condition="count == 3 || who.level == 21")
    want = [r["focus"]["moment"] for r in rows if numbers(r["args"])[0] == "3" or numbers(r["args"])[2] == "21"]
    t.check(len(want) == 2 and [r["focus"]["moment"] for r in few] == want, f"condition: {few}, want {want}")

sys.exit(t.failures > 0)
