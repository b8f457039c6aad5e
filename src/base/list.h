/* SPDX-License-Identifier: Apache-2.0 */
/* list.h - intrusive doubly linked ring, as in the kernel. A link that is in no list points to itself. */
#ifndef STRATA_BASE_LIST_H
#define STRATA_BASE_LIST_H

#include <stdbool.h>

#include "src/base/check.h"

struct list {
	struct list *next, *prev;
};

#define LIST_INIT(name)          \
	{                        \
		&(name), &(name) \
	}

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_insert_(struct list *prev, struct list *next, struct list *n)
{
	n->prev = prev;
	n->next = next;
	prev->next = n;
	next->prev = n;
}

/* Appends n, which must be in no list, before the head: last in order. */
static inline void list_push(struct list *head, struct list *n)
{
	list_insert_(head->prev, head, n);
}

static inline void list_push_front(struct list *head, struct list *n)
{
	list_insert_(head, head->next, n);
}

/* Takes n out of its list and leaves it initialised; harmless on a link that is in none. */
static inline void list_del(struct list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	list_init(n);
}

/* Removes and returns the first link, NULL when empty. */
static inline struct list *list_pop(struct list *head)
{
	struct list *n = head->next;

	if (n == head)
		return NULL;
	list_del(n);
	return n;
}

/* Moves everything of `from` behind the last of `to`; `from` ends empty. */
static inline void list_splice(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#define list_entry(ptr, type, member)  container_of(ptr, type, member)
#define list_first(head, type, member) list_entry((head)->next, type, member)
#define list_for_each(pos, head) \
	for (struct list *pos = (head)->next; pos != (head); pos = pos->next)
/* the body may remove pos */
#define list_for_each_safe(pos, tmp, head)                                     \
	for (struct list *pos = (head)->next, *tmp = pos->next; pos != (head); \
	     pos = tmp, tmp = tmp->next)

#endif
