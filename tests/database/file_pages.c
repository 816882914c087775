/* file_pages TRACE - pages of mapped files that hold what the file does are not stored, though they
 * were written before the file was mapped there, as libraries are: the recorder's data fill the
 * place of a library before its parts are mapped. TRACE is a copy of a recording; a database is
 * made in it. */
#include "db/history.h"
#include "index/boundary.h"
#include "index/build.h"

#include <stdio.h>

static void must(struct err *e)
{
    if (!e)
        return;
    printf("FAIL: %s\n", err_message(e));
    exit(1);
}

struct counting {
    struct replay *replay;
    uint32_t space;
    size_t stored, same;
};

static struct err *count_same(void *ctx, uint64_t addr, const uint8_t *pages, size_t count)
{
    struct counting *c = ctx;
    for (size_t i = 0; i < count; i++) {
        uint8_t fresh[PAGE_SIZE];
        size_t read;
        TRY(replay_read_files(c->replay, c->space, addr + i * PAGE_SIZE, 1, fresh, &read));
        c->stored += read;
        c->same += read && memcmp(fresh, pages + i * PAGE_SIZE, PAGE_SIZE) == 0;
    }
    return NULL;
}

static struct err *file_page(void *ctx, uint64_t addr, uint8_t *page)
{
    struct counting *c = ctx;
    size_t read;
    memset(page, 0, PAGE_SIZE);
    return replay_read_files(c->replay, c->space, addr, 1, page, &read);
}

int main(int argc, char **argv)
{
    cleanup(trace_closep) struct trace *t = NULL;
    cleanup(history_closep) struct history *h = NULL;
    cleanup(freep) char *dir = str_format("%s/db", argv[1]);
    must(
        index_build(argv[1], &(struct build_options){.segment_icount = 200000, .shards = 1}, NULL));
    must(trace_open(argv[1], &t));
    must(history_open(dir, trace_header(t)->uuid, &h));
    size_t segments, spaces;
    history_segments(h, &segments);
    struct counting c = {0};
    for (size_t i = 1; i < segments; i++) {
        cleanup(replay_closep) struct replay *r = NULL;
        must(boundary_restore(h, t, i, NULL, 0, &r));
        const uint32_t *list = replay_spaces(r, &spaces);
        c.replay = r;
        for (size_t k = 0; k < spaces; k++) {
            c.space = list[k];
            must(history_pages(
                h, i, list[k], 0,
                &(struct page_sink){.ctx = &c, .put = count_same, .fresh = file_page}));
        }
    }
    printf("%zu boundaries: of %zu pages of mapped files %zu are as in the file\n", segments - 1,
           c.stored, c.same);
    if (!c.stored || c.same * 10 > c.stored) {
        printf("FAIL\n");
        return 1;
    }
    return 0;
}
