/* SPDX-License-Identifier: Apache-2.0 */
/* Every byte of everything that a device keeps about its data is flipped in turn: superblocks, registry, slot-entry pages, block tables, journal
 * blocks, the restart ring; after an orderly close, after a kill with a valid ring, after a power loss. Whatever is read then is right, or an
 * error, and fsck has something to say about what is not right. What is kept twice is mended by serving the device.
 *
 *   STRATA_FLIPS=1    every byte (half an hour) instead of a few of each page
 *   STRATA_FLIPS=n    every n-th */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io-path/device/codec.h"
#include "io-path/device/geometry.h"
#include "src/base/log.h"
#include "src/base/mem.h"
#include "tests/lib/device_fixture.h"
#include "tests/lib/env.h"
#include "tools/fsck/fsck.h"

enum { SLOTS = 40, LATE = 6, STRIDE_OF_A_CHECK = 997, PLACES_MAX = 128 };

enum how { CLOSED, KILLED, POWER_LOST, HOWS_N };
static const char *const how_names[HOWS_N] = {"closed", "killed", "power lost"};

/* A page, or what is used of the ring */
struct place {
	char name[48];
	uint64_t offset;
	uint8_t *memory; /* NULL: on the device */
	uint32_t len;
	bool is_twice; /* damage in it is mended */
};

struct tally {
	uint64_t flips, refused, flawed, whole;
};

static struct {
	struct device_fixture fx;
	struct geometry geo;
	enum how how;
	struct ioe_shm ring;
	struct place places[PLACES_MAX];
	uint32_t places_n;
	uint32_t stride;
	struct tally tally;
	struct fsck_result fsck;
} w;

static uint64_t cgen_of(uint32_t slot)
{
	return 100 + slot;
}

/* ---- a device with something of everything ---------------------------------------------------------------------------------- */

static void put_done(void *arg, int status)
{
	assert_int_equal(status, 0);
	*(bool *)arg = true;
}

static void put_layer(layer_id id)
{
	struct device_layer l = {.layer = id, .volume = 1, .commit = 10 + id};
	bool done = false;

	snprintf(l.name, sizeof(l.name), "layer%u", id);
	device_layer_put(w.fx.dev, &l, put_done, &done);
	while (!done)
		assert_true(sim_step(w.fx.sim.w));
}

static void drop_layer(layer_id id)
{
	bool done = false;

	device_layer_drop(w.fx.dev, id, 10 + id, put_done, &done);
	while (!done)
		assert_true(sim_step(w.fx.sim.w));
}

static void number_it(void)
{
	bool done = false;

	device_set_number(w.fx.dev, 7, put_done, &done);
	while (!done)
		assert_true(sim_step(w.fx.sim.w));
}

/* Slot i: blocks 0 to 3 in the homes; 4 to 7 written over later. Of the first slots blocks 8 to 9 are fresh and 0 is written over, just before the
 * end and not flushed. */
static void prepare(enum how how)
{
	struct device_fixture *fx = &w.fx;

	memset(&w.tally, 0, sizeof(w.tally));
	w.how = how;
	w.places_n = 0;
	device_fixture_init(fx, 5);
	fx->with_ring = true;
	assert_int_equal(geometry_plan(fx->size_bytes, fx->chunk_shift, &w.geo), 0);
	assert_int_equal(fixture_open(fx, false), 0);
	number_it();
	put_layer(3);
	put_layer(5);
	for (uint32_t i = 0; i < SLOTS; i++)
		assert_int_equal(dev_write(fx, i, cgen_of(i), 0, 8, i + 1, 0), 0);
	assert_int_equal(dev_free(fx, 5, cgen_of(5), 0), 0);
	assert_int_equal(dev_clear(fx, 6, cgen_of(6), 0, 4, CHUNK_F_ZERO), 0);
	sim_sleep(&fx->sim, (uint64_t)70 * 1000 * 1000 * 1000);
	put_layer(4);
	drop_layer(5);
	for (uint32_t i = 0; i < SLOTS; i++)
		if (i != 5)
			assert_int_equal(dev_write(fx, i, cgen_of(i), 4, 4, 100 + i, 0), 0);
	assert_int_equal(dev_flush(fx), 0);
	sim_sleep(&fx->sim, (uint64_t)1500 * 1000 * 1000);
	for (uint32_t i = 0; i < SLOTS; i++)
		if (i != 5)
			assert_int_equal(dev_write(fx, i, cgen_of(i), 4, 4, 200 + i, 0), 0);
	assert_int_equal(dev_flush(fx), 0);
	if (how == CLOSED) {
		assert_int_equal(fixture_close(fx), 0);
	} else if (how == POWER_LOST) {
		sim_sleep(&fx->sim, (uint64_t)3 * 1000 * 1000 * 1000);
		fixture_power_loss(fx);
	} else {
		for (uint32_t i = 0; i < LATE; i++) {
			if (i == 5)
				continue;
			assert_int_equal(dev_write(fx, i, cgen_of(i), 8, 2, 300 + i, 0), 0);
			assert_int_equal(dev_write(fx, i, cgen_of(i), 4, 1, 300 + i, 0), 0);
		}
		fixture_kill(fx);
	}
}

