/* Where the value of some bytes came from.
 *
 * The bytes are items: runs of bytes in memory or in a register, each at a moment. All items go
 * back in time together. A stretch before the latest of them is run in steps; going through it
 * backwards, an instruction that wrote a byte of an item says what the byte is (x86_origin_of()): a
 * copy of another, which becomes the item; or a constant, a computation: that is a row. Items which
 * the stretch does not touch are searched for in the whole recording (last_write(),
 * last_register_write()), and the next stretch ends where the last of these writes is.
 *
 *     stretch:   ...  mov rax, [rbx]   mov [rsp+8], rax   call   push rbp ...   mov rdx, [rsp+16]    <- edx asked about
 *                     memory at rbx <- rax             <- memory at rsp+8                            <- rdx
 *
 * Invariants: 1. no write to an item lies between what has been gone through and its `before`. 2.
 * rows are given in the order of time, latest first; a row's parent comes before it. */
#include "query/dataflow_int.h"

enum { SHORT_STRETCH = 500, LONG_STRETCH = 8000, MOST_STRETCHES = 1000 };

/* --- items --- */

struct flow_item flow_part(const struct flow_item *item, uint32_t from, uint32_t len)
{
    struct flow_item part = *item;
    part.at += from;
    part.object_at += from;
    part.offset += from;
    part.len = len;
    part.held = NULL;
    memmove(part.value, item->value + from, len);
    return part;
}

void flow_add(struct flow *f, const struct stretch *s, struct flow_item item)
{
    if (!item.memory) {
        vec_push(&f->items, item);
        return;
    }
    while (item.len) {
        const struct stretch_mapping *m = stretch_mapping_at(s, item.space, item.at, item.before);
        uint64_t here = m ? m->end - item.at : PAGE_SIZE - item.at % PAGE_SIZE;
        uint32_t len = here < item.len ? (uint32_t)here : item.len;
        struct flow_item part = flow_part(&item, 0, len);
        part.held = steal(item.held);
        part.object = m ? m->object : 0;
        part.object_at = m && m->object ? m->offset + (item.at - m->start) : 0;
        vec_push(&f->items, part);
        item = flow_part(&item, len, item.len - len);
    }
}

struct err *flow_add_at(struct flow *f, struct flow_item item)
{
    struct replay *r;
    cleanup(stretch_deinit) struct stretch s = {0};
    TRY(plain_state_at(f->q, item.before, &r));
    stretch_of_state(f->q, r, &s);
    flow_add(f, &s, item);
    return NULL;
}

json_t *flow_place(const struct flow_item *item)
{
    char name[32];
    if (!item->memory)
        return json_pack("{ss}", "register",
                         x86_register_name((unsigned)item->at, item->len, name, sizeof(name)));
    return json_pack("{so, sI}", "address", json_hex(item->at), "length", (json_int_t)item->len);
}

static const char limit_reached[] = "the limit of rows is reached";

/* Ends the answer here, though there is more. */
static struct err *cut_off(struct flow *f, const char *why)
{
    f->cut = true;
    return err_new(ERR_LIMIT, "%s", why);
}

static struct err *give_now(struct flow *f, struct flow_item *item, json_t *row, uint32_t *id_out)
{
    if (f->rows >= f->limit) {
        json_decref(row);
        return cut_off(f, limit_reached);
    }
    uint32_t id = ++f->rows;
    json_object_set_new(row, "id", json_integer(id));
    if (item->parent)
        json_object_set_new(row, "parent", json_integer(item->parent));
    if (item->saved)
        json_object_set_new(row, "saved", json_integer(item->saved));
    item->saved = 0;
    if (id_out)
        *id_out = id;
    return give(f->q, row);
}

/* A pop that turned out to be no restoring of a saved register. */
static struct err *give_held(struct flow *f, struct flow_item *item)
{
    if (!item->held)
        return NULL;
    json_t *row = steal(item->held);
    return give_now(f, item, row, &item->parent);
}

struct err *flow_give(struct flow *f, struct flow_item *item, struct moment at, uint32_t task,
                      json_t *row, uint32_t *id_out)
{
    struct err *e = give_held(f, item);
    if (e) {
        json_decref(row);
        return e;
    }
    json_object_set_new(row, "focus", json_focus(f->q, at, task, 0));
    json_object_set_new(row, "task", json_task(f->q, task));
    json_object_set_new(row, "offset", json_integer(item->offset));
    json_object_set_new(row, "length", json_integer(item->len));
    json_object_set_new(row, "to", flow_place(item));
    if (item->known)
        json_object_set_new(row, "value", json_bytes(item->value, item->len));
    return give_now(f, item, row, id_out);
}

