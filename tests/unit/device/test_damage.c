/* SPDX-License-Identifier: Apache-2.0 */
/* Damaged devices: a flipped byte anywhere is an error with a text, or is known for what it is; never a crash, never wrong data. And short
 * memory: an operation that cannot have it fails, and works when it can. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io-path/device/geometry.h"
#include "src/base/crc.h"
#include "src/base/log.h"
#include "src/base/mem.h"
#include "tests/lib/device_fixture.h"

enum { SLOTS = 40 };

static struct geometry geo;

/* A device with data in its homes and in its journal, closed in good order, or not. */
static void prepare(struct device_fixture *fx, bool closed)
{
	device_fixture_init(fx, 5);
	assert_int_equal(geometry_plan(fx->size_bytes, fx->chunk_shift, &geo), 0);
	assert_int_equal(fixture_open(fx, false), 0);
	for (uint32_t i = 0; i < SLOTS; i++)
		assert_int_equal(dev_write(fx, i, 1, 0, 8, i + 1, 0), 0);
	sim_sleep(&fx->sim, (uint64_t)70 * 1000 * 1000 * 1000);
	for (uint32_t i = 0; i < SLOTS; i++)
		assert_int_equal(dev_write(fx, i, 1, 4, 4, 100 + i, 0), 0);
	if (closed) {
		assert_int_equal(fixture_close(fx), 0);
	} else {
		sim_sleep(&fx->sim, (uint64_t)5 * 1000 * 1000 * 1000);
		fixture_power_loss(fx);
	}
}

/* Every block is right, or said to be damaged. Returns how many are not right. */
static uint32_t look(struct device_fixture *fx)
{
	uint32_t errors = 0;

	for (uint32_t i = 0; i < SLOTS; i += 3)
		for (uint32_t half = 0; half < 2; half++) {
			int r = dev_expect(fx, i, 1, 4 * half, 4, half ? 100 + i : i + 1);

			if (r == 0)
				continue;
			assert_true(r == -E_FORMAT || r == -E_BAD_BLOCK || r == -E_CHECKSUM);
			errors++;
		}
	return errors;
}

static void flip(struct device_fixture *fx, uint64_t at, uint8_t bits)
{
	uint8_t byte;

	assert_int_equal(sim_disk_peek(fx->sim.m, DEVICE_PATH, at, &byte, 1), 0);
	byte ^= bits;
	assert_int_equal(sim_disk_poke(fx->sim.m, DEVICE_PATH, at, &byte, 1), 0);
}

struct tally {
	uint32_t refused, flawed, whole;
};

/* Inspects the device with one byte flipped; inspection writes nothing, so that the byte can be flipped back. */
static void inspect_flipped(struct device_fixture *fx, uint64_t at, struct tally *t)
{
	int r;

	flip(fx, at, 0x10);
	r = fixture_open(fx, true);
	if (r) {
		assert_true(fx->errmsg[0] != '\0');
		assert_true(r == -E_FORMAT || r == -E_VERSION);
		t->refused++;
	} else {
		uint32_t errors = look(fx);

		t->flawed += errors > 0;
		t->whole += errors == 0;
		fixture_close(fx);
	}
	flip(fx, at, 0x10);
}

static struct tally inspect_page(struct device_fixture *fx, uint64_t offset)
{
	struct tally t = {};

	for (uint32_t at = 0; at < FMT_PAGE; at += at < 128 ? 11 : 613)
		inspect_flipped(fx, offset + at, &t);
	return t;
}

