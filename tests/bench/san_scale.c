/* SPDX-License-Identifier: Apache-2.0 */
/* Large maps, without the data: in the database of a metadata server that is stopped.
 *
 *   san_scale fill DIR/meta VOLUME [VOLUMES_N]            maps every chunk of the volume, and makes VOLUMES_N more: "many-000000" and so on
 *   san_scale lookup DIR/meta VOLUME COUNT [SEED]         asks for COUNT chunks, each in a map page that nobody asked for before: how long each took
 *
 * Both go through the SAN's own requests, so what the server opens afterwards is what a long life would have left. The first chunk of every map
 * page is mapped before all others: so the allocation counters within a page lie far apart, as in a volume that was filled at random, and the
 * pages are as long as they get there. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "metadata/san/san.h"
#include "src/base/math.h"
#include "src/base/rand.h"

enum { PAGE_CHUNKS = 256, DEPTH = 16, FIRST_CHUNKS_N = 64 };

struct fill {
	struct ioe *e;
	struct metastore *store;
	struct san *san;
	struct san_volume v;
	uint32_t chunks_n, next;
	bool first_ones; /* the first pass */
	uint32_t volumes_n, volume_next;
	uint32_t running;
};

struct request {
	struct fill *f;
	union {
		struct san_alloc alloc;
		struct san_volume_create create;
	};
	uint32_t chunks[SAN_CHUNKS_MAX];
	struct san_map_item items[SAN_CHUNKS_MAX];
	char name[32];
};

static bool flag;

static void end_if(int status, const char *errmsg)
{
	if (!status)
		return;
	fprintf(stderr, "san_scale: %s\n", errmsg[0] ? errmsg : err_text(status));
	exit(1);
}

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

static void opened(struct san_open *op)
{
	(void)op;
	flag = true;
}

static void done(struct san_req *r)
{
	(void)r;
	flag = true;
}

static void wait_flag(struct fill *f)
{
	while (!flag)
		ioe_poll(f->e, ioe_now_ns(f->e) + 1000 * 1000);
	flag = false;
}

static void open_all(struct fill *f, const char *dir)
{
	struct san_open op = {.done = opened};
	char errmsg[ERRMSG_LEN] = "";
	int r = ioe_new(&(struct ioe_config){.kind = IOE_AUTO}, &f->e);

	end_if(r, errmsg);
	end_if(metastore_open_rocksdb(f->e, dir, &f->store, errmsg), errmsg);
	op.cfg = (struct san_config){.ioe = f->e, .store = f->store};
	san_open(&op);
	wait_flag(f);
	end_if(op.status, op.errmsg);
	f->san = op.san;
}

static void close_all(struct fill *f)
{
	san_close(f->san, set_flag, &flag);
	wait_flag(f);
	metastore_close(f->store, set_flag, &flag);
	wait_flag(f);
	ioe_free(f->e);
}

static void open_volume(struct fill *f, const char *name)
{
	static struct san_volume_open open = {.req.done = done, .node = 1, .start = {{1}}};
	struct san_device d = {.dev = 0};

	while (san_device_next(f->san, d.dev, &d) == 0)
		san_device_usable(f->san, d.dev, true);
	open.name = name;
	san_volume_open(f->san, &open);
	wait_flag(f);
	end_if(open.req.status, open.req.errmsg);
	f->v = open.volume;
	f->chunks_n = (uint32_t)div_up(f->v.size_bytes, 1ULL << f->v.chunk_shift);
}

static void close_volume(struct fill *f)
{
	struct san_volume_close close = {.req.done = done,
					 .volume = f->v.id,
					 .epoch = f->v.epoch,
					 .forced = true};

	san_volume_close(f->san, &close);
	wait_flag(f);
	end_if(close.req.status, close.req.errmsg);
}

/* ---- the map --------------------------------------------------------------------------------------------------------------- */

static void alloc_next(struct request *q);

