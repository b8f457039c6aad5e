/* SPDX-License-Identifier: Apache-2.0 */
/* uring.c - the engine on io_uring.
 *
 * A turn costs at most one io_uring_enter(): it submits what the turn queued, runs the kernel's deferred completions, and waits. A turn
 * that has something to do anyway and nothing to submit makes none, because the kernel says in the shared ring when it has
 * completions to hand out (IORING_SETUP_TASKRUN_FLAG).
 *
 * What goes through the ring:
 *   files       READ WRITE FSYNC FALLOCATE, at most cfg.depth in the kernel; the rest waits on host.disk
 *   receives    RECV: the data arrives in the call that waited for it
 *   sends       SEND, when several sockets have something to send; a single one is cheaper by a plain call, because the completion of an
 *               SQE would end the wait that the turn is about to begin
 *   the others  POLL_ADD after an accept or connect that would block; then the call is made again
 * and a READ of the eventfd behind ioe_post(), and a POLL_ADD of the signalfd.
 *
 * What the kernel holds ends with its CQE and not before, so closing a file or socket with nothing in flight leaves nothing in the
 * ring. A cancel is an SQE behind the one it means and in front of any later one of the same request or socket. */
#include <linux/falloc.h>
#include <liburing.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "src/base/log.h"
#include "src/base/math.h"
#include "src/base/mem.h"
#include "src/ioe/host.h"

enum { SQ_ENTRIES = 512, CQ_ENTRIES = 4096, SQ_IOVS = 16 * SOCK_GATHER_MAX, REAP_DISK_MAX = 8 };
/* User data is a file request, or a direction of a socket with TAG_DIR added, or one of these. */
enum { TAG_IGNORE = 0, TAG_WAKE = 2, TAG_SIGNAL = 4, TAG_LAST = TAG_SIGNAL, TAG_DIR = 1 };

struct uring {
	struct host host;
	struct io_uring ring;
	bool started;		       /* the loop's thread has taken the ring */
	bool wake_armed, signal_armed; /* the ring watches wake_fd, signal_fd */
	bool is_late;		       /* the turn before has left its SQEs to this one */
	uint32_t patient_n; /* SQEs not yet submitted that wait for others: receives, polls, wakes */
	uint32_t in_kernel; /* file requests */
	uint64_t wake_count;
	/* Messages of sends that wait in the ring for the next submit; the kernel copies them then. */
	struct msghdr msgs[SQ_ENTRIES];
	struct iovec iovs[SQ_IOVS];
	uint32_t msgs_n, iovs_n;
};

static const struct ioe_ops uring_ops;

static int ring_open(struct io_uring *ring);
static void ring_start(struct uring *u);
static void disk_push(struct uring *u);
static bool disk_is_due(const struct uring *u);
static void wait_for_cqes(struct uring *u, uint64_t wait_ns);
static bool can_submit_later(struct uring *u);
static bool spin(struct uring *u, uint64_t wait_ns);
static void reap(struct uring *u);
static void disk_cqe(struct uring *u, struct ioe_req *r, int res);
static void sock_cqe(struct uring *u, struct sock_dir *d, int res);
static void uring_arm(struct host *h, struct sock_dir *d);
static struct io_uring_sqe *send_sqe(struct uring *u, struct sock_dir *d);
static void wake_arm(struct uring *u);
static void signal_arm(struct uring *u);

static struct uring *uring_of(struct ioe *e)
{
	return container_of(host_of(e), struct uring, host);
}

/* ---- life ------------------------------------------------------------------------------------------------------------- */

int uring_new(const struct ioe_config *cfg, struct ioe **ret_e)
{
	struct uring *u = mem_zalloc(sizeof(*u));
	int r;

	if (!u)
		return -ENOMEM;
	r = host_init(&u->host, &uring_ops, cfg);
	if (r)
		goto err_free;
	u->host.arm = uring_arm;
	u->host.leaves_bytes_to_kernel = true;
	r = ring_open(&u->ring);
	if (r)
		goto err_host;
	*ret_e = &u->host.ioe;
	return 0;
err_host:
	host_fini(&u->host);
err_free:
	mem_free(u);
	return r;
}

