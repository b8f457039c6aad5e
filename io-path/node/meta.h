/* SPDX-License-Identifier: Apache-2.0 */
/* meta.h - what a node asks the metadata server, as the volume runtime sees it.
 *
 * meta_client.c implements it over the RPC; tests put their own implementation behind the ops. Every call queues only and completes exactly
 * once from the loop. While the metadata server is away calls wait (they are re-sent after a reconnect: each is idempotent or guarded
 * by epoch), until timeout_ns passed: -E_META_AWAY. */
#ifndef STRATA_IO_PATH_NODE_META_H
#define STRATA_IO_PATH_NODE_META_H

#include <stdbool.h>

#include "src/base/err.h"
#include "src/base/list.h"
#include "src/base/uuid.h"
#include "src/model/ids.h"

struct meta;

enum meta_write_cache {
	META_CACHE_AUTO = 0,
	META_CACHE_WRITEBACK = 1,
	META_CACHE_WRITETHROUGH = 2
};

enum {
	META_CHUNKS_MAX = 1024, /* chunks in one call */
	META_DEVICES_MAX = 256, /* devices of a pool told at open */
};

struct meta_req { /* head of every request below */
	void (*done)(struct meta_req *r);
	uint64_t timeout_ns; /* from now; 0: wait for ever */
	/* The limit counts only until it was sent. Then the server may carry it out whenever it gets to it, and who asks must hear of that. */
	bool hears_out;
	int status;
	char errmsg[ERRMSG_LEN];
	struct list link;
	uint64_t priv[8];
};

/* Asks to own the volume. On success this node is the owner at `epoch`; asking again while it owns it is answered with the same epoch
 * (a new one after this process restarted). Nodes that could still hold an older epoch have been fenced. */
struct meta_open {
	struct meta_req req;
	/* given; the strings must live until done */
	const char *volume, *snapshot; /* snapshot: "" for the head */
	bool exclusive, read_only;
	const char *client;
	/* results; status -ENOENT, -E_NOT_OWNER (owner_uri), -E_IN_USE */
	volume_id id;
	struct uuid uuid;
	uint64_t epoch;
	uint64_t size_bytes;
	uint32_t sector_bytes, chunk_shift;
	enum meta_write_cache write_cache;
	bool frozen;
	bool one_opener; /* an export option: whoever comes second is refused */
	uint32_t layers_n;
	layer_id layers[LAYERS_MAX]; /* the chain, head first */
	uint32_t devices_n;
	device_no devices[META_DEVICES_MAX]; /* of the pool: a new owner's first FLUSH goes to each */
	char owner_uri[ERRMSG_LEN];
};

/* This node gives the volume up: nobody here has it open any more, run-ahead was returned. */
struct meta_close {
	struct meta_req req;
	volume_id volume;
	uint64_t epoch;
};

/* One mapped chunk of one layer. Unmapped ones are not listed. */
struct meta_map_item {
	uint32_t chunk;
	layer_id layer;
	struct map_entry entry;
};

/* What the chain has for chunks [first, first + n): items sorted by chunk, within a chunk from the head down, cut at the first full or zero
 * entry. */
struct meta_map {
	struct meta_req req;
	volume_id volume;
	uint64_t epoch;
	layer_id layer; /* where the chain begins */
	uint32_t first, n;
	struct meta_map_item *items; /* the caller's array; status -E2BIG when it is too small */
	uint32_t items_max;
	uint32_t items_n;
};

/* Ensures that the chunks are mapped in the head layer, in one commit: returns an item for each, in the order asked. Idempotent. -ENOSPC: the
 * pool has no slot for at least one; nothing was allocated then. A zero entry becomes an open one that is opaque (its holes are zeros), a
 * lost one an open one that is full (its holes are damage). */
struct meta_alloc {
	struct meta_req req;
	volume_id volume;
	uint64_t epoch;
	layer_id layer;
	const uint32_t *chunks;
	const bool *
	    reserved; /* NULL, or per chunk: run-ahead, not asked for by a client yet (cleared by a later alloc without it) */
	uint32_t n;
	struct meta_map_item *items; /* room for n */
};

enum meta_change {
	/* The chunk has no present block (or is reserved): unmapped, its slot freed in the background by the server. An entry that hid ancestors
	 * (full, opaque, zero) leaves a zero entry by itself. */
	META_UNMAP,
	META_UNMAP_ZERO, /* the same, leaving a zero entry because an ancestor has the chunk */
	META_MARK_FULL,	 /* it has no holes any more */
	META_SET_ZERO,	 /* the chunk has no slot in the head: a zero entry hides the ancestors */
};
/* Changes entries of the head layer, each only if it still has the given cgen (0: no slot); others are left alone. */
struct meta_update {
	struct meta_req req;
	volume_id volume;
	uint64_t epoch;
	layer_id layer;
	const struct meta_update_item {
		uint32_t chunk;
		enum meta_change change;
		uint64_t cgen;
	} * items;
	uint32_t n;
};

/* Names in order, for export lists. */
struct meta_names {
	struct meta_req req;
	char after[NAME_LEN_MAX + 1];
	uint32_t names_max, names_n;
	char (*names)[NAME_LEN_MAX + 1];
};

struct meta_ops {
	void (*open)(struct meta *m, struct meta_open *r);
	void (*close)(struct meta *m, struct meta_close *r);
	void (*map)(struct meta *m, struct meta_map *r);
	void (*alloc)(struct meta *m, struct meta_alloc *r);
	void (*update)(struct meta *m, struct meta_update *r);
	void (*names)(struct meta *m, struct meta_names *r);
};
/* What the server says of a volume unasked. */
struct meta_news {
	volume_id volume;
	uint64_t epoch;
	int status; /* not 0: it has another owner, or was deleted; the rest means nothing then */
	uint64_t size_bytes;
	bool one_opener;
};

struct meta {
	const struct meta_ops *ops;
	/* set by the volume runtime, called by the implementation */
	void (*on_volume)(void *arg, const struct meta_news *news);
	void *on_volume_arg;
};

#endif
