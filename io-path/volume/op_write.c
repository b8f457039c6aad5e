/* SPDX-License-Identifier: Apache-2.0 */
/* op_write.c - a write's piece.
 *
 *   partial blocks: SCRATCH* -> read the old block(s)* -> MERGE
 *   then:           MAP* -> mapped: DATA*                                   (stale: MAP again)
 *                        -> run-ahead: DATA* and ALLOC* in parallel         (mapped elsewhere meanwhile: DATA again)
 *                        -> else: ALLOC* -> DATA*
 *
 * A write is acknowledged when its data was and its mapping is committed as a client's. A reserved (run-ahead) entry holds nothing
 * acknowledged, so the server may take it back at any time: that is why a write into one also waits for the commit.
 * Crash after ALLOC and before DATA: the chunk is mapped and its blocks are still holes; reads see the parent or zeros. */
#include <string.h>

#include "io-path/volume/runtime.h"
#include "src/base/crc.h"

static void merge(struct vol_piece *p);
static void merge_scratch(struct map_waiter *w, int status);
static void merge_first(struct vol_piece *p, int status);
static void merge_last(struct vol_piece *p, int status);
static void data_mapped(struct map_waiter *w, int status);
static int data_send(struct vol_piece *p, const struct map_item *item,
		     void (*done)(struct chunk_req *cr));
static void data_done(struct chunk_req *cr);
static void ahead_data_done(struct chunk_req *cr);
static void ahead_mapped(struct map_waiter *w, int status);
static void ahead_join(struct vol_piece *p);

void write_piece(struct vol_piece *p)
{
	if (p->head_bytes | p->tail_bytes)
		merge(p);
	else
		write_data(p);
}

/* ---- partial blocks --------------------------------------------------------------------------------------------------- */

/* Up to two blocks are partial: the first, the last. When they are neighbours one read gets both. */
static void merge(struct vol_piece *p)
{
	bool one_read = p->blocks_n <= SCRATCH_BLOCKS;

	if (!p->scratch && !piece_scratch(p, merge_scratch))
		return;
	p->v->stats.rmw++;
	if (one_read)
		walk_start(p, CHUNK_READ, p->block, p->blocks_n, p->scratch, merge_last);
	else if (p->head_bytes)
		walk_start(p, CHUNK_READ, p->block, 1, p->scratch, merge_first);
	else
		merge_first(p, 0);
}

static void merge_scratch(struct map_waiter *w, int status)
{
	(void)status; /* scratch comes, sooner or later */
	merge(piece_of_wait(w));
}

static void merge_first(struct vol_piece *p, int status)
{
	if (status || !p->tail_bytes)
		merge_last(p, status);
	else
		walk_start(p, CHUNK_READ, p->block + p->blocks_n - 1, 1, p->scratch + BLOCK_BYTES,
			   merge_last);
}

/* The old bytes around the request's are in scratch: the first block's in its first, the last block's in its last block. */
static void merge_last(struct vol_piece *p, int status)
{
	const uint8_t *last = p->scratch + (p->blocks_n == 1 ? 0 : BLOCK_BYTES);
	uint8_t *buf_end = p->buf + (size_t)p->blocks_n * BLOCK_BYTES;

	if (status) {
		piece_finish(p, status);
		return;
	}
	memcpy(p->buf, p->scratch, p->head_bytes);
	memcpy(buf_end - p->tail_bytes, last + BLOCK_BYTES - p->tail_bytes, p->tail_bytes);
	p->head_bytes = p->tail_bytes = 0;
	write_data(p);
}

/* ---- whole blocks ----------------------------------------------------------------------------------------------------- */

void write_data(struct vol_piece *p)
{
	struct map_page *page = map_page_find(p->v, p->chunk);
	struct map_item *head;
	bool ahead;
	int rc;

	if (!page) {
		map_wait(p->v, p->chunk, &p->wait, data_mapped);
		return;
	}
	head = map_head(page, p->chunk);
	switch (head->kind) {
	case MAP_OPEN:
		ahead = head->flags & MAP_RESERVED;
		p->data_done = p->map_done = false;
		head->flags &= (uint8_t)~MAP_ITEM_EMPTY;
		rc = data_send(p, head, ahead ? ahead_data_done : data_done);
		if (rc)
			piece_finish(p, rc);
		else if (ahead)
			map_alloc(page, p->chunk, &p->wait, ahead_mapped);
		break;
	case MAP_UNMAPPED:
	case MAP_ZERO:
	case MAP_LOST:
		map_alloc(page, p->chunk, &p->wait, data_mapped);
		break;
	default:
		piece_finish(p, head->kind == MAP_SEALED ? -E_FROZEN : -E_VERSION);
		break;
	}
}

static void data_mapped(struct map_waiter *w, int status)
{
	struct vol_piece *p = piece_of_wait(w);

	if (status)
		piece_finish(p, status);
	else
		write_data(p);
}

/* The checksums are computed once, here, from the private buffer; from now on they travel with the data. */
static int data_send(struct vol_piece *p, const struct map_item *item,
		     void (*done)(struct chunk_req *cr))
{
	for (uint32_t i = 0; i < p->blocks_n && !p->checksummed; i++)
		p->crcs[i] = crc32c(p->buf + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
	p->checksummed = true;
	p->cr.block = p->block;
	p->cr.blocks_n = p->blocks_n;
	p->cr.buf = p->buf;
	p->cr.crcs = p->crcs;
	p->cr.states = NULL;
	return piece_send_change(p, CHUNK_WRITE, 0, item, done);
}

static void data_done(struct chunk_req *cr)
{
	struct vol_piece *p = piece_of_chunk(cr);
	int status = piece_change_done(p);

	if (status == -E_STALE_CGEN) {
		status = piece_stale(p);
		if (status == 0) {
			write_data(p);
			return;
		}
	}
	piece_finish(p, status);
}

/* ---- into run-ahead --------------------------------------------------------------------------------------------------- */

static void ahead_data_done(struct chunk_req *cr)
{
	struct vol_piece *p = piece_of_chunk(cr);

	p->data_status = piece_change_done(p);
	p->data_done = true;
	ahead_join(p);
}

static void ahead_mapped(struct map_waiter *w, int status)
{
	struct vol_piece *p = piece_of_wait(w);

	p->map_status = status;
	p->map_done = true;
	ahead_join(p);
}

static void ahead_join(struct vol_piece *p)
{
	struct map_page *page;
	int status = p->map_status ? p->map_status : p->data_status;
	bool again = false;

	if (!p->data_done || !p->map_done)
		return;
	if (status == -E_STALE_CGEN) {
		status = piece_stale(p);
		again = status == 0;
	} else if (status == 0) {
		page = map_page_find(p->v, p->chunk);
		again = !page || !map_item_same(map_head(page, p->chunk), &p->item);
	}
	if (again) /* it is mapped elsewhere now */
		write_data(p);
	else
		piece_finish(p, status);
}
