/* SPDX-License-Identifier: Apache-2.0 */
/* device_model_done.c - is an answer legal, and what follows from it? */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/crc.h"
#include "src/base/math.h"
#include "tests/lib/device_model.h"

static void judge(struct device_model *m, struct model_op *op, struct device *dev);
static void done_ok(struct device_model *m, struct model_op *op);
static void done_change(struct device_model *m, struct model_op *op);
static void done_free(struct device_model *m, struct model_op *op);
static void done_failed(struct device_model *m, struct model_op *op, struct device *dev);

static void op_text(const struct model_op *op, char *text, size_t room)
{
	static const char *const names[] = {"READ", "WRITE", "CLEAR", "STATUS", "FLUSH", "FREE"};
	const struct chunk_req *r = op->r;

	snprintf(text, room,
		 "%s%s%s%s slot %u cgen %" PRIu64 " blocks %u+%u volume %u epoch %" PRIu64
		 " layer %u chunk %u (write %" PRIu64 ", submitted at %" PRIu64 ")",
		 names[r->op], r->flags & CHUNK_F_STABLE ? " stable" : "",
		 r->flags & CHUNK_F_ZERO ? " to zero" : "",
		 r->flags & CHUNK_F_IF_EMPTY ? " if empty" : "", r->slot, r->cgen, r->block,
		 r->blocks_n, r->volume, r->epoch, r->layer, r->chunk, op->id, op->seq);
}

static void illegal(struct device_model *m, const struct model_op *op, const char *why)
{
	const struct model_slot *s = &m->slots[op->r->slot];
	char text[512];

	op_text(op, text, sizeof(text));
	model_fail(m,
		   "%s: answered %s: %s (legal: %s%s%s%s%s; the slot is %s with cgen %" PRIu64 ")",
		   text, op->r->status ? err_name(op->r->status) : "0", why,
		   op->may & MODEL_OK ? "ok " : "", op->may & MODEL_STALE_CGEN ? "stale-cgen " : "",
		   op->may & MODEL_STALE_EPOCH ? "stale-epoch " : "",
		   op->may & MODEL_FROZEN ? "frozen " : "",
		   op->may & MODEL_NOT_EMPTY ? "not-empty " : "", s->now.open ? "open" : "free",
		   s->now.cgen);
}

static void unlock(struct device_model *m, struct model_op *op)
{
	struct chunk_req *r = op->r;
	struct model_slot *s = &m->slots[r->slot];

	list_del(&op->link);
	if (r->op == CHUNK_FLUSH)
		return;
	s->in_flight--;
	s->frees_in_flight -= r->op == CHUNK_FREE;
	s->changes_in_flight -= model_is_change(r);
	for (uint32_t b = r->block; model_has_blocks(r) && b < r->block + r->blocks_n; b++)
		*(model_is_change(r) ? &s->writers[b] : &s->readers[b]) -= 1;
}

/* The versions this request began, if the slot's contents are still those it was begun on. */
static bool owns_versions(const struct device_model *m, const struct model_op *op)
{
	const struct model_slot *s = &m->slots[op->r->slot];

	return op->begun && s->blocks[op->r->block].in_flight &&
	       (s->now.open ? s->now.cgen == op->tenant : s->now.cgen < op->tenant);
}

static void cancel(struct device_model *m, struct model_op *op)
{
	struct chunk_req *r = op->r;
	bool owns = owns_versions(m, op);

	for (uint32_t b = r->block; owns && b < r->block + r->blocks_n; b++)
		history_cancel(&m->slots[r->slot].blocks[b]);
	op->begun = false;
}

void model_done(struct device_model *m, struct model_op *op, struct device *dev)
{
	m->seq++;
	unlock(m, op);
	judge(m, op, dev);
	if (op->r->op == CHUNK_FREE || model_is_change(op->r))
		m->slots[op->r->slot].changed_seq = m->seq;
}

static void judge(struct device_model *m, struct model_op *op, struct device *dev)
{
	switch (op->r->status) {
	case 0:
		if (!(op->may & MODEL_OK) && (op->late_event == 0 || op->late_event != m->event)) {
			illegal(m, op, "it had to be refused");
			return;
		}
		done_ok(m, op);
		return;
	case -E_STALE_CGEN:
	case -E_STALE_EPOCH:
	case -E_FROZEN:
	case -ENOTEMPTY: {
		uint32_t bit = op->r->status == -E_STALE_CGEN	 ? MODEL_STALE_CGEN
			       : op->r->status == -E_STALE_EPOCH ? MODEL_STALE_EPOCH
			       : op->r->status == -E_FROZEN	 ? MODEL_FROZEN
								 : MODEL_NOT_EMPTY;

		m->refused++;
		if (!(op->may & bit))
			illegal(m, op, "it must not be refused with this");
		cancel(m, op);
		return;
	}
	default:
		done_failed(m, op, dev);
	}
}

