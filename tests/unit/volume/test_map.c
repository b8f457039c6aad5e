/* SPDX-License-Identifier: Apache-2.0 */
/* test_map.c - the cache of the map: loading by pages, sharing loads, bounds, prefetching, deep stacks, answers that make no
 * sense. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "src/base/log.h"
#include "src/base/mem.h"
#include "tests/lib/volume_fixture.h"

enum { CHUNK = 1 << CHUNK_SHIFT_FLASH, PAGE = 256 };

static struct volume_handle *fixture(struct volume_fixture *fx, struct volumes_limits limits,
				     uint32_t chunks_n)
{
	volume_fixture_init(fx, &(struct volume_fixture_config){.seed = 1,
								.size_bytes =
								    (uint64_t)chunks_n * CHUNK,
								.limits = limits});
	return vf_open(fx, "vol");
}

static const struct volumes_limits no_prefetch = {.prefetch_pages = UINT32_MAX};

static void a_page_is_fetched_once(void **state)
{
	enum { N = 50 };
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, no_prefetch, 2 * PAGE);
	struct vf_io io[N];

	(void)state;
	for (int i = 0; i < N; i++)
		vf_io_start(&fx, h, &io[i], VOLUME_READ, (uint64_t)i * 5 * CHUNK, 4096, 0, 0);
	for (int i = 0; i < N; i++) {
		assert_int_equal(vf_io_wait(&fx, &io[i]), 0);
		vf_io_end(&io[i]);
	}
	assert_int_equal(fx.meta.maps, 1);
	assert_true(vf_reads(&fx, h, 300 * (uint64_t)CHUNK, 4096, 0)); /* unmapped is known, too */
	assert_true(vf_reads(&fx, h, 301 * (uint64_t)CHUNK, 4096, 0));
	assert_int_equal(fx.meta.maps, 2);
	volume_fixture_free(&fx);
}

static void opening_prefetches(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h =
	    fixture(&fx, (struct volumes_limits){.prefetch_pages = 3}, 5 * PAGE);

	(void)state;
	sim_sleep(&fx.sim, 100000000);
	assert_int_equal(fx.meta.maps, 3);
	mock_meta_away(&fx.meta, true);
	assert_true(vf_reads(&fx, h, (3 * PAGE - 1) * (uint64_t)CHUNK, CHUNK, 0));
	mock_meta_away(&fx.meta, false);
	assert_int_equal(fx.meta.maps, 3);
	volume_fixture_free(&fx);
}

static void the_cache_is_bounded(void **state)
{
	struct volumes_limits small = {.prefetch_pages = UINT32_MAX,
				       .map_cache_bytes = 1}; /* the minimum: 16 pages */
	enum { PAGES = 15 };
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, small, PAGES * PAGE), *other;
	uint64_t maps;

	(void)state;
	mock_meta_volume(&fx.meta, "other", (uint64_t)PAGES * PAGE * CHUNK);
	other = vf_open(&fx, "other");
	for (int round = 0; round < 3; round++)
		for (uint64_t p = 0; p < PAGES; p++) {
			assert_true(vf_reads(&fx, h, p * PAGE * CHUNK, 4096, 0));
			assert_true(vf_reads(&fx, other, p * PAGE * CHUNK, 4096, 0));
		}
	assert_true(fx.meta.maps > 2 * PAGES); /* they do not all fit */
	maps = fx.meta.maps;
	for (int i = 0; i < 100; i++) { /* what is in use stays */
		assert_true(vf_reads(&fx, h, 0, 4096, 0));
		assert_true(vf_reads(&fx, other, (uint64_t)(i % PAGES) * PAGE * CHUNK, 4096, 0));
	}
	assert_true(fx.meta.maps <= maps + 100 / 2);
	volume_fixture_free(&fx);
}

