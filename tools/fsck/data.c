/* SPDX-License-Identifier: Apache-2.0 */
/* data.c - every block that a slot has, read and held against its checksum, several reads at once. */
#include <stdio.h>

#include "src/base/math.h"
#include "src/base/mem.h"
#include "tools/fsck/wait.h"

enum { READS = 8, READ_BLOCKS = 64 };

struct batch {
	struct fsck_request rq[READS];
	uint8_t states[READS][READ_BLOCKS];
	uint32_t n;
	uint8_t *buf;
};

/* The next run of data at or after `from`, cut to one read. */
static struct geo_range next_run(const struct fsck *k, const uint8_t *states, uint32_t from)
{
	struct geo_range run = {from, 0};

	while (run.first < k->geo.blocks_per_chunk && states[run.first] != BLOCK_DATA)
		run.first++;
	while (run.n < READ_BLOCKS && run.first + run.n < k->geo.blocks_per_chunk &&
	       states[run.first + run.n] == BLOCK_DATA)
		run.n++;
	return run;
}

static void tell(struct fsck *k, const struct chunk_req *r)
{
	char blocks[128] = "";
	size_t len = 0;
	uint32_t bad_n = 0;

	if (r->status == -EIO) {
		fsck_say_slot(k, FSCK_ERROR, "data-unreadable", r->slot,
			      "blocks %u to %u of slot %u (layer %u chunk %u) cannot be read: %s",
			      r->block, r->block + r->blocks_n - 1, r->slot, r->layer, r->chunk,
			      err_text(r->status));
		return;
	}
	for (uint32_t i = 0; i < r->blocks_n; i++) {
		if (r->states[i] != BLOCK_BAD)
			continue;
		bad_n++;
		if (len < sizeof(blocks) - 16)
			len += (size_t)snprintf(blocks + len, sizeof(blocks) - len, "%s%u",
						len ? ", " : "", r->block + i);
		else if (blocks[len - 1] != '.')
			len += (size_t)snprintf(blocks + len, sizeof(blocks) - len, " ...");
	}
	k->res->blocks_bad += bad_n;
	fsck_say_slot(k, FSCK_ERROR, "data-damaged", r->slot,
		      "%u blocks of slot %u (layer %u chunk %u) do not match their checksum: %s",
		      bad_n, r->slot, r->layer, r->chunk, blocks);
}

static int collect(struct fsck *k, struct batch *b)
{
	int r = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		const struct chunk_req *rq = &b->rq[i].r;

		fsck_wait(k, &b->rq[i].done);
		if (rq->status == -ENOMEM)
			r = fsck_error(k, rq->status, "no memory");
		else if (rq->status)
			tell(k, rq);
		k->res->blocks_read += rq->blocks_n;
	}
	b->n = 0;
	return r;
}

int fsck_data(struct fsck *k, struct device *dev, uint32_t slot, const uint8_t *states)
{
	struct batch *b = mem_zalloc(sizeof(*b));
	struct device_slot d;
	int r = b ? device_slot_get(dev, slot, &d) : fsck_error(k, -ENOMEM, "no memory");

	if (b && !(b->buf = mem_alloc_aligned(BLOCK_BYTES, READS * READ_BLOCKS * BLOCK_BYTES)))
		r = fsck_error(k, -ENOMEM, "no memory");
	for (uint32_t at = 0; !r;) {
		struct geo_range run = next_run(k, states, at);
		struct fsck_request *rq;

		if (run.n == 0 || b->n == READS)
			r = collect(k, b);
		if (run.n == 0)
			break;
		rq = &b->rq[b->n];
		rq->r = (struct chunk_req){.op = CHUNK_READ, .block = run.first, .blocks_n = run.n};
		fsck_name_slot(&rq->r, slot, &d);
		rq->r.states = b->states[b->n];
		rq->r.buf = b->buf + (size_t)b->n * READ_BLOCKS * BLOCK_BYTES;
		fsck_submit(dev, rq);
		b->n++;
		at = run.first + run.n;
	}
	if (b)
		mem_free(b->buf);
	mem_free(b);
	return r;
}
