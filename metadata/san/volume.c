/* SPDX-License-Identifier: Apache-2.0 */
/* volume.c - volumes and their layers: create, look, change, begin to delete, list. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "metadata/san/state.h"
#include "src/base/check.h"
#include "src/base/mem.h"

/* ---- as part of a batch ---------------------------------------------------------------------------------------------------- */

size_t volume_encode(const struct volume *vol, const struct schema_key *k, uint8_t *out)
{
	return schema_volume_encode(&vol->v, k, out);
}

static void volume_emit(struct san *s, struct txn_obj *o)
{
	struct volume *vol = container_of(o, struct volume, obj);
	struct schema_key k = schema_key_32(SCHEMA_VOLUME, vol->v.id);
	struct schema_key name = schema_key_name(vol->v.name);

	if (vol->gone)
		txn_delete(s, &k);
	else
		txn_put(s, &k, volume_encode(vol, &k, txn_value(s)));
	if (vol->name_delete)
		txn_delete(s, &name);
	else if (vol->name_put)
		txn_put(s, &name, schema_name_encode(vol->v.id, &name, txn_value(s)));
	vol->name_put = vol->name_delete = false;
}

static void volume_committed(struct san *s, struct txn_obj *o)
{
	struct volume *vol = container_of(o, struct volume, obj);

	(void)s;
	if (vol->gone)
		mem_free(vol);
}

static const struct txn_obj_type volume_type = {
    .smalls = VOLUME_SMALLS,
    .emit = volume_emit,
    .committed = volume_committed,
};

void volume_mark(struct san *s, struct volume *vol)
{
	txn_mark(s, &vol->obj);
}

size_t layer_encode(const struct layer *l, const struct schema_key *k, uint8_t *out)
{
	struct schema_layer rec = {
	    .parent = l->parent ? l->parent->id : 0,
	    .volume = l->volume->v.id,
	    .frozen = l->frozen,
	    .size_bytes = l->size_bytes,
	    .commit = l->commit,
	};

	if (l->snapshot)
		snprintf(rec.snapshot, sizeof(rec.snapshot), "%s", l->snapshot);
	return schema_layer_encode(&rec, k, out);
}

static void layer_emit(struct san *s, struct txn_obj *o)
{
	struct layer *l = container_of(o, struct layer, obj);
	struct schema_key k = schema_key_32(SCHEMA_LAYER, l->id);
	struct schema_key counters = schema_key_32(SCHEMA_USAGE, l->id);

	if (l->gone) {
		txn_delete(s, &k);
		txn_delete(s, &counters);
		return;
	}
	if (l->header_dirty)
		txn_put(s, &k, layer_encode(l, &k, txn_value(s)));
	if (l->counters_dirty)
		txn_put(s, &counters, schema_usage_encode(&l->n, &counters, txn_value(s)));
	l->header_dirty = l->counters_dirty = false;
}

static void layer_committed(struct san *s, struct txn_obj *o)
{
	struct layer *l = container_of(o, struct layer, obj);

	(void)s;
	if (l->gone)
		layer_free(l);
}

static const struct txn_obj_type layer_type = {
    .smalls = LAYER_SMALLS,
    .emit = layer_emit,
    .committed = layer_committed,
};

void layer_mark(struct san *s, struct layer *l)
{
	l->header_dirty = true;
	l->commit = txn_commit_no(s);
	txn_mark(s, &l->obj);
}

void layer_counted(struct san *s, struct layer *l)
{
	l->counters_dirty = l->touched = true;
	txn_mark(s, &l->obj);
}

/* ---- tables ---------------------------------------------------------------------------------------------------------------- */

static uint64_t name_hash(const char *name)
{
	return hash_bytes(name, strlen(name));
}

struct volume *volume_by_name(const struct san *s, const char *name)
{
	htab_for_each_key (n, &s->names, name_hash(name)) {
		struct volume *vol = container_of(n, struct volume, by_name);

		if (strcmp(vol->v.name, name) == 0)
			return vol;
	}
	return NULL;
}

struct volume *volume_by_id(const struct san *s, volume_id id)
{
	return idtab_get(&s->volumes, id);
}

