/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/device/codec.h"

#include "src/base/crc.h"
#include "src/base/err.h"
#include "src/base/math.h"

static_assert(sizeof(struct fmt_rec_alloc) == 52, "no padding");
static_assert(sizeof(struct fmt_rec_free) == 16, "no padding");
static_assert(sizeof(struct fmt_rec_activate) == 24, "no padding");
static_assert(sizeof(struct fmt_rec_retire) == 16, "no padding");
static_assert(sizeof(struct fmt_rec_relabel) == 28, "no padding");
static_assert(sizeof(struct fmt_rec_ckpt) == 32, "no padding");
static_assert(sizeof(struct fmt_rec_epoch) == 28, "no padding");
static_assert(sizeof(struct fmt_rec_layer) == 40, "no padding");
static_assert(sizeof(struct fmt_rec_layer_drop) == 16, "no padding");
static_assert(sizeof(struct fmt_rec_boot) == 56, "no padding");
static_assert(sizeof(struct fmt_rec_clean) == 4, "no padding");
static_assert(offsetof(struct fmt_journal_block, records) == 96, "no padding");
static_assert(offsetof(struct fmt_registry_page, records) == 64, "no padding");

uint32_t fmt_block_value(uint32_t data_crc, uint64_t cgen, uint32_t block)
{
	struct {
		struct le64 cgen;
		struct le32 block;
	} key = {to_le64(cgen), to_le32(block)};
	uint32_t value = data_crc ^ crc32c(&key, sizeof(key));

	return value < 4 ? value | 0x80000000u : value;
}

/* CRC of the page as if its crc field were zero. */
static uint32_t page_crc(const void *page, size_t crc_offset)
{
	static const uint8_t zeros[4];
	const uint8_t *p = page;
	uint32_t crc = crc32c(p, crc_offset);

	crc = crc32c_more(crc, zeros, sizeof(zeros));
	return crc32c_more(crc, p + crc_offset + 4, FMT_PAGE - crc_offset - 4);
}

#define PAGE_CRC(p) page_crc((p), (size_t)((const uint8_t *)&(p)->crc - (const uint8_t *)(p)))

/* ---- superblock ------------------------------------------------------------------------------------------------------- */

void fmt_superblock_prepare(struct fmt_superblock *sb, uint64_t own_offset)
{
	memcpy(sb->magic, FMT_SB_MAGIC, sizeof(sb->magic));
	sb->version = to_le32(FMT_VERSION);
	sb->own_offset = to_le64(own_offset);
	sb->crc = to_le32(PAGE_CRC(sb));
}

/* The version is looked at only when the checksum, whose place never changes, says that it is really there. */
int fmt_superblock_check(const struct fmt_superblock *sb, uint64_t own_offset)
{
	if (memcmp(sb->magic, FMT_SB_MAGIC, sizeof(sb->magic)) != 0 ||
	    get_le32(sb->crc) != PAGE_CRC(sb) || get_le64(sb->own_offset) != own_offset)
		return -E_FORMAT;
	if (get_le32(sb->version) != FMT_VERSION)
		return -E_VERSION;
	if (!bytes_are_zero(sb->reserved0, sizeof(sb->reserved0)) ||
	    !bytes_are_zero(sb->reserved1, sizeof(sb->reserved1)) || uuid_is_zero(&sb->device))
		return -E_FORMAT;
	return 0;
}

/* ---- slot-entry pages ------------------------------------------------------------------------------------------------- */

void fmt_slot_page_prepare(struct fmt_slot_page *p, const struct fmt_slot_page_id *id)
{
	p->magic = to_le32(FMT_SLOT_MAGIC);
	p->version = to_le16(FMT_VERSION);
	p->home = id->home;
	p->page_no = to_le32(id->page_no);
	p->device = *id->device;
	p->crc = to_le32(PAGE_CRC(p));
}

static bool slot_is_sane(const struct fmt_slot *s)
{
	if (s->flags & ~(FMT_SLOT_OPEN | FMT_SLOT_ACTIVE | FMT_SLOT_COUNTED) ||
	    !bytes_are_zero(s->reserved, sizeof(s->reserved)))
		return false;
	if (get_le16(s->present_n) > CHUNK_BLOCKS_MAX || get_le16(s->bad_n) > CHUNK_BLOCKS_MAX)
		return false;
	return s->flags & FMT_SLOT_OPEN ? get_le64(s->cgen) != 0 : s->flags == 0;
}

