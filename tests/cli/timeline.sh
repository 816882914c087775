#!/bin/sh
# timeline.sh PERNOSCO TRACES - the query "timeline": its axis and lanes agree with info, and with each other when zoomed.
set -u
program=$1 traces=$2
. "$(dirname "$0")/expect.sh"
cp -r "$traces/threads-mutex" "$work/t"
"$program" build "$work/t" >/dev/null 2>&1 || fail 'build'
for name in info timeline; do
    "$program" query "$work/t" $name >"$work/$name" || fail "query $name"
done
part='{"columns":7,"from":{"event":40,"instr":0},"to":{"event":90,"instr":3}}'
"$program" query "$work/t" timeline "$part" >"$work/part" || fail 'query a part'
"$program" query "$work/t" timeline '{"columns":1,"from":{"event":0,"instr":0},"to":{"event":0,"instr":0}}' >"$work/empty" ||
    fail 'query an empty part'
python3 - "$work" <<'PYTHON' || fail 'answers do not agree'
import json, sys

info, whole, part, empty = (json.load(open(f"{sys.argv[1]}/{n}")) for n in ("info", "timeline", "part", "empty"))
key = lambda m: (m["event"], m["instr"])
for t, columns in ((whole, 1000), (part, 7)):
    moments = [key(m) for m in t["columns"]]
    assert len(moments) == columns + 1 and moments == sorted(moments)
    assert moments[0] >= key(t["from"]) and moments[-1] == key(t["to"])
    share = [0] * columns
    for lane in t["lanes"]:
        last = 0
        for first, end, percent in lane["runs"]:
            assert last <= first < end <= columns and 1 <= percent <= 100
            last = end
            for c in range(first, end):
                share[c] += percent
    # Each column is full, but for rounding by each task.
    assert all(100 - len(t["lanes"]) <= s <= 100 + len(t["lanes"]) for s in share), share
assert whole["instructions"] == info["instructions"] and key(whole["to"]) == key(info["end"])
assert 0 < part["instructions"] < whole["instructions"]
assert len(whole["segments"]) == info["segments"] and whole["segments"][0] == 0
assert len(whole["lanes"]) == info["tasks"]
assert empty["instructions"] == 0 and empty["lanes"] == []
PYTHON
expect 2 'columns is 1 to 4096' "$program" query "$work/t" timeline '{"columns":0}'
expect 2 'columns is 1 to 4096' "$program" query "$work/t" timeline '{"columns":4097}'
expect 2 'from is behind to' "$program" query "$work/t" timeline '{"from":{"event":9,"instr":1},"to":{"event":9,"instr":0}}'
exit $bad
