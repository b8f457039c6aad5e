/* SPDX-License-Identifier: Apache-2.0 */
/* san_fixture.h - a SAN on a metastore in a small simulated world, and its requests as calls that wait. */
#ifndef STRATA_TESTS_LIB_SAN_FIXTURE_H
#define STRATA_TESTS_LIB_SAN_FIXTURE_H

#include "metadata/san/san.h"
#include "tests/lib/store_fixture.h"

enum { FIXTURE_NODE = 1, FIXTURE_POOL = 1, FIXTURE_TOLD_MAX = 64 };

struct san_fixture {
	struct store_fixture st;
	struct san *san;
	uint64_t cache_bytes; /* for the next open */
	struct uuid start;    /* of the node's process that opens volumes */
	/* what the callbacks said, in order */
	device_no told_frees[FIXTURE_TOLD_MAX];
	uint32_t told_frees_n;
	uint32_t told_jobs[FIXTURE_TOLD_MAX];
	uint32_t told_jobs_n;
	struct {
		layer_id layer;
		uint64_t commit;
		bool gone;
	} told_layers[FIXTURE_TOLD_MAX];
	uint32_t told_layers_n;
	int failed;
	/* called too, if set */
	void (*on_job)(void *arg, uint32_t job);
	void *on_job_arg;
};

void san_fixture_init(struct san_fixture *fx, enum store_kind kind, uint64_t seed);
void san_fixture_free(struct san_fixture *fx);
/* Close and open in good order; or the process is killed (mem) and a new one opens. The devices that were usable are again. */
void san_fixture_reopen(struct san_fixture *fx);
void san_fixture_crash(struct san_fixture *fx);
/* The two halves of a crash, for tests that have requests of their own in flight. */
void san_fixture_kill(struct san_fixture *fx);
int san_fixture_open(struct san_fixture *fx, char errmsg[ERRMSG_LEN]);

/* Runs until the request, which was submitted with done = san_waited, is done. */
void san_waited(struct san_req *r);
int san_wait(struct san_fixture *fx, struct san_req *r);
#define SAN_CALL(fx, fn, op) \
	((op)->req.done = san_waited, fn((fx)->san, op), san_wait(fx, &(op)->req))

/* A usable device of the pool with so many slots. */
device_no fx_device(struct san_fixture *fx, uint32_t slots_n);
/* A volume of so many chunks of 1 MiB. */
struct san_volume fx_volume(struct san_fixture *fx, const char *name, uint32_t chunks_n);
/* Opens it for the fixture's node: the epoch. */
uint64_t fx_open(struct san_fixture *fx, const char *name);
int fx_alloc(struct san_fixture *fx, const struct san_volume *v, uint64_t epoch, uint32_t first,
	     uint32_t n, struct san_map_item *items);
int fx_update(struct san_fixture *fx, const struct san_volume *v, uint64_t epoch, uint32_t chunk,
	      enum san_change change, uint64_t cgen);
/* What the map has for one chunk: kind MAP_UNMAPPED when nothing. */
struct map_entry fx_lookup(struct san_fixture *fx, const struct san_volume *v, uint32_t chunk);
/* Pulls and frees everything there is on the device: how many. */
uint32_t fx_free_all(struct san_fixture *fx, device_no dev);
/* Runs a job's steps to its end. */
void fx_run_job(struct san_fixture *fx, uint32_t job);
/* The check finds nothing wrong. */
void fx_check(struct san_fixture *fx);

#endif
