/* SPDX-License-Identifier: Apache-2.0 */
/* A server that dies at any moment loses nothing it answered and leaks nothing.
 *
 * A scenario: writers allocate and unmap in ranges of their own, somebody frees slots, volumes come and go, a device is lost. It is run from the start
 * again and again and killed one event later each time, so every commit is cut before it took effect, between its effect and its answer, and after.
 * Then the bare database is checked by other code than the product's, the SAN is opened, and everything that was answered must be so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "src/base/mem.h"
#include "src/base/rand.h"
#include "tests/lib/san_fixture.h"
#include "tests/lib/san_raw.h"

enum { DEVICES = 3, SLOTS = 50, WRITERS = 3, RANGE = 300, TOUCH_MAX = 6, ROUNDS = 16 };

struct scenario;

struct writer {
	struct scenario *sc;
	uint32_t first; /* of its range */
	uint32_t left;	/* rounds to do */
	struct map_entry model[RANGE];
	/* the request in flight */
	bool allocating, updating;
	struct san_alloc alloc;
	struct san_update update;
	uint32_t chunks[TOUCH_MAX];
	struct san_map_item items[TOUCH_MAX];
	struct san_update_item u[TOUCH_MAX];
};

struct freer {
	struct scenario *sc;
	device_no dev;
	struct san_frees_pull pull;
	struct san_frees_done done;
	struct san_free frees[8];
	uint32_t idle;
};

/* Creates a volume, fills it, deletes it. */
struct temporary {
	struct scenario *sc;
	struct san_volume_create create;
	struct san_volume_open open;
	struct san_alloc alloc;
	struct san_volume_close close;
	struct san_volume_delete del;
	struct san_job_step step;
	uint32_t chunks[20];
	struct san_map_item items[20];
	bool deleted; /* answered */
};

struct scenario {
	struct san_fixture fx;
	struct rand rnd;
	struct san_volume v;
	uint64_t epoch;
	struct writer writers[WRITERS];
	struct freer freers[DEVICES];
	struct temporary temp;
	struct san_device_lose lose;
	struct san_job_step lose_step;
	bool lost;
	uint32_t busy; /* actors that are not through */
};

/* ---- writers ---------------------------------------------------------------------------------------------------------------- */

static void writer_next(struct writer *w);

static void alloc_done(struct san_req *r)
{
	struct writer *w = container_of(r, struct writer, alloc.req);

	w->allocating = false;
	if (r->status == 0)
		for (uint32_t i = 0; i < w->alloc.n; i++)
			w->model[w->items[i].chunk - w->first] = w->items[i].entry;
	else if (r->status != -ENOSPC)
		check_unreachable("alloc");
	writer_next(w);
}

static void update_done(struct san_req *r)
{
	struct writer *w = container_of(r, struct writer, update.req);

	w->updating = false;
	check(r->status == 0);
	for (uint32_t i = 0; i < w->update.n; i++)
		w->model[w->u[i].chunk - w->first].kind = MAP_UNMAPPED;
	writer_next(w);
}

static void writer_alloc(struct writer *w)
{
	struct rand *rnd = &w->sc->rnd;
	uint32_t n = (uint32_t)rand_between(rnd, 1, TOUCH_MAX);

	for (uint32_t i = 0; i < n; i++)
		w->chunks[i] = w->first + (uint32_t)rand_below(rnd, RANGE);
	w->alloc = (struct san_alloc){.req.done = alloc_done,
				      .volume = w->sc->v.id,
				      .epoch = w->sc->epoch,
				      .layer = w->sc->v.head,
				      .chunks = w->chunks,
				      .n = n,
				      .items = w->items};
	w->allocating = true;
	san_alloc(w->sc->fx.san, &w->alloc);
}

