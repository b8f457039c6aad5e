/* SPDX-License-Identifier: Apache-2.0 */
#include "src/ioe/timers.h"

static bool before(const struct ioe_req *a, const struct ioe_req *b)
{
	if (a->deadline_ns != b->deadline_ns)
		return a->deadline_ns < b->deadline_ns;
	return a->heap.seq < b->heap.seq;
}

static struct ioe_req *req_of(struct list *link)
{
	return list_entry(link, struct ioe_req, link);
}

/* Joins two heaps: the later root becomes a child of the earlier. */
static struct ioe_req *join(struct ioe_req *a, struct ioe_req *b)
{
	struct ioe_req *later = before(a, b) ? b : a;
	struct ioe_req *first = later == a ? b : a;

	list_push_front(&first->heap.kids, &later->link);
	return first;
}

/* Makes one heap of the children of a removed node: join neighbours in pairs, then the pairs from the last to the first. */
static struct ioe_req *join_all(struct list *kids)
{
	struct list pairs = LIST_INIT(pairs);
	struct ioe_req *root = NULL;
	struct list *a, *b;

	while ((a = list_pop(kids))) {
		b = list_pop(kids);
		list_push_front(&pairs, b ? &join(req_of(a), req_of(b))->link : a);
	}
	while ((a = list_pop(&pairs)))
		root = root ? join(root, req_of(a)) : req_of(a);
	return root;
}

void timers_add(struct timers *t, struct ioe_req *r)
{
	list_init(&r->link);
	list_init(&r->heap.kids);
	r->heap.seq = t->seq++;
	t->root = t->root ? join(t->root, r) : r;
}

void timers_del(struct timers *t, struct ioe_req *r)
{
	struct ioe_req *below = join_all(&r->heap.kids);

	if (r == t->root) {
		t->root = below;
		return;
	}
	list_del(&r->link);
	if (below)
		t->root = join(t->root, below);
}

struct ioe_req *timers_take_due(struct timers *t, uint64_t now_ns)
{
	struct ioe_req *r = t->root;

	if (!r || r->deadline_ns > now_ns)
		return NULL;
	timers_del(t, r);
	return r;
}
