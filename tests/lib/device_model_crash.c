/* SPDX-License-Identifier: Apache-2.0 */
/* device_model_crash.c - what is durable, what a crash leaves possible, and what is seen of it afterwards; epochs and layer records. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/base/math.h"
#include "tests/lib/device_model.h"

/* ---- durability ------------------------------------------------------------------------------------------------------------ */

void model_flushed(struct device_model *m, uint64_t seq)
{
	size_t kept = 0;

	for (size_t i = 0; i < m->dirty_n; i++) {
		struct model_ref at = m->dirty[i];
		struct block_history *h = &m->slots[at.slot].blocks[at.block];

		history_flush(h, seq);
		if (h->n > 1)
			m->dirty[kept++] = at;
		else
			h->listed = false;
	}
	m->dirty_n = kept;
	for (uint32_t s = 0; s < m->slots_n; s++)
		if (m->slots[s].now.open && m->slots[s].open_seq && m->slots[s].open_seq < seq)
			m->slots[s].durable = m->slots[s].now;
}

void model_closed(struct device_model *m)
{
	model_flushed(m, UINT64_MAX);
}

/* ---- crashes --------------------------------------------------------------------------------------------------------------- */

static bool same_identity(const struct model_identity *a, const struct model_identity *b)
{
	return a->open == b->open && a->cgen == b->cgen &&
	       (!a->open ||
		(a->volume == b->volume && a->layer == b->layer && a->chunk == b->chunk));
}

void model_may_be(struct model_slot *s, const struct model_identity *id)
{
	for (uint32_t i = 0; i < s->may_be_n; i++)
		if (same_identity(&s->may_be[i], id))
			return;
	check(s->may_be_n < MODEL_STATES_MAX);
	s->may_be[s->may_be_n++] = *id;
}

static void forget_requests(struct device_model *m)
{
	while (!list_empty(&m->in_flight)) {
		struct model_op *op = list_entry(list_pop(&m->in_flight), struct model_op, link);
		struct chunk_req *r = op->r;
		struct model_slot *s = &m->slots[r->slot];

		if (r->op == CHUNK_FREE && op->frees && r->cgen >= s->now.cgen)
			model_may_be(s, &(struct model_identity){.cgen = r->cgen});
		if (op->begun && !s->now.open && r->cgen > s->now.cgen)
			model_may_be(s, &(struct model_identity){true, r->cgen, r->volume, r->layer,
								 r->chunk});
	}
	for (uint32_t i = 0; i < m->slots_n; i++) {
		struct model_slot *s = &m->slots[i];

		s->in_flight = s->frees_in_flight = s->changes_in_flight = 0;
		if (!s->blocks)
			continue;
		memset(s->writers, 0, m->blocks_n * sizeof(*s->writers));
		memset(s->readers, 0, m->blocks_n * sizeof(*s->readers));
	}
}

static void crash(struct device_model *m, bool lose)
{
	m->seq++;
	for (uint32_t i = 0; i < m->slots_n; i++) {
		struct model_slot *s = &m->slots[i];

		if (!s->unseen)
			s->may_be_n = 0;
		s->unseen = true;
		s->lost = s->lost || lose;
		model_may_be(s, &s->now);
		if (lose)
			model_may_be(s, &s->durable);
	}
	forget_requests(m);
	for (size_t i = 0; i < m->dirty_n; i++) {
		struct block_history *h = &m->slots[m->dirty[i].slot].blocks[m->dirty[i].block];

		lose ? history_lose(h) : history_kill(h);
	}
	m->may_nospc = m->may_eio = m->may_fail = false;
}

void model_kill(struct device_model *m)
{
	crash(m, false);
}

void model_lose(struct device_model *m)
{
	crash(m, true);
}

/* ---- what is seen afterwards ------------------------------------------------------------------------------------------------ */

static void wrong_slot(struct device_model *m, uint32_t slot, const struct device_slot *got)
{
	const struct model_slot *s = &m->slots[slot];
	char legal[512] = "";
	size_t len = 0;

	for (uint32_t i = 0; i < s->may_be_n && len < sizeof(legal); i++)
		len += (size_t)snprintf(legal + len, sizeof(legal) - len,
					"%s%s cgen %" PRIu64 " volume %u layer %u chunk %u",
					i ? " | " : "", s->may_be[i].open ? "open" : "free",
					s->may_be[i].cgen, s->may_be[i].volume, s->may_be[i].layer,
					s->may_be[i].chunk);
	model_fail(m,
		   "slot %u is %s with cgen %" PRIu64
		   " volume %u layer %u chunk %u after recovery; legal: %s",
		   slot, got->state == DEVICE_SLOT_OPEN ? "open" : "free", got->cgen, got->volume,
		   got->layer, got->chunk, legal);
}

static void see_open(struct device_model *m, struct model_slot *s, const struct model_identity *id)
{
	bool was_open = s->now.open;

	s->now = *id;
	if (!was_open || s->open_seq == 0)
		s->open_seq = m->seq;
	if (s->lost)
		s->durable = *id;
	s->free_again = false;
}

static void see_free(struct device_model *m, uint32_t slot, const struct model_identity *id)
{
	struct model_slot *s = &m->slots[slot];

	s->now = *id;
	if (s->lost)
		s->durable = *id;
	/* freed, but not yet in a way that lasts: power loss may bring the old contents back, and the caller has to ask again */
	s->free_again = s->durable.open;
	if (!s->durable.open) {
		s->durable = *id;
		model_slot_reset(m, slot);
	}
}

