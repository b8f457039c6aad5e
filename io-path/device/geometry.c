/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/device/geometry.h"

#include "src/base/err.h"
#include "src/base/math.h"

enum { MIB = 1 << 20, REGISTRY_HALF_MIN = 4 * MIB, JOURNAL_MIN = 4 * MIB };
#define JOURNAL_PER_TIB ((uint64_t)64 * MIB)
#define DEVICE_MIN	((uint64_t)128 * MIB)
#define TIB		((uint64_t)1 << 40)

static uint64_t group_metadata_bytes(const struct geometry *geo, struct geo_counts n)
{
	return round_up(2ULL * FMT_PAGE * ((uint64_t)n.slot_pages + n.table_pages),
			geometry_chunk_bytes(geo));
}

static struct geo_counts counts_of(const struct geometry *geo, uint32_t slots_n)
{
	return (struct geo_counts){
	    .slots = slots_n,
	    .slot_pages = (uint32_t)div_up(slots_n, FMT_SLOTS_PER_PAGE),
	    .table_pages = (uint32_t)div_up(slots_n, geo->slots_per_table),
	};
}

/* The largest slot count whose metadata and slots fit. */
static struct geo_counts group_plan(const struct geometry *geo, uint64_t bytes)
{
	uint32_t slots_n = (uint32_t)(bytes >> geo->chunk_shift);

	while (slots_n > 0) {
		struct geo_counts n = counts_of(geo, slots_n);

		if (group_metadata_bytes(geo, n) + ((uint64_t)slots_n << geo->chunk_shift) <= bytes)
			return n;
		slots_n--;
	}
	return (struct geo_counts){};
}

static int segment_plan(struct geometry *geo, uint64_t offset, uint64_t bytes)
{
	struct geo_segment *s = &geo->segments[geo->segments_n];
	uint64_t full_n = bytes / FMT_GROUP_BYTES, slots_n;
	struct geo_counts last;

	*s = (struct geo_segment){.offset = offset, .bytes = bytes, .base = geo->total};
	s->full = group_plan(geo, FMT_GROUP_BYTES);
	last = group_plan(geo, bytes % FMT_GROUP_BYTES);
	slots_n = full_n * s->full.slots + last.slots + geo->total.slots;
	if (slots_n >= UINT32_MAX || slots_n == geo->total.slots)
		return -EINVAL;
	s->groups_n = (uint32_t)full_n + (last.slots > 0);
	s->total.slots = (uint32_t)full_n * s->full.slots + last.slots;
	s->total.slot_pages = (uint32_t)full_n * s->full.slot_pages + last.slot_pages;
	s->total.table_pages = (uint32_t)full_n * s->full.table_pages + last.table_pages;
	geo->total.slots += s->total.slots;
	geo->total.slot_pages += s->total.slot_pages;
	geo->total.table_pages += s->total.table_pages;
	geo->segments_n++;
	return 0;
}

static bool chunk_shift_set(struct geometry *geo, uint32_t chunk_shift)
{
	if (chunk_shift != CHUNK_SHIFT_FLASH && chunk_shift != CHUNK_SHIFT_DISK)
		return false;
	geo->chunk_shift = chunk_shift;
	geo->blocks_per_chunk = 1U << (chunk_shift - BLOCK_SHIFT);
	geo->slots_per_table = FMT_VALUES_PER_PAGE / geo->blocks_per_chunk;
	return true;
}

int geometry_plan(uint64_t size_bytes, uint32_t chunk_shift, struct geometry *ret_geo)
{
	struct geometry geo = {.size_bytes = round_down(size_bytes, FMT_PAGE)};
	uint64_t first;
	int r;

	if (size_bytes < DEVICE_MIN || size_bytes > INT64_MAX || !chunk_shift_set(&geo, chunk_shift))
		return -EINVAL;
	geo.registry_half_bytes =
	    round_up(MAX((uint64_t)REGISTRY_HALF_MIN, size_bytes / 2048), MIB);
	geo.journal_offset = FMT_REGISTRY_OFFSET + 2 * geo.registry_half_bytes;
	geo.journal_bytes = MAX(JOURNAL_PER_TIB, size_bytes / (TIB / JOURNAL_PER_TIB));
	geo.journal_bytes = MIN(geo.journal_bytes, size_bytes / 16);
	geo.journal_bytes = MAX((uint64_t)JOURNAL_MIN, round_down(geo.journal_bytes, MIB));
	geo.ring_blocks = (uint32_t)(geo.journal_bytes / FMT_PAGE);
	first = round_up(geo.journal_offset + geo.journal_bytes, geometry_chunk_bytes(&geo));
	r = segment_plan(&geo, first,
			 round_down(geo.size_bytes - first, geometry_chunk_bytes(&geo)));
	if (r)
		return r;
	*ret_geo = geo;
	return 0;
}

