/* SPDX-License-Identifier: Apache-2.0 */
/* The loop of every engine: completions, hooks, messages, timers, workers, waking and idling. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "tests/lib/ioe_fixture.h"

enum { MS = 1000 * 1000, MANY = 1000 };

/* ---- completions ------------------------------------------------------------------------------------------------------ */

static void a_nop_completes_from_the_loop_and_once(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_wait w = {0};

	ioe_nop(fx->e, &w.req, ioe_wait_done);
	assert_int_equal(w.calls, 0);
	assert_int_equal(ioe_poll(fx->e, 0), 1);
	assert_int_equal(w.calls, 1);
	assert_int_equal(ioe_poll(fx->e, 0), 0);
	assert_int_equal(w.calls, 1);
}

struct chain {
	struct ioe_req req;
	struct ioe *e;
	int left, depth, deepest, turns_seen;
};

static void chain_next(struct ioe_req *r)
{
	struct chain *c = container_of(r, struct chain, req);

	c->depth++;
	c->deepest = c->depth > c->deepest ? c->depth : c->deepest;
	if (--c->left > 0)
		ioe_nop(c->e, &c->req, chain_next);
	c->depth--;
}

/* A request struct is free in its callback, submitting there does not recurse, and a loop of nops does not keep the turn from ending. */
static void a_request_can_be_reused_in_its_callback(void **state)
{
	struct ioe_fixture *fx = *state;
	struct chain c = {.e = fx->e, .left = MANY};
	int turns = 0;

	ioe_nop(fx->e, &c.req, chain_next);
	while (c.left > 0) {
		ioe_poll(fx->e, 0);
		turns++;
	}
	assert_int_equal(c.deepest, 1);
	assert_int_equal(turns, MANY);
}

static void free_request(struct ioe_req *r)
{
	mem_free(r);
}

static void a_request_can_be_freed_in_its_callback(void **state)
{
	struct ioe_fixture *fx = *state;
	uint64_t live = mem_live();

	for (int i = 0; i < 100; i++)
		ioe_nop(fx->e, mem_alloc(sizeof(struct ioe_req)), free_request);
	for (int i = 0; i < 100; i++)
		ioe_timer(fx->e, mem_alloc(sizeof(struct ioe_req)), 0, free_request);
	ioe_run_for(fx, 10 * MS);
	assert_int_equal(mem_live(), live);
}

static void a_poll_without_work_ends_at_its_deadline(void **state)
{
	struct ioe_fixture *fx = *state;
	uint64_t begin_ns = ioe_now_ns(fx->e), end_ns;

	assert_int_equal(ioe_poll(fx->e, begin_ns + 20 * MS), 0);
	end_ns = ioe_now_ns(fx->e);
	assert_true(end_ns >= begin_ns + 20 * MS);
	assert_true(end_ns < begin_ns + 2000ULL * MS);
}

/* Callbacks that are always due do not keep back what waits for the kernel. */
static void busy_callbacks_do_not_keep_receives_back(void **state)
{
	struct ioe_fixture *fx = *state;
	struct chain c = {.e = fx->e, .left = MANY};
	struct ioe_wait w = {0};
	struct ioe_sock *ends[2];
	char text[4] = "";
	struct iovec iov = {text, 3};
	int left;

	ioe_fixture_pair(fx, "unix", ends);
	assert_int_equal(ioe_sync_send(fx, ends[0], "abc", 3), 0);
	ioe_nop(fx->e, &c.req, chain_next);
	ioe_recv(fx->e, &w.req, ends[1], &iov, 1, ioe_wait_done);
	while (c.left > 0 && !w.calls)
		ioe_poll(fx->e, 0);
	left = c.left;
	while (c.left > 0)
		ioe_poll(fx->e, 0);
	assert_int_equal(ioe_wait_for(fx, &w), 0);
	assert_string_equal(text, "abc");
	ioe_sock_close(fx->e, ends[0]);
	ioe_sock_close(fx->e, ends[1]);
	assert_true(left > MANY / 2);
}

/* ---- hooks ------------------------------------------------------------------------------------------------------------ */

struct hooked {
	struct ioe_hook hook;
	struct ioe *e;
	int runs, calls_before; /* callbacks that had run when the hook ran */
	int *calls;
	struct ioe_hook *arms;
	struct ioe_wait *submits;
};

