/* SPDX-License-Identifier: Apache-2.0 */
/* test_io.c - reading and writing: what is accepted, order, partial blocks, pools, devices that are away, stale mappings,
 * damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "src/base/log.h"
#include "tests/lib/volume_fixture.h"

enum { CHUNK = 1 << CHUNK_SHIFT_FLASH };

static struct volume_handle *fixture(struct volume_fixture *fx, struct volumes_limits limits)
{
	volume_fixture_init(fx, &(struct volume_fixture_config){.seed = 1, .limits = limits});
	return vf_open(fx, "vol");
}

static const struct volumes_limits usual;

static void writes_are_read_back(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, usual);

	(void)state;
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
	volume_fixture_free(&fx);
}

static void disk_chunks_work_the_same(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h;

	(void)state;
	volume_fixture_init(&fx, &(struct volume_fixture_config){.seed = 1,
								 .size_bytes = 40 << 20,
								 .chunk_shift = CHUNK_SHIFT_DISK});
	h = vf_open(&fx, "vol");
	assert_int_equal(vf_write(&fx, h, (4 << 20) - 512, (8 << 20) + 1024, 1), 0);
	assert_true(vf_reads(&fx, h, (4 << 20) - 512, (8 << 20) + 1024, 1));
	assert_true(vf_reads(&fx, h, 0, (4 << 20) - 512, 0));
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 4 << 20, 8 << 20, 0), 0);
	assert_true(vf_reads(&fx, h, 4 << 20, 8 << 20, 0));
	sim_sleep(&fx.sim, 20000000000ULL); /* run-ahead is returned, too */
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 2);
	volume_fixture_free(&fx);
}

/* The largest request there is, at an odd place. */
static void thirty_two_mebibytes(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h;

	(void)state;
	volume_fixture_init(&fx, &(struct volume_fixture_config){.seed = 1, .size_bytes = 40 << 20});
	h = vf_open(&fx, "vol");
	assert_int_equal(vf_write(&fx, h, 1536, VOLUME_IO_BYTES_MAX, 1), 0);
	assert_true(vf_reads(&fx, h, 1536, VOLUME_IO_BYTES_MAX, 1));
	assert_true(vf_reads(&fx, h, 0, 1536, 0));
	volume_fixture_free(&fx);
}

static void bad_requests_are_refused(void **state)
{
	static const struct {
		enum volume_op op;
		uint64_t off, len;
		uint32_t flags;
		int status;
	} cases[] = {
	    {VOLUME_READ, 0, 0, 0, -EINVAL},
	    {VOLUME_READ, 8 << 20, 512, 0, -EINVAL},
	    {VOLUME_READ, (8 << 20) - 512, 1024, 0, -EINVAL},
	    {VOLUME_READ, 100, 512, 0, -EINVAL},
	    {VOLUME_READ, 0, 100, 0, -EINVAL},
	    {VOLUME_READ, 0, 512, VOLUME_F_FUA, -EINVAL},
	    {VOLUME_WRITE, 0, 512, VOLUME_F_NO_HOLE, -EINVAL},
	    {VOLUME_DISCARD, UINT64_MAX - 511, 512, 0, -EINVAL},
	    {VOLUME_DISCARD, 512, UINT64_MAX - 511, 0, -EINVAL},
	    {VOLUME_WRITE_ZEROES, 0, 512, VOLUME_F_FAST_ZERO, -EOPNOTSUPP},
	    {VOLUME_FLUSH, 0, 0, VOLUME_F_FUA, -EINVAL},
	    {(enum volume_op)17, 0, 512, 0, -EINVAL},
	};
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, usual);
	struct vf_open ro = {.op = {.name = "vol", .read_only = true}};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		struct vf_io io;

		vf_io_prepare(&io, VOLUME_FLUSH, 0, 0, cases[i].flags, 0);
		io.r.op = cases[i].op;
		io.r.off = cases[i].off;
		io.r.len = cases[i].len;
		volume_submit(h, &io.r);
		assert_int_equal(vf_io_wait(&fx, &io), cases[i].status);
	}
	assert_int_equal(vf_do(&fx, h, VOLUME_READ, 0, 8 << 20, 0), 0);
	vf_open_start(&fx, &ro);
	assert_int_equal(vf_open_wait(&fx, &ro), 0);
	assert_int_equal(vf_write(&fx, ro.op.handle, 0, 4096, 1), -EROFS);
	assert_int_equal(vf_do(&fx, ro.op.handle, VOLUME_DISCARD, 0, 4096, 0), -EROFS);
	assert_int_equal(vf_do(&fx, ro.op.handle, VOLUME_WRITE_ZEROES, 0, 4096, 0), -EROFS);
	assert_int_equal(vf_do(&fx, ro.op.handle, VOLUME_READ, 0, 4096, 0), 0);
	assert_int_equal(vf_flush(&fx, ro.op.handle), 0);
	volume_fixture_free(&fx);
}

