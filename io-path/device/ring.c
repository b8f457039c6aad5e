/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/device/ring.h"

#include "io-path/device/dev.h"
#include "io-path/device/ring_layout.h"
#include "src/base/math.h"
#include "src/base/mem.h"

/* ---- room ------------------------------------------------------------------------------------------------------------- */

static bool has_room(const struct ring *r, uint64_t bytes)
{
	return r->head - r->tail + r->reserved + bytes <= RING_ENTRY_BYTES - 64;
}

bool ring_reserve(struct device *dev, uint32_t bytes)
{
	struct ring *r = &dev->ring;

	if (!list_empty(&r->waiters) || !has_room(r, bytes))
		return false;
	r->reserved += bytes;
	return true;
}

void ring_unreserve(struct device *dev, uint32_t bytes)
{
	check(dev->ring.reserved >= bytes);
	dev->ring.reserved -= bytes;
	if (!list_empty(&dev->ring.waiters))
		device_turn_end(dev);
}

void ring_wait_room(struct device *dev, struct waiter *w, uint32_t bytes,
		    void (*fn)(struct waiter *w, int status))
{
	w->bytes = bytes;
	waiter_push(&dev->ring.waiters, w, fn);
	device_turn_end(dev);
}

void ring_turn(struct device *dev)
{
	struct ring *r = &dev->ring;

	while (!list_empty(&r->waiters)) {
		struct waiter *w = list_first(&r->waiters, struct waiter, link);

		if (!has_room(r, w->bytes))
			return;
		r->reserved += w->bytes;
		list_del(&w->link);
		w->fn(w, 0);
	}
}

void ring_fail(struct device *dev)
{
	waiters_wake(&dev->ring.waiters, -E_DEVICE_FAILED);
}

/* ---- entries ---------------------------------------------------------------------------------------------------------- */

/* Room for a record of this length in one piece: where its entry begins. Not yet published. */
static struct ring_entry *entry_new(struct ring *r, uint16_t type, uint32_t len)
{
	uint64_t to_end = RING_ENTRY_BYTES - r->head % RING_ENTRY_BYTES;
	struct ring_entry *e;

	if (to_end < ring_entry_size(len)) {
		if (to_end >= ENTRY_HEADER) {
			e = ring_entry_at(r->entries, r->head);
			e->type = ENTRY_GAP;
			e->len = (uint16_t)(to_end - ENTRY_HEADER);
			e->crc = ring_entry_crc(e, r->head);
			atomic_store_explicit(&e->lsn, 0, memory_order_relaxed);
		}
		r->head += to_end;
	}
	check(r->head + ring_entry_size(len) - r->tail <= RING_ENTRY_BYTES && len <= UINT16_MAX);
	e = ring_entry_at(r->entries, r->head);
	e->type = type;
	e->len = (uint16_t)len;
	return e;
}

/* Returns its position. */
static uint64_t entry_publish(struct ring *r, struct ring_entry *e, uint64_t lsn)
{
	uint64_t pos = r->head;

	e->crc = ring_entry_crc(e, pos);
	atomic_store_explicit(&e->lsn, word_seal(lsn), memory_order_relaxed);
	r->head += ring_entry_size(e->len);
	atomic_store_explicit(&r->header->head, word_seal(r->head), memory_order_release);
	return pos;
}

uint64_t ring_put(struct ring *r, uint16_t type, const void *rec, uint32_t len)
{
	struct ring_entry *e = entry_new(r, type, len);

	memcpy(e + 1, rec, len);
	return entry_publish(r, e, 0);
}

void ring_record(struct device *dev, const void *rec, uint32_t len, uint64_t lsn)
{
	struct ring_entry *e;

	if (!dev->ring.on)
		return;
	e = entry_new(&dev->ring, ENTRY_RECORD, len);
	memcpy(e + 1, rec, len);
	entry_publish(&dev->ring, e, lsn);
}

static uint64_t blocks_entry(struct ring *r, uint16_t type, const struct journal_blocks *b,
			     uint64_t lsn)
{
	uint32_t len = fmt_blocks_len(b->n);
	struct ring_entry *e = entry_new(r, type, len);
	struct fmt_rec_blocks *rec = (void *)(e + 1);

	*rec = (struct fmt_rec_blocks){
	    .h = {.type = FMT_REC_BLOCKS, .len_bytes = to_le16((uint16_t)len)},
	    .slot = to_le32(b->slot),
	    .cgen = to_le64(b->cgen),
	    .first = to_le16((uint16_t)b->first),
	    .n = to_le16((uint16_t)b->n),
	};
	for (uint32_t i = 0; i < b->n; i++)
		rec->values[i] = to_le32(b->values[i]);
	return entry_publish(r, e, lsn);
}

