/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes on the device: the same for ever (tests/golden/device-*.txt), and no flipped bit gets through.
 *
 * STRATA_GOLDEN_WRITE=1 writes the golden files anew: only for a new version of the format. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io-path/device/codec.h"
#include "src/base/crc.h"
#include "src/base/err.h"

enum { RING = 2048 };

static struct uuid device, other;

static int setup(void **state)
{
	(void)state;
	for (int i = 0; i < 16; i++) {
		device.b[i] = (uint8_t)(0xa0 + i);
		other.b[i] = (uint8_t)(0x50 + i);
	}
	return 0;
}

/* ---- one page of each kind -------------------------------------------------------------------------------------------- */

static void make_superblock(struct fmt_superblock *sb)
{
	memset(sb, 0, sizeof(*sb));
	sb->sequence = to_le64(7);
	sb->device = device;
	sb->cluster = other;
	sb->size_bytes = to_le64(0x123456789000);
	sb->chunk_shift = to_le32(20);
	sb->number = to_le16(0x1234);
	sb->segments_n = to_le16(1);
	sb->registry_half_bytes = to_le64(4 << 20);
	sb->journal_offset = to_le64(9 << 20);
	sb->journal_bytes = to_le64(64 << 20);
	sb->created_wall_ns = to_le64(0x1122334455667788);
	sb->unresolved_blocks = to_le64(3);
	sb->segments[0].offset = to_le64(73 << 20);
	sb->segments[0].bytes = to_le64(1 << 30);
	fmt_superblock_prepare(sb, FMT_SB_B_OFFSET);
}

static const struct fmt_slot_page_id slot_id = {.device = &device, .page_no = 5, .home = 1};

static void make_slot_page(struct fmt_slot_page *p)
{
	memset(p, 0, sizeof(*p));
	p->seq = to_le64(0x99);
	p->from_lsn = to_le64(0x1001);
	for (uint32_t i = 0; i < FMT_SLOTS_PER_PAGE; i += 3) {
		p->slots[i].cgen = to_le64(1000 + i);
		p->slots[i].epoch = to_le64(9);
		p->slots[i].wgen = to_le64(2);
		p->slots[i].table_seq_min = to_le64(4);
		p->slots[i].volume = to_le32(0x11);
		p->slots[i].layer = to_le32(0x22);
		p->slots[i].chunk = to_le32(0x33 + i);
		p->slots[i].present_n = to_le16(200);
		p->slots[i].bad_n = to_le16(1);
		p->slots[i].flags = FMT_SLOT_OPEN | FMT_SLOT_ACTIVE | FMT_SLOT_COUNTED;
	}
	p->slots[1].cgen = to_le64(77); /* free, and remembers */
	p->tables[0].seq = to_le64(3);
	p->tables[0].crc = to_le32(0xdeadbeef);
	p->tables[0].home = 1;
	fmt_slot_page_prepare(p, &slot_id);
}

struct packer {
	uint8_t *at;
};

static void pack(struct packer *p, void *rec, size_t len, uint8_t type)
{
	struct fmt_record *h = rec;

	h->type = type;
	h->len_bytes = to_le16((uint16_t)len);
	memcpy(p->at, rec, len);
	p->at += len;
}

static void pack_layer(struct packer *p)
{
	union {
		struct fmt_rec_layer rec;
		uint8_t room[64];
	} u = {};

	u.rec.layer = to_le32(4);
	u.rec.parent = to_le32(3);
	u.rec.volume = to_le32(2);
	u.rec.flags = to_le32(FMT_LAYER_FROZEN | FMT_LAYER_SECTOR_512 | 1 << FMT_LAYER_CACHE_SHIFT);
	u.rec.size_bytes = to_le64(1ULL << 40);
	u.rec.commit = to_le64(0x5566);
	u.rec.name_len = 5;
	u.rec.snapshot_len = 4;
	memcpy(u.rec.names, "vol-1snap", 9);
	pack(p, &u, fmt_layer_len(5, 4), FMT_REC_LAYER);
}

static void pack_epoch(struct packer *p)
{
	struct fmt_rec_epoch rec = {.volume = to_le32(2),
				    .epoch = to_le64(0x77),
				    .commit = to_le64(0x5567),
				    .head = to_le32(4)};

	pack(p, &rec, sizeof(rec), FMT_REC_EPOCH);
}

static void pack_drop(struct packer *p)
{
	struct fmt_rec_layer_drop rec = {.layer = to_le32(0x66), .commit = to_le64(0x5568)};

	pack(p, &rec, sizeof(rec), FMT_REC_LAYER_DROP);
}

