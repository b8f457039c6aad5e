/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/device/ops.h"

#include "io-path/device/dev.h"
#include "src/base/math.h"
#include "src/base/mem.h"

static int request_check(const struct device *dev, const struct chunk_req *r);
static void prefetch_entries(const struct device *dev, const struct chunk_req *r);
static void requests_begin(struct ioe_hook *h);
static void prefetch_values(const struct device *dev, const struct chunk_req *r);
static void op_begin(struct device *dev, struct chunk_req *r);
static void op_run_start(struct waiter *w, int status);
static void op_leave_slot(struct op *op);
static void ops_drain(struct device *dev);
static void request_finish(struct device *dev, struct chunk_req *r, int status);
static void requests_deliver(struct ioe_req *io);

/* ---- life ------------------------------------------------------------------------------------------------------------- */

int ops_init(struct device *dev)
{
	struct ops *o = &dev->ops;

	list_init(&o->free);
	list_init(&o->submitted);
	list_init(&o->submitted_epochs);
	list_init(&o->queued);
	list_init(&o->startable);
	list_init(&o->finished);
	list_init(&o->finished_epochs);
	list_init(&o->own_waiters);
	ioe_hook_init(&o->hook, requests_begin);
	o->all = mem_zalloc_array(OPS_MAX, sizeof(*o->all));
	if (!o->all)
		return -ENOMEM;
	for (uint32_t i = 0; i < OPS_MAX; i++) {
		o->all[i].dev = dev;
		list_init(&o->all[i].link);
		waiter_init(&o->all[i].wait);
		waiter_init(&o->all[i].stable_wait);
		list_push(&o->free, &o->all[i].link);
	}
	o->free_n = OPS_MAX;
	return 0;
}

void ops_free(struct device *dev)
{
	if (dev->ops.all)
		ioe_hook_disarm(&dev->ops.hook);
	mem_free(dev->ops.all);
}

static struct op *op_new(struct device *dev)
{
	struct op *op = list_entry(list_pop(&dev->ops.free), struct op, link);

	dev->ops.free_n--;
	dev->ops.busy_n++;
	op->r = NULL;
	op->vol = NULL;
	op->run = NULL;
	op->page = NULL;
	op->start = NULL;
	op->is_exclusive = op->is_blocked = op->is_stable = op->is_risky = false;
	op->io_done = op->retried = false;
	op->status = op->io_status = 0;
	op->journal_bytes = op->ring_bytes = 0;
	op->intent = RING_NO_INTENT;
	op->parts_n = 0;
	op->data_n = 0;
	op->buf = NULL;
	op->own_done = NULL;
	return op;
}

struct op *op_new_own(struct device *dev, void (*start)(struct op *op))
{
	struct op *op;

	if (dev->ops.free_n == 0)
		return NULL;
	op = op_new(dev);
	op->start = start;
	return op;
}

/* ---- submit ----------------------------------------------------------------------------------------------------------- */

/* Requests begin together at the end of the turn: most of what one costs here is waiting for memory, so what it will look at is asked for
 * in time. */
void device_submit(struct device *dev, struct chunk_req *r)
{
	struct ops *o = &dev->ops;
	int status = dev->failed		    ? -E_DEVICE_FAILED
		     : dev->state != DEVICE_SERVING ? -E_DEVICE_GONE
						    : request_check(dev, r);

	r->present_n = 0;
	r->volatile_ack = false;
	if (r->op != CHUNK_FLUSH) /* in which it is the caller's */
		r->incarnation = dev->journal.incarnation;
	if (status) {
		r->status = status;
		list_push(&o->finished, &r->link);
		ops_deliver_soon(dev);
		return;
	}
	prefetch_entries(dev, r);
	list_push(&o->submitted, &r->link);
	ioe_hook_arm(dev->ioe, &o->hook);
}

static void requests_begin(struct ioe_hook *h)
{
	struct device *dev = container_of(h, struct device, ops.hook);

	list_splice(&dev->ops.queued, &dev->ops.submitted);
	dev->ops.beginning = true;
	ops_drain(dev);
	dev->ops.beginning = false;
	epochs_begin(dev); /* after the requests that were there before */
}

static void prefetch_entries(const struct device *dev, const struct chunk_req *r)
{
	const struct table_page *p;

	if (r->op == CHUNK_FLUSH)
		return;
	p = dev->tables.tables[geometry_table_page_of(&dev->geo, r->slot)].page;
	__builtin_prefetch(&dev->slots.slots[r->slot]);
	if (p)
		__builtin_prefetch(&p->values);
}

/* Of the next request, while one begins; its entries are there by now. */
static void prefetch_values(const struct device *dev, const struct chunk_req *r)
{
	struct geo_table_place place;
	const struct table_page *p;

	if (r->op == CHUNK_FLUSH)
		return;
	place = geometry_table_place_of(&dev->geo, r->slot);
	p = dev->tables.tables[place.page].page;
	if (dev->slots.slots[r->slot].run)
		__builtin_prefetch(dev->slots.slots[r->slot].run);
	if (p) {
		__builtin_prefetch(&p->values[place.value + r->block]);
		if (p->moved && r->op == CHUNK_WRITE)
			__builtin_prefetch(&p->moved[place.value + r->block]);
	}
}

