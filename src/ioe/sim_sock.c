/* SPDX-License-Identifier: Apache-2.0 */
/* sim_sock.c - socket requests: listen, accept, connect, receive, send.
 *
 * A connect travels to the other machine, makes the connection there (or is refused), and the answer travels back:
 *   CALL -> ANSWER -> done     each step repeats every second while the way is cut, the machine is off, or the backlog is full, until
 *                              CONNECT_NS have passed: -ETIMEDOUT */
#include <stdio.h>
#include <string.h>

#include "src/base/math.h"
#include "src/base/mem.h"
#include "src/ioe/sim.h"
#include "src/ioe/sock.h"

enum { BACKLOG_MAX = 128, PRIV_DIAL = REQ_PRIV_ENGINE };
#define CONNECT_NS ((uint64_t)127 * 1000 * 1000 * 1000) /* as long as Linux tries by default */
#define RETRY_NS   ((uint64_t)1000 * 1000 * 1000)

struct dial {
	struct sim_event ev;
	struct list link; /* in sim_proc.dials */
	struct sim_proc *p;
	struct ioe_req *r;
	struct sim_conn *conn; /* after the CALL; NULL then: refused */
	uint64_t give_up_ns;
	char addr[IOE_ADDR_MAX];
};

static void dial_call(struct sim_world *w, struct sim_event *ev);
static void dial_answer(struct sim_world *w, struct sim_event *ev);
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

/* The end of a connection becomes a socket of its process. */
static struct sim_sock *sock_attach(struct sim_proc *p, struct sim_conn *c, int side,
				    const char *peer)
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

static void dial_free(struct dial *d)
{
	sim_unschedule(d->p->w, &d->ev);
	if (d->conn) {
		sim_conn_reset(d->conn, 0);
		sim_conn_close(d->conn, 0);
	}
	list_del(&d->link);
	sim_free(d);
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
	while (!list_empty(&p->dials))
		dial_free(list_first(&p->dials, struct dial, link));
}

void sim_socks_free(struct sim_proc *p)
{
	while (!list_empty(&p->socks))
		sock_free(list_first(&p->socks, struct sim_sock, link));
}

/* ---- listening -------------------------------------------------------------------------------------------------------- */

static struct sim_addr *addr_find(struct sim_world *w, const char *text)
{
	list_for_each (l, &w->addrs) {
		struct sim_addr *a = list_entry(l, struct sim_addr, link);

		if (strcmp(a->text, text) == 0)
			return a;
	}
	return NULL;
}

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
	a = addr_find(w, text);
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
		new = sock_attach(s->p, c, 1, s->name ? "unix" : c->end[0].m->name);
		if (new) {
			list_del(&c->backlog_link);
			s->backlog_n--;
			memcpy(new->s.addr, s->s.addr, IOE_ADDR_MAX);
			r->ret_sock = &new->s;
		}
		sim_complete(s->p, r, new ? 0 : -ENOMEM);
	}
}

/* ---- connecting ------------------------------------------------------------------------------------------------------- */

void sim_connect(struct ioe *e, struct ioe_req *r, const char *addr)
{
	struct sim_proc *p = sim_proc_of(e);
	struct sock_addr parsed;
	struct dial *d;
	int status;

	status = sock_addr_parse(addr, &parsed);
	if (status) {
		engine_complete(e, r, status);
		return;
	}
	sim_submit(e, r);
	if (p->is_dead)
		return;
	d = sim_zalloc(sizeof(*d));
	d->p = p;
	d->r = r;
	sock_addr_format(&parsed, d->addr);
	list_init(&d->link);
	list_push(&p->dials, &d->link);
	r->priv[PRIV_DIAL] = (uintptr_t)d;
}

static struct dial *dial_of(const struct ioe_req *r)
{
	return (struct dial *)(uintptr_t)r->priv[PRIV_DIAL];
}

