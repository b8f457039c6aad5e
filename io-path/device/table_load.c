/* SPDX-License-Identifier: Apache-2.0 */
/* table_load.c - reading table pages into the cache.
 *
 *   queued -> (end of the turn: neighbours together) -> read* -> merged with what was written meanwhile -> loaded
 *                                                             -> (an error: alone, a few times) -> unreadable
 *
 * A page that is not what its description promised is damage: the blocks that nobody has written since are bad. */
#include <stdlib.h>

#include "io-path/device/dev.h"
#include "src/base/crc.h"

enum { SORT_MAX = 256 };

static void load_submit(struct device *dev, struct table_load *load);
static void load_done(struct ioe_req *io);
static void page_loaded(struct device *dev, struct table_page *p, const void *bytes, bool damaged);
static void page_unreadable(struct device *dev, struct table_page *p);

static uint64_t home_offset(struct device *dev, const struct table_page *p)
{
	return geometry_table_page_offset(&dev->geo, p->page_no,
					  dev->tables.tables[p->page_no].home);
}

/* Does any slot of the page have values that are only on the medium? */
static bool needs_medium(struct device *dev, const struct table_page *p)
{
	struct geo_range r = geometry_table_page_slots(&dev->geo, p->page_no);

	if (dev->tables.tables[p->page_no].seq == 0)
		return false;
	for (uint32_t slot = r.first; slot < r.first + r.n; slot++)
		if (dev->slots.slots[slot].open && !dev->slots.slots[slot].fresh)
			return true;
	return false;
}

void table_load_start(struct device *dev, struct table_page *p)
{
	if (!needs_medium(dev, p)) {
		page_loaded(dev, p, NULL, false);
		return;
	}
	list_push(&dev->tables.load_queue, &p->lru);
	device_turn_end(dev);
}

void table_load_again(struct device *dev, struct table_page *p)
{
	check(p->is_unreadable && !p->loaded);
	p->is_unreadable = false;
	dev->tables.unreadable_n--;
	table_load_start(dev, p);
}

/* ---- submit ----------------------------------------------------------------------------------------------------------- */

static int by_page_no(const void *a, const void *b)
{
	const struct table_page *x = *(struct table_page *const *)a,
				*y = *(struct table_page *const *)b;

	return x->page_no < y->page_no ? -1 : x->page_no > y->page_no;
}

bool tables_are_idle(const struct device *dev)
{
	for (int i = 0; i < TABLE_LOADS_MAX; i++)
		if (dev->tables.loads[i].pages_n)
			return false;
	return true;
}

bool tables_are_loaded(const struct device *dev)
{
	return list_empty(&dev->tables.load_queue) && tables_are_idle(dev);
}

static struct table_load *load_idle(struct tables *t)
{
	for (int i = 0; i < TABLE_LOADS_MAX; i++)
		if (t->loads[i].pages_n == 0)
			return &t->loads[i];
	return NULL;
}

/* One that failed is read alone: it may not have been its fault, and must not be that of its neighbours. */
static bool goes_on(struct device *dev, const struct table_load *load, const struct table_page *p)
{
	const struct table_page *last = list_entry(load->pages.prev, struct table_page, lru);

	return load->pages_n < TABLE_LOAD_PAGES && p->tries == 0 && last->tries == 0 &&
	       home_offset(dev, p) == home_offset(dev, last) + FMT_PAGE;
}

void tables_turn(struct device *dev)
{
	struct tables *t = &dev->tables;
	struct table_page *sorted[SORT_MAX];
	struct table_load *load = NULL;
	uint32_t n = 0;
	struct list *l;

	if (list_empty(&t->load_queue) || !load_idle(t) || dev->failed)
		return;
	while (n < SORT_MAX && (l = list_pop(&t->load_queue)))
		sorted[n++] = list_entry(l, struct table_page, lru);
	qsort(sorted, n, sizeof(sorted[0]), by_page_no);
	for (uint32_t i = 0; i < n; i++) {
		if (!load || !goes_on(dev, load, sorted[i])) {
			if (load)
				load_submit(dev, load);
			load = load_idle(t);
		}
		if (!load) { /* the rest comes when one is done */
			list_push(&t->load_queue, &sorted[i]->lru);
			continue;
		}
		list_push(&load->pages, &sorted[i]->lru);
		load->pages_n++;
	}
	if (load)
		load_submit(dev, load);
}

