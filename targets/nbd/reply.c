/* SPDX-License-Identifier: Apache-2.0 */
/* reply.c - answers: what has finished by the end of a turn goes out in one send, headers from one small buffer and data straight
 * from the requests' memory. The next send begins when that one is done; its requests are released then.
 *
 * With structured replies READ is answered in chunks, and what is zero in long runs is not sent at all; everything that succeeds
 * without data is answered by the (shorter) simple reply, and what fails by an error chunk with a text. */
#include <string.h>

#include "src/base/math.h"
#include "targets/nbd/conn.h"

enum {
	PIECES_MAX = 8,	     /* chunks of one READ */
	HOLE_MIN = 16 << 10, /* a shorter run of zeros is cheaper to send than to describe */
	TEXT_MAX = 256,
	IOV_PER_REPLY = 2 * PIECES_MAX + 1,
	HEADS_PER_REPLY = 512,
	BATCH_BYTES = 1 << 20, /* a send is not made longer than this by another reply */
};
static_assert(PIECES_MAX * sizeof(struct nbd_chunk_hole) <= HEADS_PER_REPLY,
	      "chunks of a READ fit");
static_assert(sizeof(struct nbd_chunk_error) + TEXT_MAX <= HEADS_PER_REPLY, "an error fits");

/* a send being put together */
struct batch {
	struct iovec *iov;
	uint8_t *heads;
	int iov_n;
	uint32_t heads_len;
	uint64_t bytes;
};

static void reply_add(struct batch *b, struct nbd_request *r);
static void reply_read(struct batch *b, struct nbd_request *r);
static void reply_status(struct batch *b, struct nbd_request *r);
static void reply_error(struct batch *b, struct nbd_request *r);
static void reply_simple(struct batch *b, struct nbd_request *r);
static void reply_sent(struct ioe_req *r);

void reply_send(struct nbd_conn *c)
{
	struct batch b = {.iov = c->send_iov, .heads = c->heads};

	if (!c->finished.first || c->send_busy || c->state == CONN_CLOSING)
		return;
	while (c->finished.first && b.iov_n + IOV_PER_REPLY <= IOE_IOV_MAX &&
	       b.heads_len + HEADS_PER_REPLY <= HEADS_BYTES && b.bytes < BATCH_BYTES) {
		struct nbd_request *r = queue_pop(&c->finished);

		reply_add(&b, r);
		queue_push(&c->sent, r);
	}
	c->send_busy = true;
	c->pending++;
	ioe_send(c->ioe, &c->send, c->sock, c->send_iov, b.iov_n, reply_sent);
}

static void reply_sent(struct ioe_req *req)
{
	struct nbd_conn *c = container_of(req, struct nbd_conn, send);
	struct nbd_request *r;

	c->send_busy = false;
	c->sends_n++;
	c->pending--;
	while ((r = queue_pop(&c->sent)))
		request_release(r);
	if (budget_is_short(&c->server->budget))
		budget_return(c);
	if (req->status < 0)
		conn_shut(c);
	reply_send(c);
	if (c->paused && c->state == CONN_SERVING) {
		c->paused = false;
		rx_run(c);
	}
	conn_settle(c);
}

/* ---- putting replies together ----------------------------------------------------------------------------------------- */

static void add_bytes(struct batch *b, void *p, size_t len)
{
	struct iovec *last = b->iov_n ? &b->iov[b->iov_n - 1] : NULL;

	b->bytes += len;
	if (last && (uint8_t *)last->iov_base + last->iov_len == p) /* one header after another */
		last->iov_len += len;
	else
		b->iov[b->iov_n++] = (struct iovec){p, len};
}

/* Room for a header in the batch, which the caller fills. */
static void *add_head(struct batch *b, size_t len)
{
	uint8_t *p = b->heads + b->heads_len;

	b->heads_len += (uint32_t)len;
	add_bytes(b, p, len);
	return p;
}

static struct nbd_chunk chunk_of(const struct nbd_request *r, enum nbd_reply_type type, bool done,
				 uint64_t len)
{
	return (struct nbd_chunk){
	    .magic = to_be32(NBD_STRUCTURED_REPLY_MAGIC),
	    .flags = to_be16(done ? NBD_REPLY_FLAG_DONE : 0),
	    .type = to_be16((uint16_t)type),
	    .cookie = r->cookie,
	    .len = to_be32((uint32_t)len),
	};
}

static void reply_add(struct batch *b, struct nbd_request *r)
{
	struct nbd_conn *c = r->conn;

	c->answered++;
	if (r->error) {
		c->errors++;
		if (c->structured)
			reply_error(b, r);
		else
			reply_simple(b, r);
		return;
	}
	switch (r->cmd) {
	case NBD_CMD_READ:
		c->read_bytes += r->len;
		reply_read(b, r);
		return;
	case NBD_CMD_BLOCK_STATUS:
		reply_status(b, r);
		return;
	case NBD_CMD_WRITE:
		c->written_bytes += r->len;
		break;
	default:
		break;
	}
	reply_simple(b, r);
}

static void reply_simple(struct batch *b, struct nbd_request *r)
{
	struct nbd_simple_reply *h = add_head(b, sizeof(*h));

	*h = (struct nbd_simple_reply){
	    .magic = to_be32(NBD_SIMPLE_REPLY_MAGIC),
	    .error = to_be32(r->error),
	    .cookie = r->cookie,
	};
}

