/* SPDX-License-Identifier: Apache-2.0 */
/* timers.h - the timer requests of a loop, earliest first; those of one instant in the order they were set.
 *
 * A pairing heap whose nodes are the requests themselves: nothing is allocated, so setting a timer cannot fail. Adding is O(1),
 * taking and cancelling O(log n) amortised. */
#ifndef STRATA_IOE_TIMERS_H
#define STRATA_IOE_TIMERS_H

#include "src/ioe/ioe.h"

struct timers {
	struct ioe_req *root; /* the earliest, NULL when there is none */
	uint64_t seq;
};

void timers_add(struct timers *t, struct ioe_req *r);
void timers_del(struct timers *t, struct ioe_req *r); /* must be in it */
/* Takes the earliest if it is due at `now_ns`, else NULL. */
struct ioe_req *timers_take_due(struct timers *t, uint64_t now_ns);

static inline uint64_t timers_next_ns(const struct timers *t)
{
	return t->root ? t->root->deadline_ns : UINT64_MAX;
}

#endif