static void allocated(struct san_req *r)
{
	struct request *q = container_of(r, struct request, alloc.req);

	end_if(r->status, r->errmsg);
	q->f->running--;
	alloc_next(q);
}

static void alloc_next(struct request *q)
{
	struct fill *f = q->f;
	uint32_t n = 0, max = f->first_ones ? FIRST_CHUNKS_N : SAN_CHUNKS_MAX;
	uint32_t step = f->first_ones ? PAGE_CHUNKS : 1;

	for (; n < max && f->next < f->chunks_n; f->next += step)
		q->chunks[n++] = f->next;
	if (n == 0)
		return;
	q->alloc = (struct san_alloc){.req.done = allocated,
				      .volume = f->v.id,
				      .epoch = f->v.epoch,
				      .layer = f->v.head,
				      .chunks = q->chunks,
				      .n = n,
				      .items = q->items};
	f->running++;
	san_alloc(f->san, &q->alloc);
}

/* ---- many volumes ---------------------------------------------------------------------------------------------------------- */

static void create_next(struct request *q);

static void created(struct san_req *r)
{
	struct request *q = container_of(r, struct request, create.req);

	end_if(r->status, r->errmsg);
	q->f->running--;
	create_next(q);
}

static void create_next(struct request *q)
{
	struct fill *f = q->f;

	if (f->volume_next == f->volumes_n)
		return;
	snprintf(q->name, sizeof(q->name), "many-%06u", f->volume_next++);
	q->create = (struct san_volume_create){.req.done = created,
					       .name = q->name,
					       .size_bytes = 1ULL << 30,
					       .sector_bytes = SECTOR_BYTES,
					       .chunk_shift = f->v.chunk_shift,
					       .pool = f->v.pool,
					       .policy = f->v.policy};
	f->running++;
	san_volume_create(f->san, &q->create);
}

/* ---- looking up ------------------------------------------------------------------------------------------------------------ */

/* What a lookup cost besides time: says why the slow ones were slow. */
struct cost {
	uint64_t took_ns;
	long disk_reads, faults, preemptions; /* disk_reads: of 512 bytes */
};

static int cmp_cost(const void *a, const void *b)
{
	const struct cost *x = a, *y = b;

	return (x->took_ns > y->took_ns) - (x->took_ns < y->took_ns);
}

static struct cost cost_now(struct fill *f)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (struct cost){ioe_now_ns(f->e), u.ru_inblock, u.ru_minflt + u.ru_majflt, u.ru_nivcsw};
}

/* Calls of read of the whole process so far; 0: not known. */
static uint64_t reads_now(void)
{
	FILE *io = fopen("/proc/self/io", "r");
	char line[64];
	uint64_t n = 0;

	while (io && fgets(line, sizeof(line), io))
		if (sscanf(line, "syscr: %" SCNu64, &n) == 1)
			break;
	if (io)
		fclose(io);
	return n;
}

