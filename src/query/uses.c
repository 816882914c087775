/* Where a value is used.
 *
 * The value's bytes are items: runs of bytes in memory or in a register that hold it now. All go
 * forward in time together. A stretch is run in steps; an instruction that reads bytes of an item
 * copies them, which makes another item, or computes something else from them, compares them, uses
 * them as an address: that is a row. An instruction that writes a byte of an item ends it. After a
 * stretch in which nothing happened, use_search() looks for the next moment at which something may.
 *
 * Invariants: 1. items do not overlap. 2. all items are as of one moment, that which the sweep has
 * reached. 3. rows are given in the order of time, but for those of a register that was first taken
 * to be only kept for a caller (struct use_saving). */
#include "query/uses_int.h"

enum {
    MOST_ITEMS = 1024,
    SHORT_STRETCH = 1000,
    LONG_STRETCH = 8000,
    LARGE_WRITE = 4096,
    MOST_PIECES = 64
};

/* --- items --- */

struct use_item use_part(const struct use_item *item, uint32_t from, uint32_t len)
{
    struct use_item part = *item;
    part.at += from;
    part.object_at += from;
    part.offset += from;
    part.len = len;
    part.saving = NULL;
    memmove(part.value, item->value + from, len);
    return part;
}

struct err *use_add(struct uses *u, const struct stretch *s, struct moment m, struct use_item item)
{
    while (item.len) {
        if (u->items.count >= MOST_ITEMS) {
            use_drop_saving(&item);
            u->cut = true;
            return err_new(ERR_LIMIT, "too many copies");
        }
        const struct stretch_mapping *map =
            item.memory ? stretch_mapping_at(s, item.space, item.at, m) : NULL;
        uint64_t here = !item.memory ? item.len
                        : map        ? map->end - item.at
                                     : PAGE_SIZE - item.at % PAGE_SIZE;
        uint32_t len = here < item.len ? (uint32_t)here : item.len;
        struct use_item part = use_part(&item, 0, len);
        part.object = map ? map->object : 0;
        part.object_at = map && map->object ? map->offset + (item.at - map->start) : 0;
        part.saving = steal(item.saving);
        vec_push(&u->items, part);
        item = use_part(&item, len, item.len - len);
    }
    return NULL;
}

void use_drop_saving(struct use_item *item)
{
    if (item->saving)
        json_decref(item->saving->rows);
    free(steal(item->saving));
}

json_t *use_place(bool memory, uint64_t at, uint64_t len)
{
    char name[32];
    if (!memory)
        return json_pack("{ss}", "register",
                         x86_register_name((unsigned)at, (unsigned)len, name, sizeof(name)));
    return json_pack("{so, sI}", "address", json_hex(at), "length", (json_int_t)len);
}

static struct err *give_row(struct uses *u, json_t *row, uint32_t parent, uint32_t *id_out)
{
    if (u->rows >= u->limit) {
        u->cut = true;
        json_decref(row);
        return err_new(ERR_LIMIT, "the limit of rows is reached");
    }
    uint32_t id = ++u->rows;
    json_object_set_new(row, "id", json_integer(id));
    if (parent)
        json_object_set_new(row, "parent", json_integer(parent));
    if (id_out)
        *id_out = id;
    return give(u->q, row);
}

struct err *use_tell(struct uses *u, struct use_item *item)
{
    struct use_saving *saving = steal(item->saving);
    struct err *e = NULL;
    for (size_t i = 0; saving && !e && i < json_array_size(saving->rows); i++) {
        json_t *entry = json_array_get(saving->rows, i);
        uint32_t id = 0;
        e = give_row(u, json_incref(json_object_get(entry, "row")),
                     (uint32_t)json_integer_value(json_object_get(entry, "parent")), &id);
        if (i == 0)
            item->parent = id;
    }
    if (saving)
        json_decref(saving->rows);
    free(saving);
    return e;
}

/* Fills in what all rows have. */
static void complete_row(struct uses *u, const struct use_item *item, uint32_t from, uint32_t len,
                         struct moment at, uint32_t task, json_t *row)
{
    json_object_set_new(row, "focus", json_focus(u->q, at, task, 0));
    json_object_set_new(row, "task", json_task(u->q, task));
    if (!json_object_get(row, "from"))
        json_object_set_new(row, "from", use_place(item->memory, item->at + from, len));
    if (!json_object_get(row, "offset")) {
        json_object_set_new(row, "offset", json_integer(item->offset + from));
        json_object_set_new(row, "length", json_integer(len));
        json_object_set_new(row, "value", json_bytes(item->value + from, len));
    }
    if (item->saved)
        json_object_set_new(row, "saved", json_integer(item->saved));
}