static void overlapping_requests_keep_their_order(void **state)
{
	enum { N = 40 };
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, usual);
	struct vf_io w[N], r[N];

	(void)state;
	for (int i = 0; i < N; i++) {
		vf_io_start(&fx, h, &w[i], VOLUME_WRITE, (uint64_t)(i % 3) * 512, 4096, 0, 100 + i);
		vf_io_start(&fx, h, &r[i], VOLUME_READ, (uint64_t)(i % 3) * 512, 4096, 0, 0);
	}
	for (int i = 0; i < N; i++) {
		assert_int_equal(vf_io_wait(&fx, &r[i]), 0);
		assert_true(w[i].is_done);
		for (uint64_t at = 0; at < 4096; at += 512)
			assert_int_equal(vf_pattern_id((uint8_t *)r[i].r.buf + at, r[i].r.off + at),
					 100 + i);
		vf_io_end(&w[i]);
		vf_io_end(&r[i]);
	}
	assert_true(vf_stats(&fx, "vol")->lock_waits >= N - 1);
	volume_fixture_free(&fx);
}

static void one_piece_and_one_scratch_are_enough(void **state)
{
	enum { N = 50 };
	struct volumes_limits small = {.pieces_per_volume = 1,
				       .pieces_shared = UINT32_MAX,
				       .scratch_per_volume = 1,
				       .scratch_shared = UINT32_MAX};
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, small);
	struct vf_io io[N];

	(void)state;
	for (int i = 0; i < N; i++)
		vf_io_start(&fx, h, &io[i], i % 3 ? VOLUME_WRITE : VOLUME_READ,
			    (uint64_t)i * 100 * 512, (uint64_t)(i % 5 + 1) * 100 * 512, 0, 7);
	for (int i = 0; i < N; i++) {
		assert_int_equal(vf_io_wait(&fx, &io[i]), 0);
		vf_io_end(&io[i]);
	}
	assert_true(vf_stats(&fx, "vol")->pool_waits > 0);
	assert_int_equal(vf_flush(&fx, h), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_STATUS, 0, 8 << 20, 0), 0);
	volume_fixture_free(&fx);
}

/* All that a stuck volume takes of the shared pools leaves room for another. */
static void a_stuck_volume_stops_nobody_else(void **state)
{
	enum { N = 200 };
	struct volumes_limits small = {.pieces_per_volume = 2,
				       .pieces_shared = 8,
				       .scratch_per_volume = 1,
				       .scratch_shared = 2};
	static struct vf_io io[N];
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, small), *other;

	(void)state;
	mock_meta_volume(&fx.meta, "other", 8 << 20);
	assert_int_equal(vf_write(&fx, h, 0, 8 << 20, 1), 0);
	other = vf_open(&fx, "other");
	assert_int_equal(vf_write(&fx, other, 0, 8 << 20, 2), 0);
	mock_store_stuck(&fx.store, fx.vol->id);
	for (int i = 0; i < N; i++)
		vf_io_start(&fx, h, &io[i], VOLUME_WRITE, (uint64_t)i * 8192 + 512, 4096, 0, 3);
	assert_int_equal(vf_write(&fx, other, 512, 8192, 4), 0);
	assert_true(vf_reads(&fx, other, 512, 8192, 4));
	for (int i = 0; i < N; i++)
		assert_false(io[i].is_done);
	mock_store_stuck(&fx.store, 0);
	for (int i = 0; i < N; i++) {
		assert_int_equal(vf_io_wait(&fx, &io[i]), 0);
		vf_io_end(&io[i]);
	}
	volume_fixture_free(&fx);
}

static void a_device_that_is_away_makes_wait(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, usual);
	struct vf_io io;

	(void)state;
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
	for (device_no d = 1; d <= VF_DEVICES; d++)
		mock_store_away(&fx.store, d, true);
	vf_io_start(&fx, h, &io, VOLUME_WRITE, 0, 4096, 0, 2);
	sim_sleep(&fx.sim, 60000000000ULL);
	assert_false(io.is_done);
	for (device_no d = 1; d <= VF_DEVICES; d++)
		mock_store_away(&fx.store, d, false);
	assert_int_equal(vf_io_wait(&fx, &io), 0);
	vf_io_end(&io);
	assert_true(vf_reads(&fx, h, 0, 4096, 2));
	volume_fixture_free(&fx);
}

