/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/mem_arena.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "src/base/hash.h"
#include "src/base/mem.h"

/* What is noted of one allocation. From the host's allocator, as is the table: mem.h is what is being watched. */
struct note {
	struct note *next; /* in its bucket */
	struct list link;  /* in its arena */
	struct mem_arena *arena;
	void *p;
};

enum { BUCKETS_N = 1 << 14 };
static struct note *buckets[BUCKETS_N];
static struct mem_arena *in_use;
static size_t notes_n;

static struct note **bucket_of(const void *p)
{
	return &buckets[hash_u64((uint64_t)(uintptr_t)p) % BUCKETS_N];
}

static void on_made(void *p)
{
	struct note *n;

	if (!in_use)
		return;
	n = malloc(sizeof(*n));
	check(n);
	*n = (struct note){.next = *bucket_of(p), .arena = in_use, .p = p};
	*bucket_of(p) = n;
	list_push(&in_use->notes, &n->link);
	in_use->live++;
	notes_n++;
}

static void on_freed(void *p)
{
	for (struct note **at = bucket_of(p); *at; at = &(*at)->next) {
		struct note *n = *at;

		if (n->p != p)
			continue;
		*at = n->next;
		list_del(&n->link);
		n->arena->live--;
		free(n);
		notes_n--;
		return;
	}
}

static const struct mem_watch watch = {.made = on_made, .freed = on_freed};

void mem_arena_init(struct mem_arena *a)
{
	*a = (struct mem_arena){0};
	list_init(&a->notes);
}

struct mem_arena *mem_arena_use(struct mem_arena *a)
{
	struct mem_arena *before = in_use;

	in_use = a;
	mem_watch(in_use || notes_n ? &watch : NULL);
	return before;
}

void mem_arena_drop(struct mem_arena *a)
{
	while (!list_empty(&a->notes))
		mem_free(list_first(&a->notes, struct note, link)->p);
	check(a->live == 0);
}
