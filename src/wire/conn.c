/* SPDX-License-Identifier: Apache-2.0 */
#include "src/wire/conn.h"

#include <inttypes.h>
#include <string.h>

#include "src/base/log.h"

enum { SILENT_MAX = 3 };
#define KEEPALIVE_NS 5000000000ULL
#define JOIN_NS	     10000000000ULL
/* until the peer has proved who it is */
enum { JOINING_BUF_BYTES = 1 << 10, BUF_BYTES = 16 << 10 };

static void begin(struct ioe_req *r);
static void say(struct conn *c, uint16_t type, const void *body, uint32_t body_bytes);
static int on_frame(struct link *l, const struct frame *f, const void *body, void **ret_data);
static int joining(struct conn *c, const struct frame *f, const uint8_t *body);
static void go_up(struct conn *c);
static void pong(struct conn *c);
static int on_reply(struct conn *c, const struct frame *f, const void *body, void **ret_data);
static int on_data(struct link *l);
static void timer_set(struct conn *c);
static void timer_done(struct ioe_req *r);
static void on_down(struct link *l, int status);
static void close_step(struct conn *c);
static void link_closed(void *arg);

static const struct link_ops link_ops = {.frame = on_frame, .data = on_data, .down = on_down};

int conn_open(struct conn *c, const struct conn_config *cfg, struct ioe_sock *sock)
{
	struct link_config link = {
	    .ioe = cfg->ioe,
	    .ops = &link_ops,
	    .body_max = cfg->key ? AUTH_NONCE_BYTES + AUTH_PROOF_BYTES : cfg->body_max,
	    .data_max = cfg->key ? 0 : cfg->data_max,
	    .buf_bytes = cfg->key ? JOINING_BUF_BYTES : cfg->buf_bytes,
	    .queue_bytes_max = cfg->queue_bytes_max,
	};
	int r;

	*c = (struct conn){
	    .ops = cfg->ops,
	    .key = cfg->key,
	    .dialer = cfg->dialer,
	    .body_max = cfg->body_max,
	    .data_max = cfg->data_max,
	    .buf_bytes = cfg->buf_bytes ? cfg->buf_bytes : BUF_BYTES,
	    .keepalive_ns = cfg->keepalive_ns ? cfg->keepalive_ns : KEEPALIVE_NS,
	    .join_deadline_ns = ioe_now_ns(cfg->ioe) + (cfg->join_ns ? cfg->join_ns : JOIN_NS),
	    .next_id = 1,
	};
	r = htab_init(&c->calls, 16);
	if (r)
		return r;
	r = link_open(&c->link, &link, sock);
	if (r) {
		htab_free(&c->calls);
		return r;
	}
	c->starting = true;
	ioe_nop(cfg->ioe, &c->start, begin);
	timer_set(c);
	return 0;
}

void conn_break(struct conn *c, int status)
{
	link_break(&c->link, status);
}

/* ---- joining ------------------------------------------------------------------------------------------------------------- */

static void begin(struct ioe_req *r)
{
	struct conn *c = container_of(r, struct conn, start);

	c->starting = false;
	if (c->state == CONN_CLOSING) {
		close_step(c);
		return;
	}
	if (c->link.failure || c->state != CONN_JOINING)
		return;
	if (!c->key) {
		go_up(c);
		return;
	}
	if (c->dialer) {
		ioe_random(c->link.ioe, c->nonce_d, sizeof(c->nonce_d));
		say(c, FRAME_AUTH_CHALLENGE, c->nonce_d, sizeof(c->nonce_d));
	}
}

static void say(struct conn *c, uint16_t type, const void *body, uint32_t body_bytes)
{
	struct frame f = {.type = type, .body_bytes = body_bytes};
	struct link_copy *copy = link_copy_new(body_bytes);

	if (!copy) {
		conn_break(c, -ENOMEM);
		return;
	}
	if (body_bytes)
		memcpy(copy->body, body, body_bytes);
	link_copy_send(&c->link, copy, &f);
}

