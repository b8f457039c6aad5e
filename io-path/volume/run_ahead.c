/* SPDX-License-Identifier: Apache-2.0 */
/* run_ahead.c - mapping chunks ahead of a sequential writer, so that it does not wait for the metadata server.
 *
 * The writer is recognised by what it needs mapped: chunk after chunk. The third in a row gets a window of two chunks reserved
 * in the same commit; the window doubles up to the limit. Reserved chunks hold nothing acknowledged: for readers they are
 * unmapped, and a writer that arrives writes at once but is acknowledged only with the commit that makes the chunk its own
 * (op_write.c).
 *
 * Leftovers. A reserved chunk that a predecessor had, or in which a write of ours began, may hold what was never acknowledged: of a process that was
 * killed, or of a write whose commit failed. Readers see that, as the next writer there makes it the client's, and what somebody has read must
 * not change by that. It is returned only when it is empty.
 *
 * Returned, through reclaim.c: when nobody followed for idle_ns, when the writer went elsewhere and another needs the room,
 * when the pool is full, and at close. */
#include "io-path/volume/runtime.h"

enum { STREAK_MIN = 2 }; /* chunks in a row before the present one */

static void forget_at(struct vol_run_ahead *a, uint32_t i)
{
	a->chunks[i] = a->chunks[--a->n];
}

static bool find(const struct vol_run_ahead *a, uint32_t chunk, uint32_t *ret_i)
{
	for (uint32_t i = 0; i < a->n; i++)
		if (a->chunks[i] == chunk) {
			*ret_i = i;
			return true;
		}
	return false;
}

bool run_ahead_has(const struct volume *v, uint32_t chunk)
{
	uint32_t i;

	return find(&v->ahead, chunk, &i);
}

/* ---- the writer ------------------------------------------------------------------------------------------------------- */

void run_ahead_asked(struct volume *v, uint32_t chunk)
{
	struct vol_run_ahead *a = &v->ahead;

	if (chunk == a->last + 1) {
		a->streak++;
	} else if (chunk > a->last ||
		   a->last - chunk > RUNAHEAD_MAX) { /* else: a late one of the same writer */
		a->streak = 0;
		a->window = 0;
	} else {
		return;
	}
	a->last = chunk;
}

/* Gives back what is not in the present window. */
static void return_elsewhere(struct volume *v)
{
	struct vol_run_ahead *a = &v->ahead;

	for (uint32_t i = 0; i < a->n;) {
		uint32_t chunk = a->chunks[i];

		if (chunk > a->last && chunk - a->last <= a->window) {
			i++;
			continue;
		}
		forget_at(a, i);
		reclaim_add(v, chunk);
	}
}

uint32_t run_ahead_choose(struct volume *v, uint32_t max, uint32_t *ret_chunks)
{
	uint32_t limit = v->vs->limits.runahead_chunks, chunks_n = volume_chunks_n(v), n = 0;
	struct vol_run_ahead *a = &v->ahead;
	uint64_t now_ns = ioe_now_ns(v->vs->ioe);

	if (a->streak < STREAK_MIN || limit == 0 || now_ns < a->off_ns || v->state != VOLUME_OPEN ||
	    v->gone)
		return 0;
	a->window = a->window == 0 ? 2 : 2 * a->window;
	if (a->window > limit)
		a->window = limit;
	if (a->n + a->window > limit)
		return_elsewhere(v);
	for (uint32_t c = a->last + 1; c - a->last <= a->window && c < chunks_n && n < max; c++) {
		struct map_page *p = map_page_find(v, c);
		const struct map_below *below;

		if (a->n + n >= limit || !p)
			break;
		/* only where nothing is: a zero entry or an ancestor may be about to change under its lock */
		if (map_head(p, c)->kind != MAP_UNMAPPED ||
		    map_head(p, c)->flags & MAP_ITEM_BATCHED || map_below(p, c, &below) > 0)
			continue;
		map_pin(p);
		ret_chunks[n++] = c;
	}
	return n;
}

void run_ahead_got(struct volume *v, uint32_t chunk)
{
	struct vol_run_ahead *a = &v->ahead;

	check(a->n < RUNAHEAD_MAX);
	a->chunks[a->n++] = chunk;
	a->used_ns = ioe_now_ns(v->vs->ioe);
	v->stats.runahead_chunks++;
	volume_timer_want(v, a->used_ns + v->vs->limits.idle_ns);
}

void run_ahead_used(struct volume *v, uint32_t chunk)
{
	struct vol_run_ahead *a = &v->ahead;
	uint32_t i;

	if (!find(a, chunk, &i))
		return;
	forget_at(a, i);
	a->used_ns = ioe_now_ns(v->vs->ioe);
}

/* ---- giving back ------------------------------------------------------------------------------------------------------ */

void run_ahead_pause(struct volume *v)
{
	v->ahead.off_ns = ioe_now_ns(v->vs->ioe) + v->vs->limits.idle_ns;
}

bool run_ahead_return(struct volume *v)
{
	struct vol_run_ahead *a = &v->ahead;
	bool some = a->n > 0;

	while (a->n > 0)
		reclaim_add(v, a->chunks[--a->n]);
	a->streak = a->window = 0;
	return some;
}

void run_ahead_tick(struct volume *v, uint64_t now_ns)
{
	struct vol_run_ahead *a = &v->ahead;
	uint64_t due_ns = a->used_ns + v->vs->limits.idle_ns;

	if (a->n == 0)
		return;
	if (now_ns >= due_ns)
		run_ahead_return(v);
	else
		volume_timer_want(v, due_ns);
}
