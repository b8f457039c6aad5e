/* SPDX-License-Identifier: Apache-2.0 */
/* What only the durable backend can show: kill -9, a second opener, damage, backups. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <dirent.h>
#include <unistd.h>
#include <cmocka.h>

#include "src/base/mem.h"
#include "tests/lib/store_fixture.h"

static int setup(void **state)
{
	struct store_fixture *fx = calloc(1, sizeof(*fx));

	store_fixture_init(fx, STORE_ROCKSDB, 1);
	*state = fx;
	return 0;
}

static int teardown(void **state)
{
	store_fixture_free(*state);
	free(*state);
	assert_int_equal(mem_live(), 0);
	return 0;
}

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

static void close_store(struct store_fixture *fx)
{
	bool closed = false;

	metastore_close(fx->s, set_flag, &closed);
	sim_run_until(fx->sim.w, &closed);
	fx->s = NULL;
}

/* ---- kill -9 -------------------------------------------------------------------------------------------------------------- */

enum { WRITERS = 8, KILLS = 12, PAD = 3000 };

struct writer {
	struct metastore_commit r;
	struct store_fixture *fx;
	int fd;
	uint32_t id, n;
	struct metastore_change changes[2];
	char keys[2][16], value[PAD];
};

static void writer_next(struct writer *w);

static void writer_done(struct metastore_commit *r)
{
	struct writer *w = container_of(r, struct writer, r);
	uint64_t ack[3] = {w->id, w->n, r->commit};

	if (r->status || write(w->fd, ack, sizeof(ack)) != sizeof(ack))
		_exit(1);
	writer_next(w);
}

/* Each batch puts the same number under two keys. */
static void writer_next(struct writer *w)
{
	int len = snprintf(w->value, 16, "%u ", ++w->n);

	memset(w->value + len, 'x', sizeof(w->value) - (size_t)len);
	for (int i = 0; i < 2; i++) {
		snprintf(w->keys[i], sizeof(w->keys[i]), "%c%u", "ab"[i], w -> id);
		w->changes[i] =
		    (struct metastore_change){bytes_of(w->keys[i]), {w->value, sizeof(w->value)}};
	}
	w->r =
	    (struct metastore_commit){.changes = w->changes, .changes_n = 2, .done = writer_done};
	metastore_commit(w->fx->s, &w->r);
}

/* The child is this program again: `test_rocksdb PATH START...`, acknowledgements to standard output. */
static int child_main(char **argv)
{
	static struct writer writers[WRITERS];
	struct store_fixture fx = {0};
	char errmsg[ERRMSG_LEN];

	sim_fixture_init(&fx.sim, 7);
	if (metastore_open_rocksdb(fx.sim.e, argv[1], &fx.s, errmsg))
		return 2;
	for (uint32_t i = 0; i < WRITERS; i++) {
		writers[i].fx = &fx;
		writers[i].fd = STDOUT_FILENO;
		writers[i].id = i;
		writers[i].n = (uint32_t)strtoul(argv[2 + i], NULL, 10);
		writer_next(&writers[i]);
	}
	while (sim_step(fx.sim.w))
		;
	return 3;
}

static pid_t child_start(const char *path, int fd, const uint32_t start[WRITERS])
{
	char numbers[WRITERS][16], *argv[WRITERS + 3] = {"test_rocksdb", (char *)(uintptr_t)path};
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	for (int i = 0; i < WRITERS; i++) {
		snprintf(numbers[i], sizeof(numbers[i]), "%u", start[i]);
		argv[2 + i] = numbers[i];
	}
	dup2(fd, STDOUT_FILENO);
	execv("/proc/self/exe", argv);
	_exit(4);
}

struct get_wait {
	struct metastore_get r;
	bool is_done;
};

static void get_done(struct metastore_get *r)
{
	container_of(r, struct get_wait, r)->is_done = true;
}

