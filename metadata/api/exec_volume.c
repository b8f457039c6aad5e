/* SPDX-License-Identifier: Apache-2.0 */
/* exec_volume.c - volumes. */
#include <stdio.h>
#include <string.h>

#include "metadata/api/exec.h"

static const char *const write_caches[] = {[SAN_CACHE_AUTO] = "auto",
					   [SAN_CACHE_WRITEBACK] = "writeback",
					   [SAN_CACHE_WRITETHROUGH] = "writethrough"};

struct cluster_node *exec_owner(struct admin *a, const struct san_volume *v)
{
	return v->is_open ? cluster_node_by_no(a->cluster, v->owner) : NULL;
}

json_t *exec_volume_json(struct admin *a, const struct san_volume *v)
{
	struct cluster_pool *p = cluster_pool_by_no(a->cluster, v->pool);
	struct cluster_node *owner = exec_owner(a, v);

	return json_pack(
	    "{s:s, s:o, s:I, s:I, s:I, s:s, s:i, s:i, s:s, s:s, s:o, s:I, s:I, s:o, s:s?, s:b}",
	    "name", v->name, "uuid", exec_uuid(&v->uuid), "id", (json_int_t)v->id, "size_bytes",
	    (json_int_t)v->size_bytes, "used_bytes", (json_int_t)(v->chunks_n << v->chunk_shift),
	    "pool", p ? p->name : "", "sector_bytes", (int)v->sector_bytes, "chunk_bytes",
	    1 << v->chunk_shift, "write_cache",
	    v->write_cache < ARRAY_LEN(write_caches) ? write_caches[v->write_cache] : "auto",
	    "state", v->state == SAN_VOLUME_DELETING ? "deleting" : "ok", "created",
	    exec_time(v->created_ns), "layer", (json_int_t)v->head, "epoch", (json_int_t)v->epoch,
	    "owner", owner ? json_integer(owner->no) : json_null(), "owner_name",
	    owner ? owner->name : NULL, "open", (int)v->is_open);
}

void exec_no_volume(struct exec *x, int status, const char *errmsg)
{
	if (status == -ENOENT)
		exec_fail(x, ADMIN_E_NOT_FOUND, "'strata volume list' shows them.",
			  "there is no volume %s", x->r->subject);
	else
		exec_fail_status(x, status, "", errmsg);
}

/* ---- list ---------------------------------------------------------------------------------------------------------------------------- */

struct exec_volumes {
	struct exec x;
	struct san_volume_list list;
	struct san_volume volumes[];
};

static void list_done(struct san_req *req);

void exec_volume_list(struct exec *x)
{
	const char *after = admin_text(x->r, "after");
	uint32_t limit = (uint32_t)admin_int(x->r, "limit");
	struct exec_volumes *op = exec_grow(x, sizeof(*op) + limit * sizeof(struct san_volume));

	if (!op)
		return;
	if (after && strlen(after) > NAME_LEN_MAX) {
		exec_fail(&op->x, ADMIN_E_INVALID, "Pass the 'next' of the page before.",
			  "after is longer than a name");
		return;
	}
	snprintf(op->list.after, sizeof(op->list.after), "%s", after ? after : "");
	op->list.volumes = op->volumes;
	op->list.volumes_max = limit;
	op->list.req.done = list_done;
	san_volume_list(op->x.a->cluster->san, &op->list);
}

static void list_done(struct san_req *req)
{
	struct exec_volumes *op = container_of(req, struct exec_volumes, list.req);
	uint32_t n = op->list.volumes_n;
	json_t *items;

	if (req->status) {
		exec_fail_status(&op->x, req->status, "", req->errmsg);
		return;
	}
	items = json_array();
	for (uint32_t i = 0; i < n; i++)
		json_array_append_new(items, exec_volume_json(op->x.a, &op->volumes[i]));
	exec_answer_page(&op->x, items, op->list.more && n ? op->volumes[n - 1].name : NULL);
}

