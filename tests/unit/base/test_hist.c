/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/base/hist.h"

static void buckets_are_ordered_and_bounded(void **state)
{
	(void)state;
	for (unsigned b = 0; b + 1 < HIST_BUCKETS; b++) {
		uint64_t top = hist_bucket_top(b);

		assert_int_equal(hist_bucket(top), b);
		assert_int_equal(hist_bucket(top + 1), b + 1);
	}
	assert_int_equal(hist_bucket(UINT64_MAX), HIST_BUCKETS - 1);
	assert_int_equal(hist_bucket(0), 0);
}

static void error_is_at_most_a_sixteenth(void **state)
{
	(void)state;
	for (uint64_t v = 1; v < HIST_VALUE_MAX / 2; v += v / 7 + 1) {
		uint64_t top = hist_bucket_top(hist_bucket(v));

		assert_true(top >= v);
		assert_true(top - v <= v / 16);
	}
}

static void permilles(void **state)
{
	struct hist h = {0}, g = {0};

	(void)state;
	assert_int_equal(hist_permille(&h, 500), 0);
	for (uint64_t v = 1; v <= 1000; v++)
		hist_add(v % 2 ? &h : &g, v);
	hist_merge(&h, &g);
	assert_int_equal(h.count, 1000);
	assert_int_equal(h.sum, 500500);
	assert_int_equal(hist_permille(&h, 1000), 1000);
	assert_in_range(hist_permille(&h, 500), 500, 531);
	assert_in_range(hist_permille(&h, 990), 990, 1000);
	assert_int_equal(hist_permille(&h, 0), 1);
	hist_add(&h, UINT64_MAX);
	assert_true(hist_permille(&h, 1000) == UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(buckets_are_ordered_and_bounded),
	    cmocka_unit_test(error_is_at_most_a_sixteenth),
	    cmocka_unit_test(permilles),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