static uint32_t number_at(struct store_fixture *fx, char table, uint32_t id)
{
	char key[16], buf[PAD];
	struct get_wait w = {.r = {.value = buf, .value_max = sizeof(buf), .done = get_done}};

	snprintf(key, sizeof(key), "%c%u", table, id);
	w.r.key = bytes_of(key);
	metastore_get(fx->s, &w.r);
	sim_run_until(fx->sim.w, &w.is_done);
	if (w.r.status == -ENOENT)
		return 0;
	assert_int_equal(w.r.status, 0);
	assert_int_equal(w.r.value_len, PAD);
	return (uint32_t)strtoul(buf, NULL, 10);
}

static void test_kill_loses_nothing_acknowledged(void **state)
{
	struct store_fixture *fx = *state;
	uint32_t acked[WRITERS] = {0};
	uint64_t commit = 0;

	close_store(fx);
	for (int round = 0; round < KILLS; round++) {
		uint64_t ack[3];
		int fds[2], status;
		pid_t pid;

		assert_int_equal(pipe(fds), 0);
		pid = child_start(fx->path, fds[1], acked);
		close(fds[1]);
		/* let it run for a while, then kill it and take what it had said by then */
		for (int n = 0; n < 50 + round * 40; n++) {
			assert_int_equal(read(fds[0], ack, sizeof(ack)), sizeof(ack));
			acked[ack[0]] = (uint32_t)ack[1];
			commit = ack[2];
		}
		assert_int_equal(kill(pid, SIGKILL), 0);
		while (read(fds[0], ack, sizeof(ack)) == sizeof(ack)) {
			acked[ack[0]] = (uint32_t)ack[1];
			commit = ack[2];
		}
		close(fds[0]);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));

		char errmsg[ERRMSG_LEN];

		assert_int_equal(metastore_open_rocksdb(fx->sim.e, fx->path, &fx->s, errmsg), 0);
		assert_true(metastore_last_commit(fx->s) >= commit);
		for (uint32_t i = 0; i < WRITERS; i++) {
			uint32_t a = number_at(fx, 'a', i);

			/* a batch is whole; it may have been the one in flight */
			assert_int_equal(a, number_at(fx, 'b', i));
			assert_true(a == acked[i] || a == acked[i] + 1);
			acked[i] = a;
		}
		close_store(fx);
	}
}

/* ---- refusals ------------------------------------------------------------------------------------------------------------- */

static void test_second_opener(void **state)
{
	struct store_fixture *fx = *state;
	struct metastore *other;
	char errmsg[ERRMSG_LEN];
	int status;
	pid_t pid;

	assert_int_equal(metastore_open_rocksdb(fx->sim.e, fx->path, &other, errmsg), -E_IN_USE);
	assert_non_null(strstr(errmsg, "in use"));
	assert_non_null(strstr(errmsg, fx->path));
	/* from another process too */
	pid = fork();
	if (pid == 0)
		_exit(metastore_open_rocksdb(fx->sim.e, fx->path, &other, errmsg) == -E_IN_USE ? 0
											       : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_path_that_cannot_be(void **state)
{
	struct store_fixture *fx = *state;
	struct metastore *other;
	char errmsg[ERRMSG_LEN];

	assert_true(metastore_open_rocksdb(fx->sim.e, "/proc/nothing/here", &other, errmsg) < 0);
	assert_non_null(strstr(errmsg, "/proc/nothing/here"));
}

static long file_size(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? (long)st.st_size : -1;
}

/* The first file of the database whose name begins or ends like this. */
static bool find_file(const char *dir, const char *begin, const char *end, char path[512])
{
	DIR *d = opendir(dir);
	struct dirent *de;
	long best = -1;

	while ((de = readdir(d))) {
		char full[512];
		size_t len = strlen(de->d_name);

		if (strncmp(de->d_name, begin, strlen(begin)) != 0 || len < strlen(end) ||
		    strcmp(de->d_name + len - strlen(end), end) != 0)
			continue;
		snprintf(full, sizeof(full), "%s/%.200s", dir, de->d_name);
		if (file_size(full) > best) { /* the largest: there may be an empty one */
			best = file_size(full);
			snprintf(path, 512, "%s", full);
		}
	}
	closedir(d);
	return best > 0;
}

static void flip(const char *path, long off)
{
	int fd = open(path, O_RDWR);
	uint8_t b;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &b, 1, off), 1);
	b ^= 0x10;
	assert_int_equal(pwrite(fd, &b, 1, off), 1);
	close(fd);
}

