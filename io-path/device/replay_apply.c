/* SPDX-License-Identifier: Apache-2.0 */
/* replay_apply.c - the records of the chain, in order, on top of what the homes say.
 *
 *   pass 1*: records of slots, table homes and registry -> decide the mode -> [suspects' tables*] -> pass 2*: values of blocks
 *      -> tables* -> [restart ring] -> done
 *
 * Homes may be younger than the older records, so these are applied again to what already contains them; each therefore asks whether it
 * is news: cgen, wgen and sequence numbers only grow, and values are set by all records since the table's home, the last one winning.
 *
 * After a power loss, values of records above stable_lsn are not set: they are candidates, for replay_resolve.c. */
#include <inttypes.h>
#include <stdlib.h>

#include "io-path/device/dev.h"
#include "io-path/device/replay.h"
#include "src/base/math.h"
#include "src/base/mem.h"

static void pass_begin(struct replay *rp, int pass);
static void pass_read(struct replay *rp);
static void pass_read_done(struct replay *rp);
static int apply_entry(struct replay *rp, const struct fmt_record *rec, uint64_t lsn);
static int apply_blocks(struct replay *rp, const struct fmt_record *rec, uint64_t lsn);
static void mode_decide(struct replay *rp);
static int slots_activate(struct replay *rp);
static int ring_check(struct replay *rp);
static int suspects_find(struct replay *rp);
static void suspects_load(struct replay *rp);
static void suspects_loaded(struct replay *rp);
static void loads_wait(struct replay *rp, void (*loaded)(struct replay *rp));
static void loads_look(struct waiter *w, int status);
static void values_loaded(struct replay *rp);
static int ring_apply(struct replay *rp);
static void apply_end(struct replay *rp);

void replay_apply(struct replay *rp, void (*done)(struct replay *rp, int status))
{
	struct device *dev = rp->dev;

	rp->done = done;
	rp->table_from_lsn =
	    mem_zalloc_array(dev->geo.total.table_pages, sizeof(*rp->table_from_lsn));
	if (!rp->table_from_lsn) {
		done(rp, -ENOMEM);
		return;
	}
	pins_init(&dev->journal.pins, dev->geo.ring_blocks, rp->tail);
	pass_begin(rp, 1);
}

/* ---- reading the chain ------------------------------------------------------------------------------------------------ */

static void pass_begin(struct replay *rp, int pass)
{
	rp->pass = pass;
	rp->lsn = rp->tail;
	pass_read(rp);
}

static uint32_t blocks_of_read(const struct replay *rp)
{
	uint32_t ring_blocks = rp->dev->geo.ring_blocks;
	uint64_t n = MIN(rp->next_lsn - rp->lsn, (uint64_t)REPLAY_BUF_PAGES);

	return (uint32_t)MIN(n, ring_blocks - rp->lsn % ring_blocks);
}

static void pass_read(struct replay *rp)
{
	struct replay_span span = {
	    .offset = geometry_journal_offset(&rp->dev->geo, rp->lsn),
	    .buf = rp->buf,
	    .pages_n = blocks_of_read(rp),
	};

	replay_read(rp, &span, pass_read_done);
}

static int block_apply(struct replay *rp, const struct fmt_journal_block *b)
{
	struct device *dev = rp->dev;
	struct cursor c;
	const struct fmt_record *rec;
	int r = 0;

	if (fmt_journal_block_check(b, &dev->uuid, (uint32_t)(rp->lsn % dev->geo.ring_blocks),
				    dev->geo.ring_blocks) ||
	    get_le32(b->crc) != scan_at(rp, dev->geo.ring_blocks, rp->lsn)->crc)
		return replay_fail(rp, -E_FORMAT, "journal block %" PRIu64 " cannot be read again",
				   rp->lsn);
	c = fmt_journal_records(b);
	while (!r && (rec = fmt_record_next(&c))) {
		if (rp->pass == 2)
			r = rec->type == FMT_REC_BLOCKS ? apply_blocks(rp, rec, rp->lsn) : 0;
		else if (rec->type != FMT_REC_BLOCKS)
			r = apply_entry(rp, rec, rp->lsn);
	}
	return r;
}

