/* SPDX-License-Identifier: Apache-2.0 */
/* Space that is given back: all of it, only when nobody can want what is there, and not what was never cleared. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "io-path/device/dev.h"
#include "src/base/bytes.h"
#include "src/base/log.h"
#include "tests/lib/device_fixture.h"

static struct device_fixture fx;

static struct {
	bool flush_fails;
	uint32_t punches_n;
	/* a place, what must be stable before it may be punched, and what came of it */
	uint64_t watched, watched_lsn;
	uint32_t watched_n, early_n;
} disk;

static int on_disk(void *arg, const char *path, const struct ioe_req *r)
{
	(void)arg;
	(void)path;
	disk.punches_n += r->op == IOE_PUNCH;
	if (r->op == IOE_PUNCH && r->off <= disk.watched && disk.watched < r->off + r->len) {
		disk.watched_n++;
		disk.early_n += fx.dev->journal.stable_lsn < disk.watched_lsn;
	}
	return r->op == IOE_FSYNC && disk.flush_fails ? -EIO : 0;
}

static int setup(void **state)
{
	(void)state;
	device_fixture_init(&fx, 3);
	fx.with_ring = true;
	memset(&disk, 0, sizeof(disk));
	disk.watched = UINT64_MAX;
	sim_disk_fault(fx.sim.m, on_disk, NULL);
	return fixture_open(&fx, false);
}

static int teardown(void **state)
{
	(void)state;
	device_fixture_free(&fx);
	return 0;
}

static uint64_t used_bytes(void)
{
	struct ioe_file *f;
	uint64_t used;

	assert_int_equal(ioe_file_open(fx.sim.e, DEVICE_PATH, IOE_OPEN_RDONLY, &f, NULL), 0);
	used = ioe_file_used_bytes(fx.sim.e, f);
	ioe_file_close(fx.sim.e, f);
	return used;
}

/* Clears that come one after the other, while the flush of the ones before them is under way. */
static void every_cleared_block_is_given_back(void **state)
{
	enum { N = 64 };
	struct fixture_req *q[N];
	uint64_t before = used_bytes();

	(void)state;
	assert_int_equal(dev_write(&fx, 4, 1, 0, 256, 5, 0), 0);
	assert_int_equal(dev_flush(&fx), 0);
	for (uint32_t i = 0; i < N; i++) {
		q[i] = req_new(&fx, CHUNK_CLEAR, 4, 1, i * 4, 4);
		req_submit(q[i]);
		for (uint32_t steps = 0; steps < i % 7; steps++)
			assert_true(sim_step(fx.sim.w));
	}
	for (uint32_t i = 0; i < N; i++) {
		assert_int_equal(req_wait(q[i]), 0);
		req_free(q[i]);
	}
	assert_int_equal(dev_flush(&fx), 0);
	sim_sleep(&fx.sim, 1000 * 1000 * 1000);
	assert_true(used_bytes() <= before + 16 * BLOCK_BYTES); /* the journal's */
}

/* A block that is cleared while the flush for the punch of another one is under way: the flush does not cover its record, so after a power loss
 * it may be data again, and its bytes are wanted. It has to wait for the next flush, and nobody may run in circles meanwhile. */
static void a_punch_waits_for_the_record_of_each_block(void **state)
{
	struct sim_config cfg = {.seed = 4, .disk_ns_min = 5000000, .disk_ns_max = 9000000};
	uint64_t events;

	(void)state;
	device_fixture_free(&fx);
	device_fixture_init_as(&fx, &cfg, 128 << 20);
	fx.with_ring = true;
	sim_disk_fault(fx.sim.m, on_disk, NULL);
	assert_int_equal(fixture_open(&fx, false), 0);
	assert_int_equal(dev_write(&fx, 4, 1, 0, 8, 5, 0), 0);
	assert_int_equal(dev_flush(&fx), 0);
	assert_int_equal(dev_clear(&fx, 4, 1, 0, 1, 0), 0);
	while (fx.dev->flusher.state != FLUSHER_SYNC)
		assert_true(sim_step(fx.sim.w));
	assert_int_equal(dev_clear(&fx, 4, 1, 2, 1, 0), 0);
	disk.watched = device_block_offset(fx.dev, 4, 2);
	disk.watched_lsn = fx.dev->journal.record_lsn;
	assert_true(fx.dev->flusher.state == FLUSHER_SYNC &&
		    fx.dev->flusher.target_lsn < disk.watched_lsn);
	events = sim_events(fx.sim.w);
	sim_sleep(&fx.sim, 1000 * 1000 * 1000);
	assert_true(sim_events(fx.sim.w) - events < 1000);
	assert_int_equal(disk.early_n, 0);
	assert_int_equal(disk.watched_n, 1);
	assert_true(disk.punches_n >= 2);
}

