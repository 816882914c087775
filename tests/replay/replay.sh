#!/bin/sh
# replay.sh PERNOSCO TRACES MODE NAME - replays one shipped recording with every check on; its output must be the recorded one.
set -u
program=$1 traces=$2 mode=$3 name=$4
out=$(mktemp)
trap 'rm -f "$out"' EXIT
"$program" rr "$traces/$name" replay -a --mode "$mode" >"$out" || exit 1
cmp "$out" "$traces/$name.stdout"
