/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/san_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "src/base/check.h"

/* ---- callbacks ------------------------------------------------------------------------------------------------------------- */

static void on_frees(void *arg, device_no dev)
{
	struct san_fixture *fx = arg;

	if (fx->told_frees_n < FIXTURE_TOLD_MAX)
		fx->told_frees[fx->told_frees_n++] = dev;
}

static void on_job(void *arg, uint32_t job)
{
	struct san_fixture *fx = arg;

	if (fx->told_jobs_n < FIXTURE_TOLD_MAX)
		fx->told_jobs[fx->told_jobs_n++] = job;
	if (fx->on_job)
		fx->on_job(fx->on_job_arg, job);
}

static void on_layer(void *arg, layer_id layer, uint64_t commit, bool gone)
{
	struct san_fixture *fx = arg;

	if (fx->told_layers_n == FIXTURE_TOLD_MAX)
		return;
	fx->told_layers[fx->told_layers_n].layer = layer;
	fx->told_layers[fx->told_layers_n].commit = commit;
	fx->told_layers[fx->told_layers_n++].gone = gone;
}

static void on_failed(void *arg, int status)
{
	((struct san_fixture *)arg)->failed = status;
}

/* ---- life ------------------------------------------------------------------------------------------------------------------ */

struct open_wait {
	struct san_open op;
	bool is_done;
};

static void opened(struct san_open *op)
{
	container_of(op, struct open_wait, op)->is_done = true;
}

int san_fixture_open(struct san_fixture *fx, char errmsg[ERRMSG_LEN])
{
	struct open_wait w = {.op = {.cfg = {.ioe = fx->st.sim.e,
					     .store = fx->st.s,
					     .cache_bytes = fx->cache_bytes,
					     .seed = 42,
					     .cb = {.on_frees = on_frees,
						    .on_job = on_job,
						    .on_layer = on_layer,
						    .on_failed = on_failed,
						    .arg = fx}},
				     .done = opened}};
	struct san_device d = {.dev = 0};

	fx->told_frees_n = fx->told_jobs_n = fx->told_layers_n = 0;
	san_open(&w.op);
	check(!w.is_done);
	sim_run_until(fx->st.sim.w, &w.is_done);
	memcpy(errmsg, w.op.errmsg, ERRMSG_LEN);
	if (w.op.status)
		return w.op.status;
	fx->san = w.op.san;
	while (san_device_next(fx->san, d.dev, &d) == 0)
		san_device_usable(fx->san, d.dev, true);
	san_start(fx->san);
	return 0;
}

static void open_san(struct san_fixture *fx)
{
	char errmsg[ERRMSG_LEN];

	if (san_fixture_open(fx, errmsg)) {
		print_error("the SAN does not open: %s\n", errmsg);
		check_unreachable("san_open");
	}
}

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

static void close_san(struct san_fixture *fx)
{
	bool closed = false;

	san_close(fx->san, set_flag, &closed);
	sim_run_until(fx->st.sim.w, &closed);
	fx->san = NULL;
}

void san_fixture_init(struct san_fixture *fx, enum store_kind kind, uint64_t seed)
{
	*fx = (struct san_fixture){.start = {{1}}};
	store_fixture_init(&fx->st, kind, seed);
	open_san(fx);
}

void san_fixture_free(struct san_fixture *fx)
{
	if (fx->san)
		close_san(fx);
	store_fixture_free(&fx->st);
}

void san_fixture_reopen(struct san_fixture *fx)
{
	close_san(fx);
	store_fixture_reopen(&fx->st);
	open_san(fx);
}

void san_fixture_kill(struct san_fixture *fx)
{
	store_fixture_kill(&fx->st);
	san_abandon(fx->san);
	fx->san = NULL;
	store_fixture_restart(&fx->st);
}

void san_fixture_crash(struct san_fixture *fx)
{
	if (fx->st.kind == STORE_ROCKSDB) {
		san_fixture_reopen(fx);
		return;
	}
	san_fixture_kill(fx);
	open_san(fx);
}

/* ---- requests that wait ---------------------------------------------------------------------------------------------------- */

static struct san_req *waited;

void san_waited(struct san_req *r)
{
	waited = r;
}

int san_wait(struct san_fixture *fx, struct san_req *r)
{
	waited = NULL;
	while (waited != r)
		check(sim_step(fx->st.sim.w));
	return r->status;
}

