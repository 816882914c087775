/* Query for writes to, and reads of, memory. */
#include "query/query_int.h"

struct found {
    VEC(struct write_hit) hits;
};

static bool collect(void *ctx, const struct write_hit *h)
{
    struct found *f = ctx;
    vec_push(&f->hits, *h);
    return true;
}

/* The bytes asked about, as they are at a moment. */
static json_t *bytes_at(struct query_engine *q, struct moment m, uint32_t task, gaddr addr,
                        uint64_t len)
{
    struct replay *r;
    uint32_t space;
    cleanup(freep) uint8_t *data = xcalloc(1, len);
    struct err *e = plain_state_at(q, m, &r);
    if (!e)
        e = space_of_task(r, task, &space);
    if (!e)
        e = replay_read(r, space, addr, data, len, NULL);
    json_t *result = e ? json_null() : json_bytes(data, len);
    err_free(e);
    return result;
}

static struct err *give_access(struct query_engine *q, const struct write_hit *h, uint32_t task,
                               gaddr addr, uint64_t len)
{
    struct replay *r;
    uint32_t space;
    json_t *row = json_object();
    json_object_set_new(row, "focus", json_focus(q, h->moment, h->task, 0));
    json_object_set_new(row, "task", json_task(q, h->task));
    json_object_set_new(row, "address", json_hex(h->addr));
    json_object_set_new(row, "size", json_integer((json_int_t)h->size));
    json_object_set_new(row, "access", json_string(h->read ? "read" : "write"));
    json_object_set_new(row, "by", json_string(h->event ? "kernel" : "instruction"));
    // In the order of time, for states.
    json_t *before = bytes_at(q, h->moment, task, addr, len);
    struct regs regs;
    struct err *e = plain_state_at(q, h->moment, &r);
    if (!e)
        e = space_of_task(r, h->task, &space);
    if (!e)
        e = replay_regs(r, h->task, &regs);
    if (!e)
        describe_code(q, r, space, regs.r[UREG_RIP], false, row);
    err_free(e);
    struct moment next = h->event ? (struct moment){h->moment.event + 1, 0}
                                  : (struct moment){h->moment.event, h->moment.icount + 1};
    json_t *after = h->read ? NULL : bytes_at(q, next, task, addr, len);
    if (h->possible && (h->read || json_equal(before, after)))
        json_object_set_new(row, "possible", json_true());
    json_object_set_new(row, "before", before);
    if (after)
        json_object_set_new(row, "after", after);
    if (h->event) {
        const struct db_event *event;
        char name[64];
        e = event_at(q, h->event, &event, NULL);
        if (!e)
            json_object_set_new(row, "event",
                                json_pack("{sI, ss}", "number", (json_int_t)h->event, "name",
                                          event_name(q, event, name, sizeof(name))));
        err_free(e);
    }
    return give(q, row);
}

struct err *query_watchpoint(struct query_engine *q, json_t *params)
{
    uint64_t addr, len;
    struct window w;
    struct focus f;
    TRY(param_u64(params, "address", &addr));
    TRY(param_u64(params, "length", &len));
    if (len < 1 || len > 4096 || addr + len < addr)
        return err_new(ERR_USAGE, "length is 1 to 4096");
    TRY(param_focus(q, params, &f));
    TRY(param_window(q, params, 50, &w));
    const char *access = json_string_value(json_object_get(params, "access"));
    unsigned what = !access || str_eq(access, "write") ? WATCH_STORES
                    : str_eq(access, "read")           ? WATCH_LOADS
                    : str_eq(access, "both")           ? WATCH_STORES | WATCH_LOADS
                                                       : 0;
    if (!what)
        return err_new(ERR_USAGE, "access is read, write or both");
    json_t *space = json_object_get(params, "space");
    if (json_is_object(space) && json_is_integer(json_object_get(space, "serial")))
        f.task = (uint32_t)json_integer_value(json_object_get(space, "serial"));
    if (!json_object_get(params, "from"))
        w.from = f.moment;
    struct found found = {0};
    bool more;
    struct err *e = find_accesses(q, what, &f, addr, len, &w, collect, &found, &more);
    q->sink->more = !e && more;
    for (size_t i = 0; !e && i < found.hits.count; i++)
        e = give_access(q, &found.hits.items[i], f.task, addr, len);
    vec_deinit(&found.hits);
    return e;
}
