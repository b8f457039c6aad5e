/* SPDX-License-Identifier: Apache-2.0 */
/* calls.c - what nodes ask. One struct per request, a thin translation to a request of the SAN.
 *
 * An open is answered when every device that can be reached knows the new epoch (fence.c). A request that ends because the SAN is out of
 * service or the server is ending is not answered at all: the node asks again. */
#include <stdio.h>
#include <string.h>

#include "metadata/rpc/session_private.h"
#include "src/base/log.h"
#include "src/base/mem.h"

#define ALLOC_AGAIN_NS 20000000ULL

struct call {
	struct session *s;
	uint64_t id;
	uint16_t type;
	ProtobufCMessage *msg;
};

static void call_end(struct call *k)
{
	struct session *s = k->s;

	control_free(k->msg);
	mem_free(k);
	session_request_end(s);
}

static void call_answer(struct call *k, const ProtobufCMessage *reply)
{
	session_answer(k->s, k->type, k->id, reply);
	call_end(k);
}

/* True when there must be no answer; the call is over then. */
static bool call_is_lost(struct call *k, int status)
{
	if (status != -EIO && status != -E_GUARD && status != -ESHUTDOWN)
		return false;
	session_break(k->s, -ESHUTDOWN);
	call_end(k);
	return true;
}

static char *word(int status)
{
	return (char *)(uintptr_t)control_error(status);
}

static void call_result(struct call *k, int status, const char *errmsg)
{
	Strata__Result m = STRATA__RESULT__INIT;

	if (call_is_lost(k, status))
		return;
	m.error = word(status);
	m.errmsg = (char *)(uintptr_t)(status ? errmsg : "");
	call_answer(k, &m.base);
}

/* `more` bytes follow that are not zeroed. */
static void *call_grow_with(struct call *k, size_t bytes, size_t more)
{
	struct call *bigger = mem_realloc(k, bytes + more, 1);

	if (!bigger) { /* it will be asked again */
		session_break(k->s, -ENOMEM);
		call_end(k);
		return NULL;
	}
	memset(bigger + 1, 0, bytes - sizeof(*bigger));
	return bigger;
}

static void *call_grow(struct call *k, size_t bytes)
{
	return call_grow_with(k, bytes, 0);
}

/* ---- open -------------------------------------------------------------------------------------------------------------------------- */

struct call_open {
	struct call k;
	uint64_t commit_before;
	struct san_volume_open open;
	struct cluster_takeover takeover;
	struct cluster_fence fence;
	struct san_volume_get get;
};

static void open_done(struct san_req *req);
static void open_taken_over(struct cluster_takeover *takeover);
static void open_refuse(struct call_open *op);
static void open_fenced(struct cluster_fence *fence);
static void open_looked(struct san_req *req);
static void open_answer(struct call_open *op);

static void call_open(struct call *k)
{
	struct call_open *op = call_grow(k, sizeof(*op));
	const Strata__VolumeOpen *m;

	if (!op)
		return;
	m = (const Strata__VolumeOpen *)op->k.msg;
	if (*m->snapshot) {
		Strata__VolumeOpened reply = STRATA__VOLUME_OPENED__INIT;

		reply.error = word(-ENOENT);
		reply.errmsg = "there is no such snapshot";
		call_answer(&op->k, &reply.base);
		return;
	}
	op->open.name = m->volume;
	op->open.node = op->k.s->node->no;
	op->open.start = op->k.s->node->start;
	op->open.read_only = m->read_only;
	op->open.req.done = open_done;
	op->commit_before = metastore_last_commit(op->k.s->cluster->store);
	san_volume_open(op->k.s->cluster->san, &op->open);
}

static void open_done(struct san_req *req)
{
	struct call_open *op = container_of(req, struct call_open, open.req);
	const struct san_volume *v = &op->open.volume;

	if (req->status == -E_NOT_OWNER && !op->takeover.c) { /* its owner may be gone for good */
		op->takeover =
		    (struct cluster_takeover){.c = op->k.s->cluster,
					      .volume = v->id,
					      .min_away_ns = op->k.s->cluster->takeover_ns,
					      .done = open_taken_over};
		cluster_takeover(&op->takeover);
		return;
	}
	if (req->status) {
		open_refuse(op);
		return;
	}
	/* The SAN asks for it where it must be; any epoch that is new and had a predecessor is worth a round trip. */
	if (!op->open.fence && (v->epoch == 1 || v->epoch_commit <= op->commit_before)) {
		open_answer(op);
		return;
	}
	op->fence.c = op->k.s->cluster;
	op->fence.volume = op->open.volume;
	op->fence.done = open_fenced;
	cluster_fence(&op->fence);
}

