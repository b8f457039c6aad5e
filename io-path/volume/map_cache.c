/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/volume/map_cache.h"

#include <inttypes.h>
#include <string.h>

#include "io-path/volume/runtime.h"
#include "src/base/log.h"
#include "src/base/math.h"
#include "src/base/mem.h"

enum {
	LOADS_MAX = 8,	   /* pages being fetched at once */
	LOAD_ITEMS = 1024, /* of one call; at least LAYERS_MAX, so that one chunk always fits */
	PAGES_MIN = 16,
	PREFETCH_LOADS = 4, /* that prefetching may occupy */
};
static_assert((int)LOAD_ITEMS >= (int)LAYERS_MAX, "a load of one chunk fits");
static_assert((int)LOAD_ITEMS >= (int)MAP_PAGE_CHUNKS, "a page without ancestors fits");

/* Fetches one page: in one call, or in several when the stacks of its chunks are deep. */
struct map_load {
	struct meta_map req;
	struct list link; /* in loads_free */
	struct map_page *page;
	uint32_t next; /* chunk of the page to ask for next */
	uint32_t step; /* chunks asked for at once */
	struct meta_map_item items[LOAD_ITEMS];
};

static struct map_page *page_new(struct volume *v, uint32_t no);
static void loads_start(struct map_cache *c);
static void load_ask(struct map_load *l);
static void load_done(struct meta_req *r);
static int load_store(struct map_load *l);
static void load_end(struct map_load *l, int status);
static void page_unpin(struct map_page *p);
static void page_reload(struct map_page *p);
static void starved_again(struct vol_task *t);

/* ---- life ------------------------------------------------------------------------------------------------------------- */

int map_cache_init(struct map_cache *c, struct volumes *vs)
{
	uint64_t pages_n =
	    MAX(vs->limits.map_cache_bytes / sizeof(struct map_page), (uint64_t)PAGES_MIN);
	int rc;

	*c = (struct map_cache){.vs = vs, .below_bytes_max = vs->limits.map_cache_bytes};
	list_init(&c->by_age);
	list_init(&c->queue);
	list_init(&c->starved);
	list_init(&c->loads_free);
	vol_task_init(&c->starved_task, starved_again);
	rc = fixed_pool_init(&c->pool, (uint32_t)MIN(pages_n, UINT32_MAX), sizeof(struct map_page),
			     _Alignof(struct map_page));
	if (rc)
		goto fail;
	rc = htab_init(&c->pages, 64);
	if (rc)
		goto fail_pages;
	c->loads = mem_zalloc_array(LOADS_MAX, sizeof(c->loads[0]));
	rc = -ENOMEM;
	if (!c->loads)
		goto fail_loads;
	for (int i = 0; i < LOADS_MAX; i++)
		list_push(&c->loads_free, &c->loads[i].link);
	return 0;

fail_loads:
	htab_free(&c->pages);
fail_pages:
	fixed_pool_free(&c->pool);
fail:
	*c = (struct map_cache){0};
	return rc;
}

void map_cache_free(struct map_cache *c)
{
	if (!c->vs)
		return;
	check(list_empty(&c->by_age) && list_empty(&c->starved));
	vol_task_cancel(&c->starved_task);
	mem_free(c->loads);
	htab_free(&c->pages);
	fixed_pool_free(&c->pool);
	*c = (struct map_cache){0};
}

/* ---- looking up ------------------------------------------------------------------------------------------------------- */

static uint64_t page_key(const struct volume *v, uint32_t no)
{
	return (uint64_t)v->serial << 32 | no;
}

static struct map_page *page_any(struct volume *v, uint32_t chunk)
{
	struct hnode *n = htab_find(&v->vs->cache.pages, page_key(v, chunk >> MAP_PAGE_SHIFT));

	return n ? container_of(n, struct map_page, node) : NULL;
}

struct map_page *map_page_find(struct volume *v, uint32_t chunk)
{
	struct map_page *p = v->hot_page;

	if (!p || p->no != chunk >> MAP_PAGE_SHIFT)
		p = page_any(v, chunk);
	if (!p || p->state != MAP_PAGE_READY)
		return NULL;
	v->hot_page = p;
	p->referenced = true;
	v->stats.map_hits++;
	return p;
}

struct map_item *map_head_pinned(struct volume *v, uint32_t chunk)
{
	struct map_page *p = page_any(v, chunk);

	check(p && p->pins > 0);
	return map_head(p, chunk);
}

