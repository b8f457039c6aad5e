/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/mock_volume/mock_volume.h"

#include <stdio.h>
#include <string.h>

#include "src/base/check.h"
#include "src/base/hash.h"
#include "src/base/math.h"
#include "src/base/mem.h"

/* Something that is to happen later; lives in the `priv` of what it happens to. */
struct __attribute__((may_alias)) job {
	struct list link;
	void (*fn)(struct job *j);
	uint64_t due_ns;
	uint64_t payload_hash, oom;
	struct volume_handle *handle;
};
#define JOB_OF(op)	((struct job *)(void *)(op)->priv)
#define OF_JOB(j, type) container_of((uint64_t(*)[])(void *)(j), type, priv)

struct volumes {
	struct ioe *ioe;
	struct mock_rules rules;
	struct list volumes, now, later,
	    held; /* jobs: at the end of the turn, by time, by the test */
	struct ioe_hook hook;
	struct ioe_req timer;
	bool timer_busy;
	uint64_t timer_ns;
	uint32_t in_flight, held_n;
};

struct volume_handle {
	struct volumes *vs;
	struct mock_volume *volume;
	struct list link;
	uint32_t in_flight;
	void (*on_change)(void *arg, int status);
	void *on_change_arg;
	/* closing */
	void (*closed)(void *arg);
	void *closed_arg;
	uint64_t priv[8];
};
static_assert(sizeof(struct job) <= 8 * sizeof(uint64_t), "fits the smallest priv");

/* ---- what happens later ----------------------------------------------------------------------------------------------- */

static void run_now(struct volumes *vs)
{
	struct list batch, *l;

	list_init(&batch);
	list_splice(&batch, &vs->now);
	while ((l = list_pop(&batch))) {
		struct job *j = list_entry(l, struct job, link);

		j->fn(j);
	}
}

static void hook_fn(struct ioe_hook *h)
{
	run_now(container_of(h, struct volumes, hook));
}

static void timer_arm(struct volumes *vs);

static void timer_done(struct ioe_req *r)
{
	struct volumes *vs = container_of(r, struct volumes, timer);
	uint64_t now = ioe_now_ns(vs->ioe);

	vs->timer_busy = false;
	list_for_each_safe (pos, next, &vs->later) {
		struct job *j = list_entry(pos, struct job, link);

		if (j->due_ns > now)
			continue;
		list_del(pos);
		list_push(&vs->now, pos);
	}
	timer_arm(vs);
	run_now(vs);
}

static void timer_arm(struct volumes *vs)
{
	uint64_t first = UINT64_MAX;

	list_for_each (pos, &vs->later)
		first = MIN(first, list_entry(pos, struct job, link)->due_ns);
	if (first == UINT64_MAX)
		return;
	if (vs->timer_busy) {
		if (first < vs->timer_ns)
			ioe_cancel(vs->ioe, &vs->timer);
		return;
	}
	vs->timer_busy = true;
	vs->timer_ns = first;
	ioe_timer(vs->ioe, &vs->timer, first, timer_done);
}

static void job_start(struct volumes *vs, struct job *j, void (*fn)(struct job *j),
		      uint64_t delay_ns)
{
	j->fn = fn;
	j->due_ns = ioe_now_ns(vs->ioe) + delay_ns;
	if (delay_ns) {
		list_push(&vs->later, &j->link);
		timer_arm(vs);
	} else {
		list_push(&vs->now, &j->link);
		ioe_hook_arm(vs->ioe, &vs->hook);
	}
}

/* ---- the test's side -------------------------------------------------------------------------------------------------- */

struct volumes *mock_volumes_new(struct ioe *e)
{
	struct volumes *vs = mem_zalloc(sizeof(*vs));

	check(vs);
	vs->ioe = e;
	list_init(&vs->volumes);
	list_init(&vs->now);
	list_init(&vs->later);
	list_init(&vs->held);
	ioe_hook_init(&vs->hook, hook_fn);
	return vs;
}

void mock_volumes_free(struct volumes *vs)
{
	struct list *l;

	check(vs->in_flight == 0 && list_empty(&vs->now) && list_empty(&vs->later) &&
	      !vs->timer_busy);
	ioe_hook_disarm(&vs->hook);
	while ((l = list_pop(&vs->volumes))) {
		struct mock_volume *v = list_entry(l, struct mock_volume, link);

		check(v->handles_n == 0);
		mem_free(v->data);
		mem_free(v->states);
		mem_free(v);
	}
	mem_free(vs);
}

