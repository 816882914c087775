#include "gdbstub/pilot.h"

#include <stdlib.h>

enum { MOST_LINE = 64 << 10, MOST_SAID = 64 << 10 };

void pilot_init(struct pilot *p, const struct pilot_place *target)
{
    *p = (struct pilot){.state = PILOT_START, .target = *target};
}

void pilot_deinit(struct pilot *p)
{
    buf_deinit(&p->line);
    buf_deinit(&p->out);
    buf_deinit(&p->said);
}

/* --- what to do --- */

static void stand(struct pilot *p)
{
    p->state = PILOT_STANDS;
    if (!p->wanted)
        return;
    p->wanted = p->begun = false;
    p->moved = false; // whoever has this wish has gone on from where gdb was
    p->target = p->wish;
    p->state = PILOT_GOING;
    buf_printf(&p->out, "%u-interpreter-exec console \"goto %llu+%llu %u\"\n", ++p->token,
               (unsigned long long)p->target.moment.event,
               (unsigned long long)p->target.moment.icount, p->target.task);
}

/* There is nothing to select in the innermost frame. */
static void select_frame(struct pilot *p)
{
    if (!p->target.frame) {
        stand(p);
        return;
    }
    p->state = PILOT_FRAMING;
    buf_printf(&p->out, "%u-stack-select-frame %u\n", ++p->token, p->target.frame);
}

void pilot_want(struct pilot *p, const struct pilot_place *place)
{
    if (p->state == PILOT_RUNS)
        return;
    p->wish = *place;
    p->wanted = true;
    if (p->state == PILOT_STANDS)
        stand(p);
}

/* --- what is heard --- */

static void stopped(struct pilot *p)
{
    switch (p->state) {
    case PILOT_GOING:
        if (p->begun) {
            p->printed = true;
            select_frame(p);
        }
        break;
    case PILOT_START:
        select_frame(p);
        break;
    default:
        p->moved = true;
        p->moved_frame = 0;
        p->wanted = false;
        stand(p);
    }
}

static void running(struct pilot *p)
{
    if (p->state == PILOT_STANDS)
        p->state = PILOT_RUNS;
}

/* "TOKEN^CLASS..." */
static void answered(struct pilot *p, uint32_t token, const char *class)
{
    bool failed = str_starts(class, "error");
    if (token != p->token)
        return;
    if (p->state == PILOT_GOING && failed)
        stand(p);
    else if (p->state == PILOT_GOING)
        p->begun = true;
    else if (p->state == PILOT_FRAMING) {
        p->printed = true;
        stand(p);
    }
}

/* "=thread-selected,id="1",frame={level="2",...": the user has chosen a thread or frame. */
static void selected(struct pilot *p, const char *rest)
{
    const char *level = strstr(rest, "frame={level=\"");
    if (p->state != PILOT_STANDS || !level)
        return;
    p->moved = true;
    p->moved_frame = (unsigned)strtoul(level + strlen("frame={level=\""), NULL, 10);
}

/* A string as in C, of which gdb escapes quotes, backslashes and what is not printed (octal). */
static void take_said(struct pilot *p, const char *text)
{
    static const char escapes[][2] = {
        {'n', '\n'}, {'t', '\t'}, {'r', '\r'}, {'e', '\033'}, {'b', '\b'}};
    if (*text++ != '"' || p->said.len >= MOST_SAID)
        return;
    buf_str(&p->said, "\r\033[K"); // over the prompt
    p->redraw = true;
    for (; *text && *text != '"' && p->said.len < MOST_SAID; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '\\' && text[1] >= '0' && text[1] <= '7') {
            c = 0;
            for (int i = 0; i < 3 && text[1] >= '0' && text[1] <= '7'; i++)
                c = (unsigned char)(c * 8 + *++text - '0');
        } else if (c == '\\' && text[1]) {
            c = (unsigned char)*++text;
            for (size_t i = 0; i < ARRAY_COUNT(escapes); i++) {
                if (escapes[i][0] == (char)c) {
                    c = (unsigned char)escapes[i][1];
                    break;
                }
            }
        }
        if (c == '\n')
            buf_u8(&p->said, '\r');
        buf_u8(&p->said, c);
    }
}

static void take_line(struct pilot *p, const char *line)
{
    char *rest;
    uint32_t token = (uint32_t)strtoul(line, &rest, 10);
    switch (*rest) {
    case '^':
        answered(p, token, rest + 1);
        break;
    case '*':
        if (str_starts(rest, "*stopped"))
            stopped(p);
        else if (str_starts(rest, "*running"))
            running(p);
        break;
    case '=':
        if (str_starts(rest, "=thread-selected"))
            selected(p, rest);
        break;
    case '@':
        take_said(p, rest + 1);
        break;
    case '(': // gdb's prompt: it has printed what there is
        p->redraw |= p->printed;
        p->printed = false;
        break;
    default:
        break;
    }
}

void pilot_hear(struct pilot *p, const void *bytes, size_t len)
{
    const char *b = bytes;
    for (size_t i = 0; i < len; i++) {
        if (b[i] != '\n') {
            if (p->line.len < MOST_LINE)
                buf_u8(&p->line, (uint8_t)b[i]);
            continue;
        }
        take_line(p, buf_cstr(&p->line));
        p->line.len = 0;
    }
}
