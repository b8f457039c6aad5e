/* SPDX-License-Identifier: Apache-2.0 */
/* Where things lie: nothing overlaps, everything fits, and a superblock gives back what was planned. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "io-path/device/geometry.h"
#include "src/base/err.h"

#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)
#define TIB ((uint64_t)1 << 40)

static void check_group(const struct geometry *geo, const struct geo_group *g, uint64_t end)
{
	uint64_t slots = geometry_group_slots_offset(geo, g), chunk = geometry_chunk_bytes(geo);
	uint32_t last;

	assert_int_equal(slots % chunk, 0);
	assert_true(slots + g->n.slots * chunk <= end);
	/* slot pages, table pages, slots: one after the other, nothing in between but the rounding to a chunk */
	assert_int_equal(geometry_slot_page_offset(geo, g->base.slot_pages, 0), g->offset);
	assert_int_equal(geometry_slot_page_offset(geo, g->base.slot_pages, 1),
			 g->offset + (uint64_t)g->n.slot_pages * FMT_PAGE);
	assert_int_equal(geometry_table_page_offset(geo, g->base.table_pages, 0),
			 g->offset + 2ULL * g->n.slot_pages * FMT_PAGE);
	last = g->base.table_pages + g->n.table_pages - 1;
	assert_true(geometry_table_page_offset(geo, last, 1) + FMT_PAGE <= slots);
	assert_int_equal(geometry_slot_offset(geo, g->base.slots), slots);
	last = g->base.slots + g->n.slots - 1;
	assert_int_equal(geometry_slot_offset(geo, last), slots + (g->n.slots - 1) * chunk);
	assert_int_equal(geometry_slot_page_of(geo, last), g->base.slot_pages + g->n.slot_pages - 1);
	assert_int_equal(geometry_table_page_of(geo, last),
			 g->base.table_pages + g->n.table_pages - 1);
}

static void check_layout(const struct geometry *geo)
{
	uint32_t slot = 0, pages = 0, tables = 0;
	uint64_t end = geo->journal_offset + geo->journal_bytes;

	assert_true(geometry_registry_offset(geo, 1) + geo->registry_half_bytes <=
		    geo->journal_offset);
	while (slot < geo->total.slots) {
		struct geo_group g = geometry_group_of_slot(geo, slot);

		assert_true(g.offset >= end);
		assert_int_equal(g.base.slots, slot);
		assert_int_equal(g.base.slot_pages, pages);
		assert_int_equal(g.base.table_pages, tables);
		check_group(geo, &g, geo->size_bytes);
		end = geometry_group_slots_offset(geo, &g) +
		      ((uint64_t)g.n.slots << geo->chunk_shift);
		slot += g.n.slots;
		pages += g.n.slot_pages;
		tables += g.n.table_pages;
	}
	assert_int_equal(pages, geo->total.slot_pages);
	assert_int_equal(tables, geo->total.table_pages);
	assert_true(end <= geo->size_bytes);
}

/* Each page is described by one slot page, each slot is in one place of one page. */
static void check_pages(const struct geometry *geo)
{
	uint32_t next_slot = 0, next_table = 0, next = 0;

	for (uint32_t p = 0; p < geo->total.slot_pages; p++) {
		struct geo_range slots = geometry_slot_page_slots(geo, p);
		struct geo_range tables = geometry_slot_page_tables(geo, p);

		assert_int_equal(slots.first, next_slot);
		assert_int_equal(tables.first, next_table);
		assert_in_range(slots.n, 1, FMT_SLOTS_PER_PAGE);
		next_slot += slots.n;
		next_table += tables.n;
		for (uint32_t t = tables.first; t < tables.first + tables.n; t++)
			assert_int_equal(geometry_slot_page_of_table(geo, t), p);
	}
	for (uint32_t t = 0; t < geo->total.table_pages; t++) {
		struct geo_range slots = geometry_table_page_slots(geo, t);

		assert_int_equal(slots.first, next);
		for (uint32_t s = slots.first; s < slots.first + slots.n; s++) {
			assert_int_equal(geometry_table_page_of(geo, s), t);
			assert_int_equal(geometry_table_value_of(geo, s),
					 (s - slots.first) * geo->blocks_per_chunk);
		}
		next += slots.n;
	}
	assert_int_equal(next_slot, geo->total.slots);
	assert_int_equal(next_table, geo->total.table_pages);
	assert_int_equal(next, geo->total.slots);
}

static void any_size_is_laid_out_soundly(void **state)
{
	static const uint64_t sizes[] = {128 * MIB,
					 129 * MIB + 4096,
					 GIB,
					 8 * GIB,
					 8 * GIB + 9 * MIB,
					 16 * GIB + 5 * MIB,
					 100 * GIB,
					 TIB,
					 3 * TIB + 7 * GIB + 123 * 4096,
					 20 * TIB + 17 * MIB};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (uint32_t shift = CHUNK_SHIFT_FLASH; shift <= CHUNK_SHIFT_DISK; shift += 2) {
			struct geometry geo;

			assert_int_equal(geometry_plan(sizes[i], shift, &geo), 0);
			check_layout(&geo);
			if (sizes[i] <= 100 * GIB)
				check_pages(&geo);
			/* the overhead the design promises, plus what small devices pay */
			if (sizes[i] >= 100 * GIB)
				assert_true(geo.total.slots >= (sizes[i] >> shift) / 1000 * 995);
		}
}

