/* SPDX-License-Identifier: Apache-2.0 */
/* test_flush.c - what is stable when: FUA, writethrough, FLUSH and its sharing, power loss. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "src/base/log.h"
#include "tests/lib/volume_fixture.h"

static struct volume_handle *fixture(struct volume_fixture *fx)
{
	volume_fixture_init(fx, &(struct volume_fixture_config){.seed = 1});
	return vf_open(fx, "vol");
}

/* For what is done many times: large pools are slow under a sanitizer. */
static void small_fixture(struct volume_fixture *fx, uint64_t seed)
{
	volume_fixture_init(fx,
			    &(struct volume_fixture_config){.seed = seed,
							    .limits = {.pieces_shared = 8,
								       .scratch_shared = 2,
								       .map_cache_bytes = 1 << 20}});
}

static uint64_t flushes(const struct volume_fixture *fx)
{
	uint64_t n = 0;

	for (device_no d = 1; d <= VF_DEVICES; d++)
		n += fx->store.dev[d].flushes;
	return n;
}

static device_no device_of(struct volume_fixture *fx, uint32_t chunk)
{
	return mock_meta_entry(fx->vol, 0, chunk)->replicas[0].dev;
}

static bool is_stable(struct volume_fixture *fx, uint64_t off)
{
	const struct map_entry *e = mock_meta_entry(fx->vol, 0, (uint32_t)(off >> 20));
	const struct mock_block *b =
	    &fx->store.dev[e->replicas[0].dev].slots[e->replicas[0].slot].blocks[(off >> 12) & 255];

	return b->stable_state == b->state &&
	       (!b->data || memcmp(b->data, b->stable_data, BLOCK_BYTES) == 0);
}

static void the_first_flush_of_an_owner_goes_everywhere(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx);

	(void)state;
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(flushes(&fx), VF_DEVICES);
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(flushes(&fx), VF_DEVICES); /* nothing is owed */
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
	assert_false(is_stable(&fx, 0));
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(flushes(&fx), VF_DEVICES + 1); /* only where it went */
	assert_true(is_stable(&fx, 0));
	volume_fixture_free(&fx);
}

static void fua_needs_no_flush(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx);

	(void)state;
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE, 0, 65536, VOLUME_F_FUA), 0);
	assert_true(is_stable(&fx, 0));
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, 0, 8192, VOLUME_F_FUA), 0);
	assert_true(is_stable(&fx, 0));
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 8192, 8192, VOLUME_F_FUA), 0);
	assert_true(is_stable(&fx, 8192));
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, 16384 + 512, 512, VOLUME_F_FUA), 0);
	assert_true(is_stable(&fx, 16384));
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(flushes(&fx), VF_DEVICES);
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 16384, 4096, 0),
			 0); /* without it a flush is owed */
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(flushes(&fx), VF_DEVICES + 1);
	volume_fixture_free(&fx);
}

/* The block reads as zeros already, but those are volatile: after FUA they must not be. */
static void fua_makes_zeros_stable_that_were_there(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx);

	(void)state;
	assert_int_equal(vf_write(&fx, h, 0, 65536, 1), 0);
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, 0, 8192, 0), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 8192, 8192, 0), 0);
	assert_false(is_stable(&fx, 0) || is_stable(&fx, 8192));
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, 512, 512, VOLUME_F_FUA), 0);
	assert_true(is_stable(&fx, 0));
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, 8192 + 1024, 8192, VOLUME_F_FUA), 0);
	assert_true(is_stable(&fx, 8192) && is_stable(&fx, 12288) && is_stable(&fx, 16384));
	assert_true(vf_reads(&fx, h, 16384 + 1024, 65536 - 16384 - 1024, 1));
	volume_fixture_free(&fx);
}

static void other_nodes_and_far_clients_write_through(void **state)
{
	struct vf_open far = {.op = {.name = "vol", .remote_client = true}};
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx);

	(void)state;
	vf_open_start(&fx, &far);
	assert_int_equal(vf_open_wait(&fx, &far), 0);
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
	assert_false(is_stable(&fx, 0));
	assert_int_equal(vf_write(&fx, far.op.handle, 0, 4096, 2), 0);
	assert_true(is_stable(&fx, 0));
	fx.store.dev[device_of(&fx, 0)].remote = true;
	assert_int_equal(vf_write(&fx, h, 0, 4096, 3), 0);
	assert_true(is_stable(&fx, 0));
	volume_fixture_free(&fx);
}