static bool writer_unmap(struct writer *w)
{
	struct rand *rnd = &w->sc->rnd;
	uint32_t n = 0, at = (uint32_t)rand_below(rnd, RANGE);

	for (uint32_t i = 0; i < RANGE && n < TOUCH_MAX; i++) {
		const struct map_entry *e = &w->model[(at + i) % RANGE];

		if (e->kind == MAP_OPEN)
			w->u[n++] = (struct san_update_item){w->first + (at + i) % RANGE, SAN_UNMAP,
							     e->replicas[0].cgen};
	}
	if (n == 0)
		return false;
	w->update = (struct san_update){.req.done = update_done,
					.volume = w->sc->v.id,
					.epoch = w->sc->epoch,
					.layer = w->sc->v.head,
					.items = w->u,
					.n = n};
	w->updating = true;
	san_update(w->sc->fx.san, &w->update);
	return true;
}

static void writer_next(struct writer *w)
{
	if (w->left == 0) {
		w->sc->busy--;
		return;
	}
	w->left--;
	if (!rand_percent(&w->sc->rnd, 40) || !writer_unmap(w))
		writer_alloc(w);
}

/* ---- freers ----------------------------------------------------------------------------------------------------------------- */

static void freer_next(struct freer *f);

static void frees_done(struct san_req *r)
{
	freer_next(container_of(r, struct freer, done.req));
}

static void frees_pulled(struct san_req *r)
{
	struct freer *f = container_of(r, struct freer, pull.req);

	if (f->pull.frees_n == 0) {
		if (f->idle-- == 0 || r->status) {
			f->sc->busy--;
			return;
		}
		freer_next(f);
		return;
	}
	f->done = (struct san_frees_done){.req.done = frees_done,
					  .dev = f->dev,
					  .frees = f->frees,
					  .n = f->pull.frees_n};
	san_frees_done(f->sc->fx.san, &f->done);
}

static void freer_next(struct freer *f)
{
	f->pull = (struct san_frees_pull){.req.done = frees_pulled,
					  .dev = f->dev,
					  .frees = f->frees,
					  .frees_max = 8};
	san_frees_pull(f->sc->fx.san, &f->pull);
}

/* ---- a volume that comes and goes --------------------------------------------------------------------------------------------- */

static void temp_opened(struct san_req *r);
static void temp_allocated(struct san_req *r);
static void temp_closed(struct san_req *r);
static void temp_deleted(struct san_req *r);
static void temp_stepped(struct san_req *r);

static void temp_created(struct san_req *r)
{
	struct temporary *t = container_of(r, struct temporary, create.req);

	check(r->status == 0);
	t->open = (struct san_volume_open){.req.done = temp_opened,
					   .name = "temp",
					   .node = 2,
					   .start = {{9}}};
	san_volume_open(t->sc->fx.san, &t->open);
}

static void temp_opened(struct san_req *r)
{
	struct temporary *t = container_of(r, struct temporary, open.req);

	check(r->status == 0);
	for (uint32_t i = 0; i < 20; i++)
		t->chunks[i] = i * 17;
	t->alloc = (struct san_alloc){.req.done = temp_allocated,
				      .volume = t->open.volume.id,
				      .epoch = t->open.volume.epoch,
				      .layer = t->open.volume.head,
				      .chunks = t->chunks,
				      .n = 20,
				      .items = t->items};
	san_alloc(t->sc->fx.san, &t->alloc);
}

static void temp_allocated(struct san_req *r)
{
	struct temporary *t = container_of(r, struct temporary, alloc.req);

	t->close = (struct san_volume_close){.req.done = temp_closed,
					     .volume = t->open.volume.id,
					     .epoch = t->open.volume.epoch};
	san_volume_close(t->sc->fx.san, &t->close);
}

static void temp_closed(struct san_req *r)
{
	struct temporary *t = container_of(r, struct temporary, close.req);

	t->del = (struct san_volume_delete){.req.done = temp_deleted, .name = "temp"};
	san_volume_delete(t->sc->fx.san, &t->del);
}

static void temp_deleted(struct san_req *r)
{
	struct temporary *t = container_of(r, struct temporary, del.req);

	check(r->status == 0);
	t->deleted = true;
	t->step = (struct san_job_step){.req.done = temp_stepped, .job = t->del.job};
	san_volume_delete_step(t->sc->fx.san, &t->step);
}

