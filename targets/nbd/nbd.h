/* SPDX-License-Identifier: Apache-2.0 */
/* nbd.h - the NBD target: serves the volumes of this node to NBD clients, over unix and TCP sockets.
 *
 * One server has any number of listeners and exports every volume by its name ("volume", or "volume@snapshot", which is read-only; the
 * empty name is the only volume if there is exactly one). Each connection opens the volume for itself; several connections to one
 * volume see one another's flushes (multi-conn).
 *
 * Resources: a connection takes all it will ever need when it comes (a small part for the handshake, the data pool on entering
 * transmission) and gives it back when it goes. When its requests or its data pool are used up, its socket is not read until
 * something was answered. The pages of a pool that were never used cost nothing, and all connections together use no more than
 * limits.memory_bytes (budget.h): who needs more than a small share of its own may have to wait for others.
 *
 * When all places are taken, a new connection gets that of the one that has been in its handshake longest, if there is one that we wait
 * for; who is served is never sent away. So clients that connect and say nothing keep nobody out.
 *
 * Errors: a peer that breaks the protocol loses its connection and nothing else happens. When another node takes a volume over, its
 * connections are closed without answering what could not be done any more: a client that reconnects is told the owner's URI.
 *
 * All calls on the loop of `ioe`. */
#ifndef STRATA_TARGETS_NBD_NBD_H
#define STRATA_TARGETS_NBD_NBD_H

#include <stdbool.h>
#include <stdint.h>

#include "io-path/volume/volume.h"
#include "src/ioe/ioe.h"

struct nbd_server;

struct nbd_limits {	      /* 0 takes the default in brackets */
	uint32_t connections; /* at once [256] */
	uint32_t requests;    /* in flight, per connection [128] */
	uint64_t pool_bytes; /* data in flight, per connection; the largest request is 8 KiB less, at most 32 MiB [36 MiB] */
	uint64_t memory_bytes; /* of all connections; nbd_memory_least() or more [nbd_memory_usual()] */
	uint64_t handshake_ns; /* from accept to transmission [30 s] */
	uint64_t drain_ns;     /* to take the last answers, once a connection is to end [5 s] */
	uint64_t stall_ns; /* to take an answer, or to send a payload, while others wait for the memory that it keeps [30 s] */
};

/* What memory_bytes must be: each connection's own part, and one pool that is as large as it may become. UINT64_MAX: more than there can be. */
uint64_t nbd_memory_least(const struct nbd_limits *limits);
/* 1 GiB, or the least when that is more. */
uint64_t nbd_memory_usual(const struct nbd_limits *limits);

struct nbd_config {
	struct ioe *ioe;
	struct volumes *volumes;
	struct nbd_limits limits;
};

/* -ENOMEM, -EINVAL (a limit that makes no sense: a pool below 1 MiB + 8 KiB, less memory than the least) */
int nbd_server_new(const struct nbd_config *cfg, struct nbd_server **ret_server);

/* "unix:PATH" or "HOST:PORT"; may be called several times. errmsg (ERRMSG_LEN, may be NULL) says what is wrong. */
int nbd_server_listen(struct nbd_server *s, const char *addr, char *errmsg);
/* Own address of the i-th listener, -ENOENT past the last. */
int nbd_server_addr(struct nbd_server *s, uint32_t i, char ret_addr[IOE_ADDR_MAX]);

/* Two-phase: no connection is accepted any more, requests that were received are finished and answered, connections and their volumes
 * closed; then done, once, and the server is gone. Takes at most limits.drain_ns longer than the slowest request. */
void nbd_server_close(struct nbd_server *s, void (*done)(void *arg), void *arg);

/* ---- status ----------------------------------------------------------------------------------------------------------- */

enum nbd_conn_phase { NBD_CONN_HANDSHAKE, NBD_CONN_TRANSMISSION, NBD_CONN_ENDING };

struct nbd_conn_info {
	uint64_t id; /* growing, never reused */
	enum nbd_conn_phase phase;
	char peer[IOE_ADDR_MAX];
	char export_name[2 * NAME_LEN_MAX + 2]; /* "" in the handshake */
	bool read_only, structured;
	uint64_t since_wall_ns;
	uint32_t in_flight;
	uint64_t requests, errors; /* errors: requests answered with one */
	uint64_t read_bytes, written_bytes;
};
/* The connection with the smallest id above `after`; -ENOENT at the end. */
int nbd_server_conn_next(struct nbd_server *s, uint64_t after, struct nbd_conn_info *ret_info);

struct nbd_server_info {
	uint32_t listeners, connections;
	uint64_t accepted, refused; /* since start; refused: over the limit */
	uint64_t gave_way; /* connections closed in their handshake because others wanted the place */
	uint64_t broken; /* connections closed because the peer broke the protocol or was too slow */
	uint64_t memory_bytes,
	    memory_used_bytes;	 /* limit, and how much of it connections have or may take */
	uint32_t memory_waiting; /* connections that wait for it */
	uint64_t memory_waits;	 /* since start, how often one had to */
	uint64_t requests, errors, read_bytes,
	    written_bytes; /* of all connections, past ones too */
};
void nbd_server_info(struct nbd_server *s, struct nbd_server_info *ret_info);

/* The NBD URI of an export at a listener's address, ready to paste into a client: "nbd://HOST:PORT/NAME",
 * "nbd+unix:///NAME?socket=PATH". */
enum { NBD_URI_LEN = 3 * (IOE_ADDR_MAX + 2 * NAME_LEN_MAX) + 64 };
void nbd_uri(const char *addr, const char *export_name, char ret_uri[NBD_URI_LEN]);

#endif