void ring_blocks(struct device *dev, const struct journal_blocks *b, uint64_t lsn)
{
	if (dev->ring.on)
		blocks_entry(&dev->ring, ENTRY_RECORD, b, lsn);
}

uint64_t ring_intent(struct device *dev, const struct journal_blocks *b)
{
	return dev->ring.on ? blocks_entry(&dev->ring, ENTRY_INTENT, b, 0) : RING_NO_INTENT;
}

static void entry_settle(struct device *dev, uint64_t pos, uint64_t lsn)
{
	if (pos == RING_NO_INTENT)
		return;
	check(pos >= dev->ring.tail && pos < dev->ring.head);
	atomic_store_explicit(&ring_entry_at(dev->ring.entries, pos)->lsn, word_seal(lsn),
			      memory_order_release);
}

void ring_done(struct device *dev, uint64_t intent, uint64_t lsn)
{
	entry_settle(dev, intent, lsn);
}

void ring_abort(struct device *dev, uint64_t intent, uint64_t lsn)
{
	entry_settle(dev, intent, lsn | LSN_ABORTED);
}

/* A gap too short for a header is skipped without one. */
static bool entry_may_leave(struct ring *r, uint64_t written_lsn, uint64_t *ret_size)
{
	uint64_t to_end = RING_ENTRY_BYTES - r->tail % RING_ENTRY_BYTES, lsn;
	struct ring_entry *e = ring_entry_at(r->entries, r->tail);

	if (to_end < ENTRY_HEADER) {
		*ret_size = to_end;
		return true;
	}
	*ret_size = ring_entry_size(e->len);
	if (e->type == ENTRY_GAP)
		return true;
	/* ours: whether the seal is whole is for the next process to ask */
	word_open(atomic_load_explicit(&e->lsn, memory_order_relaxed), &lsn);
	return lsn && (lsn & ~LSN_ABORTED) <= written_lsn;
}

void ring_released(struct device *dev)
{
	struct ring *r = &dev->ring;
	uint64_t size;

	if (!r->on)
		return;
	/* before anything leaves: what has left is in these blocks, so the chain must reach them */
	atomic_store_explicit(&r->header->written_lsn, word_seal(dev->journal.written_lsn),
			      memory_order_release);
	if (r->tail == r->head)
		return;
	while (r->tail < r->head && entry_may_leave(r, dev->journal.written_lsn, &size))
		r->tail += size;
	atomic_store_explicit(&r->header->tail, word_seal(r->tail), memory_order_release);
	if (!list_empty(&r->waiters))
		device_turn_end(dev);
}

void ring_doubt(struct device *dev, bool doubt)
{
	if (dev->ring.on)
		atomic_store_explicit(&dev->ring.header->doubt, word_seal(doubt),
				      memory_order_release);
}

/* ---- files ------------------------------------------------------------------------------------------------------------ */

int ring_paths(struct device *dev, const char *path)
{
	dev->ring.path[0] = mem_printf("%s.a", path);
	dev->ring.path[1] = mem_printf("%s.b", path);
	return dev->ring.path[0] && dev->ring.path[1] ? 0 : -ENOMEM;
}

void ring_free(struct device *dev)
{
	if (dev->ring.on)
		ioe_shm_close(dev->ioe, &dev->ring.shm);
	mem_free(dev->ring.path[0]);
	mem_free(dev->ring.path[1]);
}

int ring_create(struct device *dev, const struct ring_identity *id, const struct ring_old *old)
{
	struct ring *r = &dev->ring;
	int status;

	r->file = old ? !old->file : 0;
	status = ioe_unlink(dev->ioe, r->path[r->file]);
	if (status && status != -ENOENT)
		return status;
	status = ioe_shm_create(dev->ioe, r->path[r->file], RING_HEADER_BYTES + RING_ENTRY_BYTES,
				&r->shm);
	if (status)
		return status;
	r->header = r->shm.base;
	r->entries = (uint8_t *)r->shm.base + RING_HEADER_BYTES;
	r->head = r->tail = 0;
	r->on = true;
	r->header->magic = RING_MAGIC;
	r->header->version = RING_VERSION;
	r->header->id = *id;
	r->header->entry_bytes = RING_ENTRY_BYTES;
	r->header->crc = ring_header_crc(r->header);
	return 0;
}

void ring_remove_old(struct device *dev)
{
	for (uint32_t i = 0; i < 2; i++)
		if (dev->ring.path[i] && !(dev->ring.on && i == dev->ring.file))
			ioe_unlink(dev->ioe, dev->ring.path[i]);
}

void ring_remove(struct device *dev)
{
	struct ring *r = &dev->ring;

	if (!r->on)
		return;
	ioe_shm_close(dev->ioe, &r->shm);
	r->on = false;
	ioe_unlink(dev->ioe, r->path[r->file]);
}