int geometry_load(const struct fmt_superblock *sb, struct geometry *ret_geo)
{
	struct geometry geo = {.size_bytes = get_le64(sb->size_bytes)};
	uint64_t end = FMT_REGISTRY_OFFSET, chunk;
	uint32_t segments_n = get_le16(sb->segments_n);

	if (geo.size_bytes > INT64_MAX || geo.size_bytes % FMT_PAGE ||
	    !chunk_shift_set(&geo, get_le32(sb->chunk_shift)))
		return -E_FORMAT;
	chunk = geometry_chunk_bytes(&geo);
	geo.registry_half_bytes = get_le64(sb->registry_half_bytes);
	geo.journal_offset = get_le64(sb->journal_offset);
	geo.journal_bytes = get_le64(sb->journal_bytes);
	if (geo.registry_half_bytes < FMT_PAGE || geo.registry_half_bytes % FMT_PAGE ||
	    geo.registry_half_bytes > geo.size_bytes / 2)
		return -E_FORMAT;
	end += 2 * geo.registry_half_bytes;
	if (geo.journal_offset < end || geo.journal_offset % FMT_PAGE ||
	    geo.journal_bytes < JOURNAL_MIN || geo.journal_bytes % FMT_PAGE ||
	    geo.journal_bytes / FMT_PAGE > UINT32_MAX / 2 ||
	    !range_inside(geo.journal_offset, geo.journal_bytes, geo.size_bytes))
		return -E_FORMAT;
	geo.ring_blocks = (uint32_t)(geo.journal_bytes / FMT_PAGE);
	end = geo.journal_offset + geo.journal_bytes;
	if (segments_n == 0 || segments_n > FMT_SEGMENTS_MAX)
		return -E_FORMAT;
	for (uint32_t i = 0; i < segments_n; i++) {
		uint64_t offset = get_le64(sb->segments[i].offset),
			 bytes = get_le64(sb->segments[i].bytes);

		if (offset < end || offset % chunk || bytes % chunk ||
		    !range_inside(offset, bytes, geo.size_bytes))
			return -E_FORMAT;
		if (segment_plan(&geo, offset, bytes))
			return -E_FORMAT;
		end = offset + bytes;
	}
	*ret_geo = geo;
	return 0;
}

void geometry_store(const struct geometry *geo, struct fmt_superblock *sb)
{
	sb->size_bytes = to_le64(geo->size_bytes);
	sb->chunk_shift = to_le32(geo->chunk_shift);
	sb->registry_half_bytes = to_le64(geo->registry_half_bytes);
	sb->journal_offset = to_le64(geo->journal_offset);
	sb->journal_bytes = to_le64(geo->journal_bytes);
	sb->segments_n = to_le16((uint16_t)geo->segments_n);
	for (uint32_t i = 0; i < geo->segments_n; i++) {
		sb->segments[i].offset = to_le64(geo->segments[i].offset);
		sb->segments[i].bytes = to_le64(geo->segments[i].bytes);
	}
}

/* ---- groups ----------------------------------------------------------------------------------------------------------- */

static struct geo_group group_at(const struct geometry *geo, const struct geo_segment *s,
				 uint32_t index)
{
	struct geo_counts before = {index * s->full.slots, index * s->full.slot_pages,
				    index * s->full.table_pages};
	uint32_t left = s->total.slots - before.slots;

	check(index < s->groups_n);
	return (struct geo_group){
	    .offset = s->offset + index * FMT_GROUP_BYTES,
	    .base = {s->base.slots + before.slots, s->base.slot_pages + before.slot_pages,
		     s->base.table_pages + before.table_pages},
	    .n = left >= s->full.slots ? s->full : counts_of(geo, left),
	};
}

/* The segment is the last one whose first slot (page) is not above the number asked for. */
#define GROUP_OF(geo, number, kind)                                          \
	({                                                                   \
		const struct geo_segment *s_ = &(geo)->segments[0];          \
                                                                             \
		check((number) < (geo)->total.kind);                         \
		while ((number)-s_->base.kind >= s_->total.kind)             \
			s_++;                                                \
		group_at(geo, s_, ((number)-s_->base.kind) / s_->full.kind); \
	})

