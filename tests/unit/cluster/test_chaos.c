/* SPDX-License-Identifier: Apache-2.0 */
/* Anybody is killed at any moment while volumes are opened, mapped, written, unmapped and closed. Then everybody comes back, and
 *   - everything that was asked by a process that lives is answered;
 *   - no two processes ever owned a volume at the same epoch, and epochs only grew;
 *   - what the devices hold is what the map says, and the space that is used is that of the mapped chunks.
 *
 *   STRATA_SEED=n    this seed alone      STRATA_SEEDS=n   that many      STRATA_SEED_FIRST=n   from this one on */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/mem.h"
#include "src/base/rand.h"
#include "tests/lib/cluster/cluster_world.h"
#include "tests/lib/env.h"

enum { MIB = 1 << 20, VOLUMES = 3, CHUNKS = 24, STEPS = 300, OWNERS = 4096, SEEDS_OF_A_CHECK = 40 };
#define MS ((uint64_t)1000000)

static struct cworld w;
static struct rand rng;

/* One volume as one node sees it. */
struct view {
	struct cworld_call *call; /* NULL: none under way */
	enum { IDLE, OPENING, OPEN, ALLOCATING, UNMAPPING, CLOSING } state;
	struct cworld_call *opened, *mapped;
	uint32_t mapped_n;
};
static struct view views[CWORLD_NODES_MAX + 1][VOLUMES];
static uint32_t incarnation[CWORLD_NODES_MAX + 1];
static struct {
	uint64_t epoch;
	int node;
	uint32_t incarnation;
} owners[VOLUMES][OWNERS];
static uint32_t owners_n[VOLUMES];

static const char *const names[VOLUMES] = {"a", "b", "c"};

static void note_owner(int v, int node, uint64_t epoch)
{
	for (uint32_t i = 0; i < owners_n[v]; i++) {
		if (owners[v][i].epoch == epoch) {
			assert_int_equal(owners[v][i].node, node);
			assert_int_equal(owners[v][i].incarnation, incarnation[node]);
			return;
		}
	}
	assert_true(owners_n[v] < OWNERS);
	if (owners_n[v])
		assert_true(epoch > owners[v][owners_n[v] - 1].epoch);
	owners[v][owners_n[v]].epoch = epoch;
	owners[v][owners_n[v]].node = node;
	owners[v][owners_n[v]].incarnation = incarnation[node];
	owners_n[v]++;
}

static void reap(int k, int v)
{
	struct view *s = &views[k][v];

	if (!s->call || !s->call->done)
		return;
	switch (s->state) {
	case OPENING:
		s->state = IDLE;
		if (s->call->open.req.status == 0) {
			note_owner(v, k, s->call->open.epoch);
			s->opened = s->call;
			s->state = OPEN;
		} else {
			assert_int_equal(s->call->open.req.status, -E_NOT_OWNER);
		}
		break;
	case ALLOCATING:
		assert_int_equal(s->call->alloc.req.status, 0);
		s->mapped = s->call;
		s->mapped_n = s->call->alloc.n;
		s->state = OPEN;
		break;
	case UNMAPPING:
		assert_int_equal(s->call->update.req.status, 0);
		s->mapped = NULL;
		s->state = OPEN;
		break;
	case CLOSING:
		assert_int_equal(s->call->close.req.status, 0);
		s->state = IDLE;
		break;
	case IDLE:
	case OPEN:
		fail();
	}
	s->call = NULL;
}

static void act(int k, int v)
{
	struct view *s = &views[k][v];
	struct cworld_call *c;

	reap(k, v);
	if (s->call)
		return;
	if (s->state == IDLE) {
		s->call = cworld_call_new();
		s->state = OPENING;
		s->mapped = NULL;
		cworld_open_begin(&w, k, names[v], s->call);
		return;
	}
	switch (rand_below(&rng, 4)) {
	case 0:
	case 1:
		s->call = cworld_call_new();
		s->state = ALLOCATING;
		cworld_alloc_begin(&w, k, s->opened, (uint32_t)rand_below(&rng, CHUNKS),
				   (uint32_t)rand_between(&rng, 1, 8), s->call);
		break;
	case 2:
		if (!s->mapped)
			break;
		s->call = c = s->mapped;
		s->state = UNMAPPING;
		cworld_unmap_begin(&w, k, s->opened, c, s->mapped_n);
		break;
	default:
		s->call = s->opened;
		s->state = CLOSING;
		cworld_close_begin(&w, k, s->call);
	}
}

