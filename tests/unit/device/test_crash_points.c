/* SPDX-License-Identifier: Apache-2.0 */
/* A short workload is run again and again, each time up to one event further, and then the process is killed or power is lost, with several
 * choices of what the disk kept, dropped or tore. After each the device must come back to a state that the model calls legal, and work.
 *
 *   STRATA_CRASH_POINTS=all    every event, instead of a sample that fits into a check
 *   STRATA_CRASH_POINT=script:event:choice   this one alone, with its log */
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

enum { CHOICES = 6, RUNS_OF_A_CHECK = 120 };

/* Each script is a small mix that goes for one rule of the format. */
struct script {
	const char *name;
	struct workload_profile p;
};

#define SMALL_WORLD                                  \
	.world = {.size_bytes = (uint64_t)128 << 20, \
		  .chunk_shift = CHUNK_SHIFT_FLASH,  \
		  .cache_bytes = 16 * BLOCK_BYTES}

static const struct script scripts[] = {
    {"a log: the same blocks, flushed and written again",
     {.steps = 40,
      .depth = 3,
      .slots_n = 1,
      .blocks_n = 4,
      .run_blocks = 2,
      .write = 70,
      .flush = 30,
      .volumes_n = 1,
      .ring = true,
      .patience_events = 12,
      SMALL_WORLD}},
    {"stable writes between volatile ones",
     {.steps = 40,
      .depth = 4,
      .slots_n = 2,
      .blocks_n = 6,
      .run_blocks = 3,
      .write = 80,
      .flush = 5,
      .clear = 15,
      .stable_percent = 40,
      .volumes_n = 1,
      .ring = true,
      .patience_events = 10,
      SMALL_WORLD}},
    {"slots come and go",
     {.steps = 50,
      .depth = 4,
      .slots_n = 3,
      .blocks_n = 4,
      .run_blocks = 2,
      .write = 50,
      .read = 10,
      .flush = 10,
      .free = 25,
      .volumes_n = 2,
      .ring = true,
      .patience_events = 15,
      SMALL_WORLD}},
    {"holes, zeros and data in turn",
     {.steps = 40,
      .depth = 3,
      .slots_n = 1,
      .blocks_n = 4,
      .run_blocks = 2,
      .write = 45,
      .clear = 40,
      .flush = 15,
      .stable_percent = 20,
      .volumes_n = 1,
      .ring = true,
      .patience_events = 12,
      SMALL_WORLD}},
    {"owners and layers",
     {.steps = 30,
      .depth = 4,
      .slots_n = 3,
      .blocks_n = 4,
      .run_blocks = 2,
      .write = 50,
      .flush = 5,
      .epoch = 25,
      .layer = 20,
      .snapshots = true,
      .volumes_n = 2,
      .ring = true,
      .patience_events = 15,
      SMALL_WORLD}},
    {"without a restart ring",
     {.steps = 30,
      .depth = 4,
      .slots_n = 2,
      .blocks_n = 4,
      .run_blocks = 2,
      .write = 70,
      .clear = 10,
      .free = 10,
      .flush = 10,
      .volumes_n = 1,
      .patience_events = 15,
      SMALL_WORLD}},
};

/* The whole of it: open, work, close, open again. False: stopped on the way, or failed. */
static bool play(struct device_workload *wl)
{
	struct device_world *dw = &wl->dw;

	if (!world_open(dw, wl->ring))
		return false;
	for (wl->step = 0; wl->step < wl->p.steps; wl->step++) {
		workload_step(wl);
		if (world_failed(dw) || dw->stopped)
			return false;
	}
	workload_drain(wl);
	if (world_failed(dw) || dw->stopped || !world_close(dw))
		return false;
	workload_crashed(wl);
	return world_open(dw, wl->ring);
}