static void hooked_run(struct ioe_hook *h)
{
	struct hooked *k = container_of(h, struct hooked, hook);

	k->runs++;
	if (k->calls)
		k->calls_before = *k->calls;
	if (k->submits)
		ioe_nop(k->e, &k->submits->req, ioe_wait_done);
	if (k->arms)
		ioe_hook_arm(k->e, k->arms);
}

static void hooked_init(struct hooked *k, struct ioe *e)
{
	memset(k, 0, sizeof(*k));
	ioe_hook_init(&k->hook, hooked_run);
	k->e = e;
}

struct arming {
	struct ioe_req req;
	struct hooked *hook;
	int *calls;
};

static void arm_the_hook(struct ioe_req *r)
{
	struct arming *a = container_of(r, struct arming, req);

	++*a->calls;
	ioe_hook_arm(a->hook->e, &a->hook->hook);
}

static void a_hook_runs_once_after_the_callbacks_of_the_turn(void **state)
{
	struct ioe_fixture *fx = *state;
	struct hooked k;
	struct arming a[3];
	int calls = 0;

	hooked_init(&k, fx->e);
	k.calls = &calls;
	for (int i = 0; i < 3; i++) {
		a[i] = (struct arming){.hook = &k, .calls = &calls};
		ioe_nop(fx->e, &a[i].req, arm_the_hook);
	}
	assert_int_equal(ioe_poll(fx->e, 0), 3);
	assert_int_equal(k.runs, 1);
	assert_int_equal(k.calls_before, 3);
	ioe_run_for(fx, MS);
	assert_int_equal(k.runs, 1);
}

static void a_hook_armed_outside_of_a_turn_runs_too(void **state)
{
	struct ioe_fixture *fx = *state;
	struct hooked k;

	hooked_init(&k, fx->e);
	ioe_hook_arm(fx->e, &k.hook);
	ioe_hook_arm(fx->e, &k.hook);
	assert_int_equal(k.runs, 0);
	ioe_run_for(fx, MS);
	assert_int_equal(k.runs, 1);
}

static void a_hook_may_arm_hooks_and_submit(void **state)
{
	struct ioe_fixture *fx = *state;
	struct hooked first, second;
	struct ioe_wait w = {0};

	hooked_init(&first, fx->e);
	hooked_init(&second, fx->e);
	first.arms = &second.hook;
	second.submits = &w;
	ioe_hook_arm(fx->e, &first.hook);
	assert_int_equal(ioe_wait_for(fx, &w), 0);
	assert_int_equal(first.runs, 1);
	assert_int_equal(second.runs, 1);
}

static void a_hook_that_arms_itself_runs_once_a_turn(void **state)
{
	struct ioe_fixture *fx = *state;
	struct hooked k;
	int before;

	hooked_init(&k, fx->e);
	k.arms = &k.hook;
	ioe_hook_arm(fx->e, &k.hook);
	for (int i = 0; i < 1000 && k.runs < 10; i++) {
		before = k.runs;
		ioe_poll(fx->e, ioe_now_ns(fx->e)); /* over before it begins: one turn */
		/* before the push, and after the callbacks */
		assert_true(k.runs <= before + 2 || fx->engine == ON_SIM);
	}
	assert_true(k.runs >= 10);
	k.arms = NULL;
	ioe_run_for(fx, MS);
}

static void a_disarmed_hook_does_not_run(void **state)
{
	struct ioe_fixture *fx = *state;
	struct hooked k;

	hooked_init(&k, fx->e);
	ioe_hook_arm(fx->e, &k.hook);
	ioe_hook_disarm(&k.hook);
	ioe_hook_disarm(&k.hook);
	ioe_run_for(fx, MS);
	assert_int_equal(k.runs, 0);
	ioe_hook_arm(fx->e, &k.hook);
	ioe_run_for(fx, MS);
	assert_int_equal(k.runs, 1);
}

/* ---- messages --------------------------------------------------------------------------------------------------------- */

struct counted_msg {
	struct ioe_msg msg;
	int *n;
	int seen_at;
};

static void msg_count(struct ioe_msg *m)
{
	struct counted_msg *c = container_of(m, struct counted_msg, msg);

	c->seen_at = ++*c->n;
}

