/* SPDX-License-Identifier: Apache-2.0 */
/* sim.c - the world, its machines and processes; turns; kill and power loss. */
#include "src/ioe/sim.h"

#include <string.h>

#include "src/base/math.h"

enum { FIRST_PID = 100, POLL_NS = 1000 };
#define START_NS ((uint64_t)1000 * 1000 * 1000) /* the world begins one second after its boot */
#define WALL_START_NS \
	((uint64_t)1700000000 * 1000 * 1000 * 1000) /* and on a day in November 2023 */

#define CLOCK_AHEAD_NS ((uint64_t)1000 * 86400 * 1000 * 1000 * 1000)
#define WALL_AHEAD_NS  ((uint64_t)3600 * 1000 * 1000 * 1000)

static void turn(struct sim_world *w, struct sim_event *ev);
static void process_end(struct sim_proc *p);
static void process_bury(struct sim_proc *p);

/* ---- world ------------------------------------------------------------------------------------------------------------ */

static void default_to(uint64_t *min, uint64_t *max, uint64_t default_min, uint64_t default_max)
{
	if (*min == 0 && *max == 0) {
		*min = default_min;
		*max = default_max;
	}
	check(*min <= *max);
}

struct sim_world *sim_world_new(const struct sim_config *cfg)
{
	struct sim_world *w = sim_zalloc(sizeof(*w));

	w->cfg = *cfg;
	default_to(&w->cfg.disk_ns_min, &w->cfg.disk_ns_max, 20 * 1000, 2000 * 1000);
	default_to(&w->cfg.net_ns_min, &w->cfg.net_ns_max, 10 * 1000, 1000 * 1000);
	default_to(&w->cfg.turn_ns_min, &w->cfg.turn_ns_max, 1000, 10 * 1000);
	if (w->cfg.depth == 0)
		w->cfg.depth = 256;
	rand_seed(&w->rand, cfg->seed);
	w->now_ns = START_NS;
	w->last_pid = FIRST_PID - 1;
	list_init(&w->machines);
	list_init(&w->procs);
	list_init(&w->dead);
	sim_net_init(w);
	return w;
}

void sim_world_free(struct sim_world *w)
{
	struct list *l;

	check(!w->is_stepping);
	w->is_ending = true;
	while (!list_empty(&w->procs)) {
		struct sim_proc *p = list_first(&w->procs, struct sim_proc, link);

		process_end(p);
		process_bury(p);
	}
	sim_net_free(w);
	while ((l = list_pop(&w->machines))) {
		struct sim_machine *m = list_entry(l, struct sim_machine, link);

		sim_fs_free(m);
		sim_free(m->name);
		sim_free(m);
	}
	while ((l = list_pop(&w->dead))) {
		struct sim_proc *p = list_entry(l, struct sim_proc, link);

		sim_free(p->name);
		sim_free(p);
	}
	check(w->queue.n == 0);
	sim_free(w->queue.heap);
	sim_free(w);
}

uint64_t sim_now_ns(struct sim_world *w)
{
	return w->now_ns;
}

uint64_t sim_events(struct sim_world *w)
{
	return w->events;
}

uint64_t sim_rand(struct sim_world *w)
{
	return rand_u64(&w->rand);
}

uint64_t sim_latency(struct sim_world *w, uint64_t min_ns, uint64_t max_ns)
{
	return rand_between(&w->rand, min_ns, max_ns);
}

/* ---- time goes on ----------------------------------------------------------------------------------------------------- */

/* Between steps a test, or one process's glue to another, may have given a process something to do of which the engine is not told. */
static void notice_work(struct sim_world *w)
{
	list_for_each (l, &w->procs) {
		struct sim_proc *p = list_entry(l, struct sim_proc, link);

		if (!list_empty(&p->e.ready) || !list_empty(&p->e.hooks))
			sim_wake(p);
	}
}

static uint64_t next_event_ns(struct sim_world *w)
{
	notice_work(w);
	return w->queue.n ? w->queue.heap[1].at_ns : UINT64_MAX;
}

bool sim_step(struct sim_world *w)
{
	struct sim_event *ev;
	uint64_t at_ns;

	check(!w->is_stepping); /* not from a callback */
	notice_work(w);
	ev = sim_queue_pop(&w->queue, &at_ns);
	if (!ev)
		return false;
	check(at_ns >= w->now_ns);
	w->now_ns = at_ns;
	w->events++;
	w->is_stepping = true;
	ev->fire(w, ev);
	w->is_stepping = false;
	return true;
}

bool sim_run(struct sim_world *w, uint64_t until_ns)
{
	for (;;) {
		uint64_t next_ns = next_event_ns(w);

		if (next_ns == UINT64_MAX)
			return true;
		if (next_ns > until_ns) {
			w->now_ns = MAX(w->now_ns, until_ns);
			return false;
		}
		sim_step(w);
	}
}

