/* SPDX-License-Identifier: Apache-2.0 */
/* device_steps.c - a workload as it goes: start, steps, waiting, and what a client does after a crash. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/base/math.h"
#include "tests/lib/device_workload.h"

/* When nothing is in flight the device's own counts must be the model's. */
static void check_counts(struct device_workload *wl)
{
	struct device_model *m = wl->dw.model;
	struct device_info info;
	uint32_t open_n = 0;
	uint64_t cgen = 0;

	if (wl->in_flight)
		return;
	device_info(wl->dw.dev, &info);
	for (uint32_t s = 0; s < m->slots_n; s++) {
		if (m->slots[s].unseen)
			return;
		open_n += m->slots[s].now.open;
		cgen = MAX(cgen, m->slots[s].now.cgen);
	}
	if (info.slots_open_n != open_n)
		model_fail(m, "the device counts %u open slots, there are %u", info.slots_open_n,
			   open_n);
	if (info.cgen_highest != cgen)
		model_fail(m,
			   "the device remembers cgens up to %" PRIu64 ", they are up to %" PRIu64,
			   info.cgen_highest, cgen);
}

void workload_drain(struct device_workload *wl)
{
	struct workload_op *op = NULL;
	char what[128] = "an epoch or a layer record";

	for (uint32_t i = 0; i < WORKLOAD_DEPTH_MAX; i++)
		if (wl->ops[i].busy)
			op = &wl->ops[i];
	if (op)
		snprintf(what, sizeof(what), "request %td (kind %d of slot %u cgen %" PRIu64 ")",
			 op - wl->ops, op->req.op, op->req.slot, op->req.cgen);
	wl->idle = wl->in_flight == 0;
	world_run_until(&wl->dw, &wl->idle, what);
	if (!world_failed(&wl->dw) && !wl->dw.stopped)
		check_counts(wl);
}

static void run_events(struct device_workload *wl, uint64_t n)
{
	for (uint64_t i = 0; i < n && !world_failed(&wl->dw); i++)
		if (!world_step(&wl->dw))
			break;
}

void workload_step(struct device_workload *wl)
{
	if (rand_percent(&wl->dw.rand, 2)) {
		wl->dw.commit_heard = MAX(wl->dw.commit_heard, ++wl->last_commit);
		device_heard_commit(wl->dw.dev, wl->last_commit);
	}
	workload_submit_some(wl);
	run_events(wl, rand_below(&wl->dw.rand, wl->p.patience_events + 1));
	for (int turns = 0; !workload_op_free(wl) && !world_failed(&wl->dw) && !wl->dw.stopped;
	     turns++) {
		run_events(wl, 1);
		if (turns > 200000)
			workload_drain(wl);
	}
	if (rand_percent(&wl->dw.rand, 1))
		workload_drain(wl);
}

/* ---- start, recovery, end ------------------------------------------------------------------------------------------------------------ */

void workload_crashed(struct device_workload *wl)
{
	wl->in_flight = 0;
	wl->idle = true;
	for (uint32_t i = 0; i < WORKLOAD_DEPTH_MAX; i++)
		wl->ops[i].busy = false;
	for (uint32_t v = 1; v <= MODEL_VOLUMES; v++)
		wl->epochs[v].busy = false;
	for (uint32_t l = 1; l <= MODEL_LAYERS; l++)
		wl->layers[l].busy = false;
}

static void tell_again(struct device_workload *wl)
{
	for (volume_id v = 1; v <= wl->p.volumes_n; v++) {
		const struct model_volume *vol = &wl->dw.model->volumes[v];

		if (vol->head_asked)
			workload_raise_epoch(wl, v, vol->epoch_asked, vol->head_asked);
	}
	for (uint32_t s = 0; s < wl->dw.model->slots_n; s++) {
		struct model_slot *slot = &wl->dw.model->slots[s];
		struct workload_op *op;

		if (!slot->free_again)
			continue;
		op = workload_op_free(wl);
		if (!op) {
			workload_drain(wl);
			op = workload_op_free(wl);
		}
		if (!op || world_failed(&wl->dw))
			return;
		op->req = (struct chunk_req){.op = CHUNK_FREE, .slot = s, .cgen = slot->now.cgen};
		workload_submit(wl, op);
	}
}

static void look_at(struct device_workload *wl, enum chunk_op kind, uint32_t slot, uint32_t block,
		    uint32_t n)
{
	struct workload_op *op;

	while (!(op = workload_op_free(wl)) && !world_failed(&wl->dw) && !wl->dw.stopped)
		run_events(wl, 1);
	if (!op || world_failed(&wl->dw))
		return;
	op->req = (struct chunk_req){.op = kind, .block = block, .blocks_n = n};
	workload_name_slot(wl, &op->req, slot);
	op->req.block = block;
	workload_submit(wl, op);
}

/* Everything that was ever touched, and whole block tables. */
static void look_at_slot(struct device_workload *wl, uint32_t slot)
{
	uint32_t max = MIN((uint32_t)WORKLOAD_BLOCKS_MAX, wl->dw.chunk_blocks);

	if (wl->dw.model->slots[slot].free_again)
		return;
	if (rand_percent(&wl->dw.rand, 50))
		look_at(wl, CHUNK_STATUS, slot, 0, wl->dw.chunk_blocks);
	for (uint32_t b = 0; b < wl->dw.chunk_blocks && !world_failed(&wl->dw);) {
		uint32_t n = 0;

		if (!model_touched(wl->dw.model, slot, b)) {
			b++;
			continue;
		}
		while (n < max && b + n < wl->dw.chunk_blocks &&
		       model_touched(wl->dw.model, slot, b + n))
			n++;
		look_at(wl, CHUNK_READ, slot, b, n);
		b += n;
	}
}

void workload_recover(struct device_workload *wl, uint32_t percent)
{
	if (!wl->dw.open.read_only)
		tell_again(wl);
	for (uint32_t s = 0; s < wl->dw.model->slots_n && !world_failed(&wl->dw); s++)
		if (rand_percent(&wl->dw.rand, percent))
			look_at_slot(wl, s);
	workload_drain(wl);
}

void workload_start(struct device_workload *wl, const struct workload_profile *p)
{
	wl->p = *p;
	wl->last_layer = MODEL_VOLUMES;
	wl->ring = p->ring ? "ring-a" : NULL;
	world_init(&wl->dw, &p->world);
	wl->plans = calloc(wl->dw.model->slots_n, sizeof(*wl->plans));
	check(wl->plans);
	wl->p.slots_n = MIN(p->slots_n, wl->dw.model->slots_n);
	wl->p.blocks_n = MIN(p->blocks_n, wl->dw.chunk_blocks ? wl->dw.chunk_blocks : 1);
	for (uint32_t i = 0; i < WORKLOAD_DEPTH_MAX; i++) {
		wl->ops[i].buf = aligned_alloc(BLOCK_BYTES, WORKLOAD_BLOCKS_MAX * BLOCK_BYTES);
		check(wl->ops[i].buf);
	}
}

void workload_free(struct device_workload *wl)
{
	world_free(&wl->dw);
	free(wl->plans);
	for (uint32_t i = 0; i < WORKLOAD_DEPTH_MAX; i++)
		free(wl->ops[i].buf);
	free(wl);
}