/* ---- show ---------------------------------------------------------------------------------------------------------------------------- */

struct exec_get {
	struct exec x;
	struct san_volume_get get;
};

static void get_done(struct san_req *req);

void exec_volume_show(struct exec *x)
{
	struct exec_get *op = exec_grow(x, sizeof(*op));

	if (!op)
		return;
	op->get.name = op->x.r->subject;
	op->get.req.done = get_done;
	san_volume_get(op->x.a->cluster->san, &op->get);
}

static void get_done(struct san_req *req)
{
	struct exec_get *op = container_of(req, struct exec_get, get.req);

	if (req->status)
		exec_no_volume(&op->x, req->status, req->errmsg);
	else
		exec_answer(&op->x, 200, exec_volume_json(op->x.a, &op->get.volume));
}

/* ---- create -------------------------------------------------------------------------------------------------------------------------- */

struct exec_create {
	struct exec x;
	struct san_volume_create create;
};

static void create_done(struct san_req *req);

static enum san_write_cache write_cache_of(const char *word)
{
	for (size_t i = 0; i < ARRAY_LEN(write_caches); i++)
		if (!strcmp(word, write_caches[i]))
			return (enum san_write_cache)i;
	check_unreachable("validated");
}

void exec_volume_create(struct exec *x)
{
	struct cluster_pool *p = cluster_pool_by_name(x->a->cluster, admin_text(x->r, "pool"));
	struct exec_create *op;

	if (!p) {
		exec_fail(x, ADMIN_E_NOT_FOUND, "'strata pool list' shows them.",
			  "there is no pool %s", admin_text(x->r, "pool"));
		return;
	}
	op = exec_grow(x, sizeof(*op));
	if (!op)
		return;
	op->create.name = admin_text(op->x.r, "name");
	op->create.size_bytes = (uint64_t)admin_int(op->x.r, "size_bytes");
	op->create.sector_bytes = (uint32_t)admin_int(op->x.r, "sector_bytes");
	op->create.chunk_shift = p->chunk_shift;
	op->create.pool = p->no;
	op->create.write_cache = write_cache_of(admin_text(op->x.r, "write_cache"));
	op->create.once = exec_once_of(&op->x);
	op->create.req.done = create_done;
	san_volume_create(op->x.a->cluster->san, &op->create);
}

static void create_done(struct san_req *req)
{
	struct exec_create *op = container_of(req, struct exec_create, create.req);

	if (req->status == -EEXIST)
		exec_fail(&op->x, ADMIN_E_EXISTS, "Choose another name.",
			  "there is a volume %s already", op->create.name);
	else if (req->status)
		exec_fail_status(&op->x, req->status, "", req->errmsg);
	else
		exec_answer(&op->x, 201, exec_volume_json(op->x.a, &op->create.volume));
}

/* ---- resize -------------------------------------------------------------------------------------------------------------------------- */

struct exec_resize {
	struct exec x;
	struct san_volume_get get;
	struct san_volume_set set;
};

static void resize_got(struct san_req *req);
static void resize_done(struct san_req *req);

void exec_volume_resize(struct exec *x)
{
	struct exec_resize *op = exec_grow(x, sizeof(*op));

	if (!op)
		return;
	op->get.name = op->x.r->subject;
	op->get.req.done = resize_got;
	san_volume_get(op->x.a->cluster->san, &op->get);
}

static void resize_got(struct san_req *req)
{
	struct exec_resize *op = container_of(req, struct exec_resize, get.req);
	uint64_t size = (uint64_t)admin_int(op->x.r, "size_bytes");

	if (req->status) {
		exec_no_volume(&op->x, req->status, req->errmsg);
		return;
	}
	if (size < op->get.volume.size_bytes) {
		exec_fail(&op->x, ADMIN_E_INVALID, "Make a smaller volume and copy what is needed.",
			  "volumes only grow: %s has %llu bytes", op->x.r->subject,
			  (unsigned long long)op->get.volume.size_bytes);
		return;
	}
	op->set.name = op->x.r->subject;
	op->set.size_bytes = size;
	op->set.write_cache = -1;
	op->set.req.done = resize_done;
	san_volume_set(op->x.a->cluster->san, &op->set);
}

