/* SPDX-License-Identifier: Apache-2.0 */
/* Files on every engine: a filesystem on a disk, tmpfs, and the simulated disk. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "tests/lib/ioe_fixture.h"
#include "tests/lib/skip.h"

enum { BLOCK = 4096, KIB = 1024, MIB = 1024 * 1024 };

static uint8_t *pages(size_t len, int fill)
{
	uint8_t *p = mem_alloc_aligned(BLOCK, len);

	assert_non_null(p);
	memset(p, fill, len);
	return p;
}

static void what_is_written_is_read_back(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", 16 * MIB);
	uint8_t *a = pages(MIB, 'a'), *b = pages(MIB, 'b');
	struct ioe_file_info info;

	ioe_file_info(f, &info);
	assert_int_equal(info.size_bytes, 16 * MIB);
	assert_false(info.is_block_device);
	assert_true(info.has_volatile_cache);
	assert_true(info.io_align == 512 || info.io_align == 4096);
	assert_int_equal(info.never_blocks, fx->on_tmpfs);
	for (size_t i = 0; i < MIB; i++)
		a[i] = (uint8_t)(i * 2654435761u >> 13);
	assert_int_equal(ioe_sync_write(fx, f, 3 * BLOCK, a, MIB), 0);
	assert_int_equal(ioe_sync_read(fx, f, 3 * BLOCK, b, MIB), 0);
	assert_memory_equal(a, b, MIB);
	assert_int_equal(ioe_sync_fsync(fx, f), 0);
	assert_int_equal(ioe_sync_read(fx, f, 8 * MIB, b, BLOCK), 0);
	assert_true(bytes_are_zero(b, BLOCK));
	ioe_file_close(fx->e, f);
	mem_free(a);
	mem_free(b);
}

static void nothing_completes_before_the_loop_runs(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", MIB);
	uint8_t *a = pages(BLOCK, 'a');
	struct ioe_wait w[4] = {0};

	ioe_write(fx->e, &w[0].req, f, 0, a, BLOCK, ioe_wait_done);
	ioe_read(fx->e, &w[1].req, f, 1, a, BLOCK, ioe_wait_done); /* refused */
	ioe_fsync(fx->e, &w[2].req, f, ioe_wait_done);
	ioe_punch(fx->e, &w[3].req, f, 512 * KIB, BLOCK, ioe_wait_done);
	for (int i = 0; i < 4; i++)
		assert_int_equal(w[i].calls, 0);
	for (int i = 0; i < 4; i++)
		ioe_wait_for(fx, &w[i]);
	ioe_run_for(fx, 1000 * 1000);
	for (int i = 0; i < 4; i++)
		assert_int_equal(w[i].calls, 1);
	ioe_file_close(fx->e, f);
	mem_free(a);
}

static void unaligned_requests_are_refused(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", MIB);
	uint8_t *a = pages(2 * BLOCK, 'a');
	struct ioe_file_info info;

	ioe_file_info(f, &info);
	assert_int_equal(ioe_sync_write(fx, f, 1, a, BLOCK), -EINVAL);
	assert_int_equal(ioe_sync_write(fx, f, info.io_align / 2, a, BLOCK), -EINVAL);
	assert_int_equal(ioe_sync_write(fx, f, 0, a, BLOCK - 1), -EINVAL);
	assert_int_equal(ioe_sync_write(fx, f, 0, a + 8, BLOCK), -EINVAL);
	assert_int_equal(ioe_sync_read(fx, f, 1, a, BLOCK), -EINVAL);
	assert_int_equal(ioe_sync_punch(fx, f, 1, BLOCK), -EINVAL);
	assert_int_equal(ioe_sync_read(fx, f, UINT64_MAX - BLOCK + 1, a, BLOCK), -EINVAL);
	assert_int_equal(ioe_sync_read(fx, f, (uint64_t)INT64_MAX - BLOCK + 1, a, 2 * BLOCK),
			 -EINVAL);
	assert_int_equal(ioe_sync_read(fx, f, 0, a, 0), 0); /* nothing to do is no error */
	ioe_file_close(fx->e, f);
	mem_free(a);
}

