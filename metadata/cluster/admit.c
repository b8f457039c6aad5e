/* SPDX-License-Identifier: Apache-2.0 */
/* admit.c - what to make of a device that a node says it has.
 *
 *   QUEUED -> CGEN? -> known: VERDICT (-> GROW?) -> done
 *                      new:   REGISTER           -> done
 *
 * CGEN: it remembers a higher allocation counter than the database (which was restored): the counter is raised first.
 * A device is refused when it is older than what was seen of it: that is a copy brought back, and serving it would give old data for new. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "metadata/cluster/codec.h"
#include "metadata/rpc/session.h"
#include "src/base/log.h"
#include "src/base/mem.h"

static void admit_next(struct cluster *c);
static void admit_cgen_done(struct san_req *req);
static void admit_classify(struct cluster_admit *op);
static void admit_new(struct cluster_admit *op);
static void admit_new_done(struct san_req *req);
static void admit_known(struct cluster_admit *op, struct cluster_device *d);
static int admit_verdict(struct cluster_admit *op, struct cluster_device *d);
static void admit_grow(struct cluster_admit *op, struct cluster_device *d);
static void admit_grow_done(struct san_req *req);
static void admit_moved(struct cluster_admit *op, struct cluster_device *d);
static void admit_accept(struct cluster_admit *op, struct cluster_device *d);
static void admit_finish(struct cluster_admit *op, int status);

static int no(struct cluster_admit *op, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int no(struct cluster_admit *op, int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(op->errmsg, sizeof(op->errmsg), fmt, ap);
	va_end(ap);
	return status;
}

void cluster_admit(struct cluster_admit *op)
{
	struct cluster *c = op->c;

	op->status = 0;
	op->errmsg[0] = '\0';
	op->device = NULL;
	op->record = NULL;
	cluster_op_begin(c);
	op->node->users++;
	list_push(&c->admits, &op->link);
	admit_next(c);
}

static void admit_next(struct cluster *c)
{
	struct cluster_admit *op;

	if (c->admitting || list_empty(&c->admits))
		return;
	op = list_first(&c->admits, struct cluster_admit, link);
	list_del(&op->link);
	c->admitting = true;
	if (c->state == CLUSTER_STOPPING) {
		admit_finish(op, no(op, -ESHUTDOWN, "the server is stopping"));
		return;
	}
	/* a hello was looked at before it was queued; but a device may come later, by itself */
	if (!op->info->failed && !cluster_knows_commit(c, op->node, op->node->name, op->info)) {
		admit_finish(op, no(op, -E_WENT_BACK, "the metadata is older than the device"));
		return;
	}
	if (op->info->cgen_highest <= san_cgen(c->san)) {
		admit_classify(op);
		return;
	}
	san_event(c->san, SAN_WARNING, "cgen_raised",
		  "The device at %s remembers allocation %" PRIu64 ", the metadata only %" PRIu64
		  ": counting goes on above it.",
		  op->info->path, op->info->cgen_highest, san_cgen(c->san));
	op->raise.cgen = op->info->cgen_highest;
	op->raise.req.done = admit_cgen_done;
	san_cgen_raise(c->san, &op->raise);
}

static void admit_cgen_done(struct san_req *req)
{
	struct cluster_admit *op = container_of(req, struct cluster_admit, raise.req);

	if (req->status)
		admit_finish(op, no(op, req->status, "%s", req->errmsg));
	else
		admit_classify(op);
}

static void admit_classify(struct cluster_admit *op)
{
	struct uuid uuid = control_get_uuid(op->info->uuid);
	struct cluster_device *d = cluster_device_by_uuid(op->c, &uuid);

	if (d)
		admit_known(op, d);
	else
		admit_new(op);
}

/* ---- new ------------------------------------------------------------------------------------------------------------------------------- */

static int new_check(struct cluster_admit *op)
{
	const Strata__DeviceInfo *i = op->info;

	if (i->failed)
		return no(op, -E_DEVICE_FAILED, "it cannot be opened: %.200s", i->errmsg);
	if (i->number)
		return no(op, -E_WENT_BACK,
			  "it is number %u of this cluster, which the registry does not know: the "
			  "metadata is older than the device",
			  i->number);
	list_for_each (l, &op->c->pools) {
		struct cluster_pool *p = list_entry(l, struct cluster_pool, link);

		if (!op->pool && p->state == CLUSTER_POOL_READY && p->chunk_shift == i->chunk_shift)
			op->pool = p;
	}
	if (!op->pool)
		return no(op, -EINVAL,
			  "it was formatted with chunks of %u MiB, and no pool has such",
			  1u << (i->chunk_shift - 20));
	if (op->pool->chunk_shift != i->chunk_shift)
		return no(
		    op, -EINVAL,
		    "it was formatted with chunks of %u MiB before, those of pool %s have %u: "
		    "choose another pool, or format it anew by --force",
		    1u << (i->chunk_shift - 20), op->pool->name, 1u << (op->pool->chunk_shift - 20));
	return 0;
}

