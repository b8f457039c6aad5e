/* SPDX-License-Identifier: Apache-2.0 */
/* fsck_run.h - what the two halves of `strata fsck` share: the metadata (fsck_meta.c) and the devices (cmd_fsck.c). */
#ifndef STRATA_TOOLS_CLI_FSCK_RUN_H
#define STRATA_TOOLS_CLI_FSCK_RUN_H

#include "metadata/cluster/cluster.h"
#include "metadata/san/san.h"
#include "metadata/san/schema.h"
#include "tools/cli/cli.h"
#include "tools/fsck/fsck.h"

enum { FSCK_PAGE_ITEMS = 4096, FSCK_FREES = 256, FSCK_FREES_BYTES = 32 << 10 };

/* What the map says lies on one device: 32 bytes a chunk, given back when the device has been checked. */
struct fsck_page {
	struct list link;
	uint32_t n;
	struct fsck_mapping items[FSCK_PAGE_ITEMS];
};
struct fsck_share {
	struct list pages;
	uint64_t n;
	uint32_t at;	 /* next of the first page */
	uint16_t used_n; /* devices that claimed to be this one */
};

/* The frees that are due on one device, read as they are asked for. */
struct fsck_frees {
	struct fsck_run *run;
	struct metastore_scan scan;
	struct schema_key prefix, after;
	struct metastore_item items[FSCK_FREES];
	uint8_t buf[FSCK_FREES_BYTES];
	uint32_t at;
};

struct fsck_run {
	struct cli *c;
	const char *dir, *runtime_dir;
	struct ioe *ioe;
	struct metastore *store;
	struct san_open san;
	struct cluster cluster;
	struct cluster_open registry;
	struct san_check records;
	struct san_map_walk walk;
	struct fsck_share *shares; /* by device number */
	struct fsck_frees frees;
	bool done;
	uint32_t errors, warnings, devices_n, unchecked_n;
	uint64_t chunks_n, omitted_n;
	/* the device being checked, or what else findings are about */
	const char *device;
	struct progress progress;
	struct {
		const char *what;
		uint32_t n;
	} told[64];
	json_t *findings;
};

/* One finding that is not the device library's own. */
void fsck_run_say(struct fsck_run *f, enum fsck_severity severity, const char *what,
		  const char *fmt, ...) __attribute__((format(printf, 4, 5)));
void fsck_run_wait(struct fsck_run *f);

/* Each returns 0, or an exit code after printing why. */
int fsck_meta_open(struct fsck_run *f);	   /* database, volumes and layers, registry */
int fsck_meta_records(struct fsck_run *f); /* the database against itself */
int fsck_meta_map(struct fsck_run *f);	   /* all of the map, sorted by device */

/* For struct fsck_options. */
int fsck_share_next(void *share, struct fsck_mapping *ret_m);
void fsck_share_free(struct fsck_share *s);
void fsck_frees_of(struct fsck_run *f, device_no dev);
int fsck_frees_next(void *frees, struct fsck_freeing *ret_f);

#endif
