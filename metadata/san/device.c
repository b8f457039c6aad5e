/* SPDX-License-Identifier: Apache-2.0 */
/* device.c - devices come, grow, leave; pools as the sets of devices that chunks are placed on. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "metadata/san/state.h"
#include "src/base/check.h"
#include "src/base/mem.h"

#define SLOTS_MAX (1u << 30)

/* ---- as part of a batch ---------------------------------------------------------------------------------------------------- */

static struct device *device_at(struct txn_obj *o)
{
	return container_of(o, struct device, obj);
}

size_t san_device_encode(const struct device *d, const struct schema_key *k, uint8_t *out)
{
	struct schema_device rec = {
	    .pool = d->pool->id,
	    .chunk_shift = d->chunk_shift,
	    .slots_n = d->slots_n,
	    .lose_job = d->lose_job,
	};

	return schema_device_encode(&rec, k, out);
}

static void device_emit(struct san *s, struct txn_obj *o)
{
	struct device *d = device_at(o);
	struct schema_key k = schema_key_dev(SCHEMA_DEVICE, d->no);

	if (d->gone)
		txn_delete(s, &k);
	else
		txn_put(s, &k, san_device_encode(d, &k, txn_value(s)));
}

static void device_committed(struct san *s, struct txn_obj *o)
{
	(void)s;
	if (device_at(o)->gone)
		san_device_free(device_at(o));
}

static const struct txn_obj_type device_type = {
    .smalls = 1,
    .emit = device_emit,
    .committed = device_committed,
};

/* ---- tables ---------------------------------------------------------------------------------------------------------------- */

struct device *san_device_of(const struct san *s, device_no no)
{
	return idtab_get(&s->devices, no);
}

struct pool *pool_of(const struct san *s, uint32_t id)
{
	return idtab_get(&s->pools, id);
}

static struct pool *pool_get_or_new(struct san *s, uint32_t id)
{
	struct pool *p = pool_of(s, id);

	if (p || idtab_reserve(&s->pools))
		return p;
	p = mem_zalloc(sizeof(*p));
	if (!p)
		return NULL;
	p->id = id;
	idtab_add(&s->pools, id, p);
	return p;
}

static int pool_reserve(struct pool *p)
{
	uint32_t max = p->devices_max ? p->devices_max * 2 : 8;
	struct device **devices;
	uint32_t *free_n;

	if (p->devices_n < p->devices_max)
		return 0;
	devices = mem_realloc(p->devices, max, sizeof(devices[0]));
	if (!devices)
		return -ENOMEM;
	p->devices = devices;
	free_n = mem_realloc(p->free_n, max, sizeof(free_n[0]));
	if (!free_n)
		return -ENOMEM;
	p->free_n = free_n;
	p->devices_max = max;
	return 0;
}

static void pool_leave(struct device *d)
{
	struct pool *p = d->pool;
	uint32_t i = 0;

	while (p->devices[i] != d)
		i++;
	p->devices_n--;
	memmove(&p->devices[i], &p->devices[i + 1], (p->devices_n - i) * sizeof(p->devices[0]));
}

int san_device_new(struct san *s, device_no no, const struct schema_device *rec,
		   struct device **ret_d)
{
	struct pool *p = pool_get_or_new(s, rec->pool);
	struct device *d = mem_zalloc(sizeof(*d));

	if (!d || !p || pool_reserve(p) || idtab_reserve(&s->devices) || htab_init(&d->out, 8) ||
	    san_device_grow(d, rec->slots_n)) {
		if (d)
			san_device_free(d);
		return -ENOMEM;
	}
	d->obj.type = &device_type;
	d->no = no;
	d->pool = p;
	d->chunk_shift = rec->chunk_shift;
	d->lose_job = rec->lose_job;
	d->pull_after = UINT32_MAX;
	p->devices[p->devices_n++] = d;
	idtab_add(&s->devices, no, d);
	*ret_d = d;
	return 0;
}

void san_device_free(struct device *d)
{
	frees_free(d);
	mem_free(d->used);
	mem_free(d->freeing);
	mem_free(d->held);
	mem_free(d->touched);
	mem_free(d->seen_map);
	mem_free(d->seen_intent);
	mem_free(d->pages);
	mem_free(d);
}

/* It, or a page of it, is part of the batch being collected: not to be moved or freed before that is over. */
static bool device_in_batch(const struct san *s, const struct device *d)
{
	if (txn_has(s, &d->obj))
		return true;
	for (uint32_t i = 0; i < d->pages_n; i++)
		if (txn_has(s, &d->pages[i].obj))
			return true;
	return false;
}

