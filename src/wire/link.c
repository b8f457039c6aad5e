/* SPDX-License-Identifier: Apache-2.0 */
#include "src/wire/link.h"

#include <string.h>

#include "src/base/math.h"
#include "src/base/mem.h"

enum { BUF_BYTES = 16 << 10, QUEUE_BYTES = 16 << 20, BATCH_BYTES = 1 << 20 };

/* receiving */
static void rx_run(struct link *l);
static bool rx_step(struct link *l);
static bool rx_header(struct link *l);
static bool rx_body(struct link *l);
static bool rx_data(struct link *l);
static void rx_submit(struct link *l);
static void rx_done(struct ioe_req *r);
/* sending */
static void tx_submit(struct link *l);
static void tx_done(struct ioe_req *r);
/* both, at the end of a turn */
static void at_turn_end(struct ioe_hook *h);
static void settle(struct link *l);

int link_open(struct link *l, const struct link_config *cfg, struct ioe_sock *sock)
{
	*l = (struct link){
	    .ioe = cfg->ioe,
	    .sock = sock,
	    .ops = cfg->ops,
	    .body_max = cfg->body_max,
	    .data_max = cfg->data_max,
	    .queue_bytes_max = cfg->queue_bytes_max ? cfg->queue_bytes_max : QUEUE_BYTES,
	    .buf_bytes = cfg->buf_bytes ? cfg->buf_bytes : BUF_BYTES,
	};
	l->buf = mem_alloc(l->buf_bytes);
	if (!l->buf)
		return -ENOMEM;
	list_init(&l->queue);
	list_init(&l->sending);
	ioe_hook_init(&l->hook, at_turn_end);
	rx_submit(l);
	return 0;
}

void link_break(struct link *l, int status)
{
	check(status < 0);
	if (l->failure)
		return;
	l->failure = status;
	ioe_sock_shutdown(l->ioe, l->sock);
	ioe_hook_arm(l->ioe, &l->hook);
}

void link_close(struct link *l, void (*done)(void *arg), void *arg)
{
	check(!l->closed);
	l->closed = done;
	l->closed_arg = arg;
	link_break(l, -ESHUTDOWN);
	ioe_hook_arm(l->ioe, &l->hook);
}

/* ---- receiving ---------------------------------------------------------------------------------------------------------- */

static void rx_run(struct link *l)
{
	while (!l->failure && !l->paused && rx_step(l))
		;
	if (!l->failure && !l->paused && !l->rx_busy)
		rx_submit(l);
}

/* False when it needs more bytes. */
static bool rx_step(struct link *l)
{
	switch (l->rx_state) {
	case LINK_RX_HEADER:
		return rx_header(l);
	case LINK_RX_BODY:
		return rx_body(l);
	case LINK_RX_DATA:
		return rx_data(l);
	}
	check_unreachable("receive state");
}

static bool rx_header(struct link *l)
{
	struct frame_header h;
	int r;

	if (l->end - l->start < sizeof(h))
		return false;
	memcpy(&h, l->buf + l->start, sizeof(h));
	r = frame_decode(&h, l->body_max, l->data_max, &l->frame);
	if (r) {
		link_break(l, r);
		return false;
	}
	l->rx_state = LINK_RX_BODY;
	return true;
}

static bool rx_body(struct link *l)
{
	size_t whole = sizeof(struct frame_header) + l->frame.body_bytes;
	const uint8_t *body = l->buf + l->start + sizeof(struct frame_header);
	struct frame_header h;
	void *data = NULL;
	int r;

	if (l->end - l->start < whole)
		return false;
	memcpy(&h, l->buf + l->start, sizeof(h));
	if (!frame_crc_matches(&h, body, l->frame.body_bytes)) {
		link_break(l, -E_CHECKSUM);
		return false;
	}
	l->start += whole;
	r = l->ops->frame(l, &l->frame, body, &data);
	if (r < 0) {
		link_break(l, r);
		return false;
	}
	l->rx_state = LINK_RX_HEADER;
	if (l->frame.data_bytes) {
		check(data);
		l->data = data;
		l->data_left = l->frame.data_bytes;
		l->rx_state = LINK_RX_DATA;
	}
	return true;
}

