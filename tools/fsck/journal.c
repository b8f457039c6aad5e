/* SPDX-License-Identifier: Apache-2.0 */
/* journal.c - the ring: which blocks are the journal, and what their records say. */
#include <inttypes.h>
#include <string.h>

#include "src/base/math.h"
#include "src/base/mem.h"
#include "tools/fsck/check.h"

static void follow(struct fsck *k, const struct fsck_jblock *h);
static void apply(struct fsck *k, uint64_t lsn, const struct fmt_record *rec);

/* ---- scan ------------------------------------------------------------------------------------------------------------------- */

static void note_block(struct fsck *k, uint32_t place, const struct fmt_journal_block *b)
{
	struct cursor c = fmt_journal_records(b);
	const struct fmt_record *first = fmt_record_next(&c);

	k->ring[place] = (struct fsck_jblock){
	    .lsn = get_le64(b->lsn),
	    .incarnation = get_le64(b->incarnation),
	    .tail = get_le64(b->tail),
	    .stable_lsn = get_le64(b->stable_lsn),
	    .crc = get_le32(b->crc),
	    .prev_crc = get_le32(b->prev_crc),
	    .boots = first && first->type == FMT_REC_BOOT,
	};
}

static bool is_newer(const struct fsck_jblock *a, const struct fsck_jblock *b)
{
	return a->incarnation != b->incarnation ? a->incarnation > b->incarnation : a->lsn > b->lsn;
}

int fsck_journal_scan(struct fsck *k)
{
	const struct fsck_jblock *h = NULL;
	const uint32_t step = FSCK_IO_BYTES / FMT_PAGE;

	k->ring = mem_zalloc_array(k->geo.ring_blocks, sizeof(*k->ring));
	if (!k->ring)
		return fsck_error(k, -ENOMEM, "no memory");
	for (uint32_t at = 0; at < k->geo.ring_blocks; at += step) {
		uint32_t n = MIN(step, k->geo.ring_blocks - at);
		int r = fsck_read(k, k->geo.journal_offset + (uint64_t)at * FMT_PAGE, k->io,
				  (uint64_t)n * FMT_PAGE);

		if (r == -EIO) {
			fsck_say(k, FSCK_ERROR, "journal-block",
				 "journal blocks in places %u to %u cannot be read: %s", at,
				 at + n - 1, err_text(r));
			k->stop = true;
			return 0;
		}
		if (r)
			return fsck_error(k, r, "the journal cannot be read: %s", err_text(r));
		for (uint32_t i = 0; i < n; i++) {
			const struct fmt_journal_block *b = (void *)(k->io + (size_t)i * FMT_PAGE);

			if (fmt_journal_block_check(b, &k->sb.device, at + i, k->geo.ring_blocks) ==
			    0)
				note_block(k, at + i, b);
			if (k->ring[at + i].lsn && (!h || is_newer(&k->ring[at + i], h)))
				h = &k->ring[at + i];
		}
	}
	if (!h) {
		fsck_say(k, FSCK_ERROR, "journal-empty", "the journal holds no valid block");
		k->stop = true;
		return 0;
	}
	follow(k, h);
	return 0;
}

static const struct fsck_jblock *block_of(const struct fsck *k, uint64_t lsn)
{
	const struct fsck_jblock *b = &k->ring[lsn % k->geo.ring_blocks];

	return b->lsn == lsn ? b : NULL;
}

static bool continues(const struct fsck_jblock *b, const struct fsck_jblock *prev)
{
	if (b->prev_crc != prev->crc)
		return false;
	return b->incarnation == prev->incarnation ||
	       (b->boots && b->incarnation > prev->incarnation);
}

/* A block beyond the end that says the end itself was stable: then it is damage and not where writing stopped. */
static bool end_was_stable(const struct fsck *k, uint64_t end, uint64_t incarnation)
{
	for (uint32_t i = 0; i < k->geo.ring_blocks; i++)
		if (k->ring[i].lsn > end && k->ring[i].incarnation == incarnation &&
		    k->ring[i].stable_lsn >= end)
			return true;
	return false;
}

