/* SPDX-License-Identifier: Apache-2.0 */
/* boot.c - the end of a replay: what it found becomes the journal's word.
 *
 *   own ring, with what counts of the old one -> BOOT -> the old ring's records again -> corrections -> [all of it stable]* -> [and
 *   published]* -> done
 *
 * Killed before BOOT is in the journal: the old ring is still the one that is named. After it: the new one is, which has the same entries.
 * Power lost before all is stable: stable_lsn is still the old one, and the next replay comes to the same result. After that every further replay
 * trusts all records up to here, and needs to: so nothing is served before the corrections are published. */
#include "io-path/device/dev.h"
#include "io-path/device/replay.h"

static int boot_ring(struct replay *rp);
static void boot_next(struct replay *rp);
static void boot_reserved(struct waiter *w, int status);
static void boot_append(struct replay *rp);
static void boot_stable(struct waiter *w, int status);
static void boot_published(struct waiter *w, int status);

void replay_boot(struct replay *rp, void (*done)(struct replay *rp, int status))
{
	struct device *dev = rp->dev;
	struct journal_state s = {
	    .next_lsn = rp->next_lsn,
	    .prev_crc = rp->prev_crc,
	    .tail = rp->tail_stable,
	    .stable_lsn = rp->stable_lsn,
	    .incarnation =
		rp->mode == REPLAY_POWER_LOSS ? rp->incarnation_highest + 1 : rp->incarnation,
	    .meta_commit = rp->meta_commit,
	    .unresolved_blocks = rp->unresolved_blocks,
	};
	int r;

	rp->done = done;
	journal_start(dev, &s);
	flush_start(dev);
	dev->journal_started = true;
	r = dev->ring.path[0] ? boot_ring(rp) : 0;
	if (r) {
		done(rp, replay_fail(rp, r, "the restart ring cannot be made: %s", err_text(r)));
		return;
	}
	rp->stage = BOOT_RECORD;
	boot_next(rp);
}

static int boot_ring(struct replay *rp)
{
	struct device *dev = rp->dev;
	struct ring_entry_view v;
	struct ring_identity id = {
	    .device = dev->uuid,
	    .boot_id = ioe_boot_id(dev->ioe),
	    .nonce = ioe_uuid(dev->ioe),
	    .incarnation = dev->journal.incarnation,
	};
	int r = ring_create(dev, &id, rp->has_ring ? &rp->ring : NULL);

	if (r)
		return r;
	dev->journal.ring_nonce = id.nonce;
	ring_doubt(dev, dev->slots.doubtful_n > 0);
	if (!rp->has_ring)
		return 0;
	while ((r = ring_old_next(&rp->ring, &v)) == 1)
		ring_adopt(dev, &v);
	ring_old_rewind(&rp->ring);
	return r;
}

/* ---- records ---------------------------------------------------------------------------------------------------------- */

static bool ring_next(struct replay *rp)
{
	if (!rp->has_ring)
		return false;
	if (rp->has_view)
		rp->view_pos += ring_adopted_bytes(&rp->view);
	rp->has_view = ring_old_next(&rp->ring, &rp->view) == 1;
	return rp->has_view;
}

static uint32_t boot_bytes(const struct replay *rp)
{
	switch (rp->stage) {
	case BOOT_RECORD:
		return sizeof(struct fmt_rec_boot);
	case BOOT_RING:
		return rp->view.rec->type == FMT_REC_ALLOC
			   ? (uint32_t)sizeof(struct fmt_rec_alloc)
			   : journal_blocks_bytes(
				 get_le16(((const struct fmt_rec_blocks *)rp->view.rec)->n));
	case BOOT_FIXES:
		return journal_blocks_bytes(1);
	case BOOT_PENDING:
	case BOOT_DONE:
		break;
	}
	return 0;
}

static void boot_next(struct replay *rp)
{
	struct device *dev = rp->dev;
	uint64_t lsn;

	while (rp->stage != BOOT_DONE) {
		uint32_t bytes = boot_bytes(rp);

		if (bytes && !journal_reserve(dev, JOURNAL_MAINT, bytes)) {
			journal_wait_room(dev, &rp->wait, JOURNAL_MAINT, bytes, boot_reserved);
			return;
		}
		boot_append(rp);
	}
	lsn = dev->journal.record_lsn;
	flush_wait(dev, &rp->wait, FLUSH_STABLE, lsn, boot_stable);
}

static void boot_reserved(struct waiter *w, int status)
{
	struct replay *rp = container_of(w, struct replay, wait);

	if (status) {
		rp->done(rp, status);
		return;
	}
	boot_append(rp);
	boot_next(rp);
}

/* What is in one home only is written to both soon. Torn by a crash it may be, and then the journal has records of it; without any it is
 * damage that nobody suffered from, this time. */
static void homes_mend(struct replay *rp, uint64_t lsn)
{
	struct device *dev = rp->dev;

	for (uint32_t i = 0; i < dev->geo.total.slot_pages; i++) {
		const struct slot_page *sp = &dev->slots.pages[i];

		if (!sp->is_alone)
			continue;
		if (sp->pin.lsn == 0)
			device_event(dev, "slot_page_mended",
				     "home %u of slot-entry page %u was damaged; the other one has "
				     "all of it",
				     !sp->home, i);
		slot_page_touch(dev, i, lsn);
	}
	if (!dev->registry.is_alone)
		return;
	if (dev->registry.pin.lsn == 0)
		device_event(dev, "registry_mended",
			     "half %u of the registry was damaged; the other one has all of it",
			     !dev->registry.half);
	registry_touch(dev, lsn);
}

