/* SPDX-License-Identifier: Apache-2.0 */
#include "src/ioe/cpu.h"

#include <time.h>

uint64_t cpu_process_ns(void)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts))
		return 0;
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}
