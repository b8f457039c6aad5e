/* SPDX-License-Identifier: Apache-2.0 */
/* walk.c - reads blocks, or asks what they are, through the layers of a chunk.
 *
 *   for each entry of the chunk's stack, head first: for each run of blocks that is still a hole: ask its device*
 *
 * p->states holds what is known: a block that is no hole in one layer is not looked for in the next. Blocks that are holes to
 * the end, or down to an entry that hides the rest, read as zeros and stay BLOCK_HOLE in p->states (no space is taken). The
 * stack is looked up again after each suspension: `depth` says which layers were asked, whatever has changed in between. */
#include <string.h>

#include "io-path/volume/runtime.h"
#include "src/base/log.h"

static void walk_step(struct vol_piece *p);
static void walk_mapped(struct map_waiter *w, int status);
static bool walk_entry(struct vol_piece *p, const struct map_item *item, uint32_t depth);
static void walk_ask(struct vol_piece *p, const struct map_item *item, uint32_t depth);
static void walk_asked(struct chunk_req *cr);
static void walk_end(struct vol_piece *p, int status);

void walk_start(struct vol_piece *p, enum chunk_op op, uint32_t block, uint32_t blocks_n,
		uint8_t *buf, void (*then)(struct vol_piece *p, int status))
{
	p->walk = (struct vol_walk){
	    .op = op, .block = block, .blocks_n = blocks_n, .buf = buf, .then = then};
	check(blocks_n <= PIECE_BLOCKS_MAX);
	memset(p->states, BLOCK_HOLE, blocks_n);
	walk_step(p);
}

/* The next run of holes from `at` on; false: there is none. */
static bool next_run(struct vol_piece *p)
{
	struct vol_walk *w = &p->walk;

	while (w->at < w->blocks_n && p->states[w->at] != BLOCK_HOLE)
		w->at++;
	for (w->run_n = 0; w->at + w->run_n < w->blocks_n; w->run_n++)
		if (p->states[w->at + w->run_n] != BLOCK_HOLE)
			break;
	return w->run_n > 0;
}

/* Goes on with the entry of layer `depth`, or the first one below it. */
static void walk_step(struct vol_piece *p)
{
	struct map_page *page = map_page_find(p->v, p->chunk);
	struct vol_walk *w = &p->walk;
	const struct map_below *below;
	uint32_t below_n;

	if (!page) {
		map_wait(p->v, p->chunk, &p->wait, walk_mapped);
		return;
	}
	if (w->depth == 0 && walk_entry(p, map_head(page, p->chunk), 0))
		return;
	below_n = map_below(page, p->chunk, &below);
	for (uint32_t i = 0; i < below_n; i++)
		if (below[i].depth >= w->depth && walk_entry(p, &below[i].item, below[i].depth))
			return;
	walk_end(p, 0);
}

static void walk_mapped(struct map_waiter *w, int status)
{
	struct vol_piece *p = piece_of_wait(w);

	if (status)
		walk_end(p, status);
	else
		walk_step(p);
}

/* True: the walk suspends or has ended. False: this entry has nothing more, the next one is to be asked. */
static bool walk_entry(struct vol_piece *p, const struct map_item *item, uint32_t depth)
{
	struct vol_walk *w = &p->walk;

	if (depth > w->depth) { /* the first time that we are here */
		w->depth = depth;
		w->at = 0;
	}
	switch (item->kind) {
	case MAP_OPEN:
	case MAP_SEALED:
		if (item->flags & MAP_RESERVED && !map_item_has_leftovers(item))
			break;
		if (next_run(p)) {
			walk_ask(p, item, depth);
			return true;
		}
		if (item->flags & (MAP_FULL | MAP_OPAQUE)) {
			walk_end(p, 0);
			return true;
		}
		break;
	case MAP_UNMAPPED:
		break;
	case MAP_ZERO:
		walk_end(p, 0);
		return true;
	case MAP_LOST:
		if (w->op == CHUNK_STATUS)
			for (w->at = 0; next_run(p); w->at++)
				p->states[w->at] = BLOCK_BAD;
		w->at = 0;
		walk_end(p, w->op == CHUNK_READ && next_run(p) ? -E_LOST : 0);
		return true;
	default:
		log_limited(LOG_ERROR, ioe_now_ns(p->v->vs->ioe), "map entry not supported",
			    "vol=%s chunk=%u kind=%u", p->v->name, p->chunk, item->kind);
		walk_end(p, -E_VERSION);
		return true;
	}
	w->depth = depth + 1;
	w->at = 0;
	return false;
}

static void walk_ask(struct vol_piece *p, const struct map_item *item, uint32_t depth)
{
	struct vol_walk *w = &p->walk;

	w->full = item->flags & MAP_FULL;
	p->cr.flags = 0;
	p->cr.block = w->block + w->at;
	p->cr.blocks_n = w->run_n;
	p->cr.buf = w->op == CHUNK_READ ? w->buf + (size_t)w->at * BLOCK_BYTES : NULL;
	p->cr.crcs = NULL;
	p->cr.states = p->states + w->at;
	piece_send(p, w->op, item, depth, walk_asked);
}

/* In a full entry a hole is damage: the block was lost with a device. */
static int full_check(struct vol_piece *p)
{
	struct vol_walk *w = &p->walk;

	for (uint32_t i = w->at; w->full && i < w->at + w->run_n; i++) {
		if (p->states[i] != BLOCK_HOLE)
			continue;
		if (w->op == CHUNK_READ)
			return -E_BAD_BLOCK;
		p->states[i] = BLOCK_BAD;
	}
	return 0;
}

static void walk_asked(struct chunk_req *cr)
{
	struct vol_piece *p = piece_of_chunk(cr);
	struct vol_walk *w = &p->walk;
	int status = cr->status;

	if (status == -E_STALE_CGEN) {
		memset(p->states + w->at, BLOCK_HOLE, w->run_n);
		status = piece_stale(p);
	} else if (status == 0) {
		status = full_check(p);
		w->at += w->run_n;
	}
	volume_gone_check(p->v, status);
	if (status)
		walk_end(p, status);
	else
		walk_step(p);
}

static void walk_end(struct vol_piece *p, int status)
{
	struct vol_walk *w = &p->walk;

	w->at = 0;
	while (status == 0 && w->op == CHUNK_READ && next_run(p)) {
		memset(w->buf + (size_t)w->at * BLOCK_BYTES, 0, (size_t)w->run_n * BLOCK_BYTES);
		w->at += w->run_n;
	}
	w->then(p, status);
}
