/* SPDX-License-Identifier: Apache-2.0 */
/* alloc.c - ensure that chunks are mapped.
 *
 *   the pages of the chunks are read -> count what is missing, promise as many slots or fail -> one chunk after the other -> answered
 * When the batch is full the rest goes into the next one; the promise keeps its slots from others meanwhile, so a request that has begun does not run out
 * of space (unless a device went out of use in between). */
#include <stdlib.h>
#include <string.h>

#include "metadata/san/place.h"
#include "metadata/san/state.h"
#include "src/base/check.h"

struct alloc_run {
	struct page_set *set;
	bool begun;
	struct pool *pool; /* NULL: there is none yet */
	uint32_t promised; /* slots of the pool, not yet taken */
	uint32_t at;	   /* chunks before it are done */
	uint32_t sorted[];
};

static void alloc_loaded(struct page_set *set);
static enum exec alloc_exec(struct san *s, struct san_req *req);
static bool alloc_begin(struct san *s, struct san_alloc *r, struct volume *vol);
static uint32_t count_missing(const struct alloc_run *run, uint32_t n);
static enum exec alloc_one(struct san *s, struct san_alloc *r, struct volume *vol, uint32_t at);
static enum exec keep_entry(struct san *s, struct san_alloc *r, struct volume *vol, uint32_t at,
			    struct map_page *p, struct map_entry *e);
static enum exec new_entry(struct san *s, struct san_alloc *r, struct volume *vol, uint32_t at,
			   struct map_page *p, struct map_entry *e);
static void alloc_cleanup(struct san_req *req);

static int cmp_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

void san_alloc(struct san *s, struct san_alloc *r)
{
	struct alloc_run *run;

	r->priv = NULL;
	san_op_begin(s, &r->req, alloc_exec, alloc_cleanup);
	s->stats.allocs++;
	if (r->n == 0 || r->n > SAN_CHUNKS_MAX || r->layer == 0) {
		san_op_refuse(&r->req, -EINVAL);
		return;
	}
	run = r->priv = priv_alloc(s, sizeof(*run) + r->n * sizeof(run->sorted[0]));
	if (!run) {
		san_op_refuse(&r->req, -ENOMEM);
		return;
	}
	*run = (struct alloc_run){.begun = false};
	memcpy(run->sorted, r->chunks, r->n * sizeof(run->sorted[0]));
	qsort(run->sorted, r->n, sizeof(run->sorted[0]), cmp_u32);
	run->set = page_set_of_chunks(s, r->layer, run->sorted, r->n);
	if (!run->set)
		san_op_refuse(&r->req, -ENOMEM);
	else
		page_set_load(run->set, alloc_loaded, &r->req);
}

static void alloc_loaded(struct page_set *set)
{
	struct san_req *r = set->arg;

	if (set->status)
		san_op_refuse(r, set->status);
	else
		san_op_write(r);
}

static enum exec alloc_exec(struct san *s, struct san_req *req)
{
	struct san_alloc *r = container_of(req, struct san_alloc, req);
	struct alloc_run *run = r->priv;
	struct volume *vol = volume_owned(s, req, r->volume, r->epoch);

	if (!vol || (!run->begun && !alloc_begin(s, r, vol)))
		return EXEC_DONE;
	for (; run->at < r->n; run->at++) {
		if (alloc_one(s, r, vol, run->at) == EXEC_MORE)
			return EXEC_MORE;
		if (req->status)
			break;
	}
	return EXEC_DONE;
}

static bool alloc_begin(struct san *s, struct san_alloc *r, struct volume *vol)
{

	struct alloc_run *run = r->priv;
	struct pool *pool = pool_of(s, vol->v.pool);
	uint32_t missing, last = run->sorted[r->n - 1];

	if (r->layer != vol->head->id) {
		san_op_fail(&r->req, -E_FROZEN, "layer %u is not the head of volume %s", r->layer,
			    vol->v.name);
		return false;
	}
	if (last >= volume_chunks(vol)) {
		san_op_fail(&r->req, -EINVAL, "chunk %u is past the end of volume %s", last,
			    vol->v.name);
		return false;
	}
	missing = count_missing(run, r->n);

	if (missing && (!pool || pool_free_usable(pool) < missing + pool->reserved)) {
		san_op_fail(&r->req, -ENOSPC, "the pool of volume %s is full", vol->v.name);
		return false;
	}
	run->begun = true;
	run->pool = pool;
	run->promised = missing;
	if (missing)
		pool->reserved += missing;
	return true;
}

