/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/faults.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/math.h"
#include "tests/sim/client.h"

static struct {
	uint64_t left; /* events until the next fault */
	struct world_node *cut_a, *cut_b;
	bool cut_metad;
	uint64_t cut_until_ns;
	bool over; /* nothing breaks any more */
	struct ioe *clock;
} f;

static void fault(struct world *w);
static void ends(struct world *w);

/* ---- when ------------------------------------------------------------------------------------------------------------ */

uint64_t faults_down_ns(struct world *w)
{
	return rand_below(&w->rand, w->s.down_ns_max + 1);
}

static void wake(struct ioe_req *r)
{
	free(r);
}

/* Makes sure that there is an event at that time, so that what is due then is noticed. */
static void wake_at(struct world *w, uint64_t ns)
{
	struct ioe_req *r = calloc(1, sizeof(*r));

	check(r);
	ioe_timer(f.clock, r, ioe_now_ns(f.clock) + (ns - world_now(w)), wake);
}

uint64_t faults_until(struct world *w, uint64_t ns)
{
	uint64_t at = world_now(w) + ns;

	wake_at(w, at);
	return at;
}

static void plan_next(struct world *w)
{
	f.left = 1 + rand_below(&w->rand, 2 * w->s.fault_every);
}

void faults_begin(struct world *w)
{
	memset(&f, 0, sizeof(f));
	f.clock = sim_process_new(sim_machine_new(w->sim, "clock"), "clock", NULL, NULL);
	faults_disk_begin(w);
	plan_next(w);
}

void faults_step(struct world *w)
{
	ends(w);
	if (f.over || --f.left > 0)
		return;
	fault(w);
	plan_next(w);
}

/* ---- which ----------------------------------------------------------------------------------------------------------- */

struct world_node *faults_node(struct world *w)
{
	return &w->nodes[1 + rand_below(&w->rand, w->s.nodes_n)];
}

static bool kill_node(struct world *w)
{
	struct world_node *n = faults_node(w);

	if (n->state != PROC_UP && n->state != PROC_STOPPING)
		return false;
	noded_kill(n);
	n->up_at_ns = faults_until(w, faults_down_ns(w));
	return true;
}

static bool stop_node(struct world *w)
{
	struct world_node *n = faults_node(w);

	if (n->state != PROC_UP)
		return false;
	noded_stop(n);
	n->up_at_ns = faults_until(w, faults_down_ns(w));
	return true;
}

static bool power_node(struct world *w)
{
	struct world_node *n = faults_node(w);

	if (n->no_power_loss)
		return false;
	noded_power_loss(n);
	n->up_at_ns = faults_until(w, faults_down_ns(w));
	return true;
}

static bool kill_metad(struct world *w)
{
	if (w->metad_state != PROC_UP && w->metad_state != PROC_STOPPING)
		return false;
	world_metad_kill(w);
	w->metad_up_at_ns = faults_until(w, faults_down_ns(w));
	return true;
}

static bool power_metad(struct world *w)
{
	if (w->metad_state == PROC_DOWN)
		return false;
	world_say(w, "metad loses power");
	sim_power_loss(w->metad_m);
	w->metad_up_at_ns = faults_until(w, faults_down_ns(w));
	return true;
}

static bool stop_metad(struct world *w)
{
	if (w->metad_state != PROC_UP)
		return false;
	world_metad_stop(w);
	w->metad_up_at_ns = faults_until(w, faults_down_ns(w));
	return true;
}

static bool stall(struct world *w)
{
	struct world_node *n = faults_node(w);
	struct ioe *e = rand_percent(&w->rand, 30) ? w->metad_e : n->e;

	if (!e)
		return false;
	world_say(w, "%s stands still", e == n->e ? n->name : "metad");
	sim_stall(e, faults_down_ns(w));
	return true;
}

static struct sim_machine *random_machine(struct world *w)
{
	uint64_t x = rand_below(&w->rand, w->s.nodes_n + 2);

	return x == 0 ? w->metad_m : x == 1 ? w->remote->m : w->nodes[x - 1].m;
}

static bool reset(struct world *w)
{
	struct sim_machine *a = random_machine(w), *b = random_machine(w);

	if (!sim_net_reset_any(w->sim, a, b))
		return false;
	world_say(w, "a connection is reset");
	return true;
}

