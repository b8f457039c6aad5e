/* SPDX-License-Identifier: Apache-2.0 */
/* test_alloc.c - mapping chunks: batching, run-ahead, a full pool, the metadata server away, giving back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "src/base/log.h"
#include "tests/lib/volume_fixture.h"

enum { CHUNK = 1 << CHUNK_SHIFT_FLASH };
#define S_NS 1000000000ULL

static struct volume_handle *fixture(struct volume_fixture *fx, uint32_t chunks_n, uint32_t slots_n)
{
	volume_fixture_init(fx, &(struct volume_fixture_config){.seed = 1,
								.size_bytes =
								    (uint64_t)chunks_n * CHUNK,
								.slots_n = slots_n});
	return vf_open(fx, "vol");
}

static void concurrent_allocations_share_a_commit(void **state)
{
	enum { N = 100 };
	static struct vf_io io[N];
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, 400, 200);

	(void)state;
	for (int i = 0; i < N; i++)
		vf_io_start(&fx, h, &io[i], VOLUME_WRITE, (uint64_t)(i * 37 % N) * 3 * CHUNK, 4096,
			    0, 1);
	for (int i = 0; i < N; i++) {
		assert_int_equal(vf_io_wait(&fx, &io[i]), 0);
		vf_io_end(&io[i]);
	}
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), N);
	assert_true(fx.meta.allocs <= 3);
	assert_int_equal(vf_stats(&fx, "vol")->alloc_chunks, N);
	volume_fixture_free(&fx);
}

static void one_chunk_is_asked_for_once(void **state)
{
	enum { N = 64 };
	static struct vf_io io[N];
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, 8, 64);

	(void)state;
	for (int i = 0; i < N; i++)
		vf_io_start(&fx, h, &io[i], VOLUME_WRITE, (uint64_t)i * 4096, 4096, 0, 1);
	for (int i = 0; i < N; i++) {
		assert_int_equal(vf_io_wait(&fx, &io[i]), 0);
		vf_io_end(&io[i]);
	}
	assert_int_equal(fx.meta.allocs, 1);
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 1);
	volume_fixture_free(&fx);
}

/* ---- run-ahead -------------------------------------------------------------------------------------------------------- */

static void write_chunks(struct volume_fixture *fx, struct volume_handle *h, uint32_t first,
			 uint32_t n)
{
	for (uint32_t c = first; c < first + n; c++)
		for (uint32_t part = 0; part < 4; part++)
			assert_int_equal(vf_write(fx, h, (uint64_t)c * CHUNK + part * (CHUNK / 4),
						  CHUNK / 4, 1),
					 0);
}

static void a_sequential_writer_finds_chunks_mapped(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, 64, 64);

	(void)state;
	write_chunks(&fx, h, 0, 2);
	assert_int_equal(mock_meta_mapped(&fx.meta, MAP_RESERVED), 0); /* not yet a sequential one */
	write_chunks(&fx, h, 2, 20);
	assert_int_equal(mock_meta_mapped(&fx.meta, MAP_RESERVED), 16);
	assert_true(vf_reads(&fx, h, 0, 22 * CHUNK, 1));
	assert_true(
	    vf_reads(&fx, h, 22 * CHUNK, 20 * CHUNK, 0)); /* reserved ones read as if unmapped */
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 22 + 16);
	volume_fixture_free(&fx);
}

static void run_ahead_is_returned_when_idle(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, 64, 64);

	(void)state;
	write_chunks(&fx, h, 0, 10);
	assert_true(mock_meta_mapped(&fx.meta, MAP_RESERVED) > 0);
	sim_sleep(&fx.sim, 9 * S_NS);
	assert_true(mock_meta_mapped(&fx.meta, MAP_RESERVED) > 0);
	sim_sleep(&fx.sim, 2 * S_NS);
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 10);
	assert_true(vf_stats(&fx, "vol")->runahead_returned > 0);
	assert_int_equal(vf_stats(&fx, "vol")->runahead_returned,
			 vf_stats(&fx, "vol")->runahead_chunks - 7);
	write_chunks(&fx, h, 10, 1);
	assert_true(vf_reads(&fx, h, 0, 11 * CHUNK, 1));
	volume_fixture_free(&fx);
}

