/* SPDX-License-Identifier: Apache-2.0 */
/* schema.h - the SAN's records in the metastore: keys, values, and the only functions that make or read them.
 *
 *   key (numbers big-endian)         value
 *   'c'                              the cluster: uuid, counters. Every batch of the SAN is guarded by its exact bytes
 *   'd' dev16                        a device: pool, slots
 *   's' dev16 page32                 space page: states of 8192 slots; absent when all are free
 *   'f' dev16 slot32                 intent: the slot left the map and its device is to free it; cgen
 *   'v' volume32                     volume header
 *   'n' name                         index: volume of that name, unless it is being deleted
 *   'l' layer32                      layer header
 *   'u' layer32                      usage of a layer: how many chunks and entries its map pages have
 *   'm' layer32 page32               map page: 256 chunks; absent when none is mapped
 *   'j' job32                        job
 *   'e' seq64                        event
 *   'o' seq64                        a request that was to be done once: its key, and what it made
 *   capital letters                  the registry's (san_records)
 *
 * Values are little-endian. Each begins with {crc, version}; the crc (CRC32C) covers the key and everything behind itself, so a value under a wrong
 * key is found out like a damaged one. Reserved bytes are zero. Decoders trust nothing: 0, -E_FORMAT or -E_VERSION.
 *
 * Map page: header, then for each chunk that is not unmapped, in order:
 *   u8 index in the page | u8 kind (low 4 bits), number of replicas (high 4) | u8 flags | replicas {le16 dev, le32 slot, cgen}
 * cgen is stored as the difference to the page's base in as many bytes as the page's largest difference needs. A full page of single replicas
 * takes 3-4 KiB, one of four replicas 12 KiB while the differences are below 2^40, and at worst 15 KiB (docs/decisions/map-page-size.md). */
#ifndef STRATA_METADATA_SAN_SCHEMA_H
#define STRATA_METADATA_SAN_SCHEMA_H

#include "metadata/san/san.h"

/* ---- keys ---------------------------------------------------------------------------------------------------------------- */

enum { SCHEMA_KEY_MAX = 1 + NAME_LEN_MAX };

struct schema_key {
	uint8_t len;
	uint8_t b[SCHEMA_KEY_MAX];
};

enum schema_table {
	SCHEMA_CLUSTER = 'c',
	SCHEMA_DEVICE = 'd',
	SCHEMA_SPACE = 's',
	SCHEMA_INTENT = 'f',
	SCHEMA_VOLUME = 'v',
	SCHEMA_NAME = 'n',
	SCHEMA_LAYER = 'l',
	SCHEMA_USAGE = 'u',
	SCHEMA_MAP = 'm',
	SCHEMA_JOB = 'j',
	SCHEMA_EVENT = 'e',
	SCHEMA_ONCE = 'o',
};

struct schema_key schema_key_table(enum schema_table t); /* the prefix of the whole table */
struct schema_key schema_key_32(enum schema_table t, uint32_t id);
struct schema_key schema_key_64(enum schema_table t, uint64_t id);
struct schema_key schema_key_dev(enum schema_table t, device_no dev);
struct schema_key schema_key_dev_32(enum schema_table t, device_no dev, uint32_t at);
struct schema_key schema_key_map(layer_id layer, uint32_t page);
struct schema_key schema_key_name(const char *name);

static inline struct metastore_bytes schema_key_bytes(const struct schema_key *k)
{
	return (struct metastore_bytes){k->b, k->len};
}

/* The numbers in a key of that shape; false when it has another one. */
bool schema_key_get_32(struct metastore_bytes key, uint32_t *ret_id);
bool schema_key_get_64(struct metastore_bytes key, uint64_t *ret_id);
bool schema_key_get_dev(struct metastore_bytes key, device_no *ret_dev);
bool schema_key_get_dev_32(struct metastore_bytes key, device_no *ret_dev, uint32_t *ret_at);
bool schema_key_get_map(struct metastore_bytes key, layer_id *ret_layer, uint32_t *ret_page);
bool schema_key_get_name(struct metastore_bytes key, char ret_name[NAME_LEN_MAX + 1]);

/* ---- small records ------------------------------------------------------------------------------------------------------- */

enum {
	SCHEMA_SMALL_MAX = 512, /* of an encoded record other than pages and jobs */
	SCHEMA_JOB_MAX = 4096,
};

struct schema_cluster {
	struct uuid uuid;
	uint64_t created_ns;
	uint64_t cgen; /* highest given out; likewise the numbers below */
	uint64_t event;
	uint32_t volume, layer, node, device, pool, policy, job;
};

struct schema_device {
	uint32_t pool;
	uint32_t chunk_shift;
	uint32_t slots_n;
	uint32_t lose_job; /* 0: not lost */
};

struct schema_layer {
	layer_id parent;
	volume_id volume;
	bool frozen;
	uint64_t size_bytes;
	uint64_t commit;
	char snapshot[NAME_LEN_MAX + 1];
};

struct schema_usage {
	uint64_t chunks_n; /* slots */
	uint64_t entries_n;
};

struct schema_once {
	uint64_t seq;
	uint64_t request, wall_ns;
	enum san_once_what what;
	uint32_t id;
	char key[SAN_ONCE_KEY_MAX + 1];
};

