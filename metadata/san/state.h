/* SPDX-License-Identifier: Apache-2.0 */
/* state.h - the SAN in memory: what is resident, and how requests become transactions. Private to metadata/san.
 *
 *   san.c        requests, life, numbers, records of other modules
 *   load.c       from the database to memory
 *   txn.c        collecting changes, committing, answering
 *   cache.c      map pages
 *   space.c      slots of devices            device.c    devices come and go
 *   volume.c     volumes and layers          owner.c     who has them open
 *   lookup.c     reading the map             alloc.c, update.c    changing it
 *   frees.c      two-phase free              delete.c, lose.c     steps of the long jobs
 *   jobrec.c     job records                 event.c     events               check.c    consistency
 *   once.c       requests that are done once
 *
 * A request is executed as a whole, against the resident state, by its `exec` function:
 *   - a read at the end of the turn in which everything it needs is there. If what it saw is part of the batch that is being committed, it is
 *     answered with that batch, else at once.
 *   - a write when no batch is being committed. Executing marks objects (struct txn_obj) as part of the batch; when no further request is
 *     waiting, or fits, the marked objects are encoded and committed. Everything executed is answered when the commit is.
 * exec never fails after it has begun to change something: what can fail (memory, room in the batch) is asked for first. */
#ifndef STRATA_METADATA_SAN_STATE_H
#define STRATA_METADATA_SAN_STATE_H

#include "metadata/san/idtab.h"
#include "metadata/san/san.h"
#include "metadata/san/schema.h"
#include "src/base/hash.h"

struct device;
struct layer;
struct volume;

/* ---- requests ------------------------------------------------------------------------------------------------------------ */

enum exec {
	EXEC_DONE, /* r->status is set */
	EXEC_MORE, /* the batch is full: call again for the next one */
};

/* in san_req.priv */
struct op {
	struct san *s;
	enum exec (*exec)(struct san *s, struct san_req *r);
	void (*cleanup)(struct san_req *r); /* before done; may be NULL */
	bool wait;			    /* a read: answer it with the batch being committed */
	bool late;			    /* came after the close */
};
_Static_assert(sizeof(struct op) <= sizeof(((struct san_req *)0)->priv), "fits");

static inline struct op *san_op_of(struct san_req *r)
{
	return (struct op *)r->priv;
}

/* Begins a request: counts it and resets its results. Then exactly one of the others. */
void san_op_begin(struct san *s, struct san_req *r,
		  enum exec (*exec)(struct san *s, struct san_req *r),
		  void (*cleanup)(struct san_req *r));