/* ---- where to flip ------------------------------------------------------------------------------------------------------------ */

static struct place *place_add(const char *name, uint64_t offset, bool is_twice)
{
	struct place *p = &w.places[w.places_n++];

	assert_true(w.places_n < PLACES_MAX);
	*p = (struct place){.offset = offset, .len = FMT_PAGE, .is_twice = is_twice};
	snprintf(p->name, sizeof(p->name), "%s", name);
	return p;
}

static void places_of_pages(void)
{
	char name[48];

	place_add("superblock A", 0, true);
	place_add("superblock B", FMT_SB_B_OFFSET, true);
	for (uint32_t home = 0; home < 2; home++) {
		snprintf(name, sizeof(name), "registry %u", home);
		place_add(name, geometry_registry_offset(&w.geo, home), true);
		for (uint32_t page = 0; page < 2; page++) {
			snprintf(name, sizeof(name), "slot page %u, home %u", page, home);
			place_add(name, geometry_slot_page_offset(&w.geo, page, home), true);
		}
		for (uint32_t page = 0; page < 10; page += 3) {
			snprintf(name, sizeof(name), "table page %u, home %u", page, home);
			place_add(name, geometry_table_page_offset(&w.geo, page, home), false);
		}
	}
}

/* Two blocks for each type of record, and the last three. */
static void places_of_journal(void)
{
	static struct fmt_journal_block b;
	uint32_t seen[FMT_REC_LAYER_DROP + 1] = {};
	uint64_t last = 0;
	char name[48];

	for (uint64_t lsn = 1; lsn < w.geo.ring_blocks; lsn++) {
		struct fmt_record const *rec;
		struct cursor c;
		bool take = false;

		sim_disk_peek(w.fx.sim.m, DEVICE_PATH, geometry_journal_offset(&w.geo, lsn), &b,
			      sizeof(b));
		if (get_le64(b.lsn) != lsn)
			break;
		last = lsn;
		c = fmt_journal_records(&b);
		while ((rec = fmt_record_next(&c)))
			take = seen[rec->type]++ < 2 || take;
		snprintf(name, sizeof(name), "journal block %u", (uint32_t)lsn);
		if (take)
			place_add(name, geometry_journal_offset(&w.geo, lsn), false);
	}
	for (uint64_t lsn = last - 2; lsn <= last; lsn++) {
		snprintf(name, sizeof(name), "journal block %u of %u", (uint32_t)lsn,
			 (uint32_t)last);
		place_add(name, geometry_journal_offset(&w.geo, lsn), false);
	}
	assert_true(seen[FMT_REC_BLOCKS] && seen[FMT_REC_ALLOC] && seen[FMT_REC_ACTIVATE]);
	assert_true(seen[FMT_REC_CKPT] && seen[FMT_REC_FREE] && seen[FMT_REC_EPOCH]);
	assert_true(seen[FMT_REC_LAYER] && seen[FMT_REC_RETIRE] && seen[FMT_REC_BOOT]);
	assert_true(seen[FMT_REC_LAYER_DROP]);
}

