/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/device/epochs.h"

#include "io-path/device/dev.h"
#include "src/base/math.h"
#include "src/base/mem.h"

static void raise_begin(struct volume *v, const struct volume_mark *next);
static void raise_reserved(struct waiter *w, int status);
static void raise_stable(struct waiter *w, int status);
static void raise_check(struct volume *v);
static void raise_end(struct volume *v, int status);
static void reqs_look(struct volume *v);
static void req_finish(struct device *dev, struct device_epoch_req *r, int status);

/* ---- life ------------------------------------------------------------------------------------------------------------- */

int epochs_init(struct device *dev)
{
	return htab_init(&dev->volumes.by_id, 64);
}

void epochs_free(struct device *dev)
{
	if (!dev->volumes.by_id.buckets)
		return;
	htab_for_each (n, &dev->volumes.by_id)
		mem_free(container_of(n, struct volume, node));
	htab_free(&dev->volumes.by_id);
}

struct volume *volume_get(struct device *dev, volume_id id)
{
	struct volumes *vs = &dev->volumes;
	struct hnode *n;
	struct volume *v;

	if (vs->last && vs->last->id == id)
		return vs->last;
	n = htab_find(&vs->by_id, id);
	if (n) {
		vs->last = container_of(n, struct volume, node);
		return vs->last;
	}
	v = mem_zalloc(sizeof(*v));
	if (!v)
		return NULL;
	v->dev = dev;
	v->id = id;
	list_init(&v->ops);
	list_init(&v->reqs);
	waiter_init(&v->wait);
	htab_add(&vs->by_id, &v->node, id);
	vs->last = v;
	return v;
}

int volume_replay(struct device *dev, volume_id id, const struct volume_mark *m)
{
	struct volume *v = volume_get(dev, id);

	if (!v)
		return -ENOMEM;
	if (m->epoch < v->now.epoch || (m->epoch == v->now.epoch && m->commit < v->now.commit))
		return 0;
	if (v->now.epoch == 0)
		dev->registry.epochs_bytes += sizeof(struct fmt_rec_epoch);
	v->now = *m;
	return 0;
}

/* ---- admission -------------------------------------------------------------------------------------------------------- */

/* A request of a newer epoch says who the owner is. What the head is, only EPOCH says: a frozen layer stays frozen. */
static struct volume_mark implied_mark(const struct volume *v, const struct chunk_req *r)
{
	struct volume_mark mark = v->now;

	mark.epoch = r->epoch;
	return mark;
}

int volume_admit(struct device *dev, struct op *op)
{
	const struct chunk_req *r = op->r;
	struct volume *v = volume_get(dev, r->volume);
	bool writes = r->op == CHUNK_WRITE || r->op == CHUNK_CLEAR;

	if (!v)
		return -ENOMEM;
	if (r->epoch < v->now.epoch || (v->raising && r->epoch < v->next.epoch))
		return -E_STALE_EPOCH;
	if (v->raising || r->epoch > v->now.epoch) {
		struct volume_mark next = implied_mark(v, r);

		op->vol = v; /* not yet counted */
		list_push(&v->ops, &op->wait.link);
		if (!v->raising)
			raise_begin(v, &next);
		return 1;
	}
	if (writes && v->now.head && r->layer != v->now.head)
		return -E_FROZEN;
	op->vol = v;
	v->inflight_n++;
	return 0;
}

void volume_leave(struct volume *v)
{
	check(v->inflight_n > 0);
	if (--v->inflight_n == 0 && v->raising)
		raise_check(v);
}

/* ---- raise ------------------------------------------------------------------------------------------------------------ */

static void raise_begin(struct volume *v, const struct volume_mark *next)
{
	struct device *dev = v->dev;
	uint32_t bytes = sizeof(struct fmt_rec_epoch);

	check(!v->raising && next->epoch >= v->now.epoch);
	v->raising = true;
	v->recorded = v->stable = false;
	v->next = *next;
	if (v->now.epoch == 0 && !registry_has_room(dev, FMT_REC_EPOCH, bytes)) {
		raise_end(v, -ENOSPC);
		return;
	}
	if (v->now.epoch == 0)
		dev->registry.epochs_bytes += bytes;
	if (journal_reserve(dev, JOURNAL_FREE, bytes))
		raise_reserved(&v->wait, 0);
	else
		journal_wait_room(dev, &v->wait, JOURNAL_FREE, bytes, raise_reserved);
}

