/* SPDX-License-Identifier: Apache-2.0 */
/* sim_sock.c - socket requests: listen, accept, receive, send. */
#include <stdio.h>
#include <string.h>

#include "src/base/math.h"
#include "src/base/mem.h"
#include "src/ioe/sim.h"
#include "src/ioe/sock.h"

static void accepts_serve(struct sim_sock *s);
static void receives_serve(struct sim_sock *s);
static void sends_serve(struct sim_sock *s);

/* ---- life ------------------------------------------------------------------------------------------------------------- */

static struct sim_sock *sock_new(struct sim_proc *p, bool is_listener)
{
	struct sim_sock *s = mem_zalloc(sizeof(*s));

	if (!s)
		return NULL;
	engine_sock_init(&p->e, &s->s, is_listener);
	s->p = p;
	list_init(&s->receives);
	list_init(&s->sends);
	list_init(&s->accepts);
	list_init(&s->backlog);
	list_init(&s->link);
	list_push(&p->socks, &s->link);
	return s;
}

static void sock_free(struct sim_sock *s)
{
	list_del(&s->link);
	mem_free(s);
}

struct sim_sock *sim_sock_attach(struct sim_proc *p, struct sim_conn *c, int side, const char *peer)
{
	struct sim_sock *s = sock_new(p, false);

	if (!s)
		return NULL;
	s->conn = c;
	s->side = side;
	s->s.is_local = c->end[0].m == c->end[1].m;
	snprintf(s->s.peer, IOE_ADDR_MAX, "%s", peer);
	c->end[side].sock = s;
	if (c->end[side].state == SIM_END_PENDING)
		c->end[side].state = SIM_END_OPEN;
	return s;
}

/* Whoever waits in the backlog finds the connection reset. */
static void listener_end(struct sim_sock *s)
{
	struct list *l;

	if (s->name)
		s->name->listener = NULL;
	if (s->addr)
		s->addr->listener = NULL;
	s->name = NULL;
	s->addr = NULL;
	while ((l = list_pop(&s->backlog))) {
		struct sim_conn *c = list_entry(l, struct sim_conn, backlog_link);

		sim_conn_reset(c, 1);
		sim_conn_close(c, 1);
	}
}

static void stream_end(struct sim_sock *s)
{
	struct sim_conn *c = s->conn;

	s->conn = NULL;
	if (c)
		sim_conn_close(c, s->side);
}

void sim_sock_close(struct ioe *e, struct ioe_sock *base)
{
	struct sim_sock *s = sim_sock_of(base);
	struct sim_name *name = s->name;

	(void)e;
	listener_end(s);
	if (name)
		sim_name_free(name);
	stream_end(s);
	sock_free(s);
}

void sim_sock_shutdown(struct ioe *e, struct ioe_sock *base)
{
	struct sim_sock *s = sim_sock_of(base);

	(void)e;
	s->is_shut = true;
	if (s->conn)
		sim_conn_shutdown(s->conn, s->side);
	sim_sock_progress(s);
}

void sim_socks_close(struct sim_proc *p)
{
	list_for_each (l, &p->socks) {
		struct sim_sock *s = list_entry(l, struct sim_sock, link);

		listener_end(s);
		stream_end(s);
	}
}

/* A kernel closes what a dead process leaves open: in good order if the process was idle, amid a message if it was not. */
void sim_socks_reset(struct sim_proc *p)
{
	list_for_each (l, &p->socks) {
		struct sim_sock *s = list_entry(l, struct sim_sock, link);

		if (s->conn && rand_percent(&p->w->rand, 50))
			sim_conn_reset(s->conn, s->side);
		sim_forget(p, &s->receives);
		sim_forget(p, &s->sends);
		sim_forget(p, &s->accepts);
	}
	sim_socks_close(p);
	sim_dials_free(p);
}

void sim_socks_free(struct sim_proc *p)
{
	while (!list_empty(&p->socks))
		sock_free(list_first(&p->socks, struct sim_sock, link));
}

/* ---- listening -------------------------------------------------------------------------------------------------------- */

static int listen_name(struct sim_sock *s, const char *path)
{
	struct sim_machine *m = s->p->m;
	struct sim_name *n = sim_name_find(m, path);

	if (n && (n->kind != SIM_SOCKET || n->listener))
		return -EADDRINUSE;
	if (!n)
		n = sim_name_new(m, path, SIM_SOCKET);
	n->listener = s;
	s->name = n;
	return 0;
}

/* text: with port 0, the port is chosen and filled in */
static int listen_addr(struct sim_sock *s, char text[IOE_ADDR_MAX])
{
	struct sim_world *w = s->p->w;
	size_t host_len = (size_t)(strrchr(text, ':') - text);
	struct sim_addr *a;

	if (strcmp(text + host_len, ":0") == 0)
		snprintf(text + host_len, IOE_ADDR_MAX - host_len, ":%u", ++w->last_port);
	check(w->last_port < 65536);
	a = sim_addr_find(w, text);
	if (a && a->listener)
		return -EADDRINUSE;
	if (!a) {
		a = sim_zalloc(sizeof(*a));
		memcpy(a->text, text, IOE_ADDR_MAX);
		list_init(&a->link);
		list_push(&w->addrs, &a->link);
	}
	a->m = s->p->m;
	a->listener = s;
	s->addr = a;
	return 0;
}