static void messages_arrive_in_the_order_they_were_posted(void **state)
{
	struct ioe_fixture *fx = *state;
	struct counted_msg m[5];
	int n = 0;

	for (int i = 0; i < 5; i++) {
		m[i] = (struct counted_msg){.msg.fn = msg_count, .n = &n};
		ioe_post(fx->e, &m[i].msg);
	}
	assert_int_equal(n, 0);
	ioe_wait_count(fx, &n, 5);
	for (int i = 0; i < 5; i++)
		assert_int_equal(m[i].seen_at, i + 1);
}

struct poster {
	struct ioe *e;
	struct counted_msg msgs[MANY];
	int pause_every;
};

static void *post_many(void *arg)
{
	struct poster *p = arg;

	for (int i = 0; i < MANY; i++) {
		ioe_post(p->e, &p->msgs[i].msg);
		if (i % p->pause_every == 0)
			usleep(50); /* the loop falls asleep now and then */
	}
	return NULL;
}

static void every_message_of_every_thread_arrives(void **state)
{
	struct ioe_fixture *fx = *state;
	struct poster *p = mem_zalloc_array(4, sizeof(*p));
	pthread_t ids[4];
	int n = 0;

	for (int t = 0; t < 4; t++) {
		p[t].e = fx->e;
		p[t].pause_every = 7 * t + 3;
		for (int i = 0; i < MANY; i++)
			p[t].msgs[i] = (struct counted_msg){.msg.fn = msg_count, .n = &n};
		assert_int_equal(pthread_create(&ids[t], NULL, post_many, &p[t]), 0);
	}
	ioe_wait_count(fx, &n, 4 * MANY);
	for (int t = 0; t < 4; t++)
		pthread_join(ids[t], NULL);
	assert_int_equal(n, 4 * MANY);
	mem_free(p);
}

static struct {
	struct ioe *e;
	struct ioe_msg *m;
} on_clock;

/* The engine looks at the clock when it knows of nothing to do and is about to sleep: the moment for another thread to post. */
int clock_gettime(clockid_t id, struct timespec *ts)
{
	struct ioe_msg *m = on_clock.m;

	on_clock.m = NULL;
	if (m)
		ioe_post(on_clock.e, m);
	return (int)syscall(SYS_clock_gettime, id, ts);
}

static void a_message_just_before_the_sleep_is_seen(void **state)
{
	struct ioe_fixture *fx = *state;
	int n = 0;
	struct counted_msg m = {.msg.fn = msg_count, .n = &n};
	uint64_t begin_ns = ioe_now_ns(fx->e);

	on_clock.e = fx->e;
	on_clock.m = &m.msg;
	assert_int_equal(ioe_poll(fx->e, begin_ns + 10000ULL * MS), 1);
	assert_int_equal(n, 1);
	assert_true(ioe_now_ns(fx->e) < begin_ns + 5000ULL * MS);
}

struct pingpong {
	struct ioe *e;
	struct ioe_msg msg;
	atomic_int seen, over;
};

static void pingpong_seen(struct ioe_msg *m)
{
	struct pingpong *p = container_of(m, struct pingpong, msg);

	atomic_fetch_add(&p->seen, 1);
}

/* One message at a time, about when the loop goes to sleep: no other wakes it in its place. */
static void *pingpong_post(void *arg)
{
	struct pingpong *p = arg;

	for (int i = 0; !p->over; i++) {
		for (int spins = 0; p->seen < i && !p->over; spins++)
			if (spins > 5000)
				sched_yield();
		if (p->seen < i)
			break; /* it is posted still */
		for (volatile int pause = i * 7 % 1500; pause > 0; pause--)
			;
		p->msg.fn = pingpong_seen;
		ioe_post(p->e, &p->msg);
	}
	return NULL;
}

static void a_message_amid_falling_asleep_wakes_the_loop(void **state)
{
	struct ioe_fixture *fx = *state;
	struct pingpong p = {.e = fx->e};
	uint64_t end_ns = ioe_now_ns(fx->e) + 300ULL * MS, patience_ns = 20000ULL * MS;
	bool lost = false;
	pthread_t id;

	assert_int_equal(pthread_create(&id, NULL, pingpong_post, &p), 0);
	while (!lost && ioe_now_ns(fx->e) < end_ns)
		lost = ioe_poll(fx->e, ioe_now_ns(fx->e) + patience_ns) == 0;
	p.over = 1;
	pthread_join(id, NULL);
	ioe_run_for(fx, MS); /* the last one may still be posted */
	assert_false(lost);
	assert_true(p.seen > 10);
}

