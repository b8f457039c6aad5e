/* SPDX-License-Identifier: Apache-2.0 */
/* rand.h - a pseudo-random generator for simulation and tests: xoshiro256**, seeded through splitmix64 (Blackman, Vigna).
 *
 * The same seed gives the same sequence on every machine. Not for keys, nonces or uuids of a running program: those come from the
 * engine (ioe_random). */
#ifndef STRATA_BASE_RAND_H
#define STRATA_BASE_RAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/check.h"

struct rand {
	uint64_t s[4];
};

void rand_seed(struct rand *r, uint64_t seed); /* comes first; every seed is fine, 0 too */
void rand_fill(struct rand *r, void *buf, size_t len_bytes);

static inline uint64_t rand_u64(struct rand *r)
{
	uint64_t *s = r->s;
	uint64_t x = s[1] * 5;
	uint64_t t = s[1] << 17;

	x = ((x << 7) | (x >> 57)) * 9;
	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = (s[3] << 45) | (s[3] >> 19);
	return x;
}

/* In [0, n), n > 0. Multiply and shift: the bias is below n / 2^64. */
static inline uint64_t rand_below(struct rand *r, uint64_t n)
{
	check(n > 0);
	return (uint64_t)(((unsigned __int128)rand_u64(r) * n) >> 64);
}

/* In [min, max], both included. */
static inline uint64_t rand_between(struct rand *r, uint64_t min, uint64_t max)
{
	check(min <= max);
	return max - min == UINT64_MAX ? rand_u64(r) : min + rand_below(r, max - min + 1);
}

static inline bool rand_percent(struct rand *r, uint32_t percent)
{
	return rand_below(r, 100) < percent;
}

#endif