/* More pages are wanted at once than there is room for: some wait. */
static void more_at_once_than_there_is_room(void **state)
{
	struct volumes_limits small = {.prefetch_pages = UINT32_MAX, .map_cache_bytes = 1};
	enum { N = 45 };
	static struct vf_io io[N];
	struct volume_handle *h[3];
	struct volume_fixture fx;

	(void)state;
	h[0] = fixture(&fx, small, 15 * PAGE);
	mock_meta_volume(&fx.meta, "b", 15ULL * PAGE * CHUNK);
	mock_meta_volume(&fx.meta, "c", 15ULL * PAGE * CHUNK);
	h[1] = vf_open(&fx, "b");
	h[2] = vf_open(&fx, "c");
	for (int i = 0; i < N; i++)
		vf_io_start(&fx, h[i % 3], &io[i], VOLUME_WRITE, (uint64_t)(i / 3) * PAGE * CHUNK,
			    4096, 0, 5);
	for (int i = 0; i < N; i++) {
		assert_int_equal(vf_io_wait(&fx, &io[i]), 0);
		vf_io_end(&io[i]);
	}
	for (int i = 0; i < N; i++)
		assert_true(vf_reads(&fx, h[i % 3], (uint64_t)(i / 3) * PAGE * CHUNK, 4096, 5));
	volume_fixture_free(&fx);
}

static void deep_stacks_come_in_parts(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h;

	(void)state;
	volume_fixture_init(&fx, &(struct volume_fixture_config){.seed = 1,
								 .size_bytes = 40 * CHUNK,
								 .slots_n = 128});
	for (uint32_t layer = 1; layer <= 7; layer++) {
		h = vf_open(&fx, "vol");
		for (uint64_t c = 0; c < 40; c++)
			assert_int_equal(vf_write(&fx, h, c * CHUNK + layer * 4096, 8192, layer), 0);
		vf_close(&fx, h);
		while (fx.vol->owned)
			assert_true(sim_step(fx.sim.w));
		if (layer < 7)
			mock_meta_snapshot(&fx.meta, fx.vol);
	}
	fx.meta.items_max = 9;
	h = vf_open(&fx, "vol");
	for (uint64_t c = 0; c < 40; c++) {
		assert_true(vf_reads(&fx, h, c * CHUNK, 4096, 0));
		for (uint32_t layer = 1; layer <= 7; layer++)
			assert_true(vf_reads(&fx, h, c * CHUNK + layer * 4096, 4096, layer));
		assert_true(vf_reads(&fx, h, c * CHUNK + 8 * 4096, 4096, 7));
		assert_true(vf_reads(&fx, h, c * CHUNK + 9 * 4096, 4096, 0));
	}
	volume_fixture_free(&fx);
}

/* ---- a server that makes no sense ------------------------------------------------------------------------------------- */

static struct mock_meta *the_meta;
static const struct meta_ops *honest;
static struct meta_map_item odd[3];
static uint32_t odd_n;
static int odd_status;

static void odd_done(struct meta_req *r)
{
	struct meta_map *m = container_of(r, struct meta_map, req);
	void (*done)(struct meta_req * r) = (void (*)(struct meta_req *))(uintptr_t)r->priv[0];

	memcpy(m->items, odd, sizeof(odd));
	m->items_n = odd_n;
	r->status = odd_status;
	r->done = done;
	done(r);
}

static void odd_map(struct meta *m, struct meta_map *r)
{
	r->req.priv[0] = (uintptr_t)r->req.done;
	r->req.done = odd_done;
	honest->map(m, r);
}

