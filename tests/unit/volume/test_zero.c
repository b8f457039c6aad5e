/* SPDX-License-Identifier: Apache-2.0 */
/* test_zero.c - WRITE_ZEROES, DISCARD and STATUS, with and without layers below. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "src/base/log.h"
#include "tests/lib/volume_fixture.h"

enum {
	CHUNK = 1 << CHUNK_SHIFT_FLASH,
	HZ = VOLUME_EXTENT_HOLE | VOLUME_EXTENT_ZERO,
	Z = VOLUME_EXTENT_ZERO
};
#define S_NS 1000000000ULL

static struct volume_handle *fixture(struct volume_fixture *fx)
{
	volume_fixture_init(fx, &(struct volume_fixture_config){.seed = 1});
	return vf_open(fx, "vol");
}

/* A volume whose chunks 0 to 3 are in a frozen layer, written with id 9. */
static struct volume_handle *layered(struct volume_fixture *fx)
{
	struct volume_handle *h = fixture(fx);

	assert_int_equal(vf_write(fx, h, 0, 4 * CHUNK, 9), 0);
	vf_close(fx, h);
	while (fx->vol->owned)
		assert_true(sim_step(fx->sim.w));
	mock_meta_snapshot(&fx->meta, fx->vol);
	return vf_open(fx, "vol");
}

/* Compares with {length, flags}..., in blocks, up to a zero length. */
static void expect_extents(struct volume_fixture *fx, struct volume_handle *h, uint64_t off,
			   uint64_t len, uint32_t flags, const uint32_t (*want)[2])
{
	struct vf_io io;
	uint32_t n = 0;

	vf_io_start(fx, h, &io, VOLUME_STATUS, off, len, flags, 0);
	assert_int_equal(vf_io_wait(fx, &io), 0);
	for (; want[n][0]; n++) {
		assert_true(n < io.r.extents_n);
		assert_int_equal(io.extents[n].len_bytes, (uint64_t)want[n][0] * BLOCK_BYTES);
		assert_int_equal(io.extents[n].flags, want[n][1]);
	}
	assert_int_equal(io.r.extents_n, n);
}

static void nothing_to_zero_costs_nothing(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx);

	(void)state;
	assert_true(vf_reads(&fx, h, 0, 4096, 0));
	mock_meta_away(&fx.meta, true);
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, 512, (8 << 20) - 1024, 0), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, 0, 8 << 20, VOLUME_F_FAST_ZERO), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 0, 8 << 20, VOLUME_F_FUA), 0);
	assert_int_equal(fx.store.requests, 0);
	mock_meta_away(&fx.meta, false);
	volume_fixture_free(&fx);
}

static void zeroing_is_exact_to_the_sector(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx);

	(void)state;
	assert_int_equal(vf_write(&fx, h, 0, 3 * CHUNK, 1), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, 4096 + 512, 2 * CHUNK, 0), 0);
	assert_true(vf_reads(&fx, h, 0, 4096 + 512, 1));
	assert_true(vf_reads(&fx, h, 4096 + 512, 2 * CHUNK, 0));
	assert_true(vf_reads(&fx, h, 2 * CHUNK + 4096 + 512, CHUNK - 4096 - 512, 1));
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, 1024, 1024, 0), 0);
	assert_true(vf_reads(&fx, h, 1024, 1024, 0));
	assert_true(vf_reads(&fx, h, 2048, 2048, 1));
	/* a discard leaves partial blocks alone */
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 2 * CHUNK + 512, 3 * 4096, 0), 0);
	assert_true(vf_reads(&fx, h, 2 * CHUNK + 512, 4096 - 512, 0));
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 2 * CHUNK + 16384 + 512, 4096, 0), 0);
	assert_true(vf_reads(&fx, h, 2 * CHUNK + 16384, 8192, 1));
	volume_fixture_free(&fx);
}