/* Nobody may be told that a slot is free whose tenant a power loss could bring back. */
static void a_free_that_was_answered_stays(void **state)
{
	(void)state;
	for (uint64_t cgen = 1; cgen < 10; cgen++) {
		assert_int_equal(dev_write(&fx, 2, cgen, 0, 16, 5, 0), 0);
		assert_int_equal(dev_flush(&fx), 0);
		assert_int_equal(dev_free(&fx, 2, cgen, 0), 0);
		fixture_power_loss(&fx);
		assert_int_equal(fixture_open(&fx, false), 0);
		assert_int_equal(dev_expect(&fx, 2, cgen, 0, 16, 5), -E_STALE_CGEN);
		assert_int_equal(dev_expect(&fx, 2, cgen + 1, 0, 16, 0), 0);
	}
}

/* What is known to be bad may be all that is left of something. */
static void a_bad_block_between_cleared_ones_keeps_its_bytes(void **state)
{
	struct fixture_req *a, *b;
	uint8_t bytes[BLOCK_BYTES];
	uint64_t at = device_block_offset(fx.dev, 4, 5);

	(void)state;
	assert_int_equal(dev_write(&fx, 4, 1, 0, 16, 5, 0), 0);
	assert_int_equal(dev_flush(&fx), 0);
	assert_int_equal(sim_disk_peek(fx.sim.m, DEVICE_PATH, at, bytes, sizeof(bytes)), 0);
	bytes[0] ^= 1;
	assert_int_equal(sim_disk_poke(fx.sim.m, DEVICE_PATH, at, bytes, 1), 0);
	assert_int_equal(dev_expect(&fx, 4, 1, 5, 1, 5), -E_CHECKSUM);
	a = req_new(&fx, CHUNK_CLEAR, 4, 1, 4, 1);
	b = req_new(&fx, CHUNK_CLEAR, 4, 1, 6, 1);
	req_submit(a);
	req_submit(b);
	assert_int_equal(req_wait(a), 0);
	assert_int_equal(req_wait(b), 0);
	req_free(a);
	req_free(b);
	assert_int_equal(dev_flush(&fx), 0);
	sim_sleep(&fx.sim, 1000 * 1000 * 1000);
	assert_true(disk.punches_n > 0);
	assert_int_equal(sim_disk_peek(fx.sim.m, DEVICE_PATH, at, bytes, sizeof(bytes)), 0);
	assert_false(bytes_are_zero(bytes, sizeof(bytes)));
	assert_int_equal(dev_expect(&fx, 4, 1, 5, 1, 5), -E_BAD_BLOCK);
}

/* A FREE that is repeated while the first one fails: its record may never have come to the medium, and then the data is still wanted. */
static void nothing_is_punched_when_the_record_of_a_free_failed(void **state)
{
	struct fixture_req *f[3];

	(void)state;
	assert_int_equal(dev_write(&fx, 2, 1, 0, 256, 5, 0), 0);
	assert_int_equal(dev_flush(&fx), 0);
	disk.flush_fails = true;
	for (int i = 0; i < 3; i++) {
		f[i] = req_new(&fx, CHUNK_FREE, 2, 1, 0, 0);
		req_submit(f[i]);
	}
	for (int i = 0; i < 3; i++) {
		assert_int_equal(req_wait(f[i]), -E_DEVICE_FAILED);
		req_free(f[i]);
	}
	sim_sleep(&fx.sim, 1000 * 1000 * 1000);
	assert_int_equal(disk.punches_n, 0);
	disk.flush_fails = false;
	assert_int_equal(fixture_close(&fx), -E_DEVICE_FAILED);
}

