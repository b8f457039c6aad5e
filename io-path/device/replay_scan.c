/* SPDX-License-Identifier: Apache-2.0 */
/* replay_scan.c - reads the whole ring and finds the chain that counts.
 *
 *   read all* -> highest block H of the highest incarnation -> from H's tail upwards to the first break X
 *
 * X is where the journal ends, unless a block above it, of the same incarnation as the last one accepted, says that X was stable: then X is
 * damage. (After a crash there may be blocks above X that were written while X was not; they never say that, and prev_crc keeps them out of
 * later chains.) */
#include <inttypes.h>

#include "io-path/device/dev.h"
#include "io-path/device/replay.h"
#include "src/base/math.h"
#include "src/base/mem.h"

static void scan_read(struct replay *rp);
static void scan_read_done(struct replay *rp);
static int scan_chain(struct replay *rp);
static void scan_last_read(struct replay *rp);

void replay_scan(struct replay *rp, void (*done)(struct replay *rp, int status))
{
	rp->done = done;
	rp->at = 0;
	rp->blocks = mem_zalloc_array(rp->dev->geo.ring_blocks, sizeof(*rp->blocks));
	if (!rp->blocks)
		done(rp, -ENOMEM);
	else
		scan_read(rp);
}

static uint32_t pages_of_read(const struct replay *rp)
{
	return MIN(rp->dev->geo.ring_blocks - rp->at, (uint32_t)REPLAY_BUF_PAGES);
}

static void scan_read(struct replay *rp)
{
	struct replay_span span = {
	    .offset = rp->dev->geo.journal_offset + (uint64_t)rp->at * FMT_PAGE,
	    .buf = rp->buf,
	    .pages_n = pages_of_read(rp),
	};

	replay_read(rp, &span, scan_read_done);
}

static struct scan_block scan_block_of(const struct fmt_journal_block *b)
{
	struct scan_block s = {
	    .lsn = get_le64(b->lsn),
	    .incarnation = get_le64(b->incarnation),
	    .tail = get_le64(b->tail),
	    .stable_lsn = get_le64(b->stable_lsn),
	    .crc = get_le32(b->crc),
	    .prev_crc = get_le32(b->prev_crc),
	};
	struct cursor c = fmt_journal_records(b);
	const struct fmt_record *rec, *last = NULL;

	while ((rec = fmt_record_next(&c))) {
		if (!last)
			s.begins_with_boot = rec->type == FMT_REC_BOOT;
		last = rec;
	}
	s.ends_with_clean = last && last->type == FMT_REC_CLEAN;
	return s;
}

static void scan_read_done(struct replay *rp)
{
	struct device *dev = rp->dev;
	struct replay_span last;
	uint32_t n = pages_of_read(rp);
	int r;

	for (uint32_t i = 0; i < n; i++) {
		const struct fmt_journal_block *b = (const void *)(rp->buf + (size_t)i * FMT_PAGE);

		rp->blocks[rp->at + i].unreadable = replay_is_unreadable(&rp->read, i);

		if (!fmt_journal_block_check(b, &dev->uuid, rp->at + i, dev->geo.ring_blocks))
			rp->blocks[rp->at + i] = scan_block_of(b);
	}
	rp->at += n;
	if (rp->at < dev->geo.ring_blocks) {
		scan_read(rp);
		return;
	}
	r = scan_chain(rp);
	if (r) {
		rp->done(rp, r);
		return;
	}
	/* the last block once more, for what only it has to say */
	last = (struct replay_span){
	    .offset = geometry_journal_offset(&dev->geo, rp->next_lsn - 1),
	    .buf = rp->buf,
	    .pages_n = 1,
	};
	replay_read(rp, &last, scan_last_read);
}

static const struct scan_block *highest(const struct replay *rp)
{
	const struct scan_block *h = NULL;

	for (uint32_t i = 0; i < rp->dev->geo.ring_blocks; i++) {
		const struct scan_block *b = &rp->blocks[i];

		if (b->lsn && (!h || b->incarnation > h->incarnation ||
			       (b->incarnation == h->incarnation && b->lsn > h->lsn)))
			h = b;
	}
	return h;
}

static bool follows(const struct scan_block *b, const struct scan_block *prev)
{
	return b->lsn == prev->lsn + 1 && b->prev_crc == prev->crc &&
	       (b->incarnation == prev->incarnation ||
		(b->incarnation > prev->incarnation && b->begins_with_boot));
}

static int scan_chain(struct replay *rp)
{
	uint32_t ring_blocks = rp->dev->geo.ring_blocks;
	const struct scan_block *h = highest(rp), *last;

	if (!h)
		return replay_fail(rp, -E_FORMAT, "the journal has no valid block");
	last = scan_at(rp, ring_blocks, h->tail);
	if (last->lsn != h->tail)
		return replay_fail(rp, -E_FORMAT,
				   "journal block %" PRIu64 ", the oldest needed, is damaged",
				   h->tail);
	rp->tail = h->tail;
	rp->stable_lsn = last->stable_lsn;
	rp->is_clean = last->ends_with_clean;
	for (;;) {
		const struct scan_block *b = scan_at(rp, ring_blocks, last->lsn + 1);

		if (b == scan_at(rp, ring_blocks, rp->tail) || !follows(b, last))
			break;
		last = b;
		rp->stable_lsn = MAX(rp->stable_lsn, b->stable_lsn);
	}
	rp->next_lsn = last->lsn + 1;
	/* it may be the one that goes on */
	if (scan_at(rp, ring_blocks, rp->next_lsn)->unreadable)
		return replay_fail(rp, -EIO,
				   "journal block %" PRIu64
				   ", which may be the last one, cannot be read",
				   rp->next_lsn);
	rp->prev_crc = last->crc;
	rp->tail_stable = last->tail;
	rp->incarnation = last->incarnation;
	rp->incarnation_highest = h->incarnation;
	rp->is_clean = last->ends_with_clean;
	for (uint32_t i = 0; i < ring_blocks; i++) {
		const struct scan_block *b = &rp->blocks[i];

		if (b->lsn > rp->next_lsn && b->incarnation >= last->incarnation &&
		    b->stable_lsn >= rp->next_lsn)
			return replay_fail(rp, -E_FORMAT,
					   "journal block %" PRIu64 " is damaged: block %" PRIu64
					   " says that it was written",
					   rp->next_lsn, b->lsn);
	}
	return 0;
}

static void scan_last_read(struct replay *rp)
{
	struct device *dev = rp->dev;
	const struct fmt_journal_block *b = (const void *)rp->buf;
	uint64_t last_lsn = rp->next_lsn - 1;

	if (fmt_journal_block_check(b, &dev->uuid, (uint32_t)(last_lsn % dev->geo.ring_blocks),
				    dev->geo.ring_blocks)) {
		rp->done(rp,
			 replay_fail(rp, -E_FORMAT,
				     "journal block %" PRIu64 " cannot be read again", last_lsn));
		return;
	}
	rp->meta_commit = get_le64(b->meta_commit);
	rp->unresolved_blocks = get_le64(b->unresolved_blocks);
	rp->ring_nonce = b->ring_nonce;
	rp->done(rp, 0);
}
