/* Cap'n Proto messages: packing and unpacking, pointers of all kinds, and broken ones. */
#include "base/buf.h"
#include "base/bytes.h"
#include "base/test.h"
#include "trace/message.h"
#include "trace/packed.h"
#include "trace/writer.h"

#include <string.h>

/* Unpacks one message from memory. */
static struct err *unpack(struct message *m, const void *data, size_t len)
{
    struct packed_stream s = packed_stream_of_memory("test", data, len, 0);
    bool end;
    struct err *e = packed_stream_next(&s, m, &end);
    if (!e && end)
        e = err_new(ERR_FORMAT, "no message");
    return e;
}

/* A message of several segments, from words and the lengths of the segments. */
static void load(struct message *m, const uint64_t *words, const uint32_t *lens, uint32_t count)
{
    cleanup(buf_deinit) struct buf table = {0}, packed = {0};
    size_t total = 0;
    buf_u32(&table, count - 1);
    for (uint32_t i = 0; i < count; i++) {
        buf_u32(&table, lens[i]);
        total += lens[i];
    }
    buf_zeros(&table, -table.len % 8);
    pack_words(&packed, table.data, table.len);
    pack_words(&packed, words, total * 8);
    assert_ok(unpack(m, packed.data, packed.len));
}

static bool is_broken(const struct message *m)
{
    struct err *e = message_check(m);
    bool broken = e != NULL;
    err_free(e);
    return broken;
}

TEST(what_is_packed_unpacks_to_the_same)
{
    cleanup(buf_deinit) struct buf words = {0};
    for (unsigned round = 0; round < 300; round++) {
        // Zeros, full words and sparse ones in runs of changing length, across the limit of 255
        // words.
        struct build_ref r = build_root(&words, (uint16_t)(round % 7), 1);
        size_t len = round * 29 % 6000;
        cleanup(freep) uint8_t *bytes = xmalloc(len);
        for (size_t i = 0; i < len; i++)
            bytes[i] = (uint8_t)(i / (round + 1) % 3 == 0   ? 0
                                 : i / (round + 1) % 3 == 1 ? 0xff
                                                            : i % 5);
        build_data(r, 0, bytes, len);
        cleanup(buf_deinit) struct buf packed = {0};
        pack_message(&packed, words.data, words.len);
        cleanup(message_deinit) struct message m = {0};
        assert_ok(unpack(&m, packed.data, packed.len));
        assert_int_equal(m.data.len, words.len);
        assert_memory_equal(m.data.data, words.data, words.len);
        size_t got;
        const uint8_t *data = struct_data(message_root(&m), 0, &got);
        assert_int_equal(got, len);
        if (len)
            assert_memory_equal(data, bytes, len);
        assert_ok(message_check(&m));
    }
}

TEST(a_message_cut_short_is_an_error_at_every_byte)
{
    cleanup(buf_deinit) struct buf words = {0}, packed = {0};
    struct build_ref r = build_root(&words, 3, 1);
    build_u64(r, 0, 0x0102030405060708);
    build_u64(r, 16, 5);
    build_data(r, 0, "0123456789abcdefghijklmnopqrstuvwxyz", 36);
    pack_message(&packed, words.data, words.len);
    for (size_t len = 0; len < packed.len; len++) {
        cleanup(message_deinit) struct message m = {0};
        cleanup(freep) uint8_t *copy =
            xmemdup(packed.data, len); // its own block, so that ASan sees a read behind
        cleanup(err_freep) struct err *e = unpack(&m, copy, len);
        assert_non_null(e);
        assert_int_equal(err_kind(e), ERR_FORMAT);
    }
}

TEST(fields_a_struct_does_not_have_read_as_zero)
{
    cleanup(buf_deinit) struct buf words = {0}, packed = {0};
    build_u64(build_root(&words, 1, 0), 0, 7);
    pack_message(&packed, words.data, words.len);
    cleanup(message_deinit) struct message m = {0};
    assert_ok(unpack(&m, packed.data, packed.len));
    struct message_struct s = message_root(&m);
    size_t len;
    assert_int_equal(struct_u64(s, 0), 7);
    assert_int_equal(struct_u64(s, 8), 0);
    assert_false(struct_bit(s, 64));
    assert_null(struct_data(s, 0, &len));
    assert_int_equal(list_struct(struct_list_of_structs(s, 3), 0).data_len, 0);
    assert_ok(message_check(&m));
}

