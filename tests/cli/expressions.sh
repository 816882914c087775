#!/bin/sh
# expressions.sh PERNOSCO DEMO - conditions, printed expressions and `evaluate` on the demo's recording, whose program was built with -O0.
# Prints each failure; status 1 if any.
set -u
program=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
tar -C "$work" --zstd -xf "$2/recording.tar.zst" || exit 1
trace=$(echo "$work"/*)
"$program" build --skip-rr "$trace" >/dev/null 2>&1 || exit 1

# answer NAME ARGS [WANT]: what the query prints, with nothing but texts, names, moments and reasons of values. WANT: fails if that is not it,
# where * stands for anything.
answer() {
    "$program" query "$trace" "$1" "$2" 2>&1 | python3 -c '
import fnmatch, json, sys
def text(v):
    return v.get("text") or "!" + v["why"]
have = []
for line in sys.stdin:
    try:
        row = json.loads(line)
    except ValueError:
        have.append(line.strip())
        continue
    out = [row["name"] + "=" + text(row["value"]) if "name" in row else "%(event)d:%(instr)d" % row["focus"]["moment"] if "focus" in row
           else "total %d failed %d sum %d" % (row["total"], row.get("failed", 0), sum(row["buckets"]))]
    out += [p["name"] + "=" + text(p["value"]) for p in row.get("args", []) + row.get("prints", [])]
    out += ["? " + row["conditionError"]] if "conditionError" in row else []
    out += ["unfolds " + row["expression"]] if row.get("unfolds") else []
    have.append(", ".join(out))
print(*have, sep="\n")
want = [w.replace("[", "[[]").replace("?", "[?]") for w in sys.argv[1].splitlines()] if len(sys.argv) > 1 else have
same = len(sys.argv) < 2 or len(want) == len(have) and all(map(fnmatch.fnmatchcase, have, want))
sys.exit(not same)' ${3+"$3"}
}

# same WANT NAME ARGS: the answer is that.
same() {
    if ! answer "$2" "$3" "$1" >"$work/have"; then
        echo "FAIL: $2 $3"
        echo "$1" | sed 's/^/  want /'
        sed 's/^/  have /' "$work/have"
        bad=1
    fi
}

function=$("$program" query "$trace" search '{"input": "mailbox_put", "maxResults": 1}' | sed 's/.*"id":"\([^"]*\)".*/\1/')
line='"file": "mailbox.c", "line": 21'

# At a function's entry parameters are where the caller put them, though -O0 has not stored them yet.
same '169:4896, mailbox=*, message=*, mailbox->count=32, message->subject=0x* "a lost umbrella"
169:5226, mailbox=*, message=*, mailbox->count=32, message->subject=0x* "a lost umbrella"' \
    execution '{"function": "'$function'", "condition": "mailbox->count == 32", "print": ["mailbox->count", "message->subject"], "limit": 2}'
# Backward come the last ones first.
answer execution '{"function": "'$function'", "condition": "mailbox->count == 32", "limit": 100000}' >"$work/all"
same "$(tail -1 "$work/all")" execution '{"function": "'$function'", "condition": "mailbox->count == 32", "limit": 1, "direction": "backward"}'
same "total $(wc -l <"$work/all") failed 0 sum $(wc -l <"$work/all")" counts '{"function": "'$function'", "condition": "mailbox->count == 32"}'
same 'total 0 failed 0 sum 0' counts '{"function": "'$function'", "condition": "mailbox->count == 33"}'
# A string compared; blanks are no condition.
same "$(answer execution '{"function": "'$function'", "limit": 1}')" execution '{"function": "'$function'", "limit": 1, "condition": " "}'
same '169:4896, mailbox=*, message=*' \
    execution '{"function": "'$function'", "condition": "message->subject == \"a lost umbrella\" && mailbox->count == 32", "limit": 1}'

# A condition that fails is told, and so is a value that cannot be had.
same '156:2*, mailbox->dropped=0, *(int *)16=!0x10 cannot be read, ? division by zero*' \
    breakpoint '{'"$line"', "condition": "mailbox->count / (mailbox->oldest & 1) > 1", "print": ["mailbox->dropped", "*(int *)16"], "limit": 1}'
same 'pernosco: condition "mailbox->count >": column 17*' breakpoint '{'"$line"', "condition": "mailbox->count >"}'
same 'pernosco: print "i": *there is no i here' breakpoint '{'"$line"', "print": ["mailbox", "i"]}'
same 'pernosco: print is a list of expressions' breakpoint '{'"$line"', "print": "mailbox"}'

# Any frame of the stack; values unfold step by step.
focus=$("$program" query "$trace" breakpoint '{'"$line"', "limit": 1, "direction": "backward"}' | sed 's/.*"focus":\(.*\),"task":{[^}]*},"pc".*/\1/')
caller=$(echo "$focus" | sed 's/"frame":0/"frame":1/')
same 'mailbox->count=31' evaluate '{"focus": '"$focus"', "expression": "mailbox->count"}'
same 'mailbox=0x*, unfolds mailbox' evaluate '{"focus": '"$focus"', "expression": "mailbox"}'
same '*={messages = *}, unfolds *(mailbox)' evaluate '{"focus": '"$focus"', "expression": "mailbox", "children": true}'
same 'oldest=17
count=31' evaluate '{"focus": '"$focus"', "expression": "*(mailbox)", "children": true, "first": 1, "max": 2}'
same '[0]=0x*, unfolds (mailbox->messages)[0]' evaluate '{"focus": '"$focus"', "expression": "mailbox->messages", "children": true, "max": 1}'
same 'message->subject=0x* "next excursion", unfolds message->subject' evaluate '{"focus": '"$caller"', "expression": "message->subject"}'
same 'pernosco: column 1: there is no mailbox here' evaluate '{"focus": '"$caller"', "expression": "mailbox"}'
same 'pernosco: column 9: *' evaluate '{"focus": '"$focus"', "expression": "(mailbox"}'
same '*(int *)16=!0x10 cannot be read' evaluate '{"focus": '"$focus"', "expression": "*(int *)16"}'
exit $bad