static void look_up(struct fill *f, uint32_t count, uint64_t seed)
{
	uint32_t pages_n = f->chunks_n / PAGE_CHUNKS;
	uint32_t *pages = calloc(pages_n, sizeof(pages[0]));
	struct cost *costs = calloc(count, sizeof(costs[0]));
	uint64_t sum_ns = 0, reads, faults = 0;
	static struct san_map_item items[LAYERS_MAX];
	struct rand rnd;

	if (!pages || !costs || count == 0 || count > pages_n) {
		fprintf(stderr, "san_scale: COUNT must be 1 to %u, the number of map pages\n",
			pages_n);
		exit(2);
	}
	rand_seed(&rnd, seed);
	for (uint32_t i = 0; i < pages_n; i++) {
		uint32_t j = (uint32_t)rand_below(&rnd, i + 1);

		pages[i] = pages[j];
		pages[j] = i;
	}
	reads = reads_now();
	for (uint32_t i = 0; i < count; i++) {
		struct san_map map = {.req.done = done,
				      .volume = f->v.id,
				      .layer = f->v.head,
				      .first = pages[i] * PAGE_CHUNKS,
				      .n = 1,
				      .items = items,
				      .items_max = LAYERS_MAX};
		struct cost start = cost_now(f), end;

		san_map(f->san, &map);
		wait_flag(f);
		end = cost_now(f);
		costs[i] =
		    (struct cost){end.took_ns - start.took_ns, end.disk_reads - start.disk_reads,
				  end.faults - start.faults, end.preemptions - start.preemptions};
		sum_ns += costs[i].took_ns;
		faults += (uint64_t)costs[i].faults;
		end_if(map.req.status, map.req.errmsg);
		if (map.items_n != 1)
			end_if(-EIO, "a chunk is not mapped");
	}
	reads = reads_now() - reads;
	qsort(costs, count, sizeof(costs[0]), cmp_cost);
	printf("%u cold lookups: mean %.0f us, p50 %.0f, p99 %.0f, p99.9 %.0f, worst %.0f us\n",
	       count, (double)sum_ns / count / 1e3, (double)costs[count / 2].took_ns / 1e3,
	       (double)costs[count - 1 - count / 100].took_ns / 1e3,
	       (double)costs[count - 1 - count / 1000].took_ns / 1e3,
	       (double)costs[count - 1].took_ns / 1e3);
	/* among them those by which a worker wakes the loop, and the loop's own */
	printf("each: %.3f calls of read, %.3f page faults\n", (double)reads / count,
	       (double)faults / count);
	for (uint32_t i = count > 10 ? count - 10 : 0; i < count; i++)
		printf(
		    "slow: %.0f us, %ld KiB from the disk, %ld page faults, preempted %ld times\n",
		    (double)costs[i].took_ns / 1e3, costs[i].disk_reads / 2, costs[i].faults,
		    costs[i].preemptions);
	free(pages);
	free(costs);
}

/* ---------------------------------------------------------------------------------------------------------------------------- */

static void run(struct fill *f, struct request *requests, uint32_t requests_n,
		void (*next)(struct request *q), const char *what)
{
	uint64_t start_ns = ioe_now_ns(f->e);

	for (uint32_t i = 0; i < requests_n; i++) {
		requests[i].f = f;
		next(&requests[i]);
	}
	while (f->running > 0)
		ioe_poll(f->e, UINT64_MAX);
	fprintf(stderr, "%s in %.1f s\n", what, (double)(ioe_now_ns(f->e) - start_ns) / 1e9);
}

static void fill(struct fill *f, uint32_t volumes_n)
{
	enum { CREATES = 64 };
	struct request *requests = calloc(CREATES, sizeof(requests[0]));

	if (!requests)
		exit(1);
	f->volumes_n = volumes_n;
	f->first_ones = true;
	run(f, requests, DEPTH, alloc_next, "first chunks");
	f->first_ones = false;
	f->next = 0;
	run(f, requests, DEPTH, alloc_next, "all chunks");
	run(f, requests, CREATES, create_next, "volumes");
	free(requests);
}

static uint32_t number(int argc, char **argv, int at, uint32_t fallback)
{
	return argc > at ? (uint32_t)strtoul(argv[at], NULL, 10) : fallback;
}

int main(int argc, char **argv)
{
	bool is_fill = argc >= 4 && argc <= 5 && !strcmp(argv[1], "fill");
	bool is_lookup = argc >= 5 && argc <= 6 && !strcmp(argv[1], "lookup");
	struct fill f = {0};

	if (!is_fill && !is_lookup) {
		fprintf(stderr, "usage: san_scale fill DIR/meta VOLUME [VOLUMES_N]\n"
				"       san_scale lookup DIR/meta VOLUME COUNT [SEED]\n");
		return 2;
	}
	open_all(&f, argv[2]);
	open_volume(&f, argv[3]);
	if (is_fill)
		fill(&f, number(argc, argv, 4, 0));
	else
		look_up(&f, number(argc, argv, 4, 1), number(argc, argv, 5, 1));
	close_volume(&f);
	close_all(&f);
	return 0;
}
