/* SPDX-License-Identifier: Apache-2.0 */
/* What one process sees of its simulated disks, and what kill and power loss do to them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/mem.h"
#include "tests/lib/sim_fixture.h"

enum { PAGE = 4096, SECTOR = 512 };
#define TIB ((uint64_t)1 << 40)

static _Alignas(PAGE) uint8_t a[PAGE], b[PAGE], c[PAGE], zero[PAGE];

static int setup(void **state)
{
	struct sim_fixture *fx = mem_zalloc(sizeof(*fx));

	sim_fixture_init(fx, 1);
	memset(a, 'a', sizeof(a));
	memset(b, 'b', sizeof(b));
	*state = fx;
	return 0;
}

static int teardown(void **state)
{
	sim_fixture_free(*state);
	mem_free(*state);
	return 0;
}

static void what_was_written_is_read_and_the_rest_is_zeros(void **state)
{
	struct sim_fixture *fx = *state;
	struct ioe_file *f = sim_file_make(fx, "disk", TIB);

	assert_int_equal(sim_write(fx, f, TIB - PAGE, a, PAGE), 0);
	assert_int_equal(sim_write(fx, f, SECTOR, b, SECTOR), 0);
	assert_int_equal(sim_read(fx, f, TIB - PAGE, c, PAGE), 0);
	assert_memory_equal(c, a, PAGE);
	assert_int_equal(sim_read(fx, f, 0, c, PAGE), 0);
	assert_memory_equal(c, zero, SECTOR);
	assert_memory_equal(c + SECTOR, b, SECTOR);
	assert_memory_equal(c + 2 * SECTOR, zero, PAGE - 2 * SECTOR);
	assert_int_equal(ioe_file_used_bytes(fx->e, f), 2 * PAGE);
	assert_int_equal(sim_punch(fx, f, 0, TIB), 0);
	assert_int_equal(ioe_file_used_bytes(fx->e, f), 0);
	assert_int_equal(sim_read(fx, f, TIB - PAGE, c, PAGE), 0);
	assert_memory_equal(c, zero, PAGE);
	ioe_file_close(fx->e, f);
}

static void requests_past_the_end_fail(void **state)
{
	struct sim_fixture *fx = *state;
	struct ioe_file *f = sim_file_make(fx, "disk", 2 * PAGE);

	assert_int_equal(sim_read(fx, f, 2 * PAGE, c, SECTOR), -EIO);
	assert_int_equal(sim_read(fx, f, PAGE + SECTOR, c, PAGE), -EIO);
	assert_int_equal(sim_write(fx, f, 2 * PAGE, a, SECTOR), -ENOSPC);
	assert_int_equal(sim_punch(fx, f, PAGE, 2 * PAGE), 0);
	assert_int_equal(sim_punch(fx, f, 4 * PAGE, PAGE), 0);
	ioe_file_close(fx->e, f);
}

static void malformed_requests_are_refused(void **state)
{
	struct sim_fixture *fx = *state;
	struct ioe_file *f = sim_file_make(fx, "disk", 16 * PAGE), *ro;

	assert_int_equal(sim_read(fx, f, 100, c, SECTOR), -EINVAL);
	assert_int_equal(sim_write(fx, f, 0, a, 100), -EINVAL);
	assert_int_equal(sim_write(fx, f, 0, a + 1, SECTOR), -EINVAL);
	assert_int_equal(sim_write(fx, f, UINT64_MAX - SECTOR + 1, a, SECTOR), -EINVAL);
	assert_int_equal(ioe_file_open(fx->e, "disk", IOE_OPEN_RDONLY, &ro, NULL), 0);
	assert_int_equal(sim_write(fx, ro, 0, a, PAGE), -EBADF);
	assert_int_equal(sim_punch(fx, ro, 0, PAGE), -EBADF);
	assert_int_equal(sim_read(fx, ro, 0, c, PAGE), 0);
	ioe_file_close(fx->e, ro);
	ioe_file_close(fx->e, f);
}

/* ---- what an fsync covers --------------------------------------------------------------------------------------------- */

/* One world per seed: `story` runs in it, then the power fails. How often is the sector at `off` filled with `byte`? */
static int survivals(int (*story)(struct sim_fixture *fx, struct ioe_file *f), uint64_t off,
		     int byte, int seeds)
{
	uint8_t sector[SECTOR], want[SECTOR];
	int n = 0;

	memset(want, byte, sizeof(want));
	for (int seed = 1; seed <= seeds; seed++) {
		struct sim_fixture fx;
		int r;

		sim_fixture_init(&fx, (uint64_t)seed);
		r = story(&fx, sim_file_make(&fx, "disk", 4 * PAGE));
		assert_int_equal(r, 0);
		sim_fixture_power_loss(&fx);
		assert_int_equal(sim_disk_peek(fx.m, "disk", off, sector, SECTOR), 0);
		n += memcmp(sector, want, SECTOR) == 0;
		sim_fixture_free(&fx);
	}
	return n;
}

