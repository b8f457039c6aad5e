/* SPDX-License-Identifier: Apache-2.0 */
/* attach.c - brings the devices of a node that just joined up to date, and has them served.
 *
 *   COLLECT -> EPOCHS* -> LAYERS* -> COMMIT* -> SERVE* -> done (or COLLECT again, when there are more)          (* asks the node)
 *
 * A device that has heard of commit N knows every epoch of a commit below N (and perhaps those of N itself): the others are sent. LAYER records
 * have a mark of their own in the registry (layers_commit), because a device holds a share of them only. What changes while this goes on is pushed
 * by fence.c and layers.c to every device that is admitted, attached or not. COMMIT tells each device the newest commit, and it answers when it
 * cannot forget it; the registry keeps that number (told_commit), which is another one with each attach: a copy of the device that was made before
 * is known by it for ever (admit.c), however often it is opened meanwhile. One attach per session at a time; it ends with the session. */
#include <stdio.h>
#include <string.h>

#include "metadata/rpc/session.h"
#include "src/base/log.h"
#include "src/base/mem.h"

enum { PAGE = 256, DEVICES = CONTROL_DEVICES_MAX };
#define RETRY_NS 1000000000ULL

struct cluster_attach {
	struct cluster *c;
	struct session *s;
	node_no node;
	/* the devices of this round */
	uint32_t devices[DEVICES];
	ProtobufCBinaryData uuids[DEVICES];
	size_t devices_n, serve_i;
	uint64_t epochs_from; /* commit at and after which epochs are sent */
	uint64_t commit;      /* what the devices know when this is through */
	/* epochs */
	struct san_volume_list list;
	struct san_volume volumes[PAGE];
	Strata__EpochRecord epochs[PAGE], *epoch_list[PAGE];
	/* layers: a slice of them at a time, each device's share asked for separately */
	layer_id layer;
	bool layers_end;
	size_t share_i; /* in devices */
	struct san_layer slice[PAGE];
	size_t slice_n;
	Strata__LayerRecord layers[PAGE], *layer_list[PAGE];
	struct session_call call;
	struct ioe_req timer;
};

static void attach_collect(struct cluster_attach *a);
static void attach_epochs(struct cluster_attach *a);
static void attach_epochs_listed(struct san_req *req);
static void attach_epochs_told(struct session_call *call, int status,
			       const ProtobufCMessage *answer);
static void attach_layers(struct cluster_attach *a);
static void attach_share(struct cluster_attach *a);
static void attach_share_told(struct session_call *call, int status, const ProtobufCMessage *answer);
static void attach_commit(struct cluster_attach *a);
static void attach_commit_told(struct session_call *call, int status,
			       const ProtobufCMessage *answer);
static void attach_serve(struct cluster_attach *a);
static void attach_served(struct session_call *call, int status, const ProtobufCMessage *answer);
static void attach_retry(struct cluster_attach *a, int status);
static void attach_retry_done(struct ioe_req *req);
static void attach_end(struct cluster_attach *a);

void cluster_attach(struct cluster *c, struct cluster_node *n)
{
	struct session *s = n->session;
	struct cluster_attach *a;

	if (!s || !session_is_joined(s) || s->attach || c->state != CLUSTER_SERVING)
		return;
	a = mem_zalloc(sizeof(*a));
	if (!a) { /* the next hello begins anew */
		session_break(s, -ENOMEM);
		return;
	}
	cluster_op_begin(c);
	a->c = c;
	a->s = session_get(s);
	a->node = n->no;
	s->attach = a;
	attach_collect(a);
}

/* The session is gone, or the server is ending: nothing more is to be done for these devices. */
static bool is_over(const struct cluster_attach *a)
{
	return !session_is_joined(a->s) || a->c->state != CLUSTER_SERVING;
}

static struct cluster_device *member(struct cluster_attach *a, size_t i)
{
	struct cluster_device *d = cluster_device_by_no(a->c, (device_no)a->devices[i]);

	return d && d->member == CLUSTER_MEMBER && d->node == a->node &&
		       (d->presence == CLUSTER_ATTACHING || d->presence == CLUSTER_OK)
		   ? d
		   : NULL;
}