static bool is_missing(enum map_kind kind)
{
	return kind == MAP_UNMAPPED || kind == MAP_ZERO || kind == MAP_LOST;
}

static uint32_t count_missing(const struct alloc_run *run, uint32_t n)
{
	uint32_t missing = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t chunk = run->sorted[i];
		const struct map_page *p;

		if (i > 0 && chunk == run->sorted[i - 1])
			continue;
		p = page_set_find(run->set, chunk);
		missing += is_missing(map_body_kind(&p->body, chunk % SCHEMA_MAP_CHUNKS));
	}
	return missing;
}

static enum exec alloc_one(struct san *s, struct san_alloc *r, struct volume *vol, uint32_t at)
{
	struct alloc_run *run = r->priv;
	uint32_t chunk = r->chunks[at];
	struct map_page *p = page_set_find(run->set, chunk);
	struct map_entry e;
	enum exec ret;

	map_body_get(&p->body, chunk % SCHEMA_MAP_CHUNKS, &e);
	ret =
	    is_missing(e.kind) ? new_entry(s, r, vol, at, p, &e) : keep_entry(s, r, vol, at, p, &e);
	r->items[at] = (struct san_map_item){.chunk = chunk, .layer = vol->head->id, .entry = e};
	return ret;
}

/* Mapped already. Somebody who did not reserve it wants it for good. */
static enum exec keep_entry(struct san *s, struct san_alloc *r, struct volume *vol, uint32_t at,
			    struct map_page *p, struct map_entry *e)
{
	bool reserve = r->reserved && r->reserved[at];

	if (!(e->flags & MAP_RESERVED) || reserve)
		return EXEC_DONE;
	if (!txn_fits(s, txn_page_cost(s, &p->obj), txn_has(s, &vol->head->obj) ? 0 : LAYER_SMALLS))
		return EXEC_MORE;
	e->flags &= (uint8_t)~MAP_RESERVED;
	map_set(s, vol->head, p, r->chunks[at] % SCHEMA_MAP_CHUNKS, e);
	return EXEC_DONE;
}

static uint8_t new_flags(const struct san_alloc *r, const struct volume *vol, uint32_t at,
			 enum map_kind was)
{
	uint8_t flags = 0;

	if (r->reserved && r->reserved[at])
		flags |= MAP_RESERVED;
	if (was == MAP_ZERO && vol->head->parent)
		flags |= MAP_OPAQUE;
	if (was == MAP_LOST)
		flags |= MAP_FULL;
	return flags;
}

static enum exec new_entry(struct san *s, struct san_alloc *r, struct volume *vol, uint32_t at,
			   struct map_page *p, struct map_entry *e)
{
	struct alloc_run *run = r->priv;
	struct layer *l = vol->head;
	uint64_t point = place_point(s->seed, l->id, r->chunks[at]);
	struct device *d;
	uint32_t slot, pages, smalls;

	if (map_body_reserve(&p->body, 1))
		return san_op_fail(&r->req, -ENOMEM, "out of memory");
	page_resized(s, p);
	if (!run->pool || space_pick(run->pool, point, &d, &slot))
		return san_op_fail(&r->req, -ENOSPC, "the pool of volume %s is full", vol->v.name);
	pages = txn_page_cost(s, &p->obj) + txn_page_cost(s, &space_page_of(d, slot)->obj);
	smalls = txn_has(s, &l->obj) ? 0 : LAYER_SMALLS;
	if (!txn_fits(s, pages, smalls))
		return EXEC_MORE;

	*e = (struct map_entry){
	    .kind = MAP_OPEN,
	    .flags = new_flags(r, vol, at, e->kind),
	    .replicas_n = 1,
	    .replicas[0] = {.cgen = ++s->cluster.cgen, .slot = slot, .dev = d->no},
	};
	s->cluster_dirty = true;
	space_use(s, d, slot);
	map_set(s, l, p, r->chunks[at] % SCHEMA_MAP_CHUNKS, e);
	s->txn.chunks_n++;
	if (run->promised) {
		run->promised--;
		run->pool->reserved--;
	}
	return EXEC_DONE;
}

static void alloc_cleanup(struct san_req *req)
{
	struct alloc_run *run = container_of(req, struct san_alloc, req)->priv;

	if (!run)
		return;
	if (run->promised)
		run->pool->reserved -= run->promised;
	page_set_free(run->set);
	priv_free(run);
}
