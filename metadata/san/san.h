/* SPDX-License-Identifier: Apache-2.0 */
/* san.h - the SAN layer's truth: volumes, layers, the map, the space of devices, ownership, frees, jobs and events.
 *
 * One `struct san` owns everything below in one metastore (schema.h has the keys) and is its only writer; it belongs to one loop. The small
 * truth (cluster record, volume and layer headers, slot states of the devices) is resident; map pages are read as needed and cached.
 *
 * Requests. Every call below that takes a struct with a `struct san_req` only queues; `done` runs from the loop, never inline, exactly once,
 * and is the last touch. The struct and everything it points to is the caller's and must live until then. A change is answered when it is durable;
 * an answer never shows a state that is not durable. `commit` is a metastore commit number at which what was answered is durable: tell it to
 * devices (device_heard_commit), so that a database that went back in time is noticed.
 *
 * Transactions. Requests that change something are executed one after the other, against the resident state, and their changes collected in one
 * guarded atomic batch of at most 80 pages, while the batch before it is being committed. So concurrent allocations share a commit, nothing needs a
 * lock, and no interleaving exists within a request (but see san_alloc and san_update for very scattered ones).
 *
 * Failure. A commit that fails, or meets a guard that does not hold (another server writes to this database), puts the SAN out of service: what
 * is in flight and every later request ends with -EIO (-E_GUARD), on_failed is called once. Nothing is retried: whether the batch took effect is
 * not known, so the process ends and reads the database again. -ENOMEM of a request changes nothing and is not such a failure.
 *
 * The synchronous functions look at the resident state, which may be one commit ahead of what is durable: for gauges, listings, placement and
 * choosing whom to talk to, not for promises.
 */
#ifndef STRATA_METADATA_SAN_SAN_H
#define STRATA_METADATA_SAN_SAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "metadata/store/metastore.h"
#include "src/base/err.h"
#include "src/base/list.h"
#include "src/base/uuid.h"
#include "src/ioe/ioe.h"
#include "src/model/ids.h"

struct san;

enum {
	SAN_CHUNKS_MAX = 1024,		/* chunks or items in one map request */
	SAN_LIST_MAX = 1000,		/* items in one page of a list */
	SAN_FREES_MAX = 1024,		/* frees of one device handed out at a time */
	SAN_RECORDS_MAX = 64,		/* changes of other modules in one request */
	SAN_EVENTS_KEPT = 10000,	/* older ones are dropped */
	SAN_JOBS_KEPT = 1000,		/* finished ones; older ones are dropped */
	SAN_JOBS_UNFINISHED_MAX = 1000, /* then san_job_create refuses */
	SAN_ONCE_KEPT = 1024,		/* keys of requests that are to be done once */
	SAN_ONCE_KEY_MAX = 64,
};
#define SAN_ONCE_KEPT_NS (24 * 3600 * 1000000000ULL)

/* Head of every request. */
struct san_req {
	void (*done)(struct san_req *r);
	/* results */
	int status;
	char errmsg[ERRMSG_LEN]; /* a sentence when status is an error a person may see, else "" */
	uint64_t commit;
	/* the SAN's while in flight */
	struct list link;
	uint64_t priv[8];
};

/* A client that got no answer asks again, and may then find another process of this server. A request that names a key is remembered with what it made, in
 * the commit that makes it: the last SAN_ONCE_KEPT of them, for SAN_ONCE_KEPT_NS. It is for the caller to ask (san_once_get) before it repeats one, and
 * to see to it that two with the same key are not under way at once. */
enum san_once_what { SAN_ONCE_VOLUME = 1, SAN_ONCE_JOB = 2 };
struct san_once {
	const char *key;  /* 1 to SAN_ONCE_KEY_MAX bytes; NULL: none */
	uint64_t request; /* tells it from another one with the same key */
};
struct san_once_get {
	struct san_req req;
	const char *key;
	/* results; -ENOENT */
	uint64_t request;
	enum san_once_what what;
	uint32_t id; /* of the volume, of the job */
};
void san_once_get(struct san *s, struct san_once_get *r);

/* ---- life -------------------------------------------------------------------------------------------------------------- */

