/* SPDX-License-Identifier: Apache-2.0 */
/* op_free.c - the slot is free, and no request with this cgen or an older one will ever be executed on it.
 *
 *   (every request of the slot before it is over) -> CHECK -> [TABLE*] -> (room)* -> RECORD -> FLUSH* -> PUNCH* -> done
 *
 * Nothing is punched before the record is stable. Below the remembered cgen it was done long ago; equal to it on a free slot only the punch is
 * repeated, because a crash may have come between. */
#include "io-path/device/dev.h"
#include "src/base/math.h"

static void free_table(struct waiter *w, int status);
static void free_counted(struct op *op);
static void free_reserved(struct waiter *w, int status);
static void free_stable(struct waiter *w, int status);
static void free_punch(struct op *op);
static void free_punched(struct ioe_req *io);

void op_free_slot(struct op *op)
{
	const struct slot *s = &op->dev->slots.slots[op->slot];
	struct chunk_req *r = op->r;

	if (r->cgen < s->cgen)
		op_finish(op, 0);
	else if (!s->open && r->cgen == s->cgen)
		free_punch(op);
	else if (!s->open || !(r->flags & CHUNK_F_IF_EMPTY))
		free_counted(op);
	else if (op_get_page(op))
		op_finish(op, -ENOMEM);
	else if (!op->page->loaded)
		tables_wait(op->page, &op->wait, free_table);
	else
		free_counted(op);
}

static void free_table(struct waiter *w, int status)
{
	struct op *op = container_of(w, struct op, wait);

	if (status)
		op_finish(op, status);
	else
		free_counted(op);
}

static void free_counted(struct op *op)
{
	struct device *dev = op->dev;
	const struct slot *s = &dev->slots.slots[op->slot];
	uint32_t bytes = sizeof(struct fmt_rec_free);

	if (s->open && op->r->flags & CHUNK_F_IF_EMPTY && s->present_n > 0) {
		op->r->present_n = s->present_n;
		op_finish(op, -ENOTEMPTY);
		return;
	}
	if (journal_reserve(dev, JOURNAL_FREE, bytes))
		free_reserved(&op->wait, 0);
	else
		journal_wait_room(dev, &op->wait, JOURNAL_FREE, bytes, free_reserved);
}

static void free_reserved(struct waiter *w, int status)
{
	struct op *op = container_of(w, struct op, wait);
	uint64_t lsn;

	if (status) {
		op_finish(op, status);
		return;
	}
	lsn = slot_free(op->dev, op->slot, op->r->cgen);
	maint_used(op->dev);
	flush_wait(op->dev, &op->wait, FLUSH_STABLE, lsn, free_stable);
}

static void free_stable(struct waiter *w, int status)
{
	struct op *op = container_of(w, struct op, wait);

	if (status)
		op_finish(op, status);
	else
		free_punch(op);
}

static void free_punch(struct op *op)
{
	struct device *dev = op->dev;

	dev->info.frees++;
	if (dev->no_punch)
		op_finish(op, 0);
	else
		ioe_punch(dev->ioe, &op->io, dev->file, geometry_slot_offset(&dev->geo, op->slot),
			  geometry_chunk_bytes(&dev->geo), free_punched);
}

static void free_punched(struct ioe_req *io)
{
	struct op *op = container_of(io, struct op, io);

	punch_failed(op->dev, io->status);
	op_finish(op, 0);
}