struct err *use_give(struct uses *u, size_t idx, uint32_t from, uint32_t len, struct moment at,
                     uint32_t task, json_t *row, uint32_t *id_out)
{
    struct use_item *item = &u->items.items[idx];
    u->moves++;
    struct err *e = use_tell(u, item);
    if (e) {
        json_decref(row);
        return e;
    }
    complete_row(u, item, from, len, at, task, row);
    item->saved = 0;
    return give_row(u, row, item->parent, id_out);
}

struct err *use_arrive(struct uses *u, const struct stretch *s, struct moment m,
                       struct use_item item, struct moment at, json_t *row)
{
    u->moves++;
    complete_row(u, &item, 0, item.len, at, item.task, row);
    TRY(give_row(u, row, item.parent, &item.parent));
    size_t first = u->items.count;
    TRY(use_add(u, s, m, item));
    return use_follow_files(u, s, first, m);
}

struct moment use_arrival_time(const struct uses *u, const struct use_arrival *a)
{
    return a->acted      ? a->at
           : a->prepared ? (struct moment){a->event, 0}
                         : moment_before_event(u->q, a->event);
}

static struct use_item *saved_copy(struct uses *u, const struct use_item *item)
{
    vec_each (it, &u->items) {
        if (it->len && it->saving && !item->memory && it->saving->task == item->task &&
            it->saving->reg / 8 == item->at / 8 && item->at < X86_RIP &&
            it->saving->parent == item->parent)
            return it;
    }
    return NULL;
}

struct err *use_kill(struct uses *u, size_t idx, uint32_t from, uint32_t len)
{
    struct use_item item = u->items.items[idx];
    struct err *e = NULL;
    u->moves++;
    if (item.saving && item.saving->lost)
        e = use_tell(u, &item);
    use_drop_saving(&item);
    u->items.items[idx] = use_part(&item, 0, from);
    if (from + len < item.len)
        vec_push(&u->items, use_part(&item, from + len, item.len - from - len));
    return e;
}

struct err *use_overwritten(struct uses *u, size_t idx, uint32_t from, uint32_t len,
                            struct moment at, uint32_t task, json_t *row)
{
    struct use_item *item = &u->items.items[idx], *copy = saved_copy(u, item);
    json_object_set_new(row, "kind", json_string("overwritten"));
    if (item->saving) { // of what was only kept it is not told
        json_decref(row);
    } else if (copy) {
        complete_row(u, item, from, len, at, task, row);
        json_array_append_new(copy->saving->rows, json_pack("{so, sI}", "row", row, "parent",
                                                            (json_int_t)item->parent));
        copy->saving->lost = true;
    } else {
        TRY(use_give(u, idx, from, len, at, task, row, NULL));
    }
    return use_kill(u, idx, from, len);
}

struct err *use_save(struct uses *u, const struct stretch *s, size_t idx, struct use_item to,
                     struct moment at, uint32_t task, json_t *row)
{
    const struct use_item *item = &u->items.items[idx];
    uint32_t from = to.offset - item->offset;
    u->moves++;
    json_object_set_new(row, "to", use_place(to.memory, to.at, to.len));
    complete_row(u, item, from, to.len, at, task, row);
    to.parent = item->parent;
    to.saving = xnew(struct use_saving);
    *to.saving = (struct use_saving){
        .rows = json_array(), .reg = item->at + from, .task = item->task, .parent = item->parent};
    json_array_append_new(to.saving->rows,
                          json_pack("{so, sI}", "row", row, "parent", (json_int_t)item->parent));
    return use_add(u, s, at, to);
}

struct err *use_restore(struct uses *u, const struct stretch *s, size_t idx, uint32_t task,
                        struct moment at)
{
    struct use_item *item = &u->items.items[idx];
    struct use_saving *saving = item->saving;
    struct use_item back = use_part(item, 0, item->len);
    u->moves++;
    back.memory = false;
    back.task = task;
    back.at = saving->reg;
    back.parent = saving->parent;
    back.saved = item->saved + 1;
    saving->lost = false; // it is back
    while (json_array_size(saving->rows) > 1)
        json_array_remove(saving->rows, json_array_size(saving->rows) - 1);
    return use_add(u, s, at, back);
}

