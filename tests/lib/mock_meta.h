/* SPDX-License-Identifier: Apache-2.0 */
/* mock_meta.h - a metadata server in memory behind the ops of io-path/node/meta.h, with random delays, absence, shortage of
 * space. Slots come from a mock_store. One call takes effect at one moment; answers of different calls may overtake one
 * another. */
#ifndef STRATA_TESTS_LIB_MOCK_META_H
#define STRATA_TESTS_LIB_MOCK_META_H

#include "io-path/node/meta.h"
#include "src/base/rand.h"
#include "tests/lib/mock_store.h"

enum { MOCK_VOLUMES_MAX = 8, MOCK_LAYERS_MAX = 8, MOCK_CHUNKS_MAX = 4096 };

struct mock_layer {
	layer_id id;
	struct map_entry map[MOCK_CHUNKS_MAX];
};

struct mock_volume {
	char name[NAME_LEN_MAX + 1];
	volume_id id;
	uint64_t epoch, size_bytes;
	enum meta_write_cache write_cache;
	uint32_t sector_bytes;
	bool owned;	/* opened and not given up */
	bool elsewhere; /* another node owns it */
	bool one_opener;
	uint32_t layers_n;
	struct mock_layer *layers[MOCK_LAYERS_MAX]; /* head first */
};

struct mock_meta {
	struct meta meta;
	struct ioe *ioe;
	struct rand rand;
	struct mock_store *store;
	uint32_t devices_n, chunk_shift;
	uint64_t delay_ns_max, free_delay_ns_max;
	bool away;
	uint32_t fail_permille; /* -E_META_AWAY, half of them after the effect; not for update */
	uint32_t items_max;	/* of one map answer; 0: what the caller has room for */
	uint64_t cgen;
	uint32_t free_n; /* slots */
	struct mock_volume volumes[MOCK_VOLUMES_MAX];
	uint32_t volumes_n;
	layer_id layer_last;
	uint8_t *used[MOCK_DEVICES_MAX + 1]; /* per slot */
	struct list waiting;		     /* while away */
	bool took_back;			     /* then an update may find another cgen */
	uint32_t in_flight, frees_in_flight;
	uint64_t opens, closes, maps, allocs, updates, reserved_allocs;
};

void mock_meta_init(struct mock_meta *m, struct ioe *ioe, uint64_t seed, struct mock_store *store,
		    uint32_t devices_n, uint32_t chunk_shift);
void mock_meta_free(struct mock_meta *m);
struct mock_volume *mock_meta_volume(struct mock_meta *m, const char *name, uint64_t size_bytes);
/* A new head on top of what is there; the old one is frozen. The volume is closed. */
void mock_meta_snapshot(struct mock_meta *m, struct mock_volume *v);
void mock_meta_away(struct mock_meta *m, bool away); /* back: those who waited go on */
/* The entries of a chunk as the server has them; NULL: unmapped in that layer. */
struct map_entry *mock_meta_entry(struct mock_volume *v, uint32_t layer_index, uint32_t chunk);
/* Slots mapped by any layer of any volume, of those the given flags. */
uint32_t mock_meta_mapped(struct mock_meta *m, uint8_t flags);
/* Moves a mapped chunk to another slot, contents and all, as if the server had migrated it. */
bool mock_meta_move(struct mock_meta *m, struct mock_volume *v, uint32_t chunk);

/* The server takes a reserved chunk back without asking, as it may; false: there is none. */
bool mock_meta_take_back(struct mock_meta *m, struct mock_volume *v);

#endif
