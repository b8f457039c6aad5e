/* SPDX-License-Identifier: Apache-2.0 */
/* jobs.c - starts what is to be run, writes down how far it is, and ends it.
 *
 *   wake -> (end of the turn) look through the unfinished records -> start -> [kind: progress... end] -> record written* -> free, look again
 * A shutdown asks the kinds to stop and leaves the records as they are: the next start goes on from there. */
#include "metadata/jobs/jobs.h"

#include <stdio.h>
#include <string.h>

#include "metadata/jobs/runner.h"
#include "src/base/log.h"
#include "src/base/mem.h"

enum { PROGRESS_NS = 200 * 1000 * 1000 }; /* how often progress is written, at most */

static void look(struct ioe_hook *h);
static bool is_its_turn(struct jobs *j, const struct san_job *job);
static void start(struct jobs *j, const struct san_job *job);
static void look_again_later(struct jobs *j);
static void look_again(struct ioe_req *req);
static void record_write(struct job_active *a);
static void record_written(struct san_req *req);
static void over_later(struct ioe_req *req);
static void active_over(struct job_active *a);
static void close_step(struct jobs *j);
static void close_run(struct ioe_req *req);

static const struct job_kind *const built_in[] = {&job_volume_delete, &job_device_lost, &job_check};

/* ---- life ------------------------------------------------------------------------------------------------------------------ */

int jobs_new(struct ioe *e, struct san *s, const struct job_kind *kinds, uint32_t kinds_n,
	     struct jobs **ret_jobs)
{
	struct jobs *j = mem_zalloc(sizeof(*j) + kinds_n * sizeof(kinds[0]));

	if (!j)
		return -ENOMEM;
	j->ioe = e;
	j->san = s;
	list_init(&j->active);
	ioe_hook_init(&j->hook, look);
	j->held = true;
	j->kinds_n = kinds_n;
	if (kinds_n)
		memcpy(j->kinds, kinds, kinds_n * sizeof(kinds[0]));
	*ret_jobs = j;
	return 0;
}

void jobs_wake(struct jobs *j, uint32_t job)
{
	(void)job; /* all unfinished ones are looked at */
	if (!j->closing)
		ioe_hook_arm(j->ioe, &j->hook);
}

void jobs_hold(struct jobs *j, bool held)
{
	j->held = held;
	if (!held)
		jobs_wake(j, 0);
}

static void ask_to_stop(struct job_active *a)
{
	if (a->run.stopping || a->ended)
		return;
	a->run.stopping = true;
	if (a->kind->stop)
		a->kind->stop(&a->run, a->kind->arg); /* may end it */
}

void jobs_close(struct jobs *j, void (*done)(void *arg), void *arg)
{
	check(!j->closing);
	j->closing = true;
	j->closed = done;
	j->closed_arg = arg;
	ioe_hook_disarm(&j->hook);
	list_for_each_safe (l, next, &j->active)
		ask_to_stop(list_entry(l, struct job_active, link));
	if (j->looking_again)
		ioe_cancel(j->ioe, &j->again);
	close_step(j);
}

/* The last of the jobs, or the timer, has ended. */
static void close_step(struct jobs *j)
{
	if (j->closing && j->active_n == 0 && !j->looking_again)
		ioe_nop(j->ioe, &j->close_req, close_run);
}

static void close_run(struct ioe_req *req)
{
	struct jobs *j = container_of(req, struct jobs, close_req);
	void (*closed)(void *arg) = j->closed;
	void *arg = j->closed_arg;

	mem_free(j);
	closed(arg);
}

void jobs_abandon(struct jobs *j)
{
	struct list *l;

	ioe_hook_disarm(&j->hook);
	while ((l = list_pop(&j->active)))
		mem_free(list_entry(l, struct job_active, link));
	mem_free(j);
}

/* ---- names ----------------------------------------------------------------------------------------------------------------- */

static const struct job_kind *kind_of(const struct jobs *j, uint32_t kind)
{
	for (uint32_t i = 0; i < j->kinds_n; i++)
		if (j->kinds[i].kind == kind)
			return &j->kinds[i];
	for (size_t i = 0; i < ARRAY_LEN(built_in); i++)
		if (built_in[i]->kind == kind)
			return built_in[i];
	return NULL;
}

const char *jobs_kind_name(const struct jobs *j, uint32_t kind)
{
	const struct job_kind *k = kind_of(j, kind);

	return k ? k->name : "unknown";
}

const char *jobs_state_name(enum san_job_state state)
{
	switch (state) {
	case SAN_JOB_QUEUED:
		return "queued";
	case SAN_JOB_RUNNING:
		return "running";
	case SAN_JOB_DONE:
		return "done";
	case SAN_JOB_FAILED:
		return "failed";
	case SAN_JOB_CANCELLED:
		return "cancelled";
	}
	return "unknown";
}

/* ---- start ----------------------------------------------------------------------------------------------------------------- */

static struct job_active *active_of(struct jobs *j, uint32_t id)
{
	list_for_each (l, &j->active) {
		struct job_active *a = list_entry(l, struct job_active, link);

		if (a->run.job.id == id)
			return a;
	}
	return NULL;
}

static bool is_its_turn(struct jobs *j, const struct san_job *job)
{
	const struct job_kind *kind = kind_of(j, job->kind);
	uint32_t n = 0;

	if (job->cancel) /* what was cancelled before it ran takes no place */
		return true;
	list_for_each (l, &j->active) {
		const struct job_active *a = list_entry(l, struct job_active, link);

		if (kind && kind->alone && a->kind == kind)
			return false;
		n += !a->ended;
	}
	return n < JOBS_RUNNING_MAX;
}