static void attach_collect(struct cluster_attach *a)
{
	struct cluster *c = a->c;

	a->devices_n = a->serve_i = 0;
	a->epochs_from = UINT64_MAX;
	a->commit = metastore_last_commit(c->store);
	list_for_each (l, &c->devices) {
		struct cluster_device *d = list_entry(l, struct cluster_device, link);

		if (d->node != a->node || !d->wants_attach || a->devices_n == DEVICES)
			continue;
		d->wants_attach = false;
		d->attaching = true;
		d->layers_failed = false;
		a->devices[a->devices_n] = d->no;
		a->uuids[a->devices_n++] = control_uuid(&d->uuid);
		if (d->commit < a->epochs_from)
			a->epochs_from = d->commit;
	}
	if (!a->devices_n && a->s->volumes_told) {
		attach_end(a);
		return;
	}
	a->list.after[0] = '\0';
	attach_epochs(a);
}

/* ---- epochs, and news of the volumes that the node owns ----------------------------------------------------------------------------- */

static void attach_epochs(struct cluster_attach *a)
{
	a->list.volumes = a->volumes;
	a->list.volumes_max = PAGE;
	a->list.req.done = attach_epochs_listed;
	san_volume_list(a->c->san, &a->list);
}

static void news_told(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	(void)status;
	(void)answer;
	mem_free(call);
}

static void news_send(struct session *s, const struct san_volume *v, int status)
{
	Strata__VolumeChanged m = STRATA__VOLUME_CHANGED__INIT;
	struct session_call *call = mem_zalloc(sizeof(*call));

	if (!call) {
		session_break(s, -ENOMEM);
		return;
	}
	m.volume = v->id;
	m.epoch = v->epoch;
	m.size_bytes = v->size_bytes;
	m.one_opener = v->exclusive;
	m.error = (char *)(uintptr_t)control_error(status);
	session_ask(s, call, CONTROL_VOLUME_CHANGED, &m.base, news_told);
}

void cluster_volume_news(struct cluster *c, const struct san_volume *v)
{
	struct cluster_node *n = v->is_open ? cluster_node_by_no(c, v->owner) : NULL;

	if (n && n->session && session_is_joined(n->session))
		news_send(n->session, v, 0); /* else it will be told when it joins */
}

/* A volume may have been taken from the node while it was away. What its devices answer would tell it too, but not while it only reads what nobody has
 * written. It is told of volumes that it never had as well: it does not mind. One that was removed meanwhile, and joined again as a new node, has been
 * the owner under the number that nobody has any more. */
static void volume_lost_news(struct cluster_attach *a, const struct san_volume *v)
{
	struct cluster_node *n = cluster_node_by_no(a->c, a->node);

	if (!n || !v->epoch)
		return;
	if (v->owner == a->node || !cluster_node_by_no(a->c, v->owner)
		? v->forced && !v->is_open
		: v->is_open && v->epoch_commit > n->away_commit)
		news_send(a->s, v, -E_NOT_OWNER);
}

static void attach_epochs_listed(struct san_req *req)
{
	struct cluster_attach *a = container_of(req, struct cluster_attach, list.req);
	Strata__Records m = STRATA__RECORDS__INIT;

	if (is_over(a) || req->status) {
		attach_retry(a, req->status ? req->status : -ENOTCONN);
		return;
	}
	for (uint32_t i = 0; i < a->list.volumes_n; i++) {
		const struct san_volume *v = &a->volumes[i];
		Strata__EpochRecord *e = &a->epochs[m.n_epochs];

		if (!a->s->volumes_told) {
			if (v->owner == a->node)
				cluster_volume_news(a->c, v);
			volume_lost_news(a, v);
		}
		if (!v->epoch || v->epoch_commit < a->epochs_from || !a->devices_n)
			continue;
		strata__epoch_record__init(e);
		e->volume = v->id;
		e->epoch = v->epoch;
		e->head = v->head;
		e->commit = v->epoch_commit;
		a->epoch_list[m.n_epochs++] = e;
	}
	if (is_over(a)) {
		attach_retry(a, -ENOTCONN);
		return;
	}
	if (a->list.volumes_n)
		memcpy(a->list.after, a->volumes[a->list.volumes_n - 1].name, sizeof(a->list.after));
	m.epochs = a->epoch_list;
	m.devices = a->devices;
	m.uuids = a->uuids;
	m.n_devices = m.n_uuids = a->devices_n;
	if (m.n_epochs)
		session_ask(a->s, &a->call, CONTROL_RECORDS, &m.base, attach_epochs_told);
	else
		attach_epochs_told(&a->call, 0, NULL);
}

