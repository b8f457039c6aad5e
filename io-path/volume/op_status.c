/* SPDX-License-Identifier: Apache-2.0 */
/* op_status.c - what the blocks of a range are, as extents.
 *
 *   for each chunk in order: MAP* -> nothing there: one extent -> else: ask the devices, through the layers* -> extents
 *
 * One piece does it all, front to back, and stops where the caller's room or the bound of work is reached: the caller asks
 * again for the rest. Reads as zeros and takes no space: HOLE and ZERO. Explicit zeros: ZERO. Data, in whatever layer, and
 * damage: neither. */
#include "io-path/volume/runtime.h"
#include "src/base/math.h"

enum { ASKED_MAX = 64 }; /* device requests of one call; more only for stacks */

static void status_step(struct vol_piece *p);
static void status_mapped(struct map_waiter *w, int status);
static void status_walked(struct vol_piece *p, int status);
static void status_end(struct vol_piece *p, int status);
static bool extent_add(struct volume_req *r, uint64_t end, uint32_t flags);

void status_advance(struct volume_req *r)
{
	struct vol_op *op = op_of(r);
	struct vol_piece *p;

	if (op->status) {
		op_piece_done(r, 0);
		return;
	}
	p = piece_get(op->h->v, r);
	if (!p)
		return; /* op_advance comes again */
	p->asked_n = 0;
	status_step(p); /* the piece ends the cutting's share */
}

static void status_step(struct vol_piece *p)
{
	struct volume_req *r = p->r;
	struct vol_op *op = op_of(r);
	struct volume *v = p->v;

	while (op->next < op->end) {
		uint64_t chunk_end =
		    round_down(op->next, 1ULL << v->chunk_shift) + (1ULL << v->chunk_shift);
		uint64_t end = MIN(op->end, chunk_end),
			 block_off = round_down(op->next, BLOCK_BYTES);
		const struct map_below *below;
		struct map_page *page;

		p->chunk = (uint32_t)(op->next >> v->chunk_shift);
		page = map_page_find(v, p->chunk);
		if (!page) {
			map_wait(v, p->chunk, &p->wait, status_mapped);
			return;
		}
		if (map_head(page, p->chunk)->kind != MAP_UNMAPPED ||
		    map_below(page, p->chunk, &below) > 0) {
			if (p->asked_n++ == ASKED_MAX)
				break;
			end = MIN(end, block_off + PIECE_BLOCKS_MAX * BLOCK_BYTES);
			p->block = (uint32_t)(op->next >> BLOCK_SHIFT) & (v->chunk_blocks - 1);
			p->blocks_n = (uint32_t)div_up(end - block_off, BLOCK_BYTES);
			walk_start(p, CHUNK_STATUS, p->block, p->blocks_n, NULL, status_walked);
			return;
		}
		if (!extent_add(r, end, VOLUME_EXTENT_HOLE | VOLUME_EXTENT_ZERO))
			break;
	}
	status_end(p, 0);
}

static void status_mapped(struct map_waiter *w, int status)
{
	struct vol_piece *p = piece_of_wait(w);

	if (status)
		status_end(p, status);
	else
		status_step(p);
}

static void status_walked(struct vol_piece *p, int status)
{
	static const uint32_t flags_of[] = {
	    [BLOCK_HOLE] = VOLUME_EXTENT_HOLE | VOLUME_EXTENT_ZERO,
	    [BLOCK_ZERO] = VOLUME_EXTENT_ZERO,
	    [BLOCK_BAD] = 0,
	    [BLOCK_DATA] = 0,
	};
	struct vol_op *op = op_of(p->r);
	uint64_t off = round_down(op->next, BLOCK_BYTES);

	for (uint32_t i = 0; i < p->blocks_n && status == 0; i++) {
		check(p->states[i] < ARRAY_LEN(flags_of));
		if (!extent_add(p->r, MIN(op->end, off + (i + 1) * BLOCK_BYTES),
				flags_of[p->states[i]])) {
			status_end(p, 0);
			return;
		}
	}
	if (status)
		status_end(p, status);
	else
		status_step(p);
}

/* Some extents are better than an error further on. */
static void status_end(struct vol_piece *p, int status)
{
	piece_finish(p, p->r->extents_n > 0 ? 0 : status);
}

/* From op->next up to `end`. False: no room, and nothing happened. */
static bool extent_add(struct volume_req *r, uint64_t end, uint32_t flags)
{
	uint32_t max = r->flags & VOLUME_F_ONE_EXTENT ? 1 : r->extents_max;
	struct vol_op *op = op_of(r);

	if (r->extents_n == 0 || r->extents[r->extents_n - 1].flags != flags) {
		if (r->extents_n == max)
			return false;
		r->extents[r->extents_n++] = (struct volume_extent){.flags = flags};
	}
	r->extents[r->extents_n - 1].len_bytes += end - op->next;
	op->next = end;
	return true;
}
