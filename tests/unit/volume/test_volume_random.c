/* SPDX-License-Identifier: Apache-2.0 */
/* test_volume_random.c - random requests from several handles against a model of every sector, with a store and a metadata
 * server that delay, fail, go away, lose power and run full. One seed is one run, event for event:
 *
 *   STRATA_SEED=7 build/plain/tests/unit/volume/test_volume_random        that seed only
 *   STRATA_SEEDS=500 ...                                                  so many, from 1, or STRATA_SEED_FIRST
 *
 * A run is rounds: flush; random requests in flight together; wait; read everything back. What a sector may hold follows from
 * the requests that overlap it, in the order of their submission: the last one that succeeded, or a later one that failed.
 * After a loss of power likewise, but only a request that was made stable (by FUA, or by a FLUSH that came after its answer)
 * ends the list. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/log.h"
#include "src/base/math.h"
#include "src/base/mem.h"
#include "tests/lib/env.h"
#include "tests/lib/volume_fixture.h"

enum {
	CHUNK = 1 << CHUNK_SHIFT_FLASH,
	SIZE = 8 * CHUNK + 17 * BLOCK_BYTES,
	SECTORS = SIZE / SECTOR_BYTES,
	HANDLES = 3,
	SEEDS_OF_A_CHECK = 40,
	OPS_MAX = 64, /* in a round */
};

struct random_op {
	struct vf_io io;
	uint32_t id;		      /* what sectors hold afterwards */
	bool changes;		      /* WRITE, WRITE_ZEROES, DISCARD */
	bool maybe;		      /* may leave things as they are though it succeeds */
	bool stable;		      /* made stable */
	bool closed_over;	      /* its handle is being closed */
	uint64_t first, end;	      /* sectors it changes */
	uint64_t submitted, answered; /* moments; 0: not yet */
};

struct run {
	struct volume_fixture fx;
	struct rand rand;
	bool faults, stale, meta_faults, shortage, layered, power, away, wt, takes_back;
	uint64_t sequential; /* where the sequential writer is */
	uint64_t moment;
	uint32_t id_last;
	struct volume_handle *h[HANDLES];
	uint32_t stable[SECTORS]; /* ids as of the last good flush with nothing in flight */
	uint32_t base[SECTORS];	  /* ids at the beginning of the round */
	struct random_op ops[OPS_MAX];
	uint32_t ops_n;
	uint32_t in_flight;
};

/* ---- the model -------------------------------------------------------------------------------------------------------- */

static bool overlaps(const struct random_op *op, uint64_t sector)
{
	return op->changes && op->first <= sector && sector < op->end;
}

/* Could the sector hold `id`, seen by somebody who was submitted when the first `n` requests had been? */
static bool may_hold(const struct run *t, uint64_t sector, uint32_t id, uint32_t n,
		     bool after_power_loss)
{
	for (uint32_t i = n; i-- > 0;) {
		const struct random_op *op = &t->ops[i];

		if (!overlaps(op, sector))
			continue;
		if (!op->answered)
			fail_msg("request %u at %llu overtakes an earlier one", n,
				 (unsigned long long)sector);
		if (op->id == id)
			return true;
		if (op->io.r.status == 0 && !op->maybe && (!after_power_loss || op->stable))
			return false;
	}
	return (after_power_loss ? t->stable : t->base)[sector] == id;
}

static void check_read(const struct run *t, const struct vf_io *io, uint32_t n)
{
	for (uint64_t at = 0; at < io->r.len; at += SECTOR_BYTES) {
		uint32_t id = vf_pattern_id((const uint8_t *)io->r.buf + at, io->r.off + at);

		if (!may_hold(t, (io->r.off + at) / SECTOR_BYTES, id, n, false))
			fail_msg("sector %llu holds %u",
				 (unsigned long long)(io->r.off + at) / SECTOR_BYTES, id);
	}
}

