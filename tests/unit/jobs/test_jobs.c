/* SPDX-License-Identifier: Apache-2.0 */
/* Long work: it runs by itself, survives restarts, can be cancelled, and says how it went. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "metadata/jobs/jobs.h"
#include "src/base/mem.h"
#include "src/base/rand.h"
#include "tests/lib/san_fixture.h"
#include "tests/lib/san_raw.h"

/* A kind of this test's: it ends when it is told to. */
enum { KIND = SAN_JOB_OTHER + 1, RUNS_MAX = 2048 };

struct fixture {
	struct san_fixture fx;
	struct jobs *jobs;
	struct job_run *runs[RUNS_MAX];
	uint32_t runs_n, stops_n;
	int end_at_start; /* not 0: the job ends at once, with this */
	bool stop_ends;
};

static void own_start(struct job_run *run, void *arg)
{
	struct fixture *f = arg;

	f->runs[f->runs_n++] = run;
	if (f->end_at_start)
		job_end(run, f->end_at_start, "at once");
}

static void own_stop(struct job_run *run, void *arg)
{
	struct fixture *f = arg;

	f->stops_n++;
	if (f->stop_ends)
		job_end(run, -ECANCELED, NULL);
}

static void wake(void *arg, uint32_t job)
{
	jobs_wake(((struct fixture *)arg)->jobs, job);
}

static void open_jobs(struct fixture *f)
{
	struct job_kind own = {
	    .kind = KIND, .name = "own", .start = own_start, .stop = own_stop, .arg = f};

	f->runs_n = 0;
	assert_int_equal(jobs_new(f->fx.st.sim.e, f->fx.san, &own, 1, &f->jobs), 0);
	f->fx.on_job = wake;
	f->fx.on_job_arg = f;
	for (uint32_t i = 0; i < f->fx.told_jobs_n; i++)
		jobs_wake(f->jobs, f->fx.told_jobs[i]);
	jobs_hold(f->jobs, false);
}

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

static void close_jobs(struct fixture *f)
{
	bool closed = false;

	jobs_close(f->jobs, set_flag, &closed);
	assert_false(closed);
	sim_run_until(f->fx.st.sim.w, &closed);
	f->jobs = NULL;
	f->fx.on_job = NULL;
}

static void settle(struct fixture *f)
{
	sim_sleep(&f->fx.st.sim, 50 * 1000 * 1000);
}

