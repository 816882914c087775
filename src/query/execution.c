#include "query/execution_int.h"

enum { CACHE_SIZE = 1 << 13 };

struct insn_cache {
    struct {
        gaddr pc;
        uint8_t bytes[X86_MAX_LEN + 1];
        struct x86_insn insn;
    } items[CACHE_SIZE];
};

struct insn_cache *insn_cache_create(void)
{
    return xnew(struct insn_cache);
}

const struct x86_insn *insn_cached(struct insn_cache *cache, const struct step_row *row)
{
    gaddr pc = row->regs.r[UREG_RIP];
    __typeof__(&cache->items[0]) c = &cache->items[(pc ^ pc >> 13) % CACHE_SIZE];
    if (c->pc == pc && c->insn.len && memcmp(c->bytes, row->code, c->insn.len) == 0 &&
        c->insn.len <= row->code_len)
        return &c->insn;
    c->pc = pc;
    c->insn.len = 0;
    if (!x86_decode(row->code, row->code_len, pc, &c->insn))
        return NULL;
    memcpy(c->bytes, row->code, sizeof(row->code));
    return &c->insn;
}

static bool read_vectors(void *ctx, unsigned start, unsigned len, uint8_t *out)
{
    struct execution *x = ctx;
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    if (!x->loaded) {
        struct replay *r;
        struct err *e = plain_state_at(x->q, st->at, &r);
        if (!e)
            e = replay_xstate(r, st->task, &x->xstate);
        x->loaded = !e;
        err_free(e);
    }
    return x->loaded && read_xstate(x->xstate.data, start, len, out);
}

static bool read_bytes(void *ctx, bool after, gaddr addr, unsigned len, uint8_t *out)
{
    struct execution *x = ctx;
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    struct moment m = {st->at.event, st->at.icount + after};
    struct replay *r;
    struct err *e = plain_state_at(x->q, m, &r);
    if (!e)
        e = replay_read(r, st->space, addr, out, len, NULL);
    bool ok = !e;
    err_free(e);
    return ok;
}

void execution_init(struct execution *x, struct query_engine *q, void *owner,
                    const struct stretch *s, size_t i, const struct x86_insn *in)
{
    x->q = q;
    x->owner = owner;
    x->stretch = s;
    x->step = i;
    x->insn = in;
    x->loaded = false;
    x->run = (struct x86_run){.before = &s->steps.items[i].row->regs,
                              .ctx = x,
                              .registers = read_vectors,
                              .memory = read_bytes};
}

bool execution_touches(const struct execution *x, const struct x86_access *a, uint32_t space,
                       uint32_t object, uint64_t at, uint32_t len, gaddr *out)
{
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    if (!object) {
        *out = at;
        return st->space == space && a->addr < at + len && (a->addr + a->len > at || !a->len);
    }
    const struct stretch_mapping *m = stretch_mapping_at(x->stretch, st->space, a->addr, st->at);
    if (!m || m->object != object)
        return false;
    *out = at - m->offset + m->start;
    return a->addr < *out + len && a->addr + a->len > *out;
}

json_t *execution_row(const struct execution *x, const char *kind)
{
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    gaddr pc = x->insn->pc;
    char text[128];
    json_t *row = json_pack("{ss, ss, so}", "kind", kind, "text",
                            x86_format(st->row->code, st->row->code_len, pc, text, sizeof(text)),
                            "pc", json_hex(pc));
    const struct stretch_mapping *m = stretch_mapping_at(x->stretch, st->space, pc, st->at);
    struct code_place p =
        m ? place_in(x->q, m->mmap_idx, m->start, m->offset, pc) : (struct code_place){0};
    if (p.module)
        describe_place(x->q, &p, row);
    return row;
}

struct err *param_bytes(struct query_engine *q, json_t *params, const struct focus *focus,
                        struct asked_bytes *out)
{
    struct replay *r;
    *out = (struct asked_bytes){0};
    TRY(plain_state_at(q, focus->moment, &r));
    TRY(space_of_task(r, focus->task, &out->space));
    out->moment = replay_now(r);
    const char *name = json_string_value(json_object_get(params, "register"));
    if (json_object_get(params, "register")) {
        struct x86_span span;
        uint64_t start = 0, len;
        if (!name || !x86_register_by_name(name, &span))
            return err_new(ERR_USAGE, "register: there is none named %.20s", name ? name : "so");
        len = span.len;
        if (json_object_get(params, "start"))
            TRY(param_u64(params, "start", &start));
        if (json_object_get(params, "length"))
            TRY(param_u64(params, "length", &len));
        else if (start < span.len)
            len = span.len - start;
        if (!len || start > span.len || len > span.len - start)
            return err_new(ERR_USAGE, "%s has %u bytes", name, span.len);
        out->at = span.start + start;
        out->len = (uint32_t)len;
        struct regs regs;
        struct xstate x;
        TRY(replay_regs(r, focus->task, &regs));
        if (x86_read_regs(&regs, (unsigned)out->at, out->len, out->value))
            return NULL;
        TRY(replay_xstate(r, focus->task, &x));
        if (read_xstate(x.data, (unsigned)out->at, out->len, out->value))
            return NULL;
        return err_new(ERR_NOT_FOUND, "this recording has no register %s", name);
    }
    uint64_t len;
    TRY(param_u64(params, "address", &out->at));
    TRY(param_u64(params, "length", &len));
    if (len < 1 || len > MOST_BYTES || out->at + len < out->at)
        return err_new(ERR_USAGE, "length is 1 to %d", MOST_BYTES);
    out->memory = true;
    out->len = (uint32_t)len;
    struct err *e = replay_read(r, out->space, out->at, out->value, len, NULL);
    return e ? err_prefix(e, "%#llx", (unsigned long long)out->at) : NULL;
}