static void a_file_ends_where_it_was_said_to(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", 3 * BLOCK);
	uint8_t *a = pages(2 * BLOCK, 'a');
	struct ioe_file_info info;

	assert_int_equal(ioe_sync_read(fx, f, 3 * BLOCK, a, BLOCK), -EIO);
	assert_int_equal(ioe_sync_read(fx, f, 2 * BLOCK, a, 2 * BLOCK), -EIO);
	assert_int_equal(ioe_sync_read(fx, f, 2 * BLOCK, a, BLOCK), 0);
	assert_int_equal(ioe_sync_write(fx, f, 3 * BLOCK, a, BLOCK), -ENOSPC);
	assert_int_equal(ioe_sync_write(fx, f, 2 * BLOCK, a, 2 * BLOCK), -ENOSPC);
	ioe_file_info(f, &info);
	assert_int_equal(info.size_bytes, 3 * BLOCK);
	assert_int_equal(ioe_file_resize(fx->e, f, 4 * BLOCK), 0);
	assert_int_equal(ioe_sync_write(fx, f, 2 * BLOCK, a, 2 * BLOCK), 0);
	assert_int_equal(ioe_file_resize(fx->e, f, 3 * BLOCK + 512), 0);
	assert_int_equal(ioe_sync_read(fx, f, 2 * BLOCK, a, 2 * BLOCK), -EIO);
	ioe_file_close(fx->e, f);
	mem_free(a);
}

static void punched_ranges_read_as_zeros_and_are_given_back(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", 16 * MIB);
	uint8_t *a = pages(4 * MIB, 'a'), *b = pages(4 * MIB, 'b');
	uint64_t used;

	assert_int_equal(ioe_sync_write(fx, f, 0, a, 4 * MIB), 0);
	assert_int_equal(ioe_sync_fsync(fx, f), 0);
	used = ioe_file_used_bytes(fx->e, f);
	assert_true(used >= 4 * MIB);
	assert_int_equal(ioe_sync_punch(fx, f, MIB, 2 * MIB), 0);
	assert_int_equal(ioe_sync_read(fx, f, 0, b, 4 * MIB), 0);
	assert_memory_equal(b, a, MIB);
	assert_true(bytes_are_zero(b + MIB, 2 * MIB));
	assert_memory_equal(b + 3 * MIB, a, MIB);
	assert_int_equal(ioe_sync_fsync(fx, f), 0);
	assert_true(ioe_file_used_bytes(fx->e, f) <= used - MIB);
	assert_int_equal(ioe_sync_punch(fx, f, 8 * MIB, 4 * MIB), 0); /* a hole already */
	ioe_file_close(fx->e, f);
	mem_free(a);
	mem_free(b);
}

static void reserved_space_is_taken_and_zero(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", 4 * MIB);
	uint8_t *b = pages(BLOCK, 'b');
	struct ioe_file_info info;

	assert_true(ioe_file_used_bytes(fx->e, f) < MIB);
	assert_int_equal(ioe_file_reserve(fx->e, f, MIB, 2 * MIB), 0);
	assert_true(ioe_file_used_bytes(fx->e, f) >= 2 * MIB);
	ioe_file_info(f, &info);
	assert_int_equal(info.size_bytes, 4 * MIB);
	assert_int_equal(ioe_sync_read(fx, f, MIB, b, BLOCK), 0);
	assert_true(bytes_are_zero(b, BLOCK));
	assert_int_equal(ioe_file_reserve(fx->e, f, UINT64_MAX, 2), -EFBIG);
	ioe_file_close(fx->e, f);
	mem_free(b);
}

/* ---- many ------------------------------------------------------------------------------------------------------------- */

