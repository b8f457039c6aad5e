/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated network: streams, back-pressure, cuts, resets, and what peers see of a death. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/mem.h"
#include "src/base/rand.h"
#include "tests/lib/sim_fixture.h"

#define ADDR	  "10.0.0.1:9000"
#define SECOND_NS ((uint64_t)1000 * 1000 * 1000)
enum { KIB = 1024 };

/* A client and a server on two machines, and the two ends of a connection between them. */
struct net {
	struct sim_world *w;
	struct sim_machine *cm, *sm;
	struct ioe *ce, *se;
	struct ioe_sock *listener, *cs, *ss;
};

static struct sim_wait conn_wait, accept_wait;

static void net_init(struct net *n, const struct sim_config *cfg)
{
	memset(n, 0, sizeof(*n));
	n->w = sim_world_new(cfg);
	n->cm = sim_machine_new(n->w, "client");
	n->sm = sim_machine_new(n->w, "server");
	n->ce = sim_process_new(n->cm, "c", NULL, NULL);
	n->se = sim_process_new(n->sm, "s", NULL, NULL);
	assert_int_equal(ioe_listen(n->se, ADDR, &n->listener, NULL), 0);
}

static void net_connect(struct net *n)
{
	memset(&conn_wait, 0, sizeof(conn_wait));
	memset(&accept_wait, 0, sizeof(accept_wait));
	ioe_accept(n->se, &accept_wait.req, n->listener, sim_wait_done);
	ioe_connect(n->ce, &conn_wait.req, ADDR, sim_wait_done);
	sim_run_until(n->w, &conn_wait.is_done);
	sim_run_until(n->w, &accept_wait.is_done);
	assert_int_equal(conn_wait.req.status, 0);
	assert_int_equal(accept_wait.req.status, 0);
	n->cs = conn_wait.req.ret_sock;
	n->ss = accept_wait.req.ret_sock;
}

static int setup(void **state)
{
	struct net *n = mem_zalloc(sizeof(*n));

	net_init(n, &(struct sim_config){.seed = 7, .recv_split_percent = 30});
	net_connect(n);
	*state = n;
	return 0;
}

static int teardown(void **state)
{
	struct net *n = *state;

	sim_world_free(n->w);
	mem_free(n);
	return 0;
}

/* ---- a stream that sends or receives for ever -------------------------------------------------------------------------- */

enum { CHUNK_MAX = 48 * KIB };

struct stream {
	struct ioe *e;
	struct ioe_sock *s;
	struct ioe_req req;
	struct iovec iov[3];
	struct rand rnd;
	uint64_t chunk_max;
	uint64_t bytes; /* transferred */
	uint64_t limit; /* sender: stop after so many */
	uint64_t in_flight;
	int status; /* that ended it */
	bool is_over, is_wrong;
	uint8_t buf[CHUNK_MAX];
};

static uint8_t byte_at(uint64_t pos)
{
	return (uint8_t)(pos * 31 + (pos >> 8) * 7);
}

static int buffer_split(struct stream *t, uint64_t len)
{
	uint64_t cut = rand_below(&t->rnd, len + 1);

	t->iov[0] = (struct iovec){.iov_base = t->buf, .iov_len = cut};
	t->iov[1] = (struct iovec){.iov_base = t->buf + cut, .iov_len = len - cut};
	return 2;
}

static void sender_next(struct stream *t);
static void sender_done(struct ioe_req *r)
{
	struct stream *t = container_of(r, struct stream, req);

	t->status = r->status;
	if (!r->status)
		t->bytes += t->in_flight;
	if (r->status || t->bytes >= t->limit)
		t->is_over = true;
	else
		sender_next(t);
}