/* --- instructions --- */

/* A byte of an item went into what an instruction wrote. */
enum edge_kind { EDGE_COPY, EDGE_SIGN, EDGE_COMPUTED };
struct edge {
    struct x86_place to;
    uint8_t kind; /* enum edge_kind */
    uint32_t parent;
    size_t item;
    uint32_t from, len; /* which bytes of the item */
};
typedef VEC(struct edge) edge_list;

/* What an instruction has to do with an item. */
struct use_hit {
    size_t item;
    gaddr base; /* of memory: where the instruction's space has its first byte */
    bool reads, writes;
    bool told;
    uint64_t killed;   /* bytes */
    uint64_t constant; /* of these: by constants */
};
typedef VEC(struct use_hit) hit_list;

/* Which byte of the register file, or of memory as the instruction sees it. */
static struct x86_place hit_place(const struct uses *u, const struct use_hit *h, uint32_t i)
{
    const struct use_item *item = &u->items.items[h->item];
    return item->memory ? (struct x86_place){true, h->base + i}
                        : (struct x86_place){false, item->at + i};
}

static bool same_place(struct x86_place a, struct x86_place b)
{
    return a.memory == b.memory && a.at == b.at;
}

/* The part of an item that a place of `len` bytes overlaps; false: none. */
static bool overlap(const struct uses *u, const struct use_hit *h, struct x86_place p, uint64_t len,
                    uint32_t *from_out, uint32_t *len_out)
{
    const struct use_item *item = &u->items.items[h->item];
    uint64_t at = hit_place(u, h, 0).at;
    if (p.memory != item->memory || p.at >= at + item->len || p.at + len <= at)
        return false;
    uint64_t start = p.at > at ? p.at - at : 0,
             end = p.at + len < at + item->len ? p.at + len - at : item->len;
    *from_out = (uint32_t)start;
    *len_out = (uint32_t)(end - start);
    return true;
}

/* What a written byte has of the items. */
static void add_edges(const struct execution *x, const hit_list *hits, struct x86_place to,
                      edge_list *out)
{
    const struct uses *u = x->owner;
    enum { MOST_INPUTS = 32 };
    struct x86_origin o = x86_origin_of(x->insn, &x->run, to);
    struct x86_input inputs[MOST_INPUTS] = {{o.from, 1}};
    size_t n = o.kind == X86_COPY || o.kind == X86_SIGN ? 1 : 0;
    if (o.kind == X86_COPY && same_place(o.from, to))
        return;
    if (o.kind == X86_COMPUTED)
        n = x86_inputs_of(x->insn, &x->run, to, inputs, MOST_INPUTS);
    for (size_t i = 0; i < n; i++) {
        vec_each (h, hits) {
            struct edge e = {.to = to,
                             .item = h->item,
                             .parent = u->items.items[h->item].parent,
                             .kind = o.kind == X86_COPY   ? EDGE_COPY
                                     : o.kind == X86_SIGN ? EDGE_SIGN
                                                          : EDGE_COMPUTED};
            if (overlap(u, h, inputs[i].from, inputs[i].len, &e.from, &e.len))
                vec_push(out, e);
        }
    }
}

static int by_target(const void *a, const void *b)
{
    const struct edge *x = a, *y = b;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    if (x->parent != y->parent)
        return x->parent < y->parent ? -1 : 1;
    if (x->to.memory != y->to.memory)
        return x->to.memory ? 1 : -1;
    return x->to.at < y->to.at ? -1 : x->to.at > y->to.at;
}

static bool is_flag(struct x86_place p)
{
    return !p.memory && p.at >= X86_FLAGS && p.at < X86_VECTOR;
}

static bool is_rip(struct x86_place p)
{
    return !p.memory && p.at >= X86_RIP && p.at < X86_FS_BASE;
}

static bool one_run(const struct edge *a, const struct edge *b)
{
    if (is_flag(a->to) && is_flag(b->to))
        return a->parent == b->parent;
    return a->kind == b->kind && a->parent == b->parent && a->to.memory == b->to.memory &&
           b->to.at - a->to.at <= 1 &&
           (a->to.memory || x86_unit((unsigned)a->to.at) == x86_unit((unsigned)b->to.at));
}

static void mark_told(hit_list *hits, size_t item)
{
    vec_each (h, hits) {
        if (h->item == item)
            h->told = true;
    }
}

/* The conditional instruction that goes by a comparison's flags, if it is the next one that looks
 * at them. */
