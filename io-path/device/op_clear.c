/* SPDX-License-Identifier: Apache-2.0 */
/* op_clear.c - blocks become holes or zeros.
 *
 *   CHECK -> TABLE* -> (room)* -> RECORD -> [FLUSH*] -> done, and later the space is punched (punch.c)
 *
 * No data is touched before the record is stable, so nothing has to be active, and a crash leaves the blocks as they were or cleared. */
#include "io-path/device/dev.h"

static void clear_again(struct waiter *w, int status);
static void clear_reserved(struct op *op, int status);
static void clear_record(struct op *op);
static void clear_acknowledge(struct op *op);
static void clear_stable(struct waiter *w, int status);

static uint32_t target(const struct op *op)
{
	return op->r->flags & CHUNK_F_ZERO ? FMT_BLOCK_ZERO : FMT_BLOCK_HOLE;
}

static bool changes_nothing(const struct op *op)
{
	const uint32_t *values = op_table_values(op);

	for (uint32_t i = 0; i < op->blocks_n; i++)
		if (values[i] != target(op))
			return false;
	return true;
}

static bool has_room(struct device *dev, const struct op *op)
{
	if (!dev->slots.slots[op->slot].open &&
	    (!slots_may_activate(dev) || table_is_being_copied(op->page)))
		return false;
	return op->page->pin.lsn || dev->tables.dirty_n < dev->tables.dirty_max;
}

void op_clear(struct op *op)
{
	struct device *dev = op->dev;
	struct slot_claim claim = op_claim(op);
	enum slot_verdict verdict = slot_admit(&dev->slots.slots[op->slot], &claim);
	int r;

	if (verdict == SLOT_STALE || (verdict == SLOT_FRESH && target(op) == FMT_BLOCK_HOLE)) {
		op_finish(op, verdict == SLOT_STALE ? -E_STALE_CGEN : 0);
		return;
	}
	r = op_get_page(op);
	if (!r)
		r = table_track(dev, op->page);
	if (r)
		op_finish(op, r);
	else if (!op->page->loaded)
		tables_wait(op->page, &op->wait, clear_again);
	else if (verdict == SLOT_OPEN && changes_nothing(op))
		clear_acknowledge(op);
	else if (!has_room(dev, op))
		maint_wait(dev, &op->wait, clear_again);
	else if (op_reserve(op, JOURNAL_WRITE, op->blocks_n, 1, clear_reserved))
		clear_record(op);
}

static void clear_again(struct waiter *w, int status)
{
	struct op *op = container_of(w, struct op, wait);

	if (status)
		op_finish(op, status);
	else
		op_clear(op);
}

static void clear_reserved(struct op *op, int status)
{
	struct slot_claim claim = op_claim(op);

	if (status)
		op_finish(op, status);
	else if (slot_admit(&op->dev->slots.slots[op->slot], &claim) == SLOT_STALE)
		op_finish(op, -E_STALE_CGEN);
	else if (!has_room(op->dev, op)) {
		op_unreserve(op);
		maint_wait(op->dev, &op->wait, clear_again);
	} else
		clear_record(op);
}

static void clear_record(struct op *op)
{
	struct device *dev = op->dev;
	uint32_t *values = dev->values;

	if (!dev->slots.slots[op->slot].open)
		op_alloc(op);
	for (uint32_t i = 0; i < op->blocks_n; i++)
		values[i] = target(op);
	op_journal_blocks(op, values, false);
	op_apply_blocks(op, values);
	punch_add(op, op->parts[op->parts_n - 1].lsn);
	clear_acknowledge(op);
}

static void clear_acknowledge(struct op *op)
{
	struct device *dev = op->dev;
	uint64_t lsn = dev->journal.record_lsn;

	if (op->is_stable && !flush_has(dev, FLUSH_STABLE, lsn)) {
		flush_wait(dev, &op->wait, FLUSH_STABLE, lsn, clear_stable);
		return;
	}
	op->r->volatile_ack = !flush_has(dev, FLUSH_STABLE, lsn);
	clear_stable(&op->wait, 0);
}

static void clear_stable(struct waiter *w, int status)
{
	struct op *op = container_of(w, struct op, wait);

	op->r->present_n = op_present_n(op);
	op->dev->info.clears++;
	op_finish(op, status);
}