static void append_boot(struct replay *rp)
{
	struct device *dev = rp->dev;
	struct fmt_rec_boot rec = {
	    .h = {.type = FMT_REC_BOOT, .len_bytes = to_le16(sizeof(rec))},
	    .reason = to_le32(rp->mode == REPLAY_CLEAN	? FMT_BOOT_CLEAN
			      : rp->mode == REPLAY_RING ? FMT_BOOT_RING
							: FMT_BOOT_POWER_LOSS),
	    .incarnation = to_le64(dev->journal.incarnation),
	    .boot_id = ioe_boot_id(dev->ioe),
	    .ring_nonce = dev->journal.ring_nonce,
	    .wall_ns = to_le64(ioe_wall_ns(dev->ioe)),
	};

	check(journal_open_is_empty(dev));
	homes_mend(rp, journal_add(dev, &rec, sizeof(rec)));
}

/* Values that are in the tables already, and whose bytes are reserved. Returns the lsn of the last piece. */
static uint64_t append_blocks(struct replay *rp, struct journal_blocks b, uint32_t reserved)
{
	struct device *dev = rp->dev;
	struct table_page *p = dev->tables.tables[geometry_table_page_of(&dev->geo, b.slot)].page;
	struct slot_run *run = dev->slots.slots[b.slot].run;
	uint64_t lsn = 0;

	check(p);
	while (b.n > 0) {
		uint32_t n;

		lsn = journal_add_blocks(dev, &b, &n);
		table_touch(dev, p, lsn);
		b.first += n;
		b.values += n;
		b.n -= n;
	}
	if (run)
		run->last_lsn = lsn;
	journal_unreserve(dev, reserved);
	return lsn;
}

static void append_ring(struct replay *rp)
{
	struct device *dev = rp->dev;
	const struct fmt_record *rec = rp->view.rec;
	const struct fmt_rec_blocks *b = (const void *)rec;
	uint32_t reserved = boot_bytes(rp);

	if (rp->view.is_pending || !replay_is_of_slot(rp, rec)) {
		journal_unreserve(dev, reserved);
		if (!rp->view.is_pending)
			ring_abort(dev, rp->view_pos, dev->journal.written_lsn);
	} else if (rec->type == FMT_REC_ALLOC) {
		uint64_t lsn = journal_add(dev, rec, get_le16(rec->len_bytes));

		slot_page_touch(dev, geometry_slot_page_of(&dev->geo, get_le32(b->slot)), lsn);
		ring_done(dev, rp->view_pos, lsn);
	} else {
		uint32_t n = get_le16(b->n);

		for (uint32_t i = 0; i < n; i++)
			dev->values[i] = get_le32(b->values[i]);
		ring_done(dev, rp->view_pos,
			  append_blocks(rp,
					(struct journal_blocks){.slot = get_le32(b->slot),
								.cgen = get_le64(b->cgen),
								.first = get_le16(b->first),
								.n = n,
								.values = dev->values},
					reserved));
	}
}

static void append_fix(struct replay *rp)
{
	const struct resolution *f = &rp->fixes[rp->fix_next++];

	append_blocks(rp,
		      (struct journal_blocks){.slot = f->slot,
					      .cgen = rp->dev->slots.slots[f->slot].cgen,
					      .first = f->block,
					      .n = 1,
					      .values = &f->value},
		      boot_bytes(rp));
}

/* What pending INTENTs came to is journaled now. */
static void settle_pending(struct replay *rp)
{
	struct device *dev = rp->dev;

	ring_old_rewind(&rp->ring);
	rp->has_view = false;
	rp->view_pos = 0;
	while (ring_next(rp))
		if (rp->view.is_pending)
			ring_abort(dev, rp->view_pos, dev->journal.record_lsn);
}

static void boot_append(struct replay *rp)
{
	switch (rp->stage) {
	case BOOT_RECORD:
		append_boot(rp);
		rp->stage = ring_next(rp) ? BOOT_RING : BOOT_FIXES;
		break;
	case BOOT_RING:
		append_ring(rp);
		if (!ring_next(rp))
			rp->stage = BOOT_FIXES;
		break;
	case BOOT_FIXES:
		append_fix(rp);
		break;
	case BOOT_PENDING:
		if (rp->has_ring)
			settle_pending(rp);
		rp->stage = BOOT_DONE;
		break;
	case BOOT_DONE:
		break;
	}
	if (rp->stage == BOOT_FIXES && rp->fix_next == rp->fixes_n)
		rp->stage = BOOT_PENDING;
}

/* ---- stable ----------------------------------------------------------------------------------------------------------- */

static void boot_stable(struct waiter *w, int status)
{
	struct replay *rp = container_of(w, struct replay, wait);
	uint64_t lsn = rp->dev->journal.record_lsn;

	if (status)
		rp->done(rp, status);
	else if (flush_has(rp->dev, FLUSH_PUBLISHED, lsn))
		boot_published(w, 0);
	else
		flush_wait(rp->dev, w, FLUSH_PUBLISHED, lsn, boot_published);
}

static void boot_published(struct waiter *w, int status)
{
	struct replay *rp = container_of(w, struct replay, wait);

	rp->done(rp, status);
}
