/* SPDX-License-Identifier: Apache-2.0 */
/* ioe.c - the public side of the I/O engine, and the discipline of completions, hooks and messages that all engines share. */
#include "src/ioe/ioe.h"

#include <string.h>

#include "src/base/math.h"
#include "src/ioe/engine.h"

/* ---- life ------------------------------------------------------------------------------------------------------------- */

void ioe_free(struct ioe *e)
{
	check(e->in_flight == 0);
	e->ops->free(e);
}

const char *ioe_name(const struct ioe *e)
{
	return e->ops->name;
}

void engine_init(struct ioe *e, const struct ioe_ops *ops)
{
	memset(e, 0, sizeof(*e));
	e->ops = ops;
	list_init(&e->ready);
	list_init(&e->running);
	list_init(&e->hooks);
	list_init(&e->hooks_again);
	e->hooks_round = 1; /* no hook has run in it: odd ones are outside of engine_hooks_run() */
}

void engine_file_init(struct ioe *e, struct ioe_file *f, uint32_t io_align, bool read_only)
{
	*f = (struct ioe_file){.e = e, .io_align = io_align, .read_only = read_only};
	list_init(&f->fsyncs);
}

void engine_sock_init(struct ioe *e, struct ioe_sock *s, bool is_listener)
{
	*s = (struct ioe_sock){.e = e, .is_listener = is_listener};
}

/* ---- the loop --------------------------------------------------------------------------------------------------------- */

void ioe_run(struct ioe *e)
{
	while (!atomic_exchange(&e->stop, false))
		if (e->ops->poll(e, UINT64_MAX) < 0)
			break;
}

void ioe_stop(struct ioe *e)
{
	atomic_store(&e->stop, true);
	e->ops->wake(e);
}

int ioe_poll(struct ioe *e, uint64_t deadline_ns)
{
	int n = e->ops->poll(e, deadline_ns);

	return n < 0 ? 0 : n;
}

void ioe_post(struct ioe *e, struct ioe_msg *m)
{
	struct ioe_msg *first = atomic_load_explicit(&e->posted, memory_order_relaxed);

	do
		m->next = first;
	while (!atomic_compare_exchange_weak(&e->posted, &first, m));
	/* m is the loop's now. Whoever found the stack empty wakes the loop, which takes it as a whole. */
	if (!first)
		e->ops->wake(e);
}

bool engine_has_work(struct ioe *e)
{
	return !list_empty(&e->ready) || !list_empty(&e->hooks) || atomic_load(&e->posted) ||
	       atomic_load(&e->stop);
}

static int messages_run(struct ioe *e)
{
	struct ioe_msg *m, *next, *oldest = NULL;
	int n = 0;

	if (!atomic_load_explicit(&e->posted, memory_order_relaxed))
		return 0;
	for (m = atomic_exchange(&e->posted, NULL); m; m = next) {
		next = m->next;
		m->next = oldest;
		oldest = m;
	}
	for (m = oldest; m; m = next, n++) {
		next = m->next;
		m->fn(m);
	}
	return n;
}

static void request_finish(struct ioe *e, struct ioe_req *r)
{
	check(req_state(r) == REQ_READY);
	r->priv[0] = REQ_DONE;
	e->in_flight--;
	switch (r->op) {
	case IOE_READ:
	case IOE_WRITE:
	case IOE_FSYNC:
	case IOE_PUNCH:
		r->file->in_flight--;
		break;
	case IOE_ACCEPT:
	case IOE_RECV:
	case IOE_SEND:
		r->sock->in_flight--;
		break;
	case IOE_NOP:
	case IOE_CONNECT:
	case IOE_TIMER:
	case IOE_WORK:
		break;
	}
	r->done(r); /* the last touch: r may be gone */
}

int engine_dispatch(struct ioe *e)
{
	int n = messages_run(e);
	struct list *l;

	check(list_empty(&e->running)); /* no polling from callbacks */
	list_splice(&e->running, &e->ready);
	while ((l = list_pop(&e->running))) {
		request_finish(e, list_entry(l, struct ioe_req, link));
		n++;
	}
	engine_hooks_run(e);
	return n;
}