static int challenge_answer(struct conn *c, const uint8_t *nonce_d)
{
	uint8_t answer[AUTH_NONCE_BYTES + AUTH_PROOF_BYTES];
	int r;

	memcpy(c->nonce_d, nonce_d, AUTH_NONCE_BYTES);
	ioe_random(c->link.ioe, c->nonce_a, sizeof(c->nonce_a));
	memcpy(answer, c->nonce_a, AUTH_NONCE_BYTES);
	r = auth_proof(c->key, AUTH_ACCEPTOR, c->nonce_d, c->nonce_a, answer + AUTH_NONCE_BYTES);
	if (!r)
		say(c, FRAME_AUTH_ANSWER, answer, sizeof(answer));
	return r;
}

static int answer_check(struct conn *c, const uint8_t *answer)
{
	uint8_t proof[AUTH_PROOF_BYTES];
	int r;

	memcpy(c->nonce_a, answer, AUTH_NONCE_BYTES);
	if (!auth_proof_matches(c->key, AUTH_ACCEPTOR, c->nonce_d, c->nonce_a,
				answer + AUTH_NONCE_BYTES))
		return -EKEYREJECTED;
	r = auth_proof(c->key, AUTH_DIALER, c->nonce_d, c->nonce_a, proof);
	if (r)
		return r;
	say(c, FRAME_AUTH_PROOF, proof, sizeof(proof));
	go_up(c);
	return 0;
}

/* The one frame that may come next, and nothing else. An answer before the challenge answers nothing. */
static int joining(struct conn *c, const struct frame *f, const uint8_t *body)
{
	bool challenged = c->dialer || !bytes_are_zero(c->nonce_a, sizeof(c->nonce_a));

	if (f->flags || f->data_bytes || (c->dialer && c->starting))
		return -E_PROTOCOL;
	if (!c->dialer && !challenged && f->type == FRAME_AUTH_CHALLENGE &&
	    f->body_bytes == AUTH_NONCE_BYTES)
		return challenge_answer(c, body);
	if (c->dialer && f->type == FRAME_AUTH_ANSWER &&
	    f->body_bytes == AUTH_NONCE_BYTES + AUTH_PROOF_BYTES)
		return answer_check(c, body);
	if (!c->dialer && challenged && f->type == FRAME_AUTH_PROOF &&
	    f->body_bytes == AUTH_PROOF_BYTES) {
		if (!auth_proof_matches(c->key, AUTH_DIALER, c->nonce_d, c->nonce_a, body))
			return -EKEYREJECTED;
		go_up(c);
		return 0;
	}
	return -E_PROTOCOL;
}

static void go_up(struct conn *c)
{
	if (c->link.failure) /* what had to be said could not be */
		return;
	c->state = CONN_UP;
	c->link.buf_min = c->buf_bytes;
	c->link.body_max = c->body_max;
	c->link.data_max = c->data_max;
	c->ops->up(c);
}

static void pong_sent(struct link_out *o, int status)
{
	(void)status;
	container_of(o, struct conn, pong)->ponging = false;
}

static void pong(struct conn *c)
{
	struct frame f = {.type = FRAME_PONG};

	if (c->ponging)
		return;
	c->ponging = true;
	link_send(&c->link, &c->pong, &f, NULL, NULL, pong_sent);
}

/* ---- frames ---------------------------------------------------------------------------------------------------------------- */

static int on_frame(struct link *l, const struct frame *f, const void *body, void **ret_data)
{
	struct conn *c = container_of(l, struct conn, link);

	if (c->state == CONN_JOINING && c->key)
		return joining(c, f, body);
	if (c->state == CONN_JOINING) /* it was faster than our own first turn */
		go_up(c);
	if (f->type == FRAME_PING || f->type == FRAME_PONG) {
		if (f->body_bytes || f->data_bytes || f->flags)
			return -E_PROTOCOL;
		if (f->type == FRAME_PING)
			pong(c);
		return 0;
	}
	if (f->type < FRAME_TYPE_CONTROL)
		return -E_PROTOCOL;
	if (f->flags & FRAME_F_REPLY)
		return on_reply(c, f, body, ret_data);
	return c->ops->request(c, f, body, ret_data);
}