int volume_new(struct san *s, const struct san_volume *v, struct volume **ret_vol)
{
	struct volume *vol = mem_zalloc(sizeof(*vol));

	if (!vol || idtab_reserve(&s->volumes)) {
		mem_free(vol);
		return -ENOMEM;
	}
	vol->obj.type = &volume_type;
	vol->v = *v;
	idtab_add(&s->volumes, v->id, vol);
	if (v->state == SAN_VOLUME_READY)
		htab_add(&s->names, &vol->by_name, name_hash(v->name));
	*ret_vol = vol;
	return 0;
}

int layer_new(struct san *s, layer_id id, const struct schema_layer *rec, struct layer *parent,
	      struct volume *vol, struct layer **ret_l)
{
	struct layer *l = mem_zalloc(sizeof(*l));

	if (!l || idtab_reserve(&s->layers))
		goto no_memory;
	if (rec->snapshot[0]) {
		l->snapshot = mem_strdup(rec->snapshot);
		if (!l->snapshot)
			goto no_memory;
	}
	l->obj.type = &layer_type;
	l->id = id;
	l->parent = parent;
	l->volume = vol;
	l->frozen = rec->frozen;
	l->size_bytes = rec->size_bytes;
	l->commit = rec->commit;
	if (parent)
		parent->children_n++;
	idtab_add(&s->layers, id, l);
	*ret_l = l;
	return 0;
no_memory:
	mem_free(l);
	return -ENOMEM;
}

void layer_free(struct layer *l)
{
	mem_free(l->snapshot);
	mem_free(l);
}

void volume_forget(struct san *s, struct volume *vol)
{
	struct layer *l = vol->head;

	if (l->parent)
		l->parent->children_n--;
	idtab_del(&s->layers, l->id);
	idtab_del(&s->volumes, vol->v.id);
	l->gone = vol->gone = true;
	s->layers_gone++;
	txn_mark(s, &l->obj);
	txn_mark(s, &vol->obj);
	txn_note(s, NOTE_LAYER_GONE, l->id);
}

void volume_fill(const struct volume *vol, struct san_volume *ret_v)
{
	*ret_v = vol->v;
	ret_v->chunks_n = vol->head->n.chunks_n;
}

struct volume *volume_owned(struct san *s, struct san_req *r, volume_id id, uint64_t epoch)
{
	struct volume *vol = volume_by_id(s, id);

	if (!vol || vol->v.state != SAN_VOLUME_READY) {
		san_op_fail(r, -ENOENT, "there is no volume %u", id);
		return NULL;
	}
	if (!vol->v.is_open || vol->v.epoch != epoch) {
		san_op_fail(r, -E_STALE_EPOCH, "volume %s is at epoch %" PRIu64 "%s, not %" PRIu64,
			    vol->v.name, vol->v.epoch, vol->v.is_open ? "" : " and closed", epoch);
		return NULL;
	}
	return vol;
}

/* ---- create ---------------------------------------------------------------------------------------------------------------- */

static bool size_fits(struct san_req *r, uint64_t size)
{
	if (size % BLOCK_BYTES == 0 && size >= VOLUME_BYTES_MIN && size <= VOLUME_BYTES_MAX)
		return true;
	san_op_fail(r, -EINVAL,
		    "the size must be a multiple of 4096 bytes, at least 4096 and at most 1 PiB");
	return false;
}

static bool create_fits(struct san_volume_create *r)
{
	if (!name_is_valid(r->name))
		san_op_fail(
		    &r->req, -EINVAL,
		    "a name has 1 to 63 letters, digits, '.', '_' and '-', and begins with a "
		    "letter or digit");
	else if (!size_fits(&r->req, r->size_bytes))
		;
	else if (r->sector_bytes != SECTOR_BYTES && r->sector_bytes != BLOCK_BYTES)
		san_op_fail(&r->req, -EINVAL, "the sector size must be 512 or 4096");
	else if (r->chunk_shift != CHUNK_SHIFT_FLASH && r->chunk_shift != CHUNK_SHIFT_DISK)
		san_op_fail(&r->req, -EINVAL, "chunks are 1 MiB or 4 MiB");
	else if ((unsigned)r->write_cache > SAN_CACHE_WRITETHROUGH)
		san_op_fail(&r->req, -EINVAL, "there is no such write cache mode");
	else if (!once_ok(&r->once))
		san_op_fail(&r->req, -EINVAL, "a key has 1 to 64 bytes");
	return r->req.status == 0;
}