static void flushes_share_and_cover(void **state)
{
	enum { N = 20 };
	struct vf_io io[N], late;
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx), *other;

	(void)state;
	other = vf_open(&fx, "vol");
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(vf_write(&fx, h, 0, 8192, 1), 0);
	for (int i = 0; i < N; i++)
		vf_io_start(&fx, i % 2 ? h : other, &io[i], VOLUME_FLUSH, 0, 0, 0, 0);
	for (int i = 0; i < N; i++)
		assert_int_equal(vf_io_wait(&fx, &io[i]), 0);
	assert_int_equal(flushes(&fx), VF_DEVICES + 1);

	/* one that comes with something new acknowledged needs another, which later ones share */
	assert_int_equal(vf_write(&fx, h, 0, 4096, 2), 0);
	vf_io_start(&fx, h, &io[0], VOLUME_FLUSH, 0, 0, 0, 0);
	vf_io_start(&fx, other, &late, VOLUME_WRITE, 4096, 4096, 0, 3);
	assert_int_equal(vf_io_wait(&fx, &late), 0);
	vf_io_end(&late);
	for (int i = 1; i < 4; i++)
		vf_io_start(&fx, h, &io[i], VOLUME_FLUSH, 0, 0, 0, 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(vf_io_wait(&fx, &io[i]), 0);
	assert_true(is_stable(&fx, 4096));
	assert_in_range(flushes(&fx), VF_DEVICES + 2, VF_DEVICES + 3);
	volume_fixture_free(&fx);
}

static void a_failed_flush_made_nothing_stable(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx);

	(void)state;
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
	fx.store.fail_permille = 1000;
	assert_int_equal(vf_flush(&fx, h), -EIO);
	assert_int_equal(vf_flush(&fx, h), -EIO);
	fx.store.fail_permille = 0;
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_true(is_stable(&fx, 0));
	volume_fixture_free(&fx);
}

/* A flush covers what was acknowledged when it was submitted, not what was acknowledged when it ended. */
static void a_flush_under_way_covers_no_later_writes(void **state)
{
	int later = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 40 && later < 3; seed++) {
		struct volume_fixture fx;
		struct volume_handle *h;
		struct vf_io flush, write;

		small_fixture(&fx, seed);
		h = vf_open(&fx, "vol");
		assert_int_equal(vf_flush(&fx, h), 0);
		assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
		vf_io_start(&fx, h, &flush, VOLUME_FLUSH, 0, 0, 0, 0);
		vf_io_start(&fx, h, &write, VOLUME_WRITE, 4096, 4096, 0, 2);
		assert_int_equal(vf_io_wait(&fx, &write), 0);
		later += !flush.is_done;
		assert_int_equal(vf_io_wait(&fx, &flush), 0);
		assert_int_equal(vf_flush(&fx, h), 0);
		assert_true(is_stable(&fx, 0) && is_stable(&fx, 4096));
		vf_io_end(&write);
		volume_fixture_free(&fx);
	}
	assert_true(later > 0);
}

/* ---- power loss ------------------------------------------------------------------------------------------------------- */

static void a_loss_is_told_once(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx);

	(void)state;
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
	mock_store_power_loss(&fx.store, device_of(&fx, 0));
	assert_int_equal(vf_flush(&fx, h), -E_UNFLUSHED_LOST);
	assert_string_equal(fx.event, "writes-lost");
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(vf_stats(&fx, "vol")->unflushed_lost, 1);
	volume_fixture_free(&fx);
}

static void nothing_unflushed_nothing_lost(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx);

	(void)state;
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
	assert_int_equal(vf_flush(&fx, h), 0);
	mock_store_power_loss(&fx.store, device_of(&fx, 0));
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(vf_write(&fx, h, 0, 4096, 2), 0);
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE, 0, 4096, VOLUME_F_FUA), 0);
	mock_store_power_loss(&fx.store, device_of(&fx, 0));
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(fx.events_n, 0);
	volume_fixture_free(&fx);
}

