/* SPDX-License-Identifier: Apache-2.0 */
/* metastore.h - the only thing that touches a database: ordered keys, guarded atomic batches, prefix scans.
 *
 * Keys are bytes in lexicographic order (numbers in them big-endian), of which the first is not 0 (those are the store's own); values are
 * opaque, at most METASTORE_VALUE_MAX. Two implementations pass one test suite: `rocksdb` (durable; its blocking calls run on workers)
 * and `mem` (simulation and tests). The contract is made so that etcd can be a third: correctness rests on guarded batches only.
 *
 * A commit is durable when it is answered. Batches take effect in the order of submission, each as a whole or not at all; several waiting ones
 * share one synced write. Reads and scans see every batch that was answered before they were submitted, and possibly later ones.
 * Requests complete from the loop, exactly once; their keys, values and arrays are the caller's and must live until then. */
#ifndef STRATA_METADATA_STORE_METASTORE_H
#define STRATA_METADATA_STORE_METASTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/err.h"
#include "src/ioe/ioe.h"

struct metastore;

enum {
	METASTORE_KEY_MAX = 256,
	METASTORE_VALUE_MAX = 64 << 10,
	METASTORE_BATCH_MAX = 256, /* changes in a batch; guards too */
};

struct metastore_bytes {
	const void *data;
	size_t len;
};

struct metastore_get {
	struct metastore_bytes key;
	void *value;	  /* room for value_max */
	size_t value_max; /* a longer value is -EMSGSIZE */
	void (*done)(struct metastore_get *r);
	/* results */
	int status; /* -ENOENT */
	size_t value_len;
	struct list link;
	struct ioe_req work;
	struct metastore *store;
};
void metastore_get(struct metastore *s, struct metastore_get *r);

/* Keys k with prefix and k > after (after.len 0: from the prefix on), in order, up to items_max or buf_max. */
struct metastore_item {
	struct metastore_bytes key, value; /* point into buf */
};
struct metastore_scan {
	struct metastore_bytes prefix, after;
	void *buf;
	size_t buf_max;
	struct metastore_item *items;
	uint32_t items_max;
	void (*done)(struct metastore_scan *r);
	/* results */
	int status; /* -EMSGSIZE: not even the first item fits */
	uint32_t items_n;
	bool more; /* there are further keys after the last item */
	struct list link;
	struct ioe_req work;
	struct metastore *store;
};
void metastore_scan(struct metastore *s, struct metastore_scan *r);

struct metastore_guard { /* the key has exactly this value; expected.data NULL: it does not exist */
	struct metastore_bytes key, expected;
};
struct metastore_change { /* value.data NULL: delete */
	struct metastore_bytes key, value;
};
struct metastore_commit {
	const struct metastore_guard *guards;
	uint32_t guards_n;
	const struct metastore_change *changes;
	uint32_t changes_n;
	void (*done)(struct metastore_commit *r);
	/* results */
	int status; /* -E_GUARD: a guard did not hold, nothing changed */
	uint64_t commit; /* number of this commit: grows by one with each, never repeats, survives restarts */
	struct list link;
	struct metastore *store;
};
void metastore_commit(struct metastore *s, struct metastore_commit *r);

uint64_t metastore_last_commit(struct metastore *s);

/* A consistent copy of everything, while the store goes on, into the new directory `path` (blocking work, on a worker). One at a time (-EBUSY): several
 * could take all workers, and those that commit with them. */
struct metastore_backup {
	const char *path;
	void (*done)(struct metastore_backup *r);
	int status;
	char errmsg[ERRMSG_LEN];
	uint64_t commit; /* of the copy */
	struct ioe_req work;
	struct metastore *store;
};
void metastore_backup(struct metastore *s, struct metastore_backup *r);

/* Opens (creating what is missing). A damaged database is refused with a text that says what to do. */
int metastore_open_rocksdb(struct ioe *e, const char *path, struct metastore **ret_s,
			   char errmsg[ERRMSG_LEN]);
/* image: NULL, or what metastore_mem_image() kept: how a simulated server finds its data again after a restart. */
struct metastore_image;
int metastore_open_mem(struct ioe *e, struct metastore_image *image, struct metastore **ret_s);
struct metastore_image *metastore_mem_image_new(void);
void metastore_mem_image_free(struct metastore_image *image);

/* Waits for what is in flight, then closes; requests that come later end with -ESHUTDOWN. */
void metastore_close(struct metastore *s, void (*done)(void *arg), void *arg);
/* Simulation, after the process was killed: frees the memory and calls nothing. */
void metastore_abandon(struct metastore *s);

#endif
