/* SPDX-License-Identifier: Apache-2.0 */
/* The same seed gives the same run, event for event, whatever the memory of the process looks like. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "tests/sim/run.h"

enum { SEEDS = 3 };

static void run(uint64_t seed, struct result *r)
{
	pid_t pid = run_begin(seed, RUN_SILENT, 120, r);
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!r->ok)
		fail_msg("seed %llu: %s", (unsigned long long)seed, r->text);
}

static void the_same_seed_is_the_same_run(void **state)
{
	struct result *r =
	    mmap(NULL, 2 * sizeof(*r), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	void *others[SEEDS + 1] = {0};
	uint64_t last = 0;

	(void)state;
	assert_true(r != MAP_FAILED);
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		run(seed, &r[0]);
		others[seed] = malloc(12345 * seed); /* so that nothing lies where it lay before */
		assert_non_null(others[seed]);
		run(seed, &r[1]);
		assert_true(r[0].hash == r[1].hash);
		assert_true(r[0].hash != last);
		assert_true(r[0].events == r[1].events && r[0].ops == r[1].ops);
		last = r[0].hash;
	}
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		free(others[seed]);
	munmap(r, 2 * sizeof(*r));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(the_same_seed_is_the_same_run)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
