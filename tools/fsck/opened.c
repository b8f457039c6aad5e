/* SPDX-License-Identifier: Apache-2.0 */
/* opened.c - the device as it would be served: opened for inspection, which replays its journal in memory. */
#include <inttypes.h>
#include <stdlib.h>

#include "src/base/math.h"
#include "src/base/mem.h"
#include "tools/fsck/check.h"
#include "tools/fsck/wait.h"

static int check_slots(struct fsck *k, struct device *dev);
static int check_duplicates(struct fsck *k, struct device *dev);
static void check_layers(struct fsck *k, struct device *dev);

/* ---- open ------------------------------------------------------------------------------------------------------------------- */

struct opening {
	struct device_open op;
	bool done;
};

static void on_opened(struct device_open *op)
{
	container_of(op, struct opening, op)->done = true;
}

/* What it says of its recovery; what it meets later is found here as well. */
static void on_event(void *arg, struct device *dev, const char *what, const char *text)
{
	struct fsck *k = arg;

	(void)dev;
	(void)what;
	if (!k->is_open)
		fsck_say(k, FSCK_NOTE, "device-says", "%s", text);
}

static void on_closed(void *arg, int status)
{
	bool *done = arg;

	(void)status;
	*done = true;
}

int fsck_opened(struct fsck *k)
{
	struct opening o = {.op = {.ioe = k->ioe,
				   .path = k->o->path,
				   .ring_path = k->o->ring_path,
				   .cluster = k->o->cluster,
				   .read_only = true,
				   .lock_wait_ns = k->o->lock_wait_ns,
				   .on_event = on_event,
				   .event_arg = k,
				   .done = on_opened}};
	bool closed = false;
	int r;

	device_open(&o.op);
	fsck_wait(k, &o.done);
	if (o.op.status == -ENOMEM || o.op.status == -E_IN_USE)
		return fsck_error(k, o.op.status, "%s", o.op.errmsg);
	if (o.op.status) {
		fsck_say(k, FSCK_ERROR, "device-refused", "the device cannot be opened: %s",
			 o.op.errmsg);
		return 0;
	}
	k->is_open = k->res->is_open = true;
	r = check_slots(k, o.op.dev);
	if (!r)
		r = check_duplicates(k, o.op.dev);
	if (!r && k->o->map_next)
		r = fsck_map(k, o.op.dev);
	if (!r && k->o->layer_exists)
		check_layers(k, o.op.dev);
	device_close(o.op.dev, on_closed, &closed);
	fsck_wait(k, &closed);
	return r;
}

/* ---- slots -------------------------------------------------------------------------------------------------------------------- */

/* The entry as read here, against the one that the device made of the same bytes; they differ for good where the restart ring, or the data
 * itself after a power loss, has a say: so only after an orderly close. */
static void compare_entry(struct fsck *k, uint32_t slot, const struct device_slot *d)
{
	const struct fsck_slot *s = &k->slots[slot];
	bool open = d->state == DEVICE_SLOT_OPEN;

	if (!k->is_clean || s->lost)
		return;
	if (open != s->open || d->cgen != s->cgen ||
	    (open && (d->volume != s->volume || d->layer != s->layer || d->chunk != s->chunk)))
		fsck_say_slot(k, FSCK_ERROR, "device-differs", slot,
			      "slot %u: its entry says %s, cgen %" PRIu64
			      ", layer %u chunk %u; the opened device says %s, cgen %" PRIu64
			      ", layer %u chunk %u",
			      slot, s->open ? "open" : "free", s->cgen, s->layer, s->chunk,
			      open ? "open" : "free", d->cgen, d->layer, d->chunk);
}

static void count_states(struct fsck *k, uint32_t slot, const struct device_slot *d,
			 const uint8_t *states, uint32_t told_n)
{
	uint32_t present_n = 0, bad_n = 0;

	for (uint32_t b = 0; b < k->geo.blocks_per_chunk; b++) {
		present_n += states[b] == BLOCK_DATA || states[b] == BLOCK_BAD;
		bad_n += states[b] == BLOCK_BAD;
	}
	if (present_n != told_n)
		fsck_say_slot(k, FSCK_ERROR, "present-count", slot,
			      "slot %u counts %u present blocks, its table has %u", slot, told_n,
			      present_n);
	if (bad_n)
		fsck_say_slot(k, FSCK_ERROR, "blocks-bad", slot,
			      "%u blocks of slot %u (layer %u chunk %u) are known to be damaged",
			      bad_n, slot, d->layer, d->chunk);
	k->res->blocks_present += present_n;
	k->res->blocks_bad += bad_n;
}

void fsck_name_slot(struct chunk_req *r, uint32_t slot, const struct device_slot *d)
{
	r->slot = slot;
	r->cgen = d->cgen;
	r->volume = d->volume;
	r->layer = d->layer;
	r->chunk = d->chunk;
	r->epoch = UINT64_MAX; /* an inspection is nobody's owner and newer than all of them */
}

/* Block tables are asked for ahead of the slot that is looked at. */
enum { LOOKS = 16 };

struct look {
	struct fsck_request rq;
	struct device_slot d;
	bool lost;
	uint8_t states[CHUNK_BLOCKS_MAX];
};

static void look_start(struct fsck *k, struct device *dev, struct look *l, uint32_t slot)
{
	l->rq.r = (struct chunk_req){.op = CHUNK_STATUS, .blocks_n = k->geo.blocks_per_chunk};
	l->rq.done = true;
	l->lost = device_slot_get(dev, slot, &l->d) != 0; /* its entry: that has been told */
	if (l->lost || l->d.state != DEVICE_SLOT_OPEN)
		return;
	fsck_name_slot(&l->rq.r, slot, &l->d);
	l->rq.r.states = l->states;
	fsck_submit(dev, &l->rq);
}