/* --- instructions --- */

static bool same_run(const struct x86_origin *a, const struct x86_origin *b, unsigned distance)
{
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case X86_COPY: {
        // A copy out of two registers is two copies.
        bool same =
            a->from.memory || x86_unit((unsigned)a->from.at) == x86_unit((unsigned)b->from.at);
        return a->from.memory == b->from.memory && b->from.at == a->from.at + distance && same;
    }
    case X86_SIGN:
        return a->from.memory == b->from.memory && a->from.at == b->from.at;
    case X86_UNKNOWN:
        return str_eq(a->why, b->why);
    default:
        return true;
    }
}

/* The item that a byte range of a source is. */
static struct flow_item source_item(const struct execution *x, const struct flow_item *part,
                                    struct x86_place from)
{
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    struct flow_item item = *part;
    item.memory = from.memory;
    item.at = from.at;
    item.task = st->task;
    item.space = st->space;
    item.object = 0;
    item.before = st->at;
    item.searched = false;
    item.held = NULL;
    return item;
}

/* What is read from a general register must be the value that is followed: anything else is a
 * mistake of ours. */
static bool value_agrees(const struct execution *x, const struct flow_item *item)
{
    uint8_t v[MOST_BYTES];
    return item->memory || !item->known ||
           !x86_read_regs(x->run.before, (unsigned)item->at, item->len, v) ||
           memcmp(v, item->value, item->len) == 0;
}

static bool is_whole_register(const struct flow_item *item)
{
    return !item->memory && item->at < X86_RIP && item->at % 8 == 0 && item->len == 8;
}

static struct err *follow_copy(struct execution *x, struct flow_item *part, struct x86_place from)
{
    struct flow *f = x->owner;
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    struct flow_item source = source_item(x, part, from);
    // push and pop of one register, the value being the same all along: it was kept for the caller.
    if (part->held && x->insn->class == X86_PUSH && is_whole_register(&source) &&
        source.at == part->held_register) {
        json_decref(steal(part->held));
        source.saved = part->saved + 1;
        flow_add(f, x->stretch, source);
        return NULL;
    }
    json_t *row = execution_row(x, "copy");
    json_object_set_new(row, "from", flow_place(&source));
    if (!value_agrees(x, &source)) {
        json_object_set_new(row, "kind", json_string("unknown"));
        json_object_set_new(row, "why",
                            json_string("the value read here is not the one that was followed"));
        return flow_give(f, part, st->at, st->task, row, NULL);
    }
    if (x->insn->class == X86_POP && !f->show_saves && is_whole_register(part) && !part->held) {
        json_object_set_new(row, "focus", json_focus(f->q, st->at, st->task, 0));
        json_object_set_new(row, "task", json_task(f->q, st->task));
        json_object_set_new(row, "offset", json_integer(part->offset));
        json_object_set_new(row, "length", json_integer(part->len));
        json_object_set_new(row, "to", flow_place(part));
        if (part->known)
            json_object_set_new(row, "value", json_bytes(part->value, part->len));
        source.held = row;
        source.held_register = part->at;
        flow_add(f, x->stretch, source);
        return NULL;
    }
    TRY(flow_give(f, part, st->at, st->task, row, &source.parent));
    source.saved = 0;
    flow_add(f, x->stretch, source);
    return NULL;
}

/* Goes on with what the bytes were computed from. */
static struct err *follow_inputs(struct execution *x, struct flow_item *part, uint32_t id,
                                 gaddr base)
{
    struct flow *f = x->owner;
    enum { MOST_INPUTS = 32 };
    struct x86_input all[MOST_INPUTS];
    size_t n = 0;
    for (uint32_t i = 0; i < part->len; i++) {
        struct x86_input some[MOST_INPUTS];
        struct x86_place to = part->memory ? (struct x86_place){true, base + i}
                                           : (struct x86_place){false, part->at + i};
        size_t count = x86_inputs_of(x->insn, &x->run, to, some, MOST_INPUTS);
        for (size_t k = 0; k < count; k++) {
            size_t a = 0;
            // Neighbours and overlaps become one.
            while (a < n && (all[a].from.memory != some[k].from.memory ||
                             some[k].from.at > all[a].from.at + all[a].len ||
                             some[k].from.at + some[k].len < all[a].from.at ||
                             (!some[k].from.memory && x86_unit((unsigned)some[k].from.at) !=
                                                          x86_unit((unsigned)all[a].from.at))))
                a++;
            if (a == n && n < MOST_INPUTS) {
                all[n++] = some[k];
            } else if (a < n) {
                uint64_t start =
                    some[k].from.at < all[a].from.at ? some[k].from.at : all[a].from.at;
                uint64_t end = some[k].from.at + some[k].len > all[a].from.at + all[a].len
                                   ? some[k].from.at + some[k].len
                                   : all[a].from.at + all[a].len;
                all[a].from.at = start;
                all[a].len = (uint32_t)(end - start);
            }
        }
    }
    for (size_t i = 0; i < n; i++) {
        struct flow_item input = source_item(x, part, all[i].from);
        input.offset = 0;
        input.len = all[i].len < MOST_BYTES ? all[i].len : MOST_BYTES;
        input.parent = id;
        input.depth = part->depth + 1;
        input.saved = 0;
        input.known = !input.memory &&
                      x86_read_regs(x->run.before, (unsigned)input.at, input.len, input.value);
        flow_add(f, x->stretch, input);
    }
    return NULL;
}

