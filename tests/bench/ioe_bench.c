/* SPDX-License-Identifier: Apache-2.0 */
/* ioe_bench.c - what the I/O engine costs, next to the plainest code that does the same.
 *
 *   ioe_bench [file|echo|sock]... [seconds=N] [spin=NANOSECONDS]
 *
 * file: random 4 KiB reads and writes of a 256 MiB file on /dev/shm and /tmp at queue depth 1 and 32; "plain" is pread/pwrite in a loop.
 * echo: one thread throws 64 bytes from one end of a unix connection to the other: send, receive, again. QD connections at once. No other
 *       thread is woken, so the difference to "plain" is the engine alone.
 * sock: a client sends 28-byte requests over a unix socket and keeps QD of them open, each answered by 16 + 4096 bytes; "plain" is a
 * thread with blocking recv and sendmsg. The CPU is the server's alone. One line per case: operations a second, CPU time per operation. */
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "src/ioe/ioe.h"

enum { BLOCK = 4096, QD_MAX = 32, REQUEST = 28, REPLY = 16 + BLOCK, CONNS_MAX = 16 };
#define FILE_BYTES (256ULL << 20)

static double seconds = 1;
static uint64_t spin_ns;
static const char *const kinds[] = {"plain", "uring", "aio"};
enum { PLAIN, URING, AIO };

static uint64_t clock_of(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static struct ioe *engine(int kind)
{
	struct ioe_config cfg = {.kind = kind == URING ? IOE_URING : IOE_AIO, .spin_ns = spin_ns};
	struct ioe *e;

	if (ioe_new(&cfg, &e)) {
		fprintf(stderr, "%s is not to be had\n", kinds[kind]);
		exit(77);
	}
	return e;
}

static void report(const char *what, int kind, int qd, int conns, uint64_t ops, uint64_t wall_ns,
		   uint64_t cpu_ns)
{
	printf("%-18s %-6s qd=%-3d conns=%-3d %8.1f kops/s %7.0f ns CPU/op\n", what, kinds[kind],
	       qd, conns, (double)ops * 1e6 / (double)wall_ns, (double)cpu_ns / (double)ops);
	fflush(stdout);
}

/* ---- file ------------------------------------------------------------------------------------------------------------- */

struct slot {
	struct ioe_req req;
	struct file_run *run;
	void *buf;
};

struct file_run {
	struct ioe *e;
	struct ioe_file *f;
	bool is_write;
	uint64_t ops, end_ns, random;
	int open;
	struct slot slots[QD_MAX];
};

static uint64_t next_off(uint64_t *random)
{
	*random = *random * 6364136223846793005ULL + 1442695040888963407ULL;
	return (*random >> 33) % (FILE_BYTES / BLOCK) * BLOCK;
}

static void slot_done(struct ioe_req *r);

static void slot_go(struct slot *s)
{
	struct file_run *run = s->run;

	if (run->is_write)
		ioe_write(run->e, &s->req, run->f, next_off(&run->random), s->buf, BLOCK, slot_done);
	else
		ioe_read(run->e, &s->req, run->f, next_off(&run->random), s->buf, BLOCK, slot_done);
}

static void slot_done(struct ioe_req *r)
{
	struct slot *s = container_of(r, struct slot, req);

	if (r->status) {
		fprintf(stderr, "%s\n", err_text(r->status));
		exit(1);
	}
	s->run->ops++;
	if (ioe_now_ns(s->run->e) < s->run->end_ns)
		slot_go(s);
	else
		s->run->open--;
}

static uint64_t file_engine(int kind, const char *path, bool is_write, int qd)
{
	struct file_run *run = mem_zalloc(sizeof(*run));
	uint64_t ops;

	run->e = engine(kind);
	run->is_write = is_write;
	run->random = 1;
	if (ioe_file_open(run->e, path, 0, &run->f, NULL))
		exit(1);
	run->end_ns = ioe_now_ns(run->e) + (uint64_t)(seconds * 1e9);
	for (int i = 0; i < qd; i++) {
		run->slots[i].run = run;
		run->slots[i].buf = mem_alloc_aligned(BLOCK, BLOCK);
		memset(run->slots[i].buf, i, BLOCK);
		run->open++;
		slot_go(&run->slots[i]);
	}
	while (run->open > 0)
		ioe_poll(run->e, UINT64_MAX);
	ops = run->ops;
	ioe_file_close(run->e, run->f);
	ioe_free(run->e);
	for (int i = 0; i < qd; i++)
		mem_free(run->slots[i].buf);
	mem_free(run);
	return ops;
}

static uint64_t file_plain(const char *path, bool is_write)
{
	uint64_t end_ns = clock_of(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9), random = 1,
		 ops = 0;
	void *buf = mem_alloc_aligned(BLOCK, BLOCK);
	int fd = open(path, O_RDWR | (strncmp(path, "/dev/shm", 8) ? O_DIRECT : 0));

	memset(buf, 1, BLOCK);
	for (; clock_of(CLOCK_MONOTONIC) < end_ns; ops++) {
		off_t off = (off_t)next_off(&random);

		if ((is_write ? pwrite(fd, buf, BLOCK, off) : pread(fd, buf, BLOCK, off)) != BLOCK)
			exit(1);
	}
	close(fd);
	mem_free(buf);
	return ops;
}

static void file_make(const char *path)
{
	char *buf = mem_zalloc(1 << 20);
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR, 0600);

	for (uint64_t at = 0; at < FILE_BYTES; at += 1 << 20)
		if (pwrite(fd, buf, 1 << 20, (off_t)at) != 1 << 20)
			exit(1);
	fsync(fd);
	close(fd);
	mem_free(buf);
}

