/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/bytes.h"
#include "src/base/crc.h"
#include "src/base/math.h"
#include "src/base/mem.h"

/* ---- byte order ------------------------------------------------------------------------------------------------------- */

static void integers_have_their_bytes_in_order(void **state)
{
	static const uint8_t le[] = {8, 7, 6, 5, 4, 3, 2, 1}, be[] = {1, 2, 3, 4, 5, 6, 7, 8};
	struct le64 l64 = to_le64(0x0102030405060708);
	struct le32 l32 = to_le32(0x05060708);
	struct le16 l16 = to_le16(0x0708);
	struct be64 b64 = to_be64(0x0102030405060708);
	struct be32 b32 = to_be32(0x01020304);
	struct be16 b16 = to_be16(0x0102);

	(void)state;
	assert_memory_equal(&l64, le, 8);
	assert_memory_equal(&l32, le, 4);
	assert_memory_equal(&l16, le, 2);
	assert_memory_equal(&b64, be, 8);
	assert_memory_equal(&b32, be, 4);
	assert_memory_equal(&b16, be, 2);
	assert_int_equal(get_le64(l64), 0x0102030405060708);
	assert_int_equal(get_le32(l32), 0x05060708);
	assert_int_equal(get_le16(l16), 0x0708);
	assert_int_equal(get_be64(b64), 0x0102030405060708);
	assert_int_equal(get_be32(b32), 0x01020304);
	assert_int_equal(get_be16(b16), 0x0102);
}

/* ---- cursor ----------------------------------------------------------------------------------------------------------- */

static void a_cursor_reads_front_to_back(void **state)
{
	static const uint8_t data[] = {1, 0, 2, 0, 0, 0, 3, 0, 0, 0,   0,
				       0, 0, 0, 0, 4, 0, 0, 0, 5, 'x', 'y'};
	struct cursor c = cursor_of(data, sizeof(data));

	(void)state;
	assert_int_equal(cursor_left(&c), 22);
	assert_int_equal(cursor_le16(&c), 1);
	assert_int_equal(cursor_le32(&c), 2);
	assert_int_equal(cursor_le64(&c), 3);
	assert_int_equal(cursor_be16(&c), 4);
	assert_int_equal(cursor_be32(&c), 5);
	assert_memory_equal(cursor_take(&c, 2), "xy", 2);
	assert_int_equal(cursor_left(&c), 0);
	assert_false(c.failed);
	assert_non_null(cursor_take(&c, 0));
	assert_false(c.failed);
}

static void a_cursor_that_ran_over_stays_failed(void **state)
{
	static const uint8_t data[7] = {1};
	struct cursor c = cursor_of(data, sizeof(data));

	(void)state;
	assert_int_equal(cursor_le64(&c), 0);
	assert_true(c.failed);
	assert_int_equal(cursor_left(&c), 0);
	assert_int_equal(cursor_le16(&c), 0); /* although two bytes are there */
	assert_null(cursor_take(&c, 0));
	c = cursor_of(data, sizeof(data));
	assert_null(cursor_take(&c, SIZE_MAX));
	assert_true(c.failed);
}

static void zeros_are_told_from_the_rest(void **state)
{
	uint8_t b[4096] = {0};

	(void)state;
	assert_true(bytes_are_zero(b, 0));
	assert_true(bytes_are_zero(b, sizeof(b)));
	for (size_t i = 0; i < sizeof(b); i = i * 2 + 1) {
		b[i] = 1;
		assert_false(bytes_are_zero(b, sizeof(b)));
		assert_true(bytes_are_zero(b, i));
		b[i] = 0;
	}
	b[4095] = 0x80;
	assert_false(bytes_are_zero(b, sizeof(b)));
}

/* ---- crc -------------------------------------------------------------------------------------------------------------- */

/* RFC 3720 appendix B.4, which writes the CRC in the order of transmission. */
static void crc32c_matches_the_rfc(void **state)
{
	static const uint8_t read10[48] = {
	    0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,	 0, 0, 0, 0,
	    0x14, 0,	0, 0, 0, 0, 4, 0, 0, 0, 0, 0x14, 0, 0, 0, 0x18,
	    0x28, 0,	0, 0, 0, 0, 0, 0, 2, 0, 0, 0,	 0, 0, 0, 0,
	};
	uint8_t b[32] = {0};

	(void)state;
	assert_int_equal(crc32c(b, 32), 0x8a9136aa);
	memset(b, 0xff, 32);
	assert_int_equal(crc32c(b, 32), 0x62a8ab43);
	for (int i = 0; i < 32; i++)
		b[i] = (uint8_t)i;
	assert_int_equal(crc32c(b, 32), 0x46dd794e);
	for (int i = 0; i < 32; i++)
		b[i] = (uint8_t)(31 - i);
	assert_int_equal(crc32c(b, 32), 0x113fdb5c);
	assert_int_equal(crc32c(read10, 48), 0xd9963a56);
	assert_int_equal(crc32c("123456789", 9), 0xe3069283);
	assert_int_equal(crc32c(NULL, 0), 0);
}

static void crc32c_can_be_continued(void **state)
{
	uint8_t *b = mem_alloc(10000);

	(void)state;
	for (size_t i = 0; i < 10000; i++)
		b[i] = (uint8_t)(i * i >> 3);
	for (size_t cut = 0; cut <= 10000; cut += cut < 70 ? 1 : 331)
		assert_int_equal(crc32c_more(crc32c(b, cut), b + cut, 10000 - cut),
				 crc32c(b, 10000));
	mem_free(b);
}

/* ---- math ------------------------------------------------------------------------------------------------------------- */

static void arithmetic_does_not_wrap(void **state)
{
	uint64_t v;

	(void)state;
	assert_true(add_ok(1, 2, &v));
	assert_int_equal(v, 3);
	assert_true(add_ok(UINT64_MAX, 0, &v));
	assert_false(add_ok(UINT64_MAX, 1, &v));
	assert_true(mul_ok(1ULL << 32, (1ULL << 32) - 1, &v));
	assert_false(mul_ok(1ULL << 32, 1ULL << 32, &v));
	assert_true(range_inside(0, 0, 0));
	assert_true(range_inside(5, 5, 10));
	assert_false(range_inside(5, 6, 10));
	assert_false(range_inside(11, 0, 10));
	assert_false(range_inside(UINT64_MAX, 2, 10));
	assert_false(range_inside(1, UINT64_MAX, UINT64_MAX));
	assert_int_equal(round_down(4097, 4096), 4096);
	assert_int_equal(round_up(4097, 4096), 8192);
	assert_int_equal(round_up(4096, 4096), 4096);
	assert_int_equal(div_up(UINT64_MAX, 2), 1ULL << 63);
	assert_true(is_pow2(1) && is_pow2(1ULL << 63) && !is_pow2(0) && !is_pow2(12));
	assert_int_equal(MIN(3, 4), 3);
	assert_int_equal(MAX(3, 4), 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(integers_have_their_bytes_in_order),
	    cmocka_unit_test(a_cursor_reads_front_to_back),
	    cmocka_unit_test(a_cursor_that_ran_over_stays_failed),
	    cmocka_unit_test(zeros_are_told_from_the_rest),
	    cmocka_unit_test(crc32c_matches_the_rfc),
	    cmocka_unit_test(crc32c_can_be_continued),
	    cmocka_unit_test(arithmetic_does_not_wrap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