/* Bytes [from, from + len) of the item with one kind of origin. */
static struct err *follow_origin(struct execution *x, struct flow_item *part,
                                 const struct x86_origin *o, bool extends, gaddr base)
{
    struct flow *f = x->owner;
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    json_t *row;
    uint32_t id;
    switch (o->kind) {
    case X86_UNTOUCHED:
        vec_push(&f->items, *part);
        return NULL;
    case X86_COPY:
        return follow_copy(x, part, o->from);
    case X86_CONST:
        row = execution_row(x, extends ? "extension" : "constant");
        return flow_give(f, part, st->at, st->task, row, NULL);
    case X86_SIGN: {
        struct flow_item source = source_item(x, part, o->from);
        source.offset = 0;
        source.len = 1;
        source.known = false;
        source.depth++;
        row = execution_row(x, "extension");
        json_object_set_new(row, "from", flow_place(&source));
        TRY(flow_give(f, part, st->at, st->task, row, &source.parent));
        if (f->arithmetic && part->depth < f->max_depth)
            flow_add(f, x->stretch, source);
        return NULL;
    }
    case X86_COMPUTED:
        row = execution_row(x, x->insn->class == X86_TRAP ? "instruction" : "arithmetic");
        TRY(flow_give(f, part, st->at, st->task, row, &id));
        return f->arithmetic && part->depth < f->max_depth ? follow_inputs(x, part, id, base)
                                                           : NULL;
    default:
        row = execution_row(x, "unknown");
        json_object_set_new(row, "why", json_string(o->why));
        return flow_give(f, part, st->at, st->task, row, NULL);
    }
}

/* What the instruction did to one item; base: where its space has the item's first byte. */
static struct err *follow_item(struct execution *x, size_t idx, gaddr base)
{
    struct flow *f = x->owner;
    struct flow_item item = f->items.items[idx];
    struct x86_origin origins[MOST_BYTES];
    bool touched = false, copies = false;
    for (uint32_t i = 0; i < item.len; i++) {
        struct x86_place to = item.memory ? (struct x86_place){true, base + i}
                                          : (struct x86_place){false, item.at + i};
        origins[i] = x86_origin_of(x->insn, &x->run, to);
        touched |= origins[i].kind != X86_UNTOUCHED;
        copies |= origins[i].kind == X86_COPY || origins[i].kind == X86_SIGN;
    }
    if (!touched)
        return NULL;
    f->items.items[idx].len = 0;
    f->items.items[idx].held = NULL;
    f->moves++;
    bool first = true;
    for (uint32_t from = 0; from < item.len; first = false) {
        uint32_t len = 1;
        while (from + len < item.len && same_run(&origins[from], &origins[from + len], len))
            len++;
        struct err *e = NULL;
        if (first && len < item.len)
            e = give_held(f, &item);
        struct flow_item part = flow_part(&item, from, len);
        if (first)
            part.held = steal(item.held);
        if (!e)
            e = follow_origin(x, &part, &origins[from], copies && (!item.memory || len < item.len),
                              base + from);
        json_decref(part.held);
        TRY(e);
        from += len;
    }
    return NULL;
}