static void temp_stepped(struct san_req *r)
{
	struct temporary *t = container_of(r, struct temporary, step.req);

	check(r->status == 0);
	if (t->step.finished)
		t->sc->busy--;
	else
		san_volume_delete_step(t->sc->fx.san, &t->step);
}

static void temp_start(struct temporary *t)
{
	t->create = (struct san_volume_create){.req.done = temp_created,
					       .name = "temp",
					       .size_bytes = 1 << 30,
					       .sector_bytes = 512,
					       .chunk_shift = CHUNK_SHIFT_FLASH,
					       .pool = FIXTURE_POOL};
	san_volume_create(t->sc->fx.san, &t->create);
}

/* ---- a device that is lost ----------------------------------------------------------------------------------------------------- */

static void lose_stepped(struct san_req *r)
{
	struct scenario *sc = container_of(r, struct scenario, lose_step.req);

	check(r->status == 0);
	if (sc->lose_step.finished)
		sc->busy--;
	else
		san_device_lose_step(sc->fx.san, &sc->lose_step);
}

static void lose_begun(struct san_req *r)
{
	struct scenario *sc = container_of(r, struct scenario, lose.req);

	check(r->status == 0);
	sc->lost = true;
	sc->lose_step = (struct san_job_step){.req.done = lose_stepped, .job = sc->lose.job};
	san_device_lose_step(sc->fx.san, &sc->lose_step);
}

/* ---- the scenario ------------------------------------------------------------------------------------------------------------ */

static void scenario_start(struct scenario *sc, enum store_kind kind, uint64_t seed, bool lose)
{
	memset(sc, 0, sizeof(*sc));
	san_fixture_init(&sc->fx, kind, seed);
	rand_seed(&sc->rnd, seed);
	for (uint32_t i = 0; i < DEVICES; i++) {
		sc->freers[i].sc = sc;
		sc->freers[i].idle = 20;
		sc->freers[i].dev = fx_device(&sc->fx, SLOTS);
	}
	sc->v = fx_volume(&sc->fx, "a", WRITERS * RANGE);
	sc->epoch = fx_open(&sc->fx, "a");
	sc->temp.sc = sc;
	sc->busy = WRITERS + DEVICES + 1 + lose;
	for (uint32_t i = 0; i < WRITERS; i++) {
		sc->writers[i].sc = sc;
		sc->writers[i].first = i * RANGE;
		sc->writers[i].left = ROUNDS;
		writer_next(&sc->writers[i]);
	}
	for (uint32_t i = 0; i < DEVICES; i++)
		freer_next(&sc->freers[i]);
	temp_start(&sc->temp);
	if (lose) {
		sc->lose = (struct san_device_lose){.req.done = lose_begun, .dev = DEVICES};
		san_device_lose(sc->fx.san, &sc->lose);
	}
}

static bool in_flight(const struct writer *w, uint32_t chunk)
{
	for (uint32_t i = 0; w->allocating && i < w->alloc.n; i++)
		if (w->chunks[i] == chunk)
			return true;
	for (uint32_t i = 0; w->updating && i < w->update.n; i++)
		if (w->u[i].chunk == chunk)
			return true;
	return false;
}

/* Everything that was answered is so. What was in flight may be old or new. */
static void model_check(struct scenario *sc)
{
	for (uint32_t i = 0; i < WRITERS; i++) {
		struct writer *w = &sc->writers[i];

		for (uint32_t c = 0; c < RANGE; c++) {
			const struct map_entry *want = &w->model[c];
			struct map_entry got = fx_lookup(&sc->fx, &sc->v, w->first + c);

			if (in_flight(w, w->first + c))
				continue;
			if (got.kind == MAP_LOST) {
				/* also when it was to be unmapped: the loss came first */
				assert_int_equal(want->replicas[0].dev, DEVICES);
				assert_true(sc->lose.dev == DEVICES);
			} else if (want->kind == MAP_UNMAPPED) {
				assert_int_equal(got.kind, MAP_UNMAPPED);
			} else {
				assert_int_equal(got.kind, MAP_OPEN);
				assert_memory_equal(&got.replicas[0], &want->replicas[0],
						    sizeof(got.replicas[0]));
			}
		}
	}
	if (sc->temp.deleted) {
		struct san_volume_get op = {.name = "temp"};
		struct san_fixture *fx = &sc->fx;

		assert_int_equal(SAN_CALL(fx, san_volume_get, &op), -ENOENT);
	}
}

