/* SPDX-License-Identifier: Apache-2.0 */
/* Hostile cases by number. STRATA_HOSTILE_CASES=N runs N of them (a million takes minutes), STRATA_HOSTILE_FIRST=K begins with case K. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "src/base/log.h"
#include "tests/lib/env.h"
#include "tests/lib/nbd/nbd_hostile.h"

enum { CASES_PER_WORLD = 1000 };

static void hostile_cases(void **state)
{
	static uint8_t bytes[NBD_HOSTILE_BYTES_MAX];
	uint64_t first = env_number("STRATA_HOSTILE_FIRST", 0),
		 end = first + env_number("STRATA_HOSTILE_CASES", 5000);
	uint64_t answers = 0;

	(void)state;
	while (first < end) {
		struct nbd_hostile h;

		/* a crash names the world; the last case is in the core, and by halving FIRST and CASES */
		nbd_hostile_init(&h, first);
		for (int i = 0; i < CASES_PER_WORLD && first < end; i++, first++) {
			enum nbd_hostile_prefix prefix;
			size_t cut, len = nbd_hostile_generate(first, bytes, &prefix, &cut);

			nbd_hostile_feed(&h, prefix, bytes, len, cut);
		}
		answers += h.answers;
		nbd_hostile_free(&h);
	}
	assert_true(answers > 0);
	print_message("%llu well-formed answers\n", (unsigned long long)answers);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(hostile_cases)};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
