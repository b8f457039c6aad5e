/* SPDX-License-Identifier: Apache-2.0 */
/* exec_cluster.c - status, nodes. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "metadata/api/exec.h"
#include "src/base/mem.h"
#include "src/base/units.h"

/* ---- status -------------------------------------------------------------------------------------------------------------------------- */

enum { REASONS_MAX = 20, JOBS_PAGE = 32, FULL_PERCENT = 90 };
enum health { HEALTH_OK, HEALTH_DEGRADED, HEALTH_FAILED };

struct exec_status {
	struct exec x;
	struct san_job_list list;
	uint32_t jobs_n;
	enum health health;
	json_t *reasons, *warnings;
	struct san_job jobs[JOBS_PAGE];
};

static void status_jobs_done(struct san_req *req);
static void status_answer(struct exec_status *op);

static void reason(struct exec_status *op, enum health health, enum admin_code code,
		   const char *hint, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
static void reason(struct exec_status *op, enum health health, enum admin_code code,
		   const char *hint, const char *fmt, ...)
{
	char text[ADMIN_MESSAGE_LEN];
	va_list ap;

	if (health > op->health)
		op->health = health;
	if (json_array_size(op->reasons) >= REASONS_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_array_append_new(op->reasons,
			      json_pack("{s:s, s:o, s:s}", "code", admin_code_word(code), "message",
					exec_text(text), "hint", hint));
}

static uint32_t device_used(struct cluster *c, device_no no)
{
	struct san_device d;

	return san_device_get(c->san, no, &d) ? 0 : d.used_n + d.freeing_n;
}

static void reason_device(struct exec_status *op, const struct cluster_device *d)
{
	struct cluster *c = op->x.a->cluster;
	struct cluster_node *n = cluster_node_by_no(c, d->node);

	if (d->member != CLUSTER_MEMBER)
		return;
	if (d->presence == CLUSTER_OK && d->no_space)
		reason(
		    op, HEALTH_FAILED, ADMIN_E_NO_SPACE,
		    "Make space on the filesystem that its file is on; the next write that finds "
		    "some clears this.",
		    "there is no space left under device %u (%s on node %s): writes to new "
		    "places fail",
		    d->no, d->path, n ? n->name : "?");
	if (d->presence == CLUSTER_OK)
		return;
	reason(
	    op, device_used(c, d->no) ? HEALTH_FAILED : HEALTH_DEGRADED, ADMIN_E_DEVICE_AWAY,
	    d->presence == CLUSTER_AWAY
		? "Bring its node and disk back; if it never will be: strata device remove --lost"
		: "See 'strata device list' and 'strata events'.",
	    "device %u (%s on node %s) is %s%s%s", d->no, d->path, n ? n->name : "?",
	    cluster_presence_name(d), *d->reason ? ": " : "", d->reason);
}

/* A pool without devices is nothing to worry about while nobody uses it: but of somewhere to put data there must be one. */
static bool is_wanted(struct exec_status *op, const struct cluster_pool *p)
{
	struct cluster *c = op->x.a->cluster;

	if (san_pool_has_volumes(c->san, p->no))
		return true;
	list_for_each (l, &c->devices)
		if (list_entry(l, struct cluster_device, link)->member == CLUSTER_MEMBER)
			return false;
	return !strcmp(p->name, CLUSTER_POOL_DEFAULT);
}

static void reason_pool(struct exec_status *op, const struct cluster_pool *p)
{
	struct san_pool_space s;

	san_pool_space(op->x.a->cluster->san, p->no, &s);
	if (!s.devices_n && is_wanted(op, p))
		reason(op, HEALTH_DEGRADED, ADMIN_E_NO_SPACE, "strata device add --pool",
		       "pool %s has no devices", p->name);
	else if (!s.devices_n || p->state != CLUSTER_POOL_READY)
		;
	else if (!s.usable_n)
		reason(op, HEALTH_FAILED, ADMIN_E_DEVICE_AWAY,
		       "Bring the devices back; see 'strata device list'.",
		       "no device of pool %s is in service: writes to new places fail", p->name);
	else if (!s.free_usable_n)
		reason(op, HEALTH_FAILED, ADMIN_E_NO_SPACE,
		       "Add a device, or delete or trim volumes.",
		       "pool %s is full: writes to new places fail", p->name);
	else if (s.used_n * 100 >= s.slots_n * FULL_PERCENT)
		reason(op, HEALTH_DEGRADED, ADMIN_E_NO_SPACE,
		       "Add a device, or delete or trim volumes.", "pool %s is %u%% full", p->name,
		       (unsigned)(s.used_n * 100 / s.slots_n));
}

static bool shares_fs(const struct cluster_device *d, const struct cluster_device *other)
{
	return other->member == CLUSTER_MEMBER && other->presence == CLUSTER_OK && other->fs &&
	       other->node == d->node && other->fs == d->fs;
}

/* Files on one filesystem promise together what it has once. Sparse files on a small disk are usual where things are tried out: no reason, a warning. */
static void warn_of_fs(struct exec_status *op, const struct cluster_device *first)
{
	struct cluster *c = op->x.a->cluster;
	struct cluster_node *n = cluster_node_by_no(c, first->node);
	uint64_t free_bytes = first->fs_free_bytes, owed_bytes = 0;
	char owed[UNITS_TEXT_LEN], left[UNITS_TEXT_LEN], text[ADMIN_MESSAGE_LEN];
	uint32_t devices_n = 0;

	list_for_each (l, &c->devices) {
		const struct cluster_device *d = list_entry(l, struct cluster_device, link);

		if (!shares_fs(first, d))
			continue;
		if (d->no < first->no) /* it was said of that one */
			return;
		devices_n++;
		owed_bytes += d->fs_owed_bytes;
		if (d->fs_free_bytes < free_bytes)
			free_bytes = d->fs_free_bytes;
	}
	if (owed_bytes <= free_bytes || json_array_size(op->warnings) >= REASONS_MAX)
		return;
	units_format_size(owed_bytes, owed);
	units_format_size(free_bytes, left);
	snprintf(
	    text, sizeof(text),
	    "the filesystem under device %u (%s on node %s)%s has %s free, and %s may still be "
	    "written there",
	    first->no, first->path, n ? n->name : "?", devices_n > 1 ? " and others" : "", left,
	    owed);
	json_array_append_new(op->warnings,
			      json_pack("{s:s, s:o, s:s}", "code", admin_code_word(ADMIN_E_NO_SPACE),
					"message", exec_text(text), "hint",
					"Make space there before it is needed, or add a device."));
}

static void warnings(struct exec_status *op)
{
	list_for_each (l, &op->x.a->cluster->devices) {
		const struct cluster_device *d = list_entry(l, struct cluster_device, link);

		if (shares_fs(d, d))
			warn_of_fs(op, d);
	}
}

static void reasons(struct exec_status *op)
{
	struct cluster *c = op->x.a->cluster;

	if (c->state == CLUSTER_REFUSING) {
		reason(op, HEALTH_FAILED, ADMIN_E_REFUSED,
		       "docs/operations.md, 'The metadata went back in time'.", "%s", c->refusal);
		return;
	}
	if (c->state == CLUSTER_STARTING)
		reason(op, HEALTH_DEGRADED, ADMIN_E_BUSY, "Wait a second.",
		       "the server has just started and waits for the nodes");
	list_for_each (l, &c->nodes) {
		struct cluster_node *n = list_entry(l, struct cluster_node, link);

		if (!n->session)
			reason(op, HEALTH_DEGRADED, ADMIN_E_NODE_AWAY,
			       cluster_node_devices_n(c, n)
				   ? "Start strata-noded there, or see its log. If it is gone for "
				     "good: docs/operations.md, 'Replace a node'."
				   : "Start strata-noded there, or see its log. If it is gone for "
				     "good: strata node remove.",
			       "node %s is away", n->name);
	}
	list_for_each (l, &c->devices)
		reason_device(op, list_entry(l, struct cluster_device, link));
	list_for_each (l, &c->pools)
		reason_pool(op, list_entry(l, struct cluster_pool, link));
}

void exec_status(struct exec *x)
{
	struct exec_status *op = exec_grow(x, sizeof(*op));

	if (!op)
		return;
	op->reasons = json_array();
	if (op->reasons)
		reasons(op);
	op->warnings = json_array();
	if (op->warnings)
		warnings(op);
	op->list.jobs = op->jobs;
	op->list.jobs_max = JOBS_PAGE;
	op->list.unfinished_only = true;
	op->list.req.done = status_jobs_done;
	san_job_list(op->x.a->cluster->san, &op->list);
}

static void status_jobs_done(struct san_req *req)
{
	struct exec_status *op = container_of(req, struct exec_status, list.req);

	if (!req->status) {
		op->jobs_n += op->list.jobs_n;
		if (op->list.more && op->list.jobs_n) {
			op->list.after = op->jobs[op->list.jobs_n - 1].id;
			san_job_list(op->x.a->cluster->san, &op->list);
			return;
		}
	} else {
		reason(op, HEALTH_FAILED, ADMIN_E_INTERNAL, "See the server's log.",
		       "the database does not answer: %s", err_text(req->status));
	}
	status_answer(op);
}

static void status_answer(struct exec_status *op)
{
	static const char *const healths[] = {"ok", "degraded", "failed"};
	static const char *const states[] = {[CLUSTER_STARTING] = "starting",
					     [CLUSTER_SERVING] = "serving",
					     [CLUSTER_REFUSING] = "refused",
					     [CLUSTER_STOPPING] = "stopping"};
	struct cluster *c = op->x.a->cluster;
	struct uuid cluster = san_cluster(c->san);
	int nodes = 0, online = 0, devices = 0, presence[CLUSTER_REFUSED + 1] = {0}, lost = 0;
	json_int_t capacity = 0, used = 0;

	list_for_each (l, &c->nodes) {
		nodes++;
		online += list_entry(l, struct cluster_node, link)->session != NULL;
	}
	list_for_each (l, &c->devices) {
		struct cluster_device *d = list_entry(l, struct cluster_device, link);

		lost += d->member == CLUSTER_LOST;
		if (d->member != CLUSTER_MEMBER)
			continue;
		devices++;
		presence[d->presence]++;
		capacity += (json_int_t)((uint64_t)d->slots_n << d->chunk_shift);
		used += (json_int_t)((uint64_t)device_used(c, d->no) << d->chunk_shift);
	}
	exec_answer(&op->x, 200,
		    json_pack("{s:s, s:o, s:o, s:s, s:s, s:o, s:o, s:I, s:{s:i, s:i}, s:{s:i, s:i, "
			      "s:i, s:i, s:i}, "
			      "s:i, s:I, s:I, s:i}",
			      "health", healths[op->health], "reasons", op->reasons, "warnings",
			      op->warnings, "state", states[c->state], "version", STRATA_VERSION,
			      "cluster", exec_uuid(&cluster), "started",
			      exec_time(op->x.a->started_wall_ns), "commit",
			      (json_int_t)metastore_last_commit(c->store), "nodes", "total", nodes,
			      "online", online, "devices", "total", devices, "ok",
			      presence[CLUSTER_OK], "away",
			      presence[CLUSTER_AWAY] + presence[CLUSTER_ATTACHING], "failed",
			      presence[CLUSTER_FAILED] + presence[CLUSTER_REFUSED], "lost", lost,
			      "volumes", (int)san_volumes_n(c->san), "capacity_bytes", capacity,
			      "used_bytes", used, "jobs", (int)op->jobs_n));
}

/* ---- nodes --------------------------------------------------------------------------------------------------------------------------- */

static json_t *addrs_json(const struct cluster_addrs *a)
{
	json_t *list = json_array();

	for (uint32_t i = 0; list && i < a->n; i++)
		json_array_append_new(list, exec_text(a->list[i]));
	return list;
}

static json_t *node_json(struct cluster *c, const struct cluster_node *n)
{
	json_t *devices = json_array();

	list_for_each (l, &c->devices) {
		struct cluster_device *d = list_entry(l, struct cluster_device, link);

		if (d->node == n->no && d->member == CLUSTER_MEMBER)
			json_array_append_new(devices, json_integer(d->no));
	}
	return json_pack("{s:i, s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:o}", "number", (int)n->no,
			 "name", n->name, "uuid", exec_uuid(&n->uuid), "state",
			 n->session    ? "online"
			 : n->removing ? "removed"
				       : "away",
			 "since", exec_time(n->since_wall_ns), "version", exec_text(n->version),
			 "nbd", addrs_json(&n->nbd), "peer", addrs_json(&n->peer), "devices",
			 devices);
}

struct cluster_node *exec_node(struct exec *x, const char *text, int64_t number)
{
	struct cluster *c = x->a->cluster;
	struct cluster_node *n = text ? cluster_node_by_name(c, text) : NULL;
	char *end;

	if (!n && text && *text >= '0' && *text <= '9') {
		number = strtoll(text, &end, 10);
		if (*end)
			number = 0;
	}
	if (!n && number > 0 && number <= UINT32_MAX)
		n = cluster_node_by_no(c, (node_no)number);
	return n;
}

void exec_node_list(struct exec *x)
{
	int64_t limit = admin_int(x->r, "limit");
	json_t *items;
	char next[24] = "";
	uint64_t after;

	if (!exec_after_number(x, &after))
		return;
	items = json_array();
	list_for_each (l, &x->a->cluster->nodes) {
		struct cluster_node *n = list_entry(l, struct cluster_node, link);

		if (n->no <= after)
			continue;
		if (limit-- == 0) {
			snprintf(next, sizeof(next), "%" PRIu64, after);
			break;
		}
		json_array_append_new(items, node_json(x->a->cluster, n));
		after = n->no;
	}
	exec_answer_page(x, items, *next ? next : NULL);
}

void exec_node_show(struct exec *x)
{
	struct cluster_node *n = exec_node(x, x->r->subject, 0);

	if (n)
		exec_answer(x, 200, node_json(x->a->cluster, n));
	else
		exec_fail(x, ADMIN_E_NOT_FOUND, "'strata node list' shows them.",
			  "there is no node %s", x->r->subject);
}

struct exec_node_remove {
	struct exec x;
	struct cluster_node_remove remove;
};

static void node_removed(struct cluster_node_remove *remove);

void exec_node_remove(struct exec *x)
{
	struct cluster_node *n = exec_node(x, x->r->subject, 0);
	struct exec_node_remove *op;

	if (!n) {
		exec_fail(x, ADMIN_E_NOT_FOUND, "'strata node list' shows them.",
			  "there is no node %s", x->r->subject);
		return;
	}
	op = exec_grow(x, sizeof(*op));
	if (!op)
		return;
	op->remove.c = op->x.a->cluster;
	op->remove.node = n;
	op->remove.done = node_removed;
	cluster_node_remove(&op->remove);
}

static void node_removed(struct cluster_node_remove *remove)
{
	struct exec_node_remove *op = container_of(remove, struct exec_node_remove, remove);
	const char *hint = "";

	if (remove->status == -ENOTEMPTY)
		hint = "Move its disks to another node (strata device add there), or give them up "
		       "(strata device remove --lost).";
	else if (remove->status == -E_IN_USE && remove->node->session)
		hint = "Stop strata-noded there first.";
	else if (remove->status == -E_IN_USE)
		hint = "strata volume release";
	else if (remove->status == -EAGAIN)
		hint = "Try again.";
	if (remove->status)
		exec_fail_status(&op->x, remove->status, hint, remove->errmsg);
	else
		exec_answer(&op->x, 200, node_json(remove->c, remove->node));
}
