/* SPDX-License-Identifier: Apache-2.0 */
/* volume_null.c - what the volume runtime itself costs: bench.h over a chunk store that does nothing and a map that has
 * everything.
 *
 *   build/plain/tests/bench/volume_null [write|read] [IO_BYTES] [DEPTH] [SECONDS]
 *
 * One thread does all, so nanoseconds per request are processor time: submit, lock, lookup, checksum (writes), completion, and
 * the generator. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io-path/volume/bench.h"
#include "io-path/volume/volumes.h"
#include "src/base/log.h"

#define SIZE (64ULL << 30)

/* ---- a store that does nothing ---------------------------------------------------------------------------------------- */

static struct ioe *ioe;
static struct list submitted;
static struct ioe_hook hook;

static void store_submit(struct chunk_store *s, struct chunk_req *r)
{
	(void)s;
	list_push(&submitted, &r->link);
	ioe_hook_arm(ioe, &hook);
}

static void store_complete(struct ioe_hook *h)
{
	struct list batch, *l;

	(void)h;
	list_init(&batch);
	list_splice(&batch, &submitted);
	while ((l = list_pop(&batch))) {
		struct chunk_req *r = list_entry(l, struct chunk_req, link);

		r->status = 0;
		r->volatile_ack = r->op == CHUNK_WRITE;
		r->incarnation = 1;
		r->done(r);
	}
}

static bool never(struct chunk_store *s, device_no dev)
{
	(void)s;
	(void)dev;
	return false;
}
static bool always(struct chunk_store *s, device_no dev)
{
	(void)s;
	(void)dev;
	return true;
}
static struct chunk_store store = {.submit = store_submit, .is_stable = never, .is_local = always};

/* ---- a map that has everything ---------------------------------------------------------------------------------------- */

static struct meta_req *answered[64];
static unsigned answered_n;
static struct ioe_hook meta_hook;

static void answer(struct meta_req *r)
{
	r->status = 0;
	answered[answered_n++ % 64] = r;
	ioe_hook_arm(ioe, &meta_hook);
}

static void meta_complete(struct ioe_hook *h)
{
	struct meta_req *batch[64];
	unsigned n = answered_n;

	(void)h;
	memcpy(batch, answered, sizeof(batch));
	answered_n = 0;
	for (unsigned i = 0; i < n; i++)
		batch[i]->done(batch[i]);
}

static void meta_open(struct meta *m, struct meta_open *r)
{
	(void)m;
	r->id = 1;
	r->epoch = 1;
	r->size_bytes = SIZE;
	r->sector_bytes = SECTOR_BYTES;
	r->chunk_shift = CHUNK_SHIFT_FLASH;
	r->layers_n = 1;
	r->layers[0] = 1;
	r->devices_n = 4;
	for (device_no d = 0; d < 4; d++)
		r->devices[d] = d + 1;
	answer(&r->req);
}
static void meta_close(struct meta *m, struct meta_close *r)
{
	(void)m;
	answer(&r->req);
}
static void meta_map(struct meta *m, struct meta_map *r)
{
	(void)m;
	for (r->items_n = 0; r->items_n < r->n; r->items_n++) {
		uint32_t c = r->first + r->items_n;

		r->items[r->items_n] = (struct meta_map_item){
		    .chunk = c,
		    .layer = 1,
		    .entry = {.kind = MAP_OPEN,
			      .replicas_n = 1,
			      .replicas = {
				  {.cgen = c + 1, .slot = c, .dev = (device_no)(c % 4 + 1)}}}};
	}
	answer(&r->req);
}
static const struct meta_ops ops = {.open = meta_open, .close = meta_close, .map = meta_map};
static struct meta meta = {.ops = &ops};

/* ---- main ------------------------------------------------------------------------------------------------------------- */

static struct volumes *vs;
static struct volume_bench bench;

static void closed(void *arg)
{
	(void)arg;
	ioe_stop(ioe);
}

static void handle_closed(void *arg)
{
	volumes_close(vs, closed, arg);
}

static void bench_done(struct volume_bench *b)
{
	const struct volume_bench_result *r = &b->result;
	const struct hist *h = r->reads ? &r->read_ns : &r->write_ns;
	uint64_t n = r->reads + r->writes;

	if (b->status)
		fprintf(stderr, "%s\n", b->errmsg);
	else
		printf(
		    "%llu requests/s, %llu MiB/s, %.0f ns each; p50 %llu p99 %llu p99.9 %llu ns\n",
		    (unsigned long long)volume_bench_iops(r),
		    (unsigned long long)volume_bench_mib_per_s(r),
		    (double)r->elapsed_ns / (double)(n ? n : 1),
		    (unsigned long long)hist_permille(h, 500),
		    (unsigned long long)hist_permille(h, 990),
		    (unsigned long long)hist_permille(h, 999));
	volume_close(b->handle, handle_closed, NULL);
}

static void opened(struct volume_open *op)
{
	if (op->status) {
		fprintf(stderr, "%s\n", op->errmsg);
		exit(1);
	}
	bench.ioe = ioe;
	bench.handle = op->handle;
	bench.done = bench_done;
	volume_bench_start(&bench);
}

int main(int argc, char **argv)
{
	struct volumes_config cfg = {.store = &store, .meta = &meta};
	struct volume_open op = {.name = "null", .client = "benchmark", .done = opened};

	bench.random = true;
	bench.seed = 1;
	bench.read_percent = argc > 1 && strcmp(argv[1], "read") == 0 ? 100 : 0;
	bench.io_bytes = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 0) : BLOCK_BYTES;
	bench.depth = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 0) : 32;
	bench.duration_ns = (argc > 4 ? strtoull(argv[4], NULL, 0) : 1) * 1000000000ULL;
	log_set_level(LOG_ERROR);
	list_init(&submitted);
	ioe_hook_init(&hook, store_complete);
	ioe_hook_init(&meta_hook, meta_complete);
	if (ioe_new(&(struct ioe_config){.kind = IOE_AUTO}, &ioe))
		return 1;
	cfg.ioe = ioe;
	if (volumes_new(&cfg, &vs))
		return 1;
	volume_open(vs, &op);
	ioe_run(ioe);
	volumes_free(vs);
	ioe_free(ioe);
	return bench.status ? 1 : 0;
}
