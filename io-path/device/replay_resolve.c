/* SPDX-License-Identifier: Apache-2.0 */
/* replay_resolve.c - what a block is, when the records alone do not say.
 *
 *   After a power loss: blocks that records above stable_lsn gave values to. The newest record first: a hole, zero or bad one stands; one of
 *   data stands if the medium has that data. If none does, the state at or below stable_lsn stands, which is in the table now.
 *   With a restart ring: blocks under a pending INTENT. The medium has the intended data, or what was there before; else it is damage.
 *
 * Many are read at once, neighbours together; after an error one by one, each a few times. A block that stays unreadable keeps the state that
 * stands without looking: whoever reads it later, when the disk has recovered, compares it with its checksum. What comes out differs from the
 * last record in the journal: then it is a correction that boot.c journals, because a later replay will take all these records for stable. */
#include <stdlib.h>

#include "io-path/device/dev.h"
#include "io-path/device/replay.h"
#include "src/base/crc.h"
#include "src/base/math.h"
#include "src/base/mem.h"

enum { READERS_MAX = 32, READER_BLOCKS = 16, BLOCK_TRIES = 3 };

struct reader {
	struct ioe_req io;
	struct resolver *rs;
	uint32_t slot, block, blocks_n; /* blocks_n 0: idle */
	uint32_t at, tries;		/* the block that is read alone */
	uint8_t *buf;
};

struct resolver {
	struct replay *rp;
	size_t next; /* candidate or suspect */
	uint32_t busy_n;
	int status;
	uint8_t *bufs;
	struct reader readers[READERS_MAX];
};

static void resolve_more(struct resolver *rs);
static void reader_done(struct ioe_req *io);
static void reader_one(struct reader *rd);
static void reader_one_done(struct ioe_req *io);
static void reader_end(struct reader *rd, int status);
static int block_resolve(struct replay *rp, uint32_t slot, uint32_t block, const uint8_t *bytes);
static void resolve_end(struct resolver *rs);

static int newest_first(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->slot != y->slot)
		return x->slot < y->slot ? -1 : 1;
	if (x->block != y->block)
		return x->block < y->block ? -1 : 1;
	return x->order > y->order ? -1 : x->order < y->order;
}

void replay_resolve(struct replay *rp, void (*done)(struct replay *rp, int status))
{
	struct resolver *rs;

	rp->done = done;
	if (rp->candidates_n == 0 && rp->suspects_n == 0) {
		done(rp, 0);
		return;
	}
	check(rp->candidates_n == 0 || rp->suspects_n == 0);
	if (rp->candidates_n)
		qsort(rp->candidates, rp->candidates_n, sizeof(*rp->candidates), newest_first);
	rs = mem_zalloc(sizeof(*rs));
	if (rs)
		rs->bufs = mem_alloc_aligned(BLOCK_BYTES,
					     (size_t)READERS_MAX * READER_BLOCKS * BLOCK_BYTES);
	if (!rs || !rs->bufs) {
		mem_free(rs);
		done(rp, -ENOMEM);
		return;
	}
	rs->rp = rp;
	rp->resolver = rs;
	for (uint32_t i = 0; i < READERS_MAX; i++) {
		rs->readers[i].rs = rs;
		rs->readers[i].buf = rs->bufs + (size_t)i * READER_BLOCKS * BLOCK_BYTES;
	}
	resolve_more(rs);
}

/* ---- which blocks ----------------------------------------------------------------------------------------------------- */

struct block_ref {
	uint32_t slot, block;
};

static bool block_at(const struct replay *rp, size_t i, struct block_ref *ret_ref)
{
	if (rp->suspects_n) {
		if (i >= rp->suspects_n)
			return false;
		*ret_ref = (struct block_ref){rp->suspects[i].slot, rp->suspects[i].block};
		return true;
	}
	if (i >= rp->candidates_n)
		return false;
	*ret_ref = (struct block_ref){rp->candidates[i].slot, rp->candidates[i].block};
	return true;
}

