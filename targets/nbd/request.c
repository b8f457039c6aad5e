/* SPDX-License-Identifier: Apache-2.0 */
/* request.c - requests of the transmission phase, from the input to the volume and back.
 *
 *   request_input -> (payload*) -> request_submit -> { volume* } -> request_answer        (* suspends)
 *
 * A request that makes no sense is answered like any other, with an error and after its payload has passed, so the connection stays
 * usable. What ends it: a wrong magic number, and a write so long that skipping its payload would be a favour to an attacker.
 *
 * WRITE_ZEROES and TRIM may be longer than the volume takes at once; they go piece after piece in the same request. */
#include <string.h>

#include "src/base/log.h"
#include "src/base/math.h"
#include "src/base/mem.h"
#include "targets/nbd/conn.h"
#include "targets/nbd/error.h"

static bool request_pages_take(struct nbd_request *r);
static bool request_payload(struct nbd_conn *c);
static enum nbd_errno request_refusal(const struct nbd_conn *c, const struct nbd_request *r,
				      const char **ret_why);
static uint32_t request_pages(const struct nbd_request *r);
static void request_submit(struct nbd_request *r);
static void request_submit_piece(struct nbd_request *r, uint64_t off);
static void request_volume_done(struct volume_req *v);
static void request_answer(struct nbd_request *r, enum nbd_errno error, const char *why);

int transmission_new(struct nbd_conn *c)
{
	const struct nbd_limits *limits = &c->server->limits;
	int r;

	c->requests = mem_zalloc_array(limits->requests, sizeof(*c->requests));
	c->send_iov = mem_zalloc_array(IOE_IOV_MAX, sizeof(*c->send_iov));
	c->heads = mem_alloc(HEADS_BYTES);
	r = c->requests && c->send_iov && c->heads ? pool_init(&c->pool, limits->pool_bytes)
						   : -ENOMEM;
	if (r < 0) {
		transmission_free(c);
		return r;
	}
	budget_join(c);
	for (uint32_t i = limits->requests; i-- > 0;) {
		c->requests[i].conn = c;
		c->requests[i].next = c->free;
		c->free = &c->requests[i];
	}
	return 0;
}

void transmission_free(struct nbd_conn *c)
{
	budget_leave(c);
	pool_free(&c->pool);
	mem_free(c->heads);
	mem_free(c->send_iov);
	mem_free(c->requests);
	c->heads = NULL;
	c->send_iov = NULL;
	c->requests = c->free = NULL;
}

/* ---- in --------------------------------------------------------------------------------------------------------------- */

bool request_input(struct nbd_conn *c)
{
	const struct nbd_request_header *h =
	    (const void *)(c->rx + c->rx_at); /* bytes only: may lie anywhere */
	struct nbd_request *r = c->free;

	if (c->filling)
		return request_payload(c);
	if (rx_have(c) < sizeof(*h))
		return false;
	if (get_be32(h->magic) != NBD_REQUEST_MAGIC) {
		conn_drop(c, "bad request magic");
		return true;
	}
	if (get_be16(h->cmd) == NBD_CMD_DISC) {
		conn_drain(c);
		return true;
	}
	if (!r) {
		c->paused = true;
		return false;
	}
	r->cmd = get_be16(h->cmd);
	r->flags = get_be16(h->flags);
	r->cookie = h->cookie;
	r->off = get_be64(h->off);
	r->len = get_be32(h->len);
	r->error = request_refusal(c, r, &r->why);
	r->pages_n = r->error ? 0 : request_pages(r);
	if (r->pages_n && !request_pages_take(r)) {
		c->paused = true;
		return false;
	}
	c->free = r->next;
	c->rx_at += (uint32_t)sizeof(*h);
	c->bulk = r->cmd == NBD_CMD_WRITE && !r->error && r->len >= BULK_BYTES_MIN;
	if (r->cmd == NBD_CMD_WRITE) {
		c->filling = r;
		c->filled = 0;
		if (!r->error) {
			r->v.buf = r->pages + r->off % BLOCK_BYTES;
		} else if (r->len > WRITE_SKIP_MAX) {
			conn_drop(c, "a write of a hostile length");
		} else if (r->len > 0) {
			c->skip = r->len;
		} else {
			request_skipped(c);
		}
	} else if (r->error) {
		request_answer(r, r->error, r->why);
	} else {
		request_submit(r);
	}
	return true;
}

