/* SPDX-License-Identifier: Apache-2.0 */
/* Names, small files, shared memory and signatures on every engine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "tests/lib/ioe_fixture.h"
#include "tests/lib/skip.h"

static void small_files_are_stored_and_loaded(void **state)
{
	struct ioe_fixture *fx = *state;
	const char *path = ioe_fixture_path(fx, "f");
	char *data;
	size_t len;
	struct stat st;

	assert_int_equal(ioe_file_load(fx->e, path, &data, &len), -ENOENT);
	assert_int_equal(ioe_file_store(fx->e, path, "one", 3, 0600), 0);
	assert_int_equal(ioe_file_load(fx->e, path, &data, &len), 0);
	assert_int_equal(len, 3);
	assert_string_equal(data, "one");
	mem_free(data);
	assert_int_equal(ioe_file_store(fx->e, path, "", 0, 0600), 0);
	assert_int_equal(ioe_file_load(fx->e, path, &data, &len), 0);
	assert_int_equal(len, 0);
	assert_string_equal(data, "");
	mem_free(data);
	if (fx->engine != ON_SIM) {
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
		assert_int_equal(ioe_file_store(fx->e, ioe_fixture_path(fx, "no/dir"), "x", 1, 0600),
				 -ENOENT);
	}
	assert_int_equal(ioe_unlink(fx->e, path), 0);
	assert_int_equal(ioe_unlink(fx->e, path), -ENOENT);
}

static void small_files_have_a_maximum(void **state)
{
	struct ioe_fixture *fx = *state;
	const char *path = ioe_fixture_path(fx, "f");
	char *big = mem_alloc(IOE_SMALL_FILE_MAX + 1), *data;
	struct ioe_file *f;
	size_t len;

	memset(big, 'x', IOE_SMALL_FILE_MAX + 1);
	assert_int_equal(ioe_file_store(fx->e, path, big, IOE_SMALL_FILE_MAX + 1, 0600), -EFBIG);
	assert_int_equal(ioe_file_store(fx->e, path, big, IOE_SMALL_FILE_MAX, 0600), 0);
	assert_int_equal(ioe_file_load(fx->e, path, &data, &len), 0);
	assert_int_equal(len, IOE_SMALL_FILE_MAX);
	assert_memory_equal(data, big, len);
	mem_free(data);
	f = ioe_fixture_file(fx, "large", IOE_SMALL_FILE_MAX + 1);
	ioe_file_close(fx->e, f);
	assert_int_equal(ioe_file_load(fx->e, ioe_fixture_path(fx, "large"), &data, &len), -EFBIG);
	mem_free(big);
}

static void a_temporary_of_a_crash_does_not_matter(void **state)
{
	struct ioe_fixture *fx = *state;
	char *data;
	size_t len;
	FILE *f = fopen(ioe_fixture_path(fx, "f.new"), "w");

	fputs("half", f);
	fclose(f);
	assert_int_equal(ioe_file_store(fx->e, ioe_fixture_path(fx, "f"), "whole", 5, 0600), 0);
	assert_int_equal(ioe_file_load(fx->e, ioe_fixture_path(fx, "f"), &data, &len), 0);
	assert_string_equal(data, "whole");
	mem_free(data);
	assert_int_equal(ioe_file_load(fx->e, ioe_fixture_path(fx, "f.new"), &data, &len), -ENOENT);
}

static void files_without_a_size_are_loaded(void **state)
{
	struct ioe_fixture *fx = *state;
	char *data;
	size_t len;

	assert_int_equal(ioe_file_load(fx->e, "/proc/self/status", &data, &len), 0);
	assert_true(len > 100);
	assert_int_equal(strlen(data), len);
	mem_free(data);
}

static void names_and_directories(void **state)
{
	struct ioe_fixture *fx = *state;
	char *data;
	size_t len;

	assert_int_equal(ioe_mkdir(fx->e, ioe_fixture_path(fx, "d"), 0700), 0);
	assert_int_equal(ioe_mkdir(fx->e, ioe_fixture_path(fx, "d"), 0700), 0);
	assert_int_equal(ioe_file_store(fx->e, ioe_fixture_path(fx, "d/a"), "a", 1, 0600), 0);
	assert_int_equal(ioe_file_store(fx->e, ioe_fixture_path(fx, "d/b"), "b", 1, 0600), 0);
	assert_int_equal(ioe_mkdir(fx->e, ioe_fixture_path(fx, "d/a"), 0700), -EEXIST);
	assert_int_equal(ioe_rename(fx->e, ioe_fixture_path(fx, "d/a"), ioe_fixture_path(fx, "d/b")),
			 0);
	assert_int_equal(ioe_file_load(fx->e, ioe_fixture_path(fx, "d/b"), &data, &len), 0);
	assert_string_equal(data, "a");
	mem_free(data);
	assert_int_equal(ioe_rename(fx->e, ioe_fixture_path(fx, "d/a"), ioe_fixture_path(fx, "d/c")),
			 -ENOENT);
	assert_int_equal(ioe_unlink(fx->e, ioe_fixture_path(fx, "d")), -EISDIR);
}

/* ---- shared memory ---------------------------------------------------------------------------------------------------- */

