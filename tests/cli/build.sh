#!/bin/sh
# build.sh PERNOSCO TRACES - what options of a build do, databases in the making, full disks, killed workers, too little memory.
program=$1
traces=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0

fail()
{
    echo "FAIL: $*"
    bad=1
}

# A higher level takes more time and makes less of it.
cp -r "$traces/sort-o2" "$work/t"
bytes=1000000000
for level in 1 7 19; do
    "$program" only-build --segment 100000 --compression-level $level "$work/t" >/dev/null || fail "level $level: no database"
    now=$(cat "$work"/t/db/* | wc -c)
    [ "$now" -lt "$bytes" ] || fail "level $level: $now bytes, the lower level $bytes"
    bytes=$now
done

# What rr's log would be for: each event, or each segment.
"$program" only-build --builder-rr-log all:warn,ReplaySession:debug "$work/t" >/dev/null || fail 'no database with a log'
grep -q 'debug index: event [0-9]* SYSCALL execve exit, task 1, ticks [0-9]*, rip 0x[0-9a-f]*, ' "$work/t/rr.log" || fail "log: $(head -3 "$work/t/rr.log")"
[ "$(grep -c ' event [0-9]* [A-Z]' "$work/t/rr.log")" -eq "$("$program" rr "$work/t" dump | grep -c ' global_time:')" ] || fail 'not each event is in the log'
rm "$work/t/rr.log"
"$program" only-build --segment 10000 --builder-rr-log all:info "$work/t" >/dev/null || fail 'no database with a short log'
grep -q 'info index: segment 1 ends with event' "$work/t/rr.log" || fail "short log: $(head -3 "$work/t/rr.log")"
grep -q ' event [0-9]* [A-Z]' "$work/t/rr.log" && fail 'events in a short log'
rm "$work/t/rr.log"

# Files are the same for any number of shards.
for shards in 1 2 5; do
    "$program" only-build -s --segment 50000 --shards $shards "$work/t" >"$work/said" || fail "$shards shards: no database"
    grep -q '"replay": [0-9.]*[1-9]' "$work/said" || fail "$shards shards: no time of the replay: $(cat "$work/said")"
    [ $shards = 1 ] && cp -r "$work/t/db" "$work/alone"
    diff -r "$work/alone" "$work/t/db" || fail "$shards shards: another database than with one"
done

# A bound on memory makes a build slower, and nothing else of it.
"$program" query "$work/t" stack >"$work/right"
"$program" only-build --segment 100000 --shards 3 --memory 1 "$work/t" >/dev/null || fail 'no database with --memory 1'
"$program" query "$work/t" stack | cmp -s - "$work/right" || fail 'another answer after --memory 1'

# What is finished of a database in the making can be asked.
rm -rf "$work/t/db"
cp -r "$traces/threads-mutex" "$work/u"
"$program" only-build --segment 20000 "$work/u" >/dev/null || fail 'no database'
"$program" query "$work/u" events '{"limit": 10}' >"$work/right"
mv "$work/u/db" "$work/u/db.new"
rm "$work/u/db.new/meta" "$work/u/db.new/000005"
"$program" query "$work/u" events '{"limit": 10, "direction": "forward", "from": {"event": 0, "instr": 0}}' >"$work/part" ||
    fail 'a database in the making cannot be asked'
[ "$(wc -l <"$work/part")" -eq 10 ] || fail "of a database in the making: $(cat "$work/part")"
"$program" query "$work/u" info | grep -q '"segments":5,' || fail 'not five segments'
# The next build goes on from there.
"$program" only-build -s --segment 20000 --shards 1 --check-trace "$work/u" >"$work/said" || fail 'cannot go on'
grep -q '"resumed": 4,' "$work/said" || fail "did not go on from the fifth segment: $(cat "$work/said")"
"$program" query "$work/u" events '{"limit": 10}' | cmp -s - "$work/right" || fail 'another answer from a build that went on'

# A full disk: an error, the old database stays, nothing else does. With room again, all is well.
if unshare -rm true 2>/dev/null; then
    unshare -rm sh -s "$program" "$work/t" "$work/disk" <<'END' || bad=1
mkdir "$3"
mount -t tmpfs -o size=100m none "$3" && cp -r "$2" "$3/t" || exit 1
rm -rf "$3/t/db"
"$1" only-build --segment 1000000 "$3/t" >/dev/null || exit 1
"$1" query "$3/t" stack >"$3/right"
for room in 0 4 16; do
    head -c 100m /dev/zero >"$3/full" 2>/dev/null
    # A file's end is given back, in KiB.
    truncate -s -$((room * 1024)) "$3/full"
    for shards in 1 3; do
        if "$1" only-build --segment 100000 --shards $shards "$3/t" >/dev/null 2>"$3.said"; then
            echo "FAIL: built on a full disk, $room KiB of room"
            exit 1
        fi
        grep -q 'No space left' "$3.said" || { echo "FAIL: on a full disk: $(cat "$3.said")"; exit 1; }
        [ "$(cd "$3/t" && echo db*)" = db ] || { echo "FAIL: left on a full disk: $(cd "$3/t" && echo db*)"; exit 1; }
    done
done
"$1" query "$3/t" stack | cmp - "$3/right" || exit 1
rm "$3/full"
"$1" only-build --check-trace --segment 100000 "$3/t" >/dev/null || exit 1
"$1" query "$3/t" stack | cmp - "$3/right"
END
else
    echo "no disk can be made full here: unshare -rm"
fi

# A worker that is killed ends the build; the old database stays, and the next build works.
cp -r "$traces/threads-race" "$work/v"
"$program" only-build --segment 100000 "$work/v" >/dev/null || fail 'no database'
"$program" query "$work/v" stack >"$work/right"
for shards in 1 2; do
    # A worker may end by itself before it is killed.
    killed=
    for try in 1 2 3 4 5 6 7 8; do
        "$program" only-build --segment 10000 --shards $shards --check-trace "$work/v" >/dev/null 2>"$work/said" &
        build=$!
        victim=
        while [ -z "$victim" ] && kill -0 $build 2>/dev/null; do
            victim=$(pgrep -n -x -P $build pernosco-worker)
        done
        [ -n "$victim" ] && kill -KILL "$victim" 2>/dev/null && killed=yes
        wait $build
        status=$?
        [ -n "$killed" ] && break
        "$program" only-build --segment 100000 "$work/v" >/dev/null || fail 'cannot build again'
    done
    [ -n "$killed" ] || fail 'no worker could be killed'
    [ "$status" != 0 ] || fail 'built although a worker was killed'
    grep -q '^pernosco: .*worker died' "$work/said" || fail "$shards shards: of a killed worker: $(cat "$work/said")"
    "$program" query "$work/v" stack | cmp -s - "$work/right" || fail "$shards shards: the old database is not what it was"
done
"$program" only-build --segment 100000 --check-trace "$work/v" >/dev/null || fail 'cannot build after a worker was killed'
"$program" query "$work/v" stack | cmp -s - "$work/right" || fail 'another answer after a worker was killed'

# So does a lack of memory, wherever it comes up: a worker cannot be made, has no room for translations, or not for the recorded program.
for kib in 1000000 67150000 67200000; do
    (ulimit -v $kib && exec "$program" only-build --segment 100000 "$work/v" >/dev/null 2>"$work/said") && continue
    grep -Eq '^pernosco: .*(worker died: (its memory cannot be mapped|cannot map)|Cannot allocate memory)' "$work/said" ||
        fail "with $kib KiB: $(cat "$work/said")"
    "$program" query "$work/v" stack | cmp -s - "$work/right" || fail "with $kib KiB: the old database is not what it was"
done
exit $bad
