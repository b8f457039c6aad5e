/* SPDX-License-Identifier: Apache-2.0 */
/* run.h - one seed. */
#ifndef STRATA_TESTS_SIM_RUN_H
#define STRATA_TESTS_SIM_RUN_H

#include <sys/types.h>

#include "tests/sim/world.h"

enum run_talk { RUN_SILENT, RUN_TELL /* what happens */, RUN_TRACE /* each event too */ };

/* Runs it in a process of its own, to be waited for; it is killed by SIGALRM after `secs` (0: never). Nothing is wrong if result->ok; else
 * result->text says what, or check() did. The result is in memory shared with the process. */
pid_t run_begin(uint64_t seed, enum run_talk talk, unsigned secs, struct result *result);

#endif