/* ---- run and stop ----------------------------------------------------------------------------------------------------- */

static void *stop_later(void *arg)
{
	usleep(20 * 1000);
	ioe_stop(arg);
	return NULL;
}

static void stop_ends_run_from_another_thread(void **state)
{
	struct ioe_fixture *fx = *state;
	pthread_t id;

	assert_int_equal(pthread_create(&id, NULL, stop_later, fx->e), 0);
	ioe_run(fx->e);
	pthread_join(id, NULL);
}

static void stop_here(struct ioe_req *r)
{
	struct chain *c = container_of(r, struct chain, req);

	ioe_stop(c->e);
}

static void stop_ends_run_from_a_callback_and_beforehand(void **state)
{
	struct ioe_fixture *fx = *state;
	struct chain c = {.e = fx->e};

	ioe_timer(fx->e, &c.req, ioe_now_ns(fx->e) + MS, stop_here);
	ioe_run(fx->e);
	ioe_stop(fx->e);
	ioe_run(fx->e);
}

static void *run(void *arg)
{
	ioe_run(arg);
	return NULL;
}

struct stop_msg {
	struct ioe_msg msg;
	struct ioe *e;
	int n;
};

static void count_and_stop(struct ioe_msg *m)
{
	struct stop_msg *s = container_of(m, struct stop_msg, msg);

	s->n++;
	ioe_stop(s->e);
}

/* A loop belongs to the thread that first runs it, wherever it was created. */
static void a_loop_can_run_in_another_thread_than_its_creators(void **state)
{
	struct ioe_fixture *fx = *state;
	struct stop_msg m = {.msg.fn = count_and_stop, .e = ioe_fixture_another(fx)};
	pthread_t id;

	assert_int_equal(pthread_create(&id, NULL, run, m.e), 0);
	usleep(10 * 1000); /* rather while it sleeps than before it begins; both must work */
	ioe_post(m.e, &m.msg);
	pthread_join(id, NULL);
	assert_int_equal(m.n, 1);
	ioe_free(m.e);
}

/* ---- timers ----------------------------------------------------------------------------------------------------------- */

struct timed {
	struct ioe_req req;
	int *n;
	int rank;
	uint64_t at_ns;
	struct ioe *e;
};

static void timed_done(struct ioe_req *r)
{
	struct timed *t = container_of(r, struct timed, req);

	t->rank = (*t->n)++;
	t->at_ns = ioe_now_ns(t->e);
}

static void timers_fire_in_order_and_not_early(void **state)
{
	enum { TIMERS = 200 };
	struct ioe_fixture *fx = *state;
	struct timed *t = mem_zalloc_array(TIMERS, sizeof(*t));
	uint64_t base_ns = ioe_now_ns(fx->e);
	int n = 0;

	for (int i = 0; i < TIMERS; i++) {
		t[i].n = &n;
		t[i].e = fx->e;
		/* a permutation, with groups of equal deadlines */
		ioe_timer(fx->e, &t[i].req, base_ns + (uint64_t)(i * 37 % TIMERS / 4) * (MS / 4),
			  timed_done);
	}
	ioe_wait_count(fx, &n, TIMERS);
	for (int i = 0; i < TIMERS; i++) {
		assert_int_equal(t[i].req.status, 0);
		assert_true(t[i].at_ns >= t[i].req.deadline_ns);
		for (int k = 0; k < TIMERS; k++) {
			if (t[i].req.deadline_ns < t[k].req.deadline_ns)
				assert_true(t[i].rank < t[k].rank);
			if (t[i].req.deadline_ns == t[k].req.deadline_ns && i < k)
				assert_true(t[i].rank < t[k].rank);
		}
	}
	mem_free(t);
}

