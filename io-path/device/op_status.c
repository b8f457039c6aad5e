/* SPDX-License-Identifier: Apache-2.0 */
/* op_status.c - what the blocks are: CHECK -> TABLE* -> done. No data is read. */
#include "io-path/device/dev.h"
#include "src/base/math.h"

static void status_table(struct waiter *w, int status);
static void status_tell(struct op *op);

void op_status(struct op *op)
{
	struct device *dev = op->dev;
	const struct slot *s = &dev->slots.slots[op->slot];
	struct slot_claim claim = op_claim(op);
	enum slot_verdict verdict = slot_admit(s, &claim);

	if (dev->read_only && claim.cgen == 0)
		verdict = s->open ? SLOT_OPEN : SLOT_FRESH;
	if (s->lost || verdict == SLOT_STALE) {
		op_finish(op, s->lost ? -E_FORMAT : -E_STALE_CGEN);
	} else if (verdict == SLOT_FRESH) {
		memset(op->r->states, BLOCK_HOLE, op->blocks_n);
		op_finish(op, 0);
	} else if (op_get_page(op)) {
		op_finish(op, -ENOMEM);
	} else if (op->page->loaded) {
		status_tell(op);
	} else {
		tables_wait(op->page, &op->wait, status_table);
	}
}

static void status_table(struct waiter *w, int status)
{
	struct op *op = container_of(w, struct op, wait);

	if (status)
		op_finish(op, status);
	else
		status_tell(op);
}

static void status_tell(struct op *op)
{
	const uint32_t *values = op_table_values(op);

	for (uint32_t i = 0; i < op->blocks_n; i++)
		op->r->states[i] = (uint8_t)MIN(values[i], (uint32_t)BLOCK_DATA);
	op->r->present_n = op_present_n(op);
	op_finish(op, 0);
}
