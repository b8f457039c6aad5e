/* SPDX-License-Identifier: Apache-2.0 */
/* codec.h - the only way to write and read the pages and records of format.h.
 *
 * `prepare` fills in what makes a page valid (magic, version, address, checksum) as the last step before it is written; `check` is the first
 * step after it was read: 0, -E_FORMAT (damaged, misplaced, or of another device), or -E_VERSION. A page that passed its check has
 * records whose lengths and enumerations are right; numbers that depend on the device (slot, page) are still the disk's word, and who
 * uses them compares them with the geometry. */
#ifndef STRATA_IO_PATH_DEVICE_CODEC_H
#define STRATA_IO_PATH_DEVICE_CODEC_H

#include "io-path/device/format.h"

void fmt_superblock_prepare(struct fmt_superblock *sb, uint64_t own_offset);
int fmt_superblock_check(const struct fmt_superblock *sb, uint64_t own_offset);

struct fmt_slot_page_id {
	const struct uuid *device;
	uint32_t page_no;
	uint8_t home;
};
void fmt_slot_page_prepare(struct fmt_slot_page *p, const struct fmt_slot_page_id *id);
int fmt_slot_page_check(const struct fmt_slot_page *p, const struct fmt_slot_page_id *id);

struct fmt_registry_page_id {
	const struct uuid *device;
	uint32_t page_no;
	uint8_t half;
};
void fmt_registry_page_prepare(struct fmt_registry_page *p, const struct fmt_registry_page_id *id);
int fmt_registry_page_check(const struct fmt_registry_page *p,
			    const struct fmt_registry_page_id *id);

void fmt_journal_block_prepare(struct fmt_journal_block *b, const struct uuid *device);
/* place: the block's index in the ring; its lsn must belong there. */
int fmt_journal_block_check(const struct fmt_journal_block *b, const struct uuid *device,
			    uint32_t place, uint32_t ring_blocks);

/* Front to back over the records of a page that passed its check; NULL at the end. */
const struct fmt_record *fmt_record_next(struct cursor *c);
struct cursor fmt_journal_records(const struct fmt_journal_block *b);
struct cursor fmt_registry_records(const struct fmt_registry_page *p);

/* Is this one well-formed record of a known type? len_bytes: what is there from its first byte on. 0 or -E_FORMAT. */
int fmt_record_check(const struct fmt_record *rec, size_t len_bytes);

/* Length of a record in bytes */
static inline uint32_t fmt_blocks_len(uint32_t n)
{
	return (uint32_t)sizeof(struct fmt_rec_blocks) + 4 * n;
}
uint32_t fmt_layer_len(uint32_t name_len, uint32_t snapshot_len);

#endif
