#!/bin/sh
# words.sh PERNOSCO TRACES - options, help, exit statuses, closed pipes, full disks, Ctrl-C.
set -u
program=$1 traces=$2
. "$(dirname "$0")/expect.sh"
cp -r "$traces/hello-static" "$work/t"
t=$work/t

# Help is for asking, and knows all.
expect 0 'save-containers' "$program" --help
expect 0 '--container-runtime' "$program" -h
expect 0 '--shards' "$program" build -h
expect 0 '--tunnel' "$program" serve --help
expect 0 'Usage: pernosco query' "$program" query --usage
expect 0 '^pernosco [0-9]' "$program" --version
expect 2 'Usage: pernosco' "$program"

# Bad usage.
expect 2 "unrecognized option '--frob'" "$program" --frob build "$t"
expect 2 "pernosco build: unrecognized option '--frob'" "$program" build --frob "$t"
expect 2 'only one trace' "$program" build "$t" "$t"
expect 2 'only one trace' "$program" serve "$t" "$t"
expect 2 'requires an argument' "$program" serve --storage
expect 2 "shards '0' is not in range" "$program" build --shards 0 "$t"
for level in 0 23 -1 x 3x ''; do
    expect 2 "^--compression-level '$level' is not in range \[1, 22\]" "$program" build --compression-level "$level" "$t"
done
expect 2 'from s3://x: only directories are read' "$program" package-build --system-debuginfo s3://x "$t"
expect 1 "cannot open $work/none" "$program" package-build --gdb-script="$work/none" "$t"
for levels in x all all:loud all:debug,x a:debug,b:; do
    expect 2 "builder-rr-log '$levels'" "$program" build --builder-rr-log "$levels" "$t"
done
expect 2 '^Missing path in a$' "$program" build --substitute a "$t"
expect 2 '^Missing path in a=$' "$program" build --substitute a= "$t"
expect 2 '^The path in a=b is not absolute$' "$program" build --substitute a=b "$t"
expect 1 "cannot copy sources from $work/none: No such file" "$program" package-build --copy-sources "$work/none" "$t"
expect 2 "memory '0' is not in range" "$program" build --memory 0 "$t"
expect 2 "unrecognized option '--shards=2'" "$program" package-build --shards=2 "$t"
expect 2 "unrecognized option '--skip-rr'" "$program" only-build --skip-rr "$t"
expect 2 'query TRACE NAME' "$program" query "$t"
expect 2 'too many arguments' "$program" query "$t" info '{}' x
expect 1 'Log option not understood: debug' "$program" --log debug build "$t"
expect 1 'Log option not understood: :x' "$program" --log :x build "$t"
expect 1 'cannot open log file' "$program" --log "debug:$work/none/log" build "$t"

# What needs containers is accepted. The log goes to its file.
expect 0 'instructions' "$program" -x --no-pull --container-name-suffix s --user u --container-runtime podman --gcloud \
    --log "debug:$work/log" build --skip-gdb-add-index "$t"
[ -f "$work/log" ] || fail 'no log file'

# The trace that is meant.
mkdir "$work/traces"
mv "$t" "$work/traces/t" && ln -s t "$work/traces/latest-trace"
t=$work/traces/t
expect 0 'instructions' env _RR_TRACE_DIR="$work/traces" "$program" build
mkdir -p "$work/home/.local/share/rr" && ln -s "$t" "$work/home/.local/share/rr/latest-trace"
expect 0 'instructions' env -u _RR_TRACE_DIR HOME="$work/home" "$program" only-build
expect 0 '' "$program" package-build "$t"

# A reader that has seen enough is no failure; a full disk is.
{ "$program" query "$t" events '{"limit": 1000}'; echo $? >"$work/status"; } | head -1 >/dev/null
[ "$(cat "$work/status")" = 0 ] || fail "a closed pipe gives $(cat "$work/status")"
if [ -c /dev/full ]; then
    "$program" query "$t" info >/dev/full 2>"$work/err" && fail 'a full disk goes unnoticed'
    grep -q 'cannot write' "$work/err" || fail 'a full disk: no clear line'
fi

# Progress that is not on a terminal is not one overwritten line.
expect 0 'instructions' "$program" build --shards 1 "$t"
grep -q "$(printf '\r')" "$work/said" && fail 'control characters in a log'

# Ctrl-C on the terminal reaches every process; an older database stays, and a build goes on from what is left.
command -v setsid >/dev/null && {
    "$program" query "$t" stack >"$work/right"
    for delay in 0 0.01 0.02 0.05; do
        setsid sh -c 'trap "" INT; "$0" build --shards 3 "$1"; echo $? >"$2"' "$program" "$t" "$work/status" >/dev/null 2>&1 &
        group=$!
        sleep $delay
        kill -INT -- -$group 2>/dev/null
        wait $group
        ls "$t" "$t/db.new" 2>/dev/null | grep -q 'part$' && fail 'half a file is left of an interrupted build'
        "$program" query "$t" stack | cmp -s - "$work/right" || fail 'the database is gone after Ctrl-C'
    done
    expect 0 'instructions' "$program" build "$t"
    "$program" query "$t" stack | cmp -s - "$work/right" || fail 'another answer after a build that was interrupted'
}
exit $bad