uint32_t map_below(const struct map_page *p, uint32_t chunk, const struct map_below **ret_items)
{
	uint32_t i = chunk & (MAP_PAGE_CHUNKS - 1);

	if (!p->below)
		return 0;
	*ret_items = &p->below->items[p->below->at[i]];
	return p->below->at[i + 1] - p->below->at[i];
}

void map_wait(struct volume *v, uint32_t chunk, struct map_waiter *w,
	      void (*fn)(struct map_waiter *w, int status))
{
	struct map_cache *c = &v->vs->cache;
	struct map_page *p = page_any(v, chunk);

	w->v = v;
	w->chunk = chunk;
	w->fn = fn;
	if (!p)
		p = page_new(v, chunk >> MAP_PAGE_SHIFT);
	check(!p || p->state != MAP_PAGE_READY);
	list_push(p ? &p->waiters : &c->starved, &w->link);
	loads_start(c);
}

/* ---- room ------------------------------------------------------------------------------------------------------------- */

static void page_free_below(struct map_page *p)
{
	if (!p->below)
		return;
	p->v->vs->cache.below_bytes -=
	    sizeof(*p->below) + p->below->room * sizeof(p->below->items[0]);
	mem_free(p->below);
	p->below = NULL;
}

static void page_drop(struct map_page *p)
{
	struct map_cache *c = &p->v->vs->cache;

	check(p->pins == 0 && list_empty(&p->waiters));
	if (p->state != MAP_PAGE_READY)
		p->v->loads_n--;
	if (p->v->hot_page == p)
		p->v->hot_page = NULL;
	page_free_below(p);
	htab_del(&c->pages, &p->node);
	list_del(&p->by_volume);
	list_del(&p->by_age);
	list_del(&p->queue);
	fixed_pool_put(&c->pool, p);
}

/* The clock: a page used since the hand passed is spared once. False: every page is being loaded or changed. */
static bool evict_one(struct map_cache *c)
{
	for (uint32_t left = 2 * c->pool.out_n; left > 0 && !list_empty(&c->by_age); left--) {
		struct map_page *p = list_first(&c->by_age, struct map_page, by_age);

		if (p->state == MAP_PAGE_READY && p->pins == 0 && !p->referenced) {
			page_drop(p);
			return true;
		}
		p->referenced = false;
		list_del(&p->by_age);
		list_push(&c->by_age, &p->by_age);
	}
	return false;
}

/* A page to be loaded, in the queue; NULL: no room. */
static struct map_page *page_new(struct volume *v, uint32_t no)
{
	struct map_cache *c = &v->vs->cache;
	struct map_page *p = fixed_pool_get(&c->pool);

	if (!p && evict_one(c))
		p = fixed_pool_get(&c->pool);
	if (!p)
		return NULL;
	p->v = v;
	p->no = no;
	p->pins = 0;
	p->state = MAP_PAGE_LOADING;
	p->referenced = true;
	p->below = NULL;
	list_init(&p->waiters);
	htab_add(&c->pages, &p->node, page_key(v, no));
	list_push(&v->pages, &p->by_volume);
	list_push(&c->by_age, &p->by_age);
	list_push(&c->queue, &p->queue);
	v->loads_n++;
	return p;
}

/* Those for whose page there was no room try again. */
static void starved_again(struct vol_task *t)
{
	struct map_cache *c = container_of(t, struct map_cache, starved_task);
	struct list again;
	struct list *l;

	list_init(&again);
	list_splice(&again, &c->starved);
	while ((l = list_pop(&again))) {
		struct map_waiter *w = list_entry(l, struct map_waiter, link);

		if (map_page_find(w->v, w->chunk))
			w->fn(w, 0);
		else
			map_wait(w->v, w->chunk, w, w->fn);
	}
}

/* ---- loading ---------------------------------------------------------------------------------------------------------- */

static void loads_start(struct map_cache *c)
{
	while (!list_empty(&c->queue) && !list_empty(&c->loads_free)) {
		struct map_load *l = list_entry(list_pop(&c->loads_free), struct map_load, link);

		c->loads_busy_n++;
		l->page = list_entry(list_pop(&c->queue), struct map_page, queue);
		check(l->page->state == MAP_PAGE_LOADING && l->page->pins == 0);
		page_free_below(l->page);
		memset(l->page->head, 0, sizeof(l->page->head));
		l->next = 0;
		l->step = MAP_PAGE_CHUNKS;
		load_ask(l);
	}
}

