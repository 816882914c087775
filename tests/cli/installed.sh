#!/bin/sh
# installed.sh BUILD TRACES - what is installed finds its parts: the bills of materials, and the page if it was built.
set -u
build=$1 traces=$2
. "$(dirname "$0")/expect.sh"
meson install -C "$build" --no-rebuild --destdir "$work/root" >"$work/log" 2>&1 || { fail 'meson install:'; tail -5 "$work/log"; exit 1; }
mv "$work/root/usr/local" "$work/elsewhere" # it does not matter where
program=$work/elsewhere/bin/pernosco
page=$(dirname "$0")/../../web/dist/index.html

[ -s "$work/elsewhere/share/man/man1/pernosco.1" ] || fail 'no manual page'
for word in $("$program" --help | sed -n 's/^  \([a-z-]*\)   *[a-z].*/\1/p'); do
    sed 's/\\//g' "$work/elsewhere/share/man/man1/pernosco.1" | grep -qw -- "$word" || fail "the manual page does not know $word"
done
cp -r "$traces/hello-static" "$work/t"
"$program" build --skip-rr "$work/t" >/dev/null 2>&1 || fail 'build'
"$program" serve --tunnel 127.0.0.1:0 "$work/t" >"$work/served" 2>&1 &
wait_for '^Appserver launched at http://.*/index.html$' "$work/served"
address=$(sed -n 's/^Appserver launched at //p' "$work/served")
if [ -f "$page" ]; then
    curl -fsS --noproxy '*' "$address" | cmp - "$page" || fail 'the page is not served'
fi
exit $bad