static struct cluster_device *new_device(struct cluster_admit *op, uint32_t number)
{
	struct cluster_device *d = mem_zalloc(sizeof(*d));

	if (!d || !(d->path = mem_strdup(op->info->path))) {
		mem_free(d);
		return NULL;
	}
	list_init(&d->link);
	d->no = (device_no)number;
	d->uuid = control_get_uuid(op->info->uuid);
	d->node = op->node->no;
	d->pool = op->pool->no;
	d->chunk_shift = op->info->chunk_shift;
	d->slots_n = op->info->slots;
	d->member = CLUSTER_MEMBER;
	d->incarnation = op->info->incarnation;
	d->lsn = op->info->stable_lsn;
	return d;
}

static void admit_new(struct cluster_admit *op)
{
	struct cluster *c = op->c;
	int r = new_check(op);
	uint32_t number;

	if (r) {
		admit_finish(op, r);
		return;
	}
	number = san_number_take(c->san, SAN_NUMBER_DEVICE);
	if (number == 0 || number > DEVICES_MAX) {
		admit_finish(op, no(op, -EOVERFLOW, "all device numbers have been used"));
		return;
	}
	op->record = mem_zalloc(sizeof(*op->record));
	op->device = op->record ? new_device(op, number) : NULL;
	if (!op->device) {
		admit_finish(op, no(op, -ENOMEM, "memory is short"));
		return;
	}
	codec_put_device(op->device, op->record);
	op->change = codec_change(op->record);
	op->add = (struct san_device_add){
	    .req.done = admit_new_done,
	    .dev = op->device->no,
	    .pool = op->pool->no,
	    .chunk_shift = op->device->chunk_shift,
	    .slots_n = op->device->slots_n,
	    .also = &op->change,
	    .also_n = 1,
	};
	op->pool->users++;
	san_device_add(c->san, &op->add);
}

static void admit_new_done(struct san_req *req)
{
	struct cluster_admit *op = container_of(req, struct cluster_admit, add.req);
	struct cluster_device *d = op->device;

	op->pool->users--;
	if (req->status) {
		mem_free(d->path);
		mem_free(d);
		op->device = NULL;
		admit_finish(op, no(op, req->status, "%s", req->errmsg));
		return;
	}
	list_push(&op->c->devices, &d->link);
	op->c->devices_n++;
	log_info("device registered", "device=%u node=%u path=%s slots=%u", d->no, d->node, d->path,
		 d->slots_n);
	san_event(op->c->san, SAN_INFO, "device_added",
		  "Device %u (%s) of node %s was added to pool %s.", d->no, d->path, op->node->name,
		  op->pool->name);
	admit_accept(op, d);
	cluster_config_push(op->c);
	admit_finish(op, 0);
}

/* ---- known ------------------------------------------------------------------------------------------------------------------------------ */

static void admit_known(struct cluster_admit *op, struct cluster_device *d)
{
	int r = admit_verdict(op, d);

	op->device = d;
	d->opening = 0;
	if (r) {
		if (r == -E_WENT_BACK && d->presence != CLUSTER_REFUSED)
			san_event(op->c->san, SAN_ERROR, "device_went_back",
				  "Device %u (%s) is refused: %s", d->no, op->info->path,
				  op->errmsg);
		if (d->member == CLUSTER_MEMBER && r == -E_WENT_BACK) {
			d->presence = CLUSTER_REFUSED;
			san_device_usable(op->c->san, d->no, false);
			memcpy(d->reason, op->errmsg, sizeof(d->reason));
			cluster_device_decided(op->c, d);
		}
		admit_finish(op, r);
	} else if (op->info->slots > d->slots_n && !op->info->failed) {
		admit_grow(op, d);
	} else {
		admit_accept(op, d);
		admit_finish(op, 0);
	}
}

static int admit_verdict(struct cluster_admit *op, struct cluster_device *d)
{
	const Strata__DeviceInfo *i = op->info;
	struct cluster_node *other = cluster_node_by_no(op->c, d->node);

	if (d->member != CLUSTER_MEMBER)
		return no(op, -E_LOST, "it was removed from the cluster%s",
			  d->member == CLUSTER_LOST ? " as lost" : "");
	if (other && other != op->node && i->failed)
		return no(op, -EEXIST, "node %s has it now", other->name);
	/* One that failed there writes nothing any more: perhaps the disk was taken out, and this is it. */
	if (other && other != op->node && other->session && d->presence != CLUSTER_AWAY &&
	    d->presence != CLUSTER_FAILED)
		return no(op, -EEXIST,
			  "node %s has this device too; if its disk is not there any more, restart "
			  "strata-noded on that node first",
			  other->name);
	if (i->failed)
		return 0;
	if (i->number && i->number != d->no)
		return no(op, -E_FORMAT, "it says it is number %u, the registry %u", i->number,
			  d->no);
	if (i->chunk_shift != d->chunk_shift || i->slots < d->slots_n)
		return no(op, -E_FORMAT, "it has become smaller: %u slots instead of %u", i->slots,
			  d->slots_n);
	if (i->commit < d->told_commit)
		return no(op, -E_WENT_BACK,
			  "it is an older copy: it was told of commit %" PRIu64
			  ", but this one remembers %" PRIu64 " only",
			  d->told_commit, i->commit);
	if (i->incarnation < d->incarnation || i->lsn < d->lsn)
		return no(op, -E_WENT_BACK,
			  "it is an older copy (incarnation %" PRIu64 ", journal %" PRIu64
			  ") than was seen before (%" PRIu64 ", %" PRIu64 ")",
			  i->incarnation, i->lsn, d->incarnation, d->lsn);
	return 0;
}

