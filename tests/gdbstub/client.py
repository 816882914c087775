#!/usr/bin/env python3
"""client.py PERNOSCO TRACE - speaks the gdb remote protocol to `pernosco gdb --listen` and compares what it tells with the queries' answers
at the same moments, which the oracles have proved. Then sends nonsense. Prints each failure; status 1 if any."""
import json
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile

program, trace = sys.argv[1:]
failures = 0
# As in gdb's own target descriptions: 24 general registers, of which 17 have 8 bytes.
ORDER = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{i}" for i in range(8, 16)), "rip"]


def check(ok, what):
    global failures
    if not ok:
        print("FAIL:", what)
        failures += 1


class Stub:
    def __init__(self, *args):
        self.process = subprocess.Popen([program, "gdb", "--listen", "0", *args, work], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        port = re.search(r":(\d+)'", line)
        if not port:
            raise SystemExit(f"FAIL: no port: {line}{self.process.stderr.read()}")
        self.port = int(port[1])
        self.connect()

    def connect(self):
        self.socket = socket.create_connection(("127.0.0.1", self.port))
        self.socket.settimeout(60)
        self.have = b""
        assert self.ask("QStartNoAckMode") == "OK"
        self.socket.sendall(b"+")
        assert "ReverseContinue+" in self.ask("qSupported:swbreak+;hwbreak+;exec-events+")

    def send(self, text):
        data = text.encode("latin-1")
        self.socket.sendall(b"$" + data + b"#%02x" % (sum(data) % 256))

    def receive(self):
        while True:
            found = re.search(rb"\$((?:[^#])*)#(..)", self.have, re.S)
            if found:
                self.have = self.have[found.end():]
                assert int(found[2], 16) == sum(found[1]) % 256, "wrong sum"
                return re.sub(rb"\}(.)", lambda m: bytes([m[1][0] ^ 0x20]), found[1], flags=re.S).decode("latin-1")
            more = self.socket.recv(65536)
            if not more:
                raise EOFError
            self.have += more

    def ask(self, text):
        self.send(text)
        return self.receive()

    def run(self, text):
        """A run's stop, without what it said meanwhile."""
        answer = self.ask(text)
        while answer.startswith("O"):
            answer = self.receive()
        return answer

    def monitor(self, text):
        said, answer = "", self.ask("qRcmd," + text.encode().hex())
        while answer != "OK":
            assert answer[0] == "O", answer
            said += bytes.fromhex(answer[1:]).decode()
            answer = self.receive()
        return said

    def when(self):
        text = self.monitor("when")
        event, instr, tid = re.match(r"(\d+)\+(\d+), task (\d+)", text).groups()
        return {"event": int(event), "instr": int(instr)}, int(tid)

    def close(self):
        self.process.terminate()
        self.process.wait()


def query(name, **params):
    out = subprocess.run([program, "query", work, name, json.dumps(params)], capture_output=True, text=True)
    return [json.loads(line) for line in out.stdout.splitlines()]


def key(m):
    return m["event"], m["instr"]


def compare_state(stub, focus):
    known = {row["name"]: row["value"] for row in query("registers", focus=focus)}
    packet = stub.ask("g")
    for i, name in enumerate(ORDER):
        value = int.from_bytes(bytes.fromhex(packet[16 * i:16 * i + 16]), "little")
        check(value == int(known[name], 16), f"{name} at {focus}: {value:#x}, query {known[name]}")
        check(stub.ask(f"p{i:x}") == packet[16 * i:16 * i + 16], f"p of {name}")
    rest = {row["name"]: row["value"] for row in query("registers", focus=focus, all=True)}
    for number, name, digits in ((0x39, "orig_rax", 16), (0x3a, "fs_base", 16), (0x3b, "gs_base", 16), (0x38, "mxcsr", 8), (0x12, "cs", 8)):
        check(stub.ask(f"p{number:x}") == int(rest[name], 16).to_bytes(8, "little").hex()[:digits], f"{name} at {focus}")
    check(stub.ask("p28") == rest["xmm0"] and stub.ask("p3c") == rest["ymm0"][32:], f"vectors at {focus}")
    rsp = int(known["rsp"], 16)
    memory = query("memory", focus=focus, address=known["rsp"], length=64)[0]["bytes"]
    check(stub.ask(f"m{rsp:x},40") == memory, f"memory at {focus}")


def focus_of(stub):
    moment, tid = stub.when()
    serials = [t["task"]["serial"] for t in tasks if t["task"]["tid"] == tid]
    return {"moment": moment, "task": {"serial": serials[0]}}


with tempfile.TemporaryDirectory() as directory:
    work = directory + "/t"
    shutil.copytree(trace, work)
    subprocess.run([program, "build", "--skip-rr", work], capture_output=True, check=True)
    tasks = query("task-tree")
    info = query("info")[0]
    stub = Stub()
    random.seed(1)

    # It begins where the page does, and the state there is the queries'.
    check(key(stub.when()[0]) == key(info["firstFocus"]["moment"]), "first moment")
    compare_state(stub, info["firstFocus"])
    threads = re.findall(r"[0-9a-f]+", stub.ask("qfThreadInfo")[1:])
    check(f"{info['firstFocus']['task']['tid']:x}" in threads, f"threads {threads}")

    # Back by single instructions and forth again: the same places.
    places = []
    for _ in range(30):
        places.append(key(stub.when()[0]))
        check(stub.run("bs").startswith("T05"), "bs")
    compare_state(stub, focus_of(stub))
    for place in reversed(places[1:]):
        stub.run("vCont;s")
        check(key(stub.when()[0]) == place, f"step forward to {place}: {stub.when()}")

    # Breakpoints both ways: executions of an address, of this process.
    process = {t["task"]["serial"] for t in tasks if t["task"]["serial"] == 1 or (t["kind"] == "thread" and t["parent"]["serial"] == 1)}
    for _ in range(4):
        stub.run("bs")
    pc = int.from_bytes(bytes.fromhex(stub.ask("p10")), "little")
    here = stub.when()[0]
    for packet, direction in (("bc", "backward"), ("vCont;c", "forward")):
        stub.ask(f"Z0,{pc:x},1")
        origin = {"event": here["event"], "instr": here["instr"] + (direction == "forward")}
        want = [key(r["focus"]["moment"]) for r in query("address-execution", start=hex(pc), end=hex(pc + 1), direction=direction, limit=1000,
                                                        **{"from": origin}) if r["task"]["serial"] in process]
        for place in want[:5]:
            if direction == "forward":
                stub.ask(f"z0,{pc:x},1")
                stub.run("vCont;s")  # as gdb does, off the breakpoint
                stub.ask(f"Z0,{pc:x},1")
                if key(stub.when()[0]) == place:
                    continue
            answer = stub.run(packet)
            check("swbreak" in answer and key(stub.when()[0]) == place, f"{direction} to {place}: {answer}, {stub.when()}")
        stub.ask(f"z0,{pc:x},1")
        stub.ask("vRun;;" + f"{here['event']}+{here['instr']}".encode().hex())
        stub.run("vCont;c")  # which a start makes end at once
        check(key(stub.when()[0]) == key(here), f"run {here}: {stub.when()}")

    # Under a condition, which is evaluated here: those executions of which it holds; without one again all.
    values = [int(r["prints"][0]["value"]["text"]) for r in
              query("address-execution", start=hex(pc), end=hex(pc + 1), limit=1000, print=["$rax"], **{"from": info["start"]})
              if r["task"]["serial"] in process]
    number = values[len(values) // 2]
    for packet, direction in (("bc", "backward"), ("vCont;c", "forward")):
        here = stub.when()[0]
        want = [key(r["focus"]["moment"]) for r in query("address-execution", start=hex(pc), end=hex(pc + 1), direction=direction, limit=1000,
                                                        condition=f"$rax == {number}", **{"from": here}) if r["task"]["serial"] in process]
        condition = f"26000025{number % 2**64:016x}1327"
        stub.ask(f"Z0,{pc:x},1;X{len(condition) // 2:x},{condition}")
        for place in want[:3]:
            answer = stub.run(packet)
            if "swbreak" not in answer:  # a signal comes first
                answer = stub.run(packet)
            check("swbreak" in answer and key(stub.when()[0]) == place, f"{direction} to {place} with rax {number}: {answer}, {stub.when()}")
            if direction == "forward":
                stub.ask(f"z0,{pc:x},1")
                stub.run("vCont;s")
                stub.ask(f"Z0,{pc:x},1;X{len(condition) // 2:x},{condition}")
        stub.ask(f"z0,{pc:x},1")

    # Writes to a word of the stack.
    rsp = int.from_bytes(bytes.fromhex(stub.ask("p7")), "little")
    focus = focus_of(stub)
    rows = query("watchpoint", address=hex(rsp), length=8, focus=focus, direction="backward", **{"from": focus["moment"]}, limit=4)
    stub.ask(f"Z2,{rsp:x},8")
    for row in rows[:3]:
        if key(row["focus"]["moment"]) < key(tasks[0]["start"]):
            break
        answer = stub.run("bc")
        if "watch:" not in answer:  # a signal comes first
            answer = stub.run("bc")
        check(f"watch:{rsp:x};" in answer and key(stub.when()[0]) == key(row["focus"]["moment"]), f"written at {row['focus']}: {answer} {stub.when()}")
    stub.ask(f"z2,{rsp:x},8")

    # What was written before the process began, by the exec, is no place to go to.
    stub.ask(f"Z2,{rsp:x},8")
    for _ in range(200):
        answer = stub.run("bc")
        if "replaylog" in answer:
            break
    stub.ask(f"z2,{rsp:x},8")
    check("replaylog:begin" in answer and key(stub.when()[0]) == key(tasks[0]["start"]), f"the beginning, with a watchpoint: {answer}")
    stub.ask("vRun;;" + f"{here['event']}+{here['instr']}".encode().hex())
    stub.run("vCont;c")

    # The two ends of history; in between only signals stop.
    for packet, end in (("bc", "begin"), ("vCont;c", "end")):
        for _ in range(200):
            answer = stub.run(packet)
            if "replaylog" in answer:
                break
            check(re.match(r"T(?!05)[0-9a-f]{2}", answer), f"nothing but a signal: {packet} {answer} {stub.when()}")
        check(f"replaylog:{end}" in answer, f"{packet}: {answer}")

    # What is changed is seen until time goes on, and then it is gone.
    stub.run("bs")
    focus = focus_of(stub)
    before, pc = stub.ask("g"), stub.ask("p10")
    rsp = int.from_bytes(bytes.fromhex(stub.ask("p7")), "little")
    stack = stub.ask(f"m{rsp:x},10")
    other = "".join("0123456789abcdef"[15 - int(c, 16)] for c in stack)
    check(stub.ask("P10=" + pc) == "OK", "P of what is there already")
    check(stub.ask(f"M{rsp:x},10:{other}") == "OK" and stub.ask(f"m{rsp:x},10") == other, "M")
    check(stub.ask(f"X{rsp:x},4:abcd") == "OK" and stub.ask(f"m{rsp:x},10") == "61626364" + other[8:], "X")
    for text in ("P0=efcdab8967452301", "P18=00112233445566778899", "P28=00112233445566778899aabbccddeeff", "P3c=00112233445566778899aabbccddeeff"):
        number, value = text[1:].split("=")
        check(stub.ask(text) == "OK" and stub.ask("p" + number) == value, text)
    check(stub.ask("p0") == "efcdab8967452301", "all of them together")
    check(key(stub.when()[0]) == key(focus["moment"]), "no time has passed")
    check(stub.ask("G" + before) == "OK" and stub.ask("g") == before, "G")
    stub.ask("P0=efcdab8967452301")
    # A breakpoint where it stands is hit at once, and what it runs into otherwise is a signal: nothing is mapped at 8.
    stub.ask("P10=0800000000000000")
    stub.ask("Z0,8,1")
    check(re.match("T05.*swbreak:", stub.run("vCont;c")), "a breakpoint")
    stub.ask("z0,8,1")
    check(stub.run("vCont;c").startswith("T0b"), "a call to nowhere")
    check(stub.ask("P12=ffffffff").startswith("E.") and stub.ask("Pfff=00").startswith("E.") and stub.ask("P0=12").startswith("E."), "bad registers")
    check(stub.ask("M8,1:00").startswith("E.") and stub.ask(f"M{rsp:x},2:00").startswith("E"), "bad memory")
    check(stub.ask("X8,0:") == "OK", "nothing")
    stub.run("bs")
    stub.run("vCont;s")
    check(key(stub.when()[0]) == key(focus["moment"]) and stub.ask("g") == before and stub.ask(f"m{rsp:x},10") == stack, "changes are gone")
    compare_state(stub, focus)
    check(stub.ask(f"M{rsp:x},10:{other}") == "OK", "M")
    stub.run("vCont;c")
    stub.run("bc")
    stub.ask("vRun;;" + f"{focus['moment']['event']}+{focus['moment']['instr']}".encode().hex())
    stub.run("vCont;c")
    check(stub.ask(f"m{rsp:x},10") == stack, "memory that was changed, after a run")

    # What is not known is empty.
    check(stub.ask("m1,8").startswith("E"), "memory that is not mapped")
    check(stub.ask("qFrob") == "", "an unknown packet")
    xml = stub.ask("qXfer:features:read:target.xml:0,3000")
    check(xml[0] == "l" and "</target>" in xml, "target description")
    auxv = stub.ask("qXfer:auxv:read::0,1000").encode("latin-1")[1:]
    pairs = dict((int.from_bytes(auxv[i:i + 8], "little"), int.from_bytes(auxv[i + 8:i + 16], "little")) for i in range(0, len(auxv), 16))
    check(pairs.get(6) == 4096 and 9 in pairs, f"auxiliary vector {pairs}")  # AT_PAGESZ, AT_ENTRY

    # The executable comes as a file, and no other file of this machine does.
    exe = stub.ask("qXfer:exec-file:read::0,1000")[1:]
    number = stub.ask("vFile:open:" + exe.encode().hex() + ",0,0")
    check(re.match(r"F[0-9a-f]+$", number), f"open {exe}: {number}")
    check(";\x7fELF" in stub.ask(f"vFile:pread:{number[1:]},4,0"), "pread")
    check(stub.ask(f"vFile:close:{number[1:]}") == "F0", "close")
    for name in ("/etc/passwd", work + "/events", "/" + "../" * 9 + "etc/passwd", ""):
        check(stub.ask("vFile:open:" + name.encode().hex() + ",0,0") == "F-1,2", f"open {name}")

    # Nonsense: an answer or the end of the connection, and another connection works.
    starts = ["m", "g", "p", "Z0,", "Z2,", "z0,", "vCont;", "vRun;", "vFile:pread:", "vFile:open:", "vFile:fstat:", "qXfer:features:read:", "qRcmd,",
              "H", "T", "QPassSignals:", "vKill;", "qThreadExtraInfo,", "?", "!", "X", "vFile:", "Z4,", "P", "G", "M",
              "qGetTLSAddr:", "qSymbol:"]
    for _ in range(400):
        text = random.choice(starts) + "".join(random.choice("0123456789abcdef,;:-+=zZ\x01\xff") for _ in range(random.randrange(12)))
        try:
            answer = stub.ask(text)
        except (EOFError, ConnectionError):
            stub.connect()
    stub.socket.close()
    stub.connect()
    check(stub.ask("g")[0] != "E", "after nonsense")
    stub.close()

sys.exit(failures > 0)
