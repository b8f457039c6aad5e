/* SPDX-License-Identifier: Apache-2.0 */
/* san.c - what all requests have in common; start and close; numbers; records of other modules; counters. */
#include "metadata/san/san.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "metadata/san/state.h"
#include "src/base/check.h"
#include "src/base/mem.h"

static void try_close(struct san *s);
static void close_run(struct ioe_req *req);

/* ---- requests ------------------------------------------------------------------------------------------------------------- */

void san_op_begin(struct san *s, struct san_req *r,
		  enum exec (*exec)(struct san *s, struct san_req *r),
		  void (*cleanup)(struct san_req *r))
{
	r->status = 0;
	r->errmsg[0] = '\0';
	r->commit = 0;
	*san_op_of(r) = (struct op){.s = s, .exec = exec, .cleanup = cleanup, .late = s->closing};
	s->reqs_n++;
}

static void op_queue(struct san_req *r, struct list *queue)
{
	struct san *s = san_op_of(r)->s;

	list_push(queue, &r->link);
	ioe_hook_arm(s->ioe, &s->hook);
}

void san_op_refuse(struct san_req *r, int status)
{
	r->status = status;
	if (status && !r->errmsg[0])
		snprintf(r->errmsg, sizeof(r->errmsg), "%s", err_text(status));
	op_queue(r, &san_op_of(r)->s->refused);
}

void san_op_read(struct san_req *r)
{
	struct san *s = san_op_of(r)->s;

	if (san_op_of(r)->late)
		san_op_refuse(r, -ESHUTDOWN);
	else
		op_queue(r, &s->reads);
}

void san_op_write(struct san_req *r)
{
	struct san *s = san_op_of(r)->s;

	if (san_op_of(r)->late)
		san_op_refuse(r, -ESHUTDOWN);
	else
		op_queue(r, &s->writes);
}

enum exec san_op_fail(struct san_req *r, int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(r->errmsg, sizeof(r->errmsg), fmt, ap);
	va_end(ap);
	r->status = status;
	return EXEC_DONE;
}

void san_op_end(struct san_req *r)
{
	struct san *s = san_op_of(r)->s;

	if (san_op_of(r)->cleanup)
		san_op_of(r)->cleanup(r);
	if (r->status && !r->errmsg[0])
		snprintf(r->errmsg, sizeof(r->errmsg), "%s", err_text(r->status));
	r->done(r); /* r may be gone */
	check(s->reqs_n > 0);
	s->reqs_n--;
	if (s->closing)
		try_close(s);
}

/* ---- memory of requests in flight ------------------------------------------------------------------------------------------ */

void *priv_alloc(struct san *s, size_t len)
{
	struct list *link = mem_alloc(sizeof(*link) + len);

	if (!link)
		return NULL;
	list_push(&s->privates, link);
	return link + 1;
}

void priv_free(void *p)
{
	struct list *link;

	if (!p)
		return;
	link = (struct list *)p - 1;
	list_del(link);
	mem_free(link);
}

/* ---- life ----------------------------------------------------------------------------------------------------------------- */

void san_start(struct san *s)
{
	check(!s->started);
	s->started = s->starting = true;
	ioe_hook_arm(s->ioe, &s->hook);
}

void san_tell_start(struct san *s)
{
	struct job *job;

	s->starting = false;
	s->tell = true;
	for (uint32_t id = 0; (job = idtab_above(&s->jobs, id)); id = job->j.id)
		if (!job_ended(&job->j) && s->cb.on_job)
			s->cb.on_job(s->cb.arg, job->j.id);
	frees_tell(s);
}

void san_close(struct san *s, void (*done)(void *arg), void *arg)
{
	check(!s->closing);
	s->closing = true;
	s->closed = done;
	s->closed_arg = arg;
	ioe_nop(s->ioe, &s->close_req, close_run);
}

/* The last request has ended: look again in the next turn, when its callback is over. */
static void try_close(struct san *s)
{
	if (s->reqs_n == 0 && s->close_waits) {
		s->close_waits = false;
		ioe_nop(s->ioe, &s->close_req, close_run);
	}
}

static void close_run(struct ioe_req *req)
{
	struct san *s = container_of(req, struct san, close_req);
	void (*closed)(void *arg) = s->closed;
	void *arg = s->closed_arg;

	if (s->reqs_n > 0) {
		s->close_waits = true;
		return;
	}
	/* events without a request behind them are still under way, or waiting */
	if (s->txn.in_flight || (s->events.n > 0 && !s->failed)) {
		ioe_timer(s->ioe, &s->close_req, ioe_now_ns(s->ioe) + 1000 * 1000, close_run);
		return;
	}
	san_free(s);
	closed(arg);
}

