/* SPDX-License-Identifier: Apache-2.0 */
/* ring_layout.h - the restart ring in memory. Host byte order: it never leaves the machine. Private to ring*.c.
 *
 * Every bit of it is checked before it is believed: the header and each entry have a checksum, and each word that changes on its own is
 * sealed: 48 bits of value, 16 that depend on them, written by one store, so that a kill never finds half of it. */
#ifndef STRATA_IO_PATH_DEVICE_RING_LAYOUT_H
#define STRATA_IO_PATH_DEVICE_RING_LAYOUT_H

#include <stdatomic.h>

#include "io-path/device/ring.h"
#include "src/base/crc.h"
#include "src/base/math.h"

#define RING_MAGIC 0x474e495241525453u /* "STRARING" */
enum { RING_VERSION = 2, ENTRY_HEADER = 16 };
#define WORD_BITS   48
#define LSN_ABORTED (1ULL << (WORD_BITS - 1))

/* Zero is zero sealed. */
static inline uint64_t word_seal(uint64_t value)
{
	uint64_t fold = value ^ value >> 16 ^ value >> 32;

	check(value >> WORD_BITS == 0);
	return value | fold << WORD_BITS;
}

/* Is it a sealed one? */
static inline bool word_open(uint64_t word, uint64_t *ret_value)
{
	*ret_value = word & ((1ULL << WORD_BITS) - 1);
	return word_seal(*ret_value) == word;
}

struct ring_header {
	uint64_t magic;
	uint32_t version, crc; /* of what lies before `head`, crc as zero */
	struct ring_identity id;
	uint64_t entry_bytes;
	/* sealed words */
	_Alignas(64) _Atomic uint64_t head;
	_Alignas(64) _Atomic uint64_t tail;
	_Alignas(64) _Atomic uint64_t doubt;
	_Atomic uint64_t
	    written_lsn; /* journal blocks up to it are written: entries left because of that */
};
static_assert(sizeof(struct ring_header) <= RING_HEADER_BYTES, "the header has its page");

enum entry_type { ENTRY_GAP = 1, ENTRY_RECORD = 2, ENTRY_INTENT = 3 };

struct ring_entry {
	_Atomic uint64_t lsn; /* | LSN_ABORTED; a sealed word */
	uint16_t type;
	uint16_t len; /* of the record, or of the whole gap after this header */
	uint32_t crc; /* of its position, type, len and the record */
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

static inline uint32_t ring_entry_crc(const struct ring_entry *e, uint64_t pos)
{
	struct {
		uint64_t pos;
		uint32_t type, len;
	} head = {pos, e->type, e->len};
	uint32_t crc = crc32c(&head, sizeof(head));

	return e->type == ENTRY_GAP ? crc : crc32c_more(crc, e + 1, e->len);
}

/* A record that is in no journal block yet; its position. */
uint64_t ring_put(struct ring *r, uint16_t type, const void *rec, uint32_t len);

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
