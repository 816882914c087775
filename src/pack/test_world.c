#include "pack/test_world.h"

#include <sys/stat.h>

static void run(char *command)
{
    int status = system(command);
    if (status != 0)
        fail_msg("%s: status %d", command, status);
    free(command);
}

void world_run(const struct world *w, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    cleanup(freep) char *words = str_vformat(format, args);
    va_end(args);
    run(str_format("cd %s && %s", w->made, words));
}

void world_check(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *words = str_vformat(format, args);
    va_end(args);
    run(words);
}

bool world_has(const char *tool)
{
    cleanup(freep) char *command = str_format("command -v %s >/dev/null", tool);
    return system(command) == 0;
}

struct world world_make(void)
{
    struct world w = {.trace = small_trace_create(1 << 16)};
    w.made = str_format("%s-made", w.trace);
    assert_int_equal(mkdir(w.made, 0700), 0);
    return w;
}

void world_forget(struct world *w)
{
    if (w->made)
        world_check("rm -rf %s", w->made);
    free(steal(w->made));
}

void world_deinit(struct world *w)
{
    world_forget(w);
    world_check("rm -rf %s", w->trace);
    free(w->trace);
    free(w->said);
}

void world_map(struct world *w, const char *const *names, size_t count)
{
    struct small_map maps[4];
    char *owned[8];
    assert_true(count <= 4);
    for (size_t i = 0; i < count; i++) {
        world_run(w, "cp %s %s/mmap_pack_%zu_%s", names[i], w->trace, i, names[i]);
        owned[2 * i] = str_format("%s/%s", w->made, names[i]);
        owned[2 * i + 1] = str_format("mmap_pack_%zu_%s", i, names[i]);
        maps[i] = (struct small_map){owned[2 * i], owned[2 * i + 1]};
    }
    small_trace_map(w->trace, maps, count);
    for (size_t i = 0; i < 2 * count; i++)
        free(owned[i]);
}

static void hear(void *ctx, const char *text)
{
    struct world *w = ctx;
    char *more = w->said ? str_format("%s%s\n", w->said, text) : str_format("%s\n", text);
    free(w->said);
    w->said = more;
}

struct pack_listener world_listener(struct world *w, bool all)
{
    return (struct pack_listener){.ctx = w, .say = all ? hear : NULL, .warn = hear};
}
