/* SPDX-License-Identifier: Apache-2.0 */
/* pool.h - the memory for the data of one connection's requests: pages of BLOCK_BYTES, given out in runs.
 *
 * The run with the lowest address is taken (first fit), so that a connection that needs little touches little memory and stays in
 * the processor's cache; pages never touched are not resident. No allocation after pool_init(). An empty pool is no error: the caller
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
};

int pool_init(struct pool *p,
	      uint64_t len_bytes); /* rounded down to pages, at least one; -ENOMEM */
void pool_free(struct pool *p);	   /* zeroed or initialised; nothing may be out */

/* A run of n >= 1 pages, or NULL when there is none now. */
uint8_t *pool_take(struct pool *p, uint32_t n);
void pool_give(struct pool *p, const uint8_t *mem, uint32_t n);

#endif