static void add_decision(const struct execution *x, struct insn_cache *cache, json_t *row)
{
    enum { MOST_AHEAD = 16 };
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    for (size_t i = x->step + 1; i < x->stretch->steps.count && i < x->step + MOST_AHEAD; i++) {
        const struct stretch_step *next = &x->stretch->steps.items[i];
        if (next->task != st->task || next->row->end)
            continue;
        const struct x86_insn *in =
            next->at.event == st->at.event ? insn_cached(cache, next->row) : NULL;
        bool partial;
        if (!in)
            return;
        if (in->flags_read && in->conditional) {
            const struct step_row *after = stretch_after(x->stretch, i, &partial);
            char text[128];
            json_t *o = json_pack(
                "{ss, so}", "text",
                x86_format(next->row->code, next->row->code_len, in->pc, text, sizeof(text)), "pc",
                json_hex(in->pc));
            if (in->class == X86_JUMP && after)
                json_object_set_new(o, "taken",
                                    json_boolean(after->regs.r[UREG_RIP] != in->pc + in->len));
            json_object_set_new(row, "decides", o);
            return;
        }
        if (in->flags_written)
            return;
    }
}

/* How many pieces a run of edges takes the items apart into. */
static size_t count_pieces(const struct edge *run, size_t count)
{
    size_t n = 1;
    for (size_t i = 1; i < count; i++)
        n += run[i].item != run[i - 1].item || run[i].from != run[i - 1].from + 1 ||
             run[i].to.at != run[i - 1].to.at + 1;
    return n;
}

/* Gives the row of a run of edges; *id_out: its id. */
static struct err *give_run(struct execution *x, hit_list *hits, const struct edge *run,
                            size_t count, uint32_t *id_out)
{
    struct uses *u = x->owner;
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    const struct use_item *first = &u->items.items[run[0].item];
    uint8_t value[MOST_BYTES];
    uint64_t have = 0, start = UINT64_MAX, end = 0;
    uint32_t low = MOST_BYTES, high = 0;
    bool together = true;
    for (size_t i = 0; i < count; i++) {
        const struct use_item *item = &u->items.items[run[i].item];
        uint64_t at = item->at + run[i].from;
        together &= item->memory == first->memory &&
                    (item->memory || x86_unit((unsigned)item->at) == x86_unit((unsigned)first->at));
        start = at < start ? at : start;
        end = at + run[i].len > end ? at + run[i].len : end;
        for (uint32_t k = 0; k < run[i].len; k++) {
            uint32_t offset = item->offset + run[i].from + k;
            have |= 1ull << offset;
            value[offset] = item->value[run[i].from + k];
            low = offset < low ? offset : low;
            high = offset + 1 > high ? offset + 1 : high;
        }
        mark_told(hits, run[i].item);
    }
    static const char *const kinds[] = {
        [EDGE_COPY] = "copy", [EDGE_SIGN] = "extension", [EDGE_COMPUTED] = "arithmetic"};
    bool flags = is_flag(run[0].to);
    json_t *row = execution_row(x, is_rip(run[0].to) ? "jump"
                                   : flags           ? "comparison"
                                                     : kinds[run[0].kind]);
    if (!flags)
        json_object_set_new(
            row, "to",
            use_place(run[0].to.memory, run[0].to.at, run[count - 1].to.at + 1 - run[0].to.at));
    if (run[0].kind == EDGE_COPY && count_pieces(run, count) > MOST_PIECES)
        json_object_set_new(row, "why", json_string("these are too many copies to follow"));
    if (flags)
        add_decision(x, u->cache, row);
    if (together)
        json_object_set_new(row, "from", use_place(first->memory, start, end - start));
    json_object_set_new(row, "offset", json_integer(low));
    json_object_set_new(row, "length", json_integer(high - low));
    if (__builtin_popcountll(have) == (int)(high - low))
        json_object_set_new(row, "value", json_bytes(value + low, high - low));
    return use_give(u, run[0].item, run[0].from, run[0].len, st->at, st->task, row, id_out);
}

/* Does the run bring the whole item, which was only kept for its register, back there? */
static bool restores(const struct uses *u, const struct x86_insn *in, const struct edge *run,
                     size_t count)
{
    const struct use_item *item = &u->items.items[run[0].item];
    if (in->class != X86_POP || !item->saving || count != item->len || run[0].kind != EDGE_COPY ||
        run[0].from || run[0].to.memory || run[0].to.at != item->saving->reg)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (run[i].item != run[0].item || run[i].from != i)
            return false;
    }
    return true;
}