static void sender_next(struct stream *t)
{
	uint64_t len = 1 + rand_below(&t->rnd, t->chunk_max);

	if (len > t->limit - t->bytes)
		len = t->limit - t->bytes;
	for (uint64_t i = 0; i < len; i++)
		t->buf[i] = byte_at(t->bytes + i);
	t->in_flight = len;
	ioe_send(t->e, &t->req, t->s, t->iov, buffer_split(t, len), sender_done);
}

static void receiver_next(struct stream *t);
static void receiver_done(struct ioe_req *r)
{
	struct stream *t = container_of(r, struct stream, req);

	for (size_t i = 0; i < r->got; i++)
		t->is_wrong |= t->buf[i] != byte_at(t->bytes + i);
	t->bytes += r->got;
	t->status = r->status;
	if (r->status || r->got == 0)
		t->is_over = true;
	else
		receiver_next(t);
}

static void receiver_next(struct stream *t)
{
	ioe_recv(t->e, &t->req, t->s, t->iov,
		 buffer_split(t, 1 + rand_below(&t->rnd, t->chunk_max)), receiver_done);
}

static struct stream out, in;

static void sender_start_small(struct net *n, uint64_t limit, uint64_t chunk_max)
{
	memset(&out, 0, sizeof(out));
	out.e = n->ce;
	out.s = n->cs;
	out.limit = limit;
	out.chunk_max = chunk_max;
	rand_seed(&out.rnd, sim_rand(n->w));
	sender_next(&out);
}

static void sender_start(struct net *n, uint64_t limit)
{
	sender_start_small(n, limit, CHUNK_MAX);
}

static void receiver_start(struct net *n)
{
	memset(&in, 0, sizeof(in));
	in.e = n->se;
	in.s = n->ss;
	in.chunk_max = CHUNK_MAX;
	rand_seed(&in.rnd, sim_rand(n->w));
	receiver_next(&in);
}

/* ---- streams ---------------------------------------------------------------------------------------------------------- */

static void all_bytes_arrive_in_order_then_the_end(void **state)
{
	struct net *n = *state;

	sender_start(n, 5000 * KIB);
	receiver_start(n);
	sim_run_until(n->w, &out.is_over);
	assert_int_equal(out.status, 0);
	ioe_sock_close(n->ce, n->cs);
	sim_run_until(n->w, &in.is_over);
	assert_int_equal(in.status, 0);
	assert_int_equal(in.bytes, 5000 * KIB);
	assert_false(in.is_wrong);
	ioe_sock_close(n->se, n->ss);
	ioe_sock_close(n->se, n->listener);
	assert_true(sim_run(n->w, UINT64_MAX));
}

static void a_slow_reader_pushes_back(void **state)
{
	struct net *n = *state;

	sender_start(n, 1000 * KIB);
	assert_true(sim_run(n->w, UINT64_MAX));
	assert_false(out.is_over);
	assert_in_range(out.bytes, SIM_WINDOW - CHUNK_MAX, SIM_WINDOW);
	receiver_start(n);
	assert_true(sim_run(n->w, UINT64_MAX));
	assert_true(out.is_over);
	assert_int_equal(in.bytes, 1000 * KIB);
	assert_false(in.is_wrong);
}

static void requests_on_a_stream_are_served_in_order(void **state)
{
	struct net *n = *state;
	static struct sim_wait s[20], r[20];
	static struct iovec siov[20], riov[20];
	static uint8_t sbuf[20], rbuf[20];

	memset(s, 0, sizeof(s));
	memset(r, 0, sizeof(r));
	for (int i = 0; i < 20; i++) {
		sbuf[i] = (uint8_t)i;
		siov[i] = (struct iovec){.iov_base = &sbuf[i], .iov_len = 1};
		riov[i] = (struct iovec){.iov_base = &rbuf[i], .iov_len = 1};
		ioe_recv(n->se, &r[i].req, n->ss, &riov[i], 1, sim_wait_done);
		ioe_send(n->ce, &s[i].req, n->cs, &siov[i], 1, sim_wait_done);
	}
	sim_run_until(n->w, &r[19].is_done);
	for (int i = 0; i < 20; i++)
		assert_int_equal(rbuf[i], i);
	ioe_recv(n->se, &r[0].req, n->ss, &riov[0], 1, sim_wait_done);
	r[0].is_done = false;
	ioe_cancel(n->se, &r[0].req);
	sim_run_until(n->w, &r[0].is_done);
	assert_int_equal(r[0].req.status, -ECANCELED);
}

