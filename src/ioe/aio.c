/* SPDX-License-Identifier: Apache-2.0 */
/* aio.c - the engine for kernels and containers without io_uring: libaio for O_DIRECT reads and writes, epoll for everything with a
 * descriptor to wait on, and worker threads for file requests that would block the loop (fsync, punch, the page cache).
 *
 * Sockets are watched, edge-triggered, from the first time on that one would block: an edge puts its directions back to try. The eventfds are edge-triggered too and never
 * read. Where even libaio is not to be had, all file requests go to the workers. */
#include <errno.h>
#include <libaio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "src/base/log.h"
#include "src/base/math.h"
#include "src/base/mem.h"
#include "src/ioe/host.h"

/* turns that have work do not ask epoll for more of it, so many times in a row */
enum { BLIND_TURNS_MAX = 8 };
enum { DISK_WORKERS = 16, SUBMIT_BATCH = 64, EVENTS_MAX = 128 };
/* what an epoll event is about, when it is not a socket */
enum { TAG_WAKE = 1, TAG_DISK = 2, TAG_SIGNAL = 3, TAG_LAST = TAG_SIGNAL };

struct aio {
	struct host host;
	int epoll_fd, disk_fd; /* disk_fd: eventfd that counts completions of libaio */
	bool signal_watched;
	uint32_t blind_turns; /* without a look at epoll */
	struct workers *disk_workers;
	io_context_t ctx;    /* 0: the kernel has no aio for us */
	struct iocb *iocbs;  /* cfg.depth of them */
	struct iocb **spare; /* a stack of those not in the kernel */
	uint32_t spare_n;
};

static const struct ioe_ops aio_ops;

static int aio_open(struct aio *a);
static void aio_close(struct aio *a);
static void disk_push(struct aio *a);
static bool disk_push_batch(struct aio *a);
static bool disk_submit(struct aio *a, struct iocb **batch, uint32_t n);
static void disk_to_worker(struct aio *a, struct ioe_req *r);
static void disk_reap(struct aio *a);
static void wait_for_events(struct aio *a, uint64_t wait_ns);
static int epoll_sleep(struct aio *a, struct epoll_event *events, uint64_t wait_ns);
static void event_take(struct aio *a, const struct epoll_event *ev);
static void aio_arm(struct host *h, struct sock_dir *d);

static struct aio *aio_of(struct ioe *e)
{
	return container_of(host_of(e), struct aio, host);
}

/* ---- life ------------------------------------------------------------------------------------------------------------- */

int aio_new(const struct ioe_config *cfg, struct ioe **ret_e)
{
	struct aio *a = mem_zalloc(sizeof(*a));
	int r;

	if (!a)
		return -ENOMEM;
	r = host_init(&a->host, &aio_ops, cfg);
	if (r) {
		mem_free(a);
		return r;
	}
	a->host.arm = aio_arm;
	a->epoll_fd = a->disk_fd = -1;
	r = aio_open(a);
	if (r) {
		aio_close(a);
		return r;
	}
	*ret_e = &a->host.ioe;
	return 0;
}

