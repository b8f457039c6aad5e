/* SPDX-License-Identifier: Apache-2.0 */
/* steps.c - deletion of volumes and loss of devices: the SAN does a step, and another one, until it says that the work is finished. Progress and end are
 * part of the steps' commits. */
#include "metadata/jobs/runner.h"

static void step(struct job_active *a);
static void stepped(struct san_req *req);
static void step_again(struct ioe_req *req);

static void steps_start(struct job_run *run, void *arg)
{
	struct job_active *a = job_active_of(run);

	(void)arg;
	a->step = (struct san_job_step){.job = run->job.id};
	step(a);
}

static void step(struct job_active *a)
{
	a->step.req.done = stepped;
	if (a->run.job.kind == SAN_JOB_VOLUME_DELETE)
		san_volume_delete_step(a->run.jobs->san, &a->step);
	else
		san_device_lose_step(a->run.jobs->san, &a->step);
}

static void stepped(struct san_req *req)
{
	struct job_active *a = container_of(req, struct job_active, step.req);
	struct ioe *e = a->run.jobs->ioe;

	if (req->status == 0 && a->step.finished)
		job_end_recorded(&a->run);
	else if (a->run.stopping)
		job_end(&a->run, -ECANCELED, NULL);
	else if (req->status == 0 && !a->step.wait)
		step(a);
	else if (req->status == 0 || req->status == -ENOMEM)
		ioe_timer(e, &a->retry, ioe_now_ns(e) + JOBS_RETRY_NS, step_again);
	else
		job_end(&a->run, req->status, req->errmsg);
}

static void step_again(struct ioe_req *req)
{
	struct job_active *a = container_of(req, struct job_active, retry);

	if (a->run.stopping)
		job_end(&a->run, -ECANCELED, NULL);
	else
		step(a);
}

/* Between two steps it notices by itself; in a pause it is to be woken. */
static void steps_stop(struct job_run *run, void *arg)
{
	struct job_active *a = job_active_of(run);

	(void)arg;
	ioe_cancel(run->jobs->ioe, &a->retry);
}

const struct job_kind job_volume_delete = {
    .kind = SAN_JOB_VOLUME_DELETE,
    .name = "volume_delete",
    .start = steps_start,
    .stop = steps_stop,
};

const struct job_kind job_device_lost = {
    .kind = SAN_JOB_DEVICE_LOSE,
    .name = "device_lost",
    .start = steps_start,
    .stop = steps_stop,
};