static void load_ask(struct map_load *l)
{
	struct volume *v = l->page->v;

	v->stats.map_loads++;
	l->req = (struct meta_map){
	    .req = {.done = load_done, .timeout_ns = v->vs->limits.io_timeout_ns},
	    .volume = v->id,
	    .epoch = v->epoch,
	    .layer = v->layers[0],
	    .first = (l->page->no << MAP_PAGE_SHIFT) + l->next,
	    .n = MIN(l->step, MAP_PAGE_CHUNKS - l->next),
	    .items = l->items,
	    .items_max = LOAD_ITEMS,
	};
	v->vs->meta->ops->map(v->vs->meta, &l->req);
}

static void load_done(struct meta_req *r)
{
	struct map_load *l = container_of(r, struct map_load, req.req);
	int status = r->status;

	if (status == -E2BIG && l->req.n > 1) {
		l->step = l->req.n / 2;
		load_ask(l);
		return;
	}
	if (status == -E2BIG) /* for one chunk? there is room for the longest chain */
		status = -E_PROTOCOL;
	if (status == 0)
		status = load_store(l);
	if (status == 0 && l->next < MAP_PAGE_CHUNKS)
		load_ask(l);
	else
		load_end(l, status);
}

/* Room for n ancestors in all; what is there stays. */
static int below_reserve(struct map_page *p, uint32_t n)
{
	struct map_cache *c = &p->v->vs->cache;
	uint32_t had = p->below ? p->below->room : 0;
	uint32_t room = MAX(n, 2 * had);
	struct map_stacks *b = NULL;

	if (n <= had)
		return 0;
	/* the page itself is LOADING and cannot be evicted */
	while (c->below_bytes + room * sizeof(b->items[0]) > c->below_bytes_max && evict_one(c))
		;
	do {
		b = mem_realloc(p->below, 1, sizeof(*b) + room * sizeof(b->items[0]));
	} while (!b && evict_one(c));
	if (!b)
		return -ENOMEM;
	if (!p->below) {
		memset(b->at, 0, sizeof(b->at));
		c->below_bytes += sizeof(*b);
	}
	c->below_bytes += (room - had) * sizeof(b->items[0]);
	b->room = room;
	p->below = b;
	return 0;
}

/* Takes over the answer for chunks [l->next, l->next + n) of the page. It must be sorted by chunk, and within one by depth in
 * the chain. */
static int load_store(struct map_load *l)
{
	struct map_page *p = l->page;
	struct volume *v = p->v;
	uint32_t base = p->no << MAP_PAGE_SHIFT, end = l->next + l->req.n;
	uint32_t at = l->next; /* below->at[0] to below->at[at] are final */
	uint32_t n = p->below ? p->below->at[at] : 0, prev = l->next, depth = 0;
	int rc;

	if (l->req.items_n > LOAD_ITEMS)
		return -E_PROTOCOL;
	for (uint32_t i = 0; i < l->req.items_n; i++) {
		const struct meta_map_item *m = &l->items[i];
		uint32_t chunk = m->chunk - base;

		if (m->chunk < base || chunk < prev || chunk >= end)
			return -E_PROTOCOL;
		if (chunk != prev)
			depth = 0;
		while (depth < v->layers_n && v->layers[depth] != m->layer)
			depth++;
		if (depth == v->layers_n)
			return -E_PROTOCOL;
		if (depth == 0) {
			p->head[chunk] = map_item_of(&m->entry);
		} else {
			rc = below_reserve(p, n + 1);
			if (rc)
				return rc;
			while (at < chunk)
				p->below->at[++at] = n;
			p->below->items[n++] = (struct map_below){map_item_of(&m->entry), depth};
		}
		prev = chunk;
		depth++;
	}
	while (p->below && at < end)
		p->below->at[++at] = n;
	l->next = end;
	return 0;
}

struct map_item map_item_of(const struct map_entry *e)
{
	struct map_item item = {.kind = e->kind,
				.flags = e->flags & (MAP_FULL | MAP_RESERVED | MAP_OPAQUE)};

	switch (e->kind) {
	case MAP_UNMAPPED:
	case MAP_ZERO:
	case MAP_LOST:
		break;
	case MAP_OPEN:
	case MAP_SEALED:
		item.dev = e->replicas[0].dev;
		item.slot = e->replicas[0].slot;
		item.cgen = e->replicas[0].cgen;
		if (e->replicas_n == 1 && item.dev != 0 && item.cgen != 0)
			break;
		item.kind = MAP_KIND_UNSUPPORTED;
		break;
	default:
		item.kind = MAP_KIND_UNSUPPORTED;
		break;
	}
	return item;
}