static enum exec create_exec(struct san *s, struct san_req *req)
{
	struct san_volume_create *r = container_of(req, struct san_volume_create, req);
	struct pool *p = pool_of(s, r->pool);
	struct san_volume v = {
	    .state = SAN_VOLUME_READY,
	    .size_bytes = r->size_bytes,
	    .sector_bytes = r->sector_bytes,
	    .chunk_shift = r->chunk_shift,
	    .pool = r->pool,
	    .policy = r->policy,
	    .write_cache = r->write_cache,
	};
	struct schema_layer rec = {.size_bytes = r->size_bytes};
	struct volume *vol;

	if (!txn_fits(s, 0, VOLUME_SMALLS + LAYER_SMALLS + ONCE_SMALLS) || s->txn.names_deleted)
		return EXEC_MORE;
	if (volume_by_name(s, r->name))
		return san_op_fail(req, -EEXIST, "there is a volume %s already", r->name);
	if (p && p->devices_n && p->devices[0]->chunk_shift != r->chunk_shift)
		return san_op_fail(req, -EINVAL, "the pool has chunks of another size");
	if (s->cluster.volume == UINT32_MAX || s->cluster.layer == UINT32_MAX)
		return san_op_fail(req, -ENOSPC, "all volume numbers have been used");

	v.id = s->cluster.volume + 1;
	v.head = s->cluster.layer + 1;
	v.uuid = ioe_uuid(s->ioe);
	v.created_ns = ioe_wall_ns(s->ioe);
	v.epoch_commit = txn_commit_no(s);
	snprintf(v.name, sizeof(v.name), "%s", r->name);
	if (volume_new(s, &v, &vol))
		return san_op_fail(req, -ENOMEM, "out of memory");
	if (layer_new(s, v.head, &rec, NULL, vol, &vol->head)) {
		htab_del(&s->names, &vol->by_name);
		idtab_del(&s->volumes, v.id);
		mem_free(vol);
		return san_op_fail(req, -ENOMEM, "out of memory");
	}
	s->cluster.volume++;
	s->cluster.layer++;
	s->cluster_dirty = true;
	vol->name_put = true;
	volume_mark(s, vol);
	layer_mark(s, vol->head);
	txn_note(s, NOTE_LAYER, v.head);
	once_put(s, &r->once, SAN_ONCE_VOLUME, v.id);
	volume_fill(vol, &r->volume);
	return EXEC_DONE;
}

void san_volume_create(struct san *s, struct san_volume_create *r)
{
	san_op_begin(s, &r->req, create_exec, NULL);
	if (create_fits(r))
		san_op_write(&r->req);
	else
		san_op_refuse(&r->req, r->req.status);
}

/* ---- get ------------------------------------------------------------------------------------------------------------------- */

static enum exec get_exec(struct san *s, struct san_req *req)
{
	struct san_volume_get *r = container_of(req, struct san_volume_get, req);
	struct volume *vol = r->name ? volume_by_name(s, r->name) : volume_by_id(s, r->id);

	san_op_of(req)->wait = true;
	if (!vol && r->name)
		return san_op_fail(req, -ENOENT, "there is no volume %.64s", r->name);
	if (!vol)
		return san_op_fail(req, -ENOENT, "there is no volume %u", r->id);
	volume_fill(vol, &r->volume);
	return EXEC_DONE;
}

void san_volume_get(struct san *s, struct san_volume_get *r)
{
	san_op_begin(s, &r->req, get_exec, NULL);
	san_op_read(&r->req);
}

/* ---- set ------------------------------------------------------------------------------------------------------------------- */

static enum exec set_exec(struct san *s, struct san_req *req)
{
	struct san_volume_set *r = container_of(req, struct san_volume_set, req);
	struct volume *vol = volume_by_name(s, r->name);
	bool layer_changes; /* in what devices know of it */

