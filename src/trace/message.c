#include "trace/message.h"

#include "base/bytes.h"

enum { KIND_STRUCT = 0, KIND_LIST = 1, KIND_FAR = 2 };
enum { ELEMENT_BYTE = 2, ELEMENT_FOUR = 4, ELEMENT_POINTER = 6, ELEMENT_COMPOSITE = 7 };

/* A pointer followed to what it means: the tag word tells what, (segment, word) where. */
struct target {
    bool null;
    uint64_t tag;
    uint32_t segment;
    size_t word;
};

void message_deinit(struct message *m)
{
    buf_deinit(&m->data);
}

struct err *message_reset(struct message *m, size_t words)
{
    m->data.len = 0;
    m->why = NULL;
    // Every word a few times over: honest readers look at each once, at defaults and tags a little
    // more.
    m->budget = 8 * (uint64_t)words + 64;
    return NULL;
}

struct err *message_extend(struct message *m, size_t words, uint8_t **out)
{
    if (!buf_try_reserve(&m->data, words * 8))
        return err_new(ERR_LIMIT, "no memory for a message of %zu bytes", m->data.len + words * 8);
    *out = m->data.data + m->data.len;
    m->data.len += words * 8;
    return NULL;
}

void message_fail(struct message *m, const char *why)
{
    if (!m->why)
        m->why = why;
}

struct err *message_check(const struct message *m)
{
    return m->why ? err_new(ERR_FORMAT, "%s", m->why) : NULL;
}

static bool in_segment(const struct message *m, uint32_t segment, uint64_t word, uint64_t words)
{
    return segment < m->segment_count && word <= m->segments[segment].words &&
           words <= m->segments[segment].words - word;
}

static const uint8_t *at(const struct message *m, uint32_t segment, size_t word)
{
    return m->data.data + (m->segments[segment].first + word) * 8;
}

/* Charges for reaching `words` words at a place; false (and failed) if they are not there. */
static bool claim(struct message *m, uint32_t segment, uint64_t word, uint64_t words)
{
    if (!in_segment(m, segment, word, words)) {
        message_fail(m, "a pointer leads outside its segment");
        return false;
    }
    if (words >= m->budget) {
        message_fail(m, "its parts overlap too much");
        return false;
    }
    m->budget -= words + 1;
    return true;
}

/* Offset of a near pointer: 30 bits, signed, in words from the end of the pointer. Wraps below
 * zero, which claim() finds. */
static size_t near_target(uint64_t pointer, size_t word)
{
    int32_t off = (int32_t)(uint32_t)pointer >> 2;
    return word + 1 + (size_t)(ptrdiff_t)off;
}

/* Follows the pointer at (segment, word), through far pointers: a single one leads to a landing pad
 * that is the pointer; a double one to a pad of two words, a far pointer to the contents and the
 * tag for them. */
static struct target follow(struct message *m, uint32_t segment, size_t word)
{
    struct target none = {.null = true};
    if (m->why || !claim(m, segment, word, 1))
        return none;
    uint64_t p = load_u64(at(m, segment, word));
    if (!p)
        return none;
    if ((p & 3) != KIND_FAR)
        return (struct target){.tag = p, .segment = segment, .word = near_target(p, word)};
    bool is_double = p >> 2 & 1;
    uint32_t pad_segment = (uint32_t)(p >> 32);
    size_t pad = (uint32_t)p >> 3;
    if (!claim(m, pad_segment, pad, is_double ? 2 : 1))
        return none;
    uint64_t landed = load_u64(at(m, pad_segment, pad));
    if (!is_double) {
        if ((landed & 3) == KIND_FAR)
            message_fail(m, "a far pointer leads to a far pointer");
        return (struct target){.null = m->why || !landed,
                               .tag = landed,
                               .segment = pad_segment,
                               .word = near_target(landed, pad)};
    }
    if ((landed & 7) != KIND_FAR) {
        message_fail(m, "a double far pointer does not lead to a far pointer");
        return none;
    }
    return (struct target){.tag = load_u64(at(m, pad_segment, pad + 1)),
                           .segment = (uint32_t)(landed >> 32),
                           .word = (uint32_t)landed >> 3};
}

static struct message_struct read_struct(struct message *m, uint32_t segment, size_t word)
{
    struct message_struct none = {.m = m};
    struct target t = follow(m, segment, word);
    if (t.null)
        return none;
    if ((t.tag & 3) != KIND_STRUCT) {
        message_fail(m, "a struct was expected");
        return none;
    }
    size_t data_words = t.tag >> 32 & 0xffff;
    uint16_t ptr_count = (uint16_t)(t.tag >> 48);
    if (!claim(m, t.segment, t.word, data_words + ptr_count))
        return none;
    return (struct message_struct){.m = m,
                                   .data = at(m, t.segment, t.word),
                                   .data_len = data_words * 8,
                                   .segment = t.segment,
                                   .ptrs = t.word + data_words,
                                   .ptr_count = ptr_count};
}

struct message_struct message_root(struct message *m)
{
    return read_struct(m, 0, 0);
}

