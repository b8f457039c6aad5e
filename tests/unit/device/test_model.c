/* SPDX-License-Identifier: Apache-2.0 */
/* Random requests, crashes and faults against a device on a simulated disk, judged by a model that knows only the contract.
 *
 *   STRATA_SEED=n     this seed alone, with its log
 *   STRATA_SEEDS=n    that many seeds instead of the few of every check
 *   STRATA_SEED_FIRST=n  from this one on
 *   STRATA_DUMP=file  the disk of a run that failed */
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "src/base/log.h"
#include "tests/lib/device_workload.h"
#include "tests/lib/env.h"

enum { SEEDS_OF_A_CHECK = 100 };

static struct {
	uint64_t runs, opens, kills, losses, clean_closes, lapped, checkpoints, torn, unresolved,
	    bad, reads, refused, faults;
} seen;

static void dump(const struct device_workload *wl)
{
	const char *path = getenv("STRATA_DUMP");
	FILE *f = path ? fopen(path, "w") : NULL;
	static uint8_t page[BLOCK_BYTES];

	for (uint64_t off = 0; f && off < wl->p.world.size_bytes; off += sizeof(page)) {
		if (sim_disk_peek(wl->dw.m, "disk", off, page, sizeof(page)))
			break;
		fwrite(page, sizeof(page), 1, f);
	}
	if (f)
		fclose(f);
}

static void note(const struct device_workload *wl)
{
	seen.runs++;
	seen.opens += wl->dw.opens;
	seen.kills += wl->dw.kills;
	seen.losses += wl->dw.losses;
	seen.clean_closes += wl->dw.clean_closes;
	seen.lapped += wl->dw.laps > 0;
	seen.checkpoints += wl->dw.checkpoints;
	seen.torn += wl->dw.model->torn_seen;
	seen.unresolved += wl->dw.unresolved > 0;
	seen.bad += wl->dw.model->bad_seen;
	seen.reads += wl->dw.model->reads;
	seen.refused += wl->dw.model->refused;
	seen.faults += wl->dw.faults_fired;
}

/* A check that fails aborts; what led to it is worth as much as the check. */
static const struct device_workload *running;
static uint64_t running_seed;

static void on_abort(int sig)
{
	if (running) {
		workload_print_log(running);
		fprintf(stderr, "seed %" PRIu64 ", step %u: aborted\n", running_seed, running->step);
	}
	signal(sig, SIG_DFL);
}

static bool run_seed(uint64_t seed, bool verbose)
{
	struct device_workload *wl = calloc(1, sizeof(*wl));
	struct workload_profile p;
	const char *error;
	bool ok;

	assert_non_null(wl);
	wl->verbose = verbose;
	running = wl;
	running_seed = seed;
	workload_profile_random(seed, &p);
	error = workload_run(wl, &p);
	ok = error[0] == '\0';
	if (!ok) {
		dump(wl);
		workload_print_log(wl);
		fprintf(stderr, "seed %" PRIu64 ", step %u of %u: %s\n", seed, wl->step, p.steps,
			error);
		fprintf(stderr,
			"again: STRATA_SEED=%" PRIu64 " build/plain/tests/unit/device/test_model\n",
			seed);
	}
	note(wl);
	running = NULL;
	workload_free(wl);
	return ok;
}

static void nothing_illegal_is_ever_answered(void **state)
{
	uint64_t only = env_number("STRATA_SEED", UINT64_MAX);
	uint64_t first = env_number("STRATA_SEED_FIRST", 1);
	uint64_t n = env_number("STRATA_SEEDS", SEEDS_OF_A_CHECK);
	uint64_t failed = 0;

	(void)state;
	log_set_level(LOG_ERROR + 1);
	signal(SIGABRT, on_abort);
	if (only != UINT64_MAX) {
		assert_true(run_seed(only, true));
		return;
	}
	for (uint64_t seed = first; seed < first + n; seed++)
		failed += !run_seed(seed, false);
	printf("%" PRIu64 " runs, %" PRIu64 " failed: %" PRIu64 " opens, %" PRIu64
	       " kills, %" PRIu64 " power losses, %" PRIu64 " clean closes, %" PRIu64
	       " times round the journal, %" PRIu64 " checkpoints, %" PRIu64
	       " torn blocks, %" PRIu64 " runs with unresolved ones, %" PRIu64 " bad, %" PRIu64
	       " faults, %" PRIu64 " looks, %" PRIu64 " refusals\n",
	       seen.runs, failed, seen.opens, seen.kills, seen.losses, seen.clean_closes,
	       seen.lapped, seen.checkpoints, seen.torn, seen.unresolved, seen.bad, seen.faults,
	       seen.reads, seen.refused);
	assert_int_equal(failed, 0);
	if (n < SEEDS_OF_A_CHECK)
		return;
	/* a run that meets none of this proves nothing */
	assert_true(seen.kills && seen.losses && seen.clean_closes && seen.lapped);
	assert_true(seen.checkpoints && seen.torn && seen.unresolved && seen.faults && seen.bad);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(nothing_illegal_is_ever_answered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
