/* A value that rests in a register which callees save and restore, over many calls at once.
 *
 * Each call may push the register and pop it again; instruction by instruction, that is slow to go
 * through. Here, segment by segment, the executions of all instructions which write the register or
 * push it are gathered with their registers (find_hits()), and walked through backwards: a pop is
 * matched with the push to the same place. That nothing else wrote to these places between push and
 * pop is then looked up by the log of stores (find_private_writes()); pairs behind the first one of
 * which that is not so are left to the slow way, as is a pair of which only the pop is in the
 * segment, or behind the last change of its code.
 *
 *     push r13   ...   pop r13     push r13  ...  pop r13     <- r13 wanted here
 *     [a]: no other write           [b]: no other write */
#include "query/dataflow_int.h"

enum {
    MOST_HITS = 100000,
    MOST_WRITES = 1000000,
    MOST_SLOTS = 64,
    MOST_USERS = 2048,
    FEW_PAIRS = 8,
    PAUSE = 64
};

struct saved_pair {
    struct moment push, pop;
    gaddr slot;
};

struct saves {
    unsigned reg; /* byte of the register file */
    uint32_t task;
    uint8_t value[8];
    struct moment from; /* nothing but these instructions has written the register since */
    const register_users *users;
    bool in_memory; /* behind a pop, its push not found yet */
    bool broken;    /* something else happened to the register, at or behind `from` */
    gaddr slot;     /* from which it popped */
    struct moment pop;
    VEC(struct saved_pair) pairs; /* latest first */
    VEC(gaddr) slots;             /* all different */
};

static const struct x86_insn *user_at(const register_users *users, gaddr pc)
{
    size_t low = 0, high = users->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (users->items[middle].pc < pc)
            low = middle + 1;
        else
            high = middle;
    }
    return low < users->count && users->items[low].pc == pc ? &users->items[low].insn : NULL;
}

/* Does it take the whole register from memory, popping? */
static bool is_restore(const struct saves *s, const struct x86_insn *in, const struct regs *regs,
                       gaddr *slot)
{
    const struct x86_run run = {.before = regs, .after = regs};
    for (unsigned i = 0; i < 8; i++) {
        struct x86_origin o = x86_origin_of(in, &run, (struct x86_place){false, s->reg + i});
        if (in->class != X86_POP || o.kind != X86_COPY || !o.from.memory ||
            (i && o.from.at != *slot + i))
            return false;
        *slot = i ? *slot : o.from.at;
    }
    return true;
}

/* Does it push the register, holding the value, to the slot? */
static bool is_save(const struct saves *s, const struct x86_insn *in, const struct regs *regs)
{
    const struct x86_run run = {.before = regs, .after = regs};
    uint8_t value[8];
    if (in->class != X86_PUSH || !x86_read_regs(regs, s->reg, 8, value) ||
        memcmp(value, s->value, 8) != 0)
        return false;
    for (unsigned i = 0; i < 8; i++) {
        struct x86_origin o = x86_origin_of(in, &run, (struct x86_place){true, s->slot + i});
        if (o.kind != X86_COPY || o.from.memory || o.from.at != s->reg + i)
            return false;
    }
    return true;
}

static bool add_slot(struct saves *s, gaddr slot)
{
    vec_each (have, &s->slots) {
        if (*have == slot)
            return true;
    }
    if (s->slots.count == MOST_SLOTS)
        return false;
    vec_push(&s->slots, slot);
    return true;
}

static bool walk_back(void *ctx, const struct hit *h)
{
    struct saves *s = ctx;
    const struct x86_insn *in = user_at(s->users, h->regs.r[UREG_RIP]);
    if (!in || moment_cmp(h->moment, s->from) < 0)
        return false;
    if (h->task != s->task)
        return true;
    if (!s->in_memory) {
        if (!(in->written & x86_unit(s->reg)))
            return true;
        s->pop = h->moment;
        s->in_memory = is_restore(s, in, &h->regs, &s->slot) && add_slot(s, s->slot);
        s->broken = !s->in_memory;
        return s->in_memory;
    }
    if (h->regs.r[UREG_RSP] <= s->slot)
        return true; // of a callee, or behind the push in the same function
    s->broken = !is_save(s, in, &h->regs);
    if (s->broken)
        return false;
    vec_push(&s->pairs, (struct saved_pair){h->moment, s->pop, s->slot});
    s->in_memory = false;
    return true;
}

/* How many of the pairs are known to be pairs. */
struct proof {
    const struct saves *s;
    size_t good;
    struct moment last; /* write seen */
};

static bool contradicts(void *ctx, const struct write_hit *w)
{
    struct proof *p = ctx;
    size_t low = 0, high = p->good;
    p->last = w->moment;
    while (low < high) { // the latest pair with the push before the write
        size_t middle = (low + high) / 2;
        if (moment_cmp(p->s->pairs.items[middle].push, w->moment) < 0)
            high = middle;
        else
            low = middle + 1;
    }
    const struct saved_pair *pair = &p->s->pairs.items[low];
    if (low == p->good || moment_cmp(w->moment, pair->pop) >= 0 || w->addr >= pair->slot + 8 ||
        w->addr + w->size <= pair->slot)
        return true;
    p->good = low;
    return false; // writes come latest first
}

