/* SPDX-License-Identifier: Apache-2.0 */
/* fence.c - a volume has a new epoch: every device that can be reached makes it durable before the new owner is told.
 *
 * A node whose connection is lost meanwhile counts as away: its devices learn the epoch in their attach, before they hear of any later
 * commit. */
#include "metadata/rpc/session.h"
#include "src/base/log.h"
#include "src/base/mem.h"

struct fence_call {
	struct session_call call;
	struct cluster_fence *op;
};

static void fence_told(struct session_call *call, int status, const ProtobufCMessage *answer);
static void fence_nobody(struct ioe_req *req);
static void fence_step(struct cluster_fence *op);

void cluster_fence(struct cluster_fence *op)
{
	struct cluster *c = op->c;
	Strata__EpochRecord e = STRATA__EPOCH_RECORD__INIT, *list[] = {&e};
	Strata__Records m = STRATA__RECORDS__INIT;

	e.volume = op->volume.id;
	e.epoch = op->volume.epoch;
	e.head = op->volume.head;
	e.commit = op->volume.epoch_commit;
	m.epochs = list;
	m.n_epochs = 1;
	op->pending = 1;
	cluster_op_begin(c);
	list_for_each (l, &c->sessions) {
		struct session *s = list_entry(l, struct session, link);
		struct fence_call *f;

		if (!session_is_joined(s))
			continue;
		f = mem_zalloc(sizeof(*f));
		if (!f) { /* an unreachable node is safe: it is brought up to date when it is back */
			session_break(s, -ENOMEM);
			continue;
		}
		f->op = op;
		op->pending++;
		session_ask(s, &f->call, CONTROL_RECORDS, &m.base, fence_told);
	}
	ioe_nop(c->ioe, &op->nop, fence_nobody);
}

static void fence_told(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	struct fence_call *f = container_of(call, struct fence_call, call);
	struct cluster_fence *op = f->op;
	const Strata__Result *result = (const Strata__Result *)answer;

	/* a node that could not make it durable is cut off, and takes part again once it has */
	if (!status && *result->error) {
		log_warn("a node could not record an epoch", "error=%s: %s", result->error,
			 result->errmsg);
		session_break(call->s, err_by_name(result->error));
	}
	mem_free(f);
	fence_step(op);
}

static void fence_nobody(struct ioe_req *req)
{
	fence_step(container_of(req, struct cluster_fence, nop));
}

static void fence_step(struct cluster_fence *op)
{
	struct cluster *c = op->c;

	if (--op->pending)
		return;
	op->done(op);
	cluster_op_end(c);
}