static const struct fmt_registry_page_id registry_id = {.device = &device, .page_no = 2, .half = 1};

static void make_registry_page(struct fmt_registry_page *p)
{
	struct packer k = {p->records};

	memset(p, 0, sizeof(*p));
	pack_epoch(&k);
	pack_layer(&k);
	p->used_bytes = to_le16((uint16_t)(k.at - (uint8_t *)p));
	p->pages_n = to_le32(3);
	p->seq = to_le64(8);
	p->from_lsn = to_le64(0x1234);
	fmt_registry_page_prepare(p, &registry_id);
}

static void pack_blocks(struct packer *p)
{
	union {
		struct fmt_rec_blocks rec;
		uint8_t room[64];
	} u = {};

	u.rec.slot = to_le32(0x101);
	u.rec.cgen = to_le64(0x202);
	u.rec.first = to_le16(0x30);
	u.rec.n = to_le16(3);
	u.rec.values[0] = to_le32(FMT_BLOCK_ZERO);
	u.rec.values[1] = to_le32(0xcafe0001);
	u.rec.values[2] = to_le32(FMT_BLOCK_BAD);
	pack(p, &u, fmt_blocks_len(3), FMT_REC_BLOCKS);
}

static void make_journal_block(struct fmt_journal_block *b)
{
	struct packer k = {b->records};
	struct fmt_rec_boot boot = {.reason = to_le32(FMT_BOOT_RING),
				    .incarnation = to_le64(6),
				    .boot_id = other,
				    .ring_nonce = device,
				    .wall_ns = to_le64(0x1020304050)};
	struct fmt_rec_alloc alloc = {.slot = to_le32(0x101),
				      .cgen = to_le64(0x202),
				      .epoch = to_le64(9),
				      .wgen = to_le64(1),
				      .table_seq_min = to_le64(12),
				      .volume = to_le32(2),
				      .layer = to_le32(4),
				      .chunk = to_le32(0x4444)};
	struct fmt_rec_free release = {.slot = to_le32(0x102), .cgen = to_le64(0x201)};
	struct fmt_rec_activate activate = {.slot = to_le32(0x103),
					    .cgen = to_le64(0x200),
					    .wgen = to_le64(5)};
	struct fmt_rec_retire retire = {.slot = to_le32(0x104), .cgen = to_le64(0x1ff)};
	struct fmt_rec_relabel relabel = {.slot = to_le32(0x105),
					  .cgen = to_le64(0x1fe),
					  .volume = to_le32(2),
					  .layer = to_le32(3),
					  .chunk = to_le32(1)};
	struct fmt_rec_ckpt ckpt = {.page_no = to_le32(0x40),
				    .seq = to_le64(13),
				    .from_lsn = to_le64(0xff0),
				    .crc = to_le32(0x12345678),
				    .kind = FMT_CKPT_TABLE,
				    .home = 1};
	struct fmt_rec_clean clean = {};

	memset(b, 0, sizeof(*b));
	pack(&k, &boot, sizeof(boot), FMT_REC_BOOT);
	pack(&k, &alloc, sizeof(alloc), FMT_REC_ALLOC);
	pack_blocks(&k);
	pack(&k, &release, sizeof(release), FMT_REC_FREE);
	pack(&k, &activate, sizeof(activate), FMT_REC_ACTIVATE);
	pack(&k, &retire, sizeof(retire), FMT_REC_RETIRE);
	pack(&k, &relabel, sizeof(relabel), FMT_REC_RELABEL);
	pack(&k, &ckpt, sizeof(ckpt), FMT_REC_CKPT);
	pack_epoch(&k);
	pack_layer(&k);
	pack_drop(&k);
	pack(&k, &clean, sizeof(clean), FMT_REC_CLEAN);
	b->used_bytes = to_le16((uint16_t)(k.at - (uint8_t *)b));
	b->prev_crc = to_le32(0xabcdef01);
	b->incarnation = to_le64(6);
	b->lsn = to_le64(RING + 17);
	b->tail = to_le64(RING - 1);
	b->stable_lsn = to_le64(RING + 3);
	b->meta_commit = to_le64(0x5567);
	b->unresolved_blocks = to_le64(3);
	b->ring_nonce = device;
	fmt_journal_block_prepare(b, &device);
}

/* ---- the same for ever ------------------------------------------------------------------------------------------------ */

/* Lines of "offset: 16 bytes"; lines of zeros are left out. */
static void golden_write(const char *path, const uint8_t *page)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	for (int at = 0; at < FMT_PAGE; at += 16) {
		if (bytes_are_zero(page + at, 16))
			continue;
		fprintf(f, "%04x:", at);
		for (int i = 0; i < 16; i++)
			fprintf(f, " %02x", page[at + i]);
		fprintf(f, "\n");
	}
	fclose(f);
}

