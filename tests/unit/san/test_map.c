/* SPDX-License-Identifier: Apache-2.0 */
/* The map: allocation, updates, lookups through chains. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "metadata/san/schema.h"
#include "src/base/mem.h"
#include "tests/lib/san_fixture.h"
#include "tests/lib/san_raw.h"

static int setup(void **state)
{
	struct san_fixture *fx = calloc(1, sizeof(*fx));

	san_fixture_init(fx, STORE_MEM, 1);
	*state = fx;
	return 0;
}

static int teardown(void **state)
{
	san_fixture_free(*state);
	free(*state);
	assert_int_equal(mem_live(), 0);
	return 0;
}

static bool same_entry(const struct map_entry *a, const struct map_entry *b)
{
	return a->kind == b->kind && a->flags == b->flags && a->replicas_n == b->replicas_n &&
	       memcmp(a->replicas, b->replicas, a->replicas_n * sizeof(a->replicas[0])) == 0;
}

/* ---- allocation ------------------------------------------------------------------------------------------------------------- */

static void test_alloc_is_idempotent(void **state)
{
	struct san_fixture *fx = *state;
	device_no dev = fx_device(fx, 100);
	struct san_volume v = fx_volume(fx, "a", 1000);
	uint64_t epoch = fx_open(fx, "a");
	uint32_t chunks[] = {7, 999, 3, 7, 256, 255};
	struct san_map_item items[6], again[6];
	struct san_alloc op = {.volume = v.id,
			       .epoch = epoch,
			       .layer = v.head,
			       .chunks = chunks,
			       .n = 6,
			       .items = items};
	struct san_device d;

	assert_int_equal(SAN_CALL(fx, san_alloc, &op), 0);
	for (int i = 0; i < 6; i++) {
		assert_int_equal(items[i].chunk, chunks[i]);
		assert_int_equal(items[i].layer, v.head);
		assert_int_equal(items[i].entry.kind, MAP_OPEN);
		assert_int_equal(items[i].entry.flags, 0);
		assert_int_equal(items[i].entry.replicas_n, 1);
		assert_int_equal(items[i].entry.replicas[0].dev, dev);
	}
	assert_true(same_entry(&items[0].entry, &items[3].entry));
	assert_int_equal(san_cgen(fx->san), 5);
	assert_int_equal(san_device_get(fx->san, dev, &d), 0);
	assert_int_equal(d.used_n, 5);

	san_fixture_crash(fx);
	op.items = again;
	assert_int_equal(SAN_CALL(fx, san_alloc, &op), 0);
	for (int i = 0; i < 6; i++)
		assert_true(same_entry(&items[i].entry, &again[i].entry));
	assert_int_equal(san_cgen(fx->san), 5);
	/* a new one is above everything before */
	assert_int_equal(fx_alloc(fx, &v, epoch, 8, 1, items), 0);
	assert_int_equal(items[0].entry.replicas[0].cgen, 6);
	fx_check(fx);
}

static void test_alloc_refusals(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume v = fx_volume(fx, "a", 10), w = v;
	uint64_t epoch;
	struct san_alloc op = {.n = SAN_CHUNKS_MAX + 1, .layer = 1};

	fx_device(fx, 100);
	assert_int_equal(fx_alloc(fx, &v, 0, 0, 1, NULL), -E_STALE_EPOCH); /* nobody owns it */
	epoch = fx_open(fx, "a");
	assert_int_equal(fx_alloc(fx, &v, epoch + 1, 0, 1, NULL), -E_STALE_EPOCH);
	assert_int_equal(fx_alloc(fx, &v, epoch, 10, 1, NULL), -EINVAL);
	assert_int_equal(fx_alloc(fx, &v, epoch, 9, 2, NULL), -EINVAL);
	w.head = 77;
	assert_int_equal(fx_alloc(fx, &w, epoch, 0, 1, NULL), -E_FROZEN);
	w.id = 77;
	assert_int_equal(fx_alloc(fx, &w, epoch, 0, 1, NULL), -ENOENT);
	assert_int_equal(SAN_CALL(fx, san_alloc, &op), -EINVAL);
	assert_int_equal(san_cgen(fx->san), 0);
	fx_check(fx);
}

/* Two requests for the same chunks in one turn: one slot each, the same answer. */
static void test_alloc_race(void **state)
{
	enum { N = 20 };
	struct san_fixture *fx = *state;
	struct san_volume v = fx_volume(fx, "a", 1000);
	uint64_t epoch = fx_open(fx, "a"), before, commits;
	uint32_t chunk = 5;
	struct san_map_item items[N];
	struct san_alloc ops[N];
	struct san_stats stats;

	fx_device(fx, 100);
	before = metastore_last_commit(fx->st.s);
	for (int i = 0; i < N; i++) {
		ops[i] = (struct san_alloc){.req.done = san_waited,
					    .volume = v.id,
					    .epoch = epoch,
					    .layer = v.head,
					    .chunks = &chunk,
					    .n = 1,
					    .items = &items[i]};
		san_alloc(fx->san, &ops[i]);
	}
	san_wait(fx, &ops[N - 1].req);
	commits = metastore_last_commit(fx->st.s) - before;
	assert_int_equal(commits, 1);
	for (int i = 0; i < N; i++) {
		assert_int_equal(ops[i].req.status, 0);
		assert_true(same_entry(&items[i].entry, &items[0].entry));
	}
	san_stats(fx->san, &stats);
	assert_int_equal(stats.alloc_chunks, 1);
	assert_int_equal(stats.alloc_commits, 1);
	fx_check(fx);
}

