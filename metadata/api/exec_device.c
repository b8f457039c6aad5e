/* SPDX-License-Identifier: Apache-2.0 */
/* exec_device.c - devices. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "metadata/api/exec.h"

json_t *exec_device_json(struct cluster *c, const struct cluster_device *d)
{
	struct cluster_node *n = cluster_node_by_no(c, d->node);
	struct cluster_pool *p = cluster_pool_by_no(c, d->pool);
	struct san_device s = {0};

	(void)san_device_get(c->san, d->no, &s); /* one that was removed has no space any more */
	return json_pack(
	    "{s:i, s:o, s:i, s:s, s:o, s:s, s:s, s:o, s:b, s:i, s:I, s:I, s:I, s:I, s:I, s:I}",
	    "number", (int)d->no, "uuid", exec_uuid(&d->uuid), "node", (int)d->node, "node_name",
	    n ? n->name : "", "path", exec_text(d->path), "pool", p ? p->name : "", "state",
	    cluster_presence_name(d), "reason", exec_text(d->reason), "no_space",
	    d->member == CLUSTER_MEMBER && d->presence == CLUSTER_OK && d->no_space, "chunk_bytes",
	    1 << d->chunk_shift, "capacity_bytes",
	    (json_int_t)((uint64_t)d->slots_n << d->chunk_shift), "used_bytes",
	    (json_int_t)((uint64_t)(s.used_n + s.freeing_n) << d->chunk_shift), "slots",
	    (json_int_t)d->slots_n, "slots_used", (json_int_t)(s.used_n + s.freeing_n),
	    "incarnation", (json_int_t)d->incarnation, "lsn", (json_int_t)d->lsn);
}

void exec_device_list(struct exec *x)
{
	struct cluster *c = x->a->cluster;
	int64_t limit = admin_int(x->r, "limit");
	bool all = admin_bool(x->r, "all");
	json_t *items;
	char next[24] = "";
	uint64_t after;

	if (!exec_after_number(x, &after))
		return;
	items = json_array();
	list_for_each (l, &c->devices) {
		struct cluster_device *d = list_entry(l, struct cluster_device, link);

		if (d->no <= after || (!all && d->member == CLUSTER_REMOVED))
			continue;
		if (limit-- == 0) {
			snprintf(next, sizeof(next), "%" PRIu64, after);
			break;
		}
		json_array_append_new(items, exec_device_json(c, d));
		after = d->no;
	}
	exec_answer_page(x, items, *next ? next : NULL);
}

static struct cluster_device *device_of(struct exec *x)
{
	struct cluster *c = x->a->cluster;
	const char *text = x->r->subject;
	struct cluster_device *d = NULL;
	struct uuid uuid;
	unsigned long no;
	char *end;

	if (!uuid_parse(text, &uuid)) {
		d = cluster_device_by_uuid(c, &uuid);
	} else if (text[0] >= '0' && text[0] <= '9') {
		no = strtoul(text, &end, 10);
		if (!*end && no <= DEVICES_MAX)
			d = cluster_device_by_no(c, (device_no)no);
	}
	if (!d)
		exec_fail(x, ADMIN_E_NOT_FOUND, "'strata device list' shows them.",
			  "there is no device %s", text);
	return d;
}

void exec_device_show(struct exec *x)
{
	struct cluster_device *d = device_of(x);

	if (d)
		exec_answer(x, 200, exec_device_json(x->a->cluster, d));
}

/* ---- add ----------------------------------------------------------------------------------------------------------------------------- */

struct exec_add {
	struct exec x;
	struct cluster_device_add add;
};

static void add_done(struct cluster_device_add *add);

void exec_device_add(struct exec *x)
{
	struct cluster *c = x->a->cluster;
	struct cluster_node *n = exec_node(x, admin_text(x->r, "node"), admin_int(x->r, "node"));
	struct cluster_pool *p = cluster_pool_by_name(c, admin_text(x->r, "pool"));
	struct exec_add *op;

	if (!n) {
		exec_fail(x, ADMIN_E_NOT_FOUND, "'strata node list' shows them.",
			  "there is no such node");
		return;
	}
	if (!p) {
		exec_fail(x, ADMIN_E_NOT_FOUND, "'strata pool list' shows them.",
			  "there is no pool %s", admin_text(x->r, "pool"));
		return;
	}
	if (!n->session) {
		exec_fail(x, ADMIN_E_NODE_AWAY, "Start strata-noded there.", "node %s is away",
			  n->name);
		return;
	}
	op = exec_grow(x, sizeof(*op));
	if (!op)
		return;
	op->add.c = c;
	op->add.node = n;
	op->add.pool = p;
	op->add.path = admin_text(op->x.r, "path");
	op->add.size_bytes = (uint64_t)admin_int(op->x.r, "size_bytes");
	op->add.force = admin_bool(op->x.r, "force");
	op->add.done = add_done;
	cluster_device_add(&op->add);
}

static const char *add_hint(int status, bool has_size)
{
	switch (status) {
	case -E_FOREIGN:
		return "If what is on it may be destroyed: --force.";
	case -ENOENT:
		return has_size
			   ? "Make its directory first."
			   : "For a new file, say how large it is to be: --size SIZE (size_bytes).";
	case -E_IN_USE:
		return "Unmount it, or stop what uses it.";
	case -E_DEVICE_GONE:
		return "'strata device list' tells whether it came back with it.";
	default:
		return "";
	}
}

static void add_done(struct cluster_device_add *add)
{
	struct exec_add *op = container_of(add, struct exec_add, add);

	if (add->status)
		exec_fail_status(&op->x, add->status, add_hint(add->status, add->size_bytes > 0),
				 add->errmsg);
	else
		exec_answer(&op->x, 201, exec_device_json(add->c, add->device));
}

/* ---- remove -------------------------------------------------------------------------------------------------------------------------- */

struct exec_remove {
	struct exec x;
	struct cluster_device_remove remove;
};

static void remove_done(struct cluster_device_remove *remove);

void exec_device_remove(struct exec *x)
{
	struct cluster_device *d = device_of(x);
	struct exec_remove *op;

	if (!d)
		return;
	op = exec_grow(x, sizeof(*op));
	if (!op)
		return;
	op->remove.c = op->x.a->cluster;
	op->remove.device = d;
	op->remove.lost = admin_bool(op->x.r, "lost");
	op->remove.done = remove_done;
	cluster_device_remove(&op->remove);
}

static void remove_done(struct cluster_device_remove *remove)
{
	struct exec_remove *op = container_of(remove, struct exec_remove, remove);
	const char *hint = "";

	if (remove->status == -ENOTEMPTY)
		hint = "Delete or trim what is on it first.";
	else if (remove->status == -E_DEVICE_GONE)
		hint = "Bring it back, or, if it never will be: --lost.";
	if (remove->status)
		exec_fail_status(&op->x, remove->status, hint, remove->errmsg);
	else if (remove->lost)
		exec_answer(&op->x, 202, json_pack("{s:I}", "job", (json_int_t)remove->job));
	else
		exec_answer(&op->x, 200, exec_device_json(remove->c, remove->device));
}
