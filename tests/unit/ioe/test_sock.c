/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets on every engine: unix and TCP. */
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/mem.h"
#include "tests/lib/ioe_fixture.h"
#include "tests/lib/skip.h"

enum { MIB = 1024 * 1024 };

static const char *unix_addr(struct ioe_fixture *fx, const char *name)
{
	static char addr[IOE_ADDR_MAX];

	snprintf(addr, sizeof(addr), "unix:%s", ioe_fixture_path(fx, name));
	return addr;
}

static void close_both(struct ioe_fixture *fx, struct ioe_sock *ends[2])
{
	ioe_sock_close(fx->e, ends[0]);
	ioe_sock_close(fx->e, ends[1]);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------------ */

static void talk(struct ioe_fixture *fx, const char *addr)
{
	struct ioe_sock *ends[2];
	char text[32];

	ioe_fixture_pair(fx, addr, ends);
	assert_int_equal(ioe_sync_send(fx, ends[0], "hello", 5), 0);
	assert_int_equal(ioe_sync_recv(fx, ends[1], text, 5), 5);
	assert_memory_equal(text, "hello", 5);
	assert_int_equal(ioe_sync_send(fx, ends[1], "and back", 8), 0);
	assert_int_equal(ioe_sync_recv(fx, ends[0], text, 8), 8);
	assert_memory_equal(text, "and back", 8);
	assert_true(ioe_sock_is_local(ends[0]));
	assert_true(ioe_sock_is_local(ends[1]));
	close_both(fx, ends);
}

static void unix_connections_carry_bytes(void **state)
{
	talk(*state, "unix");
}

static void tcp_connections_carry_bytes(void **state)
{
	talk(*state, "127.0.0.1:0");
}

static void tcp_v6_connections_carry_bytes(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_sock *s;

	if (ioe_listen(fx->e, "[::1]:0", &s, NULL))
		skip_because("there is no ::1 here");
	ioe_sock_close(fx->e, s);
	talk(fx, "[::1]:0");
}

static void nothing_completes_before_the_loop_runs(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_wait sent = {0}, received = {0};
	char text[5] = "text", got[5] = "";
	struct iovec out = {text, 4}, in = {got, 4};
	struct ioe_sock *ends[2];

	ioe_fixture_pair(fx, "unix", ends);
	ioe_send(fx->e, &sent.req, ends[0], &out, 1, ioe_wait_done);
	assert_int_equal(sent.calls, 0);
	assert_int_equal(ioe_wait_for(fx, &sent), 0);
	ioe_run_for(fx, 5 * 1000 * 1000);
	ioe_recv(fx->e, &received.req, ends[1], &in, 1, ioe_wait_done); /* the data is there */
	assert_int_equal(received.calls, 0);
	assert_int_equal(ioe_wait_for(fx, &received), 0);
	assert_int_equal(received.req.got, 4);
	assert_string_equal(got, "text");
	ioe_run_for(fx, 1000 * 1000);
	assert_int_equal(sent.calls, 1);
	assert_int_equal(received.calls, 1);
	close_both(fx, ends);
}

static void a_receive_waits_and_takes_what_there_is(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_wait w = {0};
	char a[3], b[100];
	struct iovec iov[2] = {{a, sizeof(a)}, {b, sizeof(b)}};
	struct ioe_sock *ends[2];

	ioe_fixture_pair(fx, "unix", ends);
	for (int round = 0; round < 3; round++) {
		memset(&w, 0, sizeof(w));
		iov[0] = (struct iovec){a, sizeof(a)};
		iov[1] = (struct iovec){b, sizeof(b)};
		ioe_recv(fx->e, &w.req, ends[1], iov, 2, ioe_wait_done);
		ioe_run_for(fx, 5 * 1000 * 1000);
		assert_int_equal(w.calls, 0);
		assert_int_equal(ioe_sync_send(fx, ends[0], "scattered", 9), 0);
		assert_int_equal(ioe_wait_for(fx, &w), 0);
		assert_true(w.req.got >= 1);
		assert_memory_equal(a, "scattered", w.req.got < 3 ? w.req.got : 3);
		if (w.req.got < 9) {
			char rest[9];

			assert_int_equal(ioe_sync_recv(fx, ends[1], rest, 9 - w.req.got),
					 9 - w.req.got);
		} else {
			assert_memory_equal(b, "ttered", 6);
		}
	}
	close_both(fx, ends);
}

static void the_end_of_the_stream_is_zero_bytes(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_sock *ends[2];
	char text[8];

	for (int with_data = 0; with_data < 2; with_data++) {
		ioe_fixture_pair(fx, with_data ? "unix" : "127.0.0.1:0", ends);
		if (with_data)
			assert_int_equal(ioe_sync_send(fx, ends[0], "last", 4), 0);
		ioe_sock_close(fx->e, ends[0]);
		ioe_run_for(fx, 5 * 1000 * 1000);
		if (with_data)
			assert_int_equal(ioe_sync_recv(fx, ends[1], text, 4), 4);
		assert_int_equal(ioe_sync_recv(fx, ends[1], text, 8), 0);
		assert_int_equal(ioe_sync_recv(fx, ends[1], text, 8), 0); /* and stays so */
		ioe_sock_close(fx->e, ends[1]);
	}
}

static void a_waiting_receive_ends_when_the_peer_does(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_sock *ends[2];
	struct ioe_wait w = {0};
	char text[8];
	struct iovec iov = {text, 8};

	ioe_fixture_pair(fx, "unix", ends);
	ioe_recv(fx->e, &w.req, ends[1], &iov, 1, ioe_wait_done);
	ioe_run_for(fx, 5 * 1000 * 1000);
	ioe_sock_close(fx->e, ends[0]);
	assert_int_equal(ioe_wait_for(fx, &w), 0);
	assert_int_equal(w.req.got, 0);
	ioe_sock_close(fx->e, ends[1]);
}

static void sending_to_nobody_is_an_error_and_no_signal(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_sock *ends[2];
	int r = 0;

	ioe_fixture_pair(fx, "unix", ends);
	ioe_sock_close(fx->e, ends[0]);
	for (int i = 0; i < 10 && r == 0; i++) {
		r = ioe_sync_send(fx, ends[1], "x", 1);
		ioe_run_for(fx, 5 * 1000 * 1000);
	}
	assert_true(r == -EPIPE || r == -ECONNRESET);
	ioe_sock_close(fx->e, ends[1]);
}

/* ---- much ------------------------------------------------------------------------------------------------------------- */

static uint8_t byte_at(size_t i)
{
	return (uint8_t)(i * 2654435761u >> 11);
}

/* More than any socket buffer: the send waits for the reader again and again, and is one request. */
static void large_send(struct ioe_fixture *fx, const char *addr)
{
	const size_t len = 5 * MIB + 123;
	uint8_t *out = mem_alloc(len), *in = mem_alloc(len);
	struct iovec pieces[3] = {{out, 7}, {out + 7, 0}, {out + 7, len - 7}};
	struct ioe_wait w = {0};
	struct ioe_sock *ends[2];

	for (size_t i = 0; i < len; i++)
		out[i] = byte_at(i);
	ioe_fixture_pair(fx, addr, ends);
	ioe_send(fx->e, &w.req, ends[0], pieces, 3, ioe_wait_done);
	ioe_run_for(fx, 5 * 1000 * 1000);
	assert_int_equal(ioe_sync_recv(fx, ends[1], in, len), len);
	assert_int_equal(ioe_wait_for(fx, &w), 0);
	assert_memory_equal(in, out, len);
	close_both(fx, ends);
	mem_free(in);
	mem_free(out);
}

static void a_large_send_over_unix(void **state)
{
	large_send(*state, "unix");
}

static void a_large_send_over_tcp(void **state)
{
	large_send(*state, "127.0.0.1:0");
}

/* Queued sends keep their order and each completes, whatever the pieces. */
static void many_sends_keep_their_order(void **state)
{
	enum { N = 3000, LEN_MAX = 700 };
	struct ioe_fixture *fx = *state;
	struct ioe_wait *w = mem_zalloc_array(N, sizeof(*w));
	struct iovec(*iov)[3] = mem_zalloc_array(N, sizeof(*iov));
	uint8_t *out = mem_alloc((size_t)N * LEN_MAX), *in = mem_alloc((size_t)N * LEN_MAX);
	struct ioe_sock *ends[2];
	size_t total = 0;

	for (size_t i = 0; i < (size_t)N * LEN_MAX; i++)
		out[i] = byte_at(i);
	ioe_fixture_pair(fx, "unix", ends);
	for (int i = 0; i < N; i++) {
		for (int k = 0; k < 3; k++) {
			size_t len = (size_t)(i * 7 + k * 13) % (LEN_MAX / 3);

			iov[i][k] = (struct iovec){out + total, len};
			total += len;
		}
		ioe_send(fx->e, &w[i].req, ends[0], iov[i], i % 4, ioe_wait_done);
		if (i % 4 < 3) /* the unused ones are not sent */
			for (int k = i % 4; k < 3; k++)
				total -= iov[i][k].iov_len;
	}
	assert_int_equal(ioe_sync_recv(fx, ends[1], in, total), total);
	assert_memory_equal(in, out, total);
	for (int i = 0; i < N; i++)
		assert_int_equal(ioe_wait_for(fx, &w[i]), 0);
	close_both(fx, ends);
	mem_free(in);
	mem_free(out);
	mem_free(iov);
	mem_free(w);
}

static void many_receives_keep_their_order(void **state)
{
	enum { N = 64 };
	struct ioe_fixture *fx = *state;
	struct ioe_wait w[N] = {0};
	struct iovec iov[N];
	uint8_t in[N], out[N];
	struct ioe_sock *ends[2];

	ioe_fixture_pair(fx, "unix", ends);
	for (int i = 0; i < N; i++) {
		out[i] = (uint8_t)i;
		iov[i] = (struct iovec){&in[i], 1};
		ioe_recv(fx->e, &w[i].req, ends[1], &iov[i], 1, ioe_wait_done);
	}
	assert_int_equal(ioe_sync_send(fx, ends[0], out, N), 0);
	for (int i = 0; i < N; i++) {
		assert_int_equal(ioe_wait_for(fx, &w[i]), 0);
		assert_int_equal(w[i].req.got, 1);
	}
	assert_memory_equal(in, out, N);
	close_both(fx, ends);
}

/* More sockets with something to do in one turn than a ring has entries, each with more pieces than one message takes. */
static void many_sockets_in_one_turn(void **state)
{
	enum { PAIRS = 400, PIECES = 300 };
	struct ioe_fixture *fx = *state;
	struct side {
		struct ioe_sock *ends[2];
		struct ioe_wait send[2], recv[2];
		struct iovec out[2][PIECES], in[2];
		uint8_t got[2][PIECES];
	} *x = mem_zalloc_array(PAIRS, sizeof(*x));
	uint8_t text[PIECES];

	for (int i = 0; i < PIECES; i++)
		text[i] = byte_at((size_t)i);
	for (int i = 0; i < PAIRS; i++)
		ioe_fixture_pair(fx, "unix", x[i].ends);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < PAIRS; i++) {
			for (int k = 0; k < 2; k++) {
				for (int j = 0; j < PIECES; j++)
					x[i].out[k][j] = (struct iovec){&text[j], 1};
				x[i].in[k] = (struct iovec){x[i].got[k], PIECES};
				x[i].send[k].calls = x[i].recv[k].calls = 0;
				ioe_send(fx->e, &x[i].send[k].req, x[i].ends[k], x[i].out[k],
					 PIECES, ioe_wait_done);
				ioe_recv(fx->e, &x[i].recv[k].req, x[i].ends[k], &x[i].in[k], 1,
					 ioe_wait_done);
			}
		}
		for (int i = 0; i < PAIRS; i++) {
			for (int k = 0; k < 2; k++) {
				size_t have;

				assert_int_equal(ioe_wait_for(fx, &x[i].send[k]), 0);
				assert_int_equal(ioe_wait_for(fx, &x[i].recv[k]), 0);
				have = x[i].recv[k].req.got;
				assert_int_equal(ioe_sync_recv(fx, x[i].ends[k], x[i].got[k] + have,
							       PIECES - have),
						 PIECES - have);
				assert_memory_equal(x[i].got[k], text, PIECES);
			}
		}
	}
	for (int i = 0; i < PAIRS; i++)
		close_both(fx, x[i].ends);
	mem_free(x);
}