/* Many volumes and chunks wait for a commit under way and share the next ones. */
static void test_allocations_share_commits(void **state)
{
	enum { N = 200 };
	struct san_fixture *fx = *state;
	struct san_volume v = fx_volume(fx, "a", 100000), w = fx_volume(fx, "b", 100000);
	uint64_t ea = fx_open(fx, "a"), eb = fx_open(fx, "b");
	struct san_map_item items[N];
	struct san_alloc ops[N];
	uint32_t chunks[N];
	struct san_stats stats;

	fx_device(fx, 10000);
	fx_device(fx, 10000);
	for (int i = 0; i < N; i++) {
		chunks[i] = (uint32_t)i * 37;
		ops[i] = (struct san_alloc){.req.done = san_waited,
					    .volume = i % 2 ? v.id : w.id,
					    .epoch = i % 2 ? ea : eb,
					    .layer = i % 2 ? v.head : w.head,
					    .chunks = &chunks[i],
					    .n = 1,
					    .items = &items[i]};
		san_alloc(fx->san, &ops[i]);
	}
	san_wait(fx, &ops[N - 1].req);
	san_stats(fx->san, &stats);
	assert_int_equal(stats.alloc_chunks, N);
	assert_true(stats.alloc_commits <= 3);
	fx_check(fx);
}

/* Every chunk in a page of its own: more pages than fit in one batch. */
static void test_scattered_alloc(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume v = fx_volume(fx, "a", SAN_CHUNKS_MAX * 256);
	uint64_t epoch = fx_open(fx, "a");
	uint32_t *chunks = calloc(SAN_CHUNKS_MAX, sizeof(*chunks));
	struct san_map_item *items = calloc(SAN_CHUNKS_MAX, sizeof(*items));
	struct san_alloc op = {.volume = v.id,
			       .epoch = epoch,
			       .layer = v.head,
			       .chunks = chunks,
			       .n = SAN_CHUNKS_MAX,
			       .items = items};
	struct san_device d;
	device_no dev;

	dev = fx_device(fx, SAN_CHUNKS_MAX);
	for (uint32_t i = 0; i < SAN_CHUNKS_MAX; i++)
		chunks[i] = (SAN_CHUNKS_MAX - 1 - i) * 256 + i % 256;
	assert_int_equal(SAN_CALL(fx, san_alloc, &op), 0);
	for (uint32_t i = 0; i < SAN_CHUNKS_MAX; i++) {
		struct map_entry e;

		assert_int_equal(items[i].chunk, chunks[i]);
		e = fx_lookup(fx, &v, chunks[i]);
		assert_true(same_entry(&items[i].entry, &e));
	}
	assert_int_equal(san_device_get(fx->san, dev, &d), 0);
	assert_int_equal(d.used_n, SAN_CHUNKS_MAX);
	san_fixture_crash(fx);
	fx_check(fx);
	free(chunks);
	free(items);
}

/* ---- space ------------------------------------------------------------------------------------------------------------------ */

static void test_no_space(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume v = fx_volume(fx, "a", 1000);
	uint64_t epoch = fx_open(fx, "a");
	struct san_map_item item;
	struct san_pool_space space;
	device_no dev;

	/* no device at all */
	assert_int_equal(fx_alloc(fx, &v, epoch, 0, 1, NULL), -ENOSPC);
	dev = fx_device(fx, 10);
	assert_int_equal(fx_alloc(fx, &v, epoch, 0, 8, NULL), 0);
	/* all or nothing */
	assert_int_equal(fx_alloc(fx, &v, epoch, 100, 3, NULL), -ENOSPC);
	assert_int_equal(fx_lookup(fx, &v, 100).kind, MAP_UNMAPPED);
	san_pool_space(fx->san, FIXTURE_POOL, &space);
	assert_int_equal(space.used_n, 8);
	assert_int_equal(space.free_usable_n, 2);
	/* what is mapped already needs nothing */
	assert_int_equal(fx_alloc(fx, &v, epoch, 0, 10, NULL), 0);
	assert_int_equal(fx_alloc(fx, &v, epoch, 0, 10, NULL), 0);
	assert_int_equal(fx_alloc(fx, &v, epoch, 10, 1, NULL), -ENOSPC);
	/* an unmapped slot is not free before the device has freed it */
	item.entry = fx_lookup(fx, &v, 3);
	assert_int_equal(fx_update(fx, &v, epoch, 3, SAN_UNMAP, item.entry.replicas[0].cgen), 0);
	assert_int_equal(fx_alloc(fx, &v, epoch, 10, 1, NULL), -ENOSPC);
	assert_int_equal(fx_free_all(fx, dev), 1);
	assert_int_equal(fx_alloc(fx, &v, epoch, 10, 1, &item), 0);
	assert_int_equal(item.entry.replicas[0].cgen, 11);
	fx_check(fx);
}

/* Two requests that together want more than there is: one has all, the other nothing. */
static void test_no_space_race(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume v = fx_volume(fx, "a", SAN_CHUNKS_MAX * 256);
	uint64_t epoch = fx_open(fx, "a");
	static uint32_t chunks[2][SAN_CHUNKS_MAX];
	static struct san_map_item items[2][SAN_CHUNKS_MAX];
	struct san_alloc ops[2];
	struct san_pool_space space;

	fx_device(fx, SAN_CHUNKS_MAX + SAN_CHUNKS_MAX / 2);
	for (uint32_t k = 0; k < 2; k++) {
		for (uint32_t i = 0; i < SAN_CHUNKS_MAX; i++)
			chunks[k][i] = i * 256 + k;
		ops[k] = (struct san_alloc){.req.done = san_waited,
					    .volume = v.id,
					    .epoch = epoch,
					    .layer = v.head,
					    .chunks = chunks[k],
					    .n = SAN_CHUNKS_MAX,
					    .items = items[k]};
		san_alloc(fx->san, &ops[k]);
	}
	while (ops[0].req.commit == 0 || ops[1].req.commit == 0)
		assert_true(sim_step(fx->st.sim.w));
	assert_int_equal(ops[0].req.status, 0);
	assert_int_equal(ops[1].req.status, -ENOSPC);
	san_pool_space(fx->san, FIXTURE_POOL, &space);
	assert_int_equal(space.used_n, SAN_CHUNKS_MAX);
	/* the promise is over */
	assert_int_equal(fx_alloc(fx, &v, epoch, 2, 200, NULL), 0);
	fx_check(fx);
}