static void raise_reserved(struct waiter *w, int status)
{
	struct volume *v = container_of(w, struct volume, wait);
	struct device *dev = v->dev;
	struct fmt_rec_epoch rec = {
	    .h = {.type = FMT_REC_EPOCH, .len_bytes = to_le16(sizeof(rec))},
	    .volume = to_le32(v->id),
	    .epoch = to_le64(v->next.epoch),
	    .commit = to_le64(v->next.commit),
	    .head = to_le32(v->next.head),
	};
	uint64_t lsn;

	if (status) {
		raise_end(v, status);
		return;
	}
	lsn = journal_add(dev, &rec, sizeof(rec));
	v->recorded = true;
	registry_touch(dev, lsn);
	flush_wait(dev, &v->wait, FLUSH_STABLE, lsn, raise_stable);
}

static void raise_stable(struct waiter *w, int status)
{
	struct volume *v = container_of(w, struct volume, wait);

	if (status) {
		raise_end(v, status);
		return;
	}
	v->stable = true;
	raise_check(v);
}

/* Only when the record is stable and the last older request is done. */
static void raise_check(struct volume *v)
{
	if (v->stable && v->inflight_n == 0)
		raise_end(v, 0);
}

static void raise_end(struct volume *v, int status)
{
	struct device *dev = v->dev;
	struct list ops = LIST_INIT(ops), *l;

	if (!status) {
		check(v->next.epoch >= v->now.epoch);
		v->now = v->next;
	}
	v->raising = false;
	if (status && v->for_req)
		req_finish(dev, list_entry(list_pop(&v->reqs), struct device_epoch_req, link),
			   status);
	v->for_req = false;
	list_splice(&ops, &v->ops);
	while ((l = list_pop(&ops))) {
		struct op *op = container_of(list_entry(l, struct waiter, link), struct op, wait);
		int r;

		op->vol = NULL;
		r = status ? status : volume_admit(dev, op);
		if (r <= 0)
			op_admitted(op, r);
	}
	reqs_look(v);
}

/* ---- EPOCH requests --------------------------------------------------------------------------------------------------- */

void device_epoch(struct device *dev, struct device_epoch_req *r)
{
	struct volume *v = NULL;
	int status = dev->failed		    ? -E_DEVICE_FAILED
		     : dev->state != DEVICE_SERVING ? -E_DEVICE_GONE
		     : dev->read_only		    ? -EROFS
		     : r->volume && r->epoch	    ? 0
						    : -EINVAL;

	if (!status) {
		v = volume_get(dev, r->volume);
		status = v ? 0 : -ENOMEM;
	}
	dev->ops.busy_n++; /* a close waits for it */
	if (status) {
		req_finish(dev, r, status);
		return;
	}
	device_heard_commit(dev, r->commit);
	list_push(&dev->ops.submitted_epochs, &r->link);
	ioe_hook_arm(dev->ioe, &dev->ops.hook);
}

void epochs_begin(struct device *dev)
{
	struct list *l;

	while ((l = list_pop(&dev->ops.submitted_epochs))) {
		struct device_epoch_req *r = list_entry(l, struct device_epoch_req, link);
		struct volume *v = volume_get(dev, r->volume);

		list_push(&v->reqs, l);
		reqs_look(v);
	}
}

static bool req_is_satisfied(const struct volume *v, const struct device_epoch_req *r)
{
	if (r->epoch != v->now.epoch)
		return r->epoch < v->now.epoch;
	return r->commit < v->now.commit ||
	       (r->commit == v->now.commit && (r->head == v->now.head || r->head == 0));
}

static void reqs_look(struct volume *v)
{
	while (!v->raising && !list_empty(&v->reqs)) {
		struct device_epoch_req *r = list_first(&v->reqs, struct device_epoch_req, link);
		struct volume_mark next = {.epoch = r->epoch, .commit = r->commit, .head = r->head};

		if (v->dev->failed || req_is_satisfied(v, r)) {
			list_del(&r->link);
			req_finish(v->dev, r, v->dev->failed ? -E_DEVICE_FAILED : 0);
			continue;
		}
		v->for_req = true;
		raise_begin(v, &next);
	}
}

static void req_finish(struct device *dev, struct device_epoch_req *r, int status)
{
	r->status = status;
	list_push(&dev->ops.finished_epochs, &r->link);
	ops_deliver_soon(dev);
}
