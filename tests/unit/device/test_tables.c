/* SPDX-License-Identifier: Apache-2.0 */
/* The cache of block tables when memory is short, the disk slow, or a page cannot be read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io-path/device/dev.h"
#include "src/base/log.h"
#include "src/base/mem.h"
#include "tests/lib/device_fixture.h"

enum { PER_PAGE = 4 }; /* slots of a table page */
#define MS  ((uint64_t)1000 * 1000)
#define SEC (1000 * MS)

static struct device_fixture fx;

/* What the disk does to reads of table pages: pages [from, to) fail, the first `times` that each is read. And what it was asked. */
static struct {
	struct geometry geo;
	uint32_t from, to, times;
	uint32_t failed[4096];
	uint64_t page_reads, page_writes, flushes;
} disk;

/* The device has one group, in which the pages of a home lie one after the other. */
static bool page_at(uint64_t off, uint32_t *ret_page)
{
	for (uint32_t home = 0; home < 2; home++) {
		uint64_t first = geometry_table_page_offset(&disk.geo, 0, home);

		if (off < first || off - first >= (uint64_t)disk.geo.total.table_pages * FMT_PAGE)
			continue;
		*ret_page = (uint32_t)((off - first) / FMT_PAGE);
		return true;
	}
	return false;
}

static int on_disk(void *arg, const char *path, const struct ioe_req *r)
{
	uint64_t first_slot = geometry_slot_offset(&disk.geo, 0);
	bool fails = false;

	(void)arg;
	(void)path;
	disk.flushes += r->op == IOE_FSYNC;
	if ((r->op != IOE_READ && r->op != IOE_WRITE) || r->off >= first_slot)
		return 0;
	for (uint64_t off = r->off; off < r->off + r->len; off += FMT_PAGE) {
		uint32_t page;

		if (!page_at(off, &page))
			continue;
		*(r->op == IOE_READ ? &disk.page_reads : &disk.page_writes) += 1;
		if (r->op == IOE_READ && page >= disk.from && page < disk.to &&
		    disk.failed[page] < disk.times) {
			disk.failed[page]++;
			fails = true;
		}
	}
	return fails ? -EIO : 0;
}

static void reads_fail(uint32_t from, uint32_t to, uint32_t times)
{
	disk.from = from;
	disk.to = to;
	disk.times = times;
	memset(disk.failed, 0, sizeof(disk.failed));
}

/* A device of which every slot of the first pages_n table pages has data at block 0, in a home; opened again, with nothing in memory. */
static void begin(const struct sim_config *cfg, uint64_t size_bytes, uint32_t pages_n,
		  uint64_t cache_bytes)
{
	memset(&disk, 0, sizeof(disk));
	device_fixture_init_as(&fx, cfg, size_bytes);
	fx.with_ring = true;
	fx.cache_bytes = cache_bytes;
	assert_int_equal(geometry_plan(size_bytes, fx.chunk_shift, &disk.geo), 0);
	assert_true(disk.geo.total.table_pages <= 4096 && pages_n <= disk.geo.total.table_pages);
	assert_int_equal(fixture_open(&fx, false), 0);
	for (uint32_t page = 0; page < pages_n; page++)
		assert_int_equal(dev_write(&fx, page * PER_PAGE, 1, 0, 1, page + 1, 0), 0);
	assert_int_equal(fixture_close(&fx), 0);
	assert_int_equal(fixture_open(&fx, false), 0);
	sim_disk_fault(fx.sim.m, on_disk, NULL);
}

static void end(void)
{
	device_fixture_free(&fx);
}

/* ---- pages that cannot be read ------------------------------------------------------------------------------------------ */

