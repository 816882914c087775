#!/bin/sh
# sources.sh PERNOSCO TRACES PROGRAMS - a recording made self-contained: its sources are found without anything else.
program=$1
traces=$2
programs=$3
work=$(mktemp -d)
trap 'kill $server 2>/dev/null; rm -rf "$work"' EXIT
bad=0

fail()
{
    echo "FAIL: $*"
    bad=1
}

# Debug information of the tests' recordings names /programs, which is nowhere.
mkdir "$work/programs"
cp "$programs/hello.c" "$work/programs"
cp -r "$traces/hello-static" "$work/t"
file=$work/programs/hello.c
"$program" build --copy-sources "$work/programs" --substitute "hello-static=$work/programs" "$work/t" >"$work/said" || fail 'no database'
grep -q '^Packaging 0 modified and 1 non-repository files\.\.\.$' "$work/said" || fail "packaging: $(cat "$work/said")"
mv "$work/programs" "$work/moved"

# Locations have the new directory, and the file is there.
"$program" query "$work/t" stack '{"focus": {"moment": {"event": 999, "instr": 0}}}' >/dev/null 2>&1
"$program" query "$work/t" search '{"input": "main"}' >"$work/found"
grep -q "\"file\":\"$file\"" "$work/found" || fail "search for main: $(cat "$work/found")"
"$program" query "$work/t" source "{\"file\": \"$file\"}" >"$work/row"
grep -q '"found":true' "$work/row" && grep -q '"relevant":true' "$work/row" || fail "source: $(cat "$work/row")"
"$program" serve --tunnel 127.0.0.1:0 "$work/t" >"$work/served" 2>&1 &
server=$!
for i in $(seq 100); do
    grep -q 'http://' "$work/served" && break
    sleep 0.1
done
address=$(sed -n 's/.*\(http:\/\/[^/]*\)\/.*/\1/p' "$work/served" | head -1)
curl -s "$address/sources$file" >"$work/text"
cmp -s "$work/text" "$programs/hello.c" || fail "served: $(head -c 300 "$work/text"), $(cat "$work/served")"
curl -s "$address/sources/programs/none.c" | grep -q '^no such source: .*not in files.user/sources.zip' || fail 'no reason why there is no source'
kill $server

# Rules that others wrote: on the web, not relevant, out of the trace, damaged.
rules()
{
    echo "$1" >"$work/t/sources.user"
    "$program" query "$work/t" source "{\"file\": \"/programs/hello.c\"}" >"$work/row" 2>"$work/err" || fail "query failed with $1"
    grep -q "$2" "$work/row" || fail "with $1: $(cat "$work/row")"
}
rules '[{"files": [{"url": "https://host/r/", "at": "/programs", "urlSuffix": "?raw"}]}]' '"address":"https://host/r/hello.c?raw"'
rules '[{"files": [{"url": "https://host/r/", "at": "/programs"}]}]' '"why":"this file is on the web'
rules '[{"files": [{"archive": "../moved/x.zip", "at": "/"}]}]' 'archive ../moved/x.zip is not in the trace'
rules '[' 'sources.user: line'
head -c 200 "$work/t/files.user/sources.zip" >"$work/t/files.user/cut.zip"
rules '[{"files": [{"archive": "files.user/cut.zip", "at": "/"}]}]' 'cut.zip: no zip archive'

# What is not relevant comes last.
search()
{
    "$program" query "$work/t" search '{"input": ".c", "maxResults": 200}' | grep '"kind":"file"' | grep -n '"/programs/hello.c"' | head -1 | cut -d: -f1
}
rules '[]' '"found":false'
before=$(search)
rules '[{"relevance": "NotRelevant", "files": [{"url": "https://host/", "at": "/programs"}]}]' '"relevant":false'
after=$(search)
all=$("$program" query "$work/t" search '{"input": ".c", "maxResults": 200}' | grep -c '"kind":"file"')
[ "$after" = "$all" ] && [ "$before" -le "$after" ] || fail "not relevant: place $after of $all (before: $before)"

# A condition on a program, and one that nothing meets.
backing=$(basename "$(ls "$work"/t/mmap_copy_*hello-static)")
rules "[{\"condition\": {\"binary\": \"$backing\"}, \"files\": [{\"url\": \"https://host/\", \"at\": \"/\"}]}]" '"address"'
rules '[{"condition": {"binary": "x"}, "files": [{"url": "https://host/", "at": "/"}]}]' 'no directory was given with --sources'
id=$(file "$work/t/$backing" 2>/dev/null | sed -n 's/.*BuildID\[sha1\]=\([0-9a-f]*\).*/\1/p')
[ -z "$id" ] || rules "[{\"condition\": {\"build_id\": \"$id\"}, \"files\": [{\"url\": \"https://host/\", \"at\": \"/\"}]}]" '"address"'

exit $bad