/* Is all of the memory private? */
static struct err *are_private(struct query_engine *q, const struct saves *s, uint32_t space,
                               struct moment at, bool *out)
{
    struct replay *r;
    TRY(plain_state_at(q, at, &r));
    size_t count, found = 0;
    const struct mapping *maps = replay_mappings(r, space, &count);
    vec_each (slot, &s->slots) {
        for (size_t i = 0; i < count; i++)
            found += !maps[i].object && *slot >= maps[i].start && *slot + 8 <= maps[i].end;
    }
    *out = found == s->slots.count;
    return NULL;
}

static struct err *prove(struct query_engine *q, const struct saves *s, uint32_t space,
                         size_t *good)
{
    struct proof p = {.s = s, .good = s->pairs.count};
    struct addr_range ranges[MOST_SLOTS];
    bool private, more;
    *good = 0;
    TRY(are_private(q, s, space, s->pairs.items[0].pop, &private));
    if (!private)
        return NULL;
    for (size_t i = 0; i < s->slots.count; i++)
        ranges[i] = (struct addr_range){s->slots.items[i], s->slots.items[i] + 8};
    const struct window w = {.from = s->pairs.items[0].pop, .limit = MOST_WRITES};
    TRY(find_private_writes(q, space, ranges, s->slots.count, s->pairs.items[p.good - 1].push, &w,
                            contradicts, &p, &more));
    while (more && p.good && moment_cmp(s->pairs.items[p.good - 1].push, p.last) < 0)
        p.good--;
    *good = p.good;
    return NULL;
}

static struct err *walk(struct query_engine *q, struct saves *s, uint32_t space,
                        struct moment before)
{
    VEC(struct hit_place) places = {0};
    bool more;
    vec_each (user, s->users)
        vec_push(&places, (struct hit_place){.space = space, .pc = user->pc});
    const struct window w = {.from = before, .limit = MOST_HITS, .since = s->from};
    struct err *e = find_hits(q, places.items, places.count, &w, NULL, walk_back, s, &more);
    s->broken |= more;
    vec_deinit(&places);
    return e;
}

static struct err *skip(struct query_engine *q, struct flow_item *item, struct saves *s,
                        register_users *users)
{
    size_t segments, good = 0, at = history_segment_at(q->history, item->before);
    const struct history_segment *segment = history_segments(q->history, &segments);
    const struct known_task *t = known_task(q, item->task);
    bool known = false;
    event_no event;
    if (at && moment_cmp(segment[at].start, item->before) >= 0)
        at--;
    if (!t || moment_cmp(t->start, item->before) >= 0)
        return NULL;
    s->from = moment_cmp(segment[at].start, t->start) > 0 ? segment[at].start : t->start;
    TRY(register_users_of(q, item->space, s->reg, at, item->before, MOST_USERS, &s->from, users,
                          &known));
    if (!known)
        return NULL;
    TRY(last_register_event(q, item->task, x86_unit(s->reg), s->from, item->before, &event));
    if (event)
        s->from = (struct moment){event, 0};
    TRY(walk(q, s, item->space, item->before));
    if (s->pairs.count)
        TRY(prove(q, s, item->space, &good));
    item->skip_at = item->saved + (unsigned)good + (good < FEW_PAIRS ? PAUSE : 0);
    if (!good)
        return NULL;
    item->before = s->pairs.items[good - 1].push;
    item->saved += (unsigned)good;
    item->searched = false;
    if (good < s->pairs.count || s->broken)
        return NULL;
    // Nothing happened to the register from s->from on, or it was popped by the last of them, of
    // which the push is before.
    item->skip_at = item->saved + s->in_memory;
    if (!s->in_memory)
        item->before = s->from;
    return NULL;
}

struct err *flow_skip_saves(struct flow *f, struct flow_item *item, bool *skipped_out)
{
    struct saves s = {.reg = (unsigned)item->at, .task = item->task};
    struct moment before = item->before;
    *skipped_out = false;
    if (f->show_saves || item->memory || item->at >= X86_RIP || item->at % 8 || item->len != 8 ||
        !item->known || item->saved < FEW_PAIRS || item->saved < item->skip_at)
        return NULL;
    memcpy(s.value, item->value, 8);
    // What CPUID leaves in RBX is in no block; its upper half is zero then.
    if (x86_unit(s.reg) & unlogged_registers() &&
        !(s.value[4] | s.value[5] | s.value[6] | s.value[7]))
        return NULL;
    register_users users = {0};
    s.users = &users;
    struct err *e = skip(f->q, item, &s, &users);
    *skipped_out = moment_cmp(item->before, before) < 0;
    vec_deinit(&users);
    vec_deinit(&s.pairs);
    vec_deinit(&s.slots);
    return e;
}
