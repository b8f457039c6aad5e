/* SPDX-License-Identifier: Apache-2.0 */
/* registry.c - the registry in memory: reading it at the start, looking things up, writing records. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "metadata/cluster/codec.h"
#include "metadata/rpc/session.h"
#include "src/base/log.h"
#include "src/base/mem.h"

#define RETURN_NS 10000000000ULL
enum { SCAN_ITEMS = 128, SCAN_BYTES = 1 << 20 };

struct registry_read {
	struct cluster_open *op;
	const char *prefix; /* of the records being read, one after the other: "P", "N", "D" */
	struct metastore_scan scan;
	struct metastore_item items[SCAN_ITEMS];
	uint8_t *buf;
	uint8_t after[CODEC_KEY_MAX];
	struct san_records records;
	struct metastore_change change;
	struct codec_record record;
	struct cluster_pool *pool;
};

static void read_next(struct registry_read *rd);
static void read_done(struct metastore_scan *scan);
static int take(struct cluster *c, const struct metastore_item *item);
static void make_default_pool(struct registry_read *rd);
static void default_pool_done(struct san_req *req);
static void finish(struct registry_read *rd, int status);

/* ---- reading it ------------------------------------------------------------------------------------------------------------------------ */

void cluster_open(struct cluster_open *op)
{
	struct cluster *c = op->c;
	struct registry_read *rd = mem_zalloc(sizeof(*rd));

	c->ioe = op->ioe;
	c->san = op->san;
	c->store = op->store;
	c->state = CLUSTER_STARTING;
	c->started_ns = ioe_now_ns(c->ioe);
	c->start_commit = metastore_last_commit(c->store);
	list_init(&c->nodes);
	list_init(&c->devices);
	list_init(&c->pools);
	list_init(&c->sessions);
	list_init(&c->joins);
	list_init(&c->admits);
	list_init(&c->removes);
	list_init(&c->adds);
	op->errmsg[0] = '\0';
	if (rd)
		rd->buf = mem_alloc(SCAN_BYTES);
	if (!rd || !rd->buf) { /* the only inline end: the caller has nothing under way yet */
		mem_free(rd);
		op->status = -ENOMEM;
		snprintf(op->errmsg, sizeof(op->errmsg), "memory is short");
		op->done(op);
		return;
	}
	rd->op = op;
	rd->prefix = "P";
	read_next(rd);
}

static void read_next(struct registry_read *rd)
{
	rd->scan.prefix = (struct metastore_bytes){rd->prefix, 1};
	rd->scan.buf = rd->buf;
	rd->scan.buf_max = SCAN_BYTES;
	rd->scan.items = rd->items;
	rd->scan.items_max = SCAN_ITEMS;
	rd->scan.done = read_done;
	metastore_scan(rd->op->store, &rd->scan);
}

static void read_done(struct metastore_scan *scan)
{
	struct registry_read *rd = container_of(scan, struct registry_read, scan);
	struct cluster_open *op = rd->op;
	int r = scan->status;

	for (uint32_t i = 0; i < scan->items_n && !r; i++) {
		r = take(op->c, &scan->items[i]);
		if (r)
			snprintf(op->errmsg, sizeof(op->errmsg),
				 "record %u of the registry's '%s' cannot be read: %s", i,
				 rd->prefix, err_text(r));
	}
	if (r) {
		finish(rd, r);
		return;
	}
	if (scan->more) {
		const struct metastore_bytes *last = &scan->items[scan->items_n - 1].key;

		check(last->len <= sizeof(rd->after));
		memcpy(rd->after, last->data, last->len);
		scan->after = (struct metastore_bytes){rd->after, last->len};
		read_next(rd);
		return;
	}
	scan->after = (struct metastore_bytes){NULL, 0};
	rd->prefix = *rd->prefix == 'P' ? "N" : *rd->prefix == 'N' ? "D" : NULL;
	if (rd->prefix)
		read_next(rd);
	else if (list_empty(&op->c->pools))
		make_default_pool(rd);
	else
		finish(rd, 0);
}

static int take_node(struct cluster *c, const struct metastore_item *item)
{
	struct cluster_node *n = mem_zalloc(sizeof(*n));
	int r = n ? codec_get_node(item, n) : -ENOMEM;

	if (r) {
		mem_free(n);
		return r;
	}
	list_push(&c->nodes, &n->link);
	c->nodes_n++;
	n->since_wall_ns = ioe_wall_ns(c->ioe);
	n->away_ns = c->started_ns;
	return 0;
}

static int take_device(struct cluster *c, const struct metastore_item *item)
{
	struct cluster_device *d = mem_zalloc(sizeof(*d));
	int r = d ? codec_get_device(item, d) : -ENOMEM;

	if (!r && d->member == CLUSTER_MEMBER && !cluster_pool_by_no(c, d->pool))
		r = -E_FORMAT; /* that of one that left may have left, too */
	if (r) {
		if (d)
			mem_free(d->path);
		mem_free(d);
		return r;
	}
	snprintf(d->reason, sizeof(d->reason), "its node has not connected yet");
	list_push(&c->devices, &d->link);
	c->devices_n++;
	return 0;
}

