/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated world itself: determinism, time, turns, timers, work, messages, death in odd moments; and how fast it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "src/base/mem.h"
#include "src/base/rand.h"
#include "tests/lib/sim_fixture.h"

enum { PAGE = 4096 };
#define MS ((uint64_t)1000 * 1000)

static int setup(void **state)
{
	struct sim_fixture *fx = mem_zalloc(sizeof(*fx));

	sim_fixture_init(fx, 1);
	*state = fx;
	return 0;
}

static int teardown(void **state)
{
	sim_fixture_free(*state);
	mem_free(*state);
	return 0;
}

/* ---- determinism ------------------------------------------------------------------------------------------------------ */

/* A busy process: disk requests, timers, work and a connection to itself, chosen by its own random numbers. */
enum { REQUESTS = 16 };

struct busy {
	struct ioe *e;
	struct ioe_file *f;
	struct ioe_sock *listener, *a, *b;
	struct ioe_req accept, connect, send, recv;
	struct iovec siov, riov;
	char sbuf[5000], rbuf[3000];
	struct busy_req {
		struct busy *owner;
		struct ioe_req req;
		_Alignas(512) uint8_t buf[PAGE];
	} reqs[REQUESTS];
};

static void work_fn(struct ioe_req *r)
{
	(void)r;
}

static void busy_next(struct ioe_req *r)
{
	struct busy_req *q = container_of(r, struct busy_req, req);
	struct busy *b = q->owner;
	uint64_t x = ioe_rand64(b->e), off = (x >> 8) % 64 * PAGE;

	switch (x % 7) {
	case 0:
	case 1:
		memset(q->buf, (int)(x >> 32), PAGE);
		ioe_write(b->e, r, b->f, off, q->buf, PAGE, busy_next);
		break;
	case 2:
		ioe_read(b->e, r, b->f, off, q->buf, PAGE, busy_next);
		break;
	case 3:
		ioe_fsync(b->e, r, b->f, busy_next);
		break;
	case 4:
		ioe_timer(b->e, r, ioe_now_ns(b->e) + (x >> 40), busy_next);
		break;
	case 5:
		ioe_work(b->e, r, work_fn, busy_next);
		break;
	case 6:
		ioe_nop(b->e, r, busy_next);
		break;
	}
}

static void send_next(struct ioe_req *r)
{
	struct busy *b = container_of(r, struct busy, send);

	if (r->status)
		return;
	b->siov =
	    (struct iovec){.iov_base = b->sbuf, .iov_len = 1 + ioe_rand64(b->e) % sizeof(b->sbuf)};
	ioe_send(b->e, r, b->a, &b->siov, 1, send_next);
}

static void recv_next(struct ioe_req *r)
{
	struct busy *b = container_of(r, struct busy, recv);

	if (r->status)
		return;
	b->riov = (struct iovec){.iov_base = b->rbuf, .iov_len = sizeof(b->rbuf)};
	ioe_recv(b->e, r, b->b, &b->riov, 1, recv_next);
}

static void accepted(struct ioe_req *r)
{
	struct busy *b = container_of(r, struct busy, accept);

	b->b = r->ret_sock;
	recv_next(&b->recv);
}

static void connected(struct ioe_req *r)
{
	struct busy *b = container_of(r, struct busy, connect);

	b->a = r->ret_sock;
	send_next(&b->send);
}

static void busy_start(struct busy *b, struct sim_machine *m)
{
	memset(b, 0, sizeof(*b));
	b->e = sim_process_new(m, "busy", NULL, NULL);
	if (ioe_file_open(b->e, "disk", 0, &b->f, NULL) == -ENOENT)
		assert_int_equal(ioe_file_open(b->e, "disk", IOE_OPEN_CREATE, &b->f, NULL), 0);
	assert_int_equal(ioe_file_resize(b->e, b->f, 64 * PAGE), 0);
	assert_int_equal(ioe_listen(b->e, "unix:sock", &b->listener, NULL), 0);
	ioe_accept(b->e, &b->accept, b->listener, accepted);
	ioe_connect(b->e, &b->connect, "unix:sock", connected);
	for (int i = 0; i < REQUESTS; i++) {
		b->reqs[i].owner = b;
		ioe_nop(b->e, &b->reqs[i].req, busy_next);
	}
}