device_no fx_device(struct san_fixture *fx, uint32_t slots_n)
{
	struct san_device_add op = {
	    .dev = (device_no)san_number_take(fx->san, SAN_NUMBER_DEVICE),
	    .pool = FIXTURE_POOL,
	    .chunk_shift = CHUNK_SHIFT_FLASH,
	    .slots_n = slots_n,
	};

	assert_int_equal(SAN_CALL(fx, san_device_add, &op), 0);
	san_device_usable(fx->san, op.dev, true);
	return op.dev;
}

struct san_volume fx_volume(struct san_fixture *fx, const char *name, uint32_t chunks_n)
{
	struct san_volume_create op = {
	    .name = name,
	    .size_bytes = (uint64_t)chunks_n << CHUNK_SHIFT_FLASH,
	    .sector_bytes = SECTOR_BYTES,
	    .chunk_shift = CHUNK_SHIFT_FLASH,
	    .pool = FIXTURE_POOL,
	};

	assert_int_equal(SAN_CALL(fx, san_volume_create, &op), 0);
	return op.volume;
}

uint64_t fx_open(struct san_fixture *fx, const char *name)
{
	static struct san_volume_open op;

	op = (struct san_volume_open){.name = name, .node = FIXTURE_NODE, .start = fx->start};
	assert_int_equal(SAN_CALL(fx, san_volume_open, &op), 0);
	return op.volume.epoch;
}

int fx_alloc(struct san_fixture *fx, const struct san_volume *v, uint64_t epoch, uint32_t first,
	     uint32_t n, struct san_map_item *items)
{
	uint32_t chunks[SAN_CHUNKS_MAX];
	struct san_map_item *own = calloc(n, sizeof(*own));
	struct san_alloc op = {
	    .volume = v->id,
	    .epoch = epoch,
	    .layer = v->head,
	    .chunks = chunks,
	    .n = n,
	    .items = items ? items : own,
	};
	int r;

	for (uint32_t i = 0; i < n; i++)
		chunks[i] = first + i;
	r = SAN_CALL(fx, san_alloc, &op);
	free(own);
	return r;
}

int fx_update(struct san_fixture *fx, const struct san_volume *v, uint64_t epoch, uint32_t chunk,
	      enum san_change change, uint64_t cgen)
{
	struct san_update_item item = {chunk, change, cgen};
	struct san_update op = {
	    .volume = v->id, .epoch = epoch, .layer = v->head, .items = &item, .n = 1};

	return SAN_CALL(fx, san_update, &op);
}

struct map_entry fx_lookup(struct san_fixture *fx, const struct san_volume *v, uint32_t chunk)
{
	struct san_map_item item = {.entry = {.kind = MAP_UNMAPPED}};
	struct san_map op = {.volume = v->id, .first = chunk, .n = 1, .items = &item, .items_max = 1};

	assert_int_equal(SAN_CALL(fx, san_map, &op), 0);
	return item.entry;
}

uint32_t fx_free_all(struct san_fixture *fx, device_no dev)
{
	struct san_free frees[100];
	struct san_frees_pull pull = {.dev = dev, .frees = frees, .frees_max = 100};
	struct san_frees_done done = {.dev = dev, .frees = frees};
	uint32_t n = 0;

	for (;;) {
		assert_int_equal(SAN_CALL(fx, san_frees_pull, &pull), 0);
		if (pull.frees_n == 0)
			return n;
		n += pull.frees_n;
		done.n = pull.frees_n;
		assert_int_equal(SAN_CALL(fx, san_frees_done, &done), 0);
	}
}

void fx_run_job(struct san_fixture *fx, uint32_t job)
{
	struct san_job_get get = {.id = job};
	struct san_job_step step = {.job = job};

	assert_int_equal(SAN_CALL(fx, san_job_get, &get), 0);
	do {
		if (get.job.kind == SAN_JOB_VOLUME_DELETE)
			assert_int_equal(SAN_CALL(fx, san_volume_delete_step, &step), 0);
		else
			assert_int_equal(SAN_CALL(fx, san_device_lose_step, &step), 0);
	} while (!step.finished);
	assert_int_equal(SAN_CALL(fx, san_job_get, &get), 0);
	assert_int_equal(get.job.state, SAN_JOB_DONE);
}

void fx_check(struct san_fixture *fx)
{
	struct san_check *op = calloc(1, sizeof(*op));

	assert_int_equal(SAN_CALL(fx, san_check, op), 0);
	for (uint64_t i = 0; i < op->problems_n && i < SAN_CHECK_PROBLEMS_MAX; i++)
		print_error("check: %s\n", op->problems[i]);
	assert_int_equal(op->problems_n, 0);
	free(op);
}
