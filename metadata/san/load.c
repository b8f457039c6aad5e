/* SPDX-License-Identifier: Apache-2.0 */
/* load.c - from the database to memory.
 *
 *   START -> CLUSTER* -> (a new one: EMPTY?* -> CREATE*) -> one table after the other* -> LINK -> DONE        (* suspends)
 *
 * A record that is damaged, or that contradicts another one, refuses the open with a sentence that names it: serving from half a truth would spread
 * the damage. Map pages are read only when needed; the check reads them all. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "metadata/san/state.h"
#include "src/base/check.h"
#include "src/base/mem.h"

struct load {
	struct san_open *op;
	struct san *s;
	struct scan *scan;
	uint32_t table; /* index in `tables` */
	struct metastore_commit commit;
	struct metastore_guard guard;
	struct metastore_change change;
	struct schema_key key;
	uint8_t value[SCHEMA_SMALL_MAX];
};

static void cluster_scanned(struct scan *sc);
static void emptiness_scanned(struct scan *sc);
static void cluster_create(struct load *ld);
static void cluster_created(struct metastore_commit *c);
static void table_begin(struct load *ld);
static void table_scanned(struct scan *sc);
static int load_device(struct load *ld, const struct metastore_item *i);
static int load_space(struct load *ld, const struct metastore_item *i);
static int load_volume(struct load *ld, const struct metastore_item *i);
static int load_layer(struct load *ld, const struct metastore_item *i);
static int load_usage(struct load *ld, const struct metastore_item *i);
static int load_job(struct load *ld, const struct metastore_item *i);
static int load_once(struct load *ld, const struct metastore_item *i);
static int link_volumes(struct load *ld);
static void load_end(struct load *ld, int status);

static const struct {
	enum schema_table table;
	const char *name;
	int (*load)(struct load *ld, const struct metastore_item *i);
} tables[] = {
    {SCHEMA_DEVICE, "device", load_device}, {SCHEMA_SPACE, "space page", load_space},
    {SCHEMA_VOLUME, "volume", load_volume}, {SCHEMA_LAYER, "layer", load_layer},
    {SCHEMA_USAGE, "usage", load_usage},    {SCHEMA_JOB, "job", load_job},
    {SCHEMA_ONCE, "key", load_once},
};

enum { SCAN_ITEMS = 512, SCAN_BYTES = 1 << 20 };

/* ---- start ---------------------------------------------------------------------------------------------------------------- */

static struct san *san_new(const struct san_config *cfg)
{
	struct san *s = mem_zalloc(sizeof(*s));

	if (!s)
		return NULL;
	s->ioe = cfg->ioe;
	s->store = cfg->store;
	s->cb = cfg->cb;
	s->seed = cfg->seed;
	list_init(&s->reads);
	list_init(&s->writes);
	list_init(&s->refused);
	list_init(&s->privates);
	ioe_hook_init(&s->hook, txn_turn);
	txn_init(s);
	s->txn.arena = mem_alloc(TXN_ARENA_LEN);
	s->events.events = mem_zalloc_array(SAN_EVENTS_WAITING_MAX, sizeof(s->events.events[0]));
	s->once = mem_zalloc_array(SAN_ONCE_KEPT, sizeof(s->once[0]));
	if (s->txn.arena && s->events.events && s->once && htab_init(&s->names, 64) == 0 &&
	    cache_init(s, cfg->cache_bytes) == 0)
		return s;
	san_free(s);
	return NULL;
}

static void no_memory(struct ioe_req *req)
{
	struct san_open *op = container_of(req, struct san_open, req);

	snprintf(op->errmsg, sizeof(op->errmsg), "out of memory");
	op->status = -ENOMEM;
	op->done(op);
}

void san_open(struct san_open *op)
{
	struct load *ld = mem_zalloc(sizeof(*ld));
	struct san *s = ld ? san_new(&op->cfg) : NULL;
	struct scan *sc = s ? scan_new(s, SCAN_ITEMS, SCAN_BYTES) : NULL;

	op->status = 0;
	op->errmsg[0] = '\0';
	if (!sc) {
		if (s)
			san_free(s);
		mem_free(ld);
		ioe_nop(op->cfg.ioe, &op->req, no_memory);
		return;
	}
	*ld = (struct load){.op = op, .s = s, .scan = sc, .key = cluster_key()};
	op->priv = ld;
	scan_start(sc, &ld->key, NULL, cluster_scanned, ld);
}