/* The client writes on after the loss before it flushes: the device has forgotten, the runtime has not. */
static void writing_on_does_not_hide_a_loss(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx);

	(void)state;
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
	mock_store_power_loss(&fx.store, device_of(&fx, 0));
	assert_int_equal(vf_write(&fx, h, 4096, 4096, 2), 0);
	assert_int_equal(vf_flush(&fx, h), -E_UNFLUSHED_LOST);
	assert_true(is_stable(&fx, 4096));
	assert_int_equal(vf_flush(&fx, h), 0);
	volume_fixture_free(&fx);
}

/* Lost while a flush is under way: whatever the moment, either the flush came first and nothing was lost, or somebody is told. */
static void lost_during_a_flush(void **state)
{
	(void)state;
	for (uint64_t at_ns = 0; at_ns < 1000000; at_ns += 20000) {
		struct volume_fixture fx;
		struct volume_handle *h;
		struct vf_io flush, write;
		int told;

		small_fixture(&fx, 1);
		h = vf_open(&fx, "vol");
		assert_int_equal(vf_flush(&fx, h), 0);
		assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
		vf_io_start(&fx, h, &flush, VOLUME_FLUSH, 0, 0, 0, 0);
		vf_io_start(&fx, h, &write, VOLUME_WRITE, 4096, 4096, 0, 2);
		if (at_ns)
			sim_sleep(&fx.sim, at_ns);
		mock_store_power_loss(&fx.store, device_of(&fx, 0));
		told = vf_io_wait(&fx, &flush) == -E_UNFLUSHED_LOST;
		assert_int_equal(vf_io_wait(&fx, &write), 0);
		vf_io_end(&write);
		told += vf_flush(&fx, h) == -E_UNFLUSHED_LOST;
		if (!vf_reads(&fx, h, 0, 4096, 1) || !vf_reads(&fx, h, 4096, 4096, 2))
			assert_true(told > 0);
		assert_int_equal(vf_flush(&fx, h), 0);
		volume_fixture_free(&fx);
	}
}

/* The answer of a write that was lost comes after the answer of one in the device's new incarnation. */
static void a_late_answer_does_not_hide_a_loss(void **state)
{
	int late = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 300 && late < 3; seed++) {
		struct volume_fixture fx;
		struct volume_handle *h;
		struct vf_io first, second;
		bool lost;

		small_fixture(&fx, seed);
		h = vf_open(&fx, "vol");
		assert_int_equal(vf_write(&fx, h, 0, 8192, 9), 0);
		assert_int_equal(vf_flush(&fx, h), 0);
		vf_io_start(&fx, h, &first, VOLUME_WRITE, 0, 4096, 0, 1);
		sim_sleep(&fx.sim, seed % 20 * 5000);
		mock_store_power_loss(&fx.store, device_of(&fx, 0));
		lost = !first.is_done;
		vf_io_start(&fx, h, &second, VOLUME_WRITE, 4096, 4096, 0, 2);
		assert_int_equal(vf_io_wait(&fx, &second), 0);
		lost = lost && !first.is_done;
		assert_int_equal(vf_io_wait(&fx, &first), 0);
		if (lost && !vf_reads(&fx, h, 0, 4096, 1)) {
			late++;
			assert_int_equal(vf_flush(&fx, h), -E_UNFLUSHED_LOST);
		}
		vf_io_end(&first);
		vf_io_end(&second);
		volume_fixture_free(&fx);
	}
	assert_true(late > 0);
}