static void run_ahead_is_returned_at_close(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, 64, 64);

	(void)state;
	write_chunks(&fx, h, 0, 10);
	vf_close(&fx, h);
	while (fx.vol->owned)
		assert_true(sim_step(fx.sim.w));
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 10);
	volume_fixture_free(&fx);
}

/* What a predecessor that crashed had reserved is given back, and was never read as anything. */
static void leftover_run_ahead_is_given_back(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h;

	(void)state;
	volume_fixture_init(&fx, &(struct volume_fixture_config){.seed = 1});
	for (uint32_t c = 2; c < 5; c++) {
		struct map_entry *e = &fx.vol->layers[0]->map[c];

		*e = (struct map_entry){.kind = MAP_OPEN, .flags = MAP_RESERVED, .replicas_n = 1};
		e->replicas[0] = (struct replica){.dev = 1, .slot = c, .cgen = c};
		fx.meta.used[1][c] = 1;
		fx.meta.free_n--;
	}
	h = vf_open(&fx, "vol");
	assert_true(vf_reads(&fx, h, 0, 8 << 20, 0));
	sim_sleep(&fx.sim, S_NS);
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 0);
	volume_fixture_free(&fx);
}

/* A predecessor was killed between the data and the commit of a write into run-ahead. Once zeros were acknowledged there, the data must not come
 * back when the next write makes the slot the client's. */
static void leftovers_in_run_ahead_do_not_come_back(void **state)
{
	static const struct {
		uint64_t off, len;
	} zeroed[] = {{2 * CHUNK, CHUNK}, {2 * CHUNK + 4096, 8192}, {2 * CHUNK + 4096 + 512, 512}};
	uint8_t data[BLOCK_BYTES];

	(void)state;
	memset(data, 7, sizeof(data));
	for (int i = 0; i < 3; i++) {
		struct volume_fixture fx;
		struct volume_handle *h;
		struct map_entry *e;

		volume_fixture_init(&fx, &(struct volume_fixture_config){.seed = 1});
		e = &fx.vol->layers[0]->map[2];
		*e = (struct map_entry){.kind = MAP_OPEN, .flags = MAP_RESERVED, .replicas_n = 1};
		e->replicas[0] = (struct replica){.dev = 1, .slot = 2, .cgen = 1};
		fx.meta.cgen = 1;
		fx.meta.used[1][2] = 1;
		fx.meta.free_n--;
		mock_store_put(&fx.store, 1, 2, 1, fx.vol->layers[0]->id, 2, 1, BLOCK_DATA, data);
		h = vf_open(&fx, "vol");
		assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, zeroed[i].off, zeroed[i].len, 0),
				 0);
		assert_int_equal(vf_write(&fx, h, 2 * CHUNK + 65536, 4096, 3), 0);
		assert_int_equal(mock_meta_entry(fx.vol, 0, 2)->replicas[0].cgen, 1);
		if (i < 2)
			assert_true(vf_reads(&fx, h, 2 * CHUNK, 65536, 0));
		assert_true(vf_reads(&fx, h, 2 * CHUNK + 4096 + 512, 512, 0));
		assert_true(vf_reads(&fx, h, 2 * CHUNK + 65536, 4096, 3));
		volume_fixture_free(&fx);
	}
}

/* The same data, and nobody zeroes it: whatever a reader finds there stays, though the next write makes the slot the client's. */
static void leftovers_in_run_ahead_do_not_come_and_go(void **state)
{
	uint8_t data[BLOCK_BYTES];

	(void)state;
	memset(data, 7, sizeof(data));
	for (int i = 0; i < 2; i++) {
		struct volume_fixture fx;
		struct volume_handle *h;
		struct map_entry *e;
		struct vf_io io[2];

		volume_fixture_init(&fx, &(struct volume_fixture_config){.seed = 1});
		e = &fx.vol->layers[0]->map[2];
		*e = (struct map_entry){.kind = MAP_OPEN, .flags = MAP_RESERVED, .replicas_n = 1};
		e->replicas[0] = (struct replica){.dev = 1, .slot = 2, .cgen = 1};
		fx.meta.cgen = 1;
		fx.meta.used[1][2] = 1;
		fx.meta.free_n--;
		mock_store_put(&fx.store, 1, 2, 1, fx.vol->layers[0]->id, 2, 1, BLOCK_DATA, data);
		h = vf_open(&fx, "vol");
		for (int k = 0; k < 2; k++) {
			vf_io_start(&fx, h, &io[k], VOLUME_READ, 2 * CHUNK + 4096, 4096, 0, 0);
			assert_int_equal(vf_io_wait(&fx, &io[k]), 0);
			if (k == 0 && i == 0)
				assert_int_equal(vf_write(&fx, h, 2 * CHUNK + 65536, 4096, 3), 0);
			else if (k == 0)
				sim_sleep(&fx.sim, 10 * S_NS); /* it could be given back */
		}
		assert_memory_equal(io[0].r.buf, io[1].r.buf, 4096);
		vf_io_end(&io[0]);
		vf_io_end(&io[1]);
		volume_fixture_free(&fx);
	}
}