struct san_callbacks { /* each may be NULL; called from the loop, never from inside a call of the caller's, after the commit in question */
	/* the device has slots to be freed: pull them with san_frees_pull. Also once for each such device right after san_start. */
	void (*on_frees)(void *arg, device_no dev);
	/* a job was created (also by san_volume_delete, san_device_lose), or is to be cancelled: metadata/jobs runs it */
	void (*on_job)(void *arg, uint32_t job);
	/* a layer's header changed: its LAYER record is to be written to devices (gone: to be dropped from them) */
	void (*on_layer)(void *arg, layer_id layer, uint64_t commit, bool gone);
	/* out of service */
	void (*on_failed)(void *arg, int status);
	void *arg;
};

struct san_config {
	struct ioe *ioe;
	struct metastore *store; /* the caller's; must outlive the SAN */
	uint64_t cache_bytes;	 /* bound of cached map pages; 0: 32 MiB */
	uint64_t seed;		 /* of placement; 0: from the cluster's uuid */
	struct san_callbacks cb;
};

/* Reads the database; an empty one becomes a new cluster. Damaged records are -E_FORMAT, those of a later version -E_VERSION, each with a
 * sentence naming the record. On success *ret_san is set and requests may be made; callbacks do not come before san_start(). */
struct san_open {
	struct san_config cfg;
	void (*done)(struct san_open *op);
	int status;
	char errmsg[ERRMSG_LEN];
	struct san *san;
	struct ioe_req req; /* private */
	void *priv;
};
void san_open(struct san_open *op);

/* Callbacks may come from now on: frees of devices that have some, and on_job for each unfinished job. */
void san_start(struct san *s);

/* Two-phase: new requests end with -ESHUTDOWN, those in flight finish, then `done`. The metastore stays open. */
void san_close(struct san *s, void (*done)(void *arg), void *arg);
/* Simulation, after the process was killed: frees the memory and calls nothing. */
void san_abandon(struct san *s);

struct uuid san_cluster(const struct san *s);

/* Numbers that are given out once and never again, also after a crash: the number counts as taken with any request that is submitted after this
 * call and answered. 0: there are no more. */
enum san_number { SAN_NUMBER_NODE, SAN_NUMBER_DEVICE, SAN_NUMBER_POOL, SAN_NUMBER_POLICY };
uint32_t san_number_take(struct san *s, enum san_number what);

/* Records of other modules (registry of nodes, devices, pools; policies). Their keys begin with a capital letter, those of the SAN never do. The
 * changes are one atomic batch, fenced like the SAN's own. Reading and scanning them is done with the metastore itself. */
struct san_records {
	struct san_req req;
	const struct metastore_change *changes;
	uint32_t changes_n;
};
void san_records(struct san *s, struct san_records *r);

/* After a restore or a rebuild: later allocations get a cgen above this one. Lower than the counter: nothing to do. */
struct san_cgen_raise {
	struct san_req req;
	uint64_t cgen;
};
void san_cgen_raise(struct san *s, struct san_cgen_raise *r);
uint64_t san_cgen(const struct san *s); /* highest given out */

/* ---- devices and their space -------------------------------------------------------------------------------------------- */

/* Admits a device: all its slots are free. Again with the same values: nothing to do; with a larger slots_n: the device has grown. Anything else
 * is -EEXIST. `also`: records of the registry that belong to it, in the same batch. A new device is not usable until san_device_usable says so. */
struct san_device_add {
	struct san_req req;
	device_no dev; /* from san_number_take */
	uint32_t pool;
	uint32_t chunk_shift;
	uint32_t slots_n;
	const struct metastore_change *also;
	uint32_t also_n;
};
void san_device_add(struct san *s, struct san_device_add *r);

/* May allocations go there? Not durable: false for each device after san_open. Say false for devices that are away, failed or draining. */
void san_device_usable(struct san *s, device_no dev, bool usable);

/* The device is empty and leaves: -ENOTEMPTY while it has a slot that is not free, else its space is gone with `also` in the same batch. -ENOENT. */
struct san_device_remove {
	struct san_req req;
	device_no dev;
	const struct metastore_change *also;
	uint32_t also_n;
};
void san_device_remove(struct san *s, struct san_device_remove *r);

/* The device will never come back: it is marked lost (durably; it is never usable again), and a job turns its entries to kind lost, drops its
 * intents and removes its space. Again: the same job. */
