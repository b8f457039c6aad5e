/* SPDX-License-Identifier: Apache-2.0 */
#include "metadata/san/idtab.h"

#include <errno.h>
#include <string.h>

#include "src/base/check.h"
#include "src/base/mem.h"

int idtab_reserve(struct idtab *t)
{
	struct idtab_item *items;
	uint32_t max = t->max ? t->max * 2 : 16;

	if (t->n < t->max)
		return 0;
	items = mem_realloc(t->items, max, sizeof(items[0]));
	if (!items)
		return -ENOMEM;
	t->items = items;
	t->max = max;
	return 0;
}

/* Index of the first item with an id not below this one. */
static uint32_t find(const struct idtab *t, uint32_t id)
{
	uint32_t lo = 0, hi = t->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (t->items[mid].id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

void idtab_add(struct idtab *t, uint32_t id, void *p)
{
	uint32_t at = find(t, id);

	check(t->n < t->max);
	check(at == t->n || t->items[at].id != id);
	memmove(&t->items[at + 1], &t->items[at], (t->n - at) * sizeof(t->items[0]));
	t->items[at] = (struct idtab_item){id, p};
	t->n++;
}

void idtab_del(struct idtab *t, uint32_t id)
{
	uint32_t at = find(t, id);

	check(at < t->n && t->items[at].id == id);
	t->n--;
	memmove(&t->items[at], &t->items[at + 1], (t->n - at) * sizeof(t->items[0]));
}

void *idtab_get(const struct idtab *t, uint32_t id)
{
	uint32_t at = find(t, id);

	return at < t->n && t->items[at].id == id ? t->items[at].thing : NULL;
}

void *idtab_above(const struct idtab *t, uint32_t after)
{
	uint32_t at = after == UINT32_MAX ? t->n : find(t, after + 1);

	return at < t->n ? t->items[at].thing : NULL;
}

void idtab_free(struct idtab *t)
{
	mem_free(t->items);
	*t = (struct idtab){NULL, 0, 0};
}