static void cancelled_timers_end_with_ecanceled(void **state)
{
	enum { TIMERS = 100 };
	struct ioe_fixture *fx = *state;
	struct ioe_wait *w = mem_zalloc_array(TIMERS, sizeof(*w));
	uint64_t base_ns = ioe_now_ns(fx->e);
	int cancelled = 0, fired = 0;

	for (int i = 0; i < TIMERS; i++) {
		bool never = i % 2;

		ioe_timer(fx->e, &w[i].req, never ? UINT64_MAX - (uint64_t)i : base_ns + 2 * MS,
			  ioe_wait_done);
	}
	for (int i = 1; i < TIMERS; i += 2)
		ioe_cancel(fx->e, &w[i].req);
	for (int i = 0; i < TIMERS; i++)
		assert_int_equal(w[i].calls, 0);
	for (int i = 0; i < TIMERS; i++) {
		int r = ioe_wait_for(fx, &w[i]);

		cancelled += r == -ECANCELED;
		fired += r == 0;
	}
	assert_int_equal(cancelled, TIMERS / 2);
	assert_int_equal(fired, TIMERS / 2);
	ioe_cancel(fx->e, &w[0].req); /* long done: nothing happens */
	ioe_cancel(fx->e, &w[1].req);
	mem_free(w);
}

static void a_timer_of_the_past_fires_at_once(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_wait w = {0};

	ioe_timer(fx->e, &w.req, 0, ioe_wait_done);
	assert_int_equal(w.calls, 0);
	assert_int_equal(ioe_wait_for(fx, &w), 0);
}

/* ---- work ------------------------------------------------------------------------------------------------------------- */

struct work {
	struct ioe_req req;
	int *n;
	int result;
	pthread_t ran_on;
	bool takes_signals;
	sem_t *gate; /* waits here, if it has one */
};

static void work_fn(struct ioe_req *r)
{
	struct work *w = container_of(r, struct work, req);

	sigset_t blocked;

	w->ran_on = pthread_self();
	pthread_sigmask(SIG_SETMASK, NULL, &blocked);
	w->takes_signals = !sigismember(&blocked, SIGTERM) || !sigismember(&blocked, SIGUSR1);
	if (w->gate)
		sem_wait(w->gate);
	w->result = 42;
}

static void work_done(struct ioe_req *r)
{
	++*container_of(r, struct work, req)->n;
}

static void work_runs_and_comes_back(void **state)
{
	enum { WORKS = 200 };
	struct ioe_fixture *fx = *state;
	struct work *w = mem_zalloc_array(WORKS, sizeof(*w));
	int n = 0;

	for (int i = 0; i < WORKS; i++) {
		w[i].n = &n;
		ioe_work(fx->e, &w[i].req, work_fn, work_done);
	}
	assert_int_equal(n, 0);
	ioe_wait_count(fx, &n, WORKS);
	for (int i = 0; i < WORKS; i++) {
		assert_int_equal(w[i].req.status, 0);
		assert_int_equal(w[i].result, 42);
		if (fx->engine == ON_SIM)
			continue;
		assert_false(pthread_equal(w[i].ran_on, pthread_self()));
		assert_false(
		    w[i].takes_signals); /* or one may end the program behind the loop's back */
	}
	mem_free(w);
}

/* Two threads: the first two run to their end, the others have not begun. */
static void cancelled_work_has_not_run(void **state)
{
	enum { WORKS = 10 };
	struct ioe_fixture *fx = *state;
	struct work w[WORKS] = {0};
	int n = 0, cancelled = 0;
	sem_t gate;

	sem_init(&gate, 0, 0);
	for (int i = 0; i < WORKS; i++) {
		w[i].n = &n;
		w[i].gate = &gate;
		ioe_work(fx->e, &w[i].req, work_fn, work_done);
	}
	for (int i = 0; i < WORKS; i++)
		ioe_cancel(fx->e, &w[i].req);
	for (int i = 0; i < WORKS; i++)
		sem_post(&gate);
	ioe_wait_count(fx, &n, WORKS);
	for (int i = 0; i < WORKS; i++) {
		assert_true(w[i].req.status == 0 || w[i].req.status == -ECANCELED);
		assert_int_equal(w[i].result, w[i].req.status == 0 ? 42 : 0);
		cancelled += w[i].req.status != 0;
	}
	assert_true(cancelled >= WORKS - 2);
	ioe_run_for(fx, MS);
	assert_int_equal(n, WORKS);
	sem_destroy(&gate);
}

