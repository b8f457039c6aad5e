/* SPDX-License-Identifier: Apache-2.0 */
/* store_fixture.h - a metastore in a small simulated world, and its requests as calls that wait.
 *
 * Two kinds: `mem`, whose image survives store_fixture_crash(), and `rocksdb` in a scratch directory. */
#ifndef STRATA_TESTS_LIB_STORE_FIXTURE_H
#define STRATA_TESTS_LIB_STORE_FIXTURE_H

#include "metadata/store/metastore.h"
#include "tests/lib/sim_fixture.h"

enum store_kind { STORE_MEM, STORE_ROCKSDB };

struct store_fixture {
	struct sim_fixture sim;
	enum store_kind kind;
	struct metastore_image *image;
	char path[64]; /* of the database */
	struct metastore *s;
};

void store_fixture_init(struct store_fixture *fx, enum store_kind kind, uint64_t seed);
void store_fixture_free(struct store_fixture *fx);
/* An orderly close and open. */
void store_fixture_reopen(struct store_fixture *fx);
/* mem: the process is killed and a new one finds the image. rocksdb: the same as reopen. */
void store_fixture_crash(struct store_fixture *fx);
/* Its two halves, for mem; what used the store is abandoned in between. */
void store_fixture_kill(struct store_fixture *fx);
void store_fixture_restart(struct store_fixture *fx);

/* A new empty directory name in memory (/dev/shm) or, where there is none, in /tmp; nothing is created. */
void scratch_path(char path[64], const char *what);
void scratch_remove(const char *path);

struct metastore_bytes bytes_of(const char *text);
int store_put(struct store_fixture *fx, const char *key, const char *value);
int store_delete(struct store_fixture *fx, const char *key);
/* 0 when the key has this value (NULL: none) */
int store_expect(struct store_fixture *fx, const char *key, const char *value);
/* One commit, waited for. */
int store_commit(struct store_fixture *fx, const struct metastore_guard *guards, uint32_t guards_n,
		 const struct metastore_change *changes, uint32_t changes_n, uint64_t *ret_commit);

#endif
