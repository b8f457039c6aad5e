/* SPDX-License-Identifier: Apache-2.0 */
/* ioe_sim.h - the simulated engine: a world of machines, processes, disks and a network in one thread, from one seed.
 *
 * Nothing in it reads a clock or a random source of the host: the same seed gives the same run, event for event. Each simulated
 * process has its own `struct ioe`; the world owns virtual time and one queue of events ordered by (time, sequence number).
 * Machines have disks (files by path), shared memory (by path), and a boot id. Processes run on a machine.
 *
 *   process killed   its memory is gone: none of its callbacks ever run again. Disk requests the "kernel" holds land later, within
 *                    SIM_LATE_NS; each file's lock is held until the last of the file's requests has landed. Requests not yet pushed (the
 *                    turn had not ended, or more were asked for than the kernel takes) vanish. Connections are closed or reset. Shared memory
 *                    stays. Files stay as they are.
 *   power lost       kills every process of the machine; each write not covered by a completed fsync is kept, dropped, or torn at 512
 *                    bytes (each sector old or new), independently; a punch likewise, torn by 4 KiB. Requests still in flight count as not
 *                    covered. Shared memory is gone; the boot id changes. The machine is off, and silent on the network, until a process
 *                    is started on it: only then do peers see their connections reset.
 *
 * Turns: what happens to a process (a request landed, bytes arrived, a timer expired) is delivered in its next turn. A turn takes
 * virtual time (turn_ns), during which further completions gather for the next one, as on a real loop.
 *
 * Disks: a write that landed is visible to reads at once, also before its completion was delivered (the volatile cache); overlapping
 * writes in flight land in random order, and a read that lands while a write to the same sectors is in flight may see some of them new and
 * some old. A write that was cancelled may have been made in part. An fsync makes durable exactly what had landed *and been delivered* before the fsync was submitted (for a predecessor
 * that is dead: what had landed). A failed fsync is not repeatable: each write that it would have covered stays visible but, at the flip
 * of a coin, is never made durable by a later one. Names are durable when the call that changed them returned: create, rename, unlink,
 * mkdir, resize and reserve never come undone; file_store is atomic and durable. Writing past the end of a file is -ENOSPC, as on a
 * block device. Directories need not exist.
 *
 * Network: each direction of a connection is a stream with a window of SIM_WINDOW bytes, between the machines and not yet received: a
 * send completes when the last of its bytes was taken into it. After an orderly shutdown or close the peer reads everything, then
 * end of stream. After a reset it reads what has arrived, then -ECONNRESET; what was under way is cut at a random byte. The kernel of a
 * killed process does one or the other. A close that leaves received bytes unread resets, and so does a socket that is closed or shut
 * down when bytes arrive for it. "unix:PATH" is a name of the machine. "HOST:PORT" is a name of the whole world, compared as text: it
 * leads to the machine that listened there last, which refuses when nobody does and says nothing while it is off; a connect then, or over
 * a cut, is repeated every second and given up after 127 s (-ETIMEDOUT).
 *
 * ioe_poll() and ioe_run() on a simulated process step the whole world; so a test with one process needs nothing else. A poll that may not
 * wait and finds nothing to do moves time by a microsecond. ioe_run() returns when nothing is left to happen.
 *
 * What the process allocated is not freed by a kill: build each process on an arena or free it in its on_kill callback. */
#ifndef STRATA_IOE_IOE_SIM_H
#define STRATA_IOE_IOE_SIM_H

#include "src/ioe/ioe.h"

struct sim_world;
struct sim_machine;

#define SIM_LATE_NS ((uint64_t)150 * 1000 * 1000)
#define SIM_WINDOW  ((uint64_t)256 * 1024)

/* Zeros select the defaults. */
struct sim_config {
	uint64_t seed;
	/* latency of a disk request, and of work; 20 us .. 2 ms */
	uint64_t disk_ns_min, disk_ns_max;
	/* one way; 10 us .. 1 ms, within a machine up to an eighth of that; order within a connection is kept */
	uint64_t net_ns_min, net_ns_max;
	/* how long a turn keeps its process busy; 1 us .. 10 us */
	uint64_t turn_ns_min, turn_ns_max;
	/* chance that a receive gets only part of what is there; 0 */
	uint32_t recv_split_percent;
	/* disk requests of a process the kernel holds at once; 256 */
	uint32_t depth;
	/* Every boot of every machine starts its ioe_now_ns() at another random point, and wall clocks are wrong by up to an hour: finds
	 * who compares times of two machines or of two boots. Without it all clocks show sim_now_ns(). */
	bool own_clocks;
};

struct sim_world *sim_world_new(const struct sim_config *cfg);
/* Kills what lives (on_kill runs) and frees everything. Requests still in flight are not looked at: their memory may be gone. */
void sim_world_free(struct sim_world *w);
struct sim_machine *sim_machine_new(struct sim_world *w, const char *name);

/* A process: an engine to build daemons on. on_kill (may be NULL) runs when it is killed, so that the test can free its memory: it must
 * not call the engine, nor start or kill anything. ioe_free() of a living process ends it in good order: its sockets are closed, on_kill
 * does not run. A kill from a callback of the process itself takes effect at once, but on_kill waits until the callback has returned. */