struct geo_group geometry_group_of_slot(const struct geometry *geo, uint32_t slot)
{
	return GROUP_OF(geo, slot, slots);
}

struct geo_group geometry_group_of_slot_page(const struct geometry *geo, uint32_t page)
{
	return GROUP_OF(geo, page, slot_pages);
}

struct geo_group geometry_group_of_table_page(const struct geometry *geo, uint32_t page)
{
	return GROUP_OF(geo, page, table_pages);
}

uint64_t geometry_group_metadata_bytes(const struct geometry *geo, const struct geo_group *g)
{
	return group_metadata_bytes(geo, g->n);
}

uint64_t geometry_group_slots_offset(const struct geometry *geo, const struct geo_group *g)
{
	return g->offset + group_metadata_bytes(geo, g->n);
}

/* ---- slots and pages -------------------------------------------------------------------------------------------------- */

uint64_t geometry_slot_offset(const struct geometry *geo, uint32_t slot)
{
	struct geo_group g = geometry_group_of_slot(geo, slot);

	return geometry_group_slots_offset(geo, &g) +
	       ((uint64_t)(slot - g.base.slots) << geo->chunk_shift);
}

uint64_t geometry_slot_page_offset(const struct geometry *geo, uint32_t page, uint32_t home)
{
	struct geo_group g = geometry_group_of_slot_page(geo, page);

	return g.offset + (uint64_t)FMT_PAGE * (home * g.n.slot_pages + (page - g.base.slot_pages));
}

uint64_t geometry_table_page_offset(const struct geometry *geo, uint32_t page, uint32_t home)
{
	struct geo_group g = geometry_group_of_table_page(geo, page);

	return g.offset + (uint64_t)FMT_PAGE * (2ULL * g.n.slot_pages + home * g.n.table_pages +
						(page - g.base.table_pages));
}

uint32_t geometry_slot_page_of(const struct geometry *geo, uint32_t slot)
{
	struct geo_group g = geometry_group_of_slot(geo, slot);

	return g.base.slot_pages + (slot - g.base.slots) / FMT_SLOTS_PER_PAGE;
}

struct geo_table_place geometry_table_place_of(const struct geometry *geo, uint32_t slot)
{
	struct geo_group g = geometry_group_of_slot(geo, slot);
	uint32_t n = slot - g.base.slots;

	return (struct geo_table_place){g.base.table_pages + n / geo->slots_per_table,
					n % geo->slots_per_table * geo->blocks_per_chunk};
}

uint32_t geometry_table_page_of(const struct geometry *geo, uint32_t slot)
{
	return geometry_table_place_of(geo, slot).page;
}

uint32_t geometry_table_value_of(const struct geometry *geo, uint32_t slot)
{
	return geometry_table_place_of(geo, slot).value;
}

uint32_t geometry_slot_page_of_table(const struct geometry *geo, uint32_t table_page)
{
	struct geo_group g = geometry_group_of_table_page(geo, table_page);

	return g.base.slot_pages +
	       (table_page - g.base.table_pages) / (FMT_SLOTS_PER_PAGE / geo->slots_per_table);
}

static struct geo_range range_of(uint32_t base, uint32_t n, uint32_t page, uint32_t per_page)
{
	return (struct geo_range){base + page * per_page, MIN(per_page, n - page * per_page)};
}

struct geo_range geometry_slot_page_slots(const struct geometry *geo, uint32_t page)
{
	struct geo_group g = geometry_group_of_slot_page(geo, page);

	return range_of(g.base.slots, g.n.slots, page - g.base.slot_pages, FMT_SLOTS_PER_PAGE);
}

struct geo_range geometry_slot_page_tables(const struct geometry *geo, uint32_t page)
{
	struct geo_group g = geometry_group_of_slot_page(geo, page);

	return range_of(g.base.table_pages, g.n.table_pages, page - g.base.slot_pages,
			FMT_SLOTS_PER_PAGE / geo->slots_per_table);
}

struct geo_range geometry_table_page_slots(const struct geometry *geo, uint32_t page)
{
	struct geo_group g = geometry_group_of_table_page(geo, page);

	return range_of(g.base.slots, g.n.slots, page - g.base.table_pages, geo->slots_per_table);
}