int sim_listen(struct ioe *e, const char *addr, struct ioe_sock **ret_s, char *errmsg)
{
	struct sim_proc *p = sim_proc_of(e);
	struct sock_addr parsed;
	struct sim_sock *s;
	int r;

	if (p->is_dead)
		return -EIO;
	r = sock_addr_parse(addr, &parsed);
	if (r) {
		if (errmsg)
			snprintf(errmsg, ERRMSG_LEN,
				 "%s is no address to listen on: unix:PATH or HOST:PORT", addr);
		return r;
	}
	s = sock_new(p, true);
	if (!s)
		return -ENOMEM;
	sock_addr_format(&parsed, s->s.addr);
	if (strncmp(addr, "unix:", 5) == 0)
		r = listen_name(s, addr + 5);
	else
		r = listen_addr(s, s->s.addr);
	if (r) {
		if (errmsg)
			snprintf(errmsg, ERRMSG_LEN, "cannot listen on %s: %s", addr, err_text(r));
		sock_free(s);
		return r;
	}
	s->s.is_local = s->name || sock_addr_is_local(&parsed);
	*ret_s = &s->s;
	return 0;
}

static void accepts_serve(struct sim_sock *s)
{
	while (!list_empty(&s->accepts) && (s->is_shut || !list_empty(&s->backlog))) {
		struct ioe_req *r = list_entry(list_pop(&s->accepts), struct ioe_req, link);
		struct sim_conn *c;
		struct sim_sock *new;

		if (s->is_shut) {
			sim_complete(s->p, r, -EINVAL);
			continue;
		}
		c = list_first(&s->backlog, struct sim_conn, backlog_link);
		new = sim_sock_attach(s->p, c, 1, s->name ? "unix" : c->end[0].m->name);
		if (new) {
			list_del(&c->backlog_link);
			s->backlog_n--;
			memcpy(new->s.addr, s->s.addr, IOE_ADDR_MAX);
			r->ret_sock = &new->s;
		}
		sim_complete(s->p, r, new ? 0 : -ENOMEM);
	}
}

/* ---- receiving and sending -------------------------------------------------------------------------------------------- */

void sim_sock_push(struct sim_proc *p, struct ioe_req *r)
{
	struct sim_sock *s;

	if (r->op == IOE_CONNECT) {
		sim_connect_push(p, r);
		return;
	}
	s = sim_sock_of(r->sock);
	check(s->p == p);
	list_push(r->op == IOE_ACCEPT ? &s->accepts
		  : r->op == IOE_RECV ? &s->receives
				      : &s->sends,
		  &r->link);
	sim_sock_progress(s);
}

void sim_sock_progress(struct sim_sock *s)
{
	if (!s)
		return;
	accepts_serve(s);
	if (!s->conn)
		return;
	receives_serve(s);
	sends_serve(s);
}

static size_t receive(struct sim_sock *s, struct ioe_req *r, uint64_t most)
{
	size_t got = 0;

	for (int i = 0; i < r->iov_n && got < most; i++)
		got += sim_conn_recv(s->conn, s->side, r->iov[i].iov_base,
				     MIN(r->iov[i].iov_len, most - got));
	return got;
}

static void sends_resume(struct sim_sock *peer)
{
	if (peer)
		sends_serve(peer);
}

static void receives_serve(struct sim_sock *s)
{
	struct sim_world *w = s->p->w;
	const struct sim_end *end = &s->conn->end[s->side];

	while (!list_empty(&s->receives)) {
		struct ioe_req *r = list_first(&s->receives, struct ioe_req, link);
		uint64_t there = sim_conn_arrived(s->conn, s->side);
		bool ends = end->at_eof || end->is_shut;

		if (there == 0 && !ends && !end->is_reset)
			return;
		list_del(&r->link);
		if (there > 1 && rand_percent(&w->rand, w->cfg.recv_split_percent))
			there = 1 + rand_below(&w->rand, there);
		r->got = receive(s, r, there);
		sim_complete(s->p, r, there > 0 || ends ? 0 : -ECONNRESET);
		/* there is room in the peer's window, if word of it gets through */
		if (r->got > 0 && !sim_net_is_cut(s->conn->end[0].m, s->conn->end[1].m))
			sends_resume(s->conn->end[1 - s->side].sock);
	}
}

static size_t iov_bytes(const struct ioe_req *r)
{
	size_t n = 0;

	for (int i = 0; i < r->iov_n; i++)
		n += r->iov[i].iov_len;
	return n;
}

/* Moves the front of the iov to `to`. */
static void iov_take(struct ioe_req *r, uint8_t *to, size_t len)
{
	while (len > 0) {
		size_t n = MIN(len, r->iov->iov_len);

		memcpy(to, r->iov->iov_base, n);
		to += n;
		len -= n;
		r->iov->iov_base = (uint8_t *)r->iov->iov_base + n;
		r->iov->iov_len -= n;
		if (r->iov->iov_len == 0) {
			r->iov++;
			r->iov_n--;
		}
	}
}

/* Sends what there is room for; true when that is all. */
static bool send_advance(struct sim_sock *s, struct ioe_req *r)
{
	size_t left = iov_bytes(r), n = MIN(left, sim_conn_room(s->conn, s->side));

	if (n <
	    MIN(left,
		SIM_WINDOW /
		    8)) /* or streams would fall apart into ever smaller pieces, as TCP knows (RFC 1122, 4.2.3.4) */
		return false;
	if (n > 0)
		iov_take(r, sim_conn_send(s->conn, s->side, n), n);
	return n == left;
}

static void sends_serve(struct sim_sock *s)
{
	const struct sim_end *end = &s->conn->end[s->side];

	while (!list_empty(&s->sends)) {
		struct ioe_req *r = list_first(&s->sends, struct ioe_req, link);
		int status = end->is_shut					 ? -EPIPE
			     : end->is_reset || s->conn->pipe[s->side].has_reset ? -ECONNRESET
										 : 0;

		if (!status && !send_advance(s, r))
			return;
		list_del(&r->link);
		sim_complete(s->p, r, status);
	}
}