static struct err *follow_step(struct flow *f, const struct stretch *s, size_t i)
{
    const struct stretch_step *st = &s->steps.items[i];
    TRY(flow_acted(f, s, i));
    const struct x86_insn *in = insn_cached(f->cache, st->row);
    if (!in)
        return NULL;
    if (in->class == X86_SYSCALL)
        return flow_carried_out(f, s, i);
    struct execution x;
    execution_init(&x, f->q, f, s, i, in);
    struct x86_access accesses[X86_MAX_ACCESSES];
    size_t access_count = 0;
    bool have_accesses = false, have_after = false, partial;
    size_t count = f->items.count; // those that this step adds are before it
    for (size_t k = 0; k < count; k++) {
        struct flow_item *item = &f->items.items[k];
        if (!item->len || item->ahead || moment_cmp(st->at, item->before) >= 0)
            continue;
        gaddr base = item->at;
        if (item->memory) {
            bool hit = false;
            if (!in->writes_memory)
                continue;
            if (!have_accesses && in->repeats) {
                const struct step_row *after = stretch_after(s, i, &partial);
                if (!after)
                    return NULL;
                x.run.after = &after->regs;
                have_after = true;
            }
            if (!have_accesses)
                access_count = x86_accesses(in, &x.run, accesses);
            have_accesses = true;
            for (size_t a = 0; a < access_count && !hit; a++)
                hit =
                    accesses[a].writes &&
                    execution_touches(&x, &accesses[a], item->space, item->object,
                                      item->object ? item->object_at : item->at, item->len, &base);
            if (!hit)
                continue;
        } else {
            uint64_t units =
                x86_unit((unsigned)item->at) | x86_unit((unsigned)item->at + item->len - 1);
            if (item->task != st->task || !(in->written & units))
                continue;
        }
        if (!have_after) {
            const struct step_row *after = stretch_after(s, i, &partial);
            if (!after)
                return NULL; // not executed
            x.run.after = &after->regs;
            have_after = true;
        }
        TRY(follow_item(&x, k, base));
    }
    return NULL;
}

/* --- stretches --- */

static void drop_dead(struct flow *f)
{
    size_t n = 0;
    vec_each (item, &f->items) {
        if (item->len)
            f->items.items[n++] = *item;
    }
    f->items.count = n;
}

/* Goes through a stretch backwards. */
static struct err *sweep(struct flow *f, const struct stretch *s)
{
    event_no event = s->until.event; // whose effects come next
    for (size_t i = s->steps.count; i-- > 0;) {
        const struct stretch_step *st = &s->steps.items[i];
        for (; event > st->at.event; event--)
            TRY(flow_event(f, s, event));
        if (st->row->end)
            continue;
        TRY(follow_step(f, s, i));
        if (f->items.count > MOST_ITEMS)
            return cut_off(f, "too many pieces");
        if (i % 256 == 0) {
            drop_dead(f);
            if (!f->items.count)
                return NULL;
            TRY(check_cancel(f->q));
        }
    }
    for (; event > s->from.event; event--)
        TRY(flow_event(f, s, event));
    drop_dead(f);
    // What is left was not written in the stretch.
    vec_each (item, &f->items) {
        if (item->ahead) {
            item->ahead = false;
        } else if (moment_cmp(item->before, s->from) > 0) {
            item->before = s->from;
            item->searched = false;
        }
    }
    return NULL;
}

static struct moment behind(const struct query_engine *q, struct moment m)
{
    // The end of a run: what comes next is the event.
    if (m.event + 1 <= q->last_event && m.icount >= q->event_icount.items[m.event + 1])
        return (struct moment){m.event + 1, 0};
    return (struct moment){m.event, m.icount + 1};
}

/* Looks for the last write to the item anywhere before. */
static struct err *search_item(struct flow *f, const struct stretch *s, struct flow_item *item)
{
    struct query_engine *q = f->q;
    bool found;
    struct moment at = {0};
    if (item->memory) {
        struct write_hit hit = {0};
        uint64_t start = item->object ? item->object_at : item->at;
        TRY(last_write(q, item->space, item->object, start, start + item->len, item->before, &hit,
                       &found));
        at = hit.event ? (struct moment){hit.moment.event + 1, 0} : behind(q, hit.moment);
    } else {
        uint64_t units =
            x86_unit((unsigned)item->at) | x86_unit((unsigned)item->at + item->len - 1);
        TRY(last_register_write(q, item->task, item->space, units, item->before, &at, &found));
        at = behind(q, at);
    }
    if (!found) {
        TRY(flow_origin(f, s, item));
        item->len = 0;
        return NULL;
    }
    if (moment_cmp(at, item->before) < 0)
        item->before = at;
    item->searched = true;
    return NULL;
}

static struct flow_item *latest(struct flow *f)
{
    struct flow_item *best = NULL;
    vec_each (item, &f->items) {
        if (item->len && (!best || moment_cmp(item->before, best->before) > 0))
            best = item;
    }
    return best;
}

