/* SPDX-License-Identifier: Apache-2.0 */
/* check.c - the consistency check of the SAN as a job. Its result: {"problems": [texts of the first], "problems_n": N, "chunks": N, "slots": N}. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "metadata/jobs/runner.h"
#include "src/base/math.h"

enum { RESULT_PROBLEMS_MAX = 8 };

static void checked(struct san_req *req);
static void check_progress(struct san_check *r);

static void check_start(struct job_run *run, void *arg)
{
	struct job_active *a = job_active_of(run);

	(void)arg;
	a->check = (struct san_check){.req.done = checked, .progress = check_progress};
	san_check(run->jobs->san, &a->check);
}

static void check_progress(struct san_check *r)
{
	struct job_active *a = container_of(r, struct job_active, check);

	job_progress(&a->run, r->pages_n, MAX(r->pages_total, r->pages_n));
}

static void check_stop(struct job_run *run, void *arg)
{
	(void)arg;
	job_active_of(run)->check.cancel = true;
}

/* NULL: no memory */
static char *result_of(const struct san_check *r)
{
	json_t *problems = json_array();
	char *text = NULL;
	json_t *result;

	for (uint64_t i = 0; problems && i < MIN(r->problems_n, (uint64_t)RESULT_PROBLEMS_MAX); i++)
		json_array_append_new(problems, json_string(r->problems[i]));
	result = json_pack("{s:o, s:I, s:I, s:I}", "problems", problems, "problems_n",
			   (json_int_t)r->problems_n, "chunks", (json_int_t)r->entries_n, "slots",
			   (json_int_t)r->slots_n);
	if (result)
		text = json_dumps(result, JSON_COMPACT);
	json_decref(result);
	return text;
}

static void checked(struct san_req *req)
{
	struct job_active *a = container_of(req, struct job_active, check.req);
	const struct san_check *r = &a->check;
	char *text;

	if (req->status) {
		job_end(&a->run, req->status, req->status == -ECANCELED ? NULL : req->errmsg);
		return;
	}
	if (r->problems_n)
		san_event(a->run.jobs->san, SAN_ERROR, "check_problems",
			  "The check found %" PRIu64 " problems; the first: %s", r->problems_n,
			  r->problems[0]);
	a->run.job.done_n = a->run.job.total_n = r->pages_n;
	text = result_of(r);
	job_end(&a->run, text ? 0 : -ENOMEM, text);
	free(text);
}

const struct job_kind job_check = {
    .kind = SAN_JOB_CHECK,
    .name = "check",
    .start = check_start,
    .stop = check_stop,
    .alone = true,
};
