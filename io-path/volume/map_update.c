/* SPDX-License-Identifier: Apache-2.0 */
/* map_update.c - changes of the map other than allocations, gathered like those: one commit is under way, who comes meanwhile
 * goes into the next. The chunk of each change is locked by whoever asks, from before it decided until its fn has run: nobody
 * uses the old mapping.
 *
 * There is no time limit: a change given up on could still be carried out later, under the feet of whoever uses the chunk by
 * then. For the same reason an error (the client is being shut down) makes the page be fetched again before anybody uses it. */
#include "io-path/volume/runtime.h"

static void update_send(struct vol_task *t);
static void update_done(struct meta_req *r);
static struct map_item changed(const struct volume *v, const struct map_item *was,
			       enum meta_change change);

void map_update_init(struct volume *v)
{
	list_init(&v->update.waiting);
	list_init(&v->update.sent);
	vol_task_init(&v->update.task, update_send);
}

void map_update(struct map_page *p, struct map_change *c)
{
	struct volume *v = p->v;

	map_pin(p);
	list_push(&v->update.waiting, &c->link);
	if (!v->update.busy)
		vol_task_add(v->vs, &v->update.task);
}

static void update_send(struct vol_task *t)
{
	struct vol_update *u = container_of(t, struct vol_update, task);
	struct volume *v = container_of(u, struct volume, update);
	uint32_t n = 0;

	if (u->busy)
		return;
	while (n < UPDATE_BATCH_MAX && !list_empty(&u->waiting)) {
		struct map_change *c = list_entry(list_pop(&u->waiting), struct map_change, link);

		u->items[n++] = (struct meta_update_item){.chunk = c->chunk,
							  .change = c->change,
							  .cgen = c->cgen};
		list_push(&u->sent, &c->link);
	}
	if (n == 0)
		return;
	u->busy = true;
	u->req = (struct meta_update){
	    .req = {.done = update_done},
	    .volume = v->id,
	    .epoch = v->epoch,
	    .layer = v->layers[0],
	    .items = u->items,
	    .n = n,
	};
	v->vs->meta->ops->update(v->vs->meta, &u->req);
}

static void update_done(struct meta_req *r)
{
	struct volume *v = container_of(r, struct volume, update.req.req);
	struct vol_update *u = &v->update;
	int status = r->status;
	struct list sent;
	struct list *l;

	u->busy = false;
	list_init(&sent);
	list_splice(&sent, &u->sent);
	volume_gone_check(v, status);
	while ((l = list_pop(&sent))) {
		struct map_change *c = list_entry(l, struct map_change, link);
		struct map_item item = changed(v, map_head_pinned(v, c->chunk), c->change);

		if (status == 0)
			map_set_head(v, c->chunk, &item);
		else
			map_refetch(v, c->chunk);
		map_unpin(v, c->chunk);
		c->fn(c, status);
	}
	if (!list_empty(&u->waiting))
		vol_task_add(v->vs, &u->task);
	volume_drain_check(v);
}

/* What the server leaves. */
static struct map_item changed(const struct volume *v, const struct map_item *was,
			       enum meta_change change)
{
	bool hid = was->kind == MAP_ZERO || was->flags & (MAP_FULL | MAP_OPAQUE);

	switch (change) {
	case META_UNMAP:
		return (struct map_item){.kind = hid && v->layers_n > 1 ? MAP_ZERO : MAP_UNMAPPED};
	case META_UNMAP_ZERO:
	case META_SET_ZERO:
		return (struct map_item){.kind = MAP_ZERO};
	case META_MARK_FULL:
		break;
	}
	check_unreachable("a change that nobody asks for");
}
