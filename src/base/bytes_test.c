#include "base/buf.h"
#include "base/bytes.h"
#include "base/test.h"

TEST(a_cursor_reads_little_endian_integers)
{
    static const uint8_t data[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    struct bytes b = bytes_of(data, sizeof(data));
    assert_int_equal(bytes_u8(&b), 1);
    assert_int_equal(bytes_u16(&b), 0x0302);
    assert_true(bytes_u64(&b) == 0x0b0a090807060504);
    assert_false(b.failed);
}

TEST(a_cursor_that_failed_stays_failed)
{
    static const uint8_t data[] = {1, 2};
    struct bytes b = bytes_of(data, sizeof(data));
    assert_int_equal(bytes_u32(&b), 0);
    assert_true(b.failed);
    assert_int_equal(bytes_u8(&b), 0);
    assert_int_equal(bytes_left(&b), 0);
}

TEST(leb128_reads_what_was_written)
{
    static const uint64_t values[] = {0, 1, 127, 128, 300, UINT32_MAX, UINT64_MAX};
    struct buf out = {0};
    for (size_t i = 0; i < 7; i++)
        buf_uleb(&out, values[i]);
    struct bytes b = bytes_of(out.data, out.len);
    for (size_t i = 0; i < 7; i++)
        assert_true(bytes_uleb(&b) == values[i]);
    assert_int_equal(bytes_left(&b), 0);
    buf_deinit(&out);
}

TEST(leb128_of_more_than_64_bits_fails)
{
    static const uint8_t data[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02};
    struct bytes b = bytes_of(data, sizeof(data));
    bytes_uleb(&b);
    assert_true(b.failed);
}

TEST(a_count_larger_than_the_rest_fails)
{
    static const uint8_t data[] = {3, 0, 0, 0, 0, 0};
    struct bytes b = bytes_of(data, sizeof(data));
    assert_int_equal(bytes_count(&b, 2), 0);
    assert_true(b.failed);
}

TEST_MAIN(t(a_cursor_reads_little_endian_integers), t(a_cursor_that_failed_stays_failed),
          t(leb128_reads_what_was_written), t(leb128_of_more_than_64_bits_fails),
          t(a_count_larger_than_the_rest_fails))
