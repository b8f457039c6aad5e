/* SPDX-License-Identifier: Apache-2.0 */
/* device_workload.c - which requests are made. When things break is in device_mishaps.c. */
#include "tests/lib/device_workload.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/crc.h"
#include "src/base/math.h"

/* ---- the log ---------------------------------------------------------------------------------------------------------------- */

void workload_log(struct device_workload *wl, const char *fmt, ...)
{
	char *line = wl->log[wl->log_n++ % WORKLOAD_LOG_LINES];
	int len = snprintf(line, WORKLOAD_LOG_LEN, "%6u %12" PRIu64 "us  ", wl->step,
			   sim_now_ns(wl->dw.w) / 1000);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line + len, (size_t)(WORKLOAD_LOG_LEN - len), fmt, ap);
	va_end(ap);
	if (wl->verbose)
		fprintf(stderr, "%s\n", line);
}

void workload_print_log(const struct device_workload *wl)
{
	uint32_t n = MIN(wl->log_n, (uint32_t)WORKLOAD_LOG_LINES);

	for (uint32_t i = wl->log_n - n; !wl->verbose && i < wl->log_n; i++)
		fprintf(stderr, "%s\n", wl->log[i % WORKLOAD_LOG_LINES]);
}

static void log_op(struct device_workload *wl, const char *what, const struct workload_op *op)
{
	static const char *const names[] = {"READ", "WRITE", "CLEAR", "STATUS", "FLUSH", "FREE"};
	const struct chunk_req *r = &op->req;
	char result[64] = "";

	if (what[0] == '<')
		snprintf(result, sizeof(result), " -> %s%s", r->status ? err_name(r->status) : "0",
			 r->volatile_ack ? " (volatile)" : "");
	workload_log(wl,
		     "%s %2td %s%s%s%s slot %u cgen %" PRIu64 " %u+%u vol %u.%" PRIu64
		     " layer %u id %" PRIu64 "%s",
		     what, op - wl->ops, names[r->op], r->flags & CHUNK_F_STABLE ? " stable" : "",
		     r->flags & CHUNK_F_ZERO ? " zero" : "",
		     r->flags & CHUNK_F_IF_EMPTY ? " if-empty" : "", r->slot, r->cgen, r->block,
		     r->blocks_n, r->volume, r->epoch, r->layer, op->model.id, result);
}

/* ---- requests ---------------------------------------------------------------------------------------------------------------- */

static void one_less(struct device_workload *wl)
{
	check(wl->in_flight > 0);
	wl->idle = --wl->in_flight == 0;
}

static void one_more(struct device_workload *wl)
{
	wl->in_flight++;
	wl->idle = false;
}

static void op_done(struct chunk_req *r)
{
	struct workload_op *op = container_of(r, struct workload_op, req);
	struct device_workload *wl = op->wl;

	log_op(wl, "<", op);
	if (!op->busy) {
		model_fail(wl->dw.model, "a request on slot %u completed twice", r->slot);
		return;
	}
	op->busy = false;
	if (r->op == CHUNK_FREE && r->status == 0 && wl->plans[r->slot].cgen <= r->cgen)
		wl->plans[r->slot].cgen = 0;
	wl->dw.model->event = sim_events(wl->dw.w);
	model_done(wl->dw.model, &op->model, wl->dw.dev);
	one_less(wl);
}

