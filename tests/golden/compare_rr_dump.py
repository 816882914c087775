#!/usr/bin/env python3
"""Compares what we say about traces with what the real rr says.

usage: compare_rr_dump.py COMMAND TRACES...

COMMAND is a program that takes the arguments of `pernosco rr` (which may be several words, as "build/src/cli/pernosco rr").
TRACES are trace directories, or directories of them; $PERNOSCO_TRACES is one more. Exit code 77 (skipped) where rr is not installed or there is no trace.
"""
import os
import re
import shutil
import subprocess
import sys

# Ways to ask, each compared over each trace: a command, its options (rr wants them before the trace), and events. rr goes on
# where it stopped for the event before, having read one frame too many; so events here are ascending and apart.
QUESTIONS = [
    ("dump", [], []),
    ("dump", ["-m", "-p", "-e"], []),
    ("dump", ["-b", "-m"], []),
    ("dump", ["-b", "-p", "-e"], []),
    ("dump", ["-r", "-p"], []),
    ("dump", ["-s", "-m"], ["3", "5-9", "end"]),
    ("dump", ["-e", "-t", "1"], []),
    ("ps", [], []),
    ("traceinfo", [], []),
]


def skip(why):
    print("SKIP:", why)
    sys.exit(77)


def run(words, env=None):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    return done.returncode, done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode("utf-8", "replace")


def comparable(command, output):
    """rr needs a performance counter to print the environment, the last thing of traceinfo; without one it stops there.
    Releases after 5.6 may add fields of their own. Of a frame's task events rr shows the first only (it keeps them in a map by
    time); an execve by a thread has three."""
    output = re.sub(r"(  TraceTaskEvent::.*\n)(?:  TraceTaskEvent::.*\n)+", r"\1", output)
    if command == "traceinfo":
        return re.sub(r'  "environ":.*', "", output, flags=re.S)
    return output


def is_trace(path):
    return os.path.isfile(os.path.join(path, "version"))


def find_traces(paths):
    for path in paths:
        if is_trace(path):
            yield path
        elif os.path.isdir(path):
            for name in sorted(os.listdir(path)):
                if is_trace(os.path.join(path, name)):
                    yield os.path.join(path, name)


def first_difference(theirs, ours):
    a, b = theirs.splitlines(), ours.splitlines()
    for i in range(max(len(a), len(b))):
        x = a[i] if i < len(a) else "(nothing)"
        y = b[i] if i < len(b) else "(nothing)"
        if x != y:
            return f"line {i + 1}:\n  rr:   {x[:600]}\n  ours: {y[:600]}"
    return "line ends"


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    command = sys.argv[1].split()
    rr = shutil.which("rr")
    if not rr:
        skip("rr is not installed")
    traces = list(find_traces(sys.argv[2:] + os.environ.get("PERNOSCO_TRACES", "").split()))
    if not traces:
        skip("no traces in " + " ".join(sys.argv[2:]))
    failures = compared = 0
    for trace in traces:
        for verb, options, events in QUESTIONS:
            _, theirs, _ = run([rr, verb] + options + [trace] + events)
            code, ours, error = run(command + [trace, verb] + options + events)
            theirs, ours = comparable(verb, theirs), comparable(verb, ours)
            compared += 1
            if code == 0 and ours == theirs:
                continue
            failures += 1
            print(f"FAIL {trace}: {' '.join([verb] + options + events)}: exit {code} {error.strip()}")
            print(first_difference(theirs, ours))
    print(f"{compared - failures} of {compared} answers about {len(traces)} traces are the same")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
