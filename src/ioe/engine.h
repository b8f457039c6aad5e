/* SPDX-License-Identifier: Apache-2.0 */
/* engine.h - what the engines share behind ioe.h. Private to src/ioe (and to tests of an engine).
 *
 * ioe.c holds the public functions: it fills in the request, refuses what is malformed on any engine, and hands the rest to the engine
 * through `struct ioe_ops`. An engine embeds `struct ioe` first in its own struct and its files and sockets embed `struct ioe_file`
 * and `struct ioe_sock`.
 *
 * Completion discipline, the same everywhere: an engine never calls `done`. It calls engine_complete(), which puts the request on
 * `ready`; engine_dispatch() runs the callbacks of what was ready when it began. What a callback makes ready (a nop, a refused
 * request) waits for the next turn, so a turn is bounded and nothing recurses.
 *
 * One turn of an engine (its poll):
 *   engine_hooks_run()     hooks armed outside of a turn
 *   push                   hand queued requests to the kernel
 *   wait                   unless engine_has_work(); moves completions to `ready`
 *   engine_dispatch()      messages, callbacks, then the hooks
 */
#ifndef STRATA_IOE_ENGINE_H
#define STRATA_IOE_ENGINE_H

#include <stdatomic.h>

#include "src/ioe/ioe.h"

struct ioe_ops {
	const char *name;
	void (*free)(struct ioe *e); /* frees the struct too */

	/* A checked request: queue it, or engine_complete() it with an error. Everything but CONNECT and NOP comes here. */
	void (*submit)(struct ioe *e, struct ioe_req *r);
	void (*connect)(struct ioe *e, struct ioe_req *r, const char *addr);
	void (*cancel)(struct ioe *e, struct ioe_req *r); /* r is in flight and not on `ready` */
	/* One whole turn, see above: the number of callbacks run, or -1 when nothing can ever happen again (a simulated world without events). */
	int (*poll)(struct ioe *e, uint64_t deadline_ns);
	void (*wake)(struct ioe *e); /* any thread: `posted` or `stop` was set, the wait must end */

	uint64_t (*now_ns)(struct ioe *e);
	uint64_t (*wall_ns)(struct ioe *e);
	void (*random)(struct ioe *e, void *buf, size_t len_bytes);
	struct uuid (*boot_id)(struct ioe *e);

	int (*file_open)(struct ioe *e, const char *path, int flags, struct ioe_file **ret_f,
			 char *errmsg);
	void (*file_close)(struct ioe *e, struct ioe_file *f);
	void (*file_info)(struct ioe_file *f, struct ioe_file_info *ret_info);
	int (*file_resize)(struct ioe *e, struct ioe_file *f, uint64_t size_bytes);
	int (*file_reserve)(struct ioe *e, struct ioe_file *f, uint64_t off, uint64_t len);
	uint64_t (*file_used_bytes)(struct ioe *e, struct ioe_file *f);
	int (*file_space)(struct ioe *e, struct ioe_file *f, struct ioe_file_space *ret_space);
	int (*probe_signature)(struct ioe *e, const char *path, char *errmsg);
	int (*unlink)(struct ioe *e, const char *path);
	int (*rename)(struct ioe *e, const char *from, const char *to);
	int (*mkdir)(struct ioe *e, const char *path, uint32_t mode);
	int (*check_private)(struct ioe *e, const char *path, char *errmsg);
	bool (*same)(struct ioe *e, const char *a, const char *b);
	int (*file_load)(struct ioe *e, const char *path, char **ret_data, size_t *ret_len);
	int (*file_store)(struct ioe *e, const char *path, const void *data, size_t len,
			  uint32_t mode);
	int (*shm_create)(struct ioe *e, const char *path, size_t len_bytes,
			  struct ioe_shm *ret_shm);
	int (*shm_open)(struct ioe *e, const char *path, struct ioe_shm *ret_shm);
	void (*shm_close)(struct ioe *e, struct ioe_shm *shm);

	int (*listen)(struct ioe *e, const char *addr, struct ioe_sock **ret_s, char *errmsg);
	int (*sock_dup)(struct ioe_sock *s, int *ret_fd); /* NULL: there are no descriptors */
	void (*sock_shutdown)(struct ioe *e, struct ioe_sock *s);
	void (*sock_close)(struct ioe *e, struct ioe_sock *s);
	int (*on_terminate)(struct ioe *e, void (*fn)(void *arg), void *arg);
};

struct ioe {
	const struct ioe_ops *ops;
	struct list ready;	 /* completed, callback not yet run */
	struct list running;	 /* the batch of those that engine_dispatch() works on */
	struct list hooks;	 /* armed */
	struct list hooks_again; /* armed while they ran, having run already: for the next turn */
	uint64_t hooks_round;
	uint64_t in_flight;		  /* submitted, `done` not yet called */
	_Atomic(struct ioe_msg *) posted; /* newest first */
	atomic_bool stop;
};

struct ioe_file {
	struct ioe *e;
	uint32_t io_align; /* what ioe.c enforces on every READ, WRITE and PUNCH */
	bool read_only;
	uint64_t in_flight;
	struct ioe_req *fsync; /* the one that the engine has */
	struct list fsyncs;    /* those that wait until it is back */
	int fsync_error;       /* of an fsync of any kind that failed */
};

struct ioe_sock {
	struct ioe *e;
	char addr[IOE_ADDR_MAX]; /* own address of a listener */
	char peer[IOE_ADDR_MAX];
	bool is_listener;
	bool is_local;
	uint64_t in_flight;
};

/* priv[0] of a request is ioe.c's, the others are the engine's. */
enum req_state { REQ_IN_FLIGHT = 0x494f4501, REQ_READY, REQ_DONE };
#define REQ_PRIV_ENGINE 1

static inline enum req_state req_state(const struct ioe_req *r)
{
	return (enum req_state)r->priv[0];
}

void engine_init(struct ioe *e, const struct ioe_ops *ops);
void engine_file_init(struct ioe *e, struct ioe_file *f, uint32_t io_align, bool read_only);
void engine_sock_init(struct ioe *e, struct ioe_sock *s, bool is_listener);

/* fsync.c: a file's IOE_FSYNCs, one after the other, and none that succeeds after one that failed. */
void fsync_submit(struct ioe *e, struct ioe_req *r);
/* The status it completes with, where the kernel said `status`. */
int fsync_status(struct ioe_file *f, int status);
void fsync_completed(struct ioe *e, struct ioe_req *r);

/* The one way to complete: r->link is in no list, r->got and r->ret_sock are set. */
void engine_complete(struct ioe *e, struct ioe_req *r, int status);
/* Runs posted messages, the callbacks of what is ready now, then the hooks. The number of messages and callbacks. */
int engine_dispatch(struct ioe *e);
void engine_hooks_run(struct ioe *e);
/* Is there anything a turn would do without waiting? */
bool engine_has_work(struct ioe *e);

/* Constructors. -ENOSYS when the kernel refuses. */
int uring_new(const struct ioe_config *cfg, struct ioe **ret_e);
int aio_new(const struct ioe_config *cfg, struct ioe **ret_e);

#endif
