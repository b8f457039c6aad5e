/* SPDX-License-Identifier: Apache-2.0 */
/* ioe_sim.h - the simulated engine: a world of machines, processes, disks and a network in one thread, from one seed.
 *
 * Nothing in it reads a clock or a random source of the host: the same seed gives the same run, event for event. Each simulated
 * process has its own `struct ioe`; the world owns virtual time and one queue of events ordered by (time, sequence number).
 * Machines have disks (files by path), shared memory (by path), and a boot id. Processes run on a machine.
 *
 *   process killed   its memory is gone: none of its callbacks ever run again. Disk requests the "kernel" holds land later, within
 *                    SIM_LATE_NS; each file's lock is held until the last of the file's requests has landed. Requests not yet pushed (the turn
 *                    had not ended) vanish. Sockets are reset. Shared memory stays. Files stay as they are.
 *   power lost       kills every process of the machine; each write not covered by a completed fsync is kept, dropped, or torn at 512
 *                    bytes (each sector old or new), independently; a punch likewise (kept or dropped). Requests still in flight count as not
 *                    covered. Shared memory is gone; the boot id changes.
 * A write that completes is visible to reads at once (the volatile cache); in-flight overlapping writes land in random order.
 *
 * What the process allocated is not freed by a kill: build each process on an arena (struct sim_proc.arena hooks) or free it in
 * the on_kill callback of the test that owns it.
 */
#ifndef STRATA_IOE_IOE_SIM_H
#define STRATA_IOE_IOE_SIM_H

#include "src/ioe/ioe.h"

struct sim_world;
struct sim_machine;

struct sim_config {
	uint64_t seed;
	uint64_t disk_ns_min, disk_ns_max; /* latency of a disk request; defaults 20 us .. 2 ms */
	uint64_t net_ns_min,
	    net_ns_max; /* one way; defaults 10 us .. 1 ms; order within a connection is kept */
	uint32_t recv_split_percent; /* chance that a receive gets only part of what is there */
};

struct sim_world *sim_world_new(const struct sim_config *cfg);
void sim_world_free(struct sim_world *w);
struct sim_machine *sim_machine_new(struct sim_world *w, const char *name);

/* A process: an engine to build daemons on. on_kill (may be NULL) runs when it is killed, so that the test can free its memory: it must
 * not submit anything. ioe_free() of a living process removes it. */
struct ioe *sim_process_new(struct sim_machine *m, const char *name, void (*on_kill)(void *arg),
			    void *arg);
void sim_kill(struct ioe *e);
void sim_power_loss(struct sim_machine *m);

/* Runs the earliest event and, after the callbacks of that instant, the hooks. False when there is none. */
bool sim_step(struct sim_world *w);
/* Steps until nothing is left (true) or virtual time reaches `until_ns` (false). */
bool sim_run(struct sim_world *w, uint64_t until_ns);
uint64_t sim_now_ns(struct sim_world *w);
uint64_t sim_events(struct sim_world *w); /* how many so far */
uint64_t sim_rand(struct sim_world *w);	  /* the world's generator, for tests */

/* Faults of a disk, by path on a machine. The engine asks `fault` (if set) for each read, write, fsync and punch as it lands: return 0 for
 * none, or -errno to fail it without effect. */
void sim_disk_fault(struct sim_machine *m,
		    int (*fault)(void *arg, const char *path, const struct ioe_req *r), void *arg);
/* Direct access to the bytes as the machine sees them now, for checkers and for damage. Grows nothing; -ENOENT, -ERANGE. */
int sim_disk_peek(struct sim_machine *m, const char *path, uint64_t off, void *buf, uint64_t len);
int sim_disk_poke(struct sim_machine *m, const char *path, uint64_t off, const void *buf,
		  uint64_t len);
/* Cuts and heals the network between two machines (both ways); established connections stall and, after heal, go on. */
void sim_net_cut(struct sim_world *w, struct sim_machine *a, struct sim_machine *b, bool cut);
/* Resets the connection at a random byte of what is under way. */
void sim_net_reset(struct ioe *e, struct ioe_sock *s);

/* Within a simulated process ioe_poll() and ioe_run() step the whole world. */

#endif
