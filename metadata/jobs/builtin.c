/* SPDX-License-Identifier: Apache-2.0 */
/* builtin.c - the SAN's own jobs: deleting a volume, giving up a device (step by step, each a commit with the job's progress in it), and the check. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "metadata/jobs/private.h"
#include "src/base/math.h"

static void step(struct run *r);
static void step_done(struct san_req *req);
static void check_progress(struct san_check *c);
static void check_done(struct san_req *req);

bool builtin_start(struct run *r)
{
	switch (r->pub.job.kind) {
	case SAN_JOB_VOLUME_DELETE:
	case SAN_JOB_DEVICE_LOSE:
		step(r);
		return true;
	case SAN_JOB_CHECK:
		r->check =
		    (struct san_check){.req = {.done = check_done}, .progress = check_progress};
		san_check(r->pub.jobs->san, &r->check);
		return true;
	default:
		return false;
	}
}

void builtin_stop(struct run *r)
{
	if (r->pub.job.kind == SAN_JOB_CHECK)
		r->check.cancel = true;
	/* the others end with the step that is under way, and go on from there after the next start */
}

static void step(struct run *r)
{
	r->step = (struct san_job_step){.req = {.done = step_done}, .job = r->pub.job.id};
	if (r->pub.job.kind == SAN_JOB_VOLUME_DELETE)
		san_volume_delete_step(r->pub.jobs->san, &r->step);
	else
		san_device_lose_step(r->pub.jobs->san, &r->step);
}

static void step_done(struct san_req *req)
{
	struct run *r = container_of(req, struct run, step.req);

	if (!req->status && r->step.finished)
		run_gone(r); /* its record says so already */
	else if (r->pub.stopping)
		job_end(&r->pub, -ECANCELED, NULL);
	else if (req->status)
		job_end(&r->pub, req->status, req->errmsg[0] ? req->errmsg : NULL);
	else
		step(r);
}

static void check_progress(struct san_check *c)
{
	struct run *r = container_of(c, struct run, check);

	job_progress(&r->pub, c->pages_n, c->pages_total);
}

/* {"problems": [..], "problems_n", "chunks", "slots", ...}: what `strata check` prints. NULL: no memory. */
static char *result_text(const struct san_check *c, uint64_t shown)
{
	json_t *problems = json_array(), *result;
	char *text;

	for (uint64_t i = 0; i < shown; i++)
		json_array_append_new(problems, json_string(c->problems[i]));
	result = json_pack("{s:o, s:I, s:I, s:I, s:I, s:I}", "problems", problems, "problems_n",
			   (json_int_t)c->problems_n, "chunks", (json_int_t)c->entries_n, "slots",
			   (json_int_t)c->slots_n, "volumes", (json_int_t)c->volumes_n,
			   "changed_meanwhile", (json_int_t)c->exempt_n);
	text = result ? json_dumps(result, JSON_COMPACT) : NULL;
	json_decref(result);
	return text;
}

static void check_done(struct san_req *req)
{
	struct run *r = container_of(req, struct run, check.req);
	struct san_check *c = &r->check;
	uint64_t shown = MIN(c->problems_n, (uint64_t)SAN_CHECK_PROBLEMS_MAX);
	char *text;

	if (req->status) {
		job_end(&r->pub, req->status, req->errmsg[0] ? req->errmsg : NULL);
		return;
	}
	text = result_text(c, shown);
	while (text && strlen(text) > SAN_JOB_TEXT_MAX &&
	       shown > 0) { /* the count stays; some sentences go */
		free(text);
		text = result_text(c, --shown);
	}
	r->pub.job.done_n = r->pub.job.total_n = c->pages_n;
	job_end(&r->pub, text ? 0 : -ENOMEM, text);
	free(text);
}