struct mock_rules *mock_rules(struct volumes *vs)
{
	return &vs->rules;
}

uint32_t mock_in_flight(struct volumes *vs)
{
	return vs->in_flight;
}

uint32_t mock_held(struct volumes *vs)
{
	return vs->held_n;
}

void mock_release(struct volumes *vs, uint32_t i)
{
	list_for_each (pos, &vs->held) {
		if (i-- > 0)
			continue;
		list_del(pos);
		list_push(&vs->now, pos);
		vs->held_n--;
		ioe_hook_arm(vs->ioe, &vs->hook);
		return;
	}
	check_unreachable("no such request is held");
}

void mock_release_all(struct volumes *vs)
{
	while (vs->held_n)
		mock_release(vs, 0);
}

struct mock_volume *mock_volume_find(struct volumes *vs, const char *name)
{
	list_for_each (pos, &vs->volumes) {
		struct mock_volume *v = list_entry(pos, struct mock_volume, link);

		if (strcmp(v->name, name) == 0)
			return v;
	}
	return NULL;
}

struct mock_volume *mock_volume_add(struct volumes *vs, const char *name, uint64_t size_bytes)
{
	struct mock_volume *v = mem_zalloc(sizeof(*v));
	struct list *before = &vs->volumes;

	check(v && size_bytes % BLOCK_BYTES == 0 && !mock_volume_find(vs, name));
	v->data = mem_zalloc(size_bytes);
	v->states = mem_zalloc(size_bytes / BLOCK_BYTES);
	check(v->data && v->states);
	snprintf(v->name, sizeof(v->name), "%s", name);
	v->size_bytes = size_bytes;
	v->read_only = strchr(name, '@') != NULL;
	list_init(&v->handles);
	list_for_each (pos, &vs->volumes) {
		if (strcmp(list_entry(pos, struct mock_volume, link)->name, name) < 0)
			continue;
		before = pos;
		break;
	}
	list_push(before, &v->link);
	return v;
}

static void tell_openers(struct mock_volume *v, int status)
{
	list_for_each_safe (pos, next, &v->handles) {
		struct volume_handle *h = list_entry(pos, struct volume_handle, link);

		if (h->on_change)
			h->on_change(h->on_change_arg, status);
	}
}

void mock_volume_resize(struct mock_volume *v, uint64_t size_bytes)
{
	v->size_bytes = size_bytes;
	tell_openers(v, 0);
}

void mock_volume_take_away(struct mock_volume *v, int status)
{
	tell_openers(v, status);
}

/* ---- open, close, list ------------------------------------------------------------------------------------------------ */

static void opened(struct job *j)
{
	struct volume_open *op = OF_JOB(j, struct volume_open);

	if (j->oom)
		mem_fail_at(j->oom - 1, 1);
	op->done(op);
	mem_fail_at(UINT64_MAX, 0);
}

void volume_open(struct volumes *vs, struct volume_open *op)
{
	struct mock_volume *v = mock_volume_find(vs, op->name);
	char volume[NAME_LEN_MAX + 1], snapshot[NAME_LEN_MAX + 1];

	snprintf(vs->rules.last_client, sizeof(vs->rules.last_client), "%s", op->client);
	vs->rules.last_remote = op->remote_client;
	op->handle = NULL;
	op->errmsg[0] = op->owner_uri[0] = '\0';
	if (name_split(op->name, volume, snapshot) < 0)
		op->status = -EINVAL;
	else if (vs->rules.open_status)
		op->status = vs->rules.open_status;
	else
		op->status = v ? 0 : -ENOENT;
	if (op->status == 0) {
		struct volume_handle *h = mem_zalloc(sizeof(*h));

		if (h) {
			h->vs = vs;
			h->volume = v;
			list_push(&v->handles, &h->link);
			v->handles_n++;
			op->handle = h;
		} else {
			op->status = -ENOMEM;
		}
	} else {
		snprintf(op->errmsg, sizeof(op->errmsg), "%s", vs->rules.open_errmsg);
		snprintf(op->owner_uri, sizeof(op->owner_uri), "%s", vs->rules.open_owner_uri);
	}
	op->name = op->client = NULL; /* copied at the call, if anything */
	JOB_OF(op)->oom = vs->rules.open_oom;
	job_start(vs, JOB_OF(op), opened, vs->rules.open_delay_ns);
}

static void closed(struct job *j)
{
	struct volume_handle *h = OF_JOB(j, struct volume_handle);
	void (*done)(void *arg) = h->closed;
	void *arg = h->closed_arg;

	list_del(&h->link);
	h->volume->handles_n--;
	mem_free(h);
	done(arg);
}

