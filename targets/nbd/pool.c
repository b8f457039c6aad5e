/* SPDX-License-Identifier: Apache-2.0 */
#include "targets/nbd/pool.h"

#include <string.h>

#include "src/base/check.h"
#include "src/base/err.h"
#include "src/base/mem.h"

enum { WORD_BITS = 64 };

int pool_init(struct pool *p, uint64_t len_bytes)
{
	uint32_t n = (uint32_t)(len_bytes / BLOCK_BYTES);

	check(n > 0);
	*p = (struct pool){.pages_n = n, .words_n = (n + WORD_BITS - 1) / WORD_BITS};
	p->used = mem_zalloc_array(p->words_n, sizeof(*p->used));
	p->mem = mem_alloc_aligned(BLOCK_BYTES, (size_t)n * BLOCK_BYTES);
	if (!p->used || !p->mem) {
		pool_free(p);
		return -ENOMEM;
	}
	if (n % WORD_BITS)
		p->used[p->words_n - 1] = ~0ULL << n % WORD_BITS;
	return 0;
}

void pool_free(struct pool *p)
{
	check(p->pages_used == 0);
	mem_free(p->mem);
	mem_free(p->used);
	*p = (struct pool){0};
}

static void mark(struct pool *p, uint32_t page, uint32_t n, bool used)
{
	while (n > 0) {
		uint32_t bit = page % WORD_BITS, here = WORD_BITS - bit < n ? WORD_BITS - bit : n;
		uint64_t mask = (here == WORD_BITS ? ~0ULL : (1ULL << here) - 1) << bit;
		uint64_t *word = &p->used[page / WORD_BITS];

		check((*word & mask) == (used ? 0 : mask));
		*word ^= mask;
		page += here;
		n -= here;
	}
}

/* First page at or above `page` whose bit is `used`; words_n * WORD_BITS if there is none. */
static uint32_t find(const struct pool *p, uint32_t page, bool used)
{
	uint32_t w = page / WORD_BITS;
	uint64_t skip = (1ULL << page % WORD_BITS) - 1; /* bits below `page` */

	for (; w < p->words_n; w++, skip = 0) {
		uint64_t bits = (used ? p->used[w] : ~p->used[w]) & ~skip;

		if (bits)
			return w * WORD_BITS + (uint32_t)__builtin_ctzll(bits);
	}
	return p->words_n * WORD_BITS;
}

uint8_t *pool_take(struct pool *p, uint32_t n)
{
	uint32_t page, end, limit = p->words_n * WORD_BITS;

	if (n > p->pages_n - p->pages_used)
		return NULL;
	page = find(p, p->first * WORD_BITS, false);
	p->first = page / WORD_BITS;
	if (n == 1) {
		if (page >= limit)
			return NULL;
		p->used[page / WORD_BITS] |= 1ULL << page % WORD_BITS;
	} else {
		for (;; page = find(p, end, false)) {
			if (page >= limit)
				return NULL;
			end = find(p, page, true);
			if (end - page >= n)
				break;
		}
		mark(p, page, n, true);
	}
	p->pages_used += n;
	if (page + n > p->pages_touched)
		p->pages_touched = page + n;
	return p->mem + (size_t)page * BLOCK_BYTES;
}

void pool_give(struct pool *p, const uint8_t *mem, uint32_t n)
{
	uint32_t page = (uint32_t)((size_t)(mem - p->mem) / BLOCK_BYTES);

	check(mem >= p->mem && page + n <= p->pages_n && p->pages_used >= n);
	if (n == 1) {
		check(p->used[page / WORD_BITS] & 1ULL << page % WORD_BITS);
		p->used[page / WORD_BITS] &= ~(1ULL << page % WORD_BITS);
	} else {
		mark(p, page, n, false);
	}
	p->pages_used -= n;
	if (page / WORD_BITS < p->first)
		p->first = page / WORD_BITS;
}

void pool_trim(struct pool *p)
{
	uint8_t *mem = mem_alloc_aligned(BLOCK_BYTES, (size_t)p->pages_n * BLOCK_BYTES);

	check(p->pages_used == 0);
	if (!mem)
		return;
	mem_free(p->mem);
	p->mem = mem;
	p->pages_touched = 0;
}
