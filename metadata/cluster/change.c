/* SPDX-License-Identifier: Apache-2.0 */
/* change.c - devices that an operator adds and removes.
 *
 *   ADD      ASK* (the node formats and opens it) -> ADMIT* -> attach, WAIT* (until it serves) -> done
 *   REMOVE   QUEUED -> SPACE* (it must be empty), or LOSE* (a job follows) -> the node is told to let go of it -> done
 *
 * Crash of this server after ASK: the device is on the node's list, and is registered when the node says hello again. When a device leaves, the
 * LAYER records it kept move to others: the marks of all devices are reset, with the removal as far as they fit in one batch. That batch has the records of
 * all devices, so removals come one after the other, or one would undo another. */
#include <stdio.h>
#include <string.h>

#include "metadata/cluster/codec.h"
#include "metadata/rpc/session.h"
#include "src/base/log.h"
#include "src/base/mem.h"

struct add_call {
	struct session_call call;
	struct cluster_device_add *op;
};

static void add_refused(struct ioe_req *req);
static void add_asked(struct session_call *call, int status, const ProtobufCMessage *answer);
static void add_admitted(struct cluster_admit *admit);
static void add_finish(struct cluster_device_add *op, int status, const char *errmsg);
static void remove_next(struct cluster *c);
static void remove_begin(struct cluster_device_remove *op);
static void remove_refused(struct ioe_req *req);
static int remove_describe(struct cluster_device_remove *op, enum cluster_member member,
			   uint32_t *ret_also_n);
static void remove_done(struct san_req *req);
static void lose_done(struct san_req *req);
static void removed(struct cluster_device_remove *op, enum cluster_member member);
static void remove_finish(struct cluster_device_remove *op, int status, const char *errmsg);

/* ---- add ---------------------------------------------------------------------------------------------------------------------------- */

void cluster_device_add(struct cluster_device_add *op)
{
	Strata__DeviceAdd m = STRATA__DEVICE_ADD__INIT;
	struct session *s = op->node->session;
	struct add_call *k = s && session_is_joined(s) ? mem_zalloc(sizeof(*k)) : NULL;

	cluster_op_begin(op->c);
	op->node->users++;
	op->pool->users++;
	op->errmsg[0] = '\0';
	op->device = NULL;
	if (!k) {
		op->status = s ? -ENOMEM : -E_DEVICE_GONE;
		ioe_nop(op->c->ioe, &op->nop, add_refused);
		return;
	}
	k->op = op;
	m.path = (char *)(uintptr_t)op->path;
	m.size_bytes = op->size_bytes;
	m.chunk_shift = op->pool->chunk_shift;
	m.force = op->force;
	session_ask(s, &k->call, CONTROL_DEVICE_ADD, &m.base, add_asked);
}

static void add_refused(struct ioe_req *req)
{
	struct cluster_device_add *op = container_of(req, struct cluster_device_add, nop);

	add_finish(op, op->status, op->status == -ENOMEM ? "memory is short" : "the node is away");
}

static void add_asked(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	struct add_call *k = container_of(call, struct add_call, call);
	struct cluster_device_add *op = k->op;
	const Strata__DeviceAdded *m = (const Strata__DeviceAdded *)answer;
	struct session *s = call->s;

	mem_free(k);
	if (status || s->node != op->node) {
		add_finish(op, -E_DEVICE_GONE,
			   "the node went away; what it did will show when it is back");
		return;
	}
	if (*m->error) {
		add_finish(op, err_by_name(m->error), m->errmsg);
		return;
	}
	op->info = *m->device; /* and what it points to, for as long as we need it */
	op->uuid = control_get_uuid(m->device->uuid);
	op->info.uuid = control_uuid(&op->uuid);
	op->info.path = (char *)(uintptr_t)op->path;
	op->info.errmsg = "";
	op->session = session_get(s);
	op->admit = (struct cluster_admit){
	    .c = op->c,
	    .node = op->node,
	    .info = &op->info,
	    .pool = op->pool,
	    .done = add_admitted,
	};
	cluster_admit(&op->admit);
}

