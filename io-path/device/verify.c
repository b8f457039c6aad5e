/* SPDX-License-Identifier: Apache-2.0 */
/* verify.c - one slot after the other, one read at a time.
 *
 *   the first doubtful slot -> an op of the device's own on a stretch of it* -> TABLE* -> DATA* -> compare -> [RECORDS*] -> the next
 *
 * A stretch that cannot be read is read block by block; a block that cannot be read stays in doubt until a client or the next start of the
 * device reads it, for only then can be said what it is. Requests of clients overlapping the stretch wait as for any read of theirs. A block
 * that is no data, or matches, is verified. One that does not match is what the power loss left of an unfinished write: with a single copy
 * there is nothing better, so its bytes are accepted, by a record, and counted. When no block of the slot is doubtful any more it is like any
 * other active slot, and retires. */
#include "io-path/device/verify.h"

#include "io-path/device/dev.h"
#include "src/base/crc.h"
#include "src/base/log.h"
#include "src/base/math.h"
#include "src/base/mem.h"

enum { BLOCK_TRIES = 3 };

static void verify_next(struct waiter *w, int status);
static void verify_begin(struct op *op);
static void verify_table(struct waiter *w, int status);
static void verify_read(struct op *op);
static void verify_read_done(struct ioe_req *io);
static void verify_unread(struct op *op);
static void verify_compare(struct op *op);
static void verify_correct(struct op *op, int status);
static void verify_op_done(struct op *op, int status);

void verify_accept(struct op *op, uint32_t block, uint32_t value)
{
	struct device *dev = op->dev;

	if (dev->read_only)
		return;
	dev->journal.unresolved_blocks++;
	op_change_blocks(op, block, 1, &value);
	slot_doubt_clear(dev, op->run, block, 1);
	device_event(dev, "unresolved",
		     "slot %u block %u: an unfinished write was accepted after power loss",
		     op->slot, block);
}

/* Clients' own reads still verify what they touch. */
static void no_memory(struct device *dev)
{
	dev->verify.running = false;
	log_warn("no memory to verify in the background", "device=%s", dev->path);
}

/* ---- the round -------------------------------------------------------------------------------------------------------- */

void verify_start(struct device *dev)
{
	struct verify *v = &dev->verify;

	waiter_init(&v->wait);
	if (dev->slots.doubtful_n == 0)
		return;
	v->buf = mem_alloc_aligned(BLOCK_BYTES, (size_t)VERIFY_BLOCKS * BLOCK_BYTES);
	if (!v->buf) {
		no_memory(dev);
		return;
	}
	v->running = true;
	verify_next(&v->wait, 0);
}

void verify_stop(struct device *dev)
{
	dev->verify.running = false;
}

void verify_free(struct device *dev)
{
	mem_free(dev->verify.buf);
}

bool verify_is_idle(const struct device *dev)
{
	return !dev->verify.op;
}

/* The next of the slot that is in doubt and was not looked at; or as many as a slot has. */
static uint32_t next_block(const struct device *dev, const struct slot_run *run)
{
	uint32_t block = run->verify_from;

	while (block < dev->geo.blocks_per_chunk && !slot_doubts(run, block))
		block++;
	return block;
}

static struct slot_run *first_doubtful(struct device *dev)
{
	list_for_each (l, &dev->slots.active) {
		struct slot_run *run = list_entry(l, struct slot_run, link);

		if (!run->doubt)
			continue;
		run->verify_from = next_block(dev, run);
		if (run->verify_from < dev->geo.blocks_per_chunk)
			return run;
	}
	return NULL;
}

static void verify_next(struct waiter *w, int status)
{
	struct device *dev = container_of(w, struct device, verify.wait);
	struct verify *v = &dev->verify;
	struct slot_run *run = v->running && !status && !dev->failed ? first_doubtful(dev) : NULL;

	v->op = NULL;
	if (!run) {
		v->running = false;
		return;
	}
	v->op = op_new_own(dev, verify_begin);
	if (!v->op) {
		waiter_push(&dev->ops.own_waiters, w, verify_next);
		return;
	}
	if (run->slot != v->single_slot || run->verify_from >= v->single_to)
		v->one_by_one = false;
	v->op->own_done = verify_op_done;
	v->op->slot = run->slot;
	v->op->block = run->verify_from;
	v->op->blocks_n = MIN(v->one_by_one ? 1u : (uint32_t)VERIFY_BLOCKS,
			      dev->geo.blocks_per_chunk - v->op->block);
	v->op->buf = v->buf;
	op_enter_slot(v->op);
}

