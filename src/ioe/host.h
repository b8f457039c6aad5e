/* SPDX-License-Identifier: Apache-2.0 */
/* host.h - what the two engines on a real kernel (uring, aio) have in common: everything but the way to wait.
 *
 * The host sorts a submitted request to where it is served:
 *
 *   TIMER                                  timers.c
 *   WORK                                   workers.c
 *   RECV SEND ACCEPT CONNECT               sock.c, queued per direction of the socket
 *   file on tmpfs                          `sync`: done by plain system calls in the push phase, which cannot block; with uring
 *                                          short transfers go to `disk`, because one call then makes many
 *   other files                            `disk`: the engine gives them to the kernel, at most cfg.depth at once
 *
 * One turn of such an engine: host_turn_begin(), push `disk`, wait, host_turn_end(). */
#ifndef STRATA_IOE_HOST_H
#define STRATA_IOE_HOST_H

#include <signal.h>

#include "src/ioe/engine.h"
#include "src/ioe/file.h"
#include "src/ioe/sock.h"
#include "src/ioe/timers.h"
#include "src/ioe/workers.h"

struct host {
	struct ioe ioe;
	struct ioe_config cfg; /* defaults filled in */

	struct timers timers;
	struct workers *workers;
	struct list sync, disk; /* file requests */
	struct list dirs;	/* directions of sockets to try */

	/* uring: receives are never tried, nor several sends at once: one system call takes them all, with the wait for the rest */
	bool leaves_bytes_to_kernel;
	bool several_sends; /* in this sock_dirs_run() */

	/* The engine's part in sockets: d is blocked, put it back on `dirs` when that is over. Its part in signals: host_signal_read() when
	 * signal_fd, if there is one, is readable. */
	void (*arm)(struct host *h, struct sock_dir *d);

	bool in_turn;
	uint64_t now_ns; /* of this turn; 0: not read yet */
	struct uuid boot_id;
	atomic_bool sleeping; /* in the kernel, or about to look whether it may be */
	bool busy;	      /* the last turn ran callbacks */
	uint32_t spin_skip;   /* sleeps to go without a spin */
	uint32_t spin_backoff;
	int wake_fd;   /* eventfd */
	int signal_fd; /* -1: nobody asked */
	sigset_t signals_before;
	void (*terminate)(void *arg);
	void *terminate_arg;
	struct ioe_msg terminate_msg;
	bool terminate_posted, terminating;
	uint64_t terminating_ns; /* since when */
};

static inline struct host *host_of(struct ioe *e)
{
	return container_of(e, struct host, ioe);
}

int host_init(struct host *h, const struct ioe_ops *ops, const struct ioe_config *cfg);
void host_fini(struct host *h);

/* ops that are the same on both */
void host_submit(struct ioe *e, struct ioe_req *r);
void host_wake(struct ioe *e);
uint64_t host_now_ns(struct ioe *e);
uint64_t host_wall_ns(struct ioe *e);
void host_random(struct ioe *e, void *buf, size_t len_bytes);
struct uuid host_boot_id(struct ioe *e);
int host_on_terminate(struct ioe *e, void (*fn)(void *arg), void *arg);
#define HOST_OPS                                                                                  \
	.submit = host_submit, .connect = sock_connect, .wake = host_wake, .now_ns = host_now_ns, \
	.wall_ns = host_wall_ns, .random = host_random, .boot_id = host_boot_id,                  \
	.file_open = file_open, .file_close = file_close, .file_info = file_info,                 \
	.file_resize = file_resize, .file_reserve = file_reserve,                                 \
	.file_used_bytes = file_used_bytes, .file_space = file_space,                             \
	.probe_signature = probe_signature, .unlink = path_unlink, .rename = path_rename,         \
	.mkdir = path_mkdir, .same = path_same, .check_private = path_check_private,              \
	.file_load = small_file_load, .file_store = small_file_store, .shm_create = shm_create,   \
	.shm_open = shm_map, .shm_close = shm_unmap, .listen = sock_listen, .sock_dup = sock_dup, \
	.sock_close = sock_close

/* Cancels what has not reached the engine's kernel: true when r is completed now. */
bool host_cancel(struct host *h, struct ioe_req *r);

/* Hooks, sockets and tmpfs files that can go on, as far as a turn's budget reaches. */
void host_turn_begin(struct host *h);
/* How long the turn may wait: 0 when there is something to do, else until `deadline_ns` or the next timer, UINT64_MAX for no end. */
uint64_t host_wait_ns(struct host *h, uint64_t deadline_ns);
/* After a turn without a callback: must ioe_poll() return all the same? */
bool host_poll_over(struct host *h, uint64_t deadline_ns);
/* Timers that are due and sockets the kernel reported, then the callbacks. */
int host_turn_end(struct host *h);

/* May this sleep be preceded by a spin, and was the last one worth it? A spin follows a busy turn only, and ever more rarely when
 * nothing came of it. */
bool host_spin_begin(struct host *h);
void host_spin_end(struct host *h, bool hit);
/* Around a sleep. False: work came in between, do not sleep. */
bool host_sleep_begin(struct host *h);
void host_sleep_end(struct host *h);
void host_signal_read(struct host *h); /* signal_fd is readable */

uint64_t host_clock_ns(void); /* monotonic, not cached */
static inline void host_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

#endif