static uint64_t run_hash(uint64_t seed)
{
	static struct busy b[3];
	struct sim_world *w =
	    sim_world_new(&(struct sim_config){.seed = seed, .recv_split_percent = 20});
	static const char *const names[] = {"m0", "m1", "m2"};
	struct sim_machine *m[3];
	uint64_t hash;

	for (int i = 0; i < 3; i++) {
		m[i] = sim_machine_new(w, names[i]);
		busy_start(&b[i], m[i]);
	}
	for (int step = 0; step < 4000; step++) {
		assert_true(sim_step(w));
		if (step % 1000 == 500) {
			sim_power_loss(m[0]);
			busy_start(&b[0], m[0]);
			sim_kill(b[1].e);
			busy_start(&b[1], m[1]);
		}
	}
	hash = sim_trace_hash(w);
	sim_world_free(w);
	return hash;
}

static void the_same_seed_is_the_same_run(void **state)
{
	void *ballast[64];

	(void)state;
	for (uint64_t seed = 1; seed <= 5; seed++) {
		uint64_t hash = run_hash(seed);

		for (int i = 0; i < 64; i++) /* other addresses for everything */
			ballast[i] = mem_alloc(100 + 977 * (size_t)i);
		assert_true(run_hash(seed) == hash);
		assert_true(run_hash(seed + 100) != hash);
		for (int i = 0; i < 64; i++)
			mem_free(ballast[i]);
	}
}

static void count_trace(void *arg, const struct sim_trace *t)
{
	uint64_t *n = arg;

	n[0]++;
	n[1] += strcmp(t->what, "write") == 0 && strcmp(t->path, "disk") == 0 && t->len == PAGE;
}

static void a_trace_tells_each_event(void **state)
{
	struct sim_fixture *fx = *state;
	static _Alignas(PAGE) uint8_t buf[PAGE];
	struct ioe_file *f = sim_file_make(fx, "disk", PAGE);
	uint64_t n[2] = {0};

	sim_trace_set(fx->w, count_trace, n);
	assert_int_equal(sim_write(fx, f, 0, buf, PAGE), 0);
	sim_trace_set(fx->w, NULL, NULL);
	assert_int_equal(n[1], 1);
	assert_true(n[0] > 1 && sim_events(fx->w) >= n[0]);
	ioe_file_close(fx->e, f);
}

/* ---- time and turns --------------------------------------------------------------------------------------------------- */

static void timers_fire_in_order_of_their_deadlines(void **state)
{
	struct sim_fixture *fx = *state;
	static struct sim_wait t[4];
	uint64_t start_ns = ioe_now_ns(fx->e);

	memset(t, 0, sizeof(t));
	ioe_timer(fx->e, &t[0].req, start_ns + 30 * MS, sim_wait_done);
	ioe_timer(fx->e, &t[1].req, start_ns + 10 * MS, sim_wait_done);
	ioe_timer(fx->e, &t[2].req, UINT64_MAX, sim_wait_done);
	ioe_timer(fx->e, &t[3].req, 0, sim_wait_done);
	sim_run_until(fx->w, &t[3].is_done);
	assert_in_range(ioe_now_ns(fx->e) - start_ns, 0, MS);
	sim_run_until(fx->w, &t[1].is_done);
	assert_in_range(ioe_now_ns(fx->e) - start_ns, 10 * MS, 11 * MS);
	assert_false(t[0].is_done);
	sim_run_until(fx->w, &t[0].is_done);
	assert_in_range(ioe_now_ns(fx->e) - start_ns, 30 * MS, 31 * MS);
	assert_true(sim_run(fx->w, UINT64_MAX)); /* the endless one is no event */
	ioe_cancel(fx->e, &t[2].req);
	sim_run_until(fx->w, &t[2].is_done);
	assert_int_equal(t[2].req.status, -ECANCELED);
}

