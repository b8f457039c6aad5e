/* SPDX-License-Identifier: Apache-2.0 */
/* devices_change.c - taking a device in, letting one go, serving it.
 *
 *   ADD      TRY (read-only: is it a device of this cluster?) --no--> FORMAT --> OPEN --> LIST --> done
 *                 +--yes, and not on the list----------------------------------^
 *                 +--yes, on the list and not there: the path is noted --> it is opened --> done
 *   REMOVE   UNLIST -> CLOSE -> done
 *   SERVE    NUMBER -> done
 *
 * Crash after FORMAT and before LIST: the device is formatted and on no list; adding it again finds it by TRY. Crash after LIST: the
 * next start opens it and reports it, and the metadata server takes it in then. */
#include "io-path/node/devices_private.h"

#include <stdio.h>
#include <string.h>

#include "src/base/log.h"
#include "src/base/mem.h"

#define TRY_LOCK_NS 1000000000ULL

static void add_refused(struct ioe_req *r);
static void add_try(struct devices_add *op);
static void add_try_done(struct device_open *open);
static void add_try_closed(void *arg, int status);
static void add_known(struct devices_add *op, struct node_device *d);
static void add_format(struct devices_add *op);
static void add_format_done(struct device_format *format);
static void add_open(struct devices_add *op);
static void add_open_done(struct device_open *open);
static int add_list(struct devices_add *op);
static void add_undone(void *arg, int status);
static void add_finish(struct devices_add *op, int status);
static void remove_nop_done(struct ioe_req *r);
static void serve_number_done(void *arg, int status);
static void serve_ready(struct devices_serve *op);
static void serve_nop_done(struct ioe_req *r);

/* ---- add --------------------------------------------------------------------------------------------------------------------- */

static struct node_device *device_at(struct devices *ds, const char *path)
{
	list_for_each (l, &ds->list) {
		struct node_device *d = list_entry(l, struct node_device, link);

		if (!strcmp(d->path, path) || (d->dev && ioe_path_same(ds->cfg.ioe, d->path, path)))
			return d;
	}
	return NULL;
}

static int add_is_known(struct devices_add *op, const struct node_device *d)
{
	char uuid[UUID_TEXT_LEN];

	uuid_format(&d->uuid, uuid);
	if (d->state == NODE_DEVICE_ABSENT)
		snprintf(
		    op->errmsg, sizeof(op->errmsg),
		    "%.100s is the path of device %s of this node, which is not there: remove that "
		    "one first, or add it at its new path",
		    op->path, uuid);
	else if (strcmp(d->path, op->path))
		snprintf(op->errmsg, sizeof(op->errmsg),
			 "%.75s is device %s of this node already, which is in use as %.75s",
			 op->path, uuid, d->path);
	else
		snprintf(op->errmsg, sizeof(op->errmsg),
			 "%.150s is a device of this node already, %s", op->path, uuid);
	return -EEXIST;
}

static int add_refuse(struct devices *ds, struct devices_add *op)
{
	struct node_device *d = device_at(ds, op->path);

	if (ds->closing || uuid_is_zero(&ds->cluster))
		return -ESHUTDOWN;
	if (d && (d->state != NODE_DEVICE_ABSENT || op->force))
		return add_is_known(op, d);
	if (strchr(op->path, '\n'))
		return -EINVAL;
	if (ds->n >= DEVICES_HERE_MAX)
		return -EMFILE;
	op->made = node_device_new(ds, mem_strdup(op->path));
	return op->made ? 0 : -ENOMEM;
}

void devices_add(struct devices *ds, struct devices_add *op)
{
	op->ds = ds;
	op->errmsg[0] = '\0';
	op->device = op->made = NULL;
	list_push(&ds->adds, &op->link);
	ds->busy++;
	op->status = add_refuse(ds, op);
	if (op->status)
		ioe_nop(ds->cfg.ioe, &op->nop, add_refused);
	else if (op->force)
		add_format(op);
	else
		add_try(op);
}

static void add_refused(struct ioe_req *r)
{
	struct devices_add *op = container_of(r, struct devices_add, nop);

	add_finish(op, op->status);
}

static void add_try(struct devices_add *op)
{
	op->open = (struct device_open){
	    .ioe = op->ds->cfg.ioe,
	    .path = op->path,
	    .cluster = &op->ds->cluster,
	    .read_only = true,
	    .lock_wait_ns = TRY_LOCK_NS,
	    .done = add_try_done,
	};
	device_open(&op->open);
}

/* Whatever it is instead, device_format() knows what to say about it. */
static void add_try_done(struct device_open *open)
{
	struct devices_add *op = container_of(open, struct devices_add, open);
	struct device_info info;

	if (open->status && device_at(op->ds, op->path)) {
		add_finish(op, add_is_known(op, device_at(op->ds, op->path)));
		return;
	}
	if (open->status) {
		add_format(op);
		return;
	}
	device_info(open->dev, &info);
	op->made->uuid = info.uuid;
	device_close(open->dev, add_try_closed, op);
}

