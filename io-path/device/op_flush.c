/* SPDX-License-Identifier: Apache-2.0 */
/* op_flush.c - what was acknowledged before it is stable after it: one wait for the flush that covers the youngest record. */
#include "io-path/device/dev.h"

static void flush_over(struct waiter *w, int status)
{
	op_finish(container_of(w, struct op, wait), status);
}

void op_flush(struct op *op)
{
	struct device *dev = op->dev;
	uint64_t lsn = dev->journal.record_lsn;

	/* every acknowledged change has its record in the journal, if only in the open block */
	if (flush_has(dev, FLUSH_STABLE, lsn))
		op_finish(op, 0);
	else
		flush_wait(dev, &op->wait, FLUSH_STABLE, lsn, flush_over);
}