static void golden_read(const char *path, uint8_t *page)
{
	FILE *f = fopen(path, "r");
	unsigned at, byte;

	assert_non_null(f);
	memset(page, 0, FMT_PAGE);
	while (fscanf(f, "%x:", &at) == 1)
		for (unsigned i = 0; i < 16; i++) {
			assert_int_equal(fscanf(f, " %x", &byte), 1);
			assert_true(at + i < FMT_PAGE);
			page[at + i] = (uint8_t)byte;
		}
	fclose(f);
}

static void check_golden(const char *name, const void *page)
{
	static uint8_t golden[FMT_PAGE];
	char path[128];

	snprintf(path, sizeof(path), "tests/golden/device-%s.txt", name);
	if (getenv("STRATA_GOLDEN_WRITE"))
		golden_write(path, page);
	golden_read(path, golden);
	assert_memory_equal(page, golden, FMT_PAGE);
}

static void the_bytes_are_those_of_the_golden_files(void **state)
{
	static union {
		struct fmt_superblock sb;
		struct fmt_slot_page slots;
		struct fmt_registry_page registry;
		struct fmt_journal_block journal;
	} u;

	(void)state;
	make_superblock(&u.sb);
	check_golden("superblock", &u);
	make_slot_page(&u.slots);
	check_golden("slot-page", &u);
	make_registry_page(&u.registry);
	check_golden("registry-page", &u);
	make_journal_block(&u.journal);
	check_golden("journal-block", &u);
}

static void block_values_are_keyed(void **state)
{
	uint8_t key[12] = {5};
	uint32_t k;

	(void)state;
	key[8] = 9;
	k = crc32c(key, sizeof(key));
	assert_int_equal(fmt_block_value(0x12345678, 5, 9), 0x12345678 ^ k);
	assert_int_not_equal(fmt_block_value(1, 5, 9), fmt_block_value(1, 6, 9));
	assert_int_not_equal(fmt_block_value(1, 5, 9), fmt_block_value(1, 5, 10));
	/* never one of the special values */
	for (uint32_t v = 0; v < 4; v++)
		assert_int_equal(fmt_block_value(v ^ k, 5, 9), v | 0x80000000u);
}

/* ---- no flipped bit gets through -------------------------------------------------------------------------------------- */

static int check_superblock(const void *p)
{
	return fmt_superblock_check(p, FMT_SB_B_OFFSET);
}

static int check_slot_page(const void *p)
{
	return fmt_slot_page_check(p, &slot_id);
}

static int check_registry_page(const void *p)
{
	return fmt_registry_page_check(p, &registry_id);
}

static int check_journal_block(const void *p)
{
	return fmt_journal_block_check(p, &device, 17, RING);
}

static void flip_each_byte(uint8_t *page, int (*page_check)(const void *p))
{
	assert_int_equal(page_check(page), 0);
	for (uint32_t at = 0; at < FMT_PAGE; at++)
		for (uint8_t bit = 1; bit; bit = (uint8_t)(bit << 1)) {
			page[at] ^= bit;
			assert_int_equal(page_check(page), -E_FORMAT);
			page[at] ^= bit;
		}
	assert_int_equal(page_check(page), 0);
}

static void every_flipped_bit_is_noticed(void **state)
{
	static uint8_t page[FMT_PAGE];

	(void)state;
	make_superblock((void *)page);
	flip_each_byte(page, check_superblock);
	make_slot_page((void *)page);
	flip_each_byte(page, check_slot_page);
	make_registry_page((void *)page);
	flip_each_byte(page, check_registry_page);
	make_journal_block((void *)page);
	flip_each_byte(page, check_journal_block);
}

/* Makes the checksum right again after bytes were changed. */
static void reseal(uint8_t *page, size_t crc_at)
{
	struct le32 crc;

	memset(page + crc_at, 0, sizeof(crc));
	crc = to_le32(crc32c(page, FMT_PAGE));
	memcpy(page + crc_at, &crc, sizeof(crc));
}

