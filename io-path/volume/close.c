/* SPDX-License-Identifier: Apache-2.0 */
/* close.c - closing a handle, losing a volume, and giving it up when nobody has it open any more.
 *
 *   volume_close -> in flight* -> handle gone, done
 *   the last one: DRAINING (run-ahead and empty slots are returned*) -> CLOSING (the server is told*) -> gone
 *
 * An open while DRAINING finds the runtime and ends the draining. Nobody waits for the second line but volumes_close(): while
 * the metadata server is away it waits for it.
 *
 * A volume that was taken away is not given up, it is not ours: its runtime goes when the last handle was closed and all its
 * requests have failed. */
#include <inttypes.h>

#include "io-path/volume/runtime.h"
#include "src/base/log.h"
#include "src/base/mem.h"

static void handle_closed(struct vol_task *t);
static void drain_step(struct vol_task *t);
static bool is_quiet(struct volume *v);
static void given_up(struct meta_req *r);
static void runtime_end(struct volume *v);
static void gone_tell(struct vol_task *t);
static void timer_done(struct ioe_req *r);

/* ---- a handle --------------------------------------------------------------------------------------------------------- */

void volume_handle_init(struct volume_handle *h)
{
	vol_task_init(&h->close_task, handle_closed);
}

void volume_close(struct volume_handle *h, void (*done)(void *arg), void *arg)
{
	check(!h->closing);
	volume_left(h);
	h->closing = true;
	h->close_done = done;
	h->close_arg = arg;
	volume_handle_idle(h);
}

/* No request is in flight: is somebody waiting for that? */
void volume_handle_idle(struct volume_handle *h)
{
	if (h->closing && h->in_flight == 0)
		vol_task_add(h->v->vs, &h->close_task);
}

static void handle_closed(struct vol_task *t)
{
	struct volume_handle *h = container_of(t, struct volume_handle, close_task);
	void (*done)(void *arg) = h->close_done;
	void *arg = h->close_arg;
	struct volume *v = h->v;

	list_del(&h->link);
	v->handles_n--;
	mem_free(h);
	if (v->handles_n == 0)
		volume_drain(v);
	done(arg);
}

/* ---- giving up -------------------------------------------------------------------------------------------------------- */

void volume_close_init(struct volume *v)
{
	vol_task_init(&v->drain_task, drain_step);
	vol_task_init(&v->gone_task, gone_tell);
}

void volume_close_cancel(struct volume *v)
{
	vol_task_cancel(&v->drain_task);
	vol_task_cancel(&v->gone_task);
}

void volume_drain(struct volume *v)
{
	v->state = VOLUME_DRAINING;
	v->prefetch_end = 0;
	if (!v->gone) {
		run_ahead_return(v);
		reclaim_now(v);
	}
	volume_drain_check(v);
}

void volume_drain_check(struct volume *v)
{
	if (v->state == VOLUME_DRAINING)
		vol_task_add(v->vs, &v->drain_task);
}

static bool is_quiet(struct volume *v)
{
	if (v->in_flight || v->alloc.busy || v->update.busy || v->loads_n || v->device_flushes_n ||
	    !reclaim_is_idle(v))
		return false;
	if (v->timer_armed)
		ioe_cancel(v->vs->ioe, &v->timer);
	return !v->timer_armed;
}

static void drain_step(struct vol_task *t)
{
	struct volume *v = container_of(t, struct volume, drain_task);
	struct volumes *vs = v->vs;

	if (v->state != VOLUME_DRAINING || !is_quiet(v))
		return;
	if (!v->gone) {
		volume_give_up(v);
		return;
	}
	volume_free(v);
	volumes_maybe_closed(vs);
}

void volume_give_up(struct volume *v)
{
	v->state = VOLUME_CLOSING;
	v->close_req = (struct meta_close){.req = {.done = given_up},
					   .volume = v->open_req.id,
					   .epoch = v->open_req.epoch};
	v->vs->meta->ops->close(v->vs->meta, &v->close_req);
}