static int watch(struct aio *a, int fd, uint32_t events, void *ptr, uint64_t tag)
{
	struct epoll_event ev = {.events = events};

	if (ptr)
		ev.data.ptr = ptr;
	else
		ev.data.u64 = tag;
	return epoll_ctl(a->epoll_fd, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

static int aio_open(struct aio *a)
{
	uint32_t depth = a->host.cfg.depth;
	int r;

	r = workers_new(&a->host.ioe, DISK_WORKERS, file_run, &a->disk_workers);
	if (r)
		return r;
	a->iocbs = mem_zalloc_array(depth, sizeof(a->iocbs[0]));
	a->spare = mem_zalloc_array(depth, sizeof(struct iocb *));
	if (!a->iocbs || !a->spare)
		return -ENOMEM;
	while (a->spare_n < depth) {
		a->spare[a->spare_n] = &a->iocbs[a->spare_n];
		a->spare_n++;
	}
	a->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	a->disk_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (a->epoll_fd < 0 || a->disk_fd < 0)
		return -errno;
	r = io_setup((int)depth, &a->ctx);
	if (r) {
		log_warn("libaio is not to be had, file requests go to threads", "error=%s",
			 err_name(r));
		a->ctx = 0;
	}
	r = watch(a, a->host.wake_fd, EPOLLIN | EPOLLET, NULL, TAG_WAKE);
	return r ? r : watch(a, a->disk_fd, EPOLLIN | EPOLLET, NULL, TAG_DISK);
}

static void aio_close(struct aio *a)
{
	if (a->ctx)
		io_destroy(a->ctx);
	if (a->disk_fd >= 0)
		close(a->disk_fd);
	if (a->epoll_fd >= 0)
		close(a->epoll_fd);
	workers_free(a->disk_workers);
	mem_free(a->spare);
	mem_free(a->iocbs);
	host_fini(&a->host);
	mem_free(a);
}

static void aio_free(struct ioe *e)
{
	aio_close(aio_of(e));
}

/* ---- a turn ----------------------------------------------------------------------------------------------------------- */

static int aio_poll(struct ioe *e, uint64_t deadline_ns)
{
	struct aio *a = aio_of(e);
	int n;

	do {
		host_turn_begin(&a->host);
		disk_push(a);
		wait_for_events(a, host_wait_ns(&a->host, deadline_ns));
		n = host_turn_end(&a->host);
	} while (n == 0 && !host_poll_over(&a->host, deadline_ns));
	return n;
}

static bool look_is_due(struct aio *a)
{
	if (!list_empty(&a->host.ioe.ready) && a->blind_turns < BLIND_TURNS_MAX) {
		a->blind_turns++;
		return false;
	}
	a->blind_turns = 0;
	return true;
}

static void wait_for_events(struct aio *a, uint64_t wait_ns)
{
	struct epoll_event events[EVENTS_MAX];
	struct host *h = &a->host;
	int n = 0;

	if (wait_ns > 0 && host_spin_begin(h)) {
		uint64_t end = host_clock_ns() + MIN(wait_ns, h->cfg.spin_ns);
		bool hit;

		do {
			n = epoll_sleep(a, events, 0);
			hit = n > 0 || engine_has_work(&h->ioe);
		} while (!hit && host_clock_ns() < end);
		host_spin_end(h, hit);
		if (hit)
			wait_ns = 0;
	}
	if (n == 0 && wait_ns > 0 && host_sleep_begin(h)) {
		n = epoll_sleep(a, events, wait_ns);
		host_sleep_end(h);
	} else if (n == 0 && look_is_due(a)) {
		n = epoll_sleep(a, events, 0);
	}
	for (int i = 0; i < n; i++)
		event_take(a, &events[i]);
	disk_reap(a);
}

/* Nanoseconds where the kernel can (5.11), else milliseconds, rounded up: a timer may be late and never early. */
static int epoll_sleep(struct aio *a, struct epoll_event *events, uint64_t wait_ns)
{
	struct timespec ts = {.tv_sec = (time_t)(wait_ns / 1000000000),
			      .tv_nsec = (long)(wait_ns % 1000000000)};
	uint64_t ms = div_up(wait_ns, 1000000);
	int n;

	if (wait_ns == 0 || wait_ns == UINT64_MAX)
		return MAX(epoll_wait(a->epoll_fd, events, EVENTS_MAX, wait_ns ? -1 : 0), 0);
	n = epoll_pwait2(a->epoll_fd, events, EVENTS_MAX, &ts, NULL);
	if (n < 0 && errno != EINTR) /* ENOSYS, or EPERM from a sandbox that does not know it */
		n = epoll_wait(a->epoll_fd, events, EVENTS_MAX, (int)MIN(ms, (uint64_t)INT32_MAX));
	return MAX(n, 0);
}

static void event_take(struct aio *a, const struct epoll_event *ev)
{
	const uint32_t ends = EPOLLRDHUP | EPOLLHUP | EPOLLERR;
	struct sock *s;

	switch (ev->data.u64) {
	case TAG_WAKE:
	case TAG_DISK:
		return; /* the edge was the message */
	case TAG_SIGNAL:
		host_signal_read(&a->host);
		return;
	}
	s = ev->data.ptr;
	/* not EPOLLHUP: a socket whose connect is under way may have it too */
	if (ev->events & (EPOLLRDHUP | EPOLLERR))
		s->hup = true;
	if (ev->events & (EPOLLIN | ends)) {
		s->in.blocked = false;
		sock_dir_wake(&a->host, &s->in);
	}
	if (ev->events & (EPOLLOUT | ends)) {
		s->out.blocked = false;
		sock_dir_wake(&a->host, &s->out);
	}
}

/* ---- sockets ---------------------------------------------------------------------------------------------------------- */

/* Once watched, always watched: further edges come by themselves. What happened before is reported at once. */
static void aio_arm(struct host *h, struct sock_dir *d)
{
	struct aio *a = container_of(h, struct aio, host);
	bool is_connect = sock_dir_head(d)->op == IOE_CONNECT;
	struct sock *s = d->sock;
	int r;

	if (s->watched)
		return;
	r = watch(a, s->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, s, 0);
	if (!r) {
		s->watched = true;
		return;
	}
	sock_head_done(h, d, r);
	if (!is_connect) /* else the socket is gone */
		sock_dir_wake(h, d);
}

/* ---- files ------------------------------------------------------------------------------------------------------------ */

static void disk_push(struct aio *a)
{
	while (disk_push_batch(a))
		;
}

/* True: call again, there is more and the kernel takes it. */
static bool disk_push_batch(struct aio *a)
{
	struct iocb *batch[SUBMIT_BATCH];
	uint32_t n = 0;
	struct list *l;

	while (n < SUBMIT_BATCH && a->spare_n > 0 && (l = list_pop(&a->host.disk))) {
		struct ioe_req *r = list_entry(l, struct ioe_req, link);
		struct file *f = file_of(r->file);
		size_t piece = MIN(r->len - r->got, (uint64_t)FILE_PIECE_BYTES_MAX);
		char *at = (char *)r->buf + r->got;
		long long off = (long long)(r->off + r->got);
		struct iocb *cb;

		if (!a->ctx || !f->is_direct || (r->op != IOE_READ && r->op != IOE_WRITE)) {
			disk_to_worker(a, r);
			continue;
		}
		cb = a->spare[--a->spare_n];
		if (r->op == IOE_READ)
			io_prep_pread(cb, f->fd, at, piece, off);
		else
			io_prep_pwrite(cb, f->fd, at, piece, off);
		io_set_eventfd(cb, a->disk_fd);
		cb->data = r;
		r->stage = FILE_IN_KERNEL;
		batch[n++] = cb;
	}
	return n > 0 && disk_submit(a, batch, n) && n == SUBMIT_BATCH;
}

static void disk_to_worker(struct aio *a, struct ioe_req *r)
{
	r->stage = FILE_ON_WORKER;
	workers_add(a->disk_workers, r);
}

/* Takes back what the kernel does not take. Short of memory it says EAGAIN: the next completion is the time to try again, and without
 * one to come the workers do it. True: it took all. */
static bool disk_submit(struct aio *a, struct iocb **batch, uint32_t n)
{
	uint32_t at = 0;
	bool all;
	int r = 0;

	while (at < n) {
		r = io_submit(a->ctx, (long)(n - at), batch + at);
		if (r > 0) {
			at += (uint32_t)r;
		} else if (r == 0 || r == -EAGAIN) {
			break;
		} else if (r != -EINTR) {
			a->spare[a->spare_n++] = batch[at];
			engine_complete(&a->host.ioe, batch[at++]->data, r);
		}
	}
	all = at == n;
	while (n > at) {
		struct ioe_req *req = batch[--n]->data;

		a->spare[a->spare_n++] = batch[n];
		if (a->spare_n == a->host.cfg.depth) {
			disk_to_worker(a, req);
		} else {
			req->stage = FILE_QUEUED;
			list_push_front(&a->host.disk, &req->link);
		}
	}
	return all;
}

static void disk_reap(struct aio *a)
{
	struct io_event events[SUBMIT_BATCH];
	struct timespec now = {0};
	int n = SUBMIT_BATCH;

	while (n == SUBMIT_BATCH && a->spare_n < a->host.cfg.depth) {
		n = io_getevents(a->ctx, 0, SUBMIT_BATCH, events, &now);
		for (int i = 0; i < n; i++) {
			struct ioe_req *r = events[i].data;
			int go = file_progress(r, (long)events[i].res);

			a->spare[a->spare_n++] = events[i].obj;
			if (go == 1) {
				r->stage = FILE_QUEUED;
				list_push_front(&a->host.disk, &r->link);
			} else {
				engine_complete(&a->host.ioe, r, go);
			}
		}
	}
}

/* What libaio has, it finishes. */
static void aio_cancel(struct ioe *e, struct ioe_req *r)
{
	struct aio *a = aio_of(e);

	if (host_cancel(&a->host, r))
		return;
	if (r->stage == FILE_ON_WORKER && workers_take_back(a->disk_workers, r))
		engine_complete(e, r, -ECANCELED);
}

static int aio_on_terminate(struct ioe *e, void (*fn)(void *arg), void *arg)
{
	struct aio *a = aio_of(e);
	int r = host_on_terminate(e, fn, arg);

	if (r || a->signal_watched)
		return r;
	r = watch(a, a->host.signal_fd, EPOLLIN, NULL, TAG_SIGNAL);
	a->signal_watched = r == 0;
	return r;
}

static const struct ioe_ops aio_ops = {
    .name = "aio",
    .free = aio_free,
    .cancel = aio_cancel,
    .poll = aio_poll,
    .sock_shutdown = sock_shutdown,
    .on_terminate = aio_on_terminate,
    HOST_OPS,
};