static void bench_file(void)
{
	static const char *const dirs[] = {"/dev/shm", "/tmp"};

	for (size_t d = 0; d < ARRAY_LEN(dirs); d++) {
		char path[64], what[80];

		snprintf(path, sizeof(path), "%s/ioe_bench.%d", dirs[d], (int)getpid());
		file_make(path);
		for (int w = 0; w < 2; w++)
			for (int qd = 1; qd <= QD_MAX; qd += QD_MAX - 1)
				for (int kind = qd > 1 ? URING : PLAIN; kind <= AIO; kind++) {
					uint64_t wall = clock_of(CLOCK_MONOTONIC),
						 cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID);
					uint64_t ops = kind == PLAIN
							   ? file_plain(path, w)
							   : file_engine(kind, path, w, qd);

					snprintf(what, sizeof(what), "%s %s", dirs[d],
						 w ? "write" : "read");
					report(what, kind, qd, 0, ops,
					       clock_of(CLOCK_MONOTONIC) - wall,
					       clock_of(CLOCK_PROCESS_CPUTIME_ID) - cpu);
				}
		unlink(path);
	}
}

/* ---- echo ------------------------------------------------------------------------------------------------------------- */

struct echo {
	struct ioe_req send, recv;
	struct echo_run *run;
	struct ioe_sock *from, *to;
	struct iovec out_iov, in_iov;
	char out[64], in[4096];
};

struct echo_run {
	struct ioe *e;
	uint64_t ops, end_ns;
	int open;
	struct echo echoes[QD_MAX];
};

static void echo_received(struct ioe_req *r);

static void echo_sent(struct ioe_req *r)
{
	check(r->status == 0);
}

static void echo_go(struct echo *x)
{
	x->out_iov = (struct iovec){x->out, sizeof(x->out)};
	x->in_iov = (struct iovec){x->in, sizeof(x->in)};
	ioe_send(x->run->e, &x->send, x->from, &x->out_iov, 1, echo_sent);
	ioe_recv(x->run->e, &x->recv, x->to, &x->in_iov, 1, echo_received);
}

static void echo_received(struct ioe_req *r)
{
	struct echo *x = container_of(r, struct echo, recv);

	check(r->status == 0 && r->got == sizeof(x->out));
	x->run->ops++;
	if (ioe_now_ns(x->run->e) < x->run->end_ns)
		echo_go(x);
	else
		x->run->open--;
}

