/* SPDX-License-Identifier: Apache-2.0 */
/* How many chunks a second the SAN allocates, and how many share a commit: one chunk a request, in random order, on a real database.
 *
 *   san_alloc_rate DIR [CHUNKS [CONCURRENCY]]        DIR must not exist; 65536 chunks and 32 requests at a time by default */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "metadata/san/san.h"
#include "src/base/rand.h"

enum { DEVICES = 6, POOL = 1, CONCURRENCY_MAX = 1024 };

struct bench {
	struct ioe *e;
	struct metastore *store;
	struct san *san;
	struct san_volume v;
	uint64_t epoch;
	uint32_t *chunks; /* a permutation */
	uint32_t chunks_n, at, done_n;
};

struct request {
	struct san_alloc op;
	struct bench *b;
	struct san_map_item item;
};

static struct san_req *waited;

static void done(struct san_req *r)
{
	waited = r;
}

static void wait_for(struct bench *b, struct san_req *r)
{
	waited = NULL; /* no request ends before the next turn */
	while (waited != r)
		ioe_poll(b->e, ioe_now_ns(b->e) + 1000 * 1000);
	if (r->status) {
		fprintf(stderr, "san_alloc_rate: %s\n", r->errmsg);
		exit(1);
	}
}

static void opened(struct san_open *op)
{
	*(bool *)op->cfg.cb.arg = true;
}

static void closed(void *arg)
{
	*(bool *)arg = true;
}

static void open_all(struct bench *b, const char *dir)
{
	bool is_open = false;
	struct san_open op = {.done = opened};
	char errmsg[ERRMSG_LEN];
	int r = ioe_new(&(struct ioe_config){.kind = IOE_AUTO}, &b->e);

	if (r == 0)
		r = metastore_open_rocksdb(b->e, dir, &b->store, errmsg);
	if (r) {
		fprintf(stderr, "san_alloc_rate: %s\n", err_text(r));
		exit(1);
	}
	op.cfg = (struct san_config){.ioe = b->e, .store = b->store, .cb.arg = &is_open};
	san_open(&op);
	while (!is_open)
		ioe_poll(b->e, UINT64_MAX);
	b->san = op.san;
}

static void make_volume(struct bench *b)
{
	static struct san_volume_open open = {.req.done = done,
					      .name = "v",
					      .node = 1,
					      .start = {{1}}};
	struct san_volume_create create = {.req.done = done,
					   .name = "v",
					   .size_bytes = (uint64_t)b->chunks_n << CHUNK_SHIFT_FLASH,
					   .sector_bytes = SECTOR_BYTES,
					   .chunk_shift = CHUNK_SHIFT_FLASH,
					   .pool = POOL};

	for (int i = 0; i < DEVICES; i++) {
		struct san_device_add add = {
		    .req.done = done,
		    .dev = (device_no)san_number_take(b->san, SAN_NUMBER_DEVICE),
		    .pool = POOL,
		    .chunk_shift = CHUNK_SHIFT_FLASH,
		    .slots_n = b->chunks_n / DEVICES + 10000,
		};

		san_device_add(b->san, &add);
		wait_for(b, &add.req);
		san_device_usable(b->san, add.dev, true);
	}
	san_volume_create(b->san, &create);
	wait_for(b, &create.req);
	san_volume_open(b->san, &open);
	wait_for(b, &open.req);
	b->v = open.volume;
	b->epoch = open.volume.epoch;
}

static void next(struct request *q);

static void allocated(struct san_req *r)
{
	struct request *q = container_of(r, struct request, op.req);

	if (r->status) {
		fprintf(stderr, "san_alloc_rate: %s\n", r->errmsg);
		exit(1);
	}
	q->b->done_n++;
	if (q->b->at < q->b->chunks_n)
		next(q);
}

static void next(struct request *q)
{
	struct bench *b = q->b;

	q->op = (struct san_alloc){.req.done = allocated,
				   .volume = b->v.id,
				   .epoch = b->epoch,
				   .layer = b->v.head,
				   .chunks = &b->chunks[b->at++],
				   .n = 1,
				   .items = &q->item};
	san_alloc(b->san, &q->op);
}

static void run(struct bench *b, uint32_t concurrency)
{
	static struct request requests[CONCURRENCY_MAX];
	uint64_t start = ioe_now_ns(b->e), ns;
	struct san_stats s;

	for (uint32_t i = 0; i < concurrency && b->at < b->chunks_n; i++) {
		requests[i].b = b;
		next(&requests[i]);
	}
	while (b->done_n < b->chunks_n)
		ioe_poll(b->e, UINT64_MAX);
	ns = ioe_now_ns(b->e) - start;
	san_stats(b->san, &s);
	printf("engine %s: %u chunks in %.3f s: %.0f/s, %.1f chunks and %.0f KiB a commit\n",
	       ioe_name(b->e), b->chunks_n, (double)ns / 1e9, b->chunks_n / ((double)ns / 1e9),
	       (double)s.alloc_chunks / (double)s.alloc_commits,
	       (double)s.commit_bytes / 1024 / (double)s.commits);
}

static void close_all(struct bench *b)
{
	bool is_closed = false;

	san_close(b->san, closed, &is_closed);
	while (!is_closed)
		ioe_poll(b->e, UINT64_MAX);
	is_closed = false;
	metastore_close(b->store, closed, &is_closed);
	while (!is_closed)
		ioe_poll(b->e, UINT64_MAX);
	ioe_free(b->e);
}

int main(int argc, char **argv)
{
	uint32_t concurrency = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 32;
	struct bench b = {.chunks_n = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 65536};
	struct rand rnd;

	if (argc < 2 || b.chunks_n == 0 || concurrency == 0 || concurrency > CONCURRENCY_MAX) {
		fprintf(stderr, "usage: san_alloc_rate DIR [CHUNKS [CONCURRENCY]]\n");
		return 2;
	}
	b.chunks = calloc(b.chunks_n, sizeof(b.chunks[0]));
	if (!b.chunks)
		return 1;
	rand_seed(&rnd, 1);
	for (uint32_t i = 0; i < b.chunks_n; i++) {
		uint32_t j = (uint32_t)rand_below(&rnd, i + 1);

		b.chunks[i] = b.chunks[j];
		b.chunks[j] = i;
	}
	open_all(&b, argv[1]);
	make_volume(&b);
	run(&b, concurrency);
	close_all(&b);
	free(b.chunks);
	return 0;
}
