/* SPDX-License-Identifier: Apache-2.0 */
/* ioe.h - the I/O engine: everything that waits.
 *
 * One loop per thread. All disks, sockets, timers, workers, clocks and random bytes of the program are reached through a
 * `struct ioe`, and by nothing else. Three engines implement the contract: `uring` (production), `aio` (libaio + epoll, where io_uring
 * is disabled) and `sim` (ioe_sim.h: deterministic, virtual time). Code above cannot tell which one it runs on.
 *
 * Rules, the same on every engine, and what tests/unit/ioe asserts on each:
 *  1. A submit only queues. It never fails, never blocks and never completes inline; an error (also "out of room") arrives as status.
 *  2. Each request completes exactly once, from ioe_run()/ioe_poll(), also after a cancel and at shutdown.
 *  3. `done` is the engine's last touch of the request: it may be reused or freed in there. Requests are embedded in the operation
 *     that owns them (container_of), need no initialisation beyond what the submit call sets, and must not move while in flight.
 *  4. A buffer belongs to the engine from submit to completion.
 *  5. status is 0 or -errno (-ECANCELED after a cancel that came in time). A disk transfer is whole or failed: short transfers, EINTR
 *     and EAGAIN are hidden. A send is whole or failed. A receive completes with what there is (`got` >= 1), or 0 at end of stream.
 *  6. ioe_cancel only asks: the request still completes once, with its own result if that was faster.
 *  7. Requests on one stream socket and direction are served in the order of submission. Disk requests have no order among
 *     themselves; who needs one waits. An fsync covers the writes that had completed before it was submitted, and no others.
 *  8. An fsync that failed is the last word about its file: those that wait and all later ones end with its error, until the file is closed.
 *     (The kernel names an error once, to the first that asks; what was lost stays lost.)
 *  9. Only ioe_post() and ioe_stop() may be called from other threads.
 */
#ifndef STRATA_IOE_IOE_H
#define STRATA_IOE_IOE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "src/base/err.h"
#include "src/base/list.h"
#include "src/base/uuid.h"

struct ioe;
struct workers;
struct ioe_file; /* an open device or file */
struct ioe_sock; /* a stream socket or a listener */

enum ioe_op {
	IOE_NOP,   /* completes in a later callback of this or the next turn */
	IOE_READ,  /* file: exactly len bytes at off; reading past the end of the file is -EIO */
	IOE_WRITE, /* file; past the end is -ENOSPC: files grow by ioe_file_resize */
	IOE_FSYNC, /* file: data and what is needed to find it (fdatasync) */
	IOE_PUNCH, /* file: give back [off, off + len); it reads as zeros afterwards. Needs an IOE_FSYNC to be durable. -EOPNOTSUPP possible */
	IOE_ACCEPT, /* listener: ret_sock */
	IOE_CONNECT,
	IOE_RECV, /* sock, iov: at least one byte, in `got`; 0 at end of stream */
	IOE_SEND, /* sock, iov: everything */
	IOE_TIMER,
	IOE_WORK, /* fn(req) on a worker thread, then done on the loop */
};

/* A message to the loop, from any thread: fn runs on the loop's thread once. The struct is the sender's until fn runs. */
struct ioe_msg {
	struct ioe_msg *next;
	void (*fn)(struct ioe_msg *m);
};

struct ioe_req {
	/* set by the submit functions below, constant until completion */
	enum ioe_op op;
	void (*done)(struct ioe_req *r);
	union {
		struct { /* READ, WRITE, FSYNC, PUNCH: off and len in bytes */
			struct ioe_file *file;
			void *buf;
			uint64_t off;
			uint64_t len;
		};
		struct { /* ACCEPT, CONNECT, RECV, SEND */
			struct ioe_sock *sock;
			struct iovec *
			    iov; /* the caller's; must live until completion; the engine may change it */
			int iov_n; /* at most IOE_IOV_MAX; RECV: at least 1 */
		};
		uint64_t deadline_ns;	       /* TIMER: of ioe_now_ns() */
		void (*fn)(struct ioe_req *r); /* WORK */
	};
	/* results, valid in done */
	int status;
	uint32_t stage;		   /* the engine's while in flight */
	size_t got;		   /* RECV: bytes */
	struct ioe_sock *ret_sock; /* ACCEPT, CONNECT: the new connection, owned by the caller */
	/* the engine's while in flight */
	struct list link;
	union {
		uint64_t priv[4];
		struct { /* TIMER: a node of the heap */
			uint64_t state_;
			struct list kids;
			uint64_t seq;
		} heap;
		struct { /* on a worker thread */
			uint64_t state_;
			struct workers *pool;
			struct ioe_msg msg;
		} work;
	};
};

