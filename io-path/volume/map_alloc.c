/* SPDX-License-Identifier: Apache-2.0 */
/* map_alloc.c - mapping chunks that clients need.
 *
 * One metadata commit is under way at a time; who comes meanwhile waits in `waiting` and goes into the next one together.
 * Several who need the same chunk share it. A batch is sent at the end of the turn, so that those of one turn share a commit,
 * too. Behind a sequential writer run-ahead fills the batch up.
 *
 *   IDLE -> (end of turn) SENT* -> answered: who is mapped now goes on -> IDLE, or the next batch
 *
 * No space. A batch fails as a whole, though some of it might have fitted, and space may be about to come back. So, in this
 * order: without run-ahead; after returning what this node's volumes can return, up to RETRIES_MAX times; one chunk at a time.
 * A chunk for which that fails is -ENOSPC for those who wait for it, and only for them. */
#include "io-path/volume/runtime.h"

enum { RETRIES_MAX = 5 };
#define RETRY_NS (NS_PER_S / 50)

static void alloc_send(struct vol_task *t);
static void alloc_done(struct meta_req *r);
static int alloc_store(struct volume *v);
static bool alloc_no_space(struct volume *v);
static void alloc_take(struct volume *v, int status, struct list *ret_answered);

void map_alloc_init(struct volume *v)
{
	struct vol_alloc *a = &v->alloc;

	list_init(&a->waiting);
	vol_task_init(&a->task, alloc_send);
	a->limit = ALLOC_BATCH_MAX;
}

void map_alloc(struct map_page *p, uint32_t chunk, struct map_waiter *w,
	       void (*fn)(struct map_waiter *w, int status))
{
	struct volume *v = p->v;

	map_pin(p);
	w->v = v;
	w->chunk = chunk;
	w->fn = fn;
	list_push(&v->alloc.waiting, &w->link);
	run_ahead_asked(v, chunk);
	if (!v->alloc.busy)
		vol_task_add(v->vs, &v->alloc.task);
}

static bool is_mapped(const struct map_item *head)
{
	return head->kind == MAP_OPEN && !(head->flags & MAP_RESERVED);
}

static void alloc_send(struct vol_task *t)
{
	struct vol_alloc *a = container_of(t, struct vol_alloc, task);
	struct volume *v = container_of(a, struct volume, alloc);

	if (a->busy)
		return;
	a->n = 0;
	list_for_each (l, &a->waiting) {
		struct map_waiter *w = list_entry(l, struct map_waiter, link);
		struct map_item *head = map_head_pinned(v, w->chunk);

		if (a->n == a->limit)
			break;
		if (head->flags & MAP_ITEM_BATCHED)
			continue;
		head->flags |= MAP_ITEM_BATCHED;
		run_ahead_used(v, w->chunk);
		a->reserved[a->n] = false;
		a->chunks[a->n++] = w->chunk;
	}
	a->clients_n = a->n;
	if (a->n == 0)
		return;
	if (a->limit == ALLOC_BATCH_MAX)
		a->n += run_ahead_choose(v, ALLOC_BATCH_MAX - a->n, a->chunks + a->n);
	for (uint32_t i = a->clients_n; i < a->n; i++) {
		map_head_pinned(v, a->chunks[i])->flags |= MAP_ITEM_BATCHED;
		a->reserved[i] = true;
	}
	a->busy = true;
	a->req = (struct meta_alloc){
	    .req = {.done = alloc_done, .timeout_ns = v->vs->limits.io_timeout_ns},
	    .volume = v->id,
	    .epoch = v->epoch,
	    .layer = v->layers[0],
	    .chunks = a->chunks,
	    .reserved = a->n > a->clients_n ? a->reserved : NULL,
	    .n = a->n,
	    .items = a->items,
	};
	v->stats.alloc_commits++;
	v->vs->meta->ops->alloc(v->vs->meta, &a->req);
}

