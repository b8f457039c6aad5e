/* SPDX-License-Identifier: Apache-2.0 */
/* map.c - what allocation, update and the long jobs share: finding pages, setting entries, giving slots up. */
#include <inttypes.h>

#include "metadata/san/state.h"
#include "src/base/check.h"
#include "src/base/log.h"

struct page_set *page_set_of_chunks(struct san *s, layer_id layer, const uint32_t *sorted,
				    uint32_t n)
{
	struct page_set *set;
	uint32_t pages_n = 0, last = UINT32_MAX;

	for (uint32_t i = 0; i < n; i++) {
		pages_n += sorted[i] >> SCHEMA_MAP_SHIFT != last;
		last = sorted[i] >> SCHEMA_MAP_SHIFT;
	}
	set = page_set_new(s, pages_n);
	if (!set)
		return NULL;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t no = sorted[i] >> SCHEMA_MAP_SHIFT;

		if (set->n == 0 || set->refs[set->n - 1].no != no)
			page_set_add(set, layer, no);
	}
	return set;
}

struct map_page *page_set_find(const struct page_set *set, uint32_t chunk)
{
	uint32_t no = chunk >> SCHEMA_MAP_SHIFT;
	uint32_t lo = 0, hi = set->n - 1;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (set->refs[mid].no < no)
			lo = mid + 1;
		else
			hi = mid;
	}
	check(set->refs[lo].no == no);
	return set->refs[lo].page;
}

void map_set(struct san *s, struct layer *l, struct map_page *p, uint32_t i,
	     const struct map_entry *e)
{
	uint32_t entries_n = p->body.entries_n;
	struct map_entry old;

	map_body_get(&p->body, i, &old);
	page_mark(s, p);
	map_body_set(&p->body, i, e);
	l->n.entries_n += (uint64_t)p->body.entries_n - entries_n;
	l->n.chunks_n += (uint64_t)(e->replicas_n > 0) - (old.replicas_n > 0);
	layer_counted(s, l);
}

bool map_unmap_fits(const struct san *s, const struct map_page *p, const struct layer *l,
		    const struct map_entry *e)
{
	uint32_t pages = txn_page_cost(s, &p->obj);
	uint32_t smalls = e->replicas_n + (txn_has(s, &l->obj) ? 0 : LAYER_SMALLS);

	for (uint32_t i = 0; i < e->replicas_n; i++) {
		struct device *d = san_device_of(s, e->replicas[i].dev);

		if (d && e->replicas[i].slot < d->slots_n)
			pages += txn_page_cost(s, &space_page_of(d, e->replicas[i].slot)->obj);
	}
	return txn_fits(s, pages, smalls);
}

void map_unmap_slots(struct san *s, const struct map_entry *e)
{
	for (uint32_t i = 0; i < e->replicas_n; i++) {
		const struct replica *r = &e->replicas[i];
		struct device *d = san_device_of(s, r->dev);

		if (!d || r->slot >= d->slots_n || !bit_get(d->used, r->slot)) {
			/* a damaged database; the check finds it too */
			log_error("an entry of the map names a slot that is not in use",
				  "dev=%u slot=%u cgen=%" PRIu64, r->dev, r->slot, r->cgen);
		} else if (d->lose_job) {
			space_abandon(s, d, r->slot);
		} else {
			space_unmap(s, d, r->slot);
			frees_intent_put(s, d, r->slot, r->cgen);
		}
		s->stats.unmap_chunks++;
	}
}