/* From the tail that the newest block names, up to the first break. */
static void follow(struct fsck *k, const struct fsck_jblock *h)
{
	const struct fsck_jblock *prev = block_of(k, h->tail);
	const struct fsck_jblock *b;

	if (!prev) {
		fsck_say(k, FSCK_ERROR, "journal-chain",
			 "journal block %" PRIu64 ", where replay begins, is damaged", h->tail);
		k->stop = true;
		return;
	}
	while ((b = block_of(k, prev->lsn + 1)) && continues(b, prev))
		prev = b;
	k->end = prev->lsn + 1;
	k->tail = prev->tail;
	if (end_was_stable(k, k->end, prev->incarnation)) {
		fsck_say(k, FSCK_ERROR, "journal-chain",
			 "journal block %" PRIu64
			 " is damaged: later ones say that it had been written",
			 k->end);
		k->stop = true;
	}
}

/* ---- records ----------------------------------------------------------------------------------------------------------------- */

/* The last block's tail may lie before the place where the chain was taken up: those blocks count as well. */
static void apply_block(struct fsck *k, uint64_t lsn, const struct fmt_journal_block *b)
{
	const struct fmt_record *rec;
	struct cursor c;

	if (get_le64(b->lsn) != lsn ||
	    fmt_journal_block_check(b, &k->sb.device, (uint32_t)(lsn % k->geo.ring_blocks),
				    k->geo.ring_blocks)) {
		fsck_say(k, FSCK_ERROR, "journal-chain",
			 "journal block %" PRIu64 " is damaged: replay needs %" PRIu64
			 " to %" PRIu64,
			 lsn, k->tail, k->end - 1);
		k->stop = true;
		return;
	}
	k->is_clean = false;
	c = fmt_journal_records(b);
	while ((rec = fmt_record_next(&c)))
		apply(k, lsn, rec);
}

int fsck_journal_apply(struct fsck *k)
{
	uint64_t n;

	for (uint64_t lsn = k->tail; lsn < k->end && !k->stop; lsn += n) {
		int r;

		n = MIN(k->end - lsn, (uint64_t)(FSCK_IO_BYTES / FMT_PAGE));
		n = MIN(n, k->geo.ring_blocks - lsn % k->geo.ring_blocks);
		r = fsck_read(k, geometry_journal_offset(&k->geo, lsn), k->io, n * FMT_PAGE);
		if (r)
			return fsck_error(k, r, "journal block %" PRIu64 ": %s", lsn, err_text(r));
		for (uint64_t i = 0; i < n && !k->stop; i++)
			apply_block(k, lsn + i, (const void *)(k->io + i * FMT_PAGE));
	}
	k->res->is_clean = k->is_clean;
	return 0;
}

static void out_of_range(struct fsck *k, uint64_t lsn, const char *what, uint32_t number)
{
	fsck_say(k, FSCK_ERROR, "journal-record",
		 "a record in journal block %" PRIu64 " names %s %u, which does not exist", lsn,
		 what, number);
}

/* The slot that a record names, if the record is younger than its page. */
static struct fsck_slot *slot_for(struct fsck *k, uint64_t lsn, uint32_t slot)
{
	struct fsck_slot_page *p;

	if (slot >= k->geo.total.slots) {
		out_of_range(k, lsn, "slot", slot);
		return NULL;
	}
	p = &k->pages[geometry_slot_page_of(&k->geo, slot)];
	p->in_journal = true;
	return lsn >= p->from_lsn ? &k->slots[slot] : NULL;
}

