/* SPDX-License-Identifier: Apache-2.0 */
/* space.c - the slots of devices: which are free, used, freeing.
 *
 * Resident: three bits a slot. A device that nobody uses has no pages in the database; a page whose slots are all free is deleted. */
#include <string.h>

#include "metadata/san/place.h"
#include "metadata/san/state.h"
#include "src/base/bytes.h"
#include "src/base/check.h"
#include "src/base/math.h"
#include "src/base/mem.h"

/* ---- pages as part of a batch ----------------------------------------------------------------------------------------------- */

size_t space_encode(const struct space_page *p, const struct schema_key *k, uint8_t *out)
{
	size_t at = (size_t)p->no * SCHEMA_SPACE_WORDS;

	return schema_space_encode(p->dev->used + at, p->dev->freeing + at, k, out);
}

static void space_emit(struct san *s, struct txn_obj *o)
{
	struct space_page *p = container_of(o, struct space_page, obj);
	struct schema_key k = schema_key_dev_32(SCHEMA_SPACE, p->dev->no, p->no);
	size_t at = (size_t)p->no * SCHEMA_SPACE_WORDS;

	if (bytes_are_zero(p->dev->used + at, SCHEMA_SPACE_SLOTS / 8) &&
	    bytes_are_zero(p->dev->freeing + at, SCHEMA_SPACE_SLOTS / 8))
		txn_delete(s, &k);
	else
		txn_put(s, &k, space_encode(p, &k, txn_value(s)));
}

static const struct txn_obj_type space_type = {.is_page = true, .emit = space_emit};

/* ---- life ----------------------------------------------------------------------------------------------------------------- */

static int bits_grow(uint64_t **bits, size_t words_old, size_t words)
{
	uint64_t *p = mem_realloc(*bits, words, sizeof(p[0]));

	if (!p)
		return -ENOMEM;
	memset(p + words_old, 0, (words - words_old) * sizeof(p[0]));
	*bits = p;
	return 0;
}

/* Never while one of the pages is part of a batch: they move. */
int san_device_grow(struct device *d, uint32_t slots_n)
{
	uint32_t pages_n = (uint32_t)div_up(slots_n, SCHEMA_SPACE_SLOTS);
	size_t old = (size_t)d->pages_n * SCHEMA_SPACE_WORDS;
	size_t words = (size_t)pages_n * SCHEMA_SPACE_WORDS;
	struct space_page *pages;

	if (pages_n > d->pages_n) {
		if (bits_grow(&d->used, old, words) || bits_grow(&d->freeing, old, words) ||
		    bits_grow(&d->held, old, words))
			return -ENOMEM;
		pages = mem_zalloc_array(pages_n, sizeof(pages[0]));
		if (!pages)
			return -ENOMEM;
		for (uint32_t i = 0; i < pages_n; i++)
			pages[i] =
			    i < d->pages_n
				? d->pages[i]
				: (struct space_page){.obj.type = &space_type, .dev = d, .no = i};
		mem_free(d->pages);
		d->pages = pages;
		d->pages_n = pages_n;
	}
	d->slots_n = slots_n;
	return 0;
}

int space_load(struct device *d, uint32_t page, struct metastore_bytes key,
	       struct metastore_bytes value)
{
	size_t at = (size_t)page * SCHEMA_SPACE_WORDS;
	uint32_t used_n = 0, freeing_n = 0;
	int r;

	if (page >= d->pages_n)
		return -E_FORMAT;
	r = schema_space_decode(key, value, d->used + at, d->freeing + at);
	if (r)
		return r;
	for (uint32_t i = 0; i < SCHEMA_SPACE_WORDS; i++) {
		used_n += (uint32_t)__builtin_popcountll(d->used[at + i]);
		freeing_n += (uint32_t)__builtin_popcountll(d->freeing[at + i]);
	}
	for (uint32_t i = d->slots_n; i < (page + 1) * SCHEMA_SPACE_SLOTS; i++)
		if (i / SCHEMA_SPACE_SLOTS == page &&
		    (bit_get(d->used, i) || bit_get(d->freeing, i)))
			return -E_FORMAT;
	d->pages[page].taken_n = used_n + freeing_n;
	d->used_n += used_n;
	d->freeing_n += freeing_n;
	return 0;
}

/* ---- where to -------------------------------------------------------------------------------------------------------------- */

static uint32_t usable_free_n(const struct device *d)
{
	return d->usable && d->lose_job == 0 ? device_free_n(d) : 0;
}

uint64_t pool_free_usable(const struct pool *p)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < p->devices_n; i++)
		n += usable_free_n(p->devices[i]);
	return n;
}

