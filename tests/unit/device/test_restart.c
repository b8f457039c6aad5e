/* SPDX-License-Identifier: Apache-2.0 */
/* Killed processes, lost power, and what the restart ring is worth. The random kind of this is in test_model.c; here are the cases by name. */
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

	device_fixture_init(fx, 3);
	fx->with_ring = true;
	*state = fx;
	return fixture_open(fx, false);
}

static int teardown(void **state)
{
	struct device_fixture *fx = *state;

	device_fixture_free(fx);
	mem_free(fx);
	return 0;
}

static struct device_info info_of(struct device_fixture *fx)
{
	struct device_info info;

	device_info(fx->dev, &info);
	return info;
}

static void idle(struct device_fixture *fx, uint64_t seconds)
{
	sim_sleep(&fx->sim, seconds * 1000 * 1000 * 1000);
}

/* ---- process ---------------------------------------------------------------------------------------------------------- */

static void acknowledged_writes_survive_a_kill(void **state)
{
	struct device_fixture *fx = *state;
	uint64_t incarnation = info_of(fx).incarnation;

	for (uint32_t round = 0; round < 5; round++) {
		for (uint32_t i = 0; i < 50; i++)
			assert_int_equal(dev_write(fx, i, 1, round, 3, 100 * round + i, 0), 0);
		assert_int_equal(dev_clear(fx, 3, 1, 1, 1, 0), 0);
		fixture_kill(fx);
		assert_int_equal(fixture_open(fx, false), 0);
		for (uint32_t i = 0; i < 50; i++)
			assert_int_equal(dev_expect(fx, i, 1, round + 2, 1, 100 * round + i), 0);
		assert_int_equal(dev_expect(fx, 3, 1, 1, 1, 0), 0);
	}
	assert_int_equal(info_of(fx).incarnation, incarnation);
	assert_false(info_of(fx).replayed_power_loss);
	assert_int_equal(info_of(fx).unresolved_blocks, 0);
	assert_int_equal(info_of(fx).bad_blocks, 0);
}

static void a_kill_amid_writes_leaves_old_or_new(void **state)
{
	struct device_fixture *fx = *state;

	for (uint32_t round = 0; round < 20; round++) {
		struct fixture_req *q[8];

		for (uint32_t i = 0; i < 8; i++)
			assert_int_equal(dev_write(fx, i, 1, 0, 4, 1000 + round,
						   i % 2 ? 0 : CHUNK_F_STABLE),
					 0);
		for (uint32_t i = 0; i < 8; i++) {
			q[i] = req_new(fx, CHUNK_WRITE, i, 1, 0, 4);
			q[i]->r.flags = i % 3 ? 0 : CHUNK_F_STABLE;
			req_fill(q[i], 2000 + round);
			req_submit(q[i]);
		}
		for (uint32_t i = 0; i < round; i++)
			sim_step(fx->sim.w);
		fixture_kill(fx);
		assert_int_equal(fixture_open(fx, false), 0);
		for (uint32_t i = 0; i < 8; i++)
			for (uint32_t b = 0; b < 4; b++)
				assert_true(dev_expect(fx, i, 1, b, 1, 1000 + round) == 0 ||
					    dev_expect(fx, i, 1, b, 1, 2000 + round) == 0);
	}
	assert_int_equal(info_of(fx).bad_blocks, 0);
}

static void without_the_ring_a_kill_is_a_power_loss(void **state)
{
	struct device_fixture *fx = *state;
	uint64_t incarnation = info_of(fx).incarnation;

	assert_int_equal(dev_write(fx, 1, 1, 0, 4, 1, CHUNK_F_STABLE), 0);
	fixture_kill(fx);
	fx->with_ring = false;
	fx->events_n = 0;
	assert_int_equal(fixture_open(fx, false), 0);
	assert_true(info_of(fx).replayed_power_loss);
	assert_int_equal(info_of(fx).incarnation, incarnation + 1);
	assert_true(fx->events_n > 0);
	assert_int_equal(dev_expect(fx, 1, 1, 0, 4, 1), 0);
}

static void an_orderly_close_leaves_no_ring(void **state)
{
	struct device_fixture *fx = *state;
	uint64_t incarnation = info_of(fx).incarnation;
	struct ioe_shm shm;

	assert_int_equal(dev_write(fx, 1, 1, 0, 4, 1, 0), 0);
	assert_int_equal(fixture_close(fx), 0);
	assert_int_equal(ioe_shm_open(fx->sim.e, DEVICE_RING ".a", &shm), -ENOENT);
	assert_int_equal(ioe_shm_open(fx->sim.e, DEVICE_RING ".b", &shm), -ENOENT);
	fixture_power_loss(fx);
	assert_int_equal(fixture_open(fx, false), 0);
	assert_false(info_of(fx).replayed_power_loss);
	assert_int_equal(info_of(fx).incarnation, incarnation);
	assert_int_equal(info_of(fx).active_slots, 0);
	assert_int_equal(dev_expect(fx, 1, 1, 0, 4, 1), 0);
}

