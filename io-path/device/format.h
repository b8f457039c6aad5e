/* SPDX-License-Identifier: Apache-2.0 */
/* format.h - what is on a device. The prose is in docs/device-format.md; this is the letter of it.
 *
 *   byte 0        superblock A (4 KiB); superblock B at 64 KiB
 *   1 MiB         registry half 0, registry half 1
 *                 journal ring
 *                 allocation groups of 8 GiB, the last of a segment shorter:
 *                     slot-entry pages home 0 | home 1 | table pages home 0 | home 1 | (to the next chunk boundary) slots
 *
 * Little-endian, 4 KiB pages, every reserved byte written as zero and checked to be zero. Each page but a table page is self-describing:
 * magic, version, device uuid, own address, and a CRC32C over the whole page with the crc field as zero. */
#ifndef STRATA_IO_PATH_DEVICE_FORMAT_H
#define STRATA_IO_PATH_DEVICE_FORMAT_H

#include "src/base/bytes.h"
#include "src/base/check.h"
#include "src/base/uuid.h"
#include "src/model/ids.h"

enum {
	FMT_PAGE = 4096,
	FMT_VERSION = 2,	 /* 1 was never released */
	FMT_SLOTS_PER_PAGE = 32, /* slot entries in a slot-entry page */
	FMT_VALUES_PER_PAGE =
	    1024,	       /* block values in a table page: 4 slots of 1 MiB, or 1 of 4 MiB */
	FMT_SEGMENTS_MAX = 32, /* pieces a device has grown by */
	FMT_SB_B_OFFSET = 64 << 10,
	FMT_REGISTRY_OFFSET = 1 << 20,
};
#define FMT_GROUP_BYTES (8ULL << 30)

/* ---- superblock ------------------------------------------------------------------------------------------------------- */

#define FMT_SB_MAGIC "STRATADV"

/* A feature bit that the reader does not know: compat may be ignored; ro_compat allows reading only; incompat refuses the device. */
struct fmt_superblock {
	uint8_t magic[8];
	struct le32 version;
	struct le32 crc;
	struct le64
	    sequence; /* the valid copy with the higher one counts; written alternately, each with a flush before and after (the number: to both) */
	struct le64 own_offset;
	struct uuid device, cluster;
	struct le64 compat, ro_compat, incompat;
	struct le64 size_bytes; /* of the device as far as it is used */
	struct le32 chunk_shift;
	struct le16 number; /* device_no, 0 until the metadata server gave one */
	struct le16 segments_n;
	struct le64 registry_half_bytes;
	struct le64 journal_offset, journal_bytes;
	struct le64 created_wall_ns;
	struct le64
	    unresolved_blocks; /* as of the last clean or checkpointed state; see journal header for increments */
	uint8_t reserved0[112];
	struct {
		struct le64 offset, bytes; /* multiples of the chunk size */
	} segments[FMT_SEGMENTS_MAX];
	uint8_t reserved1[FMT_PAGE - 768];
};
static_assert(sizeof(struct fmt_superblock) == FMT_PAGE, "superblock is one page");
static_assert(offsetof(struct fmt_superblock, segments) == 256, "no padding");

/* ---- slot-entry pages -------------------------------------------------------------------------------------------------- */

#define FMT_SLOT_MAGIC 0x45544c53u /* "SLTE" */

enum fmt_slot_flags {
	FMT_SLOT_OPEN = 1 << 0,
	FMT_SLOT_ACTIVE =
	    1 << 1, /* may hold unfinished overwrites: verify before trusting (replay) */
	FMT_SLOT_COUNTED = 1 << 2, /* present_n and bad_n are those of its table's current home */
};

struct fmt_slot {
	struct le64 cgen; /* open: identity; free: the highest ever named */
	struct le64 epoch;
	struct le64 wgen; /* write generation: counts activations */
	struct le64
	    table_seq_min; /* block values count only from a table page of at least this sequence; below: all holes (ALLOC) */
	struct le32 volume, layer, chunk;
	struct le16
	    present_n; /* exact for a slot that is not active; of an active one the table decides */
	struct le16 bad_n;
	uint8_t flags; /* enum fmt_slot_flags */
	uint8_t reserved[47];
};
static_assert(sizeof(struct fmt_slot) == 96, "32 fit beside the descriptors");

