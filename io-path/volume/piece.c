/* SPDX-License-Identifier: Apache-2.0 */
/* piece.c - what the pieces of all requests have in common: where they come from, how they reach a device, how they end. */
#include "io-path/volume/runtime.h"

#include <inttypes.h>
#include <string.h>

#include "src/base/log.h"
#include "src/base/mem.h"

/* ---- the pools -------------------------------------------------------------------------------------------------------- */

/* Of the shared pool no volume gets more than half, so that one whose device is away leaves some for the others. */
static bool pool_has(const struct fixed_pool *own, const struct fixed_pool *shared,
		     uint32_t shared_n)
{
	return own->out_n < own->items_n ||
	       (shared->out_n < shared->items_n && shared_n < (shared->items_n + 1) / 2);
}

static void *pool_take(struct fixed_pool *own, struct fixed_pool *shared, uint32_t *shared_n,
		       struct fixed_pool **ret_home)
{
	void *item = fixed_pool_get(own);

	*ret_home = own;
	if (!item && *shared_n < (shared->items_n + 1) / 2) {
		item = fixed_pool_get(shared);
		*ret_home = shared;
		*shared_n += item != NULL;
	}
	return item;
}

static void pool_give(struct volume *v, struct fixed_pool *home, const struct fixed_pool *shared,
		      uint32_t *shared_n, void *item)
{
	if (home == shared)
		(*shared_n)--;
	fixed_pool_put(home, item);
	if (!list_empty(&v->vs->starved))
		volumes_arm(v->vs);
}

/* The volume has somebody in piece_waiters or scratch_waiters. */
static void volume_starves(struct volume *v)
{
	v->stats.pool_waits++;
	if (list_empty(&v->starved_link))
		list_push(&v->vs->starved, &v->starved_link);
}

struct vol_piece *piece_get(struct volume *v, struct volume_req *r)
{
	struct vol_piece *p = NULL;
	struct fixed_pool *home = NULL;

	/* nobody overtakes those who wait; the one that is being fed has just been taken out of the list */
	if (list_empty(&v->piece_waiters) || v->feeding == r)
		p = pool_take(&v->pieces, &v->vs->pieces, &v->shared_pieces_n, &home);
	if (!p) {
		list_push(&v->piece_waiters, &r->link);
		volume_starves(v);
		return NULL;
	}
	p->home = home;
	p->v = v;
	p->r = r;
	p->device = NULL;
	p->scratch = NULL;
	p->stale_n = 0;
	p->checksummed = false;
	return p;
}

void piece_finish(struct vol_piece *p, int status)
{
	struct volume_req *r = p->r;
	struct volume *v = p->v;

	if (p->scratch)
		pool_give(v, p->scratch_home, &v->vs->scratch, &v->shared_scratch_n, p->scratch);
	pool_give(v, p->home, &v->vs->pieces, &v->shared_pieces_n, p);
	op_piece_done(r, status);
}

bool piece_scratch(struct vol_piece *p, void (*fn)(struct map_waiter *w, int status))
{
	struct volume *v = p->v;

	if (list_empty(&v->scratch_waiters))
		p->scratch =
		    pool_take(&v->scratch, &v->vs->scratch, &v->shared_scratch_n, &p->scratch_home);
	if (p->scratch)
		return true;
	p->wait.fn = fn;
	list_push(&v->scratch_waiters, &p->wait.link);
	volume_starves(v);
	return false;
}

static bool scratch_feed_one(struct volume *v)
{
	struct vol_piece *p;

	if (list_empty(&v->scratch_waiters))
		return false;
	p = piece_of_wait(list_first(&v->scratch_waiters, struct map_waiter, link));
	p->scratch =
	    pool_take(&v->scratch, &v->vs->scratch, &v->shared_scratch_n, &p->scratch_home);
	if (!p->scratch)
		return false;
	list_del(&p->wait.link);
	p->wait.fn(&p->wait, 0);
	return true;
}

