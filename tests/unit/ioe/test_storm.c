/* SPDX-License-Identifier: Apache-2.0 */
/* A storm: requests of all kinds in random order, cancelled, shut down and closed at random moments, on every engine. Each request must
 * end exactly once, streams must deliver their bytes in order, and nothing may be left when the storm is over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/mem.h"
#include "src/base/rand.h"
#include "tests/lib/ioe_fixture.h"

enum { SLOTS = 96, PAIRS = 6, FILE_BLOCKS = 64, BLOCK = 4096, SEND_MAX = 60 * 1000, STEPS = 6000 };

struct storm;

struct slot {
	struct ioe_req req;
	struct storm *s;
	bool is_busy;
	struct pair *pair;
	struct iovec iov[3];
	uint8_t *buf; /* SEND_MAX bytes, aligned */
	size_t len;
};

/* One direction of a connection: bytes are a counter, so the receiver knows what must come. */
struct pair {
	struct ioe_sock *ends[2]; /* [0] sends, [1] receives */
	uint64_t sent, received;
	int in_flight;
	bool is_broken; /* a send was cancelled or failed, or it was shut down: what arrives is not looked at */
};

struct storm {
	struct ioe_fixture *fx;
	struct ioe *e;
	struct rand rnd;
	struct ioe_file *file;
	struct ioe_sock *listener;
	char addr[IOE_ADDR_MAX];
	struct slot slots[SLOTS];
	struct pair pairs[PAIRS];
	uint64_t begun, ended, cancelled, wrong;
	uint8_t shadow[FILE_BLOCKS];  /* the byte each block is full of */
	bool block_busy[FILE_BLOCKS]; /* written or read just now */
};

static void slot_end(struct slot *t)
{
	t->s->wrong += !t->is_busy;
	t->is_busy = false;
	t->s->ended++;
	t->s->cancelled += t->req.status == -ECANCELED;
	if (t->pair)
		t->pair->in_flight--;
}

/* ---- what a slot can do ----------------------------------------------------------------------------------------------- */

static void plain_done(struct ioe_req *r)
{
	slot_end(container_of(r, struct slot, req));
}

static void work(struct ioe_req *r)
{
	memset(container_of(r, struct slot, req)->buf, 7, 100);
}

static void block_done(struct ioe_req *r)
{
	struct slot *t = container_of(r, struct slot, req);
	struct storm *s = t->s;
	uint64_t b = r->off / BLOCK;

	s->block_busy[b] = false;
	if (r->op == IOE_READ && r->status == 0)
		for (int i = 0; i < BLOCK; i++)
			s->wrong += t->buf[i] != s->shadow[b];
	if (r->op == IOE_WRITE && r->status == 0)
		s->shadow[b] = t->buf[0];
	if (r->op == IOE_WRITE && r->status) { /* whether it landed is not known: settle it */
		s->block_busy[b] = true;
		memset(t->buf, s->shadow[b], BLOCK);
		ioe_write(s->e, &t->req, s->file, b * BLOCK, t->buf, BLOCK, block_done);
		return;
	}
	slot_end(t);
}

static void begin_block(struct slot *t)
{
	struct storm *s = t->s;
	uint64_t b = rand_below(&s->rnd, FILE_BLOCKS);

	if (s->block_busy[b]) {
		ioe_fsync(s->e, &t->req, s->file, plain_done);
		return;
	}
	s->block_busy[b] = true;
	memset(t->buf, (int)rand_below(&s->rnd, 256), BLOCK);
	if (rand_percent(&s->rnd, 50))
		ioe_write(s->e, &t->req, s->file, b * BLOCK, t->buf, BLOCK, block_done);
	else
		ioe_read(s->e, &t->req, s->file, b * BLOCK, t->buf, BLOCK, block_done);
}

static void cut(struct slot *t)
{
	size_t a = rand_below(&t->s->rnd, t->len + 1),
	       b = a + rand_below(&t->s->rnd, t->len - a + 1);

	t->iov[0] = (struct iovec){t->buf, a};
	t->iov[1] = (struct iovec){t->buf + a, b - a};
	t->iov[2] = (struct iovec){t->buf + b, t->len - b};
}

static void send_done(struct ioe_req *r)
{
	struct slot *t = container_of(r, struct slot, req);

	if (r->status)
		t->pair->is_broken = true;
	slot_end(t);
}

static void begin_send(struct slot *t, struct pair *p)
{
	bool is_large = rand_percent(&t->s->rnd, 20);

	t->pair = p;
	p->in_flight++;
	t->len = 1 + rand_below(&t->s->rnd, is_large ? SEND_MAX : 200);
	for (size_t i = 0; i < t->len; i++)
		t->buf[i] = (uint8_t)(p->sent++ % 251);
	cut(t);
	ioe_send(t->s->e, &t->req, p->ends[0], t->iov, 3, send_done);
}

static void recv_done(struct ioe_req *r)
{
	struct slot *t = container_of(r, struct slot, req);
	struct pair *p = t->pair;

	if (r->status == 0 && !p->is_broken) {
		t->s->wrong += r->got == 0 || r->got > t->len;
		for (size_t i = 0; i < r->got; i++)
			t->s->wrong += t->buf[i] != (uint8_t)(p->received++ % 251);
	}
	slot_end(t);
}

static void begin_recv(struct slot *t, struct pair *p)
{
	t->pair = p;
	p->in_flight++;
	t->len = 1 + rand_below(&t->s->rnd, rand_percent(&t->s->rnd, 50) ? SEND_MAX : 50);
	cut(t);
	ioe_recv(t->s->e, &t->req, p->ends[1], t->iov, 3, recv_done);
}