/* Many times the depth (16) of writes, then reads, to see that what waits inside is served, and each once. */
static void many_more_requests_than_the_kernel_takes(void **state)
{
	enum { N = 400 };
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", (uint64_t)N * BLOCK);
	struct ioe_wait *w = mem_zalloc_array(N, sizeof(*w));
	uint8_t *a = pages((size_t)N * BLOCK, 0), *b = pages((size_t)N * BLOCK, 'b');

	for (int i = 0; i < N; i++) {
		memset(a + i * BLOCK, i, BLOCK);
		ioe_write(fx->e, &w[i].req, f, (uint64_t)i * BLOCK, a + i * BLOCK, BLOCK,
			  ioe_wait_done);
	}
	for (int i = 0; i < N; i++)
		assert_int_equal(ioe_wait_for(fx, &w[i]), 0);
	memset(w, 0, N * sizeof(*w));
	for (int i = 0; i < N; i++)
		ioe_read(fx->e, &w[i].req, f, (uint64_t)i * BLOCK, b + i * BLOCK, BLOCK,
			 ioe_wait_done);
	for (int i = 0; i < N; i++)
		assert_int_equal(ioe_wait_for(fx, &w[i]), 0);
	assert_memory_equal(a, b, (size_t)N * BLOCK);
	ioe_file_close(fx->e, f);
	mem_free(a);
	mem_free(b);
	mem_free(w);
}

static void one_large_request(void **state)
{
	const size_t len = 40 * MIB;
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", len);
	uint8_t *a = pages(len, 0), *b = pages(len, 'b');

	for (size_t i = 0; i < len; i += 8)
		memcpy(a + i, &i, 8);
	assert_int_equal(ioe_sync_write(fx, f, 0, a, len), 0);
	assert_int_equal(ioe_sync_read(fx, f, 0, b, len), 0);
	assert_memory_equal(a, b, len);
	ioe_file_close(fx->e, f);
	mem_free(a);
	mem_free(b);
}

/* A tmpfs request is a memory copy made by the loop: even gigabytes of them leave timers their turn. */
static void file_requests_do_not_starve_timers(void **state)
{
	enum { N = 64 };
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", (uint64_t)4 * MIB);
	struct ioe_wait w[N] = {0}, timer = {0};
	uint8_t *a = pages(4 * MIB, 'a');
	int left = 0;

	for (int i = 0; i < N; i++)
		ioe_write(fx->e, &w[i].req, f, 0, a, 4 * MIB, ioe_wait_done);
	ioe_timer(fx->e, &timer.req, 0, ioe_wait_done);
	assert_int_equal(ioe_wait_for(fx, &timer), 0);
	for (int i = 0; i < N; i++)
		left += w[i].calls == 0;
	assert_true(left > N / 2);
	for (int i = 0; i < N; i++)
		assert_int_equal(ioe_wait_for(fx, &w[i]), 0);
	ioe_file_close(fx->e, f);
	mem_free(a);
}

/* Whatever a cancel is too late for completes by itself; nothing completes twice. */
static void cancelled_requests_end_once(void **state)
{
	enum { N = 200 };
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", 16 * MIB);
	struct ioe_wait *w = mem_zalloc_array(N, sizeof(*w));
	uint8_t *a = pages(64 * KIB, 'a');
	int cancelled = 0;

	for (int round = 0; round < 5; round++) {
		memset(w, 0, N * sizeof(*w));
		for (int i = 0; i < N; i++) {
			uint64_t off = (uint64_t)(i % 100) * 64 * KIB;

			switch (i % 4) {
			case 0:
				ioe_fsync(fx->e, &w[i].req, f, ioe_wait_done);
				break;
			case 1:
				ioe_punch(fx->e, &w[i].req, f, off, 64 * KIB, ioe_wait_done);
				break;
			default:
				ioe_write(fx->e, &w[i].req, f, off, a, 64 * KIB, ioe_wait_done);
			}
		}
		for (int i = 0; i < round; i++)
			ioe_poll(fx->e, 0);
		for (int i = 0; i < N; i += 1 + round % 2) {
			ioe_cancel(fx->e, &w[i].req);
			if (i % 3 == 0)
				ioe_cancel(fx->e, &w[i].req);
		}
		for (int i = 0; i < N; i++) {
			int r = ioe_wait_for(fx, &w[i]);

			assert_true(r == 0 || r == -ECANCELED);
			cancelled += r != 0;
		}
		ioe_run_for(fx, 1000 * 1000);
		for (int i = 0; i < N; i++)
			assert_int_equal(w[i].calls, 1);
	}
	assert_true(cancelled > 0);
	assert_int_equal(ioe_sync_write(fx, f, 0, a, 64 * KIB), 0);
	ioe_file_close(fx->e, f);
	mem_free(a);
	mem_free(w);
}