/* A slot that is freed and filled again while the punch of its last tenant's blocks waits for a flush. */
static void a_late_punch_spares_the_next_tenant(void **state)
{
	(void)state;
	for (uint32_t round = 0; round < 40; round++) {
		uint64_t cgen = 1 + 2 * round;
		struct fixture_req *c = req_new(&fx, CHUNK_CLEAR, 9, cgen, 10, 100);
		struct fixture_req *f = req_new(&fx, CHUNK_FREE, 9, cgen, 0, 0);
		struct fixture_req *w = req_new(&fx, CHUNK_WRITE, 9, cgen + 1, 50, 16);

		assert_int_equal(dev_write(&fx, 9, cgen, 0, 128, 5, 0), 0);
		req_fill(w, round + 7);
		req_submit(c);
		for (uint32_t steps = 0; steps < round; steps++)
			assert_true(sim_step(fx.sim.w));
		req_submit(f);
		req_submit(w);
		assert_int_equal(req_wait(c), 0);
		assert_int_equal(req_wait(f), 0);
		assert_int_equal(req_wait(w), 0);
		sim_sleep(&fx.sim, 100 * 1000 * 1000);
		assert_int_equal(dev_expect(&fx, 9, cgen + 1, 50, 16, round + 7), 0);
		assert_int_equal(dev_expect(&fx, 9, cgen + 1, 0, 50, 0), 0);
		assert_int_equal(dev_free(&fx, 9, cgen + 1, 0), 0);
		req_free(c);
		req_free(f);
		req_free(w);
	}
}

/* The filesystem under the device is full, and has space again: one event each, however many writes fail. Overwrites need none, and prove none. */
static void a_full_filesystem_is_told(void **state)
{
	struct ioe_file_space space;
	struct device_info i;
	uint32_t events;

	(void)state;
	assert_int_equal(dev_write(&fx, 1, 1, 0, 16, 5, 0), 0);
	assert_int_equal(dev_flush(&fx), 0);
	events = fx.events_n;
	sim_disk_quota(fx.sim.m, 1);
	assert_int_equal(device_space(fx.dev, &space), 0);
	assert_int_equal(space.free_bytes, 0);
	assert_int_equal(space.owed_bytes, fx.size_bytes - used_bytes());
	for (uint32_t n = 0; n < 5; n++)
		assert_int_equal(dev_write(&fx, 1, 1, 32 + n, 1, 5, 0), -ENOSPC);
	assert_int_equal(fx.events_n, events + 1);
	assert_string_equal(fx.last_event, "no_space");
	sim_sleep(&fx.sim, 3000000000ULL);
	assert_int_equal(dev_write(&fx, 1, 1, 0, 16, 6, 0), 0);
	device_info(fx.dev, &i);
	assert_true(i.no_space);
	assert_int_equal(i.no_space_errors, 5);

	/* it comes and goes: that is no news */
	assert_int_equal(dev_write(&fx, 1, 1, 60, 1, 5, 0), -ENOSPC);
	sim_disk_quota(fx.sim.m, 0);
	assert_int_equal(dev_write(&fx, 1, 1, 40, 1, 5, 0), 0);
	device_info(fx.dev, &i);
	assert_true(i.no_space);
	sim_sleep(&fx.sim, 3000000000ULL);
	assert_int_equal(dev_write(&fx, 1, 1, 41, 1, 5, 0), 0);
	device_info(fx.dev, &i);
	assert_false(i.no_space);
	assert_int_equal(fx.events_n, events + 2);
	assert_string_equal(fx.last_event, "space_again");
	assert_int_equal(dev_expect(&fx, 1, 1, 0, 16, 6), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(every_cleared_block_is_given_back, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_punch_waits_for_the_record_of_each_block, setup,
					    teardown),
	    cmocka_unit_test_setup_teardown(a_free_that_was_answered_stays, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_bad_block_between_cleared_ones_keeps_its_bytes, setup,
					    teardown),
	    cmocka_unit_test_setup_teardown(nothing_is_punched_when_the_record_of_a_free_failed,
					    setup, teardown),
	    cmocka_unit_test_setup_teardown(a_late_punch_spares_the_next_tenant, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_full_filesystem_is_told, setup, teardown),
	};

	log_set_level(LOG_ERROR + 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
