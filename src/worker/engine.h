/* The engine: runs recorded x86-64 code in this very process by dynamic binary translation. Guest
 * address == host address. The guest's FS and GS bases are plain numbers that are added to
 * addresses: kernels without FSGSBASE would lose a base that is set in the CPU, or take
 * microseconds to set it. This header is the contract between the translator and run loop and
 * whoever hosts them: the worker's command loop, or a test that runs a function of its own under
 * the engine.
 *
 * Freestanding: built with -ffreestanding -fPIC -mgeneral-regs-only -fno-stack-protector, no libc:
 * between runs the guest's vector state stays loaded in the CPU. Whatever uses vector registers
 * (Zydis) is bracketed by saving the guest's (xsave). One thread.
 *
 * Five variants of translation, each with its own table of blocks:
 *   count      instructions and ticks are counted
 *   calls      and it is known which calls have not returned (calls.h)
 *   index      and besides how often each block runs, and which granules of 8 bytes are written (marks.h)
 *   log        and every block and every store's address goes into a log, for consumers
 *   log-loads  and every load's address, too
 * Registers are stolen from the guest and live in memory: R15 in all variants for the count; R14 in
 * the last four for the stack of calls or the log; R11 in these for addresses.
 *
 * Counting. R15 holds ((budget - instructions) << 20) + ticks. Every basic block subtracts at its
 * start (instructions << 20) - ticks of the whole block and leaves if the result is negative, so a
 * block runs only if the budget covers all of it, and the state at that exit is exact: the block's
 * first instruction, nothing of it done. The run loop hands out budgets below 2^20 and sums up in
 * 64-bit counters. A stop in mid-block is a translation of just the instructions wanted. Where all
 * six arithmetic flags are dead at the block's start the subtraction is `sub; js`, elsewhere `lea`
 * and a flag-free test of the sign; in a block that ends in an indirect branch that test is part of
 * the branch, so such a block may use up to its own length more than the budget: the run loop keeps
 * more than that back. */
#ifndef WORKER_ENGINE_H
#define WORKER_ENGINE_H

#include "base/types.h"

#include <stddef.h>

enum engine_mode {
    ENGINE_COUNT,
    ENGINE_CALLS,
    ENGINE_INDEX,
    ENGINE_LOG,
    ENGINE_LOG_LOADS,
    ENGINE_MODES
};
/** Is the stack of calls kept? */
static inline bool engine_keeps_calls(enum engine_mode mode)
{
    return mode == ENGINE_CALLS || mode == ENGINE_INDEX;
}

/* Where the engine may live. All addresses are free for it: the recording never maps there. */
struct engine_layout {
    uint64_t low_area;     /* in the low 2 GiB: state page(s) and lookup tables, reached by absolute
                              disp32 */
    uint64_t low_area_len; /* >= ENGINE_LOW_AREA_LEN */
    struct addr_range cache_areas[64]; /* holes usable for code caches; the engine takes one within
                                          reach of the code to translate and carves a cache of up to
                                          64 MiB out of it, and if none is within reach uses any
                                          (operands are then addressed through a register) */
    size_t cache_area_count;
    uint64_t log_area; /* ENGINE_LOG_LEN bytes and a guard page, anywhere */
    /* For the index: address A's shadow is the byte at shadow_base + A / 8. The shadows of all
     * `used` ranges, their ends moved out to multiples of ENGINE_SHADOW_SPAN, are free for the
     * engine. `used` (sorted, disjoint) is what the recording maps at any time; it has to stay. */
    uint64_t shadow_base; /* a multiple of ENGINE_SHADOW_SPAN / 8 */
    int32_t shadow_fd;    /* a memfd of 16 TiB (ENGINE_SHADOW_LEN): the shadows' memory */
    const struct addr_range *used;
    size_t used_count;
};
#define ENGINE_LOW_AREA_LEN (8u << 20)
#define ENGINE_SHADOW_SPAN  (128ull << 20)
#define ENGINE_SHADOW_LEN   (1ull << 44)
#define ENGINE_LOG_LEN      (1u << 20)

