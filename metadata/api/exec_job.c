/* SPDX-License-Identifier: Apache-2.0 */
/* exec_job.c - jobs, events, check, backup. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "metadata/api/exec.h"

/* ---- jobs ---------------------------------------------------------------------------------------------------------------------------- */

/* What to do when one has failed. */
static const char *hint_of(const struct san_job *job)
{
	switch (job->kind) {
	case SAN_JOB_VOLUME_DELETE:
		return "Mend what is wrong ('strata check' may say more), then delete the volume "
		       "again, by the same name.";
	case SAN_JOB_DEVICE_LOSE:
		return "Mend what is wrong ('strata check' may say more), then remove the device "
		       "again with --lost.";
	default:
		return "";
	}
}

json_t *exec_job_json(struct admin *a, const struct san_job *job)
{
	json_t *error = json_null(), *result = json_null();

	if (job->state == SAN_JOB_FAILED)
		error =
		    json_pack("{s:s, s:o, s:s}", "code",
			      admin_code_word(admin_code_of(job->error ? job->error : -EIO)),
			      "message", exec_text(*job->text ? job->text : err_text(job->error)),
			      "hint", hint_of(job));
	if (job->state == SAN_JOB_DONE && *job->text) {
		result = json_loads(job->text, 0, NULL);
		if (!result)
			result = json_pack("{s:o}", "text", exec_text(job->text));
	}
	return json_pack("{s:I, s:s, s:o, s:s, s:I, s:I, s:o, s:o, s:o, s:o}", "id",
			 (json_int_t)job->id, "kind", jobs_kind_name(a->jobs, job->kind), "subject",
			 exec_text(job->subject), "state", jobs_state_name(job->state), "done",
			 (json_int_t)job->done_n, "total", (json_int_t)job->total_n, "created",
			 exec_time(job->created_ns), "ended", exec_time(job->ended_ns), "error",
			 error, "result", result);
}

struct exec_jobs {
	struct exec x;
	struct san_job_list list;
	struct san_job jobs[];
};

static void jobs_done(struct san_req *req);

void exec_job_list(struct exec *x)
{
	uint32_t limit = (uint32_t)admin_int(x->r, "limit");
	struct exec_jobs *op;
	uint64_t after;

	if (!exec_after_number(x, &after))
		return;
	op = exec_grow(x, sizeof(*op) + limit * sizeof(struct san_job));
	if (!op)
		return;
	op->list.after = after > UINT32_MAX ? UINT32_MAX : (uint32_t)after;
	op->list.jobs = op->jobs;
	op->list.jobs_max = limit;
	op->list.req.done = jobs_done;
	san_job_list(op->x.a->cluster->san, &op->list);
}

static void jobs_done(struct san_req *req)
{
	struct exec_jobs *op = container_of(req, struct exec_jobs, list.req);
	uint32_t n = op->list.jobs_n;
	char next[16];
	json_t *items;

	if (req->status) {
		exec_fail_status(&op->x, req->status, "", req->errmsg);
		return;
	}
	items = json_array();
	for (uint32_t i = 0; i < n; i++)
		json_array_append_new(items, exec_job_json(op->x.a, &op->jobs[i]));
	if (n)
		snprintf(next, sizeof(next), "%u", op->jobs[n - 1].id);
	exec_answer_page(&op->x, items, op->list.more && n ? next : NULL);
}

struct exec_job {
	struct exec x;
	struct san_job_cancel cancel;
	struct san_job_get get;
};

static void job_got(struct san_req *req);
static void job_cancelled(struct san_req *req);

static uint32_t job_of(const struct exec *x)
{
	int64_t id = admin_int(x->r, "job");

	return id > UINT32_MAX ? 0 : (uint32_t)id; /* no job has number 0 */
}

static void job_get(struct exec_job *op)
{
	op->get.id = job_of(&op->x);
	op->get.req.done = job_got;
	san_job_get(op->x.a->cluster->san, &op->get);
}

void exec_job_show(struct exec *x)
{
	struct exec_job *op = exec_grow(x, sizeof(*op));

	if (op)
		job_get(op);
}

static void no_job(struct exec *x, int status, const char *errmsg)
{
	if (status == -ENOENT)
		exec_fail(x, ADMIN_E_NOT_FOUND, "'strata job list' shows them.",
			  "there is no job %" PRId64, admin_int(x->r, "job"));
	else
		exec_fail_status(x, status, "", errmsg);
}

static void job_got(struct san_req *req)
{
	struct exec_job *op = container_of(req, struct exec_job, get.req);

	if (req->status)
		no_job(&op->x, req->status, req->errmsg);
	else
		exec_answer(&op->x, 200, exec_job_json(op->x.a, &op->get.job));
}

void exec_job_cancel(struct exec *x)
{
	struct exec_job *op = exec_grow(x, sizeof(*op));

	if (!op)
		return;
	op->cancel.job = job_of(&op->x);
	op->cancel.req.done = job_cancelled;
	jobs_cancel(op->x.a->jobs, &op->cancel);
}

