/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/mem.h"

enum { KINDS = 8 };

static void *alloc(int kind)
{
	switch (kind) {
	case 0:
		return mem_alloc(10);
	case 1:
		return mem_zalloc(10);
	case 2:
		return mem_zalloc_array(10, 10);
	case 3:
		return mem_realloc(NULL, 10, 10);
	case 4:
		return mem_alloc_aligned(4096, 10000);
	case 5:
		return mem_strdup("text");
	case 6:
		return mem_strndup("text", 2);
	default:
		return mem_printf("%d", 7);
	}
}

static void every_kind_counts_and_fails_on_demand(void **state)
{
	uint64_t live = mem_live();

	(void)state;
	for (int kind = 0; kind < KINDS; kind++) {
		void *p = alloc(kind);

		assert_non_null(p);
		assert_int_equal(mem_live(), live + 1);
		mem_free(p);
		assert_int_equal(mem_live(), live);
		mem_fail_at(0, 1);
		assert_null(alloc(kind));
		p = alloc(kind);
		assert_non_null(p);
		mem_free(p);
		mem_fail_at(UINT64_MAX, 0);
		assert_int_equal(mem_live(), live);
	}
	mem_free(NULL);
	assert_int_equal(mem_live(), live);
}

static void the_nth_allocation_fails(void **state)
{
	void *p[6];

	(void)state;
	mem_fail_at(2, 2);
	for (int i = 0; i < 6; i++)
		p[i] = mem_alloc(1);
	mem_fail_at(UINT64_MAX, 0);
	for (int i = 0; i < 6; i++) {
		assert_true((p[i] == NULL) == (i == 2 || i == 3));
		mem_free(p[i]);
	}
	mem_fail_at(1, UINT64_MAX);
	p[0] = mem_alloc(1);
	assert_non_null(p[0]);
	for (int i = 0; i < 100; i++)
		assert_null(mem_alloc(1));
	mem_fail_at(UINT64_MAX, 0);
	mem_free(p[0]);
}

static void contents_are_as_promised(void **state)
{
	uint64_t live = mem_live();
	char *p = mem_zalloc_array(100, 10), *q;

	(void)state;
	for (int i = 0; i < 1000; i++)
		assert_int_equal(p[i], 0);
	memset(p, 'x', 1000);
	mem_fail_at(0, 1);
	assert_null(mem_realloc(p, 2000, 1));
	mem_fail_at(UINT64_MAX, 0);
	assert_int_equal(p[999], 'x'); /* still there */
	q = mem_realloc(p, 2000, 1);
	assert_int_equal(q[999], 'x');
	assert_int_equal(mem_live(), live + 1);
	mem_free(q);
	q = mem_alloc_aligned(4096, 1);
	assert_int_equal((uintptr_t)q % 4096, 0);
	mem_free(q);
	q = mem_strndup("strata", 3);
	assert_string_equal(q, "str");
	mem_free(q);
	q = mem_printf("%s-%d", "node", 7);
	assert_string_equal(q, "node-7");
	mem_free(q);
	assert_null(mem_zalloc_array(SIZE_MAX / 2, 3));
	assert_null(mem_realloc(NULL, SIZE_MAX / 2, 3));
	for (int kind = 0; kind < 3; kind++) { /* nothing is something, so that NULL means failure */
		q = kind == 0 ? mem_alloc(0) : kind == 1 ? mem_zalloc(0) : mem_zalloc_array(0, 5);
		assert_non_null(q);
		mem_free(q);
	}
	assert_int_equal(mem_live(), live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_kind_counts_and_fails_on_demand),
	    cmocka_unit_test(the_nth_allocation_fails),
	    cmocka_unit_test(contents_are_as_promised),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
