/* SPDX-License-Identifier: Apache-2.0 */
/* op_flush.c - what was acknowledged before it is stable after it: one wait for the flush that covers the youngest record. */
#include "io-path/device/dev.h"

/* The caller's volatile acknowledgements were given in an incarnation whose memory is gone. */
static int verdict(const struct op *op)
{
	uint64_t theirs = op->r->incarnation;

	return theirs && theirs != op->dev->journal.incarnation ? -E_UNFLUSHED_LOST : 0;
}

static void flush_over(struct waiter *w, int status)
{
	struct op *op = container_of(w, struct op, wait);

	op_finish(op, status ? status : verdict(op));
}

void op_flush(struct op *op)
{
	struct device *dev = op->dev;
	uint64_t lsn = dev->journal.record_lsn;

	/* every acknowledged change has its record in the journal, if only in the open block */
	if (flush_has(dev, FLUSH_STABLE, lsn))
		op_finish(op, verdict(op));
	else
		flush_wait(dev, &op->wait, FLUSH_STABLE, lsn, flush_over);
}
