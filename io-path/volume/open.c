/* SPDX-License-Identifier: Apache-2.0 */
/* open.c - opening a volume.
 *
 *   volume_open -> [runtime: new -> OPENING* -> OPEN] -> handle -> done
 *
 * All who ask while the runtime is OPENING are answered by the one metadata call that is under way. An OPEN or DRAINING runtime
 * needs no metadata server: this node owns the volume. A CLOSING one must end first; then a new runtime asks again.
 *
 * Nobody waits for longer than open_timeout_ns. The call under way may still make us the owner after that, so the runtime waits for its
 * answer, and gives up what nobody wants any more: else the volume could be opened nowhere else, and not be deleted.
 *
 * A runtime whose volume was taken away keeps living for its handles, but nobody finds it by name any more: the next open asks
 * the server. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "io-path/volume/runtime.h"
#include "src/base/log.h"
#include "src/base/math.h"
#include "src/base/mem.h"

static void open_dispatch(struct volumes *vs, struct volume_open *op);
static void open_wait(struct volume *v, struct volume_open *op);
static int volume_new(struct volumes *vs, const struct volume_handle *h, struct volume **ret_v);
static void open_ask(struct volume *v);
static void open_done(struct meta_req *r);
static int open_accept(struct volume *v);
static void open_failed(struct volume *v, int status);
static void open_refuse(struct volume *v, struct volume_open *op, int status);
static void open_attach(struct volume *v, struct volume_open *op);
static void open_finish(struct volumes *vs, struct volume_open *op, int status, const char *fmt,
			...) __attribute__((format(printf, 4, 5)));

/* op->priv[0] while the open is under way */
static struct volume_handle *handle_of(struct volume_open *op)
{
	return (struct volume_handle *)(uintptr_t)op->priv[0];
}

void volume_open(struct volumes *vs, struct volume_open *op)
{
	char volume[NAME_LEN_MAX + 1], snapshot[NAME_LEN_MAX + 1];
	size_t client_len = strlen(op->client) + 1;
	struct volume_handle *h;

	op->status = 0;
	op->errmsg[0] = op->owner_uri[0] = '\0';
	op->handle = NULL;
	op->priv[0] = 0;
	if (vs->closing) {
		open_finish(vs, op, -ESHUTDOWN, "the node is shutting down");
		return;
	}
	if (name_split(op->name, volume, snapshot)) {
		open_finish(vs, op, -EINVAL, "'%.130s' is no name of a volume or snapshot",
			    op->name);
		return;
	}
	h = mem_zalloc(sizeof(*h) + client_len);
	if (!h) {
		open_finish(vs, op, -ENOMEM, "out of memory");
		return;
	}
	memcpy(h->client, op->client, client_len);
	memcpy(h->volume_name, volume, sizeof(volume));
	memcpy(h->snapshot_name, snapshot, sizeof(snapshot));
	snprintf(h->name, sizeof(h->name), "%s%s%s", volume, snapshot[0] ? "@" : "", snapshot);
	h->read_only = op->read_only;
	h->exclusive = op->exclusive;
	h->remote_client = op->remote_client;
	list_init(&h->link);
	op->priv[0] = (uintptr_t)h;
	open_dispatch(vs, op);
}

static void open_dispatch(struct volumes *vs, struct volume_open *op)
{
	struct volume_handle *h = handle_of(op);
	struct volume *v = volume_find(vs, h->name);
	int rc;

	if (!v) {
		rc = volume_new(vs, h, &v);
		if (rc) {
			open_finish(vs, op, rc, "no memory for another open volume");
			return;
		}
		open_wait(v, op);
		open_ask(v);
		return;
	}
	switch (v->state) {
	case VOLUME_OPENING:
	case VOLUME_CLOSING:
		open_wait(v, op);
		break;
	case VOLUME_DRAINING:
		v->state = VOLUME_OPEN;
		open_attach(v, op);
		break;
	case VOLUME_OPEN:
		open_attach(v, op);
		break;
	}
}

