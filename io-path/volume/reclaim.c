/* SPDX-License-Identifier: Apache-2.0 */
/* reclaim.c - gives back, in the background, slots that hold nothing: those a CLEAR left without a present block, and run-ahead
 * that nobody followed.
 *
 *   candidate -> (reclaim_delay_ns) -> MAP* -> lock the whole chunk, or try later -> STATUS* -> empty: unmap* -> unlock
 *                                                              (run-ahead of our own needs no STATUS)
 *
 * The server frees the slot once the unmapping is committed. Clients that come meanwhile wait for the lock; for that it is only
 * taken when free, so that a client stuck on a device that is away cannot make others wait behind a job.
 *
 * What counts as empty: no block is present, and unmapping changes neither what is read nor what a client asked to keep. So all
 * blocks are holes; or, where they hide ancestors (or fill up a lost chunk), all are zeros. Zeros elsewhere were written with
 * NO_HOLE.
 *
 * A device that does not say is asked again, ever less often, until the volume is given up.
 *
 * Candidates are kept as ranges. When there are too many of these, two grow together over chunks that nobody named: those are
 * looked at in vain. */
#include "io-path/volume/runtime.h"
#include "src/base/math.h"
#include "src/base/mem.h"

enum { LOOKED_AT_MAX = 1024 }; /* candidates in one turn */
#define PAUSE_NS_MAX (10 * NS_PER_S)

struct reclaim_job {
	struct range_entry lock;
	struct volume *v;
	bool busy;
	struct map_item item;
	bool ancestors; /* would show through a hole */
	struct chunk_req cr;
	struct map_change change;
	uint8_t states[CHUNK_BLOCKS_MAX];
};

static void reclaim_run(struct vol_task *t);
static uint64_t pause_choose(struct volume *v);
static void reclaim_mapped(struct map_waiter *w, int status);
static bool job_start(struct volume *v, struct map_page *page, uint32_t chunk);
static void job_asked(struct chunk_req *cr);
static void job_again(struct reclaim_job *j);
static void job_unmap(struct reclaim_job *j, enum meta_change change);
static void job_unmapped(struct map_change *c, int status);
static void job_end(struct reclaim_job *j);

/* ---- candidates ------------------------------------------------------------------------------------------------------- */

static void ranges_add(struct reclaim_ranges *rs, uint32_t first, uint32_t last)
{
	uint32_t best = 0, best_gap = UINT32_MAX;

	for (uint32_t i = 0; i < rs->n; i++) {
		uint32_t gap = first > rs->r[i].last   ? first - rs->r[i].last
			       : rs->r[i].first > last ? rs->r[i].first - last
						       : 0;
		if (gap < best_gap) {
			best = i;
			best_gap = gap;
		}
	}
	if (best_gap > 1 && rs->n < RECLAIM_RANGES_MAX) {
		rs->r[rs->n].first = first;
		rs->r[rs->n++].last = last;
		return;
	}
	if (first < rs->r[best].first)
		rs->r[best].first = first;
	if (last > rs->r[best].last)
		rs->r[best].last = last;
}

static bool ranges_pop(struct reclaim_ranges *rs, uint32_t *ret_chunk)
{
	if (rs->n == 0)
		return false;
	*ret_chunk = rs->r[0].first;
	if (rs->r[0].first++ == rs->r[0].last)
		rs->r[0] = rs->r[--rs->n];
	return true;
}

void reclaim_init(struct volume *v)
{
	vol_task_init(&v->reclaim.task, reclaim_run);
}

void reclaim_free(struct volume *v)
{
	vol_task_cancel(&v->reclaim.task);
	mem_free(v->reclaim.jobs);
}

void reclaim_add(struct volume *v, uint32_t chunk)
{
	struct vol_reclaim *rc = &v->reclaim;
	uint64_t due_ns = ioe_now_ns(v->vs->ioe) + v->vs->limits.reclaim_delay_ns;

	ranges_add(&rc->todo, chunk, chunk);
	if (rc->due_ns == 0 || rc->due_ns > due_ns)
		rc->due_ns = due_ns;
	volume_timer_want(v, rc->due_ns);
}

