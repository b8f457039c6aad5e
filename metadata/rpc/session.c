/* SPDX-License-Identifier: Apache-2.0 */
#include "metadata/rpc/session_private.h"

#include <stdio.h>

#include "src/base/log.h"
#include "src/base/mem.h"

enum {
	REQUESTS_MAX = 4096
}; /* of one node at once; then its socket is not read until half of them are answered */

#define ANSWER_NS 30000000000ULL

static void on_up(struct conn *c);
static int on_request(struct conn *c, const struct frame *f, const void *body, void **ret_data);
static void on_down(struct conn *c, int status);
static void on_closed(void *arg);

static const struct conn_ops conn_ops = {.up = on_up, .request = on_request, .down = on_down};

int session_new(struct server *v, struct ioe_sock *sock, const struct auth_key *key)
{
	struct session *s = mem_zalloc(sizeof(*s));
	struct conn_config cfg = {
	    .ioe = v->cfg.ioe,
	    .ops = &conn_ops,
	    .key = key,
	    .keepalive_ns = v->cfg.keepalive_ns,
	    .body_max = FRAME_BODY_MAX,
	};
	int r = s ? conn_open(&s->conn, &cfg, sock) : -ENOMEM;

	if (r) {
		mem_free(s);
		return r;
	}
	s->server = v;
	s->cluster = v->cfg.cluster;
	s->refs = 1;
	ioe_sock_peer(sock, s->peer);
	list_init(&s->asks);
	list_push(&s->cluster->sessions, &s->link);
	v->sessions_n++;
	return 0;
}

struct session *session_get(struct session *s)
{
	check(s->refs > 0);
	s->refs++;
	return s;
}

void session_put(struct session *s)
{
	struct server *v = s->server;

	check(s->refs > 0);
	if (--s->refs)
		return;
	check(s->state == SESSION_GONE);
	mem_free(s);
	v->sessions_n--;
	server_end_step(v);
}

void session_break(struct session *s, int status)
{
	if (s->state != SESSION_GONE)
		conn_break(&s->conn, status);
}

/* ---- from connected to gone ------------------------------------------------------------------------------------------------------------ */

static void on_up(struct conn *c)
{
	(void)c; /* the node says hello */
}

static int on_request(struct conn *c, const struct frame *f, const void *body, void **ret_data)
{
	struct session *s = container_of(c, struct session, conn);
	ProtobufCMessage *msg;
	int r;

	(void)ret_data;
	if ((f->type == CONTROL_HELLO) != (s->state == SESSION_CONNECTED) ||
	    (f->type != CONTROL_HELLO && s->state != SESSION_JOINED) ||
	    f->type >= CONTROL_RECORDS) /* ours to ask */
		return -E_PROTOCOL;
	r = control_unpack(f->type, false, body, f->body_bytes, &msg);
	if (r) {
		log_limited(LOG_WARN, ioe_now_ns(s->cluster->ioe), "a request is malformed",
			    "peer=%s type=%s", s->peer, control_name(f->type));
		return r;
	}
	if (f->type == CONTROL_HELLO) {
		s->state = SESSION_GREETED;
		cluster_hello(s->cluster, s, f->id, (Strata__Hello *)msg);
		return 0;
	}
	if (++s->requests_n >= REQUESTS_MAX)
		link_pause(&c->link);
	session_get(s);
	cluster_op_begin(s->cluster);
	call_begin(s, f->type, f->id, msg);
	return 0;
}

void session_request_end(struct session *s)
{
	struct cluster *c = s->cluster;

	if (s->requests_n-- == REQUESTS_MAX / 2 && s->conn.link.paused)
		link_resume(&s->conn.link);
	session_put(s);
	cluster_op_end(c);
}

void session_welcome(struct session *s, struct cluster_node *n, uint64_t id,
		     const Strata__Welcome *msg)
{
	check(s->state == SESSION_GREETED && !n->session);
	s->state = SESSION_JOINED;
	s->node = n;
	n->session = s;
	session_answer(s, CONTROL_HELLO, id, &msg->base);
}