enum { SEEDS = 200 };

static int write_fsync_write(struct sim_fixture *fx, struct ioe_file *f)
{
	static struct sim_wait sync, late;
	int r = sim_write(fx, f, 0, a, SECTOR);

	ioe_fsync(fx->e, &sync.req, f, sim_wait_done);
	ioe_write(fx->e, &late.req, f, SECTOR, b, SECTOR, sim_wait_done);
	r = r ? r : sim_wait(fx, &late);
	return r ? r : sim_wait(fx, &sync);
}

static void an_fsync_covers_what_had_completed_and_nothing_else(void **state)
{
	int late;

	(void)state;
	assert_int_equal(survivals(write_fsync_write, 0, 'a', SEEDS), SEEDS);
	late = survivals(write_fsync_write, SECTOR, 'b', SEEDS);
	assert_in_range(late, 1, SEEDS - 1);
}

static struct sim_wait in_turn[3];
static struct ioe_file *in_turn_file;
static struct sim_fixture *in_turn_fx;

static void first_done(struct ioe_req *r)
{
	sim_wait_done(r);
	ioe_fsync(in_turn_fx->e, &in_turn[2].req, in_turn_file, sim_wait_done);
}

/* Both writes landed before the turn that delivers them; the fsync is submitted between the two deliveries. */
static int write_write_fsync_between(struct sim_fixture *fx, struct ioe_file *f)
{
	in_turn_fx = fx;
	in_turn_file = f;
	memset(in_turn, 0, sizeof(in_turn));
	ioe_write(fx->e, &in_turn[0].req, f, 0, a, SECTOR, first_done);
	ioe_write(fx->e, &in_turn[1].req, f, SECTOR, b, SECTOR, sim_wait_done);
	sim_step(fx->w);
	sim_stall(fx->e, 50 * 1000 * 1000);
	sim_run_until(fx->w, &in_turn[1].is_done);
	return in_turn[0].is_done ? sim_wait(fx, &in_turn[2]) : 0;
}

static void a_landed_write_that_was_not_delivered_is_not_covered(void **state)
{
	int second;

	(void)state;
	second = survivals(write_write_fsync_between, SECTOR, 'b', SEEDS);
	assert_in_range(second, 1, SEEDS - 1);
}

/* It landed, and word of it waits for the process's next turn. */
static int landed_then_fsync(struct sim_fixture *fx, struct ioe_file *f)
{
	static struct sim_wait wr, sync;
	uint8_t there = 0;
	int r;

	ioe_write(fx->e, &wr.req, f, 0, a, SECTOR, sim_wait_done);
	while (there != 'a') {
		if (!sim_step(fx->w) || sim_disk_peek(fx->m, "disk", 0, &there, 1))
			return -EIO;
	}
	if (wr.is_done)
		return -EALREADY;
	ioe_fsync(fx->e, &sync.req, f, sim_wait_done);
	r = sim_wait(fx, &sync);
	wr.is_done = false;
	return r;
}

static void word_that_is_on_its_way_was_not_delivered(void **state)
{
	(void)state;
	assert_in_range(survivals(landed_then_fsync, 0, 'a', SEEDS), 1, SEEDS - 1);
}

static int punch_then_fsync(struct sim_fixture *fx, struct ioe_file *f)
{
	int r = sim_write(fx, f, 0, a, PAGE);

	r = r ? r : sim_fsync(fx, f);
	r = r ? r : sim_punch(fx, f, 0, PAGE);
	return r ? r : sim_fsync(fx, f);
}

static int punch_only(struct sim_fixture *fx, struct ioe_file *f)
{
	int r = sim_write(fx, f, 0, a, PAGE);

	r = r ? r : sim_fsync(fx, f);
	return r ? r : sim_punch(fx, f, 0, PAGE);
}

static void a_punch_needs_an_fsync(void **state)
{
	int undone;

	(void)state;
	assert_int_equal(survivals(punch_then_fsync, 0, 0, SEEDS), SEEDS);
	undone = survivals(punch_only, 0, 'a', SEEDS);
	assert_in_range(undone, 1, SEEDS - 1);
}

/* Which sectors of a page that was written and not synced are there: a bit for each. */
static unsigned sectors_survived(uint64_t seed)
{
	struct sim_fixture fx;
	uint8_t page[PAGE];
	unsigned bits = 0;

	sim_fixture_init(&fx, seed);
	assert_int_equal(sim_write(&fx, sim_file_make(&fx, "disk", PAGE), 0, a, PAGE), 0);
	sim_fixture_power_loss(&fx);
	assert_int_equal(sim_disk_peek(fx.m, "disk", 0, page, PAGE), 0);
	sim_fixture_free(&fx);
	for (unsigned s = 0; s < PAGE / SECTOR; s++) {
		bool is_there = page[s * SECTOR] == 'a';

		assert_memory_equal(page + s * SECTOR, is_there ? a : zero, SECTOR);
		bits |= (unsigned)is_there << s;
	}
	return bits;
}

