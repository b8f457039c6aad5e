/* SPDX-License-Identifier: Apache-2.0 */
/* update.c - the owner changes entries: unmap, zero, full. */
#include <stdlib.h>
#include <string.h>

#include "metadata/san/state.h"
#include "src/base/check.h"

struct update_run {
	struct page_set *set;
	uint32_t at; /* items before it are done */
	uint32_t chunk_max;
};

static void update_loaded(struct page_set *set);
static enum exec update_exec(struct san *s, struct san_req *req);
static bool update_one(struct san *s, struct san_update *r, struct layer *l,
		       const struct san_update_item *item);
static void update_cleanup(struct san_req *req);

static int cmp_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static bool items_ok(const struct san_update *r)
{
	if (r->n == 0 || r->n > SAN_CHUNKS_MAX || r->layer == 0)
		return false;
	for (uint32_t i = 0; i < r->n; i++)
		if ((unsigned)r->items[i].change > SAN_SET_ZERO)
			return false;
	return true;
}

static int prepare(struct san *s, struct san_update *r)
{
	struct update_run *run = priv_alloc(s, sizeof(*run));
	uint32_t sorted[SAN_CHUNKS_MAX];

	r->priv = run;
	if (!run)
		return -ENOMEM;
	for (uint32_t i = 0; i < r->n; i++)
		sorted[i] = r->items[i].chunk;
	qsort(sorted, r->n, sizeof(sorted[0]), cmp_u32);
	*run = (struct update_run){.chunk_max = sorted[r->n - 1]};
	run->set = page_set_of_chunks(s, r->layer, sorted, r->n);
	return run->set ? 0 : -ENOMEM;
}

void san_update(struct san *s, struct san_update *r)
{
	int ret;

	r->priv = NULL;
	r->changed_n = 0;
	san_op_begin(s, &r->req, update_exec, update_cleanup);
	ret = items_ok(r) ? prepare(s, r) : -EINVAL;
	if (ret)
		san_op_refuse(&r->req, ret);
	else
		page_set_load(((struct update_run *)r->priv)->set, update_loaded, &r->req);
}

static void update_loaded(struct page_set *set)
{
	struct san_req *r = set->arg;

	if (set->status)
		san_op_refuse(r, set->status);
	else
		san_op_write(r);
}

static enum exec update_exec(struct san *s, struct san_req *req)
{
	struct san_update *r = container_of(req, struct san_update, req);
	struct update_run *run = r->priv;
	struct volume *vol = volume_owned(s, req, r->volume, r->epoch);

	if (!vol)
		return EXEC_DONE;
	if (r->layer != vol->head->id)
		return san_op_fail(req, -E_FROZEN, "layer %u is not the head of volume %s",
				   r->layer, vol->v.name);
	if (run->chunk_max >= volume_chunks(vol))
		return san_op_fail(req, -EINVAL, "chunk %u is past the end of volume %s",
				   run->chunk_max, vol->v.name);
	for (; run->at < r->n && req->status == 0; run->at++)
		if (!update_one(s, r, vol->head, &r->items[run->at]))
			return EXEC_MORE;
	return EXEC_DONE;
}

/* What the entry becomes; false: it does not apply to what the entry is. */
static bool change_entry(const struct layer *l, const struct san_update_item *item,
			 const struct map_entry *was, struct map_entry *ret_new)
{
	bool has_slot = was->replicas_n > 0;
	bool hides = was->kind == MAP_ZERO || was->kind == MAP_LOST ||
		     (was->flags & (MAP_FULL | MAP_OPAQUE));

	if (item->cgen != (has_slot ? was->replicas[0].cgen : 0))
		return false;
	*ret_new = (struct map_entry){.kind = MAP_UNMAPPED};
	switch (item->change) {
	case SAN_UNMAP:
		if (l->parent && hides)
			ret_new->kind = MAP_ZERO;
		return was->kind != ret_new->kind;
	case SAN_UNMAP_ZERO:
		/* without an ancestor, nothing says zero as well as a zero entry does */
		if (l->parent)
			ret_new->kind = MAP_ZERO;
		return was->kind != ret_new->kind;
	case SAN_MARK_FULL:
		*ret_new = *was;
		ret_new->flags |= MAP_FULL;
		return was->kind == MAP_OPEN && !(was->flags & MAP_FULL);
	case SAN_SET_ZERO:
		if (l->parent)
			ret_new->kind = MAP_ZERO;
		return !has_slot && was->kind != ret_new->kind;
	}
	return false;
}

/* False: the batch is full. */
static bool update_one(struct san *s, struct san_update *r, struct layer *l,
		       const struct san_update_item *item)
{
	struct update_run *run = r->priv;
	struct map_page *p = page_set_find(run->set, item->chunk);
	uint32_t i = item->chunk % SCHEMA_MAP_CHUNKS;
	struct map_entry was, is;

	map_body_get(&p->body, i, &was);
	if (!change_entry(l, item, &was, &is))
		return true;
	if (map_body_reserve(&p->body, is.replicas_n)) {
		san_op_fail(&r->req, -ENOMEM, "out of memory");
		return true;
	}
	page_resized(s, p);
	if (!map_unmap_fits(s, p, l, &was))
		return false;
	if (is.replicas_n == 0)
		map_unmap_slots(s, &was);
	map_set(s, l, p, i, &is);
	r->changed_n++;
	return true;
}

static void update_cleanup(struct san_req *req)
{
	struct update_run *run = container_of(req, struct san_update, req)->priv;

	if (!run)
		return;
	page_set_free(run->set);
	priv_free(run);
}
