/* SPDX-License-Identifier: Apache-2.0 */
/* device_workload.h - random requests, crashes and faults against one device, from one seed; the model judges every answer.
 *
 * Swarm: the seed first chooses what this run is like (sizes, mix, how much at once, which faults, which crashes), so that each run goes deep
 * into some corner. All choices come from one generator: same seed, same run. The last lines of its log are kept for the failure. */
#ifndef STRATA_TESTS_LIB_DEVICE_WORKLOAD_H
#define STRATA_TESTS_LIB_DEVICE_WORKLOAD_H

#include "tests/lib/device_world.h"

enum {
	WORKLOAD_DEPTH_MAX = 16,
	WORKLOAD_BLOCKS_MAX = 16,
	WORKLOAD_LOG_LINES = 40,
	WORKLOAD_LOG_LEN = 200,
};

/* What a run is like. Percentages of the steps, unless it says otherwise. */
struct workload_profile {
	uint32_t steps;
	uint32_t depth;	     /* requests in flight, at most */
	uint32_t slots_n;    /* that are used */
	uint32_t blocks_n;   /* of each slot, that are used */
	uint32_t run_blocks; /* longest request */
	uint32_t write, clear, read, status, flush, free, stale, epoch, layer; /* weights */
	uint32_t stable_percent; /* of writes and clears */
	uint32_t volumes_n;
	bool snapshots; /* heads move on */
	bool ring;
	uint32_t crash_permille;  /* of the steps: some crash or close */
	uint32_t fault_permille;  /* of the steps: a burst of faults begins */
	uint32_t fault_kinds;	  /* enum world_faults */
	uint32_t verify_percent;  /* after a crash: how much is read again */
	uint32_t patience_events; /* at most so many events of the world between steps */
	struct device_world_config world;
};

void workload_profile_random(uint64_t seed, struct workload_profile *ret_p);

/* Where the contents of a free slot would belong: kept from the first intention to write until FREE. */
struct workload_plan {
	uint64_t cgen; /* 0: none */
	volume_id volume;
	layer_id layer;
	uint32_t chunk;
};

struct workload_op {
	struct model_op model;
	struct chunk_req req;
	struct device_workload *wl;
	bool busy;
	uint32_t crcs[WORKLOAD_BLOCKS_MAX];
	uint8_t states[CHUNK_BLOCKS_MAX];
	uint8_t *buf; /* WORKLOAD_BLOCKS_MAX blocks */
};

struct workload_epoch {
	struct device_epoch_req req;
	struct device_workload *wl;
	bool busy;
};

struct workload_layer {
	struct device_layer layer;
	struct device_workload *wl;
	bool busy;
};

struct device_workload {
	struct workload_profile p;
	struct device_world dw;
	struct workload_op ops[WORKLOAD_DEPTH_MAX];
	uint32_t in_flight; /* of all kinds */
	bool idle;	    /* in_flight == 0, for waiting */
	struct workload_plan *plans;
	struct workload_epoch epochs[MODEL_VOLUMES + 1];
	struct workload_layer layers[MODEL_LAYERS + 1];
	layer_id heads[MODEL_VOLUMES + 1]; /* 0: the device was not told */
	layer_id last_layer;
	uint64_t last_cgen, last_commit;
	uint32_t last_chunk, step;
	uint32_t fault_steps_left;
	const char *ring; /* for the next open */
	/* a test's own look at the device while nobody serves it; may be NULL */
	void (*while_closed)(struct device_workload *wl);
	char log[WORKLOAD_LOG_LINES][WORKLOAD_LOG_LEN];
	uint32_t log_n;
	bool verbose;
};

/* Runs the whole of it; "" or what went wrong, in a text that lives until workload_free(). */
const char *workload_run(struct device_workload *wl, const struct workload_profile *p);
void workload_print_log(const struct device_workload *wl);
void workload_free(struct device_workload *wl);

/* The parts, for tests with their own idea of when to crash. */
void workload_start(struct device_workload *wl, const struct workload_profile *p);
void workload_step(struct device_workload *wl); /* submits something, runs a few events */
void workload_submit_some(struct device_workload *wl);
void workload_drain(struct device_workload *wl);
void workload_crashed(
    struct device_workload *wl); /* the world was killed or lost power: nothing is in flight any more */
/* After a successful open: tells the device again what may have been lost, then reads `percent` of everything. */
void workload_recover(struct device_workload *wl, uint32_t percent);
/* One request, filled in but for what every request has. */
struct workload_op *workload_op_free(struct device_workload *wl); /* NULL: all are in flight */
void workload_name_slot(struct device_workload *wl, struct chunk_req *r, uint32_t slot);
void workload_submit(struct device_workload *wl, struct workload_op *op);
void workload_raise_epoch(struct device_workload *wl, volume_id v, uint64_t epoch, layer_id head);
void workload_log(struct device_workload *wl, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