static void a_write_is_torn_between_sectors(void **state)
{
	int none = 0, all = 0, prefix = 0, mixed = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		unsigned bits = sectors_survived(seed);

		none += bits == 0;
		all += bits == (1u << PAGE / SECTOR) - 1;
		prefix += bits > 0 && (bits & (bits + 1)) == 0;
		mixed += (bits & (bits + 1)) != 0;
	}
	assert_true(none > SEEDS / 5 && all > SEEDS / 5 && prefix > all && mixed > 0);
}

/* How many of two pages that lie together are zeros after a punch of both that no fsync covered. */
static int pages_punched(uint64_t seed)
{
	struct sim_fixture fx;
	struct ioe_file *f;
	uint8_t both[2 * PAGE];

	sim_fixture_init(&fx, seed);
	f = sim_file_make(&fx, "disk", 64 * PAGE);
	assert_int_equal(sim_write(&fx, f, 0, a, PAGE), 0);
	assert_int_equal(sim_write(&fx, f, PAGE, b, PAGE), 0);
	assert_int_equal(sim_fsync(&fx, f), 0);
	assert_int_equal(sim_punch(&fx, f, 0, 64 * PAGE), 0);
	sim_fixture_power_loss(&fx);
	assert_int_equal(sim_disk_peek(fx.m, "disk", 0, both, sizeof(both)), 0);
	sim_fixture_free(&fx);
	for (int i = 0; i < PAGE; i++) {
		assert_true(both[i] == both[0] && (both[0] == 'a' || both[0] == 0));
		assert_true(both[PAGE + i] == both[PAGE] && (both[PAGE] == 'b' || both[PAGE] == 0));
	}
	return (both[0] == 0) + (both[PAGE] == 0);
}

static void a_punch_is_torn_between_pages(void **state)
{
	int n[3] = {0};

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		n[pages_punched(seed)]++;
	assert_true(n[0] > 0 && n[1] > 0 && n[2] > 0);
}

static int fail_writes(void *arg, const char *path, const struct ioe_req *r)
{
	(void)arg;
	(void)path;
	return r->op == IOE_WRITE ? -EIO : 0;
}

static int write_that_fails(struct sim_fixture *fx, struct ioe_file *f)
{
	int r;

	sim_disk_fault(fx->m, fail_writes, NULL);
	r = sim_write(fx, f, 0, a, 2 * SECTOR) != -EIO;
	sim_disk_fault(fx->m, NULL, NULL);
	return r ? r : sim_fsync(fx, f);
}

static int write_that_is_cancelled(struct sim_fixture *fx, struct ioe_file *f)
{
	static struct sim_wait w;
	int r;

	do {
		ioe_write(fx->e, &w.req, f, 0, a, 2 * SECTOR, sim_wait_done);
		sim_step(fx->w);
		ioe_cancel(fx->e, &w.req);
		r = sim_wait(fx, &w);
		if (r == 0)
			r = sim_punch(fx, f, 0, PAGE); /* too late: once more */
	} while (r == 0);
	r = r != -ECANCELED;
	return r ? r : sim_fsync(fx, f);
}

/* As on a disk: whoever is told of an error does not know what is there. */
static void a_write_that_fails_or_is_cancelled_may_be_there_in_part(void **state)
{
	int first, second;

	(void)state;
	first = survivals(write_that_fails, 0, 'a', SEEDS);
	second = survivals(write_that_fails, SECTOR, 'a', SEEDS);
	assert_true(first < SEEDS && first > second && second > 0);
	first = survivals(write_that_is_cancelled, 0, 'a', SEEDS);
	second = survivals(write_that_is_cancelled, SECTOR, 'a', SEEDS);
	assert_true(first < SEEDS && first > second && second > 0);
}

static int fail_fsync(void *arg, const char *path, const struct ioe_req *r)
{
	(void)arg;
	(void)path;
	return r->op == IOE_FSYNC ? -EIO : 0;
}

static struct ioe_file *reopened;

/* The open file has failed for good; one that is opened anew knows nothing of it. */
static int fsync_failed_then_not(struct sim_fixture *fx, struct ioe_file *f)
{
	int r = sim_write(fx, f, 0, a, SECTOR);

	sim_disk_fault(fx->m, fail_fsync, NULL);
	r = r ? r : sim_fsync(fx, f) != -EIO;
	sim_disk_fault(fx->m, NULL, NULL);
	r = r ? r : sim_fsync(fx, f) != -EIO;
	ioe_file_close(fx->e, f);
	r = r ? r : ioe_file_open(fx->e, "disk", IOE_OPEN_LOCK, &reopened, NULL);
	r = r ? r : sim_read(fx, reopened, 0, c, PAGE);
	r = r ? r : memcmp(c, a, SECTOR);
	return r ? r : sim_fsync(fx, reopened);
}

