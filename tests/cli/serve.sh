#!/bin/sh
# serve.sh PERNOSCO TRACES - starting and ending the server on a real database: addresses, ports, storage, signals.
set -u
program=$1 traces=$2
. "$(dirname "$0")/expect.sh"
cp -r "$traces/hello-static" "$work/t"
expect 1 'no database; run' "$program" serve --tunnel 127.0.0.1:0 --storage "$work/storage" "$work/t"
[ -e "$work/storage/pernosco.sqlite" ] && fail 'a server that did not start left its storage'
"$program" build "$work/t" >/dev/null 2>&1 || fail 'build'

# begin OPTION... : serves in the background; $server, $address.
begin() {
    : >"$work/served"
    "$program" serve "$@" "$work/t" >"$work/served" 2>"$work/errors" &
    server=$!
    wait_for '^Appserver launched at http://.*/index.html$' "$work/served"
    address=$(sed -n 's|^Appserver launched at http://\(.*\)/index.html$|\1|p' "$work/served")
}

# finish SIGNAL
finish() {
    kill "-$1" $server
    wait $server || fail "ended with $? on SIG$1"
    [ -s "$work/errors" ] && { fail 'the server complained:'; cat "$work/errors"; }
}

begin --tunnel 127.0.0.1:0
case $address in 127.0.0.1:*) ;; *) fail "address $address" ;; esac
port=${address#*:}
expect 1 "cannot listen on 127.0.0.1:$port: Address already in use" "$program" serve --tunnel "127.0.0.1:$port" \
    --storage "$work/storage" "$work/t"
[ -e "$work/storage/pernosco.sqlite" ] && fail 'a server that did not start left its storage'
finish INT

begin --tunnel localhost:0 --storage "$work/storage"
[ -f "$work/storage/pernosco.sqlite" ] || fail 'nothing in the storage'
finish TERM
begin --tunnel 0 --storage "$work/storage"
case $address in 0.0.0.0:*) ;; *) fail "address $address" ;; esac
finish INT

# What cannot be.
: >"$work/file"
expect 1 'not a directory' "$program" serve --tunnel 127.0.0.1:0 --storage "$work/file" "$work/t"
expect 1 'cannot create storage directory' "$program" serve --tunnel 127.0.0.1:0 --storage "$work/no/where" "$work/t"
mkdir "$work/broken" && echo 'no database, but long enough to be looked at as one' >"$work/broken/pernosco.sqlite"
expect 1 'pernosco.sqlite: file is not a database' "$program" serve --tunnel 127.0.0.1:0 --storage "$work/broken" "$work/t"
expect 2 'not an IPv4 address' "$program" serve --tunnel nowhere.example:4000 "$work/t"
for port in x -1 65536 ''; do
    expect 1 "^'$port' is not a valid port" "$program" serve --tunnel "127.0.0.1:$port" "$work/t"
done
expect 1 'Source path sources is not absolute, aborting.' "$program" serve --sources sources "$work/t"
expect 1 'Source path sources is not absolute, aborting.' "$program" serve --sources /=sources "$work/t"
expect 1 'is not a directory' "$program" serve --sources "/src=$work/none" "$work/t"
exit $bad
