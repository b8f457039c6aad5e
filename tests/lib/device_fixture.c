/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/device_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/crc.h"
#include "src/base/mem.h"

/* ---- life ------------------------------------------------------------------------------------------------------------- */

void device_fixture_init(struct device_fixture *fx, uint64_t seed)
{
	device_fixture_init_as(fx, &(struct sim_config){.seed = seed}, 128 << 20);
}

void device_fixture_init_as(struct device_fixture *fx, const struct sim_config *cfg,
			    uint64_t size_bytes)
{
	memset(fx, 0, sizeof(*fx));
	fx->size_bytes = size_bytes;
	fx->chunk_shift = CHUNK_SHIFT_FLASH;
	memset(&fx->cluster, 7, sizeof(fx->cluster));
	sim_fixture_init_config(&fx->sim, cfg);
	mem_arena_init(&fx->arena);
	mem_arena_use(&fx->arena);
	assert_int_equal(fixture_format(fx, false), 0);
}

void device_fixture_free(struct device_fixture *fx)
{
	if (fx->dev)
		fixture_kill(fx);
	sim_fixture_free(&fx->sim);
	mem_arena_drop(&fx->arena);
	mem_arena_use(NULL);
}

static void format_done(struct device_format *op)
{
	op->path = NULL;
}

static bool is_over(const char *path)
{
	return path == NULL;
}

int fixture_format(struct device_fixture *fx, bool force)
{
	struct device_format op = {
	    .ioe = fx->sim.e,
	    .path = DEVICE_PATH,
	    .size_bytes = fx->size_bytes,
	    .chunk_shift = fx->chunk_shift,
	    .cluster = fx->cluster,
	    .force = force,
	    .done = format_done,
	};

	device_format(&op);
	while (!is_over(op.path))
		if (!sim_step(fx->sim.w))
			fail_msg("a format never ends");
	if (!op.status)
		assert_true(op.all_bytes > fx->size_bytes && op.done_bytes == op.all_bytes);
	snprintf(fx->errmsg, sizeof(fx->errmsg), "%s", op.errmsg);
	return op.status;
}

static void event(void *arg, struct device *dev, const char *what, const char *text)
{
	struct device_fixture *fx = arg;

	(void)dev;
	(void)text;
	fx->events_n++;
	snprintf(fx->last_event, sizeof(fx->last_event), "%s", what);
}

static void open_done(struct device_open *op)
{
	op->path = NULL;
}

static void open_start(struct device_fixture *fx, bool read_only)
{
	fx->open = (struct device_open){
	    .ioe = fx->sim.e,
	    .path = DEVICE_PATH,
	    .ring_path = fx->with_ring ? DEVICE_RING : NULL,
	    .cluster = &fx->cluster,
	    .read_only = read_only,
	    .cache_bytes = fx->cache_bytes,
	    .on_event = event,
	    .event_arg = fx,
	    .done = open_done,
	};
	device_open(&fx->open);
}

int fixture_open(struct device_fixture *fx, bool read_only)
{
	open_start(fx, read_only);
	while (!is_over(fx->open.path))
		if (!sim_step(fx->sim.w))
			fail_msg("an open never ends");
	snprintf(fx->errmsg, sizeof(fx->errmsg), "%s", fx->open.errmsg);
	fx->dev = fx->open.dev;
	return fx->open.status;
}

bool fixture_open_steps(struct device_fixture *fx, uint32_t steps)
{
	open_start(fx, false);
	for (uint32_t i = 0; i < steps && !is_over(fx->open.path); i++)
		assert_true(sim_step(fx->sim.w));
	if (is_over(fx->open.path))
		fx->dev = fx->open.dev;
	return is_over(fx->open.path);
}

struct close_wait {
	bool is_done;
	int status;
};

static void close_done(void *arg, int status)
{
	struct close_wait *w = arg;

	w->status = status;
	w->is_done = true;
}

int fixture_close(struct device_fixture *fx)
{
	struct close_wait w = {};

	device_close(fx->dev, close_done, &w);
	fx->dev = NULL;
	while (!w.is_done)
		if (!sim_step(fx->sim.w))
			fail_msg("a close never ends");
	return w.status;
}

void fixture_kill(struct device_fixture *fx)
{
	sim_fixture_kill(&fx->sim);
	mem_arena_drop(&fx->arena);
	fx->dev = NULL;
	sim_fixture_restart(&fx->sim);
}