/* Which home of a table page is current, and what must be in it. seq 0: never checkpointed, all holes. */
struct fmt_table_desc {
	struct le64 seq;
	struct le32 crc; /* CRC32C of the 4096 bytes */
	uint8_t home;
	uint8_t reserved[3];
};
static_assert(sizeof(struct fmt_table_desc) == 16, "no padding");

struct fmt_slot_page {
	struct le32 magic;
	struct le16 version;
	uint8_t home;
	uint8_t reserved0;
	struct le32 crc;
	struct le32 page_no; /* of the device, counted over its groups */
	struct uuid device;
	struct le64
	    seq; /* of the checkpoint; both homes have the same but amid one, and then the higher is newer */
	struct le64
	    from_lsn; /* journal records of these slots below this lsn are in it; at or above must be replayed */
	uint8_t reserved1[16];
	struct fmt_slot slots[FMT_SLOTS_PER_PAGE];
	struct fmt_table_desc
	    tables[FMT_SLOTS_PER_PAGE]; /* of the table pages of these slots: 8 used at 1 MiB chunks, 32 at 4 MiB */
	uint8_t reserved2[448];
};
static_assert(sizeof(struct fmt_slot_page) == FMT_PAGE, "one page");

/* A table page is 1024 le32 and nothing else (no header): see fmt_table_desc. */
enum fmt_block {
	FMT_BLOCK_HOLE = BLOCK_HOLE,
	FMT_BLOCK_ZERO = BLOCK_ZERO,
	FMT_BLOCK_BAD = BLOCK_BAD,
	/* larger: fmt_block_value() of the data */
};

/* CRC32C(data) -> the value in the table: XOR CRC32C(le64 cgen, le32 block index in the chunk); below 4 it gets its top bit set. The second
 * CRC makes data of another chunk, or of an older tenant of the slot, a mismatch. */
uint32_t fmt_block_value(uint32_t data_crc, uint64_t cgen, uint32_t block);

/* ---- registry ---------------------------------------------------------------------------------------------------------- */

#define FMT_REGISTRY_MAGIC 0x53474552u /* "REGS" */

/* A half is a whole copy of all EPOCH and LAYER records there are: pages 0 .. pages_n - 1, each with the same seq. It counts if all of them are valid;
 * of two such halves the higher seq does, and both have the same but amid a checkpoint. Records are those of the journal, never split over pages. */
struct fmt_registry_page {
	struct le32 magic;
	struct le16 version;
	struct le16 used_bytes; /* of this page, header included */
	struct le32 crc;
	struct le32 page_no, pages_n;
	uint8_t half;
	uint8_t reserved0[3];
	struct uuid device;
	struct le64 seq;
	struct le64 from_lsn; /* EPOCH, LAYER and LAYER_DROP records below it are in this half */
	uint8_t reserved1[8];
	uint8_t records[FMT_PAGE - 64];
};
static_assert(sizeof(struct fmt_registry_page) == FMT_PAGE, "one page");

/* ---- journal ------------------------------------------------------------------------------------------------------------ */

#define FMT_JOURNAL_MAGIC 0x4c4e524au /* "JRNL" */

struct fmt_journal_block {
	struct le32 magic;
	struct le16 version;
	struct le16 used_bytes; /* header and records */
	struct le32 crc;
	struct le32 prev_crc; /* crc field of block lsn - 1; 0 for lsn 1 */
	struct uuid device;
	struct le64 incarnation;
	struct le64 lsn;  /* at (lsn mod ring blocks); the first one ever is 1 */
	struct le64 tail; /* replay starts here */
	struct le64
	    stable_lsn; /* every record up to it had its data and its journal block written before a flush that completed */
	struct le64 meta_commit;       /* highest commit of the metadata server heard of */
	struct le64 unresolved_blocks; /* so far */
	struct uuid ring_nonce; /* of the restart ring that completes this journal; 0: there is none */
	uint8_t records[FMT_PAGE - 96];
};
static_assert(sizeof(struct fmt_journal_block) == FMT_PAGE, "one page");

enum fmt_record_type {
	FMT_REC_BLOCKS = 1,
	FMT_REC_ALLOC = 2,
	FMT_REC_FREE = 3,
	FMT_REC_ACTIVATE = 4,
	FMT_REC_RETIRE = 5,
	FMT_REC_RELABEL = 6,
	FMT_REC_CKPT = 7,
	FMT_REC_EPOCH = 8,
	FMT_REC_LAYER = 9,
	FMT_REC_BOOT = 10,
	FMT_REC_CLEAN = 11,
	FMT_REC_LAYER_DROP = 12,
};

