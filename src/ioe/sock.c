/* SPDX-License-Identifier: Apache-2.0 */
/* sock.c - sockets from birth to close: listening, accepting, connecting. */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "src/ioe/host.h"

enum { BACKLOG = 1024 };

static int listen_open(struct sock *s, const struct sock_addr *a, char *errmsg);
static int listen_bind(int fd, const struct sock_addr *a);
static bool unix_answers(const struct sock_addr *a);
static int path_remember(struct sock *s);
static void path_remove(struct sock *s);
static void stream_options(int fd, int family);

static int sock_new(struct ioe *e, int fd, bool is_listener, struct sock **ret_s)
{
	struct sock *s = mem_zalloc(sizeof(*s));

	if (!s)
		return -ENOMEM;
	engine_sock_init(e, &s->base, is_listener);
	s->fd = fd;
	s->in.sock = s->out.sock = s;
	list_init(&s->in.queue);
	list_init(&s->in.link);
	list_init(&s->out.queue);
	list_init(&s->out.link);
	*ret_s = s;
	return 0;
}

void sock_close(struct ioe *e, struct ioe_sock *base)
{
	struct sock *s = sock_of(base);

	(void)e;
	check(list_empty(&s->in.queue) && list_empty(&s->out.queue));
	list_del(&s->in.link);
	list_del(&s->out.link);
	if (s->bound)
		path_remove(s);
	close(s->fd);
	mem_free(s);
}

/* The requests end by themselves: those not in the kernel's hands the next time they are tried, the others because a shut down
 * socket is at its end in both directions. */
void sock_shutdown(struct ioe *e, struct ioe_sock *base)
{
	struct sock *s = sock_of(base);

	if (s->shut)
		return;
	s->shut = true;
	shutdown(s->fd, SHUT_RDWR);
	sock_dir_wake(host_of(e), &s->in);
	sock_dir_wake(host_of(e), &s->out);
}

/* ---- listening -------------------------------------------------------------------------------------------------------- */

int sock_listen(struct ioe *e, const char *addr, struct ioe_sock **ret_s, char *errmsg)
{
	struct sock_addr a;
	struct sock *s;
	int fd, r;

	r = sock_addr_parse(addr, &a);
	if (r) {
		if (errmsg)
			snprintf(errmsg, ERRMSG_LEN,
				 "%s is no address to listen on: unix:PATH or HOST:PORT", addr);
		return r;
	}
	fd = socket(a.ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	r = sock_new(e, fd, true, &s);
	if (r) {
		close(fd);
		return r;
	}
	r = listen_open(s, &a, errmsg);
	if (r) {
		if (errmsg && !errmsg[0])
			snprintf(errmsg, ERRMSG_LEN, "cannot listen on %s: %s", addr, err_text(r));
		sock_close(e, &s->base);
		return r;
	}
	*ret_s = &s->base;
	return 0;
}

static int listen_open(struct sock *s, const struct sock_addr *a, char *errmsg)
{
	struct sock_addr own = {.len = sizeof(own.ss)};
	int r;

	r = listen_bind(s->fd, a);
	if (r == -EADDRINUSE && a->ss.ss_family == AF_UNIX) {
		if (unix_answers(a)) {
			if (errmsg)
				snprintf(errmsg, ERRMSG_LEN, "another process is listening on %s",
					 ((const struct sockaddr_un *)&a->ss)->sun_path);
			return r;
		}
		if (unlink(((const struct sockaddr_un *)&a->ss)->sun_path) && errno != ENOENT)
			return -errno;
		r = listen_bind(s->fd, a);
	}
	if (r)
		return r;
	if (a->ss.ss_family == AF_UNIX) {
		own = *a;
		sock_addr_format(&own, s->base.addr);
		r = path_remember(s);
		if (r)
			return r;
	}
	if (listen(s->fd, BACKLOG))
		return -errno;
	if (a->ss.ss_family != AF_UNIX) {
		if (getsockname(s->fd, (struct sockaddr *)&own.ss, &own.len))
			return -errno;
		sock_addr_format(&own, s->base.addr);
	}
	s->base.is_local = sock_addr_is_local(&own);
	return 0;
}

static int listen_bind(int fd, const struct sock_addr *a)
{
	int one = 1;

	/* the mode of the socket inode is that of the path to be, so there is no moment in which others could connect */
	if (a->ss.ss_family == AF_UNIX && fchmod(fd, 0600))
		return -errno;
	if (a->ss.ss_family != AF_UNIX &&
	    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)))
		return -errno;
	return bind(fd, (const struct sockaddr *)&a->ss, a->len) ? -errno : 0;
}

/* Is there a process behind the path? Only a refused connection says no. Something that is no socket counts as yes: it is not ours to
 * delete. */
static bool unix_answers(const struct sock_addr *a)
{
	const struct sockaddr_un *un = (const struct sockaddr_un *)&a->ss;
	struct stat st;
	bool refused;
	int fd;

	if (lstat(un->sun_path, &st) || !S_ISSOCK(st.st_mode))
		return true;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return true;
	refused = connect(fd, (const struct sockaddr *)&a->ss, a->len) && errno == ECONNREFUSED;
	close(fd);
	return !refused;
}

