/* SPDX-License-Identifier: Apache-2.0 */
/* sim_event.c - the queue of events: a heap of four children per node, ordered by (time, sequence number), and the trace. */
#include "src/base/bytes.h"
#include "src/base/hash.h"
#include "src/base/math.h"
#include "src/ioe/sim.h"

enum { CHILDREN = 4 };

static bool is_before(const struct sim_due *a, const struct sim_due *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

static void heap_put(struct sim_queue *q, size_t slot, struct sim_due due)
{
	q->heap[slot] = due;
	due.ev->slot = slot;
}

/* Node i has the children 4i-2 .. 4i+1. */
static void heap_up(struct sim_queue *q, size_t slot, struct sim_due due)
{
	for (size_t parent; slot > 1; slot = parent) {
		parent = (slot + CHILDREN - 2) / CHILDREN;
		if (!is_before(&due, &q->heap[parent]))
			break;
		heap_put(q, slot, q->heap[parent]);
	}
	heap_put(q, slot, due);
}

static void heap_down(struct sim_queue *q, size_t slot, struct sim_due due)
{
	for (;;) {
		size_t first = slot * CHILDREN - (CHILDREN - 2), least = slot;

		for (size_t c = first; c < first + CHILDREN && c <= q->n; c++)
			if (is_before(&q->heap[c], least == slot ? &due : &q->heap[least]))
				least = c;
		if (least == slot)
			break;
		heap_put(q, slot, q->heap[least]);
		slot = least;
	}
	heap_put(q, slot, due);
}

static void heap_remove(struct sim_queue *q, size_t slot)
{
	struct sim_due last = q->heap[q->n--];

	q->heap[slot].ev->slot = 0;
	if (slot > q->n)
		return;
	if (slot > 1 && is_before(&last, &q->heap[(slot + CHILDREN - 2) / CHILDREN]))
		heap_up(q, slot, last);
	else
		heap_down(q, slot, last);
}

void sim_schedule(struct sim_world *w, struct sim_event *ev, uint64_t at_ns)
{
	struct sim_queue *q = &w->queue;

	check(!sim_is_scheduled(ev));
	if (q->n + 1 >= q->room) {
		q->room = q->room ? q->room * 2 : 64;
		q->heap = sim_grow(q->heap, q->room, sizeof(q->heap[0]));
	}
	q->n++;
	heap_up(q, q->n,
		(struct sim_due){.at_ns = MAX(at_ns, w->now_ns), .seq = ++q->seq, .ev = ev});
}

void sim_unschedule(struct sim_world *w, struct sim_event *ev)
{
	if (sim_is_scheduled(ev))
		heap_remove(&w->queue, ev->slot);
}

struct sim_event *sim_queue_pop(struct sim_queue *q, uint64_t *ret_at_ns)
{
	struct sim_due due;

	if (q->n == 0)
		return NULL;
	due = q->heap[1];
	heap_remove(q, 1);
	*ret_at_ns = due.at_ns;
	return due.ev;
}

/* ---- the trace -------------------------------------------------------------------------------------------------------- */

static void trace_mix(struct sim_world *w, uint64_t x)
{
	w->trace_hash = hash_u64(w->trace_hash ^ x);
}

void sim_note(struct sim_world *w, const char *what, const struct sim_proc *p, const char *path,
	      uint64_t off, uint64_t len, int status)
{
	struct sim_trace t = {.at_ns = w->now_ns,
			      .what = what,
			      .machine = p ? p->m->name : "",
			      .process = p ? p->name : "",
			      .path = path ? path : "",
			      .off = off,
			      .len = len,
			      .status = status};
	uint64_t word = 0;

	memcpy(&word, what, strnlen(what, sizeof(word)));
	trace_mix(w, word);
	trace_mix(w, w->now_ns);
	trace_mix(w, p ? p->pid : 0);
	trace_mix(w, off);
	trace_mix(w, len ^ (uint64_t)(uint32_t)status << 32);
	if (w->trace)
		w->trace(w->trace_arg, &t);
}

uint64_t sim_trace_hash(struct sim_world *w)
{
	return w->trace_hash;
}

void sim_trace_set(struct sim_world *w, void (*fn)(void *arg, const struct sim_trace *t), void *arg)
{
	w->trace = fn;
	w->trace_arg = arg;
}
