/* SPDX-License-Identifier: Apache-2.0 */
/* op_flush.c - what is volatile where, and making it stable.
 *
 * Each device counts the volume's acknowledgements that were not stable (acked); a device flush covers those counted when it
 * was submitted (covering -> flushed). A FLUSH needs, on each device with acked > flushed, a device flush submitted after the
 * FLUSH came. It waits with one piece per such device:
 *
 *   no flush under way                   -> start one
 *   one under way that covers all acked  -> wait for it (`now`)
 *   one under way that does not          -> wait for the one after it (`next`), which all who come until then share
 *
 * Loss. Each volatile acknowledgement says in which incarnation of the device it was given, and the device flush says the last
 * one back: a device that has lost its memory since answers -E_UNFLUSHED_LOST. When acknowledgements of two incarnations wait
 * for a flush, those of the earlier are lost (lost_gen); the flush is then one for the newer, and reports the loss of the
 * earlier. All who wait when a loss is found are told. So is each other handle that had something acknowledged since the first of what
 * was lost, by its next FLUSH: its holder may rely on its own flushes alone. What was acknowledged to one who has left (volume_left()) before
 * the loss was found is told to all who are there, else to the next who comes; who leaves untold leaves that to both: any of them may be the
 * same client, who had to connect again. After any other error nothing became stable: the next FLUSH asks again. */
#include <inttypes.h>

#include "io-path/volume/runtime.h"
#include "src/base/math.h"
#include "src/base/mem.h"

static void flush_piece(struct vol_piece *p, struct vol_device *d);
static void device_flush(struct vol_device *d);
static void device_flushed(struct chunk_req *cr);
static void handles_owe(struct volume *v, uint64_t since);
static bool everybody_owes(struct volume *v);

void flush_advance(struct volume_req *r)
{
	struct vol_op *op = op_of(r);
	struct volume *v = op->h->v;

	for (; op->next < v->devices_n && op->status == 0; op->next++) {
		struct vol_device *d = v->device_list[op->next];
		struct vol_piece *p;

		if (d->acked == d->flushed)
			continue;
		p = piece_get(v, r);
		if (!p)
			return; /* op_advance comes again */
		op->pending++;
		flush_piece(p, d);
	}
	op_piece_done(r, 0);
}

static void flush_piece(struct vol_piece *p, struct vol_device *d)
{
	bool covered = d->flushing && d->covering == d->acked;

	list_push(covered ? &d->now : &d->next, &p->wait.link);
	if (!d->flushing)
		device_flush(d);
}

static void device_flush(struct vol_device *d)
{
	struct volume *v = d->v;

	d->flushing = true;
	d->covering = d->acked;
	d->covering_order = v->acks_n;
	d->flush_lost = d->lost_gen > d->flushed;
	list_splice(&d->now, &d->next);
	d->flush = (struct chunk_req){
	    .op = CHUNK_FLUSH,
	    .dev = d->dev,
	    .volume = v->id,
	    .epoch = v->epoch,
	    .incarnation = d->flush_lost ? 0 : d->incarnation,
	    .done = device_flushed,
	};
	v->device_flushes_n++;
	v->stats.device_flushes++;
	chunk_store_submit(v->vs->store, &d->flush);
}

static void device_flushed(struct chunk_req *cr)
{
	struct vol_device *d = container_of(cr, struct vol_device, flush);
	struct volume *v = d->v;
	int status = cr->status;
	struct list waited;
	struct list *l;

	d->flushing = false;
	v->device_flushes_n--;
	list_init(&waited);
	list_splice(&waited, &d->now);
	if (status == 0 && d->flush_lost)
		status = -E_UNFLUSHED_LOST;
	if (status == -E_UNFLUSHED_LOST)
		handles_owe(v, d->flushed_order);
	if (status == 0 || status == -E_UNFLUSHED_LOST) {
		/* not lost_gen: what it names may have come behind, and is for the next flush to tell */
		d->flushed = d->covering;
		d->flushed_order = d->covering_order;
	}
	if (d->flushed == d->acked)
		d->incarnation = 0;
	if (status == -E_UNFLUSHED_LOST) {
		list_splice(&waited, &d->next); /* it may have been theirs that was lost */
		v->stats.unflushed_lost++;
		volumes_event(v, "writes-lost",
			      "device %u lost power with acknowledged writes that were not flushed",
			      d->dev);
	}
	volume_gone_check(v, status);
	if (!list_empty(&d->next))
		device_flush(d);
	while ((l = list_pop(&waited)))
		piece_finish(piece_of_wait(list_entry(l, struct map_waiter, link)), status);
	volume_drain_check(v);
}