static void check_status(const struct run *t, const struct vf_io *io, uint32_t n)
{
	uint64_t off = io->r.off;

	assert_true(io->r.extents_n >= 1);
	for (uint32_t i = 0; i < io->r.extents_n; i++) {
		const struct volume_extent *e = &io->r.extents[i];

		assert_true(e->len_bytes > 0 && e->len_bytes % SECTOR_BYTES == 0);
		assert_true(i == 0 || e->flags != io->r.extents[i - 1].flags);
		for (uint64_t at = off; e->flags & VOLUME_EXTENT_ZERO && at < off + e->len_bytes;
		     at += SECTOR_BYTES)
			assert_true(may_hold(t, at / SECTOR_BYTES, 0, n, false));
		off += e->len_bytes;
	}
	assert_true(off <= io->r.off + io->r.len);
	assert_true(io->r.extents_n == 1 || !(io->r.flags & VOLUME_F_ONE_EXTENT));
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

static void check_error(const struct run *t, const struct random_op *op)
{
	switch (op->io.r.status) {
	case -EIO:
		assert_true(t->faults || t->stale);
		break;
	case -E_META_AWAY:
		assert_true(t->meta_faults);
		break;
	case -ENOSPC:
		assert_true(t->shortage && op->changes);
		break;
	case -EOPNOTSUPP:
		assert_true(op->io.r.flags & VOLUME_F_FAST_ZERO);
		break;
	default:
		fail_msg("op %u: %s", op->io.r.op, err_name(op->io.r.status));
	}
}

static struct run *the_run; /* callbacks of requests have no argument */

static void op_done(struct volume_req *r)
{
	struct random_op *op = container_of(r, struct random_op, io.r);
	struct run *t = the_run;
	uint32_t n = (uint32_t)(op - t->ops);

	assert_int_equal(op->answered, 0);
	op->answered = ++t->moment;
	t->in_flight--;
	if (r->status) {
		check_error(t, op);
		if (r->status == -EOPNOTSUPP)
			op->changes = false;
		return;
	}
	op->stable = r->flags & VOLUME_F_FUA || t->wt;
	if (r->op == VOLUME_READ)
		check_read(t, &op->io, n);
	if (r->op == VOLUME_STATUS)
		check_status(t, &op->io, n);
	for (uint32_t i = 0; r->op == VOLUME_FLUSH && i < n; i++)
		if (t->ops[i].answered && t->ops[i].answered < op->submitted)
			t->ops[i].stable = true;
}

static void random_range(struct run *t, uint64_t *ret_off, uint64_t *ret_len)
{
	uint64_t len_max, unit = rand_percent(&t->rand, 60) ? BLOCK_BYTES : SECTOR_BYTES;

	switch (rand_below(&t->rand, 8)) {
	case 0:
		len_max = 2 * CHUNK;
		break;
	case 1:
	case 2:
		len_max = 64 * BLOCK_BYTES;
		break;
	default:
		len_max = 4 * BLOCK_BYTES;
		break;
	}
	*ret_off = round_down(rand_below(&t->rand, SIZE), unit);
	if (rand_percent(&t->rand, 30)) /* crowd together, so that they overlap */
		*ret_off = round_down(rand_below(&t->rand, 16 * BLOCK_BYTES), unit);
	if (rand_percent(&t->rand, 10))
		*ret_off = round_down(*ret_off, CHUNK);
	*ret_len = round_up(rand_between(&t->rand, 1, len_max), unit);
	if (rand_percent(&t->rand, 10))
		*ret_len = CHUNK;
	*ret_len = MIN(*ret_len, SIZE - *ret_off);
}

static void op_submit(struct run *t, enum volume_op kind, uint64_t off, uint64_t len, uint32_t flags)
{
	struct random_op *op = &t->ops[t->ops_n++];

	memset(op, 0, sizeof(*op));
	op->submitted = ++t->moment;
	op->changes = kind == VOLUME_WRITE || kind == VOLUME_WRITE_ZEROES || kind == VOLUME_DISCARD;
	op->id = kind == VOLUME_WRITE ? ++t->id_last : 0;
	op->maybe = kind == VOLUME_DISCARD && t->layered;
	op->first = off / SECTOR_BYTES;
	op->end = (off + len) / SECTOR_BYTES;
	if (kind == VOLUME_DISCARD) {
		op->first = round_up(off, BLOCK_BYTES) / SECTOR_BYTES;
		op->end = round_down(off + len, BLOCK_BYTES) / SECTOR_BYTES;
	}
	t->in_flight++;
	vf_io_prepare(&op->io, kind, off, len, flags, op->id);
	op->io.r.done = op_done;
	volume_submit(t->h[rand_below(&t->rand, HANDLES)], &op->io.r);
	assert_int_equal(op->answered, 0);
}

static void op_random(struct run *t)
{
	uint64_t off, len, pick = rand_below(&t->rand, 100);
	uint32_t fua = rand_percent(&t->rand, 10) ? VOLUME_F_FUA : 0;

	random_range(t, &off, &len);
	if (pick < 12) {
		len = MIN((uint64_t)CHUNK / 2, SIZE - t->sequential);
		op_submit(t, VOLUME_WRITE, t->sequential, len, fua);
		t->sequential = (t->sequential + len) % SIZE;
	} else if (pick < 40) {
		op_submit(t, VOLUME_WRITE, off, len, fua);
	} else if (pick < 65) {
		op_submit(t, VOLUME_READ, off, len, 0);
	} else if (pick < 75) {
		uint32_t no_hole = rand_percent(&t->rand, 20) ? VOLUME_F_NO_HOLE : 0;
		uint32_t fast = rand_percent(&t->rand, 20) ? VOLUME_F_FAST_ZERO : 0;

		op_submit(t, VOLUME_WRITE_ZEROES, off, len, fua | no_hole | fast);
	} else if (pick < 85) {
		op_submit(t, VOLUME_DISCARD, off, len, fua);
	} else if (pick < 92) {
		op_submit(t, VOLUME_STATUS, off, len,
			  rand_percent(&t->rand, 20) ? VOLUME_F_ONE_EXTENT : 0);
	} else {
		op_submit(t, VOLUME_FLUSH, 0, 0, 0);
	}
}

/* ---- a round ---------------------------------------------------------------------------------------------------------- */

static void closed(void *arg)
{
	*(bool *)arg = true;
}

static void handle_swap(struct run *t)
{
	uint32_t i = (uint32_t)rand_below(&t->rand, HANDLES);
	struct vf_open o = {.op = {.name = "vol"}};
	bool is_closed = false;

	volume_close(t->h[i], closed, &is_closed); /* its requests in flight end first */
	vf_open_start(&t->fx, &o);
	sim_run_until(t->fx.sim.w, &o.is_done);
	assert_int_equal(o.op.status, 0);
	t->h[i] = o.op.handle;
	sim_run_until(t->fx.sim.w, &is_closed);
}

static void faults_set(struct run *t, bool on)
{
	t->fx.store.fail_permille = on && t->faults ? 20 : 0;
	t->fx.store.stale_permille = on && t->stale ? 20 : 0;
	t->fx.meta.fail_permille = on && t->meta_faults ? 50 : 0;
	for (device_no d = 1; d <= VF_DEVICES && !on; d++)
		mock_store_away(&t->fx.store, d, false);
	if (!on)
		mock_meta_away(&t->fx.meta, false);
}

static void mishap(struct run *t)
{
	device_no d = (device_no)rand_between(&t->rand, 1, VF_DEVICES);

	if (t->takes_back && rand_percent(&t->rand, 50))
		mock_meta_take_back(&t->fx.meta, t->fx.vol);
	if (!t->away)
		return;
	if (rand_percent(&t->rand, 50))
		mock_store_away(&t->fx.store, d, rand_percent(&t->rand, 50));
	else
		mock_meta_away(&t->fx.meta, rand_percent(&t->rand, 50));
}

static bool all_answered(struct run *t)
{
	return t->in_flight == 0;
}

static void wait_all(struct run *t)
{
	uint64_t end_ns = sim_now_ns(t->fx.sim.w) + 100 * 1000000000ULL;

	faults_set(t, false);
	while (!all_answered(t)) {
		if (!sim_step(t->fx.sim.w))
			fail_msg("the world came to rest with %u requests in flight", t->in_flight);
		assert_true(sim_now_ns(t->fx.sim.w) < end_ns);
	}
}

/* Reads everything and takes over what is there. */
static void read_all(struct run *t, bool after_power_loss)
{
	for (uint64_t off = 0; off < SIZE; off += CHUNK) {
		struct vf_io io;
		uint64_t len = MIN((uint64_t)CHUNK, SIZE - off);

		vf_io_start(&t->fx, t->h[0], &io, VOLUME_READ, off, len, 0, 0);
		assert_int_equal(vf_io_wait(&t->fx, &io), 0);
		for (uint64_t at = 0; at < len; at += SECTOR_BYTES) {
			uint64_t sector = (off + at) / SECTOR_BYTES;
			uint32_t id = vf_pattern_id((const uint8_t *)io.r.buf + at, off + at);

			if (!may_hold(t, sector, id, t->ops_n, after_power_loss))
				fail_msg("sector %llu holds %u, base %u, stable %u",
					 (unsigned long long)sector, id, t->base[sector],
					 t->stable[sector]);
			t->base[sector] = id; /* seen by nobody else before the round ends */
		}
		vf_io_end(&io);
	}
}

static void power_loss(struct run *t)
{
	uint32_t before[SECTORS];
	int status;

	memcpy(before, t->base, sizeof(before));
	mock_store_power_loss(&t->fx.store, (device_no)rand_between(&t->rand, 1, VF_DEVICES));
	read_all(t, true);
	status = vf_flush(&t->fx, t->h[rand_below(&t->rand, HANDLES)]);
	assert_true(status == 0 || status == -E_UNFLUSHED_LOST);
	if (memcmp(before, t->base, sizeof(before)))
		assert_int_equal(status, -E_UNFLUSHED_LOST);
	for (int i = 0; i < HANDLES;
	     i++) { /* each is told, if at all, once, and only if somebody was */
		int told = vf_flush(&t->fx, t->h[i]);

		assert_true(told == 0 || (told == -E_UNFLUSHED_LOST && status == told));
		assert_int_equal(vf_flush(&t->fx, t->h[i]), 0);
	}
}

static void reopen(struct run *t)
{
	bool is_closed[HANDLES] = {false};

	for (int i = 0; i < HANDLES; i++)
		volume_close(t->h[i], closed, &is_closed[i]);
	for (int i = 0; i < HANDLES; i++)
		sim_run_until(t->fx.sim.w, &is_closed[i]);
	if (rand_percent(&t->rand, 50))
		sim_sleep(&t->fx.sim, rand_below(&t->rand, 3000000));
	for (int i = 0; i < HANDLES; i++) {
		struct vf_open o = {.op = {.name = "vol"}};

		vf_open_start(&t->fx, &o);
		sim_run_until(t->fx.sim.w, &o.is_done);
		assert_int_equal(o.op.status, 0);
		t->h[i] = o.op.handle;
	}
}

static void play_round(struct run *t)
{
	uint32_t n = (uint32_t)rand_between(&t->rand, 1, OPS_MAX),
		 depth = 1 + (uint32_t)rand_below(&t->rand, 32);

	assert_int_equal(vf_flush(&t->fx, t->h[0]), 0);
	memcpy(t->stable, t->base, sizeof(t->stable));
	t->ops_n = 0;
	faults_set(t, true);
	while (t->ops_n < n) {
		if (t->in_flight < depth)
			op_random(t);
		if (t->in_flight >= depth || rand_percent(&t->rand, 30))
			if (!sim_step(t->fx.sim.w))
				faults_set(t, false); /* all wait for somebody who is away */
		if (rand_percent(&t->rand, 3))
			mishap(t);
		if (rand_percent(&t->rand, 1) && !t->away)
			handle_swap(t);
	}
	wait_all(t);
	read_all(t, false);
	if (t->power && rand_percent(&t->rand, 40))
		power_loss(t);
	for (uint32_t i = 0; i < t->ops_n; i++)
		vf_io_end(&t->ops[i].io);
	t->ops_n = 0;
	if (rand_percent(&t->rand, 20))
		reopen(t);
}

/* ---- a run ------------------------------------------------------------------------------------------------------------ */

static void build_layers(struct run *t)
{
	uint32_t n = (uint32_t)rand_between(&t->rand, 1, 3);

	for (uint32_t i = 0; i < n; i++) {
		struct volume_handle *h = vf_open(&t->fx, "vol");

		for (int k = 0; k < 20; k++) {
			uint64_t off, len;

			random_range(t, &off, &len);
			t->id_last++;
			assert_int_equal(vf_write(&t->fx, h, off, len, t->id_last), 0);
			for (uint64_t s = off / SECTOR_BYTES; s < (off + len) / SECTOR_BYTES; s++)
				t->base[s] = t->id_last;
		}
		vf_close(&t->fx, h);
		while (t->fx.vol->owned)
			assert_true(sim_step(t->fx.sim.w));
		mock_meta_snapshot(&t->fx.meta, t->fx.vol);
	}
}

/* Discarding all of it gives all the space back, and the volume goes on. */
static void give_back(struct run *t)
{
	sim_sleep(&t->fx.sim, 60 * 1000000000ULL);
	assert_int_equal(vf_do(&t->fx, t->h[0], VOLUME_DISCARD, 0, SIZE, 0), 0);
	sim_sleep(&t->fx.sim, 60 * 1000000000ULL);
	assert_int_equal(mock_meta_mapped(&t->fx.meta, 0), 0);
	assert_int_equal(vf_write(&t->fx, t->h[1], 0, SIZE, 1), t->shortage ? -ENOSPC : 0);
	assert_int_equal(vf_write(&t->fx, t->h[1], CHUNK, CHUNK, 1), 0);
}

static void play(uint64_t seed)
{
	struct run *t = mem_zalloc(sizeof(*t));
	struct volume_fixture_config cfg = {.seed = seed, .size_bytes = SIZE};
	bool no_holes_kept;

	assert_non_null(t);
	the_run = t;
	rand_seed(&t->rand, seed);
	t->faults = rand_percent(&t->rand, 40);
	t->stale = rand_percent(&t->rand, 30);
	t->meta_faults = rand_percent(&t->rand, 30);
	t->layered = rand_percent(&t->rand, 40);
	t->shortage = !t->layered && rand_percent(&t->rand, 30);
	t->power = rand_percent(&t->rand, 30);
	t->away = rand_percent(&t->rand, 30);
	t->takes_back = rand_percent(&t->rand, 30);
	if (t->shortage)
		cfg.slots_n = (uint32_t)rand_between(&t->rand, 1, 2);
	if (rand_percent(&t->rand, 50)) {
		cfg.limits.pieces_per_volume = 1 + (uint32_t)rand_below(&t->rand, 4);
		cfg.limits.pieces_shared = 1 + (uint32_t)rand_below(&t->rand, 4);
		cfg.limits.scratch_per_volume = 1;
		cfg.limits.scratch_shared = 1 + (uint32_t)rand_below(&t->rand, 2);
		cfg.limits.map_cache_bytes = 1;
	}
	if (rand_percent(&t->rand, 30))
		cfg.limits.reclaim_delay_ns = 1000;
	volume_fixture_init(&t->fx, &cfg);
	if (rand_percent(&t->rand, 30))
		t->fx.meta.items_max = 1 + (uint32_t)rand_below(&t->rand, 12);
	if (t->fx.meta.items_max && t->fx.meta.items_max < 4)
		t->fx.meta.items_max = 4; /* the deepest stack here */
	t->wt = rand_percent(&t->rand, 20);
	t->fx.vol->write_cache = t->wt ? META_CACHE_WRITETHROUGH : META_CACHE_AUTO;
	if (t->layered)
		build_layers(t);
	for (int i = 0; i < HANDLES; i++) {
		struct vf_open o = {.op = {.name = "vol"}};

		vf_open_start(&t->fx, &o);
		sim_run_until(t->fx.sim.w, &o.is_done);
		assert_int_equal(o.op.status, 0);
		t->h[i] = o.op.handle;
	}
	for (int i = 0; i < 6; i++)
		play_round(t);
	no_holes_kept = !t->layered;
	if (no_holes_kept)
		give_back(t);
	for (int i = 0; i < HANDLES; i++)
		vf_close(&t->fx, t->h[i]);
	volume_fixture_free(&t->fx);
	mem_free(t);
}

static void random_runs(void **state)
{
	uint64_t only = env_number("STRATA_SEED", 0);
	uint64_t first = only ? only : env_number("STRATA_SEED_FIRST", 1);
	uint64_t n = only ? 1 : env_number("STRATA_SEEDS", SEEDS_OF_A_CHECK);

	(void)state;
	for (uint64_t seed = first; seed < first + n; seed++) {
		fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
		play(seed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(random_runs),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