TEST(lists_of_structs_keep_their_own_element_size)
{
    cleanup(buf_deinit) struct buf words = {0}, packed = {0};
    struct build_ref element = build_structs(build_root(&words, 0, 1), 0, 3, 2, 1);
    for (unsigned i = 0; i < 3; i++, element = build_next(element)) {
        build_u64(element, 8, 100 + i);
        build_text(element, 0, i == 1 ? "one" : "other");
    }
    pack_message(&packed, words.data, words.len);
    cleanup(message_deinit) struct message m = {0};
    cleanup(pool_deinit) struct pool p = {0};
    assert_ok(unpack(&m, packed.data, packed.len));
    struct message_list l = struct_list_of_structs(message_root(&m), 0);
    assert_int_equal(l.count, 3);
    assert_int_equal(struct_u64(list_struct(l, 2), 8), 102);
    assert_int_equal(struct_u64(list_struct(l, 2), 16), 0);
    assert_string_equal(struct_str(list_struct(l, 1), 0, &p), "one");
    assert_int_equal(list_struct(l, 3).data_len, 0);
    assert_ok(message_check(&m));
}

/* Pointers by hand. A struct of one data word, `to` words behind the pointer's end. */
static uint64_t struct_pointer(int32_t to)
{
    return ((uint64_t)(uint32_t)to << 2 & UINT32_MAX) | 1ull << 32;
}

static uint64_t far_pointer(uint32_t segment, uint32_t word, bool is_double)
{
    return 2 | (uint64_t)is_double << 2 | (uint64_t)word << 3 | (uint64_t)segment << 32;
}

TEST(a_far_pointer_leads_through_its_landing_pad)
{
    const uint64_t words[] = {far_pointer(1, 1, false), /* segment 1: */ 42, struct_pointer(-2)};
    const uint32_t lens[] = {1, 2};
    cleanup(message_deinit) struct message m = {0};
    load(&m, words, lens, 2);
    assert_int_equal(struct_u64(message_root(&m), 0), 42);
    assert_ok(message_check(&m));
}

TEST(a_double_far_pointer_leads_to_a_third_segment)
{
    const uint64_t words[] = {far_pointer(1, 0, true), /* 1: */ far_pointer(2, 1, false),
                              struct_pointer(0),
                              /* 2: */ 1, 43};
    const uint32_t lens[] = {1, 2, 2};
    cleanup(message_deinit) struct message m = {0};
    load(&m, words, lens, 3);
    assert_int_equal(struct_u64(message_root(&m), 0), 43);
    assert_ok(message_check(&m));
}

TEST(pointers_that_lead_astray_break_the_message)
{
    const uint64_t bad[] = {
        struct_pointer(1),               // behind the segment
        struct_pointer(-3),              // before it
        far_pointer(2, 0, false),        // no such segment
        far_pointer(1, 2, false),        // behind that segment
        far_pointer(1, 1, true),         // a pad of two words does not fit
        far_pointer(0, 0, false),        // to itself: a far pointer is no landing pad
        far_pointer(1, 0, true),         // the pad is no far pointer
        3,                               // a capability
        1 | 2ull << 32 | 1000ull << 35,  // a list
        struct_pointer(0) | 5ull << 48,  // pointers that do not fit
        0x0000fffffffffffc | 1ull << 48, // a struct whose pointer is the pointer to it
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const uint64_t words[] = {bad[i], 0x1111111111111110, 0};
        const uint32_t lens[] = {1, 2};
        cleanup(message_deinit) struct message m = {0};
        load(&m, words, lens, 2);
        struct message_struct s = message_root(&m);
        for (unsigned depth = 0; depth < 1000; depth++)
            s = struct_struct(s, 0); // whoever follows pointers in a circle runs out of budget
        assert_true(is_broken(&m));
    }
}