static void places_of_ring(void)
{
	const uint32_t header = 4096, entries = 4096;
	struct place *p;

	if (w.how != KILLED)
		return;
	if (ioe_shm_open(w.fx.sim.e, DEVICE_RING ".a", &w.ring))
		assert_int_equal(ioe_shm_open(w.fx.sim.e, DEVICE_RING ".b", &w.ring), 0);
	p = place_add("ring", 0, false);
	p->memory = w.ring.base;
	p->len = header + entries;
}

/* ---- what is read ------------------------------------------------------------------------------------------------------------- */

static bool is_said(int status)
{
	return status == -E_FORMAT || status == -E_BAD_BLOCK || status == -E_CHECKSUM;
}

/* Blocks that must hold the bytes of seed; or, where `older` is given, may hold those. */
static void look_at(uint32_t slot, uint32_t block, uint32_t n, uint32_t seed, const uint32_t *older,
		    uint32_t *errors)
{
	int r = dev_expect(&w.fx, slot, cgen_of(slot), block, n, seed);

	if (r == -EBADMSG && older)
		r = dev_expect(&w.fx, slot, cgen_of(slot), block, n, *older);
	if (r && !is_said(r))
		fail_msg("slot %u blocks %u to %u: %s", slot, block, block + n - 1, err_name(r));
	*errors += r != 0;
}

static void look_at_slot(uint32_t i, bool may_be_old, uint32_t *errors)
{
	uint32_t flushed = 200 + i, hole = 0;
	bool late = w.how == KILLED && i < LATE;

	look_at(i, 0, 4, i == 6 ? 0 : i + 1, NULL, errors);
	look_at(i, 4, 1, late ? 300 + i : flushed, may_be_old ? &flushed : NULL, errors);
	look_at(i, 5, 3, flushed, NULL, errors);
	look_at(i, 8, 2, late ? 300 + i : 0, may_be_old ? &hole : NULL, errors);
}

/* Damage of the registry is told when the device is opened: what is there is complete. */
static void look_at_layers(void)
{
	struct device_layer l;

	for (layer_id id = 3; id < 5; id++) {
		if (device_layer_next(w.fx.dev, id - 1, &l))
			fail_msg("layer %u is gone", id);
		assert_int_equal(l.layer, id);
	}
	assert_int_equal(device_layer_next(w.fx.dev, 4, &l), -ENOENT); /* 5 was dropped */
}

/* How many reads are errors. None is wrong. */
static uint32_t look(uint32_t step)
{
	struct device_info info;
	uint32_t errors = 0, states = 0;
	struct device_slot s;

	device_info(w.fx.dev, &info);
	assert_int_equal(info.number, 7);
	for (uint32_t i = 0; i < SLOTS; i += step)
		if (i != 5)
			look_at_slot(i, info.replayed_power_loss, &errors);
	if (device_slot_get(w.fx.dev, 5, &s) == 0)
		assert_true(s.state == DEVICE_SLOT_FREE && s.cgen == cgen_of(5));
	else
		states++;
	look_at_layers();
	return errors + states;
}

/* ---- a flip ------------------------------------------------------------------------------------------------------------------- */

static void flip(const struct place *p, uint32_t at, uint8_t bits)
{
	uint8_t byte;

	if (p->memory) {
		p->memory[at] ^= bits;
		return;
	}
	assert_int_equal(sim_disk_peek(w.fx.sim.m, DEVICE_PATH, p->offset + at, &byte, 1), 0);
	byte ^= bits;
	assert_int_equal(sim_disk_poke(w.fx.sim.m, DEVICE_PATH, p->offset + at, &byte, 1), 0);
}

static char said[256]; /* by fsck, last */

static void on_found(void *arg, const struct fsck_finding *f)
{
	(void)arg;
	snprintf(said, sizeof(said), "%s", f->text);
}

