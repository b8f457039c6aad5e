/* SPDX-License-Identifier: Apache-2.0 */
#include "src/ioe/host.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "src/base/math.h"
#include "src/base/mem.h"

enum { SPIN_BACKOFF_MAX = 63 }; /* sleeps between two spins, when spins do not help */

/* tmpfs requests are memory copies made by the loop; a turn makes no more than this before it looks at the rest of the world */
enum { SYNC_TURN_BYTES = 8 << 20, SYNC_REQUEST_BYTES = 4096 };
/* ... and these, cheaper by a call for many, make at most cfg.depth of them, each no longer than this */
enum { INLINE_BYTES_MAX = 16 << 10 };

enum { DEPTH_DEFAULT = 256, DEPTH_MAX = 4096, WORKERS_DEFAULT = 4, WORKERS_MAX = 64 };

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	check(clock_gettime(id, &ts) == 0);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

uint64_t host_clock_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

static void work_run(struct ioe_req *r)
{
	r->fn(r);
}

int host_init(struct host *h, const struct ioe_ops *ops, const struct ioe_config *cfg)
{
	int r;

	memset(h, 0, sizeof(*h));
	engine_init(&h->ioe, ops);
	h->cfg = *cfg;
	h->cfg.depth = MIN(cfg->depth ? cfg->depth : DEPTH_DEFAULT, (uint32_t)DEPTH_MAX);
	h->cfg.workers = MIN(cfg->workers ? cfg->workers : WORKERS_DEFAULT, (uint32_t)WORKERS_MAX);
	list_init(&h->sync);
	list_init(&h->disk);
	list_init(&h->dirs);
	h->signal_fd = -1;
	/* blocking: io_uring waits for the next wake only on such a one */
	h->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (h->wake_fd < 0)
		return -errno;
	r = workers_new(&h->ioe, h->cfg.workers, work_run, &h->workers);
	if (r)
		close(h->wake_fd);
	return r;
}