static void pair_connected(struct ioe_req *r)
{
	check(r->status == 0);
}

static uint64_t echo_engine(int kind, int qd)
{
	struct echo_run *run = mem_zalloc(sizeof(*run));
	struct ioe_sock *listener;
	char addr[IOE_ADDR_MAX];
	uint64_t ops;

	run->e = engine(kind);
	snprintf(addr, sizeof(addr), "unix:/tmp/ioe_bench.%d.sock", (int)getpid());
	if (ioe_listen(run->e, addr, &listener, NULL))
		exit(1);
	for (int i = 0; i < qd; i++) {
		struct echo *x = &run->echoes[i];

		x->run = run;
		ioe_connect(run->e, &x->send, addr, pair_connected);
		ioe_accept(run->e, &x->recv, listener, pair_connected);
		while (ioe_poll(run->e, ioe_now_ns(run->e) + 1000 * 1000) > 0)
			;
		x->from = x->send.ret_sock;
		x->to = x->recv.ret_sock;
	}
	run->end_ns = ioe_now_ns(run->e) + (uint64_t)(seconds * 1e9);
	for (; run->open < qd; run->open++)
		echo_go(&run->echoes[run->open]);
	while (run->open > 0)
		ioe_poll(run->e, UINT64_MAX);
	ops = run->ops;
	for (int i = 0; i < qd; i++) {
		ioe_sock_close(run->e, run->echoes[i].from);
		ioe_sock_close(run->e, run->echoes[i].to);
	}
	ioe_sock_close(run->e, listener);
	ioe_free(run->e);
	mem_free(run);
	return ops;
}

static uint64_t echo_plain(void)
{
	uint64_t end_ns = clock_of(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9), ops = 0;
	char out[64] = {0}, in[4096];
	int fds[2];

	check(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	for (; clock_of(CLOCK_MONOTONIC) < end_ns; ops++) {
		check(send(fds[0], out, sizeof(out), 0) == sizeof(out));
		check(recv(fds[1], in, sizeof(in), 0) == sizeof(out));
	}
	close(fds[0]);
	close(fds[1]);
	return ops;
}

static void bench_echo(void)
{
	for (int qd = 1; qd <= QD_MAX; qd += QD_MAX - 1)
		for (int kind = qd > 1 ? URING : PLAIN; kind <= AIO; kind++) {
			uint64_t wall = clock_of(CLOCK_MONOTONIC),
				 cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID);
			uint64_t ops = kind == PLAIN ? echo_plain() : echo_engine(kind, qd);

			report("echo", kind, qd, 0, ops, clock_of(CLOCK_MONOTONIC) - wall,
			       clock_of(CLOCK_PROCESS_CPUTIME_ID) - cpu);
		}
}

/* ---- sock: server ----------------------------------------------------------------------------------------------------- */

struct conn {
	struct ioe *e;
	struct ioe_sock *s;
	int fd;
	int *alive;
	struct ioe_req recv;
	struct iovec in_iov;
	size_t have;
	char in[65536];
	struct reply {
		struct ioe_req req;
		struct iovec iov[2];
		struct conn *c;
	} replies[QD_MAX];
	uint32_t free[QD_MAX], free_n;
};

static char header[16], data[BLOCK];

static void conn_received(struct ioe_req *r);

static void conn_receive(struct conn *c)
{
	c->in_iov = (struct iovec){c->in + c->have, sizeof(c->in) - c->have};
	ioe_recv(c->e, &c->recv, c->s, &c->in_iov, 1, conn_received);
}

static void reply_sent(struct ioe_req *r)
{
	struct reply *p = container_of(r, struct reply, req);

	p->c->free[p->c->free_n++] = (uint32_t)(p - p->c->replies);
}

