/* SPDX-License-Identifier: Apache-2.0 */
/* node.h - a node without its volumes and targets: devices, the chunk store over them and over other nodes, and the control connection. What
 * io-path/main.c builds a daemon on, and what a simulation runs many of.
 *
 *   node_init() -> volumes and targets are made on node.store.store and node.client.meta -> node_start() -> ready
 *   targets and volumes are closed -> node_close() -> node_free() */
#ifndef STRATA_IO_PATH_NODE_NODE_H
#define STRATA_IO_PATH_NODE_NODE_H

#include "io-path/node/control.h"
#include "io-path/node/meta_client.h"
#include "io-path/node/peer.h"
#include "io-path/node/peer_server.h"

enum { NODE_ADDRS_MAX = CONTROL_ADDRS_MAX };

struct node_config {
	struct ioe *ioe;
	const char
	    *dir; /* identity, list of devices; exists; the strings must live as long as the node */
	const char *runtime_dir; /* restart rings; NULL: none, and everything is written through */
	const char *name;
	const char *const *metad;
	uint32_t metad_n;
	const struct auth_key *key; /* NULL: no TCP between daemons */
	const char *const *peer; /* where other nodes reach the devices; may be none with one node */
	uint32_t peer_n;
	uint64_t wait_ns; /* how long requests wait for a device or node that is away; 0: 60 s */
	uint64_t keepalive_ns;
	void (*ready)(void *arg); /* once: joined, and every device is served or refused */
	/* the metadata server does not take the node, for a reason that is news; it is asked again. May be NULL */
	void (*refused)(void *arg, const char *errmsg);
	/* counters of volumes and targets; may be NULL */
	void (*stats)(void *arg, struct control_metrics *m, volume_id volume);
	void (*bench)(void *arg, struct control_bench *b);	/* may be NULL */
	void (*clients)(void *arg, struct control_clients *cs); /* may be NULL */
	void *arg;
};

struct node {
	struct node_config cfg;
	struct devices devices;
	struct node_store store;
	struct control control;
	struct meta_client client;
	struct peers *peers; /* NULL until the node has joined */
	struct peer_server *peer_server;
	struct node_remote remote;
	node_no *places; /* by device number: who has it; DEVICES_MAX + 1 of them */
	uint64_t listed[(DEVICES_MAX + 64) / 64]; /* bits: the devices of the cluster, as we heard last */
	char peer_addrs[NODE_ADDRS_MAX][IOE_ADDR_MAX], nbd_addrs[NODE_ADDRS_MAX][IOE_ADDR_MAX];
	const char *peer_list[NODE_ADDRS_MAX], *nbd_list[NODE_ADDRS_MAX];
	uint32_t peer_addrs_n;
	struct ioe_file *lock; /* of the directory: one process at a time */
	bool started;
	struct ioe_req nop;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* On failure the process is expected to end: node_free() gives back the memory, not what is listened on. */
int node_init(struct node *n, const struct node_config *cfg, char errmsg[ERRMSG_LEN]);
/* nbd: addresses that clients reach its volumes at, to be told to others; copied. */
int node_start(struct node *n, const char *const *nbd, uint32_t nbd_n, char errmsg[ERRMSG_LEN]);
/* From now on nothing waits for the metadata server, for devices or for nodes that are away: what would, fails. So volumes can be closed. */
void node_give_up(struct node *n);
/* Two-phase. Volumes are closed: no call of the metadata client and no chunk request is under way. */
void node_close(struct node *n, void (*done)(void *arg), void *arg);
/* After node_close(), or after a node_init() that was never started. */
void node_free(struct node *n);

#endif
