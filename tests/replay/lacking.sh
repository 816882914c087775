#!/bin/sh
# lacking.sh PERNOSCO TRACES - a recording that uses what the CPU lacks ends there and says so; one that does not is replayed.
# Exit 77 (skipped) where the CPU lacks it really.
set -u
program=$1 traces=$2
if ! grep -q avx512bw /proc/cpuinfo; then
    echo "this CPU has no AVX-512"
    exit 77
fi
for feature in AVX512BW avx512vl; do
    told=$("$program" rr "$traces/strings-avx" replay -a --without "$feature" 2>&1 >/dev/null) && exit 1
    case $told in
    *"not supported: event "*", task "*": \`v"*"needs AVX512"*", which the recording's CPU had and this one lacks") ;;
    *)
        echo "without $feature: $told"
        exit 1
        ;;
    esac
done
for name in strings-avx hello-static; do
    "$program" rr "$traces/$name" replay -a --without SSE4A --without XOP >/dev/null || exit 1
done
"$program" rr "$traces/hello-static" replay -a --without AVX512F --without AVX512VL >/dev/null || exit 1
told=$("$program" rr "$traces/hello-static" replay -a --without AVX513 2>&1) && exit 1
[ "$told" = "pernosco: no CPU feature is called AVX513" ]