static bool rx_data(struct link *l)
{
	size_t n = MIN(l->data_left, l->end - l->start);
	int r;

	memcpy(l->data, l->buf + l->start, n);
	l->start += n;
	l->data += n;
	l->data_left -= n;
	if (l->data_left)
		return false;
	l->rx_state = LINK_RX_HEADER;
	r = l->ops->data(l);
	if (r < 0)
		link_break(l, r);
	return r >= 0;
}

/* Room for at least the rest of the frame that is being received; the buffer grows to the largest frame seen. */
static int rx_make_room(struct link *l)
{
	size_t need = sizeof(struct frame_header);
	uint8_t *bigger;

	if (l->rx_state == LINK_RX_BODY)
		need += l->frame.body_bytes;
	if (l->start == l->end)
		l->start = l->end = 0;
	if (l->buf_bytes - l->start >= need && l->end < l->buf_bytes && l->buf_bytes >= l->buf_min)
		return 0;
	need = MAX(need, l->buf_min);
	memmove(l->buf, l->buf + l->start, l->end - l->start);
	l->end -= l->start;
	l->start = 0;
	if (l->buf_bytes >= need)
		return 0;
	bigger = mem_realloc(l->buf, need, 1);
	if (!bigger)
		return -ENOMEM;
	l->buf = bigger;
	l->buf_bytes = need;
	return 0;
}

static void rx_submit(struct link *l)
{
	int n = 0, r = rx_make_room(l);

	if (r) {
		link_break(l, r);
		return;
	}
	if (l->rx_state == LINK_RX_DATA)
		l->rx_iov[n++] = (struct iovec){.iov_base = l->data, .iov_len = l->data_left};
	l->rx_iov[n++] =
	    (struct iovec){.iov_base = l->buf + l->end, .iov_len = l->buf_bytes - l->end};
	l->rx_busy = true;
	ioe_recv(l->ioe, &l->rx_req, l->sock, l->rx_iov, n, rx_done);
}

static void rx_done(struct ioe_req *r)
{
	struct link *l = container_of(r, struct link, rx_req);
	size_t got = r->status ? 0 : r->got;

	check(l->rx_busy);
	l->rx_busy = false;
	if (got == 0 && !l->failure)
		link_break(l, r->status ? r->status : -ECONNRESET);
	if (l->failure) {
		ioe_hook_arm(l->ioe, &l->hook);
		return;
	}
	l->received_bytes += got;
	if (l->rx_state == LINK_RX_DATA) {
		size_t direct = MIN(got, l->data_left);

		l->data += direct;
		l->data_left -= direct;
		got -= direct;
	}
	l->end += got;
	rx_run(l);
}

void link_pause(struct link *l)
{
	l->paused = true;
}

void link_resume(struct link *l)
{
	l->paused = false;
	if (!l->failure) /* else it may have been closed */
		ioe_hook_arm(l->ioe,
			     &l->hook); /* frames that are in the buffer are not delivered inline */
}

/* ---- sending ------------------------------------------------------------------------------------------------------------ */

void link_send(struct link *l, struct link_out *o, const struct frame *f, const void *body,
	       const void *data, void (*sent)(struct link_out *o, int status))
{
	check(f->body_bytes <= FRAME_BODY_MAX && f->data_bytes <= FRAME_DATA_MAX);
	frame_encode(&o->header, f, body);
	o->sent = sent;
	o->iov_n = 1;
	o->iov[0] = (struct iovec){.iov_base = &o->header, .iov_len = sizeof(o->header)};
	if (f->body_bytes)
		o->iov[o->iov_n++] =
		    (struct iovec){.iov_base = (void *)body, .iov_len = f->body_bytes};
	if (f->data_bytes)
		o->iov[o->iov_n++] =
		    (struct iovec){.iov_base = (void *)data, .iov_len = f->data_bytes};
	o->bytes = sizeof(o->header) + (uint64_t)f->body_bytes + f->data_bytes;
	l->queued_bytes += o->bytes;
	list_push(&l->queue, &o->link);
	ioe_hook_arm(l->ioe, &l->hook);
}