static void given_up(struct meta_req *r)
{
	struct volume *v = container_of(r, struct volume, close_req.req);

	if (r->status && r->status != -E_STALE_EPOCH)
		log_warn("volume not given up", "vol=%s epoch=%" PRIu64 " err=%s", v->name,
			 v->epoch, err_name(r->status));
	else
		log_info("volume closed", "vol=%s epoch=%" PRIu64, v->name, v->epoch);
	volume_end(v);
}

void volume_end(struct volume *v)
{
	v->state = VOLUME_CLOSING;
	v->given_up = true;
	if (v->timer_armed)
		ioe_cancel(v->vs->ioe, &v->timer); /* timer_done() goes on */
	else
		runtime_end(v);
}

/* Who came meanwhile begins anew. */
static void runtime_end(struct volume *v)
{
	struct volumes *vs = v->vs;
	struct list opens;

	list_init(&opens);
	list_splice(&opens, &v->opens);
	volume_free(v);
	open_again(vs, &opens);
	volumes_maybe_closed(vs);
}

/* ---- losing it -------------------------------------------------------------------------------------------------------- */

void volume_gone(struct volume *v, int status)
{
	if (v->gone || v->state == VOLUME_CLOSING)
		return;
	v->gone = status == -E_STALE_EPOCH ? -E_NOT_OWNER : status;
	volume_hide(v);
	volumes_event(v, "volume-gone", "requests fail from now on: %s", err_text(v->gone));
	vol_task_add(v->vs, &v->gone_task);
	reclaim_forget(v);
	volume_drain_check(v);
}

bool volume_gone_check(struct volume *v, int status)
{
	if (status != -E_STALE_EPOCH && status != -E_NOT_OWNER)
		return false;
	volume_gone(v, status);
	return true;
}

static void handles_tell(struct volume *v, int status)
{
	list_for_each_safe (l, next, &v->handles) {
		struct volume_handle *h = list_entry(l, struct volume_handle, link);

		if (h->on_change && !h->closing)
			h->on_change(h->on_change_arg, status);
	}
}

static void gone_tell(struct vol_task *t)
{
	struct volume *v = container_of(t, struct volume, gone_task);

	handles_tell(v, v->gone);
}

void volume_on_change(struct volume_handle *h, void (*fn)(void *arg, int status), void *arg)
{
	h->on_change = fn;
	h->on_change_arg = arg;
}

void volume_resized(struct volume *v, uint64_t size_bytes)
{
	bool shrinks = size_bytes < v->size_bytes;

	if (size_bytes == v->size_bytes || size_bytes < VOLUME_BYTES_MIN ||
	    size_bytes > VOLUME_BYTES_MAX || size_bytes % BLOCK_BYTES)
		return;
	v->size_bytes = size_bytes;
	if (shrinks)
		map_shrunk(v, volume_chunks_n(v));
	log_info("volume resized", "vol=%s size=%" PRIu64, v->name, size_bytes);
	handles_tell(v, 0);
}

/* ---- the timer -------------------------------------------------------------------------------------------------------- */

void volume_timer_want(struct volume *v, uint64_t at_ns)
{
	if (v->timer_armed && v->timer_ns <= at_ns)
		return;
	v->timer_ns = at_ns;
	if (v->timer_armed) {
		ioe_cancel(v->vs->ioe, &v->timer); /* timer_done looks again */
		return;
	}
	v->timer_armed = true;
	ioe_timer(v->vs->ioe, &v->timer, at_ns, timer_done);
}

/* Each part does what is due and says when it wants to be called again. */
static void timer_done(struct ioe_req *r)
{
	struct volume *v = container_of(r, struct volume, timer);
	uint64_t now_ns = ioe_now_ns(v->vs->ioe);

	v->timer_armed = false;
	if (v->state == VOLUME_CLOSING && v->given_up) {
		runtime_end(v);
		return;
	}
	if (v->state == VOLUME_OPENING || v->state == VOLUME_CLOSING) {
		/* we go on waiting for the server, but not those who want to open */
		opens_tick(v, now_ns);
		return;
	}
	map_alloc_tick(v, now_ns);
	run_ahead_tick(v, now_ns);
	reclaim_tick(v, now_ns);
	volume_drain_check(v);
}
