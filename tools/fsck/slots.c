/* SPDX-License-Identifier: Apache-2.0 */
/* slots.c - slot-entry pages in their two homes. */
#include <inttypes.h>
#include <string.h>

#include "src/base/math.h"
#include "src/base/mem.h"
#include "tools/fsck/check.h"

/* Both homes of so many pages are read together. */
enum { SPAN_PAGES = FSCK_IO_BYTES / FMT_PAGE / 2 };

struct home {
	bool valid;
	const struct fmt_slot_page *page;
};

/* The pages' homes that lie together, into one half of the buffer. An unreadable part is read page by page. */
static int read_span(struct fsck *k, struct geo_range span, uint8_t home, bool bad[SPAN_PAGES])
{
	uint8_t *to = k->io + (size_t)home * SPAN_PAGES * FMT_PAGE;
	uint64_t from = geometry_slot_page_offset(&k->geo, span.first, home);
	int r = fsck_read(k, from, to, (uint64_t)span.n * FMT_PAGE);

	memset(bad, 0, SPAN_PAGES * sizeof(bad[0]));
	for (uint32_t i = 0; i < span.n && r == -EIO; i++) {
		int one = fsck_read(k, from + (uint64_t)i * FMT_PAGE, to + (size_t)i * FMT_PAGE,
				    FMT_PAGE);

		bad[i] = one == -EIO;
		if (one != -EIO && one)
			r = one;
	}
	if (r && r != -EIO)
		return fsck_error(k, r, "slot-entry page %u: %s", span.first, err_text(r));
	return 0;
}

static void take_slot(struct fsck *k, uint32_t slot, const struct fmt_slot *e)
{
	k->slots[slot] = (struct fsck_slot){.cgen = get_le64(e->cgen),
					    .table_seq_min = get_le64(e->table_seq_min),
					    .volume = get_le32(e->volume),
					    .layer = get_le32(e->layer),
					    .chunk = get_le32(e->chunk),
					    .present_n = get_le16(e->present_n),
					    .bad_n = get_le16(e->bad_n),
					    .open = e->flags & FMT_SLOT_OPEN,
					    .active = e->flags & FMT_SLOT_ACTIVE};
	if (get_le16(e->present_n) > k->geo.blocks_per_chunk ||
	    get_le16(e->bad_n) > get_le16(e->present_n))
		fsck_say_slot(k, FSCK_ERROR, "slot-entry", slot,
			      "slot %u says that it has %u present and %u bad blocks of %u", slot,
			      get_le16(e->present_n), get_le16(e->bad_n), k->geo.blocks_per_chunk);
}

static void take_page(struct fsck *k, uint32_t page_no, const struct fmt_slot_page *p)
{
	struct geo_range slots = geometry_slot_page_slots(&k->geo, page_no);
	struct geo_range tables = geometry_slot_page_tables(&k->geo, page_no);

	k->pages[page_no].seq = get_le64(p->seq);
	k->pages[page_no].from_lsn = get_le64(p->from_lsn);
	for (uint32_t i = 0; i < slots.n; i++)
		take_slot(k, slots.first + i, &p->slots[i]);
	for (uint32_t i = 0; i < tables.n; i++)
		k->tables[tables.first + i] =
		    (struct fsck_table){get_le64(p->tables[i].seq), get_le32(p->tables[i].crc),
					p->tables[i].home};
}

static void page_lost(struct fsck *k, uint32_t page_no)
{
	struct geo_range slots = geometry_slot_page_slots(&k->geo, page_no);

	fsck_say(
	    k, FSCK_ERROR, "slot-page-lost",
	    "both homes of slot-entry page %u are damaged: what slots %u to %u hold is not known",
	    page_no, slots.first, slots.first + slots.n - 1);
	for (uint32_t i = 0; i < slots.n; i++)
		k->slots[slots.first + i].lost = true;
}