void engine_complete(struct ioe *e, struct ioe_req *r, int status)
{
	check(req_state(r) == REQ_IN_FLIGHT);
	r->priv[0] = REQ_READY;
	r->status = r->op == IOE_FSYNC ? fsync_status(r->file, status) : status;
	list_push(&e->ready, &r->link);
	if (r->op == IOE_FSYNC)
		fsync_completed(e, r);
}

/* ---- hooks ------------------------------------------------------------------------------------------------------------ */

void ioe_hook_init(struct ioe_hook *h, void (*fn)(struct ioe_hook *h))
{
	list_init(&h->link);
	h->fn = fn;
	h->armed = false;
	h->round = 0;
}

/* A hook armed by another hook still runs in this turn; one that has run in it already waits for the next, or the turn might never end. */
void ioe_hook_arm(struct ioe *e, struct ioe_hook *h)
{
	if (h->armed)
		return;
	h->armed = true;
	list_push(h->round == e->hooks_round ? &e->hooks_again : &e->hooks, &h->link);
}

void ioe_hook_disarm(struct ioe_hook *h)
{
	list_del(&h->link);
	h->armed = false;
}

void engine_hooks_run(struct ioe *e)
{
	struct list *l;

	e->hooks_round++;
	while ((l = list_pop(&e->hooks))) {
		struct ioe_hook *h = list_entry(l, struct ioe_hook, link);

		h->armed = false;
		h->round = e->hooks_round;
		h->fn(h);
	}
	list_splice(&e->hooks, &e->hooks_again);
	e->hooks_round++;
}

/* ---- time, randomness, identity --------------------------------------------------------------------------------------- */

uint64_t ioe_now_ns(struct ioe *e)
{
	return e->ops->now_ns(e);
}

uint64_t ioe_wall_ns(struct ioe *e)
{
	return e->ops->wall_ns(e);
}

void ioe_random(struct ioe *e, void *buf, size_t len_bytes)
{
	e->ops->random(e, buf, len_bytes);
}

uint64_t ioe_rand64(struct ioe *e)
{
	uint64_t x;

	ioe_random(e, &x, sizeof(x));
	return x;
}

struct uuid ioe_uuid(struct ioe *e)
{
	struct uuid u;

	ioe_random(e, u.b, sizeof(u.b));
	u.b[6] = (uint8_t)((u.b[6] & 0x0f) | 0x40);
	u.b[8] = (uint8_t)((u.b[8] & 0x3f) | 0x80);
	return u;
}