enum stop_reason {
    STOP_LIMIT,   /* max_icount reached: exactly that many instructions retired */
    STOP_TICKS,   /* stop_ticks reached: just behind the branch that retired as the stop_ticks-th */
    STOP_MATCH,   /* match found (see engine_request) */
    STOP_SYSCALL, /* at a syscall, sysenter or int 0x80: not executed, rip at it; insn_len tells its
                     length */
    STOP_TRAP,    /* at rdtsc, rdtscp, cpuid, xgetbv, rdrand, rdseed, rdpid, lsl, lar, verr, verw,
                     rdpmc...: not executed; trap tells which */
    STOP_FAULT, /* the instruction at rip raises a signal: signo, code, address as in siginfo. Exact
                   state before it; for int3 rip is behind it, as the kernel reports it */
    STOP_BREAK, /* rip is one of the break addresses; the instruction there is not yet executed */
    STOP_CONSUMER, /* the log consumer asked to stop; the state is that at the end of a block after
                      the hit */
    STOP_UNSUPPORTED, /* an instruction the engine cannot run; rip at it */
    STOP_ERROR,       /* the engine itself failed (out of cache and memory...): see error text */
};

enum trap_insn {
    TRAP_RDTSC,
    TRAP_RDTSCP,
    TRAP_CPUID,
    TRAP_XGETBV,
    TRAP_RDRAND,
    TRAP_RDSEED,
    TRAP_RDPID,
    TRAP_LSL,
    TRAP_LAR,
    TRAP_VERR,
    TRAP_VERW,
    TRAP_OTHER,
    // never seen outside of the engine, which carries these out:
    TRAP_SEGMENT_BASE /* wrfsbase, wrgsbase */,
    TRAP_FAR /* far.h */
};

struct engine_request {
    enum engine_mode mode;
    bool use_match; /* stop where rip == match.rip, ticks == stop_ticks (counted from this run's
                       start) and the general registers but rsp, eflags equal `match`; compared
                       before every instruction from the point where stop_ticks is reached; also in
                       the midst of a `rep` string instruction (partial rcx). If ticks would exceed
                       stop_ticks first: STOP_TICKS with passed = true. */
    bool use_ticks; /* stop at stop_ticks */
    uint64_t max_icount; /* UINT64_MAX: no limit */
    uint64_t stop_ticks;
    struct regs match;
    uint64_t stamp, icount_base; /* for the index: when calls of this run are made is told as
                                    `stamp` and instructions since `icount_base` before its start */
    bool answer_cpuid; /* not for the engine, but for the worker around it: CPUID is no stop if
                          there is a table for it */
    bool clear_x87;    /* likewise: engine_clear_x87() first */
    bool judge_start;  /* a break address where the run begins is put to the judge, too
                          (engine_set_judge()) */
};

struct engine_result {
    enum stop_reason reason;
    uint64_t icount, ticks; /* retired in this run */
    bool passed;
    uint8_t insn_len;
    uint8_t trap; /* enum trap_insn */
    int32_t signo, si_code;
    uint64_t fault_addr;
    uint64_t host_pc; /* for diagnosis */
    char error[128];
};

struct calls;

/* One recorded thread's state while it is not running. regs.r[UREG_RIP] etc. are guest values. */
struct engine_task {
    struct regs regs;
    struct calls *calls; /* NULL until it runs in a mode that keeps them */
    bool xstate_valid;   /* false: initial state, as after exec */
    uint8_t xstate[XSTATE_MAX] __attribute__((aligned(64)));
};

/* --- What a block of the log variants writes, and who reads it ---
 * A block's record: u32 block index, u32 zero, then for each access slot in program order a u64:
 * the guest address of its first byte. Those with `rep` take two slots: the address register before
 * and after. Records have the fixed length 8 + 8 * slot_count. */
