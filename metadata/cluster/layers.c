/* SPDX-License-Identifier: Apache-2.0 */
/* layers.c - LAYER records: which devices keep a layer's, pushing a changed one to them, and dropping those of layers that are gone.
 *
 * When a layer is gone every device that can be reached is told to drop its record, whether or not it is one of those that keep it now: it may have been
 * once. Nobody waits for that. What missed it (the device was away, or this server ended between the commit and the message) is found by a sweep
 * whenever a device begins to serve: it is asked of which layers it has records, and drops those that do not exist. Layers are never made again
 * under the same number, so that this is safe at any time:
 *
 *   ASK* a page of numbers -> (some do not exist) SURE* of it -> DROP* -> ASK ... until there are no more          (* suspends)
 *
 * SURE: a layer may have vanished from memory in a batch that is not committed yet; a read is answered with that batch. */
#include "metadata/rpc/session.h"
#include "src/base/log.h"
#include "src/base/mem.h"

enum { SWEEP_PAGE = 128 };
static_assert((int)SWEEP_PAGE <= (int)CONTROL_LAYERS_MAX, "may be asked for");

struct layer_call {
	struct session_call call;
	struct cluster *c;
	device_no dev;
};

struct layer_sweep {
	struct session_call call;
	struct cluster *c;
	struct session *s;
	device_no dev;
	layer_id after; /* looked at so far */
	bool more;
	layer_id gone[SWEEP_PAGE];
	uint32_t gone_n;
	struct san_volume_get sure;
};

static void layer_gone(struct cluster *c, layer_id layer, uint64_t commit);
static void layer_told(struct session_call *call, int status, const ProtobufCMessage *answer);
static void sweep_ask(struct layer_sweep *sw);
static void sweep_listed(struct session_call *call, int status, const ProtobufCMessage *answer);
static void sweep_sure(struct san_req *req);
static void sweep_drop(struct layer_sweep *sw);
static void sweep_dropped(struct session_call *call, int status, const ProtobufCMessage *answer);
static void sweep_end(struct layer_sweep *sw, int status);

/* Highest random weight: when a device comes or goes, only its own share moves. */
uint32_t cluster_layer_holders(struct cluster *c, layer_id layer,
			       struct cluster_device *ret_holders[CLUSTER_LAYER_COPIES])
{
	uint64_t weights[CLUSTER_LAYER_COPIES] = {0};
	uint32_t n = 0;

	list_for_each (l, &c->devices) {
		struct cluster_device *d = list_entry(l, struct cluster_device, link);
		uint64_t w = hash_u64((uint64_t)layer << 16 | d->no) | 1;
		uint32_t at = n;

		if (d->member != CLUSTER_MEMBER)
			continue;
		while (at > 0 && weights[at - 1] < w)
			at--;
		if (at == CLUSTER_LAYER_COPIES)
			continue;
		if (n < CLUSTER_LAYER_COPIES)
			n++;
		for (uint32_t i = n - 1; i > at; i--) {
			weights[i] = weights[i - 1];
			ret_holders[i] = ret_holders[i - 1];
		}
		weights[at] = w;
		ret_holders[at] = d;
	}
	return n;
}

void cluster_layer_changed(struct cluster *c, layer_id layer, uint64_t commit, bool gone)
{
	struct cluster_device *holders[CLUSTER_LAYER_COPIES];
	uint32_t n = cluster_layer_holders(c, layer, holders);
	struct san_layer l;
	Strata__LayerRecord r, *list[] = {&r};
	Strata__Records m = STRATA__RECORDS__INIT;

	if (gone) {
		layer_gone(c, layer, commit);
		return;
	}
	if (san_layer_get(c->san, layer, &l))
		return; /* gone since: that comes as a change of its own */
	cluster_layer_describe(&l, &r);
	m.layers = list;
	m.n_layers = 1;
	m.n_devices = m.n_uuids = 1;
	for (uint32_t i = 0; i < n; i++) {
		struct cluster_device *d = holders[i];
		struct session *s = cluster_device_session(c, d);
		uint32_t no = d->no;
		ProtobufCBinaryData uuid = control_uuid(&d->uuid);
		struct layer_call *call;

		if ((d->presence != CLUSTER_OK && d->presence != CLUSTER_ATTACHING) || !s ||
		    !session_is_joined(s))
			continue; /* gets it when it is attached */
		call = mem_zalloc(sizeof(*call));
		if (!call) {
			d->layers_failed = true;
			continue;
		}
		call->c = c;
		call->dev = d->no;
		d->layers_pending++;
		if (commit > d->layers_sent)
			d->layers_sent = commit;
		m.devices = &no;
		m.uuids = &uuid;
		session_ask(s, &call->call, CONTROL_RECORDS, &m.base, layer_told);
	}
}

/* The mark moves only when nothing is outstanding and nothing was lost; else the next attach sends it all again. */
static void layer_told(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	struct layer_call *f = container_of(call, struct layer_call, call);
	struct cluster_device *d = cluster_device_by_no(f->c, f->dev);
	const Strata__Result *result = (const Strata__Result *)answer;

	mem_free(f);
	if (!d)
		return;
	d->layers_pending--;
	if (status || *result->error)
		d->layers_failed = true;
	if (!d->layers_pending && !d->layers_failed && !d->attaching && d->presence == CLUSTER_OK &&
	    d->layers_sent > d->layers_commit)
		d->layers_commit = d->layers_sent; /* written with the next report of the device */
}

/* ---- layers that are gone ------------------------------------------------------------------------------------------------------------- */