static void node_dies(int k)
{
	cworld_node_kill(&w, k);
	memset(views[k], 0, sizeof(views[k]));
}

static void node_comes(int k)
{
	incarnation[k]++;
	cworld_node_begin(&w, k);
}

/* Every device slot that is open is used, for the map; and used space is that of the volumes. */
static void check_space(void)
{
	json_t *status, *volumes;
	int64_t used = 0;

	assert_int_equal(cworld_admin(&w, ADMIN_STATUS, NULL, NULL, &status), 200);
	assert_string_equal(cworld_text(status, "health"), "ok");
	assert_int_equal(cworld_admin(&w, ADMIN_VOLUME_LIST, NULL, NULL, &volumes), 200);
	for (int v = 0; v < VOLUMES; v++) {
		char path[32];

		snprintf(path, sizeof(path), "items.%d.used_bytes", v);
		used += cworld_int(volumes, path);
	}
	assert_int_equal(cworld_int(status, "used_bytes"), used);
	json_decref(status);
	json_decref(volumes);
	for (int k = 1; k <= CWORLD_NODES_MAX; k++) {
		for (int disk = 1; disk <= 2; disk++) {
			char path[32];
			struct mock_medium *m;

			snprintf(path, sizeof(path), "/n%d-disk%d", k, disk);
			m = mock_medium(path);
			for (uint32_t i = 0; i < MOCK_SLOTS; i++) {
				enum san_slot_state state;

				if (m->slots[i].state != DEVICE_SLOT_OPEN)
					continue;
				assert_int_equal(san_slot_state(w.metad->san, m->number, i, &state),
						 0);
				assert_int_equal(state, SAN_SLOT_USED);
			}
		}
	}
}

static void run_one(uint64_t seed)
{
	bool quiet;

	rand_seed(&rng, seed);
	memset(views, 0, sizeof(views));
	memset(incarnation, 0, sizeof(incarnation));
	memset(owners_n, 0, sizeof(owners_n));
	cworld_init(&w, seed);
	cworld_metad_start(&w);
	for (int k = 1; k <= CWORLD_NODES_MAX; k++) {
		cworld_node_start(&w, k);
		cworld_device_add(&w, k, 1);
		cworld_device_add(&w, k, 2);
	}
	for (int v = 0; v < VOLUMES; v++)
		cworld_volume_create(&w, names[v], (CHUNKS + 8) * (uint64_t)MIB);
	for (int i = 0; i < STEPS; i++) {
		int k = (int)rand_between(&rng, 1, CWORLD_NODES_MAX);
		int v = (int)rand_below(&rng, VOLUMES);

		if (w.nodes[k].e)
			act(k, v);
		if (rand_percent(&rng, 3) && w.nodes[k].e)
			node_dies(k);
		else if (!w.nodes[k].e && rand_percent(&rng, 30))
			node_comes(k);
		if (rand_percent(&rng, 3) && w.metad_e)
			cworld_metad_kill(&w);
		else if (!w.metad_e && rand_percent(&rng, 30))
			cworld_metad_begin(&w);
		cworld_run(&w, rand_below(&rng, 20 * MS));
	}
	if (!w.metad_e)
		cworld_metad_begin(&w);
	for (int k = 1; k <= CWORLD_NODES_MAX; k++)
		if (!w.nodes[k].e)
			node_comes(k);
	do {
		uint64_t end = sim_now_ns(w.sim) + 60 * SEC;

		quiet = true;
		for (int k = 1; k <= CWORLD_NODES_MAX; k++) {
			for (int v = 0; v < VOLUMES; v++) {
				while (views[k][v].call && !views[k][v].call->done) {
					if (sim_now_ns(w.sim) > end)
						fail_msg("never answered, seed %llu",
							 (unsigned long long)seed);
					sim_step(w.sim);
				}
				reap(k, v);
				quiet = quiet && !views[k][v].call;
			}
		}
	} while (!quiet);
	cworld_run(&w, 10 * SEC);
	check_space();
	cworld_free(&w);
}

static void everything_holds_whoever_dies(void **state)
{
	uint64_t only = env_number("STRATA_SEED", 0);
	uint64_t first = only ? only : env_number("STRATA_SEED_FIRST", 1);
	uint64_t n = only ? 1 : env_number("STRATA_SEEDS", SEEDS_OF_A_CHECK);

	(void)state;
	for (uint64_t i = first; i < first + n; i++) {
		print_message("seed %llu\n", (unsigned long long)i);
		run_one(i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(everything_holds_whoever_dies)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
