/* SPDX-License-Identifier: Apache-2.0 */
/* volumes.c - all volumes of the node: made and ended, what is done at the end of a turn, what the server tells unasked,
 * counters. */
#include "io-path/volume/volumes.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "io-path/volume/runtime.h"
#include "src/base/log.h"
#include "src/base/mem.h"

static int limits_fill(struct volumes_limits *l);
static void volumes_turn(struct ioe_hook *h);
static void volumes_closed(struct vol_task *t);
static void on_volume(void *arg, const struct meta_news *news);

/* ---- life ------------------------------------------------------------------------------------------------------------- */

static void set_default(uint32_t *value, uint32_t dflt)
{
	if (*value == 0)
		*value = dflt;
	else if (*value == UINT32_MAX)
		*value = 0;
}

static void set_default_64(uint64_t *value, uint64_t dflt)
{
	if (*value == 0)
		*value = dflt;
}

static int limits_fill(struct volumes_limits *l)
{
	enum { ITEMS_MAX = 1 << 20 };

	set_default(&l->pieces_shared, 1024);
	set_default(&l->pieces_per_volume, 32);
	set_default(&l->scratch_shared, 256);
	set_default(&l->scratch_per_volume, 2);
	set_default(&l->prefetch_pages, 256);
	set_default(&l->runahead_chunks, RUNAHEAD_MAX);
	set_default_64(&l->map_cache_bytes, 64 << 20);
	set_default_64(&l->idle_ns, 10 * NS_PER_S);
	set_default_64(&l->reclaim_delay_ns, NS_PER_S / 10);
	set_default_64(&l->open_timeout_ns, 10 * NS_PER_S);
	if (l->pieces_per_volume == 0 || l->scratch_per_volume == 0 ||
	    l->runahead_chunks > RUNAHEAD_MAX)
		return -EINVAL;
	if (l->pieces_shared > ITEMS_MAX || l->pieces_per_volume > ITEMS_MAX ||
	    l->scratch_shared > ITEMS_MAX || l->scratch_per_volume > ITEMS_MAX)
		return -EINVAL;
	return 0;
}

int volumes_new(const struct volumes_config *cfg, struct volumes **ret_vs)
{
	struct volumes *vs = mem_zalloc(sizeof(*vs));
	int rc;

	if (!vs)
		return -ENOMEM;
	vs->ioe = cfg->ioe;
	vs->store = cfg->store;
	vs->meta = cfg->meta;
	vs->limits = cfg->limits;
	vs->on_event = cfg->on_event;
	vs->event_arg = cfg->event_arg;
	list_init(&vs->all);
	list_init(&vs->tasks);
	list_init(&vs->opened);
	list_init(&vs->started);
	list_init(&vs->finished);
	list_init(&vs->starved);
	vol_task_init(&vs->close_task, volumes_closed);
	ioe_hook_init(&vs->hook, volumes_turn);
	rc = limits_fill(&vs->limits);
	if (rc)
		goto fail;
	rc = fixed_pool_init(&vs->pieces, vs->limits.pieces_shared, sizeof(struct vol_piece), 64);
	if (rc)
		goto fail;
	rc = fixed_pool_init(&vs->scratch, vs->limits.scratch_shared, SCRATCH_BLOCKS * BLOCK_BYTES,
			     BLOCK_BYTES);
	if (rc)
		goto fail_pieces;
	rc = htab_init(&vs->by_name, 64);
	if (rc)
		goto fail_scratch;
	rc = map_cache_init(&vs->cache, vs);
	if (rc)
		goto fail_names;
	vs->meta->on_volume = on_volume;
	vs->meta->on_volume_arg = vs;
	*ret_vs = vs;
	return 0;

fail_names:
	htab_free(&vs->by_name);
fail_scratch:
	fixed_pool_free(&vs->scratch);
fail_pieces:
	fixed_pool_free(&vs->pieces);
fail:
	mem_free(vs);
	return rc;
}

void volumes_close(struct volumes *vs, void (*done)(void *arg), void *arg)
{
	check(!vs->closing);
	vs->closing = true;
	vs->close_done = done;
	vs->close_arg = arg;
	volumes_maybe_closed(vs);
}

void volumes_maybe_closed(struct volumes *vs)
{
	if (vs->closing && vs->close_done && list_empty(&vs->all) && list_empty(&vs->opened) &&
	    vs->lists_n == 0)
		vol_task_add(vs, &vs->close_task);
}

static void volumes_closed(struct vol_task *t)
{
	struct volumes *vs = container_of(t, struct volumes, close_task);
	void (*done)(void *arg) = vs->close_done;

	if (!done || !list_empty(&vs->opened)) /* an open refused in this very turn: it asks again */
		return;
	vs->close_done = NULL;
	done(vs->close_arg); /* the last touch */
}

