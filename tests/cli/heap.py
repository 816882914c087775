#!/usr/bin/env python3
"""heap.py PERNOSCO TRACES - lives of heap memory in tests/programs/heap.c, which tells itself what it allocates and frees. Prints each failure; status 1 if any."""
import random
import subprocess
import sys
import tempfile

from asking import Recording

NEAR = 64
OWN = {"get", "get_cleared", "drop", "resize", "aligned"}
NAMES = {"memalign": "aligned_alloc"}  # they are one function in glibc
program, traces = sys.argv[1:]


def moment(m):
    return m["event"], m["instr"]


def at(row):
    return moment(row["focus"]["moment"])


class Life:
    def __init__(self, row, start, size):
        self.made, self.task, self.start, self.size = at(row), row["task"]["serial"], start, size
        self.ends = {}  # by process: the reports of its end; more than one if it is freed again

    def covers(self, address):
        return address == self.start or self.start <= address < self.start + self.size


class Model:
    """What the program says: lives of each process, from its own reports and those of its parent before the fork."""

    def __init__(self, t):
        self.tasks = {r["task"]["serial"]: r for r in t.query("task-tree")}
        rows = t.query("join", limit=20000, subqueries=[{"query": "execution", "params": {"function": f}} for f in ("made", "ended")])
        rows = [(r, [a["value"] for a in r["args"]]) for r in rows]
        self.lives = {p: [] for p in {self.process(s) for s in self.tasks}}
        for row, args in rows:
            start, process = int(args[0]["pointer"], 16), self.process(row["task"]["serial"])
            if len(args) == 3:
                life = Life(row, start, int(args[1]["text"]))
                life.call = NAMES.get(args[2]["text"].split('"')[1], args[2]["text"].split('"')[1])
                for p in self.lives:
                    if p == process or (self.tasks[p].get("parent", {}).get("serial") == process and at(row) < moment(self.tasks[p]["start"])):
                        self.lives[p].append(life)
                continue
            for life in reversed(self.lives[process]):
                if life.start == start:
                    for p in self.lives:
                        if p == process or (self.tasks[p].get("parent", {}).get("serial") == process and at(row) < moment(self.tasks[p]["start"])):
                            life.ends.setdefault(p, []).append(row)
                    break

    def process(self, serial):
        task = self.tasks[serial]
        return self.process(task["parent"]["serial"]) if task["kind"] == "thread" else serial

    def until(self, focus):
        """Those that were there, newest first."""
        process = self.process(focus["task"]["serial"])
        return process, [life for life in reversed(self.lives[process]) if life.made < moment(focus["moment"])]


def is_alive(life, process, m):
    return process not in life.ends or at(life.ends[process][0]) > m


def check_address(t, model, focus, address):
    process, lives = model.until(focus)
    m, what = moment(focus["moment"]), f"{address:#x} at {focus['moment']}"
    rows = t.query("allocation", focus=focus, address=hex(address), limit=1000)
    t.check(rows and rows[0]["kind"] == "place" and rows[0]["address"] == hex(address), f"{what}: first row {rows[:1]}")
    found = [r for r in rows if r["kind"] == "allocation" and r["function"]["name"] in OWN]
    ends = {}
    for r in rows:
        if r["kind"] == "free":
            ends.setdefault(r["of"], []).append(r)
    wanted = [life for life in lives if life.covers(address)]
    inside = [r for r in found if "offset" in r]
    t.check(len(inside) == len(wanted), f"{what}: {len(inside)} allocations, not {len(wanted)}")
    for r, life in zip(inside, wanted):
        t.check(r["start"] == hex(life.start) and r["size"] == life.size and r["call"] == life.call and r["task"]["serial"] == life.task and
                r["offset"] == address - life.start and at(r) < moment(r["end"]) <= life.made, f"{what}: {r}, not {life.__dict__}")
        t.check(r["state"] == ("alive" if is_alive(life, process, m) else "freed"), f"{what}: is {r['state']}")
        reports, told = life.ends.get(process, []), ends.get(r["id"], [])
        again = [e for e in told if e.get("again")]
        t.check(len(told) - len(again) == bool(reports), f"{what}: {told} of {life.__dict__}")
        t.check(len(again) == (len(reports) > 1 and at(reports[1]) < m), f"{what}: freed again {again}")
        if told and reports:
            end = reports[0]
            later = min((x.made for x in model.lives[process] if x.made > at(end)), default=(10 ** 9, 0))
            t.check(at(end) < at(told[0]) < later and told[0]["task"] == end["task"] and told[0]["call"] in end["args"][1]["value"]["text"] and
                    told[0]["function"]["name"] in OWN, f"{what}: ended by {told[0]}, not {end}")
    # Bytes behind the nearest one that is alive, of an address that is in none that is.
    behind = [r for r in found if "behind" in r]
    near = [x for x in lives if is_alive(x, process, m) and 0 <= address - x.start - x.size < NEAR and not x.covers(address)]
    live = [r for r in rows if r["kind"] == "allocation" and r["state"] == "alive" and "offset" in r]
    if live or not near:
        t.check(not behind, f"{what}: {behind}")
    elif not [r for r in rows if "behind" in r and r not in found]:  # what the library itself allocated may be nearer
        nearest = max(x.start + x.size for x in near)
        t.check(len(behind) == 1 and int(behind[0]["start"], 16) + behind[0]["size"] == nearest and behind[0]["behind"] == address - nearest,
                f"{what}: behind {behind}, not {nearest:#x}")


