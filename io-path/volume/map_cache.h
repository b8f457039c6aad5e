/* SPDX-License-Identifier: Apache-2.0 */
/* map_cache.h - the part of the SAN map that this node's volumes have used lately.
 *
 * The unit is a page: the stacks of 256 consecutive chunks of one volume. A page is fetched as a whole, so "unmapped" is cached
 * like everything else. All volumes share one bounded set of pages; the ones not used lately make room.
 *
 *   (absent) -> LOADING -> READY -> (absent)        evicted: only READY pages without pins
 *                  ^          |
 *                  +-- STALE -+                     refetch: a device refused a mapping; the load waits until nobody pins the page
 *
 * A change of the map under way (an allocation, an unmapping) pins the pages it concerns, from the lookup until its result was
 * put in by map_set_head(). Loads and changes of a page therefore exclude one another, and an old answer cannot overwrite a
 * newer one.
 *
 * Nobody keeps a pointer into a page over a suspension: look it up again; it may be gone. */
#ifndef STRATA_IO_PATH_VOLUME_MAP_CACHE_H
#define STRATA_IO_PATH_VOLUME_MAP_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "io-path/node/meta.h"
#include "io-path/volume/fixed_pool.h"
#include "src/base/hash.h"
#include "io-path/volume/turn.h"
#include "src/base/list.h"

struct volume;
struct volumes;

enum { MAP_PAGE_SHIFT = 8, MAP_PAGE_CHUNKS = 1 << MAP_PAGE_SHIFT };

/* A map entry as the data path needs it: the one replica that is in use today. */
struct map_item {
	uint64_t cgen;
	uint32_t slot;
	device_no dev;
	uint8_t kind;  /* enum map_kind */
	uint8_t flags; /* enum map_flags, and those below */
};
enum {
	MAP_ITEM_BATCHED = 1 << 7, /* flag of a head: part of the allocation that is under way */
	MAP_ITEM_EMPTY =
	    1 << 6, /* flag of a reserved head: we have reserved it, and nobody has written there since */
	MAP_KIND_UNSUPPORTED = 255, /* an entry that only later versions can read */
};

/* A reserved slot in which there may be data that was never acknowledged (run_ahead.c). */
static inline bool map_item_has_leftovers(const struct map_item *i)
{
	return i->flags & MAP_RESERVED && !(i->flags & MAP_ITEM_EMPTY);
}

static inline bool map_item_same(const struct map_item *a,
				 const struct map_item *b) /* the same slot contents */
{
	return a->cgen == b->cgen && a->dev == b->dev && a->slot == b->slot;
}

/* An ancestor's entry. */
struct map_below {
	struct map_item item;
	uint32_t depth; /* of its layer in the chain; the head is 0 */
};

struct map_stacks {
	/* those of chunk i are items[at[i]] up to items[at[i + 1]] */
	uint32_t at[MAP_PAGE_CHUNKS + 1];
	uint32_t room;
	struct map_below items[];
};

enum map_page_state { MAP_PAGE_LOADING, MAP_PAGE_READY, MAP_PAGE_STALE };

struct map_page {
	struct hnode node; /* in map_cache.pages */
	struct list by_volume, by_age, queue;
	struct list waiters;
	struct volume *v;
	uint32_t no; /* chunks [no << MAP_PAGE_SHIFT, ...) */
	uint32_t pins;
	uint8_t state;		  /* enum map_page_state */
	bool referenced;	  /* used since the clock hand passed */
	struct map_stacks *below; /* ancestors' entries; NULL when no chunk of the page has any */
	struct map_item head[MAP_PAGE_CHUNKS];
};

struct map_load;

struct map_cache {
	struct volumes *vs;
	struct htab pages;
	struct fixed_pool pool;
	struct list by_age;  /* all pages, the clock's ring */
	struct list queue;   /* LOADING pages that wait for a free load */
	struct list starved; /* map_waiters for whose page there is no room */
	uint64_t below_bytes, below_bytes_max;
	struct map_load *loads;
	struct list loads_free;
	uint32_t loads_busy_n;
	struct vol_task starved_task;
};

/* Somebody who waits for a page or an allocation. fn runs from the loop with 0 or an error; look up again then. */
struct map_waiter {
	struct list link;
	struct volume *v;
	uint32_t chunk;
	void (*fn)(struct map_waiter *w, int status);
};

int map_cache_init(struct map_cache *c, struct volumes *vs); /* 0 or -ENOMEM */
void map_cache_free(struct map_cache *c); /* zeroed or initialised; no pages in use */

/* A page of v that is READY, or NULL: then map_wait(). */
struct map_page *map_page_find(struct volume *v, uint32_t chunk);
/* Waits until the chunk's page was fetched (or that failed). */
void map_wait(struct volume *v, uint32_t chunk, struct map_waiter *w,
	      void (*fn)(struct map_waiter *w, int status));

static inline struct map_item *map_head(struct map_page *p, uint32_t chunk)
{
	return &p->head[chunk & (MAP_PAGE_CHUNKS - 1)];
}
/* The ancestors' entries of a chunk, nearest first. */
uint32_t map_below(const struct map_page *p, uint32_t chunk, const struct map_below **ret_items);

/* From the lookup that decides on a change of the map until its result was put in: loads of the page wait. */
void map_pin(struct map_page *p);
void map_unpin(struct volume *v, uint32_t chunk);
struct map_item *map_head_pinned(struct volume *v, uint32_t chunk);
void map_set_head(struct volume *v, uint32_t chunk, const struct map_item *item);
/* What is known of the chunk's page is not to be trusted: the next lookup waits until it was fetched again. */
void map_refetch(struct volume *v, uint32_t chunk);
void map_shrunk(struct volume *v, uint32_t first); /* nothing is known of chunks from `first` on */

/* The one conversion from what the metadata server says. */
struct map_item map_item_of(const struct map_entry *e);

void map_prefetch(
    struct volume *v); /* goes on with the volume's first pages while nobody else needs the loads */
void map_forget(struct volume *v); /* all pages are READY and nobody pins them or waits */

#endif
