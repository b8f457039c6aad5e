/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/device_world.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define DISK "disk"

/* ---- the machine ----------------------------------------------------------------------------------------------------------- */

static uint32_t fault_kind(const struct device_world *dw, const struct ioe_req *r)
{
	bool data = r->off >= dw->data_offset && dw->data_offset != 0;

	switch (r->op) {
	case IOE_READ:
		if (!data)
			return WORLD_FAULT_META_READ;
		/* what is read to decide what a block is, and cannot be, is bad for good: not a thing to try at random */
		return dw->dev && !dw->in_doubt ? WORLD_FAULT_DATA_READ : 0u;
	case IOE_WRITE:
		return data ? WORLD_FAULT_DATA_WRITE | WORLD_FAULT_NOSPC : WORLD_FAULT_META_WRITE;
	case IOE_PUNCH:
		return WORLD_FAULT_PUNCH;
	case IOE_FSYNC:
		return WORLD_FAULT_FLUSH;
	default:
		return 0;
	}
}

/* The disk asks for each request whether it fails. The model learns what that may lead to. */
static int on_disk(void *arg, const char *path, const struct ioe_req *r)
{
	struct device_world *dw = arg;
	uint32_t kind = fault_kind(dw, r) & dw->faults;

	(void)path;
	if (r->op == IOE_WRITE || r->op == IOE_PUNCH)
		dw->disk_writes++;
	if (!kind || !dw->e || !rand_percent(&dw->rand, dw->fault_percent))
		return 0;
	dw->faults_fired++;
	if (kind & WORLD_FAULT_NOSPC) {
		dw->model->may_nospc = true;
		return -ENOSPC;
	}
	dw->model->may_eio = true;
	if (kind & (WORLD_FAULT_META_WRITE | WORLD_FAULT_FLUSH | WORLD_FAULT_META_READ))
		dw->model->may_fail = true;
	if (kind & WORLD_FAULT_FLUSH)
		dw->flush_failed = true;
	return -EIO;
}

/* A queue where some requests are overtaken by many others. */
static uint64_t on_delay(void *arg, const char *path, const struct ioe_req *r)
{
	struct device_world *dw = arg;

	(void)path;
	(void)r;
	if (!rand_percent(&dw->rand, dw->cfg.late_percent))
		return 0;
	return rand_below(&dw->rand, dw->cfg.late_ns_max);
}

/* The engine gives back what it handed out itself when a process dies, so its memory goes after that. */
static void process_gone(struct device_world *dw)
{
	mem_arena_use(NULL);
	mem_arena_drop(&dw->arena);
	dw->e = NULL;
	dw->dev = NULL;
}

static void process_start(struct device_world *dw)
{
	check(!dw->e);
	dw->e = sim_process_new(dw->m, "noded", NULL, NULL);
	mem_arena_init(&dw->arena);
	mem_arena_use(&dw->arena);
}

/* It ended in good order: nothing may be left of it. */
static void process_end(struct device_world *dw)
{
	ioe_free(dw->e);
	if (dw->arena.live != 0)
		model_fail(dw->model, "%zu allocations are left after an orderly end",
			   dw->arena.live);
	process_gone(dw);
}

bool world_step(struct device_world *dw)
{
	if (dw->stop_at_event && sim_events(dw->w) >= dw->stop_at_event)
		dw->stopped = true;
	return !dw->stopped && sim_step(dw->w);
}

void world_run_until(struct device_world *dw, const bool *flag, const char *what)
{
	uint64_t end_ns = sim_now_ns(dw->w) + WORLD_PATIENCE_NS;

	while (!*flag && !dw->stopped && !world_failed(dw)) {
		if (!world_step(dw) && !dw->stopped)
			model_fail(dw->model, "%s never completes: nothing is left to happen", what);
		else if (sim_now_ns(dw->w) > end_ns)
			model_fail(dw->model, "%s does not complete in two minutes", what);
	}
}

/* ---- format ------------------------------------------------------------------------------------------------------------------ */

static bool format_is_done;

static void format_done(struct device_format *op)
{
	(void)op;
	format_is_done = true;
}

static void format(struct device_world *dw)
{
	static struct device_format op;

	op = (struct device_format){.ioe = dw->e,
				    .path = DISK,
				    .size_bytes = dw->cfg.size_bytes,
				    .chunk_shift = dw->cfg.chunk_shift,
				    .done = format_done};
	format_is_done = false;
	device_format(&op);
	world_run_until(dw, &format_is_done, "format");
	if (op.status)
		model_fail(dw->model, "format: %s: %s", err_name(op.status), op.errmsg);
}

