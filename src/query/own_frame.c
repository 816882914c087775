/* Whose doing it is: of the frames behind a call into a library, the one to show. */
#include "query/query_int.h"

/* Is it a frame of the language's library, rather than of the program? */
static bool is_runtime(const char *function, const char *file)
{
    static const char *const starts[] = {
        "std::",       "core::",       "alloc::",        "rust_",  "__rust",
        "__cxa_",      "__asan",       "__ubsan",        "__tsan", "__sanitizer",
        "__gnu_cxx::", "operator new", "operator delete"};
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        if (str_starts(function, starts[i]))
            return true;
    }
    return str_starts(file, "/rustc/"); // where Rust's own library was compiled
}

static const char *module_of(json_t *frame)
{
    const char *name = json_string_value(json_object_get(frame, "module"));
    return name ? name : "";
}

/* Of the callers that a frame has, innermost first: the program's that is known best. Frames of the
 * module that was called are none of these, unless all are, as in a static program. NULL: there is
 * none. Borrowed. */
static json_t *frame_to_show(json_t *frames)
{
    const char *library = module_of(json_array_get(frames, 0));
    json_t *first = NULL, *known = NULL;
    for (int everywhere = 0; everywhere < 2 && !first; everywhere++) {
        for (size_t i = 1; i < json_array_size(frames) && !known; i++) {
            json_t *frame = json_array_get(frames, i),
                   *function = json_object_get(frame, "function");
            const char *name = json_string_value(json_object_get(function, "full")),
                       *file = json_string_value(
                           json_object_get(json_object_get(frame, "location"), "file"));
            if (!everywhere && str_eq(module_of(frame), library))
                continue;
            first = first ? first : frame;
            known = name && file && !is_runtime(name, file) ? frame : NULL;
        }
    }
    return known ? known : first;
}

struct err *add_own_frame(struct query_engine *q, struct moment m, uint32_t task, json_t *row)
{
    enum { FRAMES = 32 };
    static const char *const parts[] = {"module", "function", "location"};
    json_t *params = json_pack("{so, si}", "focus", json_focus(q, m, task, 0), "limit", FRAMES),
           *frames = json_array();
    struct err *e = collect_rows(q, query_frames, params, frames, NULL);
    json_decref(params);
    json_t *frame = e ? NULL : frame_to_show(frames);
    unsigned number = (unsigned)json_integer_value(json_object_get(frame, "frame"));
    json_object_set_new(row, "focus", json_focus(q, m, task, number));
    json_object_set_new(row, "task", json_task(q, task));
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (json_object_get(frame, parts[i]))
            json_object_set(row, parts[i], json_object_get(frame, parts[i]));
    }
    json_decref(frames);
    return e;
}
