/* SPDX-License-Identifier: Apache-2.0 */
/* skip.h - the only way to leave a test out: with a reason. tools/dev/check prints it and counts the test as skipped, not as passed.
 *
 * After cmocka.h. Like cmocka's skip() it does not return: what the test holds is given back before. */
#ifndef STRATA_TESTS_LIB_SKIP_H
#define STRATA_TESTS_LIB_SKIP_H

#define skip_because(...)                               \
	do {                                            \
		print_message("skipped: " __VA_ARGS__); \
		print_message("\n");                    \
		skip(); /* check-calls: allow */        \
	} while (0)

#endif