static void running_to_a_time_stops_there(void **state)
{
	struct sim_fixture *fx = *state;
	static struct sim_wait t;
	uint64_t start_ns = sim_now_ns(fx->w);

	t.is_done = false;
	ioe_timer(fx->e, &t.req, start_ns + 10 * MS, sim_wait_done);
	assert_false(sim_run(fx->w, start_ns + 5 * MS));
	assert_int_equal(sim_now_ns(fx->w), start_ns + 5 * MS);
	assert_true(sim_run(fx->w, start_ns + 20 * MS));
	assert_true(t.is_done);
}

static void a_poll_waits_in_virtual_time(void **state)
{
	struct sim_fixture *fx = *state;
	static struct sim_wait t;
	uint64_t start_ns = ioe_now_ns(fx->e);
	int polls = 0;

	t.is_done = false;
	ioe_timer(fx->e, &t.req, start_ns + 10 * MS, sim_wait_done);
	assert_int_equal(ioe_poll(fx->e, start_ns + 5 * MS), 0);
	assert_int_equal(ioe_now_ns(fx->e), start_ns + 5 * MS);
	assert_int_equal(ioe_poll(fx->e, UINT64_MAX), 1);
	assert_true(t.is_done);
	assert_int_equal(ioe_poll(fx->e, UINT64_MAX), 0);
	t.is_done = false;
	ioe_timer(fx->e, &t.req, ioe_now_ns(fx->e) + MS, sim_wait_done);
	for (; !t.is_done; polls++)
		ioe_poll(fx->e, 0);
	assert_in_range(polls, 100, 2000);
}

static void a_stalled_process_gets_everything_in_one_turn(void **state)
{
	struct sim_fixture *fx = *state;
	static struct sim_wait t[5];
	uint64_t start_ns = ioe_now_ns(fx->e);

	memset(t, 0, sizeof(t));
	for (uint64_t i = 0; i < 5; i++)
		ioe_timer(fx->e, &t[i].req, start_ns + i * MS, sim_wait_done);
	sim_step(fx->w);
	sim_stall(fx->e, 50 * MS);
	assert_false(sim_run(fx->w, start_ns + 49 * MS));
	assert_false(t[0].is_done);
	assert_int_equal(ioe_poll(fx->e, UINT64_MAX), 5);
	assert_in_range(ioe_now_ns(fx->e) - start_ns, 50 * MS, 51 * MS);
}

struct hooked {
	struct sim_fixture *fx;
	struct ioe_hook hook;
	struct ioe_msg msg;
	int hooks, messages;
	bool work_ran, work_done;
	struct ioe_req work;
};

static void hook_fn(struct ioe_hook *h)
{
	container_of(h, struct hooked, hook)->hooks++;
}

static void msg_fn(struct ioe_msg *m)
{
	container_of(m, struct hooked, msg)->messages++;
}

static void hooked_work(struct ioe_req *r)
{
	container_of(r, struct hooked, work)->work_ran = true;
}

static void hooked_work_done(struct ioe_req *r)
{
	struct hooked *h = container_of(r, struct hooked, work);

	h->work_done = h->work_ran;
	ioe_stop(h->fx->e);
}

static void hooks_messages_and_work_run_also_when_asked_for_between_steps(void **state)
{
	struct sim_fixture *fx = *state;
	struct hooked h = {.fx = fx};

	ioe_hook_init(&h.hook, hook_fn);
	h.msg.fn = msg_fn;
	ioe_hook_arm(fx->e, &h.hook);
	assert_true(sim_step(fx->w));
	assert_int_equal(h.hooks, 1);
	ioe_post(fx->e, &h.msg);
	assert_true(sim_step(fx->w));
	assert_int_equal(h.messages, 1);
	assert_false(sim_step(fx->w));
	ioe_work(fx->e, &h.work, hooked_work, hooked_work_done);
	ioe_run(fx->e);
	assert_true(h.work_done);
	ioe_run(fx->e); /* nothing is left to happen */
}

