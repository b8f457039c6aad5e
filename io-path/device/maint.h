/* SPDX-License-Identifier: Apache-2.0 */
/* maint.h - what keeps the journal's tail moving: checkpoints and retirement, in rounds.
 *
 *   IDLE -> TABLES* -> PUBLISH* -> RETIRE* -> SLOTS* -> REGISTRY* -> TAIL* -> IDLE or the next round        (* suspends)
 *
 * A round takes what is due: what pins the older part of the ring when that fills up, the oldest dirty pages when there are too many, slots
 * that are to retire and what they need for it, and everything when the device is idle or closes. maint.c decides and leads;
 * checkpoint.c writes pages.
 *   TABLES    the older home of table pages, a flush, CKPT records
 *   PUBLISH   waits until they are published; from then on the homes count
 *   RETIRE    records for slots of which nothing is in the journal alone any more
 *   SLOTS     slot-entry pages whose records are all stable: one home, a flush, the other home, a flush; from then on they count
 *   REGISTRY  the same with the two halves
 *   TAIL      a block that says the new tail, stable */
#ifndef STRATA_IO_PATH_DEVICE_MAINT_H
#define STRATA_IO_PATH_DEVICE_MAINT_H

#include <stdbool.h>
#include <stdint.h>

#include "io-path/device/format.h"
#include "io-path/device/waiter.h"
#include "src/ioe/ioe.h"

struct device;
struct table_page;

enum { CKPT_PAGES_MAX = 512, CKPT_WRITES_MAX = 16, CKPT_WRITE_PAGES = 64 };
#define MAINT_TICK_NS ((uint64_t)2 * 1000 * 1000 * 1000)
enum {
	MAINT_QUIET_TICKS = 5
}; /* then nobody uses the device, and what it keeps for later is given back */

struct ckpt_write {
	struct ioe_req io;
	struct device *dev;
	bool busy;
};

/* Pages of one kind on their way to their older homes: checkpoint.c */
struct ckpt {
	uint32_t pages[CKPT_PAGES_MAX]; /* numbers, sorted */
	uint32_t n, next;		/* how many, how many are submitted */
	uint8_t *buf;			/* their bytes */
	uint32_t writes_n;		/* in flight */
	struct ckpt_write writes[CKPT_WRITES_MAX];
	uint64_t (*offset)(struct device *dev, uint32_t page);
	void (*written)(struct device *dev);
};

struct maint {
	enum {
		MAINT_IDLE,
		MAINT_TABLES,
		MAINT_PUBLISH,
		MAINT_RETIRE,
		MAINT_SLOTS,
		MAINT_REGISTRY,
		MAINT_TAIL
	} step;
	bool wanted;	 /* somebody asked for a round */
	bool everything; /* the next round takes all there is */
	bool retire_all; /* closing */
	/* of the round that is on */
	bool all;	     /* it takes everything */
	bool pressed;	     /* the ring, the cache or the active slots run full */
	bool did;	     /* it did something */
	uint64_t below_lsn;  /* what is pinned below this is due */
	uint64_t ckpt_lsn;   /* of the last CKPT record */
	uint64_t from_lsn;   /* of what is copied */
	uint32_t tables_max; /* so many table pages at most */
	struct ckpt ckpt;
	uint8_t *registry_buf;
	bool registry_busy; /* it is being written */
	uint32_t registry_pages_n;
	struct waiter wait;

	struct list unpublished; /* struct table_page.ckpt_link: CKPT in the journal, not published */
	struct list waiters;	 /* for an active slot to retire, or a dirty page to get clean */
	bool freed;		 /* one did in this turn */
	struct ioe_req timer;
	bool timer_armed;
	/* the table lookups counted at the last tick, and since how many ticks there were none */
	uint64_t lookups_n;
	uint32_t quiet_ticks;
};

int maint_init(struct device *dev);
void maint_free(struct device *dev);
void maint_kick(struct device *dev); /* something may be due */
void maint_everything(
    struct device *dev); /* all that can be done is due; retires all but doubtful slots */
void maint_wait(struct device *dev, struct waiter *w, void (*fn)(struct waiter *w, int status));
void maint_freed(struct device *dev);	/* an active slot retired, a dirty page is clean */
void maint_turn(struct device *dev);	/* at the end of a turn */
void maint_flushed(struct device *dev); /* a device flush completed */
void maint_used(struct device *dev);  /* there is something to tidy up when the device gets idle */
void maint_watch(struct device *dev); /* or to give back */
void maint_fail(struct device *dev);
void maint_stop(struct device *dev); /* no tick any more */
bool maint_is_idle(const struct device *dev);
/* Nothing is dirty, nothing active but what is doubtful, and all of it stable. */
bool maint_is_tidy(const struct device *dev);

/* ---- checkpoint.c ------------------------------------------------------------------------------------------------------- */

/* Adds a page (at most CKPT_PAGES_MAX, each once). */
void ckpt_add(struct device *dev, uint32_t page);
/* Sorts what was added, copies (fill) and writes it; `done` when all is written, not when the device failed. -ENOMEM: nothing happened. */
int ckpt_start(struct device *dev, void (*fill)(struct device *dev, uint32_t page, uint8_t *to),
	       uint64_t (*offset)(struct device *dev, uint32_t page),
	       void (*done)(struct device *dev));
/* Once more, to where the pages belong by now. */
void ckpt_write(struct device *dev, void (*done)(struct device *dev));
static inline uint8_t *ckpt_copy(struct ckpt *c, uint32_t i)
{
	return c->buf + (size_t)i * FMT_PAGE;
}

/* Of table pages: the copy; where it goes; and its CKPT record, whose bytes are reserved. */
void ckpt_table_fill(struct device *dev, uint32_t page, uint8_t *to);
uint64_t ckpt_table_offset(struct device *dev, uint32_t page);
void ckpt_table_record(struct device *dev, uint32_t page, const uint8_t *bytes);
/* Those whose CKPT is published are done. */
void ckpt_tables_published(struct device *dev);

/* Of slot-entry pages: the same; once it is on the medium, the copy is made that of the other home; and once both are. */
void ckpt_slots_fill(struct device *dev, uint32_t page, uint8_t *to);
uint64_t ckpt_slots_offset(struct device *dev, uint32_t page);
void ckpt_slots_turn(struct device *dev, uint32_t page, uint8_t *bytes);
void ckpt_slots_done(struct device *dev, uint32_t page);

#endif