TEST(overlapping_lists_run_out_of_budget)
{
    // A list of 64 pointers, all to one list of 64 pointers, and so on: 64 to the power of what is
    // followed.
    enum { COUNT = 64 };
    uint64_t words[1 + COUNT + 1 + COUNT + COUNT];
    memset(words, 0, sizeof(words));
    words[0] = 1ull << 48;
    words[1] = 1 | 6ull << 32 | (uint64_t)COUNT << 35;
    for (uint64_t i = 0; i < COUNT; i++)
        words[2 + i] = (COUNT - 1 - i) << 2 | 1 | 2ull << 32 | (uint64_t)COUNT * 8 << 35;
    const uint32_t lens[] = {sizeof(words) / 8};
    cleanup(message_deinit) struct message m = {0};
    cleanup(pool_deinit) struct pool p = {0};
    load(&m, words, lens, 1);
    struct message_list l = struct_list_of_pointers(message_root(&m), 0);
    assert_int_equal(l.count, COUNT);
    for (uint32_t i = 0; i < COUNT; i++)
        list_str(l, i, &p);
    assert_true(is_broken(&m));
}

TEST(a_list_of_nothing_cannot_be_endless)
{
    // Half a billion structs of no size, in two words.
    const uint64_t words[] = {1ull << 48, 1 | 7ull << 32, 0x1fffffffull << 2};
    const uint32_t lens[] = {3};
    cleanup(message_deinit) struct message m = {0};
    load(&m, words, lens, 1);
    assert_int_equal(struct_list_of_structs(message_root(&m), 0).count, 0);
    assert_true(is_broken(&m));
}

TEST(sizes_beyond_reason_are_refused_before_memory_is_taken)
{
    const uint32_t huge[] = {0, 0xfffffff0}, many[] = {100000, 1};
    cleanup(buf_deinit) struct buf packed = {0};
    cleanup(message_deinit) struct message m = {0};
    pack_words(&packed, huge, sizeof(huge));
    cleanup(err_freep) struct err *e = unpack(&m, packed.data, packed.len);
    assert_non_null(e);
    packed.len = 0;
    pack_words(&packed, many, sizeof(many));
    cleanup(err_freep) struct err *e2 = unpack(&m, packed.data, packed.len);
    assert_non_null(e2);
}

TEST(flipped_bytes_never_crash)
{
    cleanup(buf_deinit) struct buf words = {0}, packed = {0};
    struct build_ref r = build_root(&words, 2, 3);
    struct build_ref element = build_structs(r, 0, 2, 1, 1);
    build_text(element, 0, "text");
    build_text(build_next(element), 0, "more");
    build_data(build_pointers(r, 1, 2), 0, "x", 1);
    build_struct(r, 2, 1, 1);
    pack_message(&packed, words.data, words.len);
    for (size_t i = 0; i < packed.len; i++) {
        for (unsigned flip = 1; flip < 256; flip++) {
            cleanup(freep) uint8_t *copy = xmemdup(packed.data, packed.len);
            copy[i] ^= (uint8_t)flip;
            cleanup(message_deinit) struct message m = {0};
            cleanup(pool_deinit) struct pool p = {0};
            cleanup(err_freep) struct err *e = unpack(&m, copy, packed.len);
            if (e)
                continue;
            struct message_struct s = message_root(&m);
            struct message_list l = struct_list_of_structs(s, 0);
            for (uint32_t k = 0; k < l.count; k++)
                struct_str(list_struct(l, k), 0, &p);
            list_str(struct_list_of_pointers(s, 1), 0, &p);
            struct_str(struct_struct(s, 2), 0, &p);
        }
    }
}

TEST_MAIN(t(what_is_packed_unpacks_to_the_same), t(a_message_cut_short_is_an_error_at_every_byte),
          t(fields_a_struct_does_not_have_read_as_zero),
          t(lists_of_structs_keep_their_own_element_size),
          t(a_far_pointer_leads_through_its_landing_pad),
          t(a_double_far_pointer_leads_to_a_third_segment),
          t(pointers_that_lead_astray_break_the_message), t(overlapping_lists_run_out_of_budget),
          t(a_list_of_nothing_cannot_be_endless),
          t(sizes_beyond_reason_are_refused_before_memory_is_taken), t(flipped_bytes_never_crash))
