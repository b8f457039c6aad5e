/* SPDX-License-Identifier: Apache-2.0 */
/* submit.c - the life of a request.
 *
 *   volume_submit: CHECK -> LOCK* -> op_start -> op_advance (pieces)* -> op_finish: UNLOCK -> op_complete: done
 *
 * The lock covers whole blocks, as partial ones are read, changed and written; STATUS locks what one call can look at; FLUSH
 * nothing. A request is cut as pieces come free; when a piece fails no further ones are cut, and the request ends when those
 * under way have. */
#include <string.h>

#include "io-path/volume/runtime.h"
#include "src/base/math.h"

enum {
	STATUS_CHUNKS_MAX = 4096, /* that one STATUS looks at */
	PIECES_PER_TURN = 256,	  /* of one request: discarding what is not mapped never waits */
};

static int op_check(const struct volume_handle *h, const struct volume_req *r);
static bool op_lock(struct volume *v, struct volume_req *r);
static void op_granted(struct range_entry *e);
static void op_start(struct volume_req *r);
static void op_finish(struct volume_req *r);

/* ---- in --------------------------------------------------------------------------------------------------------------- */

void volume_submit(struct volume_handle *h, struct volume_req *r)
{
	struct vol_op *op = op_of(r);
	struct volume *v = h->v;
	int rc = op_check(h, r);

	check(!h->closing);
	op->h = h;
	op->start_ns = ioe_now_ns(v->vs->ioe);
	op->pending = 0;
	op->status = 0;
	op->locked = false;
	r->status = 0;
	r->extents_n = 0;
	h->in_flight++;
	v->in_flight++;
	v->vs->submitting++;
	if (rc) {
		op->status = rc;
		op_finish(r);
	} else if (op_lock(v, r)) {
		op_start(r);
	} else {
		v->stats.lock_waits++;
	}
	v->vs->submitting--;
}

static int op_check(const struct volume_handle *h, const struct volume_req *r)
{
	static const uint32_t flags_of[VOLUME_OPS_N] = {
	    [VOLUME_WRITE] = VOLUME_F_FUA,
	    [VOLUME_WRITE_ZEROES] = VOLUME_F_FUA | VOLUME_F_NO_HOLE | VOLUME_F_FAST_ZERO,
	    [VOLUME_DISCARD] = VOLUME_F_FUA,
	    [VOLUME_STATUS] = VOLUME_F_ONE_EXTENT,
	};
	const struct volume *v = h->v;

	if (v->gone)
		return v->gone;
	if ((unsigned)r->op >= VOLUME_OPS_N || r->flags & ~flags_of[r->op])
		return -EINVAL;
	if (r->op == VOLUME_FLUSH)
		return 0;
	if (r->len == 0 || (r->off | r->len) & (v->sector_bytes - 1) ||
	    !range_inside(r->off, r->len, v->size_bytes))
		return -EINVAL;
	switch (r->op) {
	case VOLUME_WRITE:
	case VOLUME_WRITE_ZEROES:
	case VOLUME_DISCARD:
		if (h->read_only)
			return -EROFS;
		break;
	case VOLUME_STATUS:
		return r->extents_max == 0 ? -EINVAL : 0;
	case VOLUME_READ:
	case VOLUME_FLUSH:
		break;
	}
	if (r->op == VOLUME_WRITE_ZEROES)
		/* a partial block would be read and written */
		return r->flags & VOLUME_F_FAST_ZERO && (r->off | r->len) % BLOCK_BYTES
			   ? -EOPNOTSUPP
			   : 0;
	if (r->op == VOLUME_DISCARD)
		return 0;
	if (r->len > VOLUME_IO_BYTES_MAX)
		return -EINVAL;
	check(((uintptr_t)r->buf ^ r->off) % BLOCK_BYTES == 0); /* the caller's promise */
	return 0;
}

static bool op_lock(struct volume *v, struct volume_req *r)
{
	struct vol_op *op = op_of(r);
	bool zeroes = r->op == VOLUME_WRITE_ZEROES || r->op == VOLUME_DISCARD;
	uint64_t lock_end;

	op->next = r->off;
	op->end = r->off + r->len;
	switch (r->op) {
	case VOLUME_FLUSH:
		op->next = 0;
		return true;
	case VOLUME_STATUS:
		op->end = MIN(op->end, round_down(r->off, 1ULL << v->chunk_shift) +
					   ((uint64_t)STATUS_CHUNKS_MAX << v->chunk_shift));
		break;
	case VOLUME_DISCARD: /* a partial block is left alone */
		op->next = round_up(r->off, BLOCK_BYTES);
		op->end = round_down(op->end, BLOCK_BYTES);
		if (op->next >= op->end) {
			op->next = op->end;
			return true;
		}
		break;
	default:
		break;
	}
	/* What counts as the whole of the last chunk must be so until its entry has changed, though the volume grows meanwhile. */
	lock_end = zeroes && op->end == v->size_bytes ? round_up(op->end, 1ULL << v->chunk_shift)
						      : op->end;
	op->locked = true;
	return range_lock_take(&v->lock, &op->lock, op->next >> BLOCK_SHIFT,
			       (lock_end - 1) >> BLOCK_SHIFT,
			       r->op != VOLUME_READ && r->op != VOLUME_STATUS, op_granted);
}

