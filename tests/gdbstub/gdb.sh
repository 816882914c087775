#!/bin/sh
# gdb.sh PERNOSCO TRACES - gdb itself on recordings: symbols, stacks, breakpoints and watchpoints both ways, an exec. Prints each failure; status 1 if
# any, 77 without gdb.
set -u
ulimit -c 0 # a gdb that fails leaves nothing behind
program=$1 traces=$2
command -v gdb >/dev/null || { echo 'no gdb'; exit 77; }
. "$(dirname "$0")/../cli/expect.sh"
# Nothing of others is in there.
mkdir "$work/tmp"
export TMPDIR="$work/tmp" XDG_RUNTIME_DIR="$work/tmp"

# What is made for a gdb, and is to be gone behind it.
mkdir "$work/own"
export TMPDIR="$work/own" XDG_RUNTIME_DIR="$work/own"

# on TRACE COMMAND... : what gdb says to the commands, into $work/said. $options: of pernosco gdb.
options=
on() {
    trace=$1
    shift
    if ! [ -d "$work/$trace" ]; then
        cp -r "$traces/$trace" "$work/$trace"
        "$program" build --skip-rr "$work/$trace" >/dev/null 2>&1 || fail "build $trace"
    fi
    printf '%s\n' 'set width 0' "$@" >"$work/commands"
    timeout 100 "$program" gdb $options "$work/$trace" -- -nx -batch -x "$work/commands" >"$work/said" 2>&1 </dev/null || fail "gdb on $trace: status $?"
}

# Runs a command of gdb that fails, which ends a script otherwise.
failing='python
def failing(text):
    try:
        gdb.execute(text)
    except gdb.error as e:
        print(e)
end'

# says PATTERN... : what gdb said has lines that match, in this order.
says() {
    for pattern; do
        line=$(grep -nE -m 1 -- "$pattern" "$work/said" | cut -d: -f1)
        if [ -z "$line" ]; then
            fail "gdb on $trace did not say '$pattern' (or not behind what it should):"
            cat "$work/said"
            return
        fi
        tail -n +$((line + 1)) "$work/said" >"$work/rest"
        mv "$work/rest" "$work/said"
    done
}

# What gdb reads of a process beside registers and memory; and all of it as a core file, which another gdb reads.
on segv-crash 'info proc' 'info proc mappings' 'p $_siginfo.si_signo' 'p $_siginfo._sifields._sigfault.si_addr' "generate-core-file $work/core" \
    'p (int)getpid() > 0' 'p $_siginfo.si_signo' 'reverse-stepi' 'info threads'
says "^cmdline = 'src/segv-crash'" "^exe = '/tmp/traces/src/segv-crash'" 'r-xp +/tmp/traces/src/segv-crash$' '\[stack\]' \
    '= 11$' '= .* 0x0$' 'Saved corefile' '= 1$' '= 11$' 'Thread [0-9]+\.[0-9]+ '
gdb -nx -batch -ex bt "$work"/segv-crash/mmap_*_segv-crash "$work/core" >"$work/said" 2>&1
trace='a core file' says 'terminated with signal SIGSEGV' '^#0 .*f \(p=0x0\)' '^#1 .*main'

on segv-crash 'bt' 'reverse-stepi' 'stepi' 'continue' 'continue'
says '^#0 .*f \(|^#0 .*main' 'received signal SIGSEGV' '[Nn]o more reverse-execution history'

on threads-race 'break work' 'reverse-continue' 'info threads' 'watch -l counter' 'continue' 'reverse-continue' 'delete' 'reverse-continue'
says 'hit Breakpoint 1, .*work' '\* [0-9]+ .*work' 'Hardware watchpoint 2' 'Old value = ' 'New value = ' 'No more reverse-execution history'

# Thread-local variables: of a static program, of each of its threads, and of a library.
on thread-locals 'break report' 'reverse-continue' 'reverse-continue' 'reverse-continue' 'p count == expected_count && wide == expected_wide' \
    'p who.level == expected_level' 'thread apply all p count'