static void fsck(void)
{
	struct fsck_options o = {.ioe = w.fx.sim.e,
				 .path = DEVICE_PATH,
				 .ring_path = DEVICE_RING,
				 .found = on_found};
	char errmsg[ERRMSG_LEN];
	int r = fsck_device(&o, &w.fsck, errmsg);

	if (r)
		fail_msg("fsck: %s", errmsg);
}

static void refused(const struct place *p, int r)
{
	assert_true(r == -E_FORMAT || r == -E_VERSION);
	if (strlen(w.fx.errmsg) < 20)
		fail_msg("%s: refused without a reason: \"%s\"", p->name, w.fx.errmsg);
	w.tally.refused++;
}

/* Looked at only; so the byte can be flipped back. */
static void inspect(const struct place *p, uint32_t at, uint8_t bits)
{
	uint32_t errors = 0;
	int r;

	flip(p, at, bits);
	r = fixture_open(&w.fx, true);
	if (r) {
		refused(p, r);
	} else {
		errors = look(3);
		fixture_close(&w.fx);
	}
	w.tally.flips++;
	w.tally.flawed += !r && errors;
	w.tally.whole += !r && !errors;
	if (p->is_twice && (r || errors))
		fail_msg("%s, byte %u: one of two, and missed", p->name, at);
	if (r || errors || w.tally.flips % 16 == 0)
		fsck();
	if ((r || errors) && w.fsck.errors == 0)
		fail_msg("%s, byte %u: fsck finds nothing", p->name, at);
	flip(p, at, bits);
}

static void flip_all(void)
{
	places_of_pages();
	places_of_journal();
	places_of_ring();
	assert_int_equal(fixture_open(&w.fx, true), 0);
	assert_int_equal(look(1), 0);
	fixture_close(&w.fx);
	fsck();
	assert_int_equal(w.fsck.errors + w.fsck.warnings, 0);
	for (uint32_t i = 0; i < w.places_n; i++) {
		const struct place *p = &w.places[i];
		struct tally before = w.tally;
		/* headers are worth more than the rest of a page */
		uint32_t step;

		for (uint32_t at = i % w.stride; at < p->len; at += step) {
			step = w.stride > 1 && at < 128 ? w.stride / 16 : w.stride;
			inspect(p, at, (uint8_t)(1u << (at + i) % 8));
		}
		if (getenv("STRATA_VERBOSE"))
			print_message("%s, %s: %u refused, %u flawed, %u whole\n", how_names[w.how],
				      p->name, (unsigned)(w.tally.refused - before.refused),
				      (unsigned)(w.tally.flawed - before.flawed),
				      (unsigned)(w.tally.whole - before.whole));
	}
	print_message("%s: %u bytes flipped: %u times refused, %u with errors, %u whole\n",
		      how_names[w.how], (unsigned)w.tally.flips, (unsigned)w.tally.refused,
		      (unsigned)w.tally.flawed, (unsigned)w.tally.whole);
	if (w.ring.base)
		ioe_shm_close(w.fx.sim.e, &w.ring);
	w.ring.base = NULL;
	device_fixture_free(&w.fx);
}

static uint32_t stride(void)
{
	uint32_t n = (uint32_t)env_number("STRATA_FLIPS", STRIDE_OF_A_CHECK);

	return n ? n : 1;
}

static void after_an_orderly_close(void **state)
{
	(void)state;
	prepare(CLOSED);
	flip_all();
}

static void after_a_kill(void **state)
{
	(void)state;
	prepare(KILLED);
	flip_all();
}

static void after_a_power_loss(void **state)
{
	(void)state;
	prepare(POWER_LOST);
	flip_all();
}

/* ---- served ------------------------------------------------------------------------------------------------------------------- */