static void senseless_answers_are_errors(void **state)
{
	static struct meta_ops ops;
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, no_prefetch, 2 * PAGE);
	layer_id head = fx.vol->layers[0]->id;
	struct map_entry open = {.kind = MAP_OPEN,
				 .replicas_n = 1,
				 .replicas = {{.cgen = 1, .slot = 1, .dev = 1}}};
	const struct {
		uint32_t n;
		struct meta_map_item items[2];
		int status;
	} cases[] = {
	    {2, {{5, head, open}, {4, head, open}}, 0}, /* not sorted */
	    {2, {{5, head, open}, {5, head, open}}, 0}, /* twice */
	    {1, {{PAGE, head, open}}, 0},		/* not asked for */
	    {1, {{5, head + 1, open}}, 0},		/* a layer that is not in the chain */
	    {5000, {{5, head, open}}, 0},		/* more than there was room for */
	    {0, {{0}}, -E2BIG},				/* even for a single chunk */
	};

	(void)state;
	the_meta = &fx.meta;
	honest = fx.meta.meta.ops;
	ops = *honest;
	ops.map = odd_map;
	fx.meta.meta.ops = &ops;
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		memcpy(odd, cases[i].items, sizeof(cases[i].items));
		odd_n = cases[i].n;
		odd_status = cases[i].status;
		assert_true(vf_do(&fx, h, VOLUME_READ, 0, 4096, 0) < 0);
		assert_true(vf_write(&fx, h, 0, 4096, 1) < 0);
	}
	fx.meta.meta.ops = honest;
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0); /* nothing of it was kept */
	volume_fixture_free(&fx);
}

static struct meta_map_item odd_alloc_item;
static uint32_t odd_alloc_at;

static void odd_alloc_done(struct meta_req *r)
{
	struct meta_alloc *a = container_of(r, struct meta_alloc, req);
	void (*done)(struct meta_req * r) = (void (*)(struct meta_req *))(uintptr_t)r->priv[0];

	a->items[odd_alloc_at] = odd_alloc_item;
	r->done = done;
	done(r);
}

static void odd_alloc(struct meta *m, struct meta_alloc *r)
{
	r->req.priv[0] = (uintptr_t)r->req.done;
	r->req.done = odd_alloc_done;
	honest->alloc(m, r);
}

/* Nothing of an allocation is taken over when any of it makes no sense. */
static void senseless_allocations_are_errors(void **state)
{
	static struct meta_ops ops;
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, no_prefetch, 64);
	struct map_entry open = {.kind = MAP_OPEN,
				 .replicas_n = 1,
				 .replicas = {{.cgen = 1000, .slot = 1, .dev = 1}}};
	struct map_entry reserved = open, coded = open, zero = {.kind = MAP_ZERO};
	struct map_entry unmapped = {.kind = MAP_UNMAPPED}, two = open, nowhere = open;
	layer_id old, head;

	(void)state;
	/* a layer below, and a chunk that hides it */
	assert_int_equal(vf_write(&fx, h, 0, 2 * CHUNK, 1), 0);
	vf_close(&fx, h);
	while (fx.vol->owned)
		assert_true(sim_step(fx.sim.w));
	mock_meta_snapshot(&fx.meta, fx.vol);
	h = vf_open(&fx, "vol");
	assert_int_equal(vf_do(&fx, h, VOLUME_WRITE_ZEROES, 0, CHUNK, 0), 0);
	assert_int_equal(mock_meta_entry(fx.vol, 0, 0)->kind, MAP_ZERO);
	head = fx.vol->layers[0]->id;
	old = fx.vol->layers[1]->id;
	reserved.flags = MAP_RESERVED;
	coded.kind = MAP_CODED;
	two.replicas_n = 2;
	nowhere.replicas[0].dev = 0;
	/* the server mapped the chunk each time, as the next look at the map tells: each case has its own */
	const struct {
		struct meta_map_item item;
		int status;
	} cases[] = {
	    {{0, head, open}, -E_PROTOCOL},  /* it would uncover what is below */
	    {{11, head, open}, -E_PROTOCOL}, /* not what was asked for: 10 */
	    {{12, old, open}, -E_PROTOCOL},  /* not where */
	    {{14, head, unmapped}, -E_PROTOCOL}, {{16, head, zero}, -E_PROTOCOL},
	    {{18, head, reserved}, -E_PROTOCOL}, /* it could be taken back */
	    {{20, head, coded}, -E_VERSION},	 {{22, head, two}, -E_VERSION},
	    {{24, head, nowhere}, -E_VERSION},
	};

	honest = fx.meta.meta.ops;
	odd_alloc_at = 0;
	ops = *honest;
	ops.alloc = odd_alloc;
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		uint64_t off = cases[i].item.chunk / 2 * 2 * (uint64_t)CHUNK;

		fx.meta.meta.ops = &ops;
		odd_alloc_item = cases[i].item;
		assert_int_equal(vf_write(&fx, h, off, 4096, 2), cases[i].status);
		fx.meta.meta.ops = honest;
		assert_true(vf_reads(&fx, h, off, 4096, 0)); /* nothing of it was kept */
	}
	/* one that makes no sense spoils those that it came with */
	{
		struct vf_io io[2];

		fx.meta.meta.ops = &ops;
		odd_alloc_item = (struct meta_map_item){41, old, open};
		odd_alloc_at = 1;
		for (unsigned i = 0; i < 2; i++)
			vf_io_start(&fx, h, &io[i], VOLUME_WRITE, (40 + i) * (uint64_t)CHUNK, 4096,
				    0, 3);
		for (unsigned i = 0; i < 2; i++) {
			assert_int_equal(vf_io_wait(&fx, &io[i]), -E_PROTOCOL);
			vf_io_end(&io[i]);
		}
		fx.meta.meta.ops = honest;
	}
	for (uint64_t c = 0; c < 42; c += 2)
		assert_int_equal(vf_write(&fx, h, c * CHUNK, 4096, 4), 0);
	for (uint64_t c = 0; c < 42; c += 2)
		assert_true(vf_reads(&fx, h, c * CHUNK, 4096, 4));
	volume_fixture_free(&fx);
}

