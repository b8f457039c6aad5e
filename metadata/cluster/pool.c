/* SPDX-License-Identifier: Apache-2.0 */
/* pool.c - pools come and go.
 *
 *   CREATE   MAKING -> COMMIT* -> READY
 *   REMOVE   READY -> LEAVING -> COMMIT* (it has neither volumes nor devices, and its record goes) -> gone; or READY again
 *
 * A pool that is MAKING has a name and nothing else yet; one that is LEAVING is found by nobody who would put something into it (cluster_pool_by_name):
 * what was asked for before is carried out before. */
#include <stdio.h>
#include <string.h>

#include "metadata/cluster/codec.h"
#include "src/base/log.h"
#include "src/base/mem.h"

static void create_refused(struct ioe_req *req);
static void create_done(struct san_req *req);
static void create_end(struct cluster_pool_create *op, int status, const char *errmsg);
static int remove_check(struct cluster_pool_remove *op);
static void remove_refused(struct ioe_req *req);
static void remove_done(struct san_req *req);
static void remove_end(struct cluster_pool_remove *op, int status, const char *errmsg);

uint32_t cluster_media_chunk_shift(enum cluster_media media)
{
	return media == CLUSTER_ROTATIONAL ? CHUNK_SHIFT_DISK : CHUNK_SHIFT_FLASH;
}

enum cluster_media cluster_media_of(uint32_t chunk_shift)
{
	return chunk_shift == CHUNK_SHIFT_DISK ? CLUSTER_ROTATIONAL : CLUSTER_FLASH;
}

/* ---- create ------------------------------------------------------------------------------------------------------------------- */

/* One that is being made, or is about to go, has its name too. */
static int create_check(struct cluster_pool_create *op)
{
	uint32_t n = 0;

	list_for_each (l, &op->c->pools) {
		n++;
		if (strcmp(list_entry(l, struct cluster_pool, link)->name, op->name))
			continue;
		snprintf(op->errmsg, sizeof(op->errmsg), "there is a pool %s already", op->name);
		return -EEXIST;
	}
	if (n < CLUSTER_POOLS_MAX)
		return 0;
	snprintf(op->errmsg, sizeof(op->errmsg), "there are %u pools, and no more can be", n);
	return -EBUSY;
}

void cluster_pool_create(struct cluster_pool_create *op)
{
	struct cluster_pool *p;

	cluster_op_begin(op->c);
	op->errmsg[0] = '\0';
	op->pool = NULL;
	op->record = NULL;
	op->status = create_check(op);
	if (!op->status) {
		op->record = mem_zalloc(sizeof(*op->record));
		op->pool = op->record ? mem_zalloc(sizeof(*op->pool)) : NULL;
		op->status = op->pool ? 0 : -ENOMEM;
	}
	if (op->status) {
		ioe_nop(op->c->ioe, &op->nop, create_refused);
		return;
	}
	p = op->pool;
	p->no = san_number_take(op->c->san, SAN_NUMBER_POOL);
	p->state = CLUSTER_POOL_MAKING;
	p->media = op->media;
	p->chunk_shift = op->chunk_shift;
	snprintf(p->name, sizeof(p->name), "%s", op->name);
	list_push(&op->c->pools, &p->link);
	codec_put_pool(p, op->record);
	op->change = codec_change(op->record);
	op->records =
	    (struct san_records){.req.done = create_done, .changes = &op->change, .changes_n = 1};
	san_records(op->c->san, &op->records);
}

static void create_refused(struct ioe_req *req)
{
	struct cluster_pool_create *op = container_of(req, struct cluster_pool_create, nop);

	create_end(op, op->status, op->status == -ENOMEM ? "memory is short" : op->errmsg);
}

static void create_done(struct san_req *req)
{
	struct cluster_pool_create *op = container_of(req, struct cluster_pool_create, records.req);
	struct cluster_pool *p = op->pool;

	if (req->status) {
		list_del(&p->link);
		mem_free(p);
		op->pool = NULL;
		create_end(op, req->status, req->errmsg);
		return;
	}
	p->state = CLUSTER_POOL_READY;
	log_info("pool created", "pool=%u name=%s", p->no, p->name);
	san_event(op->c->san, SAN_INFO, "pool_created",
		  "Pool %s was created, with chunks of %u MiB.", p->name,
		  1u << (p->chunk_shift - 20));
	create_end(op, 0, "");
}

static void create_end(struct cluster_pool_create *op, int status, const char *errmsg)
{
	struct cluster *c = op->c;

	if (errmsg != op->errmsg)
		snprintf(op->errmsg, sizeof(op->errmsg), "%s", status ? errmsg : "");
	mem_free(op->record);
	op->status = status;
	op->done(op);
	cluster_op_end(c);
}

/* ---- remove ------------------------------------------------------------------------------------------------------------------- */

void cluster_pool_remove(struct cluster_pool_remove *op)
{
	cluster_op_begin(op->c);
	op->errmsg[0] = '\0';
	op->record = NULL;
	op->status = remove_check(op);
	if (!op->status) {
		op->record = mem_zalloc(sizeof(*op->record));
		op->status = op->record ? 0 : -ENOMEM;
	}
	if (op->status) {
		ioe_nop(op->c->ioe, &op->nop, remove_refused);
		return;
	}
	op->pool->state = CLUSTER_POOL_LEAVING;
	codec_put_pool(op->pool, op->record);
	op->change = codec_delete(op->record);
	op->leave = (struct san_pool_leave){.req.done = remove_done,
					    .pool = op->pool->no,
					    .also = &op->change,
					    .also_n = 1};
	san_pool_leave(op->c->san, &op->leave);
}

static int remove_check(struct cluster_pool_remove *op)
{
	const struct cluster_pool *p = op->pool;

	if (!strcmp(p->name, CLUSTER_POOL_DEFAULT)) {
		snprintf(op->errmsg, sizeof(op->errmsg),
			 "the pool %s stays: it is meant where none is named", p->name);
		return -EINVAL;
	}
	if (p->users || p->state != CLUSTER_POOL_READY) {
		snprintf(op->errmsg, sizeof(op->errmsg),
			 p->users ? "a device is being added to pool %s"
				  : "pool %s is being removed already",
			 p->name);
		return -EBUSY;
	}
	return 0;
}

static void remove_refused(struct ioe_req *req)
{
	struct cluster_pool_remove *op = container_of(req, struct cluster_pool_remove, nop);

	remove_end(op, op->status, op->status == -ENOMEM ? "memory is short" : op->errmsg);
}

static void remove_done(struct san_req *req)
{
	struct cluster_pool_remove *op = container_of(req, struct cluster_pool_remove, leave.req);
	struct cluster *c = op->c;
	struct cluster_pool *p = op->pool;

	check(!p->users);
	if (req->status) {
		p->state = CLUSTER_POOL_READY;
		remove_end(op, req->status, req->errmsg);
		return;
	}
	list_del(&p->link);
	log_info("pool removed", "pool=%u name=%s", p->no, p->name);
	san_event(c->san, SAN_INFO, "pool_removed", "Pool %s was removed.", p->name);
	remove_end(op, 0, "");
	mem_free(p);
}

static void remove_end(struct cluster_pool_remove *op, int status, const char *errmsg)
{
	struct cluster *c = op->c;

	if (errmsg != op->errmsg)
		snprintf(op->errmsg, sizeof(op->errmsg), "%s", status ? errmsg : "");
	mem_free(op->record);
	op->status = status;
	op->done(op);
	cluster_op_end(c);
}
