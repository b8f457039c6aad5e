/* SPDX-License-Identifier: Apache-2.0 */
/* What one process sees of its simulated disks, and what kill and power loss do to them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/mem.h"
#include "tests/lib/sim_fixture.h"

enum { PAGE = 4096, SECTOR = 512 };
#define TIB ((uint64_t)1 << 40)

static _Alignas(PAGE) uint8_t a[PAGE], b[PAGE], c[PAGE], zero[PAGE];

static int setup(void **state)
{
	struct sim_fixture *fx = mem_zalloc(sizeof(*fx));

	sim_fixture_init(fx, 1);
	memset(a, 'a', sizeof(a));
	memset(b, 'b', sizeof(b));
	*state = fx;
	return 0;
}

static int teardown(void **state)
{
	sim_fixture_free(*state);
	mem_free(*state);
	return 0;
}

static void what_was_written_is_read_and_the_rest_is_zeros(void **state)
{
	struct sim_fixture *fx = *state;
	struct ioe_file *f = sim_file_make(fx, "disk", TIB);

	assert_int_equal(sim_write(fx, f, TIB - PAGE, a, PAGE), 0);
	assert_int_equal(sim_write(fx, f, SECTOR, b, SECTOR), 0);
	assert_int_equal(sim_read(fx, f, TIB - PAGE, c, PAGE), 0);
	assert_memory_equal(c, a, PAGE);
	assert_int_equal(sim_read(fx, f, 0, c, PAGE), 0);
	assert_memory_equal(c, zero, SECTOR);
	assert_memory_equal(c + SECTOR, b, SECTOR);
	assert_memory_equal(c + 2 * SECTOR, zero, PAGE - 2 * SECTOR);
	assert_int_equal(ioe_file_used_bytes(fx->e, f), 2 * PAGE);
	assert_int_equal(sim_punch(fx, f, 0, TIB), 0);
	assert_int_equal(ioe_file_used_bytes(fx->e, f), 0);
	assert_int_equal(sim_read(fx, f, TIB - PAGE, c, PAGE), 0);
	assert_memory_equal(c, zero, PAGE);
	ioe_file_close(fx->e, f);
}

static void requests_past_the_end_fail(void **state)
{
	struct sim_fixture *fx = *state;
	struct ioe_file *f = sim_file_make(fx, "disk", 2 * PAGE);

	assert_int_equal(sim_read(fx, f, 2 * PAGE, c, SECTOR), -EIO);
	assert_int_equal(sim_read(fx, f, PAGE + SECTOR, c, PAGE), -EIO);
	assert_int_equal(sim_write(fx, f, 2 * PAGE, a, SECTOR), -ENOSPC);
	assert_int_equal(sim_punch(fx, f, PAGE, 2 * PAGE), 0);
	assert_int_equal(sim_punch(fx, f, 4 * PAGE, PAGE), 0);
	ioe_file_close(fx->e, f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(what_was_written_is_read_and_the_rest_is_zeros, setup,
					    teardown),
	    cmocka_unit_test_setup_teardown(requests_past_the_end_fail, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