/* Killed again and again while it opens: what the ring holds is never lost. */
static void kills_amid_opens_lose_nothing(void **state)
{
	struct device_fixture *fx = *state;

	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(dev_write(fx, i, 1, 5, 2, 10 + i, 0), 0);
	for (uint32_t steps = 1; steps < 120; steps++) {
		fixture_kill(fx);
		fixture_open_steps(fx, steps);
	}
	fixture_kill(fx);
	assert_int_equal(fixture_open(fx, false), 0);
	assert_false(info_of(fx).replayed_power_loss);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(dev_expect(fx, i, 1, 5, 2, 10 + i), 0);
}

/* Whatever is in the file: it is taken for what it is, or for a lost memory; nothing else. */
static void a_damaged_ring_is_no_ring(void **state)
{
	struct device_fixture *fx = *state;
	static const uint32_t places[] = {0,	8,    12,   16,	  40,	60,   80,   90,	  128,
					  136,	192,  200,  256,  300,	4096, 4100, 4104, 4108,
					  4112, 4113, 4114, 4116, 4130, 4150, 4200};

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		struct ioe_shm shm;
		int r;

		assert_int_equal(dev_write(fx, 1, 1, 0, 4, 1, 0), 0);
		assert_int_equal(dev_write(fx, 40, 1 + i, 0, 4, 1, 0), 0);
		assert_int_equal(dev_flush(fx), 0);
		assert_int_equal(dev_write(fx, 1, 1, 0, 2, 2, 0), 0);
		fixture_kill(fx);
		for (int k = 0; k < 2; k++) {
			if (ioe_shm_open(fx->sim.e, k ? DEVICE_RING ".b" : DEVICE_RING ".a", &shm))
				continue;
			((uint8_t *)shm.base)[places[i]] ^= 0x41;
			ioe_shm_close(fx->sim.e, &shm);
		}
		assert_int_equal(fixture_open(fx, false), 0);
		r = dev_expect(fx, 1, 1, 0, 2, 2);
		if (r) /* then it is known to be lost, or damage was seen */
			assert_true(info_of(fx).replayed_power_loss || r == -E_BAD_BLOCK ||
				    r == -E_CHECKSUM || r == -EBADMSG);
		assert_int_equal(dev_expect(fx, 1, 1, 2, 2, 1), 0);
		assert_int_equal(dev_free(fx, 40, 1 + i, 0), 0);
		assert_int_equal(dev_write(fx, 1, 1, 0, 2, 1, CHUNK_F_STABLE), 0);
	}
}

/* ---- power ------------------------------------------------------------------------------------------------------------ */

static void what_was_flushed_survives_power_loss(void **state)
{
	struct device_fixture *fx = *state;

	for (uint32_t round = 0; round < 10; round++) {
		for (uint32_t i = 0; i < 30; i++)
			assert_int_equal(dev_write(fx, i, 1, 2, 3, 10 * round + i + 1, 0), 0);
		assert_int_equal(dev_flush(fx), 0);
		for (uint32_t i = 0; i < 30; i += 2) /* and these may be lost */
			assert_int_equal(dev_write(fx, i, 1, 4, 3, 5000 + round, 0), 0);
		fixture_power_loss(fx);
		assert_int_equal(fixture_open(fx, false), 0);
		assert_true(info_of(fx).replayed_power_loss);
		for (uint32_t i = 0; i < 30; i++) {
			assert_int_equal(dev_expect(fx, i, 1, 2, 2, 10 * round + i + 1), 0);
			if (i % 2)
				assert_int_equal(dev_expect(fx, i, 1, 4, 1, 10 * round + i + 1), 0);
		}
	}
	assert_int_equal(info_of(fx).bad_blocks, 0);
}