/* After the crash: twice, because recovery must be repeatable, with another crash in between. */
static void come_back(struct device_workload *wl, uint32_t choice)
{
	struct device_world *dw = &wl->dw;

	if (!world_open(dw, wl->ring))
		return;
	workload_recover(wl, choice % 3 ? 100 : 0);
	if (world_failed(dw))
		return;
	choice % 2 ? world_power_loss(dw) : world_kill(dw);
	workload_crashed(wl);
	if (!world_open(dw, wl->ring))
		return;
	workload_recover(wl, 100);
	for (int i = 0; i < 10 && !world_failed(dw); i++)
		workload_step(wl);
	workload_drain(wl);
	if (world_failed(dw) || !world_close(dw))
		return;
	workload_crashed(wl);
	if (world_open(dw, wl->ring)) {
		workload_recover(wl, 100);
		world_close(dw);
	}
}

struct point {
	size_t script;
	uint64_t event; /* 0: never */
	uint32_t choice;
};

/* The number of the last event, or 0 after a failure. */
static uint64_t run(const struct point *at, bool verbose)
{
	struct device_workload *wl = calloc(1, sizeof(*wl));
	struct device_world *dw = &wl->dw;
	struct workload_profile p = scripts[at->script].p;
	uint64_t events;

	assert_non_null(wl);
	p.world.seed = 1 + at->script;
	wl->verbose = verbose;
	workload_start(wl, &p);
	dw->stop_at_event = at->event ? sim_events(dw->w) + at->event : 0;
	events = sim_events(dw->w);
	play(wl);
	events = sim_events(dw->w) - events;
	dw->stop_at_event = 0;
	dw->stopped = false;
	if (!world_failed(dw) && at->event) {
		for (uint32_t i = 0; i < at->choice; i++)
			sim_rand(dw->w);
		workload_log(wl, "%s at event %llu", at->choice % 2 ? "kill" : "power loss",
			     (unsigned long long)at->event);
		at->choice % 2 ? world_kill(dw) : world_power_loss(dw);
		workload_crashed(wl);
		come_back(wl, at->choice / 2);
	}
	if (world_failed(dw)) {
		workload_print_log(wl);
		fprintf(stderr, "%s: %s\n", scripts[at->script].name, dw->model->error);
		fprintf(stderr, "again: STRATA_CRASH_POINT=%zu:%llu:%u\n", at->script,
			(unsigned long long)at->event, at->choice);
		events = 0;
	}
	workload_free(wl);
	return events;
}

static void crash_anywhere(void **state)
{
	size_t script = (size_t)(uintptr_t)*state;
	const char *only = getenv("STRATA_CRASH_POINT"), *all = getenv("STRATA_CRASH_POINTS");
	struct point at = {.script = script};
	uint64_t events, step, failed = 0, runs = 0;

	log_set_level(LOG_ERROR + 1);
	if (only) {
		unsigned long long event;

		assert_int_equal(sscanf(only, "%zu:%llu:%u", &at.script, &event, &at.choice), 3);
		at.event = event;
		if (at.script == script)
			assert_true(run(&at, true) > 0);
		return;
	}
	events = run(&at, false);
	assert_true(events > 0);
	step = all && strcmp(all, "all") == 0
		   ? 1
		   : MAX(events * CHOICES * ARRAY_LEN(scripts) / RUNS_OF_A_CHECK, (uint64_t)1);
	for (uint64_t i = 0; i < events * CHOICES; i += step, runs++) {
		at.event = 1 + i / CHOICES;
		at.choice = (uint32_t)(i % CHOICES);
		failed += run(&at, false) == 0;
	}
	printf("%s: %llu events, %llu crashes\n", scripts[script].name, (unsigned long long)events,
	       (unsigned long long)runs);
	assert_int_equal(failed, 0);
}

int main(void)
{
	struct CMUnitTest tests[ARRAY_LEN(scripts)];

	for (size_t i = 0; i < ARRAY_LEN(scripts); i++)
		tests[i] = (struct CMUnitTest){
		    .name = scripts[i].name,
		    .test_func = crash_anywhere,
		    .initial_state = (void *)(uintptr_t)i,
		};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