static void status_is_exact(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx);

	(void)state;
	expect_extents(&fx, h, 0, 8 << 20, 0, (uint32_t[][2]){{2048, HZ}, {0}});
	assert_int_equal(vf_write(&fx, h, 8192, 4096, 1), 0);
	assert_int_equal(vf_write(&fx, h, 4 * CHUNK - 8192, CHUNK, 1), 0);
	expect_extents(&fx, h, 0, 8 << 20, 0,
		       (uint32_t[][2]){{2, HZ}, {1, 0}, {1019, HZ}, {256, 0}, {770, HZ}, {0}});
	expect_extents(&fx, h, 4096, 8192, 0, (uint32_t[][2]){{1, HZ}, {1, 0}, {0}});
	expect_extents(&fx, h, 0, 8 << 20, VOLUME_F_ONE_EXTENT, (uint32_t[][2]){{2, HZ}, {0}});
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, 8192, 4096, VOLUME_F_NO_HOLE), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, 4 * CHUNK, 4096, 0), 0);
	expect_extents(&fx, h, 0, 8 << 20, 0,
		       (uint32_t[][2]){
			   {2, HZ}, {1, Z}, {1019, HZ}, {2, 0}, {1, HZ}, {253, 0}, {770, HZ}, {0}});
	volume_fixture_free(&fx);
}

static void status_stops_where_there_is_no_room(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx);
	struct vf_io io;

	(void)state;
	for (int i = 0; i < 10; i++)
		assert_int_equal(vf_write(&fx, h, (uint64_t)i * 8192, 4096, 1), 0);
	vf_io_prepare(&io, VOLUME_STATUS, 512, CHUNK, 0, 0);
	io.r.extents_max = 3;
	volume_submit(h, &io.r);
	assert_int_equal(vf_io_wait(&fx, &io), 0);
	assert_int_equal(io.r.extents_n, 3);
	assert_int_equal(io.extents[0].len_bytes, 4096 - 512);
	assert_int_equal(io.extents[1].flags, HZ);
	assert_int_equal(io.extents[2].len_bytes, 4096);
	vf_io_prepare(&io, VOLUME_STATUS, 512, 512, 0, 0);
	volume_submit(h, &io.r);
	assert_int_equal(vf_io_wait(&fx, &io), 0);
	assert_int_equal(io.r.extents_n, 1);
	assert_int_equal(io.extents[0].len_bytes, 512);
	volume_fixture_free(&fx);
}

/* A walk over a large volume, as `qemu-img map` does it: bounded work per call, the whole is exact. */
static void status_of_a_large_volume(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h;
	uint64_t size = 4000ULL * CHUNK, off = 0, data = 0, calls = 0;

	(void)state;
	volume_fixture_init(&fx, &(struct volume_fixture_config){.seed = 1, .size_bytes = size});
	h = vf_open(&fx, "vol");
	for (int i = 0; i < 100; i++)
		assert_int_equal(vf_write(&fx, h, (uint64_t)i * 40 * CHUNK + 8192, 4096, 1), 0);
	while (off < size) {
		struct vf_io io;

		vf_io_start(&fx, h, &io, VOLUME_STATUS, off, size - off, 0, 0);
		assert_int_equal(vf_io_wait(&fx, &io), 0);
		calls++;
		for (uint32_t i = 0; i < io.r.extents_n; i++) {
			off += io.extents[i].len_bytes;
			data += io.extents[i].flags ? 0 : io.extents[i].len_bytes;
		}
	}
	assert_int_equal(off, size);
	assert_int_equal(data, 100 * 4096);
	assert_true(calls < 10);
	volume_fixture_free(&fx);
}

/* ---- layers ----------------------------------------------------------------------------------------------------------- */

static void writes_cover_the_layers_below(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = layered(&fx), *snap;
	const struct map_entry *base;

	(void)state;
	assert_true(vf_reads(&fx, h, 0, 4 * CHUNK, 9));
	assert_int_equal(vf_write(&fx, h, 8192 + 512, 512, 1), 0); /* completed from below */
	assert_true(vf_reads(&fx, h, 0, 8192 + 512, 9));
	assert_true(vf_reads(&fx, h, 8192 + 512, 512, 1));
	assert_true(vf_reads(&fx, h, 8192 + 1024, CHUNK, 9));
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 5);
	expect_extents(&fx, h, 0, 8 << 20, 0, (uint32_t[][2]){{1024, 0}, {1024, HZ}, {0}});
	base = mock_meta_entry(fx.vol, 1, 0);
	assert_non_null(mock_store_slot(&fx.store, base->replicas[0].dev, base->replicas[0].slot,
					base->replicas[0].cgen));
	snap = vf_open(&fx, "vol@then");
	assert_true(vf_reads(&fx, snap, 0, 4 * CHUNK, 9));
	assert_int_equal(vf_write(&fx, snap, 0, 4096, 2), -EROFS);
	volume_fixture_free(&fx);
}

