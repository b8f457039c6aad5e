/* SPDX-License-Identifier: Apache-2.0 */
/* Which system calls make things durable, in which order, and what their errors do. The calls are heard because this program defines them:
 * its own symbols come before those of the C library. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/mem.h"
#include "src/ioe/foreign.h"
#include "tests/lib/ioe_fixture.h"

enum { HEARD_MAX = 64, BLOCK = 4096 };

/* What was called since hear(): "fsync DIR/f" */
static char heard[HEARD_MAX][256];
static atomic_int heard_n, failing_fsyncs, failing_fdatasyncs, syncing, syncing_most;
static atomic_bool hearing;

static void note(const char *what, const char *path)
{
	int i = hearing ? atomic_fetch_add(&heard_n, 1) : HEARD_MAX;

	if (i < HEARD_MAX)
		snprintf(heard[i], sizeof(heard[0]), "%s %s", what, path);
}

static void note_fd(const char *what, int fd)
{
	char link[64], path[128];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	path[n < 0 ? 0 : n] = '\0';
	note(what, path);
}

static bool fails(atomic_int *countdown)
{
	int n = atomic_load(countdown);

	while (n > 0 && !atomic_compare_exchange_weak(countdown, &n, n - 1))
		;
	errno = n > 0 ? EIO : errno;
	return n > 0;
}

int fsync(int fd)
{
	note_fd("fsync", fd);
	return fails(&failing_fsyncs) ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	int now = atomic_fetch_add(&syncing, 1) + 1, r;

	if (now > syncing_most)
		syncing_most = now;
	note_fd("fdatasync", fd);
	usleep(2000); /* so that another one has the time to begin */
	r = fails(&failing_fdatasyncs) ? -1 : (int)syscall(SYS_fdatasync, fd);
	atomic_fetch_sub(&syncing, 1);
	return r;
}

