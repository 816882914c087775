#!/bin/sh
# damaged.sh PERNOSCO TRACES - files of a recording that are gone, changed or not finished end a replay with an error that names them.
set -u
program=$1 traces=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

# expect WORDS COMMAND... - the command fails with status 1 and says WORDS (a pattern) in its last line.
expect() {
    words=$1
    shift
    told=$("$@" 2>&1 >/dev/null)
    status=$?
    told=$(printf '%s\n' "$told" | tail -n 1)
    case $status:$told in
    1:pernosco:\ $words) ;;
    *)
        echo "wanted: $words; got $status: $told"
        failed=1
        ;;
    esac
}

fresh() {
    rm -rf "$dir/t"
    cp -r "$traces/hello-dynamic-n" "$dir/t"
    chmod -R u+w "$dir/t"
    libc=$(ls "$dir/t"/mmap_*libc.so.6)
}

fresh
printf x >>"$libc"
expect "*libc.so.6: has * bytes, had * when it was recorded" "$program" rr "$dir/t" replay -a
fresh
rm "$libc"
expect "*cannot open mapped file*libc.so.6*" "$program" rr "$dir/t" replay -a
# Other contents of the same size: the program takes another way, or faults.
fresh
size=$(stat -c %s "$libc")
head -c "$size" /dev/zero | tr '\0' '\220' >"$libc"
expect "replay diverged at event *" "$program" rr "$dir/t" replay -a
fresh
size=$(stat -c %s "$dir/t/data")
head -c $((size / 2)) "$traces/hello-dynamic-n/data" >"$dir/t/data"
expect "*data*" "$program" rr "$dir/t" replay -a
fresh
mv "$dir/t/version" "$dir/t/incomplete"
expect "*the recording did not finish: the trace is incomplete" "$program" rr "$dir/t" replay -a
# No room for the database: the limit of a file's size is the nearest to a full disk that needs no privileges.
fresh
limited() {
    trap '' XFSZ
    ulimit -f 8
    "$program" only-build "$dir/t"
}
expect "*File too large*" limited
[ -z "$(find "$dir/t" -name '*.db')" ] || failed=1
exit $failed
