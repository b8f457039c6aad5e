/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/mock_meta.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/check.h"

enum call_kind { CALL_OPEN, CALL_CLOSE, CALL_MAP, CALL_ALLOC, CALL_UPDATE, CALL_NAMES, CALL_FREE };

struct call {
	struct ioe_req timer, timeout;
	struct mock_meta *m;
	enum call_kind kind;
	void *r;
	struct list link;
	bool timer_armed, timeout_armed, done, answered;
	/* CALL_FREE */
	device_no dev;
	uint32_t slot;
	uint64_t cgen;
	bool may_hold_data;
};

static void call_start(struct call *c);
static void call_step(struct ioe_req *r);
static void call_timeout(struct ioe_req *r);
static int execute(struct call *c);

/* ---- calls ------------------------------------------------------------------------------------------------------------ */

static struct meta_req *head_of(struct call *c)
{
	return c->r; /* every request begins with it */
}

static struct call *call_new(struct meta *meta, enum call_kind kind, void *r)
{
	struct mock_meta *m = container_of(meta, struct mock_meta, meta);
	struct call *c = calloc(1, sizeof(*c));

	check(c);
	c->m = m;
	c->kind = kind;
	c->r = r;
	list_init(&c->link);
	return c;
}

static void call_begin(struct meta *meta, enum call_kind kind, void *r)
{
	struct call *c = call_new(meta, kind, r);
	struct mock_meta *m = c->m;

	m->in_flight++;
	head_of(c)->status = 0;
	head_of(c)->errmsg[0] = '\0';
	if (head_of(c)->timeout_ns) {
		c->timeout_armed = true;
		ioe_timer(m->ioe, &c->timeout, ioe_now_ns(m->ioe) + head_of(c)->timeout_ns,
			  call_timeout);
	}
	call_start(c);
}

static void call_delay(struct call *c)
{
	uint64_t max = c->kind == CALL_FREE ? c->m->free_delay_ns_max : c->m->delay_ns_max / 2;

	c->timer_armed = true;
	ioe_timer(c->m->ioe, &c->timer, ioe_now_ns(c->m->ioe) + rand_between(&c->m->rand, 0, max),
		  call_step);
}

static void call_start(struct call *c)
{
	if (c->m->away && c->kind != CALL_FREE)
		list_push(&c->m->waiting, &c->link);
	else
		call_delay(c);
}

static void call_free(struct call *c)
{
	if (!c->timer_armed && !c->timeout_armed)
		free(c);
}

static void call_answer(struct call *c, int status)
{
	struct meta_req *r = head_of(c);
	struct mock_meta *m = c->m;

	c->answered = true;
	m->in_flight--;
	if (c->timeout_armed)
		ioe_cancel(m->ioe, &c->timeout);
	r->status = status;
	r->done(r);
}

static void call_step(struct ioe_req *r)
{
	struct call *c = container_of(r, struct call, timer);
	struct mock_meta *m = c->m;
	int status;

	c->timer_armed = false;
	if (c->answered) { /* timed out */
		call_free(c);
		return;
	}
	if (c->kind == CALL_FREE) {
		mock_store_drop(m->store, c->dev, c->slot, c->cgen, c->may_hold_data);
		m->used[c->dev][c->slot] = 0;
		m->free_n++;
		m->frees_in_flight--;
		call_free(c);
		return;
	}
	if (!c->done) {
		if (m->away) {
			list_push(&m->waiting, &c->link);
			return;
		}
		c->done = true;
		if (c->kind != CALL_UPDATE && c->kind != CALL_CLOSE &&
		    rand_below(&m->rand, 1000) < m->fail_permille) {
			if (c->kind == CALL_ALLOC && rand_percent(&m->rand, 50))
				execute(c);
			head_of(c)->status = -E_META_AWAY;
		} else {
			head_of(c)->status = execute(c);
		}
		call_delay(c);
		return;
	}
	status = head_of(c)->status;
	call_answer(c, status);
	call_free(c);
}

static void call_timeout(struct ioe_req *r)
{
	struct call *c = container_of(r, struct call, timeout);

	c->timeout_armed = false;
	if (!c->answered && !(head_of(c)->hears_out && c->timer_armed)) {
		list_del(&c->link);
		call_answer(c, -E_META_AWAY);
	}
	call_free(c);
}

void mock_meta_away(struct mock_meta *m, bool away)
{
	struct list *l;

	m->away = away;
	while (!away && (l = list_pop(&m->waiting)))
		call_start(list_entry(l, struct call, link));
}