struct san_device_lose {
	struct san_req req;
	device_no dev;
	const struct metastore_change *also; /* together with the mark */
	uint32_t also_n;
	uint32_t job; /* result */
};
void san_device_lose(struct san *s, struct san_device_lose *r);

struct san_device {
	device_no dev;
	uint32_t pool;
	uint32_t chunk_shift;
	uint32_t slots_n, used_n, freeing_n; /* the others are free */
	bool usable, lost;
};
int san_device_get(const struct san *s, device_no dev, struct san_device *ret_device); /* -ENOENT */
/* The one with the smallest number above `after`; -ENOENT at the end. */
int san_device_next(const struct san *s, device_no after, struct san_device *ret_device);

struct san_pool_space {
	uint32_t devices_n, usable_n;
	uint64_t slots_n, used_n, freeing_n; /* of all devices of the pool that are not lost */
	uint64_t free_usable_n;		     /* what allocations can have now */
};
void san_pool_space(const struct san *s, uint32_t pool, struct san_pool_space *ret_space);

/* A pool goes: `also` (its record goes) is committed unless it has volumes, also ones that are being deleted, or devices. -ENOTEMPTY, naming one. */
struct san_pool_leave {
	struct san_req req;
	uint32_t pool;
	const struct metastore_change *also;
	uint32_t also_n;
};
void san_pool_leave(struct san *s, struct san_pool_leave *r);
bool san_pool_has_volumes(const struct san *s, uint32_t pool);

/* ---- volumes ----------------------------------------------------------------------------------------------------------- */

enum san_write_cache { SAN_CACHE_AUTO = 0, SAN_CACHE_WRITEBACK = 1, SAN_CACHE_WRITETHROUGH = 2 };
enum san_volume_state { SAN_VOLUME_READY = 1, SAN_VOLUME_DELETING = 2 };

struct san_volume {
	volume_id id;
	char name[NAME_LEN_MAX + 1];
	struct uuid uuid;
	enum san_volume_state state;
	uint64_t size_bytes;
	uint32_t sector_bytes;
	uint32_t chunk_shift;
	uint32_t pool, policy; /* numbers of the registry's */
	enum san_write_cache write_cache;
	bool exclusive;	     /* exported to one client at a time */
	uint64_t created_ns; /* wall clock */
	layer_id head;
	uint64_t chunks_n;   /* slots that the head layer holds */
	uint32_t delete_job; /* state DELETING: the job that does it */
	/* ownership */
	uint64_t epoch; /* 0: never opened */
	uint64_t epoch_commit; /* the commit that epoch and head belong to: devices that heard less do not know them */
	node_no owner; /* the last one; 0: never opened */
	struct uuid owner_start;
	bool is_open, read_only;
	bool forced; /* closed by force: the next open gets a new epoch in any case */
};

/* -EINVAL (name, size, sector size, chunk shift), -EEXIST. */
struct san_volume_create {
	struct san_req req;
	const char *name;
	uint64_t size_bytes;   /* a multiple of 4096 within VOLUME_BYTES_MIN and _MAX */
	uint32_t sector_bytes; /* 512 or 4096 */
	uint32_t chunk_shift;  /* the pool's */
	uint32_t pool, policy;
	enum san_write_cache write_cache;
	struct san_once once;
	struct san_volume volume; /* result */
};
void san_volume_create(struct san *s, struct san_volume_create *r);

/* By name, or by id when name is NULL. -ENOENT. */
struct san_volume_get {
	struct san_req req;
	const char *name;
	volume_id id;
	struct san_volume volume; /* result */
};
void san_volume_get(struct san *s, struct san_volume_get *r);

/* Changes what is given. Growing is the only change of size (-EINVAL for less). -ENOENT (also while it is being deleted), -EINVAL. */
struct san_volume_set {
	struct san_req req;
	const char *name;
	uint64_t size_bytes;	  /* 0: as it is */
	const uint32_t *policy;	  /* NULL: as it is */
	int write_cache;	  /* -1: as it is */
	const bool *exclusive;	  /* NULL: as it is */
	struct san_volume volume; /* result */
};
void san_volume_set(struct san *s, struct san_volume_set *r);