/* Trouble that passes must not become damage that stays. */
static void a_page_that_cannot_be_read_now_is_no_damage(void **state)
{
	struct fixture_req *clear;

	(void)state;
	begin(&(struct sim_config){.seed = 1}, 128 << 20, 4, 0);
	reads_fail(1, 2, UINT32_MAX);
	assert_int_equal(dev_expect(&fx, 4, 1, 0, 1, 2), -EIO);
	assert_string_equal(fx.last_event, "unreadable");
	assert_int_equal(dev_state(&fx, 4, 1, 0), -EIO);
	assert_int_equal(dev_clear(&fx, 4, 1, 0, 1, 0), -EIO);
	assert_int_equal(dev_free(&fx, 4, 1, CHUNK_F_IF_EMPTY), -EIO);
	/* writes do not need it, and pin it */
	assert_int_equal(dev_write(&fx, 5, 1, 7, 1, 99, 0), 0);
	assert_int_equal(dev_write(&fx, 4, 1, 1, 1, 98, 0), 0);
	assert_int_equal(dev_expect(&fx, 4, 1, 0, 1, 2), -EIO);
	assert_int_equal(dev_expect(&fx, 0, 1, 0, 1, 1), 0); /* its neighbour is well */
	sim_sleep(&fx.sim, 30 * SEC);
	assert_int_equal(dev_expect(&fx, 4, 1, 0, 1, 2), -EIO);
	clear = req_new(&fx, CHUNK_CLEAR, 4, 1, 0, 1);
	reads_fail(0, 0, 0);
	req_submit(clear);
	assert_int_equal(req_wait(clear), 0);
	req_free(clear);
	assert_int_equal(dev_expect(&fx, 4, 1, 0, 1, 0), 0);
	assert_int_equal(dev_expect(&fx, 4, 1, 1, 1, 98), 0);
	assert_int_equal(dev_expect(&fx, 5, 1, 7, 1, 99), 0);
	assert_int_equal(fixture_close(&fx), 0);
	assert_int_equal(fixture_open(&fx, false), 0);
	assert_int_equal(dev_expect(&fx, 4, 1, 1, 1, 98), 0);
	end();
}

/* Nobody's memory: pages that could not be read and that nobody uses are not kept. */
static void unreadable_pages_are_not_kept(void **state)
{
	uint64_t before;

	(void)state;
	begin(&(struct sim_config){.seed = 1}, 128 << 20, 20, 0);
	before = fx.dev->tables.bytes;
	reads_fail(0, 20, UINT32_MAX);
	for (uint32_t page = 0; page < 20; page++)
		assert_int_equal(dev_expect(&fx, page * PER_PAGE, 1, 0, 1, page + 1), -EIO);
	assert_int_equal(fx.dev->tables.bytes, before);
	assert_int_equal(fx.dev->tables.unreadable_n, 0);
	reads_fail(0, 0, 0);
	for (uint32_t page = 0; page < 20; page++)
		assert_int_equal(dev_expect(&fx, page * PER_PAGE, 1, 0, 1, page + 1), 0);
	assert_int_equal(fixture_close(&fx), 0);
	end();
}

/* A close cannot bring home what it cannot read: the restart ring keeps it. */
static void a_close_over_an_unreadable_page_loses_nothing(void **state)
{
	(void)state;
	begin(&(struct sim_config){.seed = 1}, 128 << 20, 4, 0);
	reads_fail(1, 2, UINT32_MAX);
	assert_int_equal(dev_write(&fx, 5, 1, 7, 1, 99, 0), 0);
	assert_int_equal(dev_expect(&fx, 4, 1, 0, 1, 2), -EIO);
	assert_int_equal(fixture_close(&fx), -EIO);
	reads_fail(0, 0, 0);
	assert_int_equal(fixture_open(&fx, false), 0);
	assert_int_equal(dev_expect(&fx, 4, 1, 0, 1, 2), 0);
	assert_int_equal(dev_expect(&fx, 5, 1, 7, 1, 99), 0);
	assert_int_equal(fixture_close(&fx), 0);
	end();
}

/* One bad sector is one page's trouble, not that of those that are read with it. */
static void neighbours_of_a_bad_page_are_read(void **state)
{
	struct fixture_req *q[16];

	(void)state;
	begin(&(struct sim_config){.seed = 1}, 128 << 20, 16, 0);
	reads_fail(5, 6, UINT32_MAX);
	for (uint32_t page = 0; page < 16; page++) {
		q[page] = req_new(&fx, CHUNK_READ, page * PER_PAGE, 1, 0, 1);
		req_submit(q[page]);
	}
	for (uint32_t page = 0; page < 16; page++) {
		assert_int_equal(req_wait(q[page]), page == 5 ? -EIO : 0);
		req_free(q[page]);
	}
	assert_int_equal(fixture_close(&fx), 0);
	end();
}