void sim_wake(struct sim_proc *p)
{
	if (!p->is_dead && !p->in_turn && !sim_is_scheduled(&p->turn))
		sim_schedule(p->w, &p->turn, p->busy_until_ns);
}

void sim_complete(struct sim_proc *p, struct ioe_req *r, int status)
{
	engine_complete(&p->e, r, status);
	sim_wake(p);
}

/* The process may kill itself in here, or cause the power loss of its machine. */
static void turn(struct sim_world *w, struct sim_event *ev)
{
	struct sim_proc *p = container_of(ev, struct sim_proc, turn);
	int n = 0;

	p->in_turn = true;
	engine_hooks_run(&p->e);
	sim_push(p);
	if (!p->is_dead)
		n = engine_dispatch(&p->e);
	sim_push(p);
	p->in_turn = false;
	p->callbacks += (uint64_t)n;
	sim_note(w, "turn", p, NULL, 0, (uint64_t)n, 0);
	if (p->is_dead) {
		process_bury(p);
		return;
	}
	p->busy_until_ns = MAX(p->busy_until_ns,
			       w->now_ns + sim_latency(w, w->cfg.turn_ns_min, w->cfg.turn_ns_max));
	if (!list_empty(&p->e.ready) || !list_empty(&p->e.hooks) || atomic_load(&p->e.posted))
		sim_wake(p);
}

void sim_stall(struct ioe *e, uint64_t ns)
{
	struct sim_proc *p = sim_proc_of(e);
	bool wants_turn = sim_is_scheduled(&p->turn);

	p->busy_until_ns = MAX(p->busy_until_ns, p->w->now_ns + ns);
	sim_unschedule(p->w, &p->turn);
	if (wants_turn)
		sim_wake(p);
}

static int poll_world(struct ioe *e, uint64_t deadline_ns)
{
	struct sim_proc *p = sim_proc_of(e);
	struct sim_world *w = p->w;
	uint64_t before = p->callbacks;

	check(!p->is_dead);
	deadline_ns = sim_world_ns(p, deadline_ns);
	while (p->callbacks == before) {
		uint64_t next_ns = next_event_ns(w);

		if (atomic_load(&e->stop))
			return 0;
		if (next_ns == UINT64_MAX && deadline_ns == UINT64_MAX)
			return -1;
		if (next_ns > MAX(deadline_ns, w->now_ns + POLL_NS)) {
			w->now_ns = MAX(deadline_ns, w->now_ns + POLL_NS);
			return 0;
		}
		sim_step(w);
		if (p->is_dead)
			return -1;
	}
	return (int)(p->callbacks - before);
}

static void wake(struct ioe *e)
{
	sim_wake(sim_proc_of(e));
}

/* ---- machines and processes ------------------------------------------------------------------------------------------- */

static struct uuid new_uuid(struct rand *rnd)
{
	struct uuid u;

	rand_fill(rnd, u.b, sizeof(u.b));
	u.b[6] = (uint8_t)((u.b[6] & 0x0f) | 0x40);
	u.b[8] = (uint8_t)((u.b[8] & 0x3f) | 0x80);
	return u;
}

static void boot(struct sim_machine *m)
{
	struct sim_world *w = m->w;

	m->boot_id = new_uuid(&w->rand);
	if (!w->cfg.own_clocks)
		return;
	m->clock_ns = rand_below(&w->rand, CLOCK_AHEAD_NS);
	m->wall_ns = rand_below(&w->rand, WALL_AHEAD_NS);
}

struct sim_machine *sim_machine_new(struct sim_world *w, const char *name)
{
	struct sim_machine *m = sim_zalloc(sizeof(*m));

	m->w = w;
	m->name = sim_strdup(name);
	boot(m);
	list_init(&m->names);
	list_init(&m->inodes);
	list_init(&m->link);
	list_push(&w->machines, &m->link);
	return m;
}

struct ioe *sim_process_new(struct sim_machine *m, const char *name, void (*on_kill)(void *arg),
			    void *arg)
{
	struct sim_proc *p = sim_zalloc(sizeof(*p));
	struct sim_world *w = m->w;

	engine_init(&p->e, &sim_ops);
	p->m = m;
	p->w = w;
	p->name = sim_strdup(name);
	p->pid = ++w->last_pid;
	rand_seed(&p->rand, rand_u64(&w->rand));
	p->on_kill = on_kill;
	p->on_kill_arg = arg;
	p->turn.fire = turn;
	list_init(&p->queued);
	list_init(&p->waiting);
	list_init(&p->ops);
	list_init(&p->files);
	list_init(&p->socks);
	list_init(&p->maps);
	list_init(&p->dials);
	list_init(&p->link);
	list_push(&w->procs, &p->link);
	if (m->is_off) {
		m->is_off = false;
		sim_net_power_on(m);
	}
	return &p->e;
}

