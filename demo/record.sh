#!/bin/sh
# record.sh - builds postbox from the sources beside it, records its crash with rr, and writes recording.tar.zst and
# recording.stdout here. Debian 12 with gcc, rr and zstd. On a machine without a PMU, SOFTPMU names the directory of a
# wrapper `rr-softpmu` which counts branches in software.
#
# DIR (/demo) is where the program is built and run, so that no path of this machine gets into the recording: source
# paths in the debug information begin with /demo, whatever DIR is.
# GLIBC_TUNABLES keeps the C library from choosing AVX-512 string functions, LD_BIND_NOW from the lazy binding which
# saves AVX-512 state: the recording replays on any CPU with AVX2.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=${DIR:-/demo}
rr=rr
[ -z "${SOFTPMU:-}" ] || rr=$SOFTPMU/rr-softpmu

mkdir -p "$dir"
trace=$(mktemp -d)/postbox
cp "$here"/*.c "$here"/*.h "$dir"
cd "$dir"
gcc -std=gnu17 -gdwarf-5 -O0 -Wall -Wextra -fdebug-prefix-map="$dir"=/demo -pthread -o postbox ./*.c

hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-AVX512CD,-AVX512ER,-AVX512PF
status=0
env -i PATH=/usr/bin:/bin HOME=/ LANG=C LD_BIND_NOW=1 GLIBC_TUNABLES=glibc.cpu.hwcaps=$hwcaps \
    "$rr" record -o "$trace" ./postbox >"$here/recording.stdout" || status=$?
[ $status = 139 ] || { echo "record.sh: postbox ended with $status, not with the crash" >&2; exit 1; }
rr pack "$trace"
tar -C "$(dirname "$trace")" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf - postbox |
    zstd -19 --long=27 -f -o "$here/recording.tar.zst"
rm -r "$(dirname "$trace")"