void volume_left(struct volume_handle *h)
{
	check(!h->closed);
}

void volume_close(struct volume_handle *h, void (*done)(void *arg), void *arg)
{
	check(!h->closed);
	h->closed = done;
	h->closed_arg = arg;
	if (h->in_flight == 0)
		job_start(h->vs, JOB_OF(h), closed, h->vs->rules.open_delay_ns);
}

void volume_geometry(struct volume_handle *h, struct volume_geometry *ret_geometry)
{
	*ret_geometry = (struct volume_geometry){
	    .size_bytes = h->volume->size_bytes,
	    .sector_bytes = SECTOR_BYTES,
	    .physical_bytes = BLOCK_BYTES,
	    .io_bytes_max = VOLUME_IO_BYTES_MAX,
	    .chunk_bytes = 1 << CHUNK_SHIFT_FLASH,
	    .read_only = h->volume->read_only,
	    .one_opener = h->volume->one_opener,
	    .write_cache = true,
	};
	memcpy(ret_geometry->name, h->volume->name, sizeof(ret_geometry->name));
}

void volume_on_change(struct volume_handle *h, void (*fn)(void *arg, int status), void *arg)
{
	h->on_change = fn;
	h->on_change_arg = arg;
}

static void listed(struct job *j)
{
	struct volume_list *op = OF_JOB(j, struct volume_list);

	op->done(op);
}

