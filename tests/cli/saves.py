#!/usr/bin/env python3
"""saves.py PERNOSCO TRACES - where the registers of run() of tests/programs/saved-register.c came from when it calls done(): over all calls that
saved and restored them, but not over the one in which something else wrote to the place. Prints each failure; status 1 if any."""
import json
import shutil
import subprocess
import sys
import tempfile

CALLS, SWAP_AT = 40000, 30000
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


def origin(register, limit):
    rows = query("dataflow", focus=focus, register=register, limit=limit)
    return [(row["text"], row.get("saved", 0)) for row in rows]


with tempfile.TemporaryDirectory() as directory:
    work = directory + "/t"
    shutil.copytree(traces + "/saved-register", work)
    subprocess.run([program, "build", "--skip-rr", work], capture_output=True, check=True)
    focus = query("execution", function="done", limit=1)[0]["focus"]
    rows = origin("rdi", 2)
    check(rows == [("mov rdi, r13", 0), ("mov r13, rdi", CALLS)], f"r13: {rows}")
    rows = origin("rsi", 4)
    check(rows[:3] == [("mov rsi, r14", 0), ("pop r14", SWAP_AT), ("mov [rsp], rax", 0)], f"r14: {rows}")
    check(len(rows) == 4 and rows[3][0].startswith("mov rax, ["), f"the twin: {rows}")
    # What is left out with saves: false is pairs of these.
    rows = query("dataflow", focus=focus, register="rdi", saves=True, limit=21)
    check([row["text"] for row in rows[1:]] == ["pop r13", "push r13"] * 10, f"saves: {[row['text'] for row in rows]}")
sys.exit(failures > 0)