static void receives_are_split_at_random(void **state)
{
	struct net *n = *state;
	static struct sim_wait s, r;
	static uint8_t buf[1000];
	struct iovec siov = {.iov_base = buf, .iov_len = sizeof(buf)}, riov;
	int splits = 0;

	for (int i = 0; i < 50; i++) {
		size_t got = 0;

		siov = (struct iovec){.iov_base = buf, .iov_len = sizeof(buf)};
		s.is_done = false;
		ioe_send(n->ce, &s.req, n->cs, &siov, 1, sim_wait_done);
		sim_run_until(n->w, &s.is_done);
		for (int parts = 0; got<sizeof(buf); parts++, splits += parts> 1) {
			riov = (struct iovec){.iov_base = buf, .iov_len = sizeof(buf)};
			r.is_done = false;
			ioe_recv(n->se, &r.req, n->ss, &riov, 1, sim_wait_done);
			sim_run_until(n->w, &r.is_done);
			assert_int_equal(r.req.status, 0);
			got += r.req.got;
		}
		assert_int_equal(got, sizeof(buf));
	}
	assert_in_range(splits, 5, 100);
}

/* ---- ends ------------------------------------------------------------------------------------------------------------- */

static void a_shutdown_ends_what_is_in_flight_and_what_comes(void **state)
{
	struct net *n = *state;
	static uint8_t buf[4];
	struct iovec iov = {.iov_base = buf, .iov_len = 4};
	static struct sim_wait s;

	receiver_start(n);
	ioe_sock_shutdown(n->se, n->ss);
	ioe_sock_shutdown(n->se, n->ss);
	sim_run_until(n->w, &in.is_over);
	assert_int_equal(in.status, 0);
	assert_int_equal(in.bytes, 0);
	memset(&s, 0, sizeof(s));
	ioe_send(n->se, &s.req, n->ss, &iov, 1, sim_wait_done);
	sim_run_until(n->w, &s.is_done);
	assert_int_equal(s.req.status, -EPIPE);
	/* the peer: end of stream, then a reset because what it sends is not read */
	s.is_done = false;
	ioe_recv(n->ce, &s.req, n->cs, &iov, 1, sim_wait_done);
	sim_run_until(n->w, &s.is_done);
	assert_int_equal(s.req.status, 0);
	assert_int_equal(s.req.got, 0);
	sender_start(n, 100000 * KIB);
	sim_run_until(n->w, &out.is_over);
	assert_int_equal(out.status, -ECONNRESET);
}

static void closing_over_unread_bytes_resets(void **state)
{
	struct net *n = *state;

	sender_start(n, 10);
	assert_true(sim_run(n->w, UINT64_MAX));
	ioe_sock_close(n->se, n->ss);
	sender_start(n, 100000 * KIB);
	sim_run_until(n->w, &out.is_over);
	assert_int_equal(out.status, -ECONNRESET);
}

/* Each seed kills the sender amid its stream: the receiver gets a correct prefix, then a reset or, if it got everything that was
 * accepted, the end of the stream. */
