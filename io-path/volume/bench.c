/* SPDX-License-Identifier: Apache-2.0 */
/* bench.c - a load generator: start -> (submit -> answered) x depth, until the time is over -> done */
#include "io-path/volume/bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/base/hash.h"
#include "src/base/math.h"
#include "src/base/mem.h"
#include "src/model/ids.h"

struct volume_bench_slot {
	struct volume_req r;
	struct volume_bench *b;
	uint8_t *buf; /* block-aligned, io_bytes and a block long */
	uint64_t submit_ns;
};

static int bench_check(struct volume_bench *b);
static void permutation_begin(struct volume_bench *b);
static void bench_begin(struct ioe_req *r);
static void slot_submit(struct volume_bench_slot *s);
static void slot_answered(struct volume_req *r);
static void bench_end(struct volume_bench *b);

void volume_bench_start(struct volume_bench *b)
{
	b->slots = NULL;
	b->memory = NULL;
	b->running = 0;
	b->errmsg[0] = '\0';
	memset(&b->result, 0, sizeof(b->result));
	b->status = bench_check(b);
	ioe_nop(b->ioe, &b->begin, bench_begin); /* nothing completes inline */
}

void volume_bench_stop(struct volume_bench *b)
{
	b->duration_ns = 0;
}

static int refuse(struct volume_bench *b, const char *why)
{
	snprintf(b->errmsg, sizeof(b->errmsg), "%s", why);
	return -EINVAL;
}

static int bench_check(struct volume_bench *b)
{
	uint64_t slot_bytes = round_up(b->io_bytes, BLOCK_BYTES) + BLOCK_BYTES;
	struct volume_geometry g;

	volume_geometry(b->handle, &g);
	if (b->depth == 0 || b->depth > VOLUME_BENCH_DEPTH_MAX)
		return refuse(b, "the queue depth must be 1 to 1024");
	if (b->io_bytes == 0 || b->io_bytes % g.sector_bytes || b->io_bytes > g.io_bytes_max)
		return refuse(
		    b, "the request size must be a multiple of the sector size, at most 32 MiB");
	if (b->depth * slot_bytes > VOLUME_BENCH_MEMORY_MAX)
		return refuse(b, "queue depth times request size must be below 1 GiB");
	if (b->read_percent > 100)
		return refuse(b, "the share of reads is a percentage");
	if (b->read_percent < 100 && g.read_only)
		return refuse(b, "the volume is open for reading only");
	if (b->len == 0 && b->off < g.size_bytes)
		b->len = g.size_bytes - b->off;
	if (b->stride_bytes == 0)
		b->stride_bytes = b->io_bytes;
	if (b->stride_bytes < b->io_bytes || b->stride_bytes % g.sector_bytes)
		return refuse(b, "the stride must be a multiple of the sector size, and no smaller "
				 "than the request size");
	if (b->off % g.sector_bytes || !range_inside(b->off, b->len, g.size_bytes) ||
	    b->len < b->io_bytes)
		return refuse(b, "the range must lie in the volume and hold at least one request");
	b->slots = mem_zalloc_array(b->depth, sizeof(b->slots[0]));
	b->memory = mem_alloc_aligned(BLOCK_BYTES, b->depth * slot_bytes);
	if (!b->slots || !b->memory)
		return -ENOMEM;
	rand_seed(&b->rand, b->seed ? b->seed : ioe_rand64(b->ioe));
	rand_fill(&b->rand, b->memory, b->depth * slot_bytes);
	b->positions_n = (b->len - b->io_bytes) / b->stride_bytes + 1;
	b->next = 0;
	permutation_begin(b);
	b->writes_since_flush = 0;
	for (uint32_t i = 0; i < b->depth; i++) {
		b->slots[i].b = b;
		b->slots[i].buf = b->memory + i * slot_bytes;
	}
	return 0;
}

/* A permutation of the positions without memory for it: a Feistel network over the next even number of bits, walked until it lands inside. */
static void permutation_begin(struct volume_bench *b)
{
	uint32_t bits = 64 - (uint32_t)__builtin_clzll(b->positions_n | 1);

	b->permutation.half_bits = (bits + 1) / 2;
	b->permutation.key = rand_u64(&b->rand);
}

