/* SPDX-License-Identifier: Apache-2.0 */
/* runtime.h - the insides of the volume runtime, shared by the files of this directory.
 *
 *   volumes.c      all volumes of the node; what is done at the end of a turn; stats
 *   open.c         opening: one metadata call for all who ask at once; handles
 *   close.c        closing a handle; the last one drains the runtime and gives the volume up
 *   submit.c       a request: checked, locked, cut into pieces, finished
 *   piece.c        a piece: what each op's pieces have in common
 *   op_read.c op_write.c op_zero.c op_flush.c op_status.c     one request kind each
 *   walk.c         reading or asking the states of blocks through the layers of a chunk
 *   map_cache.c    the map, page by page       map_alloc.c   mapping chunks      map_update.c   unmapping them
 *   run_ahead.c    mapping ahead of a sequential writer          reclaim.c   giving empty slots back
 *   list.c         names for export lists
 *   range_lock.c fixed_pool.c                  leaves
 *
 * One request is a `struct volume_req`, the target's. Its private part (struct vol_op) holds the range lock's entry and where
 * it is cut; the work on one chunk is a piece (struct vol_piece), from a pool. A piece never needs another piece: whoever holds
 * one can finish.
 *
 *   submit -> lock* -> [piece: map* -> data* -> done] x n -> unlock -> done      (* may suspend)
 *
 * Callbacks of targets run from completions of the store or of the metadata client, or at the end of the turn (volumes_turn),
 * never from inside volume_submit(). */
#ifndef STRATA_IO_PATH_VOLUME_RUNTIME_H
#define STRATA_IO_PATH_VOLUME_RUNTIME_H

#include "io-path/node/meta.h"
#include "io-path/node/store.h"
#include "io-path/volume/fixed_pool.h"
#include "io-path/volume/map_cache.h"
#include "io-path/volume/range_lock.h"
#include "io-path/volume/volume.h"
#include "io-path/volume/volumes.h"
#include "src/base/hash.h"
#include "src/base/list.h"
#include "src/ioe/ioe.h"

enum {
	PIECE_BLOCKS_MAX = 256, /* of data; a CLEAR may be the whole chunk */
	SCRATCH_BLOCKS = 2,	/* a first and a last partial block */
	ALLOC_BATCH_MAX = 256,	/* chunks in one metadata call (META_CHUNKS_MAX at most) */
	UPDATE_BATCH_MAX = 64,
	RUNAHEAD_MAX = 16,
	RECLAIM_RANGES_MAX = 64,
	RECLAIM_JOBS_MAX = 16,
	STALE_MAX = 8, /* mappings in a row that a piece finds stale */
};

#define NS_PER_S 1000000000ULL

/* ---- all volumes ------------------------------------------------------------------------------------------------------- */

struct volumes {
	struct ioe *ioe;
	struct chunk_store *store;
	struct meta *meta;
	struct volumes_limits limits;
	void (*on_event)(void *arg, const char *volume, const char *what, const char *text);
	void *event_arg;

	struct htab by_name;
	struct list all; /* volume.link */
	uint32_t serial; /* of the last volume */
	struct map_cache cache;
	struct fixed_pool pieces, scratch;

	struct ioe_hook hook;
	struct list tasks;    /* vol_task */
	struct list opened;   /* volume_open: done is owed */
	struct list started;  /* volume_req: granted, or to be cut further */
	struct list finished; /* volume_req: done is owed */
	struct list starved;  /* volume.starved_link: somebody waits for a piece or scratch */
	uint32_t submitting;  /* depth of volume_submit(): completions must wait */
	uint32_t lists_n;     /* volume_list calls under way */

	bool closing;
	void (*close_done)(void *arg);
	void *close_arg;
	struct vol_task close_task;
};