bool san_device_leave(struct san *s, struct device *d)
{
	if (device_in_batch(s, d) || d->pulling || d->touched)
		return false;
	d->gone = true;
	idtab_del(&s->devices, d->no);
	pool_leave(d);
	txn_mark(s, &d->obj);
	return true;
}

/* ---- add ------------------------------------------------------------------------------------------------------------------- */

static enum exec add_new(struct san *s, struct san_device_add *r)
{
	struct schema_device rec = {
	    .pool = r->pool,
	    .chunk_shift = r->chunk_shift,
	    .slots_n = r->slots_n,
	};
	struct pool *p = pool_of(s, r->pool);
	struct device *d;
	int ret;

	if (r->dev == 0 || r->dev > s->cluster.device)
		return san_op_fail(&r->req, -EINVAL, "device number %u was never given out", r->dev);
	if (p && p->devices_n && p->devices[0]->chunk_shift != r->chunk_shift)
		return san_op_fail(&r->req, -EINVAL,
				   "the device has chunks of %u KiB, those of its pool have %u",
				   1u << (r->chunk_shift - 10),
				   1u << (p->devices[0]->chunk_shift - 10));
	ret = san_device_new(s, r->dev, &rec, &d);
	if (ret)
		return san_op_fail(&r->req, ret, "out of memory");
	txn_mark(s, &d->obj);
	records_add(s, r->also, r->also_n);
	return EXEC_DONE;
}

static enum exec add_exec(struct san *s, struct san_req *req)
{
	struct san_device_add *r = container_of(req, struct san_device_add, req);
	struct device *d = san_device_of(s, r->dev);
	int ret;

	if (!txn_fits(s, 0, 1 + r->also_n))
		return EXEC_MORE;
	if (!d)
		return add_new(s, r);
	if (d->pool->id != r->pool || d->chunk_shift != r->chunk_shift || r->slots_n < d->slots_n ||
	    d->lose_job)
		return san_op_fail(req, -EEXIST,
				   "device %u is there already, with other properties", r->dev);
	if (r->slots_n > d->slots_n) {
		if (device_in_batch(s, d) || d->touched)
			return d->touched ? san_op_fail(req, -EBUSY, "a check is running")
					  : EXEC_MORE;
		ret = san_device_grow(d, r->slots_n);
		if (ret)
			return san_op_fail(req, ret, "out of memory");
		txn_mark(s, &d->obj);
	}
	records_add(s, r->also, r->also_n);
	return EXEC_DONE;
}

void san_device_add(struct san *s, struct san_device_add *r)
{
	san_op_begin(s, &r->req, add_exec, NULL);
	if ((r->chunk_shift != CHUNK_SHIFT_FLASH && r->chunk_shift != CHUNK_SHIFT_DISK) ||
	    r->slots_n == 0 || r->slots_n > SLOTS_MAX || !records_ok(r->also, r->also_n))
		san_op_refuse(&r->req, -EINVAL);
	else
		san_op_write(&r->req);
}

/* ---- remove, lose ---------------------------------------------------------------------------------------------------------- */

static enum exec remove_exec(struct san *s, struct san_req *req)
{
	struct san_device_remove *r = container_of(req, struct san_device_remove, req);
	struct device *d = san_device_of(s, r->dev);

	if (!d)
		return san_op_fail(req, -ENOENT, "there is no device %u", r->dev);
	if (d->used_n || d->freeing_n)
		return san_op_fail(req, -ENOTEMPTY, "device %u still holds %u chunks", r->dev,
				   d->used_n + d->freeing_n);
	if (d->lose_job)
		return san_op_fail(req, -EBUSY, "device %u is being removed as lost", r->dev);
	if (d->pulling || d->touched)
		return san_op_fail(req, -EBUSY, "device %u is being looked at; try again", r->dev);
	if (!txn_fits(s, 0, 1 + r->also_n) || !san_device_leave(s, d))
		return EXEC_MORE;
	records_add(s, r->also, r->also_n);
	return EXEC_DONE;
}

void san_device_remove(struct san *s, struct san_device_remove *r)
{
	san_op_begin(s, &r->req, remove_exec, NULL);
	if (records_ok(r->also, r->also_n))
		san_op_write(&r->req);
	else
		san_op_refuse(&r->req, -EINVAL);
}

static enum exec lose_exec(struct san *s, struct san_req *req)
{
	struct san_device_lose *r = container_of(req, struct san_device_lose, req);
	struct device *d = san_device_of(s, r->dev);
	char subject[NAME_LEN_MAX + 1];
	struct job *job;

