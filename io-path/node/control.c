/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/node/control_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "io-path/node/meta_client.h"
#include "src/base/log.h"
#include "src/base/mem.h"

#define OPEN_WAIT_NS 1000000000ULL
#define REPORT_NS    30000000000ULL
enum { HAPPENINGS_MAX = 256, FS_MOVED_MIN = 64 << 20 };

/* something for the event log, until the server has it */
struct happening {
	struct list link;
	struct control *c; /* sent, and not yet answered; NULL: waiting */
	struct conn_call call;
	char severity[16], code[64], text[ERRMSG_LEN];
	device_no dev;
};

/* a report of one device, answered by a verdict */
struct report {
	struct control *c;
	struct conn_call call;
	struct uuid uuid;
};

/* identity */
static int identity_load(struct control *c, char errmsg[ERRMSG_LEN]);
static int identity_store(struct control *c);
/* from opening to joined */
static void timer_set(struct control *c, uint64_t ns);
static void timer_done(struct ioe_req *r);
static void dial(struct control *c);
static void on_up(struct dialer *d);
static void hello_send(struct control *c);
static int hello_answered(struct conn_call *call, int status, const struct frame *f,
			  const void *body, void **ret_data);
static void welcome(struct control *c, const Strata__Welcome *w);
static void refused(struct control *c, int status, const char *errmsg);
static void verdict(struct control *c, const Strata__DeviceVerdict *v);
static void let_go(struct control *c, const struct uuid *uuid);
static void let_go_done(struct devices_remove *remove);
static void on_down(struct dialer *d, int status);
/* while joined */
static int on_request(struct dialer *d, const struct frame *f, const void *body, void **ret_data);
static void report_all(struct control *c);
static void report(struct control *c, struct node_device *d);
static int report_answered(struct conn_call *call, int status, const struct frame *f,
			   const void *body, void **ret_data);
static void happenings_send(struct control *c);
static int happening_answered(struct conn_call *call, int status, const struct frame *f,
			      const void *body, void **ret_data);
/* ending */
static void dialer_closed(void *arg);

static const struct dialer_ops dialer_ops = {.up = on_up, .request = on_request, .down = on_down};