def check_all(t, model, focus):
    """All that are alive, by who made them."""
    process, lives = model.until(focus)
    rows = t.query("allocations", focus=focus, limit=1000)
    total = rows[0]
    t.check(total["kind"] == "total" and total["count"] == sum(r["count"] for r in rows[1:]) and total["callers"] == len(rows) - 1 and
            total["bytes"] == sum(r["bytes"] for r in rows[1:]), f"total {total} at {focus['moment']}")
    t.check([r["bytes"] for r in rows[1:]] == sorted((r["bytes"] for r in rows[1:]), reverse=True), "order of callers")
    alive = [x for x in lives if is_alive(x, process, moment(focus["moment"]))]
    for call in ("malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign"):
        mine = [r for r in rows[1:] if r["call"] == call and r["function"]["name"] in OWN]
        wanted = [x for x in alive if x.call == call]
        t.check(sum(r["count"] for r in mine) == len(wanted) and sum(r["bytes"] for r in mine) == sum(x.size for x in wanted),
                f"{call} at {focus['moment']}: {mine}, not {len(wanted)}")
        for r in mine:
            t.check((int(r["start"], 16), r["size"]) in [(x.start, x.size) for x in wanted], f"{r} is none of {call}'s")


def go_through(t, addresses, first):
    pick = random.Random(first)
    model = Model(t)
    looks = [r["focus"] for r in t.query("execution", function="look", limit=100)]
    t.check(len(looks) == 13, f"{len(looks)} looks")
    abort = next(r for r in t.query("alerts") if r["kind"] == "corruption")
    looks.append(dict(abort["focus"], frame=0))
    for focus in looks[first::2]:
        check_all(t, model, focus)
        lives = model.until(focus)[1]
        chosen = pick.sample(lives, min(addresses, len(lives)))
        for life in chosen + lives[:1]:
            check_address(t, model, focus, life.start + pick.choice([0, life.size // 2, max(life.size - 1, 0), life.size, life.size + 5, life.size + 70]))
    # The block that is freed twice.
    t.check(int(abort["heap"], 16) in [x.start for x in model.until(looks[-1])[1] if len(x.ends.get(1, [])) == 2], f"the alert is about {abort}")
    twice = next(x for x in model.until(looks[-1])[1] if len(x.ends.get(1, [])) == 2)
    check_address(t, model, looks[-1], twice.start + 8)
    # What is no allocation.
    for expression, name in ("$rsp", "[stack]"), ("(unsigned long)main", "heap"):
        address = t.query("evaluate", focus=looks[0], expression=expression)[0]["value"]["text"]
        rows = t.query("allocation", focus=looks[0], address=hex(int(address.split()[0], 0)))
        t.check(len(rows) == 1 and rows[0]["mapping"]["name"].endswith(name), f"{expression}: {rows}")
        t.check(("stackOf" in rows[0]) == (name == "[stack]"), f"{expression}: {rows[0]}")
    rows = t.query("allocation", focus=looks[0], address="0x10")
    t.check(rows == [{"kind": "place", "address": "0x10"}], f"an address of nothing: {rows}")
    for wrong in {"address": "0x10", "limit": 0}, {}:
        t.check(t.run("allocation", dict(wrong, focus=looks[0])).returncode == 2, f"parameters {wrong}")


with tempfile.TemporaryDirectory() as directory:
    t = Recording(program, traces, "heap", directory)
    go_through(t, 4, 0)
    # The same where calls and lives reach from one stretch of the database into others.
    subprocess.run([program, "build", "--skip-rr", "--restart", "--segment", "10000", t.path], capture_output=True, check=True)
    t.check(t.query("info")[0]["segments"] > 30, "many segments")
    go_through(t, 3, 1)
    # Where no allocator is known that is said.
    bare = Recording(program, traces, "tiny-ticks", directory)
    t.check("nothing is known of allocations" in bare.error("allocations"), "a program without an allocator")
    t.failures += bare.failures
sys.exit(t.failures > 0)