static void add_admitted(struct cluster_admit *admit)
{
	struct cluster_device_add *op = container_of(admit, struct cluster_device_add, admit);
	struct session *s = op->session;
	struct cluster_device *d = admit->device;
	bool is_joined = session_is_joined(s) && s->node == op->node;

	if (admit->status) { /* the node need not keep it open: adding it again finds it as it is */
		cluster_device_disown(s, &op->uuid);
		session_put(s);
		add_finish(op, admit->status, admit->errmsg);
		return;
	}
	session_put(s);
	op->device = d;
	if (!is_joined) {
		d->presence = CLUSTER_AWAY;
		add_finish(op, -E_DEVICE_GONE,
			   "the node went away; the device will serve when it "
			   "is back");
	} else if (d->presence == CLUSTER_OK) { /* it was a device of ours all along */
		add_finish(op, 0, "");
	} else if (d->presence == CLUSTER_ATTACHING) {
		list_push(&op->c->adds, &op->link);
		cluster_attach(op->c, op->node);
	} else {
		add_finish(op, -E_DEVICE_FAILED, d->reason);
	}
}

void cluster_device_decided(struct cluster *c, struct cluster_device *d)
{
	list_for_each_safe (l, next, &c->adds) {
		struct cluster_device_add *op = list_entry(l, struct cluster_device_add, link);
		char reason[ERRMSG_LEN];

		if (op->device != d)
			continue;
		list_del(&op->link);
		memcpy(reason, d->reason, sizeof(reason));
		add_finish(op, d->presence == CLUSTER_OK ? 0 : -E_DEVICE_GONE, reason);
		return; /* there is at most one; and it may have changed the list */
	}
}

static void add_finish(struct cluster_device_add *op, int status, const char *errmsg)
{
	struct cluster *c = op->c;

	op->node->users--;
	op->pool->users--;
	op->status = status;
	snprintf(op->errmsg, sizeof(op->errmsg), "%.255s", status ? errmsg : "");
	op->done(op);
	cluster_op_end(c);
}

/* ---- remove ------------------------------------------------------------------------------------------------------------------------- */

static int remove_refuse(struct cluster_device_remove *op)
{
	const struct cluster_device *d = op->device;

	if (d->member == CLUSTER_REMOVED || (d->member == CLUSTER_LOST && !op->lost)) {
		snprintf(op->errmsg, sizeof(op->errmsg), "device %u was removed already", d->no);
		return -ENOENT;
	}
	if (op->lost && d->presence == CLUSTER_OK) {
		snprintf(op->errmsg, sizeof(op->errmsg),
			 "device %u works; only one that is away or failed can be given up as lost",
			 d->no);
		return -EBUSY;
	}
	if (!op->lost && d->presence != CLUSTER_OK) {
		snprintf(op->errmsg, sizeof(op->errmsg), "device %u is %s", d->no,
			 cluster_presence_name(d));
		return -E_DEVICE_GONE;
	}
	return 0;
}

void cluster_device_remove(struct cluster_device_remove *op)
{
	cluster_op_begin(op->c);
	op->errmsg[0] = '\0';
	op->records = NULL;
	op->job = 0;
	list_push(&op->c->removes, &op->link);
	remove_next(op->c);
}

static void remove_next(struct cluster *c)
{
	struct cluster_device_remove *op;

	if (c->removing || list_empty(&c->removes))
		return;
	op = list_first(&c->removes, struct cluster_device_remove, link);
	list_del(&op->link);
	c->removing = true;
	remove_begin(op);
}

static void remove_begin(struct cluster_device_remove *op)
{
	struct cluster *c = op->c;
	struct cluster_device *d = op->device;
	uint32_t also_n = 0;
	int r = remove_refuse(op);

	if (!r)
		r = remove_describe(op, op->lost ? CLUSTER_LOST : CLUSTER_REMOVED, &also_n);
	if (r) {
		op->status = r;
		ioe_nop(c->ioe, &op->nop, remove_refused);
		return;
	}
	d->leaving = true;
	if (op->lost) {
		op->lose = (struct san_device_lose){.req.done = lose_done,
						    .dev = d->no,
						    .also = op->also,
						    .also_n = also_n};
		san_device_lose(c->san, &op->lose);
		return;
	}
	san_device_usable(c->san, d->no, false); /* nothing new while we look */
	op->remove = (struct san_device_remove){.req.done = remove_done,
						.dev = d->no,
						.also = op->also,
						.also_n = also_n};
	san_device_remove(c->san, &op->remove);
}

static void remove_refused(struct ioe_req *req)
{
	struct cluster_device_remove *op = container_of(req, struct cluster_device_remove, nop);

	remove_finish(op, op->status, op->errmsg);
}