static void machines_can_have_clocks_of_their_own(void **state)
{
	static struct sim_wait t;
	struct sim_fixture fx;
	struct sim_machine *other;
	struct ioe *e;
	uint64_t start_ns, world_ns;

	(void)state;
	sim_fixture_init_config(&fx, &(struct sim_config){.seed = 5, .own_clocks = true});
	other = sim_machine_new(fx.w, "m2");
	e = sim_process_new(other, "p2", NULL, NULL);
	assert_true(ioe_now_ns(e) != ioe_now_ns(fx.e));
	assert_true(ioe_wall_ns(e) != ioe_wall_ns(fx.e));
	start_ns = ioe_now_ns(fx.e);
	world_ns = sim_now_ns(fx.w);
	t.is_done = false;
	ioe_timer(fx.e, &t.req, start_ns + 10 * MS, sim_wait_done);
	assert_int_equal(ioe_poll(fx.e, start_ns + 5 * MS), 0);
	assert_int_equal(ioe_now_ns(fx.e), start_ns + 5 * MS);
	sim_run_until(fx.w, &t.is_done);
	assert_in_range(sim_now_ns(fx.w) - world_ns, 10 * MS, 11 * MS);
	sim_fixture_power_loss(&fx);
	sim_fixture_restart(&fx);
	assert_true(ioe_now_ns(fx.e) - start_ns > 20 * MS);
	sim_fixture_free(&fx);
}

/* ---- death ------------------------------------------------------------------------------------------------------------ */

static bool other_ran;

static void other_done(struct ioe_req *r)
{
	(void)r;
	other_ran = true;
}

static struct sim_fixture *killer_fx;
static struct ioe_req late_req[3];
static struct ioe_file *killer_file;
static _Alignas(PAGE) uint8_t killer_buf[PAGE];

static void kill_myself(struct ioe_req *r)
{
	(void)r;
	sim_kill(killer_fx->e);
	assert_int_equal(killer_fx->kills, 0); /* on_kill waits for the callback to return */
	ioe_nop(killer_fx->e, &late_req[0], other_done);
	ioe_write(killer_fx->e, &late_req[1], killer_file, 0, killer_buf, PAGE, other_done);
	ioe_connect(killer_fx->e, &late_req[2], "unix:x", other_done);
	assert_int_equal(ioe_file_store(killer_fx->e, "late", "x", 1, 0600), -EIO);
}

static void a_process_can_be_killed_from_its_own_callback(void **state)
{
	struct sim_fixture *fx = *state;
	struct ioe_req r[3];
	uint8_t first;

	killer_fx = fx;
	killer_file = sim_file_make(fx, "disk", PAGE);
	memset(killer_buf, 1, PAGE);
	other_ran = false;
	ioe_nop(fx->e, &r[0], kill_myself);
	ioe_nop(fx->e, &r[1], other_done);
	ioe_timer(fx->e, &r[2], 0, other_done);
	assert_true(sim_run(fx->w, UINT64_MAX));
	assert_int_equal(fx->kills, 1);
	assert_false(other_ran);
	assert_int_equal(sim_disk_peek(fx->m, "disk", 0, &first, 1), 0);
	assert_int_equal(first, 0);
	assert_int_equal(sim_disk_peek(fx->m, "late", 0, &first, 1), -ENOENT);
}

static void lose_power(struct ioe_req *r)
{
	(void)r;
	sim_power_loss(killer_fx->m);
	ioe_nop(killer_fx->e, &late_req[0], other_done);
}

static void power_can_be_lost_in_a_callback(void **state)
{
	struct sim_fixture *fx = *state;
	struct ioe_file *f = sim_file_make(fx, "disk", PAGE);
	struct ioe_req r[2];

	killer_fx = fx;
	other_ran = false;
	ioe_write(fx->e, &r[1], f, 0, killer_buf, PAGE, other_done);
	sim_step(fx->w);
	ioe_nop(fx->e, &r[0], lose_power);
	assert_true(sim_run(fx->w, UINT64_MAX));
	assert_int_equal(fx->kills, 1);
	assert_false(other_ran);
}

