/* SPDX-License-Identifier: Apache-2.0 */
/* journal.h - the ring of journal blocks: records in, blocks out, and how far things have come.
 *
 * Records go into the open block, in memory. It is closed when it is full, by the commit timer, or for a flush; from then on its bytes are
 * fixed, and journal_push() writes it, together with its neighbours. Several writes are in flight at once.
 *
 *   tail_stable <= published_lsn, stable_lsn <= complete_lsn <= written_lsn < open_lsn
 *
 *   written_lsn    every block up to it is written
 *   complete_lsn   ... and the data of all their records too (records of stable writes are journaled together with their data)
 *   stable_lsn     ... before a device flush that completed
 *   published_lsn  the largest stable_lsn that a block at or below stable_lsn says: what a replay is sure to know
 *   tail_stable    the tail that such a block says: blocks below it may be reused
 *
 * Room. Whoever is going to append reserves the bytes first, so that an append never fails and never waits. There are two limits: blocks in
 * memory that are not complete, and blocks of the ring that are not free. The levels leave a quarter of the ring to what frees it. */
#ifndef STRATA_IO_PATH_DEVICE_JOURNAL_H
#define STRATA_IO_PATH_DEVICE_JOURNAL_H

#include <stdbool.h>

#include "io-path/device/codec.h"
#include "io-path/device/pins.h"
#include "io-path/device/waiter.h"
#include "src/ioe/ioe.h"

struct device;

enum {
	JOURNAL_STAGING_BLOCKS = 256, /* closed or open, not complete */
	JOURNAL_WRITES_MAX = 4,	      /* in flight */
	JOURNAL_WRITE_BLOCKS_MAX = 64,
	/* of a block, that reservations may count on: records but BLOCKS are not split, and the longest of them may just not fit */
	JOURNAL_BLOCK_BYTES = FMT_PAGE - 96 - 180,
};
#define JOURNAL_COMMIT_NS ((uint64_t)5 * 1000 * 1000)

enum journal_level {
	JOURNAL_WRITE, /* client writes and clears: up to 3/4 of the ring */
	JOURNAL_FREE,  /* FREE, EPOCH, LAYER: up to 7/8 */
	JOURNAL_MAINT, /* CKPT and RETIRE: up to 15/16; the rest is for blocks that publish */
};

struct journal_block {
	enum { JBLOCK_OPEN, JBLOCK_CLOSED, JBLOCK_WRITTEN } state;
	uint32_t data_pending; /* records whose data is not written */
};

struct journal_write {
	struct ioe_req io;
	struct device *dev;
	uint64_t first_lsn;
	uint32_t blocks_n; /* 0: idle */
};

struct journal {
	uint32_t ring_blocks;
	uint8_t *staging; /* of block L at L % JOURNAL_STAGING_BLOCKS */
	struct journal_block blocks[JOURNAL_STAGING_BLOCKS];
	struct journal_write writes[JOURNAL_WRITES_MAX];

	/* the open block */
	uint64_t open_lsn;
	uint32_t open_used;
	uint32_t open_last;	/* offset of its last record; 0: none */
	uint64_t open_since_ns; /* its first record */

	/* how far things have come */
	uint64_t pushed_lsn, written_lsn, complete_lsn, stable_lsn, published_lsn, tail_stable;
	uint64_t record_lsn; /* of the youngest record */

	/* what the headers say; of the last closed block, what it said */
	uint64_t incarnation, meta_commit, unresolved_blocks;
	struct uuid ring_nonce;
	uint64_t said_stable, said_tail;
	uint32_t said_crc;

	uint64_t reserved_bytes;
	struct list room_waiters;    /* bytes, kind: enum journal_level */
	struct list written_waiters; /* lsn: until written_lsn reaches it */
	struct pins pins;

	struct ioe_req timer;
	bool timer_armed;
	uint64_t records_n, blocks_n; /* counters */
};

/* What a replay (or the end of one) found: where to go on. */
struct journal_state {
	uint64_t next_lsn; /* the first free one */
	uint32_t prev_crc;
	uint64_t tail, stable_lsn;
	uint64_t incarnation, meta_commit, unresolved_blocks;
};

int journal_init(struct device *dev);
void journal_free(struct device *dev);
void journal_start(struct device *dev, const struct journal_state *s);

/* ---- room ------------------------------------------------------------------------------------------------------------- */

bool journal_reserve(struct device *dev, enum journal_level level, uint32_t bytes);
void journal_unreserve(struct device *dev, uint32_t bytes);
/* fn is called with the bytes reserved, or with an error; first come, first served within a level. */
void journal_wait_room(struct device *dev, struct waiter *w, enum journal_level level,
		       uint32_t bytes, void (*fn)(struct waiter *w, int status));
bool journal_is_over(const struct device *dev, uint32_t part, uint32_t of); /* of the ring */

/* ---- records ---------------------------------------------------------------------------------------------------------- */

/* Both return the lsn of the block that the record went to. The bytes must have been reserved; journal_add() gives its own back, a run of
 * blocks, which may become several records, is given back by the caller when all of it is in. */
uint64_t journal_add(struct device *dev, const void *rec, uint32_t len);
/* As many of the n values as fit into one record of the open block: at least one; returned in ret_n. */
struct journal_blocks {
	uint32_t slot;
	uint64_t cgen;
	uint32_t first, n;
	const uint32_t *values;
};
uint64_t journal_add_blocks(struct device *dev, const struct journal_blocks *b, uint32_t *ret_n);
/* The most that n values can take, in however many records. */
static inline uint32_t journal_blocks_bytes(uint32_t n)
{
	return 4 * n + (uint32_t)sizeof(struct fmt_rec_blocks) * (n / FMT_REC_BLOCKS_N_MAX + 3);
}

/* The data of a record in block lsn is still being written; and is now. */
void journal_data_begin(struct device *dev, uint64_t lsn);
void journal_data_end(struct device *dev, uint64_t lsn);

/* ---- blocks ----------------------------------------------------------------------------------------------------------- */

void journal_close_block(struct device *dev); /* empty ones too: they publish */
bool journal_open_is_empty(const struct device *dev);
void journal_turn(
    struct device *dev); /* at the end of a turn: wakes who waits for room, writes what is closed */
/* Writes the open block soon even if nothing else asks for it. */
void journal_commit_soon(struct device *dev);
void journal_wait_written(struct device *dev, struct waiter *w, uint64_t lsn,
			  void (*fn)(struct waiter *w, int status));
void journal_fail(struct device *dev); /* the device failed: everybody who waits is told */
bool journal_is_idle(const struct device *dev);
void journal_stop(struct device *dev); /* the end is near: no commit timer any more */
/* A flush that captured block `lsn`, which said these, completed. */
void journal_flushed(struct device *dev, uint64_t lsn, uint64_t said_stable, uint64_t said_tail);

#endif