static void errors_are_told_once_and_honestly(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, usual);
	const struct map_entry *e;

	(void)state;
	assert_int_equal(vf_write(&fx, h, 0, 64 << 10, 1), 0);
	fx.store.fail_permille = 1000;
	assert_int_equal(vf_do(&fx, h, VOLUME_READ, 0, 4096, 0), -EIO);
	assert_int_equal(vf_write(&fx, h, 0, 4096, 2), -EIO);
	assert_int_equal(vf_write(&fx, h, 512, 512, 2), -EIO);
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 0, 4096, 0), -EIO);
	assert_int_equal(vf_flush(&fx, h), -EIO);
	fx.store.fail_permille = 0;
	assert_int_equal(vf_flush(&fx, h), 0);
	e = mock_meta_entry(fx.vol, 0, 0);
	mock_store_put(&fx.store, e->replicas[0].dev, e->replicas[0].slot, e->replicas[0].cgen,
		       fx.vol->layers[0]->id, 0, 5, BLOCK_BAD, NULL);
	assert_int_equal(vf_do(&fx, h, VOLUME_READ, 5 * 4096, 4096, 0), -E_BAD_BLOCK);
	assert_int_equal(vf_write(&fx, h, 5 * 4096 + 512, 512, 3),
			 -E_BAD_BLOCK); /* it cannot be completed */
	assert_int_equal(vf_write(&fx, h, 5 * 4096, 4096, 3), 0);
	assert_true(vf_reads(&fx, h, 5 * 4096, 4096, 3));
	for (device_no d = 1; d <= VF_DEVICES; d++)
		fx.store.dev[d].full = true;
	assert_int_equal(vf_write(&fx, h, 0, 4096, 4), -ENOSPC);
	volume_fixture_free(&fx);
}

static void a_moved_chunk_is_found_again(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, usual);

	(void)state;
	assert_int_equal(vf_write(&fx, h, 0, 2 * CHUNK, 1), 0);
	assert_true(mock_meta_move(&fx.meta, fx.vol, 0));
	assert_true(vf_reads(&fx, h, 0, CHUNK, 1));
	assert_true(mock_meta_move(&fx.meta, fx.vol, 1));
	assert_int_equal(vf_write(&fx, h, CHUNK + 512, 512, 2), 0);
	assert_true(mock_meta_move(&fx.meta, fx.vol, 0));
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, 4096, 4096, 0), 0);
	assert_true(vf_reads(&fx, h, 0, 4096, 1));
	assert_true(vf_reads(&fx, h, 4096, 4096, 0));
	assert_true(vf_reads(&fx, h, CHUNK + 512, 512, 2));
	assert_int_equal(vf_stats(&fx, "vol")->stale, 3);
	assert_int_equal(fx.events_n, 0);
	volume_fixture_free(&fx);
}

static void a_mapping_refused_for_good_is_an_error(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, usual);
	const struct map_entry *e;

	(void)state;
	assert_int_equal(vf_write(&fx, h, 0, CHUNK, 1), 0);
	assert_int_equal(vf_write(&fx, h, CHUNK, 4096, 1), 0);
	e = mock_meta_entry(fx.vol, 0, 0);
	fx.store.dev[e->replicas[0].dev].slots[e->replicas[0].slot].cgen++;
	assert_int_equal(vf_do(&fx, h, VOLUME_READ, 0, 4096, 0), -EIO);
	assert_int_equal(fx.events_n, 1);
	assert_string_equal(fx.event, "map-stale");
	assert_int_equal(vf_write(&fx, h, 0, 4096, 2), -EIO);
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 0, 4096, 0), -EIO);
	assert_int_equal(vf_do(&fx, h, VOLUME_STATUS, 0, 4096, 0), -EIO);
	assert_true(vf_reads(&fx, h, CHUNK, 4096, 1)); /* the others are all right */
	volume_fixture_free(&fx);
}

static void counters_count(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, usual);
	const struct volume_stats *st;

	(void)state;
	for (int i = 0; i < 10; i++)
		assert_int_equal(vf_write(&fx, h, (uint64_t)i * 4096, 4096, 1), 0);
	assert_int_equal(vf_write(&fx, h, 1, 4096 - 512, 1), -EINVAL);
	assert_true(vf_reads(&fx, h, 0, 8192, 1));
	st = vf_stats(&fx, "vol");
	assert_int_equal(st->op[VOLUME_WRITE].requests, 11);
	assert_int_equal(st->op[VOLUME_WRITE].errors, 1);
	assert_int_equal(st->op[VOLUME_WRITE].bytes, 40960);
	assert_int_equal(st->op[VOLUME_WRITE].latency_ns.count, 11);
	assert_int_equal(st->op[VOLUME_READ].bytes, 8192);
	assert_true(hist_permille(&st->op[VOLUME_READ].latency_ns, 500) > 0);
	assert_int_equal(st->in_flight, 0);
	volume_fixture_free(&fx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(writes_are_read_back),
	    cmocka_unit_test(disk_chunks_work_the_same),
	    cmocka_unit_test(thirty_two_mebibytes),
	    cmocka_unit_test(bad_requests_are_refused),
	    cmocka_unit_test(overlapping_requests_keep_their_order),
	    cmocka_unit_test(one_piece_and_one_scratch_are_enough),
	    cmocka_unit_test(a_stuck_volume_stops_nobody_else),
	    cmocka_unit_test(a_device_that_is_away_makes_wait),
	    cmocka_unit_test(errors_are_told_once_and_honestly),
	    cmocka_unit_test(a_moved_chunk_is_found_again),
	    cmocka_unit_test(a_mapping_refused_for_good_is_an_error),
	    cmocka_unit_test(counters_count),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
