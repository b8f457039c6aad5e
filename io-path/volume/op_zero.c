/* SPDX-License-Identifier: Apache-2.0 */
/* op_zero.c - a piece of WRITE_ZEROES or DISCARD.
 *
 * Whole blocks (never more than one chunk), by what the chunk's stack is:
 *
 *   in a slot of the head     CLEAR: to hole if no ancestor shows through, else to zero; the metadata server is not asked.
 *                             A slot left without a present block is given back in the background (reclaim.c)
 *                             The same in a reserved slot that may hold leftovers, which the next client of the chunk would uncover
 *   nothing, or a zero entry  nothing to do; run-ahead holds nothing, too
 *   only ancestors have it    the whole chunk: commit a zero entry.
 *                             Part of it: WRITE_ZEROES allocates, then clears to zero; DISCARD does nothing
 *   lost                      the whole chunk: unmap it. Part of it: as above
 *
 * NO_HOLE keeps the space that is there: a slot is cleared to zero, which reclaim.c does not take for empty. It takes no space where there is
 * none: mkfs.ext4 clears its journal of 1 GiB like this, and whoever wants a thin volume does not want that to be a GiB of slots.
 * A partial block (WRITE_ZEROES only; DISCARD leaves them out) is read, changed and written, unless it reads as zeros already. Those zeros
 * may be volatile: whoever asks for stable ones gets the whole block cleared once more. */
#include <string.h>

#include "io-path/volume/runtime.h"

static void zero_mapped(struct map_waiter *w, int status);
static void zero_unmapped(struct vol_piece *p, struct map_page *page, const struct map_item *head,
			  bool shows);
static void zero_entry(struct vol_piece *p, struct map_page *page, enum meta_change change);
static void zero_entry_done(struct map_change *c, int status);
static void zero_clear(struct vol_piece *p, const struct map_item *head, bool shows);
static void zero_cleared(struct chunk_req *cr);
static void zero_partial(struct vol_piece *p);
static void zero_partial_scratch(struct map_waiter *w, int status);
static void zero_partial_read(struct vol_piece *p, int status);
static void zero_partial_again(struct vol_piece *p);

static bool keeps_space(const struct vol_piece *p)
{
	return p->r->op == VOLUME_WRITE_ZEROES && p->r->flags & VOLUME_F_NO_HOLE;
}

/* The last chunk may end before its slot does. */
static bool is_whole_chunk(const struct vol_piece *p)
{
	uint64_t end_block =
	    ((uint64_t)p->chunk << (p->v->chunk_shift - BLOCK_SHIFT)) + p->blocks_n;

	return p->block == 0 &&
	       (p->blocks_n == p->v->chunk_blocks || end_block << BLOCK_SHIFT == p->v->size_bytes);
}

void zero_piece(struct vol_piece *p)
{
	struct map_page *page = map_page_find(p->v, p->chunk);
	const struct map_below *below;
	const struct map_item *head;
	bool ancestors;

	if (p->head_bytes | p->tail_bytes) {
		zero_partial(p);
		return;
	}
	if (!page) {
		map_wait(p->v, p->chunk, &p->wait, zero_mapped);
		return;
	}
	head = map_head(page, p->chunk);
	ancestors = map_below(page, p->chunk, &below) > 0;
	switch (head->kind) {
	case MAP_OPEN:
		if (head->flags & MAP_RESERVED && (ancestors || !map_item_has_leftovers(head)))
			zero_unmapped(p, page, head, ancestors);
		else
			zero_clear(p, head, ancestors && !(head->flags & MAP_OPAQUE));
		break;
	case MAP_ZERO:
		zero_unmapped(p, page, head, false);
		break;
	case MAP_UNMAPPED:
		zero_unmapped(p, page, head, ancestors);
		break;
	case MAP_LOST:
		zero_unmapped(p, page, head, true);
		break;
	default:
		piece_finish(p, head->kind == MAP_SEALED ? -E_FROZEN : -E_VERSION);
		break;
	}
}

static void zero_mapped(struct map_waiter *w, int status)
{
	struct vol_piece *p = piece_of_wait(w);

	if (status)
		piece_finish(p, status);
	else
		zero_piece(p);
}

