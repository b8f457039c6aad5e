/* SPDX-License-Identifier: Apache-2.0 */
/* conn.h - one connection of the NBD target: what its files share. Private to targets/nbd.
 *
 *   HANDSHAKE --GO, EXPORT_NAME--> SERVING --DISC, end of stream, server closes, volume lost--> DRAINING
 *       |                            |                                                             | answered, or drain_ns is over
 *       +----- broken, too slow, ----+------------------- broken, socket error --------------------+
 *              end of stream         v
 *                                 CLOSING --nothing pending--> (volume_close) --> gone
 *
 *   HANDSHAKE  `hs` is set. One option at a time: while it is worked on or its replies are being sent, input is paused.
 *   SERVING    the volume is open, pool and requests are there. Requests are taken from the input as long as there is room.
 *   DRAINING   input is read and dropped (so that the peer's stack has no reason to reset the connection under our answers), what
 *              was submitted is finished and answered.
 *   CLOSING    the socket is shut down; completions release what they held and nothing else.
 *
 * `pending` counts every callback that is still to come. Callbacks end with conn_settle(), the only place where a connection ends;
 * everything else may go on using `c` after a call that ended it in spirit.
 *
 * The life of a request: free -> (filling: payload is being received) -> in flight with the volume -> finished, in the order
 * of completion -> sent, part of the one send under way -> free. */
#ifndef STRATA_TARGETS_NBD_CONN_H
#define STRATA_TARGETS_NBD_CONN_H

#include "src/base/list.h"
#include "targets/nbd/budget.h"
#include "targets/nbd/nbd.h"
#include "targets/nbd/pool.h"
#include "targets/nbd/proto.h"

enum {
	RX_BYTES = 128 << 10, /* input buffer */
	BULK_BYTES_MIN =
	    32 << 10, /* a write this long had better not pass through the input buffer */
	BULK_RX_BYTES = 4 << 10, /* while such writes come, no more than this is received into it */
	OPTION_BYTES_MAX =
	    64 << 10, /* option data we look at; it must fit the input buffer with its header */
	OPTION_SKIP_MAX =
	    32 << 20, /* longer option data is skipped up to here, and ends the connection beyond */
	OPTIONS_MAX = 1000, /* in one handshake */
	WRITE_SKIP_MAX =
	    64 << 20,		/* the payload of a write that is too long is skipped up to here */
	EXTENTS_MAX = 1024,	/* in a reply to BLOCK_STATUS */
	HEADS_BYTES = 16 << 10, /* reply headers of one send */
	EXPORT_NAME_LEN = 2 * NAME_LEN_MAX + 2, /* "volume@snapshot" */
	LEAVING_MAX = 64,			/* connections that gave way and are not gone yet */
};

enum conn_state { CONN_HANDSHAKE, CONN_SERVING, CONN_DRAINING, CONN_CLOSING };

/* Metadata contexts; a selected one is a bit in `contexts`, and its id on the wire is its number + 1. */
enum nbd_context { CONTEXT_ALLOCATION, CONTEXTS_N };

struct handshake;
struct nbd_conn;

struct nbd_server {
	struct ioe *ioe;
	struct volumes *volumes;
	struct nbd_limits limits; /* without zeroes */
	struct list listeners, conns;
	struct list greeting; /* connections in their handshake, the oldest first */
	uint64_t last_id;
	uint32_t conns_n, leaving_n; /* with a place; without one, as they gave way */
	struct budget budget;
	struct nbd_server_info past; /* counters; those of living connections are added on request */
	/* set by nbd_server_close() */
	bool closing, ending;
	struct ioe_req end;
	void (*closed)(void *arg);
	void *closed_arg;
};

struct nbd_request {
	struct volume_req v;
	struct nbd_conn *conn;
	struct nbd_request *next; /* free, finished or sent */
	struct nbd_cookie cookie;
	uint16_t cmd, flags;
	enum nbd_errno error; /* of the answer */
	const char *why;      /* for people, with an error */
	uint64_t off;
	uint32_t len;
	uint32_t pages_n; /* of the pool, 0: none */
	uint8_t *pages;
	struct volume_extent extent; /* BLOCK_STATUS that wants one */
};

struct request_queue {
	struct nbd_request *first, **last;
};

struct nbd_conn {
	struct nbd_server *server;
	struct ioe *ioe;
	struct ioe_sock *sock;
	enum conn_state state;
	uint32_t pending;
	struct ioe_hook hook; /* end of turn: resume input, send what is finished */

	/* input */
	uint8_t *rx; /* RX_BYTES, of which [rx_at, rx_end) is not used up */
	uint32_t rx_at, rx_end;
	uint64_t skip; /* this much of the input goes nowhere first */
	struct nbd_request
	    *filling; /* the write whose payload is next in the input; a refused one is skipped */
	uint32_t filled;
	bool paused; /* an option is worked on, or there is no room for the next request */
	bool recv_busy, eof;
	bool bulk; /* the last request was a long write */
	struct ioe_req recv;
	struct iovec recv_iov[2];

