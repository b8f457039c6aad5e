/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/node/devices_private.h"

#include <stdio.h>
#include <string.h>

#include "src/base/log.h"
#include "src/base/mem.h"

#define RETRY_NS 10000000000ULL

/* the list */
static int list_parse(struct devices *ds, char *text, char errmsg[ERRMSG_LEN]);
/* opening */
static void open_done(struct device_open *op);
static void opened(struct node_device *d, struct device_open *op);
static void not_opened(struct node_device *d, struct device_open *op);
static void change_places(struct devices *ds);
static void retry_set(struct node_device *d);
static void retry_done(struct ioe_req *r);
/* ending */
static void close_done(void *arg, int status);

static char *list_path(struct devices *ds)
{
	return mem_printf("%s/devices", ds->cfg.dir);
}

int devices_init(struct devices *ds, const struct devices_config *cfg, char errmsg[ERRMSG_LEN])
{
	char *path, *text;
	size_t len;
	int r;

	*ds = (struct devices){.cfg = *cfg};
	list_init(&ds->list);
	list_init(&ds->adds);
	path = list_path(ds);
	if (!path) {
		snprintf(errmsg, ERRMSG_LEN, "memory is short");
		return -ENOMEM;
	}
	r = ioe_file_load(cfg->ioe, path, &text, &len);
	if (r == -ENOENT) {
		mem_free(path);
		return 0;
	}
	if (r) {
		snprintf(errmsg, ERRMSG_LEN, "cannot read %.200s: %s", path, err_text(r));
	} else {
		r = list_parse(ds, text, errmsg);
		mem_free(text);
	}
	mem_free(path);
	if (r)
		devices_free(ds);
	return r;
}

static int list_parse(struct devices *ds, char *text, char errmsg[ERRMSG_LEN])
{
	int line = 0;

	for (char *next = text, *at; (at = strsep(&next, "\n"));) {
		struct uuid uuid;
		struct node_device *d;
		char *path = strchr(at, ' ');

		line++;
		if (!*at || *at == '#')
			continue;
		if (path)
			*path++ = '\0';
		if (!path || uuid_parse(at, &uuid) || path[0] != '/' ||
		    devices_by_uuid(ds, &uuid) || ds->n == DEVICES_HERE_MAX) {
			snprintf(errmsg, ERRMSG_LEN,
				 "%.150s/devices, line %d: not 'UUID PATH', or given twice",
				 ds->cfg.dir, line);
			return -EINVAL;
		}
		d = node_device_new(ds, mem_strdup(path));
		if (!d) {
			snprintf(errmsg, ERRMSG_LEN, "memory is short");
			return -ENOMEM;
		}
		d->uuid = uuid;
		list_push(&ds->list, &d->link);
		ds->n++;
	}
	return 0;
}

int devices_list_save(struct devices *ds)
{
	char *path = list_path(ds), *text = mem_strdup("# devices of this node: uuid, path\n");
	int r = path && text ? 0 : -ENOMEM;

	list_for_each (l, &ds->list) {
		struct node_device *d = list_entry(l, struct node_device, link);
		char uuid[UUID_TEXT_LEN], *longer;

		if (r)
			break;
		uuid_format(&d->uuid, uuid);
		longer = mem_printf("%s%s %s\n", text, uuid, d->path);
		r = longer ? 0 : -ENOMEM;
		if (r)
			break;
		mem_free(text);
		text = longer;
	}
	if (!r)
		r = ioe_file_store(ds->cfg.ioe, path, text, strlen(text), 0600);
	mem_free(text);
	mem_free(path);
	return r;
}

/* ---- one device ------------------------------------------------------------------------------------------------------------ */

struct node_device *node_device_new(struct devices *ds, char *path)
{
	struct node_device *d = path ? mem_zalloc(sizeof(*d)) : NULL;

	if (!d) {
		mem_free(path);
		return NULL;
	}
	list_init(&d->link);
	d->owner = ds;
	d->path = path;
	snprintf(d->errmsg, sizeof(d->errmsg), "not opened yet");
	return d;
}

void node_device_free(struct node_device *d)
{
	check(!d->dev && !d->retrying && !d->open);
	list_del(&d->link);
	mem_free(d->path);
	mem_free(d->ring_path);
	mem_free(d);
}

/* Rings are named after the device, so that a path that changes its device does not matter. */
int node_device_name_ring(struct node_device *d)
{
	char uuid[UUID_TEXT_LEN];

	if (!d->owner->cfg.runtime_dir || d->ring_path)
		return 0;
	uuid_format(&d->uuid, uuid);
	d->ring_path = mem_printf("%s/%s.ring", d->owner->cfg.runtime_dir, uuid);
	return d->ring_path ? 0 : -ENOMEM;
}

