/* SPDX-License-Identifier: Apache-2.0 */
/* sim.h - what the parts of the simulated engine share. Private to src/ioe/sim*.
 *
 *   sim_event.c   the queue of events and the trace
 *   sim.c         world, machines, processes; turns; kill and power loss
 *   sim_io.c      requests of a process: disk, timer, work; cancel
 *   sim_fs.c      a machine's names: files, locks
 *   sim_shm.c     shared memory
 *   sim_image.c   the contents of a file
 *   sim_net.c     connections: streams of bytes, cuts, resets
 *   sim_sock.c    socket requests: listen, accept, receive, send
 *   sim_dial.c    connect
 *
 * Who lives how long: the world owns machines, and processes until it is freed itself (a dead one is a small shell, so that using it is
 * noticed). A name holds its inode; so does an open file description, which lives as long as the handle of the process or a request
 * the kernel holds, whichever is longer, and carries the lock. */
#ifndef STRATA_IOE_SIM_H
#define STRATA_IOE_SIM_H

#include "src/base/rand.h"
#include "src/ioe/engine.h"
#include "src/ioe/ioe_sim.h"
#include "src/ioe/sim_image.h"
#include "src/ioe/sim_mem.h"

struct sim_inode;
struct sim_conn;

/* ---- events ------------------------------------------------------------------------------------------------------------ */

struct sim_event {
	void (*fire)(struct sim_world *w, struct sim_event *ev);
	size_t slot; /* in the heap, from 1; 0: not scheduled */
};

struct sim_due {
	uint64_t at_ns, seq;
	struct sim_event *ev;
};

struct sim_queue {
	struct sim_due *heap; /* [1..n] */
	size_t n, room;
	uint64_t seq;
};

/* ev is not scheduled; a past time means now. */
void sim_schedule(struct sim_world *w, struct sim_event *ev, uint64_t at_ns);
void sim_unschedule(struct sim_world *w, struct sim_event *ev); /* harmless when it is not */
/* The earliest; NULL when empty. */
struct sim_event *sim_queue_pop(struct sim_queue *q, uint64_t *ret_at_ns);

static inline bool sim_is_scheduled(const struct sim_event *ev)
{
	return ev->slot != 0;
}

/* ---- world, machines, processes ---------------------------------------------------------------------------------------- */

struct sim_world {
	struct sim_config cfg; /* with the defaults filled in */
	struct rand rand;
	uint64_t now_ns;
	struct sim_queue queue;
	uint64_t events;
	uint64_t trace_hash;
	void (*trace)(void *arg, const struct sim_trace *t);
	void *trace_arg;
	bool is_stepping;
	bool is_ending; /* sim_world_free(): the memory of processes is not touched any more */
	struct list machines;
	struct list procs; /* living */
	struct list dead;
	uint32_t last_pid, last_port;
	struct list conns; /* connections, oldest first */
	struct list addrs; /* HOST:PORT that were ever listened on */
	struct list cuts;
};

struct sim_machine {
	struct list link;
	struct sim_world *w;
	char *name;
	struct uuid boot_id;
	uint64_t clock_ns, wall_ns; /* what its clocks are ahead of the world's */
	bool is_off;		    /* from a power loss until the next process starts */
	struct list names;	    /* struct sim_name, oldest first */
	struct list inodes;
	struct sim_disk_traits traits;
	uint64_t quota_bytes;
	int (*fault)(void *arg, const char *path, const struct ioe_req *r);
	void *fault_arg;
	uint64_t (*delay_ns)(void *arg, const char *path, const struct ioe_req *r);
	void *delay_arg;
};

struct sim_proc {
	struct ioe e; /* first */
	struct list link;
	struct sim_machine *m;
	struct sim_world *w;
	char *name;
	uint32_t pid;
	struct rand rand;
	void (*on_kill)(void *arg);
	void *on_kill_arg;
	bool is_dead;
	bool in_turn;
	struct sim_event turn;
	uint64_t busy_until_ns;
	uint64_t callbacks;  /* run so far */
	struct list queued;  /* requests of this turn, not yet pushed */
	struct list waiting; /* disk requests pushed beyond the depth the kernel takes */
	struct list ops;     /* what the kernel holds for it */
	uint32_t disk_n;     /* disk requests among them */
	struct list files, maps, socks, dials;
};

extern const struct ioe_ops sim_ops;

static inline struct sim_proc *sim_proc_of(struct ioe *e)
{
	return container_of(e, struct sim_proc, e);
}

/* There is something for a turn to do: it comes as soon as the process is not busy. */
void sim_wake(struct sim_proc *p);
/* Empties a list of requests or hooks of a process that is ending. */
void sim_forget(struct sim_proc *p, struct list *l);
/* From the clock of the process to the world's. */
uint64_t sim_world_ns(const struct sim_proc *p, uint64_t clock_ns);
/* Completes a request of a living process. */
void sim_complete(struct sim_proc *p, struct ioe_req *r, int status);
uint64_t sim_latency(struct sim_world *w, uint64_t min_ns, uint64_t max_ns);
/* Adds what happened to the trace; p and path may be NULL. */
void sim_note(struct sim_world *w, const char *what, const struct sim_proc *p, const char *path,
	      uint64_t off, uint64_t len, int status);