static int fsync_failed_then_the_page_changed(struct sim_fixture *fx, struct ioe_file *f)
{
	int r = fsync_failed_then_not(fx, f);

	r = r ? r : sim_write(fx, reopened, SECTOR, b, SECTOR);
	return r ? r : sim_fsync(fx, reopened);
}

static void a_failed_fsync_cannot_be_repeated_into_success(void **state)
{
	int there;

	(void)state;
	there = survivals(fsync_failed_then_not, 0, 'a', SEEDS);
	assert_in_range(there, 1, SEEDS - 1);
	there = survivals(fsync_failed_then_the_page_changed, 0, 'a', SEEDS);
	assert_in_range(there, 1, SEEDS - 1);
	assert_int_equal(survivals(fsync_failed_then_the_page_changed, SECTOR, 'b', SEEDS), SEEDS);
}

static int write_under_way(struct sim_fixture *fx, struct ioe_file *f)
{
	static struct sim_wait w;

	ioe_write(fx->e, &w.req, f, 0, a, 2 * SECTOR, sim_wait_done);
	sim_step(fx->w); /* the turn that pushes it */
	return w.is_done;
}

/* The disk may have it, in whole or in part, although nobody was told. */
static void a_write_under_way_may_be_there_after_a_power_loss(void **state)
{
	int first, second;

	(void)state;
	first = survivals(write_under_way, 0, 'a', SEEDS);
	second = survivals(write_under_way, SECTOR, 'a', SEEDS);
	assert_in_range(first, 1, SEEDS - 1);
	assert_in_range(second, 1, SEEDS - 1);
}

/* New sectors among old ones, as a read sees them that meets a write. */
static void a_read_amid_a_write_sees_some_of_it(void **state)
{
	static struct sim_wait wr, rd;
	struct sim_fixture *fx = *state;
	struct ioe_file *f = sim_file_make(fx, "disk", PAGE);
	int all_new = 0, mixed = 0;

	for (int i = 0; i < SEEDS; i++) {
		int n = 0;

		assert_int_equal(sim_write(fx, f, 0, b, PAGE), 0);
		ioe_write(fx->e, &wr.req, f, 0, a, PAGE, sim_wait_done);
		ioe_read(fx->e, &rd.req, f, 0, c, PAGE, sim_wait_done);
		assert_int_equal(sim_wait(fx, &rd), 0);
		for (int s = 0; s < PAGE / SECTOR; s++) {
			n += c[s * SECTOR] == 'a';
			assert_memory_equal(c + s * SECTOR, c[s * SECTOR] == 'a' ? a : b, SECTOR);
		}
		all_new += n == PAGE / SECTOR;
		mixed += n > 0 && n < PAGE / SECTOR;
		assert_int_equal(sim_wait(fx, &wr), 0);
	}
	assert_true(all_new > 0 && mixed > 0);
	ioe_file_close(fx->e, f);
}

static int write_through(struct sim_fixture *fx, struct ioe_file *f)
{
	sim_disk_traits(fx->m, &(struct sim_disk_traits){.write_through = true});
	return sim_write(fx, f, 0, a, SECTOR);
}

static void without_a_volatile_cache_a_completed_write_is_durable(void **state)
{
	(void)state;
	assert_int_equal(survivals(write_through, 0, 'a', SEEDS), SEEDS);
}

/* ---- kill ------------------------------------------------------------------------------------------------------------- */

static void pushed_requests_of_a_killed_process_land_late_and_hold_the_lock(void **state)
{
	static struct sim_wait pushed, queued;
	struct sim_fixture *fx = *state;
	struct ioe_file *f = sim_file_make(fx, "disk", 4 * PAGE);
	char errmsg[ERRMSG_LEN];
	uint8_t buf[SECTOR];
	uint64_t killed_ns;

	ioe_write(fx->e, &pushed.req, f, 0, a, SECTOR, sim_wait_done);
	sim_step(fx->w); /* the turn that pushes it */
	ioe_write(fx->e, &queued.req, f, PAGE, a, SECTOR, sim_wait_done);
	sim_fixture_kill(fx);
	killed_ns = sim_now_ns(fx->w);
	memset(a, 'x', sizeof(a)); /* its memory is gone */
	assert_int_equal(fx->kills, 1);

	sim_fixture_restart(fx);
	assert_int_equal(ioe_file_open(fx->e, "disk", IOE_OPEN_LOCK, &f, errmsg), -E_IN_USE);
	assert_string_equal(errmsg, "disk: in use by pid 100");
	assert_true(sim_run(fx->w, UINT64_MAX));
	assert_in_range(sim_now_ns(fx->w) - killed_ns, 1, SIM_LATE_NS);
	assert_int_equal(ioe_file_open(fx->e, "disk", IOE_OPEN_LOCK, &f, errmsg), 0);
	assert_int_equal(sim_disk_peek(fx->m, "disk", 0, buf, SECTOR), 0);
	memset(a, 'a', sizeof(a));
	assert_memory_equal(buf, a, SECTOR);
	assert_int_equal(sim_disk_peek(fx->m, "disk", PAGE, buf, SECTOR), 0);
	assert_memory_equal(buf, zero, SECTOR);
	assert_false(pushed.is_done || queued.is_done);
}

