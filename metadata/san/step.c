/* SPDX-License-Identifier: Apache-2.0 */
/* step.c - what the steps of the SAN's own jobs have in common. */
#include "metadata/san/step.h"

#include "src/base/check.h"

struct job_step *step_of(struct san_req *req)
{
	return container_of(req, struct san_job_step, req)->priv;
}

static void step_cleanup(struct san_req *req)
{
	struct job_step *st = step_of(req);

	if (!st)
		return;
	page_set_free(st->set);
	priv_free(st->scan);
	priv_free(st);
}

struct job_step *step_begin(struct san *s, struct san_job_step *r, uint32_t kind,
			    enum exec (*exec)(struct san *s, struct san_req *req))
{
	struct job *job = job_of(s, r->job);
	struct job_step *st;

	r->priv = NULL;
	r->finished = r->wait = false;
	san_op_begin(s, &r->req, exec, step_cleanup);
	if (!job || job->j.kind != kind) {
		san_op_refuse(&r->req, -ENOENT);
		return NULL;
	}
	st = r->priv = priv_alloc(s, sizeof(*st));
	if (!st) {
		san_op_refuse(&r->req, -ENOMEM);
		return NULL;
	}
	*st = (struct job_step){.s = s, .r = r, .id = (uint32_t)job->j.args[0]};
	st->scan = scan_new(s, STEP_CHANGES, STEP_PAGES * (SCHEMA_PAGE_MAX + SCHEMA_KEY_MAX));
	if (!st->scan) {
		san_op_refuse(&r->req, -ENOMEM);
		return NULL;
	}
	st->scan->m.items_max = STEP_PAGES;
	return st;
}

struct job *step_job(struct san *s, struct san_req *req)
{
	struct san_job_step *r = container_of(req, struct san_job_step, req);
	struct job *job = job_of(s, r->job);

	if (!job || job_ended(&job->j)) {
		r->finished = true;
		return NULL;
	}
	return job;
}

void step_finish(struct san *s, struct san_req *req, struct job *job)
{
	job->j.total_n = job->j.done_n;
	job_finish(s, job, SAN_JOB_DONE, 0, "");
	container_of(req, struct san_job_step, req)->finished = true;
}

static void step_loaded(struct page_set *set)
{
	struct san_req *r = set->arg;

	if (set->status)
		san_op_refuse(r, set->status);
	else
		san_op_write(r);
}

void step_load(struct job_step *st)
{
	page_set_load(st->set, step_loaded, &st->r->req);
}
