/* SPDX-License-Identifier: Apache-2.0 */
/* math.h - arithmetic that cannot wrap unnoticed, and rounding. Sizes a peer, disk or operator supplied go through add_ok/mul_ok. */
#ifndef STRATA_BASE_MATH_H
#define STRATA_BASE_MATH_H

#include <stdbool.h>
#include <stdint.h>

static inline bool add_ok(uint64_t a, uint64_t b, uint64_t *ret_sum)
{
	return !__builtin_add_overflow(a, b, ret_sum);
}

static inline bool mul_ok(uint64_t a, uint64_t b, uint64_t *ret_product)
{
	return !__builtin_mul_overflow(a, b, ret_product);
}

enum { CACHE_LINE_BYTES = 64 }; /* of the machines in mind; elsewhere only speed depends on it */

/* Is [off, off + len) inside [0, size)? */
static inline bool range_inside(uint64_t off, uint64_t len, uint64_t size)
{
	return off <= size && len <= size - off;
}

static inline uint64_t round_down(uint64_t x, uint64_t unit)
{
	return x - x % unit;
}

static inline uint64_t div_up(uint64_t x, uint64_t unit)
{
	return x / unit + (x % unit != 0);
}

static inline uint64_t round_up(uint64_t x, uint64_t unit)
{
	return div_up(x, unit) * unit;
}

static inline bool is_pow2(uint64_t x)
{
	return x != 0 && (x & (x - 1)) == 0;
}

#define MIN(a, b)                                  \
	({                                         \
		__typeof__(a) min_a_ = (a);        \
		__typeof__(b) min_b_ = (b);        \
		min_a_ < min_b_ ? min_a_ : min_b_; \
	})
#define MAX(a, b)                                  \
	({                                         \
		__typeof__(a) max_a_ = (a);        \
		__typeof__(b) max_b_ = (b);        \
		max_a_ > max_b_ ? max_a_ : max_b_; \
	})

#endif
