/* Values of the protocol, from and to JSON. */
#include "query/query_int.h"

#include <ctype.h>

json_t *json_moment(struct moment m)
{
    return json_pack("{sI, sI}", "event", (json_int_t)m.event, "instr", (json_int_t)m.icount);
}

json_t *json_task(const struct query_engine *q, uint32_t serial)
{
    const struct known_task *t = known_task(q, serial);
    return json_pack("{si, sI}", "tid", t ? t->tid : 0, "serial", (json_int_t)serial);
}

json_t *json_focus(const struct query_engine *q, struct moment m, uint32_t task, unsigned frame)
{
    json_t *f = json_pack("{so, si}", "moment", json_moment(m), "frame", (int)frame);
    if (task)
        json_object_set_new(f, "task", json_task(q, task));
    return f;
}

json_t *json_hex(uint64_t v)
{
    char text[32];
    snprintf(text, sizeof(text), "0x%llx", (unsigned long long)v);
    return json_string(text);
}

json_t *json_bytes(const uint8_t *p, size_t len)
{
    cleanup(freep) char *text = xmalloc(2 * len + 1);
    for (size_t i = 0; i < len; i++)
        snprintf(text + 2 * i, 3, "%02x", p[i]);
    text[2 * len] = 0;
    return json_string(text);
}

/* Length of the UTF-8 sequence at s, 0: none. */
static size_t utf8_len(const uint8_t *s, size_t left)
{
    if (s[0] < 0x80)
        return 1;
    size_t len = s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc2 ? 2 : 0;
    if (s[0] >= 0xf5 || !len || len > left)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    }
    if ((len == 3 && ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f))) ||
        (len == 4 && ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))))
        return 0;
    return len;
}

json_t *json_text(const char *s, size_t len)
{
    cleanup(buf_deinit) struct buf out = {0};
    const uint8_t *p = (const uint8_t *)s;
    for (size_t i = 0; i < len;) {
        size_t n = utf8_len(p + i, len - i);
        if (!n || !p[i]) {
            buf_str(&out, "\xef\xbf\xbd");
            i++;
        } else {
            buf_add(&out, p + i, n);
            i += n;
        }
    }
    return json_stringn(buf_cstr(&out), out.len);
}

json_t *json_location(const char *file, int line, int column)
{
    json_t *l = json_object();
    json_object_set_new(l, "file", json_text(file, strlen(file)));
    json_object_set_new(l, "line", json_integer(line));
    if (column > 0)
        json_object_set_new(l, "column", json_integer(column));
    return l;
}

json_t *json_mapping(const struct query_engine *q, const struct mapping *m)
{
    size_t records;
    const struct trace_mmap *record = trace_mmaps(q->trace, &records);
    const char *name = m->mmap_idx < records ? record[m->mmap_idx].name : "";
    char prot[5] = {m->prot & 1 ? 'r' : '-', m->prot & 2 ? 'w' : '-', m->prot & 4 ? 'x' : '-',
                    m->object ? 's' : 'p', 0};
    return json_pack("{so, so, ss, so}", "start", json_hex(m->start), "end", json_hex(m->end),
                     "prot", prot, "name", json_text(name, strlen(name)));
}

json_t *json_function(const struct query_engine *q, const struct module *m,
                      const struct sym_function *f)
{
    char id[64];
    // One of which all calls were inlined has no start.
    snprintf(id, sizeof(id), f->range_count ? "%zu:%llx" : "%zu:i%llx", module_index(q, m),
             (unsigned long long)(f->range_count ? f->start : f->id));
    json_t *o = json_object();
    json_object_set_new(o, "name", json_text(f->base_name, strlen(f->base_name)));
    json_object_set_new(o, "full", json_text(f->name, strlen(f->name)));
    json_object_set_new(o, "id", json_string(id));
    return o;
}

/* --- parameters --- */

static struct err *read_moment(json_t *o, const char *name, struct moment *out)
{
    json_t *event = json_object_get(o, "event"), *instr = json_object_get(o, "instr");
    if (!json_is_integer(event) || (instr && !json_is_integer(instr)) ||
        json_integer_value(event) < 0 || json_integer_value(instr) < 0)
        return err_new(ERR_USAGE, "%s: a moment is {\"event\": E, \"instr\": I}", name);
    out->event = (uint64_t)json_integer_value(event);
    out->icount = (uint64_t)json_integer_value(instr);
    return NULL;
}

struct err *param_moment(json_t *params, const char *name, struct moment *out)
{
    json_t *o = json_object_get(params, name);
    if (!json_is_object(o))
        return err_new(ERR_USAGE, "%s is missing", name);
    return read_moment(o, name, out);
}

