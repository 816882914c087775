/* A stretch of the recording in full detail: every instruction of all tasks with the registers
 * before it, and what the kernel did between them. */
#ifndef QUERY_STRETCH_INT_H
#define QUERY_STRETCH_INT_H

#include "query/query_int.h"
#include "x86/x86.h"

/* An instruction that was executed or attempted, or (row->end) the state at the end of a run. */
struct stretch_step {
    struct moment at;
    uint32_t task, space;
    const struct step_row *row; /* borrowed from the stretch */
};

/* What changed memory besides instructions, in order. */
struct stretch_effect {
    struct moment at; /* (E, 0), unless the replayer itself acted in the middle of a run */
    bool prepared; /* done after event at.event had its own effects, for the sake of the next event
                    */
    bool remapped; /* a new mapping, or none: former contents are void */
    uint32_t space, object;
    gaddr addr;
    uint64_t len, offset; /* offset: in the object */
};

struct stretch_event {
    event_no number;
    uint32_t task; /* 0: none */
    uint8_t kind;  /* enum frame_kind */
    uint8_t syscall_state, syscall_arch;
    int32_t syscall_no;
    bool exec;
    size_t first_effect, effect_count; /* its own; prepared ones for it come before */
    bool have_after;
    struct regs after; /* of the task */
};

struct stretch_mapping {
    gaddr start, end;
    uint32_t object; /* uid, 0: private */
    uint64_t offset;
    uint32_t mmap_idx; /* in trace_mmaps(); UINT32_MAX: none */
    uint8_t kind;      /* enum mapping_kind */
};
/* The mappings of a space until a moment; later ones are in the next of this space. */
struct stretch_maps {
    uint32_t space;
    struct moment until;
    VEC(struct stretch_mapping) maps;
};

struct stretch {
    struct moment from, until;
    struct buf rows;
    VEC(struct stretch_step) steps;     /* by time */
    VEC(struct stretch_effect) effects; /* by time */
    VEC(struct stretch_event) events;   /* by number */
    VEC(struct stretch_maps) maps;      /* by time; those at the end last */
    VEC(struct stretch_step) initial;   /* the tasks' registers at `from` */
    size_t row_len;
};

/**
 * Runs [from, until) in steps. Both must lie in one segment; the state at `until` includes the
 * effects of its event.
 *
 * task: only this one's steps are recorded, others run at full speed; 0: all. vectors: rows are
 * followed by XSTATE_MAX bytes of vector state. Cost: a replay that stands at `from`, and some 200
 * ns for each instruction recorded.
 */
struct err *stretch_run(struct query_engine *q, struct moment from, struct moment until,
                        uint32_t task, bool vectors, struct stretch *out) nodiscard;
/** A stretch of no length: the mappings of a replay as it is. */
void stretch_of_state(struct query_engine *q, struct replay *r, struct stretch *out);
void stretch_deinit(struct stretch *s);

/** The row (for its registers) right after step i; NULL: it has not been executed, not even in part
 * (a system call, a fault). *partial: a repeated string instruction that was cut short. */
const struct step_row *stretch_after(const struct stretch *s, size_t i, bool *partial);
/** Is another attempt at the instruction of step i in a later step? A run that ends early leaves
 * one which the next run repeats. */
bool stretch_repeated(const struct stretch *s, size_t i);
/** Why the instruction of step i was not completed; STOP_LIMIT: not known, or it was. */
enum stop_reason stretch_stop(const struct stretch *s, size_t i);
/** A task's registers right before an event, as far as the stretch knows; NULL: unknown. */
const struct regs *stretch_before_event(const struct stretch *s, event_no number, uint32_t task);
const struct stretch_event *stretch_event(const struct stretch *s, event_no number);
/** What the replayer did itself in the midst of a run, at the instruction of step i: effects from
 * *first_out on; how many. */
size_t stretch_acted(const struct stretch *s, size_t i, size_t *first_out);
/** The mapping of `addr` in a space at a moment within the stretch; NULL: none. */
const struct stretch_mapping *stretch_mapping_at(const struct stretch *s, uint32_t space,
                                                 gaddr addr, struct moment m);

/** Memory of a space at moments within the stretch, which lies in one segment: as
 * worker_take_steps() gives it. captures: by rising time. */
struct err *stretch_memory(struct query_engine *q, uint32_t space,
                           const struct step_capture *captures, size_t count,
                           struct buf *out) nodiscard;

/** The moment `count` instructions (of all tasks) before m, but not before the segment of m, or for
 * a moment at a segment's start of the one before. */
struct moment moment_back(const struct query_engine *q, struct moment m, uint64_t count);
/** The moment `count` instructions (of all tasks) behind m, but not behind the end of m's segment.
 */
struct moment moment_forth(const struct query_engine *q, struct moment m, uint64_t count);

/** Vector and mask registers of a task at a moment, as x86_run.registers wants them; false for
 * those that the XSAVE image does not have. */
bool read_xstate(const uint8_t *xstate, unsigned start, unsigned len, uint8_t *out);

#endif