static void pass_read_done(struct replay *rp)
{
	uint32_t n = blocks_of_read(rp);
	int r = 0;

	for (uint32_t i = 0; i < n && !r; i++, rp->lsn++)
		r = block_apply(rp, (const void *)(rp->buf + (size_t)i * FMT_PAGE));
	if (r)
		rp->done(rp,
			 replay_fail(rp, r, "replay of journal block %" PRIu64 " failed", rp->lsn));
	else if (rp->lsn < rp->next_lsn)
		pass_read(rp);
	else if (rp->pass == 1)
		mode_decide(rp);
	else
		loads_wait(rp, values_loaded);
}

/* ---- pass 1 ----------------------------------------------------------------------------------------------------------- */

static struct slot *slot_of(struct replay *rp, struct le32 slot_le, uint64_t lsn)
{
	struct device *dev = rp->dev;
	uint32_t slot = get_le32(slot_le);

	if (slot >= dev->geo.total.slots)
		return NULL;
	if (lsn)
		slot_page_touch(dev, geometry_slot_page_of(&dev->geo, slot), lsn);
	return &dev->slots.slots[slot];
}

static int apply_alloc(struct replay *rp, const struct fmt_rec_alloc *rec, uint64_t lsn)
{
	struct device *dev = rp->dev;
	struct slot *s = slot_of(rp, rec->slot, lsn);
	uint64_t cgen = get_le64(rec->cgen), seq_min = get_le64(rec->table_seq_min), seq;

	if (!s)
		return -E_FORMAT;
	if (s->lost || cgen <= s->cgen)
		return 0;
	if (s->open)
		return replay_fail(rp, -E_FORMAT, "slot %u is opened twice", get_le32(rec->slot));
	seq = dev->tables.tables[geometry_table_page_of(&dev->geo, get_le32(rec->slot))].seq;
	s->open = 1;
	s->active = 1;
	s->cgen = cgen;
	s->epoch = get_le64(rec->epoch);
	slot_wgen_set(s, get_le64(rec->wgen));
	s->volume = get_le32(rec->volume);
	s->layer = get_le32(rec->layer);
	s->chunk = get_le32(rec->chunk);
	s->fresh = seq_min > seq;
	s->present_n = s->bad_n = 0;
	dev->slots.open_n++;
	dev->cgen_highest = MAX(dev->cgen_highest, cgen);
	return 0;
}

static int apply_free(struct replay *rp, const struct fmt_rec_free *rec, uint64_t lsn)
{
	struct device *dev = rp->dev;
	struct slot *s = slot_of(rp, rec->slot, lsn);
	uint64_t cgen = get_le64(rec->cgen);

	if (!s)
		return -E_FORMAT;
	if (s->lost || cgen < s->cgen)
		return 0;
	dev->slots.open_n -= s->open;
	dev->bad_blocks -= s->bad_n;
	*s = (struct slot){.cgen = cgen, .run = s->run};
	dev->cgen_highest = MAX(dev->cgen_highest, cgen);
	return 0;
}

static int apply_activity(struct replay *rp, const struct fmt_record *rec, uint64_t lsn)
{
	const struct fmt_rec_activate *a = (const void *)rec; /* RETIRE begins the same way */
	struct slot *s = slot_of(rp, a->slot, lsn);

	if (!s)
		return -E_FORMAT;
	if (!s->open || s->cgen != get_le64(a->cgen))
		return 0;
	s->active = rec->type == FMT_REC_ACTIVATE;
	if (rec->type == FMT_REC_ACTIVATE)
		slot_wgen_set(s, MAX((uint64_t)s->wgen, get_le64(a->wgen)));
	return 0;
}

static int apply_relabel(struct replay *rp, const struct fmt_rec_relabel *rec, uint64_t lsn)
{
	struct slot *s = slot_of(rp, rec->slot, lsn);

	if (!s)
		return -E_FORMAT;
	if (!s->open || s->cgen != get_le64(rec->cgen))
		return 0;
	s->volume = get_le32(rec->volume);
	s->layer = get_le32(rec->layer);
	s->chunk = get_le32(rec->chunk);
	return 0;
}

static int apply_ckpt(struct replay *rp, const struct fmt_rec_ckpt *rec, uint64_t lsn)
{
	struct device *dev = rp->dev;
	uint32_t page = get_le32(rec->page_no);
	uint64_t seq = get_le64(rec->seq), from_lsn = get_le64(rec->from_lsn);
	struct geo_range slots;
	struct table *t;

	if (page >= dev->geo.total.table_pages || from_lsn > lsn)
		return -E_FORMAT;
	slot_page_touch(dev, geometry_slot_page_of_table(&dev->geo, page), lsn);
	rp->table_from_lsn[page] = MAX(rp->table_from_lsn[page], from_lsn);
	t = &dev->tables.tables[page];
	if (seq <= t->seq)
		return 0;
	slots = geometry_table_page_slots(&dev->geo, page);
	for (uint32_t i = slots.first; i < slots.first + slots.n; i++) {
		struct slot *s = &dev->slots.slots[i];

		s->fresh = 0;
		s->uncounted = s->open;
	}
	t->seq = seq;
	t->crc = get_le32(rec->crc);
	t->home = rec->home;
	return 0;
}