static bool request_pages_take(struct nbd_request *r)
{
	struct nbd_conn *c = r->conn;

	r->pages = pool_take(&c->pool, r->pages_n);
	if (!r->pages) {
		if (!budget_ask(c, r->pages_n))
			return false;
		r->pages = pool_take(&c->pool, r->pages_n);
		check(r->pages);
	}
	if (c->in_line)
		budget_forget(c);
	return true;
}

/* What the input buffer has of the payload is copied; rx.c receives the rest in place. */
static bool request_payload(struct nbd_conn *c)
{
	struct nbd_request *r = c->filling;
	uint32_t n = MIN(r->len - c->filled, rx_have(c));

	memcpy((uint8_t *)r->v.buf + c->filled, c->rx + c->rx_at, n);
	c->rx_at += n;
	c->filled += n;
	if (c->filled < r->len)
		return false;
	c->filling = NULL;
	c->fills_n++;
	request_submit(r);
	return true;
}

void request_skipped(struct nbd_conn *c)
{
	struct nbd_request *r = c->filling;

	c->filling = NULL;
	request_answer(r, r->error, r->why);
}

/* ---- what is refused -------------------------------------------------------------------------------------------------- */

static uint16_t flags_allowed(const struct nbd_conn *c, uint16_t cmd)
{
	switch (cmd) {
	case NBD_CMD_READ:
		return NBD_CMD_FLAG_FUA | (c->structured ? NBD_CMD_FLAG_DF : 0);
	case NBD_CMD_WRITE_ZEROES:
		return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
	case NBD_CMD_BLOCK_STATUS:
		return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE;
	default: /* FUA goes with every command, also where nothing is written */
		return NBD_CMD_FLAG_FUA;
	}
}

static enum nbd_errno request_refusal(const struct nbd_conn *c, const struct nbd_request *r,
				      const char **ret_why)
{
	bool writes = false, at_once = false;

#define REFUSE(error, why) return *ret_why = (why), (error)
	switch (r->cmd) {
	case NBD_CMD_READ:
		at_once = true;
		break;
	case NBD_CMD_WRITE:
		writes = at_once = true;
		break;
	case NBD_CMD_TRIM:
	case NBD_CMD_WRITE_ZEROES:
		writes = true;
		break;
	case NBD_CMD_FLUSH:
		break;
	case NBD_CMD_BLOCK_STATUS:
		if (!c->contexts)
			REFUSE(NBD_EINVAL, "no metadata context was negotiated");
		break;
	default:
		REFUSE(NBD_EINVAL, "unknown command");
	}
	if (writes && c->geo.read_only)
		REFUSE(NBD_EPERM, "the export is read-only");
	if (r->flags & ~flags_allowed(c, r->cmd))
		REFUSE(NBD_EINVAL, "a flag that does not go with the command");
	if (r->cmd == NBD_CMD_FLUSH) {
		if (r->off || r->len)
			REFUSE(NBD_EINVAL, "a flush has no offset and no length");
		return NBD_OK;
	}
	if (r->len == 0)
		REFUSE(NBD_EINVAL, "the length is zero");
	if ((r->off | r->len) % c->geo.sector_bytes)
		REFUSE(NBD_EINVAL, "offset and length must be multiples of the minimum block size");
	if (at_once && r->len > c->io_bytes_max)
		REFUSE(r->flags & NBD_CMD_FLAG_DF ? NBD_EOVERFLOW : NBD_EINVAL,
		       "the length is above the maximum block size");
	if (!range_inside(r->off, r->len, c->geo.size_bytes))
		REFUSE(writes && r->cmd != NBD_CMD_TRIM ? NBD_ENOSPC : NBD_EINVAL,
		       "beyond the end of the export");
	return NBD_OK;
#undef REFUSE
}

static uint32_t request_pages(const struct nbd_request *r)
{
	switch (r->cmd) {
	case NBD_CMD_READ:
	case NBD_CMD_WRITE: /* the whole blocks around it: the volume may complete them */
		return (uint32_t)div_up(r->off % BLOCK_BYTES + r->len, BLOCK_BYTES);
	case NBD_CMD_BLOCK_STATUS:
		return r->flags & NBD_CMD_FLAG_REQ_ONE
			   ? 0
			   : EXTENTS_MAX * sizeof(struct volume_extent) / BLOCK_BYTES;
	default:
		return 0;
	}
}