/* The path is ours as long as it names the inode we made: somebody may replace it later. */
static int path_remember(struct sock *s)
{
	struct stat st;

	if (lstat(s->base.addr + strlen("unix:"), &st))
		return -errno;
	s->bound = true;
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	return 0;
}

static void path_remove(struct sock *s)
{
	const char *path = s->base.addr + strlen("unix:");
	struct stat st;

	if (!lstat(path, &st) && st.st_dev == s->dev && st.st_ino == s->ino)
		unlink(path);
}

int sock_dup(struct ioe_sock *base, int *ret_fd)
{
	int fd = fcntl(sock_of(base)->fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

void ioe_fd_close(int fd)
{
	close(fd);
}

/* ---- connections ------------------------------------------------------------------------------------------------------ */

/* Small replies leave at once; a peer whose machine vanished is noticed within two minutes. */
static void stream_options(int fd, int family)
{
	static const struct {
		int level, name, value;
	} options[] = {
	    {IPPROTO_TCP, TCP_NODELAY, 1},   {SOL_SOCKET, SO_KEEPALIVE, 1},
	    {IPPROTO_TCP, TCP_KEEPIDLE, 60}, {IPPROTO_TCP, TCP_KEEPINTVL, 15},
	    {IPPROTO_TCP, TCP_KEEPCNT, 4},
	};

	if (family == AF_UNIX)
		return;
	for (size_t i = 0; i < ARRAY_LEN(options); i++)
		(void)setsockopt(fd, options[i].level, options[i].name, &options[i].value,
				 sizeof(int));
}

static void peer_describe(struct sock *s, const struct sock_addr *peer)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	s->base.is_local = sock_addr_is_local(peer);
	if (peer->ss.ss_family != AF_UNIX)
		sock_addr_format(peer, s->base.peer);
	else if (!getsockopt(s->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		snprintf(s->base.peer, IOE_ADDR_MAX, "unix (pid %d)", (int)cred.pid);
	else
		snprintf(s->base.peer, IOE_ADDR_MAX, "unix");
}

/* Errors of one connection that died in the queue of the listener: the next one may be fine (accept(2)). */
static bool accept_again(int err)
{
	switch (err) {
	case EINTR:
	case ECONNABORTED:
	case EPROTO:
	case ENETDOWN:
	case ENOPROTOOPT:
	case EHOSTDOWN:
	case ENONET:
	case EHOSTUNREACH:
	case EOPNOTSUPP:
	case ENETUNREACH:
		return true;
	default:
		return false;
	}
}

int sock_accept_try(struct sock *listener, struct ioe_req *r)
{
	struct sock_addr peer = {.len = sizeof(peer.ss)};
	struct sock *s;
	int fd, err;

	do
		fd = accept4(listener->fd, (struct sockaddr *)&peer.ss, &peer.len,
			     SOCK_NONBLOCK | SOCK_CLOEXEC);
	while (fd < 0 && accept_again(errno));
	if (fd < 0)
		return errno == EAGAIN ? 1 : -errno;
	err = sock_new(listener->base.e, fd, false, &s);
	if (err) {
		close(fd);
		return err;
	}
	stream_options(fd, peer.ss.ss_family);
	peer_describe(s, &peer);
	r->ret_sock = &s->base;
	return 0;
}

void sock_connect(struct ioe *e, struct ioe_req *r, const char *addr)
{
	struct sock_addr a;
	struct sock *s;
	int fd, err;

	err = sock_addr_parse(addr, &a);
	if (err) {
		engine_complete(e, r, err);
		return;
	}
	fd = socket(a.ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		engine_complete(e, r, -errno);
		return;
	}
	err = sock_new(e, fd, false, &s);
	if (err) {
		close(fd);
		engine_complete(e, r, err);
		return;
	}
	stream_options(fd, a.ss.ss_family);
	s->peer_addr = a;
	r->sock = &s->base;
	sock_submit(host_of(e), r);
}

/* connect(2) is also the question how it went: 0 or EISCONN once it is established, its error once it failed. A unix listener whose
 * backlog is full says EAGAIN and cannot be waited for: that ends the request. */
int sock_connect_try(struct sock *s)
{
	if (!connect(s->fd, (struct sockaddr *)&s->peer_addr.ss, s->peer_addr.len))
		return 0;
	switch (errno) {
	case EISCONN:
		return 0;
	case EINPROGRESS:
	case EALREADY:
	case EINTR:
		return 1;
	default:
		return -errno;
	}
}

void sock_connect_end(struct ioe_req *r, int status)
{
	struct sock *s = sock_of(r->sock);

	r->sock = NULL;
	if (status) {
		sock_close(s->base.e, &s->base);
		return;
	}
	peer_describe(s, &s->peer_addr);
	r->ret_sock = &s->base;
}
