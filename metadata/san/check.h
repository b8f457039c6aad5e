/* SPDX-License-Identifier: Apache-2.0 */
/* check.h - one consistency check under way. Private to check.c and check_records.c. */
#ifndef STRATA_METADATA_SAN_CHECK_H
#define STRATA_METADATA_SAN_CHECK_H

#include "metadata/san/state.h"

struct check_run {
	struct san *s;
	struct san_check *r;
	struct san_req begin; /* our own, through the batch */
	struct scan *scan;
	uint32_t table; /* index of the one being read */
	uint64_t seq;	/* batches from this one on are not seen */
	uint64_t layers_gone;
	/* the map: the layer being read, and what was counted of it */
	layer_id layer;
	struct schema_usage count;
	int status; /* not 0: it cannot go on */
};

void check_problem(struct check_run *run, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* The object was part of a batch that the check may or may not see. */
bool check_changed(const struct check_run *run, const struct txn_obj *o);
/* Volumes and layers went away since the check began: what is not there is none of our business. */
bool check_lenient(const struct check_run *run);

void check_name(struct check_run *run, const struct metastore_item *i);
void check_volume(struct check_run *run, const struct metastore_item *i);
void check_layer(struct check_run *run, const struct metastore_item *i);
void check_usage(struct check_run *run, const struct metastore_item *i);
void check_device(struct check_run *run, const struct metastore_item *i);
void check_space(struct check_run *run, const struct metastore_item *i);
/* Nothing was found yet; and, when all tables were read: is anything resident that the database does not have? */
void check_records_begin(struct san *s);
void check_records_end(struct check_run *run);

#endif