/* ---- to the volume and back ------------------------------------------------------------------------------------------- */

static const struct {
	enum volume_op op;
	bool fua; /* the flag means something to the volume */
} commands[] = {
    [NBD_CMD_READ] = {VOLUME_READ, false},
    [NBD_CMD_WRITE] = {VOLUME_WRITE, true},
    [NBD_CMD_FLUSH] = {VOLUME_FLUSH, false},
    [NBD_CMD_TRIM] = {VOLUME_DISCARD, true},
    [NBD_CMD_WRITE_ZEROES] = {VOLUME_WRITE_ZEROES, true},
    [NBD_CMD_BLOCK_STATUS] = {VOLUME_STATUS, false},
};

static void request_submit(struct nbd_request *r)
{
	struct volume_req *v = &r->v;

	v->op = commands[r->cmd].op;
	v->done = request_volume_done;
	v->flags = 0;
	if (r->flags) {
		if (r->flags & NBD_CMD_FLAG_FUA && commands[r->cmd].fua)
			v->flags |= VOLUME_F_FUA;
		if (r->flags & NBD_CMD_FLAG_NO_HOLE)
			v->flags |= VOLUME_F_NO_HOLE;
		if (r->flags & NBD_CMD_FLAG_FAST_ZERO)
			v->flags |= VOLUME_F_FAST_ZERO;
		if (r->flags & NBD_CMD_FLAG_REQ_ONE)
			v->flags |= VOLUME_F_ONE_EXTENT;
	}
	if (r->cmd == NBD_CMD_READ) {
		v->buf = r->pages + r->off % BLOCK_BYTES;
	} else if (r->cmd == NBD_CMD_BLOCK_STATUS) {
		v->extents = r->pages_n ? (struct volume_extent *)(void *)r->pages : &r->extent;
		v->extents_max = r->pages_n ? EXTENTS_MAX : 1;
	}
	request_submit_piece(r, r->off);
}

static void request_submit_piece(struct nbd_request *r, uint64_t off)
{
	struct nbd_conn *c = r->conn;
	uint64_t len = r->off + r->len - off;

	if (r->cmd == NBD_CMD_WRITE_ZEROES || r->cmd == NBD_CMD_TRIM)
		len = MIN(len, (uint64_t)c->geo.io_bytes_max);
	r->v.off = off;
	r->v.len = len;
	c->in_flight++;
	c->pending++;
	volume_submit(c->handle, &r->v);
}

static void request_volume_done(struct volume_req *v)
{
	struct nbd_request *r = container_of(v, struct nbd_request, v);
	struct nbd_conn *c = r->conn;
	uint64_t end = v->off + v->len;

	c->in_flight--;
	c->pending--;
	if (c->state == CONN_CLOSING) {
		request_release(r);
		conn_settle(c);
	} else if (v->status == 0) {
		if (end < r->off + r->len)
			request_submit_piece(r, end);
		else
			request_answer(r, NBD_OK, NULL);
	} else if (nbd_is_taken_over(v->status)) {
		/* An error would reach the guest. Without an answer the client connects again and is told where the volume is now. */
		log_limited(LOG_INFO, ioe_now_ns(c->ioe), "nbd export lost",
			    "export=%s peer=%s reason=%s", c->geo.name, c->peer,
			    err_name(v->status));
		request_release(r);
		conn_shut(c);
		conn_settle(c);
	} else {
		request_answer(r, nbd_error_of(v->status, r->flags & NBD_CMD_FLAG_FAST_ZERO),
			       err_text(v->status));
	}
}

static void request_answer(struct nbd_request *r, enum nbd_errno error, const char *why)
{
	struct nbd_conn *c = r->conn;

	r->error = error;
	r->why = why;
	queue_push(&c->finished, r);
	ioe_hook_arm(c->ioe, &c->hook);
}

void request_release(struct nbd_request *r)
{
	struct nbd_conn *c = r->conn;

	if (r->pages_n) {
		pool_give(&c->pool, r->pages, r->pages_n);
		if (pool_is_grown(&c->pool))
			conn_trim_later(c);
	}
	r->next = c->free;
	c->free = r;
}