void reclaim_now(struct volume *v)
{
	if (v->reclaim.todo.n == 0)
		return;
	v->reclaim.due_ns = 1;
	vol_task_add(v->vs, &v->reclaim.task);
}

/* The volume is not ours any more. What is under way ends by itself. */
void reclaim_forget(struct volume *v)
{
	v->reclaim.todo.n = v->reclaim.later.n = 0;
	v->reclaim.due_ns = 0;
}

bool reclaim_is_idle(const struct volume *v)
{
	const struct vol_reclaim *rc = &v->reclaim;

	return rc->todo.n == 0 && rc->later.n == 0 && rc->jobs_n == 0 && !rc->waiting;
}

void reclaim_tick(struct volume *v, uint64_t now_ns)
{
	struct vol_reclaim *rc = &v->reclaim;

	if (rc->due_ns == 0)
		return;
	if (now_ns >= rc->due_ns)
		vol_task_add(v->vs, &rc->task);
	else
		volume_timer_want(v, rc->due_ns);
}

/* ---- looking at them -------------------------------------------------------------------------------------------------- */

static void reclaim_run(struct vol_task *t)
{
	struct vol_reclaim *rc = container_of(t, struct vol_reclaim, task);
	struct volume *v = container_of(rc, struct volume, reclaim);
	uint32_t chunk;

	if (rc->due_ns > ioe_now_ns(v->vs->ioe)) /* the jobs that ended were the last pass's */
		return;
	if (!rc->jobs && rc->todo.n)
		rc->jobs = mem_zalloc_array(RECLAIM_JOBS_MAX, sizeof(rc->jobs[0]));
	for (int n = 0; rc->jobs && !rc->waiting && rc->jobs_n < RECLAIM_JOBS_MAX; n++) {
		struct map_page *page;

		if (n == LOOKED_AT_MAX) {
			vol_task_add(v->vs, t);
			return;
		}
		if (!ranges_pop(&rc->todo, &chunk))
			break;
		page = map_page_find(v, chunk);
		if (!page) {
			ranges_add(&rc->todo, chunk, chunk);
			rc->waiting = true;
			map_wait(v, chunk, &rc->wait, reclaim_mapped);
			return;
		}
		if (!job_start(v, page, chunk))
			ranges_add(&rc->later, chunk, chunk);
	}
	if (rc->todo.n > 0 && rc->jobs)
		return; /* job_end or reclaim_mapped goes on */
	rc->due_ns = 0;
	for (uint32_t i = 0; i < rc->later.n; i++)
		ranges_add(&rc->todo, rc->later.r[i].first, rc->later.r[i].last);
	rc->later.n = 0;
	if (rc->todo.n > 0) {
		rc->due_ns = ioe_now_ns(v->vs->ioe) + pause_choose(v);
		volume_timer_want(v, rc->due_ns);
	} else if (rc->jobs_n == 0) {
		rc->pause_ns = 0;
	}
	volume_drain_check(v);
}

/* How long those that are left wait: a moment for who uses them; longer and longer for a device that does not say. */
static uint64_t pause_choose(struct volume *v)
{
	struct vol_reclaim *rc = &v->reclaim;
	uint64_t delay_ns = v->vs->limits.reclaim_delay_ns;

	rc->pause_ns = rc->failed ? MIN(2 * MAX(rc->pause_ns, delay_ns), PAUSE_NS_MAX) : 0;
	rc->failed = false;
	return v->state == VOLUME_OPEN ? MAX(rc->pause_ns, delay_ns) : delay_ns;
}

static void reclaim_mapped(struct map_waiter *w, int status)
{
	struct vol_reclaim *rc = container_of(w, struct vol_reclaim, wait);

	rc->waiting = false;
	if (status) /* the map cannot be had: what is left stays mapped and empty */
		reclaim_forget(w->v);
	else
		vol_task_add(w->v->vs, &rc->task);
	volume_drain_check(w->v);
}