/* Reserved chunks that are none of our run-ahead were a predecessor's: nobody will follow there. */
static void adopt_reserved(struct map_page *p)
{
	struct volume *v = p->v;

	for (uint32_t i = 0; i < MAP_PAGE_CHUNKS && !v->frozen; i++) {
		uint32_t chunk = (p->no << MAP_PAGE_SHIFT) + i;

		if (p->head[i].flags & MAP_RESERVED && !run_ahead_has(v, chunk))
			reclaim_add(v, chunk);
	}
}

static void load_end(struct map_load *l, int status)
{
	struct map_page *p = l->page;
	struct volume *v = p->v;
	struct map_cache *c = &v->vs->cache;
	struct list waiters;
	struct list *w;

	list_push(&c->loads_free, &l->link);
	c->loads_busy_n--;
	list_init(&waiters);
	list_splice(&waiters, &p->waiters);
	if (status == 0) {
		p->state = MAP_PAGE_READY;
		v->loads_n--;
		adopt_reserved(p);
		p->pins++; /* so that each waiter finds it */
	} else {
		if (!volume_gone_check(v, status))
			log_limited(LOG_WARN, ioe_now_ns(v->vs->ioe), "map not fetched",
				    "vol=%s page=%" PRIu32 " err=%s", v->name, p->no,
				    err_name(status));
		page_drop(p);
	}
	while ((w = list_pop(&waiters)))
		list_entry(w, struct map_waiter, link)
		    ->fn(list_entry(w, struct map_waiter, link), status);
	if (status == 0)
		page_unpin(p);
	if (!list_empty(&c->starved))
		vol_task_add(c->vs, &c->starved_task);
	loads_start(c);
	map_prefetch(v);
	volume_drain_check(v);
}

void map_prefetch(struct volume *v)
{
	struct map_cache *c = &v->vs->cache;

	while (v->prefetch_next < v->prefetch_end && list_empty(&c->queue) &&
	       c->loads_busy_n < PREFETCH_LOADS && c->pool.out_n < c->pool.items_n / 2) {
		uint32_t no = v->prefetch_next++;

		if (!page_any(v, no << MAP_PAGE_SHIFT) && page_new(v, no))
			loads_start(c);
	}
}

/* ---- changing --------------------------------------------------------------------------------------------------------- */

void map_pin(struct map_page *p)
{
	check(p->state == MAP_PAGE_READY);
	p->pins++;
}

static void page_unpin(struct map_page *p)
{
	struct map_cache *c = &p->v->vs->cache;

	check(p->pins > 0);
	if (--p->pins > 0)
		return;
	if (p->state == MAP_PAGE_STALE)
		page_reload(p);
	else if (!list_empty(&c->starved))
		vol_task_add(c->vs, &c->starved_task);
}

void map_unpin(struct volume *v, uint32_t chunk)
{
	struct map_page *p = page_any(v, chunk);

	check(p);
	page_unpin(p);
}

void map_set_head(struct volume *v, uint32_t chunk, const struct map_item *item)
{
	*map_head_pinned(v, chunk) = *item;
}

static void page_reload(struct map_page *p)
{
	struct map_cache *c = &p->v->vs->cache;

	p->state = MAP_PAGE_LOADING;
	list_push(&c->queue, &p->queue);
	loads_start(c);
}

void map_refetch(struct volume *v, uint32_t chunk)
{
	struct map_page *p = page_any(v, chunk);

	if (!p || p->state != MAP_PAGE_READY)
		return;
	p->state = MAP_PAGE_STALE;
	v->loads_n++;
	if (v->hot_page == p)
		v->hot_page = NULL;
	if (p->pins == 0)
		page_reload(p);
}

void map_shrunk(struct volume *v, uint32_t first)
{
	list_for_each (l, &v->pages) {
		struct map_page *p = list_entry(l, struct map_page, by_volume);

		if (((p->no + 1) << MAP_PAGE_SHIFT) > first)
			map_refetch(v, p->no << MAP_PAGE_SHIFT);
	}
}

void map_forget(struct volume *v)
{
	while (!list_empty(&v->pages)) {
		struct map_page *p = list_first(&v->pages, struct map_page, by_volume);

		check(p->state == MAP_PAGE_READY);
		page_drop(p);
	}
}
