#!/usr/bin/env python3
"""Compares text dumps of traces with the ones kept here.

usage: check_golden.py [--update] COMMAND MAKE_TRACE RECORDINGS

Every tests/golden/NAME.dump is the output of `COMMAND NAME dump -m -p -e -b`, with TRACE for the trace's directory. "made" is
the trace that MAKE_TRACE makes; the others are looked for in the directory RECORDINGS (or $PERNOSCO_TRACES), and left out
where they are not there.
"""
import difflib
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))


def dump(command, trace):
    done = subprocess.run(command + [trace, "dump", "-m", "-p", "-e", "-b"], stdout=subprocess.PIPE, check=True)
    return done.stdout.decode().replace(os.path.realpath(trace), "TRACE")


def main():
    update = "--update" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--update"]
    if len(arguments) != 3:
        sys.exit(__doc__)
    command, make_trace = arguments[0].split(), arguments[1]
    recordings = os.environ.get("PERNOSCO_TRACES", arguments[2])
    failed = False
    for file in sorted(f for f in os.listdir(HERE) if f.endswith(".dump")):
        name, path = file[:-len(".dump")], os.path.join(HERE, file)
        with tempfile.TemporaryDirectory() as scratch:
            trace = os.path.join(scratch if name == "made" else recordings, name)
            if name == "made":
                subprocess.run([make_trace, trace], check=True)
            elif not os.path.isfile(os.path.join(trace, "version")):
                print(f"{name}: left out, no recording in {recordings}")
                continue
            ours = dump(command, trace)
        if update:
            with open(path, "w") as f:
                f.write(ours)
            continue
        with open(path) as f:
            kept = f.read()
        if ours != kept:
            failed = True
            diff = difflib.unified_diff(kept.splitlines(), ours.splitlines(), file, "now", lineterm="", n=1)
            print("\n".join(line[:300] for line in list(diff)[:40]))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
