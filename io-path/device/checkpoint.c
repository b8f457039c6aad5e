/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint.c - pages on their way to their older homes. maint.c leads. */
#include <stdlib.h>

#include "io-path/device/dev.h"
#include "src/base/crc.h"
#include "src/base/math.h"
#include "src/base/mem.h"

static void ckpt_push(struct device *dev);
static void ckpt_write_done(struct ioe_req *io);

/* ---- many pages, few writes ------------------------------------------------------------------------------------------- */

void ckpt_add(struct device *dev, uint32_t page)
{
	struct ckpt *c = &dev->maint.ckpt;

	check(c->n < CKPT_PAGES_MAX);
	c->pages[c->n++] = page;
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

int ckpt_start(struct device *dev, void (*fill)(struct device *dev, uint32_t page, uint8_t *to),
	       uint64_t (*offset)(struct device *dev, uint32_t page),
	       void (*done)(struct device *dev))
{
	struct ckpt *c = &dev->maint.ckpt;

	check(c->n > 0 && c->writes_n == 0 && !c->buf);
	c->buf = mem_alloc_aligned(FMT_PAGE, (size_t)c->n * FMT_PAGE);
	if (!c->buf)
		return -ENOMEM;
	qsort(c->pages, c->n, sizeof(c->pages[0]), by_number);
	for (uint32_t i = 0; i < c->n; i++)
		fill(dev, c->pages[i], ckpt_copy(c, i));
	c->offset = offset;
	ckpt_write(dev, done);
	return 0;
}

void ckpt_write(struct device *dev, void (*done)(struct device *dev))
{
	struct ckpt *c = &dev->maint.ckpt;

	check(c->n > 0 && c->writes_n == 0 && c->buf);
	c->written = done;
	c->next = 0;
	ckpt_push(dev);
}

static struct ckpt_write *write_idle(struct ckpt *c)
{
	for (int i = 0; i < CKPT_WRITES_MAX; i++)
		if (!c->writes[i].busy)
			return &c->writes[i];
	return NULL;
}

static void ckpt_push(struct device *dev)
{
	struct ckpt *c = &dev->maint.ckpt;
	struct ckpt_write *w;

	while (c->next < c->n && (w = write_idle(c))) {
		uint32_t first = c->next, n = 1;
		uint64_t offset = c->offset(dev, c->pages[first]);

		while (first + n < c->n && n < CKPT_WRITE_PAGES &&
		       c->offset(dev, c->pages[first + n]) == offset + (uint64_t)n * FMT_PAGE)
			n++;
		c->next += n;
		c->writes_n++;
		w->busy = true;
		w->dev = dev;
		ioe_write(dev->ioe, &w->io, dev->file, offset, ckpt_copy(c, first),
			  (uint64_t)n * FMT_PAGE, ckpt_write_done);
	}
}

static void ckpt_write_done(struct ioe_req *io)
{
	struct ckpt_write *w = container_of(io, struct ckpt_write, io);
	struct device *dev = w->dev;
	struct ckpt *c = &dev->maint.ckpt;

	w->busy = false;
	c->writes_n--;
	if (io->status)
		device_fail(dev, "metadata write", io->status);
	if (dev->failed) {
		device_turn_end(dev);
		return;
	}
	ckpt_push(dev);
	if (c->writes_n == 0)
		c->written(dev);
}

/* ---- table pages ------------------------------------------------------------------------------------------------------ */

void ckpt_table_fill(struct device *dev, uint32_t page, uint8_t *to)
{
	struct table_page *p = dev->tables.tables[page].page;

	/* it overwrites the home that the description before the last one names */
	check(p && p->loaded && !p->in_ckpt && flush_has(dev, FLUSH_PUBLISHED, p->ckpt_lsn));
	table_sweep(dev, p);
	p->in_ckpt = true;
	p->ckpt_lsn = 0;
	/* A stable write whose data is in flight is in the journal and not yet in the values: only up to complete_lsn they agree. */
	p->ckpt_from_lsn = dev->journal.complete_lsn + 1;
	for (uint32_t at = 0; at < FMT_VALUES_PER_PAGE; at++) {
		struct le32 value = to_le32(p->values[at]);

		memcpy(to + 4 * at, &value, sizeof(value));
	}
}

uint64_t ckpt_table_offset(struct device *dev, uint32_t page)
{
	return geometry_table_page_offset(&dev->geo, page, !dev->tables.tables[page].home);
}

void ckpt_table_record(struct device *dev, uint32_t page, const uint8_t *bytes)
{
	struct table *t = &dev->tables.tables[page];
	struct table_page *p = t->page;
	struct geo_range slots = geometry_table_page_slots(&dev->geo, page);
	struct fmt_rec_ckpt rec = {
	    .h = {.type = FMT_REC_CKPT, .len_bytes = to_le16(sizeof(rec))},
	    .page_no = to_le32(page),
	    .kind = FMT_CKPT_TABLE,
	};

	check(p && p->in_ckpt && p->ckpt_lsn == 0);
	t->seq++;
	t->home = !t->home;
	t->crc = crc32c(bytes, FMT_PAGE);
	for (uint32_t s = slots.first; s < slots.first + slots.n; s++)
		dev->slots.slots[s].fresh = 0;
	rec.seq = to_le64(t->seq);
	rec.from_lsn = to_le64(p->ckpt_from_lsn);
	rec.crc = to_le32(t->crc);
	rec.home = t->home;
	p->ckpt_lsn = journal_add(dev, &rec, sizeof(rec));
	slot_page_touch(dev, geometry_slot_page_of_table(&dev->geo, page), p->ckpt_lsn);
	list_push(&dev->maint.unpublished, &p->ckpt_link);
	dev->maint.ckpt_lsn = p->ckpt_lsn;
	maint_freed(dev); /* slots of the page can be opened again */
	dev->info.checkpoints++;
}

/* They are in the order of their records. */
void ckpt_tables_published(struct device *dev)
{
	struct list *unpublished = &dev->maint.unpublished;

	while (!list_empty(unpublished)) {
		struct table_page *p = list_first(unpublished, struct table_page, ckpt_link);

		if (!flush_has(dev, FLUSH_PUBLISHED, p->ckpt_lsn))
			return;
		list_del(&p->ckpt_link);
		p->in_ckpt = false;
		p->home_from_lsn = p->ckpt_from_lsn;
		table_pin_move(dev, p, p->last_lsn >= p->ckpt_from_lsn ? p->ckpt_from_lsn : 0);
		if (p->pin.lsn == 0)
			table_sweep(dev, p); /* all its moves are published too */
	}
}

/* ---- slot-entry pages ------------------------------------------------------------------------------------------------- */

static void slot_encode(struct device *dev, uint32_t slot, struct fmt_slot *to)
{
	const struct slot *s = &dev->slots.slots[slot];
	const struct table *t = &dev->tables.tables[geometry_table_page_of(&dev->geo, slot)];

	to->cgen = to_le64(s->cgen);
	if (!s->open)
		return;
	to->epoch = to_le64(s->epoch);
	to->wgen = to_le64(s->wgen);
	to->table_seq_min = to_le64(s->fresh ? t->seq + 1 : 0);
	to->volume = to_le32(s->volume);
	to->layer = to_le32(s->layer);
	to->chunk = to_le32(s->chunk);
	to->present_n = to_le16((uint16_t)s->present_n);
	to->bad_n = to_le16((uint16_t)s->bad_n);
	to->flags = (uint8_t)(FMT_SLOT_OPEN | (s->active ? FMT_SLOT_ACTIVE : 0));
	/* the counts are those of all records, some of which may be lost yet; when all are in the home, they are the home's */
	if (!s->uncounted && (!t->page || t->page->pin.lsn == 0))
		to->flags |= FMT_SLOT_COUNTED;
}

/* Every record about these slots is stable: or after a power loss the page might know of things that never happened, and be believed, because
 * it describes itself. */
void ckpt_slots_fill(struct device *dev, uint32_t page, uint8_t *to)
{
	struct slot_page *sp = &dev->slots.pages[page];
	struct fmt_slot_page *p = (void *)to;
	struct geo_range slots = geometry_slot_page_slots(&dev->geo, page);
	struct geo_range tables = geometry_slot_page_tables(&dev->geo, page);

	check(flush_has(dev, FLUSH_STABLE, sp->last_lsn));
	sp->in_ckpt = true;
	memset(p, 0, sizeof(*p));
	for (uint32_t i = 0; i < slots.n; i++)
		slot_encode(dev, slots.first + i, &p->slots[i]);
	for (uint32_t i = 0; i < tables.n; i++) {
		const struct table *t = &dev->tables.tables[tables.first + i];

		p->tables[i].seq = to_le64(t->seq);
		p->tables[i].crc = to_le32(t->crc);
		p->tables[i].home = t->home;
	}
	p->seq = to_le64(sp->seq + 1);
	p->from_lsn = to_le64(dev->maint.from_lsn);
	fmt_slot_page_prepare(p, &(struct fmt_slot_page_id){.device = &dev->uuid,
							    .page_no = page,
							    .home = !sp->home});
}

uint64_t ckpt_slots_offset(struct device *dev, uint32_t page)
{
	return geometry_slot_page_offset(&dev->geo, page, !dev->slots.pages[page].home);
}

void ckpt_slots_turn(struct device *dev, uint32_t page, uint8_t *bytes)
{
	struct slot_page *sp = &dev->slots.pages[page];

	sp->seq++;
	sp->home = !sp->home;
	fmt_slot_page_prepare((void *)bytes, &(struct fmt_slot_page_id){.device = &dev->uuid,
									.page_no = page,
									.home = !sp->home});
}

void ckpt_slots_done(struct device *dev, uint32_t page)
{
	struct slot_page *sp = &dev->slots.pages[page];

	sp->in_ckpt = false;
	sp->is_alone = false;
	slot_page_pin_move(dev, page, sp->last_lsn >= dev->maint.from_lsn ? dev->maint.from_lsn : 0);
	dev->info.checkpoints++;
}