static void connected(struct ioe_req *r)
{
	struct slot *t = container_of(r, struct slot, req);

	if (r->status == 0)
		ioe_sock_close(t->s->e, r->ret_sock);
	slot_end(t);
}

static void begin(struct slot *t)
{
	struct storm *s = t->s;
	struct pair *p = &s->pairs[rand_below(&s->rnd, PAIRS)];

	t->is_busy = true;
	t->pair = NULL;
	s->begun++;
	switch (rand_below(&s->rnd, 12)) {
	case 0:
		ioe_nop(s->e, &t->req, plain_done);
		break;
	case 1:
		ioe_timer(s->e, &t->req, ioe_now_ns(s->e) + rand_below(&s->rnd, 200 * 1000),
			  plain_done);
		break;
	case 2:
		ioe_work(s->e, &t->req, work, plain_done);
		break;
	case 3:
	case 4:
		begin_block(t);
		break;
	case 5:
		ioe_connect(s->e, &t->req, s->addr, connected);
		break;
	case 6:
		ioe_accept(s->e, &t->req, s->listener, connected);
		break;
	case 7:
	case 8:
	case 9:
		begin_recv(t, p);
		break;
	default:
		begin_send(t, p);
	}
}

/* ---- the storm -------------------------------------------------------------------------------------------------------- */

static void pair_renew(struct storm *s, struct pair *p)
{
	if (p->ends[0]) {
		ioe_sock_close(s->e, p->ends[0]);
		ioe_sock_close(s->e, p->ends[1]);
	}
	memset(p, 0, sizeof(*p));
	ioe_fixture_pair(s->fx, rand_percent(&s->rnd, 50) ? "unix" : "127.0.0.1:0", p->ends);
}

static void pairs_care(struct storm *s)
{
	for (int i = 0; i < PAIRS; i++) {
		struct pair *p = &s->pairs[i];

		if (p->is_broken || rand_below(&s->rnd, 3000) == 0) {
			p->is_broken = true;
			ioe_sock_shutdown(s->e, p->ends[0]);
			ioe_sock_shutdown(s->e, p->ends[1]);
			if (p->in_flight == 0)
				pair_renew(s, p);
		}
	}
}

static void step(struct storm *s)
{
	struct slot *t = &s->slots[rand_below(&s->rnd, SLOTS)];

	if (!t->is_busy && !(t->pair && t->pair->is_broken))
		begin(t);
	else if (t->is_busy && rand_percent(&s->rnd, 10))
		ioe_cancel(s->e, &t->req);
	if (rand_percent(&s->rnd, 30))
		ioe_poll(s->e, rand_percent(&s->rnd, 50) ? 0 : ioe_now_ns(s->e) + 20 * 1000);
	pairs_care(s);
	for (int i = 0; i < SLOTS; i++)
		if (!s->slots[i].is_busy)
			s->slots[i].pair = NULL;
}

static void storm_end(struct storm *s)
{
	for (int i = 0; i < PAIRS; i++) {
		s->pairs[i].is_broken = true;
		ioe_sock_shutdown(s->e, s->pairs[i].ends[0]);
		ioe_sock_shutdown(s->e, s->pairs[i].ends[1]);
	}
	ioe_sock_shutdown(s->e, s->listener);
	for (int i = 0; i < 20000 && s->ended < s->begun; i++)
		ioe_poll(s->e, ioe_now_ns(s->e) + 1000 * 1000);
}

static void storm(struct ioe_fixture *fx, uint64_t seed)
{
	struct storm *s = mem_zalloc(sizeof(*s));
	uint8_t *zero = mem_alloc_aligned(BLOCK, FILE_BLOCKS * BLOCK);

	s->fx = fx;
	s->e = fx->e;
	rand_seed(&s->rnd, seed);
	s->file = ioe_fixture_file(fx, "f", FILE_BLOCKS * BLOCK);
	memset(zero, 0, FILE_BLOCKS * BLOCK);
	assert_int_equal(ioe_sync_write(fx, s->file, 0, zero, FILE_BLOCKS * BLOCK), 0);
	snprintf(s->addr, sizeof(s->addr), "unix:%s", ioe_fixture_path(fx, "listener"));
	assert_int_equal(ioe_listen(s->e, s->addr, &s->listener, NULL), 0);
	for (int i = 0; i < PAIRS; i++)
		pair_renew(s, &s->pairs[i]);
	for (int i = 0; i < SLOTS; i++) {
		s->slots[i].s = s;
		s->slots[i].buf = mem_alloc_aligned(BLOCK, SEND_MAX);
	}
	for (int i = 0; i < STEPS && s->wrong == 0; i++)
		step(s);
	storm_end(s);
	assert_int_equal(s->wrong, 0);
	assert_int_equal(s->ended, s->begun);
	assert_true(s->begun > STEPS / 10);
	assert_true(s->cancelled > 10);
	for (int i = 0; i < PAIRS; i++) {
		ioe_sock_close(s->e, s->pairs[i].ends[0]);
		ioe_sock_close(s->e, s->pairs[i].ends[1]);
	}
	for (int i = 0; i < SLOTS; i++)
		mem_free(s->slots[i].buf);
	ioe_sock_close(s->e, s->listener);
	ioe_file_close(s->e, s->file);
	assert_int_equal(ioe_unlink(s->e, ioe_fixture_path(fx, "f")), 0);
	mem_free(zero);
	mem_free(s);
}

static void storms(void **state)
{
	for (uint64_t seed = 1; seed <= 5; seed++)
		storm(*state, seed);
}

int main(void)
{
	static const struct ioe_test tests[] = {{"storms", storms, ON_ALL | ON_TMPFS}};

	return ioe_suite_run(tests, ARRAY_LEN(tests));
}