static void requests_beyond_the_depth_vanish_with_their_process(void **state)
{
	static struct sim_wait w[8];
	struct sim_fixture fx;
	struct ioe_file *f;
	uint8_t buf[8 * PAGE];
	int landed = 0;

	(void)state;
	sim_fixture_init_config(&fx, &(struct sim_config){.seed = 3, .depth = 3});
	f = sim_file_make(&fx, "disk", sizeof(buf));
	for (int i = 0; i < 8; i++)
		ioe_write(fx.e, &w[i].req, f, (uint64_t)i * PAGE, a, PAGE, sim_wait_done);
	sim_step(fx.w);
	sim_fixture_kill(&fx);
	assert_true(sim_run(fx.w, UINT64_MAX));
	assert_int_equal(sim_disk_peek(fx.m, "disk", 0, buf, sizeof(buf)), 0);
	for (int i = 0; i < 8; i++)
		landed += buf[i * PAGE] == 'a';
	assert_int_equal(landed, 3);
	sim_fixture_free(&fx);
}

static void all_requests_beyond_the_depth_complete(void **state)
{
	static struct sim_wait w[40];
	struct sim_fixture fx;
	struct ioe_file *f;

	(void)state;
	memset(w, 0, sizeof(w));
	sim_fixture_init_config(&fx, &(struct sim_config){.seed = 3, .depth = 2});
	f = sim_file_make(&fx, "disk", PAGE);
	for (int i = 0; i < 40; i++)
		ioe_write(fx.e, &w[i].req, f, 0, a, PAGE, sim_wait_done);
	for (int i = 0; i < 40; i += 3)
		ioe_cancel(fx.e, &w[i].req);
	sim_step(fx.w);
	for (int i = 1; i < 40; i += 3)
		ioe_cancel(fx.e, &w[i].req);
	assert_true(sim_run(fx.w, UINT64_MAX));
	for (int i = 0; i < 40; i++) {
		assert_true(w[i].is_done);
		assert_int_equal(w[i].req.status, i % 3 == 0   ? -ECANCELED
						  : i % 3 == 2 ? 0
							       : w[i].req.status);
	}
	ioe_file_close(fx.e, f);
	sim_fixture_free(&fx);
}

static void shared_memory_survives_a_kill_and_not_a_power_loss(void **state)
{
	struct sim_fixture *fx = *state;
	struct uuid boot = ioe_boot_id(fx->e), now;
	struct ioe_shm shm;

	assert_int_equal(ioe_shm_open(fx->e, "/dev/shm/ring", &shm), -ENOENT);
	assert_int_equal(ioe_shm_create(fx->e, "/dev/shm/ring", 5000, &shm), 0);
	assert_memory_equal(shm.base, zero, PAGE);
	memcpy(shm.base, "kept", 4);
	sim_fixture_kill(fx);
	sim_fixture_restart(fx);
	now = ioe_boot_id(fx->e);
	assert_true(uuid_equal(&boot, &now));
	assert_int_equal(ioe_shm_create(fx->e, "/dev/shm/ring", 5000, &shm), -EEXIST);
	assert_int_equal(ioe_shm_open(fx->e, "/dev/shm/ring", &shm), 0);
	assert_int_equal(shm.len_bytes, 5000);
	assert_memory_equal(shm.base, "kept", 4);
	assert_int_equal(ioe_rename(fx->e, "/dev/shm/ring", "/dev/shm/ring2"), 0);
	ioe_shm_close(fx->e, &shm);
	assert_int_equal(ioe_shm_open(fx->e, "/dev/shm/ring2", &shm), 0);
	assert_int_equal(ioe_unlink(fx->e, "/dev/shm/ring2"), 0);
	assert_memory_equal(shm.base, "kept", 4);
	assert_int_equal(ioe_shm_open(fx->e, "/dev/shm/ring2", &shm), -ENOENT);
	assert_int_equal(ioe_shm_create(fx->e, "/dev/shm/ring2", 5000, &shm), 0);
	sim_fixture_power_loss(fx);
	sim_fixture_restart(fx);
	now = ioe_boot_id(fx->e);
	assert_false(uuid_equal(&boot, &now));
	assert_int_equal(ioe_shm_open(fx->e, "/dev/shm/ring2", &shm), -ENOENT);
}

/* ---- locks, names, space ---------------------------------------------------------------------------------------------- */

static void a_lock_is_exclusive_until_it_is_given_up(void **state)
{
	struct sim_fixture *fx = *state;
	struct ioe_file *f = sim_file_make(fx, "disk", PAGE), *g, *h;

	assert_int_equal(ioe_file_open(fx->e, "disk", IOE_OPEN_LOCK, &g, NULL), -E_IN_USE);
	assert_int_equal(ioe_file_open(fx->e, "disk", 0, &g, NULL), 0);
	ioe_file_close(fx->e, f);
	assert_int_equal(ioe_file_open(fx->e, "disk", IOE_OPEN_LOCK, &h, NULL), 0);
	ioe_file_close(fx->e, g);
	assert_int_equal(ioe_file_open(fx->e, "disk", IOE_OPEN_LOCK, &g, NULL), -E_IN_USE);
	ioe_file_close(fx->e, h);
}