static void reply_error(struct batch *b, struct nbd_request *r)
{
	size_t len = strnlen(r->why, TEXT_MAX);
	struct nbd_chunk_error *h = add_head(b, sizeof(*h) + len);

	*h = (struct nbd_chunk_error){
	    .h = chunk_of(r, NBD_REPLY_TYPE_ERROR, true, sizeof(*h) - sizeof(h->h) + len),
	    .error = to_be32(r->error),
	    .text_len = to_be16((uint16_t)len),
	};
	memcpy(h + 1, r->why, len);
}

/* ---- READ ------------------------------------------------------------------------------------------------------------- */

struct piece {
	uint32_t at, len; /* within the request */
	bool zero;
};

/* How much of buf[at, len) is zero, from `at`, in whole blocks of the export (the first and last may be partial). */
static uint32_t zero_run(const struct nbd_request *r, uint32_t at)
{
	const uint8_t *buf = r->v.buf;
	uint32_t start = at;

	while (at < r->len) {
		uint32_t n = BLOCK_BYTES - (uint32_t)((r->off + at) % BLOCK_BYTES);

		n = MIN(n, r->len - at);
		if (!bytes_are_zero(buf + at, n))
			break;
		at += n;
	}
	return at - start;
}

/* Splits a READ into data and long runs of zeros; with DF into one piece. */
static uint32_t pieces_of(const struct nbd_request *r, struct piece pieces[PIECES_MAX])
{
	bool split = !(r->flags & NBD_CMD_FLAG_DF);
	uint32_t n = 0, at = 0, data_at = 0;

	while (at < r->len && n + 2 < PIECES_MAX) {
		uint32_t zeros = zero_run(r, at);

		if (zeros == r->len || (split && zeros >= HOLE_MIN)) {
			if (at > data_at)
				pieces[n++] = (struct piece){data_at, at - data_at, false};
			pieces[n++] = (struct piece){at, zeros, true};
			at = data_at = at + zeros;
		} else if (!split) {
			break;
		} else {
			/* past the zeros there is a block that is not */
			at += zeros;
			at += BLOCK_BYTES - (uint32_t)((r->off + at) % BLOCK_BYTES);
		}
	}
	if (data_at < r->len)
		pieces[n++] = (struct piece){data_at, r->len - data_at, false};
	return n;
}

static void reply_read(struct batch *b, struct nbd_request *r)
{
	struct piece pieces[PIECES_MAX];
	uint8_t *buf = r->v.buf;
	uint32_t n;

	if (!r->conn->structured) {
		reply_simple(b, r);
		add_bytes(b, buf, r->len);
		return;
	}
	n = pieces_of(r, pieces);
	for (uint32_t i = 0; i < n; i++) {
		const struct piece *p = &pieces[i];

		if (p->zero) {
			struct nbd_chunk_hole *h = add_head(b, sizeof(*h));

			*h = (struct nbd_chunk_hole){
			    .h = chunk_of(r, NBD_REPLY_TYPE_OFFSET_HOLE, i + 1 == n,
					  sizeof(*h) - sizeof(h->h)),
			    .off = to_be64(r->off + p->at),
			    .len = to_be32(p->len),
			};
		} else {
			struct nbd_chunk_data *h = add_head(b, sizeof(*h));

			*h = (struct nbd_chunk_data){
			    .h = chunk_of(r, NBD_REPLY_TYPE_OFFSET_DATA, i + 1 == n,
					  sizeof(h->off) + p->len),
			    .off = to_be64(r->off + p->at),
			};
			add_bytes(b, buf + p->at, p->len);
		}
	}
}

/* ---- BLOCK_STATUS ----------------------------------------------------------------------------------------------------- */

static_assert(VOLUME_EXTENT_HOLE == (int)NBD_STATE_HOLE && VOLUME_EXTENT_ZERO == (int)NBD_STATE_ZERO,
	      "flags go as they are");

/* The extents in wire form, over the volume's own in the same memory (never longer). Equal neighbours become one, and nothing reaches
 * past the request. */
static uint32_t extents_to_wire(struct nbd_request *r)
{
	uint8_t *wire = (uint8_t *)r->v.extents;
	uint64_t left = r->len;
	struct nbd_extent e;
	uint32_t n = 0, flags = 0, len = 0;

	static_assert(sizeof(struct nbd_extent) <= sizeof(struct volume_extent), "fits in place");
	for (uint32_t i = 0; i < r->v.extents_n && left > 0; i++) {
		struct volume_extent x = r->v.extents[i];

		x.len_bytes = MIN(x.len_bytes, left);
		left -= x.len_bytes;
		if (n > 0 && x.flags == flags) {
			len += (uint32_t)x.len_bytes;
		} else {
			n++;
			flags = x.flags;
			len = (uint32_t)x.len_bytes;
		}
		e = (struct nbd_extent){to_be32(len), to_be32(flags)};
		memcpy(wire + (n - 1) * sizeof(e), &e, sizeof(e));
	}
	check(n > 0);
	return n;
}

static void reply_status(struct batch *b, struct nbd_request *r)
{
	uint32_t len = extents_to_wire(r) * (uint32_t)sizeof(struct nbd_extent);
	struct nbd_chunk_status *h = add_head(b, sizeof(*h));

	*h = (struct nbd_chunk_status){
	    .h = chunk_of(r, NBD_REPLY_TYPE_BLOCK_STATUS, true, sizeof(h->context) + len),
	    .context = to_be32(CONTEXT_ALLOCATION + 1),
	};
	add_bytes(b, r->v.extents, len);
}