void node_device_on_event(void *arg, struct device *dev, const char *what, const char *text)
{
	struct node_device *d = arg;
	struct devices *ds = d->owner;
	struct device_info info;

	log_warn("device", "path=%s what=%s %s", d->path, what, text);
	ds->cfg.event(ds->cfg.arg, d, what, text);
	if (d->dev != dev || d->state == NODE_DEVICE_FAILED || d->state == NODE_DEVICE_CLOSING)
		return;
	device_info(dev, &info);
	if (!info.failed) {
		if (d->state == NODE_DEVICE_SERVING && info.no_space != d->told_no_space)
			ds->cfg.changed(ds->cfg.arg, d);
		return;
	}
	d->state = NODE_DEVICE_FAILED; /* stays with the store: it fails requests at once */
	snprintf(d->errmsg, sizeof(d->errmsg), "%s", text);
	ds->cfg.changed(ds->cfg.arg, d);
}

/* ---- opening ----------------------------------------------------------------------------------------------------------------- */

void devices_open_all(struct devices *ds, const struct uuid *cluster)
{
	ds->cluster = *cluster;
	list_for_each_safe (l, next, &ds->list) {
		struct node_device *d = list_entry(l, struct node_device, link);

		if (d->state == NODE_DEVICE_ABSENT && !d->retrying)
			node_device_open(d);
	}
}

bool devices_settled(const struct devices *ds)
{
	list_for_each (l, &ds->list) {
		if (list_entry(l, struct node_device, link)->state == NODE_DEVICE_OPENING)
			return false;
	}
	return true;
}

void node_device_open(struct node_device *d)
{
	struct devices *ds = d->owner;

	d->open = mem_zalloc(sizeof(*d->open));
	if (!d->open || node_device_name_ring(d)) {
		mem_free(d->open);
		d->open = NULL;
		snprintf(d->errmsg, sizeof(d->errmsg), "memory is short");
		d->state = NODE_DEVICE_ABSENT;
		retry_set(d);
		if (d->add)
			devices_add_opened(d, -ENOMEM);
		return;
	}
	d->state = NODE_DEVICE_OPENING;
	ds->busy++;
	*d->open = (struct device_open){
	    .ioe = ds->cfg.ioe,
	    .path = d->path,
	    .ring_path = d->ring_path,
	    .cluster = &ds->cluster,
	    .expected = &d->uuid,
	    .on_event = node_device_on_event,
	    .event_arg = d,
	    .done = open_done,
	};
	device_open(d->open);
}

static void open_done(struct device_open *op)
{
	struct node_device *d = op->event_arg;
	struct devices *ds = d->owner;

	check(d->open == op);
	d->open = NULL;
	ds->busy--;
	if (!op->status)
		d->dev = op->dev;
	if (ds->closing || d->remove) {
		if (d->add)
			devices_add_opened(d, -ESHUTDOWN);
		node_device_close(d);
	} else if (op->status) {
		not_opened(d, op);
	} else {
		opened(d, op);
	}
	mem_free(op);
	devices_close_step(ds);
}

static void opened(struct node_device *d, struct device_open *op)
{
	struct devices *ds = d->owner;
	struct device_info info;

	device_info(d->dev, &info);
	check(uuid_equal(&op->found, &d->uuid));
	d->state = info.failed ? NODE_DEVICE_FAILED : NODE_DEVICE_OPEN;
	log_info("device opened", "path=%s device=%u incarnation=%llu lsn=%llu slots=%u open=%u",
		 d->path, info.number, (unsigned long long)info.incarnation,
		 (unsigned long long)info.lsn, info.slots_n, info.slots_open_n);
	if (d->add)
		devices_add_opened(d, 0);
	else
		ds->cfg.changed(ds->cfg.arg, d);
}

static void not_opened(struct node_device *d, struct device_open *op)
{
	struct devices *ds = d->owner;
	const char *why = *op->errmsg ? op->errmsg : err_text(op->status);
	bool is_news = strcmp(d->errmsg, why) != 0;

	snprintf(d->errmsg, sizeof(d->errmsg), "%s", why);
	d->state = NODE_DEVICE_ABSENT;
	d->found = uuid_equal(&op->found, &d->uuid) ? (struct uuid){{0}} : op->found;
	retry_set(d);
	if (d->add)
		devices_add_opened(d, op->status);
	change_places(ds);
	if (d->state != NODE_DEVICE_ABSENT)
		return;
	if (is_news)
		log_warn("a device cannot be opened", "path=%s error=%s: %s", d->path,
			 err_name(op->status), d->errmsg);
	if (is_news || !d->told) /* a hello may have said that it is being opened */
		ds->cfg.changed(ds->cfg.arg, d);
}

/* Who is at the path of another device and not at its own, is looked for there from now on; the other one, at the path that this leaves. Each exchange
 * puts one device where it was seen, so that a ring of several ends. A list that cannot be written is found wrong again at the next start. */