/* Not at once: many holes in a row would be many calls within each other. */
static void verify_op_done(struct op *op, int status)
{
	struct device *dev = op->dev;

	(void)status;
	dev->verify.op = NULL;
	if (dev->verify.running)
		waiter_push(&dev->ops.own_waiters, &dev->verify.wait, verify_next);
}

/* ---- a stretch -------------------------------------------------------------------------------------------------------- */

static void verify_begin(struct op *op)
{
	struct device *dev = op->dev;

	/* it may have been freed, or verified by clients, while this waited for its turn */
	if (!op->run->doubt || dev->failed) {
		op_finish(op, 0);
	} else if (op_get_page(op) || table_track(dev, op->page)) {
		no_memory(dev);
		op_finish(op, 0);
	} else if (!op->page->loaded) {
		tables_wait(op->page, &op->wait, verify_table);
	} else {
		verify_read(op);
	}
}

static void verify_table(struct waiter *w, int status)
{
	struct op *op = container_of(w, struct op, wait);

	if (status) { /* it stays in doubt, like a block that cannot be read */
		op->run->verify_from = op->dev->geo.blocks_per_chunk;
		op_finish(op, status);
	} else {
		verify_read(op);
	}
}

static bool needs_look(const struct op *op, uint32_t i)
{
	return slot_doubts(op->run, op->block + i) && table_is_data(op_table_values(op)[i]);
}

static void verify_read(struct op *op)
{
	struct device *dev = op->dev;
	uint32_t from = 0, to = op->blocks_n;

	while (from < to && !needs_look(op, from))
		from++;
	while (to > from && !needs_look(op, to - 1))
		to--;
	op->data_first = from;
	op->data_n = to - from;
	op->mismatches_n = 0;
	if (op->data_n == 0) {
		verify_compare(op);
		return;
	}
	ioe_read(dev->ioe, &op->io, dev->file,
		 geometry_slot_offset(&dev->geo, op->slot) +
		     (uint64_t)(op->block + from) * BLOCK_BYTES,
		 op->buf, (uint64_t)op->data_n * BLOCK_BYTES, verify_read_done);
}

static void verify_read_done(struct ioe_req *io)
{
	struct op *op = container_of(io, struct op, io);

	if (io->status)
		verify_unread(op);
	else
		verify_compare(op);
}

/* Again, in smaller pieces; or on to the next block. */
static void verify_unread(struct op *op)
{
	struct verify *v = &op->dev->verify;

	if (op->blocks_n > 1) {
		v->one_by_one = true;
		v->single_slot = op->slot;
		v->single_to = op->block + op->blocks_n;
		v->tries = 0;
	} else if (++v->tries == BLOCK_TRIES) {
		v->tries = 0;
		op->run->verify_from = op->block + 1;
		device_event(op->dev, "unreadable", "slot %u block %u cannot be read to verify it",
			     op->slot, op->block);
	}
	op_finish(op, 0);
}

static uint32_t found(const struct op *op, uint32_t i)
{
	const uint8_t *bytes = (uint8_t *)op->buf + (size_t)(i - op->data_first) * BLOCK_BYTES;

	return fmt_block_value(crc32c(bytes, BLOCK_BYTES), op->dev->slots.slots[op->slot].cgen,
			       op->block + i);
}

static void verify_compare(struct op *op)
{
	for (uint32_t i = 0; i < op->blocks_n && op->run->doubt; i++) {
		if (needs_look(op, i) && found(op, i) != op_table_values(op)[i])
			op->mismatches_n++;
		else
			slot_doubt_clear(op->dev, op->run, op->block + i, 1);
	}
	if (op->mismatches_n == 0)
		op_finish(op, 0);
	else if (op_reserve(op, JOURNAL_FREE, op->mismatches_n, op->mismatches_n, verify_correct))
		verify_correct(op, 0);
}

static void verify_correct(struct op *op, int status)
{
	for (uint32_t i = 0; i < op->blocks_n && !status && op->run->doubt; i++) {
		uint32_t value;

		if (!needs_look(op, i))
			continue;
		value = found(op, i);
		if (value == op_table_values(op)[i])
			slot_doubt_clear(op->dev, op->run, op->block + i, 1);
		else
			verify_accept(op, op->block + i, value);
	}
	op_finish(op, status);
}
