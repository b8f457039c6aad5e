/* SPDX-License-Identifier: Apache-2.0 */
/* pins.h - which journal blocks are still needed, and by whom: where the journal's tail may be.
 *
 * A page (or the registry) whose journal records are in no stable home yet pins the lsn of the oldest of them. Pins hang in buckets, each for a
 * stretch of the ring, so that setting one costs nothing and the oldest are found at once; the tail moves by whole stretches. */
#ifndef STRATA_IO_PATH_DEVICE_PINS_H
#define STRATA_IO_PATH_DEVICE_PINS_H

#include <stdint.h>

#include "src/base/list.h"

enum pin_kind { PIN_TABLE, PIN_SLOTS, PIN_REGISTRY };
enum { PINS_STRETCHES = 64, PINS_BUCKETS = 2 * PINS_STRETCHES };

struct pin {
	struct list link;
	uint64_t lsn; /* 0: none */
	enum pin_kind kind;
};

struct pins {
	uint32_t stretch_blocks;
	uint64_t tail; /* as last computed */
	uint64_t low;  /* number of the oldest stretch that may have pins */
	struct list buckets[PINS_BUCKETS];
};

/* No lsn below `tail` will ever be pinned. */
void pins_init(struct pins *p, uint32_t ring_blocks, uint64_t tail);
void pin_init(struct pin *pin, enum pin_kind kind);

/* Needs the journal from lsn on; an older pin stays. */
void pin_need(struct pins *p, struct pin *pin, uint64_t lsn);
/* Needs it from lsn on only (what it needed no more before stays so), or (0) no more. */
void pin_move(struct pins *p, struct pin *pin, uint64_t lsn);

/* The lsn below which nothing is pinned; never decreases, and does not go beyond `limit`. Nothing below limit is pinned anew. */
uint64_t pins_tail(struct pins *p, uint64_t limit);

/* Calls fn for pins below lsn, oldest stretches first, until it returns false. fn may move or remove its own pin only. */
void pins_each_below(struct pins *p, uint64_t lsn, bool (*fn)(void *arg, struct pin *pin),
		     void *arg);

#endif
