/* SPDX-License-Identifier: Apache-2.0 */
/* device_mishaps.c - a whole run of a workload: what it is like, and when which thing breaks. */
#include <stdio.h>
#include <stdlib.h>

#include "src/base/math.h"
#include "tests/lib/device_workload.h"

#define MIB ((uint64_t)1 << 20)

/* ---- profiles ---------------------------------------------------------------------------------------------------------------- */

static uint32_t pick(struct rand *r, uint32_t min, uint32_t max)
{
	return (uint32_t)rand_between(r, min, max);
}

static void choose_mix(struct rand *r, struct workload_profile *p)
{
	p->write = pick(r, 20, 60);
	p->clear = rand_percent(r, 70) ? pick(r, 1, 15) : 0;
	p->read = pick(r, 5, 30);
	p->status = pick(r, 1, 5);
	p->flush = rand_percent(r, 80) ? pick(r, 1, 15) : 0;
	p->free = rand_percent(r, 70) ? pick(r, 1, 8) : 0;
	p->stale = rand_percent(r, 60) ? pick(r, 1, 6) : 0;
	p->epoch = rand_percent(r, 50) ? pick(r, 1, 3) : 0;
	p->layer = rand_percent(r, 30) ? pick(r, 1, 3) : 0;
	p->snapshots = rand_percent(r, 50);
	p->volumes_n = pick(r, 1, 3);
	p->stable_percent = rand_percent(r, 50) ? pick(r, 0, 20) : pick(r, 0, 100);
}

static void choose_world(struct rand *r, uint64_t seed, struct device_world_config *c)
{
	*c = (struct device_world_config){.seed = seed, .size_bytes = 128 * MIB};
	c->chunk_shift = rand_percent(r, 20) ? CHUNK_SHIFT_DISK : CHUNK_SHIFT_FLASH;
	c->cache_bytes = rand_percent(r, 60) ? (uint64_t)pick(r, 1, 16) * BLOCK_BYTES : 0;
	c->traits.io_align = rand_percent(r, 50) ? 512 : 4096;
	c->traits.write_through = rand_percent(r, 8);
	c->traits.never_blocks = rand_percent(r, 8);
	c->traits.refuses_direct = rand_percent(r, 5);
	c->traits.refuses_punch = rand_percent(r, 8);
}

static void choose_mishaps(struct rand *r, struct workload_profile *p)
{
	p->ring = rand_percent(r, 75);
	p->crash_permille = rand_percent(r, 80) ? pick(r, 2, 15) : 0;
	p->fault_permille = rand_percent(r, 25) ? pick(r, 1, 6) : 0;
	if (p->fault_permille)
		p->fault_kinds = rand_percent(r, 50) ? 1u << pick(r, 0, 6) : pick(r, 1, 127);
	p->verify_percent = rand_percent(r, 60) ? 100 : pick(r, 0, 60);
}

void workload_profile_random(uint64_t seed, struct workload_profile *ret_p)
{
	struct workload_profile *p = ret_p;
	struct rand r;

	rand_seed(&r, seed);
	*p = (struct workload_profile){0};
	p->steps = pick(&r, 200, 900);
	p->depth = rand_percent(&r, 25) ? 1 : pick(&r, 2, WORKLOAD_DEPTH_MAX);
	p->slots_n = rand_percent(&r, 60) ? pick(&r, 1, 8) : pick(&r, 9, 200);
	p->blocks_n = rand_percent(&r, 60) ? pick(&r, 2, 24) : pick(&r, 25, 256);
	p->run_blocks = rand_percent(&r, 50) ? pick(&r, 1, 4) : WORKLOAD_BLOCKS_MAX;
	p->patience_events = rand_percent(&r, 50) ? pick(&r, 0, 6) : pick(&r, 7, 60);
	choose_mix(&r, p);
	choose_world(&r, seed, &p->world);
	choose_mishaps(&r, p);
	if (rand_percent(&r, 25)) {
		p->world.late_percent = pick(&r, 1, 30);
		p->world.late_ns_max = (uint64_t)pick(&r, 1, 400) * 1000 * 1000;
	}
	if (rand_percent(&r, 8)) { /* round the journal: small stable writes, one after the other */
		p->steps = 5000;
		p->depth = pick(&r, 1, 3);
		p->run_blocks = 1;
		p->stable_percent = 95;
		p->write = 90;
		p->crash_permille = MIN(p->crash_permille, 2u);
		p->fault_permille = 0;
	}
}