static void a_flipped_byte_is_never_wrong_data(void **state)
{
	for (int closed = 0; closed < 2; closed++) {
		struct device_fixture fx;
		struct tally t;

		(void)state;
		prepare(&fx, closed);
		assert_int_equal(fixture_open(&fx, true), 0);
		assert_int_equal(look(&fx), 0);
		fixture_close(&fx);
		t = inspect_page(&fx, 0); /* the other superblock is there */
		assert_int_equal(t.refused + t.flawed, 0);
		t = inspect_page(&fx, FMT_SB_B_OFFSET);
		assert_int_equal(t.refused + t.flawed, 0);
		t = inspect_page(&fx, geometry_registry_offset(&geo, 0));
		assert_int_equal(t.flawed, 0);
		for (uint32_t home = 0; home < 2; home++) {
			inspect_page(&fx, geometry_slot_page_offset(&geo, 0, home));
			inspect_page(&fx, geometry_table_page_offset(&geo, 0, home));
			inspect_page(&fx, geometry_table_page_offset(&geo, 3, home));
		}
		for (uint64_t lsn = 1; lsn < 40; lsn += 7)
			inspect_page(&fx, geometry_journal_offset(&geo, lsn));
		device_fixture_free(&fx);
	}
}

static void both_superblocks_gone_is_no_device(void **state)
{
	struct device_fixture fx;

	(void)state;
	prepare(&fx, true);
	flip(&fx, 100, 1);
	flip(&fx, FMT_SB_B_OFFSET + 100, 1);
	assert_int_equal(fixture_open(&fx, false), -E_FORMAT);
	assert_non_null(strstr(fx.errmsg, "superblock"));
	device_fixture_free(&fx);
}

/* As an earlier or later version of this software would leave it: nothing of it is misread, and the text says what it is. */
static void a_device_of_another_version_is_refused(void **state)
{
	static const uint64_t places[] = {0, FMT_SB_B_OFFSET};
	struct device_fixture fx;
	struct fmt_superblock sb;

	(void)state;
	for (uint32_t version = FMT_VERSION - 1; version <= FMT_VERSION + 1; version += 2) {
		prepare(&fx, true);
		for (int i = 0; i < 2; i++) {
			assert_int_equal(sim_disk_peek(fx.sim.m, DEVICE_PATH, places[i], &sb,
						       sizeof(sb)),
					 0);
			sb.version = to_le32(version);
			sb.crc = to_le32(0);
			sb.crc = to_le32(crc32c(&sb, sizeof(sb)));
			assert_int_equal(sim_disk_poke(fx.sim.m, DEVICE_PATH, places[i], &sb,
						       sizeof(sb)),
					 0);
			/* one copy is enough to refuse it */
			assert_int_equal(fixture_open(&fx, i == 1), -E_VERSION);
			assert_non_null(strstr(fx.errmsg, "incompatible version"));
		}
		device_fixture_free(&fx);
	}
}

static void a_slot_page_gone_is_refused_for_service(void **state)
{
	struct device_fixture fx;

	(void)state;
	prepare(&fx, true);
	flip(&fx, geometry_slot_page_offset(&geo, 0, 0) + 50, 1);
	flip(&fx, geometry_slot_page_offset(&geo, 0, 1) + 50, 1);
	assert_int_equal(fixture_open(&fx, false), -E_FORMAT);
	assert_non_null(strstr(fx.errmsg, "slots 0 to 31"));
	assert_int_equal(fixture_open(&fx, true), 0);
	assert_string_equal(fx.last_event, "slots_lost");
	assert_int_equal(device_slot_get(fx.dev, 3, &(struct device_slot){}), -E_FORMAT);
	assert_int_equal(dev_expect(&fx, 3, 1, 0, 4, 4), -E_FORMAT);
	assert_int_equal(dev_expect(&fx, 39, 1, 0, 4, 40), 0);
	device_fixture_free(&fx);
}