static void an_orderly_exit_is_no_kill(void **state)
{
	struct sim_fixture *fx = *state;
	struct ioe_file *f = sim_file_make(fx, "disk", PAGE), *g;

	(void)f;
	ioe_free(fx->e); /* with the file open: the kernel closes it */
	assert_int_equal(fx->kills, 0);
	sim_fixture_restart(fx);
	assert_int_equal(ioe_file_open(fx->e, "disk", IOE_OPEN_LOCK, &g, NULL), 0);
	ioe_file_close(fx->e, g);
}

/* Kill at each step in turn: whatever is in flight then, nothing may be touched or leaked afterwards. The sanitizer build is the judge. */
static void a_kill_at_any_step_leaves_nothing_behind(void **state)
{
	(void)state;
	for (int at = 0; at < 300; at++) {
		struct busy *b = mem_alloc_aligned(512, sizeof(*b));
		struct sim_world *w = sim_world_new(&(struct sim_config){.seed = (uint64_t)at});
		struct sim_machine *m = sim_machine_new(w, "m");

		busy_start(b, m);
		for (int i = 0; i < at; i++)
			assert_true(sim_step(w));
		if (at % 2)
			sim_kill(b->e);
		else
			sim_power_loss(m);
		mem_free(b);
		assert_true(sim_run(w, UINT64_MAX));
		sim_world_free(w);
	}
}

static void ending_the_world_touches_no_request(void **state)
{
	struct busy *b = mem_alloc_aligned(512, sizeof(*b));
	struct sim_world *w = sim_world_new(&(struct sim_config){.seed = 9});

	(void)state;
	busy_start(b, sim_machine_new(w, "m"));
	for (int i = 0; i < 100; i++)
		assert_true(sim_step(w));
	mem_free(b);
	sim_world_free(w);
}

/* ---- speed ------------------------------------------------------------------------------------------------------------ */

static uint64_t ticks;

static void tick(struct ioe_req *r)
{
	struct sim_wait *t = container_of(r, struct sim_wait, req);

	if (++ticks < 500000)
		ioe_timer(killer_fx->e, &t->req, ioe_now_ns(killer_fx->e) + 1000 + ticks % 977,
			  tick);
}

static double seconds_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void print_rate(const char *what, uint64_t events, double seconds)
{
	print_message("%s: %.2f million events a second\n", what, (double)events / seconds / 1e6);
}

/* Printed, not asserted: the machine that runs the tests may be busy. */
static void events_per_second(void **state)
{
	struct sim_fixture *fx = *state;
	static struct sim_wait t[64];
	static struct busy b;
	double start = seconds_now();
	uint64_t before = sim_events(fx->w);

	killer_fx = fx;
	ticks = 0;
	for (int i = 0; i < 64; i++)
		ioe_timer(fx->e, &t[i].req, 0, tick);
	assert_true(sim_run(fx->w, UINT64_MAX));
	print_rate("timers", sim_events(fx->w) - before, seconds_now() - start);

	busy_start(&b, fx->m);
	start = seconds_now();
	before = sim_events(fx->w);
	while (sim_events(fx->w) < before + 200000)
		assert_true(sim_step(fx->w));
	print_rate("disk, network, timers, work", 200000, seconds_now() - start);
	sim_kill(b.e);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_same_seed_is_the_same_run),
	    T(a_trace_tells_each_event),
	    T(timers_fire_in_order_of_their_deadlines),
	    T(running_to_a_time_stops_there),
	    T(a_poll_waits_in_virtual_time),
	    T(a_stalled_process_gets_everything_in_one_turn),
	    T(hooks_messages_and_work_run_also_when_asked_for_between_steps),
	    T(a_process_can_be_killed_from_its_own_callback),
	    T(power_can_be_lost_in_a_callback),
	    T(an_orderly_exit_is_no_kill),
	    cmocka_unit_test(a_kill_at_any_step_leaves_nothing_behind),
	    cmocka_unit_test(machines_can_have_clocks_of_their_own),
	    cmocka_unit_test(ending_the_world_touches_no_request),
	    T(events_per_second),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