/* A damaged home, and the device serves, closes, and is as good as new. The other home of the same may rot after that. */
static void what_is_kept_twice_is_mended(void **state)
{
	(void)state;
	for (enum how how = CLOSED; how < HOWS_N; how++) {
		prepare(how);
		places_of_pages();
		device_fixture_free(&w.fx);
		for (uint32_t i = 0; i < w.places_n; i++) {
			struct place p = w.places[i];

			if (!p.is_twice)
				continue;
			prepare(how);
			flip(&p, 100 + 37 * i, 0x40);
			assert_int_equal(fixture_open(&w.fx, false), 0);
			assert_int_equal(look(1), 0);
			sim_sleep(&w.fx.sim, (uint64_t)5 * 1000 * 1000 * 1000);
			assert_int_equal(fixture_close(&w.fx), 0);
			fsck();
			if (w.fsck.errors || w.fsck.warnings)
				fail_msg("%s, %s: not mended: %s", how_names[how], p.name, said);
			places_of_pages(); /* prepare() forgot them */
			assert_string_equal(w.places[i].name, p.name);
			assert_int_equal(fixture_open(&w.fx, false), 0);
			assert_int_equal(look(1), 0);
			assert_int_equal(fixture_close(&w.fx), 0);
			device_fixture_free(&w.fx);
		}
	}
}

/* ---- a disk that stumbles ------------------------------------------------------------------------------------------------------ */

static struct {
	uint64_t from, to;
	uint32_t left; /* reads of it fail so many times */
} bad;

static int stumble(void *arg, const char *path, const struct ioe_req *r)
{
	(void)arg;
	(void)path;
	if (r->op != IOE_READ || r->off >= bad.to || r->off + r->len <= bad.from || !bad.left)
		return 0;
	bad.left--;
	return -EIO;
}

/* Each structure in turn cannot be read twice, while the device is opened: it makes no difference. */
static void a_read_that_fails_twice_makes_no_difference(void **state)
{
	uint32_t n = 3;

	(void)state;
	for (enum how how = CLOSED; how < HOWS_N; how++)
		for (uint32_t i = 2; i < n; i++) {
			prepare(how);
			places_of_pages();
			places_of_journal();
			n = w.places_n;
			bad.from = w.places[i].offset;
			bad.to = bad.from + FMT_PAGE;
			bad.left = 2;
			sim_disk_fault(w.fx.sim.m, stumble, NULL);
			assert_int_equal(fixture_open(&w.fx, false), 0);
			assert_int_equal(look(1), 0);
			sim_disk_fault(w.fx.sim.m, NULL, NULL);
			assert_int_equal(fixture_close(&w.fx), 0);
			device_fixture_free(&w.fx);
		}
}

/* Blocks in doubt cannot be read while the device is opened and for a while after: later they can, and are right. */
static void a_block_in_doubt_is_not_bad_for_being_unreadable(void **state)
{
	(void)state;
	for (enum how how = KILLED; how < HOWS_N; how++)
		for (uint32_t slot = 0; slot < 3; slot++) {
			prepare(how);
			bad.from = geometry_slot_offset(&w.geo, slot);
			bad.to = bad.from + (uint64_t)10 * BLOCK_BYTES;
			bad.left = UINT32_MAX;
			sim_disk_fault(w.fx.sim.m, stumble, NULL);
			assert_int_equal(fixture_open(&w.fx, false), 0);
			sim_sleep(&w.fx.sim, (uint64_t)10 * 1000 * 1000 * 1000);
			assert_int_equal(dev_expect(&w.fx, slot, cgen_of(slot), 4, 4, 1), -EIO);
			sim_disk_fault(w.fx.sim.m, NULL, NULL);
			assert_int_equal(look(1), 0);
			assert_int_equal(fixture_close(&w.fx), 0);
			assert_int_equal(fixture_open(&w.fx, false), 0);
			assert_int_equal(look(1), 0);
			assert_int_equal(fixture_close(&w.fx), 0);
			device_fixture_free(&w.fx);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(after_an_orderly_close),
	    cmocka_unit_test(after_a_kill),
	    cmocka_unit_test(after_a_power_loss),
	    cmocka_unit_test(what_is_kept_twice_is_mended),
	    cmocka_unit_test(a_read_that_fails_twice_makes_no_difference),
	    cmocka_unit_test(a_block_in_doubt_is_not_bad_for_being_unreadable),
	};

	w.stride = stride();
	log_set_level(LOG_ERROR); /* damage is what this is about */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