void san_op_read(struct san_req *r);		   /* queue it as a read */
void san_op_write(struct san_req *r);		   /* queue it as a write */
void san_op_refuse(struct san_req *r, int status); /* answer it without exec, later in this turn */
/* Sets status and the sentence; for use in exec: return san_op_fail(...). */
enum exec san_op_fail(struct san_req *r, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Only from the loop's own callbacks: cleanup, done, and what waits for the last request. */
void san_op_end(struct san_req *r);

/* ---- transactions -------------------------------------------------------------------------------------------------------- */

enum {
	TXN_PAGES_MAX = 80,
	TXN_SMALL_MAX = METASTORE_BATCH_MAX - TXN_PAGES_MAX - 1, /* 1: the cluster record */
	TXN_ARENA_LEN = TXN_PAGES_MAX * SCHEMA_PAGE_MAX + TXN_SMALL_MAX * SCHEMA_SMALL_MAX,
};

/* What etcd takes in one request unless it is told otherwise (docs/decisions/map-page-size.md). */
static_assert(TXN_ARENA_LEN + METASTORE_BATCH_MAX * (SCHEMA_KEY_MAX + 64) <= 3 << 19,
	      "the longest batch");

struct txn_obj;
struct txn_obj_type {
	bool is_page; /* counts as one page, else as `smalls` small records */
	uint32_t smalls;
	void (*emit)(struct san *s, struct txn_obj *o);	     /* its record(s) into the batch */
	void (*committed)(struct san *s, struct txn_obj *o); /* may free it; may be NULL */
};
struct txn_obj {
	const struct txn_obj_type *type;
	struct list link;
	uint64_t seq; /* of the last batch it was part of */
	bool seen;    /* check.c: its record was found */
};

enum note { NOTE_JOB, NOTE_LAYER, NOTE_LAYER_GONE };

struct txn {
	uint64_t seq;		    /* of the batch being collected or committed */
	bool in_flight;		    /* being committed */
	uint32_t pages_n, smalls_n; /* taken */
	uint32_t executed_n;
	struct list objs;  /* marked */
	struct list ops;   /* to be answered */
	uint32_t chunks_n; /* slots taken */
	bool names_deleted;
	/* slots that became free: not to be used again before that is durable */
	struct {
		struct device *dev;
		uint32_t slot;
	} freed[METASTORE_BATCH_MAX];
	uint32_t freed_n;
	/* whom to tell */
	struct {
		enum note what;
		uint32_t id;
	} notes[METASTORE_BATCH_MAX];
	uint32_t notes_n;
	/* the batch */
	struct metastore_commit commit;
	struct metastore_guard guard;
	struct metastore_change changes[METASTORE_BATCH_MAX];
	struct schema_key keys[METASTORE_BATCH_MAX];
	uint32_t changes_n;
	uint8_t *arena;
	size_t arena_used;
	uint64_t commit_no;	       /* that it will have */
	struct schema_key cluster_key; /* the cluster record of this batch */
	uint8_t cluster[SCHEMA_SMALL_MAX];
	size_t cluster_len;
};

/* Room for so many pages and small records more? */
bool txn_fits(const struct san *s, uint32_t pages, uint32_t smalls);
/* Is it part of the batch that is being collected, or committed? */
bool txn_has(const struct san *s, const struct txn_obj *o);
static inline uint32_t txn_page_cost(const struct san *s, const struct txn_obj *o)
{
	return txn_has(s, o) ? 0 : 1;
}
/* Makes it part of the batch; there must be room. */
void txn_mark(struct san *s, struct txn_obj *o);
/* Small records without an object; there must be room. */
void txn_take_smalls(struct san *s, uint32_t n);
void txn_note(struct san *s, enum note what, uint32_t id);
/* The number that the commit of the batch being collected will have. */
uint64_t txn_commit_no(const struct san *s);

/* In emit: the value goes to txn_value() (SCHEMA_PAGE_MAX or SCHEMA_SMALL_MAX bytes), then: */
uint8_t *txn_value(struct san *s);
void txn_put(struct san *s, const struct schema_key *k, size_t len);
void txn_delete(struct san *s, const struct schema_key *k);
/* A change of the caller's whose bytes live until the commit. */
void txn_change(struct san *s, const struct metastore_change *c);

void txn_init(struct san *s);
void txn_turn(struct ioe_hook *h); /* the end of a turn: reads, then the next batch */

/* ---- map pages ----------------------------------------------------------------------------------------------------------- */

struct map_page {
	struct hnode node; /* key: layer << 32 | page */
	struct list lru;   /* unpinned ones */
	struct txn_obj obj;
	uint32_t pins;
	bool loading;
	int status; /* it could not be read */
	size_t bytes;
	struct map_body body;
	struct list waiters; /* page_ref */
	struct list link;    /* waiting for a load slot */
};

struct page_ref {
	struct list link;
	struct page_set *set;
	struct map_page *page;
	layer_id layer;
	uint32_t no;
};
/* Pages that a request needs all at once, pinned from ready() until page_set_free(). */
struct page_set {
	struct list link; /* waiting for admission */
	struct san *s;
	void (*ready)(struct page_set *set); /* may be called from page_set_load itself */
	void *arg;
	int status;
	uint32_t n, n_max, missing;
	bool admitted;
	struct page_ref refs[];
};

struct page_set *page_set_new(struct san *s, uint32_t n_max);
void page_set_add(struct page_set *set, layer_id layer, uint32_t no);
void page_set_load(struct page_set *set, void (*ready)(struct page_set *set), void *arg);
void page_set_free(struct page_set *set); /* NULL is fine; not while loading */

enum { CACHE_LOADS_MAX = 32 };
struct cache_load; /* one read under way */
struct cache {
	struct htab pages;
	struct list lru; /* oldest first */
	size_t bytes, bytes_max;
	uint64_t pinned_n;
	struct list admission;	/* sets that wait because very many pages are pinned */
	struct list load_queue; /* pages without a load slot */
	struct cache_load *loads;
	struct list loads_free;
};
int cache_init(struct san *s, uint64_t bytes_max);
void cache_free(struct san *s);
void page_mark(struct san *s, struct map_page *p); /* part of the batch; there must be room */
/* The body may have got or lost its arrays. */
void page_resized(struct san *s, struct map_page *p);

/* ---- devices and space --------------------------------------------------------------------------------------------------- */

struct space_page {
	struct txn_obj obj;
	struct device *dev;
	uint32_t no;
	uint32_t taken_n; /* slots that are used, freeing or held */
};

struct device {
	struct txn_obj obj; /* the record */
	device_no no;
	struct pool *pool;
	uint32_t chunk_shift;
	uint32_t slots_n;
	uint32_t lose_job; /* not 0: lost */
	bool usable;
	bool gone; /* no longer in the table; freed when that is durable */
	uint32_t used_n, freeing_n, held_n;
	uint32_t cursor; /* where the next free slot is looked for */
	/* one bit a slot. held: freed in the batch under way */
	uint64_t *used, *freeing, *held;
	struct space_page *pages;
	uint32_t pages_n;
	/* frees.c */
	bool told;	     /* on_frees was called and nothing was pulled since */
	bool pulling;	     /* a pull is reading */
	uint32_t pull_after; /* slot after which the next pull goes on; UINT32_MAX: at the start */
	struct htab out;     /* struct free_out by slot */
	uint32_t out_n;	     /* of those that are out */
	/* lose.c: how far the job is */
	uint32_t lose_phase;
	struct schema_key lose_after; /* map pages up to it are through; empty: none */
	/* check.c, while a check runs */
	uint64_t *touched, *seen_map, *seen_intent;
};

struct pool {
	uint32_t id;
	struct device **devices;
	uint32_t devices_n, devices_max;
	uint32_t *free_n;  /* scratch of placement, as long as devices */
	uint64_t reserved; /* slots promised to requests that take several batches */
};

static inline uint32_t device_free_n(const struct device *d)
{
	return d->slots_n - d->used_n - d->freeing_n - d->held_n;
}
static inline bool bit_get(const uint64_t *bits, uint32_t i)
{
	return bits[i / 64] >> (i % 64) & 1;
}
static inline void bit_set(uint64_t *bits, uint32_t i)
{
	bits[i / 64] |= 1ULL << (i % 64);
}
static inline void bit_clear(uint64_t *bits, uint32_t i)
{
	bits[i / 64] &= ~(1ULL << (i % 64));
}

struct device *san_device_of(const struct san *s, device_no no);
int san_device_new(struct san *s, device_no no, const struct schema_device *rec,
		   struct device **ret_d); /* into the tables; no space is taken */
void san_device_free(struct device *d);
/* Out of the tables, part of the batch, freed when that is durable; there must be room for one small record. False: not while something of it is
 * part of the batch already, or somebody reads it. */
bool san_device_leave(struct san *s, struct device *d);
int san_device_grow(struct device *d, uint32_t slots_n);
size_t san_device_encode(const struct device *d, const struct schema_key *k, uint8_t *out);
size_t space_encode(const struct space_page *p, const struct schema_key *k, uint8_t *out);
struct pool *pool_of(const struct san *s, uint32_t id); /* NULL: no device was ever in it */

uint64_t pool_free_usable(const struct pool *p);
/* Where a chunk would go now: -ENOSPC, or a free slot. Changes nothing but the search cursor. */
int space_pick(struct pool *p, uint64_t point, struct device **ret_d, uint32_t *ret_slot);
static inline struct space_page *space_page_of(struct device *d, uint32_t slot)
{
	return &d->pages[slot / SCHEMA_SPACE_SLOTS];
}
/* State changes; the page becomes part of the batch, for which there must be room. */
void space_use(struct san *s, struct device *d, uint32_t slot);	  /* free -> used */
void space_unmap(struct san *s, struct device *d, uint32_t slot); /* used -> freeing */
void space_freed(struct san *s, struct device *d, uint32_t slot); /* freeing -> free, once durable */
void space_abandon(struct san *s, struct device *d,
		   uint32_t slot);   /* of a lost device: used -> free */
void space_committed(struct san *s); /* held slots of the batch are free now */
/* At load: the page as the database has it. */
int space_load(struct device *d, uint32_t page, struct metastore_bytes key,
	       struct metastore_bytes value);

/* ---- volumes and layers -------------------------------------------------------------------------------------------------- */

struct layer {
	struct txn_obj obj; /* header and counters */
	bool header_dirty, counters_dirty;
	layer_id id;
	struct layer *parent;
	struct volume *volume;
	bool frozen;
	bool gone;
	uint32_t children_n;
	uint64_t size_bytes;
	uint64_t commit;
	char *snapshot; /* NULL for a head */
	struct schema_usage n;
	bool touched; /* check.c: changed since the check began */
	bool counted; /* check.c: its pages were seen */
	bool usage_seen;
};

struct volume {
	struct txn_obj obj;	    /* header and name */
	bool name_put, name_delete; /* in this batch */
	struct hnode by_name; /* key: hash of the name; not in the table while being deleted */
	struct san_volume v;  /* chunks_n is not kept here */
	struct layer *head;
	bool gone;
	uint32_t purge_page; /* delete.c: pages below are known to be gone */
	bool name_seen;	     /* check.c */
};
enum { VOLUME_SMALLS = 2, LAYER_SMALLS = 2, DEVICE_SMALLS = 1 };

struct volume *volume_by_name(const struct san *s, const char *name);
struct volume *volume_by_id(const struct san *s, volume_id id);
size_t volume_encode(const struct volume *vol, const struct schema_key *k, uint8_t *out);
size_t layer_encode(const struct layer *l, const struct schema_key *k, uint8_t *out);
/* Into the tables (a deleting one not into that of names). 0 or -ENOMEM. */
int volume_new(struct san *s, const struct san_volume *v, struct volume **ret_vol);
int layer_new(struct san *s, layer_id id, const struct schema_layer *rec, struct layer *parent,
	      struct volume *vol, struct layer **ret_l);
void layer_free(struct layer *l);
void volume_fill(const struct volume *vol, struct san_volume *ret_v);
/* Part of the batch, header and commit number included; there must be room. */
void volume_mark(struct san *s, struct volume *vol);
void layer_mark(struct san *s, struct layer *l);
/* Both out of the tables and out of the database; there must be room for all their records. */
void volume_forget(struct san *s, struct volume *vol);
static inline uint32_t volume_chunks(const struct volume *vol)
{
	return (uint32_t)((vol->v.size_bytes + (1ULL << vol->v.chunk_shift) - 1) >>
			  vol->v.chunk_shift);
}
/* For requests of the owner: the volume, or NULL and the request has failed. */
struct volume *volume_owned(struct san *s, struct san_req *r, volume_id id, uint64_t epoch);
void layer_counted(struct san *s, struct layer *l); /* its counters changed: part of the batch */

/* ---- the map ------------------------------------------------------------------------------------------------------------- */

/* The page of a set that has the chunk; the set is one of pages of a single layer, sorted. */
struct map_page *page_set_find(const struct page_set *set, uint32_t chunk);
/* A set of the pages that these chunks are in; NULL: no memory. `sorted` is ascending. */
struct page_set *page_set_of_chunks(struct san *s, layer_id layer, const uint32_t *sorted,
				    uint32_t n);
/* Replaces an entry and keeps the layer's counters; the body has room. */
void map_set(struct san *s, struct layer *l, struct map_page *p, uint32_t i,
	     const struct map_entry *e);
/* Is there room to take an entry's slots away and set it anew? */
bool map_unmap_fits(const struct san *s, const struct map_page *p, const struct layer *l,
		    const struct map_entry *e);
/* The slots of the entry become freeing, each with an intent; on a lost device they are just free. The entry itself is the caller's to set. */
void map_unmap_slots(struct san *s, const struct map_entry *e);

/* ---- jobs, events -------------------------------------------------------------------------------------------------------- */

struct job {
	struct txn_obj obj;
	struct san_job j;
};
enum { JOB_SMALLS = 1 }; /* of creating one, besides a page: an old one may go */

struct job *job_of(const struct san *s, uint32_t id);
/* A record, and its place in the table; NULL: no memory. job_add then cannot fail: queued, part of the batch (one page, JOB_SMALLS), told when
 * committed. */
struct job *job_new(struct san *s);
void job_add(struct san *s, struct job *job, uint32_t kind, const uint64_t args[SAN_JOB_ARGS],
	     const char *subject);
void job_mark(struct san *s, struct job *job);
void job_finish(struct san *s, struct job *job, enum san_job_state state, int error,
		const char *text);
int job_load(struct san *s, const struct san_job *rec);
bool job_unfinished(const struct san *s, uint32_t id);
static inline bool job_ended(const struct san_job *j)
{
	return j->state >= SAN_JOB_DONE;
}

/* Remembers what a request with a key made (nothing without one); there must be room. */
enum { ONCE_SMALLS = 2 }; /* the new one, and the old one that goes */
bool once_ok(const struct san_once *o);
void once_put(struct san *s, const struct san_once *o, enum san_once_what what, uint32_t id);
int once_load(struct san *s, const struct schema_once *rec);

struct event_queue {
	struct san_event *events; /* SAN_EVENTS_WAITING_MAX */
	uint32_t n;
	uint64_t dropped;
};
void event_emit_waiting(struct san *s); /* as many as there is room for */

/* frees.c: the intent of one slot, part of the batch (one small record) */
void frees_intent_put(struct san *s, struct device *d, uint32_t slot, uint64_t cgen);
void frees_intent_delete(struct san *s, struct device *d, uint32_t slot);
/* Tells about devices that have something to free; after a commit, forgets what is done. */
void frees_tell(struct san *s);
void frees_committed(struct san *s);
void frees_free(struct device *d);

/* check.c: a slot changes its state */
void check_touched(struct san *s, struct device *d, uint32_t slot);

/* ---- all of it ------------------------------------------------------------------------------------------------------------ */

struct san {
	struct ioe *ioe;
	struct metastore *store;
	struct san_callbacks cb;
	uint64_t seed;
	bool started;
	bool starting; /* what is left over from the last run was not told yet */
	bool closing;
	int failed; /* out of service: every request ends with this */
	void (*closed)(void *arg);
	void *closed_arg;
	struct ioe_req close_req;
	bool close_waits;     /* for the last request */
	uint64_t reqs_n;      /* in flight */
	struct list privates; /* memory of requests in flight */
	struct list reads, writes, refused;
	struct ioe_hook hook;

	struct schema_cluster cluster;
	bool cluster_dirty;
	uint8_t cluster_now[SCHEMA_SMALL_MAX]; /* as it is in the database */
	size_t cluster_now_len;		       /* 0: not yet */

	struct txn txn;
	struct cache cache;
	struct idtab devices, pools, volumes, layers, jobs;
	struct htab names;
	uint32_t jobs_ended_n;
	struct event_queue events;
	struct schema_once *once; /* SAN_ONCE_KEPT, by number; seq 0: none */
	uint64_t once_last;	  /* number of the last one */
	struct san_check *check;
	uint64_t layers_gone; /* how many since san_open */
	bool tell;	      /* some device may have something to be told */
	struct san_stats stats;
};

static inline struct schema_key cluster_key(void)
{
	return schema_key_table(SCHEMA_CLUSTER);
}

/* Memory of a request in flight: freed by priv_free, or with the SAN when the request never ends (san_abandon). Not zeroed. */
void *priv_alloc(struct san *s, size_t len);
void priv_free(void *p); /* NULL is fine */

/* One scan of the database, again and again. */
struct scan {
	struct metastore_scan m;
	struct san *s;
	void (*done)(struct scan *sc);
	void *arg;
	struct schema_key prefix, after;
	struct metastore_item items[];
};
struct scan *scan_new(struct san *s, uint32_t items_max, size_t buf_len);
/* after: NULL, or a key. */
void scan_start(struct scan *sc, const struct schema_key *prefix, const struct schema_key *after,
		void (*done)(struct scan *sc), void *arg);
/* From behind the last item of the scan before. */
void scan_next(struct scan *sc, void (*done)(struct scan *sc));

void san_free(struct san *s);
void san_tell_start(struct san *s);
/* Records of other modules: are they well-formed; into the batch, for which there must be room (n small records). */
bool records_ok(const struct metastore_change *changes, uint32_t n);
void records_add(struct san *s, const struct metastore_change *changes, uint32_t n);

#endif
