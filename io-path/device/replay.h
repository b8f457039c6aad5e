/* SPDX-License-Identifier: Apache-2.0 */
/* replay.h - from a device of unknown state to one that may be served. The rules are in docs/device-format.md.
 *
 *   open.c            leads: lock, superblock, the steps below, then serving
 *   replay_read.c     reads of metadata that do not give up at once
 *   replay_scan.c     the journal as a chain: from which block to which
 *   replay_load.c     slot-entry pages and registry
 *   replay_apply.c    the records: first those of slots, tables and registry, then those of blocks; then what the restart ring adds
 *   replay_resolve.c  blocks of which the records alone do not say what they are: reads them
 *   boot.c            BOOT and corrections into the journal; from then on a further crash finds what this replay found */
#ifndef STRATA_IO_PATH_DEVICE_REPLAY_H
#define STRATA_IO_PATH_DEVICE_REPLAY_H

#include <stdbool.h>

#include "io-path/device/control.h"
#include "io-path/device/device.h"
#include "io-path/device/format.h"
#include "io-path/device/ring.h"
#include "io-path/device/waiter.h"
#include "src/ioe/ioe.h"

struct device;

struct replay;

enum { REPLAY_BUF_BYTES = 1 << 20, REPLAY_BUF_PAGES = REPLAY_BUF_BYTES / FMT_PAGE };

enum replay_mode { REPLAY_CLEAN, REPLAY_RING, REPLAY_POWER_LOSS };

/* What the scan keeps of a journal block */
struct scan_block {
	uint64_t lsn; /* 0: not a block of this journal */
	uint64_t incarnation, tail, stable_lsn;
	uint32_t crc, prev_crc;
	bool begins_with_boot, ends_with_clean;
	bool unreadable; /* nobody knows */
};

/* Pages that are read together. */
struct replay_span {
	uint64_t offset;
	uint8_t *buf;
	uint32_t pages_n;
};

struct replay_reading {
	struct replay_span span;
	uint32_t at; /* page that is read alone */
	uint32_t tries;
	uint64_t unreadable[REPLAY_BUF_PAGES / 64];
	void (*done)(struct replay *rp);
};
static inline bool replay_is_unreadable(const struct replay_reading *rd, uint32_t page)
{
	return rd->unreadable[page / 64] >> (page % 64) & 1;
}

/* A value that a record gives to a block, to be compared with what is on the medium: the older ones of a block first. */
struct candidate {
	uint32_t slot, block, value;
	uint32_t order;
};

/* The result for a block that was looked at */
struct resolution {
	uint32_t slot, block, value;
};

/* A block under a pending INTENT of the restart ring */
struct suspect {
	uint32_t slot, block;
	uint32_t intent; /* the value it was to get */
	uint32_t before; /* the value it had before its last record */
	bool has_before;
};

struct replay {
	struct device *dev;
	struct device_open *op;
	void (*done)(struct replay *rp, int status);
	struct ioe_req io;
	struct replay_reading read;
	struct waiter wait;
	uint8_t *buf, *buf2;
	uint64_t lock_until_ns;
	uint64_t sb_place; /* being read */
	struct fmt_superblock *sb[2];
	bool sb_is_alone; /* the other copy is damaged */
	struct control sb_write;

	/* scan */
	struct scan_block *blocks; /* by place in the ring */
	uint32_t at;		   /* next place, page, ... of the step that is on */
	uint64_t tail, next_lsn;   /* of the chain */
	uint64_t tail_stable;	   /* what its last block says is free is certainly free */
	uint64_t stable_lsn; /* what it says; all records are trusted after anything but a power loss */
	uint64_t trusted_lsn;
	uint32_t prev_crc;
	uint64_t incarnation, incarnation_highest;
	uint64_t meta_commit, unresolved_blocks;
	struct uuid ring_nonce;
	bool is_clean;
	enum replay_mode mode;
	struct ring_old ring;
	bool has_ring;

	/* registry */
	uint32_t half, half_pages_n;
	uint64_t half_seq[2]; /* 0: invalid */
	uint32_t pages_of_half[2];

	/* apply */
	uint64_t lsn; /* next block */
	int pass;
	uint64_t *table_from_lsn; /* by table page: records below it are in its home */
	uint32_t load_next;
	void (*loaded)(struct replay *rp);
	struct candidate *candidates;
	size_t candidates_n, candidates_room;
	struct suspect *suspects; /* sorted */
	size_t suspects_n, suspects_room, suspects_held;

	/* resolve */
	struct resolver *resolver;
	struct resolution *fixes; /* to be journaled: what differs from the last record */
	size_t fixes_n, fixes_room;

	/* boot */
	enum { BOOT_RECORD, BOOT_RING, BOOT_FIXES, BOOT_PENDING, BOOT_DONE } stage;
	struct ring_entry_view view; /* the entry that is journaled next */
	uint64_t view_pos;	     /* its position in the new ring */
	bool has_view;
	size_t fix_next;
};

void replay_free(struct replay *rp);
int replay_fail(struct replay *rp, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4))); /* says why; returns status */

/* Each calls `done` with 0 or an error (and then op->errmsg says more), from the loop. */
void replay_scan(struct replay *rp, void (*done)(struct replay *rp, int status));
void replay_load(struct replay *rp, void (*done)(struct replay *rp, int status));
void replay_apply(struct replay *rp, void (*done)(struct replay *rp, int status));
void replay_resolve(struct replay *rp, void (*done)(struct replay *rp, int status));
void replay_boot(struct replay *rp, void (*done)(struct replay *rp, int status));

/* Calls `done` always: rp->read says what could not be read. */
void replay_read(struct replay *rp, const struct replay_span *span, void (*done)(struct replay *rp));

/* Room for one more in a growing array. 0 or -ENOMEM. */
int replay_grow(void **array, size_t n, size_t *room, size_t elem_bytes);

static inline struct scan_block *scan_at(const struct replay *rp, uint32_t ring_blocks, uint64_t lsn)
{
	return &rp->blocks[lsn % ring_blocks];
}

/* Is an entry of the ring about what the slot holds now? */
bool replay_is_of_slot(const struct replay *rp, const struct fmt_record *rec);
/* Sets a value of a slot's block, by a record that counts. */
void replay_set_value(struct replay *rp, uint32_t slot, uint32_t block, uint32_t value);

#endif