struct link_copy *link_copy_new(size_t body_bytes)
{
	if (body_bytes > FRAME_BODY_MAX)
		return NULL;
	return mem_alloc(sizeof(struct link_copy) + body_bytes);
}

static void copy_sent(struct link_out *o, int status)
{
	(void)status;
	mem_free(container_of(o, struct link_copy, out));
}

int link_copy_send(struct link *l, struct link_copy *c, const struct frame *f)
{
	int r = 0;

	if (l->failure)
		r = -ENOTCONN;
	else if (l->queued_bytes > l->queue_bytes_max)
		r = -ENOBUFS;
	if (r == -ENOBUFS)
		link_break(l, r);
	if (r) {
		mem_free(c);
		return r;
	}
	c->l = l;
	link_send(l, &c->out, f, c->body, NULL, copy_sent);
	return 0;
}

static void tx_submit(struct link *l)
{
	uint64_t bytes = 0;
	int n = 0;

	while (!list_empty(&l->queue)) {
		struct link_out *o = list_first(&l->queue, struct link_out, link);

		if (n + o->iov_n > LINK_IOV_N || (n && bytes + o->bytes > BATCH_BYTES))
			break;
		memcpy(l->tx_iov + n, o->iov, (size_t)o->iov_n * sizeof(*o->iov));
		n += o->iov_n;
		bytes += o->bytes;
		list_del(&o->link);
		list_push(&l->sending, &o->link);
	}
	l->tx_busy = true;
	ioe_send(l->ioe, &l->tx_req, l->sock, l->tx_iov, n, tx_done);
}

static void outs_finish(struct link *l, struct list *outs, int status)
{
	struct list batch;
	struct list *n;

	list_init(&batch);
	list_splice(&batch, outs);
	while ((n = list_pop(&batch))) {
		struct link_out *o = list_entry(n, struct link_out, link);

		l->queued_bytes -= o->bytes;
		if (!status)
			l->sent_bytes += o->bytes;
		o->sent(o, status);
	}
}

static void tx_done(struct ioe_req *r)
{
	struct link *l = container_of(r, struct link, tx_req);

	check(l->tx_busy);
	l->tx_busy = false;
	if (r->status)
		link_break(l, r->status);
	outs_finish(l, &l->sending, r->status);
	ioe_hook_arm(l->ioe, &l->hook);
}

/* ---- the end of a turn --------------------------------------------------------------------------------------------------- */

static void at_turn_end(struct ioe_hook *h)
{
	struct link *l = container_of(h, struct link, hook);

	if (l->failure) {
		settle(l);
		return;
	}
	if (!l->paused && !l->rx_busy)
		rx_run(l);
	if (!l->failure && !l->tx_busy && !list_empty(&l->queue))
		tx_submit(l);
}

/* BREAKING -> DOWN -> closed, as far as what is in flight allows. */
static void settle(struct link *l)
{
	void (*closed)(void *arg);
	void *arg;

	if (l->rx_busy || l->tx_busy)
		return;
	outs_finish(l, &l->queue, l->failure);
	if (!list_empty(&l->queue)) { /* a `sent` sent again */
		ioe_hook_arm(l->ioe, &l->hook);
		return;
	}
	closed = l->closed; /* not earlier: a `sent` may have closed it */
	arg = l->closed_arg;
	if (!closed && !l->down_told) {
		l->down_told = true;
		l->ops->down(l, l->failure); /* may call link_close, which arms the hook again */
		return;
	}
	if (!closed)
		return;
	ioe_hook_disarm(&l->hook);
	ioe_sock_close(l->ioe, l->sock);
	mem_free(l->buf);
	l->buf = NULL;
	closed(arg);
}
