#!/usr/bin/env python3
"""view.py PERNOSCO TRACES - gdb in a view of the page, as the server gives it over its WebSocket: in step with the focus both ways,
confined, bounded, ended with its view. Prints each failure; status 1 if any, 77 without gdb or Landlock."""
import ctypes
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile

from web_client import Gdb, Server, Window

program, traces = sys.argv[1:]
failures = 0
CREATE_RULESET, VERSION = 444, 1
if not shutil.which("gdb") or ctypes.CDLL(None).syscall(CREATE_RULESET, None, 0, VERSION) < 1:
    sys.exit(77)


def check(ok, what):
    global failures
    if not ok:
        print("FAIL:", what)
        failures += 1


def query(trace, name, **params):
    out = subprocess.run([program, "query", trace, name, json.dumps(params)], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in out.stdout.splitlines()]


def rip_of(trace, focus):
    return next(int(r["value"], 16) for r in query(trace, "registers", focus=focus) if r["name"] == "rip")


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(c) for c in f.read().split()]


def name_of(pid):
    with open(f"/proc/{pid}/comm") as f:
        return f.read().strip()


def gdbs(server):
    launcher = next(p for p in children(server.process.pid) if name_of(p) == "gdb-launcher")
    return children(launcher)


def wait_until(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            check(False, what)
            return
        time.sleep(0.05)


def focus(event, instr=0, frame=0, serial=None):
    f = {"moment": {"event": event, "instr": instr}, "frame": frame}
    return f if serial is None else {**f, "task": {"tid": 0, "serial": serial}}


def rip(gdb):
    return int(gdb.ask("info registers rip", r"rip +(0x[0-9a-f]+)").group(1), 16)


def in_step(server, trace):
    window = Window(server)
    gdb = Gdb(window, 1, focus(200, 0))
    gdb.see(r"\(gdb\) $")
    check("in work (" in gdb.text and "New UI" not in gdb.text, f"it does not tell where it stands: {gdb.text}")
    at = rip_of(trace, focus(200))
    check(rip(gdb) == at, "it does not begin at the focus")
    check(not gdb.moved, f"it tells where it begins: {gdb.moved}")

    gdb.type("stepi\n")
    gdb.until("a step was not told", lambda: gdb.moved)
    stepped = query(trace, "step", focus=focus(200), kind="instruction", direction="forward")[0]["focus"]
    got = gdb.moved.pop()
    check(got["moment"] == stepped["moment"] and got["task"] == stepped["task"] and got["frame"] == 0, f"a step led to {got}, not {stepped}")
    check(rip(gdb) == rip_of(trace, got), "after a step")

    # Another moment, task and frame, while half a command is typed.
    gdb.type("info registers")
    gdb.see(r"info registers$")
    there = query(trace, "stack", focus=focus(300))[1]
    gdb.say(focus=there["focus"])
    gdb.see(r"^#1 .*in .*")
    gdb.see(r"\(gdb\) info registers$")
    gdb.type(" rip\n")
    check(int(gdb.see(r"^rip +(0x[0-9a-f]+)").group(1), 16) == int(there["pc"], 16), "it did not follow the focus")
    check(gdb.ask("monitor when", r"^\d+\+\d+").group() == "300+0", "it is at another moment")
    check(not gdb.moved, f"it tells of where it was told to go: {gdb.moved}")
    gdb.type("down\n")
    gdb.until("a frame was not told", lambda: gdb.moved)
    got = gdb.moved.pop()
    check(got["frame"] == 0 and got["moment"]["event"] == 300, f"frame 0 was told as {got}")

    # A breakpoint backward; then the focus moves while its command may be stepped over.
    gdb.ask("break work", r"^Breakpoint 1")
    gdb.type("reverse-continue\n")
    gdb.see(r"hit Breakpoint 1")
    gdb.until("a stop was not told", lambda: gdb.moved)
    hit = gdb.moved.pop()
    name = query(trace, "complete-frame", focus=hit)[0]["function"]["name"]
    check(name == "work" and hit["moment"]["event"] < 300, f"the breakpoint is at {hit} in {name}")
    for f in focus(300), focus(60, 3), hit, focus(346):
        gdb.say(focus=f)
    gdb.say(focus=focus(230, 1))
    time.sleep(0.5)
    check(rip(gdb) == rip_of(trace, focus(230, 1)), "the last of many moves of the focus is not where it is")
    check(not gdb.moved, f"told of moves that are not its own: {gdb.moved}")
    gdb.say(focus=focus(0, 10 ** 12))
    gdb.say(focus=focus(10 ** 15))
    gdb.say(focus=focus(300, 0, 0, 4000))
    gdb.see(r"there is no such task")
    gdb.say(focus=focus(60, 3, 1000))
    time.sleep(0.5)
    check(rip(gdb) == rip_of(trace, focus(60, 3)), "a frame that is not there")
    gdb.ask("set exec-direction reverse", r"\(gdb\) $")
    gdb.say(focus=focus(300))
    gdb.see(r"\(gdb\) $")
    check(rip(gdb) == rip_of(trace, focus(300)), "the focus, while gdb's direction is backward")
    gdb.ask("set exec-direction forward", r"\(gdb\) $")
    gdb.ask("list work", r"the sources of the trace")
    gdb.ask("of_trace", r"a command of the trace")

    # A function of the program is called: gdb is where it was, and follows the focus.
    gdb.moved.clear()
    gdb.ask("print (int)getpid()", r"= \d+$")
    gdb.ask("print $rbx = 77", r"= 77$")
    time.sleep(0.3)
    gdb.pump(0.2)
    check(not gdb.moved, f"told of a move by a call: {gdb.moved}")
    gdb.say(focus=focus(346))
    time.sleep(0.5)
    check(rip(gdb) == rip_of(trace, focus(346)), "it does not follow the focus after a call")
    gdb.say(size=[60, 20])
    wait_until("the size of the terminal", lambda: gdb.ask("show width", r"in a line is (\d+)").group(1) == "60")
    gdb.type("quit\n")
    gdb.until("it did not end", lambda: gdb.closed)
    check(gdb.closed == "gdb has ended", gdb.closed)


def other_process(server, trace):
    """The focus moves to another process that executes another program, and back."""
    gdb = Gdb(Window(server), 1, focus(156))
    gdb.see(r"\(gdb\) $")
    for f in focus(200, 0, 0, 3), focus(100, 0, 0, 1):
        gdb.say(focus=f)
        time.sleep(0.2)
        gdb.pump(0.2)
        check(rip(gdb) == rip_of(trace, f), f"in another process, {f}")
    gdb.say(close=True)
    gdb.until("it did not end", lambda: gdb.closed)


def confined(server, directory):
    gdb = Gdb(Window(server), 1, focus(200), size=(200, 40))
    gdb.see(r"\(gdb\) $")
    outside = directory + "/outside"
    with open(outside, "w") as f:
        f.write("secret")
    for what, code in {
        "read a file": f"open('{outside}')", "write one": f"open('{outside}', 'w')", "make one": f"open('{directory}/new', 'w')",
        "write the recording": f"open('{directory}/threads-race/version', 'a')", "read of processes": "open('/proc/1/environ')",
        "read passwords": "open('/etc/passwd')", "connect": "__import__('socket').socket()", "fork": "__import__('os').fork()",
        "change a mode": f"__import__('os').chmod('{outside}', 0)", "kill": "__import__('os').kill(__import__('os').getppid(), 9)",
    }.items():
        gdb.ask(f"python {code}", r"Permission ?Error|not permitted|Permission denied")
    gdb.ask("shell echo shelled", r"Fork failed")
    gdb.ask("python x = bytearray(5 << 30)", "MemoryError")
    # A gdb that says again and again, on its second interface, that another frame was chosen.
    before, begin = len(gdb.moved), time.monotonic()
    code = """import os
for n in range(100):
 try: f = os.open(f'/dev/pts/{n}', os.O_WRONLY | os.O_NOCTTY)
 except OSError: continue
 for i in range(50000 * (os.ttyname(0) != f'/dev/pts/{n}')): os.write(f, b'=thread-selected,frame={level="1"\\n')

print('all' + ' said')
"""
    gdb.type(f"python\n{code}end\n")
    gdb.see("all said")
    gdb.until("its moves were not told", lambda: len(gdb.moved) > before)
    said, most = len(gdb.moved) - before, 20 * (time.monotonic() - begin) + 2
    check(said <= most, f"{said} moves were told where {most:.0f} could be")
    gdb.ask(f"python print(len(open('{directory}/threads-race/version', 'rb').read(1)))", r"^1$")  # which it may
    check(not os.path.exists(directory + "/new"), "a file was made")
    with open(outside) as f:
        check(f.read() == "secret", "a file was written")
    with open(f"/proc/{gdbs(server)[0]}/environ") as f:
        check("PERNOSCO" not in f.read(), "it has the server's environment")


def bounded(server):
    window = Window(server)
    flood = Gdb(window, 1, focus(200), take=False)
    flood.until("nothing was shown", lambda: "(gdb) " in flood.text)
    flood.type("python\nwhile True: print('x' * 70)\nend\n")
    flood.until("no flood", lambda: len(flood.raw) >= 64 << 10)
    flood.pump(1)
    check(len(flood.raw) <= 128 << 10, f"{len(flood.raw)} bytes came ahead")
    begin = time.monotonic()
    window.send({"id": 1, "query": "info", "params": {}})
    window.wait("an answer beside a flood", lambda m: m.get("id") == 1 and m.get("done"))
    check(time.monotonic() - begin < 5, "a flood holds up the server")
    had = len(flood.raw)
    flood.say(taken=had)
    flood.until("the flood did not go on", lambda: len(flood.raw) >= had + (60 << 10))
    for _ in range(20):
        flood.say(input="a\n" * 20000)
    flood.until("what is typed is kept without bound", lambda: flood.errors)
    for message in {"gdb": 1}, {"gdb": 1, "taken": -1}, {"gdb": 1, "size": [0, 5]}, {"gdb": 1, "size": 5}, {"gdb": 1, "focus": 5}, {"gdb": 1, "input": 5}:
        flood.errors.clear()
        window.send(message)
        flood.until(f"{message} was not refused", lambda: flood.errors)
    for message in {"gdb": 5, "input": "x"}, {"gdb": 6, "open": {}}, {"gdb": 7, "open": {"focus": focus(1), "size": [10 ** 9, 1]}}, {"gdb": "x", "open": 1}:
        window.send(message)
    for number in 6, 7:
        window.wait("a refusal", lambda m: m.get("gdb") == number and "closed" in m)

    many = [Gdb(window, 10 + i, focus(200)) for i in range(8)]
    many[7].until("an eighth beside the first was not refused", lambda: many[7].closed)
    check("close one of them" in many[7].closed, many[7].closed)
    wait_until("eight gdbs do not run", lambda: len(gdbs(server)) == 8)
    flood.say(close=True)
    flood.until("the flooding one did not end", lambda: flood.closed)
    wait_until("a gdb goes on that was closed", lambda: len(gdbs(server)) == 7)
    window.socket.close()
    wait_until("gdbs go on without their window", lambda: not gdbs(server))
    again = Gdb(Window(server), 1, focus(200))
    again.see(r"\(gdb\) $")


with tempfile.TemporaryDirectory() as d:
    os.environ["TMPDIR"] = d
    for name in "threads-race", "fork-exec":
        shutil.copytree(f"{traces}/{name}", f"{d}/{name}")
        subprocess.run([program, "build", "--skip-rr", f"{d}/{name}"], capture_output=True, check=True)
    with zipfile.ZipFile(d + "/threads-race/own.zip", "w") as archive:
        archive.writestr("programs/threads-race.c", "\n" * 4 + "/* the sources of the trace */\n" * 5)
    os.makedirs(d + "/threads-race/gdbinit/x")
    with open(d + "/threads-race/gdbinit/.gdbinit", "w") as script:
        script.write("source /trace/gdbinit/x/.gdbinit\n")
    with open(d + "/threads-race/gdbinit/x/.gdbinit", "w") as script:
        script.write("define of_trace\necho a command of the trace\\n\nend\nnonsense\n")
    with open(d + "/threads-race/sources.user", "w") as rules:
        rules.write('[{"files": [{"archive": "own.zip", "at": "/"}]}]')
    server = Server(program, d + "/threads-race", env={**os.environ, "PERNOSCO_SECRET": "1"})
    in_step(server, d + "/threads-race")
    confined(server, d)
    bounded(server)
    left = gdbs(server)
    check(len(left) == 1, f"{len(left)} gdbs run")
    check(server.stop() == 0, "the server did not end well")
    wait_until("sources are left behind", lambda: not glob.glob(d + "/pernosco-sources-*"))
    check(not any(os.path.exists(f"/proc/{p}") for p in left), "a gdb outlives the server")
    server = Server(program, d + "/fork-exec")
    other_process(server, d + "/fork-exec")
    Gdb(Window(server), 1, focus(156)).see(r"\(gdb\) $")
    left = gdbs(server)
    server.process.kill()
    server.process.wait()
    wait_until("a gdb outlives a server that was killed", lambda: not any(os.path.exists(f"/proc/{p}") for p in left))
    wait_until("sources are left behind by a server that was killed", lambda: not glob.glob(d + "/pernosco-sources-*"))
    server = Server(program, d + "/fork-exec", env={**os.environ, "PATH": "/nowhere"})
    none = Gdb(Window(server), 1, focus(1))
    none.until("no word of a missing gdb", lambda: none.closed)
    check("there is no gdb" in none.closed, none.closed)
    server.stop()
sys.exit(failures > 0)