says 'Breakpoint 1, report' 'Breakpoint 1, report' '= 1$' '= 1$' '^Thread 2' '= 15$' '^Thread 1' '= 3$'
on threads-race 'break work' 'reverse-continue' 'p &errno' 'thread 1' 'p (int)errno' 'p (int*)__errno_location() == &errno'
says 'hit Breakpoint' '= \(int \*\) 0x' '= 0$' '= 1$'

# A condition is not gdb's to test at each execution.
on threads-race 'break work if a == 1' 'set debug remote 1' 'reverse-continue'
says 'Sending packet: \$Z0,[0-9a-f]+,1;X[0-9a-f]+,'
on threads-race 'break work if a == 1' 'reverse-continue' 'reverse-continue' 'continue' 'p a'
says 'hit Breakpoint 1, work \(a=0x1\)' 'No more reverse-execution' 'hit Breakpoint 1, work \(a=0x1\)' '= .*0x1$'

on threads-race 'run 60' 'monitor when' 'run 70+3' 'monitor when'
says '^60\+0, task [0-9]+$' '^70\+3, task [0-9]+$'

on threads-race 'goto 70+3' 'checkpoint' 'goto 60' 'checkpoint' 'monitor checkpoints' 'restart 1' 'when' 'monitor delete-checkpoint 1' 'monitor checkpoints' \
    'set exec-direction reverse' 'restart 2' 'when' 'goto 70' 'when' "$failing" 'python failing("restart 1")'
says '^Checkpoint 1 at 70\+3, task' '^Checkpoint 2 at 60\+0' '^1 at 70\+3' '^2 at 60\+0' '^70\+3' '^2 at 60\+0' '^60\+0' '^70\+0' 'there is no checkpoint 1'

# A child that executes another program: back to before that, and forth.
options='--at 200 --task 3'
on fork-exec 'monitor when' 'reverse-continue' 'monitor when' 'continue'
options=
says '^200\+0, task' 'executing new program: /.*/fork-exec' 'No more reverse-execution history' '^156\+0, task' 'executing new program: /.*/fork-exec' \
    'No more reverse-execution history'

# Functions of the program are called and memory is changed; time goes on as it was recorded.
on hello-dynamic 'p (long)strlen("hello")' 'call (int)puts("said elsewhere")' 'call (int)fflush(0)' 'p (void*)malloc(3000000) != 0' 'p $rbx = 77' \
    'p (int)open("/etc/passwd", 0)' 'p $rbx' 'monitor when' 'reverse-stepi' 'stepi' 'p $rbx == 77' 'set unwindonsignal on' 'p (int)getpid() > 0' \
    'monitor when'
says '= 5$' '^said elsewhere$' '= 1$' '= 77$' 'openat.*ENOSYS' '= -1$' '= 77$' '^[0-9]+\+[0-9]+, task' 'is forgotten when' '= 0$' '= 1$' '^[0-9]+\+[0-9]+, task'

# A condition that calls a function: gdb tests it, at each execution.
on cpp-exceptions 'goto 150' 'break f if (int)getpid() > 0 && k == 3' 'continue' 'p k' 'when' 'continue' 'p k'
says 'is forgotten when' 'Breakpoint 1, f \(k=k@entry=3\)' '= 3$' ', task' 'Breakpoint 1, f \(k=k@entry=3\)' '= 3$'

# A breakpoint within such a call; an exception, which functions that never ran like this throw and catch; calls that do not return.
on cpp-exceptions "$failing" 'break f' 'reverse-continue' 'python failing("p f(9)")' 'bt' 'delete' 'finish' 'python failing("p (int)exit(3)")' 'bt 1' \
    'reverse-continue' 'p (int)getpid() != 0'
