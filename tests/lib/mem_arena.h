/* SPDX-License-Identifier: Apache-2.0 */
/* mem_arena.h - gives back the memory of a simulated process that was killed.
 *
 * While an arena is in use everything taken from src/base/mem.h is noted in it; mem_arena_drop() frees what was not freed by then. The
 * simulated world does not allocate through mem.h, so what is noted is the program's alone.
 *
 *   struct mem_arena a;
 *   mem_arena_init(&a);
 *   mem_arena_use(&a);          the process starts
 *   ... sim_kill(e);            not in its on_kill callback: the engine gives back its own handles after that
 *   mem_arena_drop(&a);
 *   mem_arena_use(NULL);
 *
 * With several processes, switch arenas with them. Memory may be freed while another arena is in use, or none. */
#ifndef STRATA_TESTS_LIB_MEM_ARENA_H
#define STRATA_TESTS_LIB_MEM_ARENA_H

#include <stddef.h>

#include "src/base/list.h"

struct mem_arena {
	struct list notes;
	size_t live; /* allocations not yet freed */
};

void mem_arena_init(struct mem_arena *a);
struct mem_arena *mem_arena_use(struct mem_arena *a); /* NULL: none. The one in use before */
void mem_arena_drop(struct mem_arena *a);

#endif
