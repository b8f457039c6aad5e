/* SPDX-License-Identifier: Apache-2.0 */
/* sim_dial.c - connecting. A call travels to the other machine, makes the connection there (or is refused), and the answer travels back:
 *
 *   CALL -> ANSWER -> done     each step is repeated every second while the way is cut, the machine is off, or the backlog is full, until
 *                              CONNECT_NS have passed: -ETIMEDOUT */
#include <string.h>

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

struct sim_addr *sim_addr_find(struct sim_world *w, const char *text)
{
	list_for_each (l, &w->addrs) {
		struct sim_addr *a = list_entry(l, struct sim_addr, link);

		if (strcmp(a->text, text) == 0)
			return a;
	}
	return NULL;
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

void sim_dials_free(struct sim_proc *p)
{
	while (!list_empty(&p->dials))
		dial_free(list_first(&p->dials, struct dial, link));
}

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
	a = sim_addr_find(p->w, addr);
	if (a)
		*ret_listener = a->listener;
	return a ? a->m : NULL;
}

void sim_connect_push(struct sim_proc *p, struct ioe_req *r)
{
	struct dial *d = dial_of(r);
	struct sim_world *w = p->w;
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
		sim_sock_progress(listener);
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
	s = sim_sock_attach(d->p, d->conn, 0, is_unix ? "unix" : d->addr);
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
