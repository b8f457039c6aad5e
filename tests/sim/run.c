/* SPDX-License-Identifier: Apache-2.0 */
/* run.c - the story of one seed.
 *
 *   make the cluster -> work while things break -> mend everything -> progress -> quiet -> read everything
 *     -> wait for the garbage -> compare map and slots -> close everything (-> power off, start again, read everything)
 *
 * Safety is checked all the time, liveness from the moment on when nothing breaks any more. */
#include "tests/sim/run.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "src/base/hash.h"
#include "src/base/log.h"
#include "src/base/math.h"
#include "src/base/mem.h"
#include "tests/sim/client.h"
#include "tests/sim/faults.h"
#include "tests/sim/operator.h"

enum { PROGRESS_OPS = 5, READ_SECTORS = 512 };
#define RUN_NS_MAX	(1200 * SEC) /* the broken part takes no longer */
#define RUN_EVENTS_MAX	3000000
#define PROGRESS_NS_MAX (300 * SEC)
#define GARBAGE_NS_MAX	(120 * SEC)

/* ---- work ------------------------------------------------------------------------------------------------------------- */

static uint32_t faults_n(const struct world *w)
{
	uint32_t n = 0;

	for (enum fault k = 0; k < FAULTS_N; k++)
		n += w->result->faults[k];
	return n;
}

static void work(struct world *w)
{
	uint64_t end_ns = world_now(w) + RUN_NS_MAX;

	w->working = true;
	clients_start(w);
	faults_begin(w);
	while ((w->ops < w->s.ops_n || faults_n(w) == 0) && world_now(w) < end_ns &&
	       sim_events(w->sim) < RUN_EVENTS_MAX) {
		faults_step(w);
		operator_step(w, true);
		world_event(w);
	}
}

/* ---- progress --------------------------------------------------------------------------------------------------------- */

struct progress {
	uint64_t done[VOLUMES_MAX];
};

static bool add_done(struct user *c, void *arg)
{
	struct progress *p = arg;

	p->done[c->v->n] += c->done;
	return true;
}

static bool has_progressed(struct world *w, const struct progress *before)
{
	struct progress now = {0};

	for (uint32_t k = 1; k <= w->s.nodes_n; k++)
		if (w->nodes[k].state != PROC_UP || !w->nodes[k].ready)
			return false;
	if (!world_metad_serves(w) || !operator_is_idle(w))
		return false;
	clients_each(w, add_done, &now);
	for (uint32_t v = 0; v < w->s.volumes_n; v++)
		if (now.done[v] < before->done[v] + PROGRESS_OPS)
			return false;
	return true;
}

static void progress(struct world *w)
{
	uint64_t end_ns;
	struct progress before = {0};

	faults_heal(w);
	clients_each(w, add_done, &before);
	end_ns = world_now(w) + PROGRESS_NS_MAX;
	while (!has_progressed(w, &before)) {
		if (world_now(w) > end_ns)
			world_fail(
			    w,
			    "no progress: nothing breaks any more since %" PRIu64
			    " s, and a process is not ready, or a volume's clients do not get on",
			    PROGRESS_NS_MAX / SEC);
		faults_step(w);
		operator_step(w, false);
		world_event(w);
	}
}

static bool is_quiet(struct user *c, void *arg)
{
	(void)arg;
	return c->in_flight == 0 && list_empty(&c->zombies);
}

static void quiet(struct world *w)
{
	w->working = false;
	world_until(w, clients_each(w, is_quiet, NULL), PROGRESS_NS_MAX);
}

/* ---- reading everything ------------------------------------------------------------------------------------------------ */

struct find {
	struct world_volume *v;
	struct user *found;
};

static bool find_ready(struct user *c, void *arg)
{
	struct find *f = arg;

	if (c->v == f->v && user_is_ready(c))
		f->found = c;
	return !f->found;
}

static struct user *user_of(struct world *w, struct world_volume *v)
{
	struct find f = {v, NULL};

	world_until(w, (clients_each(w, find_ready, &f), f.found), PROGRESS_NS_MAX);
	return f.found;
}

/* From there on, in whole blocks: without larger gaps. */
static uint64_t touched(const struct ledger *h, uint64_t at)
{
	uint64_t n = 8, next;

	while (n < READ_SECTORS && ledger_next(h, at + n, &next) && next < at + n + 8)
		n += 8;
	return n;
}

/* All that anybody ever wrote. */
static void read_volume(struct world *w, struct world_volume *v)
{
	uint64_t size = ledger_sectors(v->ledger), at = 0;

	while (ledger_next(v->ledger, at, &at)) {
		struct user *c = user_of(w, v);
		uint64_t n, before = w->ops;

		at = round_down(at, 8);
		n = MIN(touched(v->ledger, at), size - at);
		/* a damaged block must not hide its neighbours */
		if (ledger_is_damaged(v->ledger, at, n))
			n = MIN((uint64_t)8, size - at);
		user_submit(c, NBD_CMD_READ, 0, at, n);
		world_until(w, w->ops > before || !user_is_ready(c), PROGRESS_NS_MAX);
		if (w->ops > before)
			at += n;
	}
}