static int apply_entry(struct replay *rp, const struct fmt_record *rec, uint64_t lsn)
{
	switch ((enum fmt_record_type)rec->type) {
	case FMT_REC_ALLOC:
		return apply_alloc(rp, (const void *)rec, lsn);
	case FMT_REC_FREE:
		return apply_free(rp, (const void *)rec, lsn);
	case FMT_REC_ACTIVATE:
	case FMT_REC_RETIRE:
		return apply_activity(rp, rec, lsn);
	case FMT_REC_RELABEL:
		return apply_relabel(rp, (const void *)rec, lsn);
	case FMT_REC_CKPT:
		return apply_ckpt(rp, (const void *)rec, lsn);
	case FMT_REC_EPOCH:
	case FMT_REC_LAYER:
	case FMT_REC_LAYER_DROP:
		registry_touch(rp->dev, lsn);
		return registry_apply(rp->dev, rec);
	case FMT_REC_BLOCKS:
	case FMT_REC_BOOT:
	case FMT_REC_CLEAN:
		return 0;
	}
	return -E_FORMAT;
}

/* ---- what happened? --------------------------------------------------------------------------------------------------- */

static void mode_decide(struct replay *rp)
{
	struct device *dev = rp->dev;
	struct ring_identity id = {
	    .device = dev->uuid,
	    .boot_id = ioe_boot_id(dev->ioe),
	    .nonce = rp->ring_nonce,
	    .incarnation = rp->incarnation,
	};
	int r = 0;

	if (rp->is_clean) {
		rp->mode = REPLAY_CLEAN;
	} else {
		r = ring_old_open(dev, &id, &rp->ring);
		rp->has_ring = r == 0;
		if (rp->has_ring && rp->ring.written_lsn >= rp->next_lsn) {
			rp->done(rp, replay_fail(rp, -E_FORMAT,
						 "journal block %" PRIu64
						 " is damaged: the restart ring says that it was "
						 "written",
						 rp->next_lsn));
			return;
		}
		r = rp->has_ring ? ring_check(rp) : r;
		if (rp->has_ring && !r)
			r = suspects_find(rp);
		if (r == -E_FORMAT) {
			device_event(dev, "ring_damaged",
				     "the restart ring is damaged: treated as a power loss");
			ring_old_close(dev, &rp->ring);
			rp->has_ring = false;
			rp->suspects_n = 0;
		}
		if (r == -E_FORMAT || r == -ENOENT)
			r = 0;
		rp->mode = rp->has_ring ? REPLAY_RING : REPLAY_POWER_LOSS;
	}
	rp->trusted_lsn = rp->mode == REPLAY_POWER_LOSS ? rp->stable_lsn : UINT64_MAX;
	if (!r)
		r = slots_activate(rp);
	if (r)
		rp->done(rp, r);
	else if (rp->has_ring)
		suspects_load(rp);
	else
		pass_begin(rp, 2);
}

/* Those that were active are. Which of them are doubtful: all after a power loss; else those that still were then. */
static int slots_activate(struct replay *rp)
{
	struct device *dev = rp->dev;
	bool doubt = rp->mode != REPLAY_RING || rp->ring.doubt;

	for (uint32_t i = 0; i < dev->geo.total.slots; i++) {
		struct slot *s = &dev->slots.slots[i];

		if (!s->active)
			continue;
		s->active = 0;
		if (slot_set_active(dev, i) || (doubt && slot_doubt_begin(dev, s->run)))
			return -ENOMEM;
	}
	return 0;
}

/* ---- pass 2 ----------------------------------------------------------------------------------------------------------- */

static struct suspect *suspect_at(const struct replay *rp, uint32_t slot, uint32_t block)
{
	size_t from = 0, to = rp->suspects_n;

	while (from < to) {
		size_t mid = from + (to - from) / 2;
		struct suspect *s = &rp->suspects[mid];

		if (s->slot == slot && s->block == block)
			return s;
		if (s->slot < slot || (s->slot == slot && s->block < block))
			from = mid + 1;
		else
			to = mid;
	}
	return NULL;
}