static void test_spread_by_free_space(void **state)
{
	struct san_fixture *fx = *state;
	device_no small = fx_device(fx, 1000), big = fx_device(fx, 3000), off = fx_device(fx, 5000);
	struct san_volume v = fx_volume(fx, "a", 10000);
	uint64_t epoch = fx_open(fx, "a");
	struct san_device d;
	uint32_t used;

	san_device_usable(fx->san, off, false);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(fx_alloc(fx, &v, epoch, i * 100, 100, NULL), 0);
	assert_int_equal(san_device_get(fx->san, small, &d), 0);
	used = d.used_n;
	assert_in_range(used, 480, 520);
	assert_int_equal(san_device_get(fx->san, big, &d), 0);
	assert_int_equal(d.used_n, 2000 - used);
	assert_int_equal(san_device_get(fx->san, off, &d), 0);
	assert_int_equal(d.used_n, 0);
	/* to the last slot */
	assert_int_equal(fx_alloc(fx, &v, epoch, 2000, 1000, NULL), 0);
	assert_int_equal(fx_alloc(fx, &v, epoch, 3000, 1000, NULL), 0);
	assert_int_equal(fx_alloc(fx, &v, epoch, 4000, 1, NULL), -ENOSPC);
	san_device_usable(fx->san, off, true);
	assert_int_equal(fx_alloc(fx, &v, epoch, 4000, 1, NULL), 0);
	fx_check(fx);
}

/* ---- flags ------------------------------------------------------------------------------------------------------------------ */

static void test_reserved(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume v = fx_volume(fx, "a", 100);
	uint64_t epoch = fx_open(fx, "a");
	uint32_t chunks[] = {1, 2};
	bool reserved[] = {false, true};
	struct san_map_item items[2];
	struct san_alloc op = {.volume = v.id,
			       .epoch = epoch,
			       .layer = v.head,
			       .chunks = chunks,
			       .reserved = reserved,
			       .n = 2,
			       .items = items};

	fx_device(fx, 10);
	assert_int_equal(SAN_CALL(fx, san_alloc, &op), 0);
	assert_int_equal(items[0].entry.flags, 0);
	assert_int_equal(items[1].entry.flags, MAP_RESERVED);
	/* reserving what is in use, or reserved, changes nothing */
	reserved[0] = true;
	assert_int_equal(SAN_CALL(fx, san_alloc, &op), 0);
	assert_int_equal(items[0].entry.flags, 0);
	assert_int_equal(items[1].entry.flags, MAP_RESERVED);
	/* a client wants it */
	op.reserved = NULL;
	assert_int_equal(SAN_CALL(fx, san_alloc, &op), 0);
	assert_int_equal(items[1].entry.flags, 0);
	san_fixture_crash(fx);
	assert_int_equal(fx_lookup(fx, &v, 2).flags, 0);
	assert_int_equal(san_cgen(fx->san), 2);
	fx_check(fx);
}

static void test_update(void **state)
{
	struct san_fixture *fx = *state;
	device_no dev = fx_device(fx, 10);
	struct san_volume v = fx_volume(fx, "a", 1000);
	uint64_t epoch = fx_open(fx, "a"), cgen;
	struct san_map_item items[4];
	struct san_update_item u[] = {{0, SAN_UNMAP, 0}, {1, SAN_UNMAP, 99}, {2, SAN_MARK_FULL, 0}};
	struct san_update op = {.volume = v.id, .epoch = epoch, .layer = v.head, .items = u, .n = 3};
	struct san_layer l;

	assert_int_equal(fx_alloc(fx, &v, epoch, 0, 4, items), 0);
	cgen = items[0].entry.replicas[0].cgen;
	/* only what still has the cgen */
	u[2].cgen = items[2].entry.replicas[0].cgen;
	assert_int_equal(SAN_CALL(fx, san_update, &op), 0);
	assert_int_equal(op.changed_n, 1);
	assert_int_equal(fx_lookup(fx, &v, 0).kind, MAP_OPEN);
	assert_int_equal(fx_lookup(fx, &v, 1).kind, MAP_OPEN);
	assert_int_equal(fx_lookup(fx, &v, 2).flags, MAP_FULL);
	/* again: nothing more */
	assert_int_equal(SAN_CALL(fx, san_update, &op), 0);
	assert_int_equal(op.changed_n, 0);
	u[0].cgen = cgen;
	assert_int_equal(SAN_CALL(fx, san_update, &op), 0);
	assert_int_equal(op.changed_n, 1);
	assert_int_equal(fx_lookup(fx, &v, 0).kind, MAP_UNMAPPED);
	/* without an ancestor a zero entry is not needed: unmapped says it */
	assert_int_equal(fx_update(fx, &v, epoch, 3, SAN_UNMAP_ZERO,
				   items[3].entry.replicas[0].cgen),
			 0);
	assert_int_equal(fx_lookup(fx, &v, 3).kind, MAP_UNMAPPED);
	assert_int_equal(fx_update(fx, &v, epoch, 9, SAN_SET_ZERO, 0), 0);
	assert_int_equal(fx_lookup(fx, &v, 9).kind, MAP_UNMAPPED);

	assert_int_equal(fx_update(fx, &v, epoch + 1, 1, SAN_UNMAP, 2), -E_STALE_EPOCH);
	assert_int_equal(fx_update(fx, &v, epoch, 1000, SAN_UNMAP, 2), -EINVAL);
	assert_int_equal(fx_update(fx, &v, epoch, 1, (enum san_change)4, 2), -EINVAL);
	assert_int_equal(san_layer_get(fx->san, v.head, &l), 0);
	assert_int_equal(l.chunks_n, 2);
	fx_check(fx);
	san_fixture_crash(fx);
	assert_int_equal(fx_free_all(fx, dev), 2);
	assert_int_equal(fx_update(fx, &v, epoch, 1, SAN_UNMAP, items[1].entry.replicas[0].cgen), 0);
	assert_int_equal(fx_update(fx, &v, epoch, 2, SAN_UNMAP, items[2].entry.replicas[0].cgen), 0);
	fx_check(fx);
}

/* ---- lookups ---------------------------------------------------------------------------------------------------------------- */