/* To where an address leads: the machine (NULL: nowhere known) and who listens (may be NULL). */
static struct sim_machine *addr_resolve(struct sim_proc *p, const char *addr,
					struct sim_sock **ret_listener)
{
	const struct sim_addr *a;
	const struct sim_name *n;

	*ret_listener = NULL;
	if (strncmp(addr, "unix:", 5) == 0) {
		n = sim_name_find(p->m, addr + 5);
		if (n && n->kind == SIM_SOCKET)
			*ret_listener = n->listener;
		return n ? p->m : NULL;
	}
	a = addr_find(p->w, addr);
	if (a)
		*ret_listener = a->listener;
	return a ? a->m : NULL;
}

static void dial_push(struct dial *d)
{
	struct sim_world *w = d->p->w;
	struct sim_sock *listener;
	struct sim_machine *m = addr_resolve(d->p, d->addr, &listener);

	d->give_up_ns = w->now_ns + CONNECT_NS;
	d->ev.fire = dial_call;
	sim_schedule(w, &d->ev, w->now_ns + sim_net_latency(d->p->m, m ? m : d->p->m));
}

static void dial_finish(struct dial *d, int status)
{
	struct ioe_req *r = d->r;
	struct sim_proc *p = d->p;

	sim_note(p->w, "connect", p, d->addr, 0, 0, status);
	dial_free(d);
	sim_complete(p, r, status);
}

static void dial_retry(struct dial *d)
{
	if (d->p->w->now_ns >= d->give_up_ns)
		dial_finish(d, -ETIMEDOUT);
	else
		sim_schedule(d->p->w, &d->ev, d->p->w->now_ns + RETRY_NS);
}

static void dial_call(struct sim_world *w, struct sim_event *ev)
{
	struct dial *d = container_of(ev, struct dial, ev);
	struct sim_sock *listener;
	struct sim_machine *m = addr_resolve(d->p, d->addr, &listener);

	if (!m && strncmp(d->addr, "unix:", 5) == 0) {
		dial_finish(d, -ENOENT);
		return;
	}
	if (m && (m->is_off || sim_net_is_cut(m, d->p->m))) {
		dial_retry(d);
		return;
	}
	if (listener && listener->backlog_n >= BACKLOG_MAX) {
		dial_retry(d);
		return;
	}
	if (listener && !listener->is_shut) {
		d->conn = sim_conn_new(d->p->m, m);
		list_push(&listener->backlog, &d->conn->backlog_link);
		listener->backlog_n++;
		accepts_serve(listener);
	}
	d->ev.fire = dial_answer;
	sim_schedule(w, ev, w->now_ns + sim_net_latency(d->p->m, m ? m : d->p->m));
}

static void dial_answer(struct sim_world *w, struct sim_event *ev)
{
	struct dial *d = container_of(ev, struct dial, ev);
	bool is_unix = strncmp(d->addr, "unix:", 5) == 0;
	struct sim_sock *s;

	(void)w;
	if (!d->conn) {
		dial_finish(d, -ECONNREFUSED);
		return;
	}
	if (sim_net_is_cut(d->conn->end[0].m, d->conn->end[1].m)) {
		dial_retry(d);
		return;
	}
	s = sock_attach(d->p, d->conn, 0, is_unix ? "unix" : d->addr);
	if (!s) {
		dial_finish(d, -ENOMEM);
		return;
	}
	d->r->ret_sock = &s->s;
	d->conn = NULL; /* the socket's now */
	dial_finish(d, 0);
}

void sim_connect_cancel(struct sim_proc *p, struct ioe_req *r)
{
	list_del(&r->link); /* when it was not pushed yet */
	dial_free(dial_of(r));
	sim_complete(p, r, -ECANCELED);
}

/* ---- receiving and sending -------------------------------------------------------------------------------------------- */

void sim_sock_push(struct sim_proc *p, struct ioe_req *r)
{
	struct sim_sock *s;

	if (r->op == IOE_CONNECT) {
		dial_push(dial_of(r));
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