/* ---- faults -------------------------------------------------------------------------------------------------------------------- */

static void faults_begin(struct device_workload *wl)
{
	struct device_world *dw = &wl->dw;

	dw->faults = wl->p.fault_kinds;
	if (rand_percent(&dw->rand, 50))
		dw->faults &= 1u << rand_below(&dw->rand, 7);
	dw->fault_percent =
	    rand_percent(&dw->rand, 30) ? 100 : 1 + (uint32_t)rand_below(&dw->rand, 30);
	wl->fault_steps_left = 1 + (uint32_t)rand_below(&dw->rand, 40);
	if (dw->faults)
		workload_log(wl, "faults 0x%x, %u %%, for %u steps", dw->faults, dw->fault_percent,
			     wl->fault_steps_left);
}

static void faults_end(struct device_workload *wl)
{
	if (wl->dw.faults)
		workload_log(wl, "faults end, %llu so far", (unsigned long long)wl->dw.faults_fired);
	wl->dw.faults = 0;
	wl->fault_steps_left = 0;
}

/* ---- crashes ------------------------------------------------------------------------------------------------------------------- */

enum mishap { KILL, POWER_LOSS, CLOSE, MISHAPS_N };

static enum mishap random_mishap(struct device_workload *wl)
{
	/* after a failed device flush no later one can make up for what the disk forgot: it must not lose power any more */
	if (wl->dw.flush_failed)
		return rand_percent(&wl->dw.rand, 50) ? KILL : CLOSE;
	return (enum mishap)rand_below(&wl->dw.rand, MISHAPS_N);
}

/* Which ring the next process uses: mostly the one of the last; without power loss in sight it must be that one. */
static void choose_ring(struct device_workload *wl)
{
	static const char *const rings[] = {"ring-a", "ring-b", NULL};

	if (wl->p.ring && !wl->dw.flush_failed && rand_percent(&wl->dw.rand, 15))
		wl->ring = rings[rand_below(&wl->dw.rand, 3)];
}

static void crash(struct device_workload *wl, enum mishap how)
{
	workload_log(wl, "%s%s", how == KILL ? "kill" : "power loss",
		     !wl->dw.e	   ? ", nothing runs"
		     : !wl->dw.dev ? ", while opening"
				   : "");
	how == KILL ? world_kill(&wl->dw) : world_power_loss(&wl->dw);
	workload_crashed(wl);
}

/* Up to n events, a random number of them. */
static void run_some(struct device_workload *wl, uint64_t n_max, const bool *until)
{
	for (uint64_t n = rand_below(&wl->dw.rand, n_max); n > 0 && !*until; n--)
		if (!world_step(&wl->dw))
			return;
}

static void close_device(struct device_workload *wl)
{
	struct device_world *dw = &wl->dw;
	bool in_order;

	if (rand_percent(&dw->rand, 70))
		workload_drain(wl);
	workload_log(wl, "close, %u in flight", wl->in_flight);
	world_close_start(dw);
	if (rand_percent(&dw->rand, 20)) {
		run_some(wl, 200, &dw->close_done);
		if (!dw->close_done) {
			crash(wl,
			      rand_percent(&dw->rand, 50) || dw->flush_failed ? KILL : POWER_LOSS);
			return;
		}
	}
	in_order = world_closed(dw);
	if (wl->in_flight && !world_failed(dw))
		model_fail(dw->model, "%u requests are still in flight after close", wl->in_flight);
	workload_crashed(wl);
	workload_log(wl, "closed%s", in_order ? "" : ", not in order");
	if (!world_failed(dw) && !dw->flush_failed && rand_percent(&dw->rand, 15))
		crash(wl, POWER_LOSS);
}

