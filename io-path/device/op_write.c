/* SPDX-License-Identifier: Apache-2.0 */
/* op_write.c - write blocks, in place.
 *
 *   CHECK -> (room in the table cache, among active slots, in journal and ring)* -> MAY START* -> DATA* -> done     volatile
 *                                                                       MAY START* -> DATA + RECORD* -> FLUSH* -> done     stable
 *
 * MAY START is the rule that makes overwriting safe (docs/device-format.md, Writing):
 *   - over a block that a completed or running flush covers as data: the slot's ACTIVATE is stable, and the record that made the block data
 *     is published. Else a replay could find new bytes under an old checksum in a slot it trusts, or fall back past the record;
 *   - over a block that became data since then: nothing, but a flush that begins meanwhile waits for the write ("risky", flush.h);
 *   - over a hole whose record is not stable: first the record, because until then the covered state may still have data there.
 *
 * Crash before the record: the block is what it was before, or its bytes are the new ones and its slot is active: doubtful, verified after
 * power loss; with the restart ring its INTENT says what to expect. */
#include "io-path/device/dev.h"
#include "src/base/math.h"

static void write_again(struct waiter *w, int status);
static void write_reserved(struct op *op, int status);
static void write_go(struct op *op);
static bool write_may_start(struct op *op);
static void write_may_start_again(struct waiter *w, int status);
static void write_submit(struct op *op);
static void write_data_done(struct ioe_req *io);
static void write_volatile_done(struct op *op);
static void write_stable_data_done(struct op *op);
static void write_stable(struct waiter *w, int status);

static bool has_room(struct device *dev, const struct op *op, const struct slot *s)
{
	if (!s->active && !slots_may_activate(dev))
		return false;
	if (!s->open && table_is_being_copied(op->page))
		return false;
	return op->page->pin.lsn || dev->tables.dirty_n < dev->tables.dirty_max;
}

/* Blocks that are data and stay data do not move, and nobody else changes them before this is over. */
static bool may_move(const struct op *op)
{
	const uint32_t *values = op_table_values(op);
	uint32_t i = 0;

	while (op->page->loaded && i < op->blocks_n && table_is_data(values[i]))
		i++;
	return i < op->blocks_n;
}

void op_write(struct op *op)
{
	struct device *dev = op->dev;
	const struct slot *s = &dev->slots.slots[op->slot];
	struct slot_claim claim = op_claim(op);
	int r;

	if (slot_admit(s, &claim) == SLOT_STALE) {
		op_finish(op, -E_STALE_CGEN);
		return;
	}
	r = op_get_page(op);
	if (!r && may_move(op))
		r = table_track(dev, op->page);
	if (r)
		op_finish(op, r);
	else if (!has_room(dev, op, s))
		maint_wait(dev, &op->wait, write_again);
	else if (op_reserve(op, JOURNAL_WRITE, op->blocks_n, 1, write_reserved))
		write_go(op);
}

static void write_again(struct waiter *w, int status)
{
	struct op *op = container_of(w, struct op, wait);

	if (status)
		op_finish(op, status);
	else
		op_write(op);
}

/* It took a while: somebody else may have taken the last active slot. */
static void write_reserved(struct op *op, int status)
{
	if (status) {
		op_finish(op, status);
	} else if (!has_room(op->dev, op, &op->dev->slots.slots[op->slot])) {
		op_unreserve(op);
		maint_wait(op->dev, &op->wait, write_again);
	} else {
		write_go(op);
	}
}

static void write_go(struct op *op)
{
	const struct slot *s = &op->dev->slots.slots[op->slot];
	struct slot_claim claim = op_claim(op);

	/* Nobody opened or freed the slot meanwhile: another first write may have. */
	if (slot_admit(s, &claim) == SLOT_STALE) {
		op_finish(op, -E_STALE_CGEN);
		return;
	}
	if (!s->open)
		op_alloc(op);
	if (write_may_start(op))
		write_submit(op);
}

/* ---- may it start? ---------------------------------------------------------------------------------------------------- */

struct hazards {
	bool over_covered;	/* data that a flush covers, or nobody knows */
	bool over_uncovered;	/* data younger than that */
	uint64_t published_lsn; /* must be published */
	uint64_t stable_lsn;	/* must be stable */
};

static struct hazards hazards_of(const struct op *op)
{
	const struct device *dev = op->dev;
	const struct table_page *p = op->page;
	uint32_t from = op->value_at;
	struct hazards h = {};

	for (uint32_t at = from; at < from + op->blocks_n; at++) {
		uint64_t moved = table_moved(p, at);

		if (!table_knows(p, at, 1)) {
			h.over_covered = true;
		} else if (!table_is_data(p->values[at])) {
			h.stable_lsn = MAX(h.stable_lsn, moved);
		} else if (moved > dev->flusher.covered_lsn) {
			h.over_uncovered = true;
		} else {
			h.over_covered = true;
			h.published_lsn = MAX(h.published_lsn, moved);
		}
	}
	return h;
}