static bool piece_feed_one(struct volume *v)
{
	struct volume_req *r;

	if (list_empty(&v->piece_waiters) ||
	    !pool_has(&v->pieces, &v->vs->pieces, v->shared_pieces_n))
		return false;
	r = list_entry(list_pop(&v->piece_waiters), struct volume_req, link);
	v->feeding = r;
	op_advance(r); /* to the end of the line when it needs more than there is */
	v->feeding = NULL;
	return true;
}

/* The volume was taken out of vs->starved. Each of those who wait gets one chance. */
void volume_feed(struct volume *v)
{
	/* in the list at once, so that what comes free meanwhile is noticed */
	list_push(&v->vs->starved, &v->starved_link);
	while (scratch_feed_one(v))
		;
	for (uint32_t n = v->in_flight; n > 0 && piece_feed_one(v); n--)
		;
	if (list_empty(&v->scratch_waiters) && list_empty(&v->piece_waiters))
		list_del(&v->starved_link);
	else if (pool_has(&v->pieces, &v->vs->pieces, v->shared_pieces_n))
		volumes_arm(v->vs); /* new ones came in behind those who were fed */
}

/* ---- to a device and back --------------------------------------------------------------------------------------------- */

void piece_send(struct vol_piece *p, enum chunk_op op, const struct map_item *item, uint32_t depth,
		void (*done)(struct chunk_req *cr))
{
	struct volume *v = p->v;
	struct chunk_req *cr = &p->cr;

	cr->op = op;
	cr->dev = item->dev;
	cr->slot = item->slot;
	cr->cgen = item->cgen;
	cr->volume = v->id;
	cr->epoch = v->epoch;
	cr->layer = v->layers[depth];
	cr->chunk = p->chunk;
	cr->done = done;
	cr->status = 0;
	cr->present_n = 0;
	cr->volatile_ack = false;
	p->item = *item;
	chunk_store_submit(v->vs->store, cr);
}

/* Which acknowledgements must be stable: asked for, this opener's way, or where nobody would notice that a node lost its
 * memory. */
uint32_t piece_stable_flag(const struct vol_piece *p, device_no dev)
{
	const struct volume *v = p->v;
	bool stable =
	    p->r->flags & VOLUME_F_FUA || op_of(p->r)->h->stable ||
	    (v->write_cache == META_CACHE_AUTO && !v->vs->store->is_local(v->vs->store, dev));

	return stable ? CHUNK_F_STABLE : 0;
}

int piece_send_change(struct vol_piece *p, enum chunk_op op, uint32_t flags,
		      const struct map_item *item, void (*done)(struct chunk_req *cr))
{
	/* now, as an acknowledgement must not fail for memory */
	p->device = vol_device_get(p->v, item->dev);
	if (!p->device)
		return -ENOMEM;
	p->cr.flags = flags | piece_stable_flag(p, item->dev);
	piece_send(p, op, item, 0, done);
	return 0;
}

int piece_change_done(struct vol_piece *p)
{
	if (p->cr.status == 0 && p->cr.volatile_ack)
		vol_device_acked(p->device, op_of(p->r)->h, p->cr.incarnation);
	volume_gone_check(p->v, p->cr.status);
	return p->cr.status;
}

/* A device does not know the mapping (any more). The map may have changed under us: ask again. When the answer is the same and
 * the device says no again, the two disagree for good. */
int piece_stale(struct vol_piece *p)
{
	struct volume *v = p->v;
	uint64_t now_ns;

	v->stats.stale++;
	if (p->stale_n++ == 0 || (!map_item_same(&p->item, &p->stale) && p->stale_n < STALE_MAX)) {
		p->stale = p->item;
		map_refetch(v, p->chunk);
		return 0;
	}
	now_ns = ioe_now_ns(v->vs->ioe);
	if (now_ns - v->stale_told_ns >= NS_PER_S ||
	    v->stale_told_ns == 0) { /* once a second is enough */
		v->stale_told_ns = now_ns;
		volumes_event(v, "map-stale",
			      "chunk %" PRIu32 " is mapped to device %u slot %" PRIu32
			      " cgen %" PRIu64 ", which the device refuses",
			      p->chunk, p->item.dev, p->item.slot, p->item.cgen);
	}
	return -EIO;
}