void volume_list(struct volumes *vs, struct volume_list *op)
{
	check(op->names_max >= 1 && op->names_max <= 1000);
	op->status = vs->rules.list_status;
	op->names_n = 0;
	list_for_each (pos, &vs->volumes) {
		const struct mock_volume *v = list_entry(pos, struct mock_volume, link);

		if (op->status == 0 && op->names_n < op->names_max && !strchr(v->name, '@') &&
		    strcmp(v->name, op->after) > 0)
			memcpy(op->names[op->names_n++], v->name, sizeof(*op->names));
	}
	job_start(vs, JOB_OF(op), listed, vs->rules.open_delay_ns);
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

static void submit_check(struct volume_handle *h, const struct volume_req *r)
{
	const struct mock_volume *v = h->volume;

	check(!h->closed);
	if (r->op == VOLUME_FLUSH)
		return;
	check(r->len > 0 && (r->off | r->len) % SECTOR_BYTES == 0);
	check(range_inside(r->off, r->len, v->size_bytes) ||
	      h->on_change); /* a resize may cross it */
	if (r->op == VOLUME_READ || r->op == VOLUME_WRITE) {
		check((uintptr_t)r->buf % BLOCK_BYTES == r->off % BLOCK_BYTES);
		check(r->len <= VOLUME_IO_BYTES_MAX);
	}
	if (r->op == VOLUME_STATUS)
		check(r->extents_max >= 1);
	check(!(r->flags & VOLUME_F_FUA) || r->op == VOLUME_WRITE || r->op == VOLUME_WRITE_ZEROES ||
	      r->op == VOLUME_DISCARD);
	check(!(r->flags & (VOLUME_F_NO_HOLE | VOLUME_F_FAST_ZERO)) || r->op == VOLUME_WRITE_ZEROES);
	check(!(r->flags & VOLUME_F_ONE_EXTENT) || r->op == VOLUME_STATUS);
}

/* The memory of the partial blocks around belongs to the request: use it. */
static void scribble_around(struct volume_req *r)
{
	uint8_t *first = (uint8_t *)r->buf - r->off % BLOCK_BYTES;
	uint64_t end = r->off % BLOCK_BYTES + r->len;

	memset(first, 0xa5, r->off % BLOCK_BYTES);
	memset(first + end, 0x5a, round_up(end, BLOCK_BYTES) - end);
}

static void set_states(struct mock_volume *v, uint64_t off, uint64_t len, enum mock_state state)
{
	memset(v->states + off / BLOCK_BYTES, state, div_up(off % BLOCK_BYTES + len, BLOCK_BYTES));
}

/* Whole blocks become `state`; of the partial ones only the bytes change, and only when asked. */
static void clear(struct mock_volume *v, uint64_t off, uint64_t len, enum mock_state state,
		  bool partial)
{
	uint64_t first = round_up(off, BLOCK_BYTES), end = round_down(off + len, BLOCK_BYTES);

	if (partial)
		memset(v->data + off, 0, len);
	if (first >= end)
		return;
	memset(v->data + first, 0, end - first);
	set_states(v, first, end - first, state);
}

static void status_fill(const struct mock_volume *v, struct volume_req *r, bool sloppy)
{
	static const uint32_t flags[] = {[MOCK_HOLE] = VOLUME_EXTENT_HOLE | VOLUME_EXTENT_ZERO,
					 [MOCK_ZERO] = VOLUME_EXTENT_ZERO,
					 [MOCK_DATA] = 0};
	uint64_t at = r->off, end = r->off + r->len;

	r->extents_n = 0;
	while (at < end) {
		uint8_t state = v->states[at / BLOCK_BYTES];
		uint64_t start = at;

		if (r->extents_n == r->extents_max ||
		    (r->extents_n == 1 && r->flags & VOLUME_F_ONE_EXTENT))
			break;
		while (at < end && v->states[at / BLOCK_BYTES] == state) {
			at = round_down(at, BLOCK_BYTES) + BLOCK_BYTES;
			if (sloppy)
				break;
			at = MIN(at, end);
		}
		r->extents[r->extents_n++] = (struct volume_extent){at - start, flags[state]};
	}
}

static int execute(struct volume_handle *h, struct volume_req *r)
{
	struct mock_volume *v = h->volume;
	struct mock_rules *rules = &h->vs->rules;
	int fault = rules->fault ? rules->fault(rules->fault_arg, r) : 0;

	if (fault < 0)
		return fault;
	if (r->op != VOLUME_FLUSH && !range_inside(r->off, r->len, v->size_bytes))
		return -EINVAL;
	if (v->read_only &&
	    (r->op == VOLUME_WRITE || r->op == VOLUME_WRITE_ZEROES || r->op == VOLUME_DISCARD))
		return -EROFS;
	switch (r->op) {
	case VOLUME_READ:
		memcpy(r->buf, v->data + r->off, r->len);
		break;
	case VOLUME_WRITE:
		memcpy(v->data + r->off, r->buf, r->len);
		set_states(v, r->off, r->len, MOCK_DATA);
		break;
	case VOLUME_WRITE_ZEROES:
		if (r->flags & VOLUME_F_FAST_ZERO && rules->no_fast_zero)
			return -EOPNOTSUPP;
		clear(v, r->off, r->len, r->flags & VOLUME_F_NO_HOLE ? MOCK_ZERO : MOCK_HOLE, true);
		break;
	case VOLUME_DISCARD:
		clear(v, r->off, r->len, MOCK_HOLE, false);
		break;
	case VOLUME_FLUSH:
		break;
	case VOLUME_STATUS:
		status_fill(v, r, rules->sloppy_extents);
		break;
	}
	return 0;
}

static void request_done(struct job *j)
{
	struct volume_req *r = OF_JOB(j, struct volume_req);
	struct volume_handle *h = j->handle;

	if (h->vs->rules.check && r->op == VOLUME_WRITE)
		check(hash_bytes(r->buf, r->len) == j->payload_hash);
	h->in_flight--;
	h->vs->in_flight--;
	if (h->closed && h->in_flight == 0)
		job_start(h->vs, JOB_OF(h), closed, h->vs->rules.open_delay_ns);
	r->done(r);
}

void volume_submit(struct volume_handle *h, struct volume_req *r)
{
	struct volumes *vs = h->vs;
	struct mock_volume *v = h->volume;
	struct job *j = JOB_OF(r);
	uint64_t delay = vs->rules.delay_ns_min;

	submit_check(h, r);
	v->seen[v->seen_n % MOCK_SEEN_MAX].op = r->op;
	v->seen[v->seen_n % MOCK_SEEN_MAX].flags = r->flags;
	v->seen[v->seen_n % MOCK_SEEN_MAX].off = r->off;
	v->seen[v->seen_n % MOCK_SEEN_MAX].len = r->len;
	v->seen_n++;
	r->status = execute(h, r);
	if (vs->rules.check && (r->op == VOLUME_READ || r->op == VOLUME_WRITE)) {
		scribble_around(r);
		j->payload_hash = hash_bytes(r->buf, r->len);
	}
	j->handle = h;
	h->in_flight++;
	vs->in_flight++;
	if (vs->rules.delay_ns_max > delay)
		delay += ioe_rand64(vs->ioe) % (vs->rules.delay_ns_max - delay);
	if (vs->rules.hold) {
		j->fn = request_done;
		list_push(&vs->held, &j->link);
		vs->held_n++;
	} else {
		job_start(vs, j, request_done, delay);
	}
}