static void resize_done(struct san_req *req)
{
	struct exec_resize *op = container_of(req, struct exec_resize, set.req);

	if (req->status) {
		exec_no_volume(&op->x, req->status, req->errmsg);
		return;
	}
	cluster_volume_news(op->x.a->cluster, &op->set.volume);
	exec_answer(&op->x, 200, exec_volume_json(op->x.a, &op->set.volume));
}

/* ---- delete -------------------------------------------------------------------------------------------------------------------------- */

struct exec_delete {
	struct exec x;
	struct san_volume_delete del;
};

static void delete_done(struct san_req *req);

void exec_volume_delete(struct exec *x)
{
	struct exec_delete *op = exec_grow(x, sizeof(*op));

	if (!op)
		return;
	op->del.name = op->x.r->subject;
	op->del.req.done = delete_done;
	san_volume_delete(op->x.a->cluster->san, &op->del);
}

static void delete_done(struct san_req *req)
{
	struct exec_delete *op = container_of(req, struct exec_delete, del.req);

	if (req->status == -E_IN_USE)
		exec_fail(&op->x, ADMIN_E_IN_USE,
			  "Disconnect its clients; 'strata export show' tells where it is open.",
			  "volume %s is open", op->x.r->subject);
	else if (req->status == -ENOTEMPTY)
		exec_fail(&op->x, ADMIN_E_IN_USE, "Delete those first.", "%s", req->errmsg);
	else if (req->status)
		exec_no_volume(&op->x, req->status, req->errmsg);
	else
		exec_answer(&op->x, 202, json_pack("{s:I}", "job", (json_int_t)op->del.job));
}

/* ---- release ------------------------------------------------------------------------------------------------------------------------- */

struct exec_release {
	struct exec x;
	struct san_volume_get get;
	struct cluster_takeover takeover;
};

static void release_got(struct san_req *req);
static void release_taken(struct cluster_takeover *takeover);
static void release_looked(struct san_req *req);

void exec_volume_release(struct exec *x)
{
	struct exec_release *op = exec_grow(x, sizeof(*op));

	if (!op)
		return;
	op->get.name = op->x.r->subject;
	op->get.req.done = release_got;
	san_volume_get(op->x.a->cluster->san, &op->get);
}

static void release_got(struct san_req *req)
{
	struct exec_release *op = container_of(req, struct exec_release, get.req);

	if (req->status) {
		exec_no_volume(&op->x, req->status, req->errmsg);
		return;
	}
	op->takeover = (struct cluster_takeover){.c = op->x.a->cluster,
						 .volume = op->get.volume.id,
						 .done = release_taken};
	cluster_takeover(&op->takeover);
}

static void release_taken(struct cluster_takeover *takeover)
{
	struct exec_release *op = container_of(takeover, struct exec_release, takeover);

	if (takeover->status == -E_IN_USE) {
		exec_fail(&op->x, ADMIN_E_IN_USE,
			  "Disconnect its clients there, or stop that node if it does not answer.",
			  "%s", takeover->errmsg);
	} else if (takeover->status) {
		exec_no_volume(&op->x, takeover->status, takeover->errmsg);
	} else {
		op->get.req.done = release_looked;
		san_volume_get(op->x.a->cluster->san, &op->get);
	}
}

static void release_looked(struct san_req *req)
{
	struct exec_release *op = container_of(req, struct exec_release, get.req);
	json_t *json;

	if (req->status) {
		exec_no_volume(&op->x, req->status, req->errmsg);
		return;
	}
	json = exec_volume_json(op->x.a, &op->get.volume);
	if (json)
		json_object_set_new(json, "released", json_boolean(op->takeover.was.is_open));
	exec_answer(&op->x, 200, json);
}
