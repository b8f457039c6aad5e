/* SPDX-License-Identifier: Apache-2.0 */
#include "src/ioe/sim_mem.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/check.h"

void *sim_alloc(size_t len_bytes)
{
	void *p = malloc(len_bytes); /* check-calls: allow */

	check(p);
	return p;
}

void *sim_zalloc(size_t len_bytes)
{
	void *p = calloc(1, len_bytes); /* check-calls: allow */

	check(p);
	return p;
}

void *sim_grow(void *p, size_t n, size_t elem_bytes)
{
	p = reallocarray(p, n, elem_bytes); /* check-calls: allow */
	check(p);
	return p;
}

void *sim_zalloc_pages(size_t len_bytes)
{
	size_t room = (len_bytes + 4095) / 4096 * 4096;
	void *p = aligned_alloc(4096, room); /* check-calls: allow */

	check(p);
	return memset(p, 0, room);
}

char *sim_strdup(const char *s)
{
	size_t len = strlen(s) + 1;

	return memcpy(sim_alloc(len), s, len);
}

void sim_free(void *p)
{
	free(p);
}