	/* requests */
	struct nbd_request *requests, *free;
	struct pool pool;
	uint32_t in_flight; /* with the volume */
	bool in_line;	    /* waits for common pages (budget.h), for a run of wanted_n */
	uint32_t wanted_n;
	struct list line_link;
	uint32_t sends_n,
	    fills_n; /* sends done, payloads complete; and when the budget looked last: */
	uint32_t sends_seen, fills_seen;

	/* output */
	struct request_queue finished, sent;
	bool send_busy;
	struct ioe_req send;
	struct iovec *send_iov; /* IOE_IOV_MAX */
	uint8_t *heads;

	/* export */
	struct volume_handle *handle;
	char requested[EXPORT_NAME_LEN]; /* the name the client used */
	struct volume_geometry geo;
	uint32_t io_bytes_max; /* of a READ, WRITE or piece */
	bool structured;
	bool changed; /* volume_on_change was called with change_status; the hook handles it */
	int change_status;
	uint32_t contexts; /* selected, valid for this export */

	struct handshake *hs; /* HANDSHAKE only */

	/* the one timer: the end of the handshake, of patience while draining; giving memory back while serving */
	struct ioe_req timer;
	bool timer_busy;
	uint64_t deadline_ns; /* 0: none */

	/* status */
	struct list link;	/* server's, by id */
	struct list greet_link; /* server's, while in the handshake */
	bool left;		/* gave its place to another */
	uint64_t id, since_wall_ns;
	uint64_t answered, errors, read_bytes, written_bytes;
	char peer[IOE_ADDR_MAX];
};

/* ---- conn.c: life ----------------------------------------------------------------------------------------------------- */

/* Takes over the socket, also on failure. */
int conn_new(struct nbd_server *s, struct ioe_sock *sock, struct nbd_conn **ret_c);
/* No more input: finish, answer, close. In the handshake: close. */
void conn_drain(struct nbd_conn *c);
/* Close without another word. */
void conn_shut(struct nbd_conn *c);
/* The peer broke the protocol: say so in the log, and conn_shut(). */
void conn_drop(struct nbd_conn *c, const char *why);
/* Another one gets its place; only in the handshake. */
void conn_give_way(struct nbd_conn *c);
/* Last thing of every callback: `c` may be gone afterwards. */
void conn_settle(struct nbd_conn *c);
/* The one deadline of the connection, replacing what was set; 0 for none. */
void conn_deadline(struct nbd_conn *c, uint64_t deadline_ns);
/* The pool has grown beyond its share: see in a while whether it is still needed. */
void conn_trim_later(struct nbd_conn *c);
void conn_info(const struct nbd_conn *c, struct nbd_conn_info *ret_info);
void conn_count(const struct nbd_conn *c, struct nbd_server_info *sum); /* adds its counters */

/* ---- rx.c: input ------------------------------------------------------------------------------------------------------ */

/* Uses what is there, and asks for more if more is wanted. */
void rx_run(struct nbd_conn *c);

static inline uint32_t rx_have(const struct nbd_conn *c)
{
	return c->rx_end - c->rx_at;
}

/* ---- handshake.c ------------------------------------------------------------------------------------------------------ */

int handshake_new(struct nbd_conn *c); /* -ENOMEM */
void handshake_free(struct nbd_conn *c);
void handshake_begin(struct nbd_conn *c);
bool handshake_input(struct nbd_conn *c); /* true: used something up, call again */

/* It is the client's turn, not ours. */
static inline bool handshake_is_peers_turn(const struct nbd_conn *c)
{
	return !c->paused || c->send_busy;
}

/* ---- request.c -------------------------------------------------------------------------------------------------------- */

/* Allocates what transmission needs. -ENOMEM */
int transmission_new(struct nbd_conn *c);
void transmission_free(struct nbd_conn *c);
bool request_input(struct nbd_conn *c);	  /* true: used something up, call again */
void request_skipped(struct nbd_conn *c); /* the payload of the refused write `filling` has passed */
void request_release(struct nbd_request *r);

/* ---- reply.c ---------------------------------------------------------------------------------------------------------- */

void reply_send(struct nbd_conn *c); /* sends what is finished, unless a send is under way */

/* ---- server.c --------------------------------------------------------------------------------------------------------- */

void nbd_limits_fill(struct nbd_limits *l);		/* with the defaults */
void server_conn_gone(struct nbd_server *s, bool left); /* one of its connections was freed */
void server_close_step(struct nbd_server *s);

/* ---- queues ----------------------------------------------------------------------------------------------------------- */

static inline void queue_init(struct request_queue *q)
{
	q->first = NULL;
	q->last = &q->first;
}

static inline void queue_push(struct request_queue *q, struct nbd_request *r)
{
	r->next = NULL;
	*q->last = r;
	q->last = &r->next;
}

static inline struct nbd_request *queue_pop(struct request_queue *q)
{
	struct nbd_request *r = q->first;

	if (r && !(q->first = r->next))
		q->last = &q->first;
	return r;
}

#endif
