/* SPDX-License-Identifier: Apache-2.0 */
/* jobrec.c - the records of long work. All are resident: those that have not ended, and the last SAN_JOBS_KEPT that have. */
#include <stdio.h>
#include <string.h>

#include "metadata/san/state.h"
#include "src/base/check.h"
#include "src/base/mem.h"

/* ---- as part of a batch ---------------------------------------------------------------------------------------------------- */

static void job_emit(struct san *s, struct txn_obj *o)
{
	struct job *job = container_of(o, struct job, obj);
	struct schema_key k = schema_key_32(SCHEMA_JOB, job->j.id);

	txn_put(s, &k, schema_job_encode(&job->j, &k, txn_value(s)));
}

static const struct txn_obj_type job_type = {.is_page = true, .emit = job_emit};

void job_mark(struct san *s, struct job *job)
{
	txn_mark(s, &job->obj);
}

/* ---- records --------------------------------------------------------------------------------------------------------------- */

struct job *job_of(const struct san *s, uint32_t id)
{
	return idtab_get(&s->jobs, id);
}

bool job_unfinished(const struct san *s, uint32_t id)
{
	const struct job *job = job_of(s, id);

	return job && !job_ended(&job->j);
}

struct job *job_new(struct san *s)
{
	struct job *job = mem_zalloc(sizeof(*job));

	if (!job || idtab_reserve(&s->jobs)) {
		mem_free(job);
		return NULL;
	}
	job->obj.type = &job_type;
	return job;
}

int job_load(struct san *s, const struct san_job *rec)
{
	struct job *job = job_new(s);

	if (!job)
		return -ENOMEM;
	job->j = *rec;
	s->jobs_ended_n += job_ended(rec);
	idtab_add(&s->jobs, rec->id, job);
	return 0;
}

/* Makes room for a new one among those that are kept. */
static void drop_oldest(struct san *s)
{
	struct job *job;

	idtab_for_each (job, &s->jobs) {
		struct schema_key k = schema_key_32(SCHEMA_JOB, job->j.id);

		if (!job_ended(&job->j) || txn_has(s, &job->obj))
			continue;
		txn_take_smalls(s, 1);
		txn_delete(s, &k);
		idtab_del(&s->jobs, job->j.id);
		s->jobs_ended_n--;
		mem_free(job);
		return;
	}
}

void job_add(struct san *s, struct job *job, uint32_t kind, const uint64_t args[SAN_JOB_ARGS],
	     const char *subject)
{
	if (s->jobs_ended_n > SAN_JOBS_KEPT)
		drop_oldest(s);
	job->j = (struct san_job){
	    .id = ++s->cluster.job,
	    .kind = kind,
	    .state = SAN_JOB_QUEUED,
	    .created_ns = ioe_wall_ns(s->ioe),
	};
	memcpy(job->j.args, args, sizeof(job->j.args));
	snprintf(job->j.subject, sizeof(job->j.subject), "%s", subject);
	s->cluster_dirty = true;
	idtab_add(&s->jobs, job->j.id, job);
	job_mark(s, job);
	txn_note(s, NOTE_JOB, job->j.id);
}

void job_finish(struct san *s, struct job *job, enum san_job_state state, int error,
		const char *text)
{
	job->j.state = state;
	job->j.error = error;
	job->j.ended_ns = ioe_wall_ns(s->ioe);
	snprintf(job->j.text, sizeof(job->j.text), "%s", text);
	s->jobs_ended_n++;
	job_mark(s, job);
}

/* ---- requests -------------------------------------------------------------------------------------------------------------- */

static enum exec create_exec(struct san *s, struct san_req *req)
{
	struct san_job_create *r = container_of(req, struct san_job_create, req);
	struct job *job;

	if (!txn_fits(s, 1, JOB_SMALLS + ONCE_SMALLS))
		return EXEC_MORE;
	if (s->jobs.n - s->jobs_ended_n >= SAN_JOBS_UNFINISHED_MAX)
		return san_op_fail(req, -EAGAIN, "%u jobs have not ended yet",
				   s->jobs.n - s->jobs_ended_n);
	job = job_new(s);
	if (!job)
		return san_op_fail(req, -ENOMEM, "out of memory");
	job_add(s, job, r->kind, r->args, r->subject);
	once_put(s, &r->once, SAN_ONCE_JOB, job->j.id);
	r->job = job->j.id;
	return EXEC_DONE;
}

void san_job_create(struct san *s, struct san_job_create *r)
{
	san_op_begin(s, &r->req, create_exec, NULL);
	if (strlen(r->subject) > NAME_LEN_MAX || !once_ok(&r->once))
		san_op_refuse(&r->req, -EINVAL);
	else
		san_op_write(&r->req);
}

