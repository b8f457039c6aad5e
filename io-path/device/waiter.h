/* SPDX-License-Identifier: Apache-2.0 */
/* waiter.h - somebody in a queue inside the device. An operation waits for one thing at a time, so one of these is enough for it. */
#ifndef STRATA_IO_PATH_DEVICE_WAITER_H
#define STRATA_IO_PATH_DEVICE_WAITER_H

#include <stdint.h>

#include "src/base/list.h"

struct waiter {
	struct list link;			  /* in the queue; by itself when not waiting */
	void (*fn)(struct waiter *w, int status); /* the waiter's again from here on */
	uint64_t lsn;				  /* what for, where the queue has an order */
	uint32_t bytes;
	uint8_t kind;
};

static inline void waiter_init(struct waiter *w)
{
	list_init(&w->link);
}

static inline void waiter_push(struct list *queue, struct waiter *w,
			       void (*fn)(struct waiter *w, int status))
{
	check(list_empty(&w->link));
	w->fn = fn;
	list_push(queue, &w->link);
}

/* Calls everybody who is in the queue now; who queues again meanwhile waits for the next time. */
static inline void waiters_wake(struct list *queue, int status)
{
	struct list now = LIST_INIT(now), *l;

	list_splice(&now, queue);
	while ((l = list_pop(&now))) {
		struct waiter *w = list_entry(l, struct waiter, link);

		w->fn(w, status);
	}
}

#endif
