/* SPDX-License-Identifier: Apache-2.0 */
/* control_bench.c - a load that an operator asks for: handed to whoever has the volumes, its result sent back. */
#include "io-path/node/control_private.h"

struct push_bench {
	struct push p;
	struct control_bench bench;
};

static void bench_done(struct control_bench *b)
{
	struct push_bench *op = container_of(b, struct push_bench, bench);
	Strata__VolumeBenched reply = b->result;

	reply.error = (char *)(uintptr_t)control_error(b->status);
	reply.errmsg = b->status ? b->errmsg : (char *)(uintptr_t) "";
	push_reply(&op->p, &reply.base);
}

void push_volume_bench(struct control *c, struct push *p)
{
	struct push_bench *op;
	Strata__VolumeBenched refused = STRATA__VOLUME_BENCHED__INIT;

	if (!c->cfg.bench) {
		refused.error = (char *)(uintptr_t)control_error(-EOPNOTSUPP);
		refused.errmsg = (char *)(uintptr_t) "this node runs no loads";
		push_reply(p, &refused.base);
		return;
	}
	op = push_grow(p, sizeof(*op));
	if (!op)
		return;
	op->bench.what = (const Strata__VolumeBench *)op->p.msg;
	op->bench.done = bench_done;
	strata__volume_benched__init(&op->bench.result);
	c->cfg.bench(c->cfg.arg, &op->bench);
}
