/* SPDX-License-Identifier: Apache-2.0 */
/* server.h - accepts the nodes' connections and answers what they ask (the metadata server's end of src/wire/control.proto).
 *
 *   server.c   listeners, and the moment that is given to the nodes at the start
 *   session.c  one connection
 *   calls.c    what nodes ask: volumes, maps, allocations, events
 *
 * When the SAN is out of service nothing is answered any more: connections are cut, and the nodes ask the next process again. */
#ifndef STRATA_METADATA_RPC_SERVER_H
#define STRATA_METADATA_RPC_SERVER_H

#include "metadata/cluster/cluster.h"
#include "src/wire/listen.h"

enum {
	SERVER_LISTENERS_MAX = 16,
	SERVER_SESSIONS_MAX = 2048,
	SERVER_LEAVING_MAX = 64 /* sessions that gave way and are not gone yet */
};

struct server_config {
	struct ioe *ioe;
	struct cluster *cluster;
	const struct auth_key *key; /* for TCP; NULL: only unix sockets may be listened on */
	uint64_t settle_ns; /* how long known nodes are waited for at the start; 0: 500 ms */
	uint64_t keepalive_ns;
	/* the cluster has settled, or turned out to have gone back in time */
	void (*settled)(void *arg);
	void *arg;
};

struct server {
	struct server_config cfg;
	struct listener listeners[SERVER_LISTENERS_MAX];
	uint32_t listeners_n, listeners_open;
	uint32_t sessions_n;
	struct ioe_req timer;
	bool timing, closing;
	void (*closed)(void *arg);
	void *closed_arg;
};

void server_init(struct server *v, const struct server_config *cfg);
int server_listen(struct server *v, const char *addr, char errmsg[ERRMSG_LEN]);
/* Two-phase: no more connections, those there are are cut. */
void server_close(struct server *v, void (*done)(void *arg), void *arg);

void server_end_step(struct server *v);

#endif