/* Two clients wait for different device flushes when the loss is found: it may have been either's write. */
static void everybody_who_waits_is_told_of_a_loss(void **state)
{
	int both = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 300 && both < 3; seed++) {
		struct volume_fixture fx;
		struct volume_handle *h;
		struct vf_io first, second, write;
		bool waits;
		int told;

		small_fixture(&fx, seed);
		h = vf_open(&fx, "vol");
		assert_int_equal(vf_flush(&fx, h), 0);
		assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
		mock_store_power_loss(&fx.store, device_of(&fx, 0));
		vf_io_start(&fx, h, &first, VOLUME_FLUSH, 0, 0, 0, 0);
		vf_io_start(&fx, h, &write, VOLUME_WRITE, 4096, 4096, 0, 2);
		assert_int_equal(vf_io_wait(&fx, &write), 0);
		waits = !first.is_done;
		vf_io_start(&fx, h, &second, VOLUME_FLUSH, 0, 0, 0, 0);
		waits = waits && !first.is_done;
		assert_int_equal(vf_io_wait(&fx, &first), -E_UNFLUSHED_LOST);
		told = vf_io_wait(&fx, &second);
		if (waits) {
			both++;
			assert_int_equal(told, -E_UNFLUSHED_LOST);
		}
		vf_io_end(&write);
		volume_fixture_free(&fx);
	}
	assert_true(both > 0);
}

/* Each client relies on its own flushes: what another one's was told, it has not heard. */
static void each_client_is_told_of_its_loss(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx), *other = vf_open(&fx, "vol"),
			     *idle = vf_open(&fx, "vol"), *heir;

	(void)state;
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(vf_write(&fx, idle, 0, 4096, 1), 0);
	assert_int_equal(vf_flush(&fx, idle), 0);
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
	assert_int_equal(vf_write(&fx, other, 4096, 4096, 2), 0);
	mock_store_power_loss(&fx.store, device_of(&fx, 0));
	assert_int_equal(vf_flush(&fx, other), -E_UNFLUSHED_LOST);
	assert_int_equal(vf_flush(&fx, idle), 0); /* it has lost nothing */
	assert_int_equal(vf_flush(&fx, h), -E_UNFLUSHED_LOST);
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(vf_flush(&fx, other), 0);

	/* who goes away untold leaves that to the next who comes: it may be the same client */
	assert_int_equal(vf_write(&fx, h, 0, 4096, 3), 0);
	assert_int_equal(vf_write(&fx, other, 4096, 4096, 4), 0);
	mock_store_power_loss(&fx.store, device_of(&fx, 0));
	assert_int_equal(vf_flush(&fx, other), -E_UNFLUSHED_LOST);
	vf_close(&fx, h);
	heir = vf_open(&fx, "vol");
	assert_int_equal(vf_flush(&fx, heir), -E_UNFLUSHED_LOST);
	assert_int_equal(vf_flush(&fx, heir), 0);
	heir = vf_open(&fx, "vol");
	assert_int_equal(vf_flush(&fx, heir), 0);
	volume_fixture_free(&fx);
}

/* A client whose requests hang gives its connection up and connects again; then it turns out that what it had been told is lost. */
static void who_connects_again_is_told_of_a_loss(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx), *again = vf_open(&fx, "vol");

	(void)state;
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
	volume_left(h); /* before the loss is found */
	mock_store_power_loss(&fx.store, device_of(&fx, 0));
	assert_int_equal(vf_flush(&fx, h), -E_UNFLUSHED_LOST); /* which nobody hears */
	assert_int_equal(vf_flush(&fx, again), -E_UNFLUSHED_LOST);
	assert_int_equal(vf_flush(&fx, again), 0);
	vf_close(&fx, h);
	assert_int_equal(vf_flush(&fx, again), 0);

	h = vf_open(&fx, "vol");
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
	assert_int_equal(vf_write(&fx, again, 4096, 4096, 2), 0);
	mock_store_power_loss(&fx.store, device_of(&fx, 0));
	assert_int_equal(vf_flush(&fx, again), -E_UNFLUSHED_LOST);
	volume_left(h); /* after that */
	assert_int_equal(vf_flush(&fx, again), -E_UNFLUSHED_LOST);
	assert_int_equal(vf_flush(&fx, again), 0);

	/* what was flushed before it left is not lost */
	assert_int_equal(vf_write(&fx, again, 0, 4096, 1), 0);
	assert_int_equal(vf_flush(&fx, again), 0);
	volume_left(again);
	h = vf_open(&fx, "vol");
	assert_int_equal(vf_flush(&fx, h), -E_UNFLUSHED_LOST); /* the one before */
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
	mock_store_power_loss(&fx.store, device_of(&fx, 0));
	again = vf_open(&fx, "vol");
	assert_int_equal(vf_flush(&fx, h), -E_UNFLUSHED_LOST);
	assert_int_equal(vf_flush(&fx, again), 0);
	volume_fixture_free(&fx);
}

