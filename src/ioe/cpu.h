/* SPDX-License-Identifier: Apache-2.0 */
/* cpu.h - what this process has cost so far. */
#ifndef STRATA_IOE_CPU_H
#define STRATA_IOE_CPU_H

#include <stdint.h>

/* CPU time of all threads of the process, user and system, in nanoseconds. For reports, never for logic (a simulation shares its process). */
uint64_t cpu_process_ns(void);

#endif
