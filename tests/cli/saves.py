#!/usr/bin/env python3
"""saves.py PERNOSCO TRACES - where the registers of run() of tests/programs/saved-register.c came from when it calls done(): over all calls that
saved and restored them, but not over the one in which something else wrote to the place; likewise those of changed-code.c, over calls of a
function which was different in between. Prints each failure; status 1 if any."""
import sys
import tempfile

from asking import Recording

CALLS, SWAP_AT = 40000, 30000
program, traces = sys.argv[1:]


def origin(register, limit):
    return [(row["text"], row.get("saved", 0)) for row in t.query("dataflow", focus=focus, register=register, limit=limit)]


with tempfile.TemporaryDirectory() as directory:
    t = Recording(program, traces, "saved-register", directory)
    focus = t.query("execution", function="done", limit=1)[0]["focus"]
    rows = origin("rdi", 2)
    t.check(rows == [("mov rdi, r13", 0), ("mov r13, rdi", CALLS)], f"r13: {rows}")
    rows = origin("rsi", 4)
    t.check(rows[:3] == [("mov rsi, r14", 0), ("pop r14", SWAP_AT), ("mov [rsp], rax", 0)], f"r14: {rows}")
    t.check(len(rows) == 4 and rows[3][0].startswith("mov rax, ["), f"the twin: {rows}")
    # What is left out with saves: false is pairs of these.
    rows = t.query("dataflow", focus=focus, register="rdi", saves=True, limit=21)
    t.check([row["text"] for row in rows[1:]] == ["pop r13", "push r13"] * 10, f"saves: {[row['text'] for row in rows]}")
failures = t.failures
for name in ("changed-code", "changed-code-shared"):
    with tempfile.TemporaryDirectory() as directory:
        t = Recording(program, traces, name, directory)
        focus = t.query("execution", function="done", limit=1)[0]["focus"]
        rows = origin("rdi", 9)
        t.check(rows == [("mov rdi, r13", 0), ("mov r13, rdi", 3000), ("mov edi, 0x1", 0)], f"{name}, r13: {rows}")
        rows = origin("rsi", 9)
        t.check(rows == [("mov rsi, r15", 0), ("mov r15, rdi", 0), ("mov edi, 0x1", 0)], f"{name}, r15: {rows}")
        failures += t.failures
sys.exit(failures > 0)