static void alloc_done(struct meta_req *r)
{
	struct volume *v = container_of(r, struct volume, alloc.req.req);
	struct vol_alloc *a = &v->alloc;
	int status = r->status;
	struct list answered;
	struct list *l;

	if (status == 0)
		status = alloc_store(v);
	list_init(&answered);
	a->busy = status == -ENOSPC && alloc_no_space(v);
	if (!a->busy)
		alloc_take(v, status, &answered);
	for (uint32_t i = 0; i < a->n; i++) {
		map_head_pinned(v, a->chunks[i])->flags &= (uint8_t)~MAP_ITEM_BATCHED;
		if (status && status != -ENOSPC) /* it may have been done all the same */
			map_refetch(v, a->chunks[i]);
		if (i >= a->clients_n)
			map_unpin(v, a->chunks[i]);
	}
	volume_gone_check(v, status);
	while ((l = list_pop(&answered))) {
		struct map_waiter *w = list_entry(l, struct map_waiter, link);

		map_unpin(v, w->chunk);
		w->fn(w, status);
	}
	if (a->busy && a->retry_ns == 0)
		a->busy = false; /* again, at once */
	if (!a->busy && !list_empty(&a->waiting))
		vol_task_add(v->vs, &a->task);
	volume_drain_check(v);
}

/* Takes the answer over into the map. Nothing is taken when any of it makes no sense. */
static int alloc_store(struct volume *v)
{
	struct vol_alloc *a = &v->alloc;

	for (uint32_t i = 0; i < a->n; i++) {
		const struct meta_map_item *m = &a->items[i];
		struct map_item item = map_item_of(&m->entry);
		const struct map_item *was = map_head_pinned(v, a->chunks[i]);

		if (m->chunk != a->chunks[i] || m->layer != v->layers[0])
			return -E_PROTOCOL;
		/* it would uncover the ancestors */
		if (was->kind == MAP_ZERO && v->layers_n > 1 &&
		    !(item.flags & (MAP_OPAQUE | MAP_FULL)))
			return -E_PROTOCOL;
		if (i < a->clients_n && !is_mapped(&item))
			return item.kind == MAP_KIND_UNSUPPORTED ? -E_VERSION : -E_PROTOCOL;
	}
	for (uint32_t i = 0; i < a->n; i++) {
		struct map_item item = map_item_of(&a->items[i].entry);

		if (i >= a->clients_n && item.flags & MAP_RESERVED) {
			item.flags |= MAP_ITEM_EMPTY;
			run_ahead_got(v, a->chunks[i]);
		}
		map_set_head(v, a->chunks[i], &item);
	}
	a->limit = 2 * a->limit < ALLOC_BATCH_MAX ? 2 * a->limit : ALLOC_BATCH_MAX;
	a->retries = 0;
	v->stats.alloc_chunks += a->clients_n;
	return 0;
}

/* Those who have their answer: who is mapped now, or everybody in the batch that failed. */
static void alloc_take(struct volume *v, int status, struct list *ret_answered)
{
	list_for_each_safe (l, next, &v->alloc.waiting) {
		struct map_waiter *w = list_entry(l, struct map_waiter, link);
		const struct map_item *head = map_head_pinned(v, w->chunk);

		if (status ? head->flags & MAP_ITEM_BATCHED : is_mapped(head)) {
			list_del(l);
			list_push(ret_answered, l);
		}
	}
}

/* ---- no space --------------------------------------------------------------------------------------------------------- */

/* Makes all volumes of the node return what they can; false: there is nothing. */
static bool return_space(struct volumes *vs)
{
	bool some = false;

	list_for_each (l, &vs->all) {
		struct volume *v = list_entry(l, struct volume, link);

		if (v->gone || (v->state != VOLUME_OPEN && v->state != VOLUME_DRAINING))
			continue;
		some |= run_ahead_return(v) || !reclaim_is_idle(v);
		reclaim_now(v);
	}
	return some;
}

/* True: the batch, or a smaller one, is tried again; at once unless retry_ns is set. */
static bool alloc_no_space(struct volume *v)
{
	struct vol_alloc *a = &v->alloc;
	uint64_t now_ns = ioe_now_ns(v->vs->ioe);

	run_ahead_pause(v);
	if (a->n > a->clients_n)
		return true;
	if (now_ns - a->full_ns > NS_PER_S) /* a new shortage */
		a->retries = 0;
	a->full_ns = now_ns;
	if (a->retries < RETRIES_MAX && (a->retries > 0 || return_space(v->vs))) {
		a->retries++;
		a->retry_ns = now_ns + RETRY_NS;
		volume_timer_want(v, a->retry_ns);
		return true;
	}
	if (a->clients_n == 1)
		return false;
	a->limit = 1;
	return true;
}

void map_alloc_tick(struct volume *v, uint64_t now_ns)
{
	struct vol_alloc *a = &v->alloc;

	if (a->retry_ns == 0)
		return;
	if (now_ns < a->retry_ns) {
		volume_timer_want(v, a->retry_ns);
		return;
	}
	a->retry_ns = 0;
	a->busy = false;
	vol_task_add(v->vs, &a->task);
}