enum { IOE_IOV_MAX = 512, IOE_ADDR_MAX = 128, IOE_SMALL_FILE_MAX = 1 << 20 };

/* ---- loops ----------------------------------------------------------------------------------------------------------- */

enum ioe_kind { IOE_AUTO, IOE_URING, IOE_AIO };
enum ioe_kind ioe_kind_of(const char *word); /* "uring" or "aio"; anything else, NULL too, is AUTO */

struct ioe_config {
	/* AUTO: uring, and aio with a log line where the kernel refuses io_uring */
	enum ioe_kind kind;
	/* disk requests the kernel holds at once; further ones wait inside the engine. 0: 256 */
	uint32_t depth;
	/* threads for IOE_WORK, started on first use. 0: 4 */
	uint32_t workers;
	/* longest busy wait before sleeping when the loop has just been busy. 0: none */
	uint64_t spin_ns;
};

/* The thread that first runs or polls the loop is its thread from then on. -ENOSYS when the asked kind is not to be had. */
int ioe_new(const struct ioe_config *cfg, struct ioe **ret_e);
void ioe_free(struct ioe *e);		   /* nothing may be in flight */
const char *ioe_name(const struct ioe *e); /* "uring", "aio", "sim" */

/* Runs until ioe_stop(), also one that came before. Sleeps in the kernel when there is nothing to do; there are no periodic wakeups of
 * its own. */
void ioe_run(struct ioe *e);
void ioe_stop(struct ioe *e);
/* One turn: push what is queued, wait until something completed or `deadline_ns` passed (0: do not wait), run the callbacks. Returns
 * the number of callbacks run. */
int ioe_poll(struct ioe *e, uint64_t deadline_ns);

/* A hook runs once, at the end of the turn in which it was armed, after the callbacks and before anything queued is pushed: the place
 * to batch (one journal block for all writes of a turn, one send for all replies). Arming an armed hook does nothing. A hook may arm
 * hooks: others still run in this turn, itself in the next. */
struct ioe_hook {
	struct list link;
	void (*fn)(struct ioe_hook *h);
	bool armed;
	uint64_t round; /* the engine's */
};
void ioe_hook_init(struct ioe_hook *h, void (*fn)(struct ioe_hook *h));
void ioe_hook_arm(struct ioe *e, struct ioe_hook *h);
void ioe_hook_disarm(struct ioe_hook *h);

void ioe_post(struct ioe *e, struct ioe_msg *m);

/* ---- time, randomness, identity ----------------------------------------------------------------------------------------- */

uint64_t ioe_now_ns(struct ioe *e);  /* monotonic; constant within a turn is allowed */
uint64_t ioe_wall_ns(struct ioe *e); /* since 1970, for people; never for logic */
/* Cryptographic quality on real engines, seeded in simulation. */
uint64_t ioe_rand64(struct ioe *e);
void ioe_random(struct ioe *e, void *buf, size_t len_bytes);
struct uuid ioe_uuid(struct ioe *e);	/* a new random version 4 uuid */
struct uuid ioe_boot_id(struct ioe *e); /* changes when the machine was restarted */

/* ---- requests ------------------------------------------------------------------------------------------------------------ */

void ioe_nop(struct ioe *e, struct ioe_req *r, void (*done)(struct ioe_req *r));
void ioe_read(struct ioe *e, struct ioe_req *r, struct ioe_file *f, uint64_t off, void *buf,
	      uint64_t len, void (*done)(struct ioe_req *r));
void ioe_write(struct ioe *e, struct ioe_req *r, struct ioe_file *f, uint64_t off, const void *buf,
	       uint64_t len, void (*done)(struct ioe_req *r));
void ioe_fsync(struct ioe *e, struct ioe_req *r, struct ioe_file *f,
	       void (*done)(struct ioe_req *r));
void ioe_punch(struct ioe *e, struct ioe_req *r, struct ioe_file *f, uint64_t off, uint64_t len,
	       void (*done)(struct ioe_req *r));
void ioe_accept(struct ioe *e, struct ioe_req *r, struct ioe_sock *listener,
		void (*done)(struct ioe_req *r));
