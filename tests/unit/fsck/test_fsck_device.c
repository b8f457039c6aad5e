/* SPDX-License-Identifier: Apache-2.0 */
/* Images are damaged in one place, and fsck must name the damage and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/crc.h"
#include "src/base/log.h"
#include "src/base/mem.h"
#include "tests/lib/device_image.h"
#include "tools/fsck/fsck.h"

enum { FOUND_MAX = 64 };

struct found {
	enum fsck_severity severity;
	char what[32];
	int64_t slot;
};

struct world {
	struct image im;
	struct fsck_options o;
	struct fsck_result res;
	char errmsg[ERRMSG_LEN];
	struct found found[FOUND_MAX];
	size_t found_n;
	const struct fsck_mapping *map;
	size_t map_n, map_at;
	const struct fsck_freeing *freeing;
	size_t freeing_n, freeing_at;
	uint64_t progress_done, progress_all;
};

/* What every image holds: three open slots in two slot-entry pages, one freed slot, a hole, a zero. */
static const struct image_chunk a = {.slot = 0, .cgen = 11, .volume = 1, .layer = 1, .chunk = 0};
static const struct image_chunk b = {.slot = 1, .cgen = 12, .volume = 1, .layer = 1, .chunk = 1};
static const struct image_chunk c = {.slot = 40, .cgen = 13, .volume = 1, .layer = 1, .chunk = 9};
static const struct image_chunk gone = {.slot = 2, .cgen = 14, .volume = 1, .layer = 1, .chunk = 2};
static const struct image_chunk back = {.slot = 2, .cgen = 15, .volume = 1, .layer = 1, .chunk = 2};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct image *im = &w->im;

	log_set_level(LOG_ERROR + 1);
	image_init(im, 1, CHUNK_SHIFT_FLASH);
	image_open(im, NULL);
	image_write(im, &a, 0, 10, 0);
	image_write(im, &b, 0, 256, 0);
	image_write(im, &c, 100, 4, 0);
	image_write(im, &gone, 5, 5, 0);
	image_clear(im, &a, 3, 1, 0);
	image_clear(im, &a, 4, 1, CHUNK_F_ZERO);
	image_free_slot(im, &gone);
	image_close(im);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	image_free(&w->im);
	free(w);
	return 0;
}

static void on_found(void *arg, const struct fsck_finding *f)
{
	struct world *w = arg;
	struct found *to = &w->found[w->found_n % FOUND_MAX];

	assert_true(strlen(f->text) > 10);
	w->found_n++;
	to->severity = f->severity;
	snprintf(to->what, sizeof(to->what), "%s", f->what);
	to->slot = f->slot ? (int64_t)*f->slot : -1;
	if (getenv("STRATA_VERBOSE"))
		fprintf(stderr, "%d %s: %s\n", f->severity, f->what, f->text);
}

static int run(struct world *w)
{
	w->found_n = 0;
	w->map_at = w->freeing_at = 0;
	w->o.ioe = w->im.fx.e;
	w->o.path = IMAGE_PATH;
	w->o.found = on_found;
	w->o.found_arg = w;
	return fsck_device(&w->o, &w->res, w->errmsg);
}

/* The findings, in order: "E word" with E error, W warning, N note, and "@slot" where it is about one. */
static void expect(struct world *w, const char *want)
{
	char got[2048] = "";
	size_t len = 0;

	assert_int_equal(run(w), 0);
	for (size_t i = 0; i < w->found_n && i < FOUND_MAX; i++) {
		const struct found *f = &w->found[i];

		len += (size_t)snprintf(got + len, sizeof(got) - len, "%s%c %s", i ? ", " : "",
					"NWE"[f->severity], f -> what);
		if (f->slot >= 0)
			len += (size_t)snprintf(got + len, sizeof(got) - len, "@%d", (int)f->slot);
	}
	assert_string_equal(got, want);
}

/* The first finding; damage may have consequences that are found as well. */
static void expect_first(struct world *w, enum fsck_severity severity, const char *what,
			 int64_t slot)
{
	assert_int_equal(run(w), 0);
	assert_true(w->found_n > 0);
	assert_string_equal(w->found[0].what, what);
	assert_int_equal(w->found[0].severity, severity);
	assert_int_equal(w->found[0].slot, slot);
}