static void look(struct ioe_hook *h)
{
	struct jobs *j = container_of(h, struct jobs, hook);
	uint32_t id = 0;
	struct san_job job;

	while (!j->closing && !j->held && san_job_next(j->san, id, &job) == 0) {
		id = job.id;
		if (!active_of(j, id) && is_its_turn(j, &job))
			start(j, &job);
	}
}

static void start(struct jobs *j, const struct san_job *job)
{
	static const struct job_kind nobodys = {.name = "unknown"};
	struct job_active *a = mem_zalloc(sizeof(*a));
	const struct job_kind *kind = kind_of(j, job->kind);

	if (!a) {
		log_warn("memory is too short to start a job", "job=%u", job->id);
		look_again_later(j);
		return;
	}
	a->run.job = *job;
	a->run.jobs = j;
	a->kind = kind ? kind : &nobodys;
	list_init(&a->link);
	list_push(&j->active, &a->link);
	j->active_n++;
	if (job->cancel) {
		job_end(&a->run, -ECANCELED, NULL);
	} else if (!kind) {
		job_end(&a->run, -E_VERSION, "this version does not know how to do it");
	} else {
		a->run.job.state = SAN_JOB_RUNNING;
		a->run.job.text[0] = '\0';
		record_write(a);
		kind->start(&a->run, kind->arg);
	}
}

static void look_again_later(struct jobs *j)
{
	if (j->looking_again)
		return;
	j->looking_again = true;
	ioe_timer(j->ioe, &j->again, ioe_now_ns(j->ioe) + JOBS_RETRY_NS, look_again);
}

static void look_again(struct ioe_req *req)
{
	struct jobs *j = container_of(req, struct jobs, again);

	j->looking_again = false;
	jobs_wake(j, 0);
	close_step(j);
}

/* ---- while it runs --------------------------------------------------------------------------------------------------------- */

void job_progress(struct job_run *run, uint64_t done_n, uint64_t total_n)
{
	struct job_active *a = job_active_of(run);
	uint64_t now = ioe_now_ns(run->jobs->ioe);

	check(!a->ended);
	run->job.done_n = done_n;
	run->job.total_n = total_n;
	if (!a->updating && now - a->told_ns >= PROGRESS_NS)
		record_write(a);
}

void jobs_cancel(struct jobs *j, struct san_job_cancel *r)
{
	struct job_active *a = active_of(j, r->job);

	/* first the record, so that the end does not come before it */
	san_job_cancel(j->san, r);
	if (!a || a->ended || a->run.job.kind == SAN_JOB_VOLUME_DELETE ||
	    a->run.job.kind == SAN_JOB_DEVICE_LOSE)
		return;
	a->run.job.cancel = true;
	ask_to_stop(a);
}

/* ---- the end --------------------------------------------------------------------------------------------------------------- */

void job_end(struct job_run *run, int status, const char *text)
{
	struct job_active *a = job_active_of(run);
	struct jobs *j = run->jobs;

	check(!a->ended);
	a->ended = true;
	if (status == -ECANCELED && !run->job.cancel && (j->closing || j->held)) {
		a->has_record = true; /* it goes on after the next start */
	} else {
		run->job.state = status == 0		? SAN_JOB_DONE
				 : status == -ECANCELED ? SAN_JOB_CANCELLED
							: SAN_JOB_FAILED;
		run->job.error = run->job.state == SAN_JOB_FAILED ? status : 0;
		snprintf(run->job.text, sizeof(run->job.text), "%s",
			 text	      ? text
			 : status < 0 ? err_text(status)
				      : "");
		if (run->job.state == SAN_JOB_FAILED)
			san_event(j->san, SAN_ERROR, "job_failed", "Job %u (%s %s) failed: %s",
				  run->job.id, a->kind->name, run->job.subject, run->job.text);
	}
	if (a->updating)
		return; /* record_written goes on */
	if (a->has_record)
		ioe_nop(j->ioe, &a->retry, over_later); /* not from inside the kind */
	else
		record_write(a);
}

void job_end_recorded(struct job_run *run)
{
	struct job_active *a = job_active_of(run);

	check(!a->ended);
	a->ended = a->has_record = true;
	if (!a->updating)
		ioe_nop(run->jobs->ioe, &a->retry, over_later);
}

static void over_later(struct ioe_req *req)
{
	active_over(container_of(req, struct job_active, retry));
}

static void record_write(struct job_active *a)
{
	a->updating = true;
	a->told_ns = ioe_now_ns(a->run.jobs->ioe);
	a->update.req.done = record_written;
	a->update.job = a->run.job;
	san_job_update(a->run.jobs->san, &a->update);
}

static void record_written(struct san_req *req)
{
	struct job_active *a = container_of(req, struct job_active, update.req);
	bool was_end = a->update.job.state >= SAN_JOB_DONE;

	a->updating = false;
	if (!a->ended)
		return;
	/* a SAN that is out of service takes no records; the next start finds the job unfinished */
	if (req->status && req->status != -ENOENT && req->status != -EINVAL)
		a->run.jobs->stuck = true;
	if (was_end || a->has_record || req->status)
		active_over(a);
	else
		record_write(a);
}

static void active_over(struct job_active *a)
{
	struct jobs *j = a->run.jobs;

	list_del(&a->link);
	mem_free(a);
	j->active_n--;
	if (!j->closing && !j->stuck)
		ioe_hook_arm(j->ioe, &j->hook);
	close_step(j);
}