static void load_submit(struct device *dev, struct table_load *load)
{
	const struct table_page *first = list_first(&load->pages, struct table_page, lru);

	ioe_read(dev->ioe, &load->io, dev->file, home_offset(dev, first), load->buf,
		 (uint64_t)load->pages_n * FMT_PAGE, load_done);
}

/* Service begins with what can be read. Later there is time, but not for ever: the page's records hold up the journal, and who wrote to it
 * wants to read that. */
static bool is_given_up(const struct device *dev, const struct table_page *p)
{
	if (dev->state == DEVICE_OPENING)
		return true;
	return p->unreadable_ns && p->pin.lsn &&
	       ioe_now_ns(dev->ioe) - p->unreadable_ns >= TABLE_UNREADABLE_NS;
}

/* ---- done ------------------------------------------------------------------------------------------------------------- */

static void load_done(struct ioe_req *io)
{
	struct table_load *load = container_of(io, struct table_load, io);
	struct device *dev = load->dev;
	struct list pages = LIST_INIT(pages), *l;
	const uint8_t *bytes = load->buf;

	list_splice(&pages, &load->pages);
	load->pages_n = 0;
	for (; (l = list_pop(&pages)); bytes += FMT_PAGE) {
		struct table_page *p = list_entry(l, struct table_page, lru);
		const struct table *t = &dev->tables.tables[p->page_no];
		bool good = !io->status && crc32c(bytes, FMT_PAGE) == t->crc;

		if (!good && ++p->tries < TABLE_LOAD_TRIES) {
			list_push(&dev->tables.load_queue, &p->lru);
			continue;
		}
		if (io->status && !is_given_up(dev, p))
			page_unreadable(dev, p);
		else
			page_loaded(dev, p, good ? bytes : NULL, !good);
	}
	device_turn_end(dev);
}

static void page_unreadable(struct device *dev, struct table_page *p)
{
	if (p->unreadable_ns == 0) {
		p->unreadable_ns = ioe_now_ns(dev->ioe);
		device_event(dev, "unreadable", "block table page %u cannot be read", p->page_no);
	}
	p->tries = 0;
	p->is_unreadable = true;
	dev->tables.unreadable_n++;
	p->users++; /* those who are told may be the last who use it */
	waiters_wake(&p->waiters, -EIO);
	tables_put(dev, p);
}

/* The part of a slot that is not known yet. A block that was taken for moved because its past was unknown, and was data all along, did
 * not move. */
static void slot_merge(struct device *dev, struct table_page *p, uint32_t slot, const uint8_t *disk,
		       bool damaged)
{
	const struct slot *s = &dev->slots.slots[slot];
	uint32_t base = geometry_table_value_of(&dev->geo, slot);
	bool counts = s->open && !s->fresh && (disk || damaged);

	for (uint32_t at = base; at < base + dev->geo.blocks_per_chunk; at++) {
		bool known = p->known[at / 64] >> (at % 64) & 1;
		uint32_t value = FMT_BLOCK_HOLE;
		struct le32 raw;

		if (counts && damaged) {
			value = FMT_BLOCK_BAD;
		} else if (counts) {
			memcpy(&raw, disk + 4 * at, sizeof(raw));
			value = get_le32(raw);
		}
		if (!known)
			p->values[at] = value;
		else if (table_is_data(value) && table_is_data(p->values[at]) && p->moved)
			p->moved[at] = 0;
	}
}

static void page_loaded(struct device *dev, struct table_page *p, const void *bytes, bool damaged)
{
	struct geo_range r = geometry_table_page_slots(&dev->geo, p->page_no);

	check(!p->loaded);
	for (uint32_t slot = r.first; slot < r.first + r.n; slot++)
		slot_merge(dev, p, slot, bytes, damaged);
	p->loaded = true;
	p->unreadable_ns = 0;
	list_push(&dev->tables.lru, &p->lru);
	table_recount(dev, p);
	if (damaged)
		device_event(
		    dev, "table-damaged",
		    "block table page %u is damaged; what it described is lost: slots %u to %u",
		    p->page_no, r.first, r.first + r.n - 1);
	waiters_wake(&p->waiters, 0);
	/* a round found nothing to write, because nothing was loaded */
	if (!list_empty(&dev->maint.waiters) || !list_empty(&dev->journal.room_waiters))
		maint_kick(dev);
}