/* For OPENING or CLOSING to end. */
static void open_wait(struct volume *v, struct volume_open *op)
{
	list_push(&v->opens, &op->link);
	if (v->opens_due_ns == 0)
		v->opens_due_ns = ioe_now_ns(v->vs->ioe) + v->vs->limits.open_timeout_ns;
	volume_timer_want(v, v->opens_due_ns);
}

void opens_tick(struct volume *v, uint64_t now_ns)
{
	if (v->opens_due_ns > now_ns) {
		volume_timer_want(v, v->opens_due_ns);
		return;
	}
	open_refuse_all(v, -E_META_AWAY);
}

/* ---- the runtime ------------------------------------------------------------------------------------------------------ */

struct volume *volume_find(struct volumes *vs, const char *name)
{
	uint64_t key = hash_bytes(name, strlen(name));

	htab_for_each_key (n, &vs->by_name, key) {
		struct volume *v = container_of(n, struct volume, by_name);

		if (strcmp(v->name, name) == 0)
			return v;
	}
	return NULL;
}

static int volume_new(struct volumes *vs, const struct volume_handle *h, struct volume **ret_v)
{
	struct volume *v = mem_zalloc(sizeof(*v));
	int rc;

	if (!v)
		return -ENOMEM;
	v->vs = vs;
	v->state = VOLUME_OPENING;
	v->serial = ++vs->serial;
	memcpy(v->name, h->name, sizeof(v->name));
	memcpy(v->volume_name, h->volume_name, sizeof(v->volume_name));
	memcpy(v->snapshot_name, h->snapshot_name, sizeof(v->snapshot_name));
	list_init(&v->opens);
	list_init(&v->handles);
	list_init(&v->piece_waiters);
	list_init(&v->scratch_waiters);
	list_init(&v->starved_link);
	list_init(&v->pages);
	range_lock_init(&v->lock);
	volume_close_init(v);
	map_alloc_init(v);
	map_update_init(v);
	reclaim_init(v);
	rc =
	    fixed_pool_init(&v->pieces, vs->limits.pieces_per_volume, sizeof(struct vol_piece), 64);
	if (rc)
		goto fail;
	rc = fixed_pool_init(&v->scratch, vs->limits.scratch_per_volume,
			     SCRATCH_BLOCKS * BLOCK_BYTES, BLOCK_BYTES);
	if (rc)
		goto fail_pieces;
	rc = htab_init(&v->devices, 16);
	if (rc)
		goto fail_scratch;
	htab_add(&vs->by_name, &v->by_name, hash_bytes(v->name, strlen(v->name)));
	list_push(&vs->all, &v->link);
	*ret_v = v;
	return 0;

fail_scratch:
	fixed_pool_free(&v->scratch);
fail_pieces:
	fixed_pool_free(&v->pieces);
fail:
	mem_free(v);
	return rc;
}

void volume_free(struct volume *v)
{
	check(list_empty(&v->handles) && list_empty(&v->opens) && v->in_flight == 0);
	check(list_empty(&v->piece_waiters) && list_empty(&v->scratch_waiters) && !v->timer_armed);
	map_forget(v);
	reclaim_free(v);
	volume_close_cancel(v);
	vol_task_cancel(&v->alloc.task);
	vol_task_cancel(&v->update.task);
	vol_devices_free(v);
	htab_free(&v->devices);
	fixed_pool_free(&v->scratch);
	fixed_pool_free(&v->pieces);
	volume_hide(v);
	list_del(&v->starved_link);
	list_del(&v->link);
	mem_free(v);
}

/* Nobody finds it by name any more. */
void volume_hide(struct volume *v)
{
	if (!v->hidden)
		htab_del(&v->vs->by_name, &v->by_name);
	v->hidden = true;
}

/* ---- asking the metadata server --------------------------------------------------------------------------------------- */

