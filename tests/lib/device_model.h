/* SPDX-License-Identifier: Apache-2.0 */
/* device_model.h - what a device may answer, from its contract (device.h, chunk.h, docs/device-format.md) and from nothing else.
 *
 * The test tells the model what it submits, what completes and what goes wrong; the model tells whether an answer is legal. It knows
 * every slot's identity, every block's history (block_history.h), and the epoch and head of each volume. It never calls the device.
 *
 *   model_submit() before device_submit(); model_done() from the request's `done`
 *   model_kill() or model_lose(), then a device that was opened again, then model_slot_see() for every slot
 *   model_error() is "" until something illegal was seen: the first such thing, in a sentence
 *
 * The test keeps the protocol's own rules, which the device may rely on: requests over blocks that somebody writes do not overlap
 * (model_blocks_free() tells), a slot is used with one new cgen at a time, and a cgen is used again only after FREE of the old one. */
#ifndef STRATA_TESTS_LIB_DEVICE_MODEL_H
#define STRATA_TESTS_LIB_DEVICE_MODEL_H

#include "io-path/device/device.h"
#include "tests/lib/block_history.h"

enum { MODEL_VOLUMES = 4, MODEL_LAYERS = 64, MODEL_ERROR_LEN = 2048, MODEL_STATES_MAX = 6 };

struct model_identity {
	bool open;
	uint64_t cgen; /* open: of the contents; free: remembered */
	volume_id volume;
	layer_id layer;
	uint32_t chunk;
};

struct model_slot {
	struct model_identity now, durable;
	uint64_t open_seq;    /* when the opening of `now` was acknowledged; 0: it has not been */
	uint64_t changed_seq; /* when a change of it was last asked for or done */
	bool unseen;	      /* after a crash: one of `may_be` */
	bool lost;	 /* meanwhile power or ring: what is seen next is what the medium holds */
	bool free_again; /* a FREE was under way: it must be asked for again before anything else */
	uint32_t may_be_n;
	struct model_identity may_be[MODEL_STATES_MAX];
	struct block_history *blocks; /* NULL: never touched */
	uint16_t *writers, *readers;  /* requests in flight, per block */
	uint32_t in_flight, frees_in_flight, changes_in_flight;
};

struct model_volume {
	uint64_t epoch;	      /* durable: what is older is refused */
	uint64_t epoch_asked; /* highest that was ever named: what is older may be refused */
	layer_id head;	      /* as last told; 0: the device was not */
	layer_id head_asked;
};

struct model_layer {
	struct device_layer durable; /* layer 0: none yet */
	struct device_layer asked;   /* in flight or, after a crash, possible; layer 0: none */
	bool drop_asked;	     /* likewise that it is gone */
	bool is_drop;		     /* what is in flight */
};

/* What may complete a request; several can be legal. */
enum model_outcome {
	MODEL_OK = 1 << 0,
	MODEL_STALE_CGEN = 1 << 1,
	MODEL_STALE_EPOCH = 1 << 2,
	MODEL_FROZEN = 1 << 3,
	MODEL_NOT_EMPTY = 1 << 4,
};

/* A request in flight. */
struct model_op {
	struct chunk_req *r;
	struct list link;
	uint64_t seq; /* of the submission */
	uint64_t id;  /* WRITE: of the data */
	uint32_t may; /* enum model_outcome */
	uint64_t late_event; /* something made it too late in this very event, whose order nobody can see */
	bool begun;	     /* histories hold its versions */
	bool frees;	     /* FREE: it has an effect */
	uint64_t tenant; /* cgen of the slot's contents it was begun on */
};

struct model_ref {
	uint32_t slot, block;
};

struct device_model {
	uint32_t slots_n, blocks_n;
	uint64_t seq, last_id;
	uint64_t event; /* of the world: what happens within one happens at once */
	struct model_slot *slots;
	struct model_volume volumes[MODEL_VOLUMES + 1]; /* by id */
	struct model_layer layers[MODEL_LAYERS + 1];	/* by id */
	struct list in_flight;
	struct model_ref *dirty; /* blocks whose history is longer than one version */
	size_t dirty_n, dirty_room;
	/* what the test does to the disk since the device was opened */
	bool may_nospc, may_eio, may_fail;
	/* what was seen, for coverage */
	uint64_t torn_seen, old_seen, bad_seen, reads, refused;
	char error[MODEL_ERROR_LEN];
};

struct device_model *model_new(uint32_t slots_n, uint32_t blocks_n);
void model_free(struct device_model *m);
const char *model_error(const struct device_model *m);
void __attribute__((format(printf, 2, 3))) model_fail(struct device_model *m, const char *fmt, ...);

uint64_t model_place(const struct device_model *m, uint32_t slot,
		     uint32_t block); /* for pattern_fill() */
/* May a request touch these blocks now? */
bool model_blocks_free(const struct device_model *m, uint32_t slot, uint32_t block, uint32_t n,
		       bool to_change);

void model_submit(struct device_model *m, struct model_op *op, struct chunk_req *r, uint64_t id);
/* dev: to ask for the slot's state after a request that failed in the middle */
void model_done(struct device_model *m, struct model_op *op, struct device *dev);

void model_epoch_submit(struct device_model *m, volume_id v, uint64_t epoch, layer_id head);
void model_epoch_done(struct device_model *m, volume_id v, uint64_t epoch, layer_id head,
		      int status);
void model_layer_submit(struct device_model *m, const struct device_layer *l);
void model_layer_drop(struct device_model *m, layer_id layer);
void model_layer_done(struct device_model *m, layer_id layer, int status);
void model_layers_see(struct device_model *m, struct device *dev);

/* The process died, and its restart ring is there; or power, or the ring, was lost. Requests in flight are forgotten. */
void model_kill(struct device_model *m);
void model_lose(struct device_model *m);
/* Closed in good order: everything is durable. */
void model_closed(struct device_model *m);
/* Flushes made elsewhere: everything acknowledged before seq is durable. */
void model_flushed(struct device_model *m, uint64_t seq);
void model_slot_see(struct device_model *m, uint32_t slot, const struct device_slot *s);

/* Parts of the model share these. */
static inline bool model_is_change(const struct chunk_req *r)
{
	return r->op == CHUNK_WRITE || r->op == CHUNK_CLEAR;
}
static inline bool model_has_blocks(const struct chunk_req *r)
{
	return model_is_change(r) || r->op == CHUNK_READ || r->op == CHUNK_STATUS;
}
void model_too_late(struct device_model *m, struct model_op *op); /* it must not succeed any more */
void model_epoch_durable(struct device_model *m, volume_id v, uint64_t epoch);
void model_may_be(struct model_slot *s, const struct model_identity *id);
void model_slot_reset(struct device_model *m, uint32_t slot); /* its blocks are durable holes */

/* Present blocks of a slot, -1 when not known. */
int model_present(const struct device_model *m, uint32_t slot);
bool model_touched(const struct device_model *m, uint32_t slot, uint32_t block);

#endif
