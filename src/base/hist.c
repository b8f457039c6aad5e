/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/hist.h"

#include "src/base/check.h"
#include "src/base/math.h"

void hist_merge(struct hist *to, const struct hist *from)
{
	to->count += from->count;
	to->sum += from->sum;
	to->max = MAX(to->max, from->max);
	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		to->buckets[i] += from->buckets[i];
}

uint64_t hist_bucket_top(unsigned bucket)
{
	unsigned shift;

	check(bucket < HIST_BUCKETS);
	if (bucket == HIST_BUCKETS - 1)
		return UINT64_MAX;
	if (bucket < (2U << HIST_SUB_SHIFT))
		return bucket;
	shift = (bucket >> HIST_SUB_SHIFT) - 1;
	return ((uint64_t)(bucket - (shift << HIST_SUB_SHIFT) + 1) << shift) - 1;
}

uint64_t hist_permille(const struct hist *h, uint32_t permille)
{
	uint64_t seen = 0, want;

	check(permille <= 1000);
	if (h->count == 0)
		return 0;
	/* in two steps, so that count * permille cannot overflow */
	want = h->count / 1000 * permille + div_up(h->count % 1000 * permille, 1000);
	want = MAX(want, 1ULL);
	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		seen += h->buckets[i];
		if (seen >= want)
			return MIN(hist_bucket_top(i), h->max);
	}
	return h->max;
}