/* ---- idling ----------------------------------------------------------------------------------------------------------- */

static long switches(void)
{
	struct rusage u;

	getrusage(RUSAGE_THREAD, &u);
	return u.ru_nvcsw;
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void an_idle_loop_does_not_wake_up(void **state)
{
	struct ioe_fixture *fx = *state;
	struct work warm = {0};
	struct ioe_wait w = {0};
	long before;
	uint64_t cpu_before;
	int n = 0;

	warm.n = &n;
	ioe_work(fx->e, &warm.req, work_fn, work_done); /* a pool with threads is as quiet */
	ioe_wait_count(fx, &n, 1);
	ioe_run_for(fx, 20 * MS);
	before = switches();
	cpu_before = cpu_ns();
	ioe_timer(fx->e, &w.req, ioe_now_ns(fx->e) + 300 * MS, ioe_wait_done);
	ioe_wait_for(fx, &w);
	assert_true(switches() - before <= 3);
	assert_true(cpu_ns() - cpu_before < 20 * MS);
}

static void termination(void *arg)
{
	++*(int *)arg;
}

static void signals_call_the_terminator_on_the_loop(void **state)
{
	struct ioe_fixture *fx = *state;
	int n = 0;

	signal(SIGINT, SIG_DFL); /* a shell that runs this in the background has it ignored */
	assert_int_equal(ioe_on_terminate(fx->e, termination, &n), 0);
	ioe_run_for(fx, MS);
	assert_int_equal(n, 0);
	kill(getpid(), SIGTERM);
	ioe_wait_count(fx, &n, 1);
	kill(getpid(), SIGINT); /* the same wish */
	ioe_run_for(fx, MS);
	assert_int_equal(n, 1);
}

/* Whoever asks again after a second does not want to wait. */
static void a_later_signal_ends_the_process(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_config cfg = {.kind = ioe_kind_of(fx->engine == ON_AIO ? "aio" : "uring")};
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct ioe *e;
		int n = 0;

		if (ioe_new(&cfg, &e) || ioe_on_terminate(e, termination, &n))
			_exit(70);
		for (uint64_t end_ns = ioe_now_ns(e) + 20 * IOE_HURRY_NS; ioe_now_ns(e) < end_ns;) {
			kill(getpid(), SIGTERM);
			ioe_poll(e, ioe_now_ns(e) + IOE_HURRY_NS / 10);
			if (n > 1)
				_exit(71);
		}
		_exit(72);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), EXIT_FAILURE);
}

/* Whoever reads what a daemon says may go away: that must not end it. */
static void a_closed_pipe_does_not_end_the_program(void **state)
{
	struct ioe_fixture *fx = *state;
	int ends[2], n = 0;

	assert_int_equal(ioe_on_terminate(fx->e, termination, &n), 0);
	assert_int_equal(pipe(ends), 0);
	close(ends[0]);
	assert_int_equal(write(ends[1], "x", 1), -1);
	assert_int_equal(errno, EPIPE);
	close(ends[1]);
	signal(SIGPIPE, SIG_DFL);
}

static void an_ignored_interrupt_stays_ignored(void **state)
{
	struct ioe_fixture *fx = *state;
	int n = 0;

	signal(SIGINT, SIG_IGN);
	assert_int_equal(ioe_on_terminate(fx->e, termination, &n), 0);
	kill(getpid(), SIGINT);
	ioe_run_for(fx, MS);
	assert_int_equal(n, 0);
	kill(getpid(), SIGTERM);
	ioe_wait_count(fx, &n, 1);
	signal(SIGINT, SIG_DFL);
}

/* ---- identity --------------------------------------------------------------------------------------------------------- */

static void time_randomness_and_identity(void **state)
{
	struct ioe_fixture *fx = *state;
	struct uuid boot = ioe_boot_id(fx->e), again = ioe_boot_id(fx->e), a = ioe_uuid(fx->e),
		    b = ioe_uuid(fx->e);
	uint8_t bytes[1000] = {0};

	assert_true(uuid_equal(&boot, &again));
	assert_false(uuid_is_zero(&boot));
	assert_false(uuid_equal(&a, &b));
	assert_int_equal(a.b[6] >> 4, 4);
	assert_int_equal(a.b[8] >> 6, 2);
	assert_true(ioe_rand64(fx->e) != ioe_rand64(fx->e));
	ioe_random(fx->e, bytes, sizeof(bytes));
	assert_false(bytes_are_zero(bytes + 900, 100));
	assert_true(ioe_wall_ns(fx->e) > 1600000000ULL * 1000 * MS);
	assert_non_null(ioe_name(fx->e));
}