void session_refuse(struct session *s, uint64_t id, int status, const char *errmsg)
{
	Strata__Welcome m = STRATA__WELCOME__INIT;

	m.error = (char *)(uintptr_t)control_error(status);
	m.errmsg = (char *)(uintptr_t)errmsg;
	if (status != -ESHUTDOWN)
		log_limited(LOG_WARN, ioe_now_ns(s->cluster->ioe), "a node is not welcome",
			    "peer=%s error=%s %s", s->peer, err_name(status), errmsg);
	session_answer(s, CONTROL_HELLO, id, &m.base); /* the node hangs up when it has read it */
}

static void on_down(struct conn *c, int status)
{
	struct session *s = container_of(c, struct session, conn);
	struct cluster_node *n = s->node;

	if (s->state == SESSION_JOINED)
		log_info("a node's connection ended", "node=%s error=%s", n ? n->name : "?",
			 err_name(status));
	else if (s->state == SESSION_CONNECTED && status != -ESHUTDOWN)
		log_limited(LOG_WARN, ioe_now_ns(s->cluster->ioe),
			    "a connection ended before it said who it is",
			    "peer=%s error=%s hint=\"has it the cluster's key?\"", s->peer,
			    err_name(status));
	s->state = SESSION_GONE;
	s->node = NULL;
	if (n)
		cluster_node_lost(s->cluster, n);
	list_del(&s->link);
	if (s->timing)
		ioe_cancel(s->cluster->ioe, &s->timer);
	conn_close(c, on_closed, s);
}

static void on_closed(void *arg)
{
	session_put(arg);
}

/* ---- asking and answering ---------------------------------------------------------------------------------------------------------------- */

static void timer_done(struct ioe_req *req);

static void timer_set(struct session *s)
{
	s->timing = true;
	session_get(s);
	ioe_timer(s->cluster->ioe, &s->timer, ioe_now_ns(s->cluster->ioe) + ANSWER_NS / 2,
		  timer_done);
}

static void timer_done(struct ioe_req *req)
{
	struct session *s = container_of(req, struct session, timer);
	uint64_t now_ns = ioe_now_ns(s->cluster->ioe);

	s->timing = false;
	list_for_each (l, &s->asks) {
		struct session_call *c = list_entry(l, struct session_call, link);

		if (c->type == CONTROL_DEVICE_ADD)
			continue;
		if (now_ns - c->asked_ns >= ANSWER_NS && s->state == SESSION_JOINED) {
			log_warn("a node does not answer", "node=%s type=%s", s->node->name,
				 control_name(c->type));
			session_break(s, -ETIMEDOUT);
		}
		break;
	}
	if (!list_empty(&s->asks) && s->state != SESSION_GONE)
		timer_set(s);
	session_put(s);
}

static int answered(struct conn_call *call, int status, const struct frame *f, const void *body,
		    void **ret_data)
{
	struct session_call *c = container_of(call, struct session_call, call);
	struct session *s = c->s;
	ProtobufCMessage *msg = NULL;

	(void)ret_data;
	list_del(&c->link);
	if (!status)
		status = f->type == c->type
			     ? control_unpack(f->type, true, body, f->body_bytes, &msg)
			     : -E_PROTOCOL;
	c->done(c, status, msg);
	control_free(msg);
	session_put(s);
	return status == -ENOTCONN ? 0 : status;
}

static void not_joined(struct ioe_req *req)
{
	struct session_call *c = container_of(req, struct session_call, nop);
	struct session *s = c->s;

	c->done(c, -ENOTCONN, NULL);
	session_put(s);
}

/* control_send() breaks the connection when it fails, and a broken connection answers every call. */
void session_ask(struct session *s, struct session_call *c, uint16_t type,
		 const ProtobufCMessage *msg,
		 void (*done)(struct session_call *c, int status, const ProtobufCMessage *answer))
{
	c->s = session_get(s);
	c->type = type;
	c->done = done;
	if (!session_is_joined(s)) {
		ioe_nop(s->cluster->ioe, &c->nop, not_joined);
		return;
	}
	c->asked_ns = ioe_now_ns(s->cluster->ioe);
	list_push(&s->asks, &c->link);
	if (!s->timing)
		timer_set(s);
	control_send(&s->conn, type, 0, conn_call_begin(&s->conn, &c->call, answered), msg);
}

void session_answer(struct session *s, uint16_t type, uint64_t id, const ProtobufCMessage *msg)
{
	if (s->state != SESSION_GONE && conn_is_up(&s->conn))
		control_send(&s->conn, type, FRAME_F_REPLY, id, msg);
}