void volumes_free(struct volumes *vs)
{
	if (!vs)
		return;
	check(list_empty(&vs->all) && list_empty(&vs->tasks) && list_empty(&vs->opened));
	check(list_empty(&vs->started) && list_empty(&vs->finished) && list_empty(&vs->starved));
	vs->meta->on_volume = NULL;
	ioe_hook_disarm(&vs->hook);
	vol_task_cancel(&vs->close_task);
	map_cache_free(&vs->cache);
	htab_free(&vs->by_name);
	fixed_pool_free(&vs->scratch);
	fixed_pool_free(&vs->pieces);
	mem_free(vs);
}

/* ---- the end of a turn ------------------------------------------------------------------------------------------------ */

void volumes_arm(struct volumes *vs)
{
	ioe_hook_arm(vs->ioe, &vs->hook);
}

void vol_task_add(struct volumes *vs, struct vol_task *t)
{
	if (!list_empty(&t->link))
		return;
	list_push(&vs->tasks, &t->link);
	volumes_arm(vs);
}

static void opens_finish(struct volumes *vs, struct list *opened)
{
	struct list *l;

	while ((l = list_pop(opened))) {
		struct volume_open *op = list_entry(l, struct volume_open, link);

		op->done(op);
	}
	volumes_maybe_closed(vs);
}

/* What comes in while this runs waits for the next turn, so that a target that answers each completion with a new request
 * cannot keep the loop here. Requests that end come first, then what may start others, and last those who wait for pieces,
 * which all of it may have freed. */
static void volumes_turn(struct ioe_hook *h)
{
	struct volumes *vs = container_of(h, struct volumes, hook);
	struct list finished, opened, tasks, started, starved;
	struct list *l;

	list_init(&finished);
	list_init(&opened);
	list_init(&tasks);
	list_init(&started);
	list_init(&starved);
	list_splice(&finished, &vs->finished);
	list_splice(&opened, &vs->opened);
	list_splice(&tasks, &vs->tasks);
	list_splice(&started, &vs->started);
	list_splice(&starved, &vs->starved);

	while ((l = list_pop(&finished)))
		op_complete(list_entry(l, struct volume_req, link));
	if (!list_empty(&opened))
		opens_finish(vs, &opened);
	while ((l = list_pop(&started)))
		op_go_on(list_entry(l, struct volume_req, link));
	while ((l = list_pop(&starved)))
		volume_feed(list_entry(l, struct volume, starved_link));
	/* The last of all, as a task may free its volume, and the last task may free `vs`. */
	while ((l = list_pop(&tasks))) {
		struct vol_task *t = list_entry(l, struct vol_task, link);

		t->fn(t);
	}
}

/* ---- what the server tells unasked ------------------------------------------------------------------------------------ */

static void on_volume(void *arg, const struct meta_news *news)
{
	struct volumes *vs = arg;

	list_for_each_safe (l, next, &vs->all) {
		struct volume *v = list_entry(l, struct volume, link);

		if (v->id != news->volume || v->state == VOLUME_OPENING || news->epoch < v->epoch)
			continue;
		if (news->status < 0) {
			volume_gone(v, news->status);
		} else if (!v->frozen && news->epoch == v->epoch) {
			v->one_opener = news->one_opener; /* who is in already, stays */
			volume_resized(v, news->size_bytes);
		}
	}
}

void volumes_event(struct volume *v, const char *what, const char *fmt, ...)
{
	char text[ERRMSG_LEN];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_warn(what, "vol=%s %s", v->name, text);
	if (v->vs->on_event)
		v->vs->on_event(v->vs->event_arg, v->name, what, text);
}

/* ---- counters --------------------------------------------------------------------------------------------------------- */

void volumes_stats(struct volumes *vs, void (*fn)(void *arg, const struct volume_stats *st),
		   void *arg)
{
	list_for_each_safe (l, next, &vs->all) {
		struct volume *v = list_entry(l, struct volume, link);

		if (v->state != VOLUME_OPEN || v->gone)
			continue;
		v->stats.id = v->id;
		v->stats.uuid = v->uuid;
		v->stats.epoch = v->epoch;
		v->stats.size_bytes = v->size_bytes;
		v->stats.handles = v->handles_n;
		v->stats.in_flight = v->in_flight;
		memcpy(v->stats.name, v->name, sizeof(v->name));
		fn(arg, &v->stats);
	}
}

void volumes_clients(struct volumes *vs, void (*fn)(void *arg, const struct volume_client *k),
		     void *arg)
{
	list_for_each (l, &vs->all) {
		const struct volume *v = list_entry(l, struct volume, link);

		if (v->state != VOLUME_OPEN || v->gone)
			continue;
		list_for_each (k, &v->handles) {
			const struct volume_handle *h = list_entry(k, struct volume_handle, link);

			if (!h->closing)
				fn(arg, &(struct volume_client){.volume = v->id,
								.name = h->client,
								.read_only = h->read_only,
								.exclusive = h->exclusive});
		}
	}
}
