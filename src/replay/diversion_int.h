/* Private parts of diversions. */
#ifndef REPLAY_DIVERSION_INT_H
#define REPLAY_DIVERSION_INT_H

#include "replay/diversion.h"
#include "replay/replay_int.h"

struct diversion {
    struct replay *replay;
    gaddr brk;       /* 0: the end of the [heap] mapping */
    uint64_t mapped; /* bytes that were mapped anew */
};

/** Is all of the range mapped? */
bool diversion_covers(const struct space *s, gaddr addr, uint64_t len);
/** Writes to a task's memory, all or ERR_FAULT. */
struct err *diversion_store(const struct space *s, gaddr addr, const void *data,
                            size_t len) nodiscard;

/** Where so many bytes can be mapped; 0: nowhere. diversion_calls.c */
gaddr diversion_find_room(const struct space *s, uint64_t len);
#define DIVERSION_MOST_MAPPED (1ull << 30) /* bytes, in one diversion */

/* What a system call comes to. */
enum call_end { CALL_ANSWERED, CALL_SIGNALS, CALL_ENDS, CALL_WAITS };
/** Answers the system call at which the task stands: *result is to be what it returns, unless it
 * ends or waits. CALL_SIGNALS: *signal, too. */
struct err *diversion_call(struct diversion *d, struct task *task,
                           const struct diversion_request *request, enum call_end *end,
                           int64_t *result, int *signal) nodiscard;

#endif
