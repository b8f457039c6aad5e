/* SPDX-License-Identifier: Apache-2.0 */
/* pool.h - the memory for the data of one connection's requests: pages of BLOCK_BYTES, given out in runs.
 *
 * The run with the lowest address is taken (first fit), so that a connection that needs little touches little memory and stays in
 * the processor's cache; pages never touched are not resident. pool_take() never allocates. An empty pool is no error: the caller
 * waits until something comes back. Nor is it one when the run would end above pages_allowed, which says how much of the pool may be
 * resident: its owner raises that (budget.h), or waits. */
#ifndef STRATA_TARGETS_NBD_POOL_H
#define STRATA_TARGETS_NBD_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "src/model/ids.h"

struct pool {
	uint8_t *mem;
	uint64_t *used;	  /* a bit per page; those past the end are set */
	uint32_t words_n; /* of `used` */
	uint32_t first;	  /* no word below has a clear bit */
	uint32_t pages_n;
	uint32_t pages_allowed; /* no run ends above; <= pages_n */
	uint32_t pages_used;
	uint32_t pages_touched; /* none at or above was given out since the last pool_shrink() */
};

/* What a pool may have without asking: room for a request of 1 MiB at any offset, and with less it is not worth shrinking. */
enum { POOL_SHARE_PAGES = (1 << 20) / BLOCK_BYTES + 2 };

/* Rounded down to pages, at least one; all of them are allowed. -ENOMEM */
int pool_init(struct pool *p, uint64_t len_bytes);
void pool_free(struct pool *p); /* zeroed or initialised; nothing may be out */

/* A run of n >= 1 pages, or NULL when there is none now. */
uint8_t *pool_take(struct pool *p, uint32_t n);
void pool_give(struct pool *p, const uint8_t *mem, uint32_t n);
/* How many pages must be allowed for pool_take(n) to succeed now; 0: however many are, there is no run. */
uint32_t pool_needs(struct pool *p, uint32_t n);

static inline bool pool_is_grown(const struct pool *p)
{
	return p->pages_touched > POOL_SHARE_PAGES;
}
/* The pages from the first to the last that is out. */
uint32_t pool_high(const struct pool *p);
/* Gives the memory of the pages from `keep` >= pool_high() on back to the system. */
void pool_shrink(struct pool *p, uint32_t keep);

#endif