static void change_places(struct devices *ds)
{
	list_for_each (l, &ds->list) {
		struct node_device *d = list_entry(l, struct node_device, link);
		struct node_device *other =
		    d->state != NODE_DEVICE_ABSENT || d->remove || uuid_is_zero(&d->found)
			? NULL
			: devices_by_uuid(ds, &d->found);
		char text[ERRMSG_LEN], *path = d->path;
		int r;

		if (!other || other == d || other->state != NODE_DEVICE_ABSENT || other->remove)
			continue;
		d->path = other->path;
		other->path = path;
		r = devices_list_save(ds);
		log_info("a device is at another path than it was", "was=%s path=%s saved=%s",
			 d->path, other->path, r ? err_name(r) : "yes");
		snprintf(text, sizeof(text), "the device was at %.200s before", d->path);
		ds->cfg.event(ds->cfg.arg, other, "device_moved", text);
		node_device_open_again(other);
		node_device_open_again(d);
	}
}

void node_device_open_again(struct node_device *d)
{
	check(d->state == NODE_DEVICE_ABSENT);
	d->found = (struct uuid){{0}};
	if (d->retrying) {
		d->state = NODE_DEVICE_OPENING; /* when the timer has ended */
		ioe_cancel(d->owner->cfg.ioe, &d->retry);
	} else {
		node_device_open(d);
	}
}

static void retry_set(struct node_device *d)
{
	d->retrying = true;
	d->owner->busy++;
	ioe_timer(d->owner->cfg.ioe, &d->retry, ioe_now_ns(d->owner->cfg.ioe) + RETRY_NS,
		  retry_done);
}

static void retry_done(struct ioe_req *r)
{
	struct node_device *d = container_of(r, struct node_device, retry);
	struct devices *ds = d->owner;

	d->retrying = false;
	ds->busy--;
	if (ds->closing || d->remove) {
		if (d->add)
			devices_add_opened(d, -ESHUTDOWN);
		node_device_close(d);
	} else {
		node_device_open(d);
	}
	devices_close_step(ds);
}

/* ---- looking --------------------------------------------------------------------------------------------------------------- */

struct node_device *devices_by_uuid(struct devices *ds, const struct uuid *uuid)
{
	list_for_each (l, &ds->list) {
		struct node_device *d = list_entry(l, struct node_device, link);

		if (uuid_equal(&d->uuid, uuid))
			return d;
	}
	return NULL;
}

struct node_device *devices_by_no(struct devices *ds, device_no no)
{
	list_for_each (l, &ds->list) {
		struct node_device *d = list_entry(l, struct node_device, link);
		struct device_info info;

		if (!d->dev || d->state == NODE_DEVICE_CLOSING)
			continue;
		device_info(d->dev, &info);
		if (info.number == no)
			return d;
	}
	return NULL;
}

void devices_withdraw(struct node_device *d)
{
	if (d->state != NODE_DEVICE_SERVING && !(d->state == NODE_DEVICE_FAILED && d->no))
		return;
	node_store_withdraw(d->owner->cfg.store, d->no);
	d->no = 0;
	if (d->state == NODE_DEVICE_SERVING)
		d->state = NODE_DEVICE_OPEN;
}

/* ---- ending ------------------------------------------------------------------------------------------------------------------ */

void node_device_close(struct node_device *d)
{
	struct devices *ds = d->owner;

	if (!d->dev) {
		node_device_closed(d);
		return;
	}
	devices_withdraw(d);
	if (d->state != NODE_DEVICE_FAILED || ds->closing || d->remove)
		d->state = NODE_DEVICE_CLOSING;
	ds->busy++;
	device_close(d->dev, close_done, d);
	d->dev = NULL;
}

static void close_done(void *arg, int status)
{
	struct node_device *d = arg;
	struct devices *ds = d->owner;

	if (status)
		log_warn("a device was not closed cleanly", "path=%s error=%s", d->path,
			 err_name(status));
	ds->busy--;
	if (d->remove || ds->closing)
		node_device_closed(d);
	devices_close_step(ds);
}

void devices_close(struct devices *ds, void (*done)(void *arg), void *arg)
{
	check(!ds->closing);
	ds->closing = true;
	ds->closed = done;
	ds->closed_arg = arg;
	ds->busy++;
	list_for_each_safe (l, next, &ds->list) {
		struct node_device *d = list_entry(l, struct node_device, link);

		if (d->retrying)
			ioe_cancel(ds->cfg.ioe, &d->retry);
		else if (d->dev && d->state != NODE_DEVICE_CLOSING)
			node_device_close(d);
	}
	ds->busy--;
	if (!ds->busy) { /* not inline */
		ds->busy++;
		ioe_nop(ds->cfg.ioe, &ds->nop, devices_nop_done);
	}
}

void devices_nop_done(struct ioe_req *r)
{
	struct devices *ds = container_of(r, struct devices, nop);

	ds->busy--;
	devices_close_step(ds);
}

void devices_close_step(struct devices *ds)
{
	void (*closed)(void *arg) = ds->closed;

	if (!ds->closing || ds->busy || !closed)
		return;
	ds->closed = NULL;
	closed(ds->closed_arg);
}

void devices_free(struct devices *ds)
{
	list_for_each_safe (l, next, &ds->list)
		node_device_free(list_entry(l, struct node_device, link));
}
