/* SPDX-License-Identifier: Apache-2.0 */
/* ring.h - the restart ring: memory that outlives this process but not the machine's power, so that a write may be acknowledged before it
 * is in the journal.
 *
 * Two files, RING_PATH.a and RING_PATH.b; the one whose nonce the last journal block names is valid, if it is of this device, incarnation and
 * boot. Entries are in the order in which they were made; one is published by a store-release of `head`:
 *   RECORD  a journal record that counts as soon as it is here (ALLOC, or BLOCKS of any length)
 *   INTENT  the BLOCKS of a write, before its data is submitted; counts when its `lsn` is set, which is before it is acknowledged
 * `lsn` is the journal block that the record went to (0: none yet). An entry leaves (`tail` moves) when that block and every earlier one
 * are written, and all entries before it have left. So what is in the ring is always a suffix of what happened: after a crash the entries
 * are applied, in order, on top of the journal, and it does not matter that some are in both.
 *
 * A new process copies what counts of the old ring into the other file under a new nonce, writes journal blocks that name it, waits, and
 * only then gives the old one up: a kill at any step leaves exactly the ring that the journal names. */
#ifndef STRATA_IO_PATH_DEVICE_RING_H
#define STRATA_IO_PATH_DEVICE_RING_H

#include <stdbool.h>

#include "io-path/device/journal.h"
#include "io-path/device/waiter.h"
#include "src/ioe/ioe.h"

struct device;

enum { RING_HEADER_BYTES = 4096, RING_ENTRY_BYTES = 1 << 20 };
#define RING_NO_INTENT UINT64_MAX

struct ring_header;

struct ring {
	bool on;
	struct ioe_shm shm;
	struct ring_header *header;
	uint8_t *entries;
	uint64_t head, tail; /* bytes since it was made */
	uint64_t reserved;
	struct list waiters; /* for room */
	char *path[2];	     /* .a and .b */
	uint32_t file;	     /* which of them */
};

/* What an entry takes at most: at the end of the ring there may be a gap before it. */
static inline uint32_t ring_bytes(uint32_t record_len)
{
	return 2 * (16 + (record_len + 7) / 8 * 8);
}

bool ring_reserve(struct device *dev, uint32_t bytes);
void ring_unreserve(struct device *dev, uint32_t bytes);
/* fn is called with the bytes reserved, or with an error. */
void ring_wait_room(struct device *dev, struct waiter *w, uint32_t bytes,
		    void (*fn)(struct waiter *w, int status));

/* All of these do nothing when there is no ring. The bytes were reserved, and stay so until the op gives them back: then an entry is counted
 * twice for a moment, and there is always room for it. */
void ring_record(struct device *dev, const void *rec, uint32_t len, uint64_t lsn);
void ring_blocks(struct device *dev, const struct journal_blocks *b, uint64_t lsn);
uint64_t ring_intent(struct device *dev, const struct journal_blocks *b); /* or RING_NO_INTENT */
void ring_done(struct device *dev, uint64_t intent, uint64_t lsn);
/* What became of it is said by other records, up to lsn. */
void ring_abort(struct device *dev, uint64_t intent, uint64_t lsn);

void ring_released(struct device *dev); /* written_lsn moved: entries may leave */
void ring_turn(struct device *dev);
void ring_fail(struct device *dev);
void ring_doubt(struct device *dev,
		bool doubt); /* there are doubtful slots: a new process must know */
void ring_free(struct device *dev);

/* ---- at the start of a process ------------------------------------------------------------------------------------------ */

int ring_paths(struct device *dev, const char *path); /* 0 or -ENOMEM */

struct ring_identity {
	struct uuid device, boot_id, nonce;
	uint64_t incarnation;
};

/* One that an earlier process left. */
struct ring_old {
	struct ioe_shm shm;
	uint32_t file;
	uint64_t at, tail, head; /* the entry that comes next; the first; the end */
	uint64_t written_lsn;	 /* the journal has to reach at least this far */
	bool doubt;
};
/* -ENOENT: there is no valid one. -E_FORMAT: it is the one, and damaged. */
int ring_old_open(struct device *dev, const struct ring_identity *id, struct ring_old *ret_old);
void ring_old_close(struct device *dev, struct ring_old *old);

struct ring_entry_view {
	bool is_pending; /* an INTENT whose data may or may not have been written */
	const struct fmt_record *rec;
};
/* The entries that count or are pending, in order. 1: here is one. 0: that was all. -E_FORMAT: it is damaged. */
int ring_old_next(struct ring_old *old, struct ring_entry_view *ret_view);
void ring_old_rewind(struct ring_old *old);

/* Makes this process's own, in the file that `old` (may be NULL) is not in. */
int ring_create(struct device *dev, const struct ring_identity *id, const struct ring_old *old);
/* Takes over an entry of the old one; its position, for ring_done() or ring_abort() when it is in the journal again. */
uint64_t ring_adopt(struct device *dev, const struct ring_entry_view *view);
uint64_t ring_adopted_bytes(const struct ring_entry_view *view); /* and the next one begins there */
void ring_remove_old(struct device *dev);			 /* the file that is not ours */
void ring_remove(struct device *dev);				 /* ours: after an orderly close */

#endif
