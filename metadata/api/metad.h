/* SPDX-License-Identifier: Apache-2.0 */
/* metad.h - the whole metadata server but for its database and HTTP: what metadata/main.c runs, and what a simulation runs many of.
 *
 *   OPENING (SAN, registry) -> SERVING -> CLOSING -> closed          OPENING, SERVING -> failed (the process is to end and start again) */
#ifndef STRATA_METADATA_API_METAD_H
#define STRATA_METADATA_API_METAD_H

#include "metadata/api/executor.h"
#include "metadata/rpc/server.h"

struct metad_config {
	struct ioe *ioe;
	struct metastore *store;
	const char *const *rpc; /* addresses for nodes */
	uint32_t rpc_n;
	const struct auth_key *key;	  /* NULL: none, and no TCP */
	uint64_t settle_ns, keepalive_ns; /* 0: defaults */
	uint64_t takeover_ns; /* an owner away for that long loses its volume to who asks for it; 0: 60 s, UINT64_MAX: never */
	/* it listens, or (status < 0) does not; errmsg says why, and nothing but metad_close() may follow */
	void (*opened)(void *arg, int status, const char *errmsg);
	/* the SAN went out of service: end the process */
	void (*failed)(void *arg, int status);
	void *arg;
};

struct metad {
	struct metad_config cfg;
	struct san_open san_open;
	struct cluster_open cluster_open;
	struct san *san;
	struct cluster cluster;
	struct jobs *jobs;
	struct server server;
	struct admin admin;
	bool has_cluster, has_server, has_admin, opening, closing;
	uint32_t ending; /* of admin and server */
	struct ioe_req nop;
	void (*closed)(void *arg);
	void *closed_arg;
};

void metad_open(struct metad *m, const struct metad_config *cfg);
/* Also while opening, and after a failure. The store stays open. Requests are answered `stopping` until then; the struct must live on while
 * admin_submit() may be called. */
void metad_close(struct metad *m, void (*done)(void *arg), void *arg);

#endif
