/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/hash.h"

#include <errno.h>

#include "src/base/check.h"
#include "src/base/mem.h"

uint64_t hash_bytes(const void *data, size_t len_bytes)
{
	const uint8_t *p = data;
	uint64_t h = 0xcbf29ce484222325ULL;

	for (size_t i = 0; i < len_bytes; i++)
		h = (h ^ p[i]) * 0x100000001b3ULL;
	return hash_u64(h);
}

int htab_init(struct htab *t, uint64_t buckets_min)
{
	uint64_t n = 8;

	while (n < buckets_min && n <= SIZE_MAX / 2)
		n *= 2;
	if (n < buckets_min)
		return -ENOMEM;
	t->buckets = mem_zalloc_array(n, sizeof(t->buckets[0]));
	if (!t->buckets)
		return -ENOMEM;
	t->mask = n - 1;
	t->count = 0;
	return 0;
}

void htab_free(struct htab *t)
{
	mem_free(t->buckets);
	t->buckets = NULL;
}

static void put(struct hnode **buckets, uint64_t mask, struct hnode *n)
{
	struct hnode **b = &buckets[hash_u64(n->key) & mask];

	n->next = *b;
	*b = n;
}

static void grow(struct htab *t)
{
	uint64_t mask = t->mask * 2 + 1;
	struct hnode **buckets = mem_zalloc_array(mask + 1, sizeof(buckets[0]));

	if (!buckets)
		return;
	for (uint64_t i = 0; i <= t->mask; i++) {
		for (struct hnode *n = t->buckets[i], *next; n; n = next) {
			next = n->next;
			put(buckets, mask, n);
		}
	}
	mem_free(t->buckets);
	t->buckets = buckets;
	t->mask = mask;
}

void htab_add(struct htab *t, struct hnode *n, uint64_t key)
{
	if (t->count > t->mask)
		grow(t);
	n->key = key;
	put(t->buckets, t->mask, n);
	t->count++;
}

void htab_del(struct htab *t, struct hnode *n)
{
	struct hnode **p = &t->buckets[hash_u64(n->key) & t->mask];

	while (*p && *p != n)
		p = &(*p)->next;
	check(*p == n);
	*p = n->next;
	n->next = NULL;
	t->count--;
}
