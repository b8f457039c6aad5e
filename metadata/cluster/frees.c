/* SPDX-License-Identifier: Apache-2.0 */
/* frees.c - slots that left the map are freed on their device, and may then be allocated again.
 *
 *   PULL* -> ASK* -> DONE* -> PULL ... until there are none          one run per device at a time; it ends with the session
 *
 * What the device could not free is made available again and tried after a second. */
#include "metadata/rpc/session.h"
#include "src/base/log.h"
#include "src/base/mem.h"

enum { BATCH = 512 };
#define RETRY_NS 1000000000ULL

struct free_run {
	struct cluster *c;
	struct session *s;
	device_no dev;
	struct san_frees_pull pull;
	struct san_free frees[BATCH];
	Strata__FreeItem items[BATCH], *list[BATCH];
	struct session_call call;
	struct san_frees_done done;
	struct san_free freed[BATCH];
	bool failed;
	struct ioe_req timer;
};

static void run_pull(struct free_run *f);
static void run_pulled(struct san_req *req);
static void run_asked(struct session_call *call, int status, const ProtobufCMessage *answer);
static void run_done(struct san_req *req);
static void run_pause_done(struct ioe_req *req);
static void run_end(struct free_run *f);

void cluster_frees(struct cluster *c, device_no dev)
{
	struct cluster_device *d = cluster_device_by_no(c, dev);
	struct session *s = d ? cluster_device_session(c, d) : NULL;
	struct free_run *f;

	if (!d || d->presence != CLUSTER_OK || !s || !session_is_joined(s) ||
	    c->state != CLUSTER_SERVING)
		return; /* when it is attached */
	if (d->frees_running) {
		d->frees_again = true;
		return;
	}
	f = mem_zalloc(sizeof(*f));
	if (!f) {
		log_limited(LOG_WARN, ioe_now_ns(c->ioe), "slots are not freed: memory is short",
			    "device=%u", dev);
		san_frees_forget(c->san, dev); /* it is told again with the next commit */
		return;
	}
	cluster_op_begin(c);
	d->frees_running = true;
	d->frees_again = false;
	f->c = c;
	f->s = session_get(s);
	f->dev = dev;
	run_pull(f);
}

static bool is_over(const struct free_run *f)
{
	const struct cluster_device *d = cluster_device_by_no(f->c, f->dev);

	return !session_is_joined(f->s) || f->c->state != CLUSTER_SERVING || !d ||
	       d->presence != CLUSTER_OK || d->member != CLUSTER_MEMBER;
}

static void run_pull(struct free_run *f)
{
	f->pull.dev = f->dev;
	f->pull.frees = f->frees;
	f->pull.frees_max = BATCH;
	f->pull.req.done = run_pulled;
	san_frees_pull(f->c->san, &f->pull);
}

static void run_pulled(struct san_req *req)
{
	struct free_run *f = container_of(req, struct free_run, pull.req);
	Strata__Free m = STRATA__FREE__INIT;

	if (req->status || is_over(f) || !f->pull.frees_n) {
		/* handed out to nobody, or not at all: nobody else would ask again */
		f->failed = req->status ? req->status == -ENOMEM : f->pull.frees_n > 0;
		run_end(f);
		return;
	}
	for (uint32_t i = 0; i < f->pull.frees_n; i++) {
		strata__free_item__init(&f->items[i]);
		f->items[i].device = f->dev;
		f->items[i].slot = f->frees[i].slot;
		f->items[i].cgen = f->frees[i].cgen;
		f->list[i] = &f->items[i];
	}
	m.items = f->list;
	m.n_items = f->pull.frees_n;
	session_ask(f->s, &f->call, CONTROL_FREE, &m.base, run_asked);
}

static void run_asked(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	struct free_run *f = container_of(call, struct free_run, call);
	const Strata__Freed *freed = (const Strata__Freed *)answer;
	uint32_t n = 0;

	if (status || *freed->error || freed->n_errors != f->pull.frees_n) {
		f->failed = true;
		run_end(f);
		return;
	}
	for (uint32_t i = 0; i < f->pull.frees_n; i++) {
		if (!*freed->errors[i])
			f->freed[n++] = f->frees[i];
		else
			f->failed = true;
	}
	f->done.dev = f->dev;
	f->done.frees = f->freed;
	f->done.n = n;
	f->done.req.done = run_done;
	if (n)
		san_frees_done(f->c->san, &f->done);
	else
		run_end(f);
}

static void run_done(struct san_req *req)
{
	struct free_run *f = container_of(req, struct free_run, done.req);

	if (req->status || f->failed || is_over(f))
		run_end(f);
	else
		run_pull(f);
}

static void run_pause_done(struct ioe_req *req)
{
	struct free_run *f = container_of(req, struct free_run, timer);

	f->failed = false;
	if (is_over(f))
		run_end(f);
	else
		run_pull(f);
}

static void run_end(struct free_run *f)
{
	struct cluster *c = f->c;
	struct cluster_device *d = cluster_device_by_no(c, f->dev);
	bool again;

	if (f->failed) {
		san_frees_forget(c->san, f->dev);
		if (!is_over(f)) {
			log_limited(LOG_WARN, ioe_now_ns(c->ioe),
				    "slots were not freed, trying again", "device=%u", f->dev);
			ioe_timer(c->ioe, &f->timer, ioe_now_ns(c->ioe) + RETRY_NS, run_pause_done);
			return;
		}
	}
	again = d && d->frees_again;
	if (d)
		d->frees_running = d->frees_again = false;
	session_put(f->s);
	mem_free(f);
	if (again)
		cluster_frees(c, d->no);
	cluster_op_end(c);
}
