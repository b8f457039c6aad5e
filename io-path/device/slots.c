/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/device/slots.h"

#include "io-path/device/dev.h"
#include "src/base/math.h"
#include "src/base/mem.h"

enum { SLAB_RUNS = 64 };

struct slab {
	struct list link;
	struct slot_run runs[SLAB_RUNS];
};

/* ---- life ------------------------------------------------------------------------------------------------------------- */

int slots_init(struct device *dev)
{
	struct slots *s = &dev->slots;

	list_init(&s->active);
	list_init(&s->runs_free);
	list_init(&s->slabs);
	s->active_max = (uint32_t)(SLOTS_ACTIVE_BYTES_MAX >> dev->geo.chunk_shift);
	/* never touched where the device was never used: costs no memory there */
	s->slots = mem_zalloc_array(dev->geo.total.slots, sizeof(*s->slots));
	s->pages = mem_zalloc_array(dev->geo.total.slot_pages, sizeof(*s->pages));
	if (!s->slots || !s->pages)
		return -ENOMEM;
	for (uint32_t i = 0; i < dev->geo.total.slot_pages; i++)
		pin_init(&s->pages[i].pin, PIN_SLOTS);
	return 0;
}

void slots_free(struct device *dev)
{
	struct slots *s = &dev->slots;
	struct list *l;

	if (!s->slabs.next)
		return;
	while ((l = list_pop(&s->slabs))) {
		struct slab *slab = list_entry(l, struct slab, link);

		for (int i = 0; i < SLAB_RUNS; i++)
			mem_free(slab->runs[i].doubt);
		mem_free(slab);
	}
	mem_free(s->slots);
	mem_free(s->pages);
}

/* ---- runs ------------------------------------------------------------------------------------------------------------- */

static bool slab_add(struct slots *s)
{
	struct slab *slab = mem_alloc_aligned(_Alignof(struct slab), sizeof(*slab));

	if (!slab)
		return false;
	memset(slab, 0, sizeof(*slab));
	list_init(&slab->link);
	list_push(&s->slabs, &slab->link);
	for (int i = 0; i < SLAB_RUNS; i++) {
		list_init(&slab->runs[i].link);
		list_push(&s->runs_free, &slab->runs[i].link);
	}
	return true;
}

struct slot_run *slot_run_get(struct device *dev, uint32_t slot)
{
	struct slots *s = &dev->slots;
	struct slot_run *run = s->slots[slot].run;

	if (run)
		return run;
	if (list_empty(&s->runs_free) && !slab_add(s))
		return NULL;
	run = list_entry(list_pop(&s->runs_free), struct slot_run, link);
	s->runs_n++;
	*run = (struct slot_run){.dev = dev, .slot = slot};
	list_init(&run->link);
	list_init(&run->ops);
	waiter_init(&run->punch_wait);
	s->slots[slot].run = run;
	return run;
}

void slot_run_put(struct device *dev, struct slot_run *run)
{
	struct slot *s = &dev->slots.slots[run->slot];

	check(s->run == run);
	if (slot_is_busy(run) || s->active)
		return;
	check(!run->doubt);
	s->run = NULL;
	dev->slots.runs_n--;
	list_push_front(&dev->slots.runs_free, &run->link);
}

void slots_trim(struct device *dev)
{
	struct slots *s = &dev->slots;
	struct list *l;

	if (s->runs_n > 0)
		return;
	list_init(&s->runs_free);
	while ((l = list_pop(&s->slabs)))
		mem_free(list_entry(l, struct slab, link));
}

/* ---- admission -------------------------------------------------------------------------------------------------------- */

enum slot_verdict slot_admit(const struct slot *s, const struct slot_claim *c)
{
	if (!s->open)
		return c->cgen > s->cgen ? SLOT_FRESH : SLOT_STALE;
	return c->cgen == s->cgen && c->volume == s->volume && c->layer == s->layer &&
		       c->chunk == s->chunk
		   ? SLOT_OPEN
		   : SLOT_STALE;
}

bool slots_may_activate(const struct device *dev)
{
	return dev->slots.active_n < dev->slots.active_max;
}

/* ---- what happens to a slot ------------------------------------------------------------------------------------------- */