/* Past all entries of this block. */
static size_t next_block(const struct replay *rp, size_t i)
{
	struct block_ref ref = {}, other;

	block_at(rp, i, &ref);
	while (block_at(rp, ++i, &other) && other.slot == ref.slot && other.block == ref.block)
		;
	return i;
}

static struct reader *reader_idle(struct resolver *rs)
{
	for (int i = 0; i < READERS_MAX; i++)
		if (rs->readers[i].blocks_n == 0)
			return &rs->readers[i];
	return NULL;
}

static void resolve_more(struct resolver *rs)
{
	struct replay *rp = rs->rp;
	struct device *dev = rp->dev;
	struct block_ref ref, other;
	struct reader *rd;

	while (!rs->status && block_at(rp, rs->next, &ref) && (rd = reader_idle(rs))) {
		uint32_t n = 0;

		do {
			n++;
			rs->next = next_block(rp, rs->next);
		} while (n < READER_BLOCKS && block_at(rp, rs->next, &other) &&
			 other.slot == ref.slot && other.block == ref.block + n);
		rd->slot = ref.slot;
		rd->block = ref.block;
		rd->blocks_n = n;
		rs->busy_n++;
		ioe_read(dev->ioe, &rd->io, dev->file,
			 geometry_slot_offset(&dev->geo, ref.slot) +
			     (uint64_t)ref.block * BLOCK_BYTES,
			 rd->buf, (uint64_t)n * BLOCK_BYTES, reader_done);
	}
	if (rs->busy_n == 0)
		resolve_end(rs);
}

static void reader_done(struct ioe_req *io)
{
	struct reader *rd = container_of(io, struct reader, io);
	int r = 0;

	if (io->status) {
		rd->at = rd->tries = 0;
		reader_one(rd);
		return;
	}
	for (uint32_t i = 0; i < rd->blocks_n && !r; i++)
		r = block_resolve(rd->rs->rp, rd->slot, rd->block + i,
				  rd->buf + (size_t)i * BLOCK_BYTES);
	reader_end(rd, r);
}

static void reader_one(struct reader *rd)
{
	struct device *dev = rd->rs->rp->dev;

	ioe_read(dev->ioe, &rd->io, dev->file,
		 geometry_slot_offset(&dev->geo, rd->slot) +
		     (uint64_t)(rd->block + rd->at) * BLOCK_BYTES,
		 rd->buf, BLOCK_BYTES, reader_one_done);
}

static void reader_one_done(struct ioe_req *io)
{
	struct reader *rd = container_of(io, struct reader, io);
	struct replay *rp = rd->rs->rp;
	uint32_t block = rd->block + rd->at;
	int r;

	if (io->status && ++rd->tries < BLOCK_TRIES) {
		reader_one(rd);
		return;
	}
	if (io->status)
		device_event(rp->dev, "unreadable", "slot %u block %u cannot be read to verify it",
			     rd->slot, block);
	r = block_resolve(rp, rd->slot, block, io->status ? NULL : rd->buf);
	rd->tries = 0;
	if (!r && ++rd->at < rd->blocks_n)
		reader_one(rd);
	else
		reader_end(rd, r);
}

static void reader_end(struct reader *rd, int status)
{
	struct resolver *rs = rd->rs;

	if (status && !rs->status)
		rs->status = status;
	rd->blocks_n = 0;
	rs->busy_n--;
	resolve_more(rs);
}

/* ---- what it is ------------------------------------------------------------------------------------------------------- */

static uint32_t *table_value(struct replay *rp, uint32_t slot, uint32_t block)
{
	struct device *dev = rp->dev;
	struct table_page *p = dev->tables.tables[geometry_table_page_of(&dev->geo, slot)].page;

	check(p && p->loaded);
	return &p->values[geometry_table_value_of(&dev->geo, slot) + block];
}

