/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/rand.h"

#include <string.h>

#include "src/base/bytes.h"

static uint64_t splitmix64(uint64_t *x)
{
	uint64_t z = (*x += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

void rand_seed(struct rand *r, uint64_t seed)
{
	for (size_t i = 0; i < ARRAY_LEN(r->s); i++)
		r->s[i] = splitmix64(&seed);
}

void rand_fill(struct rand *r, void *buf, size_t len_bytes)
{
	uint8_t *p = buf;

	while (len_bytes > 0) {
		struct le64 x = to_le64(rand_u64(r));
		size_t n = len_bytes < sizeof(x) ? len_bytes : sizeof(x);

		memcpy(p, &x, n);
		p += n;
		len_bytes -= n;
	}
}