static uint64_t table_at(struct world *w, uint32_t slot)
{
	uint32_t table = geometry_table_page_of(&w->im.geo, slot);
	uint32_t page = geometry_slot_page_of(&w->im.geo, slot);
	uint32_t first = geometry_slot_page_tables(&w->im.geo, page).first;
	struct fmt_slot_page p;

	image_slot_page_get(&w->im, page, image_slot_page_home(&w->im, page), &p);
	return geometry_table_page_offset(&w->im.geo, table, p.tables[table - first].home);
}

/* ---- nothing wrong --------------------------------------------------------------------------------------------------------------- */

static void a_good_device_has_no_findings(void **state)
{
	struct world *w = *state;

	w->o.data = true;
	expect(w, "");
	assert_true(w->res.is_clean);
	assert_int_equal(w->res.slots_n, w->im.geo.total.slots);
	assert_int_equal(w->res.slots_open_n, 3);
	assert_int_equal(w->res.blocks_present, 8 + 256 + 4);
	assert_int_equal(w->res.blocks_read, 8 + 256 + 4);
	assert_int_equal(w->res.blocks_bad, 0);
	assert_int_equal(w->res.cgen_highest, 14);
	assert_true(uuid_equal(&w->res.device, &w->im.uuid));
}

static void nothing_is_written(void **state)
{
	struct world *w = *state;
	uint8_t *before = malloc(IMAGE_BYTES), *after = malloc(IMAGE_BYTES);

	image_peek(&w->im, 0, before, IMAGE_BYTES);
	expect(w, "");
	image_peek(&w->im, 0, after, IMAGE_BYTES);
	assert_memory_equal(before, after, IMAGE_BYTES);
	free(before);
	free(after);
}

static void after_a_kill_with_its_ring_all_is_well(void **state)
{
	struct world *w = *state;

	image_open(&w->im, "ring");
	image_write(&w->im, &a, 0, 20, 0);
	image_write(&w->im, &back, 0, 1, 0);
	image_kill(&w->im);
	w->o.ring_path = "ring";
	w->o.data = true;
	expect(w, "");
	assert_false(w->res.is_clean);
	assert_int_equal(w->res.slots_open_n, 4);
}

static void a_device_in_use_is_not_checked(void **state)
{
	struct world *w = *state;

	image_open(&w->im, NULL);
	w->o.lock_wait_ns = 1000 * 1000;
	assert_int_equal(run(w), -E_IN_USE);
	assert_true(w->errmsg[0] != '\0');
	image_close(&w->im);
}

static void a_file_that_is_not_there_is_no_finding(void **state)
{
	struct world *w = *state;

	ioe_unlink(w->im.fx.e, IMAGE_PATH);
	assert_int_equal(run(w), -ENOENT);
	assert_int_equal(w->found_n, 0);
}

/* ---- superblocks ------------------------------------------------------------------------------------------------------------------ */

static void one_damaged_superblock_is_a_warning(void **state)
{
	struct world *w = *state;

	image_flip(&w->im, 100);
	expect(w, "W superblock-damaged");
	image_flip(&w->im, 100);
	image_flip(&w->im, FMT_SB_B_OFFSET + 4000);
	expect(w, "W superblock-damaged");
}

static void without_superblocks_it_is_not_a_device(void **state)
{
	struct world *w = *state;

	image_flip(&w->im, 1);
	image_flip(&w->im, FMT_SB_B_OFFSET + 1);
	expect(w, "E superblock-damaged");
}

static void change_superblock(struct world *w, uint64_t off,
			      void (*change)(struct fmt_superblock *sb))
{
	struct fmt_superblock sb;

	image_peek(&w->im, off, &sb, sizeof(sb));
	change(&sb);
	fmt_superblock_prepare(&sb, off);
	image_poke(&w->im, off, &sb, sizeof(sb));
}

static void other_uuid(struct fmt_superblock *sb)
{
	sb->device.b[3] ^= 1;
}

static void same_sequence(struct fmt_superblock *sb)
{
	sb->sequence = to_le64(77);
}

static void unknown_feature(struct fmt_superblock *sb)
{
	sb->sequence = to_le64(get_le64(sb->sequence) + 10);
	sb->incompat = to_le64(4);
}

static void wild_geometry(struct fmt_superblock *sb)
{
	sb->journal_offset = to_le64(1 << 20);
}

static void two_superblocks_must_agree(void **state)
{
	struct world *w = *state;

	change_superblock(w, 0, other_uuid);
	expect(w, "E superblock-differs");
	change_superblock(w, 0, other_uuid);
	expect(w, "");
	change_superblock(w, 0, same_sequence);
	change_superblock(w, FMT_SB_B_OFFSET, same_sequence);
	expect(w, "E superblock-differs");
}