static void test_lookup_range(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume v = fx_volume(fx, "a", 700);
	uint64_t epoch = fx_open(fx, "a");
	static struct san_map_item items[SAN_CHUNKS_MAX];
	struct san_map op = {.volume = v.id,
			     .epoch = epoch,
			     .layer = v.head,
			     .first = 200,
			     .n = SAN_CHUNKS_MAX,
			     .items = items,
			     .items_max = SAN_CHUNKS_MAX};

	fx_device(fx, 1000);
	for (uint32_t i = 0; i < 700; i += 7)
		assert_int_equal(fx_alloc(fx, &v, epoch, i, 1, NULL), 0);
	san_fixture_crash(fx); /* all from the database */
	assert_int_equal(SAN_CALL(fx, san_map, &op), 0);
	assert_int_equal(op.items_n, 100 - 29);
	for (uint32_t i = 0; i < op.items_n; i++)
		assert_int_equal(items[i].chunk, (29 + i) * 7);
	op.items_max = 70;
	assert_int_equal(SAN_CALL(fx, san_map, &op), -E2BIG);
	op.first = 700;
	assert_int_equal(SAN_CALL(fx, san_map, &op), 0);
	assert_int_equal(op.items_n, 0);
	op.first = UINT32_MAX;
	assert_int_equal(SAN_CALL(fx, san_map, &op), 0);
	assert_int_equal(op.items_n, 0);
	op.n = SAN_CHUNKS_MAX + 1;
	assert_int_equal(SAN_CALL(fx, san_map, &op), -EINVAL);
	op.n = 1;
	op.epoch++;
	assert_int_equal(SAN_CALL(fx, san_map, &op), -E_STALE_EPOCH);
	op.epoch = 0;
	op.layer = 99;
	assert_int_equal(SAN_CALL(fx, san_map, &op), -EINVAL);
	op.volume = 99;
	assert_int_equal(SAN_CALL(fx, san_map, &op), -ENOENT);
}

/* A small cache: pages come and go, the answers stay. */
static void test_small_cache(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume v = fx_volume(fx, "a", 100 * 256);
	uint64_t epoch = fx_open(fx, "a");
	struct san_map_item items[100];
	struct san_stats stats;

	fx->cache_bytes = 10 * 5000;
	san_fixture_crash(fx);
	fx_device(fx, 1000);
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(fx_alloc(fx, &v, epoch, i * 256 + i, 1, &items[i]), 0);
	for (uint32_t i = 0; i < 100; i++) {
		struct map_entry e = fx_lookup(fx, &v, i * 256 + i);

		assert_true(same_entry(&e, &items[i].entry));
	}
	san_stats(fx->san, &stats);
	assert_true(stats.cache_bytes <= fx->cache_bytes);
	assert_true(stats.cache_misses >= 190);
	fx_check(fx);
}

static void test_walk(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume v = fx_volume(fx, "a", 2000), w = fx_volume(fx, "b", 2000);
	uint64_t ea = fx_open(fx, "a"), eb = fx_open(fx, "b");
	static struct san_map_item items[600];
	struct san_map_walk op = {.items = items, .items_max = 600};
	uint32_t seen = 0, rounds = 0;

	fx_device(fx, 5000);
	assert_int_equal(fx_alloc(fx, &v, ea, 100, 1000, NULL), 0);
	assert_int_equal(fx_alloc(fx, &w, eb, 1500, 500, NULL), 0);
	do {
		assert_int_equal(SAN_CALL(fx, san_map_walk, &op), 0);
		for (uint32_t i = 0; i < op.items_n; i++, seen++) {
			assert_int_equal(items[i].layer, seen < 1000 ? v.head : w.head);
			assert_int_equal(items[i].chunk, seen < 1000 ? 100 + seen : 500 + seen);
		}
		op.layer = op.next_layer;
		op.chunk = op.next_chunk;
		rounds++;
	} while (op.layer);
	assert_int_equal(seen, 1500);
	assert_true(rounds >= 3);
	/* from the middle */
	op.layer = w.head;
	op.chunk = 1990;
	assert_int_equal(SAN_CALL(fx, san_map_walk, &op), 0);
	assert_int_equal(op.items_n, 10);
	assert_int_equal(op.next_layer, 0);
	op.items_max = 255;
	assert_int_equal(SAN_CALL(fx, san_map_walk, &op), -EINVAL);
}

/* ---- chains ----------------------------------------------------------------------------------------------------------------- */

static void put_record(struct san_fixture *fx, const struct schema_key *k, const uint8_t *bytes,
		       size_t len)
{
	struct metastore_change c = {schema_key_bytes(k), {bytes, len}};

	assert_int_equal(store_commit(&fx->st, NULL, 0, &c, 1, NULL), 0);
}

/* Gives volume "a" a frozen parent layer, by hand, as a snapshot would: chunks 0..7 open in it, 8 zero, 9 full. */
static struct san_volume with_parent(struct san_fixture *fx)
{
	struct san_volume base = fx_volume(fx, "base", 16), v = fx_volume(fx, "a", 16);
	uint64_t epoch = fx_open(fx, "base");
	struct schema_key k = schema_key_32(SCHEMA_LAYER, v.head);
	struct schema_layer rec = {.parent = base.head, .volume = v.id, .size_bytes = 16 << 20};
	struct map_body body = {NULL, NULL, 0};
	struct map_entry zero = {.kind = MAP_ZERO};
	struct san_map_item items[16];
	static uint8_t bytes[SCHEMA_PAGE_MAX];
	size_t len;

	fx_device(fx, 100);
	assert_int_equal(fx_alloc(fx, &base, epoch, 0, 8, items), 0);
	assert_int_equal(fx_alloc(fx, &base, epoch, 9, 1, &items[9]), 0);
	assert_int_equal(fx_update(fx, &base, epoch, 9, SAN_MARK_FULL,
				   items[9].entry.replicas[0].cgen),
			 0);
	san_abandon(fx->san);
	len = schema_layer_encode(&rec, &k, bytes);
	put_record(fx, &k, bytes, len);
	/* the zero entry, in the page of the base */
	items[9].entry.flags = MAP_FULL;
	assert_int_equal(map_body_reserve(&body, 1), 0);
	for (uint32_t i = 0; i < 10; i++)
		map_body_set(&body, i, i == 8 ? &zero : &items[i].entry);
	k = schema_key_map(base.head, 0);
	len = schema_map_encode(&body, &k, bytes);
	put_record(fx, &k, bytes, len);
	k = schema_key_32(SCHEMA_USAGE, base.head);
	len = schema_usage_encode(&(struct schema_usage){9, 10}, &k, bytes);
	put_record(fx, &k, bytes, len);
	map_body_free(&body);
	store_fixture_crash(&fx->st);
	assert_int_equal(san_fixture_open(fx, (char *)bytes), 0);
	fx_check(fx);
	return v;
}