static uint64_t permuted(const struct volume_bench *b, uint64_t at)
{
	uint32_t half = b->permutation.half_bits;
	uint64_t mask = (1ULL << half) - 1;

	do {
		uint64_t left = at >> half, right = at & mask;

		for (uint64_t round = 0; round < 4; round++) {
			uint64_t mixed =
			    left ^ (hash_u64(right ^ hash_u64(b->permutation.key + round)) & mask);

			left = right;
			right = mixed;
		}
		at = left << half | right;
	} while (at >= b->positions_n);
	return at;
}

static bool is_over(const struct volume_bench *b, uint64_t now_ns)
{
	return b->status || now_ns - b->start_ns >= b->duration_ns ||
	       (b->once && b->next == b->positions_n);
}

static void bench_begin(struct ioe_req *r)
{
	struct volume_bench *b = container_of(r, struct volume_bench, begin);

	if (b->status) {
		bench_end(b);
		return;
	}
	b->start_ns = ioe_now_ns(b->ioe);
	for (uint32_t i = 0; i < b->depth && (i == 0 || !is_over(b, b->start_ns)); i++) {
		b->running++;
		slot_submit(&b->slots[i]);
	}
}

static uint64_t next_position(struct volume_bench *b)
{
	uint64_t at = !b->random ? b->next
		      : b->once	 ? permuted(b, b->next)
				 : rand_below(&b->rand, b->positions_n);

	if (++b->next == b->positions_n && !b->once)
		b->next = 0;
	return b->off + at * b->stride_bytes;
}

static void slot_submit(struct volume_bench_slot *s)
{
	struct volume_bench *b = s->b;
	struct volume_req *r = &s->r;

	r->done = slot_answered;
	r->flags = 0;
	if (b->flush_every && b->writes_since_flush >= b->flush_every) {
		r->op = VOLUME_FLUSH;
		b->writes_since_flush = 0;
	} else {
		r->op = rand_percent(&b->rand, b->read_percent) ? VOLUME_READ : VOLUME_WRITE;
		r->off = next_position(b);
		r->len = b->io_bytes;
		r->buf = s->buf + r->off % BLOCK_BYTES;
	}
	if (r->op == VOLUME_WRITE) {
		r->flags = b->fua ? VOLUME_F_FUA : 0;
		b->writes_since_flush++;
	}
	s->submit_ns = ioe_now_ns(b->ioe);
	volume_submit(b->handle, r);
}

static void slot_count(struct volume_bench_slot *s, uint64_t now_ns)
{
	struct volume_bench_result *res = &s->b->result;
	uint64_t took_ns = now_ns - s->submit_ns;

	switch (s->r.op) {
	case VOLUME_READ:
		res->reads++;
		hist_add(&res->read_ns, took_ns);
		break;
	case VOLUME_WRITE:
		res->writes++;
		hist_add(&res->write_ns, took_ns);
		break;
	default:
		res->flushes++;
		hist_add(&res->flush_ns, took_ns);
		return;
	}
	res->bytes += s->r.len;
}

static void slot_answered(struct volume_req *r)
{
	struct volume_bench_slot *s = container_of(r, struct volume_bench_slot, r);
	struct volume_bench *b = s->b;
	uint64_t now_ns = ioe_now_ns(b->ioe);

	if (r->status && b->status == 0) {
		b->status = r->status;
		snprintf(b->errmsg, sizeof(b->errmsg), "a request at offset %" PRIu64 " failed: %s",
			 r->off, err_text(r->status));
	}
	if (r->status == 0)
		slot_count(s, now_ns);
	if (!is_over(b, now_ns)) {
		slot_submit(s);
		return;
	}
	b->result.elapsed_ns = now_ns - b->start_ns;
	if (--b->running == 0)
		bench_end(b);
}

static void bench_end(struct volume_bench *b)
{
	mem_free(b->slots);
	mem_free(b->memory);
	b->slots = NULL;
	b->memory = NULL;
	if (b->status && !b->errmsg[0])
		snprintf(b->errmsg, sizeof(b->errmsg), "%s", err_text(b->status));
	b->done(b); /* the last touch */
}

/* ---- reports ---------------------------------------------------------------------------------------------------------- */

static uint64_t per_second(uint64_t n, uint64_t elapsed_ns)
{
	return elapsed_ns ? (uint64_t)((unsigned __int128)n * 1000000000ULL / elapsed_ns) : 0;
}

uint64_t volume_bench_iops(const struct volume_bench_result *r)
{
	return per_second(r->reads + r->writes, r->elapsed_ns);
}

uint64_t volume_bench_mib_per_s(const struct volume_bench_result *r)
{
	return per_second(r->bytes, r->elapsed_ns) >> 20;
}