void model_slot_see(struct device_model *m, uint32_t slot, const struct device_slot *got)
{
	struct model_slot *s = &m->slots[slot];
	struct model_identity id = {.open = got->state == DEVICE_SLOT_OPEN,
				    .cgen = got->cgen,
				    .volume = got->volume,
				    .layer = got->layer,
				    .chunk = got->chunk};
	bool found = false;

	if (!s->unseen) {
		s->may_be_n = 0;
		model_may_be(s, &s->now);
	}
	for (uint32_t i = 0; i < s->may_be_n; i++)
		found = found || same_identity(&s->may_be[i], &id);
	if (!found) {
		wrong_slot(m, slot, got);
		return;
	}
	if (s->unseen && id.open)
		see_open(m, s, &id);
	else if (s->unseen)
		see_free(m, slot, &id);
	s->unseen = s->lost = false;
}

/* ---- epochs ------------------------------------------------------------------------------------------------------------------ */

/* It is durable: every older request has ended, or ends refused. */
void model_too_late(struct device_model *m, struct model_op *op)
{
	if (!(op->may & MODEL_OK))
		return;
	op->may &= ~(uint32_t)MODEL_OK;
	op->late_event = m->event;
}

void model_epoch_durable(struct device_model *m, volume_id v, uint64_t epoch)
{
	struct model_volume *vol = &m->volumes[v];

	if (epoch <= vol->epoch)
		return;
	vol->epoch = epoch;
	list_for_each (l, &m->in_flight) {
		struct model_op *op = list_entry(l, struct model_op, link);

		if (op->r->op != CHUNK_FREE && op->r->volume == v && op->r->epoch < epoch)
			model_too_late(m, op);
	}
}

void model_epoch_submit(struct device_model *m, volume_id v, uint64_t epoch, layer_id head)
{
	struct model_volume *vol = &m->volumes[v];

	m->seq++;
	vol->head_asked = head;
	vol->epoch_asked = MAX(vol->epoch_asked, epoch);
	list_for_each (l, &m->in_flight) {
		struct model_op *op = list_entry(l, struct model_op, link);

		if (op->r->op == CHUNK_FREE || op->r->volume != v)
			continue;
		if (op->r->epoch < epoch)
			op->may |= MODEL_STALE_EPOCH;
		if (op->begun && op->r->layer != head)
			op->may |= MODEL_FROZEN;
	}
}

void model_epoch_done(struct device_model *m, volume_id v, uint64_t epoch, layer_id head, int status)
{
	struct model_volume *vol = &m->volumes[v];

	m->seq++;
	if (status != 0) {
		if (!(status == -E_DEVICE_FAILED && m->may_fail) && !(status == -EIO && m->may_eio))
			model_fail(m, "raising volume %u to epoch %" PRIu64 ": %s", v, epoch,
				   err_name(status));
		return;
	}
	vol->head = head;
	model_epoch_durable(m, v, epoch);
}

/* ---- layer records ------------------------------------------------------------------------------------------------------------ */

void model_layer_submit(struct device_model *m, const struct device_layer *l)
{
	m->layers[l->layer].asked = *l;
	m->layers[l->layer].is_drop = false;
}

void model_layer_drop(struct device_model *m, layer_id layer)
{
	m->layers[layer].drop_asked = m->layers[layer].is_drop = true;
}

void model_layer_done(struct device_model *m, layer_id layer, int status)
{
	struct model_layer *l = &m->layers[layer];

	if (status == 0) {
		if (l->is_drop)
			l->durable = (struct device_layer){0};
		else if (l->asked.commit > l->durable.commit)
			l->durable = l->asked;
		l->asked = (struct device_layer){0};
		l->drop_asked = false;
	} else if (!(status == -E_DEVICE_FAILED && m->may_fail) && !(status == -EIO && m->may_eio)) {
		model_fail(m, "keeping a record of layer %u: %s", layer, err_name(status));
	}
}

static bool same_layer(const struct device_layer *a, const struct device_layer *b)
{
	return a->layer == b->layer && a->parent == b->parent && a->volume == b->volume &&
	       a->flags == b->flags && a->size_bytes == b->size_bytes && a->commit == b->commit &&
	       strcmp(a->name, b->name) == 0 && strcmp(a->snapshot, b->snapshot) == 0;
}

static void layer_is_gone(struct device_model *m, layer_id layer)
{
	struct model_layer *l = &m->layers[layer];

	if (l->durable.layer && !l->drop_asked)
		model_fail(m, "the record of layer %u is gone", layer);
	*l = (struct model_layer){0};
}

void model_layers_see(struct device_model *m, struct device *dev)
{
	struct device_layer got = {0};
	layer_id at = 0, last = 0;

	while (device_layer_next(dev, at, &got) == 0) {
		if (got.layer <= at || got.layer > MODEL_LAYERS) {
			model_fail(m, "layer %u comes after layer %u", got.layer, at);
			return;
		}
		at = got.layer;
		for (last++; last < at; last++)
			layer_is_gone(m, last);
		if (!same_layer(&got, &m->layers[at].durable) &&
		    !same_layer(&got, &m->layers[at].asked))
			model_fail(m, "the record of layer %u is wrong: commit %" PRIu64 " name %s",
				   at, got.commit, got.name);
		m->layers[at] = (struct model_layer){.durable = got};
	}
	for (last++; last <= MODEL_LAYERS; last++)
		layer_is_gone(m, last);
}