static void zeroes_hide_what_is_below(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = layered(&fx);

	(void)state;
	/* part of a chunk that only an ancestor has: a slot with explicit zeros */
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, 4096, 8192, 0), 0);
	assert_true(vf_reads(&fx, h, 0, 4096, 9));
	assert_true(vf_reads(&fx, h, 4096, 8192, 0));
	assert_true(vf_reads(&fx, h, 4096 + 8192, 4096, 9));
	/* a discard of a part does nothing */
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, CHUNK, 8192, 0), 0);
	assert_true(vf_reads(&fx, h, CHUNK, 8192, 9));
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 5);
	/* the whole chunk: a zero entry, no slot */
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, CHUNK, CHUNK, 0), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 2 * CHUNK, CHUNK, 0), 0);
	assert_true(vf_reads(&fx, h, CHUNK, 2 * CHUNK, 0));
	assert_int_equal(mock_meta_entry(fx.vol, 0, 1)->kind, MAP_ZERO);
	assert_int_equal(mock_meta_entry(fx.vol, 0, 2)->kind, MAP_ZERO);
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 5);
	expect_extents(
	    &fx, h, 0, 8 << 20, 0,
	    (uint32_t[][2]){{1, 0}, {2, Z}, {253, 0}, {512, HZ}, {256, 0}, {1024, HZ}, {0}});
	/* writing into it must not uncover the rest */
	assert_int_equal(vf_write(&fx, h, CHUNK + 512, 512, 1), 0);
	assert_true(vf_reads(&fx, h, CHUNK, 512, 0));
	assert_true(vf_reads(&fx, h, CHUNK + 512, 512, 1));
	assert_true(vf_reads(&fx, h, CHUNK + 1024, CHUNK - 1024, 0));
	/* and giving back what becomes empty must not either */
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, CHUNK, CHUNK, 0), 0);
	sim_sleep(&fx.sim, S_NS);
	assert_int_equal(mock_meta_entry(fx.vol, 0, 1)->kind, MAP_ZERO);
	assert_true(vf_reads(&fx, h, CHUNK, CHUNK, 0));
	volume_fixture_free(&fx);
}

/* A slot of zeros over an ancestor becomes a zero entry only when all of it is zeros. */
static void a_slot_of_zeros_and_holes_stays(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = layered(&fx);

	(void)state;
	assert_int_equal(vf_write(&fx, h, 0, 8192, 1), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 0, 8192, 0),
			 0); /* nothing present, two zeros */
	sim_sleep(&fx.sim, S_NS);
	assert_true(vf_reads(&fx, h, 0, 8192, 0));
	assert_true(vf_reads(&fx, h, 8192, CHUNK, 9));
	assert_int_equal(mock_meta_entry(fx.vol, 0, 0)->kind, MAP_OPEN);
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 0, CHUNK, 0), 0);
	sim_sleep(&fx.sim, S_NS);
	assert_int_equal(mock_meta_entry(fx.vol, 0, 0)->kind, MAP_ZERO);
	assert_true(vf_reads(&fx, h, 0, CHUNK, 0));
	volume_fixture_free(&fx);
}