static uint32_t page_slots(const struct device *d, uint32_t page)
{
	return MIN((uint32_t)SCHEMA_SPACE_SLOTS, d->slots_n - page * SCHEMA_SPACE_SLOTS);
}

/* The first free slot of the page at or behind `from`; UINT32_MAX: none. */
static uint32_t page_search(const struct device *d, uint32_t page, uint32_t from)
{
	uint32_t end = page * SCHEMA_SPACE_SLOTS + page_slots(d, page);

	for (uint32_t w = from / 64; w * 64 < end; w++) {
		uint64_t free_bits = ~(d->used[w] | d->freeing[w] | d->held[w]);
		uint32_t slot;

		if (w == from / 64)
			free_bits &= ~0ULL << (from % 64);
		if (!free_bits)
			continue;
		slot = w * 64 + (uint32_t)__builtin_ctzll(free_bits);
		return slot < end ? slot : UINT32_MAX;
	}
	return UINT32_MAX;
}

/* There is a free one. The cursor goes round, so slots are handed out in address order and a freed one rests for a while. */
static uint32_t device_search(const struct device *d)
{
	uint32_t first = d->cursor / SCHEMA_SPACE_SLOTS;

	for (uint32_t i = 0; i <= d->pages_n; i++) {
		uint32_t page = (first + i) % d->pages_n;
		uint32_t from = i == 0 ? d->cursor : page * SCHEMA_SPACE_SLOTS;
		uint32_t slot;

		if (d->pages[page].taken_n == page_slots(d, page))
			continue;
		slot = page_search(d, page, from);
		if (slot != UINT32_MAX)
			return slot;
	}
	check_unreachable("a device with free slots has none");
}

int space_pick(struct pool *p, uint64_t point, struct device **ret_d, uint32_t *ret_slot)
{
	int i;

	for (uint32_t j = 0; j < p->devices_n; j++)
		p->free_n[j] = usable_free_n(p->devices[j]);
	i = place_pick(p->free_n, p->devices_n, point);
	if (i < 0)
		return i;
	*ret_d = p->devices[i];
	*ret_slot = device_search(*ret_d);
	return 0;
}

/* ---- states ---------------------------------------------------------------------------------------------------------------- */

static struct space_page *change(struct san *s, struct device *d, uint32_t slot)
{
	struct space_page *p = space_page_of(d, slot);

	txn_mark(s, &p->obj);
	check_touched(s, d, slot);
	return p;
}

void space_use(struct san *s, struct device *d, uint32_t slot)
{
	check(!bit_get(d->used, slot) && !bit_get(d->freeing, slot) && !bit_get(d->held, slot));
	bit_set(d->used, slot);
	d->used_n++;
	change(s, d, slot)->taken_n++;
	d->cursor = slot + 1 < d->slots_n ? slot + 1 : 0;
}

void space_unmap(struct san *s, struct device *d, uint32_t slot)
{
	check(bit_get(d->used, slot));
	bit_clear(d->used, slot);
	d->used_n--;
	bit_set(d->freeing, slot);
	d->freeing_n++;
	change(s, d, slot);
}

void space_freed(struct san *s, struct device *d, uint32_t slot)
{
	struct txn *t = &s->txn;

	check(bit_get(d->freeing, slot));
	check(t->freed_n < METASTORE_BATCH_MAX);
	bit_clear(d->freeing, slot);
	d->freeing_n--;
	bit_set(d->held, slot);
	d->held_n++;
	change(s, d, slot);
	t->freed[t->freed_n].dev = d;
	t->freed[t->freed_n++].slot = slot;
}

void space_abandon(struct san *s, struct device *d, uint32_t slot)
{
	check(d->lose_job != 0 && bit_get(d->used, slot));
	bit_clear(d->used, slot);
	d->used_n--;
	change(s, d, slot)->taken_n--;
}

void space_committed(struct san *s)
{
	struct txn *t = &s->txn;

	for (uint32_t i = 0; i < t->freed_n; i++) {
		struct device *d = t->freed[i].dev;

		bit_clear(d->held, t->freed[i].slot);
		d->held_n--;
		space_page_of(d, t->freed[i].slot)->taken_n--;
		s->stats.frees++;
	}
}

int san_slot_state(const struct san *s, device_no dev, uint32_t slot, enum san_slot_state *ret_state)
{
	const struct device *d = san_device_of(s, dev);

	if (!d)
		return -ENOENT;
	if (slot >= d->slots_n)
		return -ERANGE;
	*ret_state = bit_get(d->used, slot)	 ? SAN_SLOT_USED
		     : bit_get(d->freeing, slot) ? SAN_SLOT_FREEING
						 : SAN_SLOT_FREE;
	return 0;
}