	if (!txn_fits(s, 0, VOLUME_SMALLS + LAYER_SMALLS))
		return EXEC_MORE;
	if (!vol)
		return san_op_fail(req, -ENOENT, "there is no volume %.64s", r->name);
	if (r->size_bytes && r->size_bytes < vol->v.size_bytes)
		return san_op_fail(req, -EINVAL,
				   "volume %s has %" PRIu64 " bytes; a volume cannot shrink",
				   vol->v.name, vol->v.size_bytes);
	layer_changes =
	    r->size_bytes > vol->v.size_bytes ||
	    (r->write_cache >= 0 && (enum san_write_cache)r->write_cache != vol->v.write_cache);
	if (r->size_bytes > vol->v.size_bytes)
		vol->v.size_bytes = vol->head->size_bytes = r->size_bytes;
	if (r->policy)
		vol->v.policy = *r->policy;
	if (r->write_cache >= 0)
		vol->v.write_cache = (enum san_write_cache)r->write_cache;
	if (layer_changes) {
		layer_mark(s, vol->head);
		txn_note(s, NOTE_LAYER, vol->head->id);
	}
	if (layer_changes || r->policy)
		volume_mark(s, vol);
	if (r->exclusive && *r->exclusive != vol->v.exclusive) {
		vol->v.exclusive = *r->exclusive;
		volume_mark(s, vol);
	}
	volume_fill(vol, &r->volume);
	return EXEC_DONE;
}

void san_volume_set(struct san *s, struct san_volume_set *r)
{
	san_op_begin(s, &r->req, set_exec, NULL);
	if (r->write_cache > SAN_CACHE_WRITETHROUGH)
		san_op_fail(&r->req, -EINVAL, "there is no such write cache mode");
	if (r->req.status == 0 && (r->size_bytes == 0 || size_fits(&r->req, r->size_bytes)))
		san_op_write(&r->req);
	else
		san_op_refuse(&r->req, r->req.status);
}

/* ---- delete ---------------------------------------------------------------------------------------------------------------- */

static enum exec refuse_dependents(struct san *s, struct san_req *req, const struct volume *vol)
{
	struct layer *l;
	char names[ERRMSG_LEN / 2] = "";
	size_t len = 0;

	idtab_for_each (l, &s->layers) {
		if (l->parent != vol->head || len > sizeof(names) - NAME_LEN_MAX - 3)
			continue;
		len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%s", len ? ", " : "",
					l->volume->v.name);
	}
	return san_op_fail(req, -ENOTEMPTY, "other volumes depend on %s: %s", vol->v.name, names);
}

/* One of that name whose deletion failed: it has no name any more, but that is how people call it. */
static struct volume *half_deleted(const struct san *s, const char *name)
{
	struct volume *vol;

	idtab_for_each (vol, &s->volumes)
		if (vol->v.state == SAN_VOLUME_DELETING && strcmp(vol->v.name, name) == 0 &&
		    !job_unfinished(s, vol->v.delete_job))
			return vol;
	return NULL;
}

static enum exec delete_exec(struct san *s, struct san_req *req)
{
	struct san_volume_delete *r = container_of(req, struct san_volume_delete, req);
	struct volume *vol = r->name ? volume_by_name(s, r->name) : volume_by_id(s, r->id);
	struct job *job;

	if (!vol && r->name)
		vol = half_deleted(s, r->name);

	if (!txn_fits(s, 1, VOLUME_SMALLS + LAYER_SMALLS + JOB_SMALLS))
		return EXEC_MORE;
	if (!vol)
		return san_op_fail(req, -ENOENT, "there is no such volume");
	if (vol->v.state == SAN_VOLUME_DELETING && job_unfinished(s, vol->v.delete_job)) {
		r->job = vol->v.delete_job;
		return EXEC_DONE;
	}
	if (vol->v.is_open)
		return san_op_fail(req, -E_IN_USE, "volume %s is open on node %u", vol->v.name,
				   vol->v.owner);
	if (vol->head->children_n)
		return refuse_dependents(s, req, vol);
	job = job_new(s);
	if (!job)
		return san_op_fail(req, -ENOMEM, "out of memory");

	job_add(s, job, SAN_JOB_VOLUME_DELETE, (uint64_t[SAN_JOB_ARGS]){vol->v.id}, vol->v.name);
	job->j.total_n = vol->head->n.chunks_n;
	vol->v.delete_job = r->job = job->j.id;
	volume_mark(s, vol);
	if (vol->v.state == SAN_VOLUME_DELETING) /* the job before failed: again */
		return EXEC_DONE;
	htab_del(&s->names, &vol->by_name);
	vol->v.state = SAN_VOLUME_DELETING;
	vol->name_put = false;
	vol->name_delete = s->txn.names_deleted = true;
	layer_mark(s, vol->head);
	txn_note(s, NOTE_LAYER, vol->head->id);
	return EXEC_DONE;
}

