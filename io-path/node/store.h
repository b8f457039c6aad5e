/* SPDX-License-Identifier: Apache-2.0 */
/* store.h - all devices of the cluster as one place to send chunk requests to.
 *
 * The runtime calls chunk_store_submit() and does not know whether the device is on this node. The node's store (node_store.h) looks the
 * device number up: a local device executes the request (device.h), a peer's goes over the node protocol. A device that is away makes its
 * requests wait, and fail with -E_DEVICE_GONE only after the configured time. Tests put their own implementation here. */
#ifndef STRATA_IO_PATH_NODE_STORE_H
#define STRATA_IO_PATH_NODE_STORE_H

#include "io-path/device/chunk.h"

struct chunk_store {
	/* same rules as every submit: queues only, never inline, `done` exactly once */
	void (*submit)(struct chunk_store *s, struct chunk_req *r);
	/* true when every acknowledgement of the device is stable anyway (no volatile cache behind it) */
	bool (*is_stable)(struct chunk_store *s, device_no dev);
	/* true when the device is on this node */
	bool (*is_local)(struct chunk_store *s, device_no dev);
};

static inline void chunk_store_submit(struct chunk_store *s, struct chunk_req *r)
{
	s->submit(s, r);
}

#endif