struct echo {
	struct ioe_req recv, send;
	struct ioe *e;
	struct ioe_sock *s;
	struct iovec iov;
	char buf[4096];
	uint64_t bytes;
	bool over;
};

static void echo_received(struct ioe_req *r);

static void echo_sent(struct ioe_req *r)
{
	struct echo *x = container_of(r, struct echo, send);

	if (r->status) {
		x->over = true;
		return;
	}
	x->iov = (struct iovec){x->buf, sizeof(x->buf)};
	ioe_recv(x->e, &x->recv, x->s, &x->iov, 1, echo_received);
}

static void echo_received(struct ioe_req *r)
{
	struct echo *x = container_of(r, struct echo, recv);

	if (r->status || r->got == 0) {
		x->over = true;
		return;
	}
	x->bytes += r->got;
	x->iov = (struct iovec){x->buf, r->got};
	ioe_send(x->e, &x->send, x->s, &x->iov, 1, echo_sent);
}

/* Two ends that throw a ball as fast as they can keep the loop busy all the time; timers and files have their turn all the same. */
static void busy_sockets_do_not_starve_the_rest(void **state)
{
	enum { PAIRS = 8 };
	struct ioe_fixture *fx = *state;
	struct echo *x = mem_zalloc_array(2 * PAIRS, sizeof(*x));
	struct ioe_file *f = ioe_fixture_file(fx, "f", 4096);
	struct ioe_wait timer = {0}, sync = {0};
	uint64_t begin_ns;

	for (int i = 0; i < PAIRS; i++) {
		struct ioe_sock *ends[2];

		ioe_fixture_pair(fx, "unix", ends);
		for (int k = 0; k < 2; k++) {
			x[2 * i + k].e = fx->e;
			x[2 * i + k].s = ends[k];
		}
		x[2 * i].iov = (struct iovec){x[2 * i].buf, sizeof(x->buf)};
		ioe_send(fx->e, &x[2 * i].send, ends[0], &x[2 * i].iov, 1, echo_sent);
		x[2 * i + 1].iov = (struct iovec){x[2 * i + 1].buf, sizeof(x->buf)};
		ioe_recv(fx->e, &x[2 * i + 1].recv, ends[1], &x[2 * i + 1].iov, 1, echo_received);
	}
	begin_ns = ioe_now_ns(fx->e);
	ioe_timer(fx->e, &timer.req, begin_ns + 30 * 1000 * 1000, ioe_wait_done);
	ioe_fsync(fx->e, &sync.req, f, ioe_wait_done);
	assert_int_equal(ioe_wait_for(fx, &timer), 0);
	assert_int_equal(ioe_wait_for(fx, &sync), 0);
	assert_true(ioe_now_ns(fx->e) - begin_ns < 5ULL * 1000 * 1000 * 1000);
	for (int i = 0; i < 2 * PAIRS; i++) {
		while (x[i].bytes == 0)
			ioe_poll(fx->e, UINT64_MAX);
		ioe_sock_shutdown(fx->e, x[i].s);
	}
	for (int i = 0; i < 2 * PAIRS; i++) {
		while (!x[i].over)
			ioe_poll(fx->e, UINT64_MAX);
		ioe_sock_close(fx->e, x[i].s);
	}
	ioe_file_close(fx->e, f);
	mem_free(x);
}