/* The head has no slot for it. `shows`: it does not read as zeros, ancestors or damage show through. */
static void zero_unmapped(struct vol_piece *p, struct map_page *page, const struct map_item *head,
			  bool shows)
{
	if (shows && p->r->op == VOLUME_WRITE_ZEROES && !is_whole_chunk(p))
		map_alloc(page, p->chunk, &p->wait,
			  zero_mapped); /* and then as if it had always been there */
	else if (!shows || !is_whole_chunk(p))
		piece_finish(p, 0);
	else if (head->kind == MAP_UNMAPPED)
		zero_entry(p, page, META_SET_ZERO);
	else
		zero_entry(p, page, p->v->layers_n > 1 ? META_UNMAP_ZERO : META_UNMAP);
}

static void zero_entry(struct vol_piece *p, struct map_page *page, enum meta_change change)
{
	p->change = (struct map_change){.chunk = p->chunk,
					.change = change,
					.cgen = map_head(page, p->chunk)->cgen,
					.fn = zero_entry_done};
	map_update(page, &p->change);
}

static void zero_entry_done(struct map_change *c, int status)
{
	piece_finish(container_of(c, struct vol_piece, change), status);
}

/* `shows`: a hole would show an ancestor. In a full entry it would be damage. */
static void zero_clear(struct vol_piece *p, const struct map_item *head, bool shows)
{
	bool to_zero = shows || head->flags & MAP_FULL || keeps_space(p);
	int rc;

	p->cr.block = p->block;
	p->cr.blocks_n = p->blocks_n;
	p->cr.buf = NULL;
	p->cr.crcs = NULL;
	p->cr.states = NULL;
	rc = piece_send_change(p, CHUNK_CLEAR, to_zero ? CHUNK_F_ZERO : 0, head, zero_cleared);
	if (rc)
		piece_finish(p, rc);
}

static void zero_cleared(struct chunk_req *cr)
{
	struct vol_piece *p = piece_of_chunk(cr);
	int status = piece_change_done(p);

	if (status == -E_STALE_CGEN) {
		status = piece_stale(p);
		if (status == 0) {
			zero_piece(p);
			return;
		}
	}
	if (status == 0 && cr->present_n == 0 && !keeps_space(p))
		reclaim_add(p->v, p->chunk);
	piece_finish(p, status);
}

/* ---- a partial block -------------------------------------------------------------------------------------------------- */

static void zero_partial(struct vol_piece *p)
{
	if (!p->scratch && !piece_scratch(p, zero_partial_scratch))
		return;
	walk_start(p, CHUNK_READ, p->block, 1, p->scratch, zero_partial_read);
}

static void zero_partial_scratch(struct map_waiter *w, int status)
{
	(void)status; /* scratch comes, sooner or later */
	zero_partial(piece_of_wait(w));
}

static void zero_partial_read(struct vol_piece *p, int status)
{
	if (status) {
		piece_finish(p, status);
		return;
	}
	if (p->states[0] != BLOCK_DATA) {
		zero_partial_again(p);
		return;
	}
	p->v->stats.rmw++;
	memset(p->scratch + p->head_bytes, 0, BLOCK_BYTES - p->head_bytes - p->tail_bytes);
	p->buf = p->scratch;
	p->head_bytes = p->tail_bytes = 0;
	write_data(p); /* and there it ends, as a write */
}

/* It reads as zeros. Only a slot of the head can hold what is not stable yet: layers below are frozen, map entries are committed. */
static void zero_partial_again(struct vol_piece *p)
{
	struct map_page *page = map_page_find(p->v, p->chunk);
	const struct map_item *head = page ? map_head(page, p->chunk) : NULL;

	if (head && !map_item_has_leftovers(head) &&
	    (head->kind != MAP_OPEN || head->flags & MAP_RESERVED ||
	     !piece_stable_flag(p, head->dev))) {
		piece_finish(p, 0);
		return;
	}
	p->head_bytes = p->tail_bytes = 0;
	zero_piece(p);
}
