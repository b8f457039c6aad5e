/* SPDX-License-Identifier: Apache-2.0 */
/* lookup.c - reading the map: a range of a volume through its chain, or everything there is. */
#include <string.h>

#include "metadata/san/state.h"
#include "src/base/check.h"
#include "src/base/math.h"

/* ---- through the chain ------------------------------------------------------------------------------------------------------ */

/* refs of the set: for each page of the range its pages in the layers of the chain, from the top down */
struct lookup {
	struct page_set *set;
	uint32_t layers_n;
};

static void map_loaded(struct page_set *set);
static enum exec map_exec(struct san *s, struct san_req *req);
static void map_collect(struct san_map *r);

static void map_cleanup(struct san_req *req)
{
	struct lookup *look = container_of(req, struct san_map, req)->priv;

	if (!look)
		return;
	page_set_free(look->set);
	priv_free(look);
}

static const struct layer *chain_find(const struct volume *vol, layer_id layer)
{
	const struct layer *l = vol->head;

	while (l && layer && l->id != layer)
		l = l->parent;
	return l;
}

/* NULL: no memory */
static struct page_set *pages_of(struct san *s, const struct san_map *r, const struct layer *from,
				 uint32_t end, uint32_t *ret_layers_n)
{
	uint32_t first = r->first >> SCHEMA_MAP_SHIFT;
	uint32_t pages_n = r->first < end ? ((end - 1) >> SCHEMA_MAP_SHIFT) - first + 1 : 0;
	uint32_t layers_n = 0;
	struct page_set *set;

	for (const struct layer *l = from; l; l = l->parent)
		layers_n++;
	set = page_set_new(s, pages_n * layers_n);
	if (!set)
		return NULL;
	for (uint32_t i = 0; i < pages_n; i++)
		for (const struct layer *l = from; l; l = l->parent)
			page_set_add(set, l->id, first + i);
	*ret_layers_n = layers_n;
	return set;
}

void san_map(struct san *s, struct san_map *r)
{
	struct volume *vol = volume_by_id(s, r->volume);
	const struct layer *from = vol ? chain_find(vol, r->layer) : NULL;
	struct lookup *look;
	uint64_t end;

	r->priv = NULL;
	r->items_n = 0;
	san_op_begin(s, &r->req, map_exec, map_cleanup);
	s->stats.map_requests++;
	if (r->n > SAN_CHUNKS_MAX) {
		san_op_refuse(&r->req, -EINVAL);
		return;
	}
	if (!from) { /* it is for exec to say so, in its turn */
		san_op_read(&r->req);
		return;
	}
	end = MIN((uint64_t)r->first + r->n, (uint64_t)volume_chunks(vol));
	look = r->priv = priv_alloc(s, sizeof(*look));
	if (look)
		look->set = pages_of(s, r, from, (uint32_t)end, &look->layers_n);
	if (!look || !look->set)
		san_op_refuse(&r->req, -ENOMEM);
	else
		page_set_load(look->set, map_loaded, &r->req);
}

static void map_loaded(struct page_set *set)
{
	struct san_req *r = set->arg;

	if (set->status)
		san_op_refuse(r, set->status);
	else
		san_op_read(r);
}

static enum exec map_exec(struct san *s, struct san_req *req)
{
	struct san_map *r = container_of(req, struct san_map, req);
	struct lookup *look = r->priv;
	struct volume *vol = volume_by_id(s, r->volume);

	san_op_of(req)->wait = true;
	if (!vol || vol->v.state != SAN_VOLUME_READY)
		return san_op_fail(req, -ENOENT, "there is no volume %u", r->volume);
	if (r->epoch && !volume_owned(s, req, r->volume, r->epoch))
		return EXEC_DONE;
	if (!look)
		return san_op_fail(req, -EINVAL, "volume %s has no layer %u", vol->v.name, r->layer);
	/* only what is being committed makes it wait */
	san_op_of(req)->wait = txn_has(s, &vol->obj);
	for (uint32_t i = 0; i < look->set->n; i++)
		san_op_of(req)->wait |= txn_has(s, &look->set->refs[i].page->obj);
	map_collect(r);
	return EXEC_DONE;
}

static bool hides_ancestors(const struct map_entry *e)
{
	return e->kind == MAP_ZERO || e->kind == MAP_LOST || (e->flags & (MAP_FULL | MAP_OPAQUE));
}