/* Taken, or closed by its owner meanwhile: asked once more. */
static void open_taken_over(struct cluster_takeover *takeover)
{
	struct call_open *op = container_of(takeover, struct call_open, takeover);

	if (takeover->status)
		open_refuse(op);
	else
		san_volume_open(takeover->c->san, &op->open);
}

static void open_refuse(struct call_open *op)
{
	struct cluster *c = op->k.s->cluster;
	struct cluster_node *owner = NULL;
	Strata__VolumeOpened m = STRATA__VOLUME_OPENED__INIT;
	char errmsg[ERRMSG_LEN], uri[CLUSTER_URI_LEN] = "";

	if (call_is_lost(&op->k, op->open.req.status))
		return;
	snprintf(errmsg, sizeof(errmsg), "%s", op->open.req.errmsg);
	if (op->open.req.status == -E_NOT_OWNER)
		owner = cluster_node_by_no(c, op->open.volume.owner);
	if (owner) {
		snprintf(errmsg, sizeof(errmsg), "node %s has the volume open%s", owner->name,
			 owner->session ? "" : ", and is away");
		if (owner->nbd.n)
			cluster_nbd_uri(owner->nbd.list[0], op->open.volume.name, uri);
	}
	uri[ERRMSG_LEN - 1] = '\0';
	m.error = word(op->open.req.status);
	m.errmsg = errmsg;
	m.owner_uri = uri;
	call_answer(&op->k, &m.base);
}

/* It may have been resized meanwhile. The news of that came to the new owner too early, before it knew the volume. */
static void open_fenced(struct cluster_fence *fence)
{
	struct call_open *op = container_of(fence, struct call_open, fence);

	op->get.id = op->open.volume.id;
	op->get.req.done = open_looked;
	san_volume_get(fence->c->san, &op->get);
}

static void open_looked(struct san_req *req)
{
	struct call_open *op = container_of(req, struct call_open, get.req);

	if (!req->status) {
		op->open.volume.size_bytes = op->get.volume.size_bytes;
		op->open.volume.exclusive = op->get.volume.exclusive;
	}
	open_answer(op);
}

static size_t pool_devices(struct cluster *c, uint32_t pool, uint32_t *ret_list)
{
	size_t n = 0;

	list_for_each (l, &c->devices) {
		struct cluster_device *d = list_entry(l, struct cluster_device, link);

		if (d->pool == pool && d->member == CLUSTER_MEMBER)
			ret_list[n++] = d->no;
	}
	return n;
}

static void open_answer(struct call_open *op)
{
	struct cluster *c = op->k.s->cluster;
	const struct san_volume *v = &op->open.volume;
	Strata__VolumeOpened m = STRATA__VOLUME_OPENED__INIT;
	uint32_t *devices = mem_alloc(c->devices_n * sizeof(*devices));

	if (!devices) {
		session_break(op->k.s, -ENOMEM);
		call_end(&op->k);
		return;
	}
	m.id = v->id;
	m.uuid = control_uuid(&v->uuid);
	m.epoch = v->epoch;
	m.size_bytes = v->size_bytes;
	m.sector_bytes = v->sector_bytes;
	m.chunk_shift = v->chunk_shift;
	m.write_cache = v->write_cache;
	m.one_opener = v->exclusive;
	m.layers = op->open.layers;
	m.n_layers = op->open.layers_n;
	m.devices = devices;
	m.n_devices = pool_devices(c, v->pool, devices);
	m.commit = op->open.req.commit;
	call_answer(&op->k, &m.base);
	mem_free(devices);
}

/* ---- close -------------------------------------------------------------------------------------------------------------------------- */

struct call_close {
	struct call k;
	struct san_volume_close close;
};

static void close_done(struct san_req *req)
{
	struct call_close *op = container_of(req, struct call_close, close.req);

	/* a newer epoch: this one was closed before, and the answer lost */
	call_result(&op->k, req->status == -E_STALE_EPOCH ? 0 : req->status, req->errmsg);
}

static void call_close(struct call *k)
{
	struct call_close *op = call_grow(k, sizeof(*op));
	const Strata__VolumeClose *m;

	if (!op)
		return;
	m = (const Strata__VolumeClose *)op->k.msg;
	op->close.volume = m->volume;
	op->close.epoch = m->epoch;
	op->close.req.done = close_done;
	san_volume_close(op->k.s->cluster->san, &op->close);
}

/* ---- map and alloc ------------------------------------------------------------------------------------------------------------------- */

static void answer_items(struct call *k, const struct san_req *req,
			 const struct san_map_item *items, uint32_t n)
{
	Strata__Mapping m = STRATA__MAPPING__INIT;
	int status = req->status;
	char errmsg[ERRMSG_LEN];

	if (call_is_lost(k, status))
		return;
	memcpy(errmsg, req->errmsg, sizeof(errmsg));
	if (!status && n) {
		m.items.data = mem_alloc(n * (size_t)CONTROL_ITEM_BYTES_MAX);
		status = m.items.data ? 0 : -ENOMEM;
	}
	for (uint32_t i = 0; i < n && !status; i++)
		m.items.len += control_item_put(m.items.data + m.items.len,
						&(struct control_item){.chunk = items[i].chunk,
								       .layer = items[i].layer,
								       .entry = items[i].entry});
	m.error = word(status);
	m.errmsg = status ? errmsg : "";
	m.commit = req->commit;
	call_answer(k, &m.base);
	mem_free(m.items.data);
}

