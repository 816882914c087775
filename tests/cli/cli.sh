#!/bin/sh
# cli.sh PERNOSCO TRACES - the command line: bad usage, refused things, damaged input. Prints each failure; status 1 if any.
set -u
program=$1 traces=$2
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
bad=0

# expect STATUS PATTERN COMMAND... : the command ends with STATUS and says one line on stderr that matches PATTERN.
expect() {
    want=$1 pattern=$2
    shift 2
    "$@" >"$work/out" 2>"$work/err" </dev/null
    got=$?
    if [ "$got" != "$want" ] || ! grep -Eq -- "$pattern" "$work/err" || [ "$(wc -l <"$work/err")" -gt 1 ]; then
        echo "FAIL: $* : status $got (want $want), stderr:"
        cat "$work/err"
        bad=1
    fi
}

cp -r "$traces/hello-static" "$work/t"
expect 1 'cannot open /none' "$program" build --gdb-script /none "$work/t"
expect 1 'cannot copy sources from /none' "$program" -x --no-pull build --copy-sources /none "$work/t"
expect 2 'no subcommand frob' "$program" frob
expect 1 'Log option not understood: loud' "$program" --log loud build "$work/t"
expect 2 "compression-level '23' is not in range" "$program" build --compression-level 23 "$work/t"
expect 1 'Source path here is not absolute' "$program" serve --sources here "$work/t"
expect 1 "is not a valid port" "$program" serve --tunnel 127.0.0.1:x "$work/t"
expect 1 'No such file' "$program" build "$work/none"
expect 1 'no database; run' "$program" query "$work/t" info
HOME= _RR_TRACE_DIR= expect 2 "Can.t determine default trace dir" "$program" build

"$program" --log "info:$work/log" build "$work/t" >/dev/null 2>&1 || { echo "FAIL: build"; bad=1; }
"$program" build "$work/t" >/dev/null 2>&1 || { echo "FAIL: building again"; bad=1; }
expect 0 '' sh -c "'$program' query '$work/t' info | grep -q instructions; echo ok >&2"
expect 2 'there is no query frob' "$program" query "$work/t" frob
expect 2 'ARGS' "$program" query "$work/t" info '{'
expect 2 'address is missing|want a number' "$program" query "$work/t" memory '{}'

# Damage: one clear line, no crash, nothing left behind.
for file in version events data mmaps tasks; do
    rm -rf "$work/d" && cp -r "$work/t" "$work/d" && rm -rf "$work/d/db"
    size=$(wc -c <"$work/d/$file")
    head -c $((size / 2)) "$work/t/$file" >"$work/d/$file"
    expect 1 "$file|event|block|message|header" "$program" build --skip-rr "$work/d"
    if ls "$work/d" | grep -q '^db'; then
        echo "FAIL: something is left behind after a build of a damaged $file"
        bad=1
    fi
done
# A damaged database: an error that names the file and the place, or the right answer.
"$program" query "$work/t" stack >"$work/right"
for file in plan meta 000000; do
    size=$(wc -c <"$work/t/db/$file")
    for part in 1 3 8 20 35 50 65 80 95 99; do
        rm -rf "$work/d" && cp -r "$work/t" "$work/d"
        printf '\377' | dd of="$work/d/db/$file" bs=1 seek=$((size * part / 100)) conv=notrunc 2>/dev/null
        if "$program" query "$work/d" stack >"$work/out" 2>"$work/err"; then
            cmp -s "$work/out" "$work/right" || { echo "FAIL: a wrong answer from a damaged $file ($part %)"; bad=1; }
        elif [ $? != 1 ] || ! grep -q "$file: " "$work/err"; then
            echo "FAIL: damaged $file ($part %):"
            cat "$work/err"
            bad=1
        fi
    done
done
printf 'no trace' >"$work/file"
expect 1 '[Nn]ot a directory' "$program" build "$work/file"

# Serving: a port that is taken, a storage that cannot be written, a clean end.
"$program" serve --tunnel 127.0.0.1:0 --storage "$work/s" "$work/t" >"$work/serve.out" 2>&1 &
server=$!
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    grep -q launched "$work/serve.out" && break
    sleep 0.1
done
port=$(sed -n 's|.*http://127.0.0.1:\([0-9]*\)/index.html|\1|p' "$work/serve.out")
[ -n "$port" ] || { echo "FAIL: serve printed no address"; cat "$work/serve.out"; bad=1; }
expect 1 "cannot listen on 127.0.0.1:$port" "$program" serve --tunnel "127.0.0.1:$port" "$work/t"
kill -INT $server
wait $server || { echo "FAIL: serve ended with $? on SIGINT"; bad=1; }
expect 1 'storage' "$program" serve --tunnel 127.0.0.1:0 --storage "$work/file/sub" "$work/t"

exit $bad