void workload_submit(struct device_workload *wl, struct workload_op *op)
{
	struct chunk_req *r = &op->req;
	struct device_model *m = wl->dw.model;
	uint64_t id = 0;

	op->busy = true;
	op->wl = wl;
	r->done = op_done;
	r->dev = 0;
	if (r->op == CHUNK_WRITE) {
		id = ++m->last_id;
		for (uint32_t i = 0; i < r->blocks_n; i++) {
			pattern_fill(op->buf + (size_t)i * BLOCK_BYTES, id,
				     model_place(m, r->slot, r->block + i));
			op->crcs[i] = crc32c(op->buf + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
		}
	} else if (r->op == CHUNK_READ) {
		memset(op->buf, 0xee, (size_t)r->blocks_n * BLOCK_BYTES);
		memset(op->crcs, 0xee, sizeof(op->crcs));
	}
	memset(op->states, 0xee, sizeof(op->states));
	r->buf = op->buf;
	r->crcs = op->crcs;
	r->states = op->states;
	r->present_n = UINT32_MAX;
	one_more(wl);
	model_submit(m, &op->model, r, id);
	log_op(wl, ">", op);
	device_submit(wl->dw.dev, r);
}

struct workload_op *workload_op_free(struct device_workload *wl)
{
	for (uint32_t i = 0; i < wl->p.depth; i++)
		if (!wl->ops[i].busy)
			return &wl->ops[i];
	return NULL;
}

/* ---- what a request names ----------------------------------------------------------------------------------------------------- */

static uint64_t epoch_of(const struct device_workload *wl, volume_id v)
{
	return MAX(wl->dw.model->volumes[v].epoch_asked, (uint64_t)1);
}

static layer_id head_of(const struct device_workload *wl, volume_id v)
{
	return wl->heads[v] ? wl->heads[v] : v;
}

/* The contents that a free slot is meant for, or that it holds. */
static struct workload_plan plan_of(struct device_workload *wl, uint32_t slot)
{
	struct model_identity *now = &wl->dw.model->slots[slot].now;
	struct workload_plan *plan = &wl->plans[slot];

	if (now->open)
		return (struct workload_plan){now->cgen, now->volume, now->layer, now->chunk};
	if (plan->cgen <= now->cgen) {
		volume_id v = 1 + (volume_id)rand_below(&wl->dw.rand, wl->p.volumes_n);

		*plan =
		    (struct workload_plan){++wl->last_cgen, v, head_of(wl, v), ++wl->last_chunk};
	}
	return *plan;
}

void workload_name_slot(struct device_workload *wl, struct chunk_req *r, uint32_t slot)
{
	struct workload_plan plan = plan_of(wl, slot);

	r->slot = slot;
	r->cgen = plan.cgen;
	r->volume = plan.volume;
	r->layer = plan.layer;
	r->chunk = plan.chunk;
	r->epoch = epoch_of(wl, plan.volume);
}

static uint32_t random_slot(struct device_workload *wl)
{
	return (uint32_t)rand_below(&wl->dw.rand, wl->p.slots_n);
}

/* A run of blocks nobody is changing. The used blocks lie at both ends of the chunk. */
static bool random_blocks(struct device_workload *wl, struct chunk_req *r, bool to_change)
{
	struct rand *rnd = &wl->dw.rand;
	uint32_t n = 1 + (uint32_t)rand_below(rnd, wl->p.run_blocks);
	uint32_t at = (uint32_t)rand_below(rnd, wl->p.blocks_n);

	if (at >= wl->p.blocks_n / 2)
		at += wl->dw.chunk_blocks - wl->p.blocks_n;
	r->block = at;
	r->blocks_n = MIN(n, wl->dw.chunk_blocks - at);
	return model_blocks_free(wl->dw.model, r->slot, r->block, r->blocks_n, to_change);
}

/* ---- one request of each kind --------------------------------------------------------------------------------------------------- */

static bool make_change(struct device_workload *wl, struct workload_op *op, enum chunk_op kind)
{
	struct chunk_req *r = &op->req;
	struct model_slot *s;
	uint32_t slot = random_slot(wl);

	s = &wl->dw.model->slots[slot];
	if (s->frees_in_flight || s->free_again)
		return false;
	*r = (struct chunk_req){.op = kind};
	workload_name_slot(wl, r, slot);
	if (kind == CHUNK_CLEAR && rand_percent(&wl->dw.rand, 50))
		r->flags |= CHUNK_F_ZERO;
	if (rand_percent(&wl->dw.rand, wl->p.stable_percent))
		r->flags |= CHUNK_F_STABLE;
	if (rand_percent(&wl->dw.rand, 1) && !wl->epochs[r->volume].busy)
		r->epoch++; /* the first that the device hears of a new owner */
	if (!random_blocks(wl, r, true))
		return false;
	workload_submit(wl, op);
	return true;
}

static bool make_look(struct device_workload *wl, struct workload_op *op, enum chunk_op kind)
{
	struct chunk_req *r = &op->req;
	uint32_t slot = random_slot(wl);
	struct model_slot *s = &wl->dw.model->slots[slot];

	if (s->frees_in_flight || s->free_again)
		return false;
	*r = (struct chunk_req){.op = kind};
	workload_name_slot(wl, r, slot);
	if (kind == CHUNK_STATUS && rand_percent(&wl->dw.rand, 50)) {
		r->blocks_n = wl->dw.chunk_blocks;
		if (!model_blocks_free(wl->dw.model, slot, 0, r->blocks_n, false))
			return false;
	} else if (!random_blocks(wl, r, false)) {
		return false;
	}
	workload_submit(wl, op);
	return true;
}

static bool make_flush(struct device_workload *wl, struct workload_op *op)
{
	volume_id v = 1 + (volume_id)rand_below(&wl->dw.rand, wl->p.volumes_n);

	op->req = (struct chunk_req){.op = CHUNK_FLUSH, .volume = v, .epoch = epoch_of(wl, v)};
	workload_submit(wl, op);
	return true;
}

/* A request with a cgen from the future is under way: it would be right to execute it once the slot is free. */
static bool is_probed(const struct device_workload *wl, uint32_t slot)
{
	const struct model_identity *now = &wl->dw.model->slots[slot].now;

	for (uint32_t i = 0; i < wl->p.depth; i++)
		if (wl->ops[i].busy && wl->ops[i].req.slot == slot && now->open &&
		    wl->ops[i].req.op != CHUNK_FLUSH && wl->ops[i].req.cgen > now->cgen)
			return true;
	return false;
}

/* FREE of what a slot holds or was meant to hold; rarely of something older. */
static bool make_free(struct device_workload *wl, struct workload_op *op)
{
	struct chunk_req *r = &op->req;
	uint32_t slot = random_slot(wl);
	struct model_slot *s = &wl->dw.model->slots[slot];

	*r = (struct chunk_req){.op = CHUNK_FREE, .slot = slot};
	r->cgen = s->now.open		     ? s->now.cgen
		  : wl->plans[slot].cgen > 0 ? wl->plans[slot].cgen
					     : s->now.cgen;
	if (r->cgen == 0 || is_probed(wl, slot))
		return false;
	if (s->in_flight == 0 && rand_percent(&wl->dw.rand, 10))
		r->cgen = 1 + rand_below(&wl->dw.rand, r->cgen);
	if (!s->free_again && rand_percent(&wl->dw.rand, 20))
		r->flags |= CHUNK_F_IF_EMPTY;
	workload_submit(wl, op);
	return true;
}

/* A request that must be refused: an old mapping, an old owner, or the wrong chunk. */
static bool make_stale(struct device_workload *wl, struct workload_op *op)
{
	static const enum chunk_op kinds[] = {CHUNK_READ, CHUNK_WRITE, CHUNK_CLEAR, CHUNK_STATUS};
	struct rand *rnd = &wl->dw.rand;
	struct chunk_req *r = &op->req;
	uint32_t slot = random_slot(wl);
	struct model_slot *s = &wl->dw.model->slots[slot];

	*r = (struct chunk_req){.op = kinds[rand_below(rnd, ARRAY_LEN(kinds))]};
	workload_name_slot(wl, r, slot);
	switch (rand_below(rnd, 4)) {
	case 0:
		if (s->now.cgen < 2)
			return false;
		r->cgen = s->now.open ? 1 + rand_below(rnd, s->now.cgen - 1) : s->now.cgen;
		break;
	case 1:
		if (!s->now.open || s->frees_in_flight || s->free_again)
			return false;
		r->cgen = wl->last_cgen + 1;
		break;
	case 2:
		if (!s->now.open || s->frees_in_flight)
			return false;
		rand_percent(rnd, 50) ? r->layer++ : r->chunk++;
		break;
	default:
		if (r->epoch < 2 || s->free_again)
			return false;
		r->epoch = 1 + rand_below(rnd, r->epoch - 1);
	}
	if (!random_blocks(wl, r, true))
		return false;
	workload_submit(wl, op);
	return true;
}

/* ---- epochs and layer records ------------------------------------------------------------------------------------------------------ */

static void epoch_done(struct device_epoch_req *r)
{
	struct workload_epoch *e = container_of(r, struct workload_epoch, req);
	struct device_workload *wl = e->wl;

	workload_log(wl, "< epoch %" PRIu64 " of volume %u, head %u -> %s", r->epoch, r->volume,
		     r->head, r->status ? err_name(r->status) : "0");
	if (!e->busy)
		model_fail(wl->dw.model, "an epoch request completed twice");
	e->busy = false;
	if (r->status == 0)
		wl->heads[r->volume] = r->head;
	wl->dw.model->event = sim_events(wl->dw.w);
	model_epoch_done(wl->dw.model, r->volume, r->epoch, r->head, r->status);
	one_less(wl);
}

void workload_raise_epoch(struct device_workload *wl, volume_id v, uint64_t epoch, layer_id head)
{
	struct workload_epoch *e = &wl->epochs[v];

	e->wl = wl;
	e->busy = true;
	e->req = (struct device_epoch_req){.volume = v,
					   .epoch = epoch,
					   .head = head,
					   .commit = ++wl->last_commit,
					   .done = epoch_done};
	wl->dw.commit_heard = MAX(wl->dw.commit_heard, wl->last_commit);
	one_more(wl);
	workload_log(wl, "> epoch %" PRIu64 " of volume %u, head %u", epoch, v, head);
	model_epoch_submit(wl->dw.model, v, epoch, head);
	device_epoch(wl->dw.dev, &e->req);
}

static bool make_epoch(struct device_workload *wl)
{
	volume_id v = 1 + (volume_id)rand_below(&wl->dw.rand, wl->p.volumes_n);
	layer_id head = head_of(wl, v);

	if (wl->epochs[v].busy)
		return false;
	if (wl->p.snapshots && rand_percent(&wl->dw.rand, 30) && wl->last_layer < MODEL_LAYERS)
		head = ++wl->last_layer;
	workload_raise_epoch(wl, v, epoch_of(wl, v) + 1, head);
	return true;
}

static void layer_done(void *arg, int status)
{
	struct workload_layer *l = arg;
	struct device_workload *wl = l->wl;

	if (!l->busy)
		model_fail(wl->dw.model, "a layer record was acknowledged twice");
	l->busy = false;
	workload_log(wl, "< record of layer %u -> %s", l->layer.layer,
		     status ? err_name(status) : "0");
	model_layer_done(wl->dw.model, l->layer.layer, status);
	one_less(wl);
}

static void drop_layer(struct device_workload *wl, struct workload_layer *l, layer_id id)
{
	uint64_t commit = ++wl->last_commit;

	l->layer = (struct device_layer){.layer = id};
	wl->dw.commit_heard = MAX(wl->dw.commit_heard, commit);
	one_more(wl);
	workload_log(wl, "> layer %u is gone, commit %" PRIu64, id, commit);
	model_layer_drop(wl->dw.model, id);
	device_layer_drop(wl->dw.dev, id, commit, layer_done, l);
}

static bool make_layer(struct device_workload *wl)
{
	struct rand *rnd = &wl->dw.rand;
	layer_id id = 1 + (layer_id)rand_below(rnd, MODEL_LAYERS);
	struct workload_layer *l = &wl->layers[id];

	if (l->busy)
		return false;
	l->wl = wl;
	l->busy = true;
	if (rand_percent(rnd, 25)) {
		drop_layer(wl, l, id);
		return true;
	}
	l->layer = (struct device_layer){.layer = id,
					 .parent = (layer_id)rand_below(rnd, id),
					 .volume = 1 + (volume_id)rand_below(rnd, MODEL_VOLUMES),
					 .flags = (uint32_t)rand_below(rnd, 8),
					 .size_bytes = rand_below(rnd, 1 << 20) * BLOCK_BYTES,
					 .commit = ++wl->last_commit};
	snprintf(l->layer.name, sizeof(l->layer.name), "volume-%.*s%" PRIu64,
		 (int)rand_below(rnd, 30), "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", rand_below(rnd, 1000));
	if (rand_percent(rnd, 50))
		snprintf(l->layer.snapshot, sizeof(l->layer.snapshot), "s%" PRIu64,
			 rand_below(rnd, 1000));
	wl->dw.commit_heard = MAX(wl->dw.commit_heard, wl->last_commit);
	one_more(wl);
	workload_log(wl, "> record of layer %u, commit %" PRIu64, id, l->layer.commit);
	model_layer_submit(wl->dw.model, &l->layer);
	device_layer_put(wl->dw.dev, &l->layer, layer_done, l);
	return true;
}

/* ---- steps ------------------------------------------------------------------------------------------------------------------------- */

static bool make_one(struct device_workload *wl, struct workload_op *op)
{
	const struct workload_profile *p = &wl->p;
	uint64_t total = p->write + p->clear + p->read + p->status + p->flush + p->free + p->stale +
			 p->epoch + p->layer;
	uint64_t x = rand_below(&wl->dw.rand, total);

	if (x < p->write)
		return make_change(wl, op, CHUNK_WRITE);
	x -= p->write;
	if (x < p->clear)
		return make_change(wl, op, CHUNK_CLEAR);
	x -= p->clear;
	if (x < p->read)
		return make_look(wl, op, CHUNK_READ);
	x -= p->read;
	if (x < p->status)
		return make_look(wl, op, CHUNK_STATUS);
	x -= p->status;
	if (x < p->flush)
		return make_flush(wl, op);
	x -= p->flush;
	if (x < p->free)
		return make_free(wl, op);
	x -= p->free;
	if (x < p->stale)
		return make_stale(wl, op);
	x -= p->stale;
	return x < p->epoch ? make_epoch(wl) : make_layer(wl);
}

void workload_submit_some(struct device_workload *wl)
{
	struct workload_op *op = workload_op_free(wl);

	for (int tries = 0; op && tries < 8; tries++)
		if (make_one(wl, op))
			return;
}