/* Torn by hand: the slot is active, so it is an unfinished write. */
static void a_torn_overwrite_is_accepted_and_counted_once(void **state)
{
	struct device_fixture *fx = *state;
	uint8_t junk[512];
	struct fixture_req *q;
	uint64_t at;

	memset(junk, 0x5a, sizeof(junk));
	assert_int_equal(dev_write(fx, 1, 1, 0, 8, 1, CHUNK_F_STABLE), 0);
	idle(fx, 5); /* published: a client could overwrite it now */
	at = device_block_offset(fx->dev, 1, 3) + 1024;
	fixture_power_loss(fx);
	assert_int_equal(sim_disk_poke(fx->sim.m, DEVICE_PATH, at, junk, sizeof(junk)), 0);
	assert_int_equal(fixture_open(fx, false), 0);
	q = req_new(fx, CHUNK_READ, 1, 1, 3, 1); /* it does not wait for the background */
	req_submit(q);
	assert_int_equal(req_wait(q), 0);
	assert_memory_equal(q->buf + 1024, junk, sizeof(junk));
	req_free(q);
	assert_int_equal(info_of(fx).unresolved_blocks, 1);
	assert_int_equal(dev_expect(fx, 1, 1, 0, 3, 1), 0);
	assert_int_equal(dev_expect(fx, 1, 1, 4, 4, 1), 0);
	idle(fx, 60);
	assert_int_equal(info_of(fx).active_slots, 0);
	fixture_power_loss(fx);
	assert_int_equal(fixture_open(fx, false), 0);
	assert_int_equal(info_of(fx).unresolved_blocks, 1);
	/* verified and retired: from now on it is damage */
	junk[0] ^= 1;
	assert_int_equal(sim_disk_poke(fx->sim.m, DEVICE_PATH, at, junk, sizeof(junk)), 0);
	assert_int_equal(dev_expect(fx, 1, 1, 3, 1, 1), -E_CHECKSUM);
}

static void the_background_verifies_what_nobody_reads(void **state)
{
	struct device_fixture *fx = *state;
	uint8_t junk[512];
	uint64_t at;

	memset(junk, 0x5a, sizeof(junk));
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(dev_write(fx, i, 1, 0, 256, 1, 0), 0);
	assert_int_equal(dev_flush(fx), 0);
	idle(fx, 5);
	at = device_block_offset(fx->dev, 7, 200);
	fixture_power_loss(fx);
	assert_int_equal(sim_disk_poke(fx->sim.m, DEVICE_PATH, at, junk, sizeof(junk)), 0);
	assert_int_equal(fixture_open(fx, false), 0);
	assert_int_equal(info_of(fx).active_slots, 10);
	idle(fx, 1);
	assert_int_equal(info_of(fx).unresolved_blocks, 1);
	idle(fx, 60);
	assert_int_equal(info_of(fx).active_slots, 0);
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(dev_expect(fx, i, 1, 0, 200, 1), 0);
}

/* Closed before everything was verified: what is left is verified after the next open. */
static void doubt_outlives_a_close_and_a_kill(void **state)
{
	struct device_fixture *fx = *state;
	uint8_t junk[512];
	uint64_t at;

	memset(junk, 0x5a, sizeof(junk));
	for (uint32_t i = 0; i < 40; i++)
		assert_int_equal(dev_write(fx, i, 1, 0, 256, 1, 0), 0);
	assert_int_equal(dev_flush(fx), 0);
	idle(fx, 5);
	at = device_block_offset(fx->dev, 39, 255);
	fixture_power_loss(fx);
	assert_int_equal(sim_disk_poke(fx->sim.m, DEVICE_PATH, at, junk, sizeof(junk)), 0);
	assert_int_equal(fixture_open(fx, false), 0);
	assert_int_equal(fixture_close(fx), 0);
	assert_int_equal(fixture_open(fx, false), 0);
	assert_false(info_of(fx).replayed_power_loss);
	fixture_kill(fx);
	assert_int_equal(fixture_open(fx, false), 0);
	assert_false(info_of(fx).replayed_power_loss);
	idle(fx, 5);
	assert_int_equal(info_of(fx).unresolved_blocks, 1);
	assert_int_equal(dev_expect(fx, 39, 1, 0, 255, 1), 0);
	assert_int_equal(info_of(fx).bad_blocks, 0);
}

static void power_lost_again_while_opening_changes_nothing(void **state)
{
	struct device_fixture *fx = *state;

	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(dev_write(fx, i, 1, 0, 4, 7 + i, 0), 0);
	assert_int_equal(dev_flush(fx), 0);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(dev_write(fx, i, 1, 2, 4, 70 + i, 0), 0);
	for (uint32_t steps = 10; steps < 100; steps += 3) {
		fixture_power_loss(fx);
		fixture_open_steps(fx, steps);
	}
	fixture_power_loss(fx);
	assert_int_equal(fixture_open(fx, false), 0);
	for (uint32_t i = 0; i < 20; i++) {
		assert_int_equal(dev_expect(fx, i, 1, 0, 2, 7 + i), 0);
		for (uint32_t b = 4; b < 6; b++) /* unflushed, over a hole: there or not */
			assert_true(dev_expect(fx, i, 1, b, 1, 70 + i) == 0 ||
				    dev_expect(fx, i, 1, b, 1, 0) == 0);
	}
}