static void what_it_does_not_understand_it_does_not_check(void **state)
{
	struct world *w = *state;

	change_superblock(w, 0, unknown_feature);
	expect(w, "E features");
}

static void a_superblock_may_hold_anything(void **state)
{
	struct world *w = *state;

	change_superblock(w, 0, wild_geometry);
	change_superblock(w, FMT_SB_B_OFFSET, wild_geometry);
	expect(w, "E geometry");
}

static void a_cut_file_is_noticed(void **state)
{
	struct world *w = *state;
	struct ioe_file *f;

	assert_int_equal(ioe_file_open(w->im.fx.e, IMAGE_PATH, 0, &f, NULL), 0);
	assert_int_equal(ioe_file_resize(w->im.fx.e, f, IMAGE_BYTES / 2), 0);
	ioe_file_close(w->im.fx.e, f);
	expect(w, "E truncated");
}

static void another_cluster_s_device_is_not_ours(void **state)
{
	struct world *w = *state;
	struct uuid other = {{1}};

	w->o.cluster = &other;
	expect(w, "E other-cluster");
	w->o.cluster = &w->im.cluster;
	expect(w, "");
}

static void another_device_s_place_is_noticed(void **state)
{
	struct world *w = *state;
	struct uuid other = {{1}};

	w->o.device = &other;
	expect(w, "E other-device");
	assert_false(w->res.is_open);
	w->o.device = &w->im.uuid;
	expect(w, "");
	assert_true(w->res.is_open);
}

static void on_progress(void *arg, uint64_t done, uint64_t all)
{
	struct world *w = arg;

	assert_true(done > w->progress_done && done <= all);
	assert_true(!w->progress_all || all == w->progress_all);
	w->progress_done = done;
	w->progress_all = all;
}

static void progress_goes_to_the_end(void **state)
{
	struct world *w = *state;

	w->o.progress = on_progress;
	w->o.progress_arg = w;
	expect(w, "");
	assert_true(w->progress_all > 0);
	assert_int_equal(w->progress_done, w->progress_all);
}

/* ---- layers ------------------------------------------------------------------------------------------------------------------------- */

static void set_true(void *arg, int status)
{
	*(bool *)arg = status == 0;
}

static void put_layer(struct world *w, layer_id id)
{
	struct device_layer l = {.layer = id, .volume = 1, .commit = id, .name = "vm1"};
	bool done = false;

	device_layer_put(w->im.dev, &l, set_true, &done);
	sim_run_until(w->im.fx.w, &done);
}

static bool only_the_first(void *arg, layer_id layer)
{
	(void)arg;
	return layer == 1;
}

static void the_record_of_a_layer_that_is_gone_is_named(void **state)
{
	struct world *w = *state;
	bool done = false;

	image_open(&w->im, NULL);
	put_layer(w, 1);
	put_layer(w, 2);
	put_layer(w, 3);
	device_layer_drop(w->im.dev, 2, 5, set_true, &done);
	sim_run_until(w->im.fx.w, &done);
	image_close(&w->im);
	expect(w, "");
	w->o.layer_exists = only_the_first;
	expect(w, "N layer-gone"); /* of layer 3 */
}

/* ---- journal ------------------------------------------------------------------------------------------------------------------------ */

static void without_a_journal_nothing_can_be_said(void **state)
{
	struct world *w = *state;
	uint8_t *zeros = calloc(1, w->im.geo.journal_bytes);

	image_poke(&w->im, w->im.geo.journal_offset, zeros, w->im.geo.journal_bytes);
	free(zeros);
	expect(w, "E journal-empty");
}

/* The last journal block. */
static struct fmt_journal_block last_block(struct world *w)
{
	struct fmt_journal_block last = {.lsn = to_le64(0)};

	for (uint32_t i = 0; i < w->im.geo.ring_blocks; i++) {
		struct fmt_journal_block blk;

		image_peek(&w->im, w->im.geo.journal_offset + (uint64_t)i * FMT_PAGE, &blk,
			   sizeof(blk));
		if (fmt_journal_block_check(&blk, &w->im.uuid, i, w->im.geo.ring_blocks) == 0 &&
		    get_le64(blk.lsn) > get_le64(last.lsn))
			last = blk;
	}
	return last;
}