/* The slot holds this request's contents: it was open, or this one opened it. */
static void note_open(struct device_model *m, struct model_op *op)
{
	struct chunk_req *r = op->r;
	struct model_slot *s = &m->slots[r->slot];

	if (!s->now.open) {
		s->now = (struct model_identity){.open = true,
						 .cgen = r->cgen,
						 .volume = r->volume,
						 .layer = r->layer,
						 .chunk = r->chunk};
		s->open_seq = 0;
	}
	if (s->open_seq == 0)
		s->open_seq = m->seq;
	if (!r->volatile_ack)
		s->durable = s->now;
}

static void done_change(struct device_model *m, struct model_op *op)
{
	struct chunk_req *r = op->r;
	struct model_slot *s = &m->slots[r->slot];

	if ((r->flags & CHUNK_F_STABLE) && r->volatile_ack)
		illegal(m, op, "a stable request says that a flush is owed");
	if (!op->begun)
		return; /* CLEAR to hole of a free slot */
	if (!owns_versions(m, op)) {
		illegal(m, op, "it was executed on a slot that had been freed meanwhile");
		return;
	}
	note_open(m, op);
	for (uint32_t b = r->block; b < r->block + r->blocks_n; b++)
		history_ack(&s->blocks[b], m->seq, !r->volatile_ack);
}

static void wrong_block(struct device_model *m, struct model_op *op, uint32_t i,
			const struct pattern_ids *ids)
{
	static const char *const names[] = {"hole", "zero", "bad", "data"};
	struct chunk_req *r = op->r;
	char got[512] = "", legal[900];
	size_t len = 0;

	for (size_t s = 0; ids && s < PATTERN_SECTORS && len < sizeof(got); s++)
		len += (size_t)snprintf(got + len, sizeof(got) - len, " %" PRId64,
					(int64_t)ids->sector[s]);
	if (ids && ids->foreign_id && len < sizeof(got))
		snprintf(got + len, sizeof(got) - len, ", of write %" PRIu64 " to slot %u block %u",
			 ids->foreign_id, (uint32_t)(ids->foreign_place / m->blocks_n),
			 (uint32_t)(ids->foreign_place % m->blocks_n));
	history_text(&m->slots[r->slot].blocks[r->block + i], legal, sizeof(legal));
	model_fail(m, "%s of slot %u cgen %" PRIu64 " block %u: %s%s%s; legal: %s",
		   r->op == CHUNK_READ ? "READ" : "STATUS", r->slot, r->cgen, r->block + i,
		   r->states[i] < 4 ? names[r->states[i]] : "no valid state",
		   ids ? ", sectors" : "", got, legal);
}

/* One block of a READ (with content) or STATUS: legal? */
static void see_block(struct device_model *m, struct model_op *op, uint32_t i)
{
	struct chunk_req *r = op->r;
	struct model_slot *s = &m->slots[r->slot];
	struct block_history *h = &s->blocks[r->block + i];
	const uint8_t *data = (const uint8_t *)r->buf + (size_t)i * BLOCK_BYTES;
	enum block_state state = r->states[i];
	struct pattern_ids ids;
	bool read = r->op == CHUNK_READ;
	size_t versions = h->n;

	if (read)
		pattern_identify(data, model_place(m, r->slot, r->block + i), &ids);
	if (read && state != BLOCK_DATA && !bytes_are_zero(data, BLOCK_BYTES)) {
		wrong_block(m, op, i, &ids);
		return;
	}
	if (!s->now.open && s->changes_in_flight == 0 && state != BLOCK_HOLE) {
		wrong_block(m, op, i, read ? &ids : NULL);
		return;
	}
	if (!history_see(h, m->seq, state, read ? &ids : NULL)) {
		wrong_block(m, op, i, read ? &ids : NULL);
		return;
	}
	if (read && r->crcs && r->crcs[i] != (state == BLOCK_DATA ? crc32c(data, BLOCK_BYTES) : 0))
		illegal(m, op, "a checksum it returns is not that of the data");
	if (versions > 1 && h->n == 1 && read) {
		m->torn_seen += history_is_torn(h);
		m->old_seen++;
	}
}

static void done_ok(struct device_model *m, struct model_op *op)
{
	struct chunk_req *r = op->r;
	struct model_slot *s = r->op == CHUNK_FLUSH ? NULL : &m->slots[r->slot];
	int present;

	if (r->op != CHUNK_FREE)
		model_epoch_durable(m, r->volume, r->epoch);
	switch (r->op) {
	case CHUNK_READ:
	case CHUNK_STATUS:
		m->reads++;
		for (uint32_t i = 0; i < r->blocks_n; i++)
			see_block(m, op, i);
		break;
	case CHUNK_WRITE:
	case CHUNK_CLEAR:
		done_change(m, op);
		break;
	case CHUNK_FLUSH:
		model_flushed(m, op->seq);
		return;
	case CHUNK_FREE:
		if (op->frees)
			done_free(m, op);
		return;
	}
	/* reads and writes do not wait for the block table, and cannot count */
	if (r->op == CHUNK_WRITE || r->op == CHUNK_READ || s->changes_in_flight ||
	    s->frees_in_flight || s->unseen || s->changed_seq > op->seq)
		return;
	present = model_present(m, r->slot);
	if (present >= 0 && r->present_n != (uint32_t)present) {
		char why[96];

		snprintf(why, sizeof(why), "it counts %u present blocks, there are %d",
			 r->present_n, present);
		illegal(m, op, why);
	}
}