/* The best set of flags this kernel knows; each older one is also correct. The ring starts disabled, so that the thread that first runs
 * the loop becomes its owner, and not the one that happened to create it. */
static int ring_open(struct io_uring *ring)
{
	static const unsigned flags[] = {
	    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL, /* 6.1 */
	    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
		IORING_SETUP_SUBMIT_ALL, /* 5.19 */
	    0,
	};
	const unsigned need = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_FAST_POLL |
			      IORING_FEAT_SUBMIT_STABLE; /* 5.11 */
	struct io_uring_params p;
	int r = -EINVAL;

	for (size_t i = 0; i < ARRAY_LEN(flags) && r == -EINVAL; i++) {
		p = (struct io_uring_params){
		    .flags = flags[i] | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE |
			     IORING_SETUP_CLAMP,
		    .cq_entries = CQ_ENTRIES,
		};
		r = io_uring_queue_init_params(SQ_ENTRIES, ring, &p);
	}
	if (!r && (p.features & need) != need) {
		io_uring_queue_exit(ring);
		r = -EINVAL;
	}
	if (r == -EMFILE || r == -ENFILE)
		return r;
	if (r) { /* also ENOMEM: kernels before 5.12 count the ring as locked memory */
		log_info("io_uring is not to be had", "error=%s", err_name(r));
		return -ENOSYS;
	}
	return 0;
}

static void ring_start(struct uring *u)
{
	/* by number: liburing 2.3 forgot to export io_uring_enable_rings() */
	int r = io_uring_register((unsigned)u->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);

	check(r >= 0);
	/* Spares a descriptor look-up per call, where there is such a thing. */
	(void)io_uring_register_ring_fd(&u->ring);
	u->started = true;
}

static void uring_free(struct ioe *e)
{
	struct uring *u = uring_of(e);

	io_uring_queue_exit(&u->ring);
	host_fini(&u->host);
	mem_free(u);
}

/* ---- the ring --------------------------------------------------------------------------------------------------------- */

/* Does the kernel have completions that are not in the ring yet? */
static bool kernel_has_more(struct uring *u)
{
	return IO_URING_READ_ONCE(*u->ring.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

/* After each call that submits. An error is a passing one: out of memory for the moment, or the kernel wants completions taken first. What
 * is left in the ring goes out with a later call. */
static void enter_result(struct uring *u, int r)
{
	check(r >= 0 || r == -EINTR || r == -EAGAIN || r == -EBUSY || r == -ETIME || r == -ENOMEM);
	if (io_uring_sq_ready(&u->ring) == 0) {
		u->msgs_n = u->iovs_n = u->patient_n = 0;
		u->is_late = false;
	}
}

/* In the middle of a push, when the ring is full. */
static void submit_now(struct uring *u)
{
	enter_result(u, io_uring_submit_and_get_events(&u->ring));
	reap(u);
}

/* The caller fills it in and sets the user data last. */
static struct io_uring_sqe *sqe_get(struct uring *u)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&u->ring)))
		submit_now(u);
	return sqe;
}

/* Of what disks have finished, a few: the requests that follow go down while the disk works on the others. Taken all at once they would
 * go down all at once as well, and disk and processor would take turns. What the ring does in the call that submits it is no such work. */
