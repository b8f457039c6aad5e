/* SPDX-License-Identifier: Apache-2.0 */
/* mock_store.h - a chunk store in memory, with everything a runtime must survive from one: delays, reordering, errors, stale
 * mappings, devices that are away, full, or lose power.
 *
 * It keeps the contract of io-path/device/chunk.h to the letter, and counts as `violations` (with a text in `violation`) what
 * no caller may do: checksums that do not match the data, wrong labels, changes of the same block in flight together or with a
 * read, freeing a slot that holds data.
 *
 * Each request takes effect at one random moment between its submission and its completion. Memory comes from malloc():
 * mem_fail_at() is for the code under test. */
#ifndef STRATA_TESTS_LIB_MOCK_STORE_H
#define STRATA_TESTS_LIB_MOCK_STORE_H

#include <stdbool.h>

#include "io-path/node/store.h"
#include "src/base/hash.h"
#include "src/base/rand.h"
#include "src/ioe/ioe.h"

enum { MOCK_DEVICES_MAX = 8 };

struct mock_block {
	uint8_t state, stable_state; /* enum block_state */
	uint8_t *data, *stable_data; /* BLOCK_BYTES, or NULL */
};

struct mock_slot {
	uint64_t cgen; /* open: its own; free: the highest named */
	bool open;
	layer_id layer;
	uint32_t chunk;
	struct mock_block *blocks; /* open: chunk_blocks */
};

struct mock_device {
	bool away, stable, remote, full;
	uint64_t incarnation; /* grows when power is lost */
	uint32_t slots_n;
	struct mock_slot *slots;
	struct list waiting; /* while away */
	uint64_t flushes;
};

struct mock_store {
	struct chunk_store store;
	struct ioe *ioe;
	struct rand rand;
	uint32_t chunk_blocks;
	struct mock_device dev[MOCK_DEVICES_MAX + 1]; /* 1 .. */
	uint64_t delay_ns_max;
	/* per thousand of requests */
	uint32_t fail_permille;	 /* -EIO; a write may have changed any of its blocks */
	uint32_t stale_permille; /* -E_STALE_CGEN without reason, never twice in a row for a slot */
	volume_id stuck;	 /* requests of this volume wait, whatever the device; 0: none */
	uint64_t epoch;		 /* requests of lower ones are refused */
	uint64_t requests;
	uint32_t in_flight;
	struct list running;
	uint32_t violations;
	char violation[256];
};

void mock_store_init(struct mock_store *m, struct ioe *ioe, uint64_t seed, uint32_t devices_n,
		     uint32_t slots_n, uint32_t chunk_shift);
void mock_store_free(struct mock_store *m);
void mock_store_away(struct mock_store *m, device_no dev,
		     bool away);			       /* back: those who waited go on */
void mock_store_stuck(struct mock_store *m, volume_id volume); /* 0: all go on */
void mock_store_power_loss(struct mock_store *m,
			   device_no dev); /* each unflushed block: kept or dropped */
/* What the server does after an unmapping; false: it is not empty (and was not to be thrown away). */
void mock_store_drop(struct mock_store *m, device_no dev, uint32_t slot, uint64_t cgen,
		     bool may_hold_data);
/* The slot for cgen, NULL: it holds nothing of it. */
struct mock_slot *mock_store_slot(struct mock_store *m, device_no dev, uint32_t slot, uint64_t cgen);
/* Puts a block in place, stable; opens the slot. */
void mock_store_put(struct mock_store *m, device_no dev, uint32_t slot, uint64_t cgen,
		    layer_id layer, uint32_t chunk, uint32_t block, enum block_state state,
		    const void *data);
void mock_store_violation(struct mock_store *m, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
