/* SPDX-License-Identifier: Apache-2.0 */
/* A slot that is being written to stays active, however long ago its last write was: else a power loss would find new bytes in a slot that it
 * trusts, and call them damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/base/log.h"
#include "tests/lib/device_fixture.h"

enum { SLOTS = 100, DEPTH = 5 };
#define MS  ((uint64_t)1000 * 1000)
#define SEC (1000 * MS)

static struct device_fixture fx;

static bool is_active(uint32_t slot)
{
	struct device_slot s;

	assert_int_equal(device_slot_get(fx.dev, slot, &s), 0);
	return s.active;
}

static struct fixture_req *write_begin(uint32_t slot, uint32_t seed)
{
	struct fixture_req *q = req_new(&fx, CHUNK_WRITE, slot, 1, 0, 4);

	req_fill(q, seed);
	req_submit(q);
	return q;
}

static void a_slot_does_not_retire_amid_a_write(void **state)
{
	struct sim_config cfg = {.seed = 1, .disk_ns_min = 50 * MS, .disk_ns_max = 400 * MS};
	struct fixture_req *q[SLOTS];
	bool was_active[SLOTS] = {};

	(void)state;
	device_fixture_init_as(&fx, &cfg, 128 << 20);
	fx.with_ring = true;
	assert_int_equal(fixture_open(&fx, false), 0);
	for (uint32_t i = 0; i < SLOTS; i++)
		q[i] = write_begin(i, 1);
	for (uint32_t i = 0; i < SLOTS; i++) {
		assert_int_equal(req_wait(q[i]), 0);
		req_free(q[i]);
	}
	assert_int_equal(dev_flush(&fx), 0);
	sim_sleep(&fx.sim, 28 * SEC);
	/* some are written to at any time in which the others retire */
	for (uint32_t first = 0; first < SLOTS; first += DEPTH) {
		bool all_done = false;

		for (uint32_t i = first; i < first + DEPTH; i++)
			q[i] = write_begin(i, 2);
		while (!all_done) {
			assert_true(sim_step(fx.sim.w));
			all_done = true;
			for (uint32_t i = first; i < first + DEPTH; i++) {
				if (q[i]->is_done)
					continue;
				all_done = false;
				assert_true(is_active(i) || !was_active[i]);
				was_active[i] = is_active(i);
			}
		}
		for (uint32_t i = first; i < first + DEPTH; i++) {
			assert_int_equal(q[i]->r.status, 0);
			req_free(q[i]);
		}
	}
	sim_sleep(&fx.sim, 60 * SEC);
	for (uint32_t i = 0; i < SLOTS; i++)
		assert_false(is_active(i));
	assert_int_equal(fixture_close(&fx), 0);
	device_fixture_free(&fx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_slot_does_not_retire_amid_a_write),
	};

	log_set_level(LOG_ERROR + 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