struct call_map {
	struct call k;
	struct san_map map;
	struct san_map_item items[];
};

static void map_done(struct san_req *req)
{
	struct call_map *op = container_of(req, struct call_map, map.req);

	answer_items(&op->k, req, op->items, req->status ? 0 : op->map.items_n);
}

static void call_map(struct call *k)
{
	const Strata__Map *m = (const Strata__Map *)k->msg;
	uint32_t items_max = m->items_max ? m->items_max : 1;
	struct call_map *op =
	    call_grow_with(k, sizeof(*op), items_max * sizeof(struct san_map_item));

	if (!op)
		return;
	op->map.volume = m->volume;
	op->map.epoch = m->epoch;
	op->map.layer = m->layer;
	op->map.first = m->first;
	op->map.n = m->n;
	op->map.items = op->items;
	op->map.items_max = items_max;
	op->map.req.done = map_done;
	san_map(op->k.s->cluster->san, &op->map);
}

struct call_alloc {
	struct call k;
	struct san_alloc alloc;
	struct ioe_req timer;
	bool reserved[CONTROL_CHUNKS_MAX];
	struct san_map_item items[];
};

static void alloc_again(struct ioe_req *req);

/* No space, but devices are just coming back: that is not what the client should hear. */
static void alloc_done(struct san_req *req)
{
	struct call_alloc *op = container_of(req, struct call_alloc, alloc.req);
	struct cluster *c = op->k.s->cluster;

	if (req->status == -ENOSPC && session_is_joined(op->k.s) &&
	    cluster_space_may_come(c, san_volume_pool(c->san, op->alloc.volume))) {
		ioe_timer(c->ioe, &op->timer, ioe_now_ns(c->ioe) + ALLOC_AGAIN_NS, alloc_again);
		return;
	}
	answer_items(&op->k, req, op->items, req->status ? 0 : op->alloc.n);
}

static void alloc_again(struct ioe_req *req)
{
	struct call_alloc *op = container_of(req, struct call_alloc, timer);

	san_alloc(op->k.s->cluster->san, &op->alloc);
}

static void call_alloc(struct call *k)
{
	const Strata__Alloc *m = (const Strata__Alloc *)k->msg;
	struct call_alloc *op =
	    call_grow_with(k, sizeof(*op), m->n_chunks * sizeof(struct san_map_item));

	if (!op)
		return;
	for (size_t i = 0; i < m->reserved.len; i++)
		op->reserved[i] = m->reserved.data[i];
	op->alloc.volume = m->volume;
	op->alloc.epoch = m->epoch;
	op->alloc.layer = m->layer;
	op->alloc.chunks = m->chunks;
	op->alloc.reserved = m->reserved.len ? op->reserved : NULL;
	op->alloc.n = (uint32_t)m->n_chunks;
	op->alloc.items = op->items;
	op->alloc.req.done = alloc_done;
	san_alloc(op->k.s->cluster->san, &op->alloc);
}

/* ---- update --------------------------------------------------------------------------------------------------------------------------- */

struct call_update {
	struct call k;
	struct san_update update;
	struct san_update_item items[];
};

static void update_done(struct san_req *req)
{
	struct call_update *op = container_of(req, struct call_update, update.req);

	call_result(&op->k, req->status, req->errmsg);
}

static void call_update(struct call *k)
{
	const Strata__Update *m = (const Strata__Update *)k->msg;
	struct call_update *op =
	    call_grow(k, sizeof(*op) + m->n_items * sizeof(struct san_update_item));

	if (!op)
		return;
	for (size_t i = 0; i < m->n_items; i++)
		op->items[i] = (struct san_update_item){
		    .chunk = m->items[i]->chunk,
		    .change = (enum san_change)m->items[i]->change,
		    .cgen = m->items[i]->cgen,
		};
	op->update.volume = m->volume;
	op->update.epoch = m->epoch;
	op->update.layer = m->layer;
	op->update.items = op->items;
	op->update.n = (uint32_t)m->n_items;
	op->update.req.done = update_done;
	san_update(op->k.s->cluster->san, &op->update);
}

/* ---- names ---------------------------------------------------------------------------------------------------------------------------- */

struct call_names {
	struct call k;
	struct san_volume_list list;
	struct san_volume volumes[];
};

