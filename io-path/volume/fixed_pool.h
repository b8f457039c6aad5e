/* SPDX-License-Identifier: Apache-2.0 */
/* fixed_pool.h - items of one size, allocated at start; the last one given back is taken first, while it is in the cache. Items
 * never taken are never touched, so an idle pool costs address space only. */
#ifndef STRATA_IO_PATH_VOLUME_FIXED_POOL_H
#define STRATA_IO_PATH_VOLUME_FIXED_POOL_H

#include <stddef.h>
#include <stdint.h>

struct fixed_pool_item { /* what a free item holds */
	struct fixed_pool_item *next;
};

struct fixed_pool {
	struct fixed_pool_item *free;
	char *memory;
	size_t item_bytes;
	uint32_t items_n, touched_n, out_n;
};

/* item_bytes is rounded up to `align_bytes`, a power of two. 0 or -ENOMEM */
int fixed_pool_init(struct fixed_pool *p, uint32_t items_n, size_t item_bytes, size_t align_bytes);
void fixed_pool_free(struct fixed_pool *p); /* zeroed or initialised; nothing is out */

static inline void *fixed_pool_get(struct fixed_pool *p) /* NULL: none is free */
{
	struct fixed_pool_item *i = p->free;

	if (i) {
		p->free = i->next;
	} else {
		if (p->touched_n == p->items_n)
			return NULL;
		i = (struct fixed_pool_item *)(void *)(p->memory + p->touched_n++ * p->item_bytes);
	}
	p->out_n++;
	return i;
}

static inline void fixed_pool_put(struct fixed_pool *p, void *item)
{
	struct fixed_pool_item *i = item;

	i->next = p->free;
	p->free = i;
	p->out_n--;
}

#endif