static void shared_memory_outlives_the_process(void **state)
{
	enum { LEN = 100 * 1000 };
	struct ioe_fixture *fx = *state;
	const char *path = ioe_fixture_path(fx, "ring");
	struct ioe_shm a, b;
	struct ioe *other;

	assert_int_equal(ioe_shm_open(fx->e, path, &a), -ENOENT);
	assert_int_equal(ioe_shm_create(fx->e, path, 0, &a), -EINVAL);
	assert_int_equal(ioe_shm_create(fx->e, path, LEN, &a), 0);
	assert_int_equal(a.len_bytes, LEN);
	assert_true(bytes_are_zero(a.base, LEN));
	assert_int_equal(ioe_shm_create(fx->e, path, LEN, &b), -EEXIST);
	strcpy(a.base, "still here"); /* check-calls: allow - a literal */
	ioe_shm_close(fx->e, &a);
	other = ioe_fixture_another(fx);
	assert_int_equal(ioe_shm_open(other, path, &b), 0);
	assert_int_equal(b.len_bytes, LEN);
	assert_string_equal(b.base, "still here");
	ioe_shm_close(other, &b);
	assert_int_equal(ioe_unlink(other, path), 0);
	ioe_free(other);
}

static void unfinished_shared_memory_is_refused(void **state)
{
	struct ioe_fixture *fx = *state;
	const char *path = ioe_fixture_path(fx, "ring");
	struct ioe_shm a;

	fclose(fopen(path, "w"));
	assert_int_equal(ioe_shm_open(fx->e, path, &a), -EINVAL);
	assert_true(ioe_shm_open(fx->e, fx->dir, &a) < 0);
}

static void shared_memory_takes_its_pages_at_once(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_shm a;
	struct stat st;

	assert_int_equal(ioe_shm_create(fx->e, ioe_fixture_path(fx, "ring"), 1 << 20, &a), 0);
	assert_int_equal(stat(ioe_fixture_path(fx, "ring"), &st), 0);
	assert_true(st.st_blocks * 512 >= 1 << 20);
	ioe_shm_close(fx->e, &a);
	assert_true(ioe_shm_create(fx->e, ioe_fixture_path(fx, "huge"), (size_t)1 << 50, &a) < 0);
	assert_int_not_equal(stat(ioe_fixture_path(fx, "huge"), &st), 0);
}

/* ---- signatures ------------------------------------------------------------------------------------------------------- */

/* A shell command about DISK; without the tools it needs the test is skipped. */
static void run(const char *disk, const char *command)
{
	setenv("DISK", disk, 1);
	if (system(command))
		skip_because("this failed: %s", command);
}

/* One Linux partition from sector 2048 on. */
static void partition_table_make(const char *path)
{
	static const uint8_t entry[16] = {0, 0, 33, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0x40, 0, 0};
	uint8_t sector[512] = {0};
	FILE *f = fopen(path, "w");

	memcpy(sector + 446, entry, sizeof(entry));
	sector[510] = 0x55;
	sector[511] = 0xaa;
	assert_int_equal(fwrite(sector, sizeof(sector), 1, f), 1);
	fclose(f);
	assert_int_equal(truncate(path, 16 << 20), 0);
}

static void signatures_are_found(void **state)
{
	struct ioe_fixture *fx = *state;
	const char *path = ioe_fixture_path(fx, "disk");
	char errmsg[ERRMSG_LEN];

	assert_true(ioe_probe_signature(fx->e, path, errmsg) < 0);
	assert_true(strlen(errmsg) > 0);
	ioe_file_close(fx->e, ioe_fixture_file(fx, "disk", 0));
	assert_int_equal(ioe_probe_signature(fx->e, path, errmsg), 0);
	ioe_file_close(fx->e, ioe_fixture_file(fx, "zeros", 16 << 20));
	assert_int_equal(ioe_probe_signature(fx->e, ioe_fixture_path(fx, "zeros"), errmsg), 0);
	assert_int_equal(ioe_probe_signature(fx->e, ioe_fixture_path(fx, "zeros"), NULL), 0);
	run(path, "truncate -s 16M $DISK && mke2fs -q -F -t ext4 $DISK >/dev/null 2>&1");
	assert_int_equal(ioe_probe_signature(fx->e, path, errmsg), -E_FOREIGN);
	assert_non_null(strstr(errmsg, "ext4"));
	assert_int_equal(ioe_probe_signature(fx->e, path, NULL), -E_FOREIGN);
	partition_table_make(path);
	assert_int_equal(ioe_probe_signature(fx->e, path, errmsg), -E_FOREIGN);
	assert_non_null(strstr(errmsg, "dos"));
}

int main(void)
{
	static const struct ioe_test tests[] = {
	    {"small files are stored and loaded", small_files_are_stored_and_loaded,
	     ON_ALL | ON_TMPFS},
	    {"small files have a maximum", small_files_have_a_maximum, ON_ALL},
	    {"a temporary of a crash does not matter", a_temporary_of_a_crash_does_not_matter,
	     ON_REAL},
	    {"files without a size are loaded", files_without_a_size_are_loaded, ON_REAL},
	    {"names and directories", names_and_directories, ON_ALL},
	    {"shared memory outlives the process", shared_memory_outlives_the_process,
	     ON_ALL | ON_TMPFS},
	    {"unfinished shared memory is refused", unfinished_shared_memory_is_refused, ON_REAL},
	    {"shared memory takes its pages at once", shared_memory_takes_its_pages_at_once,
	     ON_REAL | ON_TMPFS},
	    {"signatures are found", signatures_are_found, ON_REAL},
	};

	return ioe_suite_run(tests, ARRAY_LEN(tests));
}