/* A write into a reserved chunk is answered only when the chunk is the client's at the server. */
static void writes_into_run_ahead_wait_for_the_commit(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, 64, 64);
	uint64_t requests;
	struct vf_io io;

	(void)state;
	write_chunks(&fx, h, 0, 10);
	assert_true(mock_meta_entry(fx.vol, 0, 10)->flags & MAP_RESERVED);
	mock_meta_away(&fx.meta, true);
	requests = fx.store.requests;
	vf_io_start(&fx, h, &io, VOLUME_WRITE, 10 * CHUNK, 4096, 0, 2);
	sim_sleep(&fx.sim, S_NS);
	assert_int_equal(fx.store.requests, requests + 1); /* the data is there */
	assert_false(io.is_done);
	mock_meta_away(&fx.meta, false);
	assert_int_equal(vf_io_wait(&fx, &io), 0);
	vf_io_end(&io);
	assert_false(mock_meta_entry(fx.vol, 0, 10)->flags & MAP_RESERVED);

	/* the server took one back without asking: it may */
	assert_true(mock_meta_entry(fx.vol, 0, 11)->flags & MAP_RESERVED);
	assert_true(mock_meta_move(&fx.meta, fx.vol, 11));
	assert_int_equal(vf_write(&fx, h, 11 * CHUNK, 4096, 3), 0);
	assert_true(vf_reads(&fx, h, 10 * CHUNK, 4096, 2));
	assert_true(vf_reads(&fx, h, 11 * CHUNK, 4096, 3));
	volume_fixture_free(&fx);
}

/* The server has given the reserved slot up, but the device still takes data for it: that is not where it must be. */
static void run_ahead_may_be_taken_back(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, 64, 64);

	(void)state;
	write_chunks(&fx, h, 0, 10);
	fx.meta.free_delay_ns_max = 100 * S_NS;
	assert_true(mock_meta_take_back(&fx.meta, fx.vol));
	assert_null(mock_meta_entry(fx.vol, 0, 10));
	assert_int_equal(vf_write(&fx, h, 10 * CHUNK, 4096, 2), 0);
	sim_sleep(&fx.sim, 200 * S_NS);
	assert_true(vf_reads(&fx, h, 10 * CHUNK, 4096, 2));
	volume_fixture_free(&fx);
}

/* Too many places to look at: some grow together over the chunks between them. That is no reason to take what the writer is about to use. */
static void run_ahead_is_not_taken_for_empty(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h;

	(void)state;
	volume_fixture_init(&fx, &(struct volume_fixture_config){.seed = 1,
								 .size_bytes = 256ULL * CHUNK,
								 .slots_n = 100,
								 .limits.reclaim_delay_ns = S_NS});
	h = vf_open(&fx, "vol");
	for (uint32_t c = 100; c < 228; c += 2)
		assert_int_equal(vf_write(&fx, h, (uint64_t)c * CHUNK, 4096, 1), 0);
	assert_int_equal(vf_write(&fx, h, 30 * CHUNK, 4096, 1), 0);
	write_chunks(&fx, h, 0, 10);
	assert_int_equal(mock_meta_mapped(&fx.meta, MAP_RESERVED), 16);
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 8 * CHUNK, CHUNK, 0), 0);
	for (uint32_t c = 100; c < 226; c += 2)
		assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, (uint64_t)c * CHUNK, CHUNK, 0), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 30 * CHUNK, CHUNK, 0), 0);
	sim_sleep(&fx.sim, 5 * S_NS);
	assert_int_equal(vf_stats(&fx, "vol")->reclaimed_chunks, 65);
	assert_int_equal(mock_meta_mapped(&fx.meta, MAP_RESERVED), 16);
	volume_fixture_free(&fx);
}