void san_volume_delete(struct san *s, struct san_volume_delete *r)
{
	san_op_begin(s, &r->req, delete_exec, NULL);
	san_op_write(&r->req);
}

/* ---- list ------------------------------------------------------------------------------------------------------------------ */

static void list_cleanup(struct san_req *req)
{
	priv_free(container_of(req, struct san_volume_list, req)->priv);
}

/* The index gives the order, the resident headers the contents. */
static enum exec list_exec(struct san *s, struct san_req *req)
{
	struct san_volume_list *r = container_of(req, struct san_volume_list, req);
	struct scan *sc = r->priv;

	san_op_of(req)->wait = true;
	for (uint32_t i = 0; i < sc->m.items_n; i++) {
		const struct metastore_item *item = &sc->m.items[i];
		struct volume *vol;
		volume_id id;
		int ret = schema_name_decode(item->key, item->value, &id);

		if (ret)
			return san_op_fail(req, ret, "an entry of the index of names is damaged");
		vol = volume_by_id(s, id);
		if (vol && vol->v.state == SAN_VOLUME_READY)
			volume_fill(vol, &r->volumes[r->volumes_n++]);
	}
	r->more = sc->m.more;
	return EXEC_DONE;
}

static void list_scanned(struct scan *sc)
{
	struct san_volume_list *r = sc->arg;
	struct san *s = sc->s;
	bool all_gone = sc->m.status == 0 && sc->m.items_n > 0;

	for (uint32_t i = 0; i < sc->m.items_n && all_gone; i++) {
		char name[NAME_LEN_MAX + 1];

		all_gone =
		    schema_key_get_name(sc->m.items[i].key, name) && !volume_by_name(s, name);
	}
	if (sc->m.status)
		san_op_refuse(&r->req, sc->m.status);
	else if (all_gone && sc->m.more)
		scan_next(sc, list_scanned); /* an empty page would look like the end */
	else
		san_op_read(&r->req);
}

void san_volume_list(struct san *s, struct san_volume_list *r)
{
	struct schema_key prefix = schema_key_table(SCHEMA_NAME), after;
	uint32_t max = r->volumes_max;
	struct scan *sc = NULL;

	r->priv = NULL;
	r->volumes_n = 0;
	r->more = false;
	san_op_begin(s, &r->req, list_exec, list_cleanup);
	if (max == 0 || max > SAN_LIST_MAX || strlen(r->after) > NAME_LEN_MAX) {
		san_op_refuse(&r->req, -EINVAL);
		return;
	}
	sc = r->priv = scan_new(s, max, (size_t)max * (SCHEMA_KEY_MAX + 16));
	if (!sc) {
		san_op_refuse(&r->req, -ENOMEM);
		return;
	}
	after = schema_key_name(r->after);
	scan_start(sc, &prefix, &after, list_scanned, r);
}

uint32_t san_volume_pool(const struct san *s, volume_id id)
{
	const struct volume *vol = volume_by_id(s, id);

	return vol ? vol->v.pool : 0;
}

uint32_t san_volumes_n(const struct san *s)
{
	return (uint32_t)s->names.count;
}

/* ---- layers ---------------------------------------------------------------------------------------------------------------- */

static int layer_fill(const struct layer *l, struct san_layer *ret_layer)
{
	if (!l)
		return -ENOENT;
	*ret_layer = (struct san_layer){
	    .layer = l->id,
	    .parent = l->parent ? l->parent->id : 0,
	    .volume = l->volume->v.id,
	    .frozen = l->frozen,
	    .deleted = l->volume->v.state == SAN_VOLUME_DELETING,
	    .size_bytes = l->size_bytes,
	    .sector_bytes = l->volume->v.sector_bytes,
	    .write_cache = l->volume->v.write_cache,
	    .commit = l->commit,
	    .chunks_n = l->n.chunks_n,
	};
	memcpy(ret_layer->name, l->volume->v.name, sizeof(ret_layer->name));
	if (l->snapshot)
		snprintf(ret_layer->snapshot, sizeof(ret_layer->snapshot), "%s", l->snapshot);
	return 0;
}

int san_layer_get(const struct san *s, layer_id layer, struct san_layer *ret_layer)
{
	return layer_fill(idtab_get(&s->layers, layer), ret_layer);
}

int san_layer_next(struct san *s, layer_id after, struct san_layer *ret_layer)
{
	return layer_fill(idtab_above(&s->layers, after), ret_layer);
}