static uint32_t stack(struct san_fixture *fx, const struct san_volume *v, uint32_t chunk,
		      struct san_map_item items[4])
{
	struct san_map op = {.volume = v->id, .first = chunk, .n = 1, .items = items, .items_max = 4};

	assert_int_equal(SAN_CALL(fx, san_map, &op), 0);
	return op.items_n;
}

static void test_chain(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume v = with_parent(fx);
	uint64_t epoch = fx_open(fx, "a"), cgen;
	struct san_map_item items[4], got;
	struct san_volume_delete del = {.name = "base"};
	struct san_volume_close cl = {.volume = 1, .epoch = 1};
	struct san_volume_open op = {.name = "a", .node = FIXTURE_NODE, .start = fx->start};

	assert_int_equal(SAN_CALL(fx, san_volume_open, &op), 0);
	assert_int_equal(op.layers_n, 2);
	assert_int_equal(op.layers[0], v.head);

	/* only the parent has it; then both, from the head down; the full one hides the parent */
	assert_int_equal(stack(fx, &v, 0, items), 1);
	assert_int_equal(items[0].layer, op.layers[1]);
	assert_int_equal(fx_alloc(fx, &v, epoch, 0, 1, &got), 0);
	assert_int_equal(got.entry.flags, 0);
	assert_int_equal(stack(fx, &v, 0, items), 2);
	assert_int_equal(items[0].layer, op.layers[0]);
	assert_int_equal(items[1].layer, op.layers[1]);
	cgen = got.entry.replicas[0].cgen;
	assert_int_equal(fx_update(fx, &v, epoch, 0, SAN_MARK_FULL, cgen), 0);
	assert_int_equal(stack(fx, &v, 0, items), 1);
	/* unmapping what hides an ancestor leaves a zero entry, so that old data does not come back */
	assert_int_equal(fx_update(fx, &v, epoch, 0, SAN_UNMAP, cgen), 0);
	assert_int_equal(stack(fx, &v, 0, items), 1);
	assert_int_equal(items[0].entry.kind, MAP_ZERO);
	assert_int_equal(items[0].layer, op.layers[0]);
	/* writing to it: open and opaque */
	assert_int_equal(fx_alloc(fx, &v, epoch, 0, 1, &got), 0);
	assert_int_equal(got.entry.flags, MAP_OPAQUE);
	assert_int_equal(stack(fx, &v, 0, items), 1);
	assert_int_equal(fx_update(fx, &v, epoch, 0, SAN_UNMAP, got.entry.replicas[0].cgen), 0);
	assert_int_equal(stack(fx, &v, 0, items), 1);
	assert_int_equal(items[0].entry.kind, MAP_ZERO);

	/* not hiding: unmapped, the parent shows again; or zero when asked for */
	assert_int_equal(fx_alloc(fx, &v, epoch, 1, 1, &got), 0);
	assert_int_equal(fx_update(fx, &v, epoch, 1, SAN_UNMAP, got.entry.replicas[0].cgen), 0);
	assert_int_equal(stack(fx, &v, 1, items), 1);
	assert_int_equal(items[0].layer, op.layers[1]);
	assert_int_equal(fx_alloc(fx, &v, epoch, 1, 1, &got), 0);
	assert_int_equal(fx_update(fx, &v, epoch, 1, SAN_UNMAP_ZERO, got.entry.replicas[0].cgen), 0);
	assert_int_equal(stack(fx, &v, 1, items), 1);
	assert_int_equal(items[0].entry.kind, MAP_ZERO);
	/* zeroing a chunk that only the parent has */
	assert_int_equal(fx_update(fx, &v, epoch, 2, SAN_SET_ZERO, 0), 0);
	assert_int_equal(stack(fx, &v, 2, items), 1);
	assert_int_equal(items[0].entry.kind, MAP_ZERO);
	/* not one that has a slot */
	assert_int_equal(fx_alloc(fx, &v, epoch, 3, 1, &got), 0);
	assert_int_equal(fx_update(fx, &v, epoch, 3, SAN_SET_ZERO, got.entry.replicas[0].cgen), 0);
	assert_int_equal(fx_lookup(fx, &v, 12).kind, MAP_UNMAPPED);
	/* the parent's own zero and full entries show through */
	assert_int_equal(stack(fx, &v, 8, items), 1);
	assert_int_equal(items[0].entry.kind, MAP_ZERO);
	assert_int_equal(stack(fx, &v, 9, items), 1);
	fx_check(fx);

	/* the parent cannot be deleted, and the refusal says why */
	assert_int_equal(SAN_CALL(fx, san_volume_close, &cl), 0);
	assert_int_equal(SAN_CALL(fx, san_volume_delete, &del), -ENOTEMPTY);
	assert_non_null(strstr(del.req.errmsg, ": a"));
	san_fixture_crash(fx);
	assert_int_equal(stack(fx, &v, 3, items), 2);
	fx_check(fx);
}

/* ---- devices ---------------------------------------------------------------------------------------------------------------- */