static void random_writers_get_no_run_ahead(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, 64, 64);

	(void)state;
	for (uint32_t i = 0; i < 30; i++)
		assert_int_equal(vf_write(&fx, h, (uint64_t)(i * 29 % 64) * CHUNK, 4096, 1), 0);
	assert_int_equal(fx.meta.reserved_allocs, 0);
	volume_fixture_free(&fx);
}

/* ---- a full pool ------------------------------------------------------------------------------------------------------ */

static void a_full_pool_says_so(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, 64, 4); /* 12 slots */
	struct vf_io io[20];
	int good = 0;

	(void)state;
	for (uint32_t i = 0; i < 20; i++)
		vf_io_start(&fx, h, &io[i], VOLUME_WRITE, (uint64_t)i * CHUNK, 4096, 0, 1);
	for (uint32_t i = 0; i < 20; i++) {
		int status = vf_io_wait(&fx, &io[i]);

		assert_true(status == 0 || status == -ENOSPC);
		good += status == 0;
		vf_io_end(&io[i]);
	}
	assert_int_equal(good, 12); /* all the space was used, though the first batch did not fit */
	assert_int_equal(vf_write(&fx, h, 63 * CHUNK, 4096, 1), -ENOSPC);
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, 62 * CHUNK, 4096, VOLUME_F_NO_HOLE),
			 0);				    /* takes nothing */
	assert_int_equal(vf_write(&fx, h, 0, CHUNK, 2), 0); /* overwriting goes on */
	assert_true(vf_reads(&fx, h, 0, CHUNK, 2));
	assert_true(vf_reads(&fx, h, 63 * CHUNK, CHUNK, 0));
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 0, CHUNK, 0), 0);
	assert_int_equal(vf_write(&fx, h, 63 * CHUNK, 4096, 3),
			 0); /* waits for what the discard gives back */
	volume_fixture_free(&fx);
}

static void run_ahead_makes_room(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, 64, 8), *other; /* 24 slots */

	(void)state;
	mock_meta_volume(&fx.meta, "other", 64 << 20);
	other = vf_open(&fx, "other");
	write_chunks(&fx, h, 0, 10);
	assert_true(mock_meta_mapped(&fx.meta, MAP_RESERVED) >= 8);
	write_chunks(&fx, other, 0, 14); /* needs what the first one has ahead */
	assert_int_equal(mock_meta_mapped(&fx.meta, MAP_RESERVED), 0);
	assert_int_equal(vf_write(&fx, other, 20 * CHUNK, 4096, 1), -ENOSPC);
	volume_fixture_free(&fx);
}

/* ---- the server away -------------------------------------------------------------------------------------------------- */

static void only_allocations_need_the_server(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, 8, 64);
	struct vf_io io;

	(void)state;
	assert_int_equal(vf_write(&fx, h, 0, CHUNK, 1), 0);
	mock_meta_away(&fx.meta, true);
	vf_io_start(&fx, h, &io, VOLUME_WRITE, 3 * CHUNK, 4096, 0, 2);
	assert_int_equal(vf_write(&fx, h, 4096, 4096, 3), 0);
	assert_true(vf_reads(&fx, h, 4 * CHUNK, CHUNK, 0));
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 0, 8 * CHUNK - 5 * CHUNK, 0), 0);
	assert_int_equal(vf_flush(&fx, h), 0);
	sim_sleep(&fx.sim, 100 * S_NS);
	assert_false(io.is_done);
	mock_meta_away(&fx.meta, false);
	assert_int_equal(vf_io_wait(&fx, &io), 0);
	vf_io_end(&io);
	volume_fixture_free(&fx);
}

static void a_limit_on_waiting(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h;

	(void)state;
	volume_fixture_init(&fx, &(struct volume_fixture_config){.seed = 1,
								 .limits.io_timeout_ns = 5 * S_NS});
	h = vf_open(&fx, "vol");
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
	mock_meta_away(&fx.meta, true);
	assert_int_equal(vf_write(&fx, h, 3 * CHUNK, 4096, 2), -E_META_AWAY);
	mock_meta_away(&fx.meta, false);
	assert_int_equal(vf_write(&fx, h, 3 * CHUNK, 4096, 2), 0);
	assert_true(vf_reads(&fx, h, 3 * CHUNK, 4096, 2));
	volume_fixture_free(&fx);
}