static void do_open(struct meta *m, struct meta_open *r)
{
	call_begin(m, CALL_OPEN, r);
}
static void do_close(struct meta *m, struct meta_close *r)
{
	call_begin(m, CALL_CLOSE, r);
}
static void do_map(struct meta *m, struct meta_map *r)
{
	call_begin(m, CALL_MAP, r);
}
static void do_alloc(struct meta *m, struct meta_alloc *r)
{
	call_begin(m, CALL_ALLOC, r);
}
static void do_update(struct meta *m, struct meta_update *r)
{
	call_begin(m, CALL_UPDATE, r);
}
static void do_names(struct meta *m, struct meta_names *r)
{
	call_begin(m, CALL_NAMES, r);
}

static const struct meta_ops ops = {do_open, do_close, do_map, do_alloc, do_update, do_names};

/* ---- life ------------------------------------------------------------------------------------------------------------- */

void mock_meta_init(struct mock_meta *m, struct ioe *ioe, uint64_t seed, struct mock_store *store,
		    uint32_t devices_n, uint32_t chunk_shift)
{
	memset(m, 0, sizeof(*m));
	m->meta.ops = &ops;
	m->ioe = ioe;
	m->store = store;
	m->devices_n = devices_n;
	m->chunk_shift = chunk_shift;
	m->delay_ns_max = 1000000;
	m->free_delay_ns_max = 1000000;
	m->cgen = 100;
	m->layer_last = 10;
	rand_seed(&m->rand, seed);
	list_init(&m->waiting);
	for (uint32_t d = 1; d <= devices_n; d++) {
		m->used[d] = calloc(1, store->dev[d].slots_n);
		check(m->used[d]);
		m->free_n += store->dev[d].slots_n;
	}
}

void mock_meta_free(struct mock_meta *m)
{
	check(m->in_flight == 0 && m->frees_in_flight == 0);
	for (uint32_t d = 1; d <= m->devices_n; d++)
		free(m->used[d]);
	for (uint32_t i = 0; i < m->volumes_n; i++)
		for (uint32_t l = 0; l < m->volumes[i].layers_n; l++)
			free(m->volumes[i].layers[l]);
}

static struct mock_layer *layer_new(struct mock_meta *m)
{
	struct mock_layer *l = calloc(1, sizeof(*l));

	check(l);
	l->id = ++m->layer_last;
	return l;
}

struct mock_volume *mock_meta_volume(struct mock_meta *m, const char *name, uint64_t size_bytes)
{
	struct mock_volume *v = &m->volumes[m->volumes_n++];

	check(m->volumes_n <= MOCK_VOLUMES_MAX && size_bytes >> m->chunk_shift <= MOCK_CHUNKS_MAX);
	snprintf(v->name, sizeof(v->name), "%s", name);
	v->id = m->volumes_n;
	v->epoch = 1;
	v->size_bytes = size_bytes;
	v->sector_bytes = SECTOR_BYTES;
	v->layers_n = 1;
	v->layers[0] = layer_new(m);
	return v;
}

void mock_meta_snapshot(struct mock_meta *m, struct mock_volume *v)
{
	check(!v->owned && v->layers_n < MOCK_LAYERS_MAX);
	memmove(&v->layers[1], &v->layers[0], v->layers_n * sizeof(v->layers[0]));
	v->layers[0] = layer_new(m);
	v->layers_n++;
}

struct map_entry *mock_meta_entry(struct mock_volume *v, uint32_t layer_index, uint32_t chunk)
{
	struct map_entry *e = &v->layers[layer_index]->map[chunk];

	return e->kind == MAP_UNMAPPED ? NULL : e;
}

uint32_t mock_meta_mapped(struct mock_meta *m, uint8_t flags)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < m->volumes_n; i++)
		for (uint32_t l = 0; l < m->volumes[i].layers_n; l++)
			for (uint32_t c = 0; c < MOCK_CHUNKS_MAX; c++) {
				const struct map_entry *e = &m->volumes[i].layers[l]->map[c];

				n += e->kind == MAP_OPEN && (e->flags & flags) == flags;
			}
	return n;
}

/* ---- what the server does --------------------------------------------------------------------------------------------- */

static struct mock_volume *volume_of(struct mock_meta *m, volume_id id)
{
	check(id >= 1 && id <= m->volumes_n);
	return &m->volumes[id - 1];
}

