#!/usr/bin/env python3
"""Packs one trace with the real rr and its twin with our command, and compares what rr then says of them.

usage: compare_rr_pack.py COMMAND MAKE_TRACE

COMMAND takes the arguments of `pernosco rr`; MAKE_TRACE makes the small trace, whose mapped files are added here as hard
links. Exit code 77 (skipped) where rr is not installed.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

FILE_LEN = 0x1800


def make_world(make_trace, where):
    trace = os.path.join(where, "trace")
    subprocess.run([make_trace, trace], check=True)
    for number, content in ((2, b"a"), (3, b"b")):
        outside = os.path.join(where, f"outside{number}")
        with open(outside, "wb") as f:
            f.write(content * FILE_LEN)
        os.link(outside, os.path.join(trace, f"mmap_hardlink_{number}_some.so"))
    return trace


def describe(rr, trace):
    """What rr says of all mappings, without the directory and the numbers of copies; and the files there are."""
    dump = subprocess.run([rr, "dump", "-p", trace], stdout=subprocess.PIPE, check=True).stdout.decode()
    dump = dump.replace(os.path.realpath(trace), "TRACE")
    number = r"mmap_pack_\d+_"
    names = sorted(re.sub(number, "mmap_pack_N_", name) for name in os.listdir(trace))
    assert not any(os.stat(os.path.join(trace, name)).st_nlink > 1 for name in os.listdir(trace)), "a link is left"
    return re.sub(number, "mmap_pack_N_", dump), names


def main():
    command, make_trace = sys.argv[1].split(), sys.argv[2]
    rr = shutil.which("rr")
    if not rr:
        print("SKIP: rr is not installed")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
        theirs, ours = make_world(make_trace, a), make_world(make_trace, b)
        subprocess.run([rr, "pack", theirs], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        subprocess.run(command + [ours, "pack"], stderr=subprocess.DEVNULL, check=True)
        their_dump, their_names = describe(rr, theirs)
        our_dump, our_names = describe(rr, ours)
        assert their_names == our_names, f"files:\n  rr:   {their_names}\n  ours: {our_names}"
        assert their_dump == our_dump, "rr dump -p differs"
        again = subprocess.run([rr, "pack", ours], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert again.returncode == 0, "rr pack refuses our packed trace"
    print("packed alike")


if __name__ == "__main__":
    main()