static void opening_says_what_is_wrong(void **state)
{
	struct sim_fixture *fx = *state;
	struct ioe_file *f;
	char errmsg[ERRMSG_LEN];

	assert_int_equal(ioe_file_open(fx->e, "none", 0, &f, errmsg), -ENOENT);
	assert_non_null(strstr(errmsg, "none"));
	assert_int_equal(ioe_file_open(fx->e, "new", IOE_OPEN_CREATE, &f, errmsg), 0);
	ioe_file_close(fx->e, f);
	assert_int_equal(ioe_file_open(fx->e, "new", IOE_OPEN_CREATE, &f, errmsg), -EEXIST);
	assert_int_equal(ioe_mkdir(fx->e, "dir", 0700), 0);
	assert_int_equal(ioe_mkdir(fx->e, "dir", 0700), 0);
	assert_int_equal(ioe_mkdir(fx->e, "new", 0700), -EEXIST);
	assert_int_equal(ioe_file_open(fx->e, "dir", 0, &f, errmsg), -EISDIR);
}

static void small_files_are_atomic_and_durable(void **state)
{
	struct sim_fixture *fx = *state;
	char *data;
	size_t len;

	assert_int_equal(ioe_file_load(fx->e, "d/f", &data, &len), -ENOENT);
	assert_int_equal(ioe_mkdir(fx->e, "d", 0700), 0);
	assert_int_equal(ioe_file_store(fx->e, "d/f", "first", 5, 0600), 0);
	assert_int_equal(ioe_file_store(fx->e, "d/f", "second one", 10, 0600), 0);
	assert_int_equal(ioe_file_store(fx->e, "d/empty", "", 0, 0600), 0);
	assert_int_equal(ioe_rename(fx->e, "d", "e"), 0);
	sim_fixture_power_loss(fx);
	sim_fixture_restart(fx);
	assert_int_equal(ioe_file_load(fx->e, "e/f", &data, &len), 0);
	assert_int_equal(len, 10);
	assert_string_equal(data, "second one");
	mem_free(data);
	assert_int_equal(ioe_file_load(fx->e, "e/empty", &data, &len), 0);
	assert_int_equal(len, 0);
	assert_string_equal(data, "");
	mem_free(data);
	assert_int_equal(ioe_rename(fx->e, "e/f", "e/empty"), 0);
	assert_int_equal(ioe_rename(fx->e, "e/f", "e/empty"), -ENOENT);
	assert_int_equal(ioe_file_load(fx->e, "e/empty", &data, &len), 0);
	assert_int_equal(len, 10);
	mem_free(data);
	assert_int_equal(ioe_unlink(fx->e, "e/empty"), 0);
	assert_int_equal(ioe_unlink(fx->e, "e/empty"), -ENOENT);
	assert_int_equal(ioe_file_store(fx->e, "e", "x", 1, 0600), -EISDIR);
}

static void an_unlinked_file_lives_while_it_is_open(void **state)
{
	struct sim_fixture *fx = *state;
	struct ioe_file *f = sim_file_make(fx, "disk", PAGE), *g;

	assert_int_equal(sim_write(fx, f, 0, a, PAGE), 0);
	assert_int_equal(ioe_unlink(fx->e, "disk"), 0);
	g = sim_file_make(fx, "disk", PAGE);
	assert_int_equal(sim_read(fx, g, 0, c, PAGE), 0);
	assert_memory_equal(c, zero, PAGE);
	assert_int_equal(sim_read(fx, f, 0, c, PAGE), 0);
	assert_memory_equal(c, a, PAGE);
	ioe_file_close(fx->e, f);
	ioe_file_close(fx->e, g);
}

static void cutting_a_file_drops_its_end_for_good(void **state)
{
	struct sim_fixture *fx = *state;
	struct ioe_file *f = sim_file_make(fx, "disk", 4 * PAGE);
	struct ioe_file_info info;

	assert_int_equal(sim_write(fx, f, 0, a, PAGE), 0);
	assert_int_equal(sim_write(fx, f, 2 * PAGE, a, PAGE), 0);
	assert_int_equal(ioe_file_resize(fx->e, f, SECTOR), 0);
	ioe_file_info(f, &info);
	assert_int_equal(info.size_bytes, SECTOR);
	assert_int_equal(ioe_file_used_bytes(fx->e, f), PAGE);
	assert_int_equal(ioe_file_resize(fx->e, f, 4 * PAGE), 0);
	assert_int_equal(sim_read(fx, f, 0, c, PAGE), 0);
	assert_memory_equal(c, a, SECTOR);
	assert_memory_equal(c + SECTOR, zero, PAGE - SECTOR);
	sim_fixture_power_loss(fx);
	assert_int_equal(sim_disk_peek(fx->m, "disk", 2 * PAGE, c, PAGE), 0);
	assert_memory_equal(c, zero, PAGE);
	assert_int_equal(sim_disk_peek(fx->m, "disk", 4 * PAGE, c, PAGE), -ERANGE);
}

