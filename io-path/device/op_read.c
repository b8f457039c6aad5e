/* SPDX-License-Identifier: Apache-2.0 */
/* op_read.c - read blocks, and give nothing to the client whose checksum does not match.
 *
 *   CHECK -> TABLE* -> DATA* -> VERIFY -> [DATA* once more -> VERIFY] -> [REPAIR*] -> done
 *
 * TABLE and DATA go out together when the slot is full. From the first block that is data to the last one is a single read; what lies between
 * and is not data is zeroed before anybody sees it. A mismatch is read again once. If it stays: in a block that is doubtful since a power loss it is an
 * unfinished write, whose bytes are accepted and counted; anywhere else the block is bad from now on. Either is a record. */
#include "io-path/device/dev.h"
#include "src/base/crc.h"
#include "src/base/math.h"

static void read_holes(struct op *op);
static void read_table(struct waiter *w, int status);
static void read_plan(struct op *op);
static const uint32_t *values_expected(const struct op *op);
static void read_data(struct op *op);
static void read_data_done(struct ioe_req *io);
static void read_verify(struct op *op);
static void read_repair(struct op *op, int status);
static void read_finish(struct op *op, int status);

static uint8_t *block_bytes(const struct op *op, uint32_t i)
{
	return (uint8_t *)op->r->buf + (size_t)i * BLOCK_BYTES;
}

/* Inspection takes whatever the slot holds, when it is not told what to expect. */
static enum slot_verdict admit(const struct op *op, const struct slot *s)
{
	struct slot_claim claim = op_claim(op);

	if (op->dev->read_only && claim.cgen == 0)
		return s->open ? SLOT_OPEN : SLOT_FRESH;
	return slot_admit(s, &claim);
}

void op_read(struct op *op)
{
	struct device *dev = op->dev;
	const struct slot *s = &dev->slots.slots[op->slot];
	enum slot_verdict verdict = admit(op, s);
	int r;

	if (s->lost || verdict == SLOT_STALE) {
		op_finish(op, s->lost ? -E_FORMAT : -E_STALE_CGEN);
		return;
	}
	if (verdict == SLOT_FRESH) {
		read_holes(op);
		return;
	}
	r = op_get_page(op);
	if (r) {
		op_finish(op, r);
		return;
	}
	op->data_first = 0;
	op->data_n = 0;
	op->is_planned = false;
	if (op->page->loaded) {
		read_plan(op);
		return;
	}
	tables_wait(op->page, &op->wait, read_table);
	if (s->present_n == dev->geo.blocks_per_chunk && !s->uncounted) {
		op->data_n = op->blocks_n;
		read_data(op);
	}
}

static void read_holes(struct op *op)
{
	struct chunk_req *r = op->r;

	memset(r->buf, 0, (size_t)op->blocks_n * BLOCK_BYTES);
	if (r->states)
		memset(r->states, BLOCK_HOLE, op->blocks_n);
	if (r->crcs)
		memset(r->crcs, 0, op->blocks_n * sizeof(*r->crcs));
	op->dev->info.reads++;
	op_finish(op, 0);
}

static void read_table(struct waiter *w, int status)
{
	struct op *op = container_of(w, struct op, wait);

	op->status = status;
	if (op->data_n == 0) {
		if (status)
			op_finish(op, status);
		else
			read_plan(op);
	} else if (op->io_done) {
		read_verify(op);
	}
}

/* Which part is data? */
static void read_plan(struct op *op)
{
	const uint32_t *values = op_table_values(op);
	uint32_t from = 0, to = op->blocks_n;

	while (from < to && !table_is_data(values[from]))
		from++;
	while (to > from && !table_is_data(values[to - 1]))
		to--;
	op->data_first = from;
	op->data_n = to - from;
	op->is_planned = true;
	if (op->blocks_n <= OP_VALUES)
		memcpy(op->values, values, op->blocks_n * sizeof(*values));
	if (op->data_n)
		read_data(op);
	else
		read_verify(op);
}

/* What a short read was planned with is at hand when the data comes. Only a reader that found something else there can have changed it since:
 * then this one does not match either, and looks at the table when it has read again. */
static const uint32_t *values_expected(const struct op *op)
{
	bool kept = op->is_planned && op->blocks_n <= OP_VALUES && !op->retried;

	return kept ? op->values : op_table_values(op);
}

static void read_data(struct op *op)
{
	struct device *dev = op->dev;
	uint64_t offset = geometry_slot_offset(&dev->geo, op->slot) +
			  (uint64_t)(op->block + op->data_first) * BLOCK_BYTES;

	op->io_done = false;
	ioe_read(dev->ioe, &op->io, dev->file, offset, block_bytes(op, op->data_first),
		 (uint64_t)op->data_n * BLOCK_BYTES, read_data_done);
}