/* The volume is gone for everybody at once, and its name is free again; a job frees its slots. Until that is done it can be got by id, with state
 * DELETING. Again by id: the same job; once that has failed, by id or name: a new one. -ENOENT; -E_IN_USE while it is open; -ENOTEMPTY with dependents, which errmsg names. */
struct san_volume_delete {
	struct san_req req;
	const char *name; /* NULL: by id */
	volume_id id;
	uint32_t job; /* result */
};
void san_volume_delete(struct san *s, struct san_volume_delete *r);

/* Those that are not being deleted, by name, above `after` ("": from the start). */
struct san_volume_list {
	struct san_req req;
	char after[NAME_LEN_MAX + 1];
	struct san_volume *volumes;
	uint32_t volumes_max; /* at most SAN_LIST_MAX */
	uint32_t volumes_n;   /* results */
	bool more;
	void *priv;
};
void san_volume_list(struct san *s, struct san_volume_list *r);
uint32_t san_volumes_n(const struct san *s);
uint32_t san_volume_pool(const struct san *s, volume_id id); /* 0: there is no such volume */

/* Headers of layers, for the LAYER records of devices. */
struct san_layer {
	layer_id layer, parent; /* parent 0: none */
	volume_id volume;
	bool frozen;
	bool deleted; /* its volume is being deleted */
	uint64_t size_bytes;
	uint32_t sector_bytes; /* of the volume, as is the write cache */
	enum san_write_cache write_cache;
	uint64_t commit;		 /* of the last change of what is above or of a name */
	uint64_t chunks_n;		 /* slots it holds */
	char name[NAME_LEN_MAX + 1];	 /* of the volume */
	char snapshot[NAME_LEN_MAX + 1]; /* "" for a head */
};
int san_layer_get(const struct san *s, layer_id layer, struct san_layer *ret_layer); /* -ENOENT */
int san_layer_next(struct san *s, layer_id after,
		   struct san_layer *ret_layer); /* smallest above; -ENOENT at the end */

/* ---- ownership --------------------------------------------------------------------------------------------------------- */

/* Asks to own the volume. While it is open its owner is the only one who gets it: another node is told -E_NOT_OWNER and, in `volume`, who it is.
 * The owner's process gets the epoch it has (so asking twice is harmless); the owner's node with another start id (it restarted), or another node
 * once the volume is closed, gets a new one. Epochs only grow, also over crashes. Everything of older epochs is refused here from now on; whoever
 * answers the node makes sure first that nodes which could still hold one are fenced (`fence` tells whether there can be any). */
struct san_volume_open {
	struct san_req req;
	const char *name;
	node_no node;
	struct uuid start; /* of the node's process; changes at each start */
	bool read_only;
	/* results */
	struct san_volume volume; /* with the epoch; also set with -E_NOT_OWNER */
	uint32_t layers_n;
	layer_id layers[LAYERS_MAX]; /* the chain, head first */
	bool fence;		     /* the epoch is new and had a predecessor: */
	node_no fence_node;	     /* whose it was */
	struct uuid fence_start;
};
void san_volume_open(struct san *s, struct san_volume_open *r);

/* The owner gives it up. -E_STALE_EPOCH unless `epoch` is the current one; closing a closed volume is done at once. With `forced` the owner is not asked:
 * it loses the volume, and the next open gets a new epoch, also when it is the same process. epoch 0: forced, whatever the epoch is. -ENOENT. */
struct san_volume_close {
	struct san_req req;
	volume_id volume;
	uint64_t epoch;
	bool forced;
};
void san_volume_close(struct san *s, struct san_volume_close *r);

/* A node said hello as process `start`, or is gone for good (all zeros): volumes it has open as any other process are closed. */
struct san_node_release {
	struct san_req req;
	node_no node;
	struct uuid start;
	uint32_t closed_n; /* result */
};
void san_node_release(struct san *s, struct san_node_release *r);

/* A node leaves for good: `also` (its record goes) is committed unless a volume is open there. -E_IN_USE, naming one. */
struct san_node_leave {
	struct san_req req;
	node_no node;
	const struct metastore_change *also;
	uint32_t also_n;
};
void san_node_leave(struct san *s, struct san_node_leave *r);

/* ---- the map ----------------------------------------------------------------------------------------------------------- */