enum access_kind {
    STORE_PLAIN,   /* writes exactly `size` bytes at the address */
    STORE_REP,     /* `rep stos/movs`: two slots of RDI, element size in `size`; [before, after), or
                      downwards if after < before */
    STORE_MASKED,  /* writes a part of [address, address + size): masked or conditional, the mask is
                      in the registers */
    STORE_CALL,    /* the return address pushed by a call: plain, 8 bytes */
    STORE_STATE,   /* fxsave, xsave, enter...: at most `size` bytes */
    STORE_SCATTER, /* writes anywhere: elements at addresses only the registers tell; the slot is
                      the base */
    LOAD_PLAIN,    /* from here on loads, in log-loads only: reads exactly `size` bytes */
    LOAD_REP, /* `rep movs/cmps/lods/scas`: two slots of RSI (and the base of its segment) or RDI */
    LOAD_MASKED,
    LOAD_STATE,
    LOAD_GATHER
};
struct access_desc {
    uint8_t insn;    /* index of the instruction within the block */
    uint8_t kind;    /* enum access_kind */
    uint8_t segment; /* of LOAD_REP by RSI: the base in its slots besides RSI; 1: FS, 2: GS */
    uint16_t size;
};
enum block_end {
    END_JCC,
    END_JMP,
    END_CALL,
    END_RET,
    END_INDIRECT_JMP,
    END_INDIRECT_CALL,
    END_FALL,
    END_STOP
};
struct block_info {
    uint64_t pc; /* guest address of the first instruction */
    uint16_t insn_count;
    uint16_t byte_len;
    uint8_t ticks; /* 0 or 1 */
    uint8_t end;   /* enum block_end: what the last instruction is */
    uint16_t slot_count;
    uint16_t access_count;
    const struct access_desc *accesses;
};

/* Called with whole records whenever the log is full and at the end of each run. icount is the
 * number of instructions retired in this run before the first record. If the run ended within the
 * last block (fault), last_insns is the number of instructions of the last record that retired,
 * else UINT32_MAX; slots of stores that did not happen are garbage. Returns false to stop the run
 * (STOP_CONSUMER). */
typedef bool log_consumer(void *ctx, const uint8_t *log, size_t len, uint64_t icount,
                          uint32_t last_insns);

/* Functions the host provides. */
void engine_host_fatal(const char *message) __attribute__((noreturn));
int engine_host_prot(
    uint64_t addr); /* PROT_* bits of the guest's mapping at addr as the guest sees it, or -1 */
/** A fault at addr: was memory touched whose contents had not come yet, and are there now? */
bool engine_host_fetch(uint64_t addr);
/** The next page after `behind`, or else 0, at which the shared memory of `page` is mapped a second
 * time. */
uint64_t engine_host_alias(uint64_t page, uint64_t behind);
void engine_host_before_flush(void); /* all block indices and counts are about to be forgotten */
/** Index mode: instructions that were begun but are not in any block's count: the first `begun` of
 * block b, of which the last one faulted; or one that is not for the engine (STOP_SYSCALL,
 * STOP_TRAP, STOP_FAULT at once). */
void engine_host_begun(const struct block_info *b, unsigned begun);
/** The part of memory around `addr` that a stack there can be in: writable mappings without a gap.
 */
struct addr_range engine_host_region(uint64_t addr);
void *engine_host_alloc(
    size_t len); /* zeroed pages for tables, never freed; aborts when memory is gone */

/** Once per process; installs handlers of SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP on an alternate
 * stack. */
void engine_init(const struct engine_layout *layout);
/** Installs the signal handlers again, should something else have taken them. */
void engine_install_handlers(void);
/** Runs `task` until the request's stop; task->regs is updated; vector state stays in the CPU if
 * the same task runs next. */
void engine_run(struct engine_task *task, const struct engine_request *request,
                struct engine_result *result);
/** Makes task->xstate hold the vector state (it may still be in the CPU). */
void engine_sync_xstate(struct engine_task *task);
/** Forgets what the task's x87 unit did last. */
void engine_clear_x87(struct engine_task *task);
/** To be called after task->xstate was changed by the host, so that it is loaded at the next run.
 */