/* addr: "unix:PATH" or "HOST:PORT" (HOST a literal IPv4 or [IPv6] address). The text is copied. -EAGAIN when the backlog of a unix
 * listener is full, which cannot be waited for: try again by timer. */
void ioe_connect(struct ioe *e, struct ioe_req *r, const char *addr,
		 void (*done)(struct ioe_req *r));
void ioe_recv(struct ioe *e, struct ioe_req *r, struct ioe_sock *s, struct iovec *iov, int iov_n,
	      void (*done)(struct ioe_req *r));
void ioe_send(struct ioe *e, struct ioe_req *r, struct ioe_sock *s, struct iovec *iov, int iov_n,
	      void (*done)(struct ioe_req *r));
void ioe_timer(struct ioe *e, struct ioe_req *r, uint64_t deadline_ns,
	       void (*done)(struct ioe_req *r));
/* fn runs on a worker thread (in simulation: on the loop, at the moment of completion) and may block. It sees the request only. */
void ioe_work(struct ioe *e, struct ioe_req *r, void (*fn)(struct ioe_req *r),
	      void (*done)(struct ioe_req *r));
/* r is in flight, or was (then nothing happens). A send that was cancelled may have gone out in part: its stream is of no more use. */
void ioe_cancel(struct ioe *e, struct ioe_req *r);

/* ---- files: short blocking calls of the control path -------------------------------------------------------------------- */

enum ioe_open_flags {
	IOE_OPEN_RDONLY = 1 << 0,
	IOE_OPEN_CREATE = 1 << 1, /* a new file, 0600; -EEXIST if there is one */
	/* Exclusive, on the very file description that carries the I/O, taken before anything is read: it ends only with the last
	 * in-flight request of a dead process. -E_IN_USE at once when held (block devices are also opened O_EXCL, which refuses mounted
	 * ones): callers that expect a dying predecessor try again by timer. */
	IOE_OPEN_LOCK = 1 << 2,
	IOE_OPEN_BUFFERED = 1 << 3, /* no O_DIRECT */
	/* With LOCK: waits for a holder that is dying, up to a second, and blocks meanwhile: for a program that starts. Not in simulation. */
	IOE_OPEN_WAIT = 1 << 4,
};

struct ioe_file_info {
	uint64_t size_bytes;
	/* Offsets, lengths and buffers must be multiples: 512 or 4096; 1 with IOE_OPEN_BUFFERED. */
	uint32_t io_align;
	bool is_block_device;
	/* False: O_DIRECT was refused or not asked for; fsync still makes data durable. */
	bool is_direct;
	bool has_volatile_cache; /* files always; block devices as their queue says */
	bool never_blocks;	 /* tmpfs: served synchronously from the loop (design section 4) */
};

/* What changes names, sizes and space (create, resize, reserve, unlink, rename, mkdir, store) is durable when it has returned 0.
 *
 * errmsg (ERRMSG_LEN bytes, may be NULL) says what is wrong in a sentence, e.g. "in use by pid 123". */
int ioe_file_open(struct ioe *e, const char *path, int flags, struct ioe_file **ret_f, char *errmsg);
void ioe_file_close(struct ioe *e, struct ioe_file *f); /* nothing in flight; gives up the lock */
void ioe_file_info(struct ioe_file *f, struct ioe_file_info *ret_info);
/* Files only (-EINVAL); sparse. */
int ioe_file_resize(struct ioe *e, struct ioe_file *f, uint64_t size_bytes);
/* Allocates; a no-op on block devices. */
int ioe_file_reserve(struct ioe *e, struct ioe_file *f, uint64_t off, uint64_t len);
/* What a sparse file takes on its filesystem. */
uint64_t ioe_file_used_bytes(struct ioe *e, struct ioe_file *f);
/* How much more it may come to take, and what its filesystem has for it and all others. -EINVAL: it is a block device. */
struct ioe_file_space {
	uint64_t fs_id; /* tells filesystems of a machine apart; never 0 */
	uint64_t free_bytes, owed_bytes;
};
int ioe_file_space(struct ioe *e, struct ioe_file *f, struct ioe_file_space *ret_space);

/* The signature of something else on the device (filesystem, partition table, RAID, LVM...), by libblkid: 0 when there is none, else
 * -E_FOREIGN with its name in errmsg. Opens and closes `path` itself. */