static void add_try_closed(void *arg, int status)
{
	struct devices_add *op = arg;
	struct node_device *d = devices_by_uuid(op->ds, &op->made->uuid);
	struct node_device *there = device_at(op->ds, op->path);

	if (status)
		add_finish(op, status);
	else if (d)
		add_known(op, d);
	else if (there)
		add_finish(op, add_is_known(op, there));
	else
		add_open(op);
}

/* It was moved. Whose place it took, if anybody's, gets the path that it leaves. */
static void add_known(struct devices_add *op, struct node_device *d)
{
	struct devices *ds = op->ds;
	struct node_device *there = device_at(ds, op->path);
	/* who is to have the path that d leaves */
	char *was = d->path, **left = there && there != d ? &there->path : &op->made->path;
	int r;

	if (ds->closing || d->remove || d->state != NODE_DEVICE_ABSENT ||
	    (there && there->state != NODE_DEVICE_ABSENT)) {
		add_finish(op, ds->closing ? -ESHUTDOWN : add_is_known(op, d));
		return;
	}
	d->path = *left;
	*left = was;
	r = devices_list_save(ds);
	if (r) {
		*left = d->path;
		d->path = was;
		snprintf(op->errmsg, sizeof(op->errmsg), "cannot write %.180s/devices: %s",
			 ds->cfg.dir, err_text(r));
		add_finish(op, r);
		return;
	}
	log_info("a device is at another path than it was", "was=%s path=%s", was, d->path);
	d->add = op;
	node_device_open_again(d);
}

void devices_add_opened(struct node_device *d, int status)
{
	struct devices_add *op = d->add;

	d->add = NULL;
	if (status)
		snprintf(op->errmsg, sizeof(op->errmsg), "%s",
			 *d->errmsg && status != -ESHUTDOWN ? d->errmsg : err_text(status));
	else
		op->device = d;
	add_finish(op, status);
}

static void add_format(struct devices_add *op)
{
	op->format = (struct device_format){
	    .ioe = op->ds->cfg.ioe,
	    .path = op->path,
	    .size_bytes = op->size_bytes,
	    .chunk_shift = op->chunk_shift,
	    .cluster = op->ds->cluster,
	    .force = op->force,
	    .done = add_format_done,
	};
	device_format(&op->format);
}

static void add_format_done(struct device_format *format)
{
	struct devices_add *op = container_of(format, struct devices_add, format);

	if (format->status) {
		snprintf(op->errmsg, sizeof(op->errmsg), "%s", format->errmsg);
		add_finish(op, format->status);
		return;
	}
	op->made->uuid = format->uuid;
	add_open(op);
}

static void add_open(struct devices_add *op)
{
	if (node_device_name_ring(op->made)) {
		add_finish(op, -ENOMEM);
		return;
	}
	op->open = (struct device_open){
	    .ioe = op->ds->cfg.ioe,
	    .path = op->path,
	    .ring_path = op->made->ring_path,
	    .cluster = &op->ds->cluster,
	    .on_event = node_device_on_event,
	    .event_arg = op->made,
	    .done = add_open_done,
	};
	device_open(&op->open);
}

static void add_open_done(struct device_open *open)
{
	struct devices_add *op = container_of(open, struct devices_add, open);
	int r = open->status;

	if (r) {
		snprintf(op->errmsg, sizeof(op->errmsg), "%s", open->errmsg);
		add_finish(op, r);
		return;
	}
	op->made->dev = open->dev;
	r = add_list(op);
	if (!r) {
		op->device = op->made;
		op->made = NULL;
		add_finish(op, 0);
		return;
	}
	op->status = r;
	op->made->dev = NULL;
	device_close(open->dev, add_undone, op);
}

static int add_list(struct devices_add *op)
{
	struct devices *ds = op->ds;
	int r = ds->closing ? -ESHUTDOWN : 0;

	if (!r && (device_at(ds, op->path) || devices_by_uuid(ds, &op->made->uuid)))
		r = -EEXIST; /* two were added at once */
	if (r)
		return r;
	list_push(&ds->list, &op->made->link);
	r = devices_list_save(ds);
	if (r) {
		list_del(&op->made->link);
		snprintf(op->errmsg, sizeof(op->errmsg), "cannot write %.180s/devices: %s",
			 ds->cfg.dir, err_text(r));
		return r;
	}
	ds->n++;
	op->made->state = NODE_DEVICE_OPEN;
	log_info("device added", "path=%s", op->path);
	return 0;
}

static void add_undone(void *arg, int status)
{
	struct devices_add *op = arg;

	(void)status;
	add_finish(op, op->status);
}