void fixture_power_loss(struct device_fixture *fx)
{
	sim_fixture_power_loss(&fx->sim);
	mem_arena_drop(&fx->arena);
	fx->dev = NULL;
	sim_fixture_restart(&fx->sim);
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

static void req_done(struct chunk_req *r)
{
	((struct fixture_req *)r)->is_done = true;
}

struct fixture_req *req_new(struct device_fixture *fx, enum chunk_op op, uint32_t slot,
			    uint64_t cgen, uint32_t block, uint32_t n)
{
	struct fixture_req *q = mem_zalloc(sizeof(*q));

	assert_non_null(q);
	q->fx = fx;
	q->buf = mem_alloc_aligned(BLOCK_BYTES, (size_t)(n ? n : 1) * BLOCK_BYTES);
	assert_non_null(q->buf);
	memset(q->buf, 0xee, (size_t)(n ? n : 1) * BLOCK_BYTES);
	q->r = (struct chunk_req){
	    .op = op,
	    .volume = 1,
	    .slot = slot,
	    .cgen = cgen,
	    .epoch = 1,
	    .layer = 1,
	    .chunk = slot,
	    .block = block,
	    .blocks_n = n,
	    .buf = q->buf,
	    .crcs = q->crcs,
	    .states = q->states,
	    .done = req_done,
	};
	list_init(&q->r.link);
	return q;
}

static void fill(uint8_t *to, uint32_t block, uint32_t seed)
{
	uint32_t *words = (uint32_t *)to;

	for (uint32_t i = 0; i < BLOCK_BYTES / 4; i++)
		words[i] = seed ? (seed * 2654435761u) ^ (block << 12) ^ i : 0;
}

void req_fill(struct fixture_req *q, uint32_t seed)
{
	for (uint32_t i = 0; i < q->r.blocks_n; i++) {
		uint8_t *at = q->buf + (size_t)i * BLOCK_BYTES;

		fill(at, q->r.block + i, seed);
		q->crcs[i] = crc32c(at, BLOCK_BYTES);
	}
}

void req_submit(struct fixture_req *q)
{
	q->is_done = false;
	device_submit(q->fx->dev, &q->r);
	assert_false(q->is_done); /* never inline */
}

int req_wait(struct fixture_req *q)
{
	while (!q->is_done)
		if (!sim_step(q->fx->sim.w))
			fail_msg("a request never ends");
	return q->r.status;
}

void req_free(struct fixture_req *q)
{
	mem_free(q->buf);
	mem_free(q);
}

static int req_run(struct fixture_req *q)
{
	int status;

	req_submit(q);
	status = req_wait(q);
	req_free(q);
	return status;
}

int dev_write(struct device_fixture *fx, uint32_t slot, uint64_t cgen, uint32_t block, uint32_t n,
	      uint32_t seed, uint32_t flags)
{
	struct fixture_req *q = req_new(fx, CHUNK_WRITE, slot, cgen, block, n);

	q->r.flags = flags;
	req_fill(q, seed);
	return req_run(q);
}

int dev_expect(struct device_fixture *fx, uint32_t slot, uint64_t cgen, uint32_t block, uint32_t n,
	       uint32_t seed)
{
	struct fixture_req *q = req_new(fx, CHUNK_READ, slot, cgen, block, n);
	static uint8_t want[BLOCK_BYTES] __attribute__((aligned(8)));
	int status;

	req_submit(q);
	status = req_wait(q);
	for (uint32_t i = 0; i < n && !status; i++) {
		fill(want, block + i, seed);
		if (memcmp(want, q->buf + (size_t)i * BLOCK_BYTES, BLOCK_BYTES) != 0)
			status = -EBADMSG;
		else if (q->states[i] == BLOCK_DATA && q->crcs[i] != crc32c(want, BLOCK_BYTES))
			status = -EBADMSG;
	}
	req_free(q);
	return status;
}

int dev_clear(struct device_fixture *fx, uint32_t slot, uint64_t cgen, uint32_t block, uint32_t n,
	      uint32_t flags)
{
	struct fixture_req *q = req_new(fx, CHUNK_CLEAR, slot, cgen, block, n);

	q->r.flags = flags;
	return req_run(q);
}

int dev_free(struct device_fixture *fx, uint32_t slot, uint64_t cgen, uint32_t flags)
{
	struct fixture_req *q = req_new(fx, CHUNK_FREE, slot, cgen, 0, 0);

	q->r.flags = flags;
	return req_run(q);
}

int dev_flush(struct device_fixture *fx)
{
	return req_run(req_new(fx, CHUNK_FLUSH, 0, 0, 0, 0));
}

int dev_state(struct device_fixture *fx, uint32_t slot, uint64_t cgen, uint32_t block)
{
	struct fixture_req *q = req_new(fx, CHUNK_STATUS, slot, cgen, block, 1);
	int status;

	req_submit(q);
	status = req_wait(q);
	if (!status)
		status = q->states[0];
	req_free(q);
	return status;
}
