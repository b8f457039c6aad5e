/* SPDX-License-Identifier: Apache-2.0 */
/* layers.c - LAYER records: which devices keep a layer's, and pushing a changed one to them. */
#include "metadata/rpc/session.h"
#include "src/base/mem.h"

struct layer_call {
	struct session_call call;
	struct cluster *c;
	device_no dev;
};

static void layer_told(struct session_call *call, int status, const ProtobufCMessage *answer);

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

void cluster_layer_changed(struct cluster *c, layer_id layer, uint64_t commit, bool deleted)
{
	struct cluster_device *holders[CLUSTER_LAYER_COPIES];
	uint32_t n = cluster_layer_holders(c, layer, holders);
	struct san_layer l = {.layer = layer, .commit = commit, .deleted = true};
	Strata__LayerRecord r, *list[] = {&r};
	Strata__Records m = STRATA__RECORDS__INIT;

	if (!deleted && san_layer_get(c->san, layer, &l))
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