static struct job *find_unfinished(struct san *s, struct san_req *req, uint32_t id)
{
	struct job *job = job_of(s, id);

	if (!job)
		san_op_fail(req, -ENOENT, "there is no job %u", id);
	else if (job_ended(&job->j))
		san_op_fail(req, -EINVAL, "job %u has ended", id);
	return req->status ? NULL : job;
}

static enum exec update_exec(struct san *s, struct san_req *req)
{
	struct san_job_update *r = container_of(req, struct san_job_update, req);
	struct job *job = find_unfinished(s, req, r->job.id);

	if (!job)
		return EXEC_DONE;
	if (!txn_fits(s, txn_page_cost(s, &job->obj), 0))
		return EXEC_MORE;
	job->j.done_n = r->job.done_n;
	job->j.total_n = r->job.total_n;
	if (job_ended(&r->job)) {
		job_finish(s, job, r->job.state, r->job.error, r->job.text);
		return EXEC_DONE;
	}
	job->j.state = r->job.state;
	memcpy(job->j.text, r->job.text, sizeof(job->j.text));
	job_mark(s, job);
	return EXEC_DONE;
}

void san_job_update(struct san *s, struct san_job_update *r)
{
	san_op_begin(s, &r->req, update_exec, NULL);
	if (r->job.state < SAN_JOB_QUEUED || r->job.state > SAN_JOB_CANCELLED ||
	    !memchr(r->job.text, '\0', sizeof(r->job.text)))
		san_op_refuse(&r->req, -EINVAL);
	else
		san_op_write(&r->req);
}

static enum exec cancel_exec(struct san *s, struct san_req *req)
{
	struct san_job_cancel *r = container_of(req, struct san_job_cancel, req);
	struct job *job = find_unfinished(s, req, r->job);

	if (!job)
		return EXEC_DONE;
	if (job->j.kind == SAN_JOB_VOLUME_DELETE || job->j.kind == SAN_JOB_DEVICE_LOSE)
		return san_op_fail(req, -EOPNOTSUPP, "job %u can only go forward", r->job);
	if (!txn_fits(s, txn_page_cost(s, &job->obj), 0))
		return EXEC_MORE;
	job->j.cancel = true;
	job_mark(s, job);
	txn_note(s, NOTE_JOB, job->j.id);
	return EXEC_DONE;
}

void san_job_cancel(struct san *s, struct san_job_cancel *r)
{
	san_op_begin(s, &r->req, cancel_exec, NULL);
	san_op_write(&r->req);
}

static enum exec list_exec(struct san *s, struct san_req *req)
{
	struct san_job_list *r = container_of(req, struct san_job_list, req);
	const struct job *job;

	san_op_of(req)->wait = true;
	for (uint32_t id = r->after; (job = idtab_above(&s->jobs, id)); id = job->j.id) {
		if (r->unfinished_only && job_ended(&job->j))
			continue;
		if (r->jobs_n == r->jobs_max) {
			r->more = true;
			break;
		}
		r->jobs[r->jobs_n++] = job->j;
	}
	return EXEC_DONE;
}

int san_job_next(const struct san *s, uint32_t after, struct san_job *ret_job)
{
	const struct job *job;

	for (uint32_t id = after; (job = idtab_above(&s->jobs, id)); id = job->j.id) {
		/* not before it is durable: what its steps read from the database might lack what was committed with it */
		if (job_ended(&job->j) || txn_has(s, &job->obj))
			continue;
		*ret_job = job->j;
		return 0;
	}
	return -ENOENT;
}

void san_job_list(struct san *s, struct san_job_list *r)
{
	r->jobs_n = 0;
	r->more = false;
	san_op_begin(s, &r->req, list_exec, NULL);
	if (r->jobs_max == 0 || r->jobs_max > SAN_LIST_MAX)
		san_op_refuse(&r->req, -EINVAL);
	else
		san_op_read(&r->req);
}

static enum exec get_exec(struct san *s, struct san_req *req)
{
	struct san_job_get *r = container_of(req, struct san_job_get, req);
	const struct job *job = job_of(s, r->id);

	san_op_of(req)->wait = true;
	if (!job)
		return san_op_fail(req, -ENOENT, "there is no job %u", r->id);
	r->job = job->j;
	return EXEC_DONE;
}

void san_job_get(struct san *s, struct san_job_get *r)
{
	san_op_begin(s, &r->req, get_exec, NULL);
	san_op_read(&r->req);
}
