/* Keeping a gdb in step with its view: what to tell it over its second user interface (GDB/MI,
 * "Debugging with GDB", chapter 27), and what is heard there. The first one is the user's terminal,
 * with perhaps half a line typed, and is left alone.
 *
 *     START --*stopped--> STANDS <---------------------------- *stopped ------- RUNS
 *                          |  ^ \--------------------- *running ---------------> ^
 *                     want |   \-- error ---- GOING: "goto" sent
 *                          v                    | its *stopped
 *                        GOING                  v
 *                                             FRAMING: frame selected --- done or error ---> STANDS
 *
 * A wish is kept while another one is carried out, the last one only; while gdb runs for its user
 * there are none: where that run ends is where the view goes. Pure: it does no input or output. */
#ifndef GDBSTUB_PILOT_H
#define GDBSTUB_PILOT_H

#include "base/buf.h"
#include "base/types.h"

struct pilot_place {
    struct moment moment;
    uint32_t task; /* 0: the one that runs then */
    unsigned frame;
};

enum pilot_state { PILOT_START, PILOT_STANDS, PILOT_RUNS, PILOT_GOING, PILOT_FRAMING };

struct pilot {
    enum pilot_state state;
    struct pilot_place target; /* of START, GOING, FRAMING */
    bool wanted, begun;        /* begun: gdb has understood the command of GOING */
    struct pilot_place wish;
    uint32_t token;  /* of the last command */
    struct buf line; /* so far; of one that is too long only its beginning, which is what counts */
    bool printed;    /* something below the user's prompt */
    struct buf out;  /* to be sent to gdb, and emptied by who sends */
    struct buf said; /* for the terminal: what the target says goes to the last interface that was
                        made. Likewise */
    bool moved; /* set: gdb has moved by itself, and shows this frame. Reset by who acts on it, as
                   `redraw` */
    unsigned moved_frame;
    bool redraw; /* set: the user's prompt is to be shown again */
};

/** gdb begins where `target` is, but for the frame. */
void pilot_init(struct pilot *p, const struct pilot_place *target);
void pilot_deinit(struct pilot *p);
/** gdb shall go there. */
void pilot_want(struct pilot *p, const struct pilot_place *place);
/** What gdb says; anything is good, as it may be damaged. */
void pilot_hear(struct pilot *p, const void *bytes, size_t len);

#endif
