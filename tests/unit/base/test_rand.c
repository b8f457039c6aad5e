/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/rand.h"

/* vectors of the reference implementations at prng.di.unimi.it */
static void sequences_are_those_of_the_reference(void **state)
{
	static const uint64_t splitmix[] = {0xe220a8397b1dcdafULL, 0x6e789e6aa1b965f4ULL,
					    0x06c45d188009454fULL, 0xf88bb8a8724c81ecULL};
	static const uint64_t xoshiro[] = {11520,
					   0,
					   1509978240,
					   1215971899390074240ULL,
					   1216172134540287360ULL,
					   607988272756665600ULL};
	struct rand r;

	(void)state;
	rand_seed(&r, 0);
	for (size_t i = 0; i < ARRAY_LEN(splitmix); i++)
		assert_true(r.s[i] == splitmix[i]);
	r = (struct rand){.s = {1, 2, 3, 4}};
	for (size_t i = 0; i < ARRAY_LEN(xoshiro); i++)
		assert_true(rand_u64(&r) == xoshiro[i]);
}

static void ranges_are_kept_and_filled(void **state)
{
	struct rand r;
	int seen[7] = {0}, percent = 0;

	(void)state;
	rand_seed(&r, 1);
	for (int i = 0; i < 7000; i++) {
		seen[rand_between(&r, 100, 106) - 100]++;
		percent += rand_percent(&r, 30);
	}
	for (int i = 0; i < 7; i++)
		assert_in_range(seen[i], 800, 1200);
	assert_in_range(percent, 1900, 2300);
	assert_int_equal(rand_below(&r, 1), 0);
	assert_int_equal(rand_between(&r, 5, 5), 5);
	rand_between(&r, 0, UINT64_MAX);
	assert_false(rand_percent(&r, 0));
	assert_true(rand_percent(&r, 100));
}

static void bytes_are_filled_to_the_last_and_not_beyond(void **state)
{
	struct rand r;
	uint8_t buf[40];

	(void)state;
	for (size_t len = 0; len <= 32; len++) {
		rand_seed(&r, 42);
		memset(buf, 0, sizeof(buf));
		rand_fill(&r, buf, len);
		for (size_t i = len; i < sizeof(buf); i++)
			assert_int_equal(buf[i], 0);
	}
	assert_int_not_equal(buf[31], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(sequences_are_those_of_the_reference),
	    cmocka_unit_test(ranges_are_kept_and_filled),
	    cmocka_unit_test(bytes_are_filled_to_the_last_and_not_beyond),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
