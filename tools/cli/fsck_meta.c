/* SPDX-License-Identifier: Apache-2.0 */
/* fsck_meta.c - the metadata of a stopped cluster: read, held against itself, and made ready to be held against the devices. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "src/base/check.h"
#include "src/base/math.h"
#include "src/base/mem.h"
#include "tools/cli/fsck_run.h"

enum { WALK_ITEMS = 4096 };

/* ---- opening ---------------------------------------------------------------------------------------------------------------- */

static void san_opened(struct san_open *op)
{
	container_of(op, struct fsck_run, san)->done = true;
}

static void registry_opened(struct cluster_open *op)
{
	container_of(op, struct fsck_run, registry)->done = true;
}

static int damaged(const struct fsck_run *f, const char *why)
{
	return cli_fail(
	    "the metadata in %s/meta cannot be used: %s\nIf there is a backup that is not "
	    "older than the devices: strata meta restore BACKUP --data %s",
	    f->dir, why, f->dir);
}

int fsck_meta_open(struct fsck_run *f)
{
	char path[PATH_MAX + 16], errmsg[ERRMSG_LEN] = "";
	int r;

	/* Opening a database makes it where there is none, and this one is a cluster's only if it has something in it. */
	snprintf(path, sizeof(path), "%s/meta/CURRENT", f->dir);
	if (access(path, F_OK))
		return damaged(f, "the file CURRENT is missing");
	snprintf(path, sizeof(path), "%s/meta", f->dir);
	r = metastore_open_rocksdb(f->ioe, path, &f->store, errmsg);
	if (r)
		return damaged(f, *errmsg ? errmsg : err_text(r));
	if (!metastore_last_commit(f->store))
		return damaged(f, "the database is empty");
	f->san = (struct san_open){.cfg = {.ioe = f->ioe, .store = f->store}, .done = san_opened};
	san_open(&f->san);
	fsck_run_wait(f);
	if (f->san.status)
		return damaged(f, f->san.errmsg[0] ? f->san.errmsg : err_text(f->san.status));
	f->registry = (struct cluster_open){.c = &f->cluster,
					    .ioe = f->ioe,
					    .san = f->san.san,
					    .store = f->store,
					    .done = registry_opened};
	cluster_open(&f->registry);
	fsck_run_wait(f);
	if (f->registry.status)
		return damaged(f, f->registry.errmsg[0] ? f->registry.errmsg
							: err_text(f->registry.status));
	return 0;
}

/* ---- against itself ------------------------------------------------------------------------------------------------------------ */

static void records_checked(struct san_req *req)
{
	container_of(req, struct fsck_run, records.req)->done = true;
}

static void records_progress(struct san_check *r)
{
	struct fsck_run *f = container_of(r, struct fsck_run, records);

	progress_show(&f->progress, "checking the metadata", r->pages_n,
		      MAX(r->pages_total, r->pages_n));
}

/* Map, space, frees and usage counters of the volumes: nothing changes meanwhile, so the online check of the records is exact. */
int fsck_meta_records(struct fsck_run *f)
{
	struct san_check *r = &f->records;

	f->device = "metadata";
	*r = (struct san_check){.req.done = records_checked, .progress = records_progress};
	san_check(f->san.san, r);
	fsck_run_wait(f);
	progress_end(&f->progress);
	if (r->req.status)
		return damaged(f, *r->req.errmsg ? r->req.errmsg : err_text(r->req.status));
	for (uint64_t i = 0; i < MIN(r->problems_n, (uint64_t)SAN_CHECK_PROBLEMS_MAX); i++)
		fsck_run_say(f, FSCK_ERROR, "metadata", "%s", r->problems[i]);
	if (r->problems_n > SAN_CHECK_PROBLEMS_MAX)
		fsck_run_say(f, FSCK_ERROR, "metadata", "and %" PRIu64 " more of that kind",
			     r->problems_n - SAN_CHECK_PROBLEMS_MAX);
	return 0;
}

/* ---- the map --------------------------------------------------------------------------------------------------------------------- */

static void walked(struct san_req *req)
{
	container_of(req, struct fsck_run, walk.req)->done = true;
}

static bool share_add(struct fsck_share *s, const struct fsck_mapping *m)
{
	struct fsck_page *p =
	    list_empty(&s->pages) ? NULL : list_entry(s->pages.prev, struct fsck_page, link);

	if (!p || p->n == FSCK_PAGE_ITEMS) {
		p = mem_alloc(sizeof(*p));
		if (!p)
			return false;
		p->n = 0;
		list_push(&s->pages, &p->link);
	}
	p->items[p->n++] = *m;
	s->n++;
	return true;
}