static void cut_set(struct world *w, bool cut)
{
	sim_net_cut(w->sim, f.cut_a->m, f.cut_metad ? w->metad_m : f.cut_b->m, cut);
	world_say(w, "%s and %s are %s", f.cut_a->name, f.cut_metad ? "metad" : f.cut_b->name,
		  cut ? "cut off from each other" : "connected again");
}

static bool cut(struct world *w)
{
	if (f.cut_a)
		return false;
	f.cut_a = faults_node(w);
	f.cut_b = faults_node(w);
	f.cut_metad = f.cut_a == f.cut_b;
	cut_set(w, true);
	f.cut_until_ns = faults_until(w, faults_down_ns(w));
	return true;
}

static bool clock_jump(struct world *w)
{
	int64_t ns = (int64_t)rand_below(&w->rand, 7200 * SEC) - (int64_t)(3600 * SEC);

	sim_wall_jump(random_machine(w), ns);
	world_say(w, "a wall clock jumps by %" PRId64 " s", ns / (int64_t)SEC);
	return true;
}

/* ---- one of them ----------------------------------------------------------------------------------------------------- */

static bool fault_do(struct world *w, enum fault kind)
{
	switch (kind) {
	case FAULT_KILL_NODE:
		return kill_node(w);
	case FAULT_KILL_METAD:
		return kill_metad(w);
	case FAULT_STOP_NODE:
		return stop_node(w);
	case FAULT_STOP_METAD:
		return stop_metad(w);
	case FAULT_POWER_NODE:
		return power_node(w);
	case FAULT_POWER_METAD:
		return power_metad(w);
	case FAULT_STALL:
		return stall(w);
	case FAULT_RESET:
		return reset(w);
	case FAULT_CUT:
		return cut(w);
	case FAULT_CLOCK_JUMP:
		return clock_jump(w);
	case FAULT_DISK_EIO:
	case FAULT_DISK_FULL:
	case FAULT_DISK_SLOW:
	case FAULT_DISK_STUCK:
	case FAULT_BIT_FLIP:
	case FAULT_LOST_WRITE:
	case FAULT_MISDIRECTED_WRITE:
	case FAULT_FULL_AT_START:
	case FAULT_DISKS_SWAPPED:
	case FAULT_DISK_AWAY:
		return faults_disk_do(w, kind);
	case FAULTS_N:
		break;
	}
	check_unreachable("no such fault");
}

static void fault(struct world *w)
{
	uint64_t total = 0, x;

	for (enum fault k = 0; k < FAULTS_N; k++)
		total += w->s.faults[k];
	x = rand_below(&w->rand, total);
	for (enum fault k = 0; k < FAULTS_N; k++) {
		if (x >= w->s.faults[k]) {
			x -= w->s.faults[k];
			continue;
		}
		if (fault_do(w, k))
			w->result->faults[k]++;
		return;
	}
}

/* ---- what ends by itself --------------------------------------------------------------------------------------------- */

static void ends(struct world *w)
{
	uint64_t now_ns = world_now(w);

	for (uint32_t k = 1; k <= w->s.nodes_n; k++)
		if (w->nodes[k].state == PROC_DOWN && now_ns >= w->nodes[k].up_at_ns)
			noded_start(&w->nodes[k]);
	if (w->metad_state == PROC_DOWN && now_ns >= w->metad_up_at_ns)
		world_metad_start(w);
	faults_disk_ends(w);
	if (f.cut_a && now_ns >= f.cut_until_ns) {
		cut_set(w, false);
		f.cut_a = NULL;
	}
}

void faults_heal(struct world *w)
{
	world_say(w, "everything is mended");
	f.over = true;
	f.cut_until_ns = 0;
	faults_disk_heal(w);
	w->metad_up_at_ns = 0;
	for (uint32_t k = 1; k <= w->s.nodes_n; k++) {
		struct world_node *n = &w->nodes[k];

		n->up_at_ns = 0;
		if (n->suffered && n->state != PROC_DOWN)
			noded_kill(n); /* a device that failed is out of service until then */
	}
	ends(w);
}