struct fmt_record {
	uint8_t type; /* enum fmt_record_type */
	uint8_t reserved;
	struct le16 len_bytes; /* whole record; a multiple of 4 */
};

/* blocks [first, first + n) of the slot now have these table values */
struct fmt_rec_blocks {
	struct fmt_record h;
	struct le32 slot;
	struct le64 cgen;
	struct le16 first, n;
	struct le32 values[];
};
static_assert(sizeof(struct fmt_rec_blocks) == 20, "no padding");
enum { FMT_REC_BLOCKS_N_MAX = 256 }; /* longer runs become several records */

/* the slot opens, active, all holes */
struct fmt_rec_alloc {
	struct fmt_record h;
	struct le32 slot;
	struct le64 cgen, epoch, wgen, table_seq_min;
	struct le32 volume, layer, chunk;
};
/* the slot is free and remembers cgen */
struct fmt_rec_free {
	struct fmt_record h;
	struct le32 slot;
	struct le64 cgen;
};
struct fmt_rec_activate {
	struct fmt_record h;
	struct le32 slot;
	struct le64 cgen, wgen;
};
struct fmt_rec_retire {
	struct fmt_record h;
	struct le32 slot;
	struct le64 cgen;
};
struct fmt_rec_relabel {
	struct fmt_record h;
	struct le32 slot;
	struct le64 cgen;
	struct le32 volume, layer, chunk;
};
enum fmt_ckpt_kind { FMT_CKPT_TABLE = 1 }; /* the other pages describe themselves */
/* this home of the page is written and flushed; records of it below from_lsn are in it */
struct fmt_rec_ckpt {
	struct fmt_record h;
	struct le32 page_no; /* table page of the device, counted over its groups */
	struct le64 seq, from_lsn;
	struct le32 crc; /* as in fmt_table_desc */
	uint8_t kind, home;
	struct le16 reserved;
};
struct fmt_rec_epoch {
	struct fmt_record h;
	struct le32 volume;
	struct le64 epoch, commit;
	struct le32 head;
};
/* Of a LAYER record: what the volume is like beside its names and size, so that the devices alone can bring it back. */
enum fmt_layer_flags {
	FMT_LAYER_DELETED = 1 << 0,
	FMT_LAYER_FROZEN = 1 << 1,
	FMT_LAYER_SECTOR_512 = 1 << 2, /* else 4096 */
	FMT_LAYER_CACHE_SHIFT = 4, /* write cache, 2 bits: 0 auto, 1 writeback, 2 writethrough */
};
static inline bool fmt_layer_flags_are_sane(uint32_t flags)
{
	uint32_t known = FMT_LAYER_DELETED | FMT_LAYER_FROZEN | FMT_LAYER_SECTOR_512;

	return (flags & ((1u << FMT_LAYER_CACHE_SHIFT) - 1) & ~known) == 0 &&
	       flags >> FMT_LAYER_CACHE_SHIFT <= 2;
}
struct fmt_rec_layer {
	struct fmt_record h;
	struct le32 layer, parent, volume, flags;
	struct le64 size_bytes, commit;
	uint8_t name_len, snapshot_len;
	struct le16 reserved;
	uint8_t names[]; /* name, snapshot name, zeros up to a multiple of 4 */
};
/* the layer is gone: its record, if no younger than this commit, is no more; never in a registry half */
struct fmt_rec_layer_drop {
	struct fmt_record h;
	struct le32 layer;
	struct le64 commit;
};
enum fmt_boot_reason {
	FMT_BOOT_FORMAT = 1,
	FMT_BOOT_CLEAN = 2,
	FMT_BOOT_RING = 3,
	FMT_BOOT_POWER_LOSS = 4
};
struct fmt_rec_boot {
	struct fmt_record h;
	struct le32 reason;
	struct le64 incarnation;
	struct uuid boot_id, ring_nonce; /* nonce 0: no ring */
	struct le64 wall_ns;
};
/* last record of an orderly close: everything is flushed; slots that are still active were not verified yet after a power loss */
struct fmt_rec_clean {
	struct fmt_record h;
};

#endif