/* A page that stays unreadable while there are newer records of it is given up, late: what was written since counts, the rest is bad. */
static void a_page_that_stays_unreadable_is_given_up(void **state)
{
	uint64_t begun;

	(void)state;
	begin(&(struct sim_config){.seed = 1}, 128 << 20, 4, 0);
	begun = sim_now_ns(fx.sim.w);
	reads_fail(1, 2, UINT32_MAX);
	assert_int_equal(dev_write(&fx, 5, 1, 7, 1, 99, 0), 0);
	assert_int_equal(dev_expect(&fx, 4, 1, 0, 1, 2), -EIO);
	while (dev_expect(&fx, 4, 1, 0, 1, 2) == -EIO) {
		sim_sleep(&fx.sim, SEC);
		assert_true(sim_now_ns(fx.sim.w) < begun + 120 * SEC);
	}
	assert_true(sim_now_ns(fx.sim.w) >= begun + 60 * SEC);
	assert_int_equal(dev_expect(&fx, 4, 1, 0, 1, 2), -E_BAD_BLOCK);
	assert_int_equal(dev_expect(&fx, 5, 1, 7, 1, 99), 0);
	assert_int_equal(fixture_close(&fx), 0);
	end();
}

static int no_space;

static int no_room_for_data(void *arg, const char *path, const struct ioe_req *r)
{
	if (no_space && r->op == IOE_WRITE && r->off >= geometry_slot_offset(&disk.geo, 0))
		return -ENOSPC;
	return on_disk(arg, path, r);
}

/* What a write that found no room left behind cannot be told without the table; its record may be in the journal already. */
static void a_failed_write_over_an_unreadable_page_is_not_taken_for_done(void **state)
{
	(void)state;
	for (uint32_t flags = 0; flags <= CHUNK_F_STABLE; flags += CHUNK_F_STABLE) {
		begin(&(struct sim_config){.seed = 1}, 128 << 20, 4, 0);
		sim_disk_fault(fx.sim.m, no_room_for_data, NULL);
		reads_fail(1, 2, UINT32_MAX);
		no_space = 1;
		assert_int_equal(dev_write(&fx, 4, 1, 0, 1, 50, flags), -EIO);
		no_space = 0;
		reads_fail(0, 0, 0);
		assert_int_equal(dev_expect(&fx, 4, 1, 0, 1, 2), -E_BAD_BLOCK);
		assert_int_equal(dev_write(&fx, 4, 1, 0, 1, 51, 0), 0);
		assert_int_equal(fixture_close(&fx), 0);
		assert_int_equal(fixture_open(&fx, false), 0);
		assert_int_equal(dev_expect(&fx, 4, 1, 0, 1, 51), 0);
		end();
	}
}

/* ---- slow loads ----------------------------------------------------------------------------------------------------------- */

static void put(void *arg, int status)
{
	*(int *)arg = status;
}

/* The rounds of a close that find nothing loaded are not in vain: reading takes its time. Here there is nothing else that they could do, for all
 * records are published. */
static void a_close_waits_for_tables(void **state)
{
	(void)state;
	begin(&(struct sim_config){.seed = 1}, 128 << 20, 4, 0);
	reads_fail(1, 2, 3 + 3 + 2); /* for the write, for the read, and then it works */
	assert_int_equal(dev_write(&fx, 5, 1, 7, 1, 99, 0), 0);
	assert_int_equal(dev_expect(&fx, 4, 1, 0, 1, 2), -EIO);
	if (disk.failed[1] == 3)
		assert_int_equal(dev_expect(&fx, 4, 1, 0, 1, 2), -EIO);
	for (int i = 0; i < 3; i++) { /* each publishes what came before it */
		int status = 1;

		device_commit_put(fx.dev, 5, put, &status);
		while (status == 1)
			assert_true(sim_step(fx.sim.w));
	}
	assert_int_equal(disk.failed[1], 6);
	assert_int_equal(fixture_close(&fx), 0);
	assert_int_equal(disk.failed[1], 8);
	end();
}