/* Its own record, then those of the others with their marks reset. */
static int remove_describe(struct cluster_device_remove *op, enum cluster_member member,
			   uint32_t *ret_also_n)
{
	struct cluster_device copy = *op->device;
	uint32_t n = 0;

	op->records = mem_zalloc_array(SAN_RECORDS_MAX, sizeof(*op->records));
	if (!op->records)
		return -ENOMEM;
	copy.member = member;
	codec_put_device(&copy, &op->records[n]);
	op->also[n] = codec_change(&op->records[n]);
	n++;
	list_for_each (l, &op->c->devices) {
		copy = *list_entry(l, struct cluster_device, link);
		if (copy.no == op->device->no || copy.member != CLUSTER_MEMBER ||
		    n == SAN_RECORDS_MAX)
			continue;
		copy.layers_commit = 0;
		codec_put_device(&copy, &op->records[n]);
		op->also[n] = codec_change(&op->records[n]);
		n++;
	}
	*ret_also_n = n;
	return 0;
}

static void remove_done(struct san_req *req)
{
	struct cluster_device_remove *op =
	    container_of(req, struct cluster_device_remove, remove.req);
	struct cluster_device *d = op->device;

	if (req->status) {
		san_device_usable(op->c->san, d->no, d->presence == CLUSTER_OK);
		remove_finish(op, req->status,
			      req->status == -ENOTEMPTY ? "the device holds data" : req->errmsg);
		return;
	}
	removed(op, CLUSTER_REMOVED);
	remove_finish(op, 0, "");
}

static void lose_done(struct san_req *req)
{
	struct cluster_device_remove *op =
	    container_of(req, struct cluster_device_remove, lose.req);

	if (req->status) {
		remove_finish(op, req->status, req->errmsg);
		return;
	}
	op->job = op->lose.job;
	removed(op, CLUSTER_LOST);
	remove_finish(op, 0, "");
}

static void let_go(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	(void)status; /* a node that did not hear of it is told by the verdict of its next hello */
	(void)answer;
	mem_free(call);
}

void cluster_device_disown(struct session *s, const struct uuid *uuid)
{
	struct session_call *call = session_is_joined(s) ? mem_zalloc(sizeof(*call)) : NULL;
	Strata__DeviceRemove m = STRATA__DEVICE_REMOVE__INIT;

	if (!call)
		return;
	m.uuid = control_uuid(uuid);
	session_ask(s, call, CONTROL_DEVICE_REMOVE, &m.base, let_go);
}

static void tell_node(struct cluster *c, const struct cluster_device *d)
{
	struct session *s = cluster_device_session(c, d);

	if (s)
		cluster_device_disown(s, &d->uuid);
}

static void removed(struct cluster_device_remove *op, enum cluster_member member)
{
	struct cluster *c = op->c;
	struct cluster_device *d = op->device;
	uint32_t n = 1;

	if (d->member != member)
		san_event(c->san, member == CLUSTER_LOST ? SAN_ERROR : SAN_INFO,
			  member == CLUSTER_LOST ? "device_lost" : "device_removed",
			  "Device %u (%s) was %s.", d->no, d->path,
			  member == CLUSTER_LOST
			      ? "given up as lost: what only it held reads as an error"
			      : "removed");
	d->member = member;
	d->presence = CLUSTER_AWAY;
	d->wants_attach = false;
	d->reason[0] = '\0';
	log_warn("device removed", "device=%u lost=%d", d->no, member == CLUSTER_LOST);
	tell_node(c, d);
	list_for_each (l, &c->devices) {
		struct cluster_device *other = list_entry(l, struct cluster_device, link);

		if (other->member != CLUSTER_MEMBER)
			continue;
		other->layers_commit = 0;
		if (n++ >= SAN_RECORDS_MAX)
			cluster_device_save(c, other);
		other->wants_attach = other->presence == CLUSTER_OK;
	}
	list_for_each (l, &c->nodes)
		cluster_attach(c, list_entry(l, struct cluster_node, link));
	cluster_config_push(c);
}

static void remove_finish(struct cluster_device_remove *op, int status, const char *errmsg)
{
	struct cluster *c = op->c;

	if (op->errmsg != errmsg)
		snprintf(op->errmsg, sizeof(op->errmsg), "%.255s", status ? errmsg : "");
	mem_free(op->records);
	op->device->leaving = false;
	if (op->device->save_due)
		cluster_device_save(c, op->device);
	c->removing = false;
	op->status = status;
	op->done(op);
	remove_next(c);
	cluster_op_end(c);
}
