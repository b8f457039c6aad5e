/* SPDX-License-Identifier: Apache-2.0 */
/* server.c - the server: its listeners, its connections as a whole, its end. */
#include "src/base/log.h"
#include "src/base/mem.h"
#include "targets/nbd/conn.h"

/* an accept that fails (no descriptors left, say) would fail again at once; sooner when a connection gave way for it */
#define ACCEPT_RETRY_NS 100000000ULL
#define ACCEPT_SOON_NS	5000000ULL

struct listener {
	struct nbd_server *server;
	struct list link;
	struct ioe_sock *sock;
	struct ioe_req req; /* the accept, or the timer until the next */
};

static void listener_accept(struct listener *l);
static void listener_accepted(struct ioe_req *r);
static void listener_retry(struct ioe_req *r);
static void listener_free(struct listener *l);
static void server_admit(struct nbd_server *s, struct ioe_sock *sock);
static bool server_make_room(struct nbd_server *s);
static void server_closed(struct ioe_req *r);

void nbd_limits_fill(struct nbd_limits *l)
{
	if (!l->connections)
		l->connections = 256;
	if (!l->requests)
		l->requests = 128;
	if (!l->pool_bytes)
		l->pool_bytes = 36 << 20;
	if (!l->handshake_ns)
		l->handshake_ns = 30000000000ULL;
	if (!l->drain_ns)
		l->drain_ns = 5000000000ULL;
	if (!l->stall_ns)
		l->stall_ns = 30000000000ULL;
}

/* A client may count on requests of 1 MiB; page numbers of the pool are 32-bit. */
static bool limits_make_sense(const struct nbd_limits *l)
{
	return l->pool_bytes >= POOL_SHARE_PAGES * BLOCK_BYTES && l->pool_bytes <= 1ULL << 40 &&
	       l->memory_bytes >= nbd_memory_least(l) && l->memory_bytes <= INT64_MAX;
}