/* The model's size comes from the device, which must have been opened once for that. */
static void measure(struct device_world *dw)
{
	struct device_info info;

	device_info(dw->dev, &info);
	model_free(dw->model);
	dw->chunk_blocks = 1u << (info.chunk_shift - BLOCK_SHIFT);
	dw->model = model_new(info.slots_n, dw->chunk_blocks);
	dw->data_offset = device_block_offset(dw->dev, 0, 0);
}

void world_init(struct device_world *dw, const struct device_world_config *cfg)
{
	*dw = (struct device_world){.cfg = *cfg};
	rand_seed(&dw->rand, cfg->seed ^ 0x5eed);
	dw->w = sim_world_new(&(struct sim_config){.seed = cfg->seed});
	dw->m = sim_machine_new(dw->w, "m");
	sim_disk_traits(dw->m, &cfg->traits);
	dw->model = model_new(1, 1);
	process_start(dw);
	format(dw);
	process_end(dw);
	if (world_failed(dw))
		return;
	dw->memory = WORLD_CLEAN;
	if (!world_open(dw, NULL))
		return;
	measure(dw);
	world_close(dw);
	sim_disk_fault(dw->m, on_disk, dw);
	if (dw->cfg.late_percent)
		sim_disk_delay(dw->m, on_delay, dw);
}

void world_free(struct device_world *dw)
{
	sim_world_free(dw->w);
	if (dw->e)
		process_gone(dw);
	model_free(dw->model);
}

/* ---- open -------------------------------------------------------------------------------------------------------------------- */

static void on_event(void *arg, struct device *dev, const char *what, const char *text)
{
	struct device_world *dw = arg;

	(void)dev;
	dw->events_n++;
	snprintf(dw->last_event, sizeof(dw->last_event), "%s: %s", what, text);
}

static void on_opened(struct device_open *op)
{
	container_of(op, struct device_world, open)->open_done = true;
}

/* Does this open name the ring that the last process left? */
static bool memory_found(const struct device_world *dw)
{
	return dw->ring && dw->memory_ring && strcmp(dw->ring, dw->memory_ring) == 0;
}

void world_open_start(struct device_world *dw, const char *ring, bool read_only)
{
	process_start(dw);
	dw->ring = ring;
	dw->closing = false;
	if (dw->memory == WORLD_RING && !memory_found(dw))
		model_lose(dw->model);
	dw->model->may_nospc = dw->model->may_eio = dw->model->may_fail = false;
	dw->open_done = false;
	dw->open = (struct device_open){.ioe = dw->e,
					.path = DISK,
					.ring_path = ring,
					.read_only = read_only,
					.cache_bytes = dw->cfg.cache_bytes,
					.on_event = on_event,
					.event_arg = dw,
					.done = on_opened};
	device_open(&dw->open);
}

/* What the device says of how it came back, against what happened to it. */
static void check_recovery(struct device_world *dw)
{
	struct device_info info;
	bool kept, lost;

	device_info(dw->dev, &info);
	kept = dw->memory == WORLD_CLEAN || (dw->memory == WORLD_RING && memory_found(dw));
	lost = dw->memory == WORLD_LOST ||
	       (dw->memory == WORLD_RING && !memory_found(dw) && !dw->maybe_clean);
	if (kept &&
	    (info.replayed_power_loss || (dw->incarnation && info.incarnation != dw->incarnation)))
		model_fail(dw->model,
			   "it came back with its memory and %s; incarnation %" PRIu64
			   " after %" PRIu64,
			   info.replayed_power_loss ? "says that power was lost"
						    : "does not say that power was lost",
			   info.incarnation, dw->incarnation);
	if (lost && !info.replayed_power_loss)
		model_fail(dw->model, "its memory was lost, and it does not say so");
	if (lost && !dw->open.read_only && info.incarnation <= dw->incarnation)
		model_fail(dw->model, "its memory was lost: incarnation %" PRIu64 " after %" PRIu64,
			   info.incarnation, dw->incarnation);
	if (info.commit > dw->commit_heard || info.commit < dw->commit_durable)
		model_fail(dw->model,
			   "highest commit is %" PRIu64 ", of %" PRIu64 " heard and %" PRIu64
			   " kept",
			   info.commit, dw->commit_heard, dw->commit_durable);
	if (info.failed)
		model_fail(dw->model, "a device that was just opened has failed");
	dw->in_doubt = info.replayed_power_loss;
	if (!dw->open.read_only)
		dw->incarnation = info.incarnation;
	dw->commit_heard = info.commit;
}

static void see_slots(struct device_world *dw)
{
	for (uint32_t s = 0; s < dw->model->slots_n && dw->model->slots_n > 1; s++) {
		struct device_slot got;
		int err = device_slot_get(dw->dev, s, &got);

		if (err)
			model_fail(dw->model, "slot %u of %u: %s", s, dw->model->slots_n,
				   err_name(err));
		else
			model_slot_see(dw->model, s, &got);
	}
}

