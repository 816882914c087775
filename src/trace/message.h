/* A small Cap'n Proto reader: structs and lists of one message by hand-written offsets
 * (capnproto.org/encoding.html).
 *
 * Like the byte cursor of base it fails once and stays failed: getters give zeros for what does not
 * exist or is broken, and message_check says at the end whether anything was. A field that lies
 * beyond the end of a struct written by an older release reads as zero, that is, as its default
 * (defaults other than zero are XORed in by the caller).
 *
 * Invariants: every pointer is checked against its segment before use; each struct and list reached
 * is charged against a budget in proportion to the size of the message, so overlapping pointers
 * cannot make small input cost much. */
#ifndef TRACE_MESSAGE_H
#define TRACE_MESSAGE_H

#include "base/buf.h"
#include "base/err.h"
#include "trace/pool.h"

#include <stdbool.h>
#include <stdint.h>

#define MESSAGE_MAX_SEGMENTS 512u
#define MESSAGE_MAX_WORDS    (8u << 20) /* 64 MiB, Cap'n Proto's own limit */

struct message_segment {
    size_t first, words; /* in words of `data` */
};

struct message {
    struct buf data;
    struct message_segment segments[MESSAGE_MAX_SEGMENTS];
    uint32_t segment_count;
    uint64_t budget; /* words */
    const char *why; /* what is broken, or NULL */
};

/* A struct: its data section and its pointers. All zero: the null struct, whose fields are all
 * defaults. */
struct message_struct {
    struct message *m;
    const uint8_t *data;
    size_t data_len;
    uint32_t segment;
    size_t ptrs; /* word in the segment */
    uint16_t ptr_count;
};

struct message_list {
    struct message *m;
    const uint8_t *data;
    uint32_t segment;
    size_t first; /* word in the segment */
    uint32_t count;
    uint8_t kind;    /* element size code, 0 to 7 */
    size_t step;     /* bytes from element to element (kinds 2 to 7) */
    size_t data_len; /* kind 7: of an element's data section */
    uint16_t ptr_count;
};

void message_deinit(struct message *m);
/** Prepares for `words` words to come; message_extend appends room for some of them. */
struct err *message_reset(struct message *m, size_t words) nodiscard;
struct err *message_extend(struct message *m, size_t words, uint8_t **out) nodiscard;

struct message_struct message_root(struct message *m);
/** ERR_FORMAT if anything read so far was broken. */
struct err *message_check(const struct message *m) nodiscard;
/** Declares the message broken, for reasons its reader found. */
void message_fail(struct message *m, const char *why);

/** Scalars at byte `off` of the data section. */
bool struct_bit(struct message_struct s, size_t bit);
uint8_t struct_u8(struct message_struct s, size_t off);
uint16_t struct_u16(struct message_struct s, size_t off);
uint32_t struct_u32(struct message_struct s, size_t off);
uint64_t struct_u64(struct message_struct s, size_t off);
static inline int32_t struct_i32(struct message_struct s, size_t off)
{
    return (int32_t)struct_u32(s, off);
}
static inline int64_t struct_i64(struct message_struct s, size_t off)
{
    return (int64_t)struct_u64(s, off);
}

/** What pointer number `idx` points to; a null pointer gives an empty thing. */
struct message_struct struct_struct(struct message_struct s, unsigned idx);
struct message_list struct_list_of_structs(struct message_struct s, unsigned idx);
struct message_list struct_list_of_i32(struct message_struct s, unsigned idx);
struct message_list struct_list_of_pointers(struct message_struct s, unsigned idx);
/** Data: borrowed from the message; NULL if null or empty. */
const uint8_t *struct_data(struct message_struct s, unsigned idx, size_t *len_out);
/** Text or Data as a C string, up to its first NUL, copied into `p`. */
const char *struct_str(struct message_struct s, unsigned idx, struct pool *p);

struct message_struct list_struct(struct message_list l, uint32_t idx);
int32_t list_i32(struct message_list l, uint32_t idx);
const char *list_str(struct message_list l, uint32_t idx, struct pool *p);

#endif