int fmt_slot_page_check(const struct fmt_slot_page *p, const struct fmt_slot_page_id *id)
{
	if (get_le32(p->magic) != FMT_SLOT_MAGIC || get_le32(p->crc) != PAGE_CRC(p) ||
	    p->home != id->home || get_le32(p->page_no) != id->page_no ||
	    !uuid_equal(&p->device, id->device))
		return -E_FORMAT;
	if (get_le16(p->version) != FMT_VERSION)
		return -E_VERSION;
	if (p->reserved0 || !bytes_are_zero(p->reserved1, sizeof(p->reserved1)) ||
	    !bytes_are_zero(p->reserved2, sizeof(p->reserved2)) || get_le64(p->seq) == 0)
		return -E_FORMAT;
	for (uint32_t i = 0; i < FMT_SLOTS_PER_PAGE; i++)
		if (!slot_is_sane(&p->slots[i]))
			return -E_FORMAT;
	for (uint32_t i = 0; i < FMT_SLOTS_PER_PAGE; i++)
		if (p->tables[i].home > 1 ||
		    !bytes_are_zero(p->tables[i].reserved, sizeof(p->tables[i].reserved)))
			return -E_FORMAT;
	return 0;
}

/* ---- records ---------------------------------------------------------------------------------------------------------- */

uint32_t fmt_layer_len(uint32_t name_len, uint32_t snapshot_len)
{
	return (uint32_t)round_up(sizeof(struct fmt_rec_layer) + name_len + snapshot_len, 4);
}

static bool blocks_are_sane(const struct fmt_rec_blocks *r, uint32_t len)
{
	uint32_t first, n;

	if (len < sizeof(*r))
		return false;
	first = get_le16(r->first);
	n = get_le16(r->n);
	return n > 0 && n <= FMT_REC_BLOCKS_N_MAX && first + n <= CHUNK_BLOCKS_MAX &&
	       len == fmt_blocks_len(n) && get_le64(r->cgen) != 0;
}

static bool ckpt_is_sane(const struct fmt_rec_ckpt *r, uint32_t len)
{
	return len == sizeof(*r) && r->kind == FMT_CKPT_TABLE && r->home <= 1 &&
	       get_le16(r->reserved) == 0 && get_le64(r->seq) != 0;
}

static bool layer_is_sane(const struct fmt_rec_layer *r, uint32_t len)
{
	uint32_t names;

	if (len < sizeof(*r) || r->name_len == 0 || r->name_len > NAME_LEN_MAX ||
	    r->snapshot_len > NAME_LEN_MAX || get_le16(r->reserved) != 0 ||
	    !fmt_layer_flags_are_sane(get_le32(r->flags)))
		return false;
	names = (uint32_t)r->name_len + r->snapshot_len;
	return len == fmt_layer_len(r->name_len, r->snapshot_len) && get_le32(r->layer) != 0 &&
	       !memchr(r->names, 0, names) &&
	       bytes_are_zero(r->names + names, len - sizeof(*r) - names);
}

static bool boot_is_sane(const struct fmt_rec_boot *r, uint32_t len)
{
	return len == sizeof(*r) && get_le32(r->reason) >= FMT_BOOT_FORMAT &&
	       get_le32(r->reason) <= FMT_BOOT_POWER_LOSS;
}

static bool record_is_sane(const struct fmt_record *rec, uint32_t len)
{
	switch ((enum fmt_record_type)rec->type) {
	case FMT_REC_BLOCKS:
		return blocks_are_sane((const void *)rec, len);
	case FMT_REC_ALLOC:
		return len == sizeof(struct fmt_rec_alloc) &&
		       get_le64(((const struct fmt_rec_alloc *)rec)->cgen) != 0;
	case FMT_REC_FREE:
		return len == sizeof(struct fmt_rec_free);
	case FMT_REC_ACTIVATE:
		return len == sizeof(struct fmt_rec_activate);
	case FMT_REC_RETIRE:
		return len == sizeof(struct fmt_rec_retire);
	case FMT_REC_RELABEL:
		return len == sizeof(struct fmt_rec_relabel);
	case FMT_REC_CKPT:
		return ckpt_is_sane((const void *)rec, len);
	case FMT_REC_EPOCH:
		return len == sizeof(struct fmt_rec_epoch) &&
		       get_le32(((const struct fmt_rec_epoch *)rec)->volume) != 0;
	case FMT_REC_LAYER:
		return layer_is_sane((const void *)rec, len);
	case FMT_REC_LAYER_DROP:
		return len == sizeof(struct fmt_rec_layer_drop) &&
		       get_le32(((const struct fmt_rec_layer_drop *)rec)->layer) != 0;
	case FMT_REC_BOOT:
		return boot_is_sane((const void *)rec, len);
	case FMT_REC_CLEAN:
		return len == sizeof(struct fmt_rec_clean);
	}
	return false;
}

