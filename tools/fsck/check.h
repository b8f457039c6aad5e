/* SPDX-License-Identifier: Apache-2.0 */
/* check.h - what the steps of the check share. Private to tools/fsck. */
#ifndef STRATA_TOOLS_FSCK_CHECK_H
#define STRATA_TOOLS_FSCK_CHECK_H

#include "io-path/device/codec.h"
#include "io-path/device/device.h"
#include "io-path/device/geometry.h"
#include "tools/fsck/fsck.h"

enum { FSCK_IO_BYTES = 1 << 20 };

/* Raw state of a slot: its entry, with the journal's records applied. */
struct fsck_slot {
	uint64_t cgen, table_seq_min;
	volume_id volume;
	layer_id layer;
	uint32_t chunk;
	uint16_t present_n, bad_n;
	bool open, active;
	bool lost; /* neither home of its page is readable */
};

/* Which home of a table page counts. */
struct fsck_table {
	uint64_t seq; /* 0: never written */
	uint32_t crc;
	uint8_t home;
};

struct fsck_slot_page {
	uint64_t seq, from_lsn;
	bool other_damaged; /* the other home is no valid page */
	bool other_older;   /* it is, but not of the same checkpoint */
	uint8_t other;	    /* which one that is */
	bool in_journal;    /* some record speaks of its slots or tables */
};

/* One journal block that is valid in itself. */
struct fsck_jblock {
	uint64_t lsn; /* 0: no valid block here */
	uint64_t incarnation, tail, stable_lsn;
	uint32_t crc, prev_crc;
	bool boots; /* its first record is BOOT */
};

struct fsck {
	const struct fsck_options *o;
	struct fsck_result *res;
	char *errmsg;
	struct ioe *ioe;
	struct ioe_file *file;
	uint64_t file_bytes;
	uint8_t *io;  /* FSCK_IO_BYTES, aligned */
	bool stop;    /* a finding that makes further steps meaningless */
	bool is_open; /* for inspection */

	struct fmt_superblock sb;
	struct geometry geo;

	struct fsck_jblock *ring;
	uint64_t tail, end; /* records of blocks [tail, end) count */
	bool is_clean;
	bool registry_in_journal;

	struct fsck_slot *slots;
	struct fsck_table *tables;
	struct fsck_slot_page *pages;
};

/* Steps, in order. 0: go on (also after findings, see `stop`); else the check cannot be made. */
int fsck_superblocks(struct fsck *k);
int fsck_journal_scan(struct fsck *k);
int fsck_slot_pages(struct fsck *k);
int fsck_journal_apply(struct fsck *k);
int fsck_slot_pages_judge(struct fsck *k);
int fsck_registry(struct fsck *k);
int fsck_tables(struct fsck *k);
int fsck_opened(struct fsck *k); /* the device opened for inspection, data, duplicates, map */

struct device;
int fsck_data(struct fsck *k, struct device *dev, uint32_t slot, const uint8_t *states);
int fsck_map(struct fsck *k, struct device *dev);

void fsck_say(struct fsck *k, enum fsck_severity severity, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void fsck_say_slot(struct fsck *k, enum fsck_severity severity, const char *what, uint32_t slot,
		   const char *fmt, ...) __attribute__((format(printf, 5, 6)));
int fsck_error(struct fsck *k, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Reads raw bytes; len at most FSCK_IO_BYTES unless buf is the caller's. An I/O error is returned as it is. */
int fsck_read(struct fsck *k, uint64_t off, void *buf, uint64_t len);

#endif