/* One mapped chunk of one layer. Unmapped ones are not listed. */
struct san_map_item {
	uint32_t chunk;
	layer_id layer;
	struct map_entry entry;
};

/* What the chain that begins at `layer` has for chunks [first, first + n), sorted by chunk, within a chunk from `layer` down, cut at the first entry
 * that hides the others (full, opaque, zero, lost). n at most SAN_CHUNKS_MAX; the part past the end of the volume is empty.
 * epoch 0: an administrator looks, no owner is needed. -ENOENT, -E_STALE_EPOCH; -E2BIG: items_max is too small. */
struct san_map {
	struct san_req req;
	volume_id volume;
	uint64_t epoch;
	layer_id layer; /* 0: the head */
	uint32_t first, n;
	struct san_map_item *items;
	uint32_t items_max;
	uint32_t items_n; /* result */
	void *priv;
};
void san_map(struct san *s, struct san_map *r);

/* Ensures that the chunks are mapped in the head layer: an item for each, in the order asked. Idempotent. All in one commit, unless they are
 * scattered over more pages than fit in one: then in several, and answered after the last.
 *
 * -ENOSPC: the pool has no usable slot for at least one; nothing was allocated then. -E_STALE_EPOCH; -E_FROZEN (`layer` is not the head any more);
 * -EINVAL (a chunk past the end of the volume).
 *
 * What becomes of the entry:
 *   unmapped   open
 *   zero       open; and opaque if the layer has a parent: holes of the chunk are zeros, no ancestor is asked
 *   lost       open and full: holes of a full chunk are damage, so blocks that nobody rewrites stay EIO
 *   reserved   stays so only if this request reserves it too
 *   else       as it is */
struct san_alloc {
	struct san_req req;
	volume_id volume;
	uint64_t epoch;
	layer_id layer;
	const uint32_t *chunks;
	const bool *reserved; /* NULL, or per chunk: run-ahead, not asked for by a client yet */
	uint32_t n;	      /* at most SAN_CHUNKS_MAX */
	struct san_map_item *items; /* room for n; results */
	void *priv;
};
void san_alloc(struct san *s, struct san_alloc *r);

enum san_change { /* numbers as on the wire */
		  SAN_UNMAP =
		      0, /* no block is present (or reserved): unmapped; the slot is freed through san_frees_pull */
		  SAN_UNMAP_ZERO =
		      1, /* the same, leaving a zero entry because an ancestor has the chunk */
		  SAN_MARK_FULL = 2, /* it has no holes any more */
		  SAN_SET_ZERO =
		      3, /* the chunk has no slot in the head: a zero entry hides the ancestors */
};
struct san_update_item {
	uint32_t chunk;
	enum san_change change;
	uint64_t cgen; /* that the entry must still have; 0: no slot (unmapped, zero, lost) */
};
/* Changes entries of the head layer, each only if it still has the given cgen; the others are left alone. Errors as san_alloc, without -ENOSPC.
 * UNMAP leaves a zero entry by itself where the entry hid ancestors (full, opaque or zero, in a layer with a parent), so that it never
 * uncovers old data. Very many items take several commits. */
struct san_update {
	struct san_req req;
	volume_id volume;
	uint64_t epoch;
	layer_id layer;
	const struct san_update_item *items;
	uint32_t n;	    /* at most SAN_CHUNKS_MAX */
	uint32_t changed_n; /* result */
	void *priv;
};
void san_update(struct san *s, struct san_update *r);

/* The whole map, page by page: entries of layers from `layer` and chunk `chunk` on, in that order; follow next_layer and next_chunk until
 * next_layer is 0. Not one moment's picture: what changes meanwhile may be seen or not. items_max at least 256. */
struct san_map_walk {
	struct san_req req;
	layer_id layer;
	uint32_t chunk;
	struct san_map_item *items;
	uint32_t items_max;
	uint32_t items_n; /* results */
	layer_id next_layer;
	uint32_t next_chunk;
	void *priv;
};
void san_map_walk(struct san *s, struct san_map_walk *r);

enum san_slot_state { SAN_SLOT_FREE = 0, SAN_SLOT_USED = 1, SAN_SLOT_FREEING = 2 };
int san_slot_state(const struct san *s, device_no dev, uint32_t slot,
		   enum san_slot_state *ret_state); /* -ENOENT, -ERANGE */