static void read_data_done(struct ioe_req *io)
{
	struct op *op = container_of(io, struct op, io);

	op->io_done = true;
	if (io->status) {
		op->io_status = io->status;
		op->dev->info.read_errors++;
	}
	if (list_empty(&op->wait.link)) /* else the table is not there yet */
		read_verify(op);
}

/* ---- verify ----------------------------------------------------------------------------------------------------------- */

static uint32_t value_found(const struct op *op, uint32_t i, uint32_t crc)
{
	return fmt_block_value(crc, op->dev->slots.slots[op->slot].cgen, op->block + i);
}

static bool is_read(const struct op *op, uint32_t i)
{
	return i - op->data_first < op->data_n;
}

/* Does block i hold what the table says? Its CRC is left for the client, its doubt ends. */
static bool block_matches(struct op *op, uint32_t i, uint32_t value)
{
	uint32_t crc = crc32c(block_bytes(op, i), BLOCK_BYTES);

	if (value_found(op, i, crc) != value)
		return false;
	if (op->r->crcs)
		op->r->crcs[i] = crc;
	if (op->run->doubt)
		slot_doubt_clear(op->dev, op->run, op->block + i, 1);
	return true;
}

static void read_states(struct op *op, const uint32_t *values)
{
	for (uint32_t i = 0; op->r->states && i < op->blocks_n; i++)
		op->r->states[i] = (uint8_t)MIN(values[i], (uint32_t)BLOCK_DATA);
}

static void read_verify(struct op *op)
{
	const uint32_t *values;
	uint32_t bad_n = 0;

	op->mismatches_n = 0;
	if (op->status || op->io_status) {
		op_finish(op, op->status ? op->status : op->io_status);
		return;
	}
	values = values_expected(op);
	for (uint32_t i = 0; i < op->blocks_n; i++) {
		bad_n += values[i] == FMT_BLOCK_BAD;
		if (!table_is_data(values[i])) {
			memset(block_bytes(op, i), 0, BLOCK_BYTES);
			if (op->r->crcs)
				op->r->crcs[i] = 0;
		} else if (!is_read(op, i) || !block_matches(op, i, values[i])) {
			check(is_read(op, i));
			op->mismatches_n++;
		}
	}
	read_states(op, values);
	if (op->mismatches_n == 0)
		read_finish(op, bad_n ? -E_BAD_BLOCK : 0);
	else if (!op->retried) {
		op->retried = true;
		read_data(op);
	} else if (op->dev->read_only || table_track(op->dev, op->page))
		read_repair(op, op->dev->read_only ? 0 : -E_CHECKSUM);
	else if (op_reserve(op, JOURNAL_FREE, op->mismatches_n, op->mismatches_n, read_repair))
		read_repair(op, 0);
}

/* What matched is not looked at again, so that one verdict follows from one set of bytes; zeros cannot have a wrong checksum. */
static void read_repair(struct op *op, int status)
{
	struct device *dev = op->dev;
	const uint32_t *values = op_table_values(op);
	uint32_t damaged_n = 0, bad_n = 0;

	if (status) {
		op_finish(op, status);
		return;
	}
	read_states(op, values); /* another reader may have found damage meanwhile */
	for (uint32_t i = 0; i < op->blocks_n; i++) {
		uint32_t crc, found;

		bad_n += values[i] == FMT_BLOCK_BAD;
		if (!table_is_data(values[i]))
			continue;
		crc = crc32c(block_bytes(op, i), BLOCK_BYTES);
		found = value_found(op, i, crc);
		if (op->r->crcs)
			op->r->crcs[i] = crc;
		if (found == values[i])
			continue;
		if (slot_doubts(op->run, op->block + i)) {
			verify_accept(op, op->block + i, found);
			continue;
		}
		damaged_n++;
		if (op->r->crcs)
			op->r->crcs[i] = 0;
		memset(block_bytes(op, i), 0, BLOCK_BYTES);
		if (op->r->states)
			op->r->states[i] = BLOCK_BAD;
		if (!dev->read_only) {
			found = FMT_BLOCK_BAD;
			op_change_blocks(op, op->block + i, 1, &found);
		}
		device_event(dev, "damage", "slot %u block %u does not match its checksum",
			     op->slot, op->block + i);
	}
	op_unreserve(op);
	read_finish(op, damaged_n ? -E_CHECKSUM : bad_n ? -E_BAD_BLOCK : 0);
}

static void read_finish(struct op *op, int status)
{
	struct chunk_req *r = op->r;
	struct device *dev = op->dev;

	r->present_n = op_present_n(op);
	dev->info.reads++;
	dev->info.read_bytes += (uint64_t)op->blocks_n * BLOCK_BYTES;
	op_finish(op, status);
}