/* Jobs that were interrupted go on, everything that can be freed is: then exactly what the map has is taken. */
static void finish(struct scenario *sc)
{
	struct san_fixture *fx = &sc->fx;
	struct san_device d = {.dev = 0};
	struct san_layer l = {.layer = 0};
	uint64_t used = 0, mapped = 0;

	sim_sleep(&fx->st.sim, 1000 * 1000);
	for (uint32_t i = 0; i < fx->told_jobs_n; i++)
		fx_run_job(fx, fx->told_jobs[i]);
	while (san_device_next(fx->san, d.dev, &d) == 0) {
		fx_free_all(fx, d.dev);
		assert_int_equal(san_device_get(fx->san, d.dev, &d), 0);
		assert_int_equal(d.freeing_n, 0);
		used += d.used_n;
	}
	while (san_layer_next(fx->san, l.layer, &l) == 0)
		mapped += l.chunks_n;
	assert_int_equal(used, mapped);
	if (sc->lost)
		assert_int_equal(san_device_get(fx->san, DEVICES, &d), -ENOENT);
	fx_check(fx);
}

static void kill_and_check(struct scenario *sc)
{
	char errmsg[ERRMSG_LEN];

	san_fixture_kill(&sc->fx);
	san_raw_check(&sc->fx.st);
	assert_int_equal(san_fixture_open(&sc->fx, errmsg), 0);
	model_check(sc);
	fx_check(&sc->fx);
	finish(sc);
	san_raw_check(&sc->fx.st);
	san_fixture_free(&sc->fx);
}

/* Runs n events of it: false when it was over before. */
static bool run_events(struct scenario *sc, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (sc->busy == 0 || !sim_step(sc->fx.st.sim.w))
			return false;
	return true;
}

static void every_event(uint64_t seed, bool lose)
{
	static struct scenario sc;
	uint32_t events = 0;
	bool more = true;

	for (; more; events++) {
		scenario_start(&sc, STORE_MEM, seed, lose);
		more = run_events(&sc, events);
		kill_and_check(&sc);
		assert_int_equal(mem_live(), 0);
	}
	print_message("killed at each of %u events\n", events);
	assert_true(events > 200);
}

static void test_killed_at_every_event(void **state)
{
	(void)state;
	every_event(1, false);
}

static void test_killed_at_every_event_with_a_lost_device(void **state)
{
	(void)state;
	every_event(2, true);
}

/* Many seeds, one crash each at a random moment. */
static void test_killed_at_random(void **state)
{
	static struct scenario sc;
	struct rand rnd;

	(void)state;
	rand_seed(&rnd, 99);
	for (uint64_t seed = 10; seed < 60; seed++) {
		scenario_start(&sc, STORE_MEM, seed, seed % 3 == 0);
		run_events(&sc, (uint32_t)rand_below(&rnd, 1500));
		kill_and_check(&sc);
	}
}

/* On the durable store: closed in the middle (what is in flight finishes), opened again. */
static void test_rocksdb_reopened(void **state)
{
	static struct scenario sc;

	(void)state;
	for (uint64_t seed = 1; seed <= 6; seed++) {
		scenario_start(&sc, STORE_ROCKSDB, seed, seed % 2);
		while (run_events(&sc, 1000))
			;
		san_fixture_reopen(&sc.fx);
		san_raw_check(&sc.fx.st);
		model_check(&sc);
		fx_check(&sc.fx);
		finish(&sc);
		san_fixture_reopen(&sc.fx);
		fx_check(&sc.fx);
		san_raw_check(&sc.fx.st);
		san_fixture_free(&sc.fx);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_killed_at_every_event),
	    cmocka_unit_test(test_killed_at_every_event_with_a_lost_device),
	    cmocka_unit_test(test_killed_at_random),
	    cmocka_unit_test(test_rocksdb_reopened),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
