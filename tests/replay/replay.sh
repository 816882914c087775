#!/bin/sh
# replay.sh PERNOSCO TRACES MODE NAME - replays one shipped recording with every check on; its output must be the recorded one.
# Exit 77 (skipped) where the CPU lacks what the recording used.
set -u
program=$1 traces=$2 mode=$3 name=$4
if [ "$name" = strings-avx ] && ! grep -q avx512bw /proc/cpuinfo; then
    echo "this CPU has no AVX-512"
    exit 77
fi
out=$(mktemp)
trap 'rm -f "$out"' EXIT
"$program" rr "$traces/$name" replay -a --mode "$mode" >"$out" || exit 1
cmp "$out" "$traces/$name.stdout"