int nbd_server_new(const struct nbd_config *cfg, struct nbd_server **ret_server)
{
	struct nbd_limits limits = cfg->limits;
	struct nbd_server *s;

	nbd_limits_fill(&limits);
	if (!limits.memory_bytes)
		limits.memory_bytes = nbd_memory_usual(&limits);
	if (!limits_make_sense(&limits))
		return -EINVAL;
	s = mem_zalloc(sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->ioe = cfg->ioe;
	s->volumes = cfg->volumes;
	s->limits = limits;
	list_init(&s->listeners);
	list_init(&s->conns);
	list_init(&s->greeting);
	budget_init(s);
	*ret_server = s;
	return 0;
}

int nbd_server_listen(struct nbd_server *s, const char *addr, char *errmsg)
{
	struct listener *l;
	int r;

	if (s->closing)
		return -ESHUTDOWN;
	l = mem_zalloc(sizeof(*l));
	if (!l)
		return -ENOMEM;
	r = ioe_listen(s->ioe, addr, &l->sock, errmsg);
	if (r < 0) {
		mem_free(l);
		return r;
	}
	l->server = s;
	list_push(&s->listeners, &l->link);
	listener_accept(l);
	return 0;
}

int nbd_server_addr(struct nbd_server *s, uint32_t i, char ret_addr[IOE_ADDR_MAX])
{
	list_for_each (pos, &s->listeners) {
		if (i-- > 0)
			continue;
		ioe_sock_addr(list_entry(pos, struct listener, link)->sock, ret_addr);
		return 0;
	}
	return -ENOENT;
}

/* ---- accepting -------------------------------------------------------------------------------------------------------- */

static void listener_accept(struct listener *l)
{
	ioe_accept(l->server->ioe, &l->req, l->sock, listener_accepted);
}

static void listener_accepted(struct ioe_req *r)
{
	struct listener *l = container_of(r, struct listener, req);
	struct nbd_server *s = l->server;
	uint64_t pause_ns = ACCEPT_RETRY_NS;

	if (s->closing) {
		if (r->status == 0)
			ioe_sock_close(s->ioe, r->ret_sock);
		listener_free(l);
	} else if (r->status == 0) {
		struct ioe_sock *sock = r->ret_sock;

		listener_accept(l);
		server_admit(s, sock);
	} else {
		log_limited(LOG_WARN, ioe_now_ns(s->ioe), "nbd accept failed", "error=%s",
			    err_name(r->status));
		if ((r->status == -EMFILE || r->status == -ENFILE) && server_make_room(s))
			pause_ns = ACCEPT_SOON_NS;
		ioe_timer(s->ioe, &l->req, ioe_now_ns(s->ioe) + pause_ns, listener_retry);
	}
}

static void listener_retry(struct ioe_req *r)
{
	struct listener *l = container_of(r, struct listener, req);

	if (l->server->closing)
		listener_free(l);
	else
		listener_accept(l);
}

static void server_admit(struct nbd_server *s, struct ioe_sock *sock)
{
	struct nbd_conn *c;

	if (s->conns_n >= s->limits.connections && !server_make_room(s)) {
		s->past.refused++;
		log_limited(LOG_WARN, ioe_now_ns(s->ioe),
			    "nbd connection refused: there are too many", "limit=%u",
			    s->limits.connections);
		ioe_sock_close(s->ioe, sock);
		return;
	}
	if (conn_new(s, sock, &c) < 0) {
		s->past.refused++;
		log_limited(LOG_WARN, ioe_now_ns(s->ioe),
			    "nbd connection refused: not enough memory");
		return;
	}
	s->past.accepted++;
	s->conns_n++;
	list_push(&s->conns, &c->link);
}

/* Takes the place of the connection that has been in its handshake longest, of those whose turn it is: where we are at work for the
 * client, it is not the client who holds the place up. */
static bool server_make_room(struct nbd_server *s)
{
	if (s->leaving_n >= LEAVING_MAX)
		return false;
	list_for_each (pos, &s->greeting) {
		struct nbd_conn *c = list_entry(pos, struct nbd_conn, greet_link);

		if (!handshake_is_peers_turn(c))
			continue;
		conn_give_way(c);
		conn_settle(c);
		return true;
	}
	return false;
}

void server_conn_gone(struct nbd_server *s, bool left)
{
	if (left)
		s->leaving_n--;
	else
		s->conns_n--;
	if (s->closing)
		server_close_step(s);
}

/* ---- closing ---------------------------------------------------------------------------------------------------------- */

void nbd_server_close(struct nbd_server *s, void (*done)(void *arg), void *arg)
{
	check(!s->closing);
	s->closing = true;
	s->closed = done;
	s->closed_arg = arg;
	list_for_each (pos, &s->listeners)
		ioe_cancel(s->ioe, &list_entry(pos, struct listener, link)->req);
	if (s->budget.timing)
		ioe_cancel(s->ioe, &s->budget.timer);
	list_for_each_safe (pos, next, &s->conns) {
		struct nbd_conn *c = list_entry(pos, struct nbd_conn, link);

		conn_drain(c);
		conn_settle(c);
	}
	server_close_step(s);
}

static void listener_free(struct listener *l)
{
	struct nbd_server *s = l->server;

	list_del(&l->link);
	ioe_sock_close(s->ioe, l->sock);
	mem_free(l);
	server_close_step(s);
}

void server_close_step(struct nbd_server *s)
{
	if (!list_empty(&s->listeners) || !list_empty(&s->conns) || s->budget.timing || s->ending)
		return;
	s->ending = true;
	ioe_nop(s->ioe, &s->end, server_closed); /* nothing completes inline */
}

static void server_closed(struct ioe_req *r)
{
	struct nbd_server *s = container_of(r, struct nbd_server, end);
	void (*done)(void *arg) = s->closed;
	void *arg = s->closed_arg;

	ioe_hook_disarm(&s->budget.hook);
	mem_free(s);
	done(arg);
}

/* ---- status ----------------------------------------------------------------------------------------------------------- */

int nbd_server_conn_next(struct nbd_server *s, uint64_t after, struct nbd_conn_info *ret_info)
{
	list_for_each (pos, &s->conns) {
		const struct nbd_conn *c = list_entry(pos, struct nbd_conn, link);

		if (c->id <= after)
			continue;
		conn_info(c, ret_info);
		return 0;
	}
	return -ENOENT;
}

void nbd_server_info(struct nbd_server *s, struct nbd_server_info *ret_info)
{
	*ret_info = s->past;
	ret_info->connections = s->conns_n;
	ret_info->memory_bytes = s->limits.memory_bytes;
	ret_info->memory_used_bytes =
	    s->conns_n * s->budget.conn_bytes +
	    (uint64_t)(s->budget.pages_n - s->budget.pages_free) * BLOCK_BYTES;
	ret_info->memory_waiting = s->budget.waiting_n;
	ret_info->memory_waits = s->budget.waits;
	list_for_each (pos, &s->listeners)
		ret_info->listeners++;
	list_for_each (pos, &s->conns)
		conn_count(list_entry(pos, struct nbd_conn, link), ret_info);
}
