/* SPDX-License-Identifier: Apache-2.0 */
/* volumes.h - all open volumes of a node: making it, ending it, and what it counts.
 *
 * The composition root makes one per loop and gives it to the targets, which see only volume.h.
 *
 *   volumes_new()  ->  volume_open() ... volume_close()  ->  volumes_close()  ->  volumes_free()
 *
 * Bounds: a request is worked on in pieces (one chunk request each, at most 1 MiB). Each open volume has a few pieces and
 * scratch blocks of its own, so that a volume whose device is away cannot stop the others; the rest is shared. Where none is
 * free the request waits.
 *
 * Ending while the metadata server is away: a runtime that still owes it something (run-ahead to return, the close) waits. Who
 * must end anyway makes the meta implementation fail its waiting calls (-E_META_AWAY): then everything here drains. */
#ifndef STRATA_IO_PATH_VOLUME_VOLUMES_H
#define STRATA_IO_PATH_VOLUME_VOLUMES_H

#include <stdbool.h>
#include <stdint.h>

#include "io-path/node/meta.h"
#include "io-path/node/store.h"
#include "io-path/volume/volume.h"
#include "src/base/hist.h"
#include "src/ioe/ioe.h"

/* Zero is the default everywhere. */
struct volumes_limits {
	uint32_t pieces_shared;	     /* 1024 */
	uint32_t pieces_per_volume;  /* 32, of its own; at least 1 */
	uint32_t scratch_shared;     /* 256: read-modify-writes of partial blocks, 8 KiB each */
	uint32_t scratch_per_volume; /* 2, of its own; at least 1 */
	uint64_t map_cache_bytes;    /* 64 MiB: about 24 bytes a chunk; taken as it is used */
	uint32_t prefetch_pages;     /* 256, of 256 chunks each, at open; UINT32_MAX: none */
	uint32_t runahead_chunks;    /* 16, which is also the most; UINT32_MAX: none */
	uint64_t idle_ns;	     /* 10 s: run-ahead nobody followed is returned */
	uint64_t reclaim_delay_ns;   /* 100 ms: from a slot found empty to giving it back */
	uint64_t open_timeout_ns;    /* 10 s for volume_open and volume_list; then -E_META_AWAY */
	uint64_t io_timeout_ns;	     /* a request that needs the map: 0 waits for ever */
};

struct volumes_config {
	struct ioe *ioe;
	struct chunk_store *store;
	struct meta *meta; /* its on_volume is taken */
	/* For people and the event log: `what` is a stable word (volume-gone, writes-lost, map-stale), `text` a sentence. May
	 * be NULL. */
	void (*on_event)(void *arg, const char *volume, const char *what, const char *text);
	void *event_arg;
	struct volumes_limits limits;
};

/* -ENOMEM, -EINVAL (limits) */
int volumes_new(const struct volumes_config *cfg, struct volumes **ret_vs);
/* New opens fail with -ESHUTDOWN. `done` runs when every handle was closed by its holder and every runtime is gone. */
void volumes_close(struct volumes *vs, void (*done)(void *arg), void *arg);
void volumes_free(struct volumes *vs); /* after volumes_close() */

/* ---- counters ---------------------------------------------------------------------------------------------------------- */

enum { VOLUME_OPS_N = VOLUME_STATUS + 1 };

struct volume_op_stats {
	uint64_t requests, bytes, errors; /* completed ones */
	struct hist latency_ns;		  /* from submit to done */
};

struct volume_stats {
	char name[2 * NAME_LEN_MAX + 2];
	struct uuid uuid;
	volume_id id;
	uint64_t epoch, size_bytes;
	uint32_t handles, in_flight;
	struct volume_op_stats op[VOLUME_OPS_N];
	uint64_t lock_waits;		      /* requests that waited for an overlapping one */
	uint64_t pool_waits;		      /* ... for a free piece or scratch block */
	uint64_t rmw;			      /* partial blocks completed by reading */
	uint64_t map_hits, map_loads;	      /* lookups answered from the cache; pages fetched */
	uint64_t stale;			      /* mappings refused by a device and fetched again */
	uint64_t alloc_commits, alloc_chunks; /* metadata calls, chunks they mapped for clients */
	uint64_t runahead_chunks;	      /* mapped ahead; included are those returned since */
	uint64_t runahead_returned;
	uint64_t reclaimed_chunks; /* slots found empty and given back */
	uint64_t device_flushes;
	uint64_t unflushed_lost; /* flushes that had to report lost writes */
};
/* Calls fn for each open volume. The stats live until fn returns. */
void volumes_stats(struct volumes *vs, void (*fn)(void *arg, const struct volume_stats *st),
		   void *arg);

/* Who has volumes open, and what each said of itself; lives until fn returns. */
struct volume_client {
	volume_id volume;
	const char *name;
	bool read_only, exclusive;
};
void volumes_clients(struct volumes *vs, void (*fn)(void *arg, const struct volume_client *k),
		     void *arg);

#endif
