/* SPDX-License-Identifier: Apache-2.0 */
/* cache.c - map pages in memory.
 *
 * A page is in the table from the moment somebody wants it; it is read from the database once, by one of CACHE_LOADS_MAX reads. That the
 * database has no such page is remembered too, as an empty one. Pages are pinned by the sets that want them and by the batch that changed them;
 * the others are dropped, oldest first, when the cache is over its bound. When very many pages are pinned, further sets wait for admission: a set gets
 * all its pages or none, so they cannot wait for one another.
 *
 *   set: new -> add... -> load -> (admission) -> (missing pages are read) -> ready -> free */
#include <string.h>

#include "metadata/san/state.h"
#include "src/base/check.h"
#include "src/base/log.h"
#include "src/base/mem.h"

enum { PINNED_MAX = 4096, CACHE_BYTES_DEFAULT = 32 << 20 };

struct cache_load {
	struct list link;
	struct san *s;
	struct map_page *page;
	struct metastore_get get;
	struct schema_key key;
	uint8_t value[SCHEMA_PAGE_MAX];
};

static void admit_waiting(struct san *s);
static void admit(struct page_set *set);
static struct map_page *page_find(struct san *s, layer_id layer, uint32_t no);
static void loads_start(struct san *s);
static void load_done(struct metastore_get *get);
static void page_loaded(struct map_page *p);
static void page_unpin(struct san *s, struct map_page *p);
static void page_drop(struct san *s, struct map_page *p);
static void evict(struct san *s);

/* ---- pages as part of a batch ----------------------------------------------------------------------------------------------- */

static struct map_page *page_of(struct txn_obj *o)
{
	return container_of(o, struct map_page, obj);
}

static void page_emit(struct san *s, struct txn_obj *o)
{
	struct map_page *p = page_of(o);
	struct schema_key k = schema_key_map((layer_id)(p->node.key >> 32), (uint32_t)p->node.key);

	if (p->body.entries_n == 0)
		txn_delete(s, &k);
	else
		txn_put(s, &k, schema_map_encode(&p->body, &k, txn_value(s)));
}

static void page_committed(struct san *s, struct txn_obj *o)
{
	struct map_page *p = page_of(o);

	if (p->body.entries_n == 0) {
		map_body_free(&p->body);
		page_resized(s, p);
	}
	page_unpin(s, p);
}

static const struct txn_obj_type page_type = {
    .is_page = true,
    .emit = page_emit,
    .committed = page_committed,
};

void page_mark(struct san *s, struct map_page *p)
{
	if (txn_has(s, &p->obj))
		return;
	txn_mark(s, &p->obj);
	check(p->pins > 0); /* by the set of the request */
	p->pins++;
}

/* ---- sets ----------------------------------------------------------------------------------------------------------------- */

struct page_set *page_set_new(struct san *s, uint32_t n_max)
{
	struct page_set *set = priv_alloc(s, sizeof(*set) + n_max * sizeof(set->refs[0]));

	if (!set)
		return NULL;
	*set = (struct page_set){.s = s, .n_max = n_max};
	list_init(&set->link);
	return set;
}

void page_set_add(struct page_set *set, layer_id layer, uint32_t no)
{
	struct page_ref *ref = &set->refs[set->n++];

	check(set->n <= set->n_max);
	*ref = (struct page_ref){.set = set, .layer = layer, .no = no};
	list_init(&ref->link);
}

void page_set_load(struct page_set *set, void (*ready)(struct page_set *set), void *arg)
{
	struct san *s = set->s;

	set->ready = ready;
	set->arg = arg;
	list_push(&s->cache.admission, &set->link);
	admit_waiting(s);
}

static void admit_waiting(struct san *s)
{
	struct cache *c = &s->cache;

	while (!list_empty(&c->admission)) {
		struct page_set *set = list_first(&c->admission, struct page_set, link);

		if (c->pinned_n > 0 && c->pinned_n + set->n > PINNED_MAX)
			return;
		list_del(&set->link);
		admit(set);
	}
}

static void admit(struct page_set *set)
{
	struct san *s = set->s;

	set->admitted = true;
	set->missing = 1; /* our own, so that ready comes once and last */
	for (uint32_t i = 0; i < set->n; i++) {
		struct page_ref *ref = &set->refs[i];
		struct map_page *p = page_find(s, ref->layer, ref->no);

		if (!p) {
			set->status = -ENOMEM;
			break;
		}
		ref->page = p;
		list_del(&p->lru);
		s->cache.pinned_n += p->pins++ == 0;
		if (p->loading) {
			set->missing++;
			list_push(&p->waiters, &ref->link);
		} else if (p->status) {
			set->status = p->status;
		}
	}
	loads_start(s);
	if (--set->missing == 0)
		set->ready(set);
}

void page_set_free(struct page_set *set)
{
	struct san *s;

	if (!set)
		return;
	check(set->missing == 0);
	s = set->s;
	list_del(&set->link);
	for (uint32_t i = 0; i < set->n && set->refs[i].page; i++)
		page_unpin(s, set->refs[i].page);
	priv_free(set);
	evict(s);
	admit_waiting(s);
}

/* ---- pages ---------------------------------------------------------------------------------------------------------------- */

void page_resized(struct san *s, struct map_page *p)
{
	size_t bytes = sizeof(*p);

	if (p->body.slots)
		bytes += SCHEMA_MAP_CHUNKS * sizeof(p->body.slots[0]);
	if (p->body.extra)
		bytes += SCHEMA_MAP_CHUNKS * sizeof(p->body.extra[0]);
	s->cache.bytes += bytes - p->bytes;
	p->bytes = bytes;
}

