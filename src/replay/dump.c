/* Translated blocks as text: on the left the recorded program's instructions, on the right what the
 * engine made of each. docs/replay.md has an example. */
#include "replay/replay_int.h"

#include "x86/x86.h"

static const char *const mode_names[] = {[ENGINE_COUNT] = "count",
                                         [ENGINE_CALLS] = "calls",
                                         [ENGINE_INDEX] = "index",
                                         [ENGINE_LOG] = "log",
                                         [ENGINE_LOG_LOADS] = "log and loads"};

/* What a block's row holds, by place in it. */
struct dumped {
    struct block_dump block;
    const uint8_t *insns, *guest, *host, *stubs;
};

static bool take_dumped(struct bytes *b, struct dumped *out)
{
    const uint8_t *raw = bytes_take(b, sizeof(out->block));
    if (!raw)
        return false;
    memcpy(&out->block, raw, sizeof(out->block));
    out->insns = bytes_take(b, out->block.insn_count * sizeof(struct block_dump_insn));
    out->guest = bytes_take(b, out->block.guest_len);
    out->host = bytes_take(b, out->block.host_len);
    out->stubs = bytes_take(b, out->block.stubs_len);
    bytes_take(b, out->block.padding);
    return !b->failed && out->block.mode < sizeof(mode_names) / sizeof(mode_names[0]);
}

static struct block_dump_insn insn_of(const struct dumped *d, unsigned i)
{
    struct block_dump_insn insn;
    memcpy(&insn, d->insns + i * sizeof(insn), sizeof(insn));
    return insn;
}

/* Addresses among the stubs where constants are that the code loads. */
typedef VEC(uint64_t) address_list;

static bool is_constant(const address_list *constants, uint64_t address)
{
    vec_each (c, constants) {
        if (*c == address)
            return true;
    }
    return false;
}

static void find_constants(const struct dumped *d, const uint8_t *code, uint64_t address,
                           uint32_t len, address_list *out)
{
    struct x86_insn in;
    for (uint32_t at = 0; at < len;) {
        bool known = x86_decode(code + at, len - at, address + at, &in);
        for (unsigned i = 0; known && i < X86_MAX_OPERANDS; i++) {
            const struct x86_operand *op = &in.operands[i];
            if (op->kind == X86_MEMORY && op->mem.base == X86_NONE && op->mem.index == X86_NONE &&
                (uint64_t)op->mem.disp - d->block.stubs < d->block.stubs_len)
                vec_push(out, (uint64_t)op->mem.disp);
        }
        at += known ? in.len : 1;
    }
}

/* Host code from `from` to `to`, `left` beside its first line. */
static void print_host(struct buf *out, const char *left, const uint8_t *code, uint64_t address,
                       uint32_t from, uint32_t to, const address_list *constants)
{
    char text[200];
    if (from >= to)
        buf_printf(out, "  %-60s |\n", left);
    while (from < to) {
        struct x86_insn in;
        uint32_t len = to - from;
        unsigned long long at = address + from;
        if (len >= 8 && is_constant(constants, at)) {
            buf_printf(out, "  %-60s | %#llx constant %#llx\n", left, at,
                       (unsigned long long)load_u64(code + from));
            from += 8;
        } else {
            buf_printf(out, "  %-60s | %#llx %s\n", left, at,
                       x86_format(code + from, len, at, text, sizeof(text)));
            from += x86_decode(code + from, len, at, &in) ? in.len : 1;
        }
        left = "";
    }
}

static struct err *print_block(const struct dumped *d, const struct space *s,
                               address_list *constants, struct buf *out)
{
    const struct block_dump *b = &d->block;
    buf_printf(out,
               "block %#llx of space %u, %s%s: %u instructions, %u bytes; %u bytes at %#llx, %u "
               "bytes of stubs at %#llx\n",
               (unsigned long long)b->pc, s->uid, mode_names[b->mode], b->exact ? ", exact" : "",
               b->insn_count, b->guest_len, b->host_len, (unsigned long long)b->host, b->stubs_len,
               (unsigned long long)b->stubs);
    uint32_t begun = 0;
    find_constants(d, d->host, b->host, b->host_len, constants);
    find_constants(d, d->stubs, b->stubs, b->stubs_len, constants);
    for (unsigned i = 0; i <= b->insn_count; i++) {
        uint32_t next = i < b->insn_count ? insn_of(d, i).host : b->host_len;
        if (next < begun || next > b->host_len)
            return err_new(ERR_OS, "worker: nonsense in a reply");
        char text[200], left[260] = "";
        if (i) {
            uint32_t at = insn_of(d, i - 1).guest;
            size_t len = at < b->guest_len ? b->guest_len - at : 0;
            snprintf(left, sizeof(left), "%#llx %s", (unsigned long long)(b->pc + at),
                     x86_format(d->guest + (len ? at : 0), len < X86_MAX_LEN ? len : X86_MAX_LEN,
                                b->pc + at, text, sizeof(text)));
        }
        if (i || next)
            print_host(out, left, d->host, b->host, begun, next, constants);
        begun = next;
    }
    if (b->stubs_len)
        print_host(out, "stubs", d->stubs, b->stubs, 0, b->stubs_len, constants);
    buf_str(out, "\n");
    return NULL;
}

struct err *tell_blocks(struct replay *r, struct space *s)
{
    cleanup(buf_deinit) struct buf rows = {0}, text = {0};
    TRY(worker_take_dump(s->worker, &rows));
    struct bytes b = bytes_of(rows.data, rows.len);
    while (bytes_left(&b)) {
        struct dumped d;
        if (!take_dumped(&b, &d))
            return err_new(ERR_OS, "worker: nonsense in a reply");
        address_list constants = {0};
        text.len = 0;
        struct err *e = print_block(&d, s, &constants, &text);
        vec_deinit(&constants);
        TRY(e);
        r->tell_block(r->tell_block_ctx, buf_cstr(&text));
    }
    return NULL;
}

struct err *replay_tell_blocks(struct replay *r, block_teller *tell, void *ctx)
{
    r->tell_block = tell;
    r->tell_block_ctx = ctx;
    vec_each (s, &r->spaces)
        TRY(worker_dump_blocks((*s)->worker, tell != NULL));
    return NULL;
}