	if (!d)
		return san_op_fail(req, -ENOENT, "there is no device %u", r->dev);
	if (job_unfinished(s, d->lose_job)) {
		r->job = d->lose_job;
		return EXEC_DONE;
	}
	if (!txn_fits(s, 1, JOB_SMALLS + 1 + r->also_n))
		return EXEC_MORE;
	job = job_new(s);
	if (!job)
		return san_op_fail(req, -ENOMEM, "out of memory");
	snprintf(subject, sizeof(subject), "%u", r->dev);
	job_add(s, job, SAN_JOB_DEVICE_LOSE, (uint64_t[SAN_JOB_ARGS]){r->dev}, subject);
	job->j.total_n = d->used_n + d->freeing_n;
	d->lose_job = r->job = job->j.id;
	d->lose_phase =
	    0; /* one before may have failed half-way, at something that is mended now */
	d->lose_after.len = 0;
	txn_mark(s, &d->obj);
	records_add(s, r->also, r->also_n);
	return EXEC_DONE;
}

void san_device_lose(struct san *s, struct san_device_lose *r)
{
	san_op_begin(s, &r->req, lose_exec, NULL);
	if (records_ok(r->also, r->also_n))
		san_op_write(&r->req);
	else
		san_op_refuse(&r->req, -EINVAL);
}

/* ---- the pool goes --------------------------------------------------------------------------------------------------------- */

static const struct volume *volume_in(const struct san *s, uint32_t pool)
{
	struct volume *vol;

	idtab_for_each (vol, &s->volumes)
		if (vol->v.pool == pool)
			return vol;
	return NULL;
}

bool san_pool_has_volumes(const struct san *s, uint32_t pool)
{
	return volume_in(s, pool) != NULL;
}

static enum exec pool_leave_exec(struct san *s, struct san_req *req)
{
	struct san_pool_leave *r = container_of(req, struct san_pool_leave, req);
	const struct volume *vol = volume_in(s, r->pool);
	const struct pool *p = pool_of(s, r->pool);

	if (!txn_fits(s, 0, r->also_n))
		return EXEC_MORE;
	if (vol)
		return san_op_fail(req, -ENOTEMPTY, "volume %s is in it%s", vol->v.name,
				   vol->v.state == SAN_VOLUME_DELETING ? ", being deleted" : "");
	if (p && p->devices_n)
		return san_op_fail(req, -ENOTEMPTY, "it has device %u", p->devices[0]->no);
	records_add(s, r->also, r->also_n);
	return EXEC_DONE;
}

void san_pool_leave(struct san *s, struct san_pool_leave *r)
{
	san_op_begin(s, &r->req, pool_leave_exec, NULL);
	if (records_ok(r->also, r->also_n))
		san_op_write(&r->req);
	else
		san_op_refuse(&r->req, -EINVAL);
}

/* ---- what there is --------------------------------------------------------------------------------------------------------- */

void san_device_usable(struct san *s, device_no dev, bool usable)
{
	struct device *d = san_device_of(s, dev);

	if (d)
		d->usable = usable;
}

static void fill(const struct device *d, struct san_device *ret_device)
{
	*ret_device = (struct san_device){
	    .dev = d->no,
	    .pool = d->pool->id,
	    .chunk_shift = d->chunk_shift,
	    .slots_n = d->slots_n,
	    .used_n = d->used_n,
	    .freeing_n = d->freeing_n,
	    .usable = d->usable && !d->lose_job,
	    .lost = d->lose_job != 0,
	};
}

int san_device_get(const struct san *s, device_no dev, struct san_device *ret_device)
{
	const struct device *d = san_device_of(s, dev);

	if (!d)
		return -ENOENT;
	fill(d, ret_device);
	return 0;
}

int san_device_next(const struct san *s, device_no after, struct san_device *ret_device)
{
	const struct device *d = idtab_above(&s->devices, after);

	if (!d)
		return -ENOENT;
	fill(d, ret_device);
	return 0;
}

void san_pool_space(const struct san *s, uint32_t pool, struct san_pool_space *ret_space)
{
	const struct pool *p = pool_of(s, pool);
	struct san_pool_space space = {0};

	for (uint32_t i = 0; p && i < p->devices_n; i++) {
		const struct device *d = p->devices[i];

		space.devices_n++;
		if (d->lose_job)
			continue;
		space.usable_n += d->usable;
		space.slots_n += d->slots_n;
		space.used_n += d->used_n;
		space.freeing_n += d->freeing_n;
	}
	if (p)
		space.free_usable_n = pool_free_usable(p);
	*ret_space = space;
}
