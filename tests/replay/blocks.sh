#!/bin/sh
# blocks.sh PERNOSCO TRACES - translated blocks as text: each has its instructions, those of the host are decodable, and nothing else changes.
program=$1 traces=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for mode in count index; do
    for name in tiny-ticks signals fork-exec; do
        "$program" rr "$traces/$name" replay -a --mode $mode --dump-blocks "$work/blocks" >"$work/out" || exit 1
        cmp "$work/out" "$traces/$name.stdout" || exit 1
        # Headers say how many instructions follow, and host code is told without gaps.
        awk -v mode=$mode '
            /^block / {
                if ($6 != mode ":" && $6 != mode ",") { print "mode: " $0; bad = 1 }
                for (i = 1; $i != "instructions,"; i++);
                wanted += $(i - 1)
                blocks++
            }
            /^  0x/ { found++ }
            / \| 0x.*\(bad\)/ { print; bad = 1 }
            END { if (!blocks || wanted != found) { print blocks " blocks, " wanted " instructions, " found " lines"; bad = 1 }; exit bad }
        ' "$work/blocks" || { echo "$mode $name"; exit 1; }
    done
done
"$program" rr "$traces/tiny-ticks" replay -a --dump-blocks "$work/blocks" >/dev/null || exit 1
grep -Eq '^  0x40100a dec ecx +\| 0x[0-9a-f]+ dec ecx$' "$work/blocks" || exit 1
grep -Eq '^  0x401005 mov ecx, 0x3e8 +\| 0x[0-9a-f]+ mov ecx, 0x3e8$' "$work/blocks" || exit 1
! "$program" rr "$traces/tiny-ticks" replay -a --dump-blocks "$work/none/blocks" 2>/dev/null