/* ---- round the journal ------------------------------------------------------------------------------------------------ */

/* Several laps of the ring, with few pages allowed to be dirty, then a crash of either kind. */
static void the_journal_goes_round(void **state)
{
	struct device_fixture *fx = *state;
	enum { N = 64 };
	struct fixture_req *q[N];
	uint32_t last[100] = {};

	for (uint32_t round = 0; round < 300; round++) {
		for (uint32_t i = 0; i < N; i++) {
			uint32_t slot = (round * 7 + i) % 100;

			q[i] = req_new(fx, CHUNK_WRITE, slot, 1, (round % 60) * 4, 4);
			q[i]->r.flags = i % 4 ? 0 : CHUNK_F_STABLE;
			last[slot] = round * 1000 + i + 1;
			req_fill(q[i], last[slot]);
			req_submit(q[i]);
		}
		for (uint32_t i = 0; i < N; i++) {
			assert_int_equal(req_wait(q[i]), 0);
			req_free(q[i]);
		}
		for (uint32_t i = 0; i < 10; i++)
			assert_int_equal(dev_flush(fx), 0);
	}
	for (uint32_t i = 0; i < 5000; i++) /* one block each: more than two laps */
		assert_int_equal(dev_write(fx, i % 100, 1, 250, 1, i + 1, CHUNK_F_STABLE), 0);
	assert_true(info_of(fx).journal_blocks > 2 * 2048);
	assert_true(info_of(fx).checkpoints > 0);
	fixture_power_loss(fx);
	assert_int_equal(fixture_open(fx, false), 0);
	for (uint32_t slot = 0; slot < 100; slot++)
		assert_int_equal(dev_expect(fx, slot, 1, 250, 1, 4900 + slot + 1), 0);
	assert_int_equal(info_of(fx).bad_blocks, 0);
}

static void an_idle_device_tidies_up_and_falls_silent(void **state)
{
	struct device_fixture *fx = *state;
	uint64_t events;

	for (uint32_t i = 0; i < 30; i++)
		assert_int_equal(dev_write(fx, i, 1, 0, 4, 1, 0), 0);
	idle(fx, 60);
	assert_int_equal(info_of(fx).active_slots, 0);
	assert_false(info_of(fx).dirty);
	events = sim_events(fx->sim.w);
	idle(fx, 500);
	assert_in_range(sim_events(fx->sim.w) - events, 0, 5);
}

static void nothing(void *arg, int status)
{
	(void)arg;
	(void)status;
}

static uint64_t some_time(void *arg, const char *path, const struct ioe_req *r)
{
	struct device_fixture *fx = arg;

	(void)path;
	return r->op == IOE_WRITE ? sim_rand(fx->sim.w) % 60000000 : 0;
}

/* Of two blocks on their way to a slow disk it may keep the second alone: that one must not name the first as the one to begin with. */
static void a_journal_block_on_its_way_is_nobody_s_tail(void **state)
{
	struct device_fixture *fx = *state;

	assert_int_equal(dev_write(fx, 0, 1, 0, 1, 7, CHUNK_F_STABLE), 0);
	for (uint32_t round = 1; round <= 60; round++) {
		idle(fx, 70); /* nothing pins the journal any more */
		sim_disk_delay(fx->sim.m, some_time, fx);
		device_commit_put(fx->dev, 100 + round, nothing, NULL);
		assert_int_equal(dev_write(fx, 1 + round, 1, 1, 1, round, 0), 0);
		sim_run(fx->sim.w, sim_now_ns(fx->sim.w) + sim_rand(fx->sim.w) % 60000000);
		fixture_power_loss(fx);
		sim_disk_delay(fx->sim.m, NULL, NULL);
		assert_int_equal(fixture_open(fx, false), 0);
		assert_int_equal(dev_expect(fx, 0, 1, 0, 1, 7), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	    T(acknowledged_writes_survive_a_kill),
	    T(a_kill_amid_writes_leaves_old_or_new),
	    T(without_the_ring_a_kill_is_a_power_loss),
	    T(an_orderly_close_leaves_no_ring),
	    T(kills_amid_opens_lose_nothing),
	    T(a_damaged_ring_is_no_ring),
	    T(what_was_flushed_survives_power_loss),
	    T(a_torn_overwrite_is_accepted_and_counted_once),
	    T(the_background_verifies_what_nobody_reads),
	    T(doubt_outlives_a_close_and_a_kill),
	    T(power_lost_again_while_opening_changes_nothing),
	    T(the_journal_goes_round),
	    T(a_journal_block_on_its_way_is_nobody_s_tail),
	    T(an_idle_device_tidies_up_and_falls_silent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