/* The request that was in the way has ended; this one starts at the end of the turn. */
static void op_granted(struct range_entry *e)
{
	struct vol_op *op = container_of(e, struct vol_op, lock);
	struct volume_req *r = container_of((void *)op, struct volume_req, priv);
	struct volumes *vs = op->h->v->vs;

	list_push(&vs->started, &r->link);
	volumes_arm(vs);
}

/* ---- in pieces -------------------------------------------------------------------------------------------------------- */

static void op_start(struct volume_req *r)
{
	struct vol_op *op = op_of(r);

	op->pending = 1; /* the cutting's share */
	op->status = op->h->v->gone;
	op_advance(r);
}

void op_go_on(struct volume_req *r)
{
	if (op_of(r)->pending == 0)
		op_start(r);
	else
		op_advance(r);
}

/* The next piece of [op->next, op->end). Zeroing separates partial blocks, which are written, from whole ones, which are not. */
static void piece_cut(struct vol_piece *p, struct volume_req *r)
{
	struct vol_op *op = op_of(r);
	struct volume *v = p->v;
	uint64_t off = op->next, block_off = round_down(off, BLOCK_BYTES);
	uint64_t end =
	    MIN(op->end, round_down(off, 1ULL << v->chunk_shift) + (1ULL << v->chunk_shift));

	if (r->op == VOLUME_READ || r->op == VOLUME_WRITE) {
		end = MIN(end, block_off + PIECE_BLOCKS_MAX * BLOCK_BYTES);
		p->buf = (uint8_t *)r->buf - r->off + block_off;
	} else if (off != block_off || end - off < BLOCK_BYTES) {
		end = MIN(end, block_off + BLOCK_BYTES);
	} else {
		end = round_down(end, BLOCK_BYTES);
	}
	p->r = r;
	p->chunk = (uint32_t)(off >> v->chunk_shift);
	p->block = (uint32_t)(off >> BLOCK_SHIFT) & (v->chunk_blocks - 1);
	p->blocks_n = (uint32_t)((end - block_off + BLOCK_BYTES - 1) >> BLOCK_SHIFT);
	p->head_bytes = (uint32_t)(off - block_off);
	p->tail_bytes = (uint32_t)(-end & (BLOCK_BYTES - 1));
	op->next = end;
}

static void range_advance(struct volume_req *r)
{
	struct vol_op *op = op_of(r);
	struct volume *v = op->h->v;

	for (int n = 0; op->next < op->end && op->status == 0; n++) {
		struct vol_piece *p;

		if (n == PIECES_PER_TURN) {
			list_push(&v->vs->started, &r->link);
			volumes_arm(v->vs);
			return;
		}
		p = piece_get(v, r);
		if (!p)
			return; /* op_advance comes again */
		piece_cut(p, r);
		op->pending++;
		if (r->op == VOLUME_READ)
			read_piece(p);
		else if (r->op == VOLUME_WRITE)
			write_piece(p);
		else
			zero_piece(p);
	}
	op_piece_done(r, 0);
}

void op_advance(struct volume_req *r)
{
	switch (r->op) {
	case VOLUME_FLUSH:
		flush_advance(r);
		break;
	case VOLUME_STATUS:
		status_advance(r);
		break;
	default:
		range_advance(r);
		break;
	}
}

/* ---- out -------------------------------------------------------------------------------------------------------------- */

void op_piece_done(struct volume_req *r, int status)
{
	struct vol_op *op = op_of(r);

	check(op->pending > 0);
	if (status && op->status == 0)
		op->status = status;
	if (--op->pending == 0)
		op_finish(r);
}

static void op_finish(struct volume_req *r)
{
	struct vol_op *op = op_of(r);
	struct volume *v = op->h->v;

	if (op->locked)
		range_lock_release(&v->lock, &op->lock);
	if (v->vs->submitting) { /* nothing completes inline */
		list_push(&v->vs->finished, &r->link);
		volumes_arm(v->vs);
	} else {
		op_complete(r);
	}
}

void op_complete(struct volume_req *r)
{
	struct vol_op *op = op_of(r);
	struct volume_handle *h = op->h;
	struct volume *v = h->v;
	struct volume_op_stats *st =
	    &v->stats.op[(unsigned)r->op < VOLUME_OPS_N ? r->op : VOLUME_READ];

	if (r->op == VOLUME_FLUSH)
		op->status = flush_end(h, op->status);
	r->status = op->status == -E_STALE_EPOCH ? -E_NOT_OWNER : op->status;
	st->requests++;
	if (r->status)
		st->errors++;
	else if (r->op != VOLUME_FLUSH)
		st->bytes += r->len;
	hist_add(&st->latency_ns, ioe_now_ns(v->vs->ioe) - op->start_ns);
	v->in_flight--;
	h->in_flight--;
	volume_handle_idle(h);
	r->done(r); /* the last touch */
}
