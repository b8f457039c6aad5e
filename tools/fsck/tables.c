/* SPDX-License-Identifier: Apache-2.0 */
/* tables.c - the table pages that slot entries and CKPT records describe. */
#include "src/base/crc.h"
#include "src/base/math.h"
#include "tools/fsck/check.h"

static bool counts_for(const struct fsck *k, uint32_t slot, uint32_t table)
{
	return k->slots[slot].open && !k->slots[slot].lost && k->tables[table].seq != 0 &&
	       k->tables[table].seq >= k->slots[slot].table_seq_min;
}

static bool is_needed(const struct fsck *k, uint32_t table)
{
	struct geo_range slots = geometry_table_page_slots(&k->geo, table);

	for (uint32_t i = 0; i < slots.n; i++)
		if (counts_for(k, slots.first + i, table))
			return true;
	return false;
}

static void table_lost(struct fsck *k, uint32_t table, const char *why)
{
	struct geo_range slots = geometry_table_page_slots(&k->geo, table);

	fsck_say(
	    k, FSCK_ERROR, "table-damaged",
	    "home %u of table page %u %s: which blocks of slots %u to %u hold data is not known",
	    k->tables[table].home, table, why, slots.first, slots.first + slots.n - 1);
}

/* After an orderly close what a slot entry counts must be what its table page holds. */
static void count_slot(struct fsck *k, uint32_t slot, uint32_t table, const struct le32 *values)
{
	const struct fsck_slot *s = &k->slots[slot];
	uint32_t first = geometry_table_value_of(&k->geo, slot);
	uint32_t present_n = 0, bad_n = 0;

	for (uint32_t b = 0; b < k->geo.blocks_per_chunk && counts_for(k, slot, table); b++) {
		uint32_t v = get_le32(values[first + b]);

		present_n += v >= FMT_BLOCK_BAD;
		bad_n += v == FMT_BLOCK_BAD;
	}
	if (present_n != s->present_n || bad_n != s->bad_n)
		fsck_say_slot(
		    k, FSCK_ERROR, "present-count", slot,
		    "slot %u counts %u present and %u bad blocks, its table has %u and %u", slot,
		    s->present_n, s->bad_n, present_n, bad_n);
}

static void check_table(struct fsck *k, uint32_t table, const void *page)
{
	struct geo_range slots = geometry_table_page_slots(&k->geo, table);

	if (is_needed(k, table) && crc32c(page, FMT_PAGE) != k->tables[table].crc) {
		table_lost(k, table, "is damaged");
		return;
	}
	for (uint32_t i = 0; i < slots.n && k->is_clean; i++)
		if (k->slots[slots.first + i].open && !k->slots[slots.first + i].active)
			count_slot(k, slots.first + i, table, page);
}

static void check_unreadable(struct fsck *k, struct geo_range span, uint32_t home)
{
	for (uint32_t i = 0; i < span.n; i++) {
		uint32_t table = span.first + i;
		int r;

		if (k->tables[table].home != home)
			continue;
		r = fsck_read(k, geometry_table_page_offset(&k->geo, table, home), k->io, FMT_PAGE);
		if (!r)
			check_table(k, table, k->io);
		else if (is_needed(k, table))
			table_lost(k, table, "cannot be read");
	}
}

/* Pages of one home that lie together are read together. */
static int check_span(struct fsck *k, struct geo_range span, uint32_t home)
{
	bool any = false;
	int r;

	for (uint32_t i = 0; i < span.n; i++)
		any = any || k->tables[span.first + i].home == home;
	if (!any)
		return 0;
	r = fsck_read(k, geometry_table_page_offset(&k->geo, span.first, home), k->io,
		      (uint64_t)span.n * FMT_PAGE);
	if (r == -EIO)
		check_unreadable(k, span, home);
	else if (r)
		return fsck_error(k, r, "table page %u: %s", span.first, err_text(r));
	for (uint32_t i = 0; i < span.n && !r; i++)
		if (k->tables[span.first + i].home == home)
			check_table(k, span.first + i, k->io + (size_t)i * FMT_PAGE);
	return 0;
}

int fsck_tables(struct fsck *k)
{
	int r = 0;

	for (uint32_t s = 0; s < k->geo.total.slots && k->is_clean; s++)
		if (k->slots[s].active)
			fsck_say_slot(k, FSCK_NOTE, "slot-unverified", s,
				      "slot %u was closed before all its blocks were verified "
				      "after a power loss",
				      s);
	for (uint32_t table = 0; table < k->geo.total.table_pages && !r;) {
		struct geo_group g = geometry_group_of_table_page(&k->geo, table);
		struct geo_range span = {table, MIN(g.base.table_pages + g.n.table_pages - table,
						    (uint32_t)(FSCK_IO_BYTES / FMT_PAGE))};

		r = check_span(k, span, 0);
		if (!r)
			r = check_span(k, span, 1);
		table += span.n;
	}
	return r;
}