static struct fmt_journal_block many_blocks_then_a_kill(struct world *w)
{
	image_open(&w->im, NULL);
	for (uint32_t i = 0; i < 20; i++)
		image_write(&w->im, &a, i, 1, CHUNK_F_STABLE);
	image_kill(&w->im);
	return last_block(w);
}

static void a_damaged_block_in_the_middle_is_not_the_end(void **state)
{
	struct world *w = *state;
	struct fmt_journal_block last = many_blocks_then_a_kill(w);
	uint64_t lsn = get_le64(last.lsn);

	assert_true(get_le64(last.tail) < lsn - 10);
	image_flip(&w->im, geometry_journal_offset(&w->im.geo, lsn - 8) + 2000);
	expect(w, "E journal-chain");
}

static void the_block_where_replay_begins_must_be_there(void **state)
{
	struct world *w = *state;
	struct fmt_journal_block last = many_blocks_then_a_kill(w);

	image_flip(&w->im, geometry_journal_offset(&w->im.geo, get_le64(last.tail)) + 10);
	expect(w, "E journal-chain");
}

static int fail_a_read(void *arg, const char *path, const struct ioe_req *r)
{
	uint64_t off = *(uint64_t *)arg;

	(void)path;
	return r->op == IOE_READ && r->off <= off && off < r->off + r->len ? -EIO : 0;
}

/* A tail that its own checksum covers, and that is not where replay can begin. */
static void a_tail_before_what_is_there_is_damage(void **state)
{
	struct world *w = *state;
	struct fmt_journal_block last = many_blocks_then_a_kill(w);
	uint64_t lsn = get_le64(last.lsn), at = geometry_journal_offset(&w->im.geo, lsn);

	assert_true(lsn > 3);
	image_flip(&w->im, geometry_journal_offset(&w->im.geo, 2) + 50);
	last.tail = to_le64(1);
	fmt_journal_block_prepare(&last, &w->im.uuid);
	image_poke(&w->im, at, &last, sizeof(last));
	expect_first(w, FSCK_ERROR, "journal-chain", -1);
	assert_false(w->res.is_open);
}

static void a_journal_that_cannot_be_read_is_an_error(void **state)
{
	struct world *w = *state;
	uint64_t off = w->im.geo.journal_offset + FMT_PAGE;

	sim_disk_fault(w->im.fx.m, fail_a_read, &off);
	expect(w, "E journal-block");
}

static void a_slot_page_that_cannot_be_read_is_damaged(void **state)
{
	struct world *w = *state;
	uint64_t off = geometry_slot_page_offset(&w->im.geo, 1, 1);

	sim_disk_fault(w->im.fx.m, fail_a_read, &off);
	expect_first(w, FSCK_WARNING, "slot-page-damaged", -1);
	assert_int_equal(w->res.errors, 0);
}

/* ---- slot-entry pages ----------------------------------------------------------------------------------------------------------------- */

static void a_slot_page_without_homes_is_lost(void **state)
{
	struct world *w = *state;

	image_flip(&w->im, geometry_slot_page_offset(&w->im.geo, 1, 0) + 9);
	image_flip(&w->im, geometry_slot_page_offset(&w->im.geo, 1, 1) + 9);
	expect_first(w, FSCK_ERROR, "slot-page-lost", -1);
}

static void a_damaged_home_that_nobody_was_writing_is_a_warning(void **state)
{
	struct world *w = *state;

	for (uint8_t home = 0; home < 2; home++) {
		uint64_t at = geometry_slot_page_offset(&w->im.geo, 0, home) + 300;

		image_flip(&w->im, at);
		expect(w, "W slot-page-damaged");
		image_flip(&w->im, at);
	}
}

/* What a disk does that loses a write and says nothing. */
static void a_home_of_an_older_checkpoint_is_a_warning(void **state)
{
	struct world *w = *state;
	struct fmt_slot_page old;

	image_slot_page_get(&w->im, 0, 1, &old);
	image_open(&w->im, NULL);
	image_write(&w->im, &a, 200, 1, 0);
	image_close(&w->im);
	image_slot_page_put(&w->im, 0, 1, &old);
	expect(w, "W slot-page-damaged");
}

static void other_chunk(struct fmt_slot_page *p, struct fmt_slot *s)
{
	(void)p;
	s->chunk = to_le32(77);
}

static void both_homes_must_say_the_same(void **state)
{
	struct world *w = *state;
	struct fmt_slot_page p;

	image_slot_page_get(&w->im, 0, 1, &p);
	other_chunk(&p, &p.slots[0]);
	image_slot_page_put(&w->im, 0, 1, &p);
	expect(w, "E slot-page-differs");
}