void san_abandon(struct san *s)
{
	san_free(s);
}

void san_free(struct san *s)
{
	struct device *d;
	struct pool *p;
	struct volume *vol;
	struct layer *layer;
	struct job *job;
	struct list *l;

	ioe_hook_disarm(&s->hook);
	while ((l = list_pop(&s->privates)))
		mem_free(l);
	/* what a batch that never ended had marked: some of it is in no table any more */
	while ((l = list_pop(&s->txn.objs))) {
		struct txn_obj *o = list_entry(l, struct txn_obj, link);

		if (o->type->committed)
			o->type->committed(s, o);
	}
	cache_free(s);
	idtab_for_each (vol, &s->volumes)
		mem_free(vol);
	idtab_for_each (layer, &s->layers)
		layer_free(layer);
	idtab_for_each (job, &s->jobs)
		mem_free(job);
	idtab_for_each (d, &s->devices)
		san_device_free(d);
	idtab_for_each (p, &s->pools) {
		mem_free(p->devices);
		mem_free(p->free_n);
		mem_free(p);
	}
	idtab_free(&s->volumes);
	idtab_free(&s->layers);
	idtab_free(&s->jobs);
	idtab_free(&s->devices);
	idtab_free(&s->pools);
	htab_free(&s->names);
	mem_free(s->events.events);
	mem_free(s->once);
	mem_free(s->txn.arena);
	mem_free(s);
}

struct uuid san_cluster(const struct san *s)
{
	return s->cluster.uuid;
}

/* ---- numbers -------------------------------------------------------------------------------------------------------------- */

uint32_t san_number_take(struct san *s, enum san_number what)
{
	uint32_t *last = what == SAN_NUMBER_NODE     ? &s->cluster.node
			 : what == SAN_NUMBER_DEVICE ? &s->cluster.device
			 : what == SAN_NUMBER_POOL   ? &s->cluster.pool
						     : &s->cluster.policy;

	if (*last == (what == SAN_NUMBER_DEVICE ? DEVICES_MAX : UINT32_MAX))
		return 0;
	s->cluster_dirty = true;
	return ++*last;
}

uint64_t san_cgen(const struct san *s)
{
	return s->cluster.cgen;
}

static enum exec cgen_raise_exec(struct san *s, struct san_req *req)
{
	struct san_cgen_raise *r = container_of(req, struct san_cgen_raise, req);

	if (r->cgen > s->cluster.cgen) {
		s->cluster.cgen = r->cgen;
		s->cluster_dirty = true;
	}
	return EXEC_DONE;
}

void san_cgen_raise(struct san *s, struct san_cgen_raise *r)
{
	san_op_begin(s, &r->req, cgen_raise_exec, NULL);
	san_op_write(&r->req);
}

/* ---- records of other modules --------------------------------------------------------------------------------------------- */

bool records_ok(const struct metastore_change *changes, uint32_t n)
{
	if (n > SAN_RECORDS_MAX)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *key = changes[i].key.data;

		if (changes[i].key.len < 1 || changes[i].key.len > METASTORE_KEY_MAX ||
		    changes[i].value.len > METASTORE_VALUE_MAX || key[0] < 'A' || key[0] > 'Z')
			return false;
	}
	return true;
}

void records_add(struct san *s, const struct metastore_change *changes, uint32_t n)
{
	txn_take_smalls(s, n);
	for (uint32_t i = 0; i < n; i++)
		txn_change(s, &changes[i]);
}

static enum exec records_exec(struct san *s, struct san_req *req)
{
	struct san_records *r = container_of(req, struct san_records, req);

	if (!txn_fits(s, 0, r->changes_n))
		return EXEC_MORE;
	records_add(s, r->changes, r->changes_n);
	return EXEC_DONE;
}

void san_records(struct san *s, struct san_records *r)
{
	san_op_begin(s, &r->req, records_exec, NULL);
	if (records_ok(r->changes, r->changes_n))
		san_op_write(&r->req);
	else
		san_op_refuse(&r->req, -EINVAL);
}

/* ---- counters ------------------------------------------------------------------------------------------------------------- */

void san_stats(const struct san *s, struct san_stats *ret_stats)
{
	*ret_stats = s->stats;
	ret_stats->cache_bytes = s->cache.bytes;
	ret_stats->cache_pages = s->cache.pages.count;
	ret_stats->waiting = s->reqs_n;
}