/* Sets the sentence and returns status. */
static int bad(struct load *ld, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int bad(struct load *ld, int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(ld->op->errmsg, sizeof(ld->op->errmsg), fmt, ap);
	va_end(ap);
	return status;
}

/* ---- the cluster ---------------------------------------------------------------------------------------------------------- */

static void cluster_scanned(struct scan *sc)
{
	struct load *ld = sc->arg;
	struct san *s = ld->s;
	const struct metastore_item *i = &sc->items[0];
	int r = sc->m.status;

	if (r == 0 && sc->m.items_n == 0) {
		struct schema_key all = {.len = 0};

		scan_start(sc, &all, NULL, emptiness_scanned, ld);
		return;
	}
	if (r == 0)
		r = schema_cluster_decode(i->key, i->value, &s->cluster);
	if (r) {
		load_end(ld,
			 bad(ld, r, "the record of the cluster cannot be read: %s", err_text(r)));
		return;
	}
	memcpy(s->cluster_now, i->value.data, i->value.len);
	s->cluster_now_len = i->value.len;
	table_begin(ld);
}

static void emptiness_scanned(struct scan *sc)
{
	struct load *ld = sc->arg;

	if (sc->m.status)
		load_end(ld, bad(ld, sc->m.status, "the database cannot be read: %s",
				 err_text(sc->m.status)));
	else if (sc->m.items_n > 0)
		load_end(ld, bad(ld, -E_FORMAT, "the record of the cluster is missing"));
	else
		cluster_create(ld);
}

static void cluster_create(struct load *ld)
{
	struct san *s = ld->s;
	size_t len;

	s->cluster = (struct schema_cluster){
	    .uuid = ioe_uuid(s->ioe),
	    .created_ns = ioe_wall_ns(s->ioe),
	};
	len = schema_cluster_encode(&s->cluster, &ld->key, ld->value);
	ld->guard = (struct metastore_guard){schema_key_bytes(&ld->key), {NULL, 0}};
	ld->change = (struct metastore_change){schema_key_bytes(&ld->key), {ld->value, len}};
	ld->commit = (struct metastore_commit){
	    .guards = &ld->guard,
	    .guards_n = 1,
	    .changes = &ld->change,
	    .changes_n = 1,
	    .done = cluster_created,
	};
	memcpy(s->cluster_now, ld->value, len);
	s->cluster_now_len = len;
	metastore_commit(s->store, &ld->commit);
}

static void cluster_created(struct metastore_commit *c)
{
	struct load *ld = container_of(c, struct load, commit);

	load_end(ld, c->status ? bad(ld, c->status, "the database cannot be written: %s",
				     err_text(c->status))
			       : 0);
}

/* ---- tables --------------------------------------------------------------------------------------------------------------- */

static void table_begin(struct load *ld)
{
	if (ld->table == sizeof(tables) / sizeof(tables[0])) {
		load_end(ld, link_volumes(ld));
		return;
	}
	ld->key = schema_key_table(tables[ld->table].table);
	scan_start(ld->scan, &ld->key, NULL, table_scanned, ld);
}

static void table_scanned(struct scan *sc)
{
	struct load *ld = sc->arg;
	const char *name = tables[ld->table].name;

	if (sc->m.status) {
		load_end(ld, bad(ld, sc->m.status, "the %s records cannot be read: %s", name,
				 err_text(sc->m.status)));
		return;
	}
	for (uint32_t i = 0; i < sc->m.items_n; i++) {
		int r = tables[ld->table].load(ld, &sc->items[i]);

		if (r == 0)
			continue;
		if (!ld->op->errmsg[0])
			bad(ld, r, "a %s record cannot be used: %s", name, err_text(r));
		load_end(ld, r);
		return;
	}
	if (sc->m.more) {
		scan_next(sc, table_scanned);
		return;
	}
	ld->table++;
	table_begin(ld);
}

static int load_device(struct load *ld, const struct metastore_item *i)
{
	struct schema_device rec;
	struct device *d;
	device_no no;
	int r = schema_device_decode(i->key, i->value, &rec);

	if (r)
		return r;
	if (!schema_key_get_dev(i->key, &no) || no == 0 || no > ld->s->cluster.device)
		return -E_FORMAT;
	return san_device_new(ld->s, no, &rec, &d);
}

static int load_space(struct load *ld, const struct metastore_item *i)
{
	struct device *d;
	device_no no;
	uint32_t page;
	int r;

	if (!schema_key_get_dev_32(i->key, &no, &page))
		return -E_FORMAT;
	d = san_device_of(ld->s, no);
	r = d ? space_load(d, page, i->key, i->value) : -E_FORMAT;
	if (r)
		bad(ld, r, "space page %u of device %u cannot be used: %s", page, no, err_text(r));
	return r;
}

static int load_volume(struct load *ld, const struct metastore_item *i)
{
	struct volume *vol;
	struct san_volume v;
	int r = schema_volume_decode(i->key, i->value, &v);

	if (r)
		return r;
	if (v.id == 0 || v.id > ld->s->cluster.volume)
		return bad(ld, -E_FORMAT, "volume %u was never given out", v.id);
	if (v.state == SAN_VOLUME_READY && volume_by_name(ld->s, v.name))
		return bad(ld, -E_FORMAT, "two volumes are called %s", v.name);
	return volume_new(ld->s, &v, &vol);
}

/* A parent is older than its child, so it is there already. */
static int load_layer(struct load *ld, const struct metastore_item *i)
{
	struct san *s = ld->s;
	struct schema_layer rec;
	struct layer *l, *parent;
	struct volume *vol;
	layer_id id;
	int r = schema_layer_decode(i->key, i->value, &rec);

	if (r)
		return r;
	if (!schema_key_get_32(i->key, &id) || id == 0 || id > s->cluster.layer)
		return -E_FORMAT;
	parent = rec.parent ? idtab_get(&s->layers, rec.parent) : NULL;
	vol = volume_by_id(s, rec.volume);
	if (!vol || (rec.parent && !parent))
		return bad(ld, -E_FORMAT, "layer %u refers to a volume or layer that is not there",
			   id);
	r = layer_new(s, id, &rec, parent, vol, &l);
	if (r == 0 && vol->v.head == id)
		vol->head = l;
	return r;
}

static int load_usage(struct load *ld, const struct metastore_item *i)
{
	struct layer *l;
	layer_id id;

	if (!schema_key_get_32(i->key, &id))
		return -E_FORMAT;
	l = idtab_get(&ld->s->layers, id);
	return l ? schema_usage_decode(i->key, i->value, &l->n)
		 : bad(ld, -E_FORMAT, "there is no layer %u for its usage record", id);
}

static int load_job(struct load *ld, const struct metastore_item *i)
{
	struct san_job j;
	int r = schema_job_decode(i->key, i->value, &j);

	if (r)
		return r;
	return j.id == 0 || j.id > ld->s->cluster.job ? -E_FORMAT : job_load(ld->s, &j);
}

static int load_once(struct load *ld, const struct metastore_item *i)
{
	struct schema_once rec;
	int r = schema_once_decode(i->key, i->value, &rec);

	return r ? r : once_load(ld->s, &rec);
}

static int link_volumes(struct load *ld)
{
	struct volume *vol;

	idtab_for_each (vol, &ld->s->volumes)
		if (!vol->head || vol->head->volume != vol)
			return bad(ld, -E_FORMAT, "volume %s has no head layer", vol->v.name);
	return 0;
}

/* ---- end ------------------------------------------------------------------------------------------------------------------ */

static void load_end(struct load *ld, int status)
{
	struct san_open *op = ld->op;
	struct san *s = ld->s;

	priv_free(ld->scan);
	mem_free(ld);
	op->priv = NULL;
	op->status = status;
	if (status) {
		san_free(s);
	} else {
		if (s->seed == 0)
			memcpy(&s->seed, s->cluster.uuid.b, sizeof(s->seed));
		op->san = s;
	}
	op->done(op);
}
