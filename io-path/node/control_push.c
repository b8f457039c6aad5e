/* SPDX-License-Identifier: Apache-2.0 */
/* control_push.c - what the metadata server pushes for the data path: records, and of which layers there are some; serve, free. */
#include "io-path/node/control_private.h"

#include <stdio.h>

#include "io-path/device/format.h"
#include "io-path/node/meta_client.h"
#include "src/base/log.h"
#include "src/base/mem.h"

/* ---- records: each epoch and layer record on each device, then the commit they bring it up to ----------------------------------- */

struct records_push {
	struct push p;
	uint32_t pending;
	struct records_device {
		struct records_push *op;
		struct uuid uuid;
		struct records_epoch {
			struct device_epoch_req req;
			struct records_device *rd;
		} * epochs;
		uint32_t pending;
		int status;
	} * devices;
	size_t devices_n;
};

static void records_begin(struct records_device *rd, struct node_device *d,
			  const Strata__Records *m);
static void records_epoch_done(struct device_epoch_req *r);
static void records_layer_done(void *arg, int status);
static void records_device_step(struct records_device *rd, int status);
static void records_device_done(struct records_device *rd);
static void records_commit_done(void *arg, int status);
static void records_device_end(struct records_device *rd);
static void records_finish(struct records_push *op);

/* An older copy of a device must go on showing that it is one: before the metadata server has admitted a device it is told nothing. */
static bool records_concern(const Strata__Records *m, const struct node_device *d)
{
	struct device_info info;

	if (!d->dev || d->refused || d->state == NODE_DEVICE_CLOSING ||
	    d->state == NODE_DEVICE_FAILED)
		return false;
	if (!m->n_devices)
		return d->admitted;
	device_info(d->dev, &info);
	for (size_t i = 0; i < m->n_devices; i++) {
		struct uuid uuid = control_get_uuid(m->uuids[i]);

		if (uuid_equal(&uuid, &d->uuid) && (!info.number || info.number == m->devices[i]))
			return true;
	}
	return false;
}

void push_records(struct control *c, struct push *p)
{
	struct records_push *op = push_grow(p, sizeof(*op));
	const Strata__Records *m;

	if (!op)
		return;
	m = (const Strata__Records *)op->p.msg;
	op->devices = mem_zalloc_array(c->cfg.devices->n, sizeof(*op->devices));
	if (!op->devices) {
		push_result(&op->p, -ENOMEM, "memory is short");
		return;
	}
	op->pending = 1; /* ours */
	list_for_each (l, &c->cfg.devices->list) {
		struct node_device *d = list_entry(l, struct node_device, link);
		struct records_device *rd = &op->devices[op->devices_n];

		if (!records_concern(m, d) || op->devices_n == c->cfg.devices->n)
			continue;
		rd->op = op;
		rd->uuid = d->uuid;
		op->devices_n++;
		op->pending++;
		records_begin(rd, d, m);
	}
	if (--op->pending == 0)
		records_finish(op);
}

static_assert((int)CONTROL_LAYER_DELETED == (int)FMT_LAYER_DELETED &&
		  (int)CONTROL_LAYER_FROZEN == (int)FMT_LAYER_FROZEN &&
		  (int)CONTROL_LAYER_SECTOR_512 == (int)FMT_LAYER_SECTOR_512 &&
		  (int)CONTROL_LAYER_CACHE_SHIFT == (int)FMT_LAYER_CACHE_SHIFT,
	      "flags are passed on as they are");

static void layer_of(const Strata__LayerRecord *r, struct device_layer *ret_layer)
{
	*ret_layer = (struct device_layer){
	    .layer = r->layer,
	    .parent = r->parent,
	    .volume = r->volume,
	    .flags = r->flags,
	    .size_bytes = r->size_bytes,
	    .commit = r->commit,
	};
	snprintf(ret_layer->name, sizeof(ret_layer->name), "%s", r->name);
	snprintf(ret_layer->snapshot, sizeof(ret_layer->snapshot), "%s", r->snapshot);
}