/* ---- FREE and failures ---------------------------------------------------------------------------------------------------- */

void model_slot_reset(struct device_model *m, uint32_t slot)
{
	struct model_slot *s = &m->slots[slot];

	for (uint32_t b = 0; s->blocks && b < m->blocks_n; b++)
		history_reset(&s->blocks[b]);
	s->open_seq = 0;
}

static void done_free(struct device_model *m, struct model_op *op)
{
	struct chunk_req *r = op->r;
	struct model_slot *s = &m->slots[r->slot];

	if (r->cgen < s->now.cgen)
		return;
	s->now = (struct model_identity){.cgen = r->cgen};
	s->durable = s->now;
	s->free_again = false;
	model_slot_reset(m, r->slot);
	list_for_each (l, &m->in_flight) {
		struct model_op *other = list_entry(l, struct model_op, link);

		if (model_has_blocks(other->r) && other->r->slot == r->slot &&
		    other->r->cgen <= r->cgen)
			model_too_late(m, other);
	}
}

/* A change failed on a slot that was free: did it open? */
static void see_opening(struct device_model *m, struct model_op *op, struct device *dev)
{
	struct chunk_req *r = op->r;
	struct device_slot got;

	if (m->slots[r->slot].now.open || r->status == -E_DEVICE_FAILED)
		return;
	if (device_slot_get(dev, r->slot, &got) == 0 && got.state == DEVICE_SLOT_OPEN &&
	    got.cgen == r->cgen) {
		bool owed = r->volatile_ack;

		r->volatile_ack = true;
		note_open(m, op);
		r->volatile_ack = owed;
	}
}

static void change_failed(struct device_model *m, struct model_op *op, struct device *dev)
{
	struct chunk_req *r = op->r;
	struct model_slot *s = &m->slots[r->slot];

	see_opening(m, op, dev);
	if (!owns_versions(m, op))
		return;
	if (r->status == -ENOSPC || (!s->now.open && r->status != -E_DEVICE_FAILED)) {
		cancel(m, op);
		return;
	}
	for (uint32_t b = r->block; b < r->block + r->blocks_n; b++)
		history_doubt(&s->blocks[b], r->op == CHUNK_WRITE && m->may_eio);
	if (!s->now.open) {
		if (!s->unseen) {
			s->unseen = true;
			s->may_be_n = 0;
			model_may_be(s, &s->now);
		}
		model_may_be(s, &(struct model_identity){true, r->cgen, r->volume, r->layer,
							 r->chunk});
	}
}

static void free_failed(struct device_model *m, struct model_op *op, struct device *dev)
{
	struct model_slot *s = &m->slots[op->r->slot];
	struct device_slot got;

	if (!op->frees || op->r->cgen < s->now.cgen)
		return;
	s->free_again = true;
	if (op->r->status == -E_DEVICE_FAILED) {
		if (!s->unseen) {
			s->unseen = true;
			s->may_be_n = 0;
			model_may_be(s, &s->now);
		}
		model_may_be(s, &(struct model_identity){.cgen = op->r->cgen});
		return;
	}
	if (device_slot_get(dev, op->r->slot, &got) == 0 && got.state == DEVICE_SLOT_FREE)
		s->now = (struct model_identity){.cgen = MAX(s->now.cgen, op->r->cgen)};
}

static void read_damaged(struct device_model *m, struct model_op *op)
{
	struct chunk_req *r = op->r;
	bool found = false;

	for (uint32_t i = 0; i < r->blocks_n; i++) {
		struct block_history *h = &m->slots[r->slot].blocks[r->block + i];

		if (r->states[i] != BLOCK_BAD)
			continue;
		found = true;
		if (!history_see(h, m->seq, BLOCK_BAD, NULL))
			wrong_block(m, op, i, NULL);
	}
	m->bad_seen++;
	if (!found)
		illegal(m, op, "it reports damage and names no damaged block");
}

static void done_failed(struct device_model *m, struct model_op *op, struct device *dev)
{
	struct chunk_req *r = op->r;
	bool legal =
	    (r->status == -EIO && m->may_eio) || (r->status == -E_DEVICE_FAILED && m->may_fail) ||
	    (r->status == -ENOSPC && m->may_nospc && r->op == CHUNK_WRITE) ||
	    ((r->status == -E_BAD_BLOCK || r->status == -E_CHECKSUM) && r->op == CHUNK_READ);

	if (!legal) {
		illegal(m, op, "nothing that was done explains it");
		cancel(m, op);
		return;
	}
	if (r->status == -E_BAD_BLOCK || r->status == -E_CHECKSUM)
		read_damaged(m, op);
	else if (model_is_change(r))
		change_failed(m, op, dev);
	else if (r->op == CHUNK_FREE)
		free_failed(m, op, dev);
}
