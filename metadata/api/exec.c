/* SPDX-License-Identifier: Apache-2.0 */
#include "metadata/api/exec.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "metadata/api/text.h"
#include "src/base/log.h"
#include "src/base/mem.h"

static void (*const verbs[ADMIN_VERBS_N])(struct exec *x) = {
    [ADMIN_STATUS] = exec_status,
    [ADMIN_NODE_LIST] = exec_node_list,
    [ADMIN_NODE_SHOW] = exec_node_show,
    [ADMIN_NODE_REMOVE] = exec_node_remove,
    [ADMIN_DEVICE_LIST] = exec_device_list,
    [ADMIN_DEVICE_ADD] = exec_device_add,
    [ADMIN_DEVICE_SHOW] = exec_device_show,
    [ADMIN_DEVICE_REMOVE] = exec_device_remove,
    [ADMIN_POOL_LIST] = exec_pool_list,
    [ADMIN_POOL_SHOW] = exec_pool_show,
    [ADMIN_POOL_CREATE] = exec_pool_create,
    [ADMIN_POOL_REMOVE] = exec_pool_remove,
    [ADMIN_VOLUME_LIST] = exec_volume_list,
    [ADMIN_VOLUME_CREATE] = exec_volume_create,
    [ADMIN_VOLUME_SHOW] = exec_volume_show,
    [ADMIN_VOLUME_RESIZE] = exec_volume_resize,
    [ADMIN_VOLUME_DELETE] = exec_volume_delete,
    [ADMIN_VOLUME_RELEASE] = exec_volume_release,
    [ADMIN_VOLUME_MAP] = exec_volume_map,
    [ADMIN_VOLUME_STATS] = exec_volume_stats,
    [ADMIN_VOLUME_BENCH] = exec_volume_bench,
    [ADMIN_EXPORT_LIST] = exec_export_list,
    [ADMIN_EXPORT_SHOW] = exec_export_show,
    [ADMIN_EXPORT_SET] = exec_export_set,
    [ADMIN_JOB_LIST] = exec_job_list,
    [ADMIN_JOB_SHOW] = exec_job_show,
    [ADMIN_JOB_CANCEL] = exec_job_cancel,
    [ADMIN_EVENT_LIST] = exec_event_list,
    [ADMIN_CHECK] = exec_check,
    [ADMIN_METADATA_BACKUP] = exec_metadata_backup,
    [ADMIN_METRICS] = exec_metrics,
};

static void admin_stop_step(struct admin *a);

void admin_init(struct admin *a, struct cluster *c, struct jobs *j)
{
	*a = (struct admin){.cluster = c, .jobs = j, .started_wall_ns = ioe_wall_ns(c->ioe)};
	list_init(&a->waiting);
}

static void run(struct exec *x)
{
	struct cluster *c = x->a->cluster;

	if (c->state == CLUSTER_REFUSING && !admin_verb(x->r->verb).while_refused)
		exec_fail(x, ADMIN_E_REFUSED, "'strata status' says more.", "%s", c->refusal);
	else if (x->r->key && (x->r->verb == ADMIN_VOLUME_CREATE || x->r->verb == ADMIN_CHECK))
		exec_once(x, verbs[x->r->verb]);
	else
		verbs[x->r->verb](x);
}

void admin_submit(struct admin *a, struct admin_req *r)
{
	struct exec *x;

	if (a->stopping || a->cluster->state == CLUSTER_STOPPING) {
		admin_fail(r, ADMIN_E_STOPPING, "Ask again when it is back.",
			   "the metadata server is stopping");
		return;
	}
	x = mem_zalloc(sizeof(*x));
	if (!x) {
		admin_answer(r, 200, NULL); /* short of memory */
		return;
	}
	x->a = a;
	x->r = r;
	a->running++;
	cluster_op_begin(a->cluster);
	if (a->cluster->state == CLUSTER_STARTING && !admin_verb(r->verb).while_refused)
		list_push(&a->waiting, &x->link);
	else
		run(x);
}

