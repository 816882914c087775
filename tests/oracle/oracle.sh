#!/bin/sh
# oracle.sh ORACLE TRACES NAME - runs the oracle on a copy of a shipped recording.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$2/$3" "$work/trace"
"$1" "$work/trace"
