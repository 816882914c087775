#!/usr/bin/env python3
"""thread_locals.py PERNOSCO TRACES - thread-local variables: at each call of report() of tests/programs/thread-locals.c they hold what its arguments
say, evaluated at that moment, printed in passing, and in a condition. Prints each failure; status 1 if any."""
import json
import shutil
import subprocess
import sys
import tempfile

program, traces = sys.argv[1:]
failures = 0


def check(ok, what):
    global failures
    if not ok:
        print("FAIL:", what)
        failures += 1


def query(name, **params):
    out = subprocess.run([program, "query", work, name, json.dumps(params)], capture_output=True, text=True)
    check(out.returncode == 0, f"{name} {params}: {out.stderr}")
    return [json.loads(line) for line in out.stdout.splitlines()]


def numbers(values):
    return [v["value"].get("text") for v in values]


with tempfile.TemporaryDirectory() as directory:
    work = directory + "/t"
    shutil.copytree(traces + "/thread-locals", work)
    subprocess.run([program, "build", "--skip-rr", work], capture_output=True, check=True)
    names = ["count", "wide", "who.level"]
    rows = query("execution", function="report", limit=100, print=names)
    check(len(rows) == 3 + 4 + 5 + 1, f"{len(rows)} calls")
    for row in rows:
        check(numbers(row["prints"]) == numbers(row["args"]), f"printed {row['prints']}, arguments {row['args']}")
    check(len({row["task"]["serial"] for row in rows}) == 4, "tasks")
    for row in rows[::4]:
        for name, want in zip(names, numbers(row["args"])):
            value = query("evaluate", focus=row["focus"], expression=name)[0]["value"]
            check(value.get("text") == want, f"{name} is {value}, want {want}")
    check(query("evaluate", focus=rows[0]["focus"], expression="who.name")[0]["value"]["text"].startswith('"none"'), "who.name")
    few = query("execution", function="report", limit=100, condition="count == 3 || who.level == 21")
    want = [r["focus"]["moment"] for r in rows if numbers(r["args"])[0] == "3" or numbers(r["args"])[2] == "21"]
    check(len(want) == 2 and [r["focus"]["moment"] for r in few] == want, f"condition: {few}, want {want}")

sys.exit(failures > 0)