/* A process that was about to open the device is gone: it may have begun a new life of it, or not. */
static void opening_ended(struct device_world *dw)
{
	if (!dw->open.read_only && !(dw->memory == WORLD_RING && memory_found(dw)))
		dw->memory = WORLD_UNSURE;
}

bool world_opened(struct device_world *dw)
{
	world_run_until(dw, &dw->open_done, "open");
	if (world_failed(dw) || dw->stopped)
		return false;
	if (dw->open.status) {
		if (!dw->model->may_eio)
			model_fail(dw->model, "open: %s: %s", err_name(dw->open.status),
				   dw->open.errmsg);
		process_end(dw);
		opening_ended(dw);
		return false;
	}
	dw->dev = dw->open.dev;
	dw->opens++;
	check_recovery(dw);
	see_slots(dw);
	model_layers_see(dw->model, dw->dev);
	return !world_failed(dw);
}

bool world_open(struct device_world *dw, const char *ring)
{
	world_open_start(dw, ring, false);
	return world_opened(dw);
}

/* ---- close ------------------------------------------------------------------------------------------------------------------- */

static void on_closed(void *arg, int status)
{
	struct device_world *dw = arg;

	dw->close_done = true;
	dw->close_status = status;
}

static void note_coverage(struct device_world *dw)
{
	struct device_info info;

	device_info(dw->dev, &info);
	dw->laps = info.lsn * BLOCK_BYTES / (dw->cfg.size_bytes / 16);
	dw->checkpoints += info.checkpoints;
	dw->unresolved = info.unresolved_blocks;
}

void world_close_start(struct device_world *dw)
{
	note_coverage(dw);
	dw->close_done = false;
	dw->closing = true;
	device_close(dw->dev, on_closed, dw);
}

bool world_closed(struct device_world *dw)
{
	bool writes = !dw->open.read_only;

	world_run_until(dw, &dw->close_done, "close");
	if (world_failed(dw) || dw->stopped)
		return false;
	process_end(dw);
	if (!writes)
		return !world_failed(dw);
	if (dw->close_status == 0) {
		model_closed(dw->model);
		dw->clean_closes++;
		dw->memory = WORLD_CLEAN;
		dw->commit_durable = dw->commit_heard;
		return !world_failed(dw);
	}
	if (!dw->model->may_fail && !dw->model->may_eio)
		model_fail(dw->model, "close: %s", err_name(dw->close_status));
	if (dw->ring) {
		model_kill(dw->model);
		dw->memory = WORLD_RING;
		dw->memory_ring = dw->ring;
		dw->maybe_clean = false;
	} else {
		model_lose(dw->model);
		dw->memory = WORLD_LOST;
	}
	return false;
}

bool world_close(struct device_world *dw)
{
	world_close_start(dw);
	return world_closed(dw);
}

/* ---- crashes ------------------------------------------------------------------------------------------------------------------ */

static bool is_serving(const struct device_world *dw)
{
	return dw->dev && !dw->open.read_only;
}

void world_kill(struct device_world *dw)
{
	bool serving = is_serving(dw), opening = dw->e && !dw->dev;

	if (serving)
		note_coverage(dw);
	dw->kills++;
	if (dw->e) {
		sim_kill(dw->e);
		process_gone(dw);
	}
	if (opening)
		opening_ended(dw);
	if (!serving)
		return;
	if (dw->ring) {
		model_kill(dw->model);
		dw->memory = WORLD_RING;
		dw->memory_ring = dw->ring;
		dw->maybe_clean = dw->closing;
	} else {
		model_lose(dw->model);
		dw->memory = dw->closing ? WORLD_UNSURE : WORLD_LOST;
	}
}

void world_power_loss(struct device_world *dw)
{
	bool serving = is_serving(dw), opening = dw->e && !dw->dev && !dw->open.read_only;
	bool was_clean = dw->memory == WORLD_CLEAN || dw->memory == WORLD_UNSURE;

	if (serving)
		note_coverage(dw);
	dw->losses++;
	sim_power_loss(dw->m);
	if (dw->e)
		process_gone(dw);
	if (serving)
		dw->memory = dw->closing ? WORLD_UNSURE : WORLD_LOST;
	else if (opening)
		dw->memory = was_clean ? WORLD_UNSURE : WORLD_LOST;
	else if (dw->memory == WORLD_RING)
		dw->memory = dw->maybe_clean ? WORLD_UNSURE : WORLD_LOST;
	if (dw->memory != WORLD_CLEAN)
		model_lose(dw->model);
}
