/* SPDX-License-Identifier: Apache-2.0 */
/* exec_pool.c - pools. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "metadata/api/exec.h"

static const char *const medias[] = {[CLUSTER_FLASH] = "flash", [CLUSTER_ROTATIONAL] = "rotational"};

/* ---- looking: what their volumes promise takes a look at every volume ---------------------------------------------------------------------- */

enum { VOLUMES_PAGE = 256, POOLS_MAX = CLUSTER_POOLS_MAX };

struct exec_pools {
	struct exec x;
	struct san_volume_list list;
	struct cluster_pool pools[POOLS_MAX]; /* as they were: one may leave meanwhile */
	struct {
		uint64_t bytes, n;
	} volumes[POOLS_MAX];
	size_t pools_n;
	bool is_list, more;
	struct san_volume page[VOLUMES_PAGE];
};

static void pools_scan(struct exec_pools *op);
static void pools_scanned(struct san_req *req);

static json_t *pool_json(struct cluster *c, const struct cluster_pool *p, uint64_t volumes_bytes,
			 uint64_t volumes_n)
{
	json_t *devices = json_array();
	struct san_pool_space s;

	list_for_each (l, &c->devices) {
		struct cluster_device *d = list_entry(l, struct cluster_device, link);

		if (d->pool == p->no && d->member == CLUSTER_MEMBER)
			json_array_append_new(devices, json_integer(d->no));
	}
	san_pool_space(c->san, p->no, &s);
	return json_pack("{s:s, s:s, s:i, s:o, s:I, s:I, s:I, s:I}", "name", p->name, "media",
			 medias[p->media], "chunk_bytes", 1 << p->chunk_shift, "devices", devices,
			 "capacity_bytes", (json_int_t)(s.slots_n << p->chunk_shift), "used_bytes",
			 (json_int_t)((s.used_n + s.freeing_n) << p->chunk_shift), "volumes_bytes",
			 (json_int_t)volumes_bytes, "volumes", (json_int_t)volumes_n);
}

static json_t *pool_json_at(struct exec_pools *op, size_t i)
{
	return pool_json(op->x.a->cluster, &op->pools[i], op->volumes[i].bytes, op->volumes[i].n);
}

/* Pools come in the order of their names. */
static int by_name(const void *a, const void *b)
{
	const struct cluster_pool *p = a, *q = b;

	return strcmp(p->name, q->name);
}

void exec_pool_list(struct exec *x)
{
	const char *after = admin_text(x->r, "after");
	size_t limit = (size_t)admin_int(x->r, "limit"), first = 0;
	struct exec_pools *op = exec_grow(x, sizeof(*op));

	if (!op)
		return;
	op->is_list = true;
	list_for_each (l, &op->x.a->cluster->pools) {
		struct cluster_pool *p = list_entry(l, struct cluster_pool, link);

		if (op->pools_n < POOLS_MAX && p->state == CLUSTER_POOL_READY)
			op->pools[op->pools_n++] = *p;
	}
	qsort(op->pools, op->pools_n, sizeof(op->pools[0]), by_name);
	while (after && first < op->pools_n && strcmp(op->pools[first].name, after) <= 0)
		first++;
	op->pools_n -= first;
	memmove(op->pools, op->pools + first, op->pools_n * sizeof(op->pools[0]));
	op->more = op->pools_n > limit;
	if (op->more)
		op->pools_n = limit;
	pools_scan(op);
}

static void no_pool(struct exec *x)
{
	exec_fail(x, ADMIN_E_NOT_FOUND, "'strata pool list' shows them.", "there is no pool %s",
		  x->r->subject);
}

void exec_pool_show(struct exec *x)
{
	struct cluster_pool *p = cluster_pool_by_name(x->a->cluster, x->r->subject);
	struct exec_pools *op;

	if (!p) {
		no_pool(x);
		return;
	}
	op = exec_grow(x, sizeof(*op));
	if (!op)
		return;
	op->pools[0] = *p;
	op->pools_n = 1;
	pools_scan(op);
}

static void pools_scan(struct exec_pools *op)
{
	op->list.volumes = op->page;
	op->list.volumes_max = VOLUMES_PAGE;
	op->list.req.done = pools_scanned;
	san_volume_list(op->x.a->cluster->san, &op->list);
}

