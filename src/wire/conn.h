/* SPDX-License-Identifier: Apache-2.0 */
/* conn.h - a connection between two daemons: a link with authentication, keepalive, and calls that are matched with their replies.
 *
 *   JOINING (challenge; nothing when there is no key) -> UP -> DOWN -> closed
 *
 * `up` and `down` are called at most once each, from the loop; a connection may go down without having been up. When it goes down every
 * outstanding call is answered with -ENOTCONN first. Either end may call. A side that hears nothing for three keepalive periods breaks the
 * connection (-ETIMEDOUT), unless it paused the link itself; a side with nothing to say sends a ping each period. conn_close() is two-phase
 * and may be called from any callback. */
#ifndef STRATA_WIRE_CONN_H
#define STRATA_WIRE_CONN_H

#include "src/base/hash.h"
#include "src/wire/auth.h"
#include "src/wire/link.h"

struct conn;

struct conn_ops {
	void (*up)(struct conn *c);
	/* A request of the peer: as link_ops.frame. Answer with the same id and FRAME_F_REPLY. */
	int (*request)(struct conn *c, const struct frame *f, const void *body, void **ret_data);
	int (*data)(struct conn *c); /* of a request or a reply; NULL when data_max is 0 */
	void (*down)(struct conn *c, int status);
};

struct conn_config {
	struct ioe *ioe;
	const struct conn_ops *ops;
	const struct auth_key *key; /* NULL: none asked for, none given */
	bool dialer;
	uint64_t keepalive_ns; /* 0: 5 s */
	uint64_t join_ns;      /* to be UP; 0: 10 s */
	uint32_t body_max, data_max, buf_bytes;
	uint64_t queue_bytes_max;
};

/* A request under way, embedded in the caller's operation. `reply` runs once: with the peer's answer (status 0, body valid during the
 * call; as link_ops.frame for what it may return and for ret_data), or with -ENOTCONN (f and body NULL). It is the last touch. */
struct conn_call {
	struct hnode node;
	int (*reply)(struct conn_call *call, int status, const struct frame *f, const void *body,
		     void **ret_data);
};

struct conn {
	struct link link;
	const struct conn_ops *ops;
	const struct auth_key *key;
	bool dialer, timing;
	enum { CONN_JOINING, CONN_UP, CONN_DOWN, CONN_CLOSING } state;
	uint32_t body_max, data_max, buf_bytes;
	uint8_t nonce_d[AUTH_NONCE_BYTES], nonce_a[AUTH_NONCE_BYTES];
	struct htab calls;
	uint64_t next_id;
	uint64_t keepalive_ns, join_deadline_ns;
	uint64_t seen_received, seen_sent;
	int silent;
	struct ioe_req timer, start;
	bool starting, ponging;
	struct link_out pong; /* one is enough, however many pings came */
	void (*closed)(void *arg);
	void *closed_arg;
};

/* Takes the socket. -ENOMEM: the socket stays the caller's. */
int conn_open(struct conn *c, const struct conn_config *cfg, struct ioe_sock *sock);
void conn_break(struct conn *c, int status);
void conn_close(struct conn *c, void (*done)(void *arg), void *arg);

static inline bool conn_is_up(const struct conn *c)
{
	return c->state == CONN_UP && !c->link.failure;
}

/* Asks for a sign of life: when c->link.received_bytes has not moved some time after, the peer does not run or cannot be reached. */
void conn_probe(struct conn *c);

/* It has not proved yet who it is. When a server has no room for another connection, the oldest of these may go. */
static inline bool conn_is_joining(const struct conn *c)
{
	return c->state == CONN_JOINING && c->key && !c->link.failure;
}

/* Registers the call and gives it the id to be sent with; only while conn_is_up(). */
uint64_t conn_call_begin(struct conn *c, struct conn_call *call,
			 int (*reply)(struct conn_call *call, int status, const struct frame *f,
				      const void *body, void **ret_data));
/* Nobody waits for the reply any more: it will be dropped when it comes (its data must be 0). `reply` does not run. */
void conn_call_forget(struct conn *c, struct conn_call *call);

#endif
