/* SPDX-License-Identifier: Apache-2.0 */
/* leave.c - a node leaves the cluster for good: one that is gone, or whose disks are elsewhere now.
 *
 *   CHECK (it is away, has no devices, nobody works with it) -> COMMIT* (no volume is open there, and its record goes) -> forgotten -> done
 *
 * Its number is never used again, its name may be. When its process should run on all the same (it was only cut off), it joins as a new node, and is told
 * then which volumes it has lost (attach.c). Until COMMIT has ended it is not let in (join.c). */
#include <stdio.h>

#include "metadata/cluster/codec.h"
#include "src/base/log.h"
#include "src/base/mem.h"

static int leave_check(struct cluster_node_remove *op);
static void leave_refused(struct ioe_req *req);
static void leave_committed(struct san_req *req);
static void leave_end(struct cluster_node_remove *op, int status, const char *errmsg);

void cluster_node_remove(struct cluster_node_remove *op)
{
	cluster_op_begin(op->c);
	op->errmsg[0] = '\0';
	op->record = NULL;
	op->status = leave_check(op);
	if (!op->status) {
		op->record = mem_zalloc(sizeof(*op->record));
		op->status = op->record ? 0 : -ENOMEM;
	}
	if (op->status) {
		ioe_nop(op->c->ioe, &op->nop, leave_refused);
		return;
	}
	op->node->removing = true;
	codec_put_node(op->node, op->record);
	op->change = codec_delete(op->record);
	op->leave = (struct san_node_leave){.req.done = leave_committed,
					    .node = op->node->no,
					    .also = &op->change,
					    .also_n = 1};
	san_node_leave(op->c->san, &op->leave);
}

static void list_devices(struct cluster_node_remove *op, uint32_t n)
{
	size_t len =
	    (size_t)snprintf(op->errmsg, sizeof(op->errmsg),
			     "node %s has %u device%s:", op->node->name, n, n == 1 ? "" : "s");

	list_for_each (l, &op->c->devices) {
		struct cluster_device *d = list_entry(l, struct cluster_device, link);

		if (d->node == op->node->no && d->member == CLUSTER_MEMBER &&
		    len + 8 < sizeof(op->errmsg))
			len += (size_t)snprintf(op->errmsg + len, sizeof(op->errmsg) - len, " %u",
						d->no);
	}
}

static int leave_check(struct cluster_node_remove *op)
{
	const struct cluster_node *n = op->node;
	uint32_t devices_n = cluster_node_devices_n(op->c, n);

	if (n->session) {
		snprintf(op->errmsg, sizeof(op->errmsg), "node %s is online", n->name);
		return -E_IN_USE;
	}
	if (n->users || n->removing) {
		snprintf(op->errmsg, sizeof(op->errmsg),
			 n->removing ? "node %s is being removed already"
				     : "node %s is just coming or going",
			 n->name);
		return -EAGAIN;
	}
	if (!devices_n)
		return 0;
	list_devices(op, devices_n);
	return -ENOTEMPTY;
}

static void leave_refused(struct ioe_req *req)
{
	struct cluster_node_remove *op = container_of(req, struct cluster_node_remove, nop);

	leave_end(op, op->status, op->status == -ENOMEM ? "memory is short" : op->errmsg);
}

static void leave_committed(struct san_req *req)
{
	struct cluster_node_remove *op = container_of(req, struct cluster_node_remove, leave.req);
	struct cluster *c = op->c;
	struct cluster_node *n = op->node;

	check(!n->users && !n->session);
	if (req->status) {
		n->removing = false;
		leave_end(op, req->status, req->errmsg);
		return;
	}
	list_del(&n->link);
	c->nodes_n--;
	log_warn("node removed", "node=%u name=%s", n->no, n->name);
	san_event(c->san, SAN_WARNING, "node_removed", "Node %s (number %u) was removed.", n->name,
		  n->no);
	cluster_config_push(c);
	leave_end(op, 0, "");
	mem_free(n);
}

static void leave_end(struct cluster_node_remove *op, int status, const char *errmsg)
{
	struct cluster *c = op->c;

	if (errmsg != op->errmsg)
		snprintf(op->errmsg, sizeof(op->errmsg), "%s", status ? errmsg : "");
	mem_free(op->record);
	op->status = status;
	op->done(op);
	cluster_op_end(c);
}