static void reap(struct uring *u)
{
	struct io_uring_cqe *cqe;
	unsigned head, n = 0, disk_n = 0;

	io_uring_for_each_cqe(&u->ring, head, cqe)
	{
		uint64_t data = cqe->user_data;
		int res = cqe->res;

		if (data & TAG_DIR) {
			sock_cqe(u, (struct sock_dir *)(uintptr_t)(data - TAG_DIR), res);
		} else if (data > TAG_LAST) {
			struct ioe_req *r = (struct ioe_req *)(uintptr_t)data;

			if (!file_of(r->file)->ring_moves_inline && disk_n++ == REAP_DISK_MAX)
				break;
			disk_cqe(u, r, res);
		} else if (data == TAG_WAKE) {
			u->wake_armed = false;
		} else if (data == TAG_SIGNAL) {
			u->signal_armed = false;
			host_signal_read(&u->host);
		}
		n++;
	}
	io_uring_cq_advance(&u->ring, n);
}

/* ---- a turn ----------------------------------------------------------------------------------------------------------- */

static int uring_poll(struct ioe *e, uint64_t deadline_ns)
{
	struct uring *u = uring_of(e);
	int n;

	if (!u->started)
		ring_start(u);
	do {
		host_turn_begin(&u->host);
		disk_push(u);
		signal_arm(u);
		wake_arm(
		    u); /* the last that may reap: whether there is something to wait for is asked behind it */
		wait_for_cqes(u, disk_is_due(u) ? 0 : host_wait_ns(&u->host, deadline_ns));
		n = host_turn_end(&u->host);
	} while (n == 0 && !host_poll_over(&u->host, deadline_ns));
	return n;
}

static void wait_for_cqes(struct uring *u, uint64_t wait_ns)
{
	struct host *h = &u->host;
	struct __kernel_timespec ts = {
	    .tv_sec = (long long)(wait_ns / 1000000000),
	    .tv_nsec = (long long)(wait_ns % 1000000000),
	};
	struct io_uring_cqe *cqe;

	if (wait_ns > 0 && host_spin_begin(h)) {
		bool hit = spin(u, wait_ns);

		host_spin_end(h, hit);
		if (hit)
			wait_ns = 0;
	}
	if (wait_ns > 0 && host_sleep_begin(h)) {
		enter_result(u, io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1,
								 wait_ns == UINT64_MAX ? NULL : &ts,
								 NULL));
		host_sleep_end(h);
	} else if (kernel_has_more(u) || !can_submit_later(u)) {
		enter_result(u, io_uring_submit_and_get_events(&u->ring));
	}
	reap(u);
}

/* Is there nothing in the ring but what waits for others, while callbacks are due? These then run first, and the next turn submits it in
 * the call that waits. That spares a connection with one request at a time one call of three. */
static bool can_submit_later(struct uring *u)
{
	unsigned n = io_uring_sq_ready(&u->ring);

	u->is_late = n > 0 && n == u->patient_n && !u->is_late && !list_empty(&u->host.ioe.ready);
	return n == 0 || u->is_late;
}

/* Watches the ring for a while instead of sleeping. True: something came. */
static bool spin(struct uring *u, uint64_t wait_ns)
{
	struct host *h = &u->host;
	uint64_t end = host_clock_ns() + MIN(wait_ns, h->cfg.spin_ns);

	if (io_uring_sq_ready(&u->ring))
		enter_result(u, io_uring_submit(&u->ring));
	do {
		for (int i = 0; i < 32; i++) {
			if (io_uring_cq_ready(&u->ring) || kernel_has_more(u) ||
			    engine_has_work(&h->ioe))
				return true;
			host_cpu_relax();
		}
	} while (host_clock_ns() < end);
	return false;
}

/* ---- files ------------------------------------------------------------------------------------------------------------ */