/* ---- requests ---------------------------------------------------------------------------------------------------------- */

/* A request the kernel holds: everything but what waits on a socket. priv[1] of the request points here, NULL until pushed; priv[2] is,
 * of a WRITE or PUNCH that landed, its landing number, and of an FSYNC the landing number up to which it covers. */
struct sim_op {
	struct sim_event ev;
	struct list link;	/* in sim_proc.ops */
	struct list inode_link; /* in sim_inode.in_flight */
	struct sim_proc *p;	/* NULL: its process is dead */
	struct ioe_req *r;	/* of a dead process: a copy, followed by the data of a write */
	struct sim_ofd *ofd;	/* disk requests */
	uint32_t crc;		/* of a write's data, which may not change while it is in flight */
};

void sim_submit(struct ioe *e, struct ioe_req *r);
void sim_cancel(struct ioe *e, struct ioe_req *r);
void sim_push(struct sim_proc *p);
/* The process is dead: its disk requests land later on their own, everything else is forgotten. */
void sim_ops_orphan(struct sim_proc *p);
/* Its machine lost power, its processes are dead: decides what became of everything that is not durable. */
void sim_inode_power_loss(struct sim_inode *ino);
void sim_ops_free(struct sim_inode *ino); /* orphans that will not land */

/* ---- files ------------------------------------------------------------------------------------------------------------- */

struct sim_inode {
	struct list link; /* in sim_machine.inodes */
	struct sim_machine *m;
	uint32_t refs; /* names and open file descriptions */
	char *path;    /* the name it was last known by, for faults and the trace */
	bool is_block_device;
	char *signature; /* what sim_disk_sign() put there */
	struct sim_image img;
	struct list in_flight; /* struct sim_op */
	struct sim_ofd *locked_by;
};

enum sim_name_kind { SIM_FILE, SIM_DIR, SIM_SHM, SIM_SOCKET };

struct sim_name {
	struct list link;
	enum sim_name_kind kind;
	char *path;
	struct sim_inode *ino;	   /* FILE */
	struct sim_shm *shm;	   /* SHM */
	struct sim_sock *listener; /* SOCKET: NULL when nobody answers any more */
};

/* open file description */
struct sim_ofd {
	struct sim_inode *ino;
	uint32_t refs; /* the handle and the requests in flight */
	uint32_t pid;
};

struct sim_file {
	struct ioe_file f; /* first */
	struct list link;  /* in sim_proc.files */
	struct sim_ofd *ofd;
	bool is_direct;
};

struct sim_shm {
	uint32_t refs; /* the name and the mappings */
	size_t len_bytes;
	void *base;
};

static inline struct sim_file *sim_file_of(struct ioe_file *f)
{
	return container_of(f, struct sim_file, f);
}

struct sim_name *sim_name_find(struct sim_machine *m, const char *path);
struct sim_name *sim_name_new(struct sim_machine *m, const char *path, enum sim_name_kind kind);
void sim_name_free(struct sim_name *n);
void sim_ofd_put(struct sim_ofd *ofd);
bool sim_quota_allows(const struct sim_inode *ino, uint64_t off, uint64_t len);
void sim_fs_close_all(struct sim_proc *p); /* the handles and mappings of a process that ended */
void sim_fs_power_loss(struct sim_machine *m);
void sim_fs_free(struct sim_machine *m);

void sim_shm_put(struct sim_shm *shm);
void sim_shm_close_all(struct sim_proc *p);

int sim_file_open(struct ioe *e, const char *path, int flags, struct ioe_file **ret_f, char *errmsg);
void sim_file_close(struct ioe *e, struct ioe_file *f);
void sim_file_info(struct ioe_file *f, struct ioe_file_info *ret_info);
int sim_file_resize(struct ioe *e, struct ioe_file *f, uint64_t size_bytes);
int sim_file_reserve(struct ioe *e, struct ioe_file *f, uint64_t off, uint64_t len);
uint64_t sim_file_used_bytes(struct ioe *e, struct ioe_file *f);
int sim_file_space(struct ioe *e, struct ioe_file *f, struct ioe_file_space *ret_space);
int sim_probe_signature(struct ioe *e, const char *path, char *errmsg);
int sim_unlink(struct ioe *e, const char *path);
int sim_rename(struct ioe *e, const char *from, const char *to);
int sim_check_private(struct ioe *e, const char *path, char *errmsg);
bool sim_same(struct ioe *e, const char *a, const char *b);
int sim_mkdir(struct ioe *e, const char *path, uint32_t mode);
int sim_file_load(struct ioe *e, const char *path, char **ret_data, size_t *ret_len);
int sim_file_store(struct ioe *e, const char *path, const void *data, size_t len, uint32_t mode);
int sim_shm_create(struct ioe *e, const char *path, size_t len_bytes, struct ioe_shm *ret_shm);
int sim_shm_open(struct ioe *e, const char *path, struct ioe_shm *ret_shm);
void sim_shm_close(struct ioe *e, struct ioe_shm *shm);