static void test_device_add_grow_remove(void **state)
{
	struct san_fixture *fx = *state;
	struct metastore_change also = {bytes_of("Ddev"), bytes_of("1")};
	struct san_device_add add = {.dev = 1,
				     .pool = FIXTURE_POOL,
				     .chunk_shift = CHUNK_SHIFT_FLASH,
				     .slots_n = 10,
				     .also = &also,
				     .also_n = 1};
	struct san_device_remove rem = {.dev = 1, .also = &also, .also_n = 1};
	struct san_volume v = fx_volume(fx, "a", 20000);
	uint64_t epoch = fx_open(fx, "a");
	struct san_map_item item;
	struct san_device d;

	assert_int_equal(SAN_CALL(fx, san_device_add, &add), -EINVAL); /* never given out */
	assert_int_equal(san_number_take(fx->san, SAN_NUMBER_DEVICE), 1);
	assert_int_equal(SAN_CALL(fx, san_device_add, &add), 0);
	assert_int_equal(store_expect(&fx->st, "Ddev", "1"), 0);
	assert_int_equal(SAN_CALL(fx, san_device_add, &add), 0);
	assert_int_equal(fx_alloc(fx, &v, epoch, 0, 1, NULL), -ENOSPC); /* not usable yet */
	san_device_usable(fx->san, 1, true);
	assert_int_equal(fx_alloc(fx, &v, epoch, 0, 10, NULL), 0);
	/* it grew, over a page of the space map */
	add.slots_n = 9000;
	assert_int_equal(SAN_CALL(fx, san_device_add, &add), 0);
	for (uint32_t i = 0; i < 9; i++)
		assert_int_equal(fx_alloc(fx, &v, epoch, 10 + i * 998, 998, NULL), 0);
	assert_int_equal(fx_alloc(fx, &v, epoch, 10000, 8, NULL), 0);
	assert_int_equal(fx_alloc(fx, &v, epoch, 10008, 1, NULL), -ENOSPC);
	fx_check(fx);
	san_fixture_crash(fx);
	assert_int_equal(san_device_get(fx->san, 1, &d), 0);
	assert_int_equal(d.slots_n, 9000);
	assert_int_equal(d.used_n, 9000);
	assert_int_equal(fx_alloc(fx, &v, epoch, 10008, 1, NULL), -ENOSPC);
	add.slots_n = 10;
	assert_int_equal(SAN_CALL(fx, san_device_add, &add), -EEXIST);
	add.slots_n = 9000;
	add.chunk_shift = CHUNK_SHIFT_DISK;
	assert_int_equal(SAN_CALL(fx, san_device_add, &add), -EEXIST);
	/* another chunk size in the same pool */
	add.dev = (device_no)san_number_take(fx->san, SAN_NUMBER_DEVICE);
	assert_int_equal(SAN_CALL(fx, san_device_add, &add), -EINVAL);

	also.value = (struct metastore_bytes){NULL, 0};
	assert_int_equal(SAN_CALL(fx, san_device_remove, &rem), -ENOTEMPTY);
	for (uint32_t i = 0; i < 10008; i++) {
		if (i == 8992)
			i = 10000;
		item.entry = fx_lookup(fx, &v, i);
		assert_int_equal(item.entry.kind, MAP_OPEN);
		assert_int_equal(fx_update(fx, &v, epoch, i, SAN_UNMAP, item.entry.replicas[0].cgen),
				 0);
	}
	assert_int_equal(SAN_CALL(fx, san_device_remove, &rem), -ENOTEMPTY);
	assert_int_equal(fx_free_all(fx, 1), 9000);
	assert_int_equal(SAN_CALL(fx, san_device_remove, &rem), 0);
	assert_int_equal(store_expect(&fx->st, "Ddev", NULL), 0);
	assert_int_equal(SAN_CALL(fx, san_device_remove, &rem), -ENOENT);
	fx_check(fx);
	san_fixture_crash(fx);
	assert_int_equal(san_device_get(fx->san, 1, &d), -ENOENT);
	fx_check(fx);
}

static void test_device_lost(void **state)
{
	struct san_fixture *fx = *state;
	device_no a = fx_device(fx, 3000), b = fx_device(fx, 3000);
	struct san_volume v = fx_volume(fx, "a", 4000);
	uint64_t epoch = fx_open(fx, "a");
	struct san_map_item items[1000];
	struct san_device_lose lose = {.dev = a};
	struct san_device_add back = {.dev = a,
				      .pool = FIXTURE_POOL,
				      .chunk_shift = CHUNK_SHIFT_FLASH,
				      .slots_n = 3000};
	struct san_pool_space space;
	struct san_device d;
	struct san_layer l;
	uint32_t on_a = 0, lost = 0, chunk_a = 0;

	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(fx_alloc(fx, &v, epoch, i * 1000, 1000, items), 0);
		for (uint32_t j = 0; j < 1000; j++) {
			if (items[j].entry.replicas[0].dev != a)
				continue;
			on_a++;
			chunk_a = i * 1000 + j;
		}
	}
	/* some intents on it, too */
	for (uint32_t i = 0; i < 300; i++) {
		struct map_entry e = fx_lookup(fx, &v, i);

		on_a -= e.replicas[0].dev == a;
		assert_int_equal(fx_update(fx, &v, epoch, i, SAN_UNMAP, e.replicas[0].cgen), 0);
	}
	assert_int_equal(SAN_CALL(fx, san_device_lose, &lose), 0);
	san_device_usable(fx->san, a, true); /* has no effect any more */
	assert_int_equal(san_device_get(fx->san, a, &d), 0);
	assert_true(d.lost && !d.usable);
	assert_int_equal(SAN_CALL(fx, san_device_add, &back), -EEXIST); /* nor can it come back */
	san_pool_space(fx->san, FIXTURE_POOL, &space);
	assert_int_equal(space.slots_n, 3000); /* it is not counted on */
	assert_int_equal(space.devices_n, 2);
	/* one step, then interrupted */
	struct san_job_step step = {.job = lose.job};

	assert_int_equal(SAN_CALL(fx, san_device_lose_step, &step), 0);
	assert_false(step.finished);
	san_fixture_crash(fx);
	fx_check(fx);
	assert_int_equal(SAN_CALL(fx, san_device_lose, &lose), 0);
	assert_int_equal(lose.job, step.job);
	fx_run_job(fx, lose.job);
	assert_int_equal(san_device_get(fx->san, a, &d), -ENOENT);
	fx_check(fx);
	san_fixture_crash(fx);
	fx_check(fx);
	for (uint32_t i = 0; i < 4000; i++) {
		struct map_entry e = fx_lookup(fx, &v, i);

		if (e.kind == MAP_LOST)
			lost++;
		else if (e.kind == MAP_OPEN)
			assert_int_equal(e.replicas[0].dev, b);
	}
	assert_int_equal(lost, on_a);
	assert_int_equal(san_layer_get(fx->san, v.head, &l), 0);
	assert_int_equal(l.chunks_n, 3700 - on_a);
	/* a write makes it open and full: what is not written stays damage */
	assert_int_equal(fx_alloc(fx, &v, epoch, chunk_a, 1, items), 0);
	assert_int_equal(items[0].entry.kind, MAP_OPEN);
	assert_int_equal(items[0].entry.flags, MAP_FULL);
	/* a discard clears it */
	for (uint32_t i = 300; i < 4000; i++) {
		if (fx_lookup(fx, &v, i).kind != MAP_LOST)
			continue;
		assert_int_equal(fx_update(fx, &v, epoch, i, SAN_UNMAP, 0), 0);
		assert_int_equal(fx_lookup(fx, &v, i).kind, MAP_UNMAPPED);
		break;
	}
	fx_check(fx);
}