struct ioe *sim_process_new(struct sim_machine *m, const char *name, void (*on_kill)(void *arg),
			    void *arg);
void sim_kill(struct ioe *e);
void sim_power_loss(struct sim_machine *m);
/* The process gets no turn for this long, as when stopped or swapped out. */
void sim_stall(struct ioe *e, uint64_t ns);

/* Runs the earliest event: something lands, or a process has its turn. False when there is none. */
bool sim_step(struct sim_world *w);
/* Steps until nothing is left (true) or virtual time reaches `until_ns` (false). */
bool sim_run(struct sim_world *w, uint64_t until_ns);
/* Sets the wall clock of the machine forward, or back. */
void sim_wall_jump(struct sim_machine *m, int64_t ns);
uint64_t sim_now_ns(struct sim_world *w);
uint64_t sim_events(struct sim_world *w); /* how many so far */
uint64_t sim_rand(struct sim_world *w);	  /* the world's generator, for tests */

/* What happened so far, in one number: equal for equal runs. And each event as it happens, for a person who looks at one seed. */
struct sim_trace {
	uint64_t at_ns;
	const char *what;		      /* "turn", "write", "arrive", ... */
	const char *machine, *process, *path; /* "" when it has none */
	uint64_t off, len;
	int status;
};
uint64_t sim_trace_hash(struct sim_world *w);
void sim_trace_set(struct sim_world *w, void (*fn)(void *arg, const struct sim_trace *t), void *arg);

/* ---- disks --------------------------------------------------------------------------------------------------------------- */

/* What the disks of a machine are like; applies to files opened from now on and to requests that land from now on. */
struct sim_disk_traits {
	uint32_t io_align;  /* 512 (default) or 4096 */
	bool write_through; /* no volatile cache: what landed is durable */
	bool never_blocks;  /* like tmpfs: requests land in the moment they are pushed */
	bool refuses_direct;
	bool refuses_punch; /* -EOPNOTSUPP */
};
void sim_disk_traits(struct sim_machine *m, const struct sim_disk_traits *t);
/* A block device of a fixed size; -EEXIST. */
int sim_disk_new(struct sim_machine *m, const char *path, uint64_t size_bytes);
/* Puts a signature for ioe_probe_signature() to find, e.g. "ext4"; NULL: none. -ENOENT. */
int sim_disk_sign(struct sim_machine *m, const char *path, const char *signature);
/* Gives a file or block device another path, as when disks change places; -ENOENT, -EEXIST. Who has it open goes on. */
int sim_disk_move(struct sim_machine *m, const char *from, const char *to);
/* How much the files of the machine may take together, by 4 KiB pages; 0: no limit. A write that needs more is -ENOSPC, and may have been made in
 * part, as far as there was space. */
void sim_disk_quota(struct sim_machine *m, uint64_t bytes);
/* The engine asks `fault` (if set) for each read, write, fsync and punch as it lands: return 0 for none, or -errno to fail it without effect
 * (except as said above for fsync; a write that fails with -EIO may have been made in part, some of its first sectors; and a read may have
 * seen parts of a write that then fails). r->buf is NULL for the read of a dead
 * process. The hook must not kill anything. */
void sim_disk_fault(struct sim_machine *m,
		    int (*fault)(void *arg, const char *path, const struct ioe_req *r), void *arg);
/* A fault of this value: the request succeeds, but a WRITE or PUNCH has no effect and an FSYNC makes nothing durable. */
enum { SIM_DISK_LOST = 1 };
/* How much longer than usual the disk takes for this request, asked as it is handed to the kernel; NULL: none does. */
void sim_disk_delay(struct sim_machine *m,
		    uint64_t (*delay_ns)(void *arg, const char *path, const struct ioe_req *r),
		    void *arg);
/* Direct access to the bytes as the machine sees them now, for checkers and for damage. -ENOENT, -ERANGE past the end. Poked bytes are
 * durable; what was written but not yet durable in that range, and everything that landed before that, becomes durable too. */
int sim_disk_peek(struct sim_machine *m, const char *path, uint64_t off, void *buf, uint64_t len);
int sim_disk_poke(struct sim_machine *m, const char *path, uint64_t off, const void *buf,
		  uint64_t len);

/* ---- network --------------------------------------------------------------------------------------------------------------- */

/* Cuts and heals the network between two machines (both ways); established connections stall and, after heal, go on. */
void sim_net_cut(struct sim_world *w, struct sim_machine *a, struct sim_machine *b, bool cut);
/* Resets the connection at a random byte of what is under way. */
void sim_net_reset(struct ioe *e, struct ioe_sock *s);
/* The same for one of the connections between two machines, or within one, chosen at random; false when there is none. */
bool sim_net_reset_any(struct sim_world *w, struct sim_machine *a, struct sim_machine *b);
/* The other end was closed, or its process or machine is dead: nobody there will read what this end sent any more. */
bool sim_net_peer_is_gone(struct ioe_sock *s);

#endif
