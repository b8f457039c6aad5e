/* SPDX-License-Identifier: Apache-2.0 */
/* sim_mem.h - memory of the simulated world. Private to src/ioe/sim*.
 *
 * The world is the machine room and not the program under test: its memory comes from the host past src/base/mem.h, so that a test that
 * lets the Nth allocation fail hits the program alone, and running out of it ends the test. What the program is handed (files, sockets,
 * contents of small files) comes from mem.h like on the real engines, and fails like there. */
#ifndef STRATA_IOE_SIM_MEM_H
#define STRATA_IOE_SIM_MEM_H

#include <stddef.h>

void *sim_alloc(size_t len_bytes);		      /* contents undefined; never NULL */
void *sim_zalloc(size_t len_bytes);		      /* zeroed */
void *sim_grow(void *p, size_t n, size_t elem_bytes); /* like reallocarray */
void *sim_zalloc_pages(size_t len_bytes);	      /* zeroed, starting at a page boundary */
char *sim_strdup(const char *s);
void sim_free(void *p);

#endif