static void a_quota_is_enospc_except_for_reserved_space(void **state)
{
	struct sim_fixture *fx = *state;
	struct ioe_file *f = sim_file_make(fx, "disk", 16 * PAGE);
	static _Alignas(PAGE) uint8_t big[3 * PAGE];

	sim_disk_quota(fx->m, 4 * PAGE + 100);
	assert_int_equal(ioe_file_reserve(fx->e, f, 0, 5 * PAGE), -ENOSPC);
	assert_int_equal(ioe_file_reserve(fx->e, f, 8 * PAGE, 2 * PAGE), 0);
	assert_int_equal(ioe_file_used_bytes(fx->e, f), 2 * PAGE);
	assert_int_equal(sim_write(fx, f, 0, big, 3 * PAGE), -ENOSPC);
	assert_int_equal(sim_write(fx, f, SECTOR, a, PAGE), 0);
	assert_int_equal(sim_write(fx, f, 2 * PAGE, a, SECTOR), -ENOSPC);
	assert_int_equal(sim_write(fx, f, 8 * PAGE, a, PAGE), 0);
	assert_int_equal(sim_write(fx, f, 9 * PAGE, a, PAGE), 0);
	assert_int_equal(ioe_file_store(fx->e, "small", "x", 1, 0600), -ENOSPC);
	assert_int_equal(sim_punch(fx, f, 8 * PAGE, PAGE), 0);
	assert_int_equal(ioe_file_store(fx->e, "small", "x", 1, 0600), 0);
	assert_int_equal(sim_write(fx, f, 8 * PAGE, a, SECTOR), -ENOSPC);
	sim_disk_quota(fx->m, 0);
	assert_int_equal(sim_write(fx, f, 8 * PAGE, a, SECTOR), 0);
	ioe_file_close(fx->e, f);
}

struct fault_script {
	enum ioe_op op;
	int status, calls;
};

static int fault(void *arg, const char *path, const struct ioe_req *r)
{
	struct fault_script *s = arg;

	assert_string_equal(path, "disk");
	s->calls++;
	return r->op == s->op ? s->status : 0;
}

static void a_fault_fails_a_request_without_effect(void **state)
{
	struct sim_fixture *fx = *state;
	struct ioe_file *f = sim_file_make(fx, "disk", PAGE);
	struct fault_script s = {.op = IOE_WRITE, .status = -ENOSPC};

	sim_disk_fault(fx->m, fault, &s);
	assert_int_equal(sim_write(fx, f, 0, a, PAGE), -ENOSPC);
	assert_int_equal(sim_read(fx, f, 0, c, PAGE), 0);
	assert_memory_equal(c, zero, PAGE);
	s.op = IOE_READ;
	s.status = -EIO;
	assert_int_equal(sim_write(fx, f, 0, a, PAGE), 0);
	assert_int_equal(sim_read(fx, f, 0, c, PAGE), -EIO);
	s.op = IOE_PUNCH;
	assert_int_equal(sim_punch(fx, f, 0, PAGE), -EIO);
	assert_int_equal(s.calls, 5);
	sim_disk_fault(fx->m, NULL, NULL);
	assert_int_equal(sim_read(fx, f, 0, c, PAGE), 0);
	assert_memory_equal(c, a, PAGE);
	ioe_file_close(fx->e, f);
}

static void disks_are_what_their_traits_say(void **state)
{
	struct sim_fixture *fx = *state;
	struct ioe_file_info info;
	struct ioe_file *f;
	char errmsg[ERRMSG_LEN];

	assert_int_equal(sim_disk_new(fx->m, "/dev/sda", 64 * PAGE), 0);
	assert_int_equal(sim_disk_new(fx->m, "/dev/sda", 64 * PAGE), -EEXIST);
	sim_disk_traits(fx->m, &(struct sim_disk_traits){.io_align = 4096,
							 .write_through = true,
							 .refuses_punch = true});
	assert_int_equal(ioe_file_open(fx->e, "/dev/sda", IOE_OPEN_LOCK, &f, NULL), 0);
	ioe_file_info(f, &info);
	assert_true(info.is_block_device && info.is_direct && !info.has_volatile_cache &&
		    !info.never_blocks);
	assert_int_equal(info.size_bytes, 64 * PAGE);
	assert_int_equal(info.io_align, 4096);
	assert_int_equal(sim_write(fx, f, SECTOR, a, SECTOR), -EINVAL);
	assert_int_equal(sim_punch(fx, f, 0, PAGE), -EOPNOTSUPP);
	assert_int_equal(ioe_file_resize(fx->e, f, PAGE), -EINVAL);
	assert_int_equal(ioe_file_reserve(fx->e, f, 0, PAGE), 0);
	ioe_file_close(fx->e, f);
	assert_int_equal(ioe_probe_signature(fx->e, "/dev/sda", errmsg), 0);
	assert_int_equal(sim_disk_sign(fx->m, "/dev/sda", "ext4"), 0);
	assert_int_equal(ioe_probe_signature(fx->e, "/dev/sda", errmsg), -E_FOREIGN);
	assert_non_null(strstr(errmsg, "ext4"));
	assert_int_equal(ioe_probe_signature(fx->e, "/dev/sdb", errmsg), -ENOENT);
	sim_disk_traits(fx->m,
			&(struct sim_disk_traits){.never_blocks = true, .refuses_direct = true});
	f = sim_file_make(fx, "file", PAGE);
	ioe_file_info(f, &info);
	assert_true(!info.is_block_device && !info.is_direct && info.has_volatile_cache &&
		    info.never_blocks);
	assert_int_equal(info.io_align, SECTOR);
	assert_int_equal(sim_write(fx, f, 0, a, PAGE), 0);
	ioe_file_close(fx->e, f);
}

