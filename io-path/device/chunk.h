/* SPDX-License-Identifier: Apache-2.0 */
/* chunk.h - one request to one chunk in one slot of one device, wherever that device is.
 *
 * The volume runtime builds these; a chunk store (io-path/node/store.h) carries each to its device, on this node (device.h executes it)
 * or on another (the node protocol carries it). The struct is the caller's, embedded in its operation, and must not be touched between
 * submit and `done`. `done` runs from the loop, never inline, exactly once, and is the last touch.
 *
 * Errors (status): 0; -E_STALE_EPOCH (the volume has a newer owner: stop); -E_STALE_CGEN (fetch the mapping again); -E_CHECKSUM,
 * -E_BAD_BLOCK (damage: `states` tells which blocks when given); -ENOSPC (the device's backing is full, nothing changed);
 * -E_DEVICE_FAILED, -E_DEVICE_GONE; -E_FROZEN; -EIO. After a failed CHUNK_WRITE each of its blocks is old, new or bad, never anything
 * else. */
#ifndef STRATA_IO_PATH_DEVICE_CHUNK_H
#define STRATA_IO_PATH_DEVICE_CHUNK_H

#include <stdint.h>

#include "src/base/list.h"
#include "src/model/ids.h"

/* Numbers of operations and flags travel between nodes (docs/wire.md). */
enum chunk_op {
	CHUNK_READ =
	    0, /* blocks [block, block + blocks_n) into buf, verified; holes and zeros read as zeros (see states) */
	CHUNK_WRITE =
	    1, /* buf, whose plain CRC32Cs are in crcs; opens a free slot when cgen is newer than any it remembers */
	CHUNK_CLEAR =
	    2, /* the blocks become CHUNK_F_ZERO ? zero : hole (a hole in a free slot: nothing to do); their space is punched */
	CHUNK_STATUS = 3, /* states only; no data is read */
	CHUNK_FLUSH =
	    4, /* what was acknowledged on the device before this was submitted is stable; only dev, volume and epoch matter */
	CHUNK_FREE =
	    5, /* the slot is free, its space given back, cgen (and all below) never valid again; labels and epoch do not matter */
};

enum chunk_flags {
	CHUNK_F_STABLE = 1 << 0, /* WRITE, CLEAR: answer only when stable (FUA, writethrough) */
	CHUNK_F_ZERO = 1 << 1,	 /* CLEAR: to zero instead of hole */
	CHUNK_F_IF_EMPTY =
	    1 << 2, /* FREE: only if no block is present, else -ENOTEMPTY and nothing changes */
};

struct chunk_req {
	/* what: constant from submit to done */
	enum chunk_op op;
	uint32_t flags;
	device_no dev;
	volume_id volume;
	uint32_t slot;
	uint64_t cgen;
	uint64_t epoch; /* of the volume; a device that knows an older one makes this one durable first */
	layer_id layer; /* labels: written when the slot opens, for rebuild; checked on every request to an open slot */
	uint32_t chunk;
	uint32_t block, blocks_n; /* within the chunk */
	void *buf;		  /* blocks_n * BLOCK_BYTES, aligned to BLOCK_BYTES */
	uint32_t *
	    crcs; /* blocks_n plain CRC32Cs; WRITE: given. READ: returned if not NULL (0 for holes and zeros) */
	uint8_t *states; /* blocks_n of enum block_state; READ, STATUS: returned if not NULL */
	void (*done)(struct chunk_req *r);
	/* results */
	int status;
	/* blocks of the slot that are data or bad after the operation; of a WRITE perhaps fewer than there are, because it does not wait for
	 * a block table that is not in memory */
	uint32_t present_n;
	bool volatile_ack; /* WRITE, CLEAR: acknowledged, not yet stable: a flush is owed */
	/* WRITE, CLEAR: the device's. FLUSH: given back, what the volatile acknowledgements came with
	 * (0: there were none): a device that has lost its memory since answers
	 * -E_UNFLUSHED_LOST, each time it is asked with the old one. */
	uint64_t incarnation;
	/* whoever carries the request, in turn */
	struct list link;
	uint64_t priv[6];
};

#endif
