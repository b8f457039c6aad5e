/* SPDX-License-Identifier: Apache-2.0 */
/* jobs.c - the queue of jobs, and how one is begun and ended.
 *
 *   jobs_wake -> QUEUED -> (a place is free) -> read its record* -> the kind's work* -> record its end* -> gone
 *
 * The SAN's own jobs advance by steps that carry the job's progress and end in their own commits; builtin.c has them. */
#include "metadata/jobs/private.h"

#include <stdio.h>
#include <string.h>

#include "src/base/log.h"
#include "src/base/mem.h"

#define PROGRESS_NS 1000000000ULL /* the record follows the work at most this often */

static void run_next(struct jobs *j);
static void run_begin(struct run *r);
static void run_got(struct san_req *req);
static void run_work(struct run *r);
static void run_recorded(struct san_req *req);
static void close_nop(struct ioe_req *req);
static void close_if_quiet(struct jobs *j);

/* ---- life -------------------------------------------------------------------------------------------------------------- */

int jobs_new(struct ioe *e, struct san *s, const struct job_kind *kinds, uint32_t kinds_n,
	     struct jobs **ret_jobs)
{
	struct jobs *j = mem_zalloc(sizeof(*j) + kinds_n * sizeof(j->kinds[0]));

	if (!j)
		return -ENOMEM;
	j->ioe = e;
	j->san = s;
	j->kinds_n = kinds_n;
	if (kinds_n)
		memcpy(j->kinds, kinds, kinds_n * sizeof(j->kinds[0]));
	list_init(&j->queue);
	list_init(&j->running);
	*ret_jobs = j;
	return 0;
}

static void free_all(struct list *runs)
{
	struct list *l;

	while ((l = list_pop(runs)))
		mem_free(list_entry(l, struct run, link));
}

void jobs_abandon(struct jobs *j)
{
	free_all(&j->queue);
	free_all(&j->running);
	mem_free(j);
}

void jobs_close(struct jobs *j, void (*done)(void *arg), void *arg)
{
	j->closing = true;
	j->closed = done;
	j->closed_arg = arg;
	free_all(&j->queue);
	j->nop_busy = true;
	ioe_nop(j->ioe, &j->nop, close_nop);
	list_for_each (l, &j->running)
		run_stop(list_entry(l, struct run, link));
}

static void close_nop(struct ioe_req *req)
{
	struct jobs *j = container_of(req, struct jobs, nop);

	j->nop_busy = false;
	close_if_quiet(j);
}

static void close_if_quiet(struct jobs *j)
{
	void (*done)(void *arg) = j->closed;
	void *arg = j->closed_arg;

	if (!j->closing || j->nop_busy || !list_empty(&j->running))
		return;
	mem_free(j);
	done(arg);
}

/* ---- queue and running --------------------------------------------------------------------------------------------------- */

static struct run *find(struct list *runs, uint32_t id)
{
	list_for_each (l, runs) {
		struct run *r = list_entry(l, struct run, link);

		if (r->pub.job.id == id)
			return r;
	}
	return NULL;
}

void jobs_wake(struct jobs *j, uint32_t job)
{
	struct run *r;

	if (j->closing || find(&j->queue, job) || find(&j->running, job))
		return;
	r = mem_zalloc(sizeof(*r));
	if (!r) { /* its record stays unfinished: the next start of the server runs it */
		log_error("no memory to run a job now", "job=%u", job);
		return;
	}
	r->pub.jobs = j;
	r->pub.job.id = job;
	list_push(&j->queue, &r->link);
	run_next(j);
}

static void run_next(struct jobs *j)
{
	while (j->running_n < JOBS_RUNNING_MAX && !list_empty(&j->queue) && !j->closing) {
		struct run *r = list_entry(list_pop(&j->queue), struct run, link);

		list_push(&j->running, &r->link);
		j->running_n++;
		run_begin(r);
	}
}

static void run_begin(struct run *r)
{
	r->get = (struct san_job_get){.req = {.done = run_got}, .id = r->pub.job.id};
	san_job_get(r->pub.jobs->san, &r->get);
}

static void run_got(struct san_req *req)
{
	struct run *r = container_of(req, struct run, get.req);

	if (req->status || r->get.job.ended_ns || r->pub.stopping) {
		run_gone(r);
		return;
	}
	r->pub.job = r->get.job;
	run_work(r);
}

static const struct job_kind *kind_of(const struct jobs *j, uint32_t kind)
{
	for (uint32_t i = 0; i < j->kinds_n; i++)
		if (j->kinds[i].kind == kind)
			return &j->kinds[i];
	return NULL;
}

static void run_work(struct run *r)
{
	const struct job_kind *k = kind_of(r->pub.jobs, r->pub.job.kind);

	if (r->pub.job.cancel) {
		job_end(&r->pub, -ECANCELED, NULL);
	} else if (k) {
		k->start(&r->pub, k->arg);
	} else if (!builtin_start(r)) {
		log_error("a job of a kind that this version does not know", "job=%u kind=%u",
			  r->pub.job.id, r->pub.job.kind);
		job_end(&r->pub, -E_VERSION, "this version of the server does not know such jobs");
	}
}

