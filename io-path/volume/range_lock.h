/* SPDX-License-Identifier: Apache-2.0 */
/* range_lock.h - overlapping requests of a volume take effect one after the other, in the order in which they came.
 *
 * Entries are ranges of blocks, shared (reads) or exclusive (all that changes). Two entries conflict when they overlap and at
 * least one is exclusive. An entry waits for every earlier entry it conflicts with, granted or not, so nobody is overtaken and
 * nobody starves; and as an entry waits only for earlier ones, there is no deadlock among them, not even between holders of
 * several.
 *
 * The entry is embedded in the request; nothing is allocated. Entries live in a treap by first block, each node knowing the
 * highest last block below it: taking and releasing cost O(log n) plus the number of overlapping entries. */
#ifndef STRATA_IO_PATH_VOLUME_RANGE_LOCK_H
#define STRATA_IO_PATH_VOLUME_RANGE_LOCK_H

#include <stdbool.h>
#include <stdint.h>

struct range_entry {
	struct range_entry *left, *right;
	uint64_t first, last; /* inclusive */
	uint64_t last_max;    /* of this subtree */
	uint32_t order;	      /* treap priority, and what tells entries with the same first apart */
	uint32_t blockers;    /* earlier conflicting entries not yet released; 0: granted */
	bool exclusive;
	void (*granted)(struct range_entry *e);
};

struct range_lock {
	struct range_entry *root;
	uint32_t taken_n; /* how often; the source of `order` */
	uint32_t entries_n;
};

void range_lock_init(struct range_lock *l);

/* True: granted now. False: e->granted(e) will be called by the release of the last entry in the way; it must only queue. */
bool range_lock_take(struct range_lock *l, struct range_entry *e, uint64_t first, uint64_t last,
		     bool exclusive, void (*granted)(struct range_entry *e));

/* Granted now, or false and nothing happened. */
bool range_lock_try(struct range_lock *l, struct range_entry *e, uint64_t first, uint64_t last,
		    bool exclusive);

void range_lock_release(struct range_lock *l, struct range_entry *e); /* e was granted */

#endif