/* A layer without entries has no pages: nothing to read. */
static bool must_read(const struct san *s, layer_id layer)
{
	const struct layer *l = idtab_get(&s->layers, layer);

	return !l || l->n.entries_n > 0;
}

static struct map_page *page_find(struct san *s, layer_id layer, uint32_t no)
{
	uint64_t key = (uint64_t)layer << 32 | no;
	struct hnode *node = htab_find(&s->cache.pages, key);
	struct map_page *p;

	if (node) {
		s->stats.cache_hits++;
		return container_of(node, struct map_page, node);
	}
	p = mem_alloc(sizeof(*p));
	if (!p)
		return NULL;
	*p = (struct map_page){.obj.type = &page_type};
	list_init(&p->lru);
	list_init(&p->waiters);
	list_init(&p->link);
	htab_add(&s->cache.pages, &p->node, key);
	page_resized(s, p);
	if (must_read(s, layer)) {
		s->stats.cache_misses++;
		p->loading = true;
		list_push(&s->cache.load_queue, &p->link);
	}
	return p;
}

static void page_unpin(struct san *s, struct map_page *p)
{
	check(p->pins > 0);
	if (--p->pins > 0)
		return;
	s->cache.pinned_n--;
	if (p->status)
		page_drop(s, p); /* the next one who wants it reads it again */
	else
		list_push(&s->cache.lru, &p->lru);
}

static void page_drop(struct san *s, struct map_page *p)
{
	check(p->pins == 0 && !p->loading);
	list_del(&p->lru);
	htab_del(&s->cache.pages, &p->node);
	s->cache.bytes -= p->bytes;
	map_body_free(&p->body);
	mem_free(p);
}

static void evict(struct san *s)
{
	struct cache *c = &s->cache;

	while (c->bytes > c->bytes_max && !list_empty(&c->lru))
		page_drop(s, list_first(&c->lru, struct map_page, lru));
}

/* ---- reading -------------------------------------------------------------------------------------------------------------- */

static void loads_start(struct san *s)
{
	struct cache *c = &s->cache;

	while (!list_empty(&c->load_queue) && !list_empty(&c->loads_free)) {
		struct cache_load *load =
		    list_entry(list_pop(&c->loads_free), struct cache_load, link);
		struct map_page *p = list_entry(list_pop(&c->load_queue), struct map_page, link);

		load->page = p;
		load->key = schema_key_map((layer_id)(p->node.key >> 32), (uint32_t)p->node.key);
		load->get = (struct metastore_get){
		    .key = schema_key_bytes(&load->key),
		    .value = load->value,
		    .value_max = sizeof(load->value),
		    .done = load_done,
		};
		metastore_get(s->store, &load->get);
	}
}

static void load_done(struct metastore_get *get)
{
	struct cache_load *load = container_of(get, struct cache_load, get);
	struct san *s = load->s;
	struct map_page *p = load->page;

	if (get->status == 0)
		p->status = schema_map_decode(get->key,
					      (struct metastore_bytes){get->value, get->value_len},
					      &p->body);
	else if (get->status != -ENOENT)
		p->status = get->status;
	if (p->status == -E_FORMAT || p->status == -E_VERSION)
		log_error("a map page is damaged", "layer=%u page=%u error=%s",
			  (uint32_t)(p->node.key >> 32), (uint32_t)p->node.key, err_name(p->status));
	list_push(&s->cache.loads_free, &load->link);
	page_resized(s, p);
	page_loaded(p);
	loads_start(s);
}

static void page_loaded(struct map_page *p)
{
	struct list waiters, *l;

	p->loading = false;
	list_init(&waiters);
	list_splice(&waiters, &p->waiters);
	while ((l = list_pop(&waiters))) {
		struct page_set *set = list_entry(l, struct page_ref, link)->set;

		if (p->status)
			set->status = p->status;
		if (--set->missing == 0)
			set->ready(set);
	}
}

/* ---- life ----------------------------------------------------------------------------------------------------------------- */

int cache_init(struct san *s, uint64_t bytes_max)
{
	struct cache *c = &s->cache;

	c->bytes_max = bytes_max ? bytes_max : CACHE_BYTES_DEFAULT;
	list_init(&c->lru);
	list_init(&c->admission);
	list_init(&c->load_queue);
	list_init(&c->loads_free);
	c->loads = mem_zalloc_array(CACHE_LOADS_MAX, sizeof(c->loads[0]));
	if (!c->loads)
		return -ENOMEM;
	for (int i = 0; i < CACHE_LOADS_MAX; i++) {
		c->loads[i].s = s;
		list_push(&c->loads_free, &c->loads[i].link);
	}
	if (htab_init(&c->pages, 1024)) {
		mem_free(c->loads);
		c->loads = NULL;
		return -ENOMEM;
	}
	return 0;
}

/* Also with requests that never ended (san_abandon): their pins do not count. */
void cache_free(struct san *s)
{
	struct cache *c = &s->cache;

	if (!c->loads)
		return;
	htab_for_each (n, &c->pages) {
		struct map_page *p = container_of(n, struct map_page, node);

		htab_del(&c->pages, n);
		map_body_free(&p->body);
		mem_free(p);
	}
	htab_free(&c->pages);
	mem_free(c->loads);
}