static void a_home_that_was_being_written_is_a_note(void **state)
{
	struct world *w = *state;
	uint8_t other;

	image_open(&w->im, NULL);
	image_write(&w->im, &a, 200, 1, CHUNK_F_STABLE);
	image_kill(&w->im);
	other = !image_slot_page_home(&w->im, 0);
	image_flip(&w->im, geometry_slot_page_offset(&w->im.geo, 0, other) + 300);
	expect_first(w, FSCK_NOTE, "slot-page-damaged", -1);
	assert_int_equal(w->res.errors, 0);
}

static void change_entry(struct world *w, uint32_t slot,
			 void (*change)(struct fmt_slot_page *p, struct fmt_slot *s))
{
	uint32_t page = geometry_slot_page_of(&w->im.geo, slot);
	struct fmt_slot_page p;

	image_slot_page_get(&w->im, page, image_slot_page_home(&w->im, page), &p);
	change(&p, &p.slots[slot - geometry_slot_page_slots(&w->im.geo, page).first]);
	image_slot_page_put(&w->im, page, 0, &p);
	image_slot_page_put(&w->im, page, 1, &p);
}

static void one_more_present(struct fmt_slot_page *p, struct fmt_slot *s)
{
	(void)p;
	s->present_n = to_le16((uint16_t)(get_le16(s->present_n) + 1));
}

static void still_active(struct fmt_slot_page *p, struct fmt_slot *s)
{
	(void)p;
	s->flags |= FMT_SLOT_ACTIVE;
}

static void too_many_bad(struct fmt_slot_page *p, struct fmt_slot *s)
{
	(void)p;
	s->bad_n = to_le16((uint16_t)(get_le16(s->present_n) + 1));
}

static void present_counts_are_counted(void **state)
{
	struct world *w = *state;

	change_entry(w, a.slot, one_more_present);
	expect_first(w, FSCK_ERROR, "present-count", a.slot);
}

static void what_was_not_verified_before_a_close_is_a_note(void **state)
{
	struct world *w = *state;

	change_entry(w, c.slot, still_active);
	expect(w, "N slot-unverified@40");
}

static void an_entry_must_be_possible(void **state)
{
	struct world *w = *state;

	change_entry(w, b.slot, too_many_bad);
	expect_first(w, FSCK_ERROR, "slot-entry", b.slot);
}

static void same_cgen_twice(struct fmt_slot_page *p, struct fmt_slot *s)
{
	(void)s;
	p->slots[10] = p->slots[0];
	p->slots[10].present_n = to_le16(0);
	p->slots[10].table_seq_min = to_le64(1ULL << 40);
}

static void same_chunk_twice(struct fmt_slot_page *p, struct fmt_slot *s)
{
	same_cgen_twice(p, s);
	p->slots[10].cgen = to_le64(5);
}

static void a_cgen_lives_once(void **state)
{
	struct world *w = *state;

	change_entry(w, a.slot, same_cgen_twice);
	expect(w, "E duplicate-cgen@10");
}

static void a_chunk_may_have_an_older_copy(void **state)
{
	struct world *w = *state;

	change_entry(w, a.slot, same_chunk_twice);
	expect(w, "N duplicate-chunk@10");
}

/* ---- registry ------------------------------------------------------------------------------------------------------------------------- */

static void half_a_registry_is_a_warning(void **state)
{
	struct world *w = *state;

	image_flip(&w->im, geometry_registry_offset(&w->im.geo, 1) + 20);
	expect(w, "W registry-damaged");
}

static void a_lost_registry_is_an_error(void **state)
{
	struct world *w = *state;

	image_flip(&w->im, geometry_registry_offset(&w->im.geo, 0) + 20);
	image_flip(&w->im, geometry_registry_offset(&w->im.geo, 1) + 20);
	expect_first(w, FSCK_ERROR, "registry-lost", -1);
}

/* ---- table pages ------------------------------------------------------------------------------------------------------------------------- */

static void a_damaged_table_page_hides_its_slots(void **state)
{
	struct world *w = *state;

	image_flip(&w->im, table_at(w, c.slot) + 4 * 1000);
	expect(w, "E table-damaged, E blocks-bad@40");
}