void replay_set_value(struct replay *rp, uint32_t slot, uint32_t block, uint32_t value)
{
	struct device *dev = rp->dev;
	struct table_page *p = dev->tables.tables[geometry_table_page_of(&dev->geo, slot)].page;
	uint32_t at = geometry_table_value_of(&dev->geo, slot) + block;
	struct suspect *s = rp->suspects_n ? suspect_at(rp, slot, block) : NULL;

	check(p);
	if (s) {
		s->before = p->values[at];
		s->has_before = true;
	}
	p->values[at] = value;
	p->known[at / 64] |= 1ULL << (at % 64);
}

int replay_grow(void **array, size_t n, size_t *room, size_t elem_bytes)
{
	size_t bigger_room = *room ? 2 * *room : 256;
	void *bigger;

	if (n < *room)
		return 0;
	bigger = mem_realloc(*array, bigger_room, elem_bytes);
	if (!bigger)
		return -ENOMEM;
	*array = bigger;
	*room = bigger_room;
	return 0;
}

static int candidate_add(struct replay *rp, uint32_t slot, uint32_t block, uint32_t value)
{
	if (replay_grow((void **)&rp->candidates, rp->candidates_n, &rp->candidates_room,
			sizeof(*rp->candidates)))
		return -ENOMEM;
	rp->candidates[rp->candidates_n] = (struct candidate){.slot = slot,
							      .block = block,
							      .value = value,
							      .order = (uint32_t)rp->candidates_n};
	rp->candidates_n++;
	return 0;
}

/* The page is held (by its pin) until its values are in a home; the load goes on meanwhile. */
static struct table_page *page_touch(struct replay *rp, uint32_t slot, uint64_t lsn)
{
	struct device *dev = rp->dev;
	struct table_page *p = tables_get(dev, geometry_table_page_of(&dev->geo, slot));

	if (!p)
		return NULL;
	table_touch(dev, p, lsn);
	tables_put(dev, p);
	return p;
}

static int apply_blocks(struct replay *rp, const struct fmt_record *r, uint64_t lsn)
{
	const struct fmt_rec_blocks *rec = (const void *)r;
	struct device *dev = rp->dev;
	struct slot *s = slot_of(rp, rec->slot, 0);
	uint32_t slot = get_le32(rec->slot), first = get_le16(rec->first), n = get_le16(rec->n);

	if (!s || first + n > dev->geo.blocks_per_chunk)
		return -E_FORMAT;
	if (s->lost || !s->open || s->cgen != get_le64(rec->cgen) ||
	    lsn < rp->table_from_lsn[geometry_table_page_of(&dev->geo, slot)])
		return 0;
	if (!page_touch(rp, slot, lsn))
		return -ENOMEM;
	if (s->run)
		s->run->last_lsn = lsn;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t value = get_le32(rec->values[i]);

		if (lsn <= rp->trusted_lsn)
			replay_set_value(rp, slot, first + i, value);
		else if (candidate_add(rp, slot, first + i, value))
			return -ENOMEM;
	}
	return 0;
}

/* Waits until no table page is being loaded, then calls rp->loaded. */
static void loads_wait(struct replay *rp, void (*loaded)(struct replay *rp))
{
	rp->loaded = loaded;
	rp->load_next = 0;
	loads_look(&rp->wait, 0);
}

static void loads_look(struct waiter *w, int status)
{
	struct replay *rp = container_of(w, struct replay, wait);
	struct device *dev = rp->dev;

	for (; !status && rp->load_next < dev->geo.total.table_pages; rp->load_next++) {
		struct table_page *p = dev->tables.tables[rp->load_next].page;

		if (p && !p->loaded) {
			tables_wait(p, w, loads_look);
			return;
		}
	}
	if (status)
		rp->done(rp, status);
	else
		rp->loaded(rp);
}

static void values_loaded(struct replay *rp)
{
	int r = rp->has_ring ? ring_apply(rp) : 0;

	if (r)
		rp->done(rp, r);
	else
		loads_wait(rp, apply_end);
}

static void apply_end(struct replay *rp)
{
	struct device *dev = rp->dev;

	for (uint32_t i = 0; i < dev->geo.total.table_pages; i++)
		if (dev->tables.tables[i].page)
			table_recount(dev, dev->tables.tables[i].page);
	rp->done(rp, 0);
}

/* ---- restart ring ----------------------------------------------------------------------------------------------------- */