/* Index of the block's first (newest) candidate. */
static size_t candidate_of(const struct replay *rp, uint32_t slot, uint32_t block)
{
	size_t from = 0, to = rp->candidates_n;

	while (from < to) {
		size_t mid = from + (to - from) / 2;
		const struct candidate *c = &rp->candidates[mid];

		if (c->slot < slot || (c->slot == slot && c->block < block))
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

static int fix_add(struct replay *rp, uint32_t slot, uint32_t block, uint32_t value)
{
	if (replay_grow((void **)&rp->fixes, rp->fixes_n, &rp->fixes_room, sizeof(*rp->fixes)))
		return -ENOMEM;
	rp->fixes[rp->fixes_n++] =
	    (struct resolution){.slot = slot, .block = block, .value = value};
	return 0;
}

static int candidate_resolve(struct replay *rp, uint32_t slot, uint32_t block, uint32_t found)
{
	uint32_t *value = table_value(rp, slot, block);
	size_t first = candidate_of(rp, slot, block);

	for (size_t i = first; i < rp->candidates_n; i++) {
		const struct candidate *c = &rp->candidates[i];

		if (c->slot != slot || c->block != block)
			break;
		if (table_is_data(c->value) && c->value != found)
			continue;
		*value = c->value;
		break;
	}
	return *value == rp->candidates[first].value ? 0 : fix_add(rp, slot, block, *value);
}

/* found NULL: it cannot be read. */
static int suspect_resolve(struct replay *rp, uint32_t slot, uint32_t block, const uint32_t *found)
{
	struct suspect key = {.slot = slot, .block = block}, *s = NULL;
	uint32_t *value = table_value(rp, slot, block), was = *value;
	struct slot_run *run = rp->dev->slots.slots[slot].run;

	for (size_t from = 0, to = rp->suspects_n; from < to && !s;) {
		size_t mid = from + (to - from) / 2;
		struct suspect *m = &rp->suspects[mid];

		if (m->slot == key.slot && m->block == key.block)
			s = m;
		else if (m->slot < key.slot || (m->slot == key.slot && m->block < key.block))
			from = mid + 1;
		else
			to = mid;
	}
	check(s);
	/* a stable write's record may have come to the journal without its data */
	if (was == s->intent && s->has_before)
		was = s->before;
	if (!found) {
		/* both are right; which of them it is shows when it can be read */
		*value = was;
		if (table_is_data(was) && rp->dev->slots.slots[slot].active &&
		    slot_doubt_add(rp->dev, run, block))
			return -ENOMEM;
	} else if (*found == s->intent || !table_is_data(was) || *found == was) {
		*value = *found == s->intent ? *found : was;
	} else if (run && slot_doubts(run, block)) {
		*value = was; /* since an earlier power loss: to be verified as such */
	} else {
		*value = FMT_BLOCK_BAD;
		device_event(rp->dev, "damage",
			     "slot %u block %u is neither what was there nor what was written",
			     slot, block);
	}
	return fix_add(rp, slot, block, *value);
}

/* bytes NULL: nobody knows; that matches nothing. */
static int block_resolve(struct replay *rp, uint32_t slot, uint32_t block, const uint8_t *bytes)
{
	uint32_t found = FMT_BLOCK_BAD;

	if (bytes)
		found = fmt_block_value(crc32c(bytes, BLOCK_BYTES), rp->dev->slots.slots[slot].cgen,
					block);

	return rp->suspects_n ? suspect_resolve(rp, slot, block, bytes ? &found : NULL)
			      : candidate_resolve(rp, slot, block, found);
}

static void resolve_end(struct resolver *rs)
{
	struct replay *rp = rs->rp;
	struct device *dev = rp->dev;
	int status = rs->status;

	rp->resolver = NULL;
	mem_free(rs->bufs);
	mem_free(rs);
	for (uint32_t i = 0; i < dev->geo.total.table_pages; i++)
		if (dev->tables.tables[i].page)
			table_recount(dev, dev->tables.tables[i].page);
	rp->done(rp, status);
}