static void lost_update_done(struct meta_req *r)
{
	void (*done)(struct meta_req * r) = (void (*)(struct meta_req *))(uintptr_t)r->priv[0];

	r->status = -E_META_AWAY;
	r->done = done;
	done(r);
}

static void lost_update(struct meta *m, struct meta_update *r)
{
	r->req.priv[0] = (uintptr_t)r->req.done;
	r->req.done = lost_update_done;
	honest->update(m, r);
}

/* An unmapping whose answer is lost was carried out: the map is fetched again before anybody uses the chunk. */
static void a_lost_answer_to_an_update(void **state)
{
	static struct meta_ops ops;
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, no_prefetch, 64);
	uint64_t maps, requests;

	(void)state;
	assert_int_equal(vf_write(&fx, h, 5 * CHUNK, CHUNK, 1), 0);
	sim_sleep(&fx.sim, 20000000000ULL);
	maps = fx.meta.maps;
	honest = fx.meta.meta.ops;
	ops = *honest;
	ops.update = lost_update;
	fx.meta.meta.ops = &ops;
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 5 * CHUNK, CHUNK, 0), 0);
	sim_sleep(&fx.sim, 1000000000ULL);
	fx.meta.meta.ops = honest;
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 0);
	requests = fx.store.requests;
	assert_true(vf_reads(&fx, h, 5 * CHUNK, CHUNK, 0));
	assert_int_equal(fx.meta.maps, maps + 1);
	assert_int_equal(fx.store.requests,
			 requests); /* the device is not asked for a slot that is not ours */
	volume_fixture_free(&fx);
}

static void failing_map(struct meta *m, struct meta_map *r)
{
	r->req.priv[0] = (uintptr_t)r->req.done;
	r->req.done = odd_done;
	honest->map(m, r);
}