struct again {
	struct ioe_req req;
	struct ioe *e;
	struct ioe_file *f;
	void *buf;
	int left, failed;
};

static void again_done(struct ioe_req *r)
{
	struct again *g = container_of(r, struct again, req);

	g->failed += r->status != 0;
	if (--g->left > 0)
		ioe_read(g->e, &g->req, g->f, 0, g->buf, BLOCK, again_done);
}

/* A cancel that comes too late must not hit the next use of the same request struct. */
static void a_late_cancel_does_not_hit_the_next_request(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", BLOCK);
	struct again g = {.e = fx->e, .f = f, .buf = pages(BLOCK, 'a')};

	for (int round = 0; round < 50; round++) {
		int cancels = 0;

		g.left = 20;
		g.failed = 0;
		ioe_read(g.e, &g.req, f, 0, g.buf, BLOCK, again_done);
		ioe_poll(fx->e, 0);
		if (g.left > 0) {
			ioe_cancel(fx->e, &g.req);
			cancels++;
		}
		while (g.left > 0)
			ioe_poll(fx->e, UINT64_MAX);
		assert_true(g.failed <= cancels);
	}
	ioe_file_close(fx->e, f);
	mem_free(g.buf);
}

/* ---- opening ---------------------------------------------------------------------------------------------------------- */

static void create_refuses_what_exists_and_open_what_does_not(void **state)
{
	struct ioe_fixture *fx = *state;
	const char *path = ioe_fixture_path(fx, "f");
	char errmsg[ERRMSG_LEN];
	struct ioe_file *f;
	uint64_t live = mem_live();

	assert_int_equal(ioe_file_open(fx->e, path, 0, &f, errmsg), -ENOENT);
	assert_true(strlen(errmsg) > 0);
	assert_int_equal(ioe_file_open(fx->e, path, IOE_OPEN_CREATE, &f, NULL), 0);
	ioe_file_close(fx->e, f);
	assert_int_equal(ioe_file_open(fx->e, path, IOE_OPEN_CREATE, &f, errmsg), -EEXIST);
	assert_true(strlen(errmsg) > 0);
	assert_int_equal(ioe_file_open(fx->e, path, 0, &f, NULL), 0);
	ioe_file_close(fx->e, f);
	assert_int_equal(ioe_unlink(fx->e, path), 0);
	if (fx->engine != ON_SIM)
		assert_int_equal(mem_live(), live);
}

static void a_read_only_file_takes_no_writes(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", MIB);
	uint8_t *a = pages(BLOCK, 'a');

	ioe_file_close(fx->e, f);
	assert_int_equal(ioe_file_open(fx->e, ioe_fixture_path(fx, "f"), IOE_OPEN_RDONLY, &f, NULL),
			 0);
	assert_int_equal(ioe_sync_read(fx, f, 0, a, BLOCK), 0);
	assert_int_equal(ioe_sync_write(fx, f, 0, a, BLOCK), -EBADF);
	assert_int_equal(ioe_sync_punch(fx, f, 0, BLOCK), -EBADF);
	assert_int_equal(ioe_file_resize(fx->e, f, BLOCK), -EBADF);
	ioe_file_close(fx->e, f);
	mem_free(a);
}

static void a_buffered_file_takes_any_length(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", 1000);
	struct ioe_file_info info;
	char text[8] = "strata";

	ioe_file_close(fx->e, f);
	assert_int_equal(ioe_file_open(fx->e, ioe_fixture_path(fx, "f"), IOE_OPEN_BUFFERED, &f,
				       NULL),
			 0);
	ioe_file_info(f, &info);
	assert_int_equal(info.io_align, 1);
	assert_false(info.is_direct);
	assert_true(info.has_volatile_cache);
	assert_int_equal(ioe_sync_write(fx, f, 7, text, 6), 0);
	memset(text, 0, sizeof(text));
	assert_int_equal(ioe_sync_read(fx, f, 7, text, 6), 0);
	assert_string_equal(text, "strata");
	assert_int_equal(ioe_sync_read(fx, f, 999, text, 2), -EIO);
	assert_int_equal(ioe_sync_write(fx, f, 999, text, 2), -ENOSPC); /* also when opened anew */
	assert_int_equal(ioe_sync_fsync(fx, f), 0);
	assert_int_equal(ioe_sync_punch(fx, f, 7, 6), 0);
	assert_int_equal(ioe_sync_read(fx, f, 7, text, 6), 0);
	assert_true(bytes_are_zero(text, 6));
	ioe_file_close(fx->e, f);
}