static void sizes_are_those_of_the_format(void **state)
{
	struct geometry geo;

	(void)state;
	assert_int_equal(geometry_plan(128 * MIB, CHUNK_SHIFT_FLASH, &geo), 0);
	assert_int_equal(geo.journal_bytes, 8 * MIB);
	assert_int_equal(geo.registry_half_bytes, 4 * MIB);
	assert_int_equal(geometry_plan(TIB, CHUNK_SHIFT_FLASH, &geo), 0);
	assert_int_equal(geo.journal_bytes, 64 * MIB);
	assert_int_equal(geo.registry_half_bytes, 512 * MIB);
	assert_int_equal(geometry_plan(4 * TIB, CHUNK_SHIFT_FLASH, &geo), 0);
	assert_int_equal(geo.journal_bytes, 256 * MIB);
	assert_int_equal(geometry_plan(128 * MIB - 1, CHUNK_SHIFT_FLASH, &geo), -EINVAL);
	assert_int_equal(geometry_plan(GIB, 21, &geo), -EINVAL);
	assert_int_equal(geometry_plan(UINT64_MAX, CHUNK_SHIFT_FLASH, &geo), -EINVAL);
	assert_int_equal(geometry_plan(8192 * TIB, CHUNK_SHIFT_FLASH, &geo), -EINVAL);
}

static void a_superblock_gives_back_what_was_planned(void **state)
{
	struct fmt_superblock sb = {};
	struct geometry geo, back;

	(void)state;
	assert_int_equal(geometry_plan(100 * GIB, CHUNK_SHIFT_FLASH, &geo), 0);
	geometry_store(&geo, &sb);
	assert_int_equal(geometry_load(&sb, &back), 0);
	assert_memory_equal(&geo, &back, sizeof(geo));
}

/* Grown twice: groups never cross segments, numbers go on. */
static void segments_follow_each_other(void **state)
{
	struct fmt_superblock sb = {};
	struct geometry geo, grown;

	(void)state;
	assert_int_equal(geometry_plan(9 * GIB, CHUNK_SHIFT_DISK, &geo), 0);
	geometry_store(&geo, &sb);
	sb.size_bytes = to_le64(40 * GIB);
	sb.segments_n = to_le16(3);
	sb.segments[1].offset = to_le64(9 * GIB);
	sb.segments[1].bytes = to_le64(20 * GIB);
	sb.segments[2].offset = to_le64(30 * GIB);
	sb.segments[2].bytes = to_le64(10 * GIB);
	assert_int_equal(geometry_load(&sb, &grown), 0);
	check_layout(&grown);
	check_pages(&grown);
	assert_int_equal(geometry_slot_offset(&grown, geo.total.slots - 1),
			 geometry_slot_offset(&geo, geo.total.slots - 1));
	sb.segments[2].offset = to_le64(28 * GIB); /* over the second */
	assert_int_equal(geometry_load(&sb, &grown), -E_FORMAT);
	sb.segments[2].offset = to_le64(31 * GIB); /* past the end */
	assert_int_equal(geometry_load(&sb, &grown), -E_FORMAT);
	sb.segments_n = to_le16(FMT_SEGMENTS_MAX + 1);
	assert_int_equal(geometry_load(&sb, &grown), -E_FORMAT);
	sb.segments_n = to_le16(0);
	assert_int_equal(geometry_load(&sb, &grown), -E_FORMAT);
}

/* Whatever the numbers of a superblock are, they are refused or make a layout inside the device. */
static void random_numbers_do_no_harm(void **state)
{
	uint64_t x = 88172645463325252ULL;

	(void)state;
	for (int i = 0; i < 200000; i++) {
		struct fmt_superblock sb = {};
		struct geometry geo;
		uint8_t *bytes = (uint8_t *)&sb;

		assert_int_equal(geometry_plan(9 * GIB, CHUNK_SHIFT_FLASH, &geo), 0);
		geometry_store(&geo, &sb);
		for (int k = 0; k < 3; k++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			bytes[64 + x % 264] = (uint8_t)(x >> 32);
		}
		if (geometry_load(&sb, &geo))
			continue;
		assert_true(geo.total.slots > 0);
		assert_true(geometry_slot_offset(&geo, geo.total.slots - 1) +
				geometry_chunk_bytes(&geo) <=
			    geo.size_bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(any_size_is_laid_out_soundly),
	    cmocka_unit_test(sizes_are_those_of_the_format),
	    cmocka_unit_test(a_superblock_gives_back_what_was_planned),
	    cmocka_unit_test(segments_follow_each_other),
	    cmocka_unit_test(random_numbers_do_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