void admin_settled(struct admin *a)
{
	struct list batch;
	struct list *l;

	list_init(&batch);
	list_splice(&batch, &a->waiting);
	while ((l = list_pop(&batch))) {
		struct exec *x = list_entry(l, struct exec, link);

		if (a->stopping)
			exec_fail(x, ADMIN_E_STOPPING, "", "the metadata server is stopping");
		else
			run(x);
	}
}

/* ---- the end ------------------------------------------------------------------------------------------------------------------------ */

static void stop_nop_done(struct ioe_req *req)
{
	struct admin *a = container_of(req, struct admin, nop);

	a->running--;
	admin_stop_step(a);
}

void admin_stop(struct admin *a, void (*done)(void *arg), void *arg)
{
	a->stopping = true;
	a->stopped = done;
	a->stopped_arg = arg;
	a->running++; /* not inline */
	ioe_nop(a->cluster->ioe, &a->nop, stop_nop_done);
	admin_settled(a);
}

static void admin_stop_step(struct admin *a)
{
	void (*stopped)(void *arg) = a->stopped;

	if (!a->stopping || !stopped || a->running)
		return;
	a->stopped = NULL;
	stopped(a->stopped_arg);
}

static struct admin_req *finish(struct exec *x, struct admin **ret_a)
{
	struct admin_req *r = x->r;

	*ret_a = x->a;
	mem_free(x);
	return r;
}

static void finished(struct admin *a)
{
	a->running--;
	cluster_op_end(a->cluster);
	admin_stop_step(a);
}

void exec_answer(struct exec *x, int status, json_t *answer)
{
	struct admin *a;

	admin_answer(finish(x, &a), status, answer);
	finished(a);
}

void exec_answer_text(struct exec *x, char *text)
{
	struct admin *a;

	admin_answer_text(finish(x, &a), text);
	finished(a);
}

void exec_fail(struct exec *x, enum admin_code code, const char *hint, const char *fmt, ...)
{
	char message[ADMIN_MESSAGE_LEN];
	struct admin *a;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	admin_fail(finish(x, &a), code, hint, "%s", message);
	finished(a);
}

void exec_fail_status(struct exec *x, int status, const char *hint, const char *errmsg)
{
	check(status < 0);
	exec_fail(x, admin_code_of(status), hint, "%s", *errmsg ? errmsg : err_text(status));
}

void *exec_grow(struct exec *x, size_t bytes)
{
	struct exec *bigger = mem_realloc(x, bytes, 1);

	check(bytes >= sizeof(*x));
	if (!bigger) {
		exec_answer(x, 200, NULL); /* short of memory */
		return NULL;
	}
	memset(bigger + 1, 0, bytes - sizeof(*bigger));
	return bigger;
}

/* ---- pages and words ------------------------------------------------------------------------------------------------------------------- */

void exec_answer_page(struct exec *x, json_t *items, const char *next)
{
	exec_answer(x, 200, items ? json_pack("{s:o, s:s?}", "items", items, "next", next) : NULL);
}

bool exec_after_number(struct exec *x, uint64_t *ret_after)
{
	const char *text = admin_text(x->r, "after");
	char *end;

	*ret_after = 0;
	if (!text)
		return true;
	errno = 0;
	*ret_after = strtoull(text, &end, 10);
	if (text[0] >= '0' && text[0] <= '9' && !*end && !errno)
		return true;
	exec_fail(x, ADMIN_E_INVALID, "Pass the 'next' of the page before.",
		  "after is a number here, not '%s'", text);
	return false;
}

json_t *exec_time(uint64_t wall_ns)
{
	time_t s = (time_t)(wall_ns / 1000000000);
	char text[48];
	struct tm tm;
	size_t n;

	if (!wall_ns || !gmtime_r(&s, &tm))
		return json_null();
	n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + n, sizeof(text) - n, ".%03uZ", (unsigned)(wall_ns / 1000000 % 1000));
	return json_string(text);
}

json_t *exec_text(const char *text)
{
	char *copy = mem_strdup(text);
	json_t *json = NULL;

	if (copy) {
		text_clean(copy);
		json = json_string(copy);
	}
	mem_free(copy);
	return json;
}

json_t *exec_uuid(const struct uuid *u)
{
	char text[UUID_TEXT_LEN];

	uuid_format(u, text);
	return json_string(text);
}
