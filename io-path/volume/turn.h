/* SPDX-License-Identifier: Apache-2.0 */
/* turn.h - things to do at the end of a turn of the loop: once, after the callbacks, without recursion. */
#ifndef STRATA_IO_PATH_VOLUME_TURN_H
#define STRATA_IO_PATH_VOLUME_TURN_H

#include "src/base/list.h"

struct volumes;

struct vol_task {
	struct list link; /* self-linked when not queued */
	void (*fn)(struct vol_task *t);
};

static inline void vol_task_init(struct vol_task *t, void (*fn)(struct vol_task *t))
{
	list_init(&t->link);
	t->fn = fn;
}

/* fn runs at the end of this turn, or of the next when this one's end is where it is asked for. Asking again does nothing. */
void vol_task_add(struct volumes *vs, struct vol_task *t);

static inline void vol_task_cancel(struct vol_task *t)
{
	list_del(&t->link);
}

#endif
