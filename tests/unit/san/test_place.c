/* SPDX-License-Identifier: Apache-2.0 */
/* Placement: a pure function, by table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <cmocka.h>

#include "metadata/san/place.h"
#include "src/base/check.h"
#include "src/base/math.h"

static void test_pick_table(void **state)
{
	static const struct {
		uint32_t free_n[4], n;
		uint64_t point;
		int want;
	} rows[] = {
	    {{1}, 0, 0, -ENOSPC},
	    {{0, 0, 0}, 3, 1ULL << 63, -ENOSPC},
	    {{5}, 1, 0, 0},
	    {{5}, 1, UINT64_MAX, 0},
	    {{1, 1}, 2, (1ULL << 63) - 1, 0},
	    {{1, 1}, 2, 1ULL << 63, 1},
	    {{0, 7, 0, 0}, 4, 0, 1},
	    {{0, 7, 0, 0}, 4, UINT64_MAX, 1},
	    {{3, 1}, 2, 3ULL << 62, 1},
	    {{3, 1}, 2, (3ULL << 62) - 1, 0},
	    {{0, 0, 0, 1}, 4, 12345, 3},
	    /* sums beyond 32 bits */
	    {{UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX}, 4, UINT64_MAX, 3},
	    {{UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX}, 4, 1ULL << 62, 1},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_int_equal(place_pick(rows[i].free_n, rows[i].n, rows[i].point), rows[i].want);
}

/* The same seed, the same places; another seed or layer, other ones. */
static void test_points(void **state)
{
	uint32_t same_seed = 0, same_layer = 0;

	(void)state;
	for (uint32_t i = 0; i < 1000; i++) {
		assert_true(place_point(1, 2, i) == place_point(1, 2, i));
		same_seed += place_point(1, 2, i) >> 60 == place_point(9, 2, i) >> 60;
		same_layer += place_point(1, 2, i) >> 60 == place_point(1, 3, i) >> 60;
	}
	assert_true(same_seed < 200);
	assert_true(same_layer < 200);
}

/* Any run of chunks, sequential or with a stride, is spread in proportion to the free space; so are random ones. */
static void test_spread(void **state)
{
	static const uint32_t strides[] = {1, 2, 3, 4, 7, 16, 100, 256};

	(void)state;
	for (size_t k = 0; k < ARRAY_LEN(strides); k++) {
		uint32_t free_n[6] = {100000, 100000, 200000, 100000, 0, 500000};
		uint32_t got[6] = {0};

		for (uint32_t i = 0; i < 10000; i++)
			got[place_pick(free_n, 6, place_point(7, 1, i * strides[k]))]++;
		for (int d = 0; d < 6; d++)
			assert_in_range(got[d], free_n[d] / 100 - free_n[d] / 1000,
					free_n[d] / 100 + free_n[d] / 1000);
	}
}

/* A sequential stream keeps all of six equal devices busy: in any window of 16 chunks, none gets more than 5 of them. */
static void test_sequential_windows(void **state)
{
	uint32_t free_n[6] = {1000, 1000, 1000, 1000, 1000, 1000};
	int at[600];

	(void)state;
	for (uint32_t i = 0; i < 600; i++)
		at[i] = place_pick(free_n, 6, place_point(3, 5, i));
	for (int i = 0; i + 16 <= 600; i++) {
		uint32_t got[6] = {0};

		for (int j = 0; j < 16; j++)
			got[at[i + j]]++;
		for (int d = 0; d < 6; d++)
			assert_in_range(got[d], 1, 5);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_pick_table),
	    cmocka_unit_test(test_points),
	    cmocka_unit_test(test_spread),
	    cmocka_unit_test(test_sequential_windows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
