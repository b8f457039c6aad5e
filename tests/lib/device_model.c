/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/device_model.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/math.h"

static uint32_t allowed(struct device_model *m, struct model_op *op);
static void begin(struct device_model *m, struct model_op *op);

/* ---- the model itself --------------------------------------------------------------------------------------------------- */

static void *must_calloc(size_t n, size_t elem_bytes)
{
	void *p = calloc(n, elem_bytes);

	check(p);
	return p;
}

struct device_model *model_new(uint32_t slots_n, uint32_t blocks_n)
{
	struct device_model *m = must_calloc(1, sizeof(*m));

	m->slots_n = slots_n;
	m->blocks_n = blocks_n;
	m->slots = must_calloc(slots_n, sizeof(*m->slots));
	list_init(&m->in_flight);
	return m;
}

void model_free(struct device_model *m)
{
	for (uint32_t s = 0; s < m->slots_n; s++) {
		for (uint32_t b = 0; m->slots[s].blocks && b < m->blocks_n; b++)
			history_reset(&m->slots[s].blocks[b]);
		free(m->slots[s].blocks);
		free(m->slots[s].writers);
		free(m->slots[s].readers);
	}
	free(m->slots);
	free(m->dirty);
	free(m);
}

const char *model_error(const struct device_model *m)
{
	return m->error;
}

void model_fail(struct device_model *m, const char *fmt, ...)
{
	va_list ap;

	if (m->error[0] != '\0')
		return;
	va_start(ap, fmt);
	vsnprintf(m->error, sizeof(m->error), fmt, ap);
	va_end(ap);
}

uint64_t model_place(const struct device_model *m, uint32_t slot, uint32_t block)
{
	return (uint64_t)slot * m->blocks_n + block;
}

static struct model_slot *slot_of(struct device_model *m, uint32_t slot)
{
	struct model_slot *s = &m->slots[slot];

	if (!s->blocks) {
		s->blocks = must_calloc(m->blocks_n, sizeof(*s->blocks));
		s->writers = must_calloc(m->blocks_n, sizeof(*s->writers));
		s->readers = must_calloc(m->blocks_n, sizeof(*s->readers));
	}
	return s;
}

bool model_blocks_free(const struct device_model *m, uint32_t slot, uint32_t block, uint32_t n,
		       bool to_change)
{
	const struct model_slot *s = &m->slots[slot];

	for (uint32_t b = block; s->blocks && b < block + n; b++)
		if (s->writers[b] || (to_change && s->readers[b]))
			return false;
	return true;
}

bool model_touched(const struct device_model *m, uint32_t slot, uint32_t block)
{
	return m->slots[slot].blocks && m->slots[slot].blocks[block].n > 0;
}

int model_present(const struct device_model *m, uint32_t slot)
{
	const struct model_slot *s = &m->slots[slot];
	int n = 0;

	if (!s->now.open || !s->blocks)
		return 0;
	for (uint32_t b = 0; b < m->blocks_n; b++) {
		int present = s->blocks[b].n ? history_present(&s->blocks[b]) : 0;

		if (present < 0)
			return -1;
		n += present;
	}
	return n;
}

/* ---- submit -------------------------------------------------------------------------------------------------------------- */

static bool opens(const struct chunk_req *r)
{
	return r->op == CHUNK_WRITE || (r->op == CHUNK_CLEAR && (r->flags & CHUNK_F_ZERO));
}

/* A newer epoch of the volume was named: from now on older requests may be refused. */
static void epoch_asked(struct device_model *m, const struct chunk_req *r)
{
	struct model_volume *vol = &m->volumes[r->volume];
	volume_id v = r->volume;
	uint64_t epoch = r->epoch;

	if (epoch <= vol->epoch_asked)
		return;
	vol->epoch_asked = epoch;
	list_for_each (l, &m->in_flight) {
		struct model_op *op = list_entry(l, struct model_op, link);

		if (op->r->op != CHUNK_FREE && op->r->volume == v && op->r->epoch < epoch)
			op->may |= MODEL_STALE_EPOCH;
	}
}

void model_submit(struct device_model *m, struct model_op *op, struct chunk_req *r, uint64_t id)
{
	*op = (struct model_op){.r = r, .id = id, .seq = ++m->seq};
	op->may = allowed(m, op);
	if (r->op != CHUNK_FREE)
		epoch_asked(m, r);
	list_push(&m->in_flight, &op->link);
	begin(m, op);
}