struct err *param_focus(struct query_engine *q, json_t *params, struct focus *out)
{
    json_t *f = json_object_get(params, "focus");
    *out = (struct focus){0};
    if (!json_is_object(f)) {
        bool signal;
        return f ? err_new(ERR_USAGE, "focus must be an object") : first_focus(q, out, &signal);
    }
    TRY(param_moment(f, "moment", &out->moment));
    if (moment_cmp(out->moment, end_of_recording(q)) > 0)
        out->moment = end_of_recording(q);
    json_t *task = json_object_get(f, "task"), *frame = json_object_get(f, "frame");
    out->task = task_running_at(q, out->moment);
    if (json_is_object(task)) {
        json_t *serial = json_object_get(task, "serial");
        if (!json_is_integer(serial) || !known_task(q, (uint32_t)json_integer_value(serial)))
            return err_new(ERR_USAGE, "focus: there is no such task");
        out->task = (uint32_t)json_integer_value(serial);
    }
    if (!out->task)
        out->task = q->tasks.count ? 1 : 0;
    if (json_is_integer(frame) && json_integer_value(frame) >= 0)
        out->frame = (unsigned)json_integer_value(frame);
    return NULL;
}

struct err *param_window(struct query_engine *q, json_t *params, size_t limit, struct window *out)
{
    json_t *direction = json_object_get(params, "direction"),
           *from = json_object_get(params, "from"), *wanted = json_object_get(params, "limit");
    *out = (struct window){.forward = true, .limit = limit};
    if (direction) {
        const char *text = json_string_value(direction);
        if (!text || (!str_eq(text, "forward") && !str_eq(text, "backward")))
            return err_new(ERR_USAGE, "direction is \"forward\" or \"backward\"");
        out->forward = str_eq(text, "forward");
    }
    if (wanted) {
        if (!json_is_integer(wanted) || json_integer_value(wanted) < 1 ||
            json_integer_value(wanted) > 100000)
            return err_new(ERR_USAGE, "limit is 1 to 100000");
        out->limit = (size_t)json_integer_value(wanted);
    }
    if (json_is_object(from))
        return read_moment(from, "from", &out->from);
    if (json_object_get(params, "focus")) {
        struct focus f;
        TRY(param_focus(q, params, &f));
        out->from = f.moment;
    } else {
        out->from =
            out->forward ? (struct moment){0} : (struct moment){end_of_recording(q).event + 1, 0};
    }
    return NULL;
}

struct err *param_string(json_t *params, const char *name, const char **out)
{
    *out = json_string_value(json_object_get(params, name));
    return *out ? NULL : err_new(ERR_USAGE, "%s is missing", name);
}

struct err *param_u64(json_t *params, const char *name, uint64_t *out)
{
    json_t *v = json_object_get(params, name);
    if (json_is_integer(v) && json_integer_value(v) >= 0) {
        *out = (uint64_t)json_integer_value(v);
        return NULL;
    }
    const char *text = json_string_value(v);
    char *end;
    if (!text || !isdigit((unsigned char)text[0]))
        return err_new(ERR_USAGE, "%s: want a number, or a string like \"0x1000\"", name);
    *out = strtoull(text, &end, 0);
    return *end ? err_new(ERR_USAGE, "%s: want a number, or a string like \"0x1000\"", name) : NULL;
}

struct err *param_limit(json_t *params, uint64_t most, uint64_t *out)
{
    if (json_object_get(params, "limit"))
        TRY(param_u64(params, "limit", out));
    if (*out < 1 || *out > most)
        return err_new(ERR_USAGE, "limit is 1 to %llu", (unsigned long long)most);
    return NULL;
}

struct err *param_function(struct query_engine *q, json_t *params, struct module **module,
                           const struct sym_function **out)
{
    const char *id;
    TRY(param_string(params, "function", &id));
    char *end;
    unsigned long idx = strtoul(id, &end, 10);
    if (*end == ':' && idx < q->modules.count) {
        bool inlined = end[1] == 'i';
        uint64_t start = strtoull(end + 1 + inlined, &end, 16);
        *module = q->modules.items[idx];
        struct sym_module *sym;
        TRY(module_sym(q, *module, &sym));
        if (!*end)
            return inlined ? sym_inlined_function(sym, start, out)
                           : sym_function_at(sym, start, out);
    }
    // A name will do as well.
    vec_each (m, &q->modules) {
        struct sym_module *sym;
        struct err *e = module_sym(q, *m, &sym);
        size_t count;
        if (!e)
            e = sym_functions_named(sym, id, 1, out, &count);
        if (!e && count) {
            *module = *m;
            return NULL;
        }
        err_free(e);
    }
    return err_new(ERR_NOT_FOUND, "there is no function %.100s", id);
}

struct err *give(struct query_engine *q, json_t *row)
{
    if (!q->sink->row(q->sink->ctx, row))
        return err_new(ERR_CANCELLED, "cancelled");
    return NULL;
}

static bool collect_row(void *ctx, json_t *row)
{
    return json_array_append_new(ctx, row) == 0;
}

struct err *collect_rows(struct query_engine *q, query_function *run, json_t *params, json_t *rows,
                         bool *more_out)
{
    struct query_sink *outer = q->sink, sink = *outer;
    sink.ctx = rows;
    sink.row = collect_row;
    sink.progress = NULL; // its ctx is another's
    sink.more = false;
    q->sink = &sink;
    struct err *e = run(q, params);
    q->sink = outer;
    if (more_out)
        *more_out = sink.more;
    return e;
}
