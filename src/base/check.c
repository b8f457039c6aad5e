/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/check.h"

#include <stdio.h>
#include <stdlib.h>

void check_failed(const char *cond, const char *file, int line, const char *func)
{
	fprintf(stderr, "BUG: check failed: %s (%s:%d, %s)\n", cond, file, line, func);
	abort();
}