/* Each returns the length written to out (SCHEMA_SMALL_MAX, jobs SCHEMA_JOB_MAX), or decodes a value found under the key. */
size_t schema_cluster_encode(const struct schema_cluster *c, const struct schema_key *k,
			     uint8_t *out);
int schema_cluster_decode(struct metastore_bytes key, struct metastore_bytes value,
			  struct schema_cluster *ret_c);
size_t schema_device_encode(const struct schema_device *d, const struct schema_key *k, uint8_t *out);
int schema_device_decode(struct metastore_bytes key, struct metastore_bytes value,
			 struct schema_device *ret_d);
size_t schema_intent_encode(uint64_t cgen, const struct schema_key *k, uint8_t *out);
int schema_intent_decode(struct metastore_bytes key, struct metastore_bytes value,
			 uint64_t *ret_cgen);
/* without chunks_n; id is in the key */
size_t schema_volume_encode(const struct san_volume *v, const struct schema_key *k, uint8_t *out);
int schema_volume_decode(struct metastore_bytes key, struct metastore_bytes value,
			 struct san_volume *ret_v);
size_t schema_name_encode(volume_id volume, const struct schema_key *k, uint8_t *out);
int schema_name_decode(struct metastore_bytes key, struct metastore_bytes value,
		       volume_id *ret_volume);
size_t schema_layer_encode(const struct schema_layer *l, const struct schema_key *k, uint8_t *out);
int schema_layer_decode(struct metastore_bytes key, struct metastore_bytes value,
			struct schema_layer *ret_l);
size_t schema_usage_encode(const struct schema_usage *u, const struct schema_key *k, uint8_t *out);
int schema_usage_decode(struct metastore_bytes key, struct metastore_bytes value,
			struct schema_usage *ret_u);
size_t schema_job_encode(const struct san_job *j, const struct schema_key *k, uint8_t *out);
int schema_job_decode(struct metastore_bytes key, struct metastore_bytes value,
		      struct san_job *ret_j);
size_t schema_once_encode(const struct schema_once *o, const struct schema_key *k, uint8_t *out);
int schema_once_decode(struct metastore_bytes key, struct metastore_bytes value,
		       struct schema_once *ret_o);
size_t schema_event_encode(const struct san_event *e, const struct schema_key *k, uint8_t *out);
int schema_event_decode(struct metastore_bytes key, struct metastore_bytes value,
			struct san_event *ret_e);

/* ---- pages --------------------------------------------------------------------------------------------------------------- */

enum {
	SCHEMA_SPACE_SLOTS = 8192,
	SCHEMA_SPACE_WORDS = SCHEMA_SPACE_SLOTS / 64,
	SCHEMA_SPACE_LEN = 16 + 2 * SCHEMA_SPACE_SLOTS / 8,
	SCHEMA_MAP_SHIFT = 8,
	SCHEMA_MAP_CHUNKS = 1 << SCHEMA_MAP_SHIFT,
	SCHEMA_MAP_PAGE_LAST =
	    (1 << (32 - SCHEMA_MAP_SHIFT)) - 2, /* so that chunk numbers stay below 2^32 */
	SCHEMA_PAGE_MAX = 16 << 10,		/* no encoded page is longer */
};

/* Bit i of word w is slot w * 64 + i of the page. Both arrays are SCHEMA_SPACE_WORDS long; no slot is in both. */
size_t schema_space_encode(const uint64_t *used, const uint64_t *freeing,
			   const struct schema_key *k, uint8_t *out);
int schema_space_decode(struct metastore_bytes key, struct metastore_bytes value, uint64_t *used,
			uint64_t *freeing);

/* A map page in memory: 16 bytes a chunk; replicas beyond the first are rare and apart. */
struct map_slot {
	uint64_t cgen;
	uint32_t slot;
	device_no dev;
	uint8_t kind_replicas; /* as in the format */
	uint8_t flags;
};
typedef struct replica map_extra[REPLICAS_MAX - 1];
struct map_body {
	struct map_slot *slots; /* SCHEMA_MAP_CHUNKS; NULL: the page is empty */
	map_extra *extra;	/* SCHEMA_MAP_CHUNKS; NULL: no entry has a second replica */
	uint32_t entries_n;	/* that are not unmapped */
};

void map_body_free(struct map_body *b);
/* Makes room for entries of replicas_n; afterwards map_body_set cannot fail. 0 or -ENOMEM. */
int map_body_reserve(struct map_body *b, uint32_t replicas_n);
void map_body_get(const struct map_body *b, uint32_t i, struct map_entry *ret_entry);
void map_body_set(struct map_body *b, uint32_t i, const struct map_entry *entry);
static inline enum map_kind map_body_kind(const struct map_body *b, uint32_t i)
{
	return b->slots ? (enum map_kind)(b->slots[i].kind_replicas & 15) : MAP_UNMAPPED;
}
size_t schema_map_encode(const struct map_body *b, const struct schema_key *k, uint8_t *out);
/* b must be empty; it stays so on failure (also -ENOMEM). */
int schema_map_decode(struct metastore_bytes key, struct metastore_bytes value, struct map_body *b);

#endif