static bool take_items(struct fsck_run *f)
{
	struct san_layer layer = {0};

	for (uint32_t i = 0; i < f->walk.items_n; i++) {
		const struct san_map_item *item = &f->walk.items[i];

		if (layer.layer != item->layer && san_layer_get(f->san.san, item->layer, &layer))
			layer = (struct san_layer){.layer = item->layer};
		for (int k = 0; k < item->entry.replicas_n; k++) {
			const struct replica *rep = &item->entry.replicas[k];
			struct fsck_mapping m = {.slot = rep->slot,
						 .cgen = rep->cgen,
						 .volume = layer.volume,
						 .layer = item->layer,
						 .chunk = item->chunk,
						 .full = item->entry.flags & MAP_FULL};

			if (!share_add(&f->shares[rep->dev], &m))
				return false;
			f->chunks_n++;
		}
	}
	return true;
}

int fsck_meta_map(struct fsck_run *f)
{
	struct san_map_item *items = mem_zalloc_array(WALK_ITEMS, sizeof(items[0]));
	layer_id layer = 1;
	uint32_t chunk = 0;

	check(items);
	while (layer) {
		f->walk = (struct san_map_walk){.req = {.done = walked},
						.layer = layer,
						.chunk = chunk,
						.items = items,
						.items_max = WALK_ITEMS};
		san_map_walk(f->san.san, &f->walk);
		fsck_run_wait(f);
		if (f->walk.req.status)
			return damaged(f, err_text(f->walk.req.status));
		if (!take_items(f))
			return cli_fail("there is no memory for a map of more than %" PRIu64
					" chunks: fsck needs 32 bytes for each and 130 for each "
					"slot of the largest device",
					f->chunks_n);
		layer = f->walk.next_layer;
		chunk = f->walk.next_chunk;
	}
	mem_free(items);
	return 0;
}

int fsck_share_next(void *arg, struct fsck_mapping *ret_m)
{
	struct fsck_share *s = arg;
	struct fsck_page *p;

	if (list_empty(&s->pages))
		return -ENOENT;
	p = list_first(&s->pages, struct fsck_page, link);
	*ret_m = p->items[s->at++];
	if (s->at == p->n) {
		list_del(&p->link);
		mem_free(p);
		s->at = 0;
	}
	return 0;
}

void fsck_share_free(struct fsck_share *s)
{
	struct list *l;

	while ((l = list_pop(&s->pages)))
		mem_free(list_entry(l, struct fsck_page, link));
}

/* ---- frees that are due ------------------------------------------------------------------------------------------------------------ */

static void frees_scanned(struct metastore_scan *scan)
{
	container_of(scan, struct fsck_frees, scan)->run->done = true;
}

void fsck_frees_of(struct fsck_run *f, device_no dev)
{
	struct fsck_frees *fr = &f->frees;

	fr->run = f;
	fr->prefix = schema_key_dev(SCHEMA_INTENT, dev);
	fr->at = 0;
	fr->scan = (struct metastore_scan){.prefix = schema_key_bytes(&fr->prefix),
					   .buf = fr->buf,
					   .buf_max = sizeof(fr->buf),
					   .items = fr->items,
					   .items_max = FSCK_FREES,
					   .more = true,
					   .done = frees_scanned};
}

static int frees_scan(struct fsck_frees *fr)
{
	if (fr->scan.items_n) { /* the last one's key lies in the buffer that is read into */
		struct metastore_bytes last = fr->items[fr->scan.items_n - 1].key;

		if (last.len > SCHEMA_KEY_MAX)
			return -E_FORMAT;
		memcpy(fr->after.b, last.data, last.len);
		fr->after.len = (uint8_t)last.len;
		fr->scan.after = schema_key_bytes(&fr->after);
	}
	fr->at = 0;
	metastore_scan(fr->run->store, &fr->scan);
	fsck_run_wait(fr->run);
	return fr->scan.status;
}

int fsck_frees_next(void *arg, struct fsck_freeing *ret_f)
{
	struct fsck_frees *fr = arg;
	const struct metastore_item *item;
	device_no dev;
	int r;

	if (fr->at == fr->scan.items_n) {
		r = fr->scan.more ? frees_scan(fr) : -ENOENT;
		if (r || !fr->scan.items_n)
			return r ? r : -ENOENT;
	}
	item = &fr->items[fr->at++];
	if (!schema_key_get_dev_32(item->key, &dev, &ret_f->slot))
		return -E_FORMAT;
	return schema_intent_decode(item->key, item->value, &ret_f->cgen);
}