static bool write_may_start(struct op *op)
{
	struct device *dev = op->dev;
	struct slot *s = &dev->slots.slots[op->slot];
	struct hazards h = hazards_of(op);

	if (h.over_covered) {
		if (!s->active) {
			if (!slots_may_activate(dev)) {
				op_unreserve(op);
				maint_wait(dev, &op->wait, write_again);
				return false;
			}
			op_activate(op);
		}
		h.stable_lsn = MAX(h.stable_lsn, op->run->active_lsn);
	}
	if (!flush_has(dev, FLUSH_STABLE, h.stable_lsn))
		flush_wait(dev, &op->wait, FLUSH_STABLE, h.stable_lsn, write_may_start_again);
	else if (!flush_has(dev, FLUSH_PUBLISHED, h.published_lsn))
		flush_wait(dev, &op->wait, FLUSH_PUBLISHED, h.published_lsn, write_may_start_again);
	else if (h.over_uncovered && !op->is_stable && flush_is_draining(&dev->flusher))
		flush_wait_drained(dev, &op->wait, write_may_start_again);
	else {
		op->is_risky = h.over_uncovered && !op->is_stable;
		return true;
	}
	return false;
}

static void write_may_start_again(struct waiter *w, int status)
{
	struct op *op = container_of(w, struct op, wait);

	if (status)
		op_finish(op, status);
	else if (write_may_start(op))
		write_submit(op);
}

/* ---- data ------------------------------------------------------------------------------------------------------------- */

static void write_submit(struct op *op)
{
	struct device *dev = op->dev;
	struct chunk_req *r = op->r;
	const uint32_t *values = op_write_values(op);
	uint64_t offset =
	    geometry_slot_offset(&dev->geo, op->slot) + (uint64_t)op->block * BLOCK_BYTES;

	op->io_done = false;
	op->intent = ring_intent(dev, &(struct journal_blocks){.slot = op->slot,
							       .cgen = r->cgen,
							       .first = op->block,
							       .n = op->blocks_n,
							       .values = values});
	if (op->is_risky)
		flush_risky_begin(dev);
	if (op->is_stable) {
		op_journal_blocks(op, values, true);
		flush_wait(dev, &op->stable_wait, FLUSH_STABLE, op->parts[op->parts_n - 1].lsn,
			   write_stable);
	}
	ioe_write(dev->ioe, &op->io, dev->file, offset, r->buf,
		  (uint64_t)op->blocks_n * BLOCK_BYTES, write_data_done);
}

/* Did it go where there may have been nothing? */
static bool has_taken_space(const struct op *op)
{
	for (uint32_t i = 0; op->page->loaded && i < op->blocks_n; i++)
		if (!table_is_data(op_table_values(op)[i]))
			return true;
	return false;
}

static void write_data_done(struct ioe_req *io)
{
	struct op *op = container_of(io, struct op, io);

	op->io_done = true;
	if (!io->status && op->dev->info.no_space && has_taken_space(op))
		space_found(op->dev);
	op->dev->info.writes++;
	op->dev->info.write_bytes += (uint64_t)op->blocks_n * BLOCK_BYTES;
	if (op->dev->failed) {
		if (list_empty(&op->stable_wait.link))
			op_finish(op, -E_DEVICE_FAILED);
		else
			device_turn_end(op->dev); /* which tells those who wait for a flush */
	} else if (io->status) {
		op_write_failed(op, io->status);
	} else if (op->is_stable) {
		write_stable_data_done(op);
	} else {
		write_volatile_done(op);
	}
}

/* The record is in the journal's open block, and in the ring: that is what the acknowledgement stands on. */
static void write_volatile_done(struct op *op)
{
	struct device *dev = op->dev;
	const uint32_t *values = op_write_values(op);

	op_journal_blocks(op, values, false);
	op_apply_blocks(op, values);
	ring_done(dev, op->intent, op->parts[op->parts_n - 1].lsn);
	op->r->volatile_ack = true;
	op->r->present_n = op_present_n(op);
	op_finish(op, 0);
}

static void write_stable_data_done(struct op *op)
{
	op_apply_blocks(op, op_write_values(op));
	ring_done(op->dev, op->intent, op->parts[op->parts_n - 1].lsn);
	op_data_end(op);
}

/* The flush that covers the record waited for the data too. */
static void write_stable(struct waiter *w, int status)
{
	struct op *op = container_of(w, struct op, stable_wait);

	if (!op->io_done || !list_empty(&op->wait.link)) {
		check(
		    status); /* the device failed, amid the data or its correction: that ends the op */
		return;
	}
	op->r->present_n = op_present_n(op);
	op_finish(op, status ? status : op->status);
}