static void a_table_page_gone_makes_its_blocks_bad(void **state)
{
	struct device_fixture fx;

	(void)state;
	prepare(&fx, true);
	for (uint32_t home = 0; home < 2; home++)
		flip(&fx, geometry_table_page_offset(&geo, 1, home) + 50, 1);
	assert_int_equal(fixture_open(&fx, false), 0);
	assert_int_equal(dev_expect(&fx, 3, 1, 0, 4, 4), 0);
	assert_int_equal(dev_expect(&fx, 5, 1, 0, 4, 6), -E_BAD_BLOCK);
	assert_string_equal(fx.last_event, "table-damaged");
	assert_int_equal(dev_write(&fx, 5, 1, 0, 4, 9, 0), 0); /* and is mended by writing */
	assert_int_equal(dev_expect(&fx, 5, 1, 0, 4, 9), 0);
	assert_int_equal(dev_free(&fx, 6, 1, 0), 0);
	assert_int_equal(dev_write(&fx, 6, 2, 0, 4, 9, 0), 0);
	assert_int_equal(dev_expect(&fx, 6, 2, 0, 4, 9), 0);
	assert_int_equal(dev_expect(&fx, 6, 2, 4, 252, 0), 0);
	assert_int_equal(fixture_close(&fx), 0);
	assert_int_equal(fixture_open(&fx, false), 0);
	assert_int_equal(dev_expect(&fx, 5, 1, 0, 4, 9), 0);
	assert_int_equal(dev_expect(&fx, 5, 1, 4, 1, 9), -E_BAD_BLOCK);
	device_fixture_free(&fx);
}

/* Blocks that later ones say were written. */
static void a_hole_in_the_journal_is_damage(void **state)
{
	struct device_fixture fx;
	uint32_t refused = 0;

	(void)state;
	prepare(&fx, false);
	for (uint64_t lsn = 1; lsn < 60; lsn++) {
		uint64_t at = geometry_journal_offset(&geo, lsn) + 40;
		int r;

		flip(&fx, at, 1);
		r = fixture_open(&fx, true);
		assert_true(r == 0 || r == -E_FORMAT);
		refused += r != 0;
		if (!r)
			assert_int_equal(look(&fx), 0); /* it was not needed */
		if (!r)
			fixture_close(&fx);
		flip(&fx, at, 1);
	}
	assert_true(refused >= 10);
	device_fixture_free(&fx);
}

static void another_clusters_device_is_refused(void **state)
{
	struct device_fixture fx;

	(void)state;
	device_fixture_init(&fx, 5);
	fx.cluster.b[0] ^= 1;
	assert_int_equal(fixture_open(&fx, false), -E_FOREIGN);
	assert_non_null(strstr(fx.errmsg, "cluster"));
	device_fixture_free(&fx);
}

/* ---- format ----------------------------------------------------------------------------------------------------------- */

static void format_refuses_what_is_not_its_own(void **state)
{
	struct device_fixture fx;

	(void)state;
	device_fixture_init(&fx, 5);
	assert_int_equal(fixture_format(&fx, false), -E_FOREIGN);
	assert_non_null(strstr(fx.errmsg, "already"));
	assert_int_equal(fixture_open(&fx, false), 0);
	assert_int_equal(dev_write(&fx, 0, 1, 0, 4, 1, 0), 0);
	assert_int_equal(fixture_format(&fx, true), -E_IN_USE);
	assert_int_equal(fixture_close(&fx), 0);
	assert_int_equal(fixture_format(&fx, true), 0);
	assert_int_equal(fixture_open(&fx, false), 0);
	assert_int_equal(dev_expect(&fx, 0, 1, 0, 4, 0), 0); /* a new device */
	assert_int_equal(fixture_close(&fx), 0);
	assert_int_equal(sim_disk_sign(fx.sim.m, DEVICE_PATH, "ext4"), 0);
	assert_int_equal(fixture_format(&fx, false), -E_FOREIGN);
	assert_non_null(strstr(fx.errmsg, "ext4"));
	fx.size_bytes = 64 << 20;
	assert_int_equal(fixture_format(&fx, true), -EINVAL);
	device_fixture_free(&fx);
}

static uint32_t writes_left;