/* With the wishes of the first of those who wait. */
static void open_ask(struct volume *v)
{
	const struct volume_handle *h = handle_of(list_first(&v->opens, struct volume_open, link));
	struct meta_open *m = &v->open_req;

	/* the handle may go first */
	snprintf(v->open_client, sizeof(v->open_client), "%s", h->client);
	*m = (struct meta_open){
	    .req = {.done = open_done,
		    .timeout_ns = v->vs->limits.open_timeout_ns,
		    .hears_out = true},
	    .volume = v->volume_name,
	    .snapshot = v->snapshot_name,
	    .exclusive = h->exclusive,
	    .read_only = v->snapshot_name[0] != '\0', /* a head's later openers may write */
	    .client = v->open_client,
	};
	v->vs->meta->ops->open(v->vs->meta, m);
}

static void open_done(struct meta_req *r)
{
	struct volume *v = container_of(r, struct volume, open_req.req);
	int status = r->status;

	check(v->state == VOLUME_OPENING);
	if (status) {
		open_failed(v, status);
		return;
	}
	status = open_accept(v);
	if (status) { /* it is ours now, and must be given back */
		snprintf(r->errmsg, ERRMSG_LEN, "the metadata server's answer cannot be used: %s",
			 err_text(status));
		open_refuse_all(v, status);
		volume_give_up(v);
		return;
	}
	v->state = VOLUME_OPEN;
	v->opens_due_ns = 0;
	log_info("volume opened", "vol=%s epoch=%" PRIu64 " size=%" PRIu64, v->name, v->epoch,
		 v->size_bytes);
	while (!list_empty(&v->opens))
		open_attach(v, list_entry(list_pop(&v->opens), struct volume_open, link));
	if (v->handles_n == 0) {
		/* they are tired of waiting, or who wanted it alone did not get it */
		volume_drain(v);
		return;
	}
	v->prefetch_end = (uint32_t)MIN(div_up(volume_chunks_n(v), MAP_PAGE_CHUNKS),
					(uint64_t)v->vs->limits.prefetch_pages);
	map_prefetch(v);
}

/* Is what the server says of the volume usable? Takes it over. */
static int open_accept(struct volume *v)
{
	const struct meta_open *m = &v->open_req;
	bool stable = m->devices_n > 0;

	if (m->chunk_shift != CHUNK_SHIFT_FLASH && m->chunk_shift != CHUNK_SHIFT_DISK)
		return -E_VERSION;
	if (m->sector_bytes != SECTOR_BYTES && m->sector_bytes != BLOCK_BYTES)
		return -E_VERSION;
	if (m->id == 0 || m->epoch == 0 || m->layers_n == 0 || m->layers_n > LAYERS_MAX ||
	    m->devices_n > META_DEVICES_MAX)
		return -E_PROTOCOL;
	if (m->size_bytes < VOLUME_BYTES_MIN || m->size_bytes > VOLUME_BYTES_MAX ||
	    m->size_bytes % BLOCK_BYTES)
		return -E_PROTOCOL;
	v->id = m->id;
	v->uuid = m->uuid;
	v->epoch = m->epoch;
	v->size_bytes = m->size_bytes;
	v->sector_bytes = m->sector_bytes;
	v->chunk_shift = m->chunk_shift;
	v->chunk_blocks = 1U << (m->chunk_shift - BLOCK_SHIFT);
	v->write_cache = m->write_cache;
	v->frozen = m->frozen || v->snapshot_name[0] != '\0';
	v->one_opener = m->one_opener;
	v->layers_n = m->layers_n;
	v->layers = m->layers;
	/* What earlier owners wrote may still be volatile anywhere in the pool: the first FLUSH goes to each device. */
	for (uint32_t i = 0; i < m->devices_n; i++) {
		struct vol_device *d = vol_device_get(v, m->devices[i]);

		if (!d)
			return -ENOMEM;
		d->acked = 1;
		stable = stable && vol_device_is_stable(d);
	}
	v->all_stable = stable;
	return 0;
}

