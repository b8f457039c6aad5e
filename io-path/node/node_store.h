/* SPDX-License-Identifier: Apache-2.0 */
/* node_store.h - the chunk store of a node: looks a device's number up and hands the request to who has the device.
 *
 *   served here            device_submit()
 *   another node has it    the remote side (node_store_set_remote; node.c puts the peers there)
 *   neither, yet           the request waits: the device is about to be served (it is replayed, or its pending records come first), or its
 *                          node is away. After wait_ns it fails with -E_DEVICE_GONE. Waiting requests go on in their order.
 *
 * What waits is bounded by whoever submits (the pools of the volume runtime). */
#ifndef STRATA_IO_PATH_NODE_NODE_STORE_H
#define STRATA_IO_PATH_NODE_NODE_STORE_H

#include "io-path/device/device.h"
#include "io-path/node/store.h"

/* Devices of other nodes. `knows`: it has somebody to send requests for the device to; then `submit` takes them, as chunk_store.submit. */
struct node_remote {
	bool (*knows)(struct node_remote *n, device_no dev);
	void (*submit)(struct node_remote *n, struct chunk_req *r);
	bool (*is_stable)(struct node_remote *n, device_no dev);
};

struct node_store {
	struct chunk_store store; /* what the volume runtime gets */
	struct ioe *ioe;
	struct node_store_local {
		struct device *dev; /* NULL: not served here */
		bool is_stable;
		bool refused; /* it is here, and never to be served: an older copy */
		bool left;    /* it is no device of the cluster any more, anywhere */
	} * local; /* by device number, DEVICES_MAX + 1 of them; pages never touched take no memory */
	struct node_remote *remote; /* NULL: none */
	uint64_t wait_ns;
	struct list waiting;
	uint64_t waiting_n;
	struct ioe_req timer;
	bool timing, giving_up, closing;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* wait_ns 0: 60 s. -ENOMEM */
int node_store_init(struct node_store *s, struct ioe *e, uint64_t wait_ns);
/* From here on the device is served under this number; what waited for it goes to it. */
void node_store_serve(struct node_store *s, device_no no, struct device *dev);
/* The opposite: later requests wait. Those that the device has are its own affair. */
void node_store_withdraw(struct node_store *s, device_no no);
/* It is here, but must not be served: requests fail at once with -E_DEVICE_GONE, until it is served or withdrawn. */
void node_store_refuse(struct node_store *s, device_no no);
/* It is no device of the cluster any more, and its number is never used again: what names it fails at once, as something that names a slot that is
 * no more: with -E_STALE_CGEN, and FLUSH with -E_UNFLUSHED_LOST when it was owed something. */
void node_store_left(struct node_store *s, device_no no);
/* Who may have become reachable: everything that waits is looked at again. */
void node_store_set_remote(struct node_store *s, struct node_remote *remote);
void node_store_retry(struct node_store *s);
/* True when r waits and has not been given to anybody: then it is the caller's again, and `done` does not run. */
bool node_store_take_back(struct node_store *s, struct chunk_req *r);
/* Waiting requests fail with -E_DEVICE_GONE, as do those that would wait from now on. */
void node_store_give_up(struct node_store *s);
/* The same, then `done`. */
void node_store_close(struct node_store *s, void (*done)(void *arg), void *arg);
void node_store_free(struct node_store *s);

#endif
