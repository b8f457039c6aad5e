/* SPDX-License-Identifier: Apache-2.0 */
/* sock_io.c - serving the requests of sockets.
 *
 * Sends that are queued when the direction is tried leave as one message: a turn's replies cost one system call per connection, or
 * one entry in the ring. */
#include <string.h>

#include "src/base/math.h"
#include "src/ioe/host.h"

enum { SEND_BYTES_MAX = 1 << 20 }; /* of one message: others want their turn */
/* what a try returns besides 0 and -errno, which end the head of the queue */
enum { TRY_BLOCKED = 1, TRY_LATER = 2 };

static bool has_several_sends(const struct list *dirs);
static int dir_run(struct host *h, struct sock_dir *d);
static int head_try(struct host *h, struct sock_dir *d);
static int recv_try(struct sock *s, struct ioe_req *r);
static int send_run(struct host *h, struct sock_dir *d);

void sock_submit(struct host *h, struct ioe_req *r)
{
	struct sock_dir *d = sock_dir_of(r);

	r->priv[SOCK_PRIV_IOV] = 0;
	r->stage = SOCK_QUEUED;
	list_push(&d->queue, &r->link);
	sock_dir_wake(h, d);
}

void sock_dir_wake(struct host *h, struct sock_dir *d)
{
	if (!d->armed_n && !list_empty(&d->queue) && list_empty(&d->link))
		list_push(&h->dirs, &d->link);
}

void sock_head_done(struct host *h, struct sock_dir *d, int status)
{
	struct ioe_req *r = sock_dir_head(d);

	list_del(&r->link);
	if (r->op == IOE_CONNECT)
		sock_connect_end(r, status);
	engine_complete(&h->ioe, r, status);
}

static void end_cancelled(struct host *h, struct ioe_req *r)
{
	list_del(&r->link);
	if (r->op == IOE_CONNECT)
		sock_connect_end(r, -ECANCELED);
	engine_complete(&h->ioe, r, -ECANCELED);
}

bool sock_cancel(struct host *h, struct ioe_req *r)
{
	struct sock_dir *d = sock_dir_of(r);
	uint32_t n = 0;

	list_for_each (l, &d->queue) {
		if (n++ == d->armed_n)
			break;
		if (l == &r->link) {
			r->stage = SOCK_CANCELLED;
			d->cancelled = true;
			return false;
		}
	}
	end_cancelled(h, r);
	return true;
}

int sock_cancelled_end(struct host *h, struct sock_dir *d)
{
	int n = 0;

	if (!d->cancelled)
		return 0;
	d->cancelled = false;
	list_for_each_safe (l, next, &d->queue) {
		struct ioe_req *r = list_entry(l, struct ioe_req, link);

		if (r->stage == SOCK_CANCELLED) {
			end_cancelled(h, r);
			n++;
		}
	}
	return n;
}

void sock_dirs_run(struct host *h)
{
	struct list now = LIST_INIT(now);
	struct list *l;

	list_splice(&now, &h->dirs);
	h->several_sends = h->leaves_bytes_to_kernel && has_several_sends(&now);
	while ((l = list_pop(&now))) {
		struct sock_dir *d = list_entry(l, struct sock_dir, link);

		switch (dir_run(h, d)) {
		case TRY_LATER:
			sock_dir_wake(h, d);
			break;
		case TRY_BLOCKED:
			h->arm(h, d);
			break;
		}
	}
}

static bool has_several_sends(const struct list *dirs)
{
	int n = 0;

	list_for_each (l, dirs) {
		struct sock_dir *d = list_entry(l, struct sock_dir, link);

		if (d == &d->sock->out && ++n > 1)
			return true;
	}
	return false;
}

/* 0 when nothing is left to do */
static int dir_run(struct host *h, struct sock_dir *d)
{
	while (!list_empty(&d->queue)) {
		enum ioe_op op = sock_dir_head(d)->op;
		int got;

		if (op == IOE_SEND)
			return send_run(h, d);
		got = head_try(h, d);
		if (got > 0)
			return got;
		sock_head_done(h, d, got);
		if (op == IOE_CONNECT)
			return 0; /* a failed one has freed the socket, and d with it */
	}
	return 0;
}