static struct message_list read_composite(struct message *m, struct target t, uint32_t words)
{
    struct message_list none = {.m = m};
    if (!claim(m, t.segment, t.word, (uint64_t)words + 1))
        return none;
    uint64_t tag = load_u64(at(m, t.segment, t.word));
    uint32_t count = (uint32_t)tag >> 2;
    size_t data_words = tag >> 32 & 0xffff;
    uint16_t ptr_count = (uint16_t)(tag >> 48);
    uint64_t step = data_words + ptr_count;
    if ((tag & 3) != KIND_STRUCT || count * step > words || (!step && count >= m->budget)) {
        message_fail(m, "a list of structs with a wrong tag");
        return none;
    }
    // Elements of no size at all would be free, so they are charged here.
    if (!step)
        m->budget -= count;
    return (struct message_list){.m = m,
                                 .data = at(m, t.segment, t.word + 1),
                                 .segment = t.segment,
                                 .first = t.word + 1,
                                 .count = count,
                                 .kind = ELEMENT_COMPOSITE,
                                 .step = step * 8,
                                 .data_len = data_words * 8,
                                 .ptr_count = ptr_count};
}

static struct message_list read_list(struct message *m, uint32_t segment, size_t word, uint8_t kind)
{
    struct message_list none = {.m = m};
    struct target t = follow(m, segment, word);
    if (t.null)
        return none;
    uint32_t count = (uint32_t)(t.tag >> 35);
    uint8_t found = t.tag >> 32 & 7;
    if ((t.tag & 3) != KIND_LIST || (found != kind && count)) {
        message_fail(m, "a list of another kind was expected");
        return none;
    }
    if (found != kind)
        return none;
    if (kind == ELEMENT_COMPOSITE)
        return read_composite(m, t, count);
    size_t step = kind == ELEMENT_BYTE ? 1 : kind == ELEMENT_FOUR ? 4 : 8;
    if (!claim(m, t.segment, t.word, (count * (uint64_t)step + 7) / 8))
        return none;
    return (struct message_list){.m = m,
                                 .data = at(m, t.segment, t.word),
                                 .segment = t.segment,
                                 .first = t.word,
                                 .count = count,
                                 .kind = kind,
                                 .step = step};
}

bool struct_bit(struct message_struct s, size_t bit)
{
    return struct_u8(s, bit / 8) >> (bit % 8) & 1;
}

uint8_t struct_u8(struct message_struct s, size_t off)
{
    return off < s.data_len ? s.data[off] : 0;
}

uint16_t struct_u16(struct message_struct s, size_t off)
{
    return off < s.data_len ? load_u16(s.data + off) : 0;
}

uint32_t struct_u32(struct message_struct s, size_t off)
{
    return off < s.data_len ? load_u32(s.data + off) : 0;
}

uint64_t struct_u64(struct message_struct s, size_t off)
{
    return off < s.data_len ? load_u64(s.data + off) : 0;
}

struct message_struct struct_struct(struct message_struct s, unsigned idx)
{
    if (idx >= s.ptr_count)
        return (struct message_struct){.m = s.m};
    return read_struct(s.m, s.segment, s.ptrs + idx);
}

static struct message_list struct_list(struct message_struct s, unsigned idx, uint8_t kind)
{
    if (idx >= s.ptr_count)
        return (struct message_list){.m = s.m};
    return read_list(s.m, s.segment, s.ptrs + idx, kind);
}

struct message_list struct_list_of_structs(struct message_struct s, unsigned idx)
{
    return struct_list(s, idx, ELEMENT_COMPOSITE);
}

struct message_list struct_list_of_i32(struct message_struct s, unsigned idx)
{
    return struct_list(s, idx, ELEMENT_FOUR);
}

struct message_list struct_list_of_pointers(struct message_struct s, unsigned idx)
{
    return struct_list(s, idx, ELEMENT_POINTER);
}

const uint8_t *struct_data(struct message_struct s, unsigned idx, size_t *len_out)
{
    struct message_list l = struct_list(s, idx, ELEMENT_BYTE);
    *len_out = l.count;
    return l.count ? l.data : NULL;
}

static const char *string_of(struct message_list l, struct pool *p)
{
    return l.count ? pool_str(p, l.data, strnlen((const char *)l.data, l.count)) : "";
}

const char *struct_str(struct message_struct s, unsigned idx, struct pool *p)
{
    return string_of(struct_list(s, idx, ELEMENT_BYTE), p);
}

struct message_struct list_struct(struct message_list l, uint32_t idx)
{
    if (idx >= l.count || l.kind != ELEMENT_COMPOSITE)
        return (struct message_struct){.m = l.m};
    size_t word = l.first + idx * (l.step / 8);
    return (struct message_struct){.m = l.m,
                                   .data = l.data + idx * l.step,
                                   .data_len = l.data_len,
                                   .segment = l.segment,
                                   .ptrs = word + l.data_len / 8,
                                   .ptr_count = l.ptr_count};
}

int32_t list_i32(struct message_list l, uint32_t idx)
{
    return idx < l.count && l.kind == ELEMENT_FOUR ? (int32_t)load_u32(l.data + idx * 4) : 0;
}

const char *list_str(struct message_list l, uint32_t idx, struct pool *p)
{
    if (idx >= l.count || l.kind != ELEMENT_POINTER)
        return "";
    return string_of(read_list(l.m, l.segment, l.first + idx, ELEMENT_BYTE), p);
}
