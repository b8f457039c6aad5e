/* SPDX-License-Identifier: Apache-2.0 */
/* pool.h - the memory for the data of one connection's requests: pages of BLOCK_BYTES, given out in runs.
 *
 * The run with the lowest address is taken (first fit), so that a connection that needs little touches little memory and stays in
 * the processor's cache; pages never touched are not resident. pool_take() never allocates. An empty pool is no error: the caller
 * waits until something comes back. */
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
	uint32_t pages_used;
	uint32_t pages_touched; /* none at or above was ever given out since the last trim */
};

/* A pool below this is not worth trimming. */
enum { POOL_KEEP_PAGES = (1 << 20) / BLOCK_BYTES };

int pool_init(struct pool *p, uint64_t len_bytes); /* rounded down to pages, at least one; -ENOMEM */
void pool_free(struct pool *p);			   /* zeroed or initialised; nothing may be out */

/* A run of n >= 1 pages, or NULL when there is none now. */
uint8_t *pool_take(struct pool *p, uint32_t n);
void pool_give(struct pool *p, const uint8_t *mem, uint32_t n);

static inline bool pool_is_idle(const struct pool *p)
{
	return p->pages_used == 0;
}
static inline bool pool_is_grown(const struct pool *p)
{
	return p->pages_touched > POOL_KEEP_PAGES;
}
/* Gives the pages of an idle pool back to the system, by taking new ones; when there are none, it keeps the old ones. */
void pool_trim(struct pool *p);

#endif
