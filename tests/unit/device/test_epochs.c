/* SPDX-License-Identifier: Apache-2.0 */
/* An epoch that was raised stays raised, whatever the device is doing meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/log.h"
#include "tests/lib/device_fixture.h"

enum { VOLUMES = 3 };

static struct device_fixture fx;
static uint32_t raised_n;

static void raised(struct device_epoch_req *r)
{
	assert_int_equal(r->status, 0);
	raised_n++;
}

static int write_as(volume_id volume, uint64_t epoch)
{
	struct fixture_req *q = req_new(&fx, CHUNK_WRITE, 1, 1, 0, 1);
	int status;

	q->r.volume = volume;
	q->r.epoch = epoch;
	req_fill(q, 1);
	req_submit(q);
	status = req_wait(q);
	req_free(q);
	return status;
}

static void raise_at(struct device_epoch_req *r, volume_id volume, uint64_t ns)
{
	if (sim_now_ns(fx.sim.w) < ns)
		sim_sleep(&fx.sim, ns - sim_now_ns(fx.sim.w));
	*r = (struct device_epoch_req){.volume = volume,
				       .epoch = 7,
				       .commit = volume,
				       .done = raised};
	list_init(&r->link);
	device_epoch(fx.dev, r);
}

/* Two seconds after it was opened an idle device writes its registry: when all that is in it is stable. Here the flush that makes it so covers one more
 * EPOCH record, whose raise hears of that flush after the registry does. The halves must say what the record says, or the end of the journal
 * takes the epoch with it. */
static void a_raise_amid_a_checkpoint_of_the_registry_is_kept(void **state)
{
	static struct device_epoch_req r[VOLUMES];

	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		uint64_t tick_ns;

		device_fixture_init(&fx, seed);
		assert_int_equal(fixture_open(&fx, false), 0);
		tick_ns = sim_now_ns(fx.sim.w) + 2000000000;
		raised_n = 0;
		raise_at(&r[0], 1, tick_ns - 300000); /* its flush is under way, */
		raise_at(&r[1], 2, tick_ns - 150000); /* this one waits for the next, */
		raise_at(&r[2], 3, tick_ns + 50000);  /* as does the registry, and then this one */
		while (raised_n < VOLUMES)
			assert_true(sim_step(fx.sim.w));
		sim_sleep(&fx.sim, 100000000);
		assert_int_equal(fixture_close(&fx), 0);
		assert_int_equal(fixture_open(&fx, false), 0);
		for (uint32_t v = 1; v <= VOLUMES; v++)
			assert_int_equal(write_as(v, 6), -E_STALE_EPOCH);
		device_fixture_free(&fx);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_raise_amid_a_checkpoint_of_the_registry_is_kept),
	};

	log_set_level(LOG_ERROR + 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