int fmt_record_check(const struct fmt_record *rec, size_t len_bytes)
{
	uint32_t len;

	if (len_bytes < sizeof(*rec))
		return -E_FORMAT;
	len = get_le16(rec->len_bytes);
	if (len > len_bytes || len < sizeof(*rec) || len % 4 || rec->reserved)
		return -E_FORMAT;
	return record_is_sane(rec, len) ? 0 : -E_FORMAT;
}

static int records_check(struct cursor c)
{
	while (cursor_left(&c)) {
		const struct fmt_record *rec = (const void *)c.at;

		if (fmt_record_check(rec, cursor_left(&c)))
			return -E_FORMAT;
		cursor_take(&c, get_le16(rec->len_bytes));
	}
	return 0;
}

const struct fmt_record *fmt_record_next(struct cursor *c)
{
	const struct fmt_record *rec = (const void *)c->at;

	if (cursor_left(c) == 0)
		return NULL;
	check(cursor_take(c, get_le16(rec->len_bytes))); /* the page passed its check */
	return rec;
}

/* ---- registry --------------------------------------------------------------------------------------------------------- */

struct cursor fmt_registry_records(const struct fmt_registry_page *p)
{
	return cursor_of(p->records,
			 get_le16(p->used_bytes) - offsetof(struct fmt_registry_page, records));
}

void fmt_registry_page_prepare(struct fmt_registry_page *p, const struct fmt_registry_page_id *id)
{
	p->magic = to_le32(FMT_REGISTRY_MAGIC);
	p->version = to_le16(FMT_VERSION);
	p->page_no = to_le32(id->page_no);
	p->half = id->half;
	p->device = *id->device;
	p->crc = to_le32(PAGE_CRC(p));
}

int fmt_registry_page_check(const struct fmt_registry_page *p, const struct fmt_registry_page_id *id)
{
	uint32_t used = get_le16(p->used_bytes);

	if (get_le32(p->magic) != FMT_REGISTRY_MAGIC || get_le32(p->crc) != PAGE_CRC(p) ||
	    get_le32(p->page_no) != id->page_no || p->half != id->half ||
	    !uuid_equal(&p->device, id->device))
		return -E_FORMAT;
	if (get_le16(p->version) != FMT_VERSION)
		return -E_VERSION;
	if (used < offsetof(struct fmt_registry_page, records) || used > FMT_PAGE ||
	    get_le64(p->seq) == 0 || id->page_no >= get_le32(p->pages_n) ||
	    !bytes_are_zero(p->reserved0, sizeof(p->reserved0)) ||
	    !bytes_are_zero(p->reserved1, sizeof(p->reserved1)) ||
	    !bytes_are_zero((const uint8_t *)p + used, FMT_PAGE - used))
		return -E_FORMAT;
	return records_check(fmt_registry_records(p));
}

/* ---- journal ---------------------------------------------------------------------------------------------------------- */

struct cursor fmt_journal_records(const struct fmt_journal_block *b)
{
	return cursor_of(b->records,
			 get_le16(b->used_bytes) - offsetof(struct fmt_journal_block, records));
}

void fmt_journal_block_prepare(struct fmt_journal_block *b, const struct uuid *device)
{
	b->magic = to_le32(FMT_JOURNAL_MAGIC);
	b->version = to_le16(FMT_VERSION);
	b->device = *device;
	b->crc = to_le32(PAGE_CRC(b));
}

int fmt_journal_block_check(const struct fmt_journal_block *b, const struct uuid *device,
			    uint32_t place, uint32_t ring_blocks)
{
	uint32_t used = get_le16(b->used_bytes);
	uint64_t lsn = get_le64(b->lsn);

	if (get_le32(b->magic) != FMT_JOURNAL_MAGIC || get_le32(b->crc) != PAGE_CRC(b) ||
	    lsn == 0 || lsn % ring_blocks != place || !uuid_equal(&b->device, device))
		return -E_FORMAT;
	if (get_le16(b->version) != FMT_VERSION)
		return -E_VERSION;
	if (used < offsetof(struct fmt_journal_block, records) || used > FMT_PAGE ||
	    !bytes_are_zero((const uint8_t *)b + used, FMT_PAGE - used) ||
	    get_le64(b->incarnation) == 0 || get_le64(b->tail) == 0 || get_le64(b->tail) > lsn ||
	    lsn - get_le64(b->tail) >= ring_blocks || get_le64(b->stable_lsn) >= lsn)
		return -E_FORMAT;
	return records_check(fmt_journal_records(b));
}