/* ---- frees ------------------------------------------------------------------------------------------------------------- */

/* A slot that left the map is `freeing`, with an intent {dev, slot, cgen} in the database, until its device has freed it:
 *   on_frees(dev) -> san_frees_pull -> CHUNK_FREE {slot, cgen} for each on the device -> san_frees_done -> pull again until n is 0
 * What is pulled counts as handed out until it is done, and is not handed out twice; on_frees comes again when there is something more to pull.
 * When the link to the device is lost, san_frees_forget makes everything available to the next pull (CHUNK_FREE may be repeated). */
struct san_free {
	uint32_t slot;
	uint64_t cgen;
};
struct san_frees_pull {
	struct san_req req;
	device_no dev;
	struct san_free *frees;
	uint32_t frees_max; /* at most SAN_FREES_MAX are out at a time */
	uint32_t frees_n;   /* result */
	void *priv;
	bool last_round; /* private */
};
void san_frees_pull(struct san *s, struct san_frees_pull *r);

/* The device freed them: the slots may be allocated again. What is not handed out (any more) is left alone. */
struct san_frees_done {
	struct san_req req;
	device_no dev;
	const struct san_free *frees;
	uint32_t n;  /* at most SAN_FREES_MAX */
	uint32_t at; /* private */
};
void san_frees_done(struct san *s, struct san_frees_done *r);
void san_frees_forget(struct san *s, device_no dev);

/* ---- jobs -------------------------------------------------------------------------------------------------------------- */

/* The records of long work. metadata/jobs runs them; other modules may add kinds of their own from SAN_JOB_OTHER on. */
enum san_job_kind {
	SAN_JOB_VOLUME_DELETE = 1, /* args[0]: volume */
	SAN_JOB_DEVICE_LOSE = 2,   /* args[0]: device */
	SAN_JOB_CHECK = 3,
	SAN_JOB_OTHER = 64,
};
enum san_job_state {
	SAN_JOB_QUEUED = 1,
	SAN_JOB_RUNNING = 2, /* or interrupted by a restart, and to be run again */
	SAN_JOB_DONE = 3,
	SAN_JOB_FAILED = 4,
	SAN_JOB_CANCELLED = 5,
};
enum { SAN_JOB_ARGS = 4, SAN_JOB_TEXT_MAX = 2047 };

struct san_job {
	uint32_t id;
	uint32_t kind; /* enum san_job_kind */
	enum san_job_state state;
	bool cancel; /* somebody asked for it */
	uint64_t args[SAN_JOB_ARGS];
	char subject[NAME_LEN_MAX + 1]; /* for people: the volume's name, the device */
	uint64_t done_n, total_n;      /* progress in units of the kind's; total 0: not known yet */
	uint64_t created_ns, ended_ns; /* wall clock */
	int error;		       /* FAILED: the code; the sentence is in text */
	char text[SAN_JOB_TEXT_MAX + 1]; /* FAILED: why; DONE: the result as a JSON object, or "" */
};

struct san_job_create {
	struct san_req req;
	uint32_t kind;
	uint64_t args[SAN_JOB_ARGS];
	const char *subject;
	struct san_once once;
	uint32_t job; /* result */
};
/* -EAGAIN: SAN_JOBS_UNFINISHED_MAX have not ended. */
void san_job_create(struct san *s, struct san_job_create *r);

/* Progress, state, error and text of an unfinished job become those of `job` (matched by id); kind, args, subject and created_ns stay.
 * A job that ends gets its ended_ns. -ENOENT; -EINVAL when it has ended. */
struct san_job_update {
	struct san_req req;
	struct san_job job;
};
void san_job_update(struct san *s, struct san_job_update *r);

/* Asks the one who runs it to stop: sets `cancel`. -ENOENT, -EINVAL when it has ended, -EOPNOTSUPP when its kind cannot be cancelled (deletion, loss). */
struct san_job_cancel {
	struct san_req req;
	uint32_t job;
};
void san_job_cancel(struct san *s, struct san_job_cancel *r);

