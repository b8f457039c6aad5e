/* SPDX-License-Identifier: Apache-2.0 */
/* ring_old.c - the restart ring that an earlier process left: is it valid, what does it say, and taking it over.
 *
 * It is memory that anything with our user id may have written to, so nothing in it is believed before it is checked. */
#include "io-path/device/dev.h"
#include "io-path/device/ring_layout.h"

static bool header_is_valid(const struct ioe_shm *shm, const struct ring_identity *id)
{
	const struct ring_header *h = shm->base;

	return shm->len_bytes == RING_HEADER_BYTES + RING_ENTRY_BYTES && h->magic == RING_MAGIC &&
	       h->version == RING_VERSION && h->crc == ring_header_crc(h) &&
	       h->entry_bytes == RING_ENTRY_BYTES && uuid_equal(&h->id.device, &id->device) &&
	       uuid_equal(&h->id.boot_id, &id->boot_id) && uuid_equal(&h->id.nonce, &id->nonce) &&
	       h->id.incarnation == id->incarnation;
}

/* The words that the other process went on changing. */
static int words_take(struct ring_old *old)
{
	const struct ring_header *h = old->shm.base;
	uint64_t doubt;

	if (!word_open(atomic_load_explicit(&h->head, memory_order_acquire), &old->head) ||
	    !word_open(atomic_load_explicit(&h->tail, memory_order_acquire), &old->tail) ||
	    !word_open(atomic_load_explicit(&h->written_lsn, memory_order_acquire),
		       &old->written_lsn) ||
	    !word_open(atomic_load_explicit(&h->doubt, memory_order_acquire), &doubt))
		return -E_FORMAT;
	old->doubt = doubt != 0;
	ring_old_rewind(old);
	return 0;
}

int ring_old_open(struct device *dev, const struct ring_identity *id, struct ring_old *ret_old)
{
	for (uint32_t i = 0; i < 2; i++) {
		struct ring_old old = {.file = i};

		if (!dev->ring.path[i] || ioe_shm_open(dev->ioe, dev->ring.path[i], &old.shm))
			continue;
		if (!uuid_is_zero(&id->nonce) && header_is_valid(&old.shm, id)) {
			int r = words_take(&old);

			if (r)
				ioe_shm_close(dev->ioe, &old.shm);
			else
				*ret_old = old;
			return r;
		}
		ioe_shm_close(dev->ioe, &old.shm);
	}
	return -ENOENT;
}

void ring_old_close(struct device *dev, struct ring_old *old)
{
	if (old->shm.base)
		ioe_shm_close(dev->ioe, &old->shm);
	old->shm.base = NULL;
}

void ring_old_rewind(struct ring_old *old)
{
	old->at = old->tail;
}

static bool blocks_are_sane(const struct fmt_rec_blocks *r, uint32_t len)
{
	uint32_t n;

	if (len < sizeof(*r) || r->h.reserved || get_le16(r->h.len_bytes) != len)
		return false;
	n = get_le16(r->n);
	return n > 0 && n <= CHUNK_BLOCKS_MAX && get_le16(r->first) + n <= CHUNK_BLOCKS_MAX &&
	       len == fmt_blocks_len(n) && get_le64(r->cgen) != 0;
}

static bool record_is_sane(const struct ring_entry *e)
{
	const struct fmt_record *rec = (const void *)(e + 1);

	if (e->len < sizeof(*rec))
		return false;
	if (rec->type == FMT_REC_BLOCKS)
		return blocks_are_sane((const void *)rec, e->len);
	return e->type == ENTRY_RECORD && rec->type == FMT_REC_ALLOC &&
	       get_le16(rec->len_bytes) == e->len && fmt_record_check(rec, e->len) == 0;
}

int ring_old_next(struct ring_old *old, struct ring_entry_view *ret_view)
{
	uint8_t *entries = (uint8_t *)old->shm.base + RING_HEADER_BYTES;

	if (old->head < old->at || old->head - old->at > RING_ENTRY_BYTES || old->at % 8)
		return -E_FORMAT;
	while (old->at < old->head) {
		uint64_t to_end = RING_ENTRY_BYTES - old->at % RING_ENTRY_BYTES, lsn;
		struct ring_entry *e = ring_entry_at(entries, old->at);

		if (to_end < ENTRY_HEADER) {
			old->at += to_end;
			continue;
		}
		if (ring_entry_size(e->len) > MIN(to_end, old->head - old->at) ||
		    e->crc != ring_entry_crc(e, old->at) ||
		    !word_open(atomic_load_explicit(&e->lsn, memory_order_acquire), &lsn))
			return -E_FORMAT;
		old->at += ring_entry_size(e->len);
		if (e->type == ENTRY_GAP)
			continue;
		if ((e->type != ENTRY_RECORD && e->type != ENTRY_INTENT) || !record_is_sane(e))
			return -E_FORMAT;
		if (lsn & LSN_ABORTED)
			continue;
		ret_view->is_pending = e->type == ENTRY_INTENT && lsn == 0;
		ret_view->rec = (const void *)(e + 1);
		return 1;
	}
	return 0;
}

uint64_t ring_adopt(struct device *dev, const struct ring_entry_view *view)
{
	return ring_put(&dev->ring, view->is_pending ? ENTRY_INTENT : ENTRY_RECORD, view->rec,
			get_le16(view->rec->len_bytes));
}

uint64_t ring_adopted_bytes(const struct ring_entry_view *view)
{
	return ring_entry_size(get_le16(view->rec->len_bytes));
}