static void a_lost_chunk_stays_an_error_where_nobody_rewrites_it(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h;

	(void)state;
	volume_fixture_init(&fx, &(struct volume_fixture_config){.seed = 1});
	for (int c = 0; c < 3; c++)
		fx.vol->layers[0]->map[c] = (struct map_entry){.kind = MAP_LOST};
	h = vf_open(&fx, "vol");
	assert_int_equal(vf_do(&fx, h, VOLUME_READ, 0, 4096, 0), -E_LOST);
	assert_int_equal(vf_write(&fx, h, 512, 512, 1), -E_LOST);
	expect_extents(&fx, h, 0, CHUNK, 0, (uint32_t[][2]){{256, 0}, {0}});
	assert_int_equal(vf_write(&fx, h, 4096, 4096, 1), 0);
	assert_true(vf_reads(&fx, h, 4096, 4096, 1));
	assert_int_equal(vf_do(&fx, h, VOLUME_READ, 0, 4096, 0), -E_BAD_BLOCK);
	expect_extents(&fx, h, 0, CHUNK, 0, (uint32_t[][2]){{256, 0}, {0}});
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, 0, 4096, 0), 0);
	assert_true(vf_reads(&fx, h, 0, 4096, 0));
	sim_sleep(&fx.sim, S_NS);
	assert_int_equal(mock_meta_entry(fx.vol, 0, 0)->kind, MAP_OPEN);
	/* part of it: only that part is known again; all of it: as good as new */
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, CHUNK, 4096, 0), 0);
	assert_true(vf_reads(&fx, h, CHUNK, 4096, 0));
	assert_int_equal(vf_do(&fx, h, VOLUME_READ, CHUNK + 4096, 4096, 0), -E_BAD_BLOCK);
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 2 * CHUNK, CHUNK, 0), 0);
	assert_true(vf_reads(&fx, h, 2 * CHUNK, CHUNK, 0));
	assert_null(mock_meta_entry(fx.vol, 0, 2));
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, CHUNK, CHUNK, 0), 0);
	assert_true(vf_reads(&fx, h, CHUNK, CHUNK, 0));
	sim_sleep(&fx.sim, S_NS);
	assert_null(mock_meta_entry(fx.vol, 0, 1));
	volume_fixture_free(&fx);
}

/* The device is given up while the volume is open: the store refuses what it held, and the map says why. */
static void a_chunk_is_lost_while_it_is_in_use(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx);

	(void)state;
	assert_int_equal(vf_write(&fx, h, 0, 4 * CHUNK, 1), 0);
	for (int c = 0; c < 3; c++) {
		struct map_entry *e = mock_meta_entry(fx.vol, 0, (uint32_t)c);

		mock_store_drop(&fx.store, e->replicas[0].dev, e->replicas[0].slot,
				e->replicas[0].cgen, true);
		*e = (struct map_entry){.kind = MAP_LOST};
	}
	assert_int_equal(vf_do(&fx, h, VOLUME_READ, 0, 4096, 0), -E_LOST);
	assert_int_equal(vf_write(&fx, h, 4096, 4096, 2), 0);
	assert_true(vf_reads(&fx, h, 4096, 4096, 2));
	assert_int_equal(vf_do(&fx, h, VOLUME_READ, 0, 4096, 0), -E_BAD_BLOCK);
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, CHUNK, CHUNK, 0), 0);
	assert_true(vf_reads(&fx, h, CHUNK, CHUNK, 0));
	expect_extents(&fx, h, 2 * CHUNK, CHUNK, 0, (uint32_t[][2]){{256, 0}, {0}});
	assert_true(vf_reads(&fx, h, 3 * CHUNK, CHUNK, 1));
	assert_int_equal(fx.events_n, 0);
	volume_fixture_free(&fx);
}

static void entries_of_later_versions_are_refused(void **state)
{
	static const struct map_entry strange[] = {
	    {.kind = MAP_PACKED},
	    {.kind = MAP_CODED, .replicas_n = 1},
	    {.kind = MAP_OPEN, .replicas_n = 2, .replicas = {{1, 0, 1}, {1, 1, 2}}},
	    {.kind = MAP_OPEN, .replicas_n = 0},
	    {.kind = 77},
	};
	struct volume_fixture fx;
	struct volume_handle *h;

	(void)state;
	volume_fixture_init(&fx, &(struct volume_fixture_config){.seed = 1});
	for (unsigned i = 0; i < ARRAY_LEN(strange); i++)
		fx.vol->layers[0]->map[i] = strange[i];
	h = vf_open(&fx, "vol");
	for (unsigned i = 0; i < ARRAY_LEN(strange); i++) {
		uint64_t off = (uint64_t)i * CHUNK;

		assert_int_equal(vf_do(&fx, h, VOLUME_READ, off, 4096, 0), -E_VERSION);
		assert_int_equal(vf_write(&fx, h, off, 4096, 1), -E_VERSION);
		assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, off, CHUNK, 0), -E_VERSION);
		assert_int_equal(vf_do(&fx, h, VOLUME_STATUS, off, CHUNK, 0), -E_VERSION);
	}
	assert_int_equal(vf_write(&fx, h, 7 * CHUNK, 4096, 1), 0);
	volume_fixture_free(&fx);
}