/* But for which home they are. */
static bool say_the_same(const struct fmt_slot_page *x, const struct fmt_slot_page *y)
{
	size_t from = offsetof(struct fmt_slot_page, page_no);

	return memcmp((const uint8_t *)x + from, (const uint8_t *)y + from, FMT_PAGE - from) == 0;
}

static void check_page(struct fsck *k, uint32_t page_no, const struct home *h)
{
	struct fsck_slot_page *p = &k->pages[page_no];
	int newer;

	if (!h[0].valid && !h[1].valid) {
		page_lost(k, page_no);
		return;
	}
	newer = !h[0].valid || (h[1].valid && get_le64(h[1].page->seq) > get_le64(h[0].page->seq));
	p->other = (uint8_t)!newer;
	p->other_damaged = !h[!newer].valid;
	p->other_older =
	    h[0].valid && h[1].valid && get_le64(h[0].page->seq) != get_le64(h[1].page->seq);
	if (!p->other_damaged && !p->other_older && !say_the_same(h[0].page, h[1].page))
		fsck_say(k, FSCK_ERROR, "slot-page-differs",
			 "the homes of slot-entry page %u have the same sequence, %" PRIu64
			 ", and differ",
			 page_no, get_le64(h[0].page->seq));
	take_page(k, page_no, h[newer].page);
}

static int check_span(struct fsck *k, struct geo_range span)
{
	bool bad[2][SPAN_PAGES];

	for (uint8_t home = 0; home < 2; home++) {
		int r = read_span(k, span, home, bad[home]);

		if (r)
			return r;
	}
	for (uint32_t i = 0; i < span.n; i++) {
		struct home h[2];

		for (uint8_t home = 0; home < 2; home++) {
			struct fmt_slot_page_id id = {.device = &k->sb.device,
						      .page_no = span.first + i,
						      .home = home};

			h[home].page =
			    (const void *)(k->io + (size_t)(home * SPAN_PAGES + i) * FMT_PAGE);
			h[home].valid =
			    !bad[home][i] && fmt_slot_page_check(h[home].page, &id) == 0;
		}
		check_page(k, span.first + i, h);
	}
	return 0;
}

int fsck_slot_pages(struct fsck *k)
{
	int r = 0;

	k->slots = mem_zalloc_array(k->geo.total.slots, sizeof(*k->slots));
	k->tables = mem_zalloc_array(k->geo.total.table_pages, sizeof(*k->tables));
	k->pages = mem_zalloc_array(k->geo.total.slot_pages, sizeof(*k->pages));
	if (!k->slots || !k->tables || !k->pages)
		return fsck_error(k, -ENOMEM, "no memory for %u slots", k->geo.total.slots);
	for (uint32_t page = 0; page < k->geo.total.slot_pages && !r;) {
		struct geo_group g = geometry_group_of_slot_page(&k->geo, page);
		struct geo_range span = {page, MIN(g.base.slot_pages + g.n.slot_pages - page,
						   (uint32_t)SPAN_PAGES)};

		r = check_span(k, span);
		page += span.n;
	}
	return r;
}

/* Both homes say the same, but amid a checkpoint, and then the journal has records of the page. Otherwise one was damaged later, which costs
 * nothing as long as the other is there. */
int fsck_slot_pages_judge(struct fsck *k)
{
	for (uint32_t page = 0; page < k->geo.total.slot_pages; page++) {
		const struct fsck_slot_page *p = &k->pages[page];

		if (!p->other_damaged && !p->other_older)
			continue;
		if (p->in_journal && p->other_older)
			continue;
		if (p->in_journal)
			fsck_say(
			    k, FSCK_NOTE, "slot-page-damaged",
			    "home %u of slot-entry page %u is incomplete: it was being written",
			    p->other, page);
		else
			fsck_say(k, FSCK_WARNING, "slot-page-damaged",
				 "home %u of slot-entry page %u is %s; the other one, sequence "
				 "%" PRIu64 ", has all of it and is used",
				 p->other, page,
				 p->other_older ? "older: a write was lost" : "damaged", p->seq);
	}
	return 0;
}
