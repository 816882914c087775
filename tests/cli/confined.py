#!/usr/bin/env python3
"""confined.py PERNOSCO TRACES PRELOAD - what each subcommand may still do when it ends: PRELOAD (confined.c) tries. Prints each failure;
status 1 if any; 77 (skipped) where the kernel has no Landlock."""
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile

CREATE_RULESET, VERSION = 444, 1
program, traces, preload = sys.argv[1:]
if ctypes.CDLL(None).syscall(CREATE_RULESET, None, 0, VERSION) < 1:
    sys.exit(77)
failures = 0


def check(what, may, command, ends=True):
    global failures
    env = {**os.environ, "LD_PRELOAD": preload, "CONFINED_OUT": d + "/out", "CONFINED_READ": d + "/other/secret",
           "CONFINED_WRITE": d + "/other/new", "CONFINED_TRACE": d + "/t/version"}
    p = subprocess.Popen([program, *command], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if not ends:
        p.stdout.readline()  # that it answers
        p.send_signal(signal.SIGTERM)
    errors = p.communicate()[1]
    with open(d + "/out") as f:
        rights = dict(line.split() for line in f)
    allowed = {right for right, answer in rights.items() if answer == "yes"}
    if p.returncode != 0 or len(rights) != 5 or "failed" in rights.values() or allowed != may:
        print(f"FAIL: {what}: status {p.returncode}, {rights} instead of {may}; {errors}")
        failures += 1
    os.path.exists(d + "/other/new") and os.remove(d + "/other/new")


with tempfile.TemporaryDirectory() as d:
    shutil.copytree(traces + "/hello-static", d + "/t")
    os.mkdir(d + "/other")
    open(d + "/other/secret", "w").close()
    check("--help", {"read", "write", "read-trace", "write-trace", "connect"}, ["--help"])
    check("build", {"read-trace", "write-trace"}, ["build", d + "/t"])
    check("only-build", {"read-trace", "write-trace"}, ["only-build", d + "/t"])
    check("query", {"read-trace"}, ["query", d + "/t", "info"])
    for verb in ["replay", "-a", "-q"], ["dump"], ["ps"], ["traceinfo"]:
        check("rr " + verb[0], {"read-trace"}, ["rr", *verb, d + "/t"])
    serve = ["serve", "--tunnel", "127.0.0.1:0", "--storage", d + "/storage"]
    check("serve", {"read-trace"}, [*serve, d + "/t"], ends=False)
    check("serve --sources", {"read-trace", "read"}, [*serve, "--sources", d + "/other", d + "/t"], ends=False)
sys.exit(failures > 0)
