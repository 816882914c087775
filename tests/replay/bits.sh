#!/bin/sh
# bits.sh PERNOSCO AS_32BIT TRACES - recordings with 32-bit tasks: these are passed over and said to be, all others are as recorded. What cannot
# be exact is refused.
program=$1 as_32bit=$2 traces=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0

fail()
{
    echo "FAIL: $*"
    bad=1
}

for name in mixed-bits mixed-bits-maps mixed-bits-memory mixed-bits-traces; do
    cp -r "$traces/$name" "$work"
    "$as_32bit" "$work/$name" || fail "$name: cannot be made a recording with 32-bit tasks"
done
# The 32-bit tasks write nothing to standard output.
for mode in count index; do
    "$program" rr "$work/mixed-bits" replay -a --mode $mode >"$work/out" 2>"$work/said" || fail "$mode: $(cat "$work/said")"
    cmp "$work/out" "$traces/mixed-bits.stdout" || fail "$mode: another output"
    for what in maps memory traces; do
        told=$("$program" rr "$work/mixed-bits-$what" replay -a --mode $mode 2>&1 >/dev/null) && fail "$mode: $what is not refused"
        case $what:$told in
        maps:*"not supported: event "*", task "*": a 32-bit program can write to memory at 0x20000000 that task "*) ;;
        memory:*"not supported: event "*", task "*": a 32-bit program opens /proc/"*"/mem: what it writes there is not in the recording") ;;
        traces:*"not supported: event "*", task "*": a 32-bit program traces task "*": what it sets there is not in the recording") ;;
        *) fail "$mode: $what: $told" ;;
        esac
    done
done
[ "$(grep -c ' warn replay: event [0-9]*: task [0-9]* executes a 32-bit program, which is not replayed$' "$work/said")" -eq 2 ] ||
    fail "no warning: $(cat "$work/said")"

# From boundaries in the midst of it, too.
"$program" only-build --segment 10000 --shards 2 --check-trace "$work/mixed-bits" >/dev/null 2>"$work/said" || fail "no database: $(cat "$work/said")"
"$program" query "$work/mixed-bits" task-tree >"$work/tree"
[ "$(grep -c '"kind":"[a-z]*","bits":32' "$work/tree")" -eq 5 ] || fail "the task tree: $(cat "$work/tree")"
grep -q '"argv":\["src/mixed-bits","64"\],"bits":64' "$work/tree" || fail "the task tree: $(cat "$work/tree")"
[ "$(grep -c '"argv":\["src/mixed-bits","32[a-z-]*"[^]]*\],"bits":32' "$work/tree")" -eq 2 ] || fail "the task tree: $(cat "$work/tree")"
# What such a task had in registers and memory is not shown.
"$program" query "$work/mixed-bits" events '{"limit": 1000, "from": {"event": 0, "instr": 0}, "direction": "forward"}' >"$work/events"
focus=$(sed -n 's/.*"focus":\({"moment":{[^}]*},"frame":0,"task":{"tid":[0-9]*,"serial":3}}\).*/\1/p' "$work/events" | tail -1)
for query in registers stack complete-frame; do
    told=$("$program" query "$work/mixed-bits" $query "{\"focus\": $focus}" 2>&1) && fail "$query of a 32-bit task: $told"
    case $told in
    *"task "*" executes a 32-bit program here, which is not replayed") ;;
    *) fail "$query of a 32-bit task at $focus: $told" ;;
    esac
done
exit $bad
