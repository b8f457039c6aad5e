/* SPDX-License-Identifier: Apache-2.0 */
#include "src/wire/listen.h"

#include <inttypes.h>
#include <string.h>

#include "src/base/log.h"

#define RETRY_NS 100000000ULL

static void next(struct listener *l);
static void accept_done(struct ioe_req *r);
static void pause_done(struct ioe_req *r);
static void finish(struct listener *l);

int listener_open(struct listener *l, struct ioe *e, const char *addr,
		  void (*accepted)(struct listener *l, struct ioe_sock *s), char *errmsg)
{
	int r;

	*l = (struct listener){.ioe = e,
			       .accepted = accepted,
			       .is_unix = strncmp(addr, "unix:", 5) == 0};
	r = ioe_listen(e, addr, &l->sock, errmsg);
	if (r)
		return r;
	ioe_sock_addr(l->sock, l->addr);
	next(l);
	return 0;
}

static void next(struct listener *l)
{
	ioe_accept(l->ioe, &l->req, l->sock, accept_done);
}

static void accept_done(struct ioe_req *r)
{
	struct listener *l = container_of(r, struct listener, req);

	if (l->closed) {
		if (!r->status)
			ioe_sock_close(l->ioe, r->ret_sock);
		finish(l);
		return;
	}
	if (r->status) {
		log_limited(LOG_WARN, ioe_now_ns(l->ioe), "cannot accept a connection",
			    "addr=%s error=%s", l->addr, err_name(r->status));
		ioe_timer(l->ioe, &l->req, ioe_now_ns(l->ioe) + RETRY_NS, pause_done);
		return;
	}
	l->accepted(l, r->ret_sock);
	if (l->closed)
		finish(l);
	else
		next(l);
}

static void pause_done(struct ioe_req *r)
{
	struct listener *l = container_of(r, struct listener, req);

	if (l->closed)
		finish(l);
	else
		next(l);
}

void listener_close(struct listener *l, void (*done)(void *arg), void *arg)
{
	check(!l->closed);
	l->closed = done;
	l->closed_arg = arg;
	ioe_cancel(l->ioe, &l->req);
}

static void finish(struct listener *l)
{
	ioe_sock_close(l->ioe, l->sock);
	l->closed(l->closed_arg);
}