/* Each try changes the database, so each begins with a copy of what was kept. */
static void keep(struct store_fixture *fx)
{
	char command[2048];

	snprintf(command, sizeof(command), "cp -a %s %s.kept", fx->path, fx->path);
	assert_int_equal(system(command), 0);
}

static void put_back(struct store_fixture *fx)
{
	char command[2048];

	snprintf(command, sizeof(command), "rm -rf %s && cp -a %s.kept %s", fx->path, fx->path,
		 fx->path);
	assert_int_equal(system(command), 0);
}

static void keep_no_more(struct store_fixture *fx)
{
	char kept[512];

	snprintf(kept, sizeof(kept), "%.500s.kept", fx->path);
	scratch_remove(kept);
}

/* Opens a damaged database: a clear refusal, or everything is there and right. Returns whether it opened. */
static bool open_damaged(struct store_fixture *fx)
{
	char errmsg[ERRMSG_LEN], key[16], value[16];
	int r = metastore_open_rocksdb(fx->sim.e, fx->path, &fx->s, errmsg);

	if (r) {
		assert_true(strstr(errmsg, "damaged") || strstr(errmsg, "cannot be opened"));
		assert_non_null(strstr(errmsg, fx->path));
		return false;
	}
	assert_int_equal(metastore_last_commit(fx->s), 100);
	for (int i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		snprintf(value, sizeof(value), "v%d", i);
		r = store_expect(fx, key, value);
		assert_true(r == 0 || r == -E_FORMAT);
	}
	close_store(fx);
	return true;
}

static void fill(struct store_fixture *fx)
{
	char key[16], value[16];

	for (int i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		snprintf(value, sizeof(value), "v%d", i);
		assert_int_equal(store_put(fx, key, value), 0);
	}
}

/* Bytes of the log turned over, except in its last record (which looks like a torn write). */
static void test_damaged_log(void **state)
{
	struct store_fixture *fx = *state;
	char log[512];
	long size;

	fill(fx);
	close_store(fx);
	assert_true(find_file(fx->path, "", ".log", log));
	size = file_size(log);
	for (long off = 0; off < size - 100; off += size / 23) {
		flip(log, off);
		assert_false(open_damaged(fx));
		flip(log, off);
	}
	assert_true(open_damaged(fx));
}

static void test_damaged_manifest_and_tables(void **state)
{
	struct store_fixture *fx = *state;
	char path[512];
	long size;

	fill(fx);
	store_fixture_reopen(fx); /* the log becomes a table */
	close_store(fx);
	keep(fx);
	assert_true(find_file(fx->path, "", ".sst", path));
	size = file_size(path);
	for (long off = 0; off < size; off += size / 29) {
		flip(path, off);
		open_damaged(fx);
		put_back(fx);
	}
	assert_true(open_damaged(fx));
	put_back(fx);
	assert_true(find_file(fx->path, "MANIFEST-", "", path));
	size = file_size(path);
	for (long off = 0; off < size - 8; off += size / 11) {
		flip(path, off);
		assert_false(open_damaged(fx));
		put_back(fx);
	}
	assert_true(open_damaged(fx));
	keep_no_more(fx);
}