/* ---- listening and connecting ----------------------------------------------------------------------------------------- */

static void a_listener_takes_many_and_early_connections(void **state)
{
	enum { N = 50 };
	struct ioe_fixture *fx = *state;
	struct ioe_wait c[N] = {0}, a[N] = {0};
	struct ioe_sock *listener;
	char addr[IOE_ADDR_MAX];

	assert_int_equal(ioe_listen(fx->e, unix_addr(fx, "s"), &listener, NULL), 0);
	ioe_sock_addr(listener, addr);
	for (int i = 0; i < N; i++) {
		ioe_connect(fx->e, &c[i].req, addr, ioe_wait_done);
		memset(addr, 0, sizeof(addr)); /* the text was copied */
		ioe_sock_addr(listener, addr);
		assert_int_equal(c[i].calls, 0);
	}
	ioe_run_for(fx, 5 * 1000 * 1000);
	for (int i = 0; i < N; i++)
		ioe_accept(fx->e, &a[i].req, listener, ioe_wait_done);
	for (int i = 0; i < N; i++) {
		assert_int_equal(a[i].calls, 0);
		assert_int_equal(ioe_wait_for(fx, &c[i]), 0);
	}
	for (int i = 0; i < N; i++) {
		assert_int_equal(ioe_wait_for(fx, &a[i]), 0);
		ioe_sock_close(fx->e, a[i].req.ret_sock);
		ioe_sock_close(fx->e, c[i].req.ret_sock);
	}
	ioe_sock_close(fx->e, listener);
}