struct uuid ioe_boot_id(struct ioe *e)
{
	return e->ops->boot_id(e);
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

static void request_begin(struct ioe *e, struct ioe_req *r, enum ioe_op op,
			  void (*done)(struct ioe_req *r))
{
	r->op = op;
	r->done = done;
	r->status = 0;
	r->got = 0;
	r->ret_sock = NULL;
	r->priv[0] = REQ_IN_FLIGHT;
	e->in_flight++;
}

void ioe_nop(struct ioe *e, struct ioe_req *r, void (*done)(struct ioe_req *r))
{
	request_begin(e, r, IOE_NOP, done);
	engine_complete(e, r, 0);
}

/* What every engine refuses, and what needs no engine. 1: go on */
static int file_request_check(const struct ioe_req *r)
{
	uint64_t end, align_mask = r->file->io_align - 1;

	if (!add_ok(r->off, r->len, &end) || end > INT64_MAX)
		return -EINVAL;
	if ((r->off | r->len) & align_mask)
		return -EINVAL;
	if (r->op != IOE_PUNCH && ((uintptr_t)r->buf & align_mask))
		return -EINVAL;
	if (r->op != IOE_READ && r->file->read_only)
		return -EBADF;
	return r->len > 0;
}

static void file_request(struct ioe *e, struct ioe_req *r, enum ioe_op op, struct ioe_file *f,
			 uint64_t off, void *buf, uint64_t len, void (*done)(struct ioe_req *r))
{
	int go = 1;

	request_begin(e, r, op, done);
	r->file = f;
	r->buf = buf;
	r->off = off;
	r->len = len;
	f->in_flight++;
	if (op != IOE_FSYNC)
		go = file_request_check(r);
	if (go != 1)
		engine_complete(e, r, go);
	else if (op == IOE_FSYNC)
		fsync_submit(e, r);
	else
		e->ops->submit(e, r);
}

void ioe_read(struct ioe *e, struct ioe_req *r, struct ioe_file *f, uint64_t off, void *buf,
	      uint64_t len, void (*done)(struct ioe_req *r))
{
	file_request(e, r, IOE_READ, f, off, buf, len, done);
}

void ioe_write(struct ioe *e, struct ioe_req *r, struct ioe_file *f, uint64_t off, const void *buf,
	       uint64_t len, void (*done)(struct ioe_req *r))
{
	file_request(e, r, IOE_WRITE, f, off, (void *)(uintptr_t)buf, len, done);
}

void ioe_fsync(struct ioe *e, struct ioe_req *r, struct ioe_file *f, void (*done)(struct ioe_req *r))
{
	file_request(e, r, IOE_FSYNC, f, 0, NULL, 0, done);
}

void ioe_punch(struct ioe *e, struct ioe_req *r, struct ioe_file *f, uint64_t off, uint64_t len,
	       void (*done)(struct ioe_req *r))
{
	file_request(e, r, IOE_PUNCH, f, off, NULL, len, done);
}

static void sock_request(struct ioe *e, struct ioe_req *r, enum ioe_op op, struct ioe_sock *s,
			 struct iovec *iov, int iov_n, void (*done)(struct ioe_req *r))
{
	request_begin(e, r, op, done);
	r->sock = s;
	r->iov = iov;
	r->iov_n = iov_n;
	s->in_flight++;
	check(iov_n >= (op == IOE_RECV) && iov_n <= IOE_IOV_MAX);
	check(s->is_listener == (op == IOE_ACCEPT));
	e->ops->submit(e, r);
}

void ioe_accept(struct ioe *e, struct ioe_req *r, struct ioe_sock *listener,
		void (*done)(struct ioe_req *r))
{
	sock_request(e, r, IOE_ACCEPT, listener, NULL, 0, done);
}

void ioe_recv(struct ioe *e, struct ioe_req *r, struct ioe_sock *s, struct iovec *iov, int iov_n,
	      void (*done)(struct ioe_req *r))
{
	sock_request(e, r, IOE_RECV, s, iov, iov_n, done);
}

void ioe_send(struct ioe *e, struct ioe_req *r, struct ioe_sock *s, struct iovec *iov, int iov_n,
	      void (*done)(struct ioe_req *r))
{
	sock_request(e, r, IOE_SEND, s, iov, iov_n, done);
}

void ioe_connect(struct ioe *e, struct ioe_req *r, const char *addr, void (*done)(struct ioe_req *r))
{
	request_begin(e, r, IOE_CONNECT, done);
	r->sock = NULL;
	r->iov = NULL;
	r->iov_n = 0;
	e->ops->connect(e, r, addr);
}

void ioe_timer(struct ioe *e, struct ioe_req *r, uint64_t deadline_ns,
	       void (*done)(struct ioe_req *r))
{
	request_begin(e, r, IOE_TIMER, done);
	r->deadline_ns = deadline_ns;
	e->ops->submit(e, r);
}

void ioe_work(struct ioe *e, struct ioe_req *r, void (*fn)(struct ioe_req *r),
	      void (*done)(struct ioe_req *r))
{
	request_begin(e, r, IOE_WORK, done);
	r->fn = fn;
	e->ops->submit(e, r);
}

void ioe_cancel(struct ioe *e, struct ioe_req *r)
{
	if (req_state(r) == REQ_IN_FLIGHT)
		e->ops->cancel(e, r);
}

/* ---- files ------------------------------------------------------------------------------------------------------------ */

int ioe_file_open(struct ioe *e, const char *path, int flags, struct ioe_file **ret_f, char *errmsg)
{
	if (errmsg)
		errmsg[0] = '\0';
	return e->ops->file_open(e, path, flags, ret_f, errmsg);
}

void ioe_file_close(struct ioe *e, struct ioe_file *f)
{
	check(f->in_flight == 0);
	e->ops->file_close(e, f);
}

void ioe_file_info(struct ioe_file *f, struct ioe_file_info *ret_info)
{
	f->e->ops->file_info(f, ret_info);
}

int ioe_file_resize(struct ioe *e, struct ioe_file *f, uint64_t size_bytes)
{
	return size_bytes > INT64_MAX ? -EFBIG : e->ops->file_resize(e, f, size_bytes);
}

int ioe_file_reserve(struct ioe *e, struct ioe_file *f, uint64_t off, uint64_t len)
{
	uint64_t end;

	if (!add_ok(off, len, &end) || end > INT64_MAX)
		return -EFBIG;
	return len ? e->ops->file_reserve(e, f, off, len) : 0;
}

uint64_t ioe_file_used_bytes(struct ioe *e, struct ioe_file *f)
{
	return e->ops->file_used_bytes(e, f);
}

int ioe_file_space(struct ioe *e, struct ioe_file *f, struct ioe_file_space *ret_space)
{
	return e->ops->file_space(e, f, ret_space);
}

int ioe_probe_signature(struct ioe *e, const char *path, char *errmsg)
{
	if (errmsg)
		errmsg[0] = '\0';
	return e->ops->probe_signature(e, path, errmsg);
}

int ioe_unlink(struct ioe *e, const char *path)
{
	return e->ops->unlink(e, path);
}

int ioe_rename(struct ioe *e, const char *from, const char *to)
{
	return e->ops->rename(e, from, to);
}

int ioe_dir_check_private(struct ioe *e, const char *path, char errmsg[ERRMSG_LEN])
{
	return e->ops->check_private(e, path, errmsg);
}

bool ioe_path_same(struct ioe *e, const char *a, const char *b)
{
	return e->ops->same(e, a, b);
}

int ioe_mkdir(struct ioe *e, const char *path, uint32_t mode)
{
	return e->ops->mkdir(e, path, mode);
}

int ioe_file_load(struct ioe *e, const char *path, char **ret_data, size_t *ret_len)
{
	return e->ops->file_load(e, path, ret_data, ret_len);
}

int ioe_file_store(struct ioe *e, const char *path, const void *data, size_t len, uint32_t mode)
{
	return len > IOE_SMALL_FILE_MAX ? -EFBIG : e->ops->file_store(e, path, data, len, mode);
}

int ioe_shm_create(struct ioe *e, const char *path, size_t len_bytes, struct ioe_shm *ret_shm)
{
	return len_bytes == 0 ? -EINVAL : e->ops->shm_create(e, path, len_bytes, ret_shm);
}

int ioe_shm_open(struct ioe *e, const char *path, struct ioe_shm *ret_shm)
{
	return e->ops->shm_open(e, path, ret_shm);
}

void ioe_shm_close(struct ioe *e, struct ioe_shm *shm)
{
	e->ops->shm_close(e, shm);
}

/* ---- sockets ---------------------------------------------------------------------------------------------------------- */

int ioe_listen(struct ioe *e, const char *addr, struct ioe_sock **ret_s, char *errmsg)
{
	if (errmsg)
		errmsg[0] = '\0';
	return e->ops->listen(e, addr, ret_s, errmsg);
}

int ioe_sock_dup(struct ioe_sock *listener, int *ret_fd)
{
	check(listener->is_listener);
	return listener->e->ops->sock_dup ? listener->e->ops->sock_dup(listener, ret_fd)
					  : -EOPNOTSUPP;
}

void ioe_sock_addr(struct ioe_sock *s, char addr[IOE_ADDR_MAX])
{
	memcpy(addr, s->addr, IOE_ADDR_MAX);
}

void ioe_sock_peer(struct ioe_sock *s, char addr[IOE_ADDR_MAX])
{
	memcpy(addr, s->peer, IOE_ADDR_MAX);
}

bool ioe_sock_is_local(struct ioe_sock *s)
{
	return s->is_local;
}

void ioe_sock_shutdown(struct ioe *e, struct ioe_sock *s)
{
	e->ops->sock_shutdown(e, s);
}

void ioe_sock_close(struct ioe *e, struct ioe_sock *s)
{
	check(s->in_flight == 0);
	e->ops->sock_close(e, s);
}

int ioe_on_terminate(struct ioe *e, void (*fn)(void *arg), void *arg)
{
	return e->ops->on_terminate(e, fn, arg);
}