void run_stop(struct run *r)
{
	const struct job_kind *k = kind_of(r->pub.jobs, r->pub.job.kind);

	if (r->pub.stopping)
		return;
	r->pub.stopping = true;
	if (k && k->stop)
		k->stop(&r->pub, k->arg);
	else if (!k)
		builtin_stop(r);
}

/* Nothing of it is under way any more. */
void run_gone(struct run *r)
{
	struct jobs *j = r->pub.jobs;

	list_del(&r->link);
	j->running_n--;
	mem_free(r);
	run_next(j);
	close_if_quiet(j);
}

/* ---- what kinds call --------------------------------------------------------------------------------------------------------- */

static void record(struct run *r)
{
	r->recording = true;
	r->update = (struct san_job_update){.req = {.done = run_recorded}, .job = r->pub.job};
	san_job_update(r->pub.jobs->san, &r->update);
}

void job_progress(struct job_run *run, uint64_t done_n, uint64_t total_n)
{
	struct run *r = container_of(run, struct run, pub);
	uint64_t now = ioe_now_ns(run->jobs->ioe);

	run->job.done_n = done_n;
	run->job.total_n = total_n;
	run->job.state = SAN_JOB_RUNNING;
	if (r->recording || (r->recorded_ns && now - r->recorded_ns < PROGRESS_NS))
		return;
	r->recorded_ns = now;
	record(r);
}

void job_end(struct job_run *run, int status, const char *text)
{
	struct run *r = container_of(run, struct run, pub);

	check(!r->ended);
	r->ended = true;
	if (run->jobs->closing && status == -ECANCELED) { /* goes on after the next start */
		r->leave = true;
	} else {
		run->job.state = status == 0		? SAN_JOB_DONE
				 : status == -ECANCELED ? SAN_JOB_CANCELLED
							: SAN_JOB_FAILED;
		run->job.error = status == -ECANCELED ? 0 : status;
		snprintf(run->job.text, sizeof(run->job.text), "%s",
			 text				  ? text
			 : status && status != -ECANCELED ? err_text(status)
							  : "");
	}
	if (r->recording)
		return; /* run_recorded goes on */
	if (r->leave)
		run_gone(r);
	else
		record(r);
}

static void run_recorded(struct san_req *req)
{
	struct run *r = container_of(req, struct run, update.req);
	bool was_the_end = r->update.job.state != SAN_JOB_RUNNING;

	r->recording = false;
	if (!r->ended)
		return;
	if (was_the_end || r->leave || req->status)
		run_gone(r);
	else
		record(r);
}

/* ---- for administration ---------------------------------------------------------------------------------------------------- */

static void cancel_asked(struct san_req *req)
{
	struct cancel *c = container_of(req, struct cancel, own.req);
	struct run *r = find(&c->jobs->running, c->own.job);
	struct san_job_cancel *asked = c->asked;

	asked->req.status = req->status;
	asked->req.commit = req->commit;
	memcpy(asked->req.errmsg, req->errmsg, sizeof(req->errmsg));
	if (!req->status && r) {
		r->pub.job.cancel = true;
		run_stop(r);
	}
	mem_free(c);
	asked->req.done(&asked->req);
}

/* The record first, then whoever runs it. One that still waits finds the mark when its turn comes. */
void jobs_cancel(struct jobs *j, struct san_job_cancel *r)
{
	struct cancel *c = mem_zalloc(sizeof(*c));

	if (!c) { /* the mark alone: honoured when the job is next begun */
		san_job_cancel(j->san, r);
		return;
	}
	c->jobs = j;
	c->asked = r;
	c->own = (struct san_job_cancel){.req = {.done = cancel_asked}, .job = r->job};
	san_job_cancel(j->san, &c->own);
}

const char *jobs_kind_name(const struct jobs *j, uint32_t kind)
{
	const struct job_kind *k = kind_of(j, kind);

	switch (kind) {
	case SAN_JOB_VOLUME_DELETE:
		return "volume_delete";
	case SAN_JOB_DEVICE_LOSE:
		return "device_lost";
	case SAN_JOB_CHECK:
		return "check";
	default:
		return k ? k->name : "unknown";
	}
}

const char *jobs_state_name(enum san_job_state state)
{
	static const char *const names[] = {[SAN_JOB_QUEUED] = "queued",
					    [SAN_JOB_RUNNING] = "running",
					    [SAN_JOB_DONE] = "done",
					    [SAN_JOB_FAILED] = "failed",
					    [SAN_JOB_CANCELLED] = "cancelled"};

	check(state >= SAN_JOB_QUEUED && state <= SAN_JOB_CANCELLED);
	return names[state];
}
