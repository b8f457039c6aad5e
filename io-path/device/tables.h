/* SPDX-License-Identifier: Apache-2.0 */
/* tables.h - the cache of block tables.
 *
 * A table page is in the cache while somebody uses it, while journal records of it are in no home (dirty: it is pinned), and as long after
 * that as memory allows; of a device that nobody uses for some seconds only a few stay. It can be written to before it has been read:
 * `known` says which of its values count already, the rest is filled in when the load is done. So no write ever waits for a table.
 *
 * A page that the disk does not give is *unreadable*: who waits for it is told -EIO, who asks next makes it be read again. Only when that
 * goes on for TABLE_UNREADABLE_NS while it is dirty, or when the device is being opened, is it given up, as one that came back with other
 * contents is at once: then the blocks that nobody has written since are bad.
 *
 * For each block of a dirty page the cache also remembers when it last became data or ceased to be data ("moved": the lsn of that
 * record): the rules for overwriting depend on it. 0: long ago, at or below published_lsn, or in a home. */
#ifndef STRATA_IO_PATH_DEVICE_TABLES_H
#define STRATA_IO_PATH_DEVICE_TABLES_H

#include <stdbool.h>

#include "io-path/device/format.h"
#include "io-path/device/pins.h"
#include "io-path/device/waiter.h"
#include "src/ioe/ioe.h"

struct device;

enum { TABLE_LOADS_MAX = 8, TABLE_LOAD_PAGES = 16, TABLE_LOAD_TRIES = 3 };
#define TABLE_UNREADABLE_NS ((uint64_t)60 * 1000 * 1000 * 1000)

struct table_page {
	/* what every request looks at, in one cache line */
	uint32_t *values;
	uint32_t *moved; /* lsn - moved_base; 0: long ago. NULL: all of them */
	uint64_t moved_base, moved_max;
	uint64_t last_lsn; /* of its youngest record */
	uint32_t page_no;
	uint32_t users;
	bool loaded, referenced;
	uint8_t tries;
	bool is_unreadable;	/* not loaded, nor about to be */
	uint64_t unreadable_ns; /* since when it could not be read; 0: it could */
	struct pin pin;
	struct list lru;     /* in tables.lru; while loading in tables.load_queue or in its load */
	struct list waiters; /* until it is loaded */
	/* checkpoint.c: from the copy until its CKPT is published */
	struct list ckpt_link;
	bool in_ckpt;
	bool picked;	   /* for the checkpoint that is being put together */
	uint64_t ckpt_lsn; /* of the CKPT record; 0: not yet in the journal */
	uint64_t ckpt_from_lsn;
	uint64_t home_from_lsn;			  /* records below it are in a home that counts */
	uint64_t known[FMT_VALUES_PER_PAGE / 64]; /* while it is not loaded */
};

/* What is resident of every table page */
struct table {
	uint64_t seq; /* of the current home; 0: never written, all holes */
	uint32_t crc;
	uint8_t home;
	struct table_page *page; /* NULL: not in the cache */
};

struct table_load {
	struct ioe_req io;
	struct device *dev;
	struct list pages; /* adjacent on the medium, in order */
	uint32_t pages_n;  /* 0: idle */
	uint8_t *buf;
};

struct tables {
	struct table *tables; /* by page number */
	struct list lru;      /* loaded pages; second chance, oldest first */
	struct list load_queue;
	struct table_load loads[TABLE_LOADS_MAX];
	uint64_t bytes, bytes_max;
	uint32_t dirty_n, dirty_max;
	uint32_t unreadable_n;
};

int tables_init(struct device *dev, uint64_t cache_bytes);
void tables_free(struct device *dev);

/* The page, in use until tables_put(); a load is on its way if it needs one. NULL: no memory. */
struct table_page *tables_get(struct device *dev, uint32_t page_no);
void tables_put(struct device *dev, struct table_page *p);
void tables_wait(struct table_page *p, struct waiter *w, void (*fn)(struct waiter *w, int status));
void tables_turn(struct device *dev); /* at the end of a turn: starts loads */
void tables_fail(struct device *dev);
/* Of a device that nobody uses: some of what is only kept for later is given back. True: there is no more of it. */
bool tables_trim(struct device *dev);
bool tables_are_trim(const struct device *dev);
bool tables_are_idle(const struct device *dev);	  /* no load is in flight */
bool tables_are_loaded(const struct device *dev); /* nor is one wanted */

static inline bool table_is_data(uint32_t value)
{
	return value > FMT_BLOCK_BAD;
}

/* A checkpoint of it was begun and is not in the journal yet: it has the next sequence number, so nothing may be opened that it does not
 * know of. */
static inline bool table_is_being_copied(const struct table_page *p)
{
	return p->in_ckpt && p->ckpt_lsn == 0;
}

/* Are all values [first, first + n) known? */
bool table_knows(const struct table_page *p, uint32_t first, uint32_t n);
/* Memory to remember when blocks moved; before the first table_set() of a write that may move some. 0 or -ENOMEM. */
int table_track(struct device *dev, struct table_page *p);
/* When value `at` moved. */
static inline uint64_t table_moved(const struct table_page *p, uint32_t at)
{
	return p->moved && p->moved[at] ? p->moved_base + p->moved[at] : 0;
}

/* A record about the page is in the journal, at lsn. */
void table_touch(struct device *dev, struct table_page *p, uint64_t lsn);
/* Blocks [block, block + n) of the slot now have these values, by a record at lsn. */
void table_set(struct device *dev, struct table_page *p, uint32_t slot, uint32_t block, uint32_t n,
	       const uint32_t *values, uint64_t lsn);
/* The slot opened or was freed: all its blocks are holes, and moved long ago. */
void table_clear_slot(struct device *dev, struct table_page *p, uint32_t slot);
/* Forgets moves that are published by now. */
void table_sweep(struct device *dev, struct table_page *p);
/* Moves the pin; 0: the page is clean. */
void table_pin_move(struct device *dev, struct table_page *p, uint64_t lsn);

#endif
