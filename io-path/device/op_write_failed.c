/* SPDX-License-Identifier: Apache-2.0 */
/* op_write_failed.c - the data of a write did not (all) get to the medium.
 *
 *   ENOSPC: nothing changed, supposedly:  TABLE* -> READ BACK* -> CORRECT* -> done
 *   else:   the blocks are bad:           CORRECT* -> done
 *
 * ENOSPC leaves what was there; but of a longer write some blocks may have got through, so what was data before is read and is old, new, or
 * (neither) bad. What cannot be read now counts as old: should it be new after all, its checksum will tell. When the table cannot be read, which
 * would say what was there, all are bad. A stable write has its record in the journal already: the correction follows it, and the block of the
 * first one does not count as complete before that of the correction is written, so that no flush can cover the one without the other. */
#include "io-path/device/dev.h"
#include "src/base/crc.h"
#include "src/base/mem.h"

static void failed_table(struct waiter *w, int status);
static void failed_look(struct op *op);
static void failed_read_done(struct ioe_req *io);
static void failed_reserve(struct op *op);
static void failed_correct(struct op *op, int status);
static void failed_written(struct waiter *w, int status);
static void failed_finish(struct op *op);

static bool has_journaled(const struct op *op)
{
	return op->parts_n > 0;
}

void op_write_failed(struct op *op, int status)
{
	struct device *dev = op->dev;

	op->status = status;
	dev->info.write_errors++;
	if (status != -ENOSPC) {
		failed_reserve(op);
		return;
	}
	space_missing(dev);
	if (op->page->is_unreadable) /* since the op began */
		table_load_again(dev, op->page);
	/* a stable one waits for the flush with the other waiter */
	if (!op->page->loaded)
		tables_wait(op->page, &op->wait, failed_table);
	else
		failed_look(op);
}

static void failed_table(struct waiter *w, int status)
{
	struct op *op = container_of(w, struct op, wait);

	if (!status) {
		failed_look(op);
	} else if (op->dev->failed) {
		failed_finish(op);
	} else { /* what was there before cannot be told: the blocks are bad */
		op->status = status;
		failed_reserve(op);
	}
}

static void failed_look(struct op *op)
{
	struct device *dev = op->dev;
	uint32_t data_n = 0;

	for (uint32_t i = 0; i < op->blocks_n; i++)
		data_n += table_is_data(op_table_values(op)[i]);
	if (data_n > 0)
		op->buf = mem_alloc_aligned(BLOCK_BYTES, (size_t)op->blocks_n * BLOCK_BYTES);
	if (!op->buf) { /* nothing to look at; or no memory */
		failed_reserve(op);
		return;
	}
	op->io_done = false;
	ioe_read(dev->ioe, &op->io, dev->file,
		 geometry_slot_offset(&dev->geo, op->slot) + (uint64_t)op->block * BLOCK_BYTES,
		 op->buf, (uint64_t)op->blocks_n * BLOCK_BYTES, failed_read_done);
}

static void failed_read_done(struct ioe_req *io)
{
	struct op *op = container_of(io, struct op, io);

	op->io_done = true;
	if (io->status) {
		mem_free(op->buf);
		op->buf = NULL;
	}
	if (op->dev->failed)
		failed_finish(op);
	else
		failed_reserve(op);
}

/* What block i is now. */
static uint32_t value_now(const struct op *op, uint32_t i)
{
	uint32_t was = op_table_values(op)[i], found;

	if (op->status != -ENOSPC)
		return FMT_BLOCK_BAD;
	if (!table_is_data(was) || !op->buf)
		return was;
	found = fmt_block_value(crc32c((uint8_t *)op->buf + (size_t)i * BLOCK_BYTES, BLOCK_BYTES),
				op->r->cgen, op->block + i);
	return found == was || found == fmt_block_value(op->r->crcs[i], op->r->cgen, op->block + i)
		   ? found
		   : FMT_BLOCK_BAD;
}

static bool is_unchanged(const struct op *op)
{
	for (uint32_t i = 0; i < op->blocks_n; i++)
		if (value_now(op, i) != op_table_values(op)[i])
			return false;
	return true;
}

static void failed_reserve(struct op *op)
{
	op_unreserve(op);
	if (!has_journaled(op) && is_unchanged(op)) {
		ring_abort(op->dev, op->intent, op->dev->journal.written_lsn);
		failed_finish(op);
		return;
	}
	/* data that becomes bad moves, and an overwrite did not count on that */
	if (table_track(op->dev, op->page)) {
		device_fail(op->dev, "memory to note a failed write", -ENOMEM);
		failed_finish(op);
		return;
	}
	if (op_reserve(op, JOURNAL_FREE, op->blocks_n, 1, failed_correct))
		failed_correct(op, 0);
}

static void failed_correct(struct op *op, int status)
{
	struct device *dev = op->dev;
	uint32_t *values = dev->values;
	uint64_t intent = op->intent, lsn;
	struct op_part parts[OP_PARTS_MAX];
	uint32_t parts_n = op->parts_n;

	if (status) {
		failed_finish(op);
		return;
	}
	for (uint32_t i = 0; i < op->blocks_n; i++)
		values[i] = value_now(op, i);
	/* the entry of the intent comes first in the ring, and ends as if it had never been */
	op->intent = RING_NO_INTENT;
	memcpy(parts, op->parts, sizeof(parts));
	op_journal_blocks(op, values, false);
	op_apply_blocks(op, values);
	lsn = op->parts[op->parts_n - 1].lsn;
	ring_abort(dev, intent, lsn);
	/* keep those of the first record, for failed_finish() */
	memcpy(op->parts, parts, sizeof(parts));
	op->parts_n = parts_n;
	if (has_journaled(op))
		journal_wait_written(dev, &op->wait, lsn, failed_written);
	else
		failed_finish(op);
}

static void failed_written(struct waiter *w, int status)
{
	(void)status; /* the device failed: it makes no difference any more */
	failed_finish(container_of(w, struct op, wait));
}

static void failed_finish(struct op *op)
{
	bool journaled = has_journaled(op);

	mem_free(op->buf);
	op->buf = NULL;
	op->r->present_n = op_present_n(op);
	if (journaled)
		op_data_end(op);
	/* A stable one still waits for the flush, and ends with op->status when it comes. */
	if (list_empty(&op->stable_wait.link))
		op_finish(op, op->status);
}
