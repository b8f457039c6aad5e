/* SPDX-License-Identifier: Apache-2.0 */
/* rx.c - the input of a connection.
 *
 * One receive at a time, of as much as there is, into the input buffer: many requests from one call. While the payload of a write is due,
 * its rest is received straight into the request's own memory, and what follows it into the buffer by the same call. Long writes tend to be
 * followed by their like, so behind one little more than the next header is received into the buffer: the payload is then copied by the
 * kernel only. Nothing is received while the input is paused: that is the back-pressure. */
#include <string.h>

#include "src/base/math.h"
#include "targets/nbd/conn.h"

static bool rx_step(struct nbd_conn *c);
static bool rx_skip(struct nbd_conn *c);
static bool rx_is_wanted(const struct nbd_conn *c);
static struct nbd_request *payload_due(const struct nbd_conn *c);
static void rx_recv(struct nbd_conn *c);
static void rx_recv_done(struct ioe_req *r);

void rx_run(struct nbd_conn *c)
{
	while (rx_step(c))
		;
	if (rx_is_wanted(c))
		rx_recv(c);
}

/* True: something was used up, there may be more to do. */
static bool rx_step(struct nbd_conn *c)
{
	if (c->skip)
		return rx_skip(c);
	switch (c->state) {
	case CONN_HANDSHAKE:
		return handshake_input(c);
	case CONN_SERVING:
		return request_input(c);
	case CONN_DRAINING:
	case CONN_CLOSING:
		c->rx_at = c->rx_end;
		return false;
	}
	check_unreachable("state");
}

static bool rx_skip(struct nbd_conn *c)
{
	uint32_t n = rx_have(c);

	if (n > c->skip)
		n = (uint32_t)c->skip;
	c->rx_at += n;
	c->skip -= n;
	if (c->skip)
		return false;
	if (c->filling)
		request_skipped(c);
	return true;
}

static bool rx_is_wanted(const struct nbd_conn *c)
{
	if (c->recv_busy || c->eof)
		return false;
	switch (c->state) {
	case CONN_HANDSHAKE:
	case CONN_SERVING:
		return !c->paused;
	case CONN_DRAINING:
		return true;
	case CONN_CLOSING:
		return false;
	}
	check_unreachable("state");
}

/* The write whose payload is received past the input buffer. When draining began meanwhile, where bytes went does not matter any more. */
static struct nbd_request *payload_due(const struct nbd_conn *c)
{
	return c->state == CONN_SERVING && !c->skip ? c->filling : NULL;
}

static void rx_recv(struct nbd_conn *c)
{
	struct nbd_request *f = payload_due(c);
	uint32_t left = rx_have(c), room = RX_BYTES - left;
	int n = 0;

	/* What is left is the beginning of a message; none is longer than the buffer. */
	if (left)
		memmove(c->rx, c->rx + c->rx_at, left);
	c->rx_at = 0;
	c->rx_end = left;
	check(left < RX_BYTES);
	if (f) {
		check(left == 0);
		c->recv_iov[n++] =
		    (struct iovec){(uint8_t *)f->v.buf + c->filled, f->len - c->filled};
	}
	if (c->bulk)
		room = MIN(room, f ? (uint32_t)sizeof(struct nbd_request_header) : BULK_RX_BYTES);
	c->recv_iov[n++] = (struct iovec){c->rx + left, room};
	c->recv_busy = true;
	c->pending++;
	ioe_recv(c->ioe, &c->recv, c->sock, c->recv_iov, n, rx_recv_done);
}

static void rx_recv_done(struct ioe_req *r)
{
	struct nbd_conn *c = container_of(r, struct nbd_conn, recv);
	size_t got = r->got;

	c->recv_busy = false;
	c->pending--;
	if (r->status < 0) {
		conn_shut(c);
	} else if (got == 0) {
		c->eof = true;
		conn_drain(
		    c); /* a client that only closed its side of the stream may still read its answers */
	} else {
		struct nbd_request *f = payload_due(c);

		if (f) {
			uint32_t direct = f->len - c->filled;

			if (direct > got)
				direct = (uint32_t)got;
			c->filled += direct;
			got -= direct;
		}
		if (c->state == CONN_HANDSHAKE || c->state == CONN_SERVING)
			c->rx_end += (uint32_t)got;
		rx_run(c);
	}
	conn_settle(c);
}