static void admit_grow(struct cluster_admit *op, struct cluster_device *d)
{
	op->add = (struct san_device_add){
	    .req.done = admit_grow_done,
	    .dev = d->no,
	    .pool = d->pool,
	    .chunk_shift = d->chunk_shift,
	    .slots_n = op->info->slots,
	};
	san_device_add(op->c->san, &op->add);
}

static void admit_grow_done(struct san_req *req)
{
	struct cluster_admit *op = container_of(req, struct cluster_admit, add.req);
	struct cluster_device *d = op->device;

	if (req->status) {
		admit_finish(op, no(op, req->status, "%s", req->errmsg));
		return;
	}
	san_event(op->c->san, SAN_INFO, "device_grown", "Device %u has %u slots now, it had %u.",
		  d->no, op->info->slots, d->slots_n);
	d->slots_n = op->info->slots;
	admit_accept(op, d);
	admit_finish(op, 0);
}

/* The disk was moved. The node that had it, if it is there, strikes it off its list; else when it comes and reports it missing (cluster_device_disown). */
static void admit_moved(struct cluster_admit *op, struct cluster_device *d)
{
	struct cluster *c = op->c;
	struct cluster_node *other = cluster_node_by_no(c, d->node);

	log_info("a device is on another node now", "device=%u node=%u was=%u", d->no, op->node->no,
		 d->node);
	san_event(c->san, SAN_INFO, "device_moved", "Device %u is on node %s now, it was on %s.",
		  d->no, op->node->name, other ? other->name : "one that was removed");
	if (other && other->session)
		cluster_device_disown(other->session, &d->uuid);
	san_frees_forget(c->san, d->no);
	d->presence = CLUSTER_AWAY; /* whatever it was there */
	d->node = op->node->no;
	cluster_config_push(c);
}

/* What is new about it goes into the registry, and on it goes to being attached. */
static void admit_accept(struct cluster_admit *op, struct cluster_device *d)
{
	struct cluster *c = op->c;
	const Strata__DeviceInfo *i = op->info;
	bool changed = d->node != op->node->no;

	if (changed)
		admit_moved(op, d);
	if (i->failed) {
		if (d->presence != CLUSTER_FAILED)
			san_event(c->san, SAN_ERROR, "device_failed",
				  "Device %u (%s) of node %s is out of service: %s", d->no, i->path,
				  op->node->name, i->errmsg);
		d->presence = CLUSTER_FAILED;
		snprintf(d->reason, sizeof(d->reason), "%.255s", i->errmsg);
		san_device_usable(c->san, d->no, false);
		cluster_device_decided(c, d);
		return;
	}
	d->no_space = i->no_space;
	d->fs = i->fs;
	d->fs_free_bytes = i->fs_free_bytes;
	d->fs_owed_bytes = i->fs_owed_bytes;
	if (i->incarnation > d->incarnation && i->power_loss)
		san_event(c->san, SAN_WARNING, "device_power_loss",
			  "Device %u (%s) of node %s came back after a power loss: writes that "
			  "were not flushed may be gone.",
			  d->no, i->path, op->node->name);
	if (strcmp(d->path, i->path)) {
		char *path = mem_strdup(i->path);

		if (path) {
			mem_free(d->path);
			d->path = path;
			changed = true;
		}
	}
	changed = changed || i->incarnation != d->incarnation || i->stable_lsn > d->lsn;
	d->incarnation = i->incarnation;
	if (i->stable_lsn > d->lsn)
		d->lsn = i->stable_lsn;
	if (changed)
		cluster_device_save(c, d);
	if (d->presence == CLUSTER_OK || d->presence == CLUSTER_ATTACHING)
		return;
	d->presence = CLUSTER_ATTACHING;
	d->commit = i->commit;
	d->wants_attach = true;
	d->reason[0] = '\0';
}

static void admit_finish(struct cluster_admit *op, int status)
{
	struct cluster *c = op->c;

	check(c->admitting && op->node->users > 0);
	c->admitting = false;
	op->node->users--;
	mem_free(op->record);
	op->record = NULL;
	op->status = status;
	op->done(op);
	admit_next(c);
	cluster_op_end(c);
}