static int result_of(int status, const ProtobufCMessage *answer)
{
	return status || !answer ? status : err_by_name(((const Strata__Result *)answer)->error);
}

static void attach_epochs_told(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	struct cluster_attach *a = container_of(call, struct cluster_attach, call);

	status = result_of(status, answer);
	if (status) {
		attach_retry(a, status);
	} else if (a->list.more) {
		attach_epochs(a);
	} else {
		a->s->volumes_told = true;
		a->layer = 0;
		a->layers_end = false;
		attach_layers(a);
	}
}

/* ---- layers --------------------------------------------------------------------------------------------------------------------------- */

void cluster_layer_describe(const struct san_layer *l, Strata__LayerRecord *ret_r)
{
	strata__layer_record__init(ret_r);
	ret_r->layer = l->layer;
	ret_r->parent = l->parent;
	ret_r->volume = l->volume;
	ret_r->flags = (l->frozen ? CONTROL_LAYER_FROZEN : 0) |
		       (l->deleted ? CONTROL_LAYER_DELETED : 0) |
		       (l->sector_bytes == 512 ? CONTROL_LAYER_SECTOR_512 : 0) |
		       (uint32_t)l->write_cache << CONTROL_LAYER_CACHE_SHIFT;
	ret_r->size_bytes = l->size_bytes;
	ret_r->commit = l->commit;
	ret_r->name = (char *)(uintptr_t)l->name;
	ret_r->snapshot = (char *)(uintptr_t)l->snapshot;
}

/* The next slice; those that no device of ours lacks are passed over. */
static void attach_layers(struct cluster_attach *a)
{
	uint64_t from = UINT64_MAX;

	for (size_t i = 0; i < a->devices_n; i++) {
		struct cluster_device *d = member(a, i);

		if (d && d->layers_commit < from)
			from = d->layers_commit;
	}
	a->slice_n = 0;
	while (a->slice_n < PAGE && !a->layers_end) {
		struct san_layer *l = &a->slice[a->slice_n];

		if (from == UINT64_MAX || san_layer_next(a->c->san, a->layer, l)) {
			a->layers_end = true;
			break;
		}
		a->layer = l->layer;
		if (l->commit >= from)
			a->slice_n++;
	}
	if (!a->slice_n) {
		attach_commit(a);
		return;
	}
	a->share_i = 0;
	attach_share(a);
}

static bool holds(struct cluster *c, const struct cluster_device *d, layer_id layer)
{
	struct cluster_device *holders[CLUSTER_LAYER_COPIES];
	uint32_t n = cluster_layer_holders(c, layer, holders);

	for (uint32_t i = 0; i < n; i++)
		if (holders[i] == d)
			return true;
	return false;
}

static void attach_share(struct cluster_attach *a)
{
	Strata__Records m = STRATA__RECORDS__INIT;

	for (; a->share_i < a->devices_n && !m.n_layers; a->share_i++) {
		struct cluster_device *d = member(a, a->share_i);

		for (size_t i = 0; d && i < a->slice_n; i++) {
			const struct san_layer *l = &a->slice[i];

			if (l->commit < d->layers_commit || !holds(a->c, d, l->layer))
				continue;
			cluster_layer_describe(l, &a->layers[m.n_layers]);
			a->layer_list[m.n_layers] = &a->layers[m.n_layers];
			m.n_layers++;
		}
		m.devices = &a->devices[a->share_i];
		m.uuids = &a->uuids[a->share_i];
		m.n_devices = m.n_uuids = 1;
	}
	m.layers = a->layer_list;
	if (m.n_layers)
		session_ask(a->s, &a->call, CONTROL_RECORDS, &m.base, attach_share_told);
	else
		attach_layers(a);
}