static bool saves(const struct uses *u, const struct x86_insn *in, const struct edge *run,
                  size_t count)
{
    const struct use_item *item = &u->items.items[run[0].item];
    if (u->show_saves || in->class != X86_PUSH || item->memory || item->at >= X86_RIP ||
        item->at / 8 == 4 /* rsp */)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (run[i].item != run[0].item || run[i].kind != EDGE_COPY)
            return false;
    }
    return true;
}

/* An item to come, once it is known what is no more. */
struct coming {
    struct use_item item;
    json_t *save; /* the row of a push; owned */
    bool restore;
    size_t source;
};
typedef VEC(struct coming) coming_list;

static struct use_item target_item(const struct execution *x, const struct use_item *source,
                                   const struct edge *e, uint32_t parent)
{
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    struct use_item item = use_part(source, e->from, 1);
    item.memory = e->to.memory;
    item.at = e->to.at;
    item.task = st->task;
    item.space = st->space;
    item.parent = parent;
    item.saved = 0;
    return item;
}

/* The rows and copies of a run of edges. */
static struct err *take_run(struct execution *x, hit_list *hits, const struct edge *run,
                            size_t count, coming_list *coming)
{
    struct uses *u = x->owner;
    uint32_t id = 0;
    bool save = saves(u, x->insn, run, count);
    if (restores(u, x->insn, run, count)) {
        mark_told(hits, run[0].item);
        vec_push(coming, (struct coming){.restore = true, .source = run[0].item});
        return NULL;
    }
    if (save)
        mark_told(hits, run[0].item);
    else
        TRY(give_run(x, hits, run, count, &id));
    if (run[0].kind != EDGE_COPY || is_rip(run[0].to) || (!u->follow && !save) ||
        count_pieces(run, count) > MOST_PIECES)
        return NULL;
    struct coming *last = NULL;
    for (size_t i = 0; i < count; i++) {
        const struct use_item *source = &u->items.items[run[i].item];
        bool joins = last && last->item.at + last->item.len == run[i].to.at &&
                     last->item.len < MOST_BYTES &&
                     last->item.offset + last->item.len == source->offset + run[i].from &&
                     last->source == run[i].item;
        if (joins) {
            last->item.value[last->item.len++] = source->value[run[i].from];
            continue;
        }
        last = vec_add(coming);
        *last = (struct coming){.item = target_item(x, source, &run[i], id), .source = run[i].item};
        if (save && i == 0)
            last->save = execution_row(x, "copy");
    }
    return NULL;
}

/* Uses as (part of) an address. */
static struct err *give_addresses(struct execution *x, hit_list *hits,
                                  const struct x86_access *accesses, size_t count, bool faulted)
{
    struct uses *u = x->owner;
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    for (size_t i = 0; i < count; i++) {
        const struct x86_operand *op = &x->insn->operands[accesses[i].operand];
        for (size_t k = 0; k < i; k++) // the elements of a gather have one
            op = op && accesses[k].operand == accesses[i].operand ? NULL : op;
        if (!op || op->kind != X86_MEMORY)
            continue;
        vec_each (h, hits) {
            uint32_t from, len;
            const struct x86_mem *m = &op->mem;
            unsigned part = m->address32 ? 4 : 8;
            bool vector = m->how == X86_AT_VECTOR;
            bool base = m->base != X86_NONE &&
                        overlap(u, h, (struct x86_place){false, 8u * m->base}, part, &from, &len);
            bool index = !base && m->index != X86_NONE &&
                         overlap(u, h,
                                 (struct x86_place){false, vector ? X86_VECTOR + 64u * m->index
                                                                  : 8u * m->index},
                                 vector ? x->insn->vector_len : m->index_len, &from, &len);
            if (!base && !index)
                continue;
            json_t *row = execution_row(x, "address");
            json_object_set_new(row, "to", use_place(true, accesses[i].addr, accesses[i].len));
            json_object_set_new(
                row, "access",
                json_string(accesses[i].writes ? accesses[i].reads ? "update" : "write" : "read"));
            if (faulted)
                json_object_set_new(row, "faulted", json_true());
            h->told = true;
            TRY(use_give(u, h->item, from, len, st->at, st->task, row, NULL));
        }
    }
    return NULL;
}

