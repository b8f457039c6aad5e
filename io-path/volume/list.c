/* SPDX-License-Identifier: Apache-2.0 */
/* list.c - the names of the volumes that may be opened here: one call to the metadata server a page. */
#include <string.h>

#include "io-path/volume/runtime.h"
#include "src/base/mem.h"

struct vol_list {
	struct meta_names req;
	struct volumes *vs;
	struct volume_list *op;
};

/* Lives in volume_list.priv when there is no memory for more. */
struct refused {
	struct vol_task task;
	struct volumes *vs;
} __attribute__((may_alias));
static_assert(sizeof(struct refused) <= sizeof(((struct volume_list *)0)->priv), "fits");

static void names_done(struct meta_req *r);
static void list_refused(struct vol_task *t);

void volume_list(struct volumes *vs, struct volume_list *op)
{
	struct vol_list *l = vs->closing ? NULL : mem_zalloc(sizeof(*l));
	struct refused *no = (struct refused *)(void *)op->priv;

	op->status = vs->closing ? -ESHUTDOWN : -ENOMEM;
	op->names_n = 0;
	vs->lists_n++;
	if (!l) {
		no->vs = vs;
		vol_task_init(&no->task, list_refused);
		vol_task_add(vs, &no->task);
		return;
	}
	l->vs = vs;
	l->op = op;
	l->req.req.done = names_done;
	l->req.req.timeout_ns = vs->limits.open_timeout_ns;
	l->req.names = op->names;
	l->req.names_max = op->names_max;
	memcpy(l->req.after, op->after, sizeof(op->after));
	vs->meta->ops->names(vs->meta, &l->req);
}

static void list_end(struct volumes *vs, struct volume_list *op)
{
	vs->lists_n--;
	volumes_maybe_closed(vs);
	op->done(op); /* the last touch */
}

static void names_done(struct meta_req *r)
{
	struct vol_list *l = container_of(r, struct vol_list, req.req);
	struct volume_list *op = l->op;
	struct volumes *vs = l->vs;

	op->status = r->status;
	if (r->status == 0 && l->req.names_n > op->names_max)
		op->status = -E_PROTOCOL;
	op->names_n = op->status ? 0 : l->req.names_n;
	mem_free(l);
	list_end(vs, op);
}

static void list_refused(struct vol_task *t)
{
	struct refused *no = container_of(t, struct refused, task);
	struct volume_list *op = container_of((void *)no, struct volume_list, priv);

	list_end(no->vs, op);
}