static void pools_scanned(struct san_req *req)
{
	struct exec_pools *op = container_of(req, struct exec_pools, list.req);
	json_t *items;

	if (req->status) {
		exec_fail_status(&op->x, req->status, "", req->errmsg);
		return;
	}
	for (uint32_t k = 0; k < op->list.volumes_n; k++) {
		for (size_t i = 0; i < op->pools_n; i++) {
			if (op->pools[i].no != op->page[k].pool)
				continue;
			op->volumes[i].n++;
			op->volumes[i].bytes += op->page[k].size_bytes;
		}
	}
	if (op->list.more && op->list.volumes_n) {
		memcpy(op->list.after, op->page[op->list.volumes_n - 1].name,
		       sizeof(op->list.after));
		pools_scan(op);
		return;
	}
	if (!op->is_list) {
		exec_answer(&op->x, 200, pool_json_at(op, 0));
		return;
	}
	items = json_array();
	for (size_t i = 0; i < op->pools_n; i++)
		json_array_append_new(items, pool_json_at(op, i));
	exec_answer_page(&op->x, items, op->more ? op->pools[op->pools_n - 1].name : NULL);
}

/* ---- create and remove ----------------------------------------------------------------------------------------------------------------- */

struct exec_pool_create {
	struct exec x;
	struct cluster_pool_create create;
};

static void pool_created(struct cluster_pool_create *create);

void exec_pool_create(struct exec *x)
{
	struct exec_pool_create *op = exec_grow(x, sizeof(*op));

	if (!op)
		return;
	op->create.c = op->x.a->cluster;
	op->create.name = admin_text(op->x.r, "name");
	op->create.media = strcmp(admin_text(op->x.r, "media"), medias[CLUSTER_ROTATIONAL])
			       ? CLUSTER_FLASH
			       : CLUSTER_ROTATIONAL;
	op->create.chunk_shift = cluster_media_chunk_shift(op->create.media);
	if (admin_has(op->x.r, "chunk_bytes"))
		op->create.chunk_shift = admin_int(op->x.r, "chunk_bytes") == 1 << CHUNK_SHIFT_DISK
					     ? CHUNK_SHIFT_DISK
					     : CHUNK_SHIFT_FLASH;
	op->create.done = pool_created;
	cluster_pool_create(&op->create);
}

static void pool_created(struct cluster_pool_create *create)
{
	struct exec_pool_create *op = container_of(create, struct exec_pool_create, create);

	if (create->status)
		exec_fail_status(&op->x, create->status,
				 create->status == -EEXIST ? "Choose another name." : "",
				 create->errmsg);
	else
		exec_answer(&op->x, 201, pool_json(create->c, create->pool, 0, 0));
}

struct exec_pool_remove {
	struct exec x;
	struct cluster_pool_remove remove;
};

static void pool_removed(struct cluster_pool_remove *remove);

void exec_pool_remove(struct exec *x)
{
	struct cluster_pool *p = cluster_pool_by_name(x->a->cluster, x->r->subject);
	struct exec_pool_remove *op;

	if (!p) {
		no_pool(x);
		return;
	}
	op = exec_grow(x, sizeof(*op));
	if (!op)
		return;
	op->remove.c = op->x.a->cluster;
	op->remove.pool = p;
	op->remove.done = pool_removed;
	cluster_pool_remove(&op->remove);
}

static void pool_removed(struct cluster_pool_remove *remove)
{
	struct exec_pool_remove *op = container_of(remove, struct exec_pool_remove, remove);
	const char *hint = "";

	if (remove->status == -ENOTEMPTY) {
		exec_fail(&op->x, ADMIN_E_IN_USE, "Delete its volumes, then remove its devices.",
			  "pool %s is not empty: %s", remove->pool->name, remove->errmsg);
		return;
	}
	if (remove->status == -EBUSY)
		hint = "Try again.";
	if (remove->status)
		exec_fail_status(&op->x, remove->status, hint, remove->errmsg);
	else
		exec_answer(&op->x, 200, pool_json(remove->c, remove->pool, 0, 0));
}