static void disk_push(struct uring *u)
{
	struct list *l;

	while (disk_is_due(u) && (l = list_pop(&u->host.disk))) {
		struct ioe_req *r = list_entry(l, struct ioe_req, link);
		unsigned piece = (unsigned)MIN(r->len - r->got, (uint64_t)FILE_PIECE_BYTES_MAX);
		char *at = (char *)r->buf + r->got;
		int fd = file_of(r->file)->fd;
		struct io_uring_sqe *sqe = sqe_get(u);

		switch (r->op) {
		case IOE_READ:
			io_uring_prep_read(sqe, fd, at, piece, r->off + r->got);
			break;
		case IOE_WRITE:
			io_uring_prep_write(sqe, fd, at, piece, r->off + r->got);
			break;
		case IOE_FSYNC:
			io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
			break;
		case IOE_PUNCH:
			io_uring_prep_fallocate(sqe, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
						(off_t)r->off, (off_t)r->len);
			break;
		default:
			check_unreachable("not a file request");
		}
		io_uring_sqe_set_data64(sqe, (uintptr_t)r);
		r->stage = FILE_IN_KERNEL;
		u->in_kernel++;
	}
}

/* Did a request come back unfinished after the push? What reaps in between is a full ring. */
static bool disk_is_due(const struct uring *u)
{
	return u->in_kernel < u->host.cfg.depth && !list_empty(&u->host.disk);
}

static void disk_cqe(struct uring *u, struct ioe_req *r, int res)
{
	bool cancelled = r->stage == FILE_CANCELLED;
	int go = res;

	check(u->in_kernel > 0);
	u->in_kernel--;
	if (r->op == IOE_READ || r->op == IOE_WRITE)
		go = file_progress(r, res);
	else if (res == -EINTR || res == -EAGAIN)
		go = 1;
	if (go == 1 && cancelled)
		go = -ECANCELED; /* it was interrupted, or came back in part */
	else if (go == -ECANCELED && !cancelled)
		go = 1; /* nobody asked for that */
	if (go == 1) {
		r->stage = FILE_QUEUED;
		list_push_front(&u->host.disk, &r->link);
	} else {
		engine_complete(&u->host.ioe, r, go);
	}
}

/* ---- sockets ---------------------------------------------------------------------------------------------------------- */

static uint64_t dir_tag(struct sock_dir *d)
{
	return (uintptr_t)d + TAG_DIR;
}

static void uring_arm(struct host *h, struct sock_dir *d)
{
	struct uring *u = container_of(h, struct uring, host);
	struct ioe_req *r = sock_dir_head(d);
	struct sock *s = d->sock;
	struct io_uring_sqe *sqe;

	d->armed_n = 1;
	if (r->op == IOE_SEND) {
		sqe = send_sqe(u, d);
	} else if (r->op == IOE_RECV && r->iov_n == 1) {
		sqe = sqe_get(u);
		io_uring_prep_recv(sqe, s->fd, r->iov[0].iov_base, r->iov[0].iov_len, 0);
	} else if (r->op == IOE_RECV) {
		sqe = sqe_get(u);
		s->msg = (struct msghdr){.msg_iov = r->iov, .msg_iovlen = (size_t)r->iov_n};
		io_uring_prep_recvmsg(sqe, s->fd, &s->msg, 0);
	} else {
		sqe = sqe_get(u);
		io_uring_prep_poll_add(sqe, s->fd, r->op == IOE_ACCEPT ? POLLIN : POLLOUT);
	}
	io_uring_sqe_set_data64(sqe, dir_tag(d));
	u->patient_n += r->op != IOE_SEND;
}

/* All that is queued, as one message. MSG_WAITALL: the kernel goes on by itself when the socket was full. */
static struct io_uring_sqe *send_sqe(struct uring *u, struct sock_dir *d)
{
	const int flags = MSG_NOSIGNAL | MSG_WAITALL;
	struct io_uring_sqe *sqe;
	struct msghdr *m;
	struct iovec *iov;
	size_t bytes;

	while (io_uring_sq_ready(&u->ring) > 0 &&
	       (u->msgs_n == SQ_ENTRIES || u->iovs_n > SQ_IOVS - SOCK_GATHER_MAX))
		submit_now(u);
	sqe = sqe_get(u);
	m = &u->msgs[u->msgs_n++];
	iov = &u->iovs[u->iovs_n];
	*m = (struct msghdr){.msg_iov = iov};
	m->msg_iovlen = sock_send_gather(d, iov, &bytes, &d->armed_n);
	u->iovs_n += (uint32_t)m->msg_iovlen;
	if (m->msg_iovlen == 1)
		io_uring_prep_send(sqe, d->sock->fd, iov->iov_base, iov->iov_len, flags);
	else
		io_uring_prep_sendmsg(sqe, d->sock->fd, m, (unsigned)flags);
	return sqe;
}

