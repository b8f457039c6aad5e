/* SPDX-License-Identifier: Apache-2.0 */
/* punch.c - give the space of cleared blocks back.
 *
 *   CLEAR -> FLUSH* (the record is stable) -> an op of the device's own on the range* -> TABLE* -> PUNCH* of each run -> done
 *
 * Only blocks that are still holes or zeros, by a record that is stable, are punched: their old data can never be wanted again. Those whose
 * record came after the flush have their turn after the next one. The bytes of a bad block between them are left: somebody may want to look at
 * them. */
#include "io-path/device/dev.h"
#include "src/base/log.h"
#include "src/base/math.h"

static void punch_begin(struct slot_run *run);
static void punch_stable(struct waiter *w, int status);
static void punch_take(struct waiter *w, int status);
static void punch_start(struct op *op);
static void punch_table(struct waiter *w, int status);
static void punch_next(struct op *op);
static void punch_done(struct ioe_req *io);
static void punch_end(struct op *op, int status);

static void range_add(struct slot_run *run, uint32_t block, uint32_t n)
{
	bool is_empty = run->punch_from == run->punch_to;

	run->punch_from = is_empty ? block : MIN(run->punch_from, block);
	run->punch_to = is_empty ? block + n : MAX(run->punch_to, block + n);
}

void punch_add(struct op *op, uint64_t lsn)
{
	struct slot_run *run = op->run;

	if (op->dev->no_punch)
		return;
	range_add(run, op->block, op->blocks_n);
	run->punch_lsn = lsn;
	if (!run->punch_busy) {
		run->punch_busy = true;
		op->dev->slots.punching_n++;
		punch_begin(run);
	}
}

static void punch_begin(struct slot_run *run)
{
	struct device *dev = run->dev;

	if (flush_has(dev, FLUSH_STABLE, run->punch_lsn))
		punch_stable(&run->punch_wait, 0);
	else
		flush_wait(dev, &run->punch_wait, FLUSH_STABLE, run->punch_lsn, punch_stable);
}

static void run_over(struct slot_run *run)
{
	struct device *dev = run->dev;

	run->punch_busy = false;
	run->punch_from = run->punch_to = 0;
	dev->slots.punching_n--;
	slot_run_put(dev, run);
	if (dev->state == DEVICE_CLOSING)
		close_step(dev);
}

static void punch_stable(struct waiter *w, int status)
{
	struct slot_run *run = container_of(w, struct slot_run, punch_wait);

	if (status)
		run_over(run);
	else
		punch_take(w, 0);
}

static void punch_take(struct waiter *w, int status)
{
	struct slot_run *run = container_of(w, struct slot_run, punch_wait);
	struct device *dev = run->dev;
	struct op *op;

	if (status) {
		run_over(run);
		return;
	}
	op = op_new_own(dev, punch_start);
	if (!op) {
		waiter_push(&dev->ops.own_waiters, w, punch_take);
		return;
	}
	op->own_done = punch_end;
	op->slot = run->slot;
	op->block = run->punch_from;
	op->blocks_n = run->punch_to - run->punch_from;
	op->is_exclusive = true;
	run->punch_from = run->punch_to = 0; /* what is cleared from here on comes next */
	op_enter_slot(op);
}

static void punch_start(struct op *op)
{
	op->data_first = 0; /* how far it came */
	op->data_n = 0;
	if (op->dev->failed || op_get_page(op))
		op_finish(op, -ECANCELED);
	else if (!op->page->loaded)
		tables_wait(op->page, &op->wait, punch_table);
	else
		punch_next(op);
}

static void punch_table(struct waiter *w, int status)
{
	struct op *op = container_of(w, struct op, wait);

	if (status)
		op_finish(op, status);
	else
		punch_next(op);
}

static bool is_cleared(const struct op *op, uint32_t i)
{
	return op->page->values[op->value_at + i] < FMT_BLOCK_BAD;
}

static bool is_over(const struct op *op, uint32_t i)
{
	return is_cleared(op, i) &&
	       table_moved(op->page, op->value_at + i) <= op->dev->journal.stable_lsn;
}

static void punch_next(struct op *op)
{
	struct device *dev = op->dev;
	uint32_t from = op->data_first + op->data_n, to;

	for (; from < op->blocks_n && !is_over(op, from); from++)
		if (is_cleared(op, from))
			range_add(op->run, op->block + from, 1);
	for (to = from; to < op->blocks_n && is_over(op, to);)
		to++;
	if (from == to || dev->failed || dev->no_punch) {
		op_finish(op, 0);
		return;
	}
	op->data_first = from;
	op->data_n = to - from;
	ioe_punch(dev->ioe, &op->io, dev->file,
		  geometry_slot_offset(&dev->geo, op->slot) +
		      (uint64_t)(op->block + from) * BLOCK_BYTES,
		  (uint64_t)op->data_n * BLOCK_BYTES, punch_done);
}

static void punch_done(struct ioe_req *io)
{
	struct op *op = container_of(io, struct op, io);

	punch_failed(op->dev, io->status);
	punch_next(op);
}

/* Lost space is not lost data. */
void punch_failed(struct device *dev, int status)
{
	if (status == -EOPNOTSUPP)
		dev->no_punch = true;
	else if (status)
		log_limited(LOG_WARN, ioe_now_ns(dev->ioe), "space could not be given back",
			    "device=%s error=%s", dev->path, err_name(status));
}

static void punch_end(struct op *op, int status)
{
	struct slot_run *run = op->dev->slots.slots[op->slot].run;

	(void)status;
	check(run && run->punch_busy);
	if (run->punch_from == run->punch_to || op->dev->failed || op->dev->no_punch)
		run_over(run);
	else
		punch_begin(run);
}