static void apply_alloc(struct fsck *k, uint64_t lsn, const struct fmt_rec_alloc *r)
{
	struct fsck_slot *s = slot_for(k, lsn, get_le32(r->slot));

	if (!s)
		return;
	/* a restarted process journals again what its ring still held: the same cgen may open twice */
	if (s->open ? s->cgen != get_le64(r->cgen) : s->cgen >= get_le64(r->cgen))
		fsck_say_slot(k, FSCK_ERROR, "journal-record", get_le32(r->slot),
			      "journal block %" PRIu64 " opens slot %u for cgen %" PRIu64
			      ", which is %s cgen %" PRIu64,
			      lsn, get_le32(r->slot), get_le64(r->cgen),
			      s->open ? "open with" : "free and remembers", s->cgen);
	*s = (struct fsck_slot){.cgen = get_le64(r->cgen),
				.table_seq_min = get_le64(r->table_seq_min),
				.volume = get_le32(r->volume),
				.layer = get_le32(r->layer),
				.chunk = get_le32(r->chunk),
				.open = true,
				.active = true,
				.lost = s->lost};
}

static void apply_free(struct fsck *k, uint64_t lsn, const struct fmt_rec_free *r)
{
	struct fsck_slot *s = slot_for(k, lsn, get_le32(r->slot));

	if (s)
		*s = (struct fsck_slot){.cgen = MAX(s->cgen, get_le64(r->cgen)), .lost = s->lost};
}

/* Records of a tenant that the slot does not have any more are skipped. */
static struct fsck_slot *tenant(struct fsck *k, uint64_t lsn, uint32_t slot, uint64_t cgen)
{
	struct fsck_slot *s = slot_for(k, lsn, slot);

	return s && s->open && s->cgen == cgen ? s : NULL;
}

static void apply_ckpt(struct fsck *k, uint64_t lsn, const struct fmt_rec_ckpt *r)
{
	uint32_t page = get_le32(r->page_no);
	struct fsck_slot_page *sp;

	if (page >= k->geo.total.table_pages) {
		out_of_range(k, lsn, "table page", page);
		return;
	}
	sp = &k->pages[geometry_slot_page_of_table(&k->geo, page)];
	sp->in_journal = true;
	if (lsn >= sp->from_lsn)
		k->tables[page] = (struct fsck_table){get_le64(r->seq), get_le32(r->crc), r->home};
}

static void apply_blocks(struct fsck *k, uint64_t lsn, const struct fmt_rec_blocks *r)
{
	uint32_t slot = get_le32(r->slot);

	if (slot >= k->geo.total.slots)
		out_of_range(k, lsn, "slot", slot);
	else if (get_le16(r->first) + get_le16(r->n) > k->geo.blocks_per_chunk)
		out_of_range(k, lsn, "block", get_le16(r->first) + get_le16(r->n) - 1u);
}

static void apply(struct fsck *k, uint64_t lsn, const struct fmt_record *rec)
{
	const void *r = rec;
	const struct fmt_rec_activate *act = r;
	const struct fmt_rec_relabel *rel = r;
	struct fsck_slot *s;

	k->is_clean = rec->type == FMT_REC_CLEAN;
	switch ((enum fmt_record_type)rec->type) {
	case FMT_REC_BLOCKS:
		apply_blocks(k, lsn, r);
		break;
	case FMT_REC_ALLOC:
		apply_alloc(k, lsn, r);
		break;
	case FMT_REC_FREE:
		apply_free(k, lsn, r);
		break;
	case FMT_REC_ACTIVATE:
	case FMT_REC_RETIRE:
		s = tenant(k, lsn, get_le32(act->slot), get_le64(act->cgen));
		if (s)
			s->active = rec->type == FMT_REC_ACTIVATE;
		break;
	case FMT_REC_RELABEL:
		s = tenant(k, lsn, get_le32(rel->slot), get_le64(rel->cgen));
		if (s) {
			s->volume = get_le32(rel->volume);
			s->layer = get_le32(rel->layer);
			s->chunk = get_le32(rel->chunk);
		}
		break;
	case FMT_REC_CKPT:
		apply_ckpt(k, lsn, r);
		break;
	case FMT_REC_EPOCH:
	case FMT_REC_LAYER:
	case FMT_REC_LAYER_DROP:
		k->registry_in_journal = true;
		break;
	case FMT_REC_BOOT:
	case FMT_REC_CLEAN:
		break;
	}
}
