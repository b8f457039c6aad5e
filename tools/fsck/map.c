/* SPDX-License-Identifier: Apache-2.0 */
/* map.c - what the metadata server believes to be on the device, against what is. */
#include <inttypes.h>

#include "src/base/mem.h"
#include "tools/fsck/check.h"

static void compare(struct fsck *k, struct device *dev, const struct fsck_mapping *m)
{
	struct device_slot d;

	if (device_slot_get(dev, m->slot, &d))
		return;
	if (d.state == DEVICE_SLOT_OPEN && d.cgen == m->cgen) {
		if (d.volume != m->volume || d.layer != m->layer || d.chunk != m->chunk)
			fsck_say_slot(k, FSCK_WARNING, "map-mismatch", m->slot,
				      "slot %u is labelled volume %u layer %u chunk %u, the map "
				      "says volume %u layer %u "
				      "chunk %u",
				      m->slot, d.volume, d.layer, d.chunk, m->volume, m->layer,
				      m->chunk);
		return;
	}
	if (d.state == DEVICE_SLOT_FREE && d.cgen < m->cgen) {
		if (m->full)
			fsck_say_slot(
			    k, FSCK_ERROR, "map-empty", m->slot,
			    "the map says that layer %u chunk %u is full in slot %u, which is free",
			    m->layer, m->chunk, m->slot);
		return; /* allocated, and not written yet: all holes */
	}
	fsck_say_slot(k, FSCK_ERROR, "map-stale", m->slot,
		      "the map says that layer %u chunk %u is in slot %u as cgen %" PRIu64
		      "; the slot %s cgen %" PRIu64,
		      m->layer, m->chunk, m->slot, m->cgen,
		      d.state == DEVICE_SLOT_OPEN ? "holds" : "is free and remembers", d.cgen);
}

static void take(struct fsck *k, struct device *dev, const struct fsck_mapping *m, uint64_t *cgens)
{
	if (m->slot >= k->geo.total.slots) {
		fsck_say(k, FSCK_ERROR, "map-no-slot",
			 "the map puts layer %u chunk %u into slot %u; there are %u", m->layer,
			 m->chunk, m->slot, k->geo.total.slots);
		return;
	}
	if (cgens[m->slot]) {
		fsck_say_slot(k, FSCK_ERROR, "map-twice", m->slot,
			      "the map refers to slot %u twice, as cgen %" PRIu64
			      " and, for layer %u chunk %u, as cgen %" PRIu64,
			      m->slot, cgens[m->slot], m->layer, m->chunk, m->cgen);
		return;
	}
	cgens[m->slot] = m->cgen;
	compare(k, dev, m);
}

/* A slot that the map does not name (cgen 0), or that it names and that is to be freed (due_cgen). */
static void leftover(struct fsck *k, struct device *dev, uint32_t slot, uint64_t cgen,
		     uint64_t due_cgen)
{
	struct device_slot d;

	if (cgen && due_cgen)
		fsck_say_slot(k, FSCK_ERROR, "map-freeing", slot,
			      "the map refers to slot %u, cgen %" PRIu64
			      ", which is to be freed up to cgen %" PRIu64,
			      slot, cgen, due_cgen);
	if (cgen || device_slot_get(dev, slot, &d) || d.state != DEVICE_SLOT_OPEN)
		return;
	if (d.cgen <= due_cgen) {
		k->res->slots_freeing_n++;
		return;
	}
	fsck_say_slot(k, FSCK_WARNING, "orphan", slot,
		      "slot %u holds layer %u chunk %u (cgen %" PRIu64
		      "), to which nothing in the map refers%s",
		      slot, d.layer, d.chunk, d.cgen,
		      due_cgen ? "; the free that is due is for an older one" : "");
}

static int freeing_next(struct fsck *k, struct fsck_freeing *f, bool *ret_any)
{
	int r = k->o->freeing_next ? k->o->freeing_next(k->o->freeing_arg, f) : -ENOENT;

	*ret_any = r == 0;
	return r == -ENOENT ? 0 : r;
}

/* Slots and the frees that are due come in the same order. */
static int leftovers(struct fsck *k, struct device *dev, const uint64_t *cgens)
{
	struct fsck_freeing f = {0};
	bool any = false;
	int r = freeing_next(k, &f, &any);

	for (uint32_t s = 0; s < k->geo.total.slots && !r; s++) {
		bool due = any && f.slot == s;

		leftover(k, dev, s, cgens[s], due ? f.cgen : 0);
		if (due)
			r = freeing_next(k, &f, &any);
	}
	for (; any && !r; r = freeing_next(k, &f, &any))
		fsck_say(k, FSCK_ERROR, "freeing-no-slot",
			 "slot %u is to be freed up to cgen %" PRIu64 "; there are %u", f.slot,
			 f.cgen, k->geo.total.slots);
	return r;
}

int fsck_map(struct fsck *k, struct device *dev)
{
	uint64_t *cgens = mem_zalloc_array(k->geo.total.slots, sizeof(*cgens));
	struct fsck_mapping m;
	int r = cgens ? 0 : fsck_error(k, -ENOMEM, "no memory");

	while (!r && (r = k->o->map_next(k->o->map_arg, &m)) == 0)
		take(k, dev, &m, cgens);
	if (r == -ENOENT)
		r = leftovers(k, dev, cgens);
	if (r && k->errmsg[0] == '\0')
		fsck_error(k, r, "the map cannot be read: %s", err_text(r));
	mem_free(cgens);
	return r;
}