static void what_is_no_file_is_refused(void **state)
{
	struct ioe_fixture *fx = *state;
	char errmsg[ERRMSG_LEN];
	struct ioe_file *f;

	assert_true(ioe_file_open(fx->e, fx->dir, 0, &f, errmsg) < 0);
	assert_true(ioe_file_open(fx->e, "/dev/null", 0, &f, errmsg) < 0);
	assert_int_equal(mkfifo(ioe_fixture_path(fx, "pipe"), 0600), 0);
	assert_true(
	    ioe_file_open(fx->e, ioe_fixture_path(fx, "pipe"), IOE_OPEN_RDONLY, &f, errmsg) < 0);
	assert_true(strlen(errmsg) > 0);
	assert_true(ioe_file_open(fx->e, "/no/such/dir/f", IOE_OPEN_CREATE, &f, errmsg) < 0);
}

/* ---- lock ------------------------------------------------------------------------------------------------------------- */

static void a_locked_file_is_in_use(void **state)
{
	struct ioe_fixture *fx = *state;
	const char *path = ioe_fixture_path(fx, "f");
	char errmsg[ERRMSG_LEN], pid[32];
	struct ioe *other = ioe_fixture_another(fx);
	struct ioe_file *f, *g;

	assert_int_equal(ioe_file_open(fx->e, path, IOE_OPEN_CREATE | IOE_OPEN_LOCK, &f, errmsg), 0);
	assert_int_equal(ioe_file_open(fx->e, path, IOE_OPEN_LOCK, &g, errmsg), -E_IN_USE);
	assert_int_equal(ioe_file_open(other, path, IOE_OPEN_LOCK, &g, errmsg), -E_IN_USE);
	assert_int_equal(ioe_file_open(other, path, IOE_OPEN_LOCK, &g, NULL), -E_IN_USE);
	assert_non_null(strstr(errmsg, "in use by pid"));
	if (fx->engine != ON_SIM) {
		snprintf(pid, sizeof(pid), "pid %d", (int)getpid());
		assert_non_null(strstr(errmsg, pid));
	}
	assert_int_equal(ioe_file_open(other, path, IOE_OPEN_RDONLY, &g, errmsg),
			 0); /* looking is free */
	ioe_file_close(other, g);
	ioe_file_close(fx->e, f);
	assert_int_equal(ioe_file_open(other, path, IOE_OPEN_LOCK, &g, errmsg), 0);
	ioe_file_close(other, g);
	ioe_free(other);
}

static struct ioe *engine_in_child(struct ioe_fixture *fx)
{
	struct ioe_config cfg = {.kind = fx->engine == ON_URING ? IOE_URING : IOE_AIO};
	struct ioe *e;

	if (ioe_new(&cfg, &e))
		_exit(3);
	return e;
}