/* Those whose acknowledgements may be among what was lost, which began behind `since`. */
static void handles_owe(struct volume *v, uint64_t since)
{
	list_for_each (l, &v->handles) {
		struct volume_handle *h = list_entry(l, struct volume_handle, link);

		h->loss_owed = h->loss_owed || (!h->left && h->acked_order > since);
	}
	if (v->left_order > since && !everybody_owes(v))
		v->loss_owed = true;
}

/* False: nobody is there. */
static bool everybody_owes(struct volume *v)
{
	bool any = false;

	list_for_each (l, &v->handles) {
		struct volume_handle *h = list_entry(l, struct volume_handle, link);
		bool is_told = !h->left && !h->read_only;

		h->loss_owed = h->loss_owed || is_told;
		any = any || is_told;
	}
	return any;
}

void volume_left(struct volume_handle *h)
{
	struct volume *v = h->v;

	if (h->left)
		return;
	h->left = true;
	v->left_order = MAX(v->left_order, h->acked_order);
	if (h->loss_owed) {
		everybody_owes(v);
		v->loss_owed = true;
	}
	h->loss_owed = false;
}

int flush_end(struct volume_handle *h, int status)
{
	if (status && status != -E_UNFLUSHED_LOST)
		return status;
	if (h->loss_owed)
		status = -E_UNFLUSHED_LOST;
	h->loss_owed = false;
	return status;
}

/* Incarnations grow. Answers may overtake one another: what an earlier one acknowledged is lost though the answer comes late. */
void vol_device_acked(struct vol_device *d, struct volume_handle *h, uint64_t incarnation)
{
	if (d->flushed == d->acked)
		d->flushed_order = d->v->acks_n;
	h->acked_order = ++d->v->acks_n;
	if (d->incarnation == 0)
		d->incarnation = incarnation;
	if (incarnation > d->incarnation) {
		d->lost_gen = d->acked;
		d->incarnation = incarnation;
	}
	d->acked++;
	if (incarnation < d->incarnation)
		d->lost_gen = d->acked;
}

/* ---- devices ---------------------------------------------------------------------------------------------------------- */

struct vol_device *vol_device_get(struct volume *v, device_no dev)
{
	struct vol_device *d = v->hot_device;
	struct hnode *n;

	if (d && d->dev == dev)
		return d;
	n = htab_find(&v->devices, dev);
	if (n)
		return v->hot_device = container_of(n, struct vol_device, node);
	if (v->devices_n == v->devices_room) {
		uint32_t room = v->devices_room ? 2 * v->devices_room : 16;
		struct vol_device **list = mem_realloc(v->device_list, room, sizeof(list[0]));

		if (!list)
			return NULL;
		v->device_list = list;
		v->devices_room = room;
	}
	d = mem_zalloc(sizeof(*d));
	if (!d)
		return NULL;
	d->v = v;
	d->dev = dev;
	list_init(&d->now);
	list_init(&d->next);
	htab_add(&v->devices, &d->node, dev);
	v->device_list[v->devices_n++] = d;
	return v->hot_device = d;
}

/* Acknowledges auto's writes stable: it has no volatile cache, or is another node's, where every write is sent as stable. */
bool vol_device_is_stable(const struct vol_device *d)
{
	struct chunk_store *s = d->v->vs->store;

	return s->is_stable(s, d->dev) || !s->is_local(s, d->dev);
}

void vol_devices_free(struct volume *v)
{
	for (uint32_t i = 0; i < v->devices_n; i++)
		mem_free(v->device_list[i]);
	mem_free(v->device_list);
}
