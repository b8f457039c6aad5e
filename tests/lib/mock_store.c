/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/mock_store.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/check.h"
#include "src/base/crc.h"

struct mock_io {
	struct ioe_req timer;
	struct mock_store *m;
	struct chunk_req *cr;
	struct list link; /* in m->running, or a device's waiting */
	bool done;	  /* took effect */
};

static void submit(struct chunk_store *s, struct chunk_req *cr);
static void io_start(struct mock_io *io);
static void io_step(struct ioe_req *r);
static int execute(struct mock_store *m, struct chunk_req *cr);

/* ---- life ------------------------------------------------------------------------------------------------------------- */

static bool is_stable(struct chunk_store *s, device_no dev)
{
	return container_of(s, struct mock_store, store)->dev[dev].stable;
}

static bool is_local(struct chunk_store *s, device_no dev)
{
	return !container_of(s, struct mock_store, store)->dev[dev].remote;
}

void mock_store_init(struct mock_store *m, struct ioe *ioe, uint64_t seed, uint32_t devices_n,
		     uint32_t slots_n, uint32_t chunk_shift)
{
	memset(m, 0, sizeof(*m));
	m->store =
	    (struct chunk_store){.submit = submit, .is_stable = is_stable, .is_local = is_local};
	m->ioe = ioe;
	m->chunk_blocks = 1U << (chunk_shift - BLOCK_SHIFT);
	m->delay_ns_max = 1000000;
	rand_seed(&m->rand, seed);
	list_init(&m->running);
	check(devices_n <= MOCK_DEVICES_MAX);
	for (uint32_t d = 1; d <= devices_n; d++) {
		m->dev[d].slots_n = slots_n;
		m->dev[d].incarnation = 1;
		m->dev[d].slots = calloc(slots_n, sizeof(m->dev[d].slots[0]));
		check(m->dev[d].slots);
		list_init(&m->dev[d].waiting);
	}
}

static void slot_close(struct mock_store *m, struct mock_slot *s)
{
	for (uint32_t b = 0; s->open && b < m->chunk_blocks; b++) {
		free(s->blocks[b].data);
		free(s->blocks[b].stable_data);
	}
	free(s->blocks);
	s->blocks = NULL;
	s->open = false;
}

void mock_store_free(struct mock_store *m)
{
	check(m->in_flight == 0);
	for (uint32_t d = 1; d <= MOCK_DEVICES_MAX; d++) {
		for (uint32_t s = 0; s < m->dev[d].slots_n; s++)
			slot_close(m, &m->dev[d].slots[s]);
		free(m->dev[d].slots);
	}
}

