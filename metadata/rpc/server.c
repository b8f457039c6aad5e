/* SPDX-License-Identifier: Apache-2.0 */
#include "metadata/rpc/server.h"

#include <stdio.h>
#include <string.h>

#include "metadata/rpc/session_private.h"
#include "src/base/log.h"

#define SETTLE_NS 500000000ULL

static void settle(struct server *v);
static void settle_done(struct ioe_req *req);
static void accepted(struct listener *l, struct ioe_sock *sock);
static bool make_room(struct server *v);
static void listener_closed(void *arg);

/* A cluster without nodes has nobody to wait for. */
void server_init(struct server *v, const struct server_config *cfg)
{
	uint64_t ns = cfg->settle_ns ? cfg->settle_ns : SETTLE_NS;

	*v = (struct server){.cfg = *cfg};
	if (!cfg->cluster->nodes_n)
		ns = 0;
	v->timing = true;
	ioe_timer(cfg->ioe, &v->timer, ioe_now_ns(cfg->ioe) + ns, settle_done);
}

static void settle_done(struct ioe_req *req)
{
	struct server *v = container_of(req, struct server, timer);

	v->timing = false;
	if (v->closing)
		server_end_step(v);
	else
		settle(v);
}

static void settle(struct server *v)
{
	cluster_settled(
	    v->cfg.cluster); /* harmless when a hello was faster, or the state is another */
	v->cfg.settled(v->cfg.arg);
}

int server_listen(struct server *v, const char *addr, char errmsg[ERRMSG_LEN])
{
	struct listener *l = &v->listeners[v->listeners_n];
	int r;

	if (v->listeners_n == SERVER_LISTENERS_MAX) {
		snprintf(errmsg, ERRMSG_LEN, "more than %d addresses", SERVER_LISTENERS_MAX);
		return -EINVAL;
	}
	if (strncmp(addr, "unix:", 5) && !v->cfg.key) {
		snprintf(errmsg, ERRMSG_LEN,
			 "%.150s: nodes that connect by TCP must prove who they are, and there is "
			 "no key file",
			 addr);
		return -EINVAL;
	}
	r = listener_open(l, v->cfg.ioe, addr, accepted, errmsg);
	if (r)
		return r;
	l->arg = v;
	v->listeners_n++;
	v->listeners_open++;
	return 0;
}

static void accepted(struct listener *l, struct ioe_sock *sock)
{
	struct server *v = l->arg;
	struct cluster *c = v->cfg.cluster;

	if (c->state == CLUSTER_STOPPING ||
	    (v->sessions_n >= SERVER_SESSIONS_MAX && !make_room(v)) ||
	    session_new(v, sock, l->is_unix ? NULL : v->cfg.key)) {
		log_limited(LOG_WARN, ioe_now_ns(v->cfg.ioe), "a connection was not taken");
		ioe_sock_close(v->cfg.ioe, sock);
	}
}

/* Who has not proved yet that it belongs to the cluster, the one that came first first, gives way: whoever can only connect keeps no node out. */
static bool make_room(struct server *v)
{
	if (v->sessions_n >= SERVER_SESSIONS_MAX + SERVER_LEAVING_MAX)
		return false;
	list_for_each (l, &v->cfg.cluster->sessions) {
		struct session *s = list_entry(l, struct session, link);

		if (!conn_is_joining(&s->conn))
			continue;
		session_break(s, -ECONNABORTED);
		return true;
	}
	return false;
}

void server_close(struct server *v, void (*done)(void *arg), void *arg)
{
	check(!v->closing);
	v->closing = true;
	v->closed = done;
	v->closed_arg = arg;
	for (uint32_t i = 0; i < v->listeners_n; i++)
		listener_close(&v->listeners[i], listener_closed, v);
	list_for_each (l, &v->cfg.cluster->sessions)
		session_break(list_entry(l, struct session, link), -ESHUTDOWN);
	if (v->timing) {
		ioe_cancel(v->cfg.ioe, &v->timer);
		return;
	}
	v->timing = true; /* not inline */
	ioe_nop(v->cfg.ioe, &v->timer, settle_done);
}

static void listener_closed(void *arg)
{
	struct server *v = arg;

	v->listeners_open--;
	server_end_step(v);
}

void server_end_step(struct server *v)
{
	void (*closed)(void *arg) = v->closed;

	if (!v->closing || !closed || v->listeners_open || v->sessions_n || v->timing)
		return;
	v->closed = NULL;
	closed(v->closed_arg);
}
