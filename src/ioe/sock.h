/* SPDX-License-Identifier: Apache-2.0 */
/* sock.h - stream sockets of the engines on a real kernel.
 *
 * A socket has two directions, each with its queue of requests; the head is the one being served. A direction is
 *
 *   idle       no request
 *   to try     on host.dirs: the next sock_dirs_run() makes the system calls, which never block, or leaves it to the engine at once
 *   blocked    the kernel has nothing (or no room). The engine was told by host.arm() and puts the direction back on host.dirs when
 *              that changes. Until then nothing is tried.
 *   armed      uring only: the kernel itself holds the first `armed_n` requests, and their buffers
 *
 * A receive that got less than it asked for leaves the direction blocked: the socket is known to be empty, so the call that would only
 * say EAGAIN is spared. */
#ifndef STRATA_IOE_SOCK_H
#define STRATA_IOE_SOCK_H

#include <sys/socket.h>
#include <sys/stat.h>

#include "src/ioe/engine.h"

struct host;
struct sock;

struct sock_addr {
	struct sockaddr_storage ss;
	socklen_t len;
};

struct sock_dir {
	struct sock *sock;
	struct list queue;
	struct list link; /* on host.dirs */
	bool blocked;
	bool cancelled; /* of those in the kernel some are to end when it gives them back */
	uint32_t armed_n;
};

struct sock {
	struct ioe_sock base;
	int fd;
	bool shut; /* by ioe_sock_shutdown: nothing is tried any more */
	/* The peer's end was seen: an empty socket will not become readable again, so never call it blocked. */
	bool hup;
	bool watched; /* aio: by epoll */
	bool bound;   /* a unix listener that owns its path, while it is (dev, ino) */
	dev_t dev;
	ino_t ino;
	struct sock_dir in, out;
	struct msghdr msg;	    /* of the armed receive */
	struct sock_addr peer_addr; /* CONNECT: where to */
};

/* of a socket request: priv[SOCK_PRIV_IOV] is the first iovec of a send that is not out yet; stage is enum sock_stage */
enum { SOCK_PRIV_IOV = 1 };
enum sock_stage {
	SOCK_QUEUED,
	SOCK_CANCELLED, /* it ends when the kernel gives it back */
};
enum { SOCK_GATHER_MAX = 128 }; /* iovecs of one send */

static inline struct sock *sock_of(struct ioe_sock *s)
{
	return container_of(s, struct sock, base);
}

static inline struct sock_dir *sock_dir_of(struct ioe_req *r)
{
	struct sock *s = sock_of(r->sock);

	return r->op == IOE_RECV || r->op == IOE_ACCEPT ? &s->in : &s->out;
}

static inline struct ioe_req *sock_dir_head(struct sock_dir *d)
{
	return list_first(&d->queue, struct ioe_req, link);
}

/* ---- sock_io.c: requests ---- */
void sock_submit(struct host *h, struct ioe_req *r);
/* What the head of a send queue and those behind it still have to send, as one message: the number of iovecs. */
size_t sock_send_gather(struct sock_dir *d, struct iovec iov[SOCK_GATHER_MAX], size_t *ret_bytes,
			uint32_t *ret_requests);
/* So many of those bytes went out: completes the requests they cover. */
void sock_sent(struct host *h, struct sock_dir *d, size_t bytes);
/* Ends what was cancelled while the kernel had it: the number of requests. */
int sock_cancelled_end(struct host *h, struct sock_dir *d);
/* Puts a direction that has requests on the list to try; `blocked` as it is. */
void sock_dir_wake(struct host *h, struct sock_dir *d);
void sock_dirs_run(struct host *h);
/* The head of d ends with this status. */
void sock_head_done(struct host *h, struct sock_dir *d, int status);
/* True: completed. False: armed, so the engine must get it back from the kernel. */
bool sock_cancel(struct host *h, struct ioe_req *r);
size_t sock_iov_bytes(const struct ioe_req *r);
/* Notes what a receive of any kind got; 0 is the end of the stream. */
void sock_received(struct sock *s, struct ioe_req *r, size_t bytes);

/* ---- sock.c: life ---- */
int sock_listen(struct ioe *e, const char *addr, struct ioe_sock **ret_s, char *errmsg);
void sock_connect(struct ioe *e, struct ioe_req *r, const char *addr);
/* One attempt of an accept or connect: 0, 1 when it would block, or an error */
int sock_accept_try(struct sock *listener, struct ioe_req *r);
int sock_connect_try(struct sock *s);
/* Gives the socket to the caller, or frees it. */
void sock_connect_end(struct ioe_req *r, int status);
int sock_dup(struct ioe_sock *s, int *ret_fd);
void sock_shutdown(struct ioe *e, struct ioe_sock *s);
void sock_close(struct ioe *e, struct ioe_sock *s);

/* ---- sock_addr.c ---- */
int sock_addr_parse(const char *text, struct sock_addr *ret_a); /* 0, -EINVAL, -ENAMETOOLONG */
void sock_addr_format(const struct sock_addr *a, char text[IOE_ADDR_MAX]);
bool sock_addr_is_local(const struct sock_addr *a);

#endif