static void map_collect(struct san_map *r)
{
	struct lookup *look = r->priv;
	const struct page_set *set = look->set;
	for (uint32_t at = 0; at < set->n; at += look->layers_n) {
		uint32_t base = set->refs[at].no << SCHEMA_MAP_SHIFT;

		for (uint32_t i = 0; i < SCHEMA_MAP_CHUNKS; i++) {
			if (base + i < r->first || base + i - r->first >= r->n)
				continue;
			for (uint32_t j = 0; j < look->layers_n; j++) {
				const struct page_ref *ref = &set->refs[at + j];
				struct san_map_item *item = &r->items[r->items_n];

				if (map_body_kind(&ref->page->body, i) == MAP_UNMAPPED)
					continue;
				if (r->items_n == r->items_max) {
					san_op_fail(&r->req, -E2BIG, "%u items are not enough",
						    r->items_max);
					return;
				}
				r->items_n++;
				item->chunk = base + i;
				item->layer = ref->layer;
				map_body_get(&ref->page->body, i, &item->entry);
				if (hides_ancestors(&item->entry))
					break;
			}
		}
	}
}

/* ---- everything ------------------------------------------------------------------------------------------------------------- */

static enum exec walk_exec(struct san *s, struct san_req *req)
{
	(void)s;
	(void)req;
	return EXEC_DONE;
}

static void walk_cleanup(struct san_req *req)
{
	priv_free(container_of(req, struct san_map_walk, req)->priv);
}

static int walk_page(struct san_map_walk *r, const struct metastore_item *page)
{
	struct map_body body = {NULL, NULL, 0};
	layer_id layer;
	uint32_t no;
	int ret;

	if (!schema_key_get_map(page->key, &layer, &no) || no > SCHEMA_MAP_PAGE_LAST)
		return -E_FORMAT;
	ret = schema_map_decode(page->key, page->value, &body);
	if (ret)
		return ret;
	for (uint32_t i = 0; i < SCHEMA_MAP_CHUNKS; i++) {
		struct san_map_item *item = &r->items[r->items_n];
		uint32_t chunk = (no << SCHEMA_MAP_SHIFT) + i;

		if (map_body_kind(&body, i) == MAP_UNMAPPED ||
		    (layer == r->layer && chunk < r->chunk))
			continue;
		r->items_n++;
		item->chunk = chunk;
		item->layer = layer;
		map_body_get(&body, i, &item->entry);
	}
	map_body_free(&body);
	r->next_layer = layer;
	r->next_chunk = (no + 1) << SCHEMA_MAP_SHIFT;
	return 0;
}

static void walk_scanned(struct scan *sc)
{
	struct san_map_walk *r = sc->arg;
	uint32_t i;
	int ret = sc->m.status;

	/* a page goes in whole or is left for the next request */
	for (i = 0; i < sc->m.items_n && ret == 0; i++) {
		if (r->items_max - r->items_n < SCHEMA_MAP_CHUNKS)
			break;
		ret = walk_page(r, &sc->items[i]);
	}
	if (ret == 0 && i == sc->m.items_n && !sc->m.more)
		r->next_layer = 0;
	if (ret)
		san_op_refuse(&r->req, ret);
	else
		san_op_read(&r->req);
}

void san_map_walk(struct san *s, struct san_map_walk *r)
{
	uint32_t pages = MIN(r->items_max / SCHEMA_MAP_CHUNKS, 16u);
	struct schema_key prefix = schema_key_table(SCHEMA_MAP);
	uint32_t page = r->chunk >> SCHEMA_MAP_SHIFT;
	/* the key right before the page's */
	struct schema_key after = page > 0 ? schema_key_map(r->layer, page - 1)
					   : schema_key_map(r->layer - 1, UINT32_MAX);
	struct scan *sc;

	r->priv = NULL;
	r->items_n = 0;
	r->next_layer = r->next_chunk = 0;
	san_op_begin(s, &r->req, walk_exec, walk_cleanup);
	if (pages == 0) {
		san_op_refuse(&r->req, -EINVAL);
		return;
	}
	sc = r->priv = scan_new(s, pages, (size_t)pages * (SCHEMA_PAGE_MAX + SCHEMA_KEY_MAX));
	if (!sc) {
		san_op_refuse(&r->req, -ENOMEM);
		return;
	}
	scan_start(sc, &prefix, page > 0 || r->layer > 0 ? &after : NULL, walk_scanned, r);
}