static void connecting_to_nobody_is_refused(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_sock *s = NULL;
	char addr[IOE_ADDR_MAX];

	assert_int_equal(ioe_sync_connect(fx, unix_addr(fx, "nothing"), &s), -ENOENT);
	assert_int_equal(ioe_listen(fx->e, "127.0.0.1:0", &s, NULL), 0);
	ioe_sock_addr(s, addr);
	ioe_sock_close(fx->e, s);
	s = NULL;
	assert_int_equal(ioe_sync_connect(fx, addr, &s), -ECONNREFUSED);
	assert_null(s);
}

static void malformed_addresses_are_refused(void **state)
{
	static const char *const bad[] = {
	    "",
	    "unix:",
	    "127.0.0.1",
	    "127.0.0.1:",
	    "127.0.0.1:65536",
	    "127.0.0.1:-1",
	    "127.0.0.1:1 ",
	    "1.2.3:80",
	    "localhost:80",
	    "::1:80",
	    "[::1]",
	    "[::1]80",
	    "[::1:80",
	    "]:80",
	    ":80",
	    "[]:80",
	    "[127.0.0.1]:80",
	    "tcp:127.0.0.1:80",
	    "256.1.1.1:80",
	    "1.2.3.4:0x50",
	    "127.0.0.1:99999999999999999999",
	};
	struct ioe_fixture *fx = *state;
	char errmsg[ERRMSG_LEN], long_path[300];
	struct ioe_sock *s;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		if (ioe_sync_connect(fx, bad[i], &s) != -EINVAL ||
		    ioe_listen(fx->e, bad[i], &s, errmsg) != -EINVAL)
			fail_msg("\"%s\" was taken", bad[i]);
		assert_true(strlen(errmsg) > 0);
	}
	memset(long_path, 'x', sizeof(long_path));
	memcpy(long_path, "unix:/", 6);
	long_path[sizeof(long_path) - 1] = '\0';
	assert_int_equal(ioe_sync_connect(fx, long_path, &s), -ENAMETOOLONG);
	assert_int_equal(ioe_listen(fx->e, long_path, &s, errmsg), -ENAMETOOLONG);
}

static void two_listeners_on_one_address_are_one_too_many(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_sock *a, *b;
	char addr[IOE_ADDR_MAX], errmsg[ERRMSG_LEN];

	assert_int_equal(ioe_listen(fx->e, unix_addr(fx, "s"), &a, errmsg), 0);
	assert_int_equal(ioe_listen(fx->e, unix_addr(fx, "s"), &b, errmsg), -EADDRINUSE);
	assert_true(strlen(errmsg) > 0);
	ioe_sock_close(fx->e, a);
	assert_int_equal(ioe_listen(fx->e, unix_addr(fx, "s"), &a, errmsg),
			 0); /* it took its path along */
	ioe_sock_close(fx->e, a);
	assert_int_equal(ioe_listen(fx->e, "127.0.0.1:0", &a, errmsg), 0);
	ioe_sock_addr(a, addr);
	assert_int_equal(ioe_listen(fx->e, addr, &b, errmsg), -EADDRINUSE);
	ioe_sock_close(fx->e, a);
}

