#!/bin/sh
# on-copy.sh PROGRAM TRACES NAME - runs a test's program on a copy of a shipped recording.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$2/$3" "$work/trace"
"$1" "$work/trace"
