#!/bin/sh
# lacking.sh PERNOSCO TRACES - a recording that uses what the CPU lacks ends there and says so; one that does not is replayed, and
# so is one with AVX-512, which is emulated.
set -u
program=$1 traces=$2
for feature in BMI1 bmi2; do
    told=$("$program" rr "$traces/strings-avx" replay -a --without "$feature" 2>&1 >/dev/null) && exit 1
    case $told in
    *"not supported: event "*", task "*": \`b"*"needs BMI"*", which the recording's CPU had and this one lacks") ;;
    *)
        echo "without $feature: $told"
        exit 1
        ;;
    esac
done
out=$(mktemp)
trap 'rm -f "$out"' EXIT
for feature in AVX512F AVX512BW avx512vl; do
    for name in strings-avx avx512; do
        "$program" rr "$traces/$name" replay -a --without "$feature" >"$out" || exit 1
        cmp "$out" "$traces/$name.stdout" || exit 1
    done
done
for name in strings-avx hello-static; do
    "$program" rr "$traces/$name" replay -a --without SSE4A --without XOP >/dev/null || exit 1
done
"$program" rr "$traces/hello-static" replay -a --without AVX512F --without AVX512VL >/dev/null || exit 1
told=$("$program" rr "$traces/hello-static" replay -a --without AVX513 2>&1) && exit 1
[ "$told" = "pernosco: no CPU feature is called AVX513" ]