/* Cut off anywhere, also between two records, which the library takes for a shorter life; nothing is deleted by the refusal. */
static void test_manifest_cut_off(void **state)
{
	struct store_fixture *fx = *state;
	char path[512], tables[512];
	long size;

	fill(fx);
	store_fixture_reopen(fx);
	close_store(fx);
	keep(fx);
	assert_true(find_file(fx->path, "MANIFEST-", "", path));
	assert_true(find_file(fx->path, "", ".sst", tables));
	size = file_size(path);
	for (long n = 0; n < size; n++) {
		assert_int_equal(truncate(path, n), 0);
		assert_false(open_damaged(fx));
		assert_true(file_size(tables) > 0);
		put_back(fx);
	}
	assert_true(open_damaged(fx));
	keep_no_more(fx);
}

static void test_missing_files(void **state)
{
	struct store_fixture *fx = *state;
	char path[512], away[520], errmsg[ERRMSG_LEN];

	fill(fx);
	store_fixture_reopen(fx);
	close_store(fx);
	/* without CURRENT it must not begin anew between the remains */
	snprintf(path, sizeof(path), "%s/CURRENT", fx->path);
	snprintf(away, sizeof(away), "%s.away", path);
	assert_int_equal(rename(path, away), 0);
	assert_int_equal(metastore_open_rocksdb(fx->sim.e, fx->path, &fx->s, errmsg), -E_FORMAT);
	assert_non_null(strstr(errmsg, "CURRENT"));
	assert_int_equal(rename(away, path), 0);
	assert_true(open_damaged(fx));
	assert_true(find_file(fx->path, "", ".sst", path));
	snprintf(away, sizeof(away), "%s.away", path);
	assert_int_equal(rename(path, away), 0);
	assert_false(open_damaged(fx));
}

/* ---- backup --------------------------------------------------------------------------------------------------------------- */

struct backup_wait {
	struct metastore_backup r;
	bool is_done;
};

static void backup_done(struct metastore_backup *r)
{
	container_of(r, struct backup_wait, r)->is_done = true;
}

static void test_backup(void **state)
{
	struct store_fixture *fx = *state;
	struct store_fixture copy = {.kind = STORE_ROCKSDB};
	struct backup_wait w = {.r = {.done = backup_done}}, second = w;
	char errmsg[ERRMSG_LEN];

	scratch_path(copy.path, "backup");
	w.r.path = copy.path;
	fill(fx);
	second.r.path = "/nowhere";
	metastore_backup(fx->s, &w.r);
	metastore_backup(fx->s, &second.r);
	assert_false(w.is_done);
	sim_run_until(fx->sim.w, &w.is_done);
	sim_run_until(fx->sim.w, &second.is_done);
	assert_int_equal(second.r.status, -EBUSY);
	assert_non_null(strstr(second.r.errmsg, "another backup"));
	assert_int_equal(w.r.status, 0);
	assert_int_equal(w.r.commit, 100);
	assert_int_equal(store_put(fx, "k1", "later"), 0);

	/* again to the same place */
	w.is_done = false;
	metastore_backup(fx->s, &w.r);
	sim_run_until(fx->sim.w, &w.is_done);
	assert_int_equal(w.r.status, -EEXIST);
	assert_non_null(strstr(w.r.errmsg, copy.path));

	copy.sim = fx->sim;
	assert_int_equal(metastore_open_rocksdb(copy.sim.e, copy.path, &copy.s, errmsg), 0);
	assert_int_equal(metastore_last_commit(copy.s), 100);
	assert_int_equal(store_expect(&copy, "k1", "v1"), 0);
	assert_int_equal(store_put(&copy, "k1", "other"), 0);
	assert_int_equal(store_expect(fx, "k1", "later"), 0);
	close_store(&copy);
	scratch_remove(copy.path);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_kill_loses_nothing_acknowledged, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_second_opener, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_path_that_cannot_be, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_damaged_log, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_damaged_manifest_and_tables, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_manifest_cut_off, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_missing_files, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_backup, setup, teardown),
	};

	if (argc == 2 + WRITERS)
		return child_main(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