static void a_killed_peer_is_a_reset_or_the_end_of_everything(void **state)
{
	int resets = 0, ends = 0, shorter = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 100; seed++) {
		struct net n;

		net_init(&n, &(struct sim_config){.seed = seed});
		net_connect(&n);
		sender_start_small(&n, UINT64_MAX, 2 * KIB);
		receiver_start(&n);
		for (uint64_t i = sim_rand(n.w) % 100; i > 0; i--)
			sim_step(n.w);
		sim_kill(n.ce);
		sim_run_until(n.w, &in.is_over);
		assert_false(in.is_wrong);
		assert_true(in.status == 0 || in.status == -ECONNRESET);
		if (in.status == 0)
			assert_true(in.bytes >= out.bytes);
		resets += in.status != 0;
		ends += in.status == 0;
		shorter += in.bytes < out.bytes;
		sim_world_free(n.w);
	}
	assert_true(resets > 10 && ends > 10 && shorter > 10);
}

static void a_reset_hits_both_ends_at_a_random_byte(void **state)
{
	int shorter = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 100; seed++) {
		struct net n;

		net_init(&n, &(struct sim_config){.seed = seed});
		net_connect(&n);
		sender_start_small(&n, UINT64_MAX, 2 * KIB);
		receiver_start(&n);
		for (uint64_t i = sim_rand(n.w) % 100; i > 0; i--)
			sim_step(n.w);
		sim_net_reset(n.ce, n.cs);
		sim_run_until(n.w, &in.is_over);
		sim_run_until(n.w, &out.is_over);
		assert_int_equal(in.status, -ECONNRESET);
		assert_int_equal(out.status, -ECONNRESET);
		assert_false(in.is_wrong);
		shorter += in.bytes < out.bytes;
		sim_world_free(n.w);
	}
	assert_true(shorter > 10);
}

static void a_machine_without_power_is_silent_until_it_is_back(void **state)
{
	struct net *n = *state;
	static struct sim_wait c;

	sender_start(n, 10000 * KIB);
	sim_power_loss(n->sm);
	assert_true(
	    sim_run(n->w, UINT64_MAX)); /* the sender waits in vain: nothing says the peer is gone */
	assert_false(out.is_over);
	memset(&c, 0, sizeof(c));
	ioe_connect(n->ce, &c.req, ADDR, sim_wait_done);
	sim_run(n->w, sim_now_ns(n->w) + 3 * SECOND_NS);
	assert_false(c.is_done);
	n->se = sim_process_new(n->sm, "s", NULL, NULL);
	sim_run_until(n->w, &out.is_over);
	assert_int_equal(out.status, -ECONNRESET);
	sim_run_until(n->w, &c.is_done);
	assert_int_equal(c.req.status, -ECONNREFUSED);
}

/* ---- cuts ------------------------------------------------------------------------------------------------------------- */

static void a_cut_stalls_and_after_healing_everything_goes_on(void **state)
{
	struct net *n = *state;
	uint64_t before;

	sender_start(n, 3000 * KIB);
	receiver_start(n);
	for (int i = 0; i < 20; i++)
		sim_step(n->w);
	sim_net_cut(n->w, n->cm, n->sm, true);
	sim_net_cut(n->w, n->cm, n->sm, true);
	sim_run(n->w, sim_now_ns(n->w) + 10 * SECOND_NS);
	before = in.bytes;
	sim_run(n->w, sim_now_ns(n->w) + 10 * SECOND_NS);
	assert_int_equal(in.bytes, before);
	assert_false(out.is_over || in.is_over);
	sim_net_cut(n->w, n->sm, n->cm, false);
	sim_run_until(n->w, &out.is_over);
	ioe_sock_close(n->ce, n->cs);
	sim_run_until(n->w, &in.is_over);
	assert_int_equal(in.bytes, 3000 * KIB);
	assert_int_equal(in.status, 0);
	assert_false(in.is_wrong);
}

