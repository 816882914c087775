"""gdb on `rr replay`: what a user would do without us."""
import random
import re
import subprocess
import tempfile
import time


def run(rr, trace, program, arguments, timeout, replay_arguments=()):
    """What gdb says and its errors, when it has done what its arguments say at the start of the recording, or where the replay's arguments
    have it begin. subprocess.TimeoutExpired after `timeout` seconds. (rr replay's own gdb would run the commands before it is connected.)"""
    deadline = time.monotonic() + timeout
    port = random.randrange(20000, 30000)
    with tempfile.TemporaryFile("w+") as told:
        server = subprocess.Popen([rr, "replay", *replay_arguments, "-s", str(port), trace], stdin=subprocess.DEVNULL, stdout=told, stderr=told)
        try:
            target = None
            while not target:
                told.seek(0)
                said = told.read()
                target = re.search(r"'(target extended-remote [^']*)'", said)
                if not target and server.poll() is not None:
                    raise RuntimeError(f"{rr} replay -s does not serve gdb: {said}")
                if time.monotonic() > deadline:
                    raise subprocess.TimeoutExpired(rr, timeout)
                time.sleep(0.05)
            done = subprocess.run(["gdb", "-nx", "-batch", "-ex", "set confirm off", "-ex", "set pagination off", "-ex", "set sysroot /",
                                   "-ex", target[1], *arguments, "-ex", "kill", program],
                                  capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=max(1, deadline - time.monotonic()))
            return done.stdout, done.stderr
        finally:
            server.terminate()
            server.wait()