int ioe_probe_signature(struct ioe *e, const char *path, char *errmsg);

int ioe_unlink(struct ioe *e, const char *path);
int ioe_rename(struct ioe *e, const char *from, const char *to);
int ioe_mkdir(struct ioe *e, const char *path, uint32_t mode); /* 0 also when it exists */
/* A directory of ours that nobody else can write to; errmsg says what it is instead. Others may have made it: /dev/shm is everybody's. */
int ioe_dir_check_private(struct ioe *e, const char *path, char errmsg[ERRMSG_LEN]);
/* Two names of one file or device; false when one of them leads nowhere. */
bool ioe_path_same(struct ioe *e, const char *a, const char *b);
/* Makes a path (mem_*, or NULL), or those of the "unix:PATH" addresses in a list, independent of the working directory: they may be told to other
 * processes. Other addresses stay as they are. The old texts are freed. */
int ioe_path_make_absolute(char **path);
int ioe_addrs_make_absolute(char **addrs, uint32_t n);
/* Small files as a whole: at most 1 MiB. Reading: *ret_data is NUL-terminated and freed by mem_free. Writing: to a temporary name, fsync,
 * rename, fsync of the directory. */
int ioe_file_load(struct ioe *e, const char *path, char **ret_data, size_t *ret_len);
int ioe_file_store(struct ioe *e, const char *path, const void *data, size_t len, uint32_t mode);

/* Memory that survives this process but not the machine's power: a file on tmpfs, mapped shared. Plain loads and stores. */
struct ioe_shm {
	void *base;
	size_t len_bytes;
};
/* Zeroed; -EEXIST. */
int ioe_shm_create(struct ioe *e, const char *path, size_t len_bytes, struct ioe_shm *ret_shm);
/* As long as it was created; -ENOENT, -EINVAL for what was never finished. */
int ioe_shm_open(struct ioe *e, const char *path, struct ioe_shm *ret_shm);
void ioe_shm_close(struct ioe *e, struct ioe_shm *shm); /* the contents stay */

/* ---- sockets ------------------------------------------------------------------------------------------------------------- */

/* Listens on "unix:PATH" (mode 0600; a stale socket file that nobody answers on is replaced, a live one is -EADDRINUSE) or "HOST:PORT"
 * (port 0: any; ioe_sock_addr tells). */
int ioe_listen(struct ioe *e, const char *addr, struct ioe_sock **ret_s, char *errmsg);
/* NULL: it can be an address; else what one looks like. */
const char *ioe_addr_wrong(const char *addr);
bool ioe_addr_is_local(
    const char *addr); /* whoever listens there is not reached from other machines */
/* The address of a listener, in the form ioe_connect takes. */
void ioe_sock_addr(struct ioe_sock *s, char addr[IOE_ADDR_MAX]);
/* "unix" (with pid) or HOST:PORT, for people. */
void ioe_sock_peer(struct ioe_sock *s, char addr[IOE_ADDR_MAX]);
bool ioe_sock_is_local(struct ioe_sock *s); /* unix socket or loopback peer */
/* Makes every request in flight and every later one end soon (end of stream or error); idempotent. */
void ioe_sock_shutdown(struct ioe *e, struct ioe_sock *s);
/* Nothing in flight; unlinks the path of a unix listener. */
void ioe_sock_close(struct ioe *e, struct ioe_sock *s);

/* Another descriptor of a listener, for a library that accepts on a thread of its own (HTTP); ended by ioe_fd_close, before the listener is closed.
 * -EOPNOTSUPP in simulation. */
int ioe_sock_dup(struct ioe_sock *listener, int *ret_fd);
void ioe_fd_close(int fd);

/* SIGTERM or SIGINT calls fn on the loop, once (real engines; a no-op in simulation). Another one within IOE_HURRY_NS is the same one, sent to a
 * supervisor and to all its processes; a later one comes from somebody in a hurry and ends the process at once, exit status 1: nothing that was
 * acknowledged is lost by that. A SIGINT that is ignored stays so: whoever started us takes care of what comes from the terminal. They are blocked in the calling thread and those it starts later: call this before anything starts threads, or a signal may
 * find one that does not block it and end the process. SIGPIPE is ignored from then on: whoever read our messages may go away before we do. */
#define IOE_HURRY_NS 1000000000ULL
int ioe_on_terminate(struct ioe *e, void (*fn)(void *arg), void *arg);

#endif
