/* SPDX-License-Identifier: Apache-2.0 */
/* peer_server.h - serves this node's devices to the owners of volumes on other nodes (the accepting
 * side of src/wire/chunk_msg.h).
 *
 * A link is JOINING until its HELLO was answered, which waits until every request of the same
 * node's earlier links has finished in the kernel: those links are broken at once, requests that
 * were not yet read from them are never seen, and those that wait for a device are dropped. A peer can make us hold PEER_JOBS_MAX requests and
 * PEER_BYTES_MAX of data a link; then its socket is not read until some have been answered. When there are PEER_LINKS_MAX links, the oldest that
 * has not proved yet who it is gives way to a new one. */
#ifndef STRATA_IO_PATH_NODE_PEER_SERVER_H
#define STRATA_IO_PATH_NODE_PEER_SERVER_H

#include "io-path/node/store.h"
#include "src/base/err.h"
#include "src/wire/auth.h"

struct peer_server;

enum { PEER_LINKS_MAX = 1024, PEER_JOBS_MAX = 256, PEER_BYTES_MAX = 16 << 20 };

struct peer_server_device {
	struct uuid uuid;
	uint64_t incarnation, lsn;
	device_no number;
	bool is_stable;
};

struct peer_server_config {
	struct ioe *ioe;
	struct uuid start;	    /* of this process */
	const struct auth_key *key; /* for TCP links; NULL: none are accepted over TCP */
	/* Executes requests; those for devices that are not ours are answered -E_DEVICE_GONE. */
	struct chunk_store *local;
	bool (*ours)(void *arg, device_no dev);
	/* True when a request given to `local` still waits for its device: it is ours again and will not be done. NULL: nothing ever waits. */
	bool (*take_back)(void *arg, struct chunk_req *r);
	/* The nth device of this node; false past the last. */
	bool (*device)(void *arg, uint32_t nth, struct peer_server_device *ret_device);
	void *arg; /* of the functions above */
};
int peer_server_new(const struct peer_server_config *cfg, struct peer_server **ret_s);

/* Who this node is. Peers that come before that is known are sent away and come again. */
void peer_server_identify(struct peer_server *s, const struct uuid *cluster, node_no node);

/* "unix:PATH" or "HOST:PORT"; may be called several times. */
int peer_server_listen(struct peer_server *s, const char *addr, char errmsg[ERRMSG_LEN]);
/* The address that the nth listener has, for others to dial; false past the last. */
bool peer_server_addr(struct peer_server *s, uint32_t nth, char addr[128]);

/* The node is about to end: breaks the links and takes no more, so that nobody is told that a device is gone when its node comes back in a moment. */
void peer_server_refuse(struct peer_server *s);
/* Stops listening, breaks the links, waits for the requests in the devices, then done. */
void peer_server_close(struct peer_server *s, void (*done)(void *arg), void *arg);

struct peer_server_stats {
	uint64_t links, requests, bytes_read, bytes_written, refused;
};
void peer_server_stats(struct peer_server *s, struct peer_server_stats *ret_stats);

#endif