/* Each reply is a request of its own, as a target would have it. */
static void conn_received(struct ioe_req *r)
{
	struct conn *c = container_of(r, struct conn, recv);
	size_t at = 0;

	if (r->status || r->got == 0) {
		ioe_sock_shutdown(c->e, c->s);
		if (--*c->alive == 0)
			ioe_stop(c->e);
		return;
	}
	for (c->have += r->got; c->have - at >= REQUEST; at += REQUEST) {
		struct reply *p;

		check(c->free_n > 0);
		p = &c->replies[c->free[--c->free_n]];
		p->iov[0] = (struct iovec){header, sizeof(header)};
		p->iov[1] = (struct iovec){data, sizeof(data)};
		ioe_send(c->e, &p->req, c->s, p->iov, 2, reply_sent);
	}
	c->have -= at;
	memmove(c->in, c->in + at, c->have);
	conn_receive(c);
}

struct acceptor {
	struct ioe_req req;
	struct ioe *e;
	struct ioe_sock *listener;
	struct conn **conns;
	int conns_n, alive;
};

static void accepted(struct ioe_req *r)
{
	struct acceptor *a = container_of(r, struct acceptor, req);
	struct conn *c = a->conns[a->alive++];

	check(r->status == 0);
	c->e = a->e;
	c->s = r->ret_sock;
	c->alive = &a->alive;
	for (uint32_t i = 0; i < QD_MAX; i++) {
		c->replies[i].c = c;
		c->free[c->free_n++] = i;
	}
	conn_receive(c);
	if (a->alive < a->conns_n)
		ioe_accept(a->e, &a->req, a->listener, accepted);
}

static void serve_engine(int kind, const char *path, struct conn **conns, int conns_n)
{
	struct acceptor a = {.e = engine(kind), .conns = conns, .conns_n = conns_n};
	char addr[IOE_ADDR_MAX];

	snprintf(addr, sizeof(addr), "unix:%s", path);
	if (ioe_listen(a.e, addr, &a.listener, NULL))
		exit(1);
	ioe_accept(a.e, &a.req, a.listener, accepted);
	ioe_run(a.e);
	for (int i = 0; i < conns_n; i++)
		ioe_sock_close(a.e, conns[i]->s);
	ioe_sock_close(a.e, a.listener);
	ioe_free(a.e);
}

static void *serve_plain_conn(void *arg)
{
	struct conn *c = arg;
	struct iovec iov[2 * QD_MAX];
	ssize_t n;

	while ((n = recv(c->fd, c->in + c->have, sizeof(c->in) - c->have, 0)) > 0) {
		struct msghdr m = {.msg_iov = iov};
		size_t at = 0;

		for (c->have += (size_t)n; c->have - at >= REQUEST; at += REQUEST) {
			iov[m.msg_iovlen++] = (struct iovec){header, sizeof(header)};
			iov[m.msg_iovlen++] = (struct iovec){data, sizeof(data)};
		}
		c->have -= at;
		memmove(c->in, c->in + at, c->have);
		for (size_t left = m.msg_iovlen / 2 * REPLY; left > 0;) {
			n = sendmsg(c->fd, &m, MSG_NOSIGNAL);
			if (n < 0)
				return NULL;
			left -= (size_t)n;
			check(left == 0); /* a blocking unix socket takes it whole */
		}
	}
	close(c->fd);
	return NULL;
}

static int unix_socket(const char *path, struct sockaddr_un *un)
{
	*un = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(un->sun_path, sizeof(un->sun_path), "%s", path);
	return socket(AF_UNIX, SOCK_STREAM, 0);
}

static void serve_plain(const char *path, struct conn **conns, int conns_n)
{
	struct sockaddr_un un;
	int fd = unix_socket(path, &un);
	pthread_t ids[CONNS_MAX];

	if (bind(fd, (struct sockaddr *)&un, sizeof(un)) || listen(fd, CONNS_MAX))
		exit(1);
	for (int i = 0; i < conns_n; i++) {
		conns[i]->fd = accept(fd, NULL, NULL);
		pthread_create(&ids[i], NULL, serve_plain_conn, conns[i]);
	}
	for (int i = 0; i < conns_n; i++)
		pthread_join(ids[i], NULL);
	close(fd);
	unlink(path);
}

