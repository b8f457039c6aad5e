/* SPDX-License-Identifier: Apache-2.0 */
/* ops.h - one request inside the device, from admission to `done`; and the device's own work on slots, which takes the same way.
 *
 *   submit -> (end of the turn) -> (a free op) -> epoch admitted -> in the list of its slot -> (nobody before it overlaps) -> start()
 *   ... op_finish()
 *
 * Each kind has its own op_*.c with the steps from start() on. Within a step the op waits for one thing at a time (`wait`, or `io`). */
#ifndef STRATA_IO_PATH_DEVICE_OPS_H
#define STRATA_IO_PATH_DEVICE_OPS_H

#include <stdbool.h>

#include "io-path/device/chunk.h"
#include "io-path/device/journal.h"
#include "io-path/device/tables.h"
#include "io-path/device/waiter.h"
#include "src/ioe/ioe.h"

struct device;
struct volume;
struct slot_run;
struct table_page;
struct slot_claim;

enum {
	OPS_MAX = 1024,	  /* requests executed at once; further ones wait in the order they came */
	OPS_OWN = 8,	  /* of them kept for the device's own work */
	OP_VALUES = 8,	  /* of a request this short the table values are kept in the op */
	OP_PARTS_MAX = 4, /* journal blocks that the records of one request go to */
};

struct op_part {
	uint32_t n; /* blocks */
	uint64_t lsn;
};

struct op {
	struct list link; /* ops.free, or slot_run.ops */
	struct device *dev;
	struct chunk_req *r; /* NULL: the device's own */
	struct volume *vol;  /* admitted under its epoch */
	struct slot_run *run;
	struct table_page *page; /* and in it, the value of its first block */
	uint32_t value_at;
	void (*start)(struct op *op);
	uint32_t slot, block, blocks_n;
	bool is_exclusive; /* else it only reads */
	bool is_blocked;   /* by an earlier one of the slot */
	int status;
	struct waiter wait;	   /* for one thing at a time */
	struct waiter stable_wait; /* for the flush, while the data is written */
	struct ioe_req io;

	/* reserved and not yet used */
	uint32_t journal_bytes, ring_bytes;
	uint32_t reserve_ring_bytes;
	void (*reserved)(struct op *op, int status);

	/* writes and clears */
	bool is_stable; /* answered when stable */
	bool is_risky;	/* flush.h */
	bool io_done;
	uint64_t intent; /* its entry in the restart ring */
	uint32_t parts_n;
	struct op_part parts[OP_PARTS_MAX];
	uint32_t values[OP_VALUES];

	/* reads */
	uint32_t data_first, data_n; /* the run of blocks that is read */
	uint32_t mismatches_n;
	int io_status;
	bool is_planned; /* the table was there first */
	bool retried;
	/* the device's own */
	void *buf;
	void (*own_done)(struct op *op, int status);
};

struct ops {
	struct op *all;
	struct list free;
	uint32_t free_n, busy_n;
	struct list submitted;	      /* struct chunk_req: in this turn */
	struct list queued;	      /* the same: in an earlier one, no op was free */
	struct list submitted_epochs; /* struct device_epoch_req: in this turn */
	struct ioe_hook hook;	      /* looks at what was submitted */
	struct list startable;	      /* struct waiter of ops that nothing blocks any more */
	bool draining;
	/* completions that may not be delivered where they arose */
	bool beginning;
	struct list finished;	     /* struct chunk_req */
	struct list finished_epochs; /* struct device_epoch_req */
	struct ioe_req deliver;
	bool delivering;
	struct list own_waiters; /* for an op of the device's own */
};

int ops_init(struct device *dev);
void ops_deliver_soon(struct device *dev); /* what is in `finished` */
void ops_free(struct device *dev);

/* Steps that all kinds share */
void op_admitted(struct op *op, int status); /* by its volume's epoch */
void op_enter_slot(struct op *op);
void op_finish(struct op *op, int status); /* the only exit: gives back what it holds, then done() */
struct slot_claim op_claim(const struct op *op);
/* The op's table page, in use from now on. 0 or -ENOMEM */
int op_get_page(struct op *op);
static inline uint32_t *op_table_values(const struct op *op)
{
	return op->page->values + op->value_at;
}

/* An op of the device's own on blocks of a slot, or NULL when none is free (or no memory): wait in ops.own_waiters. */
struct op *op_new_own(struct device *dev, void (*start)(struct op *op));

void op_read(struct op *op);
void op_write(struct op *op);
void op_clear(struct op *op);
void op_status(struct op *op);
void op_flush(struct op *op);
void op_free_slot(struct op *op);

/* ---- op_records.c: what writes, clears and repairs have in common --------------------------------------------------------- */

enum { OP_ENTRY_BYTES = sizeof(struct fmt_rec_alloc) }; /* an ALLOC, or the shorter ACTIVATE */

/* Reserves room in journal and ring for records of blocks_n blocks, in runs_n runs, and an ALLOC or ACTIVATE. True: reserved. False:
 * `reserved` is called, with the room reserved or an error. */
bool op_reserve(struct op *op, enum journal_level level, uint32_t blocks_n, uint32_t runs_n,
		void (*reserved)(struct op *op, int status));
void op_unreserve(struct op *op);
/* The blocks' values for a write: the given checksums, keyed. Of a long request they are in dev->values, for this step only. */
const uint32_t *op_write_values(struct op *op);
/* Journals that the op's blocks have these values; in flight: their data is still being written. */
void op_journal_blocks(struct op *op, const uint32_t *values, bool in_flight);
/* Then (now, or when the data is written) the table is told. */
void op_apply_blocks(struct op *op, const uint32_t *values);
/* Both at once for any run of blocks of the op's slot. */
void op_change_blocks(struct op *op, uint32_t block, uint32_t n, const uint32_t *values);
void op_data_end(struct op *op); /* the data of its records is written */
/* Opens the slot for it, or activates it. */
void op_alloc(struct op *op);
void op_activate(struct op *op);
uint32_t op_present_n(const struct op *op);

/* op_write_failed.c */
void op_write_failed(struct op *op, int status);
/* punch.c: gives the space of cleared blocks back once nobody can want their data any more */
void punch_add(struct op *op, uint64_t lsn);

#endif