/* Acknowledged behind a flush that finds a loss, and lost as well: the next flush must not say that it is stable. */
static void what_is_lost_behind_a_flush_is_told_too(void **state)
{
	int behind = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 1000 && behind < 3; seed++) {
		struct vf_io flush, second, third;
		struct volume_fixture fx;
		struct volume_handle *h;
		bool is_behind;

		small_fixture(&fx, seed);
		h = vf_open(&fx, "vol");
		assert_int_equal(vf_write(&fx, h, 0, 12288, 9), 0);
		assert_int_equal(vf_flush(&fx, h), 0);
		assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
		vf_io_start(&fx, h, &flush, VOLUME_FLUSH, 0, 0, 0, 0);
		vf_io_start(&fx, h, &second, VOLUME_WRITE, 4096, 4096, 0, 2);
		assert_int_equal(vf_io_wait(&fx, &second), 0);
		is_behind = !flush.is_done;
		mock_store_power_loss(&fx.store, device_of(&fx, 0));
		vf_io_start(&fx, h, &third, VOLUME_WRITE, 8192, 4096, 0, 3);
		assert_int_equal(vf_io_wait(&fx, &third), 0);
		is_behind = is_behind && !flush.is_done;
		is_behind = vf_io_wait(&fx, &flush) == -E_UNFLUSHED_LOST && is_behind;
		if (is_behind) {
			behind++;
			assert_int_equal(vf_flush(&fx, h), -E_UNFLUSHED_LOST);
			assert_int_equal(vf_flush(&fx, h), 0);
		}
		vf_io_end(&second);
		vf_io_end(&third);
		volume_fixture_free(&fx);
	}
	assert_true(behind > 0);
}

/* A flush carries the owner's epoch, and one that is refused for it says that the volume was taken away. */
static void flushes_carry_the_epoch(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx);

	(void)state;
	vf_close(&fx, h);
	while (fx.vol->owned)
		assert_true(sim_step(fx.sim.w));
	h = vf_open(&fx, "vol");
	assert_true(fx.vol->epoch > 1);
	fx.store.epoch = fx.vol->epoch;
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(vf_write(&fx, h, 0, 4096, 2), 0);
	fx.store.epoch++;
	assert_int_equal(vf_flush(&fx, h), -E_NOT_OWNER);
	assert_string_equal(fx.event, "volume-gone");
	volume_fixture_free(&fx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_first_flush_of_an_owner_goes_everywhere),
	    cmocka_unit_test(fua_needs_no_flush),
	    cmocka_unit_test(fua_makes_zeros_stable_that_were_there),
	    cmocka_unit_test(other_nodes_and_far_clients_write_through),
	    cmocka_unit_test(flushes_share_and_cover),
	    cmocka_unit_test(a_flush_under_way_covers_no_later_writes),
	    cmocka_unit_test(a_failed_flush_made_nothing_stable),
	    cmocka_unit_test(a_loss_is_told_once),
	    cmocka_unit_test(nothing_unflushed_nothing_lost),
	    cmocka_unit_test(writing_on_does_not_hide_a_loss),
	    cmocka_unit_test(lost_during_a_flush),
	    cmocka_unit_test(a_late_answer_does_not_hide_a_loss),
	    cmocka_unit_test(everybody_who_waits_is_told_of_a_loss),
	    cmocka_unit_test(each_client_is_told_of_its_loss),
	    cmocka_unit_test(who_connects_again_is_told_of_a_loss),
	    cmocka_unit_test(what_is_lost_behind_a_flush_is_told_too),
	    cmocka_unit_test(flushes_carry_the_epoch),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