static void add_finish(struct devices_add *op, int status)
{
	struct devices *ds = op->ds;

	if (op->made)
		node_device_free(op->made);
	op->made = NULL;
	op->status = status;
	if (status && !*op->errmsg)
		snprintf(op->errmsg, sizeof(op->errmsg), "%s", err_text(status));
	list_del(&op->link);
	mem_free(op->path);
	op->path = NULL;
	ds->busy--;
	op->done(op);
	devices_close_step(ds);
}

/* ---- remove ------------------------------------------------------------------------------------------------------------------ */

void devices_remove(struct devices *ds, struct devices_remove *op)
{
	struct node_device *d = devices_by_uuid(ds, &op->uuid);
	int r;

	op->ds = ds;
	op->status = 0;
	op->errmsg[0] = '\0';
	ds->busy++;
	if (ds->closing)
		op->status = -ESHUTDOWN;
	else if (d && (d->remove || d->state == NODE_DEVICE_CLOSING))
		op->status = -EBUSY;
	if (!d || op->status) {
		ioe_nop(ds->cfg.ioe, &op->nop, remove_nop_done);
		return;
	}
	list_del(&d->link);
	r = devices_list_save(ds);
	list_push(&ds->list, &d->link); /* it is there until it is closed */
	if (r)				/* then the next start hears again that it left */
		log_warn("a device that leaves stays on the list", "path=%s error=%s", d->path,
			 err_name(r));
	d->remove = op;
	if (d->retrying)
		ioe_cancel(ds->cfg.ioe, &d->retry);
	else if (d->dev)
		node_device_close(d);
	else if (d->state != NODE_DEVICE_OPENING) /* else when that ends */
		ioe_nop(ds->cfg.ioe, &op->nop, remove_nop_done);
}

static void remove_nop_done(struct ioe_req *r)
{
	struct devices_remove *op = container_of(r, struct devices_remove, nop);
	struct devices *ds = op->ds;
	struct node_device *d = op->status ? NULL : devices_by_uuid(ds, &op->uuid);

	if (d) {
		node_device_closed(d);
		return;
	}
	ds->busy--;
	op->done(op);
	devices_close_step(ds);
}

/* Nothing of the device is open any more: a remove ends here. (When the node ends, the device stays on the list.) */
void node_device_closed(struct node_device *d)
{
	struct devices_remove *op = d->remove;
	struct devices *ds = d->owner;

	d->state = NODE_DEVICE_ABSENT;
	if (!op)
		return;
	log_info("device removed", "path=%s", d->path);
	node_device_free(d);
	ds->n--;
	ds->busy--;
	op->status = 0;
	op->done(op);
}

/* ---- serve -------------------------------------------------------------------------------------------------------------------- */

void devices_serve(struct devices *ds, struct devices_serve *op)
{
	struct node_device *d = devices_by_uuid(ds, &op->uuid);
	struct device_info info;

	op->ds = ds;
	op->status = 0;
	ds->busy++;
	if (!d || !d->dev || (d->state != NODE_DEVICE_OPEN && d->state != NODE_DEVICE_SERVING)) {
		op->status =
		    d && d->state == NODE_DEVICE_FAILED ? -E_DEVICE_FAILED : -E_DEVICE_GONE;
	} else {
		device_info(d->dev, &info);
		if (!info.number) {
			device_set_number(d->dev, op->no, serve_number_done, op);
			return;
		}
		if (info.number != op->no)
			op->status = -EEXIST;
		else
			serve_ready(op);
	}
	ioe_nop(ds->cfg.ioe, &op->nop, serve_nop_done);
}

static void serve_number_done(void *arg, int status)
{
	struct devices_serve *op = arg;
	struct devices *ds = op->ds;

	op->status = status;
	if (!status)
		serve_ready(op);
	ds->busy--;
	op->done(op);
	devices_close_step(ds);
}

/* It may have been given up while its number was written. */
static void serve_ready(struct devices_serve *op)
{
	struct node_device *d = devices_by_uuid(op->ds, &op->uuid);

	if (!d || !d->dev || (d->state != NODE_DEVICE_OPEN && d->state != NODE_DEVICE_SERVING)) {
		op->status = -E_DEVICE_GONE;
		return;
	}
	if (d->state == NODE_DEVICE_SERVING)
		return;
	d->no = op->no;
	d->state = NODE_DEVICE_SERVING;
	node_store_serve(op->ds->cfg.store, op->no, d->dev);
	log_info("device serves", "path=%s device=%u", d->path, op->no);
}

static void serve_nop_done(struct ioe_req *r)
{
	struct devices_serve *op = container_of(r, struct devices_serve, nop);
	struct devices *ds = op->ds;

	ds->busy--;
	op->done(op);
	devices_close_step(ds);
}