int rename(const char *from, const char *to)
{
	note("rename", to);
	return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int unlink(const char *path)
{
	note("unlink", path);
	return unlinkat(AT_FDCWD, path, 0);
}

int mkdir(const char *path, mode_t mode)
{
	note("mkdir", path);
	return mkdirat(AT_FDCWD, path, mode);
}

int ftruncate(int fd, off_t size)
{
	note_fd("ftruncate", fd);
	return (int)syscall(SYS_ftruncate, fd, size);
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	note_fd("fallocate", fd);
	return (int)syscall(SYS_fallocate, fd, mode, off, len);
}

ssize_t write(int fd, const void *buf, size_t len)
{
	if (fd > STDERR_FILENO)
		note_fd("write", fd);
	return syscall(SYS_write, fd, buf, len);
}

static void hear(void)
{
	heard_n = 0;
	hearing = true;
}

/* Were exactly these called, in this order, since hear()? "fsync f" is about DIR/f of the test, "fsync" about DIR. */
static void expect(struct ioe_fixture *fx, const char *const *calls)
{
	int i = 0;

	hearing = false;
	for (; calls[i]; i++) {
		char what[32], name[64] = "", want[256];

		assert_true(sscanf(calls[i], "%31s %63s", what, name) >= 1);
		snprintf(want, sizeof(want), "%s %s%s%s", what, fx->dir, *name ? "/" : "", name);
		assert_true(i < heard_n);
		assert_string_equal(heard[i], want);
	}
	assert_int_equal(heard_n, i);
}
#define EXPECT(fx, ...) expect(fx, (const char *const[]){__VA_ARGS__, NULL})

/* ---- orders ----------------------------------------------------------------------------------------------------------- */

static void a_small_file_is_whole_before_it_has_its_name(void **state)
{
	struct ioe_fixture *fx = *state;

	hear();
	assert_int_equal(ioe_file_store(fx->e, ioe_fixture_path(fx, "f"), "x", 1, 0600), 0);
	EXPECT(fx, "unlink f.new", "write f.new", "fsync f.new", "rename f", "fsync");
}

static void names_are_synced_by_their_directories(void **state)
{
	struct ioe_fixture *fx = *state;
	const char *f = ioe_fixture_path(fx, "f"), *g = ioe_fixture_path(fx, "d/g"),
		   *d = ioe_fixture_path(fx, "d");
	struct ioe_file *file;

	hear();
	assert_int_equal(ioe_file_open(fx->e, f, IOE_OPEN_CREATE, &file, NULL), 0);
	EXPECT(fx, "fsync");
	ioe_file_close(fx->e, file);
	hear();
	assert_int_equal(ioe_mkdir(fx->e, d, 0700), 0);
	EXPECT(fx, "mkdir d", "fsync");
	/* its maker may have been killed before the sync */
	hear();
	assert_int_equal(ioe_mkdir(fx->e, d, 0700), 0);
	EXPECT(fx, "mkdir d", "fsync");
	/* a power loss in between leaves two names, and not none */
	hear();
	assert_int_equal(ioe_rename(fx->e, f, g), 0);
	EXPECT(fx, "rename d/g", "fsync d", "fsync");
	hear();
	assert_int_equal(ioe_unlink(fx->e, g), 0);
	EXPECT(fx, "unlink d/g", "fsync d");
}

static void sizes_and_space_are_synced(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", BLOCK);

	hear();
	assert_int_equal(ioe_file_resize(fx->e, f, 2 * BLOCK), 0);
	EXPECT(fx, "ftruncate f", "fsync f");
	hear();
	assert_int_equal(ioe_file_reserve(fx->e, f, 0, 2 * BLOCK), 0);
	EXPECT(fx, "fallocate f", "fsync f");
	ioe_file_close(fx->e, f);
}

/* The length that is told is one that was there before the sync. */
static void foreign_files_are_synced(void **state)
{
	struct ioe_fixture *fx = *state;
	uint64_t bytes = 0;

	assert_int_equal(ioe_file_store(fx->e, ioe_fixture_path(fx, "f"), "four", 4, 0600), 0);
	hear();
	assert_int_equal(foreign_file_sync(ioe_fixture_path(fx, "f"), &bytes), 0);
	EXPECT(fx, "fdatasync f");
	assert_int_equal(bytes, 4);
	failing_fdatasyncs = 1;
	bytes = 9;
	assert_int_equal(foreign_file_sync(ioe_fixture_path(fx, "f"), &bytes), -EIO);
	assert_int_equal(bytes, 9);
}

/* ---- errors ----------------------------------------------------------------------------------------------------------- */

static void a_small_file_that_cannot_be_synced_leaves_the_old_one(void **state)
{
	struct ioe_fixture *fx = *state;
	const char *path = ioe_fixture_path(fx, "f");
	struct stat st;
	size_t len;
	char *data;

	assert_int_equal(ioe_file_store(fx->e, path, "old", 3, 0600), 0);
	failing_fsyncs = 1;
	assert_int_equal(ioe_file_store(fx->e, path, "new", 3, 0600), -EIO);
	assert_int_equal(ioe_file_load(fx->e, path, &data, &len), 0);
	assert_string_equal(data, "old");
	mem_free(data);
	assert_int_equal(stat(ioe_fixture_path(fx, "f.new"), &st), -1);
}

static void a_file_whose_name_cannot_be_synced_is_not_created(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = NULL;
	struct stat st;

	failing_fsyncs = 1;
	assert_int_equal(ioe_file_open(fx->e, ioe_fixture_path(fx, "f"), IOE_OPEN_CREATE, &f, NULL),
			 -EIO);
	assert_null(f);
	assert_int_equal(stat(ioe_fixture_path(fx, "f"), &st), -1);
}

/* The kernel tells of lost data once. If it told the one who changed the size, the fsync that comes next must not be a success. */
static void an_error_that_a_resize_met_is_told_to_the_fsync_too(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", BLOCK);

	assert_int_equal(ioe_sync_fsync(fx, f), 0);
	failing_fsyncs = 1;
	assert_int_equal(ioe_file_resize(fx->e, f, 2 * BLOCK), -EIO);
	assert_int_equal(ioe_sync_fsync(fx, f), -EIO);
	assert_int_equal(ioe_sync_fsync(fx, f), -EIO);
	ioe_file_close(fx->e, f);
	assert_int_equal(ioe_file_open(fx->e, ioe_fixture_path(fx, "f"), 0, &f, NULL), 0);
	assert_int_equal(ioe_sync_fsync(fx, f), 0);
	failing_fsyncs = 1;
	assert_int_equal(ioe_file_reserve(fx->e, f, 0, BLOCK), -EIO);
	assert_int_equal(ioe_sync_fsync(fx, f), -EIO);
	ioe_file_close(fx->e, f);
}

/* Of several fsyncs under way the kernel tells one. */
static void an_fsync_error_is_told_to_all_who_wait(void **state)
{
	enum { N = 5 };
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", BLOCK);
	struct ioe_wait w[N] = {0};

	failing_fdatasyncs = 1;
	syncing_most = 0;
	for (int i = 0; i < N; i++)
		ioe_fsync(fx->e, &w[i].req, f, ioe_wait_done);
	for (int i = 0; i < N; i++)
		assert_int_equal(ioe_wait_for(fx, &w[i]), -EIO);
	assert_int_equal(syncing_most, 1);
	assert_int_equal(ioe_sync_fsync(fx, f), -EIO);
	ioe_file_close(fx->e, f);
	failing_fdatasyncs = 0;
}

int main(void)
{
	static const struct ioe_test tests[] = {
	    {"a small file is whole before it has its name",
	     a_small_file_is_whole_before_it_has_its_name, ON_AIO},
	    {"names are synced by their directories", names_are_synced_by_their_directories, ON_AIO},
	    {"sizes and space are synced", sizes_and_space_are_synced, ON_AIO},
	    {"foreign files are synced", foreign_files_are_synced, ON_AIO},
	    {"a small file that cannot be synced",
	     a_small_file_that_cannot_be_synced_leaves_the_old_one, ON_AIO},
	    {"a file whose name cannot be synced",
	     a_file_whose_name_cannot_be_synced_is_not_created, ON_AIO},
	    {"an error that a resize met", an_error_that_a_resize_met_is_told_to_the_fsync_too,
	     ON_REAL},
	    {"an fsync error is told to all who wait", an_fsync_error_is_told_to_all_who_wait,
	     ON_AIO},
	};

	return ioe_suite_run(tests, ARRAY_LEN(tests));
}