void engine_xstate_changed(struct engine_task *task);
/** Forgets the vector state and the calls of a task about to be freed. */
void engine_task_gone(struct engine_task *task);
void engine_set_consumer(log_consumer *consumer, void *ctx);
/** A block by its index in the log. */
const struct block_info *engine_block(uint32_t idx);
uint32_t engine_block_count(void);
/** Index mode: calls each() for all blocks that ran since the last time. */
void engine_take_counts(void (*each)(const struct block_info *b, uint64_t count));
/** Index mode: calls each() for every page written since the last time: one bit for each 8 bytes.
 */
void engine_take_marks(void (*each)(uint64_t page, const uint64_t granules[8]));
/* A part of vector state in XSAVE images of the guest, by its CPUID (SDM 1, 13.2). */
struct engine_component {
    uint32_t offset, size; /* in the standard format */
    bool aligned;          /* in the compacted format: to 64 bytes */
};
/* Instruction sets, a bit for each by its number in Zydis. */
enum { ENGINE_ISA_WORDS = 4, ENGINE_COMPONENTS = 10 };
struct engine_isa {
    uint64_t lacking[ENGINE_ISA_WORDS];   /* the recording's CPU had them and this one has not:
                                             STOP_UNSUPPORTED */
    uint64_t undefined[ENGINE_ISA_WORDS]; /* the recording's CPU had them not: SIGILL, whatever this
                                             one does */
    bool emulates_avx512; /* all AVX-512 of the recording is emulated, whatever this CPU has */
    bool emulates_xsave;  /* XSAVE and its like are done as the recording's CPU did: its images have
                             another layout */
    uint64_t xcr0;        /* the recording's; for the two before, as is the last one */
    uint32_t mxcsr_mask;  /* MXCSR_MASK of FXSAVE and XSAVE (SDM 1, 11.6.6); 0: this CPU's */
    /* How the recording's CPU shows what its x87 unit did last (SDM 1, 8.1.8): */
    bool x87_data_of_exceptions; /* operand and opcode of instructions only that raised an exception
                                    (CPUID.7.EBX[6]) */
    bool x87_no_selectors;       /* no segments (CPUID.7.EBX[13]) */
    bool x87_saves_pending; /* FXSAVE and XSAVE only while an exception is pending: AMD. rr clears
                               it at each event then */
    struct engine_component components[ENGINE_COMPONENTS];
};
/** To be called before anything is translated. */
void engine_set_isa(const struct engine_isa *isa);
/** Break addresses; replaces the set. A run that begins on one executes the instruction there
 * first. */
void engine_set_breaks(const uint64_t *pcs, size_t count);
/* Asked when a run comes to a break address, once for each instruction about to be executed there.
 * task: its registers are up to date, its vector state is in the CPU. icount: retired in this run.
 * False: the run goes on. */
typedef bool break_judge(void *ctx, const struct engine_task *task, uint64_t icount);
/** judge NULL, as at first: runs stop at every break address. */
void engine_set_judge(break_judge *judge, void *ctx);
/** For judges: the task's vector state as an XSAVE image in this CPU's layout. Aligned to 64. */
void engine_save_vectors(uint8_t image[XSTATE_MAX]);
/** The host wrote, unmapped, remapped or changed protection of guest memory: translations of it are
 * dropped. */
void engine_memory_changed(uint64_t start, uint64_t len);
/** The host is about to give pages protection `prot`; returns the protection to really set
 * (PROT_WRITE is withheld from pages with translations, and given at the first write fault). */
int engine_filter_prot(uint64_t start, uint64_t len, int prot);

struct engine_stats {
    uint64_t blocks, guest_insns, guest_bytes, cache_bytes, translate_ns, flushes, exits,
        smc_faults;
};
void engine_get_stats(struct engine_stats *out);

/** Copies guest memory from within the worker, stopping at the first byte that is not accessible:
 * bytes copied. */
size_t engine_copy_from_guest(void *out, uint64_t addr, size_t len);
/** The same for all of 1, 2, 4 or 8 bytes, faster. False: they are not accessible. */
bool engine_load_from_guest(void *out, uint64_t addr, size_t len);
size_t engine_copy_to_guest(uint64_t addr, const void *data, size_t len);

#endif
