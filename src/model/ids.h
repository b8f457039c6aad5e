/* SPDX-License-Identifier: Apache-2.0 */
/* ids.h - what the parts of Strata call the same things: identifiers, sizes, limits, and the entry of the SAN map. */
#ifndef STRATA_MODEL_IDS_H
#define STRATA_MODEL_IDS_H

#include <stdbool.h>
#include <stdint.h>

enum {
	SECTOR_BYTES = 512,
	BLOCK_SHIFT = 12,
	BLOCK_BYTES = 1 << BLOCK_SHIFT, /* unit of checksum, presence and atomic overwrite */
	CHUNK_SHIFT_FLASH = 20,		/* 1 MiB: pools of flash, the default */
	CHUNK_SHIFT_DISK = 22,		/* 4 MiB: pools of rotating disks */
	CHUNK_BLOCKS_MAX = 1 << (CHUNK_SHIFT_DISK - BLOCK_SHIFT),
	VOLUME_BYTES_MIN = BLOCK_BYTES,
	NAME_LEN_MAX = 63,   /* volumes, snapshots, pools, policies, nodes */
	REPLICAS_MAX = 4,    /* of one chunk; one is in use today, the formats hold more */
	DEVICES_MAX = 65535, /* device numbers are u16, 0 is nobody's, and none is ever reused */
	LAYERS_MAX = 256,    /* in a chain */
};
#define VOLUME_BYTES_MAX (1ULL << 50) /* 1 PiB: chunk numbers fit 32 bits with room */

/* Numbers given out by the metadata server, growing, never reused. 0 is nobody's. */
typedef uint32_t volume_id;
typedef uint32_t layer_id;
typedef uint16_t device_no;
typedef uint32_t node_no;
/* cgen (uint64_t): allocation counter, the only identity of a slot's contents; 0 is none.
 * epoch (uint64_t): per volume, raised whenever the owner changes or restarts; 0 is none. */

/* What a block of a chunk is. The values are the block table's own (format.h): anything above is a checksum. */
enum block_state {
	BLOCK_HOLE = 0, /* look in the parent layer; zeros if there is none */
	BLOCK_ZERO = 1, /* explicitly zero */
	BLOCK_BAD = 2,	/* known damaged: EIO until rewritten */
	BLOCK_DATA = 3, /* has data here */
};

/* What the SAN map says of a chunk of a layer. Numbers are on disk and on the wire. */
enum map_kind {
	MAP_UNMAPPED = 0,
	MAP_ZERO = 1,	/* reads as zeros, hides the ancestors */
	MAP_OPEN = 2,	/* in a slot, written in place */
	MAP_SEALED = 3, /* in a slot that was built frozen (by later features) */
	MAP_PACKED = 4,
	MAP_CODED = 5,
	MAP_LOST = 6, /* its device was removed as lost: reads are EIO until rewritten */
};
enum map_flags {
	MAP_FULL = 1 << 0,     /* has no holes: no ancestor needs to be asked */
	MAP_RESERVED = 1 << 1, /* run-ahead: allocated; nothing acknowledged is in it */
	MAP_OPAQUE = 1 << 2,   /* its holes are zeros: was a zero entry, no ancestor is asked */
};

struct replica {
	uint64_t cgen;
	uint32_t slot;
	device_no dev;
};

struct map_entry {
	uint8_t kind;  /* enum map_kind */
	uint8_t flags; /* enum map_flags */
	uint8_t replicas_n;
	struct replica replicas[REPLICAS_MAX];
};

/* [A-Za-z0-9][A-Za-z0-9._-]{0,62} */
bool name_is_valid(const char *name);

/* Splits "volume" or "volume@snapshot"; both parts must be valid names. ret_snapshot is "" without one. 0 or -EINVAL. */
int name_split(const char *text, char ret_volume[NAME_LEN_MAX + 1],
	       char ret_snapshot[NAME_LEN_MAX + 1]);

#endif