static void open_failed(struct volume *v, int status)
{
	struct list *first = list_pop(&v->opens);

	if (first)
		open_refuse(v, list_entry(first, struct volume_open, link), status);
	/* The others may not have wanted it alone. */
	if (status == -E_IN_USE && !list_empty(&v->opens)) {
		open_ask(v);
		return;
	}
	open_refuse_all(v, status);
	volume_end(v);
}

static void open_refuse(struct volume *v, struct volume_open *op, int status)
{
	const struct meta_open *m = &v->open_req;

	memcpy(op->owner_uri, m->owner_uri, sizeof(op->owner_uri));
	open_finish(v->vs, op, status, "%s", m->req.errmsg[0] ? m->req.errmsg : err_text(status));
}

void open_refuse_all(struct volume *v, int status)
{
	v->opens_due_ns = 0;
	while (!list_empty(&v->opens))
		open_refuse(v, list_entry(list_pop(&v->opens), struct volume_open, link), status);
}

/* The runtime is gone: those who came while it was closing begin anew. */
void open_again(struct volumes *vs, struct list *opens)
{
	struct list *l;

	while ((l = list_pop(opens))) {
		struct volume_open *op = list_entry(l, struct volume_open, link);

		if (vs->closing)
			open_finish(vs, op, -ESHUTDOWN, "the node is shutting down");
		else
			open_dispatch(vs, op);
	}
}

/* ---- handles ---------------------------------------------------------------------------------------------------------- */

static const struct volume_handle *in_the_way(const struct volume *v, const struct volume_handle *h)
{
	list_for_each (l, &v->handles) {
		const struct volume_handle *other = list_entry(l, struct volume_handle, link);

		if (!other->closing && (h->exclusive || other->exclusive || v->one_opener))
			return other;
	}
	return NULL;
}

static void open_attach(struct volume *v, struct volume_open *op)
{
	struct volume_handle *h = handle_of(op);
	const struct volume_handle *other = in_the_way(v, h);

	if (other) {
		open_finish(v->vs, op, -E_IN_USE, "in use%s by %.150s",
			    other->exclusive || v->one_opener ? " exclusively" : "", other->client);
		return;
	}
	h->v = v;
	h->read_only = h->read_only || v->frozen;
	h->stable = v->write_cache == META_CACHE_WRITETHROUGH ||
		    (v->write_cache == META_CACHE_AUTO && (h->remote_client || v->all_stable));
	if (!h->read_only) {
		h->loss_owed = v->loss_owed;
		v->loss_owed = false;
	}
	volume_handle_init(h);
	list_push(&v->handles, &h->link);
	v->handles_n++;
	op->handle = h;
	op->priv[0] = 0;
	open_finish(v->vs, op, 0, "%s", "");
}

/* The answer follows at the end of the turn. */
static void open_finish(struct volumes *vs, struct volume_open *op, int status, const char *fmt, ...)
{
	va_list ap;

	mem_free(handle_of(op));
	op->status = status;
	va_start(ap, fmt);
	vsnprintf(op->errmsg, sizeof(op->errmsg), fmt, ap);
	va_end(ap);
	list_push(&vs->opened, &op->link);
	volumes_arm(vs);
}

void volume_geometry(struct volume_handle *h, struct volume_geometry *ret_geometry)
{
	const struct volume *v = h->v;

	*ret_geometry = (struct volume_geometry){
	    .size_bytes = v->size_bytes,
	    .sector_bytes = v->sector_bytes,
	    .physical_bytes = BLOCK_BYTES,
	    .io_bytes_max = VOLUME_IO_BYTES_MAX,
	    .chunk_bytes = 1U << v->chunk_shift,
	    .read_only = h->read_only,
	    .one_opener = v->one_opener || h->exclusive,
	    .write_cache = !h->stable,
	    .uuid = v->uuid,
	};
	memcpy(ret_geometry->name, v->name, sizeof(v->name));
}
