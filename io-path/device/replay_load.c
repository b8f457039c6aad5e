/* SPDX-License-Identifier: Apache-2.0 */
/* replay_load.c - the slot-entry pages and the registry, as their newest valid homes have them.
 *
 *   slot-entry pages: home 0*, home 1* of a stretch -> the valid home with the higher sequence -> ... -> registry half 0*, 1* -> done
 *
 * Each home alone is enough: the journal has all that is not in both (maint.c). One that is damaged, or was being written, is written again
 * soon. A page of which no home is valid is damage: the device is refused for service; inspection goes on without its slots. */
#include "io-path/device/dev.h"
#include "io-path/device/replay.h"
#include "src/base/math.h"
#include "src/base/mem.h"

static void slots_read(struct replay *rp);
static void slots_read_other(struct replay *rp);
static void slots_read_done(struct replay *rp);
static int slot_page_take(struct replay *rp, uint32_t page, const struct fmt_slot_page *homes[2]);
static void registry_read(struct replay *rp);
static void registry_read_done(struct replay *rp);
static void half_read(struct replay *rp, void (*done)(struct replay *rp));
static void half_checked(struct replay *rp);
static void registry_take(struct replay *rp);
static void half_taken(struct replay *rp);

void replay_load(struct replay *rp, void (*done)(struct replay *rp, int status))
{
	rp->done = done;
	rp->at = 0;
	slots_read(rp);
}

/* ---- slot-entry pages ------------------------------------------------------------------------------------------------- */

/* As many pages as lie together in a group and fit the buffer. */
static uint32_t stretch(const struct replay *rp)
{
	struct geo_group g = geometry_group_of_slot_page(&rp->dev->geo, rp->at);

	return MIN((uint32_t)REPLAY_BUF_PAGES, g.base.slot_pages + g.n.slot_pages - rp->at);
}

static void slots_read(struct replay *rp)
{
	struct replay_span span = {
	    .offset = geometry_slot_page_offset(&rp->dev->geo, rp->at, 0),
	    .buf = rp->buf,
	    .pages_n = stretch(rp),
	};

	replay_read(rp, &span, slots_read_other);
}

static void slots_read_other(struct replay *rp)
{
	struct replay_span span = {
	    .offset = geometry_slot_page_offset(&rp->dev->geo, rp->at, 1),
	    .buf = rp->buf2,
	    .pages_n = stretch(rp),
	};

	replay_read(rp, &span, slots_read_done);
}

static void slots_read_done(struct replay *rp)
{
	uint32_t n = stretch(rp);

	for (uint32_t i = 0; i < n; i++) {
		const struct fmt_slot_page *homes[2] = {
		    (const void *)(rp->buf + (size_t)i * FMT_PAGE),
		    (const void *)(rp->buf2 + (size_t)i * FMT_PAGE)};
		int r = slot_page_take(rp, rp->at + i, homes);

		if (r) {
			rp->done(rp, r);
			return;
		}
	}
	rp->at += n;
	if (rp->at < rp->dev->geo.total.slot_pages) {
		slots_read(rp);
		return;
	}
	rp->half = 0;
	registry_read(rp);
}

static void slot_take(struct device *dev, uint32_t slot, const struct fmt_slot *from)
{
	struct slot *s = &dev->slots.slots[slot];
	uint64_t seq = dev->tables.tables[geometry_table_page_of(&dev->geo, slot)].seq;
	uint64_t seq_min = get_le64(from->table_seq_min);

	/* the memory of slots that were never used is not touched */
	if (get_le64(from->cgen) == 0 && !(from->flags & FMT_SLOT_OPEN))
		return;
	s->cgen = get_le64(from->cgen);
	dev->cgen_highest = MAX(dev->cgen_highest, s->cgen);
	if (!(from->flags & FMT_SLOT_OPEN))
		return;
	s->open = 1;
	s->active = (from->flags & FMT_SLOT_ACTIVE) != 0;
	s->uncounted = !(from->flags & FMT_SLOT_COUNTED);
	s->epoch = get_le64(from->epoch);
	slot_wgen_set(s, get_le64(from->wgen));
	s->volume = get_le32(from->volume);
	s->layer = get_le32(from->layer);
	s->chunk = get_le32(from->chunk);
	slot_counts_set(s, get_le16(from->present_n), get_le16(from->bad_n));
	s->fresh = seq_min > seq;
	dev->bad_blocks += s->bad_n;
	dev->slots.open_n++;
}

static bool counts_are_sane(struct device *dev, const struct fmt_slot_page *p, uint32_t slots_n)
{
	for (uint32_t i = 0; i < slots_n; i++)
		if (get_le16(p->slots[i].present_n) > dev->geo.blocks_per_chunk ||
		    get_le16(p->slots[i].bad_n) > get_le16(p->slots[i].present_n))
			return false;
	return true;
}

