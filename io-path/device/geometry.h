/* SPDX-License-Identifier: Apache-2.0 */
/* geometry.h - where everything lies on a device: pure arithmetic from sizes, no I/O.
 *
 * Slots, slot-entry pages and table pages are numbered over the whole device, group after group. A group's last slot-entry page and table
 * page may be partly used, so that page numbers are not slot numbers divided: always ask here. */
#ifndef STRATA_IO_PATH_DEVICE_GEOMETRY_H
#define STRATA_IO_PATH_DEVICE_GEOMETRY_H

#include <stdint.h>

#include "io-path/device/format.h"

/* Counts of one kind, for a group and for the device before it. */
struct geo_counts {
	uint32_t slots, slot_pages, table_pages;
};

struct geo_segment {
	uint64_t offset, bytes;
	struct geo_counts base;	 /* numbers of its first ones */
	struct geo_counts total; /* how many it has */
	struct geo_counts full;	 /* in each group of 8 GiB; the last group may have fewer */
	uint32_t groups_n;
};

struct geometry {
	uint32_t chunk_shift;
	uint32_t blocks_per_chunk;
	uint32_t slots_per_table; /* page */
	uint64_t size_bytes;
	uint64_t registry_half_bytes;
	uint64_t journal_offset, journal_bytes;
	uint32_t ring_blocks; /* of 4 KiB in the journal */
	uint32_t segments_n;
	struct geo_segment segments[FMT_SEGMENTS_MAX];
	struct geo_counts total;
};

/* One group, wherever a slot or page of it was asked for. */
struct geo_group {
	uint64_t offset;
	struct geo_counts base, n;
};

/* Lays a new device out. -EINVAL: too small, an unknown chunk size, or more slots than 32 bits number. */
int geometry_plan(uint64_t size_bytes, uint32_t chunk_shift, struct geometry *ret_geo);

/* From a superblock whose checksum is right but whose contents may be anything. -E_FORMAT when they make no sense. */
int geometry_load(const struct fmt_superblock *sb, struct geometry *ret_geo);
void geometry_store(const struct geometry *geo, struct fmt_superblock *sb);

static inline uint64_t geometry_chunk_bytes(const struct geometry *geo)
{
	return 1ULL << geo->chunk_shift;
}

static inline uint64_t geometry_registry_offset(const struct geometry *geo, uint32_t half)
{
	return FMT_REGISTRY_OFFSET + half * geo->registry_half_bytes;
}

static inline uint64_t geometry_journal_offset(const struct geometry *geo, uint64_t lsn)
{
	return geo->journal_offset + lsn % geo->ring_blocks * FMT_PAGE;
}

/* The numbers asked for must exist (below geo->total). */
struct geo_group geometry_group_of_slot(const struct geometry *geo, uint32_t slot);
struct geo_group geometry_group_of_slot_page(const struct geometry *geo, uint32_t page);
struct geo_group geometry_group_of_table_page(const struct geometry *geo, uint32_t page);
uint64_t geometry_group_slots_offset(const struct geometry *geo, const struct geo_group *g);
uint64_t geometry_group_metadata_bytes(const struct geometry *geo, const struct geo_group *g);

uint64_t geometry_slot_offset(const struct geometry *geo, uint32_t slot);
uint64_t geometry_slot_page_offset(const struct geometry *geo, uint32_t page, uint32_t home);
uint64_t geometry_table_page_offset(const struct geometry *geo, uint32_t page, uint32_t home);

uint32_t geometry_slot_page_of(const struct geometry *geo, uint32_t slot);
/* Where the slot's values begin: the table page, and the index in it. */
struct geo_table_place {
	uint32_t page, value;
};
struct geo_table_place geometry_table_place_of(const struct geometry *geo, uint32_t slot);
uint32_t geometry_table_page_of(const struct geometry *geo, uint32_t slot);
/* Index of the slot's first value in its table page. */
uint32_t geometry_table_value_of(const struct geometry *geo, uint32_t slot);
uint32_t geometry_slot_page_of_table(const struct geometry *geo, uint32_t table_page);

/* The slots of a page, and the table pages described by a slot-entry page: first and how many. */
struct geo_range {
	uint32_t first, n;
};
struct geo_range geometry_slot_page_slots(const struct geometry *geo, uint32_t page);
struct geo_range geometry_slot_page_tables(const struct geometry *geo, uint32_t page);
struct geo_range geometry_table_page_slots(const struct geometry *geo, uint32_t page);

#endif
