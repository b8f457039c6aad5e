/* SPDX-License-Identifier: Apache-2.0 */
/* sock_io.c - serving the requests of sockets by system calls that do not block.
 *
 * Sends that are queued when the direction is tried leave in one call: a turn's replies cost one system call per connection. */
#include <string.h>

#include "src/base/math.h"
#include "src/ioe/host.h"

/* A direction sends at most this much before others get their turn. */
enum { SEND_TURN_BYTES = 1 << 20, SEND_IOV_MAX = 128 };
/* what a try returns besides 0 and -errno, which end the head of the queue */
enum { TRY_BLOCKED = 1, TRY_LATER = 2 };

static int dir_run(struct host *h, struct sock_dir *d);
static int head_try(struct sock_dir *d);
static int recv_try(struct sock *s, struct ioe_req *r);
static int send_run(struct host *h, struct sock_dir *d);
static size_t send_gather(struct sock_dir *d, struct iovec *iov, size_t *ret_bytes);
static void send_account(struct host *h, struct sock_dir *d, size_t sent);

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
	if (!d->armed && !list_empty(&d->queue) && list_empty(&d->link))
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

bool sock_cancel(struct host *h, struct ioe_req *r)
{
	struct sock_dir *d = sock_dir_of(r);

	if (d->armed && r == sock_dir_head(d)) {
		r->stage = SOCK_CANCELLED;
		return false;
	}
	list_del(&r->link);
	if (list_empty(&d->queue))
		list_del(&d->link);
	if (r->op == IOE_CONNECT)
		sock_connect_end(r, -ECANCELED);
	engine_complete(&h->ioe, r, -ECANCELED);
	return true;
}

void sock_dirs_run(struct host *h)
{
	struct list now = LIST_INIT(now);
	struct list *l;

	list_splice(&now, &h->dirs);
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

/* 0 when nothing is left to do */
static int dir_run(struct host *h, struct sock_dir *d)
{
	while (!list_empty(&d->queue)) {
		enum ioe_op op = sock_dir_head(d)->op;
		int got = op == IOE_SEND ? send_run(h, d) : head_try(d);

		if (got == TRY_BLOCKED && sock_dir_head(d)->stage == SOCK_CANCELLED)
			got = -ECANCELED;
		if (got > 0 || (got == 0 && op == IOE_SEND))
			return got;
		sock_head_done(h, d, got);
		if (op == IOE_CONNECT)
			return 0; /* a failed one has freed the socket, and d with it */
	}
	return 0;
}

static int head_try(struct sock_dir *d)
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
		got = recv_try(s, r);
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
	struct iovec iov[SEND_IOV_MAX];
	size_t budget = SEND_TURN_BYTES;

	while (!list_empty(&d->queue)) {
		struct msghdr m = {.msg_iov = iov};
		size_t bytes;
		ssize_t n = 0;

		if (d->sock->shut) {
			sock_head_done(h, d, -EPIPE);
			continue;
		}
		if (d->blocked)
			return TRY_BLOCKED;
		if (budget == 0)
			return TRY_LATER;
		m.msg_iovlen = send_gather(d, iov, &bytes);
		if (bytes > 0)
			n = sendmsg(d->sock->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n >= 0) {
			send_account(h, d, (size_t)n);
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

/* What the queued requests still have to send, as one message. */
static size_t send_gather(struct sock_dir *d, struct iovec *iov, size_t *ret_bytes)
{
	size_t n = 0;

	*ret_bytes = 0;
	list_for_each (l, &d->queue) {
		struct ioe_req *r = list_entry(l, struct ioe_req, link);

		for (int i = (int)r->priv[SOCK_PRIV_IOV]; i < r->iov_n; i++) {
			if (n == SEND_IOV_MAX)
				return n;
			iov[n++] = r->iov[i];
			*ret_bytes += r->iov[i].iov_len;
		}
	}
	return n;
}

/* Completes the requests that the `sent` bytes cover, and notes how far the next one got. */
static void send_account(struct host *h, struct sock_dir *d, size_t sent)
{
	while (!list_empty(&d->queue)) {
		struct ioe_req *r = sock_dir_head(d);
		uint64_t *i = &r->priv[SOCK_PRIV_IOV];

		for (; *i < (uint64_t)r->iov_n && r->iov[*i].iov_len <= sent; ++*i)
			sent -= r->iov[*i].iov_len;
		if (*i < (uint64_t)r->iov_n) {
			r->iov[*i].iov_base = (char *)r->iov[*i].iov_base + sent;
			r->iov[*i].iov_len -= sent;
			return;
		}
		sock_head_done(h, d, 0);
	}
}
