/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever a device went through (test_model.c), while nobody serves it fsck finds nothing that contradicts itself.
 *
 *   STRATA_SEED=n    this seed alone, with its log      STRATA_SEEDS=n   that many      STRATA_SEED_FIRST=n   from this one on */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/log.h"
#include "src/base/math.h"
#include "tests/lib/device_workload.h"
#include "tests/lib/env.h"
#include "tools/fsck/fsck.h"

enum { SEEDS_OF_A_CHECK = 30 };

static uint64_t checks, unclean, notes, blocks;

static void on_found(void *arg, const struct fsck_finding *f)
{
	struct device_workload *wl = arg;

	workload_log(wl, "fsck: %s: %s", f->what, f->text);
	if (f->severity != FSCK_NOTE || strcmp(f->what, "layer-gone") == 0)
		model_fail(wl->dw.model, "fsck: %s: %s", f->what, f->text);
}

/* One whose record may be there. */
static bool layer_exists(void *arg, layer_id layer)
{
	struct device_workload *wl = arg;
	const struct model_layer *l = &wl->dw.model->layers[layer];

	return l->durable.layer || l->asked.layer;
}

static void check_it(struct device_workload *wl)
{
	struct device_world *dw = &wl->dw;
	struct fsck_options o = {.ring_path = wl->ring, .path = "disk", .data = true};
	char errmsg[ERRMSG_LEN];
	struct fsck_result res;
	struct ioe *e;
	int r;

	if (rand_percent(&dw->rand, 50))
		return;
	workload_log(wl, "fsck");
	e = sim_process_new(dw->m, "fsck", NULL, NULL);
	o.ioe = e;
	o.layer_exists = layer_exists;
	o.layer_arg = wl;
	o.found = on_found;
	o.found_arg = wl;
	r = fsck_device(&o, &res, errmsg);
	if (r)
		model_fail(dw->model, "fsck: %s: %s", err_name(r), errmsg);
	ioe_free(e);
	checks++;
	unclean += !res.is_clean;
	notes += res.notes;
	blocks += res.blocks_read;
}

static bool run_seed(uint64_t seed, bool verbose)
{
	struct device_workload *wl = calloc(1, sizeof(*wl));
	struct workload_profile p;
	bool ok;

	assert_non_null(wl);
	wl->verbose = verbose;
	wl->while_closed = check_it;
	workload_profile_random(seed, &p);
	p.steps = MIN(p.steps, 600u);
	p.fault_permille = 0; /* what a failed write leaves is bad, and fsck would rightly say so */
	ok = workload_run(wl, &p)[0] == '\0';
	if (!ok) {
		workload_print_log(wl);
		fprintf(stderr, "seed %" PRIu64 ", step %u: %s\n", seed, wl->step,
			wl->dw.model->error);
	}
	workload_free(wl);
	return ok;
}

static void fsck_has_nothing_to_say(void **state)
{
	uint64_t only = env_number("STRATA_SEED", UINT64_MAX);
	uint64_t first = env_number("STRATA_SEED_FIRST", 1);
	uint64_t n = env_number("STRATA_SEEDS", SEEDS_OF_A_CHECK);
	uint64_t failed = 0;

	(void)state;
	log_set_level(LOG_ERROR + 1);
	if (only != UINT64_MAX) {
		assert_true(run_seed(only, true));
		return;
	}
	for (uint64_t seed = first; seed < first + n; seed++)
		failed += !run_seed(seed, false);
	printf("%" PRIu64 " checks, %" PRIu64 " of them not clean, %" PRIu64 " notes, %" PRIu64
	       " blocks read\n",
	       checks, unclean, notes, blocks);
	assert_int_equal(failed, 0);
	if (n >= SEEDS_OF_A_CHECK)
		assert_true(checks > n && unclean > 0 && blocks > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(fsck_has_nothing_to_say),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
