/* SPDX-License-Identifier: Apache-2.0 */
/* backend.h - what the implementations of the metastore share. Private to metadata/store.
 *
 * metastore.c refuses malformed requests, counts those in flight and ends them; a backend answers each accepted request once, through
 * metastore_*_end(). Those are called from the loop, never from inside the call that submitted. free comes when nothing is in flight. */
#ifndef STRATA_METADATA_STORE_BACKEND_H
#define STRATA_METADATA_STORE_BACKEND_H

#include "metadata/store/metastore.h"

struct metastore_ops {
	void (*get)(struct metastore *s, struct metastore_get *r);
	void (*scan)(struct metastore *s, struct metastore_scan *r);
	void (*commit)(struct metastore *s, struct metastore_commit *r);
	void (*backup)(struct metastore *s, struct metastore_backup *r);
	void (*free)(struct metastore *s); /* nothing is in flight */
};

struct metastore {
	const struct metastore_ops *ops;
	struct ioe *ioe;
	uint64_t last_commit; /* highest that was answered */
	uint64_t in_flight;
	struct list refused; /* commits that were malformed; wait for refuse_req */
	struct ioe_req refuse_req;
	bool refusing;
	bool closing;
	bool backing_up;
	struct ioe_req close_req;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* A key of the store's own begins with this byte; nobody else's does. */
enum { METASTORE_KEY_OWN = 0 };

void metastore_init(struct metastore *s, const struct metastore_ops *ops, struct ioe *e);
void metastore_get_end(struct metastore_get *r, int status);
void metastore_scan_end(struct metastore_scan *r, int status);
void metastore_backup_end(struct metastore_backup *r, int status);
/* r->status and r->commit are set */
void metastore_commit_end(struct metastore_commit *r);

/* memcmp order, a prefix before what it begins */
int metastore_bytes_cmp(struct metastore_bytes a, struct metastore_bytes b);
bool metastore_bytes_begin(struct metastore_bytes b, struct metastore_bytes prefix);

/* Appends an item to a scan's result; false (and more set) when it does not fit. */
bool metastore_scan_add(struct metastore_scan *r, struct metastore_bytes key,
			struct metastore_bytes value, size_t *used);

#endif
