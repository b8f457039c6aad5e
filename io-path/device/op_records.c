/* SPDX-License-Identifier: Apache-2.0 */
/* op_records.c - records of an op's blocks: room for them, journal, ring, table. */
#include "io-path/device/dev.h"
#include "src/base/math.h"

static void journal_granted(struct waiter *w, int status);
static void ring_granted(struct waiter *w, int status);

/* ---- room ------------------------------------------------------------------------------------------------------------- */

static uint32_t ring_bytes_for(uint32_t blocks_n, uint32_t runs_n)
{
	uint32_t records_n = blocks_n / FMT_REC_BLOCKS_N_MAX + 2 + runs_n;

	return ring_bytes(OP_ENTRY_BYTES) +
	       2 * (4 * blocks_n + records_n * (ring_bytes(sizeof(struct fmt_rec_blocks)) + 8));
}

static bool reserve_ring(struct op *op, uint32_t bytes)
{
	struct device *dev = op->dev;

	if (!dev->ring.on)
		return true;
	if (ring_reserve(dev, bytes)) {
		op->ring_bytes = bytes;
		return true;
	}
	ring_wait_room(dev, &op->wait, bytes, ring_granted);
	return false;
}

bool op_reserve(struct op *op, enum journal_level level, uint32_t blocks_n, uint32_t runs_n,
		void (*reserved)(struct op *op, int status))
{
	struct device *dev = op->dev;
	uint32_t bytes = OP_ENTRY_BYTES + journal_blocks_bytes(blocks_n) +
			 runs_n * (uint32_t)sizeof(struct fmt_rec_blocks);

	check(op->journal_bytes == 0 && op->ring_bytes == 0);
	op->reserved = reserved;
	op->reserve_ring_bytes = ring_bytes_for(blocks_n, runs_n);
	if (!journal_reserve(dev, level, bytes)) {
		journal_wait_room(dev, &op->wait, level, bytes, journal_granted);
		return false;
	}
	op->journal_bytes = bytes;
	return reserve_ring(op, op->reserve_ring_bytes);
}

static void journal_granted(struct waiter *w, int status)
{
	struct op *op = container_of(w, struct op, wait);

	if (status) {
		op->reserved(op, status);
		return;
	}
	op->journal_bytes = w->bytes;
	if (reserve_ring(op, op->reserve_ring_bytes))
		op->reserved(op, 0);
}

static void ring_granted(struct waiter *w, int status)
{
	struct op *op = container_of(w, struct op, wait);

	if (!status)
		op->ring_bytes = w->bytes;
	op->reserved(op, status);
}

void op_unreserve(struct op *op)
{
	uint32_t journal_bytes = op->journal_bytes, ring_bytes_ = op->ring_bytes;

	op->journal_bytes = op->ring_bytes = 0;
	if (journal_bytes)
		journal_unreserve(op->dev, journal_bytes);
	if (ring_bytes_)
		ring_unreserve(op->dev, ring_bytes_);
}

/* ---- blocks ----------------------------------------------------------------------------------------------------------- */

const uint32_t *op_write_values(struct op *op)
{
	uint32_t *values = op->blocks_n <= OP_VALUES ? op->values : op->dev->values;

	for (uint32_t i = 0; i < op->blocks_n; i++)
		values[i] = fmt_block_value(op->r->crcs[i], op->r->cgen, op->block + i);
	return values;
}

/* One record (or what of the run fits into the block): journal, ring, and who has to know that it is there. */
static struct op_part journal_part(struct op *op, const struct journal_blocks *b, bool in_flight)
{
	struct device *dev = op->dev;
	struct op_part part;

	part.lsn = journal_add_blocks(dev, b, &part.n);
	if (in_flight) {
		journal_data_begin(dev, part.lsn);
	} else if (op->intent == RING_NO_INTENT && dev->ring.on) {
		struct journal_blocks entry = *b;

		entry.n = part.n;
		ring_blocks(dev, &entry, part.lsn);
	}
	table_touch(dev, op->page, part.lsn);
	slot_written(dev, op->run, part.lsn);
	return part;
}

static struct journal_blocks run_of(const struct op *op, uint32_t block, uint32_t n,
				    const uint32_t *values)
{
	return (struct journal_blocks){.slot = op->slot,
				       .cgen = op->dev->slots.slots[op->slot].cgen,
				       .first = block,
				       .n = n,
				       .values = values};
}

static void run_advance(struct journal_blocks *b, uint32_t n)
{
	b->first += n;
	b->n -= n;
	b->values += n;
}

void op_journal_blocks(struct op *op, const uint32_t *values, bool in_flight)
{
	struct journal_blocks b = run_of(op, op->block, op->blocks_n, values);

	check(op->journal_bytes > 0);
	op->parts_n = 0;
	while (b.n > 0) {
		struct op_part part = journal_part(op, &b, in_flight);
		struct op_part *last = op->parts_n ? &op->parts[op->parts_n - 1] : NULL;

		run_advance(&b, part.n);
		if (last && last->lsn == part.lsn) {
			last->n += part.n;
			if (in_flight) /* one for the block is enough */
				journal_data_end(op->dev, part.lsn);
			continue;
		}
		check(op->parts_n < OP_PARTS_MAX);
		op->parts[op->parts_n++] = part;
	}
	op_unreserve(op);
	maint_used(op->dev);
}

void op_apply_blocks(struct op *op, const uint32_t *values)
{
	uint32_t done = 0;

	for (uint32_t i = 0; i < op->parts_n; i++) {
		table_set(op->dev, op->page, op->slot, op->block + done, op->parts[i].n,
			  values + done, op->parts[i].lsn);
		done += op->parts[i].n;
	}
	check(done == op->blocks_n);
	slot_doubt_clear(op->dev, op->run, op->block, op->blocks_n);
}

void op_change_blocks(struct op *op, uint32_t block, uint32_t n, const uint32_t *values)
{
	struct journal_blocks b = run_of(op, block, n, values);

	check(op->journal_bytes > 0 && op->intent == RING_NO_INTENT);
	while (b.n > 0) {
		struct op_part part = journal_part(op, &b, false);

		table_set(op->dev, op->page, op->slot, b.first, part.n, b.values, part.lsn);
		run_advance(&b, part.n);
	}
	maint_used(op->dev);
}

void op_data_end(struct op *op)
{
	for (uint32_t i = 0; i < op->parts_n; i++)
		journal_data_end(op->dev, op->parts[i].lsn);
}

/* ---- slots ------------------------------------------------------------------------------------------------------------ */

void op_alloc(struct op *op)
{
	struct slot_claim claim = op_claim(op);

	check(op->journal_bytes >= sizeof(struct fmt_rec_alloc));
	op->journal_bytes -=
	    (uint32_t)sizeof(struct fmt_rec_alloc); /* given back by journal_add() */
	slot_alloc(op->dev, op->page, op->slot, &claim, op->r->epoch);
}

void op_activate(struct op *op)
{
	check(op->journal_bytes >= sizeof(struct fmt_rec_activate));
	op->journal_bytes -= (uint32_t)sizeof(struct fmt_rec_activate);
	slot_activate(op->dev, op->slot);
}

uint32_t op_present_n(const struct op *op)
{
	const struct slot *s = &op->dev->slots.slots[op->slot];

	return s->uncounted ? 0 : s->present_n;
}
