/* SPDX-License-Identifier: Apache-2.0 */
/* hash.h - intrusive hash table from 64-bit keys. The caller owns the nodes; the table owns its bucket array.
 *
 * Keys that are not 64-bit integers (names, uuids) go in by hash_bytes() and the caller compares the rest while it walks
 * htab_for_each_key. Not for keys an attacker chooses without limit: bound the number of entries. */
#ifndef STRATA_BASE_HASH_H
#define STRATA_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct hnode {
	struct hnode *next;
	uint64_t key;
};

struct htab {
	struct hnode **buckets;
	uint64_t mask; /* number of buckets - 1; a power of two */
	uint64_t count;
};

static inline uint64_t hash_u64(uint64_t x)
{
	x ^= x >> 32;
	x *= 0x9e3779b97f4a7c15ULL;
	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 32;
	return x;
}

uint64_t hash_bytes(const void *data, size_t len_bytes); /* FNV-1a, finished by hash_u64 */

int htab_init(struct htab *t, uint64_t buckets_min); /* 0 or -ENOMEM */
void htab_free(struct htab *t);			     /* the nodes stay the caller's */

/* Adds n under key. Never fails: when growing the bucket array fails, chains just get longer. Duplicates are the caller's affair. */
void htab_add(struct htab *t, struct hnode *n, uint64_t key);
void htab_del(struct htab *t, struct hnode *n); /* n must be in t */

static inline struct hnode *htab_next_same(struct hnode *n, uint64_t key)
{
	while (n && n->key != key)
		n = n->next;
	return n;
}

/* First node with this key, or NULL. */
static inline struct hnode *htab_find(const struct htab *t, uint64_t key)
{
	return htab_next_same(t->buckets[hash_u64(key) & t->mask], key);
}

#define htab_for_each_key(n, t, k) \
	for (struct hnode *n = htab_find(t, k); n; n = htab_next_same(n->next, k))

/* Every node; the body may delete (and free) the current one but nothing else. */
#define htab_for_each(n, t)                                                                    \
	for (uint64_t i_##n = 0; i_##n <= (t)->mask; i_##n++)                                  \
		for (struct hnode *n = (t)->buckets[i_##n], *next_##n = n ? n->next : NULL; n; \
		     n = next_##n, next_##n = n ? n->next : NULL)

#endif
