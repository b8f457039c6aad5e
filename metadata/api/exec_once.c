/* SPDX-License-Identifier: Apache-2.0 */
/* exec_once.c - was it done before, perhaps by an earlier process of this server? (What this one answered, idem.h remembers.)
 *
 *   FIND* -> not known: the verb is executed
 *         -> a volume:  GET* -> as it is now -> answer
 *         -> a job:     its number -> answer */
#include "metadata/api/exec.h"

struct exec_once {
	struct exec x;
	void (*execute)(struct exec *x);
	struct san_once_get find;
	struct san_volume_get get;
};

static void once_found(struct san_req *req);
static void once_got(struct san_req *req);

void exec_once(struct exec *x, void (*execute)(struct exec *x))
{
	struct exec_once *op = exec_grow(x, sizeof(*op));

	if (!op)
		return;
	op->execute = execute;
	op->find.key = op->x.r->key;
	op->find.req.done = once_found;
	san_once_get(op->x.a->cluster->san, &op->find);
}

static void once_found(struct san_req *req)
{
	struct exec_once *op = container_of(req, struct exec_once, find.req);

	if (req->status == -ENOENT) {
		op->execute(&op->x);
	} else if (req->status) {
		exec_fail_status(&op->x, req->status, "", req->errmsg);
	} else if (op->find.request != op->x.r->request) {
		exec_fail(&op->x, ADMIN_E_KEY_REUSED, "Use a new key for a new request.",
			  "this Idempotency-Key was used for another request");
	} else if (op->find.what == SAN_ONCE_JOB) {
		exec_answer(&op->x, 202, json_pack("{s:I}", "job", (json_int_t)op->find.id));
	} else {
		op->get.id = op->find.id;
		op->get.req.done = once_got;
		san_volume_get(op->x.a->cluster->san, &op->get);
	}
}

static void once_got(struct san_req *req)
{
	struct exec_once *op = container_of(req, struct exec_once, get.req);

	if (req->status == 0 && op->get.volume.state == SAN_VOLUME_READY)
		exec_answer(&op->x, 201, exec_volume_json(op->x.a, &op->get.volume));
	else if (req->status == 0 || req->status == -ENOENT)
		exec_fail(&op->x, ADMIN_E_NOT_FOUND, "Use a new key to create it anew.",
			  "the volume that this request created has been deleted since");
	else
		exec_fail_status(&op->x, req->status, "", req->errmsg);
}