#define for_each_device(d, c)                                                                \
	for (struct list *l_##d = (c)->cfg.devices->list.next, *n_##d = l_##d->next;         \
	     l_##d != &(c)->cfg.devices->list; l_##d = n_##d, n_##d = l_##d->next)           \
		for (struct node_device *d = list_entry(l_##d, struct node_device, link); d; \
		     d = NULL)

int control_open(struct control *c, const struct control_config *cfg, char errmsg[ERRMSG_LEN])
{
	int r;

	*c = (struct control){.cfg = *cfg, .process = cfg->process};
	if (uuid_is_zero(&c->process))
		c->process = ioe_uuid(cfg->ioe);
	list_init(&c->pushes);
	list_init(&c->happenings);
	if (!c->cfg.report_ns)
		c->cfg.report_ns = REPORT_NS;
	r = identity_load(c, errmsg);
	if (r)
		return r;
	if (!uuid_is_zero(&c->cluster))
		devices_open_all(cfg->devices, &c->cluster);
	if (devices_settled(cfg->devices)) {
		dial(c);
		if (!c->dialing) {
			snprintf(errmsg, ERRMSG_LEN,
				 "the addresses of the metadata server are not usable");
			return -EINVAL;
		}
	} else {
		timer_set(c, OPEN_WAIT_NS);
	}
	return 0;
}

/* ---- identity ---------------------------------------------------------------------------------------------------------------- */

/* "node UUID\n", then "cluster UUID\n" once there is one */
static int identity_load(struct control *c, char errmsg[ERRMSG_LEN])
{
	char *path = mem_printf("%s/identity", c->cfg.dir), *text = NULL;
	size_t len;
	int r = path ? ioe_file_load(c->cfg.ioe, path, &text, &len) : -ENOMEM;

	if (r == -ENOENT) {
		c->node = ioe_uuid(c->cfg.ioe);
		r = identity_store(c);
	} else if (!r) {
		for (char *next = text, *at; !r && (at = strsep(&next, "\n"));) {
			if (!strncmp(at, "node ", 5))
				r = uuid_parse(at + 5, &c->node);
			else if (!strncmp(at, "cluster ", 8))
				r = uuid_parse(at + 8, &c->cluster);
			else if (*at)
				r = -EINVAL;
		}
		if (uuid_is_zero(&c->node))
			r = -EINVAL;
	}
	mem_free(text);
	mem_free(path);
	if (r == -EINVAL)
		snprintf(errmsg, ERRMSG_LEN, "%.200s/identity is damaged", c->cfg.dir);
	else if (r)
		snprintf(errmsg, ERRMSG_LEN, "cannot read or write %.180s/identity: %s", c->cfg.dir,
			 err_text(r));
	return r;
}

static int identity_store(struct control *c)
{
	char node[UUID_TEXT_LEN], cluster[UUID_TEXT_LEN], text[128], *path;
	int r;

	uuid_format(&c->node, node);
	uuid_format(&c->cluster, cluster);
	if (uuid_is_zero(&c->cluster))
		snprintf(text, sizeof(text), "node %s\n", node);
	else
		snprintf(text, sizeof(text), "node %s\ncluster %s\n", node, cluster);
	path = mem_printf("%s/identity", c->cfg.dir);
	r = path ? ioe_file_store(c->cfg.ioe, path, text, strlen(text), 0600) : -ENOMEM;
	mem_free(path);
	return r;
}

/* ---- joining ----------------------------------------------------------------------------------------------------------------- */

static void timer_set(struct control *c, uint64_t ns)
{
	c->timing = true;
	ioe_timer(c->cfg.ioe, &c->timer, ioe_now_ns(c->cfg.ioe) + ns, timer_done);
}

static void timer_done(struct ioe_req *r)
{
	struct control *c = container_of(r, struct control, timer);

	c->timing = false;
	if (c->closing) {
		control_close_step(c);
		return;
	}
	if (c->state == CONTROL_OPENING) {
		dial(c);
		return;
	}
	if (control_is_joined(c))
		report_all(c);
	timer_set(c, c->cfg.report_ns);
}

static void dial(struct control *c)
{
	struct dialer_config cfg = {
	    .ioe = c->cfg.ioe,
	    .ops = &dialer_ops,
	    .addrs = c->cfg.metad,
	    .addrs_n = c->cfg.metad_n,
	    .key = c->cfg.key,
	    .keepalive_ns = c->cfg.keepalive_ns,
	    .body_max = FRAME_BODY_MAX,
	};
	int r = dialer_open(&c->dialer, &cfg);

	if (r)
		return;
	c->dialing = true;
	c->state = CONTROL_DIALING;
	if (!c->timing)
		timer_set(c, c->cfg.report_ns);
}

static void on_up(struct dialer *d)
{
	struct control *c = container_of(d, struct control, dialer);

	c->session++;
	c->state = CONTROL_GREETING;
	for_each_device(dev, c)
	{
		dev->attached = dev->told_failed = dev->admitted = false;
		dev->told = false;
	}
	hello_send(c);
}

void control_describe_device(const struct node_device *d, Strata__DeviceInfo *ret_info,
			     struct device_info *room)
{
	struct ioe_file_space space;

	strata__device_info__init(ret_info);
	ret_info->uuid = control_uuid(&d->uuid);
	ret_info->path = d->path;
	ret_info->failed = d->state == NODE_DEVICE_FAILED || d->state == NODE_DEVICE_ABSENT;
	ret_info->errmsg = (char *)(uintptr_t)(ret_info->failed ? d->errmsg : "");
	if (!d->dev)
		return;
	device_info(d->dev, room);
	ret_info->number = room->number;
	ret_info->incarnation = room->incarnation;
	ret_info->lsn = room->lsn;
	ret_info->stable_lsn = room->stable_lsn;
	ret_info->commit = room->commit;
	ret_info->cgen_highest = room->cgen_highest;
	ret_info->chunk_shift = room->chunk_shift;
	ret_info->slots = room->slots_n;
	ret_info->slots_open = room->slots_open_n;
	ret_info->capacity_bytes = room->capacity_bytes;
	ret_info->power_loss = room->replayed_power_loss;
	ret_info->serving = d->state == NODE_DEVICE_SERVING;
	ret_info->no_space = room->no_space;
	if (device_space(d->dev, &space))
		return;
	ret_info->fs = space.fs_id;
	ret_info->fs_free_bytes = space.free_bytes;
	ret_info->fs_owed_bytes = space.owed_bytes;
}

void control_device_told(struct node_device *d, const Strata__DeviceInfo *info)
{
	d->told = true;
	d->told_failed = info->failed;
	d->told_lsn = info->stable_lsn;
	d->told_no_space = info->no_space;
	d->told_fs_free_bytes = info->fs_free_bytes;
}

static void hello_send(struct control *c)
{
	uint32_t n = c->cfg.devices->n;
	Strata__Hello m = STRATA__HELLO__INIT;
	Strata__DeviceInfo *infos = mem_zalloc_array(n, sizeof(*infos));
	Strata__DeviceInfo **list = mem_zalloc_array(n, sizeof(*list));
	struct device_info *rooms = mem_zalloc_array(n, sizeof(*rooms));
	ProtobufCBinaryData *opening = mem_zalloc_array(n, sizeof(*opening));

	if (!infos || !list || !rooms || !opening) {
		conn_break(&c->dialer.conn, -ENOMEM);
		goto out;
	}
	for_each_device(d, c)
	{
		if (m.n_devices + m.n_opening >= n || d->state == NODE_DEVICE_CLOSING)
			continue;
		if (d->state == NODE_DEVICE_OPENING) {
			opening[m.n_opening++] = control_uuid(&d->uuid);
			continue;
		}
		list[m.n_devices] = &infos[m.n_devices];
		control_describe_device(d, &infos[m.n_devices], &rooms[m.n_devices]);
		control_device_told(d, &infos[m.n_devices]);
		m.n_devices++;
	}
	m.version = STRATA_VERSION;
	m.node = control_uuid(&c->node);
	m.name = (char *)(uintptr_t)c->cfg.name;
	m.process = control_uuid(&c->process);
	if (!uuid_is_zero(&c->cluster))
		m.cluster = control_uuid(&c->cluster);
	m.nbd = (char **)(uintptr_t)c->cfg.nbd;
	m.n_nbd = c->cfg.nbd_n;
	m.peer = (char **)(uintptr_t)c->cfg.peer;
	m.n_peer = c->cfg.peer_n;
	m.devices = list;
	m.opening = opening;
	control_send(&c->dialer.conn, CONTROL_HELLO, 0,
		     conn_call_begin(&c->dialer.conn, &c->hello, hello_answered), &m.base);
out:
	mem_free(infos);
	mem_free(list);
	mem_free(rooms);
	mem_free(opening);
}

static int hello_answered(struct conn_call *call, int status, const struct frame *f,
			  const void *body, void **ret_data)
{
	struct control *c = container_of(call, struct control, hello);
	ProtobufCMessage *msg;
	Strata__Welcome *w;
	int r;

	(void)ret_data;
	if (status)
		return 0; /* on_down follows */
	r = f->type == CONTROL_HELLO ? control_unpack(f->type, true, body, f->body_bytes, &msg)
				     : -E_PROTOCOL;
	if (r)
		return r;
	w = (Strata__Welcome *)msg;
	if (*w->error)
		refused(c, err_by_name(w->error), w->errmsg);
	else
		welcome(c, w);
	control_free(msg);
	return 0;
}

/* The server closes the connection after a refusal; we ask again after the back-off, which is not reset. */
static void refused(struct control *c, int status, const char *errmsg)
{
	bool news = strcmp(c->refusal, errmsg);

	if (news)
		log_error("the metadata server refuses this node", "error=%s: %s", err_name(status),
			  errmsg);
	snprintf(c->refusal, sizeof(c->refusal), "%.255s", errmsg);
	if (news && c->cfg.refused)
		c->cfg.refused(c->cfg.arg, c->refusal);
	conn_break(&c->dialer.conn, status);
}

static void welcome(struct control *c, const Strata__Welcome *w)
{
	struct uuid cluster = control_get_uuid(w->cluster);
	int r;

	if (!uuid_is_zero(&c->cluster) && !uuid_equal(&c->cluster, &cluster)) {
		refused(c, -EPERM, "the metadata server is that of another cluster");
		return;
	}
	if (uuid_is_zero(&c->cluster)) {
		c->cluster = cluster;
		r = identity_store(c);
		if (r) {
			c->cluster = (struct uuid){{0}};
			log_error("cannot write the identity file", "dir=%s error=%s", c->cfg.dir,
				  err_name(r));
			conn_break(&c->dialer.conn, r);
			return;
		}
		devices_open_all(c->cfg.devices, &c->cluster);
	}
	if (c->number != w->node)
		log_info("joined the cluster", "node=%u name=%s", w->node, c->cfg.name);
	c->number = w->node;
	c->refusal[0] = '\0';
	c->state = CONTROL_JOINED;
	dialer_settled(&c->dialer);
	c->cfg.config(c->cfg.arg, w->config);
	for (size_t i = 0; i < w->n_devices; i++)
		verdict(c, w->devices[i]);
	for_each_device(d, c)
	{
		bool failed = d->state == NODE_DEVICE_FAILED || d->state == NODE_DEVICE_ABSENT;

		if (d->state != NODE_DEVICE_OPENING && d->state != NODE_DEVICE_CLOSING &&
		    (!d->told || failed != d->told_failed)) /* news since the hello was sent */
			report(c, d);
	}
	happenings_send(c);
	if (c->cfg.client)
		meta_client_joined(c->cfg.client);
	control_check_ready(c);
}

/* Good news need no action: Serve follows once the device is up to date. */
static void verdict(struct control *c, const Strata__DeviceVerdict *v)
{
	struct uuid uuid = control_get_uuid(v->uuid);
	struct node_device *d = devices_by_uuid(c->cfg.devices, &uuid);

	if (!d)
		return;
	d->refused = *v->error != '\0';
	d->admitted = !d->refused;
	if (!d->refused)
		return;
	d->attached = false;
	log_error("the metadata server refuses a device", "path=%s error=%s: %s", d->path, v->error,
		  v->errmsg);
	snprintf(d->errmsg, sizeof(d->errmsg), "%.255s", v->errmsg);
	devices_withdraw(d);
	if (v->number)
		node_store_refuse(c->cfg.devices->cfg.store, (device_no)v->number);
	if (err_by_name(v->error) == -E_LOST)
		let_go(c, &uuid);
}

/* It was taken out of the cluster while we were away. */
struct let_go {
	struct devices_remove remove;
	struct control *c;
};

static void let_go(struct control *c, const struct uuid *uuid)
{
	struct let_go *op = mem_zalloc(sizeof(*op));

	if (!op) /* the next hello hears the same */
		return;
	op->c = c;
	op->remove.uuid = *uuid;
	op->remove.done = let_go_done;
	devices_remove(c->cfg.devices, &op->remove);
}

static void let_go_done(struct devices_remove *remove)
{
	struct let_go *op = container_of(remove, struct let_go, remove);
	struct control *c = op->c;

	mem_free(op); /* it is gone, or about to be, or all ends */
	control_check_ready(c);
}

void control_check_ready(struct control *c)
{
	if (c->ready || c->state != CONTROL_JOINED)
		return;
	for_each_device(d, c)
	{
		if (d->state == NODE_DEVICE_OPENING || (d->state == NODE_DEVICE_OPEN && !d->refused))
			return;
	}
	c->ready = true;
	c->cfg.ready(c->cfg.arg);
}

static void on_down(struct dialer *d, int status)
{
	struct control *c = container_of(d, struct control, dialer);

	if (c->state == CONTROL_JOINED)
		log_warn("the metadata server is away", "error=%s", err_name(status));
	c->state = CONTROL_DIALING;
	for_each_device(dev, c) dev->attached = false;
}

/* ---- requests of the server ---------------------------------------------------------------------------------------------------- */

static int on_request(struct dialer *d, const struct frame *f, const void *body, void **ret_data)
{
	static void (*const handlers[])(struct control * c, struct push * p) = {
	    [CONTROL_RECORDS] = push_records,
	    [CONTROL_LAYER_QUERY] = push_layer_query,
	    [CONTROL_SERVE] = push_serve,
	    [CONTROL_FREE] = push_free_slots,
	    [CONTROL_CONFIG] = push_config,
	    [CONTROL_VOLUME_CHANGED] = push_volume_changed,
	    [CONTROL_DEVICE_ADD] = push_device_add,
	    [CONTROL_DEVICE_REMOVE] = push_device_remove,
	    [CONTROL_SLOT_QUERY] = push_slot_query,
	    [CONTROL_STATS] = push_stats,
	    [CONTROL_VOLUME_BENCH] = push_volume_bench,
	    [CONTROL_CLIENTS] = push_clients,
	};
	struct control *c = container_of(d, struct control, dialer);
	struct push *p;
	int r;

	(void)ret_data;
	if (f->type >= ARRAY_LEN(handlers) || !handlers[f->type] || c->state != CONTROL_JOINED)
		return -E_PROTOCOL;
	p = mem_zalloc(sizeof(*p));
	if (!p)
		return -ENOMEM;
	*p = (struct push){.c = c, .session = c->session, .id = f->id, .type = f->type};
	r = control_unpack(f->type, false, body, f->body_bytes, &p->msg);
	if (r) {
		mem_free(p);
		return r;
	}
	list_push(&c->pushes, &p->link);
	handlers[f->type](c, p);
	return 0;
}

void *push_grow(struct push *p, size_t bytes)
{
	struct list *prev = p->link.prev;
	struct push *bigger;

	check(bytes >= sizeof(*p));
	list_del(&p->link);
	bigger = mem_realloc(p, bytes, 1);
	if (!bigger) {
		list_push_front(prev, &p->link);
		push_result(p, -ENOMEM, "memory is short");
		return NULL;
	}
	memset(bigger + 1, 0, bytes - sizeof(*p));
	list_push_front(prev, &bigger->link);
	return bigger;
}

void push_reply(struct push *p, const ProtobufCMessage *reply)
{
	struct control *c = p->c;

	if (control_is_joined(c) && c->session == p->session)
		control_send(&c->dialer.conn, p->type, FRAME_F_REPLY, p->id, reply);
	list_del(&p->link);
	control_free(p->msg);
	mem_free(p);
	control_close_step(c);
}

void push_result(struct push *p, int status, const char *errmsg)
{
	Strata__Result m = STRATA__RESULT__INIT;

	m.error = (char *)(uintptr_t)control_error(status);
	m.errmsg = (char *)(uintptr_t)(status ? errmsg : "");
	push_reply(p, &m.base);
}

/* ---- reports ------------------------------------------------------------------------------------------------------------------- */

/* Somebody else fills, or empties, the filesystem under it: a sixteenth is worth a word. */
static bool fs_has_moved(const struct node_device *d)
{
	struct ioe_file_space space;
	uint64_t was = d->told_fs_free_bytes, moved;

	if (device_space(d->dev, &space))
		return false;
	moved = space.free_bytes > was ? space.free_bytes - was : was - space.free_bytes;
	return moved > was / 16 && moved > FS_MOVED_MIN;
}

/* Only what moved: an idle node reports nothing. */
static void report_all(struct control *c)
{
	for_each_device(d, c)
	{
		struct device_info info;

		if (!d->attached || !d->dev)
			continue;
		device_info(d->dev, &info);
		if (info.stable_lsn != d->told_lsn || fs_has_moved(d))
			report(c, d);
	}
}

static void report(struct control *c, struct node_device *d)
{
	Strata__DeviceReport m = STRATA__DEVICE_REPORT__INIT;
	Strata__DeviceInfo info;
	struct device_info room;
	struct report *op;

	if (!control_is_joined(c)) /* an earlier report broke the connection: the next hello tells */
		return;
	op = mem_zalloc(sizeof(*op));
	if (!op) { /* an answer that is owed: begin anew rather than lose it */
		conn_break(&c->dialer.conn, -ENOMEM);
		return;
	}
	op->c = c;
	op->uuid = d->uuid;
	m.device = &info;
	control_describe_device(d, &info, &room);
	control_device_told(d, &info);
	control_send(&c->dialer.conn, CONTROL_DEVICE_REPORT, 0,
		     conn_call_begin(&c->dialer.conn, &op->call, report_answered), &m.base);
}

static int report_answered(struct conn_call *call, int status, const struct frame *f,
			   const void *body, void **ret_data)
{
	struct report *op = container_of(call, struct report, call);
	struct control *c = op->c;
	ProtobufCMessage *msg;
	int r = 0;

	(void)ret_data;
	mem_free(op);
	if (status)
		return 0;
	r = f->type == CONTROL_DEVICE_REPORT
		? control_unpack(f->type, true, body, f->body_bytes, &msg)
		: -E_PROTOCOL;
	if (r)
		return r;
	verdict(c, (Strata__DeviceVerdict *)msg);
	control_free(msg);
	control_check_ready(c);
	return 0;
}

void control_device_changed(void *arg, struct node_device *d)
{
	struct control *c = arg;

	if (c->closing)
		return;
	if (d->state == NODE_DEVICE_OPEN) /* anew: perhaps it is another copy now */
		d->admitted = d->attached = false;
	if (control_is_joined(c))
		report(c, d);
	else if (c->state == CONTROL_OPENING && devices_settled(c->cfg.devices) && c->timing)
		ioe_cancel(c->cfg.ioe, &c->timer); /* dials */
	control_check_ready(c);
}

void control_device_event(void *arg, struct node_device *d, const char *what, const char *text)
{
	struct control *c = arg;

	control_happened(c, "warning", what, d->no, "%s: %s", d->path, text);
}

/* ---- events -------------------------------------------------------------------------------------------------------------------- */

void control_happened(struct control *c, const char *severity, const char *code, device_no dev,
		      const char *fmt, ...)
{
	struct happening *h;
	va_list ap;

	if (c->closing || c->happenings_n >= HAPPENINGS_MAX || !(h = mem_zalloc(sizeof(*h)))) {
		log_limited(LOG_WARN, ioe_now_ns(c->cfg.ioe), "an event was not reported",
			    "code=%s", code);
		return;
	}
	snprintf(h->severity, sizeof(h->severity), "%s", severity);
	snprintf(h->code, sizeof(h->code), "%s", code);
	va_start(ap, fmt);
	vsnprintf(h->text, sizeof(h->text), fmt, ap);
	va_end(ap);
	h->dev = dev;
	list_push(&c->happenings, &h->link);
	c->happenings_n++;
	happenings_send(c);
}

static void happenings_send(struct control *c)
{
	if (!control_is_joined(c))
		return;
	list_for_each (l, &c->happenings) {
		struct happening *h = list_entry(l, struct happening, link);
		Strata__Happened m = STRATA__HAPPENED__INIT;

		if (h->c)
			continue;
		h->c = c;
		m.severity = h->severity;
		m.code = h->code;
		m.text = h->text;
		m.device = h->dev;
		control_send(&c->dialer.conn, CONTROL_HAPPENED, 0,
			     conn_call_begin(&c->dialer.conn, &h->call, happening_answered),
			     &m.base);
		if (!control_is_joined(c)) /* the send broke the connection */
			return;
	}
}

static int happening_answered(struct conn_call *call, int status, const struct frame *f,
			      const void *body, void **ret_data)
{
	struct happening *h = container_of(call, struct happening, call);
	struct control *c = h->c;

	(void)f;
	(void)body;
	(void)ret_data;
	h->c = NULL;
	if (status)
		return 0; /* told again in the next session */
	list_del(&h->link);
	c->happenings_n--;
	mem_free(h);
	return 0;
}

void control_heard(struct control *c, uint64_t commit)
{
	if (!commit)
		return;
	for_each_device(d, c)
	{
		if (d->attached && d->dev)
			device_heard_commit(d->dev, commit);
	}
}

/* ---- ending -------------------------------------------------------------------------------------------------------------------- */

void control_close(struct control *c, void (*done)(void *arg), void *arg)
{
	check(!c->closing);
	c->closing = true;
	c->closed = done;
	c->closed_arg = arg;
	if (c->timing)
		ioe_cancel(c->cfg.ioe, &c->timer);
	if (c->dialing) {
		dialer_close(&c->dialer, dialer_closed, c);
	} else if (!c->timing) { /* not inline */
		c->timing = true;
		ioe_nop(c->cfg.ioe, &c->timer, timer_done);
	}
}

static void dialer_closed(void *arg)
{
	struct control *c = arg;

	c->dialing = false;
	control_close_step(c);
}

void control_close_step(struct control *c)
{
	void (*closed)(void *arg) = c->closed;
	struct list *l;

	if (!c->closing || !closed || c->dialing || c->timing || !list_empty(&c->pushes))
		return;
	while ((l = list_pop(&c->happenings)))
		mem_free(list_entry(l, struct happening, link));
	c->closed = NULL;
	closed(c->closed_arg);
}