/* Rewrites a value of slot a's block and what describes its table page. */
static void set_value(struct world *w, uint32_t block, uint32_t value)
{
	uint32_t page = geometry_slot_page_of(&w->im.geo, a.slot);
	uint8_t home = image_slot_page_home(&w->im, page);
	uint64_t off = table_at(w, a.slot);
	struct le32 values[FMT_VALUES_PER_PAGE];
	struct fmt_slot_page p;

	image_peek(&w->im, off, values, FMT_PAGE);
	values[geometry_table_value_of(&w->im.geo, a.slot) + block] = to_le32(value);
	image_poke(&w->im, off, values, FMT_PAGE);
	image_slot_page_get(&w->im, page, home, &p);
	p.tables[geometry_table_page_of(&w->im.geo, a.slot)].crc =
	    to_le32(crc32c(values, FMT_PAGE));
	if (value == FMT_BLOCK_BAD)
		p.slots[a.slot].bad_n = to_le16(1);
	image_slot_page_put(&w->im, page, 0, &p);
	image_slot_page_put(&w->im, page, 1, &p);
}

static void known_damage_is_told(void **state)
{
	struct world *w = *state;

	set_value(w, 7, FMT_BLOCK_BAD);
	expect(w, "E blocks-bad@0");
	assert_int_equal(w->res.blocks_bad, 1);
}

static void a_table_with_other_counts_is_noticed(void **state)
{
	struct world *w = *state;

	set_value(w, 7, FMT_BLOCK_ZERO);
	expect_first(w, FSCK_ERROR, "present-count", a.slot);
}

/* ---- data ----------------------------------------------------------------------------------------------------------------------------------- */

static void damaged_data_is_found_when_it_is_read(void **state)
{
	struct world *w = *state;

	image_flip(&w->im, geometry_slot_offset(&w->im.geo, b.slot) + 200 * BLOCK_BYTES + 17);
	expect(w, "");
	w->o.data = true;
	expect(w, "E data-damaged@1");
	assert_int_equal(w->res.blocks_bad, 1);
}

static void swapped_blocks_are_damage(void **state)
{
	struct world *w = *state;
	uint64_t off = geometry_slot_offset(&w->im.geo, b.slot);
	uint8_t one[BLOCK_BYTES], other[BLOCK_BYTES];

	image_peek(&w->im, off, one, BLOCK_BYTES);
	image_peek(&w->im, off + BLOCK_BYTES, other, BLOCK_BYTES);
	image_poke(&w->im, off, other, BLOCK_BYTES);
	image_poke(&w->im, off + BLOCK_BYTES, one, BLOCK_BYTES);
	w->o.data = true;
	expect(w, "E data-damaged@1");
	assert_int_equal(w->res.blocks_bad, 2);
}

static void data_that_cannot_be_read_is_an_error(void **state)
{
	struct world *w = *state;
	uint64_t off = geometry_slot_offset(&w->im.geo, c.slot) + 100 * BLOCK_BYTES;

	sim_disk_fault(w->im.fx.m, fail_a_read, &off);
	w->o.data = true;
	expect(w, "E data-unreadable@40");
}

/* ---- the map --------------------------------------------------------------------------------------------------------------------------------- */

static int map_next(void *arg, struct fsck_mapping *ret_m)
{
	struct world *w = arg;

	if (w->map_at == w->map_n)
		return -ENOENT;
	*ret_m = w->map[w->map_at++];
	return 0;
}

static void expect_with_map(struct world *w, const struct fsck_mapping *map, size_t n,
			    const char *want)
{
	w->map = map;
	w->map_n = n;
	w->o.map_next = map_next;
	w->o.map_arg = w;
	expect(w, want);
}

static const struct fsck_mapping map_a = {.slot = 0, .cgen = 11, .volume = 1, .layer = 1};
static const struct fsck_mapping map_b = {
    .slot = 1, .cgen = 12, .volume = 1, .layer = 1, .chunk = 1, .full = true};
static const struct fsck_mapping map_c = {
    .slot = 40, .cgen = 13, .volume = 1, .layer = 1, .chunk = 9};

static void the_map_and_the_device_agree(void **state)
{
	struct fsck_mapping map[] = {
	    map_a,
	    map_b,
	    map_c,
	    {.slot = 2, .cgen = 15, .volume = 1, .layer = 1, .chunk = 2}, /* not written yet */
	};

	expect_with_map(*state, map, ARRAY_LEN(map), "");
}