static int on_reply(struct conn *c, const struct frame *f, const void *body, void **ret_data)
{
	struct hnode *n = htab_find(&c->calls, f->id);
	struct conn_call *call;

	if (!n) /* forgotten, or never asked: in either case nobody's */
		return f->data_bytes || f->id == 0 || f->id >= c->next_id ? -E_PROTOCOL : 0;
	call = container_of(n, struct conn_call, node);
	htab_del(&c->calls, n);
	return call->reply(call, 0, f, body, ret_data);
}

static int on_data(struct link *l)
{
	struct conn *c = container_of(l, struct conn, link);

	return c->ops->data(c);
}

uint64_t conn_call_begin(struct conn *c, struct conn_call *call,
			 int (*reply)(struct conn_call *call, int status, const struct frame *f,
				      const void *body, void **ret_data))
{
	check(conn_is_up(c));
	call->reply = reply;
	htab_add(&c->calls, &call->node, c->next_id);
	return c->next_id++;
}

void conn_call_forget(struct conn *c, struct conn_call *call)
{
	htab_del(&c->calls, &call->node);
}

/* ---- keepalive --------------------------------------------------------------------------------------------------------------- */

void conn_probe(struct conn *c)
{
	if (conn_is_up(c))
		say(c, FRAME_PING, NULL, 0);
}

static void timer_set(struct conn *c)
{
	uint64_t at = ioe_now_ns(c->link.ioe) + c->keepalive_ns;

	if (c->state == CONN_JOINING)
		at = c->join_deadline_ns;
	c->timing = true;
	ioe_timer(c->link.ioe, &c->timer, at, timer_done);
}

static void timer_done(struct ioe_req *r)
{
	struct conn *c = container_of(r, struct conn, timer);
	struct link *l = &c->link;

	c->timing = false;
	if (c->state == CONN_CLOSING) {
		close_step(c);
		return;
	}
	if (l->failure)
		return;
	if (c->state == CONN_JOINING) {
		conn_break(c, -ETIMEDOUT);
		return;
	}
	/* nothing is heard from a link that we do not listen to */
	c->silent = l->received_bytes == c->seen_received && !l->paused ? c->silent + 1 : 0;
	if (c->silent >= SILENT_MAX) {
		conn_break(c, -ETIMEDOUT);
		return;
	}
	if (l->sent_bytes == c->seen_sent && l->queued_bytes == 0)
		say(c, FRAME_PING, NULL, 0);
	c->seen_received = l->received_bytes;
	c->seen_sent = l->sent_bytes;
	timer_set(c);
}

/* ---- ending ------------------------------------------------------------------------------------------------------------------ */

static void calls_fail(struct conn *c)
{
	/* a reply may forget other calls, so nothing is kept from one to the next */
	for (uint64_t i = 0; i <= c->calls.mask; i++) {
		while (c->calls.buckets[i]) {
			struct hnode *n = c->calls.buckets[i];
			struct conn_call *call = container_of(n, struct conn_call, node);

			htab_del(&c->calls, n);
			call->reply(call, -ENOTCONN, NULL, NULL, NULL);
		}
	}
}

static void on_down(struct link *l, int status)
{
	struct conn *c = container_of(l, struct conn, link);

	c->state = CONN_DOWN;
	if (c->timing)
		ioe_cancel(l->ioe, &c->timer);
	calls_fail(c);
	if (c->state == CONN_DOWN) /* and not closed by one of them */
		c->ops->down(c, status);
}

void conn_close(struct conn *c, void (*done)(void *arg), void *arg)
{
	check(c->state != CONN_CLOSING);
	c->state = CONN_CLOSING;
	c->closed = done;
	c->closed_arg = arg;
	if (c->timing)
		ioe_cancel(c->link.ioe, &c->timer);
	link_close(&c->link, link_closed, c);
}

static void link_closed(void *arg)
{
	struct conn *c = arg;

	calls_fail(c);
	c->link.sock = NULL;
	close_step(c);
}

static void close_step(struct conn *c)
{
	if (c->link.sock || c->timing || c->starting)
		return;
	htab_free(&c->calls);
	c->closed(c->closed_arg);
}