/* Reads of which it is not known what for. */
static struct err *give_others(struct execution *x, hit_list *hits, bool faulted)
{
    struct uses *u = x->owner;
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    vec_each (h, hits) {
        if (!h->reads || h->told || (h->killed && h->killed == h->constant))
            continue;
        json_t *row = execution_row(x, "other");
        if (faulted)
            json_object_set_new(row, "faulted", json_true());
        h->told = true;
        TRY(use_give(u, h->item, 0, u->items.items[h->item].len, st->at, st->task, row, NULL));
    }
    return NULL;
}

/* What a long write has of the items. A string move takes only those bytes that items hold along.
 */
static void add_large(const struct execution *x, const hit_list *hits,
                      const struct x86_access *accesses, size_t count, const struct x86_access *w,
                      edge_list *out)
{
    const struct uses *u = x->owner;
    const struct x86_access *source = NULL;
    for (size_t i = 0; i < count; i++) {
        if (accesses[i].reads && accesses[i].len == w->len && &accesses[i] != w)
            source = &accesses[i];
    }
    bool apart = source && (source->addr + w->len <= w->addr || w->addr + w->len <= source->addr);
    uint64_t len = source ? w->len : LARGE_WRITE; // without a source all is the same
    for (uint64_t k = 0; k < len && !apart; k++)
        add_edges(x, hits, (struct x86_place){true, w->addr + k}, out);
    vec_each (h, hits) {
        uint32_t from, part;
        if (!apart ||
            !overlap(u, h, (struct x86_place){true, source->addr}, source->len, &from, &part))
            continue;
        for (uint32_t k = from; k < from + part; k++)
            add_edges(x, hits,
                      (struct x86_place){true, hit_place(u, h, k).at - source->addr + w->addr},
                      out);
    }
}

/* All that an instruction wrote has of the items. */
static void gather_edges(const struct execution *x, const hit_list *hits,
                         const struct x86_access *accesses, size_t count, edge_list *out)
{
    struct x86_span spans[X86_MAX_SPANS];
    size_t span_count = x86_registers_written(x->insn, spans);
    for (size_t i = 0; i < span_count; i++) {
        for (unsigned k = 0; k < spans[i].len; k++)
            add_edges(x, hits, (struct x86_place){false, spans[i].start + k}, out);
    }
    for (size_t i = 0; i < count; i++) {
        const struct x86_access *a = &accesses[i];
        if (a->writes && a->len > LARGE_WRITE && x->insn->repeats)
            add_large(x, hits, accesses, count, a, out);
        for (uint64_t k = 0;
             a->writes && k < a->len && (a->len <= LARGE_WRITE || !x->insn->repeats); k++)
            add_edges(x, hits, (struct x86_place){true, a->addr + k}, out);
    }
    if (out->count)
        qsort(out->items, out->count, sizeof(out->items[0]), by_target);
}

static struct err *take_edges(struct execution *x, hit_list *hits, const edge_list *edges,
                              coming_list *coming)
{
    for (size_t i = 0, n; i < edges->count; i += n) {
        const struct edge *run = &edges->items[i];
        for (n = 1; i + n < edges->count && one_run(&run[n - 1], &run[n]);)
            n++;
        bool otherwise =
            false; // flags come along with nearly every result: these alone make no row
        vec_each (e, edges)
            otherwise |= is_flag(run[0].to) && !is_flag(e->to) && e->parent == run[0].parent;
        if (otherwise)
            continue;
        TRY(take_run(x, hits, run, n, coming));
    }
    return NULL;
}

static void find_killed(const struct execution *x, struct use_hit *h)
{
    const struct uses *u = x->owner;
    for (uint32_t i = 0; h->writes && i < u->items.items[h->item].len; i++) {
        struct x86_place to = hit_place(u, h, i);
        struct x86_origin o = x86_origin_of(x->insn, &x->run, to);
        if (o.kind == X86_UNTOUCHED || (o.kind == X86_COPY && same_place(o.from, to)))
            continue;
        h->killed |= 1ull << i;
        h->constant |= o.kind == X86_CONST ? 1ull << i : 0;
    }
}

/* Takes what was overwritten out of the items. */
static struct err *kill_items(struct execution *x, const hit_list *hits)
{
    struct uses *u = x->owner;
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    vec_each (h, hits) {
        for (uint32_t end = u->items.items[h->item].len, from; end > 0;
             end = from) { // from behind: the front keeps its place
            from = end - 1;
            if (!(h->killed >> from & 1))
                continue;
            while (from && h->killed >> (from - 1) & 1)
                from--;
            if (h->told)
                TRY(use_kill(u, h->item, from, end - from));
            else
                TRY(use_overwritten(u, h->item, from, end - from, st->at, st->task,
                                    execution_row(x, "overwritten")));
        }
    }
    return NULL;
}