static void poked_bytes_are_there_and_stay(void **state)
{
	struct sim_fixture *fx = *state;
	struct ioe_file *f = sim_file_make(fx, "disk", 2 * PAGE);

	assert_int_equal(sim_write(fx, f, 0, a, PAGE), 0);
	assert_int_equal(sim_disk_poke(fx->m, "disk", 100, b, 7), 0);
	assert_int_equal(sim_disk_poke(fx->m, "disk", 2 * PAGE - 1, b, 2), -ERANGE);
	assert_int_equal(sim_disk_poke(fx->m, "none", 0, b, 2), -ENOENT);
	assert_int_equal(sim_read(fx, f, 0, c, PAGE), 0);
	assert_memory_equal(c, a, 100);
	assert_memory_equal(c + 100, b, 7);
	assert_memory_equal(c + 107, a, PAGE - 107);
	sim_fixture_power_loss(fx);
	memset(c, 0, sizeof(c));
	assert_int_equal(sim_disk_peek(fx->m, "disk", 100, c, 7), 0);
	assert_memory_equal(c, b, 7);
}

static void handles_fail_cleanly_when_memory_is_short(void **state)
{
	struct sim_fixture *fx = *state;
	struct ioe_file *f;
	struct ioe_shm shm;
	char *data;
	size_t len;

	mem_fail_at(0, UINT64_MAX);
	assert_int_equal(ioe_file_open(fx->e, "disk", IOE_OPEN_CREATE, &f, NULL), -ENOMEM);
	assert_int_equal(ioe_shm_create(fx->e, "ring", PAGE, &shm), -ENOMEM);
	assert_int_equal(ioe_file_store(fx->e, "small", "x", 1, 0600),
			 0); /* the world's own memory */
	assert_int_equal(ioe_file_load(fx->e, "small", &data, &len), -ENOMEM);
	mem_fail_at(UINT64_MAX, 0);
	assert_int_equal(ioe_file_open(fx->e, "disk", 0, &f, NULL), -ENOENT);
	assert_int_equal(ioe_shm_open(fx->e, "ring", &shm), -ENOENT);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(what_was_written_is_read_and_the_rest_is_zeros),
	    T(requests_past_the_end_fail),
	    T(malformed_requests_are_refused),
	    T(an_fsync_covers_what_had_completed_and_nothing_else),
	    T(a_landed_write_that_was_not_delivered_is_not_covered),
	    T(word_that_is_on_its_way_was_not_delivered),
	    T(a_punch_needs_an_fsync),
	    T(a_write_is_torn_between_sectors),
	    T(a_punch_is_torn_between_pages),
	    T(a_write_that_fails_or_is_cancelled_may_be_there_in_part),
	    T(a_failed_fsync_cannot_be_repeated_into_success),
	    T(a_write_under_way_may_be_there_after_a_power_loss),
	    T(a_read_amid_a_write_sees_some_of_it),
	    T(without_a_volatile_cache_a_completed_write_is_durable),
	    T(pushed_requests_of_a_killed_process_land_late_and_hold_the_lock),
	    T(requests_beyond_the_depth_vanish_with_their_process),
	    T(all_requests_beyond_the_depth_complete),
	    T(shared_memory_survives_a_kill_and_not_a_power_loss),
	    T(a_lock_is_exclusive_until_it_is_given_up),
	    T(opening_says_what_is_wrong),
	    T(small_files_are_atomic_and_durable),
	    T(an_unlinked_file_lives_while_it_is_open),
	    T(cutting_a_file_drops_its_end_for_good),
	    T(a_quota_is_enospc_except_for_reserved_space),
	    T(a_fault_fails_a_request_without_effect),
	    T(disks_are_what_their_traits_say),
	    T(poked_bytes_are_there_and_stay),
	    T(handles_fail_cleanly_when_memory_is_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