/* ---- giving back ------------------------------------------------------------------------------------------------------ */

static void empty_slots_are_given_back(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, 200, 100);

	(void)state;
	assert_int_equal(vf_write(&fx, h, 0, 30 * CHUNK, 1), 0);
	for (uint32_t c = 40; c < 200; c += 2) /* many ranges */
		assert_int_equal(vf_write(&fx, h, (uint64_t)c * CHUNK, 4096, 1), 0);
	sim_sleep(&fx.sim, 20 * S_NS);
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 110);
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 4096, 30 * CHUNK - 4096, 0),
			 0); /* not the first block */
	for (uint32_t c = 40; c < 200; c += 2)
		assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, (uint64_t)c * CHUNK, 4096, 0),
				 0);
	assert_int_equal(vf_write(&fx, h, 40 * CHUNK, 4096, 2), 0); /* used again in time */
	sim_sleep(&fx.sim, 5 * S_NS);
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 2);
	assert_int_equal(vf_stats(&fx, "vol")->reclaimed_chunks, 108);
	assert_true(vf_reads(&fx, h, 0, 4096, 1));
	assert_true(vf_reads(&fx, h, 40 * CHUNK, 4096, 2));
	volume_fixture_free(&fx);
}

/* A client that is stuck keeps its own chunk from being given back, and nobody else's. */
static void giving_back_does_not_wait_for_the_stuck(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, 8, 64);
	struct vf_io io;

	(void)state;
	assert_int_equal(vf_write(&fx, h, 0, 4 * CHUNK, 1), 0);
	sim_sleep(&fx.sim, 20 * S_NS);
	mock_store_stuck(&fx.store, fx.vol->id);
	vf_io_start(&fx, h, &io, VOLUME_READ, 0, 4096, 0, 0);
	fx.store.stuck = 0; /* only that one */
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 4096, 4 * CHUNK - 4096, 0), 0);
	sim_sleep(&fx.sim, 5 * S_NS);
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 1);
	assert_false(io.is_done);
	mock_store_stuck(&fx.store, 0);
	assert_int_equal(vf_io_wait(&fx, &io), 0);
	vf_io_end(&io);
	volume_fixture_free(&fx);
}

static void kept_space_is_kept(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, 8, 64);

	(void)state;
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, 0, CHUNK, VOLUME_F_NO_HOLE), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, 512, 1024, VOLUME_F_NO_HOLE), 0);
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 0);
	assert_int_equal(vf_write(&fx, h, CHUNK, CHUNK, 1), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, CHUNK, CHUNK, VOLUME_F_NO_HOLE), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, CHUNK, 4096, 0), 0);
	sim_sleep(&fx.sim, 20 * S_NS);
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 1);
	assert_true(vf_reads(&fx, h, 0, 2 * CHUNK, 0));
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 0, 2 * CHUNK, 0), 0);
	sim_sleep(&fx.sim, 20 * S_NS);
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 0);
	volume_fixture_free(&fx);
}

/* A device that fails to say what a slot holds: it is asked again, not all the time, and the space comes back. */
static void a_device_that_does_not_say_is_asked_again(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, 64, 64);
	uint64_t requests;

	(void)state;
	assert_int_equal(vf_write(&fx, h, 0, 20 * CHUNK, 1), 0);
	sim_sleep(&fx.sim, 20 * S_NS);
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 20);
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 0, 20 * CHUNK, 0), 0);
	fx.store.fail_permille = 1000;
	requests = fx.store.requests;
	sim_sleep(&fx.sim, 100 * S_NS);
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 20);
	assert_true(fx.store.requests >= requests + 20 * 5);
	assert_true(fx.store.requests <= requests + 20 * 20);
	fx.store.fail_permille = 0;
	sim_sleep(&fx.sim, 21 * S_NS);
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 0);
	assert_int_equal(vf_stats(&fx, "vol")->reclaimed_chunks, 20);
	/* the next failure is a new one: it does not begin with the longest pause */
	assert_int_equal(vf_write(&fx, h, 0, CHUNK, 1), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 0, CHUNK, 0), 0);
	fx.store.fail_permille = 1000;
	sim_sleep(&fx.sim, S_NS / 5);
	fx.store.fail_permille = 0;
	sim_sleep(&fx.sim, S_NS);
	assert_null(mock_meta_entry(fx.vol, 0, 0));
	/* and it keeps nobody from closing */
	assert_int_equal(vf_write(&fx, h, 0, CHUNK, 1), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 0, CHUNK, 0), 0);
	fx.store.fail_permille = 1000;
	sim_sleep(&fx.sim, 30 * S_NS);
	vf_close(&fx, h);
	sim_sleep(&fx.sim, S_NS);
	assert_false(fx.vol->owned);
	fx.store.fail_permille = 0;
	volume_fixture_free(&fx);
}

