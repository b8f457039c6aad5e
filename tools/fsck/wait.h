/* SPDX-License-Identifier: Apache-2.0 */
/* wait.h - waiting for a device, in a program that has nothing else to do. Private to tools/fsck. */
#ifndef STRATA_TOOLS_FSCK_WAIT_H
#define STRATA_TOOLS_FSCK_WAIT_H

#include "tools/fsck/check.h"

struct fsck_request {
	struct chunk_req r;
	bool done;
};

static inline void fsck_request_done(struct chunk_req *r)
{
	container_of(r, struct fsck_request, r)->done = true;
}

static inline void fsck_submit(struct device *dev, struct fsck_request *rq)
{
	rq->done = false;
	rq->r.done = fsck_request_done;
	device_submit(dev, &rq->r);
}

static inline void fsck_wait(struct fsck *k, const bool *done)
{
	while (!*done)
		ioe_poll(k->ioe, UINT64_MAX);
}

/* The request is to what the slot holds. */
void fsck_name_slot(struct chunk_req *r, uint32_t slot, const struct device_slot *d);

#endif