/* The child writes without pause and is killed in the middle of it. As soon as its lock is gone, so are its writes. */
static void the_lock_outlives_the_process_until_its_last_write(void **state)
{
	enum { N = 64, LEN = 256 * KIB };
	struct ioe_fixture *fx = *state;
	const char *path = ioe_fixture_path(fx, "f");
	struct ioe_file *f = ioe_fixture_file(fx, "f", (uint64_t)N * LEN);
	uint8_t *a = pages((size_t)N * LEN, 0), *b = pages((size_t)N * LEN, 0);
	int r, ready[2], status;
	char errmsg[ERRMSG_LEN], pid_text[32];
	pid_t pid;

	ioe_file_close(fx->e, f);
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		struct ioe *e = engine_in_child(fx);
		static struct ioe_wait w[N];

		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failure must not leave a writer behind */
		if (ioe_file_open(e, path, IOE_OPEN_LOCK, &f, NULL))
			_exit(4);
		for (int round = 1;; round++) {
			memset(a, round, (size_t)N * LEN);
			memset(w, 0, sizeof(w));
			for (int i = 0; i < N; i++)
				ioe_write(e, &w[i].req, f, (uint64_t)i * LEN, a + (size_t)i * LEN,
					  LEN, ioe_wait_done);
			for (int i = 0; i < N; i++)
				while (!w[i].calls)
					ioe_poll(e, UINT64_MAX);
			if (round == 2 && write(ready[1], "x", 1) != 1)
				_exit(5);
		}
	}
	assert_int_equal(read(ready[0], errmsg, 1), 1);
	assert_int_equal(ioe_file_open(fx->e, path, IOE_OPEN_LOCK, &f, errmsg), -E_IN_USE);
	snprintf(pid_text, sizeof(pid_text), "pid %d", (int)pid);
	assert_non_null(strstr(errmsg, pid_text));
	kill(pid, SIGKILL);
	while ((r = ioe_file_open(fx->e, path, IOE_OPEN_LOCK, &f, NULL)) == -E_IN_USE)
		ioe_run_for(fx, 1000 * 1000);
	assert_int_equal(r, 0);
	assert_int_equal(ioe_sync_read(fx, f, 0, a, (uint64_t)N * LEN), 0);
	ioe_run_for(fx, 100 * 1000 * 1000);
	assert_int_equal(ioe_sync_read(fx, f, 0, b, (uint64_t)N * LEN), 0);
	assert_memory_equal(a, b, (size_t)N * LEN);
	waitpid(pid, &status, 0);
	assert_true(WIFSIGNALED(status));
	close(ready[0]);
	close(ready[1]);
	ioe_file_close(fx->e, f);
	mem_free(a);
	mem_free(b);
}

/* ---- block devices ---------------------------------------------------------------------------------------------------- */

static bool loop_device_make(struct ioe_fixture *fx, const char *options, char *dev, size_t dev_len)
{
	char command[256];
	FILE *p;
	bool ok;

	if (getuid() != 0)
		return false;
	snprintf(command, sizeof(command), "losetup %s -f --show '%s' 2>/dev/null", options,
		 ioe_fixture_path(fx, "disk"));
	p = popen(command, "r");
	ok = p && fgets(dev, (int)dev_len, p);
	if (p)
		pclose(p);
	if (ok)
		dev[strcspn(dev, "\n")] = '\0';
	return ok;
}

static void a_block_device(void **state)
{
	struct ioe_fixture *fx = *state;
	char dev[64], errmsg[ERRMSG_LEN], command[128];
	struct ioe_file *f = ioe_fixture_file(fx, "disk", 64 * MIB), *g;
	uint8_t *a = pages(MIB, 'a');
	struct ioe_file_info info;
	bool zeroes;
	int r;

	ioe_file_close(fx->e, f);
	if (!loop_device_make(fx, "", dev, sizeof(dev))) {
		mem_free(a);
		skip_because("a loop device cannot be made here (root, /dev/loop-control)");
	}
	assert_int_equal(ioe_file_open(fx->e, dev, IOE_OPEN_LOCK, &f, errmsg), 0);
	ioe_file_info(f, &info);
	assert_int_equal(info.size_bytes, 64 * MIB);
	assert_true(info.is_block_device);
	assert_true(info.is_direct);
	assert_true(info.has_volatile_cache); /* a loop device hands a flush on to its file */
	assert_int_equal(ioe_file_open(fx->e, dev, IOE_OPEN_LOCK, &g, errmsg), -E_IN_USE);
	assert_non_null(strstr(errmsg, "in use"));
	assert_int_equal(ioe_sync_write(fx, f, 63 * MIB, a, MIB), 0);
	assert_int_equal(ioe_sync_read(fx, f, 64 * MIB, a, BLOCK), -EIO);
	assert_int_equal(ioe_sync_write(fx, f, 64 * MIB, a, BLOCK), -ENOSPC);
	assert_int_equal(ioe_sync_fsync(fx, f), 0);
	r = ioe_sync_punch(fx, f, 63 * MIB, MIB);
	assert_int_equal(ioe_sync_read(fx, f, 63 * MIB, a, MIB), 0);
	zeroes = bytes_are_zero(a, MIB);
	assert_true(r == 0 ? zeroes : r == -EOPNOTSUPP);
	assert_int_equal(ioe_file_resize(fx->e, f, 32 * MIB), -EINVAL);
	assert_int_equal(ioe_file_reserve(fx->e, f, 0, MIB), 0);
	assert_int_equal(ioe_file_used_bytes(fx->e, f), 64 * MIB);
	ioe_file_close(fx->e, f);
	snprintf(command, sizeof(command), "losetup -d %s", dev);
	assert_int_equal(system(command), 0);
	mem_free(a);
}