static void records_begin(struct records_device *rd, struct node_device *d, const Strata__Records *m)
{
	rd->pending = 1;
	rd->epochs = mem_zalloc_array(m->n_epochs, sizeof(*rd->epochs));
	if (!rd->epochs) {
		records_device_step(rd, -ENOMEM);
		return;
	}
	for (size_t i = 0; i < m->n_epochs; i++) {
		struct device_epoch_req *r = &rd->epochs[i].req;

		rd->epochs[i].rd = rd;
		r->volume = m->epochs[i]->volume;
		r->epoch = m->epochs[i]->epoch;
		r->head = m->epochs[i]->head;
		r->commit = m->epochs[i]->commit;
		r->done = records_epoch_done;
		rd->pending++;
		device_epoch(d->dev, r);
	}
	for (size_t i = 0; i < m->n_layers; i++) {
		const Strata__LayerRecord *r = m->layers[i];
		struct device_layer layer;

		rd->pending++;
		if (r->flags & CONTROL_LAYER_GONE) {
			device_layer_drop(d->dev, r->layer, r->commit, records_layer_done, rd);
			continue;
		}
		layer_of(r, &layer);
		device_layer_put(d->dev, &layer, records_layer_done, rd);
	}
	records_device_step(rd, 0);
}

static void records_epoch_done(struct device_epoch_req *r)
{
	records_device_step(container_of(r, struct records_epoch, req)->rd, r->status);
}

/* A full registry takes no more layers: the map can then not be rebuilt from this device alone, and nothing else suffers. */
static void records_layer_done(void *arg, int status)
{
	struct records_device *rd = arg;

	if (status == -ENOSPC)
		log_limited(LOG_WARN, ioe_now_ns(rd->op->p.c->cfg.ioe),
			    "a device's registry is full: names are not recorded on it any more");
	records_device_step(rd, status == -ENOSPC ? 0 : status);
}

static void records_device_step(struct records_device *rd, int status)
{
	if (status && !rd->status)
		rd->status = status;
	if (--rd->pending == 0)
		records_device_done(rd);
}

/* A device that went out of service executes nothing any more: what it does not know cannot do harm. */
static void records_device_done(struct records_device *rd)
{
	struct records_push *op = rd->op;
	const Strata__Records *m = (const Strata__Records *)op->p.msg;
	struct node_device *d = devices_by_uuid(op->p.c->cfg.devices, &rd->uuid);

	if (!rd->status && d && d->dev && d->state != NODE_DEVICE_FAILED && m->commit)
		device_commit_put(d->dev, m->commit, records_commit_done, rd);
	else
		records_device_end(rd);
}

/* Stable: from now on the metadata server takes a device that has not heard of this commit for an older copy. */
static void records_commit_done(void *arg, int status)
{
	struct records_device *rd = arg;

	rd->status = status;
	records_device_end(rd);
}

static void records_device_end(struct records_device *rd)
{
	struct records_push *op = rd->op;

	if (rd->status == -E_DEVICE_FAILED)
		rd->status = 0;
	if (rd->status && !op->p.status)
		op->p.status = rd->status;
	mem_free(rd->epochs);
	rd->epochs = NULL;
	if (--op->pending == 0)
		records_finish(op);
}

static void records_finish(struct records_push *op)
{
	mem_free(op->devices);
	push_result(&op->p, op->p.status, "a device could not record it");
}

/* ---- layers ---------------------------------------------------------------------------------------------------------------------- */

void push_layer_query(struct control *c, struct push *p)
{
	const Strata__LayerQuery *m = (const Strata__LayerQuery *)p->msg;
	struct uuid uuid = control_get_uuid(m->uuid);
	struct node_device *d = devices_by_uuid(c->cfg.devices, &uuid);
	Strata__LayerIds reply = STRATA__LAYER_IDS__INIT;
	struct device_layer l = {.layer = m->after};
	int r = d && d->dev && d->state == NODE_DEVICE_SERVING ? 0 : -E_DEVICE_GONE;

	reply.layers = mem_zalloc_array(m->max, sizeof(reply.layers[0]));
	if (!reply.layers)
		r = -ENOMEM;
	while (!r && reply.n_layers < m->max && !device_layer_next(d->dev, l.layer, &l))
		reply.layers[reply.n_layers++] = l.layer;
	reply.error = (char *)(uintptr_t)control_error(r);
	reply.errmsg = (char *)(uintptr_t)(r ? err_text(r) : "");
	push_reply(p, &reply.base);
	mem_free(reply.layers);
}

