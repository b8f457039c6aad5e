/* SPDX-License-Identifier: Apache-2.0 */
/* takeover.c - a volume is taken from an owner that is away.
 *
 *   GET* -> is its owner away, and for long enough? -> CLOSE* (forced, at the epoch that was looked at) -> done          (* asks the SAN)
 *
 * An owner that came back between the look and the commit under the same process id loses the volume all the same: it is told by the epoch that the next
 * owner gets, as any stale one. One that came back as a new process has a new epoch, so the close does not match. */
#include <stdio.h>

#include "metadata/rpc/session.h"
#include "src/base/log.h"

static void takeover_got(struct san_req *req);
static bool owner_is_away(struct cluster_takeover *op);
static void takeover_closed(struct san_req *req);
static void takeover_end(struct cluster_takeover *op, int status, const char *errmsg);

void cluster_takeover(struct cluster_takeover *op)
{
	cluster_op_begin(op->c);
	op->errmsg[0] = '\0';
	op->get.name = NULL;
	op->get.id = op->volume;
	op->get.req.done = takeover_got;
	san_volume_get(op->c->san, &op->get);
}

static void takeover_got(struct san_req *req)
{
	struct cluster_takeover *op = container_of(req, struct cluster_takeover, get.req);

	op->was = op->get.volume;
	if (req->status || !op->was.is_open) {
		takeover_end(op, req->status, req->errmsg);
	} else if (!owner_is_away(op)) {
		takeover_end(op, -E_IN_USE, op->errmsg);
	} else {
		op->close.volume = op->was.id;
		op->close.epoch = op->was.epoch;
		op->close.forced = true;
		op->close.req.done = takeover_closed;
		san_volume_close(op->c->san, &op->close);
	}
}

/* A node that is not in the registry is away for good. */
static bool owner_is_away(struct cluster_takeover *op)
{
	struct cluster *c = op->c;
	struct cluster_node *n = cluster_node_by_no(c, op->was.owner);
	uint64_t away_ns;

	if (!n)
		return true;
	if (n->session) {
		snprintf(op->errmsg, sizeof(op->errmsg), "node %s has volume %s open and is online",
			 n->name, op->was.name);
		return false;
	}
	away_ns = ioe_now_ns(c->ioe) - n->away_ns;
	if (op->min_away_ns != UINT64_MAX && away_ns >= op->min_away_ns)
		return true;
	snprintf(op->errmsg, sizeof(op->errmsg), "node %s has volume %s open, and is away", n->name,
		 op->was.name);
	return false;
}

static void takeover_closed(struct san_req *req)
{
	struct cluster_takeover *op = container_of(req, struct cluster_takeover, close.req);
	struct cluster_node *n = cluster_node_by_no(op->c, op->was.owner);

	if (!req->status) {
		log_warn("volume taken from its owner", "vol=%s node=%u", op->was.name,
			 op->was.owner);
		san_event(op->c->san, SAN_WARNING, "volume_taken",
			  "Volume %s was taken from node %s, which is away.", op->was.name,
			  n ? n->name : "?");
	}
	takeover_end(op, req->status == -E_STALE_EPOCH ? -E_IN_USE : req->status, req->errmsg);
}

static void takeover_end(struct cluster_takeover *op, int status, const char *errmsg)
{
	struct cluster *c = op->c;

	op->status = status;
	if (errmsg != op->errmsg)
		snprintf(op->errmsg, sizeof(op->errmsg), "%s", status ? errmsg : "");
	op->done(op);
	cluster_op_end(c);
}