/* An inspection: whatever it sees the next open must confirm, and nothing may be written. */
static void inspect(struct device_workload *wl)
{
	struct device_world *dw = &wl->dw;
	uint64_t writes;

	workload_log(wl, "inspect");
	sim_run(dw->w,
		sim_now_ns(dw->w) + SIM_LATE_NS); /* what a killed process left in the kernel */
	writes = dw->disk_writes;
	world_open_start(dw, wl->ring, true);
	if (!world_opened(dw))
		return;
	workload_recover(wl, wl->p.verify_percent);
	if (!world_failed(dw))
		world_close(dw);
	if (dw->disk_writes != writes)
		model_fail(dw->model, "an inspection wrote to the disk");
	workload_crashed(wl);
}

/* Opens; now and then something breaks before it is done. */
static void reopen(struct device_workload *wl)
{
	struct device_world *dw = &wl->dw;

	for (int tries = 0; !world_failed(dw); tries++) {
		bool doomed = tries < 5 && rand_percent(&dw->rand, 15);

		/* what an inspection sees need not be durable yet, which the model takes it for: with late writes it would often be wrong */
		if (!wl->p.world.late_percent && rand_percent(&dw->rand, 15))
			inspect(wl);
		if (world_failed(dw))
			return;
		if (wl->while_closed)
			wl->while_closed(wl);
		workload_log(wl, "open, ring %s", wl->ring ? wl->ring : "none");
		world_open_start(dw, wl->ring, false);
		if (doomed)
			run_some(wl, 400, &dw->open_done);
		if (doomed && !dw->open_done) {
			crash(wl,
			      rand_percent(&dw->rand, 50) || dw->flush_failed ? KILL : POWER_LOSS);
			choose_ring(wl);
			continue;
		}
		if (world_opened(dw))
			break;
		if (!world_failed(dw))
			workload_log(wl, "open failed: %s", dw->open.errmsg);
		faults_end(wl);
	}
	if (world_failed(dw))
		return;
	faults_end(wl);
	workload_log(wl, "opened, last event: %s", dw->last_event);
	workload_recover(wl, wl->p.verify_percent);
}

static bool has_failed(struct device_workload *wl)
{
	struct device_info info;

	device_info(wl->dw.dev, &info);
	if (info.failed && !wl->dw.model->may_fail)
		model_fail(wl->dw.model,
			   "the device failed, and nothing that was done explains it");
	return info.failed;
}

static void mishap(struct device_workload *wl)
{
	enum mishap how = has_failed(wl) ? CLOSE : random_mishap(wl);

	if (how == CLOSE)
		close_device(wl);
	else
		crash(wl, how);
	if (rand_percent(&wl->dw.rand, 70))
		faults_end(wl);
	choose_ring(wl);
	if (!world_failed(&wl->dw))
		reopen(wl);
}

/* ---- a whole run ------------------------------------------------------------------------------------------------------------------ */

/* All is well again: what was written is read once more, before and after an orderly end. */
static void finish(struct device_workload *wl)
{
	struct device_world *dw = &wl->dw;

	faults_end(wl);
	workload_drain(wl);
	if (!world_failed(dw) && has_failed(wl)) {
		world_close(dw);
		workload_crashed(wl);
		if (!world_failed(dw))
			reopen(wl);
	}
	if (!world_failed(dw))
		workload_recover(wl, 100);
	if (!world_failed(dw) && world_close(dw)) {
		workload_crashed(wl);
		if (world_open(dw, wl->ring))
			workload_recover(wl, 100);
	}
	if (!world_failed(dw))
		world_close(dw);
}

const char *workload_run(struct device_workload *wl, const struct workload_profile *p)
{
	struct device_world *dw = &wl->dw;

	workload_start(wl, p);
	if (!world_failed(dw))
		reopen(wl);
	for (wl->step = 0; wl->step < p->steps && !world_failed(dw); wl->step++) {
		workload_step(wl);
		if (world_failed(dw))
			break;
		if (wl->fault_steps_left && --wl->fault_steps_left == 0)
			faults_end(wl);
		if (rand_below(&dw->rand, 1000) < p->fault_permille)
			faults_begin(wl);
		if (rand_below(&dw->rand, 1000) < p->crash_permille ||
		    (dw->faults_fired && has_failed(wl)))
			mishap(wl);
	}
	if (!world_failed(dw))
		finish(wl);
	return model_error(dw->model);
}