static int slot_page_take(struct replay *rp, uint32_t page, const struct fmt_slot_page *homes[2])
{
	struct device *dev = rp->dev;
	struct slot_page *sp = &dev->slots.pages[page];
	struct geo_range slots = geometry_slot_page_slots(&dev->geo, page);
	struct geo_range tables = geometry_slot_page_tables(&dev->geo, page);
	const struct fmt_slot_page *best = NULL;
	bool are_equal = false;

	for (uint8_t h = 0; h < 2; h++) {
		struct fmt_slot_page_id id = {.device = &dev->uuid, .page_no = page, .home = h};

		if (fmt_slot_page_check(homes[h], &id) || !counts_are_sane(dev, homes[h], slots.n))
			continue;
		are_equal = best && get_le64(homes[h]->seq) == get_le64(best->seq);
		if (!best || get_le64(homes[h]->seq) > get_le64(best->seq))
			best = homes[h];
	}
	if (!best) {
		for (uint32_t i = 0; i < slots.n; i++)
			dev->slots.slots[slots.first + i].lost = 1;
		device_event(dev, "slots_lost", "slot-entry page %u is damaged: slots %u to %u",
			     page, slots.first, slots.first + slots.n - 1);
		return dev->read_only
			   ? 0
			   : replay_fail(
				 rp, -E_FORMAT,
				 "slot-entry page %u is damaged in both homes: slots %u to %u",
				 page, slots.first, slots.first + slots.n - 1);
	}
	sp->seq = get_le64(best->seq);
	sp->home = best->home;
	sp->is_alone = !are_equal;
	for (uint32_t i = 0; i < tables.n; i++) {
		struct table *t = &dev->tables.tables[tables.first + i];

		if (get_le64(best->tables[i].seq) == 0)
			continue;
		t->seq = get_le64(best->tables[i].seq);
		t->crc = get_le32(best->tables[i].crc);
		t->home = best->tables[i].home;
	}
	for (uint32_t i = 0; i < slots.n; i++)
		slot_take(dev, slots.first + i, &best->slots[i]);
	return 0;
}

/* ---- registry --------------------------------------------------------------------------------------------------------- */

static struct fmt_registry_page_id page_id(const struct replay *rp, uint32_t page_no)
{
	return (struct fmt_registry_page_id){.device = &rp->dev->uuid,
					     .page_no = page_no,
					     .half = (uint8_t)rp->half};
}

/* Its first page says how many there are. */
static void registry_read(struct replay *rp)
{
	struct replay_span span = {
	    .offset = geometry_registry_offset(&rp->dev->geo, rp->half),
	    .buf = rp->buf,
	    .pages_n = 1,
	};

	replay_read(rp, &span, registry_read_done);
}

static void half_over(struct replay *rp, uint64_t seq)
{
	rp->half_seq[rp->half] = seq;
	rp->pages_of_half[rp->half] = seq ? rp->half_pages_n : 0;
	if (rp->half == 0) {
		rp->half = 1;
		registry_read(rp);
	} else {
		registry_take(rp);
	}
}

static void registry_read_done(struct replay *rp)
{
	const struct fmt_registry_page *p = (const void *)rp->buf;
	struct fmt_registry_page_id id = page_id(rp, 0);

	if (fmt_registry_page_check(p, &id) || get_le32(p->pages_n) > registry_pages_max(rp->dev)) {
		half_over(rp, 0);
		return;
	}
	rp->half_seq[rp->half] = get_le64(p->seq);
	rp->half_pages_n = get_le32(p->pages_n);
	rp->at = 0;
	half_read(rp, half_checked);
}

static uint32_t half_stretch(const struct replay *rp)
{
	return MIN((uint32_t)REPLAY_BUF_PAGES, rp->half_pages_n - rp->at);
}

static void half_read(struct replay *rp, void (*done)(struct replay *rp))
{
	struct replay_span span = {
	    .offset =
		geometry_registry_offset(&rp->dev->geo, rp->half) + (uint64_t)rp->at * FMT_PAGE,
	    .buf = rp->buf,
	    .pages_n = half_stretch(rp),
	};

	replay_read(rp, &span, done);
}

static bool page_is_of_half(const struct replay *rp, uint32_t i)
{
	const struct fmt_registry_page *p = (const void *)(rp->buf + (size_t)i * FMT_PAGE);
	struct fmt_registry_page_id id = page_id(rp, rp->at + i);

	return !fmt_registry_page_check(p, &id) && get_le64(p->seq) == rp->half_seq[rp->half] &&
	       get_le32(p->pages_n) == rp->half_pages_n;
}

static void half_checked(struct replay *rp)
{
	uint32_t n = half_stretch(rp);

	for (uint32_t i = 0; i < n; i++)
		if (!page_is_of_half(rp, i)) {
			half_over(rp, 0);
			return;
		}
	rp->at += n;
	if (rp->at < rp->half_pages_n)
		half_read(rp, half_checked);
	else
		half_over(rp, rp->half_seq[rp->half]);
}

static void registry_take(struct replay *rp)
{
	struct device *dev = rp->dev;

	rp->half = rp->half_seq[1] > rp->half_seq[0];
	if (rp->half_seq[rp->half] == 0) {
		device_event(dev, "registry_lost", "both halves of the registry are damaged");
		rp->done(rp, dev->read_only
				 ? 0
				 : replay_fail(rp, -E_FORMAT,
					       "both halves of the registry are damaged"));
		return;
	}
	dev->registry.half = rp->half;
	dev->registry.seq = rp->half_seq[rp->half];
	dev->registry.is_alone = rp->half_seq[0] != rp->half_seq[1];
	rp->half_pages_n = rp->pages_of_half[rp->half];
	rp->at = 0;
	half_read(rp, half_taken);
}

static void half_taken(struct replay *rp)
{
	uint32_t n = half_stretch(rp);
	int r = 0;

	for (uint32_t i = 0; i < n && !r; i++) {
		struct cursor c;
		const struct fmt_record *rec;

		if (!page_is_of_half(rp, i)) {
			r = -E_FORMAT;
			break;
		}
		c = fmt_registry_records((const void *)(rp->buf + (size_t)i * FMT_PAGE));
		while ((rec = fmt_record_next(&c)) && !r)
			r = registry_apply(rp->dev, rec);
	}
	rp->at += n;
	if (r)
		rp->done(rp, replay_fail(rp, r, "the registry cannot be read"));
	else if (rp->at < rp->half_pages_n)
		half_read(rp, half_taken);
	else
		rp->done(rp, 0);
}