/* A receive or send has its result. For the others, and for what was interrupted, the call is made (again) in host_turn_end(). */
static void sock_cqe(struct uring *u, struct sock_dir *d, int res)
{
	struct ioe_req *r = sock_dir_head(d);
	bool is_transfer = r->op == IOE_RECV || r->op == IOE_SEND,
	     is_connect = r->op == IOE_CONNECT;

	check(d->armed_n > 0);
	d->armed_n = 0;
	d->blocked = false;
	if (is_transfer && res < 0 && res != -ECANCELED && res != -EINTR && res != -EAGAIN) {
		sock_head_done(&u->host, d, res);
	} else if (r->op == IOE_RECV && res >= 0) {
		sock_received(d->sock, r, (size_t)res);
		sock_head_done(&u->host, d, 0);
	} else if (r->op == IOE_SEND && res >= 0) {
		sock_sent(&u->host, d, (size_t)res);
	}
	if (sock_cancelled_end(&u->host, d) > 0 && is_connect)
		return; /* that freed the socket */
	sock_dir_wake(&u->host, d);
}

/* ---- cancel and shutdown ---------------------------------------------------------------------------------------------- */

static void kernel_cancel(struct uring *u, uint64_t user_data)
{
	struct io_uring_sqe *sqe = sqe_get(u);

	io_uring_prep_cancel64(sqe, user_data, 0);
	io_uring_sqe_set_data64(sqe, TAG_IGNORE);
}

static void uring_cancel(struct ioe *e, struct ioe_req *r)
{
	struct uring *u = uring_of(e);

	if (host_cancel(&u->host, r))
		return;
	if (r->op > IOE_PUNCH) {
		kernel_cancel(u, dir_tag(sock_dir_of(r)));
	} else if (r->stage != FILE_CANCELLED) {
		r->stage = FILE_CANCELLED;
		kernel_cancel(u, (uintptr_t)r);
	}
}

static void uring_sock_shutdown(struct ioe *e, struct ioe_sock *base)
{
	struct sock *s = sock_of(base);
	struct uring *u = uring_of(e);

	if (s->shut)
		return;
	sock_shutdown(e, base);
	if (s->in.armed_n)
		kernel_cancel(u, dir_tag(&s->in));
	if (s->out.armed_n)
		kernel_cancel(u, dir_tag(&s->out));
}

/* ---- waking ----------------------------------------------------------------------------------------------------------- */

static void wake_arm(struct uring *u)
{
	struct io_uring_sqe *sqe;

	if (u->wake_armed)
		return;
	sqe = sqe_get(u);
	io_uring_prep_read(sqe, u->host.wake_fd, &u->wake_count, sizeof(u->wake_count), 0);
	io_uring_sqe_set_data64(sqe, TAG_WAKE);
	u->wake_armed = true;
	u->patient_n++;
}

static void signal_arm(struct uring *u)
{
	struct io_uring_sqe *sqe;

	if (u->signal_armed || u->host.signal_fd < 0)
		return;
	sqe = sqe_get(u);
	io_uring_prep_poll_add(sqe, u->host.signal_fd, POLLIN);
	io_uring_sqe_set_data64(sqe, TAG_SIGNAL);
	u->signal_armed = true;
	u->patient_n++;
}

static const struct ioe_ops uring_ops = {
    .name = "uring",
    .free = uring_free,
    .cancel = uring_cancel,
    .poll = uring_poll,
    .sock_shutdown = uring_sock_shutdown,
    .on_terminate = host_on_terminate,
    HOST_OPS,
};