/* Dirty pages that are not loaded cannot be checkpointed; who waits for room must hear of it when they are. */
static void writers_do_not_wait_for_a_tick(void **state)
{
	enum { PAGES = 300 };
	struct fixture_req *q[PAGES + 1];

	(void)state;
	for (uint64_t seed = 1; seed <= 5; seed++) {
		uint64_t begun;

		begin(&(struct sim_config){.seed = seed}, (uint64_t)3 << 30, 2 * PAGES + 2, 1);
		reads_fail(0, 2 * PAGES + 2, 2);
		for (uint32_t i = 0; i < PAGES; i++) {
			q[i] = req_new(&fx, CHUNK_WRITE, 2 * i * PER_PAGE + 1, 1, 3, 1);
			req_fill(q[i], i + 1);
			req_submit(q[i]);
		}
		for (uint32_t i = 0; i < PAGES; i++) {
			assert_int_equal(req_wait(q[i]), 0);
			req_free(q[i]);
		}
		begun = sim_now_ns(fx.sim.w);
		assert_int_equal(dev_write(&fx, (2 * PAGES + 1) * PER_PAGE, 1, 3, 1, 1, 0), 0);
		assert_true(sim_now_ns(fx.sim.w) < begun + SEC);
		end();
	}
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------ */

static void an_unused_device_gives_memory_back(void **state)
{
	struct device_info info;

	(void)state;
	begin(&(struct sim_config){.seed = 1}, (uint64_t)3 << 30, 600, 0);
	for (int round = 0; round < 2; round++) {
		for (uint32_t page = 0; page < 600; page++)
			assert_int_equal(dev_expect(&fx, page * PER_PAGE, 1, 0, 1, page + 1), 0);
		device_info(fx.dev, &info);
		assert_true(info.table_cache_bytes > 600 * FMT_PAGE);
		sim_sleep(&fx.sim, 8 * SEC);
		device_info(fx.dev, &info);
		assert_true(info.table_cache_bytes > 600 * FMT_PAGE);
		sim_sleep(&fx.sim, 10 * SEC);
		device_info(fx.dev, &info);
		assert_true(info.table_cache_bytes <= 1 << 20);
	}
	sim_sleep(&fx.sim, SEC);
	assert_true(sim_run(fx.sim.w, UINT64_MAX)); /* and then nothing is left to happen */
	assert_int_equal(fixture_close(&fx), 0);
	end();
}

/* Overwriting here and there in all of a device, with the cache it has by default: pages are hardly ever read, one is written for every other write,
 * and there are few flushes. */
static void a_working_set_as_large_as_the_device(void **state)
{
	enum { PAGES = 512, WRITES = 6000, DEPTH = 16, COUNTED = WRITES * 2 / 3 };
	struct fixture_req *q[DEPTH];
	uint64_t x = 12345;

	(void)state;
	begin(&(struct sim_config){.seed = 1}, (uint64_t)9 << 28, PAGES, (uint64_t)9 << 18);
	for (uint32_t i = 0; i < DEPTH; i++)
		q[i] = NULL;
	for (uint32_t i = 0; i < WRITES + DEPTH; i++) {
		struct fixture_req **at = &q[i % DEPTH];

		if (*at) {
			assert_int_equal(req_wait(*at), 0);
			req_free(*at);
			*at = NULL;
		}
		if (i >= WRITES)
			continue;
		x = x * 6364136223846793005u + 1442695040888963407u;
		*at = req_new(&fx, CHUNK_WRITE, (uint32_t)(x >> 33) % PAGES * PER_PAGE, 1, 0, 1);
		req_fill(*at, i + 1);
		req_submit(*at);
		if (i == WRITES / 3) /* by then it is as it will be */
			disk.page_reads = disk.page_writes = disk.flushes = 0;
	}
	print_message("%u writes: %.2f page reads, %.2f page writes, %.3f flushes each\n", COUNTED,
		      (double)disk.page_reads / COUNTED, (double)disk.page_writes / COUNTED,
		      (double)disk.flushes / COUNTED);
	assert_true(disk.page_reads < COUNTED / 20);
	assert_true(disk.page_writes < COUNTED / 10 * 6);
	assert_true(disk.flushes < COUNTED / 10);
	assert_true(fx.dev->tables.bytes <= fx.dev->tables.bytes_max);
	assert_int_equal(fixture_close(&fx), 0);
	end();
}

/* When blocks moved is counted from a base in 32 bits; a page may stay in memory for longer. */
static void a_page_may_stay_for_billions_of_journal_blocks(void **state)
{
	struct device *dev = mem_zalloc(sizeof(*dev));
	struct table_page p = {.page_no = 1, .moved_base = 90, .moved_max = 100, .users = 1};

	(void)state;
	assert_non_null(dev);
	p.moved = mem_zalloc(FMT_VALUES_PER_PAGE * sizeof(uint32_t));
	assert_non_null(p.moved);
	p.moved[5] = 10;
	dev->journal.open_lsn = 1000;
	dev->journal.published_lsn = 99;
	assert_int_equal(table_track(dev, &p), 0);
	assert_int_equal(table_moved(&p, 5), 100);
	dev->journal.open_lsn = ((uint64_t)1 << 32) + 1000;
	dev->journal.published_lsn = dev->journal.open_lsn - 10;
	assert_int_equal(table_track(dev, &p), 0);
	assert_int_equal(table_moved(&p, 5), 0);
	assert_true(dev->journal.open_lsn - p.moved_base <= UINT32_MAX);
	mem_free(p.moved);
	mem_free(dev);
}

/* ---- when a page is let go ------------------------------------------------------------------------------------------------------ */

/* As much of a device as the rules below look at: page 1 is in the cache, and in no home that counts. */
static struct device *device_of_one_page(struct table_page **ret_p)
{
	struct device *dev = mem_zalloc(sizeof(*dev));
	struct table_page *p = mem_zalloc(sizeof(*p));

	assert_true(dev && p);
	dev->tables.tables = mem_zalloc_array(2, sizeof(*dev->tables.tables));
	assert_non_null(dev->tables.tables);
	list_init(&dev->tables.lru);
	list_init(&dev->maint.unpublished);
	list_init(&dev->maint.waiters);
	pins_init(&dev->journal.pins, 2048, 1);
	pin_init(&p->pin, PIN_TABLE);
	list_init(&p->waiters);
	list_init(&p->ckpt_link);
	list_init(&p->lru);
	list_push(&dev->tables.lru, &p->lru);
	p->page_no = 1;
	p->loaded = true;
	dev->tables.tables[1].page = p;
	dev->tables.dirty_max = 100;
	dev->tables.bytes = 1 << 30;
	*ret_p = p;
	return dev;
}

static void device_drop(struct device *dev)
{
	mem_free(dev->tables.tables);
	mem_free(dev);
}

/* Its CKPT must be published: until then a replay may see only the description before it, whose home the next checkpoint overwrites, and
 * whose records the tail must not pass. */
static void a_checkpoint_counts_when_it_is_published(void **state)
{
	struct table_page *p;
	struct device *dev = device_of_one_page(&p);

	(void)state;
	table_touch(dev, p, 90);
	p->in_ckpt = true;
	p->ckpt_from_lsn = 95;
	p->ckpt_lsn = 100;
	list_push(&dev->maint.unpublished, &p->ckpt_link);
	dev->journal.published_lsn = 99;
	dev->journal.stable_lsn = 101;
	ckpt_tables_published(dev);
	assert_true(p->in_ckpt);
	assert_int_equal(p->pin.lsn, 90);
	assert_int_equal(p->home_from_lsn, 0);
	dev->journal.published_lsn = 100;
	ckpt_tables_published(dev);
	assert_false(p->in_ckpt);
	assert_int_equal(p->pin.lsn, 0);
	assert_int_equal(p->home_from_lsn, 95);
	assert_true(list_empty(&dev->maint.unpublished));
	mem_free(p);
	device_drop(dev);
}

/* When blocks moved is remembered with the page, and read from nowhere: one that is let go too early would let a write overwrite a block whose record
 * a replay might not trust. */
static void a_page_with_moves_that_are_not_published_stays(void **state)
{
	struct table_page *p;
	struct device *dev = device_of_one_page(&p);

	(void)state;
	p->moved_max = 100;
	dev->journal.published_lsn = 99;
	tables_trim(dev);
	assert_ptr_equal(dev->tables.tables[1].page, p);
	p->users = 1;
	dev->journal.published_lsn = 100;
	tables_trim(dev);
	assert_ptr_equal(dev->tables.tables[1].page, p);
	p->users = 0;
	p->in_ckpt = true;
	tables_trim(dev);
	assert_ptr_equal(dev->tables.tables[1].page, p);
	p->in_ckpt = false;
	tables_trim(dev);
	assert_null(dev->tables.tables[1].page);
	device_drop(dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_page_that_cannot_be_read_now_is_no_damage),
	    cmocka_unit_test(unreadable_pages_are_not_kept),
	    cmocka_unit_test(a_close_over_an_unreadable_page_loses_nothing),
	    cmocka_unit_test(neighbours_of_a_bad_page_are_read),
	    cmocka_unit_test(a_page_that_stays_unreadable_is_given_up),
	    cmocka_unit_test(a_failed_write_over_an_unreadable_page_is_not_taken_for_done),
	    cmocka_unit_test(a_close_waits_for_tables),
	    cmocka_unit_test(writers_do_not_wait_for_a_tick),
	    cmocka_unit_test(an_unused_device_gives_memory_back),
	    cmocka_unit_test(a_working_set_as_large_as_the_device),
	    cmocka_unit_test(a_page_may_stay_for_billions_of_journal_blocks),
	    cmocka_unit_test(a_checkpoint_counts_when_it_is_published),
	    cmocka_unit_test(a_page_with_moves_that_are_not_published_stays),
	};

	log_set_level(LOG_ERROR + 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
