/* explain TRACE - changes one thing in a good recording, as the replayer sees it, and checks that
 * the report of the failure names it: the event, the register with both values, the instructions
 * before and the mapping they are in. So does that of a 32-bit task.
 */
#include "changed_frames.h"

#include "base/buf.h"
#include "replay/replay.h"

#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

enum { INSTRUCTIONS = 300 };
enum change { CHANGE_REGISTER, CHANGE_TICKS, CHANGE_WRITE, CHANGE_ARCH };

static enum change change;
static event_no changed_event; /* 0: to be chosen */
static event_no first_event;   /* which is not before this */

/* A frame that shows the change: an entry of a system call after some hundred instructions; a write
 * that the program will look at. */
static bool suits(const struct frame *f)
{
    if (change == CHANGE_ARCH)
        return f->kind == FRAME_SYSCALL && f->syscall_state == SYSCALL_EXITING &&
               f->syscall_no == SYS_execve;
    if (f->kind != FRAME_SYSCALL || f->event < first_event)
        return false;
    if (change == CHANGE_WRITE)
        return f->syscall_state == SYSCALL_EXITING && f->syscall_no == SYS_read && f->write_count;
    return f->syscall_state == SYSCALL_ENTERING && f->ticks > 300;
}

static void change_frame_once(struct frame *f)
{
    if (changed_event ? f->event != changed_event : !suits(f))
        return;
    changed_event = f->event;
    switch (change) {
    case CHANGE_REGISTER:
        f->regs.r[UREG_RBX] = 0x123456789;
        break;
    case CHANGE_TICKS:
        f->ticks += 7;
        break;
    case CHANGE_WRITE:
        f->write_count--;
        break;
    case CHANGE_ARCH:
        f->arch = f->syscall_arch = ARCH_X86;
        f->syscall_no = 11; // execve there
        break;
    }
}

static int missing;

static void want(const char *text, const char *what)
{
    if (!strstr(text, what)) {
        printf("change %d of event %llu: `%s` is not in:\n%s\n", change,
               (unsigned long long)changed_event, what, text);
        missing++;
    }
}

static size_t count_lines(const char *text)
{
    size_t count = 0;
    for (; *text; text++)
        count += *text == '\n';
    return count;
}

/* Replays with the change; *told: the error and what explains it. Error: the replay itself was
 * impossible. */
static struct err *replay_changed(const char *dir, struct buf *told)
{
    cleanup(trace_closep) struct trace *t = NULL;
    cleanup(replay_closep) struct replay *r = NULL;
    changed_event = 0;
    forget_changed_frames();
    TRY(trace_open(dir, &t));
    TRY(replay_open(t, &r));
    struct err *failed = replay_run(r, MOMENT_END, UINT64_MAX, NULL);
    if (!failed)
        return err_new(ERR_FORMAT, "change %d was not noticed", change);
    buf_printf(told, "%s\n", err_message(failed));
    err_free(failed);
    return replay_explain(r, INSTRUCTIONS, told);
}

static struct err *check(const char *dir, enum change what, event_no first)
{
    first_event = first;
    char text[100];
    cleanup(buf_deinit) struct buf told = {0};
    change = what;
    TRY(replay_changed(dir, &told));
    snprintf(text, sizeof(text), "diverged at event %llu (", (unsigned long long)changed_event);
    if (what != CHANGE_WRITE)
        want(buf_cstr(&told), text);
    snprintf(text, sizeof(text), "last good event %llu\n", (unsigned long long)changed_event - 1);
    if (what != CHANGE_WRITE)
        want(buf_cstr(&told), text);
    if (what == CHANGE_REGISTER)
        want(buf_cstr(&told), "rbx is 0x");
    if (what == CHANGE_REGISTER)
        want(buf_cstr(&told), "the recording has 0x123456789");
    if (what == CHANGE_TICKS)
        want(buf_cstr(&told), "stopped by a system call at rip 0x");
    want(buf_cstr(&told), " syscall ");
    want(buf_cstr(&told), "<- here\nrip is at 0x");
    want(buf_cstr(&told), "r-x)");
    if (count_lines(buf_cstr(&told)) <
        (first_event == 20 ? 20 : 8)) { // some events have few instructions before them
        printf("change %d: too short an account:\n%s\n", what, buf_cstr(&told));
        missing++;
    }
    return NULL;
}

static struct err *check_32_bit(const char *dir)
{
    cleanup(trace_closep) struct trace *t = NULL;
    cleanup(replay_closep) struct replay *r = NULL;
    char text[100];
    change = CHANGE_ARCH;
    changed_event = 0;
    forget_changed_frames();
    TRY(trace_open(dir, &t));
    TRY(replay_open(t, &r));
    struct err *failed = replay_run(r, MOMENT_END, UINT64_MAX, NULL);
    snprintf(text, sizeof(text), "event %llu, task ", (unsigned long long)changed_event);
    want(failed ? err_message(failed) : "no error", text);
    want(failed ? err_message(failed) : "no error",
         "a 32-bit program is executed, and no 64-bit one in the whole recording");
    err_free(failed);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fputs("usage: explain TRACE\n", stderr);
        return 2;
    }
    for (enum change c = CHANGE_REGISTER; c <= CHANGE_WRITE; c++) {
        // Some are in the midst of events that a worker is sent ahead over.
        for (event_no first = 20; first < 110; first += c == CHANGE_WRITE ? 100 : 7) {
            struct err *e = check(argv[1], c, first);
            if (e) {
                printf("%s\n", err_message(e));
                return 1;
            }
        }
    }
    struct err *e = check_32_bit(argv[1]);
    if (e) {
        printf("%s\n", err_message(e));
        return 1;
    }
    return missing != 0;
}
