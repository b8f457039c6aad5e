/* SPDX-License-Identifier: Apache-2.0 */
/* peer.h - the other nodes, as places to send chunk requests to (the dialing side of src/wire/chunk_msg.h).
 *
 * A peer is dialled when the first request for it comes, and again with a back-off while requests wait:
 *
 *   IDLE -> DIALING -> JOINING (HELLO) -> UP      any -> BACKOFF -> DIALING      (BACKOFF -> IDLE when nothing waits)
 *
 * Requests wait while the peer is not UP, without an error, until wait_ns passed since they came: then -E_DEVICE_GONE. When a link breaks, what was sent
 * and is unanswered is sent again on the next one, before newer requests, in the old order. */
#ifndef STRATA_IO_PATH_NODE_PEER_H
#define STRATA_IO_PATH_NODE_PEER_H

#include "io-path/device/chunk.h"
#include "src/wire/auth.h"

struct peers;

enum {
	PEER_ADDRS_MAX = 4,
	PEERS_MAX = 1024,
	PEER_IN_FLIGHT_MAX = 256, /* requests on a link; further ones wait */
};

struct peers_config {
	struct ioe *ioe;
	struct uuid cluster, start; /* start: of this process */
	node_no node;
	const struct auth_key *key; /* for TCP links; NULL: such peers are not dialled */
	uint64_t wait_ns;	    /* 0: 2 minutes */
};
int peers_new(const struct peers_config *cfg, struct peers **ret_p);

/* Tells or corrects where a node is. Addresses as ioe_connect takes them, tried in turn. A link to an address that is not among them any more is broken,
 * and whoever waits is not kept waiting for it. 0 or -ENOMEM, -EINVAL. */
int peers_set(struct peers *p, node_no node, const char *const *addrs, int addrs_n);

/* Devices have moved: gives back, by resubmit(), what waits for a node where its device is not. What was sent to a node that is there is answered by it.
 * A device is open in one process only, so nothing that an older link left behind can land on it any more. */
void peers_reroute(struct peers *p,
		   bool (*is_there)(void *arg, node_no node, const struct chunk_req *r),
		   void (*resubmit)(void *arg, struct chunk_req *r), void *arg);

bool peers_knows(struct peers *p, node_no node); /* peers_set() was told of it */

/* To a device of `node`, which peers_set() was told of. */
void peers_submit(struct peers *p, node_no node, struct chunk_req *r);

/* Did the device say that nothing volatile is behind it? False while not known. */
bool peers_is_stable(struct peers *p, node_no node, device_no dev);

/* At shutdown: from now on nothing waits for a peer that is away. */
void peers_give_up(struct peers *p);

/* Nothing may be waiting or unanswered. */
void peers_close(struct peers *p, void (*done)(void *arg), void *arg);

struct peer_stats {
	node_no node;
	bool up;
	uint64_t sent, resent, received, links, waiting;
};
/* The peer with the smallest number above `after`; -ENOENT. */
int peers_stats_next(struct peers *p, node_no after, struct peer_stats *ret_stats);

#endif