static void connecting_over_a_cut_waits_then_times_out(void **state)
{
	struct net *n = *state;
	static struct sim_wait c;
	uint64_t start_ns;

	memset(&c, 0, sizeof(c));
	sim_net_cut(n->w, n->cm, n->sm, true);
	ioe_connect(n->ce, &c.req, ADDR, sim_wait_done);
	start_ns = sim_now_ns(n->w);
	sim_run_until(n->w, &c.is_done);
	assert_int_equal(c.req.status, -ETIMEDOUT);
	assert_in_range(sim_now_ns(n->w) - start_ns, 100 * SECOND_NS, 130 * SECOND_NS);
	c.is_done = false;
	ioe_connect(n->ce, &c.req, ADDR, sim_wait_done);
	sim_run(n->w, sim_now_ns(n->w) + 5 * SECOND_NS);
	assert_false(c.is_done);
	sim_net_cut(n->w, n->cm, n->sm, false);
	sim_run_until(n->w, &c.is_done);
	assert_int_equal(c.req.status, 0);
	ioe_sock_close(n->ce, c.req.ret_sock);
}

/* ---- addresses -------------------------------------------------------------------------------------------------------- */

static int connect_status(struct net *n, const char *addr)
{
	static struct sim_wait c;

	memset(&c, 0, sizeof(c));
	ioe_connect(n->ce, &c.req, addr, sim_wait_done);
	sim_run_until(n->w, &c.is_done);
	if (c.req.status == 0)
		ioe_sock_close(n->ce, c.req.ret_sock);
	return c.req.status;
}

static void addresses_lead_where_somebody_listens(void **state)
{
	struct net *n = *state;
	struct ioe_sock *l, *u, *x;
	char addr[IOE_ADDR_MAX], errmsg[ERRMSG_LEN];

	assert_int_equal(connect_status(n, "10.0.0.1:1"), -ECONNREFUSED);
	assert_int_equal(connect_status(n, "nonsense"), -EINVAL);
	assert_int_equal(connect_status(n, "unix:/run/s"), -ENOENT);
	assert_int_equal(ioe_listen(n->se, ADDR, &l, errmsg), -EADDRINUSE);
	assert_non_null(strstr(errmsg, ADDR));
	assert_int_equal(ioe_listen(n->se, "10.0.0.1:0", &l, NULL), 0);
	ioe_sock_addr(l, addr);
	assert_int_equal(connect_status(n, addr), 0);
	assert_int_equal(ioe_listen(n->ce, "unix:/run/s", &u, NULL), 0);
	assert_int_equal(ioe_listen(n->ce, "unix:/run/s", &x, NULL), -EADDRINUSE);
	assert_int_equal(connect_status(n, "unix:/run/s"), 0);
	ioe_sock_addr(u, addr);
	assert_string_equal(addr, "unix:/run/s");
	ioe_sock_close(n->ce, u);
	assert_int_equal(connect_status(n, "unix:/run/s"), -ENOENT);
	ioe_sock_close(n->se, l);
	ioe_sock_peer(n->ss, addr);
	assert_string_equal(addr, "client");
	assert_false(ioe_sock_is_local(n->ss) || ioe_sock_is_local(n->cs));
}

static void a_stale_unix_socket_is_replaced(void **state)
{
	struct net *n = *state;
	struct ioe_sock *u;

	assert_int_equal(ioe_listen(n->ce, "unix:/run/s", &u, NULL), 0);
	sim_kill(n->ce);
	n->ce = sim_process_new(n->cm, "c", NULL, NULL);
	assert_int_equal(connect_status(n, "unix:/run/s"), -ECONNREFUSED);
	assert_int_equal(ioe_listen(n->ce, "unix:/run/s", &u, NULL), 0);
	assert_int_equal(connect_status(n, "unix:/run/s"), 0);
	ioe_sock_close(n->ce, u);
}

static void a_connect_can_be_cancelled_at_any_moment(void **state)
{
	struct net *n = *state;
	static struct sim_wait c;
	int cancelled = 0;

	for (int steps = 0; steps < 8; steps++) {
		memset(&c, 0, sizeof(c));
		ioe_connect(n->ce, &c.req, ADDR, sim_wait_done);
		for (int i = 0; i < steps; i++)
			sim_step(n->w);
		if (!c.is_done)
			ioe_cancel(n->ce, &c.req);
		sim_run_until(n->w, &c.is_done);
		cancelled += c.req.status == -ECANCELED;
		if (c.req.status == 0)
			ioe_sock_close(n->ce, c.req.ret_sock);
	}
	assert_in_range(cancelled, 2, 7);
}