static int open_volume(struct mock_meta *m, struct meta_open *r)
{
	m->opens++;
	for (uint32_t i = 0; i < m->volumes_n; i++) {
		struct mock_volume *v = &m->volumes[i];

		if (strcmp(v->name, r->volume))
			continue;
		if (v->elsewhere) {
			snprintf(r->owner_uri, sizeof(r->owner_uri), "nbd://other/%s", v->name);
			return -E_NOT_OWNER;
		}
		if (!v->owned)
			v->epoch++;
		v->owned = true;
		r->id = v->id;
		r->epoch = v->epoch;
		r->uuid.b[0] = (uint8_t)v->id;
		r->size_bytes = v->size_bytes;
		r->sector_bytes = v->sector_bytes;
		r->chunk_shift = m->chunk_shift;
		r->write_cache = v->write_cache;
		r->frozen = r->snapshot[0] != '\0';
		r->one_opener = v->one_opener;
		r->layers_n = 0;
		for (uint32_t l = r->frozen; l < v->layers_n; l++)
			r->layers[r->layers_n++] = v->layers[l]->id;
		r->devices_n = m->devices_n;
		for (uint32_t d = 0; d < m->devices_n; d++)
			r->devices[d] = (device_no)(d + 1);
		if (r->layers_n == 0)
			return -ENOENT;
		return 0;
	}
	return -ENOENT;
}

static int close_volume(struct mock_meta *m, struct meta_close *r)
{
	struct mock_volume *v = volume_of(m, r->volume);

	m->closes++;
	if (v->epoch != r->epoch)
		return -E_STALE_EPOCH;
	v->owned = false;
	return 0;
}

static int owner_check(const struct mock_volume *v, uint64_t epoch)
{
	return v->epoch == epoch && !v->elsewhere ? 0 : -E_STALE_EPOCH;
}

static int map_chunks(struct mock_meta *m, struct meta_map *r)
{
	struct mock_volume *v = volume_of(m, r->volume);
	uint32_t max = m->items_max && m->items_max < r->items_max ? m->items_max : r->items_max;
	uint32_t top = 0;

	m->maps++;
	if (owner_check(v, r->epoch))
		return -E_STALE_EPOCH;
	while (v->layers[top]->id != r->layer)
		check(++top < v->layers_n);
	r->items_n = 0;
	for (uint32_t c = r->first; c < r->first + r->n && c < MOCK_CHUNKS_MAX; c++)
		for (uint32_t l = top; l < v->layers_n; l++) {
			const struct map_entry *e = mock_meta_entry(v, l, c);

			if (!e)
				continue;
			if (r->items_n == max)
				return -E2BIG;
			r->items[r->items_n++] = (struct meta_map_item){.chunk = c,
									.layer = v->layers[l]->id,
									.entry = *e};
			if (e->kind == MAP_ZERO || e->flags & (MAP_FULL | MAP_OPAQUE))
				break;
		}
	return 0;
}

static struct replica slot_take(struct mock_meta *m)
{
	check(m->free_n > 0);
	for (;;) {
		device_no d = (device_no)rand_between(&m->rand, 1, m->devices_n);
		uint32_t s = (uint32_t)rand_below(&m->rand, m->store->dev[d].slots_n);

		if (m->used[d][s])
			continue;
		m->used[d][s] = 1;
		m->free_n--;
		return (struct replica){.dev = d, .slot = s, .cgen = ++m->cgen};
	}
}

static void slot_give(struct mock_meta *m, const struct map_entry *e, bool may_hold_data)
{
	struct call *c = call_new(&m->meta, CALL_FREE, NULL);

	c->dev = e->replicas[0].dev;
	c->slot = e->replicas[0].slot;
	c->cgen = e->replicas[0].cgen;
	c->may_hold_data = may_hold_data;
	m->frees_in_flight++;
	call_start(c);
}

static int alloc_chunks(struct mock_meta *m, struct meta_alloc *r)
{
	struct mock_volume *v = volume_of(m, r->volume);
	uint32_t need = 0;

	m->allocs++;
	if (owner_check(v, r->epoch))
		return -E_STALE_EPOCH;
	check(r->n > 0 && r->n <= META_CHUNKS_MAX && r->layer == v->layers[0]->id);
	for (uint32_t i = 0; i < r->n; i++) {
		const struct map_entry *e = &v->layers[0]->map[r->chunks[i]];

		if ((uint64_t)r->chunks[i] << m->chunk_shift >= v->size_bytes)
			return -EINVAL;
		need += e->kind != MAP_OPEN;
	}
	if (need > m->free_n)
		return -ENOSPC;
	for (uint32_t i = 0; i < r->n; i++) {
		struct map_entry *e = &v->layers[0]->map[r->chunks[i]];
		bool reserved = r->reserved && r->reserved[i];

		m->reserved_allocs += reserved;
		if (e->kind == MAP_OPEN) {
			if (!reserved)
				e->flags &= (uint8_t)~MAP_RESERVED;
		} else {
			uint8_t flags = e->kind == MAP_LOST			 ? MAP_FULL
					: e->kind == MAP_ZERO && v->layers_n > 1 ? MAP_OPAQUE
										 : 0;

			*e = (struct map_entry){.kind = MAP_OPEN,
						.flags = flags | (reserved ? MAP_RESERVED : 0),
						.replicas_n = 1};
			e->replicas[0] = slot_take(m);
		}
		r->items[i] = (struct meta_map_item){.chunk = r->chunks[i],
						     .layer = v->layers[0]->id,
						     .entry = *e};
	}
	return 0;
}