void slot_page_touch(struct device *dev, uint32_t slot_page, uint64_t lsn)
{
	struct slot_page *p = &dev->slots.pages[slot_page];

	if (p->pin.lsn == 0)
		dev->slots.pinned_n++;
	pin_need(&dev->journal.pins, &p->pin, lsn);
	p->last_lsn = MAX(p->last_lsn, lsn);
}

void slot_page_pin_move(struct device *dev, uint32_t slot_page, uint64_t lsn)
{
	struct pin *pin = &dev->slots.pages[slot_page].pin;

	if (pin->lsn && lsn == 0)
		dev->slots.pinned_n--;
	pin_move(&dev->journal.pins, pin, lsn);
}

static void slot_touch(struct device *dev, uint32_t slot, uint64_t lsn)
{
	slot_page_touch(dev, geometry_slot_page_of(&dev->geo, slot), lsn);
}

static void active_set(struct device *dev, uint32_t slot, uint64_t lsn)
{
	struct slots *s = &dev->slots;
	struct slot_run *run = s->slots[slot].run;

	check(run && !s->slots[slot].active);
	s->slots[slot].active = 1;
	s->active_n++;
	list_push(&s->active, &run->link);
	run->active_lsn = lsn;
	run->last_lsn = lsn;
	run->last_ns = run->linked_ns = ioe_now_ns(dev->ioe);
	if (s->active_n > s->active_max / 8 * 7)
		maint_kick(dev);
}

static void active_unset(struct device *dev, uint32_t slot)
{
	struct slots *s = &dev->slots;
	struct slot_run *run = s->slots[slot].run;

	if (!s->slots[slot].active)
		return;
	check(s->active_n > 0);
	s->slots[slot].active = 0;
	s->active_n--;
	list_del(&run->link);
	if (run->doubt)
		slot_doubt_clear(dev, run, 0, dev->geo.blocks_per_chunk);
	maint_freed(dev);
}

static void cgen_seen(struct device *dev, uint64_t cgen)
{
	dev->cgen_highest = MAX(dev->cgen_highest, cgen);
}

void slot_alloc(struct device *dev, struct table_page *p, uint32_t slot, const struct slot_claim *c,
		uint64_t epoch)
{
	struct slot *s = &dev->slots.slots[slot];
	struct fmt_rec_alloc rec = {
	    .h = {.type = FMT_REC_ALLOC, .len_bytes = to_le16(sizeof(rec))},
	    .slot = to_le32(slot),
	    .cgen = to_le64(c->cgen),
	    .epoch = to_le64(epoch),
	    .wgen = to_le64(s->wgen + 1),
	    .table_seq_min = to_le64(dev->tables.tables[p->page_no].seq + 1),
	    .volume = to_le32(c->volume),
	    .layer = to_le32(c->layer),
	    .chunk = to_le32(c->chunk),
	};
	uint64_t lsn = journal_add(dev, &rec, sizeof(rec));

	check(slot_admit(s, c) == SLOT_FRESH && !s->active && !table_is_being_copied(p));
	ring_record(dev, &rec, sizeof(rec), lsn);
	s->cgen = c->cgen;
	s->epoch = epoch;
	s->wgen++;
	s->volume = c->volume;
	s->layer = c->layer;
	s->chunk = c->chunk;
	s->open = 1;
	s->fresh = 1;
	dev->slots.open_n++;
	cgen_seen(dev, c->cgen);
	active_set(dev, slot, lsn);
	table_clear_slot(dev, p, slot);
	slot_touch(dev, slot, lsn);
}

void slot_activate(struct device *dev, uint32_t slot)
{
	struct slot *s = &dev->slots.slots[slot];
	struct fmt_rec_activate rec = {
	    .h = {.type = FMT_REC_ACTIVATE, .len_bytes = to_le16(sizeof(rec))},
	    .slot = to_le32(slot),
	    .cgen = to_le64(s->cgen),
	    .wgen = to_le64(s->wgen + 1),
	};
	uint64_t lsn = journal_add(dev, &rec, sizeof(rec));

	check(s->open && !s->active);
	s->wgen++;
	active_set(dev, slot, lsn);
	slot_touch(dev, slot, lsn);
}