struct san_job_list { /* ids above `after`, in order */
	struct san_req req;
	uint32_t after;
	bool unfinished_only;
	struct san_job *jobs;
	uint32_t jobs_max; /* at most SAN_LIST_MAX */
	uint32_t jobs_n;   /* results */
	bool more;
	void *priv;
};
void san_job_list(struct san *s, struct san_job_list *r);
/* The unfinished one with the smallest id above `after`, unless its record is just being committed (on_job comes after that for what is new); -ENOENT. */
int san_job_next(const struct san *s, uint32_t after, struct san_job *ret_job);
struct san_job_get {
	struct san_req req;
	uint32_t id;
	struct san_job job; /* result; -ENOENT */
};
void san_job_get(struct san *s, struct san_job_get *r);

/* Steps of the SAN's own jobs, each one commit, progress of the job included; repeat until `finished`. */
struct san_job_step {
	struct san_req req;
	uint32_t job;
	/* results */
	bool finished; /* the work is done, and the job's state with it */
	bool wait;     /* what it needs is in use: no step for a moment */
	void *priv;
};
void san_volume_delete_step(struct san *s, struct san_job_step *r);
void san_device_lose_step(struct san *s, struct san_job_step *r);

/* Compares map, space, intents and headers while everything goes on: what changes meanwhile is exempt, everything else is exact. One at a time
 * (-EBUSY). */
enum { SAN_CHECK_PROBLEMS_MAX = 16, SAN_CHECK_TEXT_MAX = 128 };
struct san_check {
	struct san_req req;
	bool cancel;			       /* set it: ends soon with -ECANCELED */
	void (*progress)(struct san_check *r); /* may be NULL; now and then: pages_n of pages_total */
	/* results */
	uint64_t pages_n, pages_total; /* total: an estimate */
	uint64_t volumes_n, layers_n, entries_n, intents_n, slots_n;
	uint64_t exempt_n;   /* slots that changed meanwhile */
	uint64_t problems_n; /* 0: consistent */
	char problems[SAN_CHECK_PROBLEMS_MAX][SAN_CHECK_TEXT_MAX]; /* the first ones */
	void *priv;
};
void san_check(struct san *s, struct san_check *r);

/* ---- events ------------------------------------------------------------------------------------------------------------ */

enum san_severity { SAN_INFO = 1, SAN_WARNING = 2, SAN_ERROR = 3 };
enum { SAN_EVENT_CODE_MAX = 31, SAN_EVENT_TEXT_MAX = 255, SAN_EVENTS_WAITING_MAX = 256 };
struct san_event {
	uint64_t seq; /* 1, 2, 3... */
	uint64_t wall_ns;
	enum san_severity severity;
	char code[SAN_EVENT_CODE_MAX + 1]; /* a stable word, e.g. "device_lost" */
	char text[SAN_EVENT_TEXT_MAX + 1]; /* a sentence */
};
/* Copied; committed with the next batch; nobody is told. Longer texts are cut. More than SAN_EVENTS_WAITING_MAX waiting are dropped, with a
 * line in the log. */
void san_event(struct san *s, enum san_severity severity, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The same, answered when it is stored. */
struct san_event_add {
	struct san_req req;
	enum san_severity severity;
	const char *code, *text; /* the caller's until done */
};
void san_event_add(struct san *s, struct san_event_add *r);
struct san_event_list {
	struct san_req req;
	uint64_t after; /* events with a higher seq, in order; to get the last n: san_event_last() - n */
	struct san_event *events;
	uint32_t events_max; /* at most SAN_LIST_MAX */
	uint32_t events_n;   /* results */
	bool more;
	void *priv;
};
void san_event_list(struct san *s, struct san_event_list *r);
uint64_t san_event_last(const struct san *s);

/* ---- counters ---------------------------------------------------------------------------------------------------------- */

struct san_stats { /* since san_open */
	uint64_t commits, commit_pages, commit_bytes;
	uint64_t allocs, alloc_chunks; /* requests; slots taken */
	uint64_t alloc_commits; /* commits with at least one of those: alloc_chunks / alloc_commits is the batching */
	uint64_t unmap_chunks, frees; /* slots that left the map; that became free */
	uint64_t map_requests;
	uint64_t cache_hits, cache_misses, cache_bytes, cache_pages;
	uint64_t waiting; /* requests in flight now */
};
void san_stats(const struct san *s, struct san_stats *ret_stats);

#endif