/* False: somebody uses the chunk, try again. */
static bool job_start(struct volume *v, struct map_page *page, uint32_t chunk)
{
	uint64_t block = (uint64_t)chunk << (v->chunk_shift - BLOCK_SHIFT);
	struct reclaim_job *j = v->reclaim.jobs;
	const struct map_item *head = map_head(page, chunk);
	const struct map_below *below;

	if (head->kind != MAP_OPEN || v->gone || chunk >= volume_chunks_n(v) ||
	    run_ahead_has(v, chunk))
		return true; /* nothing to give back, or not yet */
	while (j->busy)
		j++;
	if (head->flags & MAP_ITEM_BATCHED ||
	    !range_lock_try(&v->lock, &j->lock, block, block + v->chunk_blocks - 1, true))
		return false;
	j->busy = true;
	j->v = v;
	j->item = *head;
	j->ancestors =
	    map_below(page, chunk, &below) > 0 && !(head->flags & (MAP_OPAQUE | MAP_FULL));
	j->change.chunk = chunk;
	v->reclaim.jobs_n++;
	if (head->flags & MAP_ITEM_EMPTY) {
		job_unmap(j, META_UNMAP);
		return true;
	}
	j->cr = (struct chunk_req){
	    .op = CHUNK_STATUS,
	    .dev = head->dev,
	    .volume = v->id,
	    .slot = head->slot,
	    .cgen = head->cgen,
	    .epoch = v->epoch,
	    .layer = v->layers[0],
	    .chunk = chunk,
	    .blocks_n = (uint32_t)MIN(v->chunk_blocks, (v->size_bytes >> BLOCK_SHIFT) - block),
	    .states = j->states,
	    .done = job_asked,
	};
	chunk_store_submit(v->vs->store, &j->cr);
	return true;
}

/* Do all blocks of the volume in this chunk have the state? */
static bool all_are(const struct reclaim_job *j, enum block_state state)
{
	for (uint32_t i = 0; i < j->cr.blocks_n; i++)
		if (j->states[i] != state)
			return false;
	return true;
}

static void job_asked(struct chunk_req *cr)
{
	struct reclaim_job *j = container_of(cr, struct reclaim_job, cr);
	struct volume *v = j->v;
	bool full = j->item.flags & MAP_FULL;

	if (cr->status == -E_STALE_CGEN)
		map_refetch(v, cr->chunk);
	volume_gone_check(v, cr->status);
	if (cr->status)
		job_again(j);
	else if (cr->present_n > 0 || v->gone)
		job_end(j);
	else if (!full && all_are(j, BLOCK_HOLE))
		job_unmap(j, META_UNMAP);
	else if ((j->ancestors || full) && all_are(j, BLOCK_ZERO))
		job_unmap(j, full ? META_UNMAP : META_UNMAP_ZERO);
	else
		job_end(j);
}

/* A volume that is being given up, or was taken away, does not wait for it: what is mapped and empty then stays so until it is trimmed again. */
static void job_again(struct reclaim_job *j)
{
	struct volume *v = j->v;

	if (v->state == VOLUME_OPEN && !v->gone) {
		ranges_add(&v->reclaim.later, j->change.chunk, j->change.chunk);
		v->reclaim.failed = true;
	}
	job_end(j);
}

/* ---- giving back ------------------------------------------------------------------------------------------------------ */

static void job_unmap(struct reclaim_job *j, enum meta_change change)
{
	struct volume *v = j->v;
	struct map_page *page = map_page_find(v, j->change.chunk);

	if (!page || !map_item_same(map_head(page, j->change.chunk), &j->item)) {
		ranges_add(&v->reclaim.later, j->change.chunk,
			   j->change.chunk); /* evicted meanwhile, say */
		job_end(j);
		return;
	}
	j->change.change = change;
	j->change.cgen = j->item.cgen;
	j->change.fn = job_unmapped;
	map_update(page, &j->change);
}

static void job_unmapped(struct map_change *c, int status)
{
	struct reclaim_job *j = container_of(c, struct reclaim_job, change);

	if (status == 0 && j->item.flags & MAP_RESERVED)
		j->v->stats.runahead_returned++;
	else if (status == 0)
		j->v->stats.reclaimed_chunks++;
	job_end(j);
}

static void job_end(struct reclaim_job *j)
{
	struct volume *v = j->v;

	range_lock_release(&v->lock, &j->lock);
	j->busy = false;
	v->reclaim.jobs_n--;
	vol_task_add(v->vs, &v->reclaim.task);
	volume_drain_check(v);
}