/* ---- network ----------------------------------------------------------------------------------------------------------- */

/* One direction of a connection: from end[i] to end[1 - i]. */
struct sim_pipe {
	struct sim_event ev; /* the first piece under way arrives; not scheduled while it is held */
	struct sim_conn *conn;
	struct list under_way; /* struct piece, in order */
	struct list arrived;   /* and not yet received */
	uint64_t bytes;	       /* in both: what the window is measured by */
	uint64_t arrived_bytes;
	uint64_t last_at_ns;	 /* arrival of the last piece */
	bool has_fin, has_reset; /* were sent: no data follow */
};

enum sim_end_state {
	SIM_END_PENDING, /* not yet accepted, or the answer to the connect is under way */
	SIM_END_OPEN,
	SIM_END_CLOSED, /* answers with a reset */
	SIM_END_SILENT, /* its machine lost power: answers nothing */
};

struct sim_end {
	enum sim_end_state state;
	struct sim_machine *m;
	struct sim_sock *sock; /* when OPEN */
	bool at_eof;	       /* the peer's end of stream arrived */
	bool is_reset;	       /* a reset arrived */
	bool is_shut;	       /* by ioe_sock_shutdown() */
};

struct sim_conn {
	struct list link; /* in sim_world.conns */
	struct list backlog_link;
	struct sim_world *w;
	struct sim_end end[2]; /* 0 connected, 1 accepted */
	struct sim_pipe pipe[2];
};

struct sim_sock {
	struct ioe_sock s; /* first */
	struct list link;  /* in sim_proc.socks */
	struct sim_proc *p;
	/* a stream; NULL after its process died */
	struct sim_conn *conn;
	int side;
	struct list receives, sends; /* requests in order */
	/* a listener */
	struct list accepts, backlog; /* requests; struct sim_conn */
	uint32_t backlog_n;
	struct sim_name *name; /* on "unix:PATH" */
	struct sim_addr *addr; /* on HOST:PORT */
	bool is_shut;
};

/* HOST:PORT, forever the machine's that listened on it last */
struct sim_addr {
	struct list link;
	struct sim_machine *m;
	struct sim_sock *listener; /* NULL: nobody now */
	char text[IOE_ADDR_MAX];
};

static inline struct sim_sock *sim_sock_of(struct ioe_sock *s)
{
	return container_of(s, struct sim_sock, s);
}

/* ---- sim_net.c: connections ---- */
void sim_net_init(struct sim_world *w);
void sim_net_free(struct sim_world *w);
void sim_net_power_loss(struct sim_machine *m); /* its ends of connections fall silent */
void sim_net_power_on(struct sim_machine *m);	/* and now answer with resets */
bool sim_net_is_cut(const struct sim_machine *a, const struct sim_machine *b);
uint64_t sim_net_latency(const struct sim_machine *a, const struct sim_machine *b);

struct sim_conn *sim_conn_new(struct sim_machine *client, struct sim_machine *server);
size_t sim_conn_room(const struct sim_conn *c, int side); /* in the window */
/* Sends len bytes, at most what there is room for; the caller fills them in at once. */
void *sim_conn_send(struct sim_conn *c, int side, size_t len);
/* Gives what has arrived: bytes given. */
size_t sim_conn_recv(struct sim_conn *c, int side, void *buf, size_t len);
uint64_t sim_conn_arrived(const struct sim_conn *c, int side); /* bytes to receive */
void sim_conn_shutdown(struct sim_conn *c, int side);
/* The end is gone: in good order, unless received bytes were left unread. Its socket is no longer known; c may be freed. */
void sim_conn_close(struct sim_conn *c, int side);
/* Cuts what is under way from this end at a random byte, and lets a reset follow. */
void sim_conn_reset(struct sim_conn *c, int side);

/* ---- sim_sock.c: requests ---- */
/* Something changed: serves what can be served. NULL is fine. */
void sim_sock_progress(struct sim_sock *s);
void sim_sock_push(struct sim_proc *p, struct ioe_req *r);
void sim_socks_close(struct sim_proc *p); /* orderly */
void sim_socks_reset(struct sim_proc *p); /* the process was killed */
void sim_socks_free(struct sim_proc *p);  /* the memory of either */
/* The end of a connection becomes a socket of its process; NULL: no memory. */
struct sim_sock *sim_sock_attach(struct sim_proc *p, struct sim_conn *c, int side, const char *peer);
int sim_listen(struct ioe *e, const char *addr, struct ioe_sock **ret_s, char *errmsg);
void sim_sock_shutdown(struct ioe *e, struct ioe_sock *s);
void sim_sock_close(struct ioe *e, struct ioe_sock *s);

/* ---- sim_dial.c: connecting ---- */
void sim_connect(struct ioe *e, struct ioe_req *r, const char *addr);
void sim_connect_push(struct sim_proc *p, struct ioe_req *r);
void sim_connect_cancel(struct sim_proc *p, struct ioe_req *r);
void sim_dials_free(struct sim_proc *p);
struct sim_addr *sim_addr_find(struct sim_world *w, const char *text); /* or NULL */

#endif
