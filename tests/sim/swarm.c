/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/swarm.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "src/base/math.h"
#include "src/base/rand.h"

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)

static const char *const names[] = {
#define X(kind, what) what,
    FAULTS(X)
#undef X
};

const char *fault_name(enum fault f)
{
	return names[f];
}

static uint32_t pick(struct rand *r, uint32_t min, uint32_t max)
{
	return (uint32_t)rand_between(r, min, max);
}

static void choose_world(struct rand *r, struct swarm *s)
{
	s->nodes_n = rand_percent(r, 50) ? 1 : pick(r, 2, NODES_MAX);
	s->disks_n = rand_percent(r, 60) ? 1 : pick(r, 2, DISKS_MAX);
	s->disk_bytes = 128 * MIB;
	s->rings = rand_percent(r, 90);
	s->takeover_ns = rand_percent(r, 50) ? UINT64_MAX : rand_between(r, 1, 10) * SEC;
	s->sim = (struct sim_config){.seed = s->seed};
	s->sim.recv_split_percent = rand_percent(r, 50) ? pick(r, 1, 60) : 0;
	s->sim.own_clocks = rand_percent(r, 30);
	if (rand_percent(r, 20))
		s->sim.depth = pick(r, 1, 16);
	if (rand_percent(r, 30)) { /* a slow network */
		s->sim.net_ns_min = 10 * US;
		s->sim.net_ns_max = rand_between(r, 1, 50) * MS;
	}
	if (rand_percent(r, 20)) { /* slow disks */
		s->sim.disk_ns_min = 1 * MS;
		s->sim.disk_ns_max = rand_between(r, 2, 40) * MS;
	}
	for (uint32_t i = 0; i < NODES_MAX; i++) {
		s->traits[i].io_align = rand_percent(r, 50) ? 512 : 4096;
		s->traits[i].write_through = rand_percent(r, 10);
		s->traits[i].never_blocks = rand_percent(r, 10);
		s->traits[i].refuses_punch = rand_percent(r, 10);
	}
}

static void choose_volumes(struct rand *r, struct swarm *s)
{
	static const char *const caches[] = {"auto", "writeback", "writethrough"};

	s->volumes_n = rand_percent(r, 60) ? 1 : pick(r, 2, VOLUMES_MAX);
	for (uint32_t v = 0; v < VOLUMES_MAX; v++) {
		s->volume_bytes[v] = rand_percent(r, 50) ? rand_between(r, 1, 8) * MIB
							 : rand_between(r, 2, 8192) * 4 * KIB;
		s->write_cache[v] = caches[rand_percent(r, 60) ? 0 : pick(r, 0, 2)];
		s->users_n[v] = rand_percent(r, 40) ? 1 : pick(r, 2, USERS_MAX);
	}
}

static void choose_work(struct rand *r, struct swarm *s)
{
	s->depth = rand_percent(r, 30) ? 1 : pick(r, 2, DEPTH_MAX);
	s->remote_percent = rand_percent(r, 50) ? pick(r, 0, 100) : rand_percent(r, 50) ? 0 : 100;
	s->structured = rand_percent(r, 50);
	s->ops_n = pick(r, 500, 900);
	s->read = pick(r, 10, 40);
	s->write = pick(r, 20, 60);
	s->zero = rand_percent(r, 60) ? pick(r, 1, 10) : 0;
	s->trim = rand_percent(r, 60) ? pick(r, 1, 10) : 0;
	s->flush = rand_percent(r, 80) ? pick(r, 1, 15) : 0;
	s->fua_percent = rand_percent(r, 50) ? pick(r, 0, 50) : 0;
	s->odd_percent = rand_percent(r, 60) ? pick(r, 1, 60) : 0;
	s->spots_n = pick(r, 1, 6);
	s->spot_percent = rand_percent(r, 80) ? pick(r, 70, 100) : pick(r, 0, 70);
	s->large_bytes = rand_percent(r, 40) ? rand_between(r, 1, 256) * 4 * KIB : 64 * KIB;
	s->operate_every = rand_percent(r, 40) ? pick(r, 1000, 8000) : 0;
	s->patience_ns = rand_between(r, 1, 20) * SEC;
}

static bool is_of_power(enum fault f)
{
	return f == FAULT_POWER_NODE;
}

static bool is_of_lies(enum fault f)
{
	return f == FAULT_BIT_FLIP || f == FAULT_LOST_WRITE || f == FAULT_MISDIRECTED_WRITE;
}

/* After a power loss, or a kill without a restart ring, rot in a block that was being written cannot be told from an unfinished write
 * (docs/device-format.md); and after a failed device flush no later one makes up for what the disk forgot. Such kinds are not in one run. */
static void choose_faults(struct rand *r, struct swarm *s)
{
	bool power = rand_percent(r, 50), any = false;

	for (enum fault f = 0; f < FAULTS_N; f++) {
		if (is_of_power(f) ? !power : power && (is_of_lies(f) || f == FAULT_DISK_EIO))
			continue;
		if (rand_percent(r, is_of_lies(f) ? 15 : 35))
			s->faults[f] = pick(r, 1, 10);
		if (s->faults[f] && is_of_lies(f))
			s->rings = true;
		any = any || s->faults[f];
	}
	if (power)
		s->faults[FAULT_POWER_NODE] = MAX(s->faults[FAULT_POWER_NODE], 2u);
	else if (!any)
		s->faults[FAULT_KILL_NODE] = 1;
	s->fault_every = rand_percent(r, 50) ? pick(r, 300, 2000) : pick(r, 2000, 8000);
	s->down_ns_max =
	    rand_percent(r, 70) ? rand_between(r, 1, 500) * MS : rand_between(r, 1, 15) * SEC;
	s->eio_percent = rand_percent(r, 30) ? 100 : pick(r, 1, 30);
	s->reopen = rand_percent(r, 25);
}

void swarm_choose(uint64_t seed, struct swarm *ret_s)
{
	struct rand r;

	rand_seed(&r, seed ^ 0x5761726d);
	*ret_s = (struct swarm){.seed = seed};
	choose_world(&r, ret_s);
	choose_volumes(&r, ret_s);
	choose_work(&r, ret_s);
	choose_faults(&r, ret_s);
}

static void __attribute__((format(printf, 3, 4)))
append(char *text, size_t room, const char *fmt, ...)
{
	size_t len = strlen(text);
	va_list ap;

	va_start(ap, fmt);
	if (len + 1 < room)
		vsnprintf(text + len, room - len, fmt, ap);
	va_end(ap);
}

void swarm_text(const struct swarm *s, char *text, size_t room)
{
	text[0] = '\0';
	append(text, room,
	       "%u nodes of %u disks%s, %u volumes, depth %u, %u %% remote, %u requests; faults "
	       "each %u "
	       "events, down at most %" PRIu64 " ms:",
	       s->nodes_n, s->disks_n, s->rings ? "" : " without rings", s->volumes_n, s->depth,
	       s->remote_percent, s->ops_n, s->fault_every, s->down_ns_max / MS);
	for (enum fault f = 0; f < FAULTS_N; f++)
		if (s->faults[f])
			append(text, room, " %s (%u)", fault_name(f), s->faults[f]);
	for (uint32_t v = 0; v < s->volumes_n; v++)
		append(text, room, "; volume %u: %" PRIu64 " KiB, %s, %u connections", v + 1,
		       s->volume_bytes[v] / KIB, s->write_cache[v], s->users_n[v]);
}