static int look_finish(struct fsck *k, struct device *dev, struct look *l, uint32_t slot)
{
	fsck_wait(k, &l->rq.done);
	if (l->lost)
		return 0;
	compare_entry(k, slot, &l->d);
	if (l->d.state != DEVICE_SLOT_OPEN)
		return 0;
	k->res->slots_open_n++;
	if (l->rq.r.status == -ENOMEM)
		return fsck_error(k, -ENOMEM, "no memory");
	if (l->rq.r.status) {
		fsck_say_slot(k, FSCK_ERROR, "slot-lost", slot,
			      "the block table of slot %u (layer %u chunk %u) cannot be read: %s",
			      slot, l->d.layer, l->d.chunk, err_text(l->rq.r.status));
		return 0;
	}
	count_states(k, slot, &l->d, l->states, l->rq.r.present_n);
	return k->o->data ? fsck_data(k, dev, slot, l->states) : 0;
}

static int check_slots(struct fsck *k, struct device *dev)
{
	struct look *looks = mem_zalloc_array(LOOKS, sizeof(*looks));
	uint32_t n = k->geo.total.slots, started = 0;
	struct device_info info;
	int r = looks ? 0 : fsck_error(k, -ENOMEM, "no memory");

	device_info(dev, &info);
	k->res->commit = info.commit;
	k->res->cgen_highest = info.cgen_highest;
	if (info.slots_n != n) {
		fsck_say(k, FSCK_ERROR, "device-differs",
			 "the opened device has %u slots, the format has room for %u", info.slots_n,
			 n);
		n = 0;
	}
	for (uint32_t s = 0; s < n && !r; s++) {
		for (; started < n && started < s + LOOKS; started++)
			look_start(k, dev, &looks[started % LOOKS], started);
		r = look_finish(k, dev, &looks[s % LOOKS], s);
		if (k->o->progress)
			k->o->progress(k->o->progress_arg, (uint64_t)(s + 1) << k->geo.chunk_shift,
				       (uint64_t)n << k->geo.chunk_shift);
	}
	for (uint32_t i = 0; i < LOOKS && looks && started;
	     i++) /* after an error some are still under way */
		fsck_wait(k, &looks[i].rq.done);
	mem_free(looks);
	return r;
}

/* ---- duplicates ------------------------------------------------------------------------------------------------------------------ */

struct tenant {
	uint64_t cgen;
	layer_id layer;
	uint32_t chunk, slot;
};

static int by_cgen(const void *a, const void *b)
{
	const struct tenant *x = a, *y = b;

	return x->cgen != y->cgen ? (x->cgen < y->cgen ? -1 : 1) : (x->slot < y->slot ? -1 : 1);
}

static int by_chunk(const void *a, const void *b)
{
	const struct tenant *x = a, *y = b;

	if (x->layer != y->layer)
		return x->layer < y->layer ? -1 : 1;
	if (x->chunk != y->chunk)
		return x->chunk < y->chunk ? -1 : 1;
	return by_cgen(a, b);
}

static void tell_duplicates(struct fsck *k, struct tenant *t, size_t n)
{
	qsort(t, n, sizeof(*t), by_cgen);
	for (size_t i = 1; i < n; i++)
		if (t[i].cgen == t[i - 1].cgen)
			fsck_say_slot(k, FSCK_ERROR, "duplicate-cgen", t[i].slot,
				      "slots %u and %u both hold cgen %" PRIu64, t[i - 1].slot,
				      t[i].slot, t[i].cgen);
	qsort(t, n, sizeof(*t), by_chunk);
	for (size_t i = 1; i < n; i++)
		if (t[i].layer == t[i - 1].layer && t[i].chunk == t[i - 1].chunk &&
		    t[i].cgen != t[i - 1].cgen)
			fsck_say_slot(k, FSCK_NOTE, "duplicate-chunk", t[i - 1].slot,
				      "slots %u (cgen %" PRIu64 ") and %u (cgen %" PRIu64
				      ") both hold layer %u chunk %u; the higher cgen counts",
				      t[i - 1].slot, t[i - 1].cgen, t[i].slot, t[i].cgen,
				      t[i].layer, t[i].chunk);
}

static int check_duplicates(struct fsck *k, struct device *dev)
{
	struct tenant *t = mem_zalloc_array(k->res->slots_open_n + 1u, sizeof(*t));
	size_t n = 0;

	if (!t)
		return fsck_error(k, -ENOMEM, "no memory");
	for (uint32_t s = 0; s < k->geo.total.slots; s++) {
		struct device_slot d;

		if (device_slot_get(dev, s, &d) == 0 && d.state == DEVICE_SLOT_OPEN &&
		    n < k->res->slots_open_n)
			t[n++] = (struct tenant){d.cgen, d.layer, d.chunk, s};
	}
	tell_duplicates(k, t, n);
	mem_free(t);
	return 0;
}

/* ---- layers -------------------------------------------------------------------------------------------------------------------- */

/* The record of a layer that is gone is dropped from the device soon after; a crash in between leaves it until the device is served again. */
static void check_layers(struct fsck *k, struct device *dev)
{
	struct device_layer l = {.layer = 0};

	while (device_layer_next(dev, l.layer, &l) == 0)
		if (!k->o->layer_exists(k->o->layer_arg, l.layer))
			fsck_say(
			    k, FSCK_NOTE, "layer-gone",
			    "it has the record of layer %u, of volume %s, which is gone: it is "
			    "dropped when the device is served",
			    l.layer, l.name);
}
