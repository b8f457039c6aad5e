/* SPDX-License-Identifier: Apache-2.0 */
#include "metadata/san/place.h"

#include <errno.h>

#include "src/base/hash.h"

#define GOLDEN 0x9e3779b97f4a7c15ULL /* 2^64 / golden ratio */

uint64_t place_point(uint64_t seed, uint32_t layer, uint32_t chunk)
{
	return hash_u64(seed ^ hash_u64(layer)) + chunk * GOLDEN;
}

int place_pick(const uint32_t *free_n, uint32_t n, uint64_t point)
{
	uint64_t total = 0, at;

	for (uint32_t i = 0; i < n; i++)
		total += free_n[i];
	if (total == 0)
		return -ENOSPC;
	at = (uint64_t)(((unsigned __int128)point * total) >> 64);
	for (uint32_t i = 0;; i++) {
		if (at < free_n[i])
			return (int)i;
		at -= free_n[i];
	}
}