static int head_try(struct host *h, struct sock_dir *d)
{
	struct ioe_req *r = sock_dir_head(d);
	struct sock *s = d->sock;
	int got;

	if (s->shut)
		return r->op == IOE_RECV ? 0 : -ESHUTDOWN;
	if (d->blocked)
		return TRY_BLOCKED;
	switch (r->op) {
	case IOE_RECV:
		got = h->leaves_bytes_to_kernel ? TRY_BLOCKED : recv_try(s, r);
		break;
	case IOE_ACCEPT:
		got = sock_accept_try(s, r);
		break;
	case IOE_CONNECT:
		got = sock_connect_try(s);
		break;
	default:
		check_unreachable("not a socket request");
	}
	d->blocked |= got == TRY_BLOCKED;
	return got;
}

size_t sock_iov_bytes(const struct ioe_req *r)
{
	size_t n = 0;

	for (int i = 0; i < r->iov_n; i++)
		n += r->iov[i].iov_len;
	return n;
}

static int recv_try(struct sock *s, struct ioe_req *r)
{
	struct msghdr m = {.msg_iov = r->iov, .msg_iovlen = (size_t)r->iov_n};
	ssize_t n;

	do
		n = r->iov_n == 1 ? recv(s->fd, r->iov[0].iov_base, r->iov[0].iov_len, MSG_DONTWAIT)
				  : recvmsg(s->fd, &m, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? TRY_BLOCKED : -errno;
	sock_received(s, r, (size_t)n);
	return 0;
}

void sock_received(struct sock *s, struct ioe_req *r, size_t bytes)
{
	r->got = bytes;
	if (bytes == 0)
		s->hup = true;
	s->in.blocked = !s->hup && bytes < sock_iov_bytes(r);
}

static int send_run(struct host *h, struct sock_dir *d)
{
	struct iovec iov[SOCK_GATHER_MAX];
	size_t budget = SEND_BYTES_MAX;

	while (!list_empty(&d->queue)) {
		struct msghdr m = {.msg_iov = iov};
		uint32_t requests;
		size_t bytes;
		ssize_t n;

		if (d->sock->shut) {
			sock_head_done(h, d, -EPIPE);
			continue;
		}
		if (d->blocked || h->several_sends)
			return TRY_BLOCKED;
		if (budget == 0)
			return TRY_LATER;
		m.msg_iovlen = sock_send_gather(d, iov, &bytes, &requests);
		if (m.msg_iovlen == 1)
			n = send(d->sock->fd, iov[0].iov_base, iov[0].iov_len,
				 MSG_DONTWAIT | MSG_NOSIGNAL);
		else
			n = bytes > 0 ? sendmsg(d->sock->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
		if (n >= 0) {
			sock_sent(h, d, (size_t)n);
			d->blocked = (size_t)n < bytes;
			budget -= MIN(budget, (size_t)n);
		} else if (errno == EAGAIN) {
			d->blocked = true;
		} else if (errno != EINTR) {
			sock_head_done(h, d, -errno);
		}
	}
	return 0;
}

size_t sock_send_gather(struct sock_dir *d, struct iovec iov[SOCK_GATHER_MAX], size_t *ret_bytes,
			uint32_t *ret_requests)
{
	size_t n = 0, bytes = 0;
	uint32_t requests = 0;

	list_for_each (l, &d->queue) {
		struct ioe_req *r = list_entry(l, struct ioe_req, link);
		uint64_t i = r->priv[SOCK_PRIV_IOV];

		if (n == SOCK_GATHER_MAX || bytes == SEND_BYTES_MAX)
			break;
		requests++;
		for (; i < (uint64_t)r->iov_n && n < SOCK_GATHER_MAX && bytes < SEND_BYTES_MAX;
		     i++) {
			iov[n] = r->iov[i];
			iov[n].iov_len = MIN(iov[n].iov_len, SEND_BYTES_MAX - bytes);
			bytes += iov[n++].iov_len;
		}
	}
	*ret_bytes = bytes;
	*ret_requests = requests;
	return n;
}

void sock_sent(struct host *h, struct sock_dir *d, size_t bytes)
{
	while (!list_empty(&d->queue)) {
		struct ioe_req *r = sock_dir_head(d);
		uint64_t *i = &r->priv[SOCK_PRIV_IOV];

		for (; *i < (uint64_t)r->iov_n && r->iov[*i].iov_len <= bytes; ++*i)
			bytes -= r->iov[*i].iov_len;
		if (*i < (uint64_t)r->iov_n) {
			r->iov[*i].iov_base = (char *)r->iov[*i].iov_base + bytes;
			r->iov[*i].iov_len -= bytes;
			return;
		}
		sock_head_done(h, d, 0);
	}
}