static int update_chunks(struct mock_meta *m, struct meta_update *r)
{
	struct mock_volume *v = volume_of(m, r->volume);

	m->updates++;
	if (owner_check(v, r->epoch))
		return -E_STALE_EPOCH;
	check(r->n > 0 && r->n <= META_CHUNKS_MAX && r->layer == v->layers[0]->id);
	for (uint32_t i = 0; i < r->n; i++) {
		struct map_entry *e = &v->layers[0]->map[r->items[i].chunk];
		bool hid =
		    v->layers_n > 1 && (e->kind == MAP_ZERO || e->flags & (MAP_FULL | MAP_OPAQUE));
		uint8_t kind = hid ? MAP_ZERO : MAP_UNMAPPED;

		if ((e->kind == MAP_OPEN ? e->replicas[0].cgen : 0) != r->items[i].cgen) {
			if (!m->took_back)
				mock_store_violation(m->store, "update of chunk %u: another cgen",
						     r->items[i].chunk);
			continue;
		}
		if (e->kind == MAP_OPEN)
			slot_give(m, e, e->flags & MAP_RESERVED);
		if (r->items[i].change == META_UNMAP_ZERO || r->items[i].change == META_SET_ZERO)
			kind = MAP_ZERO;
		*e = (struct map_entry){.kind = kind};
	}
	return 0;
}

static int list_names(struct mock_meta *m, struct meta_names *r)
{
	r->names_n = 0;
	for (uint32_t i = 0; i < m->volumes_n && r->names_n < r->names_max; i++)
		if (strcmp(m->volumes[i].name, r->after) > 0)
			memcpy(r->names[r->names_n++], m->volumes[i].name,
			       sizeof(m->volumes[i].name));
	return 0;
}

static int execute(struct call *c)
{
	switch (c->kind) {
	case CALL_OPEN:
		return open_volume(c->m, c->r);
	case CALL_CLOSE:
		return close_volume(c->m, c->r);
	case CALL_MAP:
		return map_chunks(c->m, c->r);
	case CALL_ALLOC:
		return alloc_chunks(c->m, c->r);
	case CALL_UPDATE:
		return update_chunks(c->m, c->r);
	case CALL_NAMES:
		return list_names(c->m, c->r);
	case CALL_FREE:
		break;
	}
	check_unreachable("a call of no kind");
}

bool mock_meta_move(struct mock_meta *m, struct mock_volume *v, uint32_t chunk)
{
	struct map_entry *e = mock_meta_entry(v, 0, chunk), old;
	struct mock_slot *s;

	if (!e || e->kind != MAP_OPEN || m->free_n == 0)
		return false;
	old = *e;
	e->replicas[0] = slot_take(m);
	s = mock_store_slot(m->store, old.replicas[0].dev, old.replicas[0].slot,
			    old.replicas[0].cgen);
	for (uint32_t b = 0; s && b < m->store->chunk_blocks; b++)
		mock_store_put(m->store, e->replicas[0].dev, e->replicas[0].slot,
			       e->replicas[0].cgen, v->layers[0]->id, chunk, b, s->blocks[b].state,
			       s->blocks[b].data);
	mock_store_drop(m->store, old.replicas[0].dev, old.replicas[0].slot, old.replicas[0].cgen,
			true);
	m->used[old.replicas[0].dev][old.replicas[0].slot] = 0;
	m->free_n++;
	return true;
}

bool mock_meta_take_back(struct mock_meta *m, struct mock_volume *v)
{
	for (uint32_t c = 0; c < MOCK_CHUNKS_MAX; c++) {
		struct map_entry *e = &v->layers[0]->map[c];

		if (e->kind != MAP_OPEN || !(e->flags & MAP_RESERVED))
			continue;
		slot_give(m, e, true);
		*e = (struct map_entry){.kind = MAP_UNMAPPED};
		m->took_back = true;
		return true;
	}
	return false;
}