static void attach_share_told(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	struct cluster_attach *a = container_of(call, struct cluster_attach, call);

	status = result_of(status, answer);
	if (status || is_over(a))
		attach_retry(a, status ? status : -ENOTCONN);
	else
		attach_share(a);
}

/* ---- the mark, and service ----------------------------------------------------------------------------------------------------------- */

static void attach_commit(struct cluster_attach *a)
{
	Strata__Records m = STRATA__RECORDS__INIT;

	if (!a->devices_n) {
		attach_collect(a);
		return;
	}
	m.devices = a->devices;
	m.uuids = a->uuids;
	m.n_devices = m.n_uuids = a->devices_n;
	m.commit = a->commit;
	session_ask(a->s, &a->call, CONTROL_RECORDS, &m.base, attach_commit_told);
}

static void attach_commit_told(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	struct cluster_attach *a = container_of(call, struct cluster_attach, call);

	status = result_of(status, answer);
	if (status)
		attach_retry(a, status);
	else
		attach_serve(a);
}

static void attach_serve(struct cluster_attach *a)
{
	Strata__Serve m = STRATA__SERVE__INIT;
	struct cluster_device *d = NULL;

	if (is_over(a)) {
		attach_retry(a, -ENOTCONN);
		return;
	}
	while (a->serve_i < a->devices_n && !(d = member(a, a->serve_i)))
		a->serve_i++;
	if (!d) {
		attach_collect(a);
		return;
	}
	m.uuid = control_uuid(&d->uuid);
	m.number = d->no;
	session_ask(a->s, &a->call, CONTROL_SERVE, &m.base, attach_served);
}

static void attach_served(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	struct cluster_attach *a = container_of(call, struct cluster_attach, call);
	struct cluster_device *d = member(a, a->serve_i);
	const Strata__Result *result = (const Strata__Result *)answer;

	if (status) {
		attach_retry(a, status);
		return;
	}
	a->serve_i++;
	if (d && *result->error) {
		d->presence = CLUSTER_AWAY; /* what became of it the node reports itself */
		d->attaching = false;
		snprintf(d->reason, sizeof(d->reason), "%.255s", result->errmsg);
		san_device_usable(a->c->san, d->no, false);
		log_warn("a device is not served", "device=%u error=%s", d->no, result->error);
	} else if (d) {
		d->attaching = false;
		d->presence = CLUSTER_OK;
		d->commit = a->commit;
		if (d->layers_commit < a->commit)
			d->layers_commit = a->commit;
		if (d->told_commit < a->commit) {
			d->told_commit = a->commit;
			cluster_device_save(a->c, d);
		}
		san_device_usable(a->c->san, d->no, true);
		cluster_frees(a->c, d->no);
		cluster_layers_sweep(a->c, d);
		log_info("device serves", "device=%u", d->no);
	}
	if (d)
		cluster_device_decided(a->c, d);
	attach_serve(a);
}

/* ---- again, or the end ----------------------------------------------------------------------------------------------------------------- */

static void attach_retry(struct cluster_attach *a, int status)
{
	for (size_t i = a->serve_i; i < a->devices_n; i++) {
		struct cluster_device *d = cluster_device_by_no(a->c, (device_no)a->devices[i]);

		if (!d)
			continue;
		d->attaching = false;
		d->wants_attach = member(a, i) != NULL && !is_over(a);
	}
	if (is_over(a)) {
		attach_end(a);
		return;
	}
	log_warn("devices could not be brought up to date", "node=%u error=%s", a->node,
		 err_name(status));
	ioe_timer(a->c->ioe, &a->timer, ioe_now_ns(a->c->ioe) + RETRY_NS, attach_retry_done);
}

static void attach_retry_done(struct ioe_req *req)
{
	struct cluster_attach *a = container_of(req, struct cluster_attach, timer);

	if (is_over(a))
		attach_end(a);
	else
		attach_collect(a);
}

static void attach_end(struct cluster_attach *a)
{
	struct cluster *c = a->c;

	a->s->attach = NULL;
	session_put(a->s);
	mem_free(a);
	cluster_op_end(c);
}