/* Runs right before the moment that is asked about, which is where most values come from, so that
 * the replay comes by what is read there. */
static struct err *run_ahead(struct flow *f, struct moment until)
{
    struct moment from = moment_back(f->q, until, SHORT_STRETCH);
    bool beyond =
        until.event >= f->q->last_event || until.icount > f->q->event_icount.items[until.event + 1];
    return beyond || moment_cmp(from, until) >= 0
               ? NULL
               : stretch_run(f->q, from, until, 0, false, &f->ahead);
}

/* A stretch, which may have been run already. */
static struct err *next_stretch(struct flow *f, struct moment from, struct moment until,
                                struct stretch *out)
{
    if (!f->ahead.steps.count || moment_cmp(f->ahead.from, from) != 0 ||
        moment_cmp(f->ahead.until, until) != 0)
        return stretch_run(f->q, from, until, 0, false, out);
    *out = f->ahead;
    f->ahead = (struct stretch){0};
    return NULL;
}

static struct err *follow(struct flow *f)
{
    uint64_t window = SHORT_STRETCH;
    struct moment reached = MOMENT_END;
    for (unsigned n = 0; f->items.count; n++) {
        struct flow_item *item = latest(f);
        if (!item)
            break;
        if (f->rows == f->limit) // what is left would be further rows
            return cut_off(f, limit_reached);
        if (n == MOST_STRETCHES)
            return cut_off(f, "this goes back too far");
        bool skipped;
        TRY(flow_skip_saves(f, item, &skipped));
        if (skipped) {
            reached = item->before; // things may go on right before the last pair
            continue;
        }
        // Right before a stretch where things went on, they may go on; anywhere else it is only the
        // write that is wanted.
        bool adjacent = moment_cmp(item->before, reached) == 0;
        window = adjacent ? window * 4 : SHORT_STRETCH;
        if (window > LONG_STRETCH)
            window = LONG_STRETCH;
        struct moment until = item->before, from = moment_back(f->q, until, window);
        if (moment_cmp(from, until) >= 0) { // the start of the recording
            TRY(flow_origin(f, NULL, item));
            item->len = 0;
            continue;
        }
        cleanup(stretch_deinit) struct stretch s = {0};
        TRY(next_stretch(f, from, until, &s));
        uint64_t moves = f->moves;
        TRY(sweep(f, &s));
        reached = f->moves > moves ? from : MOMENT_END;
        for (size_t k = 0; k < f->items.count && f->moves == moves; k++) {
            if (!f->items.items[k].searched)
                TRY(search_item(f, &s, &f->items.items[k]));
        }
        drop_dead(f);
    }
    return NULL;
}

/* --- the query --- */

static struct err *first_item(struct query_engine *q, json_t *params, const struct focus *focus,
                              struct flow_item *out)
{
    struct asked_bytes asked;
    TRY(param_bytes(q, params, focus, &asked));
    *out = (struct flow_item){.memory = asked.memory,
                              .task = focus->task,
                              .space = asked.space,
                              .at = asked.at,
                              .len = asked.len,
                              .before = asked.moment,
                              .known = true};
    memcpy(out->value, asked.value, asked.len);
    return NULL;
}

struct err *query_dataflow(struct query_engine *q, json_t *params)
{
    struct focus focus;
    uint64_t limit = 200, depth = 4;
    TRY(param_focus(q, params, &focus));
    if (json_object_get(params, "limit"))
        TRY(param_u64(params, "limit", &limit));
    if (json_object_get(params, "depth"))
        TRY(param_u64(params, "depth", &depth));
    if (limit < 1 || limit > 10000 || depth > 64)
        return err_new(ERR_USAGE, "limit is 1 to 10000, depth 0 to 64");
    struct flow f = {.q = q,
                     .limit = limit,
                     .max_depth = (unsigned)depth,
                     .arithmetic = json_is_true(json_object_get(params, "arithmetic")),
                     .show_saves = json_is_true(json_object_get(params, "saves"))};
    struct flow_item item;
    f.cache = insn_cache_create();
    struct err *e = run_ahead(&f, focus.moment);
    if (!e)
        e = first_item(q, params, &focus, &item);
    if (!e)
        e = flow_add_at(&f, item);
    if (!e)
        e = follow(&f);
    if (e && err_kind(e) == ERR_LIMIT && f.cut) {
        q->sink->more = true;
        err_free(e);
        e = NULL;
    }
    vec_each (it, &f.items)
        json_decref(it->held);
    vec_deinit(&f.items);
    stretch_deinit(&f.ahead);
    free(f.cache);
    return e;
}
