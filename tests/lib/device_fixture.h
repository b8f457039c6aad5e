/* SPDX-License-Identifier: Apache-2.0 */
/* device_fixture.h - one device in a small simulated world, and its requests as calls that wait.
 *
 * A killed process's memory is given back by the arena of the process. */
#ifndef STRATA_TESTS_LIB_DEVICE_FIXTURE_H
#define STRATA_TESTS_LIB_DEVICE_FIXTURE_H

#include "io-path/device/device.h"
#include "tests/lib/mem_arena.h"
#include "tests/lib/sim_fixture.h"

#define DEVICE_PATH "disk0"
#define DEVICE_RING "ring0"

struct device_fixture {
	struct sim_fixture sim;
	struct mem_arena arena;
	struct device *dev; /* NULL: closed, or dead */
	struct device_open open;
	bool with_ring;
	uint64_t size_bytes;
	uint64_t cache_bytes;
	uint32_t chunk_shift;
	struct uuid cluster;
	char errmsg[ERRMSG_LEN];
	uint32_t events_n;
	char last_event[64];
};

/* A world with a formatted device that is not open. */
void device_fixture_init(struct device_fixture *fx, uint64_t seed);
/* Of another size, in a world of another kind. */
void device_fixture_init_as(struct device_fixture *fx, const struct sim_config *cfg,
			    uint64_t size_bytes);
void device_fixture_free(struct device_fixture *fx);
int fixture_format(struct device_fixture *fx, bool force);
int fixture_open(struct device_fixture *fx, bool read_only);
/* Begins to open it and runs the world for so many steps; to be killed then, or left running. True: it is open. */
bool fixture_open_steps(struct device_fixture *fx, uint32_t steps);
int fixture_close(struct device_fixture *fx);
void fixture_kill(struct device_fixture *fx);	    /* and a new process */
void fixture_power_loss(struct device_fixture *fx); /* and a new process */

/* Requests of volume 1, epoch 1, layer 1; the chunk number is the slot's. */
struct fixture_req {
	struct chunk_req r;
	struct device_fixture *fx;
	bool is_done;
	uint32_t crcs[CHUNK_BLOCKS_MAX];
	uint8_t states[CHUNK_BLOCKS_MAX];
	uint8_t *buf;
};
struct fixture_req *req_new(struct device_fixture *fx, enum chunk_op op, uint32_t slot,
			    uint64_t cgen, uint32_t block, uint32_t n);
void req_fill(struct fixture_req *q, uint32_t seed); /* bytes and checksums of a write */
void req_submit(struct fixture_req *q);
int req_wait(struct fixture_req *q); /* status */
void req_free(struct fixture_req *q);

/* In one step; `seed` decides the bytes. */
int dev_write(struct device_fixture *fx, uint32_t slot, uint64_t cgen, uint32_t block, uint32_t n,
	      uint32_t seed, uint32_t flags);
/* 0 when the blocks hold the bytes of `seed` (0: zeros); -EBADMSG when they do not; else the status */
int dev_expect(struct device_fixture *fx, uint32_t slot, uint64_t cgen, uint32_t block, uint32_t n,
	       uint32_t seed);
int dev_clear(struct device_fixture *fx, uint32_t slot, uint64_t cgen, uint32_t block, uint32_t n,
	      uint32_t flags);
int dev_free(struct device_fixture *fx, uint32_t slot, uint64_t cgen, uint32_t flags);
int dev_flush(struct device_fixture *fx);
/* The state of one block, or an error */
int dev_state(struct device_fixture *fx, uint32_t slot, uint64_t cgen, uint32_t block);

#endif