/* The only free slot lies behind the place where the search begins. */
static void test_slots_are_found_all_round(void **state)
{
	static const uint32_t freed[] = {2, 5, 2, 0};
	struct san_fixture *fx = *state;
	device_no dev = fx_device(fx, 10);
	struct san_volume v = fx_volume(fx, "a", 1000);
	uint64_t epoch = fx_open(fx, "a");
	struct san_map_item items[10], item;
	uint32_t chunk_of[10];

	assert_int_equal(fx_alloc(fx, &v, epoch, 0, 10, items), 0);
	for (uint32_t i = 0; i < 10; i++)
		chunk_of[items[i].entry.replicas[0].slot] = i;
	for (uint32_t i = 0; i < ARRAY_LEN(freed); i++) {
		uint32_t chunk = chunk_of[freed[i]];
		struct map_entry e = fx_lookup(fx, &v, chunk);

		assert_int_equal(fx_update(fx, &v, epoch, chunk, SAN_UNMAP, e.replicas[0].cgen), 0);
		assert_int_equal(fx_free_all(fx, dev), 1);
		assert_int_equal(fx_alloc(fx, &v, epoch, 100 + i, 1, &item), 0);
		assert_int_equal(item.entry.replicas[0].slot, freed[i]);
		chunk_of[freed[i]] = 100 + i;
	}
	fx_check(fx);
}

/* What is on the device lies far apart: many pages of the map have nothing of it. */
static void test_device_lost_far_apart(void **state)
{
	enum { PAGES = 40 };
	struct san_fixture *fx = *state;
	device_no a = fx_device(fx, 100), b = fx_device(fx, 100);
	struct san_volume v = fx_volume(fx, "a", PAGES * SCHEMA_MAP_CHUNKS);
	uint64_t epoch = fx_open(fx, "a");
	struct san_device_lose lose = {.dev = a};
	struct san_volume_close close = {.volume = v.id, .epoch = epoch};
	struct san_volume_delete del = {.name = "a"};
	struct san_job_get get;
	struct san_device d;

	for (uint32_t page = 0; page < PAGES; page++) {
		bool on_a = page == 0 || page == 20 || page == PAGES - 1;

		san_device_usable(fx->san, a, on_a);
		san_device_usable(fx->san, b, !on_a);
		assert_int_equal(fx_alloc(fx, &v, epoch, page * SCHEMA_MAP_CHUNKS, 1, NULL), 0);
	}
	assert_int_equal(SAN_CALL(fx, san_device_lose, &lose), 0);
	fx_run_job(fx, lose.job);
	get.id = lose.job;
	assert_int_equal(SAN_CALL(fx, san_job_get, &get), 0);
	assert_int_equal(get.job.done_n, 3);
	assert_int_equal(san_device_get(fx->san, a, &d), -ENOENT);
	for (uint32_t page = 0; page < PAGES; page++)
		assert_int_equal(fx_lookup(fx, &v, page * SCHEMA_MAP_CHUNKS).kind,
				 page == 0 || page == 20 || page == PAGES - 1 ? MAP_LOST : MAP_OPEN);
	/* what is lost holds no slots that a deletion would free */
	assert_int_equal(SAN_CALL(fx, san_volume_close, &close), 0);
	assert_int_equal(SAN_CALL(fx, san_volume_delete, &del), 0);
	fx_run_job(fx, del.job);
	get.id = del.job;
	assert_int_equal(SAN_CALL(fx, san_job_get, &get), 0);
	assert_int_equal(get.job.done_n, PAGES - 3);
	assert_int_equal(fx_free_all(fx, b), PAGES - 3);
	fx_check(fx);
}

/* A slot that is being freed, and an intent that is missing: the device does not leave as if nothing were wrong. */
static void test_device_lost_without_an_intent(void **state)
{
	struct san_fixture *fx = *state;
	device_no a = fx_device(fx, 100);
	struct san_volume v = fx_volume(fx, "a", 10);
	uint64_t epoch = fx_open(fx, "a");
	struct san_map_item item;
	struct san_device_lose lose = {.dev = a};
	struct san_job_step step;
	struct san_job_get get;
	struct schema_key k;
	struct metastore_change change;
	struct san_device d;

	assert_int_equal(fx_alloc(fx, &v, epoch, 0, 1, &item), 0);
	assert_int_equal(fx_update(fx, &v, epoch, 0, SAN_UNMAP, item.entry.replicas[0].cgen), 0);
	k = schema_key_dev_32(SCHEMA_INTENT, a, item.entry.replicas[0].slot);
	change = (struct metastore_change){schema_key_bytes(&k), {NULL, 0}};
	assert_int_equal(store_commit(&fx->st, NULL, 0, &change, 1, NULL), 0);
	assert_int_equal(SAN_CALL(fx, san_device_lose, &lose), 0);
	step = (struct san_job_step){.job = lose.job};
	do
		assert_int_equal(SAN_CALL(fx, san_device_lose_step, &step), 0);
	while (!step.finished);
	get.id = lose.job;
	assert_int_equal(SAN_CALL(fx, san_job_get, &get), 0);
	assert_int_equal(get.job.state, SAN_JOB_FAILED);
	assert_int_equal(san_device_get(fx->san, a, &d), 0);
	assert_int_equal(d.freeing_n, 1);
}

