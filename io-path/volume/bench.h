/* SPDX-License-Identifier: Apache-2.0 */
/* bench.h - a load generator on the block-device contract, in the loop: what a volume does without any wire protocol.
 *
 * Keeps `depth` requests in flight for `duration_ns`, then lets them finish. Random requests may meet a position twice, or with `once` go
 * through a permutation of all. The first error ends the run early; what was measured until then is reported with it. Writes destroy what the
 * range holds. */
#ifndef STRATA_IO_PATH_VOLUME_BENCH_H
#define STRATA_IO_PATH_VOLUME_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "io-path/volume/volume.h"
#include "src/base/hist.h"
#include "src/base/rand.h"
#include "src/ioe/ioe.h"

enum { VOLUME_BENCH_DEPTH_MAX = 1024, VOLUME_BENCH_MEMORY_MAX = 1 << 30 };

struct volume_bench_result {
	uint64_t reads, writes, flushes; /* that ended well */
	uint64_t bytes;
	uint64_t elapsed_ns;			 /* from the first submit to the last answer */
	struct hist read_ns, write_ns, flush_ns; /* latencies */
};

struct volume_bench_slot;

struct volume_bench {
	/* given */
	struct ioe *ioe;
	struct volume_handle *handle;
	bool random; /* else sequential, from the beginning again at the end */
	bool fua;
	bool once;	       /* each position once; it ends early when all were there */
	uint32_t read_percent; /* the others write */
	uint32_t depth;
	uint32_t io_bytes;    /* multiple of the sector size, at most io_bytes_max */
	uint32_t flush_every; /* writes between two flushes; 0: none */
	/* the range in bytes; len 0: to the end. Requests lie at multiples of stride_bytes (0: io_bytes) from off */
	uint64_t stride_bytes;
	uint64_t off, len;
	uint64_t duration_ns;
	uint64_t seed; /* 0: a random one */
	void (*done)(struct volume_bench *b);
	/* results */
	int status; /* -EINVAL (parameters), -ENOMEM, or the first request's that failed */
	char errmsg[ERRMSG_LEN];
	struct volume_bench_result result;
	/* private */
	struct volume_bench_slot *slots;
	uint8_t *memory;
	struct rand rand;
	struct ioe_req begin;
	uint64_t positions_n, next;
	struct { /* of `once` */
		uint64_t key;
		uint32_t half_bits;
	} permutation;
	uint64_t start_ns, writes_since_flush;
	uint32_t running;
};
void volume_bench_start(struct volume_bench *b);
void volume_bench_stop(
    struct volume_bench *b); /* no further requests; done follows when those under way are answered */

/* For reports. */
uint64_t volume_bench_iops(const struct volume_bench_result *r);
uint64_t volume_bench_mib_per_s(const struct volume_bench_result *r);

#endif