void mock_store_violation(struct mock_store *m, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (m->violations++ == 0) {
		vsnprintf(m->violation, sizeof(m->violation), fmt, ap);
		fprintf(stderr, "violation: %s\n", m->violation);
	}
	va_end(ap);
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

static bool changes(const struct chunk_req *cr)
{
	return cr->op == CHUNK_WRITE || cr->op == CHUNK_CLEAR;
}

/* The interval lock's promise: what overlaps a change is not in flight with it. */
static void check_overlap(struct mock_store *m, const struct chunk_req *cr)
{
	if (cr->op == CHUNK_FLUSH)
		return;
	list_for_each (l, &m->running) {
		const struct chunk_req *o = list_entry(l, struct mock_io, link)->cr;

		if (o->op == CHUNK_FLUSH || o->dev != cr->dev || o->slot != cr->slot ||
		    o->cgen != cr->cgen)
			continue;
		if ((changes(o) || changes(cr)) && o->block < cr->block + cr->blocks_n &&
		    cr->block < o->block + o->blocks_n)
			mock_store_violation(m, "overlapping in flight: chunk %u block %u",
					     cr->chunk, cr->block);
	}
}

static void submit(struct chunk_store *s, struct chunk_req *cr)
{
	struct mock_store *m = container_of(s, struct mock_store, store);
	struct mock_io *io = calloc(1, sizeof(*io));

	check(io && cr->dev >= 1 && cr->dev <= MOCK_DEVICES_MAX && m->dev[cr->dev].slots);
	io->m = m;
	io->cr = cr;
	m->requests++;
	m->in_flight++;
	if (cr->op != CHUNK_FLUSH &&
	    (cr->blocks_n == 0 || cr->block + cr->blocks_n > m->chunk_blocks))
		mock_store_violation(m, "blocks %u + %u", cr->block, cr->blocks_n);
	if ((cr->op == CHUNK_READ || cr->op == CHUNK_WRITE) && (uintptr_t)cr->buf % BLOCK_BYTES)
		mock_store_violation(m, "buffer not aligned");
	check_overlap(m, cr);
	if (m->dev[cr->dev].away || cr->volume == m->stuck)
		list_push(&m->dev[cr->dev].waiting, &io->link);
	else
		io_start(io);
}

static void io_delay(struct mock_io *io)
{
	struct mock_store *m = io->m;

	ioe_timer(m->ioe, &io->timer,
		  ioe_now_ns(m->ioe) + rand_between(&m->rand, 0, m->delay_ns_max / 2), io_step);
}

static void io_start(struct mock_io *io)
{
	list_push(&io->m->running, &io->link);
	io_delay(io);
}

static void io_step(struct ioe_req *r)
{
	struct mock_io *io = container_of(r, struct mock_io, timer);
	struct mock_store *m = io->m;
	struct chunk_req *cr = io->cr;

	if (!io->done) {
		if (m->dev[cr->dev].away) {
			list_del(&io->link);
			list_push(&m->dev[cr->dev].waiting, &io->link);
			return;
		}
		cr->status = execute(m, cr);
		io->done = true;
		io_delay(io);
		return;
	}
	list_del(&io->link);
	free(io);
	m->in_flight--;
	cr->done(cr);
}

void mock_store_away(struct mock_store *m, device_no dev, bool away)
{
	struct list *l;

	m->dev[dev].away = away;
	while (!away && (l = list_pop(&m->dev[dev].waiting)))
		io_start(list_entry(l, struct mock_io, link));
}

void mock_store_stuck(struct mock_store *m, volume_id volume)
{
	m->stuck = volume;
	for (device_no d = 1; d <= MOCK_DEVICES_MAX && volume == 0; d++)
		if (m->dev[d].slots)
			mock_store_away(m, d, m->dev[d].away);
}

/* ---- what a device does ----------------------------------------------------------------------------------------------- */

static void set_data(uint8_t **data, const void *from)
{
	if (!from) {
		free(*data);
		*data = NULL;
		return;
	}
	if (!*data)
		*data = malloc(BLOCK_BYTES);
	check(*data);
	memcpy(*data, from, BLOCK_BYTES);
}

static void settle(struct mock_block *b)
{
	b->stable_state = b->state;
	set_data(&b->stable_data, b->data);
}

static uint32_t present_n(const struct mock_store *m, const struct mock_slot *s)
{
	uint32_t n = 0;

	for (uint32_t b = 0; s->open && b < m->chunk_blocks; b++)
		n += s->blocks[b].state == BLOCK_DATA || s->blocks[b].state == BLOCK_BAD;
	return n;
}

static void slot_open(struct mock_store *m, struct mock_slot *s, uint64_t cgen, layer_id layer,
		      uint32_t chunk)
{
	*s = (struct mock_slot){.cgen = cgen, .open = true, .layer = layer, .chunk = chunk};
	s->blocks = calloc(m->chunk_blocks, sizeof(s->blocks[0]));
	check(s->blocks);
}

static int flush(struct mock_store *m, struct mock_device *d, const struct chunk_req *cr)
{
	if (cr->incarnation && cr->incarnation != d->incarnation)
		return -E_UNFLUSHED_LOST;
	d->flushes++;
	for (uint32_t i = 0; i < d->slots_n; i++)
		for (uint32_t b = 0; d->slots[i].open && b < m->chunk_blocks; b++)
			settle(&d->slots[i].blocks[b]);
	return 0;
}

static void change_block(struct mock_store *m, struct chunk_req *cr, struct mock_block *b,
			 uint32_t i)
{
	const uint8_t *data = (const uint8_t *)cr->buf + (size_t)i * BLOCK_BYTES;

	if (cr->op == CHUNK_WRITE && crc32c(data, BLOCK_BYTES) != cr->crcs[i])
		mock_store_violation(m, "checksum of chunk %u block %u", cr->chunk, cr->block + i);
	if (cr->op == CHUNK_WRITE)
		b->state = BLOCK_DATA;
	else
		b->state = cr->flags & CHUNK_F_ZERO ? BLOCK_ZERO : BLOCK_HOLE;
	set_data(&b->data, cr->op == CHUNK_WRITE ? data : NULL);
	if (cr->flags & CHUNK_F_STABLE || m->dev[cr->dev].stable)
		settle(b);
}

static int change(struct mock_store *m, struct chunk_req *cr, struct mock_slot *s)
{
	bool fails = rand_below(&m->rand, 1000) < m->fail_permille;

	if (m->dev[cr->dev].full && cr->op == CHUNK_WRITE)
		return -ENOSPC;
	if (!s->open && !(cr->op == CHUNK_CLEAR && !(cr->flags & CHUNK_F_ZERO)))
		slot_open(m, s, cr->cgen, cr->layer, cr->chunk);
	for (uint32_t i = 0; s->open && i < cr->blocks_n; i++)
		if (!fails || rand_percent(&m->rand, 50))
			change_block(m, cr, &s->blocks[cr->block + i], i);
	cr->present_n = present_n(m, s);
	cr->incarnation = m->dev[cr->dev].incarnation;
	cr->volatile_ack = !fails && !(cr->flags & CHUNK_F_STABLE) && !m->dev[cr->dev].stable;
	return fails ? -EIO : 0;
}

static int look(struct mock_store *m, struct chunk_req *cr, const struct mock_slot *s)
{
	static const struct mock_block hole;
	int status = rand_below(&m->rand, 1000) < m->fail_permille ? -EIO : 0;

	for (uint32_t i = 0; i < cr->blocks_n; i++) {
		const struct mock_block *b = s->open ? &s->blocks[cr->block + i] : &hole;
		uint8_t *to =
		    cr->op == CHUNK_READ ? (uint8_t *)cr->buf + (size_t)i * BLOCK_BYTES : NULL;

		if (cr->states)
			cr->states[i] = b->state;
		if (to && b->state == BLOCK_DATA)
			memcpy(to, b->data, BLOCK_BYTES);
		else if (to)
			memset(to, 0, BLOCK_BYTES);
		if (to && b->state == BLOCK_BAD)
			status = -E_BAD_BLOCK;
	}
	cr->present_n = present_n(m, s);
	return status;
}

static int execute(struct mock_store *m, struct chunk_req *cr)
{
	struct mock_device *d = &m->dev[cr->dev];
	struct mock_slot *s;

	if (cr->epoch < m->epoch)
		return -E_STALE_EPOCH;
	if (cr->op == CHUNK_FLUSH)
		return rand_below(&m->rand, 1000) < m->fail_permille ? -EIO : flush(m, d, cr);
	check(cr->slot < d->slots_n);
	s = &d->slots[cr->slot];
	if (s->open ? cr->cgen != s->cgen : cr->cgen <= s->cgen)
		return -E_STALE_CGEN;
	if (rand_below(&m->rand, 1000) < m->stale_permille)
		return -E_STALE_CGEN;
	if (s->open && (s->layer != cr->layer || s->chunk != cr->chunk))
		mock_store_violation(m, "labels: layer %u chunk %u", cr->layer, cr->chunk);
	return changes(cr) ? change(m, cr, s) : look(m, cr, s);
}

/* ---- from outside ----------------------------------------------------------------------------------------------------- */

void mock_store_power_loss(struct mock_store *m, device_no dev)
{
	struct mock_device *d = &m->dev[dev];

	d->incarnation++;
	for (uint32_t i = 0; i < d->slots_n; i++)
		for (uint32_t j = 0; d->slots[i].open && j < m->chunk_blocks; j++) {
			struct mock_block *b = &d->slots[i].blocks[j];
			bool same = b->state == b->stable_state &&
				    (!b->data || memcmp(b->data, b->stable_data, BLOCK_BYTES) == 0);

			if (same)
				continue;
			if (rand_percent(&m->rand, 50)) {
				settle(b);
			} else {
				b->state = b->stable_state;
				set_data(&b->data, b->stable_data);
			}
		}
}

void mock_store_drop(struct mock_store *m, device_no dev, uint32_t slot, uint64_t cgen,
		     bool may_hold_data)
{
	struct mock_slot *s = &m->dev[dev].slots[slot];

	if (s->open && s->cgen == cgen && !may_hold_data && present_n(m, s))
		mock_store_violation(m, "freed with data: chunk %u", s->chunk);
	if (s->cgen > cgen)
		return;
	slot_close(m, s);
	s->cgen = cgen;
}

struct mock_slot *mock_store_slot(struct mock_store *m, device_no dev, uint32_t slot, uint64_t cgen)
{
	struct mock_slot *s = &m->dev[dev].slots[slot];

	return s->open && s->cgen == cgen ? s : NULL;
}

void mock_store_put(struct mock_store *m, device_no dev, uint32_t slot, uint64_t cgen,
		    layer_id layer, uint32_t chunk, uint32_t block, enum block_state state,
		    const void *data)
{
	struct mock_slot *s = &m->dev[dev].slots[slot];

	if (!s->open)
		slot_open(m, s, cgen, layer, chunk);
	check(s->cgen == cgen);
	s->blocks[block].state = (uint8_t)state;
	set_data(&s->blocks[block].data, state == BLOCK_DATA ? data : NULL);
	settle(&s->blocks[block]);
}