static void what_the_map_says_is_held_against_the_device(void **state)
{
	struct fsck_mapping map[] = {map_a, map_b, map_c};

	expect_with_map(*state, map, 2, "W orphan@40");
	map[2].slot = 5;
	map[2].full = true;
	expect_with_map(*state, map, 3, "E map-empty@5, W orphan@40");
	map[2] = map_c;
	map[2].cgen = 12;
	expect_with_map(*state, map, 3, "E map-stale@40");
	map[2].cgen = 99;
	expect_with_map(*state, map, 3, "E map-stale@40");
	map[2] = map_c;
	map[2].layer = 4;
	expect_with_map(*state, map, 3, "W map-mismatch@40");
	map[2].slot = 1;
	expect_with_map(*state, map, 3, "E map-twice@1, W orphan@40");
	map[2].slot = 100000;
	expect_with_map(*state, map, 3, "E map-no-slot, W orphan@40");
	map[2] = (struct fsck_mapping){.slot = 2, .cgen = 14, .volume = 1, .layer = 1, .chunk = 2};
	expect_with_map(*state, map, 3, "E map-stale@2, W orphan@40");
}

static int freeing_next(void *arg, struct fsck_freeing *ret_f)
{
	struct world *w = arg;

	if (w->freeing_at == w->freeing_n)
		return -ENOENT;
	*ret_f = w->freeing[w->freeing_at++];
	return 0;
}

static void expect_with_freeing(struct world *w, const struct fsck_freeing *freeing, size_t n,
				const char *want, uint32_t freeing_n)
{
	const struct fsck_mapping map[] = {map_a};

	w->freeing = freeing;
	w->freeing_n = n;
	w->o.freeing_next = freeing_next;
	w->o.freeing_arg = w;
	expect_with_map(w, map, 1, want);
	assert_int_equal(w->res.slots_freeing_n, freeing_n);
}

/* a is mapped, b and c are open and not, slot 2 was freed at cgen 14. */
static void what_is_to_be_freed_is_no_leak(void **state)
{
	struct fsck_freeing due[] = {{1, 12}, {2, 14}, {40, 13}};

	expect_with_freeing(*state, due, 0, "W orphan@1, W orphan@40", 0);
	expect_with_freeing(*state, due, 1, "W orphan@40", 1);
	expect_with_freeing(*state, due, 3, "", 2);
	due[2].cgen = 99; /* a free takes along what is older */
	expect_with_freeing(*state, due, 3, "", 2);
	due[2].cgen = 12; /* and has no effect on what is younger */
	expect_with_freeing(*state, due, 3, "W orphan@40", 1);
	due[2] = (struct fsck_freeing){100000, 13};
	expect_with_freeing(*state, due, 3, "W orphan@40, E freeing-no-slot", 1);
	due[0] = (struct fsck_freeing){0, 11};
	expect_with_freeing(*state, due, 1, "E map-freeing@0, W orphan@1, W orphan@40", 0);
}

static int freeing_breaks(void *arg, struct fsck_freeing *ret_f)
{
	(void)arg;
	(void)ret_f;
	return -E_FORMAT;
}

static void frees_that_cannot_be_read_end_the_check(void **state)
{
	struct world *w = *state;

	w->o.map_next = map_next;
	w->o.map_arg = w;
	w->o.freeing_next = freeing_breaks;
	assert_int_equal(run(w), -E_FORMAT);
	assert_true(w->errmsg[0] != '\0');
}

static int map_breaks(void *arg, struct fsck_mapping *ret_m)
{
	(void)arg;
	(void)ret_m;
	return -EIO;
}

static void a_map_that_cannot_be_read_ends_the_check(void **state)
{
	struct world *w = *state;

	w->o.map_next = map_breaks;
	assert_int_equal(run(w), -EIO);
	assert_true(w->errmsg[0] != '\0');
}

/* ---- every byte ------------------------------------------------------------------------------------------------------------------------------ */

/* Any flipped bit of a page that counts must be found, and nothing may break on it. */
static void flips_in(struct world *w, uint64_t off, uint32_t step)
{
	for (uint32_t at = (uint32_t)sim_rand(w->im.fx.w) % step; at < FMT_PAGE; at += step) {
		image_flip(&w->im, off + at);
		assert_int_equal(run(w), 0);
		if (w->res.warnings + w->res.errors == 0)
			fail_msg("byte %u of the page at %llu: not noticed", at,
				 (unsigned long long)off);
		image_flip(&w->im, off + at);
	}
}