says 'Breakpoint 1, f \(k=k@entry=0\)' 'Breakpoint 1, f \(k=9\)' 'stopped while in a function called' '^#1 +<function called from gdb>' \
    "terminate called after throwing an instance of 'std::logic_error'" 'what\(\):  wrapped bottom' 'received signal SIGABRT' \
    '^~R 2' 'the program would end here' 'signaled while in a function called' '^#0 .*_exit' 'is forgotten when' 'No more reverse-execution' '= 1$'

# Sources that the trace holds: names that are absolute, and those that begin where a rule says. Others come from where they were.
cp -r "$traces/hello-static" "$work/own-sources"
mkdir -p "$work/copied" "$work/kept"
cp "$(dirname "$0")/../programs/hello.c" "$work/copied"
echo 'int kept;' >"$work/copied/kept.c"
"$program" build --skip-rr --copy-sources "$work/copied" --substitute "hello-static=$work/copied" "$work/own-sources" >/dev/null 2>&1 || fail 'build with sources'
rm "$work/copied/hello.c"
on own-sources 'list main' 'info source'
says 'printf\("hello' 'Located in .*/pernosco-sources-.*hello.c'
mv "$work/own-sources" "$work/zip-sources"
python3 -c 'import sys, zipfile
zipfile.ZipFile(sys.argv[1], "w").writestr("programs/hello.c", "/* line 1 */\nint main() { /* packed */ }\n")' "$work/zip-sources/files.user/sources.zip"
echo '[{"files": [{"archive": "files.user/sources.zip", "at": "/"}]}]' >"$work/zip-sources/sources.user"
on zip-sources 'list main'
says 'packed'
[ -z "$(ls -d "$work"/own/pernosco-sources-* 2>/dev/null)" ] || fail 'sources are left behind'

# Printers of the C++ library; and scripts of the trace, if they are asked for.
mkdir -p "$work/cpp-exceptions/gdbinit/x"
echo 'source /trace/gdbinit/x/.gdbinit' >"$work/cpp-exceptions/gdbinit/.gdbinit"
printf '%s\n' 'echo executed\n' >"$work/cpp-exceptions/gdbinit/x/.gdbinit"
on cpp-exceptions 'break f' 'reverse-continue' 'set var *(long*)($sp-1024) = $sp' 'set var *(long*)($sp-1016) = $sp + 8' \
    'set var *(long*)($sp-1008) = $sp + 16' 'p *(std::vector<int, std::allocator<int> >*)($sp-1024)'
grep -q '^executed' "$work/said" && fail 'a script of the trace was executed'
[ -d /usr/share/gcc/python/libstdcxx ] && says '= std::vector of length 2, capacity 4'
options=--trace-scripts
on cpp-exceptions 'p 1'
options=
says '^executed$' '= 1$'

# Debug information apart from its library, by the trace's debug/.
lib=$(ls "$work/cpp-exceptions"/mmap_*libstdc++* | head -1)
id=$(readelf -n "$lib" | sed -n 's/.*Build ID: //p')
file=$work/cpp-exceptions/debug/.build-id/$(echo "$id" | cut -c1-2)/$(echo "$id" | cut -c3-).debug
mkdir -p "$(dirname "$file")"
objcopy --only-keep-debug "$lib" "$file" && objcopy --add-symbol known_from_debug=.text:0x40,function,global "$file" || fail 'no debug file'
on cpp-exceptions 'info address known_from_debug'
says 'Symbol "known_from_debug" is at 0x[0-9a-f]+ in a file compiled without debugging'

expect 1 'no database' "$program" gdb "$traces/hello-static"
expect 2 'a moment is EVENT' "$program" gdb --at x "$work/segv-crash"
expect 2 'not a valid port' "$program" gdb --listen x "$work/segv-crash"
expect 2 'not the number of a task' "$program" gdb --task x "$work/segv-crash"
expect 1 'there is no gdb' env PATH=/nowhere "$(realpath "$program")" gdb "$work/segv-crash"
[ -z "$(ls -d "$work"/own/pernosco-gdb-* 2>/dev/null)" ] || fail 'a socket is left behind'

exit $bad
