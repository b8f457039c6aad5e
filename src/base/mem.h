/* SPDX-License-Identifier: Apache-2.0 */
/* mem.h - the only way to allocate, so that tests can make the Nth allocation fail.
 *
 * Every function returns NULL when memory is short; callers handle it (-ENOMEM). The data path allocates at start only. */
#ifndef STRATA_BASE_MEM_H
#define STRATA_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

void *mem_alloc(size_t len_bytes);		     /* contents undefined */
void *mem_zalloc(size_t len_bytes);		     /* zeroed */
void *mem_zalloc_array(size_t n, size_t elem_bytes); /* zeroed; NULL on overflow too */
void *mem_realloc(void *p, size_t n,
		  size_t elem_bytes); /* like reallocarray: p stays valid on failure */
void *mem_alloc_aligned(size_t align_bytes,
			size_t len_bytes); /* align: a power of two; contents undefined */
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t len_bytes);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void mem_free(void *p); /* NULL is fine */

/* Part of an allocation whose contents do not matter any more: the whole pages in it go back to the system, and come back zeroed or as they
 * were when they are touched again. */
void mem_discard(void *p, size_t len_bytes);

/* For daemons, once, before there are threads: what is freed is kept for the next allocation, up to a few MiB, instead of going back to the kernel
 * each time. Without it the C library maps and unmaps each buffer of 128 KiB and more, and a page touched for the first time costs more than
 * most of what is done with it. */
void mem_tune(void);
/* Gives back to the kernel what was freed and is in whole pages of memory, also amid what is in use. It may take milliseconds. */
void mem_trim(void);

/* Tests: let `after` allocations succeed, then fail `times` of them (UINT64_MAX: all). mem_fail_at(UINT64_MAX, 0) ends it. */
void mem_fail_at(uint64_t after, uint64_t times);
/* Allocations made and not freed; for leak checks in tests that have no sanitizer. */
uint64_t mem_live(void);
/* Tests, one thread: hears of every allocation made and freed, so that the memory of a simulated process can be given back when it is
 * killed. NULL: nobody listens. */
struct mem_watch {
	void (*made)(void *p);
	void (*freed)(void *p);
};
void mem_watch(const struct mem_watch *watch);

#endif