static uint32_t allowed_by_cgen(struct device_model *m, const struct chunk_req *r)
{
	const struct model_slot *s = &m->slots[r->slot];
	const struct model_volume *vol = &m->volumes[r->volume];
	bool frozen = model_is_change(r) && vol->head != 0 && r->layer != vol->head;
	bool may_freeze = model_is_change(r) && vol->head_asked != 0 && r->layer != vol->head_asked;
	bool same =
	    r->volume == s->now.volume && r->layer == s->now.layer && r->chunk == s->now.chunk;
	uint32_t may = may_freeze ? MODEL_OK | MODEL_FROZEN : MODEL_OK;

	if (s->frees_in_flight)
		may |= MODEL_STALE_CGEN;
	if (s->now.open ? r->cgen == s->now.cgen && same : r->cgen > s->now.cgen) {
		if (frozen && (s->now.open || opens(r)))
			return MODEL_FROZEN | (may & MODEL_STALE_CGEN);
		return may | (frozen ? MODEL_FROZEN : 0);
	}
	return MODEL_STALE_CGEN | (frozen || may_freeze ? MODEL_FROZEN : 0);
}

static uint32_t allowed_free(struct device_model *m, struct model_op *op)
{
	const struct chunk_req *r = op->r;
	const struct model_slot *s = &m->slots[r->slot];
	int present = model_present(m, r->slot);

	op->frees = r->cgen >= s->now.cgen;
	if (!(r->flags & CHUNK_F_IF_EMPTY) || !op->frees)
		return MODEL_OK;
	if (s->changes_in_flight || s->frees_in_flight || present < 0)
		return MODEL_OK | MODEL_NOT_EMPTY;
	return present > 0 ? MODEL_NOT_EMPTY : MODEL_OK;
}

/* What this request may be answered with, as things are now. */
static uint32_t allowed(struct device_model *m, struct model_op *op)
{
	const struct chunk_req *r = op->r;
	const struct model_volume *vol = &m->volumes[r->volume];
	uint32_t may;

	if (r->op == CHUNK_FREE)
		return allowed_free(m, op);
	may = r->op == CHUNK_FLUSH ? MODEL_OK : allowed_by_cgen(m, r);
	if (r->epoch < vol->epoch)
		return (may & ~(uint32_t)MODEL_OK) | MODEL_STALE_EPOCH;
	if (r->epoch < vol->epoch_asked)
		may |= MODEL_STALE_EPOCH;
	return may;
}

static void note_dirty(struct device_model *m, uint32_t slot, uint32_t block)
{
	if (m->slots[slot].blocks[block].listed)
		return;
	m->slots[slot].blocks[block].listed = true;
	if (m->dirty_n == m->dirty_room) {
		m->dirty_room = m->dirty_room ? m->dirty_room * 2 : 256;
		m->dirty = realloc(m->dirty, m->dirty_room * sizeof(*m->dirty));
		check(m->dirty);
	}
	m->dirty[m->dirty_n++] = (struct model_ref){slot, block};
}

/* FREE was asked for: whatever else is under way for the slot may meet it freed. */
static void begin_free(struct device_model *m, struct model_op *op)
{
	m->slots[op->r->slot].frees_in_flight++;
	if (!op->frees)
		return;
	list_for_each (l, &m->in_flight) {
		struct model_op *other = list_entry(l, struct model_op, link);

		if (model_has_blocks(other->r) && other->r->slot == op->r->slot)
			other->may |= MODEL_STALE_CGEN;
		if (other->r->op == CHUNK_FREE && other->r->slot == op->r->slot)
			other->may |= MODEL_OK;
	}
}

static void begin(struct device_model *m, struct model_op *op)
{
	struct chunk_req *r = op->r;
	struct model_slot *s;

	if (r->op == CHUNK_FLUSH)
		return;
	s = slot_of(m, r->slot);
	s->in_flight++;
	if (r->op == CHUNK_FREE || model_is_change(r))
		s->changed_seq = m->seq;
	if (r->op == CHUNK_FREE) {
		begin_free(m, op);
		return;
	}
	s->changes_in_flight += model_is_change(r);
	for (uint32_t b = r->block; b < r->block + r->blocks_n; b++)
		*(model_is_change(r) ? &s->writers[b] : &s->readers[b]) += 1;
	if (!model_is_change(r) || !(op->may & MODEL_OK) || (!s->now.open && !opens(r)))
		return;
	op->begun = true;
	op->tenant = r->cgen;
	for (uint32_t b = r->block; b < r->block + r->blocks_n; b++) {
		if (r->op == CHUNK_WRITE)
			history_begin(&s->blocks[b], BLOCK_DATA, op->id);
		else
			history_begin(&s->blocks[b],
				      r->flags & CHUNK_F_ZERO ? BLOCK_ZERO : BLOCK_HOLE, 0);
		note_dirty(m, r->slot, b);
	}
}
