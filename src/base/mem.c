/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/mem.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static _Atomic uint64_t live;
static _Atomic uint64_t fail_after = UINT64_MAX;
static _Atomic uint64_t fail_times;

static const struct mem_watch *watcher;

static void *counted(void *p)
{
	if (!p)
		return NULL;
	atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
	if (__builtin_expect(watcher != NULL, 0))
		watcher->made(p);
	return p;
}

static void uncounted(void *p)
{
	if (!p)
		return;
	atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
	if (__builtin_expect(watcher != NULL, 0))
		watcher->freed(p);
}

static int must_fail(void)
{
	if (__builtin_expect(atomic_load_explicit(&fail_after, memory_order_relaxed) == UINT64_MAX,
			     1))
		return 0;
	if (atomic_load(&fail_after) > 0) {
		atomic_fetch_sub(&fail_after, 1);
		return 0;
	}
	if (atomic_load(&fail_times) == 0)
		return 0;
	if (atomic_load(&fail_times) != UINT64_MAX)
		atomic_fetch_sub(&fail_times, 1);
	return 1;
}

void mem_tune(void)
{
	enum { KEEP_BYTES = 4 << 20, MAP_BYTES = 32 << 20, ARENAS = 2 };

	mallopt(M_TRIM_THRESHOLD, KEEP_BYTES);
	mallopt(M_MMAP_THRESHOLD, MAP_BYTES);
	mallopt(M_ARENA_MAX, ARENAS); /* one for the loop, one for what runs beside it */
}

void mem_trim(void)
{
	malloc_trim(0);
}

void mem_watch(const struct mem_watch *watch)
{
	watcher = watch;
}

void mem_fail_at(uint64_t after, uint64_t times)
{
	atomic_store(&fail_times, times);
	atomic_store(&fail_after, after);
}

uint64_t mem_live(void)
{
	return atomic_load(&live);
}

void *mem_alloc(size_t len_bytes)
{
	return must_fail() ? NULL : counted(malloc(len_bytes ? len_bytes : 1));
}

void *mem_zalloc(size_t len_bytes)
{
	return mem_zalloc_array(1, len_bytes);
}

/* A product that wraps is a size that is not to be had, also under a sanitizer, which would end the program over it. */
static bool is_too_much(size_t n, size_t elem_bytes)
{
	return n && elem_bytes > PTRDIFF_MAX / n;
}

void *mem_zalloc_array(size_t n, size_t elem_bytes)
{
	if (must_fail() || is_too_much(n, elem_bytes))
		return NULL;
	return counted(calloc(n ? n : 1, elem_bytes ? elem_bytes : 1));
}

void *mem_realloc(void *p, size_t n, size_t elem_bytes)
{
	void *q;

	if (must_fail() || is_too_much(n, elem_bytes))
		return NULL;
	uncounted(p); /* before the host may give its address away */
	q = reallocarray(p, n ? n : 1, elem_bytes ? elem_bytes : 1);
	counted(q ? q : p);
	return q;
}

void *mem_alloc_aligned(size_t align_bytes, size_t len_bytes)
{
	void *p;

	if (must_fail() || posix_memalign(&p, align_bytes, len_bytes ? len_bytes : align_bytes))
		return NULL;
	return counted(p);
}

char *mem_strdup(const char *s)
{
	return must_fail() ? NULL : counted(strdup(s));
}

char *mem_strndup(const char *s, size_t len_bytes)
{
	return must_fail() ? NULL : counted(strndup(s, len_bytes));
}

char *mem_printf(const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	if (must_fail())
		return NULL;
	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	return n < 0 ? NULL : counted(s);
}

void mem_free(void *p)
{
	uncounted(p);
	free(p);
}

/* A kernel that refuses leaves the pages where they are. */
void mem_discard(void *p, size_t len_bytes)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)p,
		  first = (at + page - 1) / page * page, end = (at + len_bytes) / page * page;

	if (first < end)
		madvise((char *)p + (first - at), end - first, MADV_DONTNEED);
}