static void job_cancelled(struct san_req *req)
{
	struct exec_job *op = container_of(req, struct exec_job, cancel.req);

	if (req->status == -EOPNOTSUPP || req->status == -EINVAL)
		exec_fail(&op->x, ADMIN_E_NOT_CANCELLABLE, "",
			  req->status == -EINVAL ? "job %u has ended" : "job %u can only go forward",
			  op->cancel.job);
	else if (req->status)
		no_job(&op->x, req->status, req->errmsg);
	else
		job_get(op);
}

/* ---- check --------------------------------------------------------------------------------------------------------------------------- */

struct exec_check {
	struct exec x;
	struct san_job_create create;
};

static void check_created(struct san_req *req);

void exec_check(struct exec *x)
{
	struct exec_check *op = exec_grow(x, sizeof(*op));

	if (!op)
		return;
	op->create.kind = SAN_JOB_CHECK;
	op->create.subject = "";
	op->create.once = exec_once_of(&op->x);
	op->create.req.done = check_created;
	san_job_create(op->x.a->cluster->san, &op->create);
}

static void check_created(struct san_req *req)
{
	struct exec_check *op = container_of(req, struct exec_check, create.req);

	if (req->status == -EAGAIN)
		exec_fail(&op->x, ADMIN_E_BUSY, "'strata job list' shows them.", "%s", req->errmsg);
	else if (req->status)
		exec_fail_status(&op->x, req->status, "", req->errmsg);
	else
		exec_answer(&op->x, 202, json_pack("{s:I}", "job", (json_int_t)op->create.job));
}

/* ---- events -------------------------------------------------------------------------------------------------------------------------- */

struct exec_events {
	struct exec x;
	struct san_event_list list;
	bool is_tail; /* the last ones: there is no further page */
	struct san_event events[];
};

static void events_done(struct san_req *req);

void exec_event_list(struct exec *x)
{
	bool is_tail = admin_has(x->r, "last");
	uint32_t limit = (uint32_t)admin_int(x->r, is_tail ? "last" : "limit");
	uint64_t after, last = san_event_last(x->a->cluster->san);
	struct exec_events *op;

	if (!exec_after_number(x, &after))
		return;
	op = exec_grow(x, sizeof(*op) + limit * sizeof(struct san_event));
	if (!op)
		return;
	op->is_tail = is_tail;
	op->list.after = is_tail ? last - (last < limit ? last : limit) : after;
	op->list.events = op->events;
	op->list.events_max = limit;
	op->list.req.done = events_done;
	san_event_list(op->x.a->cluster->san, &op->list);
}

static void events_done(struct san_req *req)
{
	static const char *const severities[] = {
	    [SAN_INFO] = "info", [SAN_WARNING] = "warning", [SAN_ERROR] = "error"};
	struct exec_events *op = container_of(req, struct exec_events, list.req);
	uint32_t n = op->list.events_n;
	char next[24];
	json_t *items;

	if (req->status) {
		exec_fail_status(&op->x, req->status, "", req->errmsg);
		return;
	}
	items = json_array();
	for (uint32_t i = 0; i < n; i++) {
		const struct san_event *e = &op->events[i];

		json_array_append_new(
		    items, json_pack("{s:I, s:o, s:s, s:o, s:o}", "id", (json_int_t)e->seq, "time",
				     exec_time(e->wall_ns), "severity",
				     e->severity >= SAN_INFO && e->severity <= SAN_ERROR
					 ? severities[e->severity]
					 : "error",
				     "code", exec_text(e->code), "message", exec_text(e->text)));
	}
	if (n)
		snprintf(next, sizeof(next), "%" PRIu64, op->events[n - 1].seq);
	exec_answer_page(&op->x, items, !op->is_tail && op->list.more && n ? next : NULL);
}

/* ---- backup -------------------------------------------------------------------------------------------------------------------------- */

struct exec_backup {
	struct exec x;
	struct metastore_backup backup;
};

static void backup_done(struct metastore_backup *b);

void exec_metadata_backup(struct exec *x)
{
	struct exec_backup *op = exec_grow(x, sizeof(*op));

	if (!op)
		return;
	op->backup.path = admin_text(op->x.r, "path");
	op->backup.done = backup_done;
	metastore_backup(op->x.a->cluster->store, &op->backup);
}

static void backup_done(struct metastore_backup *b)
{
	struct exec_backup *op = container_of(b, struct exec_backup, backup);

	if (b->status) {
		exec_fail_status(&op->x, b->status, "", b->errmsg);
		return;
	}
	san_event(op->x.a->cluster->san, SAN_INFO, "metadata_backup",
		  "The metadata up to commit %" PRIu64 " was copied to %s.", b->commit, b->path);
	exec_answer(&op->x, 201,
		    json_pack("{s:s, s:I}", "path", b->path, "commit", (json_int_t)b->commit));
}
