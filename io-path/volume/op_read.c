/* SPDX-License-Identifier: Apache-2.0 */
/* op_read.c - a read's piece.
 *
 *   MAP* -> nothing there: zeros
 *        -> one entry counts: READ*      (stale: MAP again)
 *        -> several layers: walk*
 *
 * Whole blocks are read, straight into the request's memory; around a partial block that memory is the request's too. Holes and
 * zeros come back as zeros from the device. */
#include <string.h>

#include "io-path/volume/runtime.h"

static void read_mapped(struct map_waiter *w, int status);
static void read_done(struct chunk_req *cr);

void read_piece(struct vol_piece *p)
{
	struct map_page *page = map_page_find(p->v, p->chunk);
	const struct map_below *below;
	const struct map_item *head;
	uint32_t below_n;

	if (!page) {
		map_wait(p->v, p->chunk, &p->wait, read_mapped);
		return;
	}
	head = map_head(page, p->chunk);
	below_n = map_below(page, p->chunk, &below);
	if (head->kind == MAP_OPEN && !(head->flags & (MAP_RESERVED | MAP_FULL)) &&
	    (below_n == 0 || head->flags & MAP_OPAQUE)) {
		p->cr.flags = 0;
		p->cr.block = p->block;
		p->cr.blocks_n = p->blocks_n;
		p->cr.buf = p->buf;
		p->cr.crcs = NULL;
		p->cr.states = NULL;
		piece_send(p, CHUNK_READ, head, 0, read_done);
	} else if (head->kind == MAP_UNMAPPED && below_n == 0) {
		memset(p->buf, 0, (size_t)p->blocks_n * BLOCK_BYTES);
		piece_finish(p, 0);
	} else {
		walk_start(p, CHUNK_READ, p->block, p->blocks_n, p->buf, piece_finish);
	}
}

static void read_mapped(struct map_waiter *w, int status)
{
	struct vol_piece *p = piece_of_wait(w);

	if (status)
		piece_finish(p, status);
	else
		read_piece(p);
}

static void read_done(struct chunk_req *cr)
{
	struct vol_piece *p = piece_of_chunk(cr);
	int status = cr->status;

	if (status == -E_STALE_CGEN) {
		status = piece_stale(p);
		if (status == 0) {
			read_piece(p);
			return;
		}
	}
	volume_gone_check(p->v, status);
	piece_finish(p, status);
}