/* A slot in the place of a zero entry: its holes are zeros for everybody, also for who completes a partial block, though the cache still knows the
 * ancestors. */
static void holes_in_the_place_of_zeros_are_zeros(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h = layered(&fx);

	(void)state;
	assert_true(vf_reads(&fx, h, 0, CHUNK, 9));
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 0, CHUNK, 0), 0);
	assert_int_equal(mock_meta_entry(fx.vol, 0, 0)->kind, MAP_ZERO);
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
	assert_true(mock_meta_entry(fx.vol, 0, 0)->flags & MAP_OPAQUE);
	assert_int_equal(vf_write(&fx, h, 8192 + 512, 512, 2), 0);
	assert_true(vf_reads(&fx, h, 8192, 512, 0));
	assert_true(vf_reads(&fx, h, 8192 + 512, 512, 2));
	assert_true(vf_reads(&fx, h, 8192 + 1024, CHUNK - 8192 - 1024, 0));
	expect_extents(&fx, h, 0, CHUNK, 0,
		       (uint32_t[][2]){{1, 0}, {1, HZ}, {1, 0}, {253, HZ}, {0}});
	volume_fixture_free(&fx);
}

/* The last chunk is only half a chunk when all of it is zeroed, and a whole one before that has happened. */
static void growing_meanwhile_loses_nothing(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct vf_io zero, write;
		struct volume_fixture fx;
		struct volume_handle *h;
		struct meta *m;

		volume_fixture_init(
		    &fx, &(struct volume_fixture_config){.seed = seed,
							 .size_bytes = 2 * CHUNK + CHUNK / 2,
							 .limits = {.pieces_shared = 8,
								    .scratch_shared = 2,
								    .map_cache_bytes = 1 << 20}});
		m = &fx.meta.meta;
		fx.vol->layers[0]->map[2].kind = MAP_LOST;
		h = vf_open(&fx, "vol");
		assert_int_equal(vf_do(&fx, h, VOLUME_READ, 2 * CHUNK, 4096, 0), -E_LOST);
		vf_io_start(&fx, h, &zero, seed % 2 ? VOLUME_DISCARD : VOLUME_WRITE_ZEROES,
			    2 * CHUNK, CHUNK / 2, 0, 0);
		fx.vol->size_bytes = 4 * CHUNK;
		m->on_volume(m->on_volume_arg, &(struct meta_news){.volume = fx.vol->id,
								   .epoch = fx.vol->epoch,
								   .size_bytes = 4 * CHUNK});
		vf_io_start(&fx, h, &write, VOLUME_WRITE, 3 * CHUNK - 8192, 4096, 0, 5);
		assert_int_equal(vf_io_wait(&fx, &zero), 0);
		assert_int_equal(vf_io_wait(&fx, &write), 0);
		vf_io_end(&write);
		assert_true(vf_reads(&fx, h, 3 * CHUNK - 8192, 4096, 5));
		assert_true(vf_reads(&fx, h, 2 * CHUNK, CHUNK / 2, 0));
		volume_fixture_free(&fx);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(nothing_to_zero_costs_nothing),
	    cmocka_unit_test(zeroing_is_exact_to_the_sector),
	    cmocka_unit_test(status_is_exact),
	    cmocka_unit_test(status_stops_where_there_is_no_room),
	    cmocka_unit_test(status_of_a_large_volume),
	    cmocka_unit_test(writes_cover_the_layers_below),
	    cmocka_unit_test(zeroes_hide_what_is_below),
	    cmocka_unit_test(a_slot_of_zeros_and_holes_stays),
	    cmocka_unit_test(a_lost_chunk_stays_an_error_where_nobody_rewrites_it),
	    cmocka_unit_test(a_chunk_is_lost_while_it_is_in_use),
	    cmocka_unit_test(entries_of_later_versions_are_refused),
	    cmocka_unit_test(holes_in_the_place_of_zeros_are_zeros),
	    cmocka_unit_test(growing_meanwhile_loses_nothing),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