/* A device that needs no flush does while the kernel's cache is in between. (A read-only loop device says "write through".) */
static void a_device_behind_the_page_cache_has_a_volatile_cache(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "disk", MIB);
	char dev[64], command[128];
	struct ioe_file_info direct, buffered;

	ioe_file_close(fx->e, f);
	if (!loop_device_make(fx, "-r", dev, sizeof(dev)))
		skip_because("a loop device cannot be made here (root, /dev/loop-control)");
	assert_int_equal(ioe_file_open(fx->e, dev, IOE_OPEN_RDONLY, &f, NULL), 0);
	ioe_file_info(f, &direct);
	ioe_file_close(fx->e, f);
	assert_int_equal(ioe_file_open(fx->e, dev, IOE_OPEN_RDONLY | IOE_OPEN_BUFFERED, &f, NULL),
			 0);
	ioe_file_info(f, &buffered);
	ioe_file_close(fx->e, f);
	snprintf(command, sizeof(command), "losetup -d %s", dev);
	assert_int_equal(system(command), 0);
	assert_true(direct.is_direct);
	assert_false(direct.has_volatile_cache);
	assert_false(buffered.is_direct);
	assert_true(buffered.has_volatile_cache);
}

int main(void)
{
	static const struct ioe_test tests[] = {
	    {"what is written is read back", what_is_written_is_read_back, ON_ALL | ON_TMPFS},
	    {"nothing completes before the loop runs", nothing_completes_before_the_loop_runs,
	     ON_ALL | ON_TMPFS},
	    {"unaligned requests are refused", unaligned_requests_are_refused, ON_ALL | ON_TMPFS},
	    {"a file ends where it was said to", a_file_ends_where_it_was_said_to,
	     ON_ALL | ON_TMPFS},
	    {"punched ranges read as zeros", punched_ranges_read_as_zeros_and_are_given_back,
	     ON_ALL | ON_TMPFS},
	    {"reserved space is taken and zero", reserved_space_is_taken_and_zero,
	     ON_ALL | ON_TMPFS},
	    {"many more requests than depth", many_more_requests_than_the_kernel_takes,
	     ON_ALL | ON_TMPFS},
	    {"one large request", one_large_request, ON_ALL | ON_TMPFS},
	    {"file requests do not starve timers", file_requests_do_not_starve_timers,
	     ON_ALL | ON_TMPFS},
	    {"cancelled requests end once", cancelled_requests_end_once, ON_ALL | ON_TMPFS},
	    {"a late cancel does not hit the next request",
	     a_late_cancel_does_not_hit_the_next_request, ON_ALL | ON_TMPFS},
	    {"create and open", create_refuses_what_exists_and_open_what_does_not,
	     ON_ALL | ON_TMPFS},
	    {"a read-only file takes no writes", a_read_only_file_takes_no_writes,
	     ON_ALL | ON_TMPFS},
	    {"a buffered file takes any length", a_buffered_file_takes_any_length,
	     ON_ALL | ON_TMPFS},
	    {"what is no file is refused", what_is_no_file_is_refused, ON_REAL},
	    {"a locked file is in use", a_locked_file_is_in_use, ON_ALL | ON_TMPFS},
	    {"the lock outlives the process", the_lock_outlives_the_process_until_its_last_write,
	     ON_REAL | ON_TMPFS},
	    {"a block device", a_block_device, ON_REAL},
	    {"a device behind the page cache", a_device_behind_the_page_cache_has_a_volatile_cache,
	     ON_REAL},
	};

	return ioe_suite_run(tests, ARRAY_LEN(tests));
}