/* A socket file as a killed process leaves it. */
static void socket_file_make(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	close(fd);
}

static void a_stale_socket_is_replaced_and_nothing_else(void **state)
{
	struct ioe_fixture *fx = *state;
	const char *path = ioe_fixture_path(fx, "s");
	struct ioe_sock *s, *c = NULL;
	struct stat st;
	FILE *f;

	socket_file_make(path);
	assert_int_equal(ioe_listen(fx->e, unix_addr(fx, "s"), &s, NULL), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(ioe_sync_connect(fx, unix_addr(fx, "s"), &c), 0);
	ioe_sock_close(fx->e, c);
	/* a path that somebody else has taken meanwhile is not ours to remove */
	assert_int_equal(unlink(path), 0);
	f = fopen(path, "w");
	fclose(f);
	ioe_sock_close(fx->e, s);
	assert_int_equal(stat(path, &st), 0);
	/* and a file is no stale socket */
	assert_int_equal(ioe_listen(fx->e, unix_addr(fx, "s"), &s, NULL), -EADDRINUSE);
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(ioe_listen(fx->e, "unix:/no/such/dir/s", &s, NULL), -ENOENT);
}

static void peers_have_names(void **state)
{
	struct ioe_fixture *fx = *state;
	char peer[IOE_ADDR_MAX], pid[32];
	struct ioe_sock *ends[2], *s;

	ioe_fixture_pair(fx, "unix", ends);
	ioe_sock_peer(ends[1], peer);
	snprintf(pid, sizeof(pid), "pid %d", (int)getpid());
	assert_int_equal(strncmp(peer, "unix", 4), 0);
	if (fx->engine != ON_SIM)
		assert_non_null(strstr(peer, pid));
	close_both(fx, ends);
	ioe_fixture_pair(fx, "127.0.0.1:0", ends);
	ioe_sock_peer(ends[1], peer);
	if (fx->engine != ON_SIM) /* which calls machines by their names */
		assert_int_equal(strncmp(peer, "127.0.0.1:", 10), 0);
	assert_true(strlen(peer) > 0);
	close_both(fx, ends);
	assert_int_equal(ioe_listen(fx->e, "0.0.0.0:0", &s, NULL), 0);
	assert_false(ioe_sock_is_local(s));
	ioe_sock_close(fx->e, s);
}

/* ---- cancel, shutdown, close ------------------------------------------------------------------------------------------ */

static void waiting_requests_can_be_cancelled(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_wait recv[3] = {0}, accept = {0}, send = {0};
	char text[8];
	struct iovec iov[3] = {{text, 8}, {text, 8}, {text, 8}},
		     big = {mem_zalloc(32 * MIB), 32 * MIB};
	struct ioe_sock *ends[2], *listener;
	void *big_buf = big.iov_base;

	ioe_fixture_pair(fx, "unix", ends);
	assert_int_equal(ioe_listen(fx->e, unix_addr(fx, "l"), &listener, NULL), 0);
	for (int i = 0; i < 3; i++)
		ioe_recv(fx->e, &recv[i].req, ends[1], &iov[i], 1, ioe_wait_done);
	ioe_accept(fx->e, &accept.req, listener, ioe_wait_done);
	ioe_send(fx->e, &send.req, ends[1], &big, 1, ioe_wait_done); /* nobody reads */
	ioe_run_for(fx, 5 * 1000 * 1000);
	ioe_cancel(fx->e, &recv[1].req);
	ioe_cancel(fx->e, &recv[0].req);
	ioe_cancel(fx->e, &recv[0].req);
	ioe_cancel(fx->e, &accept.req);
	ioe_cancel(fx->e, &send.req);
	assert_int_equal(recv[0].calls + recv[1].calls + accept.calls + send.calls, 0);
	/* a simulated engine is free to be too late: then they end by the shutdown */
	ioe_run_for(fx, 5 * 1000 * 1000);
	if (fx->engine != ON_SIM) {
		assert_int_equal(recv[0].req.status, -ECANCELED);
		assert_int_equal(recv[1].req.status, -ECANCELED);
		assert_int_equal(accept.req.status, -ECANCELED);
		assert_int_equal(send.req.status, -ECANCELED);
		assert_int_equal(ioe_sync_send(fx, ends[0], "abc", 3),
				 0); /* the third is still there */
		assert_int_equal(ioe_wait_for(fx, &recv[2]), 0);
		assert_int_equal(recv[2].req.got, 3);
	}
	ioe_sock_shutdown(fx->e, ends[1]);
	ioe_sock_shutdown(fx->e, listener);
	for (int i = 0; i < 3; i++)
		ioe_wait_for(fx, &recv[i]);
	ioe_wait_for(fx, &accept);
	ioe_wait_for(fx, &send);
	close_both(fx, ends);
	ioe_sock_close(fx->e, listener);
	mem_free(big_buf);
}

/* Two full sockets at once, so that an engine that batches has both batches in the kernel. The first request may get out. */
static void queued_sends_can_be_cancelled(void **state)
{
	enum { N = 6, LEN = 150 * 1000 };
	struct ioe_fixture *fx = *state;
	struct ioe_wait w[2][N] = {0};
	struct iovec iov[2][N];
	uint8_t *buf[2][N];
	struct ioe_sock *ends[2][2];

	for (int p = 0; p < 2; p++) {
		ioe_fixture_pair(fx, "unix", ends[p]);
		for (int i = 0; i < N; i++) {
			buf[p][i] = mem_zalloc(LEN);
			iov[p][i] = (struct iovec){buf[p][i], LEN};
		}
	}
	for (int p = 0; p < 2; p++)
		for (int i = 0; i < N; i++)
			ioe_send(fx->e, &w[p][i].req, ends[p][0], &iov[p][i], 1, ioe_wait_done);
	ioe_run_for(fx, 10 * 1000 * 1000);
	for (int p = 0; p < 2; p++) {
		ioe_cancel(fx->e, &w[p][3].req);
		ioe_cancel(fx->e, &w[p][1].req);
		ioe_run_for(fx, (uint64_t)p * 5 * 1000 * 1000);
		ioe_cancel(fx->e, &w[p][1].req);
		ioe_cancel(fx->e, &w[p][2].req);
		ioe_cancel(fx->e, &w[p][0].req);
	}
	ioe_run_for(fx, 10 * 1000 * 1000);
	for (int p = 0; p < 2; p++) {
		for (int i = 1; i < 4; i++)
			assert_int_equal(ioe_wait_for(fx, &w[p][i]), -ECANCELED);
		assert_int_equal(w[p][4].calls + w[p][5].calls, 0);
		ioe_sock_shutdown(fx->e, ends[p][0]);
		for (int i = 0; i < N; i++) {
			int r = ioe_wait_for(fx, &w[p][i]);

			assert_true(r < 0 || i == 0);
			mem_free(buf[p][i]); /* the engine has let go of it */
		}
		close_both(fx, ends[p]);
	}
}

static void cancels_before_the_push(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_wait recv = {0}, conn = {0}, conn_tcp = {0};
	char text[8];
	struct iovec iov = {text, 8};
	struct ioe_sock *ends[2];

	ioe_fixture_pair(fx, "unix", ends);
	ioe_recv(fx->e, &recv.req, ends[1], &iov, 1, ioe_wait_done);
	ioe_cancel(fx->e, &recv.req);
	ioe_connect(fx->e, &conn.req, unix_addr(fx, "s"), ioe_wait_done);
	ioe_cancel(fx->e, &conn.req);
	ioe_connect(fx->e, &conn_tcp.req, "127.0.0.1:1", ioe_wait_done);
	ioe_cancel(fx->e, &conn_tcp.req);
	assert_int_equal(recv.calls + conn.calls + conn_tcp.calls, 0);
	assert_int_equal(ioe_wait_for(fx, &recv), -ECANCELED);
	assert_int_equal(ioe_wait_for(fx, &conn), -ECANCELED);
	assert_int_equal(ioe_wait_for(fx, &conn_tcp), -ECANCELED);
	close_both(fx, ends);
}

/* 192.0.2.0/24 is for documentation: nothing answers, if there is a route at all. */
static void a_hanging_connect_can_be_cancelled(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_wait w = {0};
	int r;

	ioe_connect(fx->e, &w.req, "192.0.2.1:9", ioe_wait_done);
	ioe_run_for(fx, 20 * 1000 * 1000);
	ioe_cancel(fx->e, &w.req);
	r = ioe_wait_for(fx, &w);
	assert_true(r < 0);
	assert_null(w.req.ret_sock);
}

static void a_cancelled_receive_loses_no_data(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_sock *ends[2];
	uint8_t next_out = 0, next_in = 0;

	ioe_fixture_pair(fx, "unix", ends);
	for (int i = 0; i < 300; i++) {
		struct ioe_wait w = {0}, s = {0};
		uint8_t buf[4];
		struct iovec in = {buf, 1}, out = {&next_out, 1};

		ioe_recv(fx->e, &w.req, ends[1], &in, 1, ioe_wait_done);
		if (i % 3 == 0)
			ioe_poll(fx->e, 0);
		ioe_send(fx->e, &s.req, ends[0], &out, 1, ioe_wait_done);
		if (i % 2)
			ioe_poll(fx->e, 0);
		ioe_cancel(fx->e, &w.req);
		assert_int_equal(ioe_wait_for(fx, &s), 0);
		if (ioe_wait_for(fx, &w) == -ECANCELED)
			assert_int_equal(ioe_sync_recv(fx, ends[1], buf, 1), 1);
		assert_int_equal(buf[0], next_in);
		next_in++;
		next_out++;
	}
	close_both(fx, ends);
}

static void shutdown_ends_what_waits_and_what_comes(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_wait recv[2] = {0}, send = {0}, accept = {0}, later = {0};
	char text[8];
	struct iovec iov[2] = {{text, 8}, {text, 8}}, big = {mem_zalloc(32 * MIB), 32 * MIB};
	struct ioe_sock *ends[2], *listener;
	void *big_buf = big.iov_base;

	for (int tcp = 0; tcp < 2; tcp++) {
		memset(recv, 0, sizeof(recv));
		memset(&send, 0, sizeof(send));
		memset(&accept, 0, sizeof(accept));
		memset(&later, 0, sizeof(later));
		big = (struct iovec){big_buf, 32 * MIB};
		ioe_fixture_pair(fx, tcp ? "127.0.0.1:0" : "unix", ends);
		assert_int_equal(ioe_listen(fx->e, tcp ? "127.0.0.1:0" : unix_addr(fx, "l"),
					    &listener, NULL),
				 0);
		ioe_recv(fx->e, &recv[0].req, ends[1], &iov[0], 1, ioe_wait_done);
		ioe_recv(fx->e, &recv[1].req, ends[1], &iov[1], 1, ioe_wait_done);
		ioe_send(fx->e, &send.req, ends[1], &big, 1, ioe_wait_done);
		ioe_accept(fx->e, &accept.req, listener, ioe_wait_done);
		ioe_run_for(fx, 5 * 1000 * 1000);
		assert_int_equal(recv[0].calls + send.calls + accept.calls, 0);
		ioe_sock_shutdown(fx->e, ends[1]);
		ioe_sock_shutdown(fx->e, ends[1]);
		ioe_sock_shutdown(fx->e, listener);
		assert_int_equal(recv[0].calls + send.calls + accept.calls, 0);
		ioe_wait_for(fx, &recv[0]);
		ioe_wait_for(fx, &recv[1]);
		assert_true(recv[0].req.status < 0 || recv[0].req.got == 0);
		assert_true(recv[1].req.status < 0 || recv[1].req.got == 0);
		assert_true(ioe_wait_for(fx, &send) < 0);
		assert_true(ioe_wait_for(fx, &accept) < 0);
		iov[0] = (struct iovec){text, 8};
		ioe_recv(fx->e, &later.req, ends[1], &iov[0], 1, ioe_wait_done);
		ioe_wait_for(fx, &later);
		assert_true(later.req.status < 0 || later.req.got == 0);
		assert_true(ioe_sync_send(fx, ends[1], "x", 1) < 0);
		memset(&later, 0, sizeof(later));
		ioe_accept(fx->e, &later.req, listener, ioe_wait_done);
		assert_true(ioe_wait_for(fx, &later) < 0);
		close_both(fx, ends);
		ioe_sock_close(fx->e, listener);
	}
	mem_free(big_buf);
}

/* A peer that goes on sending does not keep a shut down socket alive. */
static void shutdown_ends_a_receive_that_has_data(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_sock *ends[2];
	char text[8];

	ioe_fixture_pair(fx, "unix", ends);
	for (int i = 0; i < 10; i++)
		assert_int_equal(ioe_sync_send(fx, ends[0], "12345678", 8), 0);
	ioe_run_for(fx, 5 * 1000 * 1000);
	ioe_sock_shutdown(fx->e, ends[1]);
	for (int i = 0; i < 11; i++)
		if (ioe_sync_recv(fx, ends[1], text, 8) <= 0)
			break;
	assert_true(ioe_sync_recv(fx, ends[1], text, 8) <= 0);
	close_both(fx, ends);
}

/* ---- shortage --------------------------------------------------------------------------------------------------------- */

static void without_descriptors_requests_fail_and_the_listener_lives(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_wait a = {0}, c = {0}, c2 = {0};
	struct rlimit old, few;
	struct ioe_sock *listener;
	char addr[IOE_ADDR_MAX];
	int spare;

	assert_int_equal(ioe_listen(fx->e, unix_addr(fx, "s"), &listener, NULL), 0);
	ioe_sock_addr(listener, addr);
	ioe_connect(fx->e, &c.req, addr, ioe_wait_done);
	assert_int_equal(ioe_wait_for(fx, &c), 0);
	spare = dup(0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = (struct rlimit){.rlim_cur = (rlim_t)spare, .rlim_max = old.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	ioe_accept(fx->e, &a.req, listener, ioe_wait_done);
	ioe_connect(fx->e, &c2.req, addr, ioe_wait_done);
	ioe_wait_count(fx, &a.calls, 1);
	ioe_wait_count(fx, &c2.calls, 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	close(spare);
	assert_int_equal(a.req.status, -EMFILE);
	assert_int_equal(c2.req.status, -EMFILE);
	memset(&a, 0, sizeof(a));
	ioe_accept(fx->e, &a.req, listener, ioe_wait_done);
	assert_int_equal(ioe_wait_for(fx, &a), 0);
	ioe_sock_close(fx->e, a.req.ret_sock);
	ioe_sock_close(fx->e, c.req.ret_sock);
	ioe_sock_close(fx->e, listener);
}

/* Fails the first, second, third ... allocation until all goes well; whatever did not go well has left nothing behind. */
static void without_memory_requests_fail(void **state)
{
	struct ioe_fixture *fx = *state;
	uint64_t live = mem_live(), n;
	bool ok = false;

	for (n = 0; !ok && n < 20; n++) {
		struct ioe_wait a = {0}, c = {0};
		struct ioe_sock *listener;
		int r;

		mem_fail_at(n, 1);
		r = ioe_listen(fx->e, unix_addr(fx, "s"), &listener, NULL);
		if (r) {
			mem_fail_at(UINT64_MAX, 0);
			assert_int_equal(r, -ENOMEM);
			assert_int_equal(mem_live(), live);
			continue;
		}
		ioe_accept(fx->e, &a.req, listener, ioe_wait_done);
		ioe_connect(fx->e, &c.req, unix_addr(fx, "s"), ioe_wait_done);
		ioe_wait_count(fx, &c.calls, 1);
		ioe_run_for(fx, 1000 * 1000);
		mem_fail_at(UINT64_MAX, 0);
		ok = a.calls == 1 && a.req.status == 0 && c.req.status == 0;
		assert_true(c.req.status == 0 || c.req.status == -ENOMEM);
		if (!a.calls)
			ioe_cancel(fx->e, &a.req);
		ioe_wait_for(fx, &a);
		assert_true(a.req.status == 0 || a.req.status == -ENOMEM ||
			    a.req.status == -ECANCELED);
		if (a.req.status == 0)
			ioe_sock_close(fx->e, a.req.ret_sock);
		if (c.req.status == 0)
			ioe_sock_close(fx->e, c.req.ret_sock);
		ioe_sock_close(fx->e, listener);
		assert_int_equal(mem_live(), live);
	}
	assert_true(ok);
	assert_true(n > 3);
}

int main(void)
{
	static const struct ioe_test tests[] = {
	    {"unix connections carry bytes", unix_connections_carry_bytes, ON_ALL},
	    {"TCP connections carry bytes", tcp_connections_carry_bytes, ON_ALL},
	    {"TCP connections over v6 carry bytes", tcp_v6_connections_carry_bytes, ON_ALL},
	    {"nothing completes before the loop runs", nothing_completes_before_the_loop_runs,
	     ON_ALL},
	    {"a receive waits and takes what there is", a_receive_waits_and_takes_what_there_is,
	     ON_ALL},
	    {"the end of the stream is zero bytes", the_end_of_the_stream_is_zero_bytes, ON_ALL},
	    {"a waiting receive ends when the peer does", a_waiting_receive_ends_when_the_peer_does,
	     ON_ALL},
	    {"sending to nobody is an error", sending_to_nobody_is_an_error_and_no_signal, ON_ALL},
	    {"a large send over unix", a_large_send_over_unix, ON_ALL},
	    {"a large send over TCP", a_large_send_over_tcp, ON_ALL},
	    {"many sends keep their order", many_sends_keep_their_order, ON_ALL},
	    {"many receives keep their order", many_receives_keep_their_order, ON_ALL},
	    {"many sockets in one turn", many_sockets_in_one_turn, ON_ALL},
	    {"busy sockets do not starve the rest", busy_sockets_do_not_starve_the_rest, ON_ALL},
	    {"a listener takes many and early connections",
	     a_listener_takes_many_and_early_connections, ON_ALL},
	    {"connecting to nobody is refused", connecting_to_nobody_is_refused, ON_ALL},
	    {"malformed addresses are refused", malformed_addresses_are_refused, ON_ALL},
	    {"two listeners on one address", two_listeners_on_one_address_are_one_too_many, ON_ALL},
	    {"a stale socket is replaced", a_stale_socket_is_replaced_and_nothing_else, ON_REAL},
	    {"peers have names", peers_have_names, ON_ALL},
	    {"waiting requests can be cancelled", waiting_requests_can_be_cancelled, ON_ALL},
	    {"queued sends can be cancelled", queued_sends_can_be_cancelled, ON_ALL},
	    {"cancels before the push", cancels_before_the_push, ON_ALL},
	    {"a hanging connect can be cancelled", a_hanging_connect_can_be_cancelled, ON_ALL},
	    {"a cancelled receive loses no data", a_cancelled_receive_loses_no_data, ON_ALL},
	    {"shutdown ends what waits and what comes", shutdown_ends_what_waits_and_what_comes,
	     ON_ALL},
	    {"shutdown ends a receive that has data", shutdown_ends_a_receive_that_has_data, ON_ALL},
	    {"without descriptors requests fail",
	     without_descriptors_requests_fail_and_the_listener_lives, ON_REAL},
	    {"without memory requests fail", without_memory_requests_fail, ON_REAL},
	};

	return ioe_suite_run(tests, ARRAY_LEN(tests));
}