static void a_full_backlog_makes_callers_wait(void **state)
{
	struct net *n = *state;
	static struct sim_wait c[200], a;
	int connected = 0;

	memset(c, 0, sizeof(c));
	for (int i = 0; i < 200; i++)
		ioe_connect(n->ce, &c[i].req, ADDR, sim_wait_done);
	sim_run(n->w, sim_now_ns(n->w) + 10 * SECOND_NS);
	for (int i = 0; i < 200; i++)
		connected += c[i].is_done;
	assert_int_equal(connected, 128);
	for (int i = 0; i < 200; i++) {
		memset(&a, 0, sizeof(a));
		ioe_accept(n->se, &a.req, n->listener, sim_wait_done);
		sim_run_until(n->w, &a.is_done);
		assert_int_equal(a.req.status, 0);
	}
	for (int i = 0; i < 200; i++)
		sim_run_until(n->w, &c[i].is_done);
}

static void a_shut_down_listener_refuses(void **state)
{
	struct net *n = *state;
	static struct sim_wait a;

	memset(&a, 0, sizeof(a));
	ioe_accept(n->se, &a.req, n->listener, sim_wait_done);
	sim_run(n->w, sim_now_ns(n->w) + SECOND_NS);
	ioe_sock_shutdown(n->se, n->listener);
	sim_run_until(n->w, &a.is_done);
	assert_int_equal(a.req.status, -EINVAL);
	assert_int_equal(connect_status(n, ADDR), -ECONNREFUSED);
}

static void sockets_fail_cleanly_when_memory_is_short(void **state)
{
	struct net *n = *state;
	static struct sim_wait c, a;
	struct ioe_sock *l;

	memset(&c, 0, sizeof(c));
	memset(&a, 0, sizeof(a));
	mem_fail_at(0, UINT64_MAX);
	assert_int_equal(ioe_listen(n->se, "10.0.0.1:5", &l, NULL), -ENOMEM);
	ioe_accept(n->se, &a.req, n->listener, sim_wait_done);
	ioe_connect(n->ce, &c.req, ADDR, sim_wait_done);
	sim_run_until(n->w, &a.is_done);
	sim_run_until(n->w, &c.is_done);
	mem_fail_at(UINT64_MAX, 0);
	assert_int_equal(a.req.status, -ENOMEM);
	assert_int_equal(c.req.status, -ENOMEM);
	a.is_done = false;
	ioe_accept(n->se, &a.req, n->listener, sim_wait_done);
	sim_run_until(n->w, &a.is_done);
	assert_int_equal(a.req.status, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(all_bytes_arrive_in_order_then_the_end),
	    T(a_slow_reader_pushes_back),
	    T(requests_on_a_stream_are_served_in_order),
	    T(receives_are_split_at_random),
	    T(a_shutdown_ends_what_is_in_flight_and_what_comes),
	    T(closing_over_unread_bytes_resets),
	    cmocka_unit_test(a_killed_peer_is_a_reset_or_the_end_of_everything),
	    cmocka_unit_test(a_reset_hits_both_ends_at_a_random_byte),
	    T(a_machine_without_power_is_silent_until_it_is_back),
	    T(a_cut_stalls_and_after_healing_everything_goes_on),
	    T(connecting_over_a_cut_waits_then_times_out),
	    T(addresses_lead_where_somebody_listens),
	    T(a_stale_unix_socket_is_replaced),
	    T(a_connect_can_be_cancelled_at_any_moment),
	    T(a_full_backlog_makes_callers_wait),
	    T(a_shut_down_listener_refuses),
	    T(sockets_fail_cleanly_when_memory_is_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