static bool blocks_are_inside(const struct device *dev, const struct chunk_req *r)
{
	return r->slot < dev->geo.total.slots && r->blocks_n > 0 &&
	       range_inside(r->block, r->blocks_n, dev->geo.blocks_per_chunk);
}

static int request_check(const struct device *dev, const struct chunk_req *r)
{
	bool named = r->volume && r->epoch && r->cgen;
	bool buffer = r->buf && (uintptr_t)r->buf % BLOCK_BYTES == 0;
	uint32_t flags = 0;
	bool ok = false;

	switch (r->op) {
	case CHUNK_READ:
		ok = blocks_are_inside(dev, r) && buffer && (named || dev->read_only);
		break;
	case CHUNK_STATUS:
		ok = blocks_are_inside(dev, r) && r->states && (named || dev->read_only);
		break;
	case CHUNK_WRITE:
		ok = blocks_are_inside(dev, r) && buffer && r->crcs && named;
		flags = CHUNK_F_STABLE;
		break;
	case CHUNK_CLEAR:
		ok = blocks_are_inside(dev, r) && named;
		flags = CHUNK_F_STABLE | CHUNK_F_ZERO;
		break;
	case CHUNK_FLUSH:
		ok = !r->volume ==
		     !r->epoch; /* of volume 0: the device itself is flushed, at no epoch */
		break;
	case CHUNK_FREE:
		ok = r->slot < dev->geo.total.slots && r->cgen;
		flags = CHUNK_F_IF_EMPTY;
		break;
	}
	if (!ok || r->flags & ~flags)
		return -EINVAL;
	return dev->read_only && r->op != CHUNK_READ && r->op != CHUNK_STATUS ? -EROFS : 0;
}

static void op_begin(struct device *dev, struct chunk_req *r)
{
	static void (*const starts[])(struct op * op) = {
	    [CHUNK_READ] = op_read,	[CHUNK_WRITE] = op_write, [CHUNK_CLEAR] = op_clear,
	    [CHUNK_STATUS] = op_status, [CHUNK_FLUSH] = op_flush, [CHUNK_FREE] = op_free_slot,
	};
	struct op *op = op_new(dev);
	int status;

	op->r = r;
	op->start = starts[r->op];
	op->slot = r->slot;
	op->block = r->block;
	op->blocks_n = r->blocks_n;
	op->is_exclusive = r->op != CHUNK_READ && r->op != CHUNK_STATUS;
	/* without the ring an acknowledgement stands on the medium alone */
	op->is_stable = r->flags & CHUNK_F_STABLE || !dev->ring.on;
	if (r->op ==
	    CHUNK_FREE) { /* waits for everything on the slot, and everything waits for it */
		op->block = 0;
		op->blocks_n = dev->geo.blocks_per_chunk;
	}
	/* Inspection takes what there is. FREE is guarded by its cgen. */
	if (dev->failed)
		status = -E_DEVICE_FAILED;
	else if (dev->read_only || r->op == CHUNK_FREE || r->volume == 0)
		status = 0;
	else
		status = volume_admit(dev, op);
	if (status <= 0)
		op_admitted(op, status);
}

void op_admitted(struct op *op, int status)
{
	if (status)
		op_finish(op, status);
	else if (op->r->op == CHUNK_FLUSH)
		op->start(op);
	else
		op_enter_slot(op);
}

struct slot_claim op_claim(const struct op *op)
{
	return (struct slot_claim){.cgen = op->r->cgen,
				   .volume = op->r->volume,
				   .layer = op->r->layer,
				   .chunk = op->r->chunk};
}

int op_get_page(struct op *op)
{
	struct geo_table_place place;

	if (op->page)
		return 0;
	place = geometry_table_place_of(&op->dev->geo, op->slot);
	op->page = tables_get(op->dev, place.page);
	op->value_at = place.value + op->block;
	return op->page ? 0 : -ENOMEM;
}

/* ---- order on a slot -------------------------------------------------------------------------------------------------- */

static bool conflict(const struct op *a, const struct op *b)
{
	return (a->is_exclusive || b->is_exclusive) && a->block < b->block + b->blocks_n &&
	       b->block < a->block + a->blocks_n;
}

static bool is_blocked(const struct slot_run *run, const struct op *op)
{
	list_for_each (l, &run->ops) {
		const struct op *earlier = list_entry(l, struct op, link);

		if (earlier == op)
			return false;
		if (conflict(earlier, op))
			return true;
	}
	check_unreachable("the op is in the list");
}

/* What waited for its turn meets a device that may have failed meanwhile: there nothing is begun. An earlier FREE of the slot may have failed for
 * that very reason, and one that repeats it would take it for done. */