static void gone_describe(Strata__LayerRecord *ret_r, layer_id layer, uint64_t commit)
{
	strata__layer_record__init(ret_r);
	ret_r->layer = layer;
	ret_r->commit = commit;
	ret_r->flags = CONTROL_LAYER_GONE;
}

static void gone_told(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	(void)status; /* the next sweep finds what is left */
	(void)answer;
	mem_free(call);
}

static void layer_gone(struct cluster *c, layer_id layer, uint64_t commit)
{
	Strata__LayerRecord r, *list[] = {&r};
	Strata__Records m = STRATA__RECORDS__INIT;

	gone_describe(&r, layer, commit);
	m.layers = list;
	m.n_layers = 1;
	list_for_each (l, &c->sessions) {
		struct session *s = list_entry(l, struct session, link);
		struct session_call *call = session_is_joined(s) ? mem_zalloc(sizeof(*call)) : NULL;

		if (call)
			session_ask(s, call, CONTROL_RECORDS, &m.base, gone_told);
	}
}

void cluster_layers_sweep(struct cluster *c, struct cluster_device *d)
{
	struct session *s = cluster_device_session(c, d);
	struct layer_sweep *sw;

	if (d->layers_sweeping || d->presence != CLUSTER_OK || !s || !session_is_joined(s))
		return;
	sw = mem_zalloc(sizeof(*sw));
	if (!sw) {
		log_limited(LOG_WARN, ioe_now_ns(c->ioe),
			    "records of layers that are gone stay on a device: memory is short",
			    "device=%u", d->no);
		return;
	}
	cluster_op_begin(c);
	d->layers_sweeping = true;
	sw->c = c;
	sw->s = session_get(s);
	sw->dev = d->no;
	sweep_ask(sw);
}

static void sweep_ask(struct layer_sweep *sw)
{
	struct cluster_device *d = cluster_device_by_no(sw->c, sw->dev);
	Strata__LayerQuery m = STRATA__LAYER_QUERY__INIT;

	m.uuid = control_uuid(&d->uuid);
	m.after = sw->after;
	m.max = SWEEP_PAGE;
	session_ask(sw->s, &sw->call, CONTROL_LAYER_QUERY, &m.base, sweep_listed);
}

static void sweep_listed(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	struct layer_sweep *sw = container_of(call, struct layer_sweep, call);
	const Strata__LayerIds *ids = (const Strata__LayerIds *)answer;
	struct san_layer l;

	if (!status)
		status = err_by_name(ids->error);
	if (status) {
		sweep_end(sw, status);
		return;
	}
	sw->gone_n = 0;
	for (size_t i = 0; i < ids->n_layers && i < SWEEP_PAGE; i++) {
		sw->after = ids->layers[i];
		if (san_layer_get(sw->c->san, sw->after, &l))
			sw->gone[sw->gone_n++] = sw->after;
	}
	sw->more = ids->n_layers == SWEEP_PAGE;
	if (sw->gone_n) {
		sw->sure = (struct san_volume_get){.id = UINT32_MAX, .req.done = sweep_sure};
		san_volume_get(sw->c->san, &sw->sure);
	} else if (sw->more) {
		sweep_ask(sw);
	} else {
		sweep_end(sw, 0);
	}
}

static void sweep_sure(struct san_req *req)
{
	struct layer_sweep *sw = container_of(req, struct layer_sweep, sure.req);

	if (req->status == -ENOENT || req->status == 0)
		sweep_drop(sw);
	else
		sweep_end(sw, req->status);
}

static void sweep_drop(struct layer_sweep *sw)
{
	struct cluster_device *d = cluster_device_by_no(sw->c, sw->dev);
	Strata__LayerRecord *records = mem_zalloc_array(sw->gone_n, sizeof(*records));
	Strata__LayerRecord **list = mem_zalloc_array(sw->gone_n, sizeof(*list));
	Strata__Records m = STRATA__RECORDS__INIT;
	ProtobufCBinaryData uuid = control_uuid(&d->uuid);
	uint32_t no = d->no;

	for (uint32_t i = 0; records && list && i < sw->gone_n; i++) {
		gone_describe(&records[i], sw->gone[i], metastore_last_commit(sw->c->store));
		list[i] = &records[i];
	}
	m.devices = &no;
	m.uuids = &uuid;
	m.n_devices = m.n_uuids = 1;
	m.layers = list;
	m.n_layers = sw->gone_n;
	if (records && list)
		session_ask(sw->s, &sw->call, CONTROL_RECORDS, &m.base, sweep_dropped);
	else
		sweep_end(sw, -ENOMEM);
	mem_free(records);
	mem_free(list);
}

static void sweep_dropped(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	struct layer_sweep *sw = container_of(call, struct layer_sweep, call);

	if (!status)
		status = err_by_name(((const Strata__Result *)answer)->error);
	if (!status)
		log_info("records of layers that are gone were dropped", "device=%u layers=%u",
			 sw->dev, sw->gone_n);
	if (!status && sw->more)
		sweep_ask(sw);
	else
		sweep_end(sw, status);
}

static void sweep_end(struct layer_sweep *sw, int status)
{
	struct cluster *c = sw->c;
	/* one that left stays registered */
	struct cluster_device *d = cluster_device_by_no(c, sw->dev);

	if (status && status != -ENOTCONN)
		log_warn("records of layers that are gone may stay on a device",
			 "device=%u error=%s", sw->dev, err_name(status));
	d->layers_sweeping = false;
	session_put(sw->s);
	mem_free(sw);
	cluster_op_end(c);
}