static int take_pool(struct cluster *c, const struct metastore_item *item)
{
	struct cluster_pool *p = mem_zalloc(sizeof(*p));
	int r = p ? codec_get_pool(item, p) : -ENOMEM;

	if (r) {
		mem_free(p);
		return r;
	}
	list_push(&c->pools, &p->link);
	return 0;
}

static int take(struct cluster *c, const struct metastore_item *item)
{
	switch (*(const char *)item->key.data) {
	case 'N':
		return take_node(c, item);
	case 'D':
		return take_device(c, item);
	default:
		return take_pool(c, item);
	}
}

static void make_default_pool(struct registry_read *rd)
{
	struct cluster_pool *p = mem_zalloc(sizeof(*p));

	if (!p) {
		finish(rd, -ENOMEM);
		return;
	}
	p->no = san_number_take(rd->op->san, SAN_NUMBER_POOL);
	p->media = CLUSTER_FLASH;
	p->chunk_shift = cluster_media_chunk_shift(CLUSTER_FLASH);
	snprintf(p->name, sizeof(p->name), CLUSTER_POOL_DEFAULT);
	rd->pool = p;
	codec_put_pool(p, &rd->record);
	rd->change = codec_change(&rd->record);
	rd->records.changes = &rd->change;
	rd->records.changes_n = 1;
	rd->records.req.done = default_pool_done;
	san_records(rd->op->san, &rd->records);
}

static void default_pool_done(struct san_req *req)
{
	struct registry_read *rd = container_of(req, struct registry_read, records.req);

	if (req->status)
		mem_free(rd->pool);
	else
		list_push(&rd->op->c->pools, &rd->pool->link);
	finish(rd, req->status);
}

static void finish(struct registry_read *rd, int status)
{
	struct cluster_open *op = rd->op;

	mem_free(rd->buf);
	mem_free(rd);
	op->status = status;
	if (status && !*op->errmsg)
		snprintf(op->errmsg, sizeof(op->errmsg), "the registry cannot be read: %s",
			 err_text(status));
	op->done(op);
}

/* ---- ending ------------------------------------------------------------------------------------------------------------------------------ */

void cluster_op_begin(struct cluster *c)
{
	c->ops++;
}

void cluster_op_end(struct cluster *c)
{
	void (*stopped)(void *arg) = c->stopped;

	check(c->ops > 0);
	if (--c->ops || !stopped)
		return;
	c->stopped = NULL;
	stopped(c->stopped_arg);
}

struct stop_nop {
	struct ioe_req req;
	struct cluster *c;
};

static void stop_nop_done(struct ioe_req *req)
{
	struct stop_nop *n = container_of(req, struct stop_nop, req);
	struct cluster *c = n->c;

	mem_free(n);
	cluster_op_end(c);
}

void cluster_stop(struct cluster *c, void (*done)(void *arg), void *arg)
{
	struct stop_nop *n = mem_zalloc(sizeof(*n));

	c->state = CLUSTER_STOPPING;
	c->stopped = done;
	c->stopped_arg = arg;
	cluster_op_begin(c);
	if (!n) { /* inline rather than never */
		cluster_op_end(c);
		return;
	}
	n->c = c;
	ioe_nop(c->ioe, &n->req, stop_nop_done);
}

void cluster_free(struct cluster *c)
{
	struct list *l;

	while ((l = list_pop(&c->nodes)))
		mem_free(list_entry(l, struct cluster_node, link));
	while ((l = list_pop(&c->pools)))
		mem_free(list_entry(l, struct cluster_pool, link));
	while ((l = list_pop(&c->devices))) {
		struct cluster_device *d = list_entry(l, struct cluster_device, link);

		mem_free(d->path);
		mem_free(d);
	}
}

void cluster_refuse(struct cluster *c, const char *fmt, ...)
{
	va_list ap;

	if (c->state == CLUSTER_REFUSING || c->state == CLUSTER_STOPPING)
		return;
	c->state = CLUSTER_REFUSING;
	va_start(ap, fmt);
	vsnprintf(c->refusal, sizeof(c->refusal), fmt, ap);
	va_end(ap);
	log_error("nothing is served", "%s", c->refusal);
	list_for_each (l, &c->sessions)
		session_break(list_entry(l, struct session, link), -E_WENT_BACK);
}

/* ---- looking ------------------------------------------------------------------------------------------------------------------------------ */

#define FIND(what, member, condition)                              \
	list_for_each (l, &c->member) {                            \
		struct what *x = list_entry(l, struct what, link); \
		if (condition)                                     \
			return x;                                  \
	}                                                          \
	return NULL;

struct cluster_node *cluster_node_by_no(struct cluster *c, node_no no)
{
	FIND(cluster_node, nodes, x->no == no)
}

struct cluster_node *cluster_node_by_uuid(struct cluster *c, const struct uuid *uuid)
{
	FIND(cluster_node, nodes, uuid_equal(&x->uuid, uuid))
}

