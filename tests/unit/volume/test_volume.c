/* SPDX-License-Identifier: Apache-2.0 */
/* test_volume.c - the contract, one behaviour at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "src/base/mem.h"
#include "tests/lib/volume_fixture.h"

enum { CHUNK = 1 << CHUNK_SHIFT_FLASH };

static void fixture(struct volume_fixture *fx)
{
	volume_fixture_init(fx, &(struct volume_fixture_config){.seed = 1});
}

static void writes_are_read_back(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h;

	(void)state;
	fixture(&fx);
	h = vf_open(&fx, "vol");
	assert_true(vf_reads(&fx, h, 0, 8 << 20, 0));
	assert_int_equal(vf_write(&fx, h, 8192, 4096, 1), 0);
	assert_int_equal(vf_write(&fx, h, CHUNK - 8192, 3 * CHUNK, 2), 0);
	assert_int_equal(vf_write(&fx, h, 512, 512, 3), 0);
	assert_true(vf_reads(&fx, h, 0, 512, 0));
	assert_true(vf_reads(&fx, h, 512, 512, 3));
	assert_true(vf_reads(&fx, h, 1024, 7168, 0));
	assert_true(vf_reads(&fx, h, 8192, 4096, 1));
	assert_true(vf_reads(&fx, h, CHUNK - 8192, 3 * CHUNK, 2));
	assert_true(vf_reads(&fx, h, 4 * CHUNK - 8192, 4 * CHUNK + 8192, 0));
	assert_int_equal(vf_flush(&fx, h), 0);
	volume_fixture_free(&fx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(writes_are_read_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
