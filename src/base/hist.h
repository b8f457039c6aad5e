/* SPDX-License-Identifier: Apache-2.0 */
/* hist.h - a histogram of 64-bit values with a bounded relative error, e.g. of latencies in nanoseconds.
 *
 * Values below 32 are exact; above, each power of two is cut into 16 equal buckets, so that a reported value is at most 1/16
 * too high. Values from HIST_VALUE_MAX on share the last bucket. Fixed size, no allocation; an all-zero struct is empty. */
#ifndef STRATA_BASE_HIST_H
#define STRATA_BASE_HIST_H

#include <stdint.h>

enum {
	HIST_SUB_SHIFT = 4,   /* buckets per power of two: 1 << 4 */
	HIST_VALUE_BITS = 40, /* up to 2^40 - 1: 18 minutes in nanoseconds */
	HIST_BUCKETS = (HIST_VALUE_BITS - HIST_SUB_SHIFT + 1) << HIST_SUB_SHIFT,
};
#define HIST_VALUE_MAX ((1ULL << HIST_VALUE_BITS) - 1)

struct hist {
	uint64_t count, sum, max;
	uint64_t buckets[HIST_BUCKETS];
};

static inline unsigned hist_bucket(uint64_t value)
{
	unsigned shift;

	if (value > HIST_VALUE_MAX)
		value = HIST_VALUE_MAX;
	if (value < (2U << HIST_SUB_SHIFT))
		return (unsigned)value;
	/* the value's highest HIST_SUB_SHIFT + 1 bits select the bucket */
	shift = 63 - (unsigned)__builtin_clzll(value) - HIST_SUB_SHIFT;
	return (shift << HIST_SUB_SHIFT) + (unsigned)(value >> shift);
}

static inline void hist_add(struct hist *h, uint64_t value)
{
	h->count++;
	h->sum += value;
	if (value > h->max)
		h->max = value;
	h->buckets[hist_bucket(value)]++;
}

void hist_merge(struct hist *to, const struct hist *from);

/* The smallest recorded bound such that at least `permille` / 1000 of the values are at or below it; never above `max`; 0 when
 * empty. */
uint64_t hist_permille(const struct hist *h, uint32_t permille);

/* The largest value that falls into a bucket; the last one's is UINT64_MAX. For exporting buckets. */
uint64_t hist_bucket_top(unsigned bucket);

#endif
