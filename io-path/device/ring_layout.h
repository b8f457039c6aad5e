/* SPDX-License-Identifier: Apache-2.0 */
/* ring_layout.h - the restart ring in memory. Host byte order: it never leaves the machine. Private to ring*.c. */
#ifndef STRATA_IO_PATH_DEVICE_RING_LAYOUT_H
#define STRATA_IO_PATH_DEVICE_RING_LAYOUT_H

#include <stdatomic.h>

#include "io-path/device/ring.h"
#include "src/base/crc.h"
#include "src/base/math.h"

#define RING_MAGIC 0x474e495241525453u /* "STRARING" */
enum { RING_VERSION = 1, ENTRY_HEADER = 16 };
#define LSN_ABORTED (1ULL << 63)

struct ring_header {
	uint64_t magic;
	uint32_t version, crc; /* of what lies before `head`, crc as zero */
	struct ring_identity id;
	uint64_t entry_bytes;
	_Alignas(64) _Atomic uint64_t head;
	_Alignas(64) _Atomic uint64_t tail;
	_Alignas(64) _Atomic uint32_t doubt;
};
static_assert(sizeof(struct ring_header) <= RING_HEADER_BYTES, "the header has its page");

enum entry_type { ENTRY_GAP = 1, ENTRY_RECORD = 2, ENTRY_INTENT = 3 };

struct ring_entry {
	_Atomic uint64_t lsn; /* | LSN_ABORTED */
	uint32_t type;
	uint32_t len; /* of the record, or of the whole gap after this header */
};
static_assert(sizeof(struct ring_entry) == ENTRY_HEADER, "no padding");

static inline uint64_t ring_entry_size(uint32_t len)
{
	return ENTRY_HEADER + round_up(len, 8);
}

static inline struct ring_entry *ring_entry_at(uint8_t *entries, uint64_t pos)
{
	return (void *)(entries + pos % RING_ENTRY_BYTES);
}

/* A record that is in no journal block yet; its position. */
uint64_t ring_put(struct ring *r, uint32_t type, const void *rec, uint32_t len);

static inline uint32_t ring_header_crc(const struct ring_header *h)
{
	struct ring_header copy;

	memset(&copy, 0, sizeof(copy));
	copy.magic = h->magic;
	copy.version = h->version;
	copy.id = h->id;
	copy.entry_bytes = h->entry_bytes;
	return crc32c(&copy, offsetof(struct ring_header, head));
}

#endif
