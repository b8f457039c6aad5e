/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/store_fixture.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/check.h"

/* ---- scratch -------------------------------------------------------------------------------------------------------------- */

void scratch_path(char path[64], const char *what)
{
	static unsigned counter;

	snprintf(path, 64, "%s/strata-test-%s-%d-%u",
		 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", what, getpid(), counter++);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void scratch_remove(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- life ----------------------------------------------------------------------------------------------------------------- */

static void open_store(struct store_fixture *fx)
{
	char errmsg[ERRMSG_LEN];
	int r;

	if (fx->kind == STORE_MEM)
		r = metastore_open_mem(fx->sim.e, fx->image, &fx->s);
	else
		r = metastore_open_rocksdb(fx->sim.e, fx->path, &fx->s, errmsg);
	check(r == 0);
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

void store_fixture_init(struct store_fixture *fx, enum store_kind kind, uint64_t seed)
{
	*fx = (struct store_fixture){.kind = kind};
	sim_fixture_init(&fx->sim, seed);
	if (kind == STORE_MEM) {
		fx->image = metastore_mem_image_new();
		check(fx->image);
	} else {
		scratch_path(fx->path, "store");
	}
	open_store(fx);
}

void store_fixture_free(struct store_fixture *fx)
{
	if (fx->s)
		close_store(fx);
	sim_fixture_free(&fx->sim);
	metastore_mem_image_free(fx->image);
	if (fx->kind == STORE_ROCKSDB)
		scratch_remove(fx->path);
}

void store_fixture_reopen(struct store_fixture *fx)
{
	close_store(fx);
	open_store(fx);
}

void store_fixture_crash(struct store_fixture *fx)
{
	if (fx->kind == STORE_ROCKSDB) {
		store_fixture_reopen(fx);
		return;
	}
	store_fixture_kill(fx);
	store_fixture_restart(fx);
}

void store_fixture_kill(struct store_fixture *fx)
{
	sim_fixture_kill(&fx->sim);
}

void store_fixture_restart(struct store_fixture *fx)
{
	metastore_abandon(fx->s);
	sim_fixture_restart(&fx->sim);
	open_store(fx);
}

/* ---- requests that wait --------------------------------------------------------------------------------------------------- */

struct metastore_bytes bytes_of(const char *text)
{
	return (struct metastore_bytes){text, text ? strlen(text) : 0};
}

struct commit_wait {
	struct metastore_commit r;
	bool is_done;
};

static void commit_done(struct metastore_commit *r)
{
	container_of(r, struct commit_wait, r)->is_done = true;
}

int store_commit(struct store_fixture *fx, const struct metastore_guard *guards, uint32_t guards_n,
		 const struct metastore_change *changes, uint32_t changes_n, uint64_t *ret_commit)
{
	struct commit_wait w = {.r = {.guards = guards,
				      .guards_n = guards_n,
				      .changes = changes,
				      .changes_n = changes_n,
				      .done = commit_done}};

	metastore_commit(fx->s, &w.r);
	check(!w.is_done);
	sim_run_until(fx->sim.w, &w.is_done);
	if (ret_commit)
		*ret_commit = w.r.commit;
	return w.r.status;
}

int store_put(struct store_fixture *fx, const char *key, const char *value)
{
	struct metastore_change c = {bytes_of(key), bytes_of(value)};

	return store_commit(fx, NULL, 0, &c, 1, NULL);
}

int store_delete(struct store_fixture *fx, const char *key)
{
	return store_put(fx, key, NULL);
}

struct get_wait {
	struct metastore_get r;
	bool is_done;
};

static void get_done(struct metastore_get *r)
{
	container_of(r, struct get_wait, r)->is_done = true;
}

int store_expect(struct store_fixture *fx, const char *key, const char *value)
{
	char buf[256];
	struct get_wait w = {
	    .r = {.key = bytes_of(key), .value = buf, .value_max = sizeof(buf), .done = get_done}};

	metastore_get(fx->s, &w.r);
	check(!w.is_done);
	sim_run_until(fx->sim.w, &w.is_done);
	if (!value)
		return w.r.status == -ENOENT ? 0 : w.r.status ? w.r.status : -EEXIST;
	if (w.r.status)
		return w.r.status;
	return w.r.value_len == strlen(value) && memcmp(buf, value, w.r.value_len) == 0 ? 0
											: -EINVAL;
}