/* Of any other version, earlier or later, nothing is believed; and it is told from damage. */
static void pages_of_another_version_are_told_from_damage(void **state)
{
	static uint8_t page[FMT_PAGE];

	(void)state;
	for (int other_version = -1; other_version <= 1; other_version += 2) {
		uint8_t version = (uint8_t)(FMT_VERSION + other_version);

		make_superblock((void *)page);
		page[offsetof(struct fmt_superblock, version)] = version;
		assert_int_equal(check_superblock(page), -E_FORMAT);
		reseal(page, offsetof(struct fmt_superblock, crc));
		assert_int_equal(check_superblock(page), -E_VERSION);
		make_slot_page((void *)page);
		page[offsetof(struct fmt_slot_page, version)] = version;
		reseal(page, offsetof(struct fmt_slot_page, crc));
		assert_int_equal(check_slot_page(page), -E_VERSION);
		make_registry_page((void *)page);
		page[offsetof(struct fmt_registry_page, version)] = version;
		reseal(page, offsetof(struct fmt_registry_page, crc));
		assert_int_equal(check_registry_page(page), -E_VERSION);
		make_journal_block((void *)page);
		page[offsetof(struct fmt_journal_block, version)] = version;
		reseal(page, offsetof(struct fmt_journal_block, crc));
		assert_int_equal(check_journal_block(page), -E_VERSION);
	}
}

static void flags_of_layers_are_known_ones(void **state)
{
	union {
		struct fmt_rec_layer rec;
		uint8_t room[64];
	} u;
	struct packer k = {u.room};

	(void)state;
	memset(&u, 0, sizeof(u));
	pack_layer(&k);
	for (uint32_t flags = 0; flags < 256; flags++) {
		bool is_known = !(flags & (8 | 64 | 128)) && flags >> FMT_LAYER_CACHE_SHIFT < 3;

		u.rec.flags = to_le32(flags);
		assert_int_equal(fmt_record_check(&u.rec.h, sizeof(u)), is_known ? 0 : -E_FORMAT);
	}
}

static void pages_in_the_wrong_place_are_refused(void **state)
{
	static uint8_t page[FMT_PAGE];
	struct fmt_slot_page_id s = slot_id;
	struct fmt_registry_page_id g = registry_id;

	(void)state;
	make_superblock((void *)page);
	assert_int_equal(fmt_superblock_check((void *)page, 0), -E_FORMAT);
	make_slot_page((void *)page);
	s.page_no++;
	assert_int_equal(fmt_slot_page_check((void *)page, &s), -E_FORMAT);
	s = slot_id;
	s.home = 0;
	assert_int_equal(fmt_slot_page_check((void *)page, &s), -E_FORMAT);
	s = slot_id;
	s.device = &other;
	assert_int_equal(fmt_slot_page_check((void *)page, &s), -E_FORMAT);
	make_registry_page((void *)page);
	g.page_no = 1;
	assert_int_equal(fmt_registry_page_check((void *)page, &g), -E_FORMAT);
	make_journal_block((void *)page);
	assert_int_equal(fmt_journal_block_check((void *)page, &device, 18, RING), -E_FORMAT);
	assert_int_equal(fmt_journal_block_check((void *)page, &other, 17, RING), -E_FORMAT);
}

/* Bytes whose checksum is right, made by somebody who means harm: refused or harmless. Every length of every record is tried. */
static void records_of_hostile_bytes_do_no_harm(void **state)
{
	static struct fmt_journal_block good, b;
	uint64_t x = 1, refused = 0;
	uint32_t used;

	(void)state;
	make_journal_block(&good);
	used = get_le16(good.used_bytes);
	for (int i = 0; i < 300000; i++) {
		struct cursor c;
		const struct fmt_record *rec;

		b = good;
		for (int k = 0; k < 2; k++) {
			x = x * 6364136223846793005ULL + 1442695040888963407ULL;
			((uint8_t *)&b)[80 + (x >> 33) % (used - 80)] = (uint8_t)(x >> 20);
		}
		b.used_bytes = to_le16((uint16_t)(used - (x >> 40) % 3 * 4));
		fmt_journal_block_prepare(&b, &device);
		if (check_journal_block(&b)) {
			refused++;
			continue;
		}
		c = fmt_journal_records(&b);
		while ((rec = fmt_record_next(&c)))
			assert_true((const uint8_t *)rec + get_le16(rec->len_bytes) <=
				    (const uint8_t *)&b + FMT_PAGE);
	}
	assert_true(refused > 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_bytes_are_those_of_the_golden_files),
	    cmocka_unit_test(block_values_are_keyed),
	    cmocka_unit_test(every_flipped_bit_is_noticed),
	    cmocka_unit_test(pages_of_another_version_are_told_from_damage),
	    cmocka_unit_test(flags_of_layers_are_known_ones),
	    cmocka_unit_test(pages_in_the_wrong_place_are_refused),
	    cmocka_unit_test(records_of_hostile_bytes_do_no_harm),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