static void every_flipped_bit_of_what_counts_is_found(void **state)
{
	struct world *w = *state;

	flips_in(w, 0, 401);
	flips_in(w, FMT_SB_B_OFFSET, 401);
	for (uint8_t home = 0; home < 2; home++) {
		flips_in(w, geometry_slot_page_offset(&w->im.geo, 0, home), 401);
		flips_in(w, geometry_slot_page_offset(&w->im.geo, 1, home), 401);
		flips_in(w, geometry_registry_offset(&w->im.geo, home), 401);
	}
	flips_in(w, table_at(w, a.slot), 401);
	expect(w, "");
}

/* Bytes anywhere in the metadata: whatever is found, the check ends, and nothing leaks. */
static void random_damage_ends_in_findings(void **state)
{
	struct world *w = *state;
	uint64_t end = w->im.geo.segments[0].offset + (256 << 10);
	uint8_t junk[FMT_PAGE], kept[FMT_PAGE];
	uint64_t live = mem_live();

	for (int i = 0; i < 40; i++) {
		uint64_t off = sim_rand(w->im.fx.w) % (end / FMT_PAGE) * FMT_PAGE;
		size_t len = 1 + sim_rand(w->im.fx.w) % sizeof(junk);

		for (size_t j = 0; j < len; j++)
			junk[j] = (uint8_t)sim_rand(w->im.fx.w);
		image_peek(&w->im, off, kept, sizeof(kept));
		image_poke(&w->im, off, junk, len);
		assert_int_equal(run(w), 0);
		image_poke(&w->im, off, kept, sizeof(kept));
	}
	assert_int_equal(mem_live(), live);
	expect(w, "");
}

static void without_memory_it_says_so(void **state)
{
	struct world *w = *state;
	uint64_t live = mem_live();
	int r = -ENOMEM;

	for (uint64_t n = 0; r == -ENOMEM; n++) {
		mem_fail_at(n, 1);
		r = run(w);
		mem_fail_at(UINT64_MAX, 0);
		assert_true(r == 0 || r == -ENOMEM);
		assert_int_equal(mem_live(), live);
		assert_true(n < 10000);
	}
	expect(w, "");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(a_good_device_has_no_findings),
	    T(nothing_is_written),
	    T(after_a_kill_with_its_ring_all_is_well),
	    T(a_device_in_use_is_not_checked),
	    T(a_file_that_is_not_there_is_no_finding),
	    T(one_damaged_superblock_is_a_warning),
	    T(without_superblocks_it_is_not_a_device),
	    T(two_superblocks_must_agree),
	    T(what_it_does_not_understand_it_does_not_check),
	    T(a_superblock_may_hold_anything),
	    T(a_cut_file_is_noticed),
	    T(another_cluster_s_device_is_not_ours),
	    T(another_device_s_place_is_noticed),
	    T(progress_goes_to_the_end),
	    T(the_record_of_a_layer_that_is_gone_is_named),
	    T(without_a_journal_nothing_can_be_said),
	    T(a_damaged_block_in_the_middle_is_not_the_end),
	    T(the_block_where_replay_begins_must_be_there),
	    T(a_tail_before_what_is_there_is_damage),
	    T(a_journal_that_cannot_be_read_is_an_error),
	    T(a_slot_page_that_cannot_be_read_is_damaged),
	    T(a_slot_page_without_homes_is_lost),
	    T(a_damaged_home_that_nobody_was_writing_is_a_warning),
	    T(a_home_of_an_older_checkpoint_is_a_warning),
	    T(both_homes_must_say_the_same),
	    T(a_home_that_was_being_written_is_a_note),
	    T(present_counts_are_counted),
	    T(what_was_not_verified_before_a_close_is_a_note),
	    T(an_entry_must_be_possible),
	    T(a_cgen_lives_once),
	    T(a_chunk_may_have_an_older_copy),
	    T(half_a_registry_is_a_warning),
	    T(a_lost_registry_is_an_error),
	    T(a_damaged_table_page_hides_its_slots),
	    T(known_damage_is_told),
	    T(a_table_with_other_counts_is_noticed),
	    T(damaged_data_is_found_when_it_is_read),
	    T(swapped_blocks_are_damage),
	    T(data_that_cannot_be_read_is_an_error),
	    T(the_map_and_the_device_agree),
	    T(what_the_map_says_is_held_against_the_device),
	    T(what_is_to_be_freed_is_no_leak),
	    T(a_map_that_cannot_be_read_ends_the_check),
	    T(frees_that_cannot_be_read_end_the_check),
	    T(every_flipped_bit_of_what_counts_is_found),
	    T(random_damage_ends_in_findings),
	    T(without_memory_it_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