/* The loss fails at a page that cannot be read; it is mended, and asked for again: the new job begins at the beginning. */
static void test_device_lost_again(void **state)
{
	struct san_fixture *fx = *state;
	device_no a = fx_device(fx, 3000);
	struct san_volume v = fx_volume(fx, "a", 4000);
	uint64_t epoch = fx_open(fx, "a");
	struct schema_key k = schema_key_map(v.head, 1);
	struct metastore_change change = {schema_key_bytes(&k), {"junk", 4}};
	struct san_device_lose lose = {.dev = a};
	struct san_job_step step;
	struct san_job_get get;
	struct san_raw_value good;
	struct san_device d;
	char errmsg[ERRMSG_LEN];

	assert_int_equal(fx_alloc(fx, &v, epoch, 0, 1000, NULL), 0);
	san_raw_get(&fx->st, &k, &good);
	san_fixture_kill(fx);
	assert_int_equal(store_commit(&fx->st, NULL, 0, &change, 1, NULL), 0);
	assert_int_equal(san_fixture_open(fx, errmsg), 0);
	assert_int_equal(SAN_CALL(fx, san_device_lose, &lose), 0);
	step = (struct san_job_step){.job = lose.job};
	do
		assert_int_equal(SAN_CALL(fx, san_device_lose_step, &step), 0);
	while (!step.finished);
	get.id = lose.job;
	assert_int_equal(SAN_CALL(fx, san_job_get, &get), 0);
	assert_int_equal(get.job.state, SAN_JOB_FAILED);
	assert_int_equal(get.job.done_n, 1000 - SCHEMA_MAP_CHUNKS);
	assert_int_equal(san_device_get(fx->san, a, &d), 0);
	assert_int_equal(d.used_n, SCHEMA_MAP_CHUNKS);
	change.value = (struct metastore_bytes){good.bytes, good.len};
	assert_int_equal(store_commit(&fx->st, NULL, 0, &change, 1, NULL), 0);
	assert_int_equal(SAN_CALL(fx, san_device_lose, &lose), 0);
	assert_int_not_equal(lose.job, get.id);
	fx_run_job(fx, lose.job);
	assert_int_equal(san_device_get(fx->san, a, &d), -ENOENT);
	fx_check(fx);
}

/* A deletion fails at a page that cannot be read. The name is free; asked for again by that name, it goes on when the page is mended. */
static void test_delete_again(void **state)
{
	struct san_fixture *fx = *state;
	device_no a = fx_device(fx, 3000);
	struct san_volume v = fx_volume(fx, "a", 4000);
	uint64_t epoch = fx_open(fx, "a");
	struct schema_key k = schema_key_map(v.head, 1);
	struct metastore_change change = {schema_key_bytes(&k), {"junk", 4}};
	struct san_volume_close close = {.volume = v.id, .epoch = epoch};
	struct san_volume_delete del = {.name = "a"};
	struct san_job_update failed;
	struct san_job_step step;
	struct san_raw_value good;
	char errmsg[ERRMSG_LEN];
	uint32_t first;
	int r;

	assert_int_equal(fx_alloc(fx, &v, epoch, 0, 1000, NULL), 0);
	assert_int_equal(SAN_CALL(fx, san_volume_close, &close), 0);
	san_raw_get(&fx->st, &k, &good);
	san_fixture_kill(fx);
	assert_int_equal(store_commit(&fx->st, NULL, 0, &change, 1, NULL), 0);
	assert_int_equal(san_fixture_open(fx, errmsg), 0);
	assert_int_equal(SAN_CALL(fx, san_volume_delete, &del), 0);
	first = del.job;
	step = (struct san_job_step){.job = first};
	do
		r = SAN_CALL(fx, san_volume_delete_step, &step);
	while (r == 0 && !step.finished);
	assert_int_equal(r, -E_FORMAT);
	/* as long as somebody is at it, the name is nobody's */
	assert_int_equal(SAN_CALL(fx, san_volume_delete, &del), -ENOENT);
	failed = (struct san_job_update){
	    .job = {.id = first, .state = SAN_JOB_FAILED, .error = -E_FORMAT}};
	assert_int_equal(SAN_CALL(fx, san_job_update, &failed), 0);
	assert_int_equal(SAN_CALL(fx, san_volume_delete, &del), 0);
	assert_int_not_equal(del.job, first);
	change.value = (struct metastore_bytes){good.bytes, good.len};
	assert_int_equal(store_commit(&fx->st, NULL, 0, &change, 1, NULL), 0);
	fx_run_job(fx, del.job);
	assert_int_equal(fx_free_all(fx, a), 1000);
	assert_int_equal(SAN_CALL(fx, san_volume_delete, &del), -ENOENT);
	fx_check(fx);
}

/* A key in the map's table that is none: the deletion does not look for ever. */
static void test_delete_at_an_unreadable_key(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume v = fx_volume(fx, "a", 1000);
	struct schema_key k = schema_key_map(v.head, 1);
	struct metastore_change change = {schema_key_bytes(&k), {"junk", 4}};
	struct san_volume_delete del = {.name = "a"};
	struct san_job_step step;

	change.key.len--;
	assert_int_equal(store_commit(&fx->st, NULL, 0, &change, 1, NULL), 0);
	assert_int_equal(SAN_CALL(fx, san_volume_delete, &del), 0);
	step = (struct san_job_step){.job = del.job};
	assert_int_equal(SAN_CALL(fx, san_volume_delete_step, &step), -E_FORMAT);
	assert_int_equal(SAN_CALL(fx, san_device_lose_step, &step),
			 -ENOENT); /* it is none of those */
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(test_alloc_is_idempotent),
	    T(test_alloc_refusals),
	    T(test_alloc_race),
	    T(test_allocations_share_commits),
	    T(test_scattered_alloc),
	    T(test_no_space),
	    T(test_no_space_race),
	    T(test_spread_by_free_space),
	    T(test_reserved),
	    T(test_update),
	    T(test_lookup_range),
	    T(test_small_cache),
	    T(test_walk),
	    T(test_chain),
	    T(test_device_add_grow_remove),
	    T(test_device_lost),
	    T(test_slots_are_found_all_round),
	    T(test_device_lost_far_apart),
	    T(test_device_lost_without_an_intent),
	    T(test_device_lost_again),
	    T(test_delete_again),
	    T(test_delete_at_an_unreadable_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