static struct err *add_coming(struct execution *x, coming_list *coming)
{
    struct uses *u = x->owner;
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    size_t first = u->items.count;
    vec_each (c, coming) {
        if (c->restore)
            TRY(use_restore(u, x->stretch, c->source, st->task, st->at));
        else if (c->save)
            TRY(use_save(u, x->stretch, c->source, c->item, st->at, st->task, steal(c->save)));
        else
            TRY(use_add(u, x->stretch, st->at, c->item));
    }
    return use_follow_files(u, x->stretch, first, (struct moment){st->at.event, st->at.icount + 1});
}

/* What a completed instruction did with the items that it touches. */
static struct err *take_step(struct execution *x, hit_list *hits, const struct x86_access *accesses,
                             size_t count)
{
    edge_list edges = {0};
    coming_list coming = {0};
    bool reads = false;
    vec_each (h, hits) {
        find_killed(x, h);
        reads |= h->reads;
    }
    if (reads)
        gather_edges(x, hits, accesses, count, &edges);
    struct err *e = take_edges(x, hits, &edges, &coming);
    if (!e)
        e = give_addresses(x, hits, accesses, count, false);
    if (!e)
        e = give_others(x, hits, false);
    if (!e)
        e = kill_items(x, hits);
    if (!e)
        e = add_coming(x, &coming);
    vec_each (c, &coming)
        json_decref(c->save);
    vec_deinit(&coming);
    vec_deinit(&edges);
    return e;
}

/* Which items the instruction may read or write. */
static void find_hits_of(struct execution *x, const struct x86_access *accesses, size_t count,
                         hit_list *out)
{
    const struct uses *u = x->owner;
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    struct x86_span spans[X86_MAX_SPANS];
    size_t span_count = x86_registers_read(x->insn, spans);
    for (size_t k = 0; k < u->items.count; k++) {
        const struct use_item *item = &u->items.items[k];
        struct use_hit h = {.item = k, .base = item->at};
        uint32_t from, len;
        if (!item->len)
            continue;
        if (item->memory) {
            for (size_t a = 0; a < count; a++) {
                gaddr base;
                if (!execution_touches(x, &accesses[a], item->space, item->object,
                                       item->object ? item->object_at : item->at, item->len, &base))
                    continue;
                h.base = base;
                h.reads |= accesses[a].reads && !accesses[a].maybe;
                h.writes |= accesses[a].writes;
                if (accesses[a].reads && accesses[a].maybe)
                    h.reads = h.told =
                        true; // perhaps not a use at all: only what comes of it tells
            }
        } else if (item->task == st->task) {
            uint64_t units =
                x86_unit((unsigned)item->at) | x86_unit((unsigned)item->at + item->len - 1);
            h.writes = x->insn->written & units;
            for (size_t i = 0; i < span_count && !h.reads; i++)
                h.reads = overlap(u, &h, (struct x86_place){false, spans[i].start}, spans[i].len,
                                  &from, &len);
        }
        if (h.reads || h.writes)
            vec_push(out, h);
    }
}

static bool touches_any(const struct uses *u, const struct x86_insn *in,
                        const struct stretch_step *st)
{
    vec_each (item, &u->items) {
        if (!item->len)
            continue;
        if (item->memory
                ? in->reads_memory || in->writes_memory
                : item->task == st->task &&
                      (in->read | in->written) & (x86_unit((unsigned)item->at) |
                                                  x86_unit((unsigned)item->at + item->len - 1)))
            return true;
    }
    return false;
}

