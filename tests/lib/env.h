/* SPDX-License-Identifier: Apache-2.0 */
/* env.h - the size of a random test, from the environment: a few cases in every check, many in a long one (CONTRIBUTING.md). */
#ifndef STRATA_TESTS_LIB_ENV_H
#define STRATA_TESTS_LIB_ENV_H

#include <stdint.h>
#include <stdlib.h>

static inline uint64_t env_number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

#endif