static void crash(struct fixture *f)
{
	char errmsg[ERRMSG_LEN];

	store_fixture_kill(&f->fx.st);
	jobs_abandon(f->jobs);
	san_abandon(f->fx.san);
	store_fixture_restart(&f->fx.st);
	f->fx.on_job = NULL;
	san_raw_check(&f->fx.st);
	assert_int_equal(san_fixture_open(&f->fx, errmsg), 0);
	settle(f); /* told_jobs is filled */
	open_jobs(f);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	san_fixture_init(&f->fx, STORE_MEM, 1);
	open_jobs(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	f->stop_ends = true;
	close_jobs(f);
	san_fixture_free(&f->fx);
	free(f);
	assert_int_equal(mem_live(), 0);
	return 0;
}

static struct san_job get(struct fixture *f, uint32_t id)
{
	static struct san_job_get op;
	struct san_fixture *fx = &f->fx;

	op = (struct san_job_get){.id = id};
	assert_int_equal(SAN_CALL(fx, san_job_get, &op), 0);
	return op.job;
}

static uint32_t create(struct fixture *f, uint32_t kind)
{
	struct san_job_create op = {.kind = kind, .args = {1, 2, 3, 4}, .subject = "it"};
	struct san_fixture *fx = &f->fx;

	assert_int_equal(SAN_CALL(fx, san_job_create, &op), 0);
	return op.job;
}

static int cancel(struct fixture *f, uint32_t id)
{
	struct san_job_cancel op = {.job = id, .req.done = san_waited};

	jobs_cancel(f->jobs, &op);
	return san_wait(&f->fx, &op.req);
}

/* ---- built-in kinds --------------------------------------------------------------------------------------------------------- */

static uint32_t start_delete(struct fixture *f, const char *name, uint32_t chunks_n)
{
	struct san_fixture *fx = &f->fx;
	struct san_volume v = fx_volume(fx, name, chunks_n);
	uint64_t epoch = fx_open(fx, name);
	struct san_volume_close cl = {.volume = v.id, .epoch = epoch};
	struct san_volume_delete del = {.name = name};

	for (uint32_t i = 0; i < chunks_n; i += 500)
		assert_int_equal(fx_alloc(fx, &v, epoch, i, 500, NULL), 0);
	assert_int_equal(SAN_CALL(fx, san_volume_close, &cl), 0);
	assert_int_equal(SAN_CALL(fx, san_volume_delete, &del), 0);
	return del.job;
}

static void test_volume_delete(void **state)
{
	struct fixture *f = *state;
	device_no dev = fx_device(&f->fx, 20000);
	uint32_t id = start_delete(f, "a", 5000);
	struct san_job job = get(f, id);
	uint64_t last = 0;
	uint32_t seen = 0;

	assert_string_equal(jobs_kind_name(f->jobs, job.kind), "volume_delete");
	while (get(f, id).state != SAN_JOB_DONE) {
		job = get(f, id);
		assert_true(job.done_n >= last);
		assert_int_equal(job.total_n, 5000);
		seen += job.done_n > last;
		last = job.done_n;
	}
	assert_true(seen > 3);
	job = get(f, id);
	assert_int_equal(job.done_n, 5000);
	assert_true(job.ended_ns >= job.created_ns);
	assert_int_equal(cancel(f, id), -EINVAL);
	assert_int_equal(fx_free_all(&f->fx, dev), 5000);
	fx_check(&f->fx);
}

static void test_volume_delete_survives_crashes(void **state)
{
	struct fixture *f = *state;
	device_no dev = fx_device(&f->fx, 20000);
	uint32_t id = start_delete(f, "a", 5000), crashes = 0;
	struct rand rnd;

	rand_seed(&rnd, 3);
	assert_int_equal(cancel(f, id), -EOPNOTSUPP);
	while (get(f, id).state < SAN_JOB_DONE) {
		for (uint64_t n = rand_below(&rnd, 40); n > 0; n--)
			sim_step(f->fx.st.sim.w);
		crash(f);
		crashes++;
	}
	assert_true(crashes > 3);
	assert_int_equal(get(f, id).state, SAN_JOB_DONE);
	assert_int_equal(get(f, id).done_n, 5000);
	assert_int_equal(fx_free_all(&f->fx, dev), 5000);
	fx_check(&f->fx);
}

static void test_device_lost(void **state)
{
	struct fixture *f = *state;
	struct san_fixture *fx = &f->fx;
	device_no dev = fx_device(fx, 3000);
	struct san_volume v = fx_volume(fx, "a", 2000);
	uint64_t epoch = fx_open(fx, "a");
	struct san_device_lose lose = {.dev = dev};
	struct san_device d;

	assert_int_equal(fx_alloc(fx, &v, epoch, 0, 1000, NULL), 0);
	assert_int_equal(SAN_CALL(fx, san_device_lose, &lose), 0);
	while (get(f, lose.job).state < SAN_JOB_DONE)
		;
	assert_int_equal(get(f, lose.job).state, SAN_JOB_DONE);
	assert_int_equal(san_device_get(fx->san, dev, &d), -ENOENT);
	assert_int_equal(fx_lookup(fx, &v, 999).kind, MAP_LOST);
	fx_check(fx);
}

/* The batch that makes the job also has what its first step is to find, and somebody wakes the runner before it is durable. */
static void test_job_waits_for_its_batch(void **state)
{
	struct fixture *f = *state;
	struct san_fixture *fx = &f->fx;
	device_no dev = fx_device(fx, 1000);
	static struct san_map_item items[100];
	struct san_volume v = fx_volume(fx, "a", 1000);
	uint32_t chunks[100];
	struct san_alloc alloc = {.req.done = san_waited,
				  .volume = v.id,
				  .epoch = fx_open(fx, "a"),
				  .layer = v.head,
				  .chunks = chunks,
				  .n = 100,
				  .items = items};
	struct san_volume_close close = {.req.done = san_waited,
					 .volume = v.id,
					 .epoch = alloc.epoch};
	struct san_volume_delete del = {.req.done = san_waited, .name = "a"};
	struct san_device d;

	for (uint32_t i = 0; i < 100; i++)
		chunks[i] = 3 * i;
	san_alloc(fx->san, &alloc);
	san_volume_close(fx->san, &close);
	san_volume_delete(fx->san, &del);
	while (del.req.commit == 0) {
		jobs_wake(f->jobs, 0);
		sim_step(fx->st.sim.w);
	}
	assert_int_equal(alloc.req.commit, del.req.commit);
	assert_int_equal(del.req.status, 0);
	settle(f);
	assert_int_equal(get(f, del.job).state, SAN_JOB_DONE);
	assert_int_equal(get(f, del.job).done_n, 100);
	assert_int_equal(san_device_get(fx->san, dev, &d), 0);
	assert_int_equal(d.used_n, 0);
	assert_int_equal(d.freeing_n, 100);
	fx_check(fx);
}

/* A lost device that is being looked at does not leave; the job waits, and does not commit all the while. */
static void test_device_lost_in_use(void **state)
{
	struct fixture *f = *state;
	struct san_fixture *fx = &f->fx;
	device_no dev = fx_device(fx, 3000);
	struct san_device_lose lose = {.dev = dev};
	struct san_job_step step = {.req.done = san_waited};
	struct san_check chk = {.req.done = san_waited};
	struct san_stats before, after;

	jobs_hold(f->jobs, true);
	assert_int_equal(SAN_CALL(fx, san_device_lose, &lose), 0);
	san_check(fx->san, &chk);
	sim_step(fx->st.sim.w);
	do {
		san_stats(fx->san, &before);
		step = (struct san_job_step){.req.done = san_waited, .job = lose.job};
		san_device_lose_step(fx->san, &step);
		while (step.req.commit == 0)
			sim_step(fx->st.sim.w);
		san_stats(fx->san, &after);
	} while (!step.wait && !step.finished);
	assert_true(step.wait);
	assert_int_equal(after.commits, before.commits);
	if (chk.req.commit == 0)
		san_wait(fx, &chk.req);
	assert_int_equal(chk.problems_n, 0);
	/* the same by the runner: after a pause it goes on */
	san_check(fx->san, &chk);
	jobs_hold(f->jobs, false);
	san_wait(fx, &chk.req);
	sim_sleep(&fx->st.sim, 3000000000);
	assert_int_equal(get(f, lose.job).state, SAN_JOB_DONE);
	fx_check(fx);
}

static void test_check(void **state)
{
	struct fixture *f = *state;
	struct san_volume v = fx_volume(&f->fx, "a", 1000);
	uint64_t epoch = fx_open(&f->fx, "a");
	uint32_t id;
	struct san_job job;

	fx_device(&f->fx, 500);
	assert_int_equal(fx_alloc(&f->fx, &v, epoch, 0, 300, NULL), 0);
	id = create(f, SAN_JOB_CHECK);
	settle(f);
	job = get(f, id);
	assert_int_equal(job.state, SAN_JOB_DONE);
	assert_string_equal(job.text,
			    "{\"problems\":[],\"problems_n\":0,\"chunks\":300,\"slots\":500}");
}

static void test_checks_take_turns(void **state)
{
	struct fixture *f = *state;
	uint32_t a, b, own;

	jobs_hold(f->jobs, true);
	a = create(f, SAN_JOB_CHECK);
	b = create(f, SAN_JOB_CHECK);
	own = create(f, KIND);
	jobs_hold(f->jobs, false);
	settle(f);
	assert_int_equal(get(f, a).state, SAN_JOB_DONE);
	assert_int_equal(get(f, b).state, SAN_JOB_DONE);
	assert_true(get(f, b).ended_ns > get(f, a).ended_ns);
	assert_int_equal(get(f, own).state, SAN_JOB_RUNNING); /* others do not wait for them */
}

/* ---- held ------------------------------------------------------------------------------------------------------------------- */

static void test_held(void **state)
{
	struct fixture *f = *state;
	uint32_t id, cancelled;

	jobs_hold(f->jobs, true);
	id = create(f, KIND);
	cancelled = create(f, KIND);
	assert_int_equal(cancel(f, cancelled), 0);
	settle(f);
	assert_int_equal(f->runs_n, 0);
	assert_int_equal(get(f, id).state, SAN_JOB_QUEUED);
	assert_int_equal(get(f, cancelled).state, SAN_JOB_QUEUED);
	jobs_hold(f->jobs, false);
	settle(f);
	assert_int_equal(f->runs_n, 1);
	assert_int_equal(get(f, id).state, SAN_JOB_RUNNING);
	assert_int_equal(get(f, cancelled).state, SAN_JOB_CANCELLED);
	/* it noticed before it was asked that the server is ending */
	jobs_hold(f->jobs, true);
	job_end(f->runs[0], -ECANCELED, NULL);
	settle(f);
	assert_int_equal(get(f, id).state, SAN_JOB_RUNNING);
	jobs_hold(f->jobs, false);
	settle(f);
	assert_int_equal(f->runs_n, 2);
	/* and without that it is what it says */
	job_end(f->runs[1], -ECANCELED, NULL);
	settle(f);
	assert_int_equal(get(f, id).state, SAN_JOB_CANCELLED);
}

/* The runner's turn comes while there is no memory at all. */
static void let_go_without_memory(struct fixture *f, uint32_t id)
{
	mem_fail_at(0, UINT64_MAX);
	jobs_hold(f->jobs, false);
	get(f, id);
	mem_fail_at(UINT64_MAX, 0);
}

static void test_no_memory_to_start(void **state)
{
	struct fixture *f = *state;

	jobs_hold(f->jobs, true);
	let_go_without_memory(f, create(f, KIND));
	settle(f);
	assert_int_equal(f->runs_n, 0);
	sim_sleep(&f->fx.st.sim, 2000000000);
	assert_int_equal(f->runs_n, 1);
	/* closed while it waits to try again */
	jobs_hold(f->jobs, true);
	let_go_without_memory(f, create(f, KIND));
	assert_int_equal(f->runs_n, 1);
}

static void test_not_too_many(void **state)
{
	struct fixture *f = *state;
	struct san_fixture *fx = &f->fx;
	struct san_job_create op = {.kind = KIND, .subject = "one too many"};

	jobs_hold(f->jobs, true);
	for (uint32_t i = 0; i < SAN_JOBS_UNFINISHED_MAX; i++)
		create(f, KIND);
	assert_int_equal(SAN_CALL(fx, san_job_create, &op), -EAGAIN);
	assert_int_equal(cancel(f, 7), 0);
	jobs_hold(f->jobs, false);
	settle(f);
	assert_int_equal(SAN_CALL(fx, san_job_create, &op), 0);
	assert_int_equal(SAN_CALL(fx, san_job_create, &op), -EAGAIN);
}

/* ---- kinds of others --------------------------------------------------------------------------------------------------------- */

static void test_own_kind(void **state)
{
	struct fixture *f = *state;
	uint32_t id = create(f, KIND);
	struct san_job job;

	settle(f);
	assert_int_equal(f->runs_n, 1);
	assert_int_equal(f->runs[0]->job.id, id);
	assert_int_equal(f->runs[0]->job.args[3], 4);
	assert_string_equal(f->runs[0]->job.subject, "it");
	assert_int_equal(get(f, id).state, SAN_JOB_RUNNING);
	sim_sleep(&f->fx.st.sim, 1000 * 1000 * 1000);
	job_progress(f->runs[0], 5, 10);
	job_progress(f->runs[0], 6, 10);
	settle(f);
	assert_int_equal(get(f, id).done_n, 5); /* not more often than makes sense */
	job_end(f->runs[0], 0, "{\"x\":1}");
	settle(f);
	job = get(f, id);
	assert_int_equal(job.state, SAN_JOB_DONE);
	assert_int_equal(job.done_n, 6);
	assert_int_equal(job.total_n, 10);
	assert_string_equal(job.text, "{\"x\":1}");
	assert_string_equal(jobs_kind_name(f->jobs, KIND), "own");
	assert_string_equal(jobs_kind_name(f->jobs, 9999), "unknown");
}

static void test_failure(void **state)
{
	struct fixture *f = *state;
	struct san_fixture *fx = &f->fx;
	struct san_event events[4];
	struct san_event_list list = {.events = events, .events_max = 4};
	uint32_t id, unknown;

	f->end_at_start = -ENOSPC;
	id = create(f, KIND);
	unknown = create(f, 1234);
	settle(f);
	assert_int_equal(get(f, id).state, SAN_JOB_FAILED);
	assert_int_equal(get(f, id).error, -ENOSPC);
	assert_string_equal(get(f, id).text, "at once");
	assert_int_equal(get(f, unknown).state, SAN_JOB_FAILED);
	assert_int_equal(get(f, unknown).error, -E_VERSION);
	assert_int_equal(SAN_CALL(fx, san_event_list, &list), 0);
	assert_int_equal(list.events_n, 2);
	assert_string_equal(events[0].code, "job_failed");
	assert_non_null(strstr(events[0].text, "at once"));
	crash(f);
	assert_int_equal(get(f, id).error, -ENOSPC);
	f->end_at_start = 0;
}

static void test_limit_and_order(void **state)
{
	struct fixture *f = *state;
	uint32_t ids[7];

	for (int i = 0; i < 7; i++)
		ids[i] = create(f, KIND);
	settle(f);
	assert_int_equal(f->runs_n, JOBS_RUNNING_MAX);
	assert_int_equal(get(f, ids[4]).state, SAN_JOB_QUEUED);
	job_end(f->runs[2], 0, NULL);
	settle(f);
	assert_int_equal(f->runs_n, 5);
	assert_int_equal(f->runs[4]->job.id, ids[4]);
	/* one that waits is cancelled: it does not run at all */
	assert_int_equal(cancel(f, ids[5]), 0);
	settle(f);
	assert_int_equal(get(f, ids[5]).state, SAN_JOB_CANCELLED);
	assert_int_equal(f->runs_n, 5);
	/* after a crash all that had not ended begin again, the oldest first */
	crash(f);
	settle(f);
	assert_int_equal(f->runs_n, JOBS_RUNNING_MAX);
	assert_int_equal(f->runs[0]->job.id, ids[0]);
	assert_int_equal(f->runs[2]->job.id, ids[3]);
}

static void test_cancel(void **state)
{
	struct fixture *f = *state;
	uint32_t a = create(f, KIND), b;

	settle(f);
	assert_int_equal(cancel(f, a), 0);
	assert_int_equal(f->stops_n, 1);
	assert_true(f->runs[0]->job.cancel);
	assert_int_equal(cancel(f, a), 0); /* it knows */
	assert_int_equal(f->stops_n, 1);
	assert_int_equal(get(f, a).state, SAN_JOB_RUNNING);
	job_end(f->runs[0], -ECANCELED, NULL);
	settle(f);
	assert_int_equal(get(f, a).state, SAN_JOB_CANCELLED);
	assert_int_equal(cancel(f, a), -EINVAL);
	assert_int_equal(cancel(f, 99), -ENOENT);
	/* one that ends from inside stop */
	f->stop_ends = true;
	b = create(f, KIND);
	settle(f);
	assert_int_equal(cancel(f, b), 0);
	settle(f);
	assert_int_equal(get(f, b).state, SAN_JOB_CANCELLED);
	f->stop_ends = false;
}

static void test_shutdown(void **state)
{
	struct fixture *f = *state;
	uint32_t own = create(f, KIND), del;

	fx_device(&f->fx, 5000);
	del = start_delete(f, "a", 3000);
	f->stop_ends = true;
	close_jobs(f);
	assert_int_equal(get(f, own).state, SAN_JOB_RUNNING);
	assert_int_equal(get(f, del).state, SAN_JOB_RUNNING);
	assert_true(get(f, del).done_n < 3000);
	san_fixture_reopen(&f->fx);
	settle(f);
	f->stop_ends = false;
	open_jobs(f);
	settle(f);
	assert_int_equal(f->runs_n, 1);
	assert_int_equal(get(f, del).state, SAN_JOB_DONE);
	/* and it may be closed while something ends */
	job_end(f->runs[0], 0, NULL);
}

/* The SAN goes out of service: no spinning, and the shutdown works. */
static void test_out_of_service(void **state)
{
	struct fixture *f = *state;
	uint32_t id = create(f, KIND);
	struct san_fixture other = {.st = f->fx.st};
	char errmsg[ERRMSG_LEN];
	bool closed = false;

	(void)id;
	settle(f);
	assert_int_equal(san_fixture_open(&other, errmsg), 0);
	fx_volume(&other, "a", 1);
	job_end(f->runs[0], -EIO, "broken");
	settle(f);
	assert_int_equal(f->fx.failed, -E_GUARD);
	assert_int_equal(f->runs_n, 1);
	san_close(other.san, set_flag, &closed);
	sim_run_until(f->fx.st.sim.w, &closed);
}

static void test_kept(void **state)
{
	struct fixture *f = *state;
	struct san_fixture *fx = &f->fx;
	static struct san_job jobs[SAN_LIST_MAX];
	struct san_job_list list = {.jobs = jobs, .jobs_max = SAN_LIST_MAX};

	f->end_at_start = -EIO;
	for (uint32_t i = 0; i < SAN_JOBS_KEPT + 100; i++)
		create(f, KIND);
	settle(f);
	f->end_at_start = 0;
	f->runs_n = 0;
	list.after = 1;
	assert_int_equal(SAN_CALL(fx, san_job_list, &list), 0);
	assert_true(jobs[0].id > 50 && jobs[0].id < 110);
	assert_int_equal(list.jobs_n, SAN_LIST_MAX);
	crash(f);
	/* who restarts does not begin to count anew */
	f->end_at_start = -EIO;
	for (uint32_t i = 0; i < 20; i++)
		create(f, KIND);
	settle(f);
	f->end_at_start = 0;
	f->runs_n = 0;
	list.after = 0;
	list.jobs_max = SAN_LIST_MAX;
	assert_int_equal(SAN_CALL(fx, san_job_list, &list), 0);
	assert_true(jobs[0].id > 100);
	/* a page begins where the one before ended */
	list.after = jobs[10].id;
	assert_int_equal(SAN_CALL(fx, san_job_list, &list), 0);
	assert_int_equal(jobs[0].id, list.after + 1);
	list.after = 0;
	list.unfinished_only = true;
	assert_int_equal(SAN_CALL(fx, san_job_list, &list), 0);
	assert_int_equal(list.jobs_n, 0);
	list.unfinished_only = false;
	list.jobs_max = 10;
	assert_int_equal(SAN_CALL(fx, san_job_list, &list), 0);
	assert_int_equal(list.jobs_n, 10);
	assert_true(list.more);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(test_volume_delete),
	    T(test_volume_delete_survives_crashes),
	    T(test_device_lost),
	    T(test_job_waits_for_its_batch),
	    T(test_device_lost_in_use),
	    T(test_check),
	    T(test_checks_take_turns),
	    T(test_held),
	    T(test_no_memory_to_start),
	    T(test_not_too_many),
	    T(test_own_kind),
	    T(test_failure),
	    T(test_limit_and_order),
	    T(test_cancel),
	    T(test_shutdown),
	    T(test_out_of_service),
	    T(test_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
