/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io-path/volume/bench.h"
#include "src/base/log.h"
#include "src/base/mem.h"
#include "tests/lib/volume_fixture.h"

static bool is_done;

static void done(struct volume_bench *b)
{
	(void)b;
	assert_false(is_done);
	is_done = true;
}

static int run(struct volume_fixture *fx, struct volume_bench *b)
{
	is_done = false;
	b->ioe = fx->sim.e;
	b->handle = fx->handles[0];
	b->done = done;
	volume_bench_start(b);
	assert_false(is_done);
	sim_run_until(fx->sim.w, &is_done);
	return b->status;
}

static void fixture(struct volume_fixture *fx)
{
	volume_fixture_init(fx, &(struct volume_fixture_config){.seed = 1});
	vf_open(fx, "vol");
}

static void loads_are_what_was_asked_for(void **state)
{
	struct volume_bench seq = {.depth = 4,
				   .io_bytes = 65536,
				   .duration_ns = 100000000,
				   .off = 1 << 20},
			    mix = {.depth = 16,
				   .io_bytes = 4096,
				   .duration_ns = 100000000,
				   .random = true,
				   .read_percent = 70,
				   .flush_every = 10,
				   .fua = true,
				   .seed = 3};
	struct volume_fixture fx;

	(void)state;
	fixture(&fx);
	assert_int_equal(run(&fx, &seq), 0);
	assert_int_equal(seq.result.reads, 0);
	assert_true(seq.result.writes > 100);
	assert_int_equal(seq.result.bytes, seq.result.writes * 65536);
	assert_in_range(seq.result.elapsed_ns, 100000000, 110000000);
	assert_int_equal(seq.result.write_ns.count, seq.result.writes);
	assert_true(volume_bench_iops(&seq.result) > 1000);
	assert_true(volume_bench_mib_per_s(&seq.result) > 60);
	assert_int_equal(vf_do(&fx, fx.handles[0], VOLUME_READ, 0, 1 << 20, 0), 0);
	assert_null(mock_meta_entry(fx.vol, 0, 0)); /* before `off` nothing was touched */

	assert_int_equal(run(&fx, &mix), 0);
	assert_in_range(mix.result.reads * 100 / (mix.result.reads + mix.result.writes), 60, 80);
	assert_in_range(mix.result.flushes, mix.result.writes / 10 - 2, mix.result.writes / 10 + 1);
	assert_true(hist_permille(&mix.result.read_ns, 990) >=
		    hist_permille(&mix.result.read_ns, 500));
	volume_fixture_free(&fx);
}

static void once_means_every_position_once(void **state)
{
	struct volume_bench b = {.depth = 32,
				 .io_bytes = 4096,
				 .duration_ns = 1000000000000,
				 .random = true,
				 .once = true,
				 .stride_bytes = 1 << 20},
			    few = {.depth = 32,
				   .io_bytes = 4096,
				   .duration_ns = 1000000000000,
				   .once = true,
				   .len = 3 * 4096};
	struct volume_fixture fx;
	struct volume_geometry g;

	(void)state;
	fixture(&fx);
	volume_geometry(fx.handles[0], &g);
	assert_int_equal(run(&fx, &b), 0);
	assert_int_equal(b.result.writes, g.size_bytes >> 20);
	for (uint32_t chunk = 0; chunk < g.size_bytes >> 20; chunk++)
		assert_non_null(mock_meta_entry(fx.vol, 0, chunk));
	assert_int_equal(run(&fx, &few), 0);
	assert_int_equal(few.result.writes, 3);
	volume_fixture_free(&fx);
}

static void nonsense_is_refused(void **state)
{
	struct volume_bench bad[] = {
	    {.depth = 0, .io_bytes = 4096},
	    {.depth = 5000, .io_bytes = 4096},
	    {.depth = 1, .io_bytes = 100},
	    {.depth = 1, .io_bytes = 64 << 20},
	    {.depth = 1024, .io_bytes = 32 << 20},
	    {.depth = 1, .io_bytes = 4096, .read_percent = 101},
	    {.depth = 1, .io_bytes = 4096, .off = 8 << 20},
	    {.depth = 1, .io_bytes = 4096, .off = 4096, .len = 8 << 20},
	    {.depth = 1, .io_bytes = 4096, .len = 512},
	    {.depth = 1, .io_bytes = 4096, .stride_bytes = 512},
	    {.depth = 1, .io_bytes = 4096, .stride_bytes = 4097},
	};
	struct volume_fixture fx;

	(void)state;
	fixture(&fx);
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		assert_int_equal(run(&fx, &bad[i]), -EINVAL);
		assert_true(bad[i].errmsg[0]);
	}
	for (int i = 0; i < 2; i++) {
		struct volume_bench b = {.depth = 1, .io_bytes = 4096, .duration_ns = 1};

		mem_fail_at(i, 1);
		assert_int_equal(run(&fx, &b), -ENOMEM);
		mem_fail_at(UINT64_MAX, 0);
	}
	volume_fixture_free(&fx);
}

static void the_first_error_ends_it(void **state)
{
	struct volume_bench b = {.depth = 8,
				 .io_bytes = 4096,
				 .duration_ns = 1000000000,
				 .random = true};
	struct volume_fixture fx;

	(void)state;
	fixture(&fx);
	fx.store.fail_permille = 10;
	assert_int_equal(run(&fx, &b), -EIO);
	assert_true(b.result.elapsed_ns < 1000000000);
	assert_true(b.errmsg[0]);
	fx.store.fail_permille = 0;
	volume_fixture_free(&fx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(loads_are_what_was_asked_for),
	    cmocka_unit_test(once_means_every_position_once),
	    cmocka_unit_test(nonsense_is_refused),
	    cmocka_unit_test(the_first_error_ends_it),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