/* Constant within a turn it may be; before the loop runs, a program reads a database for minutes. */
static void time_goes_on_outside_of_turns(void **state)
{
	struct ioe_fixture *fx = *state;
	uint64_t begin_ns = ioe_now_ns(fx->e);

	usleep(20 * 1000);
	assert_true(ioe_now_ns(fx->e) >= begin_ns + 20 * MS);
	ioe_poll(fx->e, 0);
	begin_ns = ioe_now_ns(fx->e);
	usleep(20 * 1000);
	assert_true(ioe_now_ns(fx->e) >= begin_ns + 20 * MS);
}

int main(void)
{
	static const struct ioe_test tests[] = {
	    {"a nop completes from the loop and once", a_nop_completes_from_the_loop_and_once,
	     ON_REAL},
	    {"busy callbacks do not keep receives back", busy_callbacks_do_not_keep_receives_back,
	     ON_REAL},
	    {"a request can be reused in its callback", a_request_can_be_reused_in_its_callback,
	     ON_REAL},
	    {"a request can be freed in its callback", a_request_can_be_freed_in_its_callback,
	     ON_ALL},
	    {"a poll without work ends at its deadline", a_poll_without_work_ends_at_its_deadline,
	     ON_ALL},
	    {"a hook runs once after the callbacks",
	     a_hook_runs_once_after_the_callbacks_of_the_turn, ON_ALL},
	    {"a hook armed outside of a turn runs too", a_hook_armed_outside_of_a_turn_runs_too,
	     ON_ALL},
	    {"a hook may arm hooks and submit", a_hook_may_arm_hooks_and_submit, ON_ALL},
	    {"a hook that arms itself runs once a turn", a_hook_that_arms_itself_runs_once_a_turn,
	     ON_ALL},
	    {"a disarmed hook does not run", a_disarmed_hook_does_not_run, ON_ALL},
	    {"messages arrive in order", messages_arrive_in_the_order_they_were_posted, ON_ALL},
	    {"a message just before the sleep", a_message_just_before_the_sleep_is_seen, ON_REAL},
	    {"a message amid falling asleep", a_message_amid_falling_asleep_wakes_the_loop, ON_REAL},
	    {"every message of every thread arrives", every_message_of_every_thread_arrives,
	     ON_REAL},
	    {"stop ends run from another thread", stop_ends_run_from_another_thread, ON_REAL},
	    {"stop ends run from a callback", stop_ends_run_from_a_callback_and_beforehand, ON_ALL},
	    {"a loop can run in another thread", a_loop_can_run_in_another_thread_than_its_creators,
	     ON_REAL},
	    {"timers fire in order and not early", timers_fire_in_order_and_not_early, ON_ALL},
	    {"cancelled timers end with ECANCELED", cancelled_timers_end_with_ecanceled, ON_ALL},
	    {"a timer of the past fires at once", a_timer_of_the_past_fires_at_once, ON_ALL},
	    {"work runs and comes back", work_runs_and_comes_back, ON_ALL},
	    {"cancelled work has not run", cancelled_work_has_not_run, ON_REAL},
	    {"an idle loop does not wake up", an_idle_loop_does_not_wake_up, ON_REAL},
	    {"signals call the terminator on the loop", signals_call_the_terminator_on_the_loop,
	     ON_REAL},
	    {"a later signal ends the process", a_later_signal_ends_the_process, ON_REAL},
	    {"a closed pipe does not end the program", a_closed_pipe_does_not_end_the_program,
	     ON_REAL},
	    {"an ignored interrupt stays ignored", an_ignored_interrupt_stays_ignored, ON_REAL},
	    {"time, randomness, identity", time_randomness_and_identity, ON_ALL},
	    {"time goes on outside of turns", time_goes_on_outside_of_turns, ON_REAL},
	};

	return ioe_suite_run(tests, ARRAY_LEN(tests));
}