struct cluster_node *cluster_node_by_name(struct cluster *c, const char *name)
{
	FIND(cluster_node, nodes, !strcmp(x->name, name))
}

struct cluster_device *cluster_device_by_no(struct cluster *c, device_no no)
{
	FIND(cluster_device, devices, x->no == no)
}

struct cluster_device *cluster_device_by_uuid(struct cluster *c, const struct uuid *uuid)
{
	FIND(cluster_device, devices, uuid_equal(&x->uuid, uuid))
}

struct cluster_pool *cluster_pool_by_no(struct cluster *c, uint32_t no)
{
	FIND(cluster_pool, pools, x->no == no)
}

struct cluster_pool *cluster_pool_by_name(struct cluster *c, const char *name)
{
	FIND(cluster_pool, pools, x->state == CLUSTER_POOL_READY && !strcmp(x->name, name))
}

struct session *cluster_device_session(struct cluster *c, const struct cluster_device *d)
{
	struct cluster_node *n = cluster_node_by_no(c, d->node);

	return n ? n->session : NULL;
}

uint32_t cluster_node_devices_n(struct cluster *c, const struct cluster_node *node)
{
	uint32_t n = 0;

	list_for_each (l, &c->devices) {
		struct cluster_device *d = list_entry(l, struct cluster_device, link);

		n += d->node == node->no && d->member == CLUSTER_MEMBER;
	}
	return n;
}

bool cluster_space_may_come(struct cluster *c, uint32_t pool)
{
	bool is_young = ioe_now_ns(c->ioe) - c->started_ns < RETURN_NS;

	if (c->state != CLUSTER_SERVING)
		return false;
	list_for_each (l, &c->devices) {
		struct cluster_device *d = list_entry(l, struct cluster_device, link);

		if (d->member == CLUSTER_MEMBER && d->pool == pool &&
		    (d->presence == CLUSTER_ATTACHING ||
		     (d->presence == CLUSTER_AWAY && (is_young || d->opening))))
			return true;
	}
	return false;
}

const char *cluster_presence_name(const struct cluster_device *d)
{
	static const char *const names[] = {[CLUSTER_AWAY] = "away",
					    [CLUSTER_ATTACHING] = "away",
					    [CLUSTER_OK] = "ok",
					    [CLUSTER_FAILED] = "failed",
					    [CLUSTER_REFUSED] = "refused"};

	if (d->member == CLUSTER_REMOVED)
		return "removed";
	return d->member == CLUSTER_LOST ? "lost" : names[d->presence];
}

void cluster_nbd_uri(const char *addr, const char *volume, char ret_uri[CLUSTER_URI_LEN])
{
	static const char plain[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
	size_t n;

	if (strncmp(addr, "unix:", 5)) {
		snprintf(ret_uri, CLUSTER_URI_LEN, "nbd://%s/%s", addr, volume);
		return;
	}
	n = (size_t)snprintf(ret_uri, CLUSTER_URI_LEN, "nbd+unix:///%s?socket=", volume);
	for (const char *p = addr + 5; *p && n + 4 < CLUSTER_URI_LEN; p++)
		n += (size_t)snprintf(ret_uri + n, CLUSTER_URI_LEN - n,
				      strchr(plain, *p) ? "%c" : "%%%02X", (unsigned char)*p);
}

/* ---- writing ------------------------------------------------------------------------------------------------------------------------------ */

struct save {
	struct cluster *c;
	struct san_records records;
	struct metastore_change change;
	struct codec_record record;
};

static void save_done(struct san_req *req)
{
	struct save *s = container_of(req, struct save, records.req);
	struct cluster *c = s->c;

	if (req->status)
		log_warn("a record of the registry was not written", "error=%s",
			 err_name(req->status));
	mem_free(s);
	cluster_op_end(c);
}

static struct save *save_new(struct cluster *c)
{
	struct save *s = c->state == CLUSTER_STOPPING ? NULL : mem_zalloc(sizeof(*s));

	if (!s) { /* what it would have said is said again with the next change */
		log_limited(LOG_WARN, ioe_now_ns(c->ioe),
			    "a record of the registry was not written");
		return NULL;
	}
	s->c = c;
	return s;
}

static void save_submit(struct save *s)
{
	s->change = codec_change(&s->record);
	s->records.changes = &s->change;
	s->records.changes_n = 1;
	s->records.req.done = save_done;
	cluster_op_begin(s->c);
	san_records(s->c->san, &s->records);
}

void cluster_node_save(struct cluster *c, const struct cluster_node *n)
{
	struct save *s = save_new(c);

	if (!s)
		return;
	codec_put_node(n, &s->record);
	save_submit(s);
}

void cluster_device_save(struct cluster *c, struct cluster_device *d)
{
	struct save *s;

	d->save_due = d->leaving;
	s = d->leaving ? NULL : save_new(c);
	if (!s)
		return;
	codec_put_device(d, &s->record);
	save_submit(s);
}
