/* SPDX-License-Identifier: Apache-2.0 */
/* Records of layers: what was acknowledged is so for good, and what is gone takes no room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/log.h"
#include "tests/lib/device_fixture.h"

enum { WAITS = 1 };
#define SEC ((uint64_t)1000 * 1000 * 1000)

static struct device_fixture fx;

static int setup(void **state)
{
	(void)state;
	device_fixture_init(&fx, 3);
	return fixture_open(&fx, false);
}

static int teardown(void **state)
{
	(void)state;
	device_fixture_free(&fx);
	return 0;
}

static void set_status(void *arg, int status)
{
	*(int *)arg = status;
}

static int wait_for(const int *status)
{
	while (*status == WAITS)
		assert_true(sim_step(fx.sim.w));
	return *status;
}

static struct device_layer a_layer(layer_id id, uint64_t commit)
{
	struct device_layer l = {.layer = id, .volume = 1, .commit = commit};

	snprintf(l.name, sizeof(l.name), "volume-%07u-%048u", id, 0); /* all as long as can be */
	snprintf(l.snapshot, sizeof(l.snapshot), "%063u", id);
	return l;
}

static int put(layer_id id, uint64_t commit)
{
	struct device_layer l = a_layer(id, commit);
	int status = WAITS;

	device_layer_put(fx.dev, &l, set_status, &status);
	return wait_for(&status);
}

static int drop(layer_id id, uint64_t commit)
{
	int status = WAITS;

	device_layer_drop(fx.dev, id, commit, set_status, &status);
	return wait_for(&status);
}

static bool is_there(layer_id id)
{
	struct device_layer l;

	return device_layer_next(fx.dev, id - 1, &l) == 0 && l.layer == id;
}

/* Power is lost in the very moment in which it was acknowledged. */
static void what_was_acknowledged_survives_power_loss(void **state)
{
	(void)state;
	for (layer_id id = 1; id <= 20; id++) {
		assert_int_equal(put(id, id), 0);
		fixture_power_loss(&fx);
		assert_int_equal(fixture_open(&fx, false), 0);
		assert_true(is_there(id));
		if (id % 2)
			continue;
		assert_int_equal(drop(id - 1, 100 + id), 0);
		fixture_power_loss(&fx);
		assert_int_equal(fixture_open(&fx, false), 0);
		assert_false(is_there(id - 1));
		assert_true(is_there(id));
	}
}

/* The second says no sooner than the first that it is done. */
static void a_drop_that_is_repeated_waits_for_the_first(void **state)
{
	int status[2] = {WAITS, WAITS};

	(void)state;
	assert_int_equal(put(1, 1), 0);
	device_layer_drop(fx.dev, 1, 2, set_status, &status[0]);
	device_layer_drop(fx.dev, 1, 2, set_status, &status[1]);
	wait_for(&status[1]);
	fixture_power_loss(&fx);
	assert_int_equal(fixture_open(&fx, false), 0);
	assert_false(is_there(1));
}

/* In the homes, in the journal, in both; closed, killed or without power. */
static void what_is_dropped_stays_dropped(void **state)
{
	(void)state;
	for (int round = 0; round < 12; round++) {
		layer_id id = 1 + 2 * (layer_id)round;
		uint64_t commit = 10 * id;

		assert_int_equal(put(id, commit), 0);
		assert_int_equal(put(id + 1, commit), 0);
		if (round & 1) /* time to tidy up */
			sim_sleep(&fx.sim, 10 * SEC);
		assert_int_equal(drop(id, commit - 1), 0); /* of what was before it */
		assert_true(is_there(id));
		assert_int_equal(drop(id, commit), 0);
		assert_false(is_there(id));
		if (round & 2)
			sim_sleep(&fx.sim, 10 * SEC);
		if (round % 3 == 0)
			assert_int_equal(fixture_close(&fx), 0);
		else if (round % 3 == 1)
			fixture_kill(&fx);
		else
			fixture_power_loss(&fx);
		assert_int_equal(fixture_open(&fx, false), 0);
		for (layer_id old = 1; old <= id; old += 2) {
			assert_false(is_there(old));
			assert_true(is_there(old + 1));
		}
	}
	assert_int_equal(drop(0, 1), -EINVAL);
	assert_int_equal(drop(77, 1), 0); /* never heard of */
}

static int fill(layer_id from, uint32_t n)
{
	static int status[256];
	int failed = 0;

	for (uint32_t at = 0; at < n; at += 256) {
		for (uint32_t i = 0; i < 256; i++) {
			struct device_layer l = a_layer(from + at + i, 1);

			status[i] = WAITS;
			device_layer_put(fx.dev, &l, set_status, &status[i]);
		}
		for (uint32_t i = 0; i < 256; i++)
			if (wait_for(&status[i]) && !failed)
				failed = status[i];
	}
	return failed;
}

/* Layers come and go: the room of one is the next one's. A full registry still takes what makes room. */
static void room_comes_back(void **state)
{
	layer_id next = 1;

	(void)state;
	while (fill(next, 1024) == 0)
		next += 1024;
	assert_true(next > 10000);
	assert_int_equal(put(1 << 20, 1), -ENOSPC);
	assert_int_equal(drop(1, 2), 0);
	assert_int_equal(drop(2, 2), 0);
	assert_int_equal(put(1 << 20, 1), 0);
	for (layer_id id = 3; id < 300; id++) {
		assert_int_equal(drop(id, 2), 0);
		assert_int_equal(put((1 << 20) + id, 1), 0);
	}
	sim_sleep(&fx.sim, 10 * SEC);
	assert_int_equal(fixture_close(&fx), 0);
	assert_int_equal(fixture_open(&fx, false), 0);
	assert_false(is_there(299));
	assert_true(is_there((1 << 20) + 299));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(what_was_acknowledged_survives_power_loss, setup,
					    teardown),
	    cmocka_unit_test_setup_teardown(a_drop_that_is_repeated_waits_for_the_first, setup,
					    teardown),
	    cmocka_unit_test_setup_teardown(what_is_dropped_stays_dropped, setup, teardown),
	    cmocka_unit_test_setup_teardown(room_comes_back, setup, teardown),
	};

	log_set_level(LOG_ERROR + 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
