/* SPDX-License-Identifier: Apache-2.0 */
/* swarm.h - what a run is like, from its seed: how large the world is, what clients do, what breaks and how often.
 *
 * Swarm testing: each seed takes only some of the features and faults, and those in excess, so that every run goes deep into some corner
 * instead of all being alike. */
#ifndef STRATA_TESTS_SIM_SWARM_H
#define STRATA_TESTS_SIM_SWARM_H

#include "src/ioe/ioe_sim.h"

enum {
	NODES_MAX = 3,
	DISKS_MAX = 3,
	VOLUMES_MAX = 3,
	EXTRAS_MAX = 2,
	USERS_MAX = 4,
	DEPTH_MAX = 16
};

#define US  ((uint64_t)1000)
#define MS  ((uint64_t)1000 * US)
#define SEC ((uint64_t)1000 * MS)

/* X(KIND, what it is) */
#define FAULTS(X)                                              \
	X(KILL_NODE, "kill -9 of a node")                      \
	X(KILL_METAD, "kill -9 of the metadata server")        \
	X(STOP_NODE, "SIGTERM of a node")                      \
	X(STOP_METAD, "SIGTERM of the metadata server")        \
	X(POWER_NODE, "power loss of a node")                  \
	X(POWER_METAD, "power loss of the metadata server")    \
	X(STALL, "a process gets no CPU")                      \
	X(RESET, "a connection reset at any byte")             \
	X(CUT, "a partition")                                  \
	X(DISK_EIO, "requests of a disk fail")                 \
	X(DISK_FULL, "a filesystem is full")                   \
	X(DISK_SLOW, "a disk is slow")                         \
	X(DISK_STUCK, "a disk does not answer")                \
	X(BIT_FLIP, "a bit of a block changes")                \
	X(LOST_WRITE, "a disk forgets a write")                \
	X(MISDIRECTED_WRITE, "a write lands elsewhere")        \
	X(FULL_AT_START, "a node starts on a full filesystem") \
	X(DISKS_SWAPPED, "two disks change places")            \
	X(DISK_AWAY, "a disk is away when its node starts")    \
	X(CLOCK_JUMP, "a wall clock jumps")

enum fault {
#define X(kind, what) FAULT_##kind,
	FAULTS(X)
#undef X
	    FAULTS_N
};
const char *fault_name(enum fault f);

struct swarm {
	uint64_t seed;
	struct sim_config sim;
	struct sim_disk_traits traits[NODES_MAX];
	uint32_t nodes_n, disks_n, volumes_n; /* disks: of each node */
	uint64_t disk_bytes;
	bool rings; /* restart rings: else everything is written through */
	uint64_t takeover_ns;
	/* volumes */
	uint64_t volume_bytes[VOLUMES_MAX];
	const char *write_cache[VOLUMES_MAX];
	/* clients */
	uint32_t users_n[VOLUMES_MAX], depth;
	uint32_t remote_percent; /* of connections: from another machine, by TCP */
	bool structured;
	uint32_t ops_n; /* of all clients together, before everything is mended */
	uint32_t read, write, zero, trim, flush; /* weights */
	uint32_t fua_percent, odd_percent;	 /* odd: not whole blocks */
	uint32_t spots_n, spot_percent;		 /* places that most requests go to */
	uint64_t large_bytes;			 /* of one in sixteen requests */
	uint32_t operate_every; /* events between two wishes of the operator, on the average; 0: there is none */
	uint64_t patience_ns; /* after which a client gives a connection up */
	/* faults: how many events of the world lie between two on the average; which kinds, by weight */
	uint32_t fault_every;
	uint32_t faults[FAULTS_N];
	uint64_t down_ns_max; /* how long what is down stays so, at most */
	uint32_t eio_percent;
	bool reopen; /* in the end everything is closed, power is lost, and all is read once more */
};

void swarm_choose(uint64_t seed, struct swarm *ret_s);
/* What was chosen, in a line or two. */
void swarm_text(const struct swarm *s, char *text, size_t room);

#endif