static void op_start(struct op *op)
{
	if (op->dev->failed)
		op_finish(op, -E_DEVICE_FAILED);
	else
		op->start(op);
}

void op_enter_slot(struct op *op)
{
	struct slot_run *run = slot_run_get(op->dev, op->slot);

	if (!run) {
		op_finish(op, -ENOMEM);
		return;
	}
	op->run = run;
	list_push(&run->ops, &op->link);
	run->exclusive_n += op->is_exclusive;
	op->is_blocked = is_blocked(run, op);
	if (op->is_blocked)
		run->blocked_n++;
	else
		op_start(op);
}

static void op_leave_slot(struct op *op)
{
	struct slot_run *run = op->run;
	struct device *dev = op->dev;

	list_del(&op->link);
	op->run = NULL;
	run->exclusive_n -= op->is_exclusive;
	if (run->blocked_n)
		list_for_each (l, &run->ops) {
			struct op *later = list_entry(l, struct op, link);

			if (!later->is_blocked || is_blocked(run, later))
				continue;
			later->is_blocked = false;
			run->blocked_n--;
			waiter_push(&dev->ops.startable, &later->wait, op_run_start);
		}
	slot_run_put(dev, run);
}

static void op_run_start(struct waiter *w, int status)
{
	struct op *op = container_of(w, struct op, wait);

	check(status == 0);
	op_start(op);
}

/* ---- finish ----------------------------------------------------------------------------------------------------------- */

void op_finish(struct op *op, int status)
{
	struct device *dev = op->dev;
	struct chunk_req *r = op->r;
	struct volume *vol = op->vol;
	void (*own_done)(struct op * op, int status) = op->own_done;

	check(list_empty(&op->wait.link) && list_empty(&op->stable_wait.link));
	if (dev->failed && r)
		status = -E_DEVICE_FAILED;
	op_unreserve(op);
	if (op->page) {
		tables_put(dev, op->page);
		op->page = NULL;
	}
	if (op->is_risky) {
		op->is_risky = false;
		flush_risky_end(dev);
	}
	if (op->run)
		op_leave_slot(op);
	op->vol = NULL;
	if (own_done)
		own_done(op, status);
	dev->ops.free_n++;
	dev->ops.busy_n--;
	list_push_front(&dev->ops.free, &op->link);
	if (r)
		request_finish(dev, r, status);
	else if (dev->state == DEVICE_CLOSING)
		close_step(dev);
	/* those who waited for it come after it */
	if (vol)
		volume_leave(vol);
	ops_drain(dev);
}

/* What an op that ended makes room for. Not from within itself: a chain of requests that end at once would be a chain of calls. */
static void ops_drain(struct device *dev)
{
	struct ops *o = &dev->ops;
	struct list *l;

	if (o->draining)
		return;
	o->draining = true;
	for (;;) {
		if ((l = list_pop(&o->startable))) {
			struct waiter *w = list_entry(l, struct waiter, link);

			w->fn(w, 0);
		} else if (o->free_n > OPS_OWN && (l = list_pop(&o->queued))) {
			if (!list_empty(&o->queued))
				prefetch_values(dev, list_first(&o->queued, struct chunk_req, link));
			op_begin(dev, list_entry(l, struct chunk_req, link));
		} else if (o->free_n > 0 && (l = list_pop(&o->own_waiters))) {
			struct waiter *w = list_entry(l, struct waiter, link);

			w->fn(w, 0);
		} else {
			break;
		}
	}
	o->draining = false;
}

/* Not from the hook: it may run before a turn that then waits, and whoever polls until this is done would wait for ever. */
static void request_finish(struct device *dev, struct chunk_req *r, int status)
{
	r->status = status;
	if (dev->ops.beginning) {
		list_push(&dev->ops.finished, &r->link);
		ops_deliver_soon(dev);
		return;
	}
	if (dev->state == DEVICE_CLOSING)
		close_step(dev);
	r->done(r); /* the last touch: r may be gone */
}

void ops_deliver_soon(struct device *dev)
{
	if (dev->ops.delivering)
		return;
	dev->ops.delivering = true;
	ioe_nop(dev->ioe, &dev->ops.deliver, requests_deliver);
}

static void requests_deliver(struct ioe_req *io)
{
	struct device *dev = container_of(io, struct device, ops.deliver);
	struct list now = LIST_INIT(now), epochs = LIST_INIT(epochs), *l;

	list_splice(&now, &dev->ops.finished);
	list_splice(&epochs, &dev->ops.finished_epochs);
	dev->ops.delivering = false;
	while ((l = list_pop(&epochs))) {
		struct device_epoch_req *r = list_entry(l, struct device_epoch_req, link);

		dev->ops.busy_n--;
		r->done(r);
	}
	while ((l = list_pop(&now))) {
		struct chunk_req *r = list_entry(l, struct chunk_req, link);

		r->done(r);
	}
	if (dev->state == DEVICE_CLOSING)
		close_step(dev);
}