void host_fini(struct host *h)
{
	workers_free(h->workers);
	if (h->signal_fd >= 0) {
		close(h->signal_fd);
		pthread_sigmask(SIG_SETMASK, &h->signals_before, NULL);
	}
	close(h->wake_fd);
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

static bool is_moved_inline(const struct host *h, const struct ioe_req *r)
{
	return h->leaves_bytes_to_kernel && file_of(r->file)->ring_moves_inline &&
	       (r->op == IOE_READ || r->op == IOE_WRITE) && r->len <= INLINE_BYTES_MAX;
}

static void file_submit(struct host *h, struct ioe_req *r)
{
	struct file *f = file_of(r->file);

	if (r->op == IOE_WRITE && !range_inside(r->off, r->len, f->limit_bytes)) {
		engine_complete(&h->ioe, r, -ENOSPC);
		return;
	}
	r->stage = FILE_QUEUED;
	list_push(f->never_blocks && !is_moved_inline(h, r) ? &h->sync : &h->disk, &r->link);
}

void host_submit(struct ioe *e, struct ioe_req *r)
{
	struct host *h = host_of(e);

	switch (r->op) {
	case IOE_TIMER:
		timers_add(&h->timers, r);
		break;
	case IOE_WORK:
		workers_add(h->workers, r);
		break;
	case IOE_RECV:
	case IOE_SEND:
	case IOE_ACCEPT:
		sock_submit(h, r);
		break;
	case IOE_READ:
	case IOE_WRITE:
	case IOE_FSYNC:
	case IOE_PUNCH:
		file_submit(h, r);
		break;
	case IOE_NOP:
	case IOE_CONNECT:
		check_unreachable("ioe.c has calls of their own for these");
	}
}

bool host_cancel(struct host *h, struct ioe_req *r)
{
	switch (r->op) {
	case IOE_TIMER:
		timers_del(&h->timers, r);
		break;
	case IOE_WORK:
		if (!workers_take_back(h->workers, r))
			return true; /* it runs: its own result will come */
		break;
	case IOE_RECV:
	case IOE_SEND:
	case IOE_ACCEPT:
	case IOE_CONNECT:
		return sock_cancel(h, r);
	case IOE_READ:
	case IOE_WRITE:
	case IOE_FSYNC:
	case IOE_PUNCH:
		if (r->stage != FILE_QUEUED)
			return false;
		list_del(&r->link);
		break;
	case IOE_NOP:
		check_unreachable("a nop is ready from the start");
	}
	engine_complete(&h->ioe, r, -ECANCELED);
	return true;
}

static void sync_run(struct host *h)
{
	uint64_t budget = SYNC_TURN_BYTES;
	struct list *l;

	while (budget > 0 && (l = list_pop(&h->sync))) {
		struct ioe_req *r = list_entry(l, struct ioe_req, link);

		file_run(r);
		engine_complete(&h->ioe, r, r->status);
		budget -= MIN(budget, r->len + SYNC_REQUEST_BYTES);
	}
}

/* ---- a turn ----------------------------------------------------------------------------------------------------------- */

void host_turn_begin(struct host *h)
{
	h->in_turn = true;
	engine_hooks_run(&h->ioe);
	sock_dirs_run(h);
	sync_run(h);
}

uint64_t host_wait_ns(struct host *h, uint64_t deadline_ns)
{
	uint64_t until = MIN(deadline_ns, timers_next_ns(&h->timers));

	if (until == 0 || engine_has_work(&h->ioe) || !list_empty(&h->dirs) || !list_empty(&h->sync))
		return 0;
	if (until == UINT64_MAX)
		return UINT64_MAX;
	h->now_ns = 0;
	return until - MIN(until, host_now_ns(&h->ioe));
}

bool host_poll_over(struct host *h, uint64_t deadline_ns)
{
	if (deadline_ns == 0 || atomic_load(&h->ioe.stop))
		return true;
	return deadline_ns != UINT64_MAX && host_now_ns(&h->ioe) >= deadline_ns;
}

int host_turn_end(struct host *h)
{
	struct ioe_req *r;
	int n;

	h->now_ns = 0;
	if (h->timers.root)
		while ((r = timers_take_due(&h->timers, host_now_ns(&h->ioe))))
			engine_complete(&h->ioe, r, 0);
	sock_dirs_run(h);
	n = engine_dispatch(&h->ioe);
	h->busy = n > 0;
	h->now_ns = 0;
	h->in_turn = false;
	return n;
}

/* ---- sleeping and waking ---------------------------------------------------------------------------------------------- */

/* Either the poster sees `sleeping` and writes the eventfd, or the loop sees what was posted: both store first and look second. */
bool host_sleep_begin(struct host *h)
{
	atomic_store(&h->sleeping, true);
	if (!engine_has_work(&h->ioe))
		return true;
	atomic_store(&h->sleeping, false);
	return false;
}

void host_sleep_end(struct host *h)
{
	atomic_store_explicit(&h->sleeping, false, memory_order_relaxed);
}

void host_wake(struct ioe *e)
{
	struct host *h = host_of(e);
	uint64_t one = 1;

	if (atomic_exchange(&h->sleeping, false))
		while (write(h->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
			;
}

bool host_spin_begin(struct host *h)
{
	if (h->cfg.spin_ns == 0 || !h->busy)
		return false;
	if (h->spin_skip > 0) {
		h->spin_skip--;
		return false;
	}
	return true;
}

void host_spin_end(struct host *h, bool hit)
{
	h->spin_backoff = hit ? 0 : MIN(h->spin_backoff * 2 + 1, (uint32_t)SPIN_BACKOFF_MAX);
	h->spin_skip = h->spin_backoff;
}

/* ---- time, randomness, identity --------------------------------------------------------------------------------------- */

uint64_t host_now_ns(struct ioe *e)
{
	struct host *h = host_of(e);

	if (!h->in_turn) /* before the loop runs a lot may take its time */
		return host_clock_ns();
	if (h->now_ns == 0)
		h->now_ns = host_clock_ns();
	return h->now_ns;
}

uint64_t host_wall_ns(struct ioe *e)
{
	(void)e;
	return clock_ns(CLOCK_REALTIME);
}

void host_random(struct ioe *e, void *buf, size_t len_bytes)
{
	char *at = buf;

	(void)e;
	while (len_bytes > 0) {
		ssize_t n = getrandom(at, len_bytes, 0);

		check(n > 0 || errno == EINTR);
		if (n > 0) {
			at += n;
			len_bytes -= (size_t)n;
		}
	}
}

/* A kernel without the file (a container that hides it) gets an id that equals no other boot's: nothing that survived is then trusted. */
struct uuid host_boot_id(struct ioe *e)
{
	char text[UUID_TEXT_LEN] = "";
	struct host *h = host_of(e);
	int fd;

	if (!uuid_is_zero(&h->boot_id))
		return h->boot_id;
	h->boot_id = ioe_uuid(e);
	fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (read(fd, text, UUID_TEXT_LEN - 1) == UUID_TEXT_LEN - 1)
			(void)uuid_parse(text, &h->boot_id);
		close(fd);
	}
	return h->boot_id;
}

/* ---- signals ---------------------------------------------------------------------------------------------------------- */

static void terminate_run(struct ioe_msg *m)
{
	struct host *h = container_of(m, struct host, terminate_msg);

	h->terminate_posted = false;
	if (h->terminating) {
		if (host_clock_ns() - h->terminating_ns >= IOE_HURRY_NS)
			_exit(EXIT_FAILURE);
		return;
	}
	h->terminating = true;
	h->terminating_ns = host_clock_ns();
	h->terminate(h->terminate_arg);
}

void host_signal_read(struct host *h)
{
	struct signalfd_siginfo info;

	if (read(h->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info) || h->terminate_posted)
		return;
	h->terminate_posted = true;
	h->terminate_msg.fn = terminate_run;
	ioe_post(&h->ioe, &h->terminate_msg);
}

int host_on_terminate(struct ioe *e, void (*fn)(void *arg), void *arg)
{
	struct host *h = host_of(e);
	struct sigaction sa;
	sigset_t set;
	int r;

	h->terminate = fn;
	h->terminate_arg = arg;
	if (h->signal_fd >= 0)
		return 0;
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	if (sigaction(SIGINT, NULL, &sa) == 0 && sa.sa_handler != SIG_IGN)
		sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, &h->signals_before);
	h->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (h->signal_fd >= 0)
		return 0;
	r = -errno;
	pthread_sigmask(SIG_SETMASK, &h->signals_before, NULL);
	return r;
}
