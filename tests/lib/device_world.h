/* SPDX-License-Identifier: Apache-2.0 */
/* device_world.h - one device on one simulated machine, and everything that can happen to the process that serves it.
 *
 * A process is started for each open and ends with a kill, a power loss or an orderly close; its memory goes with it, and after an
 * orderly end there must be none left. All functions run the world themselves; what they find wrong goes to the model's error. */
#ifndef STRATA_TESTS_LIB_DEVICE_WORLD_H
#define STRATA_TESTS_LIB_DEVICE_WORLD_H

#include "src/base/rand.h"
#include "src/ioe/ioe_sim.h"
#include "tests/lib/device_model.h"
#include "tests/lib/mem_arena.h"

#define WORLD_PATIENCE_NS ((uint64_t)120 * 1000 * 1000 * 1000) /* after that a request is lost */

struct device_world_config {
	uint64_t seed;
	uint64_t size_bytes;
	uint32_t chunk_shift;
	uint64_t cache_bytes;
	struct sim_disk_traits traits;
	uint32_t late_percent; /* of the requests take up to late_ns_max longer than usual */
	uint64_t late_ns_max;
};

/* What the disk may do to the device, one bit each. */
enum world_faults {
	WORLD_FAULT_DATA_WRITE = 1 << 0,
	WORLD_FAULT_DATA_READ = 1 << 1,
	WORLD_FAULT_PUNCH = 1 << 2,
	WORLD_FAULT_META_WRITE = 1 << 3,
	WORLD_FAULT_META_READ = 1 << 4,
	WORLD_FAULT_FLUSH = 1 << 5,
	WORLD_FAULT_NOSPC = 1 << 6, /* data writes */
};

/* What is left of the last process's memory. */
enum world_memory {
	WORLD_CLEAN,  /* it was closed: nothing is missing */
	WORLD_RING,   /* in the restart ring `memory_ring` */
	WORLD_LOST,   /* nothing */
	WORLD_UNSURE, /* the crash hit an open, or a close: any of these, and all that was acknowledged before is durable or already lost */
};

struct device_world {
	struct device_world_config cfg;
	struct sim_world *w;
	struct sim_machine *m;
	struct rand rand; /* of the test; the world has its own */
	struct device_model *model;
	uint64_t data_offset; /* where the slots begin */
	uint32_t chunk_blocks;

	/* the process, NULL between two */
	struct ioe *e;
	struct mem_arena arena;
	struct device_open open;
	bool open_done, close_done, number_done;
	int close_status, number_status;
	struct device *dev;
	const char *ring; /* that it was opened with */

	/* for tests that crash at a chosen event */
	uint64_t stop_at_event; /* 0: never */
	bool stopped;

	/* faults */
	uint32_t faults;	/* enum world_faults */
	uint32_t fault_percent; /* of the requests they apply to */
	uint64_t faults_fired;
	bool in_doubt; /* it came back from a power loss: blocks may still have to be verified */
	bool flush_failed; /* a device flush failed since format: what was not flushed then may never become durable */
	uint64_t disk_writes; /* requests that changed the disk */

	/* what the next open must make of it */
	enum world_memory memory;
	const char *memory_ring;
	bool maybe_clean; /* RING: the crash hit a close, which may have been done */
	bool closing;
	uint64_t incarnation;
	uint64_t commit_heard, commit_durable;
	uint64_t events_n; /* that the device told of */
	char last_event[128];
	/* coverage */
	uint64_t opens, kills, losses, clean_closes, laps, checkpoints, unresolved, retires;
};

/* Creates the world, formats the device, makes the model. */
void world_init(struct device_world *dw, const struct device_world_config *cfg);
void world_free(struct device_world *dw);
static inline bool world_failed(const struct device_world *dw)
{
	return dw->model->error[0] != '\0';
}

/* One event of the world; false: there is none, or the test wants to stop here (`stopped`). */
bool world_step(struct device_world *dw);
/* Steps until *flag; an error in the model when nothing is left to happen, or patience ends. Just returns
 * when the test wants to stop. */
void world_run_until(struct device_world *dw, const bool *flag, const char *what);

/* Opening in steps, so that a crash can come in between; then world_opened() looks at the result. */
void world_open_start(struct device_world *dw, const char *ring, bool read_only);
bool world_opened(
    struct device_world
	*dw); /* false: it failed, for a legal reason (a fault) or with an error in the model */
bool world_open(struct device_world *dw, const char *ring);

void world_close_start(struct device_world *dw);
bool world_closed(struct device_world *dw); /* true: CLEAN */
bool world_close(struct device_world *dw);

/* Whatever the process is doing; also when there is none. */
void world_kill(struct device_world *dw);
void world_power_loss(struct device_world *dw);

#endif