/* ALLOC and BLOCKS have slot and cgen in the same places. */
bool replay_is_of_slot(const struct replay *rp, const struct fmt_record *r)
{
	const struct fmt_rec_blocks *rec = (const void *)r;
	struct device *dev = rp->dev;
	uint32_t slot = get_le32(rec->slot);

	if (slot >= dev->geo.total.slots || !dev->slots.slots[slot].open ||
	    dev->slots.slots[slot].cgen != get_le64(rec->cgen))
		return false;
	return r->type != FMT_REC_BLOCKS ||
	       get_le16(rec->first) + get_le16(rec->n) <= dev->geo.blocks_per_chunk;
}

static int suspect_add(struct replay *rp, const struct fmt_rec_blocks *rec)
{
	for (uint32_t i = 0; i < get_le16(rec->n); i++) {
		if (replay_grow((void **)&rp->suspects, rp->suspects_n, &rp->suspects_room,
				sizeof(*rp->suspects)))
			return -ENOMEM;
		rp->suspects[rp->suspects_n++] =
		    (struct suspect){.slot = get_le32(rec->slot),
				     .block = get_le16(rec->first) + i,
				     .intent = get_le32(rec->values[i])};
	}
	return 0;
}

static int by_slot_and_block(const void *a, const void *b)
{
	const struct suspect *x = a, *y = b;

	if (x->slot != y->slot)
		return x->slot < y->slot ? -1 : 1;
	return x->block < y->block ? -1 : x->block > y->block;
}

/* All of it, before any of it has an effect. */
static int ring_check(struct replay *rp)
{
	struct ring_entry_view v;
	int r;

	while ((r = ring_old_next(&rp->ring, &v)) == 1)
		;
	ring_old_rewind(&rp->ring);
	return r;
}

/* Slots that only the ring knows to be open are opened; blocks under a pending INTENT are suspects. */
static int suspects_find(struct replay *rp)
{
	struct ring_entry_view v;
	size_t n = 0;
	int r;

	while ((r = ring_old_next(&rp->ring, &v)) == 1) {
		if (v.rec->type == FMT_REC_ALLOC)
			r = apply_alloc(rp, (const void *)v.rec, 0);
		else if (v.is_pending && replay_is_of_slot(rp, v.rec))
			r = suspect_add(rp, (const void *)v.rec);
		else
			r = 0;
		if (r)
			return r;
	}
	ring_old_rewind(&rp->ring);
	if (r || rp->suspects_n == 0)
		return r;
	qsort(rp->suspects, rp->suspects_n, sizeof(*rp->suspects), by_slot_and_block);
	/* requests on a block follow each other, so there is one each, unless somebody made the ring up */
	for (size_t i = 1; i < rp->suspects_n; i++) {
		if (by_slot_and_block(&rp->suspects[n], &rp->suspects[i]) != 0)
			n++;
		rp->suspects[n] = rp->suspects[i];
	}
	rp->suspects_n = n + 1;
	return 0;
}

/* Their tables are complete before values are set, so that it is known what a block was before. Kept until replay_free(). */
static void suspects_load(struct replay *rp)
{
	struct device *dev = rp->dev;

	for (; rp->suspects_held < rp->suspects_n; rp->suspects_held++) {
		uint32_t slot = rp->suspects[rp->suspects_held].slot;

		if (!tables_get(dev, geometry_table_page_of(&dev->geo, slot))) {
			rp->done(rp, -ENOMEM);
			return;
		}
	}
	loads_wait(rp, suspects_loaded);
}

static void suspects_loaded(struct replay *rp)
{
	pass_begin(rp, 2);
}

/* What counts in the ring is younger than the journal, or in it already. */
static int ring_apply(struct replay *rp)
{
	struct ring_entry_view v;
	int r;

	while ((r = ring_old_next(&rp->ring, &v)) == 1) {
		const struct fmt_rec_blocks *rec = (const void *)v.rec;

		if (v.is_pending || v.rec->type != FMT_REC_BLOCKS || !replay_is_of_slot(rp, v.rec))
			continue;
		/* it will be in the journal again from next_lsn on */
		if (!page_touch(rp, get_le32(rec->slot), rp->next_lsn))
			return -ENOMEM;
		for (uint32_t i = 0; i < get_le16(rec->n); i++)
			replay_set_value(rp, get_le32(rec->slot), get_le16(rec->first) + i,
					 get_le32(rec->values[i]));
	}
	ring_old_rewind(&rp->ring);
	return r;
}
