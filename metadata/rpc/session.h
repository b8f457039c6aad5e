/* SPDX-License-Identifier: Apache-2.0 */
/* session.h - a node's connection, as the server sees it.
 *
 *   CONNECTED --(hello)--> GREETED --(session_welcome)--> JOINED --(lost)--> GONE (freed when nothing refers to it any more)
 *
 * Operations that outlive a callback take a reference (session_get) and look at session_is_joined() when they go on. Before it is JOINED a session may
 * only say hello; requests that come earlier break it. */
#ifndef STRATA_METADATA_RPC_SESSION_H
#define STRATA_METADATA_RPC_SESSION_H

#include "metadata/cluster/cluster.h"

struct server;

enum session_state { SESSION_CONNECTED, SESSION_GREETED, SESSION_JOINED, SESSION_GONE };

struct session {
	struct list link; /* of cluster.sessions */
	struct server *server;
	struct cluster *cluster;
	struct conn conn;
	enum session_state state;
	char peer[IOE_ADDR_MAX];
	struct cluster_node *node; /* JOINED */
	uint64_t pid;
	struct cluster_attach *attach; /* under way */
	bool volumes_told;	       /* it knows how the volumes it owns are now */
	uint32_t refs;		       /* operations, and one of its own until it is GONE */
	uint32_t requests_n;	       /* of the node, not yet answered */
	struct list asks;	       /* of ours, not yet answered, the oldest first */
	struct ioe_req timer;	       /* while there are some */
	bool timing;
};

static inline bool session_is_joined(const struct session *s)
{
	return s->state == SESSION_JOINED && conn_is_up(&s->conn);
}

struct session *session_get(struct session *s);
void session_put(struct session *s);
void session_break(struct session *s, int status);

/* Asks the node something. `done` runs once from the loop: status 0 and the answer (valid during the call; of the kind control.h says), or
 * -ENOTCONN (also when it is not joined), -E_PROTOCOL, -ENOMEM with none. A node that owes an answer for half a minute is cut off (only formatting a
 * device may take longer). */
struct session_call {
	struct list link;
	uint64_t asked_ns;
	struct conn_call call;
	struct ioe_req nop;
	struct session *s;
	uint16_t type;
	void (*done)(struct session_call *c, int status, const ProtobufCMessage *answer);
};
void session_ask(struct session *s, struct session_call *c, uint16_t type,
		 const ProtobufCMessage *msg,
		 void (*done)(struct session_call *c, int status, const ProtobufCMessage *answer));

/* Answers a request of the node, if it still is there. */
void session_answer(struct session *s, uint16_t type, uint64_t id, const ProtobufCMessage *msg);

/* join.c's: the hello is accepted, or not (the session is broken once that was said). */
void session_welcome(struct session *s, struct cluster_node *n, uint64_t id,
		     const Strata__Welcome *msg);
void session_refuse(struct session *s, uint64_t id, int status, const char *errmsg);

#endif
