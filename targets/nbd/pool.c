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
	*p = (struct pool){.pages_n = n,
			   .pages_allowed = n,
			   .words_n = (n + WORD_BITS - 1) / WORD_BITS};
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

/* First page of the lowest run of n; at or above pages_n if there is none. */
static uint32_t find_run(struct pool *p, uint32_t n)
{
	uint32_t page = find(p, p->first * WORD_BITS, false), end, limit = p->words_n * WORD_BITS;

	p->first = page / WORD_BITS;
	if (n == 1)
		return page;
	for (; page < limit; page = find(p, end, false)) {
		end = find(p, page, true);
		if (end - page >= n)
			break;
	}
	return page;
}

uint8_t *pool_take(struct pool *p, uint32_t n)
{
	uint32_t page;

	if (n > p->pages_n - p->pages_used)
		return NULL;
	page = find_run(p, n);
	if (page + n > p->pages_allowed)
		return NULL;
	if (n == 1)
		p->used[page / WORD_BITS] |= 1ULL << page % WORD_BITS;
	else
		mark(p, page, n, true);
	p->pages_used += n;
	if (page + n > p->pages_touched)
		p->pages_touched = page + n;
	return p->mem + (size_t)page * BLOCK_BYTES;
}

uint32_t pool_needs(struct pool *p, uint32_t n)
{
	uint32_t end = n > p->pages_n - p->pages_used ? UINT32_MAX : find_run(p, n) + n;

	return end > p->pages_n ? 0 : end;
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

uint32_t pool_high(const struct pool *p)
{
	for (uint32_t w = (p->pages_touched + WORD_BITS - 1) / WORD_BITS; w-- > 0;) {
		uint64_t bits = p->used[w];

		if (w == p->words_n - 1 && p->pages_n % WORD_BITS)
			bits &= (1ULL << p->pages_n % WORD_BITS) - 1; /* past the end all are set */
		if (bits)
			return (w + 1) * WORD_BITS - (uint32_t)__builtin_clzll(bits);
	}
	return 0;
}

void pool_shrink(struct pool *p, uint32_t keep)
{
	check(keep >= pool_high(p));
	if (p->pages_touched <= keep)
		return;
	mem_discard(p->mem + (size_t)keep * BLOCK_BYTES,
		    (size_t)(p->pages_touched - keep) * BLOCK_BYTES);
	p->pages_touched = keep;
}