/* ---- sock: client ----------------------------------------------------------------------------------------------------- */

struct client {
	const char *path;
	int qd;
	uint64_t ops, end_ns;
};

static void *client_main(void *arg)
{
	struct client *c = arg;
	struct sockaddr_un un;
	int fd = unix_socket(c->path, &un), open_n = 0;
	char request[REQUEST] = {0}, *in = mem_alloc(QD_MAX * REPLY);
	size_t have = 0;

	while (connect(fd, (struct sockaddr *)&un, sizeof(un)))
		usleep(1000);
	for (; open_n < c->qd; open_n++)
		check(send(fd, request, REQUEST, 0) == REQUEST);
	while (open_n > 0) {
		ssize_t n = recv(fd, in, QD_MAX * REPLY, 0);

		check(n > 0);
		have += (size_t)n;
		for (; have >= REPLY; have -= REPLY) {
			c->ops++;
			open_n--;
			if (clock_of(CLOCK_MONOTONIC) < c->end_ns) {
				check(send(fd, request, REQUEST, 0) == REQUEST);
				open_n++;
			}
		}
	}
	close(fd);
	mem_free(in);
	return NULL;
}

static void bench_sock_case(int kind, int qd, int conns_n)
{
	char path[64];
	struct client clients[CONNS_MAX];
	pthread_t ids[CONNS_MAX];
	uint64_t wall, ops = 0;
	struct rusage use;
	int status;
	pid_t pid;

	snprintf(path, sizeof(path), "/tmp/ioe_bench.%d.sock", (int)getpid());
	pid = fork();
	if (pid == 0) {
		struct conn *conns[CONNS_MAX];

		for (int i = 0; i < conns_n; i++)
			conns[i] = mem_zalloc(sizeof(struct conn));
		if (kind == PLAIN)
			serve_plain(path, conns, conns_n);
		else
			serve_engine(kind, path, conns, conns_n);
		_exit(0);
	}
	wall = clock_of(CLOCK_MONOTONIC);
	for (int i = 0; i < conns_n; i++) {
		clients[i] = (struct client){.path = path,
					     .qd = qd,
					     .end_ns = wall + (uint64_t)(seconds * 1e9)};
		pthread_create(&ids[i], NULL, client_main, &clients[i]);
	}
	for (int i = 0; i < conns_n; i++) {
		pthread_join(ids[i], NULL);
		ops += clients[i].ops;
	}
	wall = clock_of(CLOCK_MONOTONIC) - wall;
	wait4(pid, &status, 0, &use);
	if (status)
		exit(1);
	report("unix socket", kind, qd, conns_n, ops, wall,
	       (uint64_t)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1000000000 +
		   (uint64_t)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) * 1000);
}

static void bench_sock(void)
{
	for (int conns = 1; conns <= 8; conns *= 8)
		for (int qd = 1; qd <= QD_MAX; qd += QD_MAX - 1)
			for (int kind = PLAIN; kind <= AIO; kind++)
				bench_sock_case(kind, qd, conns);
}

int main(int argc, char **argv)
{
	bool file = false, echo = false, sock = false, all;

	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "seconds=", 8))
			seconds = strtod(argv[i] + 8, NULL);
		else if (!strncmp(argv[i], "spin=", 5))
			spin_ns = strtoull(argv[i] + 5, NULL, 10);
		else if (!strcmp(argv[i], "file"))
			file = true;
		else if (!strcmp(argv[i], "echo"))
			echo = true;
		else if (!strcmp(argv[i], "sock"))
			sock = true;
		else
			return fprintf(
				   stderr,
				   "usage: %s [file|echo|sock]... [seconds=N] [spin=NANOSECONDS]\n",
				   argv[0]),
			       2;
	}
	all = !file && !echo && !sock;
	if (file || all)
		bench_file();
	if (echo || all)
		bench_echo();
	if (sock || all)
		bench_sock();
	return 0;
}
