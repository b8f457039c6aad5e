/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/volume/range_lock.h"

#include <stddef.h>

#include "src/base/check.h"
#include "src/base/math.h"

/* ---- the tree --------------------------------------------------------------------------------------------------------- */

static bool before(const struct range_entry *a, const struct range_entry *b)
{
	return a->first != b->first ? a->first < b->first : a->order < b->order;
}

static struct range_entry *summed(struct range_entry *t)
{
	uint64_t max = t->last;

	if (t->left && t->left->last_max > max)
		max = t->left->last_max;
	if (t->right && t->right->last_max > max)
		max = t->right->last_max;
	t->last_max = max;
	return t;
}

static void split(struct range_entry *t, const struct range_entry *at,
		  struct range_entry **ret_left, struct range_entry **ret_right)
{
	if (!t) {
		*ret_left = *ret_right = NULL;
	} else if (before(t, at)) {
		split(t->right, at, &t->right, ret_right);
		*ret_left = summed(t);
	} else {
		split(t->left, at, ret_left, &t->left);
		*ret_right = summed(t);
	}
}

static struct range_entry *insert(struct range_entry *t, struct range_entry *e)
{
	if (!t || e->order > t->order) {
		split(t, e, &e->left, &e->right);
		return summed(e);
	}
	if (before(e, t))
		t->left = insert(t->left, e);
	else
		t->right = insert(t->right, e);
	return summed(t);
}

static struct range_entry *merge(struct range_entry *a, struct range_entry *b)
{
	if (!a || !b)
		return a ? a : b;
	if (a->order > b->order) {
		a->right = merge(a->right, b);
		return summed(a);
	}
	b->left = merge(a, b->left);
	return summed(b);
}

static struct range_entry *removed(struct range_entry *t, struct range_entry *e)
{
	check(t);
	if (t == e)
		return merge(t->left, t->right);
	if (before(e, t))
		t->left = removed(t->left, e);
	else
		t->right = removed(t->right, e);
	return summed(t);
}

static bool conflicts(const struct range_entry *a, const struct range_entry *b)
{
	return (a->exclusive || b->exclusive) && a->first <= b->last && b->first <= a->last;
}

/* ---- taking ----------------------------------------------------------------------------------------------------------- */

static uint32_t blockers_of(const struct range_entry *t, const struct range_entry *e)
{
	uint32_t n = 0;

	for (; t && t->last_max >= e->first; t = t->right) {
		n += blockers_of(t->left, e);
		if (t->first > e->last)
			break;
		n += conflicts(t, e);
	}
	return n;
}

/* A bijection of 32-bit integers: entries present at the same time never share an order. */
static uint32_t scattered(uint32_t x)
{
	x ^= x >> 16;
	x *= 0x7feb352dU;
	x ^= x >> 15;
	x *= 0x846ca68bU;
	x ^= x >> 16;
	return x;
}

static void entry_init(struct range_lock *l, struct range_entry *e, uint64_t first, uint64_t last,
		       bool exclusive, void (*granted)(struct range_entry *e))
{
	check(first <= last);
	*e = (struct range_entry){.first = first,
				  .last = last,
				  .exclusive = exclusive,
				  .granted = granted,
				  .order = scattered(l->taken_n)};
	e->blockers = blockers_of(l->root, e);
}

static void entry_add(struct range_lock *l, struct range_entry *e)
{
	l->root = insert(l->root, e);
	l->taken_n++;
	l->entries_n++;
}

void range_lock_init(struct range_lock *l)
{
	*l = (struct range_lock){0};
}

bool range_lock_take(struct range_lock *l, struct range_entry *e, uint64_t first, uint64_t last,
		     bool exclusive, void (*granted)(struct range_entry *e))
{
	entry_init(l, e, first, last, exclusive, granted);
	entry_add(l, e);
	return e->blockers == 0;
}

bool range_lock_try(struct range_lock *l, struct range_entry *e, uint64_t first, uint64_t last,
		    bool exclusive)
{
	entry_init(l, e, first, last, exclusive, NULL);
	if (e->blockers)
		return false;
	entry_add(l, e);
	return true;
}

/* ---- releasing -------------------------------------------------------------------------------------------------------- */

/* Every entry that conflicts with a granted one is later than it: the earlier ones were released before it was granted. */
static void unblock(struct range_entry *t, const struct range_entry *e)
{
	for (; t && t->last_max >= e->first; t = t->right) {
		unblock(t->left, e);
		if (t->first > e->last)
			break;
		if (!conflicts(t, e))
			continue;
		check(t->blockers > 0);
		if (--t->blockers == 0)
			t->granted(t);
	}
}

void range_lock_release(struct range_lock *l, struct range_entry *e)
{
	check(e->blockers == 0 && l->entries_n > 0);
	l->root = removed(l->root, e);
	l->entries_n--;
	unblock(l->root, e);
}
