/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/device/pins.h"

#include "src/base/math.h"

static struct list *bucket_of(struct pins *p, uint64_t stretch)
{
	return &p->buckets[stretch % PINS_BUCKETS];
}

void pins_init(struct pins *p, uint32_t ring_blocks, uint64_t tail)
{
	p->stretch_blocks = MAX(1U, ring_blocks / PINS_STRETCHES);
	p->tail = tail;
	p->low = tail / p->stretch_blocks;
	for (int i = 0; i < PINS_BUCKETS; i++)
		list_init(&p->buckets[i]);
}

void pin_init(struct pin *pin, enum pin_kind kind)
{
	list_init(&pin->link);
	pin->lsn = 0;
	pin->kind = kind;
}

static void pin_set(struct pins *p, struct pin *pin, uint64_t lsn);

void pin_need(struct pins *p, struct pin *pin, uint64_t lsn)
{
	if (pin->lsn == 0 || lsn < pin->lsn)
		pin_set(p, pin, lsn);
}

/* A page is copied "from" the first block that is not complete. Its own oldest record may be younger, and the tail past that block. */
void pin_move(struct pins *p, struct pin *pin, uint64_t lsn)
{
	pin_set(p, pin, lsn ? MAX(lsn, pin->lsn) : 0);
}

static void pin_set(struct pins *p, struct pin *pin, uint64_t lsn)
{
	uint64_t stretch = lsn / p->stretch_blocks;

	list_del(&pin->link);
	pin->lsn = lsn;
	if (lsn == 0)
		return;
	check(lsn >= p->tail && stretch >= p->low && stretch < p->low + PINS_BUCKETS);
	list_push(bucket_of(p, stretch), &pin->link);
}

uint64_t pins_tail(struct pins *p, uint64_t limit)
{
	uint64_t last = limit / p->stretch_blocks;

	while (p->low < last && list_empty(bucket_of(p, p->low)))
		p->low++;
	if (p->low < last || !list_empty(bucket_of(p, p->low)))
		limit = MIN(limit, p->low * p->stretch_blocks);
	return p->tail = MAX(p->tail, limit);
}

void pins_each_below(struct pins *p, uint64_t lsn, bool (*fn)(void *arg, struct pin *pin), void *arg)
{
	for (uint64_t s = p->low; s * p->stretch_blocks < lsn && s < p->low + PINS_BUCKETS; s++)
		list_for_each_safe (l, tmp, bucket_of(p, s)) {
			struct pin *pin = list_entry(l, struct pin, link);

			if (pin->lsn < lsn && !fn(arg, pin))
				return;
		}
}