/* What is to be given back, but for a map that cannot be had, is forgotten: the volume can be closed. */
static void candidates_are_forgotten_without_a_map(void **state)
{
	struct volumes_limits small = {.prefetch_pages = UINT32_MAX,
				       .map_cache_bytes = 1, /* the minimum: 16 pages */
				       .reclaim_delay_ns = 1000000000000ULL};
	static struct meta_ops ops;
	struct volume_fixture fx;
	struct volume_handle *h = fixture(&fx, small, 15 * PAGE), *other;

	(void)state;
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
	assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 0, 4096, 0), 0);
	mock_meta_volume(&fx.meta, "other", 15ULL * PAGE * CHUNK);
	other = vf_open(&fx, "other");
	for (uint64_t p = 1; p < 15; p++) { /* its page is evicted */
		assert_true(vf_reads(&fx, h, p * PAGE * CHUNK, 4096, 0));
		assert_true(vf_reads(&fx, other, p * PAGE * CHUNK, 4096, 0));
	}
	honest = fx.meta.meta.ops;
	ops = *honest;
	ops.map = failing_map;
	odd_n = 0;
	odd_status = -EIO;
	fx.meta.meta.ops = &ops;
	vf_close(&fx, h);
	sim_sleep(&fx.sim, 10000000000ULL);
	assert_false(fx.vol->owned);
	fx.meta.meta.ops = honest;
	/* it stays mapped, and is there for the next one */
	assert_int_equal(mock_meta_mapped(&fx.meta, 0), 1);
	h = vf_open(&fx, "vol");
	assert_true(vf_reads(&fx, h, 0, 4096, 0));
	volume_fixture_free(&fx);
}

/* ---- memory ----------------------------------------------------------------------------------------------------------- */

/* Each allocation on the way of a request fails once: the request may fail, and nothing else. */
static void memory_is_short(void **state)
{
	int failed = 0;

	(void)state;
	for (uint64_t after = 0; after < 12; after++) {
		struct volume_fixture fx;
		struct volume_handle *h;
		int status;

		volume_fixture_init(&fx, &(struct volume_fixture_config){.seed = 1,
									 .limits = no_prefetch});
		h = vf_open(&fx, "vol");
		assert_int_equal(vf_write(&fx, h, 0, 2 * CHUNK, 1), 0);
		vf_close(&fx, h);
		while (fx.vol->owned)
			assert_true(sim_step(fx.sim.w));
		mock_meta_snapshot(&fx.meta, fx.vol);
		fx.meta.devices_n = 1; /* the others are not known at open */
		h = vf_open(&fx, "vol");
		fx.meta.devices_n = VF_DEVICES;
		for (uint64_t c = 0; c < 6; c++) {
			struct vf_io io;

			vf_io_prepare(&io, VOLUME_WRITE, c * CHUNK + 512, 512, 0, 2);
			mem_fail_at(after, 1);
			volume_submit(h, &io.r);
			status = vf_io_wait(&fx, &io);
			mem_fail_at(UINT64_MAX, 0);
			vf_io_end(&io);
			assert_true(status == 0 || status == -ENOMEM);
			failed += status != 0;
			if (status)
				assert_int_equal(vf_write(&fx, h, c * CHUNK + 512, 512, 2), 0);
		}
		for (uint64_t c = 0; c < 6; c++) {
			assert_true(vf_reads(&fx, h, c * CHUNK, 512, c < 2 ? 1 : 0));
			assert_true(vf_reads(&fx, h, c * CHUNK + 512, 512, 2));
		}
		assert_int_equal(vf_do(&fx, h, VOLUME_DISCARD, 0, 8 << 20, 0), 0);
		mem_fail_at(0, 1);
		sim_sleep(&fx.sim, 10000000000ULL); /* reclaiming tries again */
		mem_fail_at(UINT64_MAX, 0);
		sim_sleep(&fx.sim, 10000000000ULL);
		assert_int_equal(mock_meta_mapped(&fx.meta, 0), 2);
		volume_fixture_free(&fx);
	}
	assert_true(failed >= 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_page_is_fetched_once),
	    cmocka_unit_test(opening_prefetches),
	    cmocka_unit_test(the_cache_is_bounded),
	    cmocka_unit_test(more_at_once_than_there_is_room),
	    cmocka_unit_test(deep_stacks_come_in_parts),
	    cmocka_unit_test(senseless_answers_are_errors),
	    cmocka_unit_test(senseless_allocations_are_errors),
	    cmocka_unit_test(a_lost_answer_to_an_update),
	    cmocka_unit_test(candidates_are_forgotten_without_a_map),
	    cmocka_unit_test(memory_is_short),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
