/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/volume/fixed_pool.h"

#include <errno.h>

#include "src/base/check.h"
#include "src/base/math.h"
#include "src/base/mem.h"

int fixed_pool_init(struct fixed_pool *p, uint32_t items_n, size_t item_bytes, size_t align_bytes)
{
	uint64_t len_bytes;

	check(item_bytes >= sizeof(struct fixed_pool_item) && is_pow2(align_bytes));
	item_bytes = round_up(item_bytes, align_bytes);
	if (!mul_ok(items_n, item_bytes, &len_bytes))
		return -ENOMEM;
	*p = (struct fixed_pool){.items_n = items_n, .item_bytes = item_bytes};
	p->memory = mem_alloc_aligned(align_bytes, len_bytes);
	return p->memory ? 0 : -ENOMEM;
}

void fixed_pool_free(struct fixed_pool *p)
{
	check(p->out_n == 0);
	mem_free(p->memory);
	*p = (struct fixed_pool){0};
}