static void read_everything(struct world *w)
{
	for (uint32_t v = 0; v < w->s.volumes_n; v++)
		read_volume(w, &w->volumes[v]);
	world_say(w, "everything was read");
}

/* ---- the end ----------------------------------------------------------------------------------------------------------- */

static bool garbage_is_gone(struct world *w)
{
	struct san_pool_space space;

	san_pool_space(w->metad->san, 1, &space);
	return space.freeing_n == 0;
}

static void garbage(struct world *w)
{
	world_run_for(
	    w, 15 * SEC); /* run-ahead that nobody used is returned, emptied slots are reclaimed */
	world_until(w, garbage_is_gone(w), GARBAGE_NS_MAX);
	world_run_for(w, 100 * MS);
	check_slots(w);
}

static bool all_down(const struct world *w)
{
	for (uint32_t k = 1; k <= w->s.nodes_n; k++)
		if (w->nodes[k].state != PROC_DOWN)
			return false;
	return true;
}

static void close_everything(struct world *w)
{
	for (uint32_t k = 1; k <= w->s.nodes_n; k++)
		if (w->nodes[k].state == PROC_UP)
			noded_stop(&w->nodes[k]);
	world_until(w, all_down(w), 60 * SEC);
	world_metad_stop(w);
	world_until(w, w->metad_state == PROC_DOWN, 60 * SEC);
}

/* What was closed in good order needs no power. */
static void reopen(struct world *w)
{
	for (uint32_t k = 1; k <= w->s.nodes_n; k++)
		sim_power_loss(w->nodes[k].m);
	world_metad_start(w);
	for (uint32_t k = 1; k <= w->s.nodes_n; k++)
		noded_start(&w->nodes[k]);
	read_everything(w);
	quiet(w);
	close_everything(w);
}

/* ---- one seed ---------------------------------------------------------------------------------------------------------- */

static void trace(void *arg, const struct sim_trace *t)
{
	(void)arg;
	fprintf(stderr, "%12.6f  %-8s %s/%s %s %" PRIu64 "+%" PRIu64 " %d\n", (double)t->at_ns / 1e9,
		t->what, t->machine, t->process, t->path, t->off, t->len, t->status);
}

static uint64_t log_clock(void *arg)
{
	return world_now(arg);
}

/* Thin volumes may promise more than there is. */
static bool is_overcommitted(const struct world *w)
{
	uint64_t promised = 0, there = (uint64_t)w->s.nodes_n * w->s.disks_n * w->s.disk_bytes;

	for (uint32_t v = 0; v < w->s.volumes_n; v++)
		promised += w->s.volume_bytes[v] +
			    (32 << 20); /* and run-ahead, and what is not reclaimed yet */
	return promised > there / 2;
}

static void run_seed(uint64_t seed, enum run_talk talk, struct result *result)
{
	struct world w = {.result = result, .verbose = talk != RUN_SILENT};
	char text[2048];

	swarm_choose(seed, &w.s);
	swarm_text(&w.s, text, sizeof(text));
	world_say(&w, "seed %" PRIu64 ": %s", seed, text);
	if (talk == RUN_SILENT)
		log_set_level(LOG_ERROR + 1);
	world_make(&w);
	if (talk == RUN_TRACE)
		sim_trace_set(w.sim, trace, NULL);
	if (talk != RUN_SILENT)
		log_set_clock(log_clock, &w);
	w.disk_full = is_overcommitted(&w);
	work(&w);
	progress(&w);
	quiet(&w);
	read_everything(&w);
	garbage(&w);
	close_everything(&w);
	if (w.s.reopen)
		reopen(&w);
	result->ops = w.ops;
	result->errors = w.errors;
	result->events = sim_events(w.sim);
	result->virtual_ns = world_now(&w);
	result->hash = hash_u64(w.hash ^ sim_trace_hash(w.sim));
	result->ok = true;
}

/* Of processor time: however loaded the machine is, the verdict is the same. */
static void cpu_limit(unsigned secs)
{
	struct itimerval t = {.it_value.tv_sec = secs};

	setitimer(ITIMER_PROF, &t, NULL);
}

pid_t run_begin(uint64_t seed, enum run_talk talk, unsigned secs, struct result *result)
{
	pid_t pid;

	memset(result, 0, sizeof(*result));
	fflush(stdout);
	pid = fork();
	check(pid >= 0);
	if (pid > 0)
		return pid;
	cpu_limit(secs);
	mem_tune();
	json_object_seed(1);
	run_seed(seed, talk, result);
	_exit(0);
}
