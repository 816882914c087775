/* other_cpus TRACE - recordings of other CPUs than this. Vector state in another layout (XSAVE
 * images, SDM 1, 13.4.3), or with tiles (AMX), is put where this CPU has it, and programs which do
 * not use tiles are replayed. Ticks that are other branches are refused.
 *
 * Linked with --wrap=trace_cpuid,--wrap=trace_header: the CPU that a trace tells of is made up. */
#include "replay/replay_int.h"
#include "x86/xstate.h"

#include <stdio.h>
#include <string.h>

enum { TILE_CONFIG = 17, TILES = 18, COMPONENTS };
static const struct cpu {
    const char *name;
    uint64_t xcr0;
    struct xstate_place components[COMPONENTS];
    size_t len;
} cpus[] = {
    {"Intel",
     0x2e7,
     {[2] = {576, 256}, [5] = {1088, 64}, [6] = {1152, 512}, [7] = {1664, 1024}, [9] = {2688, 8}},
     2696},
    {"Intel with tiles",
     0x602e7,
     {[2] = {576, 256},
      [5] = {1088, 64},
      [6] = {1152, 512},
      [7] = {1664, 1024},
      [9] = {2688, 8},
      [TILE_CONFIG] = {2752, 64},
      [TILES] = {2816, 8192}},
     11008},
    {"AMD",
     0x2e7,
     {[2] = {576, 256}, [5] = {832, 64}, [6] = {896, 512}, [7] = {1408, 1024}, [9] = {2432, 8}},
     2440},
};
static const struct cpu *cpu; /* NULL: the trace's own */
static bool counts_taken;     /* it counts branches that are taken, as AMD's family 15h did */
static struct trace_header header;

void __real_trace_cpuid(const struct trace *t, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
void __wrap_trace_cpuid(const struct trace *t, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
void __wrap_trace_cpuid(const struct trace *t, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    if (!cpu || leaf != 0xd || subleaf < 2) {
        __real_trace_cpuid(t, leaf, subleaf, out);
        return;
    }
    memset(out, 0, 16);
    if (subleaf < COMPONENTS)
        memcpy(out,
               (const uint32_t[]){cpu->components[subleaf].len, cpu->components[subleaf].offset},
               8);
}

const struct trace_header *__real_trace_header(const struct trace *t);
const struct trace_header *__wrap_trace_header(const struct trace *t);
const struct trace_header *__wrap_trace_header(const struct trace *t)
{
    if (!cpu)
        return __real_trace_header(t);
    uint64_t xcr0 = cpu->xcr0;
    header = t ? *__real_trace_header(t) : (struct trace_header){0};
    header.xcr0 = xcr0;
    header.ticks_semantics = counts_taken;
    return &header;
}

/* --- images --- */

static uint8_t image[16384];

/* An image in which component i is made of bytes i; `present`: those in use, a bit for each. */
static void make_image(uint64_t present)
{
    memset(image, 0, sizeof(image));
    memset(image + 160, 1, 256);
    memcpy(image + 512, &present, 8);
    for (unsigned i = 2; i < COMPONENTS; i++)
        memset(image + cpu->components[i].offset, (int)i, cpu->components[i].len);
}

static bool is_filled(const uint8_t *at, int value, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (at[i] != value)
            return false;
    }
    return true;
}

static bool converts(void)
{
    static struct xstate out;
    make_image(cpu->xcr0 & 0x2e7);
    struct err *e = xstate_convert(NULL, image, cpu->len, &out);
    bool good = !e && out.data[512] == 0xe7 && is_filled(out.data + 160, 1, 256);
    for (unsigned i = 2; i < 8; i++) {
        if (cpu->components[i].len)
            good &= is_filled(out.data + xstate_offset(i), (int)i, cpu->components[i].len);
    }
    printf("%s: %s\n", cpu->name, e ? err_message(e) : good ? "converted" : "converted wrongly");
    err_free(e);
    return good;
}

static bool fails(uint64_t present, size_t len, enum err_kind kind, const char *why)
{
    static struct xstate out;
    make_image(present);
    struct err *e = xstate_convert(NULL, image, len, &out);
    printf("%s, in use %#llx: %s\n", cpu->name, (unsigned long long)present,
           e ? err_message(e) : "converted");
    bool good = e && err_kind(e) == kind && strstr(err_message(e), why);
    err_free(e);
    return good;
}

/* --- replays --- */

static struct err *replay(const char *dir, enum engine_mode mode)
{
    cleanup(trace_closep) struct trace *t = NULL;
    cleanup(replay_closep) struct replay *r = NULL;
    const struct cpu *made_up = cpu;
    cpu = NULL;
    TRY(trace_open(dir, &t));
    cpu = made_up;
    TRY(replay_open(t, &r));
    cpu = NULL; // images in the trace are those of the CPU that it was recorded on
    TRY(replay_set_mode(r, mode, NULL));
    return replay_run(r, MOMENT_END, UINT64_MAX, NULL);
}

static bool replays(const char *dir, enum engine_mode mode)
{
    const struct cpu *made_up = cpu;
    struct err *e = replay(dir, mode);
    cpu = made_up;
    printf("%s: %s\n", cpu->name, e ? err_message(e) : "replayed");
    bool good = !e;
    err_free(e);
    return good;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fputs("usage: other_cpus TRACE\n", stderr);
        return 2;
    }
    bool good = true;
    for (size_t i = 0; i < sizeof(cpus) / sizeof(cpus[0]); i++) {
        cpu = &cpus[i];
        good &= converts();
        good &= fails(0xe7, 1200, ERR_FORMAT, "does not fit");
        good &= replays(argv[1], ENGINE_COUNT) && replays(argv[1], ENGINE_INDEX);
    }
    counts_taken = true;
    struct err *e = replay(argv[1], ENGINE_COUNT);
    puts(e ? err_message(e) : "replayed");
    good &= e && err_kind(e) == ERR_UNSUPPORTED && strstr(err_message(e), "taken branches");
    err_free(e);
    cpu = &cpus[1];
    good &= fails(0xe7 | 1u << TILE_CONFIG, cpu->len, ERR_UNSUPPORTED, "component 17");
    good &= fails(0xe7 | 1u << TILES, cpu->len, ERR_UNSUPPORTED, "component 18");
    return !good;
}