/* ---- serve ----------------------------------------------------------------------------------------------------------------------- */

struct serve_push {
	struct push p;
	struct devices_serve serve;
};

static void serve_done(struct devices_serve *serve);

void push_serve(struct control *c, struct push *p)
{
	struct serve_push *op = push_grow(p, sizeof(*op));
	const Strata__Serve *m;

	if (!op)
		return;
	m = (const Strata__Serve *)op->p.msg;
	op->serve.uuid = control_get_uuid(m->uuid);
	op->serve.no = (device_no)m->number;
	op->serve.done = serve_done;
	devices_serve(c->cfg.devices, &op->serve);
}

static void serve_done(struct devices_serve *serve)
{
	struct serve_push *op = container_of(serve, struct serve_push, serve);
	struct control *c = op->p.c;
	struct node_device *d = devices_by_uuid(c->cfg.devices, &serve->uuid);

	if (!serve->status && d && c->session == op->p.session && control_is_joined(c))
		d->attached = true;
	push_result(&op->p, serve->status, err_text(serve->status));
	control_check_ready(c);
}

/* ---- free ------------------------------------------------------------------------------------------------------------------------ */

struct free_push {
	struct push p;
	uint32_t pending;
	struct free_item {
		struct chunk_req req;
		struct free_push *op;
	} * items;
	char **errors;
};

static void free_item_done(struct chunk_req *r);
static void free_finish(struct free_push *op);

static struct node_device *free_target(struct control *c, device_no no)
{
	struct node_device *d = devices_by_no(c->cfg.devices, no);

	return d && d->state == NODE_DEVICE_SERVING ? d : NULL;
}

void push_free_slots(struct control *c, struct push *p)
{
	struct free_push *op = push_grow(p, sizeof(*op));
	const Strata__Free *m;

	if (!op)
		return;
	m = (const Strata__Free *)op->p.msg;
	op->items = mem_zalloc_array(m->n_items, sizeof(*op->items));
	op->errors = mem_zalloc_array(m->n_items, sizeof(*op->errors));
	if (!op->items || !op->errors) {
		op->p.status = -ENOMEM;
		free_finish(op);
		return;
	}
	op->pending = 1;
	for (size_t i = 0; i < m->n_items; i++) {
		struct node_device *d = free_target(c, (device_no)m->items[i]->device);
		struct chunk_req *r = &op->items[i].req;

		if (!d) {
			r->status = -E_DEVICE_GONE;
			continue;
		}
		*r = (struct chunk_req){
		    .op = CHUNK_FREE,
		    .dev = (device_no)m->items[i]->device,
		    .slot = m->items[i]->slot,
		    .cgen = m->items[i]->cgen,
		    .done = free_item_done,
		};
		op->items[i].op = op;
		op->pending++;
		device_submit(d->dev, r);
	}
	if (--op->pending == 0)
		free_finish(op);
}

static void free_item_done(struct chunk_req *r)
{
	struct free_push *op = container_of(r, struct free_item, req)->op;

	if (--op->pending == 0)
		free_finish(op);
}

static void free_finish(struct free_push *op)
{
	const Strata__Free *m = (const Strata__Free *)op->p.msg;
	struct free_item *items = op->items;
	char **errors = op->errors;
	Strata__Freed reply = STRATA__FREED__INIT;

	reply.error = (char *)(uintptr_t)control_error(op->p.status);
	if (!op->p.status) {
		for (size_t i = 0; i < m->n_items; i++)
			errors[i] = (char *)(uintptr_t)control_error(items[i].req.status);
		reply.errors = errors;
		reply.n_errors = m->n_items;
	}
	push_reply(&op->p, &reply.base);
	mem_free(items);
	mem_free(errors);
}