void volumes_arm(struct volumes *vs); /* the turn will not end without volumes_turn() */
void volumes_maybe_closed(struct volumes *vs);
void volumes_event(struct volume *v, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- a volume --------------------------------------------------------------------------------------------------------- */

enum volume_state {
	VOLUME_OPENING, /* meta_open is under way */
	VOLUME_OPEN,
	VOLUME_DRAINING, /* nobody has it open, run-ahead is being returned; an open ends it */
	VOLUME_CLOSING,	 /* meta_close is under way */
};

/* A device that data of the volume went to. Generations count acknowledgements that are not stable yet. */
struct vol_device {
	struct hnode node;
	struct volume *v;
	device_no dev;
	bool flushing;
	uint64_t acked;	   /* grows with each volatile acknowledgement */
	uint64_t flushed;  /* acknowledgements up to here are stable, or their loss was reported */
	uint64_t covering; /* by the flush under way */
	uint64_t lost_gen; /* up to here some are of an incarnation that is gone */
	/* the same in terms of the volume's acks_n: what is not flushed came behind flushed_order, the flush under way covers it up to
	 * covering_order */
	uint64_t flushed_order, covering_order;
	uint64_t incarnation; /* of the last volatile acknowledgement; 0: all are flushed */
	bool flush_lost;      /* the flush under way has to tell of a loss */
	struct list now;      /* flush pieces that the flush under way covers */
	struct list next;     /* those that need the one after it */
	struct chunk_req flush;
};

struct vol_alloc {
	struct meta_alloc req;
	bool busy;
	struct list waiting;   /* map_waiter, each pinning its page */
	uint32_t n, clients_n; /* of the batch; the rest is run-ahead */
	uint32_t limit;	       /* clients' chunks in one batch: 1 after ENOSPC, then doubling */
	uint32_t retries;      /* after space was returned for want of it */
	uint64_t retry_ns;     /* 0: none is due */
	uint64_t full_ns;      /* when it was -ENOSPC last */
	struct vol_task task;
	uint32_t chunks[ALLOC_BATCH_MAX];
	bool reserved[ALLOC_BATCH_MAX];
	struct meta_map_item items[ALLOC_BATCH_MAX];
};

/* One change of the map, gathered with others like it. The chunk is locked and its page pinned by whoever asks. */
struct map_change {
	struct list link;
	uint32_t chunk;
	enum meta_change change;
	uint64_t cgen;
	void (*fn)(struct map_change *c, int status);
};
struct vol_update {
	struct meta_update req;
	bool busy;
	struct list waiting, sent; /* map_change */
	struct vol_task task;
	struct meta_update_item items[UPDATE_BATCH_MAX];
};

struct vol_run_ahead {
	uint32_t last;	 /* chunk that a client needed last */
	uint32_t streak; /* how many in a row before it */
	uint32_t window;
	uint32_t n; /* reserved and not yet used */
	uint32_t chunks[RUNAHEAD_MAX];
	uint64_t used_ns; /* when it was last of use */
	uint64_t off_ns;  /* none until then: the pool is full */
};

struct reclaim_ranges {
	uint32_t n;
	struct {
		uint32_t first, last;
	} r[RECLAIM_RANGES_MAX];
};
struct reclaim_job;
struct vol_reclaim {
	struct reclaim_ranges todo;  /* chunks to look at */
	struct reclaim_ranges later; /* that were in use, or their device did not say */
	struct reclaim_job *jobs;    /* RECLAIM_JOBS_MAX; allocated on first use */
	uint32_t jobs_n;	     /* under way */
	struct map_waiter wait;
	bool waiting;	   /* for a page of the map */
	uint64_t due_ns;   /* 0: there is nothing to do */
	bool failed;	   /* a device did not say, since the last pass ended */
	uint64_t pause_ns; /* before those are asked again; 0: it is not for them that we wait */
	struct vol_task task;
};

struct volume {
	struct hnode by_name;
	struct list link;
	struct volumes *vs;
	enum volume_state state;
	bool hidden;	 /* not found by name any more */
	int gone;	 /* < 0: taken away or deleted; every request fails so */
	uint32_t serial; /* tells it from others in the map cache's keys */

	/* what the metadata server said */
	volume_id id;
	struct uuid uuid;
	uint64_t epoch, size_bytes;
	uint32_t sector_bytes, chunk_shift;
	uint32_t chunk_blocks;
	enum meta_write_cache write_cache;
	bool frozen, one_opener;
	bool all_stable; /* with AUTO, no device of the pool acknowledges what is volatile */
	uint32_t layers_n;
	const layer_id *layers; /* head first */

	struct list opens;     /* volume_open: waiting for OPENING or CLOSING to end */
	uint64_t opens_due_ns; /* until when they wait; 0: none does */
	bool given_up;	       /* CLOSING: it is not, or not any more, ours */
	struct list handles;
	uint32_t handles_n, in_flight;

	struct range_lock lock;
	struct fixed_pool pieces, scratch;	    /* its own; more are shared */
	uint32_t shared_pieces_n, shared_scratch_n; /* of vs->pieces, vs->scratch: held now */
	struct list piece_waiters;		    /* volume_req */
	struct volume_req *feeding;
	struct list scratch_waiters; /* vol_piece.wait.link */
	struct list starved_link;

	struct list pages; /* map_page.by_volume */
	struct map_page *hot_page;
	uint32_t loads_n; /* pages not READY */
	uint32_t prefetch_next, prefetch_end;

	struct htab devices; /* vol_device, by number */
	struct vol_device **device_list;
	uint32_t devices_n, devices_room;
	struct vol_device *hot_device;
	uint32_t device_flushes_n; /* under way */
	uint64_t acks_n;	   /* volatile acknowledgements, of all devices */
	uint64_t left_order; /* acks_n with the last of those given to handles that have left */
	bool loss_owed;	     /* to those who left: the next who comes is told */

	struct vol_alloc alloc;
	struct vol_update update;
	struct vol_run_ahead ahead;
	struct vol_reclaim reclaim;

	struct ioe_req timer;
	bool timer_armed;
	uint64_t timer_ns;
	struct vol_task drain_task, gone_task;

	uint64_t stale_told_ns; /* last event of a mapping that a device refuses for good */
	struct volume_stats stats;
	struct meta_open open_req;
	char open_client[ERRMSG_LEN];
	struct meta_close close_req;
	char volume_name[NAME_LEN_MAX + 1], snapshot_name[NAME_LEN_MAX + 1];
	char name[2 * NAME_LEN_MAX + 2];
};

struct volume_handle {
	struct list link;
	struct volume *v;
	bool read_only, exclusive, remote_client;
	bool stable; /* every write is made stable before it is acknowledged */
	bool left, closing;
	bool loss_owed; /* something of it was lost, and it has not been told: its next FLUSH does */
	uint64_t acked_order; /* acks_n of the volume with its last volatile acknowledgement */
	uint32_t in_flight;
	void (*on_change)(void *arg, int status);
	void *on_change_arg;
	void (*close_done)(void *arg);
	void *close_arg;
	struct vol_task close_task;
	char volume_name[NAME_LEN_MAX + 1], snapshot_name[NAME_LEN_MAX + 1];
	char name[2 * NAME_LEN_MAX + 2];
	char client[];
};

/* open.c */
struct volume *volume_find(struct volumes *vs, const char *name);
void volume_free(struct volume *v);
void volume_hide(struct volume *v);
void open_again(struct volumes *vs, struct list *opens);
void open_refuse_all(struct volume *v, int status);
void opens_tick(struct volume *v, uint64_t now_ns); /* OPENING, CLOSING: do they still wait? */

/* close.c */
void volume_handle_init(struct volume_handle *h);
void volume_handle_idle(struct volume_handle *h);
void volume_close_init(struct volume *v);
void volume_close_cancel(struct volume *v);
void volume_drain(struct volume *v);	   /* nobody has it open any more */
void volume_drain_check(struct volume *v); /* something ended: if DRAINING, was it the last? */
void volume_give_up(struct volume *v);
void volume_end(struct volume *v); /* it is not, or not any more, ours */
/* The owner is somebody else now, or the volume is deleted: every request fails, the handles are told. */
void volume_gone(struct volume *v, int status);
/* Does the status say so? Then volume_gone(). */
bool volume_gone_check(struct volume *v, int status);
void volume_resized(struct volume *v, uint64_t size_bytes);
void volume_timer_want(struct volume *v, uint64_t at_ns); /* the ticks below run then, or earlier */

static inline uint32_t volume_chunks_n(const struct volume *v)
{
	return (uint32_t)((v->size_bytes + (1ULL << v->chunk_shift) - 1) >> v->chunk_shift);
}

/* ---- requests and their pieces ------------------------------------------------------------------------------------------ */

/* Lives in volume_req.priv. */
struct vol_op {
	struct range_entry lock;
	struct volume_handle *h;
	uint64_t start_ns;
	uint64_t next, end; /* bytes not yet given to pieces; FLUSH: next indexes devices */
	uint32_t pending;   /* pieces under way, and 1 while it is being cut */
	int32_t status;	    /* the first error */
	bool locked;
} __attribute__((may_alias));
static_assert(sizeof(struct vol_op) <= sizeof(((struct volume_req *)0)->priv), "fits");

static inline struct vol_op *op_of(struct volume_req *r)
{
	return (struct vol_op *)(void *)r->priv;
}

struct vol_piece;

/* Reading through the layers: walk.c. */
struct vol_walk {
	enum chunk_op op; /* CHUNK_READ or CHUNK_STATUS */
	uint32_t block, blocks_n;
	uint8_t *buf;	    /* READ */
	uint32_t depth;	    /* of the chain: what is above was asked */
	uint32_t at, run_n; /* blocks of the request under way, counted from `block` */
	bool full;	    /* holes of the entry that it asks are damage */
	void (*then)(struct vol_piece *p, int status);
};

struct vol_piece {
	struct chunk_req cr;
	struct map_waiter wait; /* for the map, an allocation, scratch, a device flush */
	struct volume *v;
	struct volume_req *r;
	struct fixed_pool *home;
	struct vol_device *device; /* of the change under way */
	uint32_t chunk;
	/* blocks it touches; the request's part of them begins head_bytes behind the first one's start, and ends tail_bytes
	 * before the last one's end */
	uint32_t block, blocks_n;
	uint32_t head_bytes, tail_bytes;
	uint8_t *buf;	       /* of the first of them */
	struct map_item item;  /* mapping in use */
	struct map_item stale; /* mapping that was refused last */
	uint32_t stale_n;
	uint32_t asked_n;	  /* STATUS: requests to devices */
	bool checksummed;	  /* crcs are valid */
	bool data_done, map_done; /* a write into run-ahead waits for both */
	int data_status, map_status;
	uint8_t *scratch; /* SCRATCH_BLOCKS */
	struct fixed_pool *scratch_home;
	struct map_change change;
	struct vol_walk walk;
	uint8_t states[PIECE_BLOCKS_MAX];
	uint32_t crcs[PIECE_BLOCKS_MAX];
};

static inline struct vol_piece *piece_of_wait(struct map_waiter *w)
{
	return container_of(w, struct vol_piece, wait);
}
static inline struct vol_piece *piece_of_chunk(struct chunk_req *cr)
{
	return container_of(cr, struct vol_piece, cr);
}

/* submit.c */
void op_go_on(struct volume_req *r);   /* taken out of vs->started */
void op_advance(struct volume_req *r); /* cuts further pieces */
void op_piece_done(struct volume_req *r, int status);
void op_complete(struct volume_req *r); /* taken out of vs->finished */

/* piece.c */
/* NULL: op_advance(r) follows when one is free. */
struct vol_piece *piece_get(struct volume *v, struct volume_req *r);
void piece_finish(struct vol_piece *p, int status);
/* p->scratch; false: fn follows when there is one. */
bool piece_scratch(struct vol_piece *p, void (*fn)(struct map_waiter *w, int status));
void volume_feed(struct volume *v);
/* Sends p->cr, in which the caller set flags, block, blocks_n, buf, crcs and states. */
void piece_send(struct vol_piece *p, enum chunk_op op, const struct map_item *item, uint32_t depth,
		void (*done)(struct chunk_req *cr));
/* The same for WRITE and CLEAR in the head layer; `flags` without CHUNK_F_STABLE. -ENOMEM: not sent. */
int piece_send_change(struct vol_piece *p, enum chunk_op op, uint32_t flags,
		      const struct map_item *item, void (*done)(struct chunk_req *cr));
uint32_t piece_stable_flag(const struct vol_piece *p, device_no dev); /* CHUNK_F_STABLE or 0 */
int piece_change_done(struct vol_piece *p); /* first thing in `done`: its status */
/* p->item was refused with -E_STALE_CGEN. 0: look it up again. Else what the piece fails with. */
int piece_stale(struct vol_piece *p);

/* Each op's pieces begin here, cut. */
void read_piece(struct vol_piece *p);
void write_piece(struct vol_piece *p);
void write_data(struct vol_piece *p); /* p->buf holds whole blocks */
void zero_piece(struct vol_piece *p);
void flush_advance(struct volume_req *r);
void status_advance(struct volume_req *r);

/* op_flush.c */
/* Found or made; NULL: -ENOMEM. */
struct vol_device *vol_device_get(struct volume *v, device_no dev);
void vol_device_acked(struct vol_device *d, struct volume_handle *h,
		      uint64_t incarnation);	    /* not stable yet */
int flush_end(struct volume_handle *h, int status); /* what the handle's FLUSH is answered with */
bool vol_device_is_stable(const struct vol_device *d); /* AUTO acknowledges nothing volatile on it */
void vol_devices_free(struct volume *v);

/* walk.c: p->states and the buffer are complete when `then` runs (maybe before this returns). */
void walk_start(struct vol_piece *p, enum chunk_op op, uint32_t block, uint32_t blocks_n,
		uint8_t *buf, void (*then)(struct vol_piece *p, int status));

/* map_alloc.c */
void map_alloc_init(struct volume *v);
/* w->fn runs when the chunk is mapped for clients: open, and not reserved. The page is READY. */
void map_alloc(struct map_page *p, uint32_t chunk, struct map_waiter *w,
	       void (*fn)(struct map_waiter *w, int status));
void map_alloc_tick(struct volume *v, uint64_t now_ns);

/* map_update.c */
void map_update_init(struct volume *v);
void map_update(struct map_page *p, struct map_change *c); /* the page is READY, the chunk locked */

/* run_ahead.c */
bool run_ahead_has(const struct volume *v, uint32_t chunk);
void run_ahead_asked(struct volume *v, uint32_t chunk); /* a client needs it mapped */
/* Chunks to reserve now, at most `max`; each pins its page. */
uint32_t run_ahead_choose(struct volume *v, uint32_t max, uint32_t *ret_chunks);
void run_ahead_got(struct volume *v, uint32_t chunk);
void run_ahead_used(struct volume *v, uint32_t chunk); /* a client is at it now */
void run_ahead_pause(struct volume *v);		       /* the pool is full */
bool run_ahead_return(struct volume *v);	       /* gives all back; true: there was some */
void run_ahead_tick(struct volume *v, uint64_t now_ns);

/* reclaim.c */
void reclaim_init(struct volume *v);
void reclaim_free(struct volume *v);
void reclaim_add(struct volume *v, uint32_t chunk); /* may be empty, or is run-ahead nobody wants */
void reclaim_now(struct volume *v);
void reclaim_forget(struct volume *v);
bool reclaim_is_idle(const struct volume *v);
void reclaim_tick(struct volume *v, uint64_t now_ns);

#endif