static void names_done(struct san_req *req)
{
	struct call_names *op = container_of(req, struct call_names, list.req);
	char *names[CONTROL_NAMES_MAX];
	Strata__NameList m = STRATA__NAME_LIST__INIT;

	if (call_is_lost(&op->k, req->status))
		return;
	m.error = word(req->status);
	m.errmsg = req->errmsg;
	m.names = names;
	for (uint32_t i = 0; !req->status && i < op->list.volumes_n; i++)
		names[m.n_names++] = op->volumes[i].name;
	call_answer(&op->k, &m.base);
}

static void call_names(struct call *k)
{
	const Strata__Names *m = (const Strata__Names *)k->msg;
	struct call_names *op = call_grow(k, sizeof(*op) + m->max * sizeof(struct san_volume));

	if (!op)
		return;
	snprintf(op->list.after, sizeof(op->list.after), "%s", m->after);
	op->list.volumes = op->volumes;
	op->list.volumes_max = m->max;
	op->list.req.done = names_done;
	san_volume_list(op->k.s->cluster->san, &op->list);
}

/* ---- events --------------------------------------------------------------------------------------------------------------------------- */

struct call_happened {
	struct call k;
	struct san_event_add add;
	char text[SAN_EVENT_TEXT_MAX + 1];
};

static void happened_done(struct san_req *req)
{
	struct call_happened *op = container_of(req, struct call_happened, add.req);

	call_result(&op->k, req->status, req->errmsg);
}

static void call_happened(struct call *k)
{
	struct call_happened *op = call_grow(k, sizeof(*op));
	const Strata__Happened *m;

	if (!op)
		return;
	m = (const Strata__Happened *)op->k.msg;
	if (m->device)
		snprintf(op->text, sizeof(op->text), "Device %u of node %s: %s", m->device,
			 op->k.s->node->name, m->text);
	else
		snprintf(op->text, sizeof(op->text), "Node %s: %s", op->k.s->node->name, m->text);
	op->add.severity = !strcmp(m->severity, "error")     ? SAN_ERROR
			   : !strcmp(m->severity, "warning") ? SAN_WARNING
							     : SAN_INFO;
	op->add.code = m->code;
	op->add.text = op->text;
	op->add.req.done = happened_done;
	san_event_add(op->k.s->cluster->san, &op->add);
}

/* ---- reports -------------------------------------------------------------------------------------------------------------------------- */

struct call_report {
	struct call k;
	struct cluster_admit admit;
};

static void report_done(struct cluster_admit *admit)
{
	struct call_report *op = container_of(admit, struct call_report, admit);
	struct session *s = op->k.s;
	struct cluster_device *d = admit->device;
	Strata__DeviceVerdict m = STRATA__DEVICE_VERDICT__INIT;

	if (call_is_lost(&op->k, admit->status))
		return;
	if (!session_is_joined(s)) { /* and its devices went away before this one came */
		if (d && !admit->status && d->member == CLUSTER_MEMBER)
			d->presence = CLUSTER_AWAY;
		call_end(&op->k);
		return;
	}
	m.uuid = admit->info->uuid;
	m.number = d ? d->no : 0;
	m.error = word(admit->status);
	m.errmsg = admit->errmsg;
	if (cluster_was_moved(admit))
		cluster_device_disown(s, &d->uuid);
	session_get(s);
	call_answer(&op->k, &m.base);
	if (s->node)
		cluster_attach(s->cluster, s->node);
	session_put(s);
}

static void call_report(struct call *k)
{
	struct call_report *op = call_grow(k, sizeof(*op));

	if (!op)
		return;
	op->admit.c = op->k.s->cluster;
	op->admit.node = op->k.s->node;
	op->admit.info = ((const Strata__DeviceReport *)op->k.msg)->device;
	op->admit.done = report_done;
	cluster_admit(&op->admit);
}

/* ---- which ---------------------------------------------------------------------------------------------------------------------------- */

void call_begin(struct session *s, uint16_t type, uint64_t id, ProtobufCMessage *msg)
{
	static void (*const calls[])(struct call * k) = {
	    [CONTROL_DEVICE_REPORT] = call_report,
	    [CONTROL_HAPPENED] = call_happened,
	    [CONTROL_VOLUME_OPEN] = call_open,
	    [CONTROL_VOLUME_CLOSE] = call_close,
	    [CONTROL_MAP] = call_map,
	    [CONTROL_ALLOC] = call_alloc,
	    [CONTROL_UPDATE] = call_update,
	    [CONTROL_NAMES] = call_names,
	};
	struct call *k = mem_zalloc(sizeof(*k));

	check(type < ARRAY_LEN(calls) && calls[type]);
	if (!k) {
		control_free(msg);
		session_break(s, -ENOMEM);
		session_request_end(s);
		return;
	}
	*k = (struct call){.s = s, .id = id, .type = type, .msg = msg};
	calls[type](k);
}