/* Holes of a full entry are damage that must not turn into zeros: not even when the chunk is looked at in vain, because it lies between two candidates
 * whose ranges grew together. */
static void a_full_chunk_of_holes_is_kept(void **state)
{
	enum { FULL = 2, RANGES = 64 };
	struct volume_fixture fx;
	struct volume_handle *h;
	struct map_entry *e;

	(void)state;
	volume_fixture_init(&fx,
			    &(struct volume_fixture_config){.seed = 1,
							    .size_bytes = 256ULL * CHUNK,
							    .limits.reclaim_delay_ns = 100 * S_NS});
	h = vf_open(&fx, "vol");
	assert_int_equal(vf_write(&fx, h, FULL * CHUNK, 4096, 1), 0);
	vf_close(&fx, h);
	while (fx.vol->owned)
		assert_true(sim_step(fx.sim.w));
	e = mock_meta_entry(fx.vol, 0, FULL);
	e->flags |= MAP_FULL;
	mock_store_slot(&fx.store, e->replicas[0].dev, e->replicas[0].slot, e->replicas[0].cgen)
	    ->blocks[0]
	    .state = BLOCK_HOLE;
	h = vf_open(&fx, "vol");
	for (uint64_t i = 0; i < RANGES; i++) {
		uint64_t chunk = i ? 3 * i + 5 : FULL - 1;

		assert_int_equal(vf_write(&fx, h, chunk * CHUNK, 4096, 1), 0);
		assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, chunk * CHUNK, 4096, 0), 0);
	}
	assert_int_equal(vf_write(&fx, h, (FULL + 1) * CHUNK, 4096, 1), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, (FULL + 1) * CHUNK, 4096, 0), 0);
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), RANGES + 2);
	sim_sleep(&fx.sim, 300 * S_NS);
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 1);
	assert_int_equal(mock_meta_mapped(&fx.meta, MAP_FULL), 1);
	volume_fixture_free(&fx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(concurrent_allocations_share_a_commit),
	    cmocka_unit_test(one_chunk_is_asked_for_once),
	    cmocka_unit_test(a_sequential_writer_finds_chunks_mapped),
	    cmocka_unit_test(run_ahead_is_returned_when_idle),
	    cmocka_unit_test(run_ahead_is_returned_at_close),
	    cmocka_unit_test(leftover_run_ahead_is_given_back),
	    cmocka_unit_test(leftovers_in_run_ahead_do_not_come_back),
	    cmocka_unit_test(leftovers_in_run_ahead_do_not_come_and_go),
	    cmocka_unit_test(writes_into_run_ahead_wait_for_the_commit),
	    cmocka_unit_test(run_ahead_may_be_taken_back),
	    cmocka_unit_test(run_ahead_is_not_taken_for_empty),
	    cmocka_unit_test(random_writers_get_no_run_ahead),
	    cmocka_unit_test(a_full_pool_says_so),
	    cmocka_unit_test(run_ahead_makes_room),
	    cmocka_unit_test(only_allocations_need_the_server),
	    cmocka_unit_test(a_limit_on_waiting),
	    cmocka_unit_test(empty_slots_are_given_back),
	    cmocka_unit_test(giving_back_does_not_wait_for_the_stuck),
	    cmocka_unit_test(kept_space_is_kept),
	    cmocka_unit_test(a_device_that_does_not_say_is_asked_again),
	    cmocka_unit_test(a_full_chunk_of_holes_is_kept),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