static struct err *use_step(struct uses *u, const struct stretch *s, size_t i)
{
    const struct stretch_step *st = &s->steps.items[i];
    const struct x86_insn *in = insn_cached(u->cache, st->row);
    bool call = in && is_system_call(in), partial;
    if (!in || stretch_repeated(s, i) || (!call && !touches_any(u, in, st)))
        return NULL;
    struct execution x;
    execution_init(&x, u->q, u, s, i, in);
    if (call)
        TRY(use_system_call(u, &x));
    if (in->class == X86_SYSCALL)
        return NULL;
    const struct step_row *after = stretch_after(s, i, &partial);
    bool faulted = !after && stretch_stop(s, i) == STOP_FAULT;
    if (!after && !faulted)
        return NULL;
    x.run.after = after ? &after->regs : NULL;
    struct x86_access accesses[X86_MAX_ACCESSES];
    size_t count = x86_accesses(in, &x.run, accesses);
    hit_list hits = {0};
    find_hits_of(&x, accesses, count, &hits);
    struct err *e = NULL;
    if (hits.count && faulted) {
        e = give_addresses(&x, &hits, accesses, count, true);
        if (!e)
            e = give_others(&x, &hits, true);
    } else if (hits.count) {
        struct x86_insn copy = *in; // the cache may be asked for others meanwhile
        x.insn = &copy;
        e = take_step(&x, &hits, accesses, count);
    }
    vec_deinit(&hits);
    return e;
}

/* --- stretches --- */

static void drop_dead(struct uses *u)
{
    size_t n = 0;
    vec_each (item, &u->items) {
        if (item->len)
            u->items.items[n++] = *item;
    }
    u->items.count = n;
}

static struct err *sweep(struct uses *u, const struct stretch *s)
{
    event_no event = s->from.event;
    TRY(use_prepared(u, s, event));
    for (size_t i = 0; i < s->steps.count && (u->items.count || u->arrivals.count); i++) {
        const struct stretch_step *st = &s->steps.items[i];
        for (; event < st->at.event; event++)
            TRY(use_event(u, s, event + 1));
        if (!st->row->end) {
            TRY(use_acted(u, s, i));
            TRY(use_step(u, s, i));
        }
        if (i % 256 == 0) {
            drop_dead(u);
            TRY(check_cancel(u->q));
        }
    }
    for (; event < s->until.event; event++)
        TRY(use_event(u, s, event + 1));
    drop_dead(u);
    return NULL;
}

static struct err *follow(struct uses *u, struct moment from)
{
    uint64_t window = SHORT_STRETCH;
    struct moment end = end_of_recording(u->q);
    while ((u->items.count || u->arrivals.count) && moment_cmp(from, end) < 0) {
        struct moment until = moment_forth(u->q, from, window);
        cleanup(stretch_deinit) struct stretch s = {0};
        TRY(stretch_run(u->q, from, until, 0, false, &s));
        uint64_t moves = u->moves;
        TRY(sweep(u, &s));
        from = until;
        window = window * 4 < LONG_STRETCH ? window * 4 : LONG_STRETCH;
        if (u->moves == moves && (u->items.count || u->arrivals.count)) {
            bool found;
            TRY(use_search(u, from, &from, &found));
            window = SHORT_STRETCH;
            if (!found)
                return NULL;
        }
    }
    return NULL;
}

/* --- the query --- */

static struct err *add_first(struct uses *u, const struct asked_bytes *asked, uint32_t task)
{
    struct replay *r;
    cleanup(stretch_deinit) struct stretch s = {0};
    TRY(plain_state_at(u->q, asked->moment, &r));
    stretch_of_state(u->q, r, &s);
    struct use_item item = {.memory = asked->memory,
                            .task = task,
                            .space = asked->space,
                            .at = asked->at,
                            .len = asked->len};
    memcpy(item.value, asked->value, asked->len);
    TRY(use_add(u, &s, asked->moment, item));
    return use_follow_files(u, &s, 0, asked->moment);
}

struct err *query_uses(struct query_engine *q, json_t *params)
{
    struct focus focus;
    struct asked_bytes asked;
    uint64_t limit = 50;
    TRY(param_focus(q, params, &focus));
    TRY(param_limit(params, 10000, &limit));
    TRY(param_bytes(q, params, &focus, &asked));
    struct uses u = {.q = q,
                     .limit = limit,
                     .show_saves = json_is_true(json_object_get(params, "saves")),
                     .follow = !json_is_false(json_object_get(params, "copies"))};
    u.cache = insn_cache_create();
    struct err *e = add_first(&u, &asked, focus.task);
    if (!e)
        e = follow(&u, asked.moment);
    if (e && err_kind(e) == ERR_LIMIT && u.cut) {
        q->sink->more = true;
        err_free(e);
        e = NULL;
    }
    vec_each (it, &u.items)
        use_drop_saving(it);
    vec_deinit(&u.items);
    vec_each (a, &u.arrivals)
        json_decref(a->row);
    vec_deinit(&u.arrivals);
    free(u.cache);
    return e;
}