static int fail_after(void *arg, const char *path, const struct ioe_req *r)
{
	(void)arg;
	(void)path;
	if (r->op != IOE_WRITE && r->op != IOE_FSYNC)
		return 0;
	if (writes_left == 0)
		return -EIO;
	writes_left--;
	return 0;
}

/* Broken off after each of its writes: there is no device then, unless it was complete. */
static void an_interrupted_format_leaves_no_device(void **state)
{
	struct device_fixture fx;
	uint32_t failed = 0;
	int r = -1;

	(void)state;
	device_fixture_init(&fx, 5);
	for (uint32_t n = 0; r; n++) {
		writes_left = n;
		sim_disk_fault(fx.sim.m, fail_after, NULL);
		r = fixture_format(&fx, true);
		sim_disk_fault(fx.sim.m, NULL, NULL);
		if (!r)
			break;
		failed++;
		fixture_power_loss(&fx);
		if (fixture_open(&fx, false) == 0) {
			/* not begun, or but for the second superblock done */
			assert_int_equal(dev_write(&fx, 0, 1, 0, 4, 1, 0), 0);
			assert_int_equal(fixture_close(&fx), 0);
		}
	}
	assert_true(failed >= 8);
	assert_int_equal(fixture_open(&fx, false), 0);
	device_fixture_free(&fx);
}

/* ---- memory ----------------------------------------------------------------------------------------------------------- */

/* The Nth allocation fails, for every N until it works. */
static void a_device_opens_when_there_is_memory(void **state)
{
	struct device_fixture fx;
	uint64_t live;
	int r = -ENOMEM;

	(void)state;
	prepare(&fx, false);
	fx.with_ring = true;
	live = mem_live();
	for (uint64_t n = 0; r; n++) {
		mem_fail_at(n, 1);
		r = fixture_open(&fx, false);
		mem_fail_at(UINT64_MAX, 0);
		if (r == 0)
			break;
		assert_true(r == -ENOMEM || r == -E_FORMAT);
		assert_int_equal(mem_live(), live);
		assert_true(n < 500);
	}
	assert_int_equal(look(&fx), 0);
	assert_int_equal(fixture_close(&fx), 0);
	assert_int_equal(mem_live(), live);
	device_fixture_free(&fx);
}

static void requests_fail_or_work_when_memory_is_short(void **state)
{
	struct device_fixture fx;

	(void)state;
	device_fixture_init(&fx, 5);
	fx.with_ring = true;
	assert_int_equal(fixture_open(&fx, false), 0);
	for (uint32_t i = 0; i < 60; i++) {
		struct fixture_req *q = req_new(&fx, CHUNK_WRITE, i, 1, 0, 4);
		int r;

		req_fill(q, i + 1);
		mem_fail_at(i % 6, 3);
		req_submit(q);
		r = req_wait(q);
		mem_fail_at(UINT64_MAX, 0);
		assert_true(r == 0 || r == -ENOMEM);
		assert_int_equal(dev_expect(&fx, i, 1, 0, 4, r ? 0 : i + 1), 0);
		req_free(q);
	}
	assert_int_equal(fixture_close(&fx), 0);
	device_fixture_free(&fx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_flipped_byte_is_never_wrong_data),
	    cmocka_unit_test(both_superblocks_gone_is_no_device),
	    cmocka_unit_test(a_device_of_another_version_is_refused),
	    cmocka_unit_test(a_slot_page_gone_is_refused_for_service),
	    cmocka_unit_test(a_table_page_gone_makes_its_blocks_bad),
	    cmocka_unit_test(a_hole_in_the_journal_is_damage),
	    cmocka_unit_test(another_clusters_device_is_refused),
	    cmocka_unit_test(format_refuses_what_is_not_its_own),
	    cmocka_unit_test(an_interrupted_format_leaves_no_device),
	    cmocka_unit_test(a_device_opens_when_there_is_memory),
	    cmocka_unit_test(requests_fail_or_work_when_memory_is_short),
	};

	log_set_level(LOG_ERROR); /* damage is what this is about */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