void sim_forget(struct sim_proc *p, struct list *l)
{
	if (p->w->is_ending)
		list_init(l);
	while (list_pop(l))
		;
}

/* No callback of it runs from here on. Memory that a callback on the stack may still look at stays until process_bury(). */
static void process_end(struct sim_proc *p)
{
	check(!p->is_dead);
	p->is_dead = true;
	list_del(&p->link);
	list_push(&p->w->dead, &p->link);
	sim_unschedule(p->w, &p->turn);
	sim_forget(p, &p->e.ready);
	sim_forget(p, &p->e.running);
	sim_forget(p, &p->e.hooks);
	sim_forget(p, &p->e.hooks_again);
	atomic_store(&p->e.posted, NULL);
	sim_forget(p, &p->queued);
	sim_forget(p, &p->waiting);
	sim_ops_orphan(p);
	sim_socks_reset(p);
	sim_note(p->w, "end", p, NULL, 0, 0, 0);
}

static void process_bury(struct sim_proc *p)
{
	sim_fs_close_all(p);
	sim_socks_free(p);
	sim_forget(p, &p->e.ready); /* a nop that was submitted after the end */
	sim_forget(p, &p->e.hooks);
	if (p->on_kill) /* last: it frees the process's memory, which all of these may be in */
		p->on_kill(p->on_kill_arg);
}

void sim_kill(struct ioe *e)
{
	struct sim_proc *p = sim_proc_of(e);

	process_end(p);
	if (!p->in_turn)
		process_bury(p);
}

void sim_power_loss(struct sim_machine *m)
{
	struct sim_world *w = m->w;

	m->is_off = true;
	sim_net_power_loss(m); /* first: a dead machine resets nothing */
	list_for_each_safe (l, tmp, &w->procs) {
		struct sim_proc *p = list_entry(l, struct sim_proc, link);

		if (p->m == m)
			sim_kill(&p->e);
	}
	sim_fs_power_loss(m);
	boot(m);
	sim_note(w, "power loss", NULL, m->name, 0, 0, 0);
}

/* ioe_free(): an orderly exit. */
static void process_exit(struct ioe *e)
{
	struct sim_proc *p = sim_proc_of(e);

	check(!p->is_dead && !p->in_turn);
	sim_socks_close(p);
	p->on_kill = NULL;
	process_end(p);
	process_bury(p);
}

/* ---- the engine ------------------------------------------------------------------------------------------------------- */

static uint64_t now_ns(struct ioe *e)
{
	return sim_proc_of(e)->w->now_ns + sim_proc_of(e)->m->clock_ns;
}

uint64_t sim_world_ns(const struct sim_proc *p, uint64_t clock_ns)
{
	if (clock_ns == UINT64_MAX) /* for ever, on every clock */
		return UINT64_MAX;
	return clock_ns - MIN(clock_ns, p->m->clock_ns);
}

static uint64_t wall_ns(struct ioe *e)
{
	return WALL_START_NS + sim_proc_of(e)->w->now_ns + sim_proc_of(e)->m->wall_ns;
}

void sim_wall_jump(struct sim_machine *m, int64_t ns)
{
	m->wall_ns += (uint64_t)ns; /* modulo 2^64: back is fine too */
}

static void random_bytes(struct ioe *e, void *buf, size_t len_bytes)
{
	rand_fill(&sim_proc_of(e)->rand, buf, len_bytes);
}

static struct uuid boot_id(struct ioe *e)
{
	return sim_proc_of(e)->m->boot_id;
}

static int on_terminate(struct ioe *e, void (*fn)(void *arg), void *arg)
{
	(void)e;
	(void)fn;
	(void)arg;
	return 0;
}

const struct ioe_ops sim_ops = {
    .name = "sim",
    .free = process_exit,
    .submit = sim_submit,
    .connect = sim_connect,
    .cancel = sim_cancel,
    .poll = poll_world,
    .wake = wake,
    .now_ns = now_ns,
    .wall_ns = wall_ns,
    .random = random_bytes,
    .boot_id = boot_id,
    .file_open = sim_file_open,
    .file_close = sim_file_close,
    .file_info = sim_file_info,
    .file_resize = sim_file_resize,
    .file_reserve = sim_file_reserve,
    .file_used_bytes = sim_file_used_bytes,
    .file_space = sim_file_space,
    .probe_signature = sim_probe_signature,
    .unlink = sim_unlink,
    .rename = sim_rename,
    .mkdir = sim_mkdir,
    .same = sim_same,
    .check_private = sim_check_private,
    .file_load = sim_file_load,
    .file_store = sim_file_store,
    .shm_create = sim_shm_create,
    .shm_open = sim_shm_open,
    .shm_close = sim_shm_close,
    .listen = sim_listen,
    .sock_shutdown = sim_sock_shutdown,
    .sock_close = sim_sock_close,
    .on_terminate = on_terminate,
};
