/* SPDX-License-Identifier: Apache-2.0 */
/* fsck.h - the offline check of one device: is what is on it consistent, and is it what the metadata server believes?
 *
 * Nothing is written. Two views of the device are compared: the raw structures, read and followed here without the device's own code for
 * that (only codec and geometry are shared), and the device opened for inspection, which replays its journal in memory. The metadata
 * server's map takes part through a callback, so that this library does not depend on it.
 *
 *   superblocks -> journal -> slot-entry pages -> registry -> table pages -> the opened device -> (data) -> (map)
 *
 * What is wrong is told to `found`, one finding each, in plain words; a step that makes the next ones meaningless ends the check. Synchronous: it runs
 * the engine's loop until it is done. */
#ifndef STRATA_TOOLS_FSCK_FSCK_H
#define STRATA_TOOLS_FSCK_FSCK_H

#include "src/base/err.h"
#include "src/ioe/ioe.h"
#include "src/model/ids.h"

enum fsck_severity {
	FSCK_NOTE, /* worth knowing, and as it may be: what a crash leaves, garbage that will be collected */
	FSCK_WARNING, /* nothing is lost, but a second copy is missing or space is */
	FSCK_ERROR,   /* damage, or two things that contradict each other */
};

/* `what` is one of these words; scripts may rely on them:
 *   superblock-damaged superblock-differs geometry truncated features other-cluster other-device
 *   journal-block journal-chain journal-record journal-empty
 *   slot-page-damaged slot-page-differs slot-page-lost slot-entry slot-unverified
 *   registry-damaged registry-lost
 *   table-damaged present-count
 *   device-says device-refused device-differs slot-lost blocks-bad duplicate-cgen duplicate-chunk
 *   data-damaged data-unreadable
 *   map-no-slot map-twice map-stale map-mismatch map-empty map-freeing freeing-no-slot orphan layer-gone */
struct fsck_finding {
	enum fsck_severity severity;
	const char *what;
	const char *text;     /* a sentence; lives for the call */
	const uint64_t *slot; /* NULL: it is about no slot in particular */
};

/* What the map says of one chunk that lies on this device. */
struct fsck_mapping {
	uint32_t slot;
	uint64_t cgen;
	volume_id volume;
	layer_id layer;
	uint32_t chunk;
	bool full; /* it has no holes */
};

/* A slot that left the map and that the device has yet to be told to free, with all that it holds up to cgen. */
struct fsck_freeing {
	uint32_t slot;
	uint64_t cgen;
};

struct fsck_options {
	struct ioe *ioe;
	const char *path;
	const char *ring_path;	    /* restart ring of the node that serves it; NULL: none */
	const struct uuid *cluster; /* refuse a device of another one; NULL: any */
	const struct uuid *device;  /* refuse another device; NULL: any */
	bool data;		    /* read every block and compare it with its checksum */
	uint64_t lock_wait_ns;	    /* for a dying process; 0: 10 s */
	/* The map: 0 with the next entry, in any order; -ENOENT at the end. NULL: do not compare. */
	int (*map_next)(void *arg, struct fsck_mapping *ret_m);
	void *map_arg;
	/* The same for the frees that are due, in the order of slots. NULL: there are none */
	int (*freeing_next)(void *arg, struct fsck_freeing *ret_f);
	void *freeing_arg;
	/* Does the metadata server know this layer? NULL: do not compare. */
	bool (*layer_exists)(void *arg, layer_id layer);
	void *layer_arg;
	void (*found)(void *arg, const struct fsck_finding *f);
	void *found_arg;
	/* Long work: called after each slot with the bytes of slots looked at so far and of all; may be NULL */
	void (*progress)(void *arg, uint64_t done_bytes, uint64_t all_bytes);
	void *progress_arg;
};

struct fsck_result {
	struct uuid device, cluster;
	device_no number;
	bool is_clean; /* it was closed in good order */
	bool is_open;  /* it could be opened: what follows is known */
	uint32_t slots_n, slots_open_n;
	uint32_t slots_freeing_n; /* open ones that left the map: their free is due, and is no leak */
	uint64_t blocks_present, blocks_bad, blocks_read;
	uint64_t commit, cgen_highest; /* that it remembers */
	uint32_t notes, warnings, errors;
};

/* 0: checked, the findings tell the rest. Else it could not be: -E_IN_USE, -ENOENT, I/O errors of the whole file, -ENOMEM; errmsg
 * (ERRMSG_LEN) says why. What map_next and freeing_next returned other than 0 and -ENOENT is returned too.
 *
 * Memory: about 130 bytes for each slot of the device, and what its table cache takes. */
int fsck_device(const struct fsck_options *o, struct fsck_result *ret_result, char *errmsg);

#endif