void slot_retire(struct device *dev, uint32_t slot)
{
	struct slot *s = &dev->slots.slots[slot];
	struct fmt_rec_retire rec = {
	    .h = {.type = FMT_REC_RETIRE, .len_bytes = to_le16(sizeof(rec))},
	    .slot = to_le32(slot),
	    .cgen = to_le64(s->cgen),
	};

	check(s->open && s->active && !s->run->doubt);
	slot_touch(dev, slot, journal_add(dev, &rec, sizeof(rec)));
	active_unset(dev, slot);
}

uint64_t slot_free(struct device *dev, uint32_t slot, uint64_t cgen)
{
	struct slot *s = &dev->slots.slots[slot];
	struct table_page *p = dev->tables.tables[geometry_table_page_of(&dev->geo, slot)].page;
	struct fmt_rec_free rec = {
	    .h = {.type = FMT_REC_FREE, .len_bytes = to_le16(sizeof(rec))},
	    .slot = to_le32(slot),
	    .cgen = to_le64(cgen),
	};
	uint64_t lsn = journal_add(dev, &rec, sizeof(rec));

	check(cgen >= s->cgen);
	active_unset(dev, slot);
	dev->bad_blocks -= s->bad_n;
	s->present_n = 0;
	s->bad_n = 0;
	if (s->open) {
		check(dev->slots.open_n > 0);
		dev->slots.open_n--;
	}
	s->open = 0;
	s->cgen = cgen;
	s->fresh = 0;
	s->uncounted = 0;
	s->volume = s->layer = s->chunk = 0;
	s->epoch = 0;
	cgen_seen(dev, cgen);
	if (p)
		table_clear_slot(dev, p, slot);
	slot_touch(dev, slot, lsn);
	return lsn;
}

void slot_written(struct device *dev, struct slot_run *run, uint64_t lsn)
{
	run->last_lsn = MAX(run->last_lsn, lsn);
	run->last_ns = ioe_now_ns(dev->ioe);
	/* not at each write: the neighbours in the list are two cache lines of others */
	if (run->last_ns - run->linked_ns >= SLOTS_ORDER_NS && dev->slots.slots[run->slot].active) {
		run->linked_ns = run->last_ns;
		list_del(&run->link);
		list_push(&dev->slots.active, &run->link);
	}
}

int slot_set_active(struct device *dev, uint32_t slot)
{
	if (!slot_run_get(dev, slot))
		return -ENOMEM;
	active_set(dev, slot, 0);
	return 0;
}

/* ---- doubt ------------------------------------------------------------------------------------------------------------ */

int slot_doubt_begin(struct device *dev, struct slot_run *run)
{
	uint32_t n = dev->geo.blocks_per_chunk;

	check(!run->doubt && dev->slots.slots[run->slot].active);
	run->doubt = mem_alloc(n / 8);
	if (!run->doubt)
		return -ENOMEM;
	memset(run->doubt, 0xff, n / 8);
	run->doubt_n = n;
	dev->slots.doubtful_n++;
	return 0;
}

int slot_doubt_add(struct device *dev, struct slot_run *run, uint32_t block)
{
	if (slot_doubts(run, block))
		return 0;
	if (!run->doubt) {
		int r = slot_doubt_begin(dev, run);

		if (r)
			return r;
		memset(run->doubt, 0, dev->geo.blocks_per_chunk / 8);
		run->doubt_n = 0;
	}
	run->doubt[block / 64] |= 1ULL << (block % 64);
	run->doubt_n++;
	return 0;
}

void slot_doubt_clear(struct device *dev, struct slot_run *run, uint32_t block, uint32_t n)
{
	if (!run->doubt)
		return;
	for (uint32_t b = block; b < block + n; b++)
		if (slot_doubts(run, b)) {
			run->doubt[b / 64] &= ~(1ULL << (b % 64));
			run->doubt_n--;
		}
	if (run->doubt_n > 0)
		return;
	mem_free(run->doubt);
	run->doubt = NULL;
	dev->slots.doubtful_n--;
	if (dev->slots.doubtful_n == 0)
		ring_doubt(dev, false);
}
