/* SPDX-License-Identifier: Apache-2.0 */
/* What each kind of request means, on a device that nothing happens to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/mem.h"
#include "tests/lib/device_fixture.h"

static int setup(void **state)
{
	struct device_fixture *fx = mem_zalloc(sizeof(*fx));

	device_fixture_init(fx, 1);
	*state = fx;
	assert_int_equal(fixture_open(fx, false), 0);
	return 0;
}

static int teardown(void **state)
{
	struct device_fixture *fx = *state;

	device_fixture_free(fx);
	mem_free(fx);
	return 0;
}

static void what_was_written_is_read(void **state)
{
	struct device_fixture *fx = *state;

	assert_int_equal(dev_expect(fx, 3, 5, 0, 256, 0), 0);
	assert_int_equal(dev_write(fx, 3, 5, 10, 4, 1, 0), 0);
	assert_int_equal(dev_expect(fx, 3, 5, 10, 4, 1), 0);
	assert_int_equal(dev_expect(fx, 3, 5, 0, 10, 0), 0);
	assert_int_equal(dev_write(fx, 3, 5, 12, 1, 2, 0), 0);
	assert_int_equal(dev_expect(fx, 3, 5, 12, 1, 2), 0);
	assert_int_equal(dev_expect(fx, 3, 5, 13, 1, 1), 0);
	assert_int_equal(dev_state(fx, 3, 5, 12), BLOCK_DATA);
	assert_int_equal(dev_state(fx, 3, 5, 14), BLOCK_HOLE);
	assert_int_equal(fixture_close(fx), 0);
	assert_int_equal(fixture_open(fx, false), 0);
	assert_int_equal(dev_expect(fx, 3, 5, 12, 1, 2), 0);
	assert_int_equal(dev_expect(fx, 3, 5, 13, 1, 1), 0);
	assert_int_equal(dev_expect(fx, 3, 5, 14, 200, 0), 0);
	assert_int_equal(fixture_close(fx), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(what_was_written_is_read, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
