# Sourced by the tests of the command line. $work is a directory that goes at the end; $bad the exit status.
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
bad=0

fail() {
    echo "FAIL: $*"
    bad=1
}

# expect STATUS PATTERN COMMAND... : the command ends with STATUS, and stdout and stderr together match PATTERN.
expect() {
    want=$1 pattern=$2
    shift 2
    "$@" >"$work/said" 2>&1 </dev/null
    got=$?
    if [ "$got" != "$want" ] || { [ "$pattern" ] && ! grep -Eq -- "$pattern" "$work/said"; }; then
        fail "$* : status $got (want $want, $pattern), said:"
        head -5 "$work/said"
    fi
}

# wait_for PATTERN FILE : until a line is there, at most some seconds.
wait_for() {
    tries=0
    until grep -q "$1" "$2" 2>/dev/null; do
        tries=$((tries + 1))
        if [ $tries -gt 100 ]; then
            fail "no '$1' in:"
            cat "$2"
            return 1
        fi
        sleep 0.1
    done
}
