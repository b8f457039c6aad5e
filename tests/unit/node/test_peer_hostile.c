/* SPDX-License-Identifier: Apache-2.0 */
/* The node protocol against an end that is made of bytes: a dialer that sends the server what it should not, and an acceptor that answers so. Each
 * field arrives as it was sent, what is wrong ends the link and nothing else, and what is held for a peer is bounded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "io-path/node/peer.h"
#include "io-path/node/peer_server.h"
#include "src/base/crc.h"
#include "src/base/log.h"
#include "src/base/mem.h"
#include "src/ioe/ioe_sim.h"
#include "src/wire/chunk_msg.h"
#include "src/wire/conn.h"
#include "src/wire/listen.h"

enum { DEV = 7, NODE = 2, SEEN_MAX = 4096, BIG = CHUNK_BLOCKS_MAX };
#define SEC  1000000000ULL
#define ADDR "unix:/peer"

static const struct uuid cluster = {{1, 2, 3}};

static struct fx {
	struct sim_world *w;
	struct ioe *a, *b; /* the dialer's process, the acceptor's */
	struct peer_server *server;
	struct chunk_store store;
	struct list held;
	struct chunk_req seen[SEEN_MAX]; /* as they came */
	uint32_t seen_n;
	bool hold;
	/* what the store answers */
	int status;
	bool leaves_states;
} fx;

static uint8_t *block_data; /* BIG blocks of 1 */

/* ---- the server's side: a store that answers what it is told ------------------------------------------------------------------ */

static void answer(struct chunk_req *r)
{
	r->status = fx.status;
	r->present_n = 5;
	r->incarnation = 77;
	r->volatile_ack = r->op == CHUNK_WRITE && !(r->flags & CHUNK_F_STABLE);
	for (uint32_t i = 0; r->op == CHUNK_READ && i < r->blocks_n; i++)
		r->crcs[i] = crc32c(block_data, BLOCK_BYTES);
	if (r->op == CHUNK_READ)
		memset(r->buf, 1, (size_t)r->blocks_n * BLOCK_BYTES);
	if (r->states && !fx.leaves_states)
		memset(r->states, BLOCK_DATA, r->blocks_n);
	r->done(r);
}

static void answer_all(struct ioe_req *t)
{
	struct list batch;
	struct list *l;

	(void)t;
	list_init(&batch);
	list_splice(&batch, &fx.held);
	while ((l = list_pop(&batch)))
		answer(list_entry(l, struct chunk_req, link));
}

static void store_submit(struct chunk_store *s, struct chunk_req *r)
{
	static struct ioe_req nop;

	(void)s;
	fx.seen[fx.seen_n++ % SEEN_MAX] = *r;
	if (list_empty(&fx.held) && !fx.hold)
		ioe_nop(fx.b, &nop, answer_all);
	list_push(&fx.held, &r->link);
}

static bool is_ours(void *arg, device_no dev)
{
	(void)arg;
	return dev == DEV;
}

static bool device_of(void *arg, uint32_t nth, struct peer_server_device *d)
{
	(void)arg;
	*d = (struct peer_server_device){.number = DEV, .incarnation = 77, .is_stable = true};
	return nth == 0;
}

static void begin(void)
{
	memset(&fx, 0, sizeof(fx));
	fx.w = sim_world_new(&(struct sim_config){.seed = 1, .recv_split_percent = 20});
	fx.a = sim_process_new(sim_machine_new(fx.w, "m"), "a", NULL, NULL);
	list_init(&fx.held);
	fx.store.submit = store_submit;
}

static void run(uint64_t ns)
{
	sim_run(fx.w, sim_now_ns(fx.w) + ns);
}

static void serve(void)
{
	struct peer_server_config cfg = {.local = &fx.store,
					 .ours = is_ours,
					 .device = device_of,
					 .start = {{9}}};
	char errmsg[ERRMSG_LEN];

	begin();
	fx.b = cfg.ioe = fx.a; /* a unix socket is a name of the machine */
	assert_int_equal(peer_server_new(&cfg, &fx.server), 0);
	peer_server_identify(fx.server, &cluster, NODE);
	assert_int_equal(peer_server_listen(fx.server, ADDR, errmsg), 0);
}

static void set(void *arg)
{
	*(bool *)arg = true;
}

static void end(void)
{
	bool closed = false;

	if (fx.server) {
		fx.hold = false;
		answer_all(NULL);
		peer_server_close(fx.server, set, &closed);
		while (!closed)
			assert_true(sim_step(fx.w));
	}
	ioe_free(fx.a);
	sim_world_free(fx.w);
}

/* ---- a dialer made of bytes ------------------------------------------------------------------------------------------------------ */

enum { CALLS_MAX = 600 };

struct rogue {
	struct conn conn;
	struct ioe_req dial;
	bool up, down, closed;
	int hello_status; /* -1: no answer */
	uint32_t replies_n, data_n, calls_n, sent_n;
	struct chunk_msg_reply reply; /* the last */
	uint8_t body[CHUNK_MSG_REPLY_MAX];
	uint8_t *data;
	struct rogue_call {
		struct conn_call call;
		struct link_out out;
		struct rogue *r;
		uint8_t body[CHUNK_MSG_REQUEST_MAX + 8];
	} calls[CALLS_MAX];
};

static void rogue_up(struct conn *c)
{
	container_of(c, struct rogue, conn)->up = true;
}

static int rogue_request(struct conn *c, const struct frame *f, const void *body, void **ret_data)
{
	(void)c;
	(void)f;
	(void)body;
	(void)ret_data;
	return -E_PROTOCOL;
}

static int rogue_data(struct conn *c)
{
	container_of(c, struct rogue, conn)->data_n++;
	return 0;
}

static void rogue_closed(void *arg)
{
	((struct rogue *)arg)->closed = true;
}

static void rogue_down(struct conn *c, int status)
{
	struct rogue *r = container_of(c, struct rogue, conn);

	(void)status;
	r->down = true;
	conn_close(c, rogue_closed, r);
}

static const struct conn_ops rogue_ops = {rogue_up, rogue_request, rogue_data, rogue_down};

static void rogue_dialled(struct ioe_req *req)
{
	struct rogue *r = container_of(req, struct rogue, dial);
	struct conn_config cfg = {.ioe = fx.a,
				  .ops = &rogue_ops,
				  .dialer = true,
				  .body_max = 65536,
				  .data_max = BIG * BLOCK_BYTES};

	assert_int_equal(req->status, 0);
	assert_int_equal(conn_open(&r->conn, &cfg, req->ret_sock), 0);
}

static struct rogue *rogue_new(void)
{
	struct rogue *r = mem_zalloc(sizeof(*r));

	r->data = mem_alloc(BIG * BLOCK_BYTES);
	r->hello_status = -1;
	ioe_connect(fx.a, &r->dial, ADDR, rogue_dialled);
	while (!r->up)
		assert_true(sim_step(fx.w));
	return r;
}

static void rogue_free(struct rogue *r)
{
	if (!r->down)
		conn_break(&r->conn, -ECONNRESET);
	while (!r->closed)
		assert_true(sim_step(fx.w));
	mem_free(r->data);
	mem_free(r);
}

static int rogue_reply(struct conn_call *call, int status, const struct frame *f, const void *body,
		       void **ret_data)
{
	struct rogue *r = container_of(call, struct rogue_call, call)->r;

	if (status)
		return 0;
	if (f->type == CHUNK_MSG_HELLO) {
		r->hello_status =
		    (int)get_le32(((const struct chunk_msg_hello_reply *)body)->status);
		return 0;
	}
	r->replies_n++;
	memcpy(&r->reply, body, sizeof(r->reply));
	memcpy(r->body, body, f->body_bytes);
	if (f->data_bytes)
		*ret_data = r->data;
	return 0;
}

static void rogue_sent(struct link_out *o, int status)
{
	(void)status;
	container_of(o, struct rogue_call, out)->r->sent_n++;
}

static void rogue_send(struct rogue *r, uint16_t type, const void *body, uint32_t len,
		       uint32_t data_bytes)
{
	struct rogue_call *c = &r->calls[r->calls_n++];
	struct frame f = {.type = type, .body_bytes = len, .data_bytes = data_bytes};

	assert_true(r->calls_n <= CALLS_MAX && len <= sizeof(c->body));
	c->r = r;
	memcpy(c->body, body, len);
	f.id = conn_call_begin(&r->conn, &c->call, rogue_reply);
	link_send(&r->conn.link, &c->out, &f, c->body, block_data, rogue_sent);
}

static void rogue_hello_as(struct rogue *r, uint32_t version, uint32_t node, struct uuid start,
			   uint64_t session)
{
	struct chunk_msg_hello h = {.version = to_le32(version),
				    .node = to_le32(node),
				    .cluster = cluster,
				    .start = start,
				    .session = to_le64(session)};

	rogue_send(r, CHUNK_MSG_HELLO, &h, sizeof(h), 0);
	run(SEC / 100);
}

static struct rogue *rogue_joined(uint64_t session)
{
	struct rogue *r = rogue_new();

	rogue_hello_as(r, CHUNK_MSG_VERSION, 1, (struct uuid){{4}}, session);
	assert_int_equal(r->hello_status, 0);
	return r;
}

/* A request of blocks_n blocks; crcs follow those of a write. */
static struct chunk_msg_request request_of(uint8_t op, uint32_t blocks_n)
{
	return (struct chunk_msg_request){
	    .op = op,
	    .dev = to_le16(DEV),
	    .volume = to_le32(0x11111111),
	    .layer = to_le32(0x22222222),
	    .chunk = to_le32(0x33333333),
	    .slot = to_le32(0x44444444),
	    .cgen = to_le64(0x5555555555555555),
	    .epoch = to_le64(0x6666666666666666),
	    .incarnation = to_le64(0x7777777777777777),
	    .block = to_le16(3),
	    .blocks_n = to_le16((uint16_t)blocks_n),
	};
}

static void rogue_ask_damaged(struct rogue *r, const struct chunk_msg_request *m, uint32_t bad_at)
{
	uint8_t body[CHUNK_MSG_REQUEST_MAX];
	uint32_t n = m->op == CHUNK_WRITE ? get_le16(m->blocks_n) : 0;

	memcpy(body, m, sizeof(*m));
	for (uint32_t i = 0; i < n; i++) {
		struct le32 crc = to_le32(crc32c(block_data, BLOCK_BYTES) ^ (i == bad_at));

		memcpy(body + sizeof(*m) + 4 * i, &crc, 4);
	}
	rogue_send(r, CHUNK_MSG_REQUEST, body, (uint32_t)sizeof(*m) + 4 * n,
		   n * (uint32_t)BLOCK_BYTES);
}

static void rogue_ask(struct rogue *r, const struct chunk_msg_request *m)
{
	rogue_ask_damaged(r, m, UINT32_MAX);
}

/* ---- what the server does with it --------------------------------------------------------------------------------------------------- */

static void every_field_arrives(void **state)
{
	static const struct {
		uint8_t op;
		uint32_t flags, blocks_n;
	} cases[] = {{CHUNK_WRITE, CHUNK_F_STABLE, 4},
		     {CHUNK_WRITE, 0, 4},
		     {CHUNK_READ, 0, 4},
		     {CHUNK_CLEAR, CHUNK_F_STABLE | CHUNK_F_ZERO, 4},
		     {CHUNK_STATUS, 0, 4},
		     {CHUNK_FLUSH, 0, 0},
		     {CHUNK_FREE, CHUNK_F_IF_EMPTY, 0}};
	struct rogue *r;

	(void)state;
	serve();
	r = rogue_joined(1);
	for (uint32_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct chunk_msg_request m = request_of(cases[i].op, cases[i].blocks_n);
		const struct chunk_req *s = &fx.seen[i];

		m.flags = to_le32(cases[i].flags);
		m.want = CHUNK_WANT_STATES;
		rogue_ask(r, &m);
		run(SEC / 100);
		assert_int_equal(fx.seen_n, i + 1);
		assert_int_equal(s->op, cases[i].op);
		assert_int_equal(s->flags, cases[i].flags);
		assert_int_equal(s->dev, DEV);
		assert_int_equal(s->volume, 0x11111111);
		assert_int_equal(s->layer, 0x22222222);
		assert_int_equal(s->chunk, 0x33333333);
		assert_int_equal(s->slot, 0x44444444);
		assert_int_equal(s->cgen, 0x5555555555555555);
		assert_int_equal(s->epoch, 0x6666666666666666);
		assert_int_equal(s->incarnation, 0x7777777777777777);
		assert_int_equal(s->block, 3);
		assert_int_equal(s->blocks_n, cases[i].blocks_n);
		/* and the answer */
		assert_int_equal(r->replies_n, i + 1);
		assert_int_equal(get_le32(r->reply.status), 0);
		assert_int_equal(get_le32(r->reply.present_n), 5);
		assert_int_equal(get_le64(r->reply.incarnation), 77);
		assert_int_equal(get_le16(r->reply.blocks_n), cases[i].blocks_n);
		assert_int_equal(!!(r->reply.flags & CHUNK_REPLY_VOLATILE), i == 1);
		assert_int_equal(!!(r->reply.flags & CHUNK_REPLY_STATES),
				 s->op == CHUNK_READ || s->op == CHUNK_STATUS);
		assert_int_equal(!!(r->reply.flags & CHUNK_REPLY_CRCS), s->op == CHUNK_READ);
	}
	assert_int_equal(r->data_n, 1);
	assert_memory_equal(r->data, block_data, 4 * BLOCK_BYTES);
	rogue_free(r);
	end();
}

/* What an earlier request left in a job is not an answer to a later one. */
static void an_error_tells_no_old_states(void **state)
{
	struct chunk_msg_request m = request_of(CHUNK_STATUS, 8);
	struct rogue *r;

	(void)state;
	serve();
	r = rogue_joined(1);
	m.want = CHUNK_WANT_STATES;
	rogue_ask(r, &m);
	run(SEC / 100);
	for (int i = 0; i < 8; i++)
		assert_int_equal(r->body[sizeof(r->reply) + i], BLOCK_DATA);
	fx.status = -E_STALE_CGEN;
	fx.leaves_states = true;
	rogue_ask(r, &m);
	run(SEC / 100);
	assert_int_equal(get_le32(r->reply.status), E_STALE_CGEN);
	for (int i = 0; i < 8; i++)
		assert_int_equal(r->body[sizeof(r->reply) + i], BLOCK_HOLE);
	rogue_free(r);
	end();
}

static void who_breaks_the_rules_is_cut_off(void **state)
{
	(void)state;
	for (int how = 0; how < 15; how++) {
		struct chunk_msg_request m = request_of(CHUNK_READ, 4);
		struct rogue *r, *good;
		uint8_t body[sizeof(m) + 8] = {0};
		uint32_t len = sizeof(m), data = 0;

		serve();
		good = rogue_new();
		rogue_hello_as(good, CHUNK_MSG_VERSION, 3, (struct uuid){{8}}, 1);
		r = how == 0 ? rogue_new() : rogue_joined(1);
		switch (how) {
		case 0: /* a request before the hello */
			break;
		case 1:
			m.op = CHUNK_FREE + 1;
			break;
		case 2:
			m.op = 0xff;
			break;
		case 3:
			m.flags = to_le32(CHUNK_F_STABLE); /* of a read */
			break;
		case 4:
			m.blocks_n = to_le16(0);
			break;
		case 5:
			m.op = CHUNK_FLUSH; /* of blocks */
			break;
		case 6:
			m.block = to_le16(BIG - 3); /* beyond the largest chunk */
			break;
		case 7:
			m.block = to_le16(UINT16_MAX);
			break;
		case 8:
			m.want = 0x80;
			break;
		case 9:
			m.reserved = to_le32(1);
			break;
		case 10:
			len += 4; /* something behind it */
			break;
		case 11:
			len -= 1;
			break;
		case 12:
			data = 4 * BLOCK_BYTES; /* of a read */
			break;
		case 13:
			m.op = CHUNK_WRITE; /* without crcs and data */
			break;
		case 14: /* crcs, but too little data */
			m.op = CHUNK_WRITE;
			m.blocks_n = to_le16(2);
			len += 8;
			data = BLOCK_BYTES;
			break;
		}
		memcpy(body, &m, sizeof(m));
		rogue_send(r, CHUNK_MSG_REQUEST, body, len, data);
		run(SEC / 100);
		if (!r->down)
			fail_msg("case %d is taken", how);
		assert_int_equal(fx.seen_n, 0);
		m = request_of(CHUNK_READ, 4); /* others are served */
		rogue_ask(good, &m);
		run(SEC / 100);
		assert_int_equal(good->replies_n, 1);
		rogue_free(r);
		rogue_free(good);
		end();
	}
}

static void a_damaged_write_is_not_executed(void **state)
{
	struct chunk_msg_request m = request_of(CHUNK_WRITE, 2);
	struct rogue *r;

	(void)state;
	for (uint32_t bad = 0; bad < 3; bad++) {
		serve();
		r = rogue_joined(1);
		rogue_ask_damaged(r, &m, bad);
		run(SEC / 100);
		assert_int_equal(r->down, bad < 2);
		assert_int_equal(fx.seen_n, bad < 2 ? 0 : 1);
		rogue_free(r);
		end();
	}
}

static void hellos_that_are_refused(void **state)
{
	struct rogue *r, *s, *t;
	struct chunk_msg_request m = request_of(CHUNK_READ, 1);

	(void)state;
	serve();
	r = rogue_new();
	rogue_hello_as(r, CHUNK_MSG_VERSION + 1, 1, (struct uuid){{4}}, 1);
	assert_int_equal(r->hello_status, E_VERSION);
	rogue_free(r);
	r = rogue_new();
	rogue_hello_as(r, CHUNK_MSG_VERSION, 0, (struct uuid){{4}}, 1);
	assert_true(r->down);
	rogue_free(r);
	/* sessions of a process: a later one ends an earlier one, never the other way round */
	r = rogue_joined(5);
	s = rogue_new();
	rogue_hello_as(s, CHUNK_MSG_VERSION, 1, (struct uuid){{4}}, 4);
	assert_true(s->down && !r->down);
	rogue_ask(r, &m);
	run(SEC / 100);
	assert_int_equal(r->replies_n, 1);
	rogue_free(s);
	/* and it waits until nothing of the earlier one is in the device */
	fx.hold = true;
	rogue_ask(r, &m);
	run(SEC / 100);
	assert_false(list_empty(&fx.held));
	s = rogue_new();
	rogue_hello_as(s, CHUNK_MSG_VERSION, 1, (struct uuid){{4}}, 6);
	run(SEC);
	assert_true(r->down && !s->down);
	assert_int_equal(s->hello_status, -1);
	t = rogue_new(); /* another node does not wait for it */
	rogue_hello_as(t, CHUNK_MSG_VERSION, 9, (struct uuid){{6}}, 1);
	assert_int_equal(t->hello_status, 0);
	answer_all(NULL);
	run(SEC / 10);
	assert_int_equal(s->hello_status, 0);
	/* a new process of the node, whatever its number */
	rogue_free(t);
	t = rogue_new();
	rogue_hello_as(t, CHUNK_MSG_VERSION, 1, (struct uuid){{5}}, 1);
	assert_int_equal(t->hello_status, 0);
	assert_true(s->down);
	rogue_free(r);
	rogue_free(s);
	rogue_free(t);
	end();
}

static void other_devices_are_gone(void **state)
{
	struct chunk_msg_request m = request_of(CHUNK_READ, 1);
	struct rogue *r;

	(void)state;
	serve();
	r = rogue_joined(1);
	m.dev = to_le16(DEV + 1);
	rogue_ask(r, &m);
	m.dev = to_le16(0);
	rogue_ask(r, &m);
	m.dev = to_le16(UINT16_MAX);
	rogue_ask(r, &m);
	run(SEC / 100);
	assert_int_equal(r->replies_n, 3);
	assert_int_equal(get_le32(r->reply.status), E_DEVICE_GONE);
	assert_int_equal(fx.seen_n, 0);
	rogue_free(r);
	end();
}

/* However much is asked for, so much is held; and all of it is answered. */
static void what_a_peer_makes_us_hold_is_bounded(void **state)
{
	static const struct {
		uint32_t blocks_n, asked, held;
	} cases[] = {{1, 500, PEER_JOBS_MAX},
		     {BIG - 3, 20, PEER_BYTES_MAX / ((BIG - 3) * BLOCK_BYTES) + 1}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct chunk_msg_request m = request_of(CHUNK_READ, cases[i].blocks_n);
		struct rogue *r;

		serve();
		fx.hold = true;
		r = rogue_joined(1);
		for (uint32_t k = 0; k < cases[i].asked; k++)
			rogue_ask(r, &m);
		run(2 * SEC);
		assert_int_equal(fx.seen_n, cases[i].held);
		fx.hold = false;
		answer_all(NULL);
		run(60 * SEC);
		assert_int_equal(fx.seen_n, cases[i].asked);
		assert_int_equal(r->replies_n, cases[i].asked);
		assert_int_equal(r->data_n, cases[i].asked);
		rogue_free(r);
		end();
	}
}

/* ---- an acceptor made of bytes ------------------------------------------------------------------------------------------------------- */

static struct acceptor {
	struct listener l;
	struct conn conn;
	bool open;
	uint32_t node;
	uint32_t links, requests_n;
	uint32_t order[1024]; /* chunks of the requests, as they came */
	struct chunk_msg_request last;
	uint64_t ids[64];
	uint32_t ids_n; /* of this link, not answered */
	bool hasty;
	bool quiet; /* gives no answers */
	int how;    /* what is wrong with the next answer */
	struct link_out out;
	uint8_t body[CHUNK_MSG_REPLY_MAX + 8];
	uint8_t *rx; /* of writes */
} ac;

enum { HOW_MAX = 12 };

static void ac_sent(struct link_out *o, int status)
{
	(void)o;
	(void)status;
}

/* To a READ of two blocks with states. */
static void ac_answer(uint64_t id)
{
	struct chunk_msg_reply h = {.present_n = to_le32(2),
				    .incarnation = to_le64(3),
				    .blocks_n = to_le16(2),
				    .flags = CHUNK_REPLY_CRCS | CHUNK_REPLY_STATES};
	struct frame f = {.type = CHUNK_MSG_REQUEST,
			  .flags = FRAME_F_REPLY,
			  .id = id,
			  .body_bytes = sizeof(h) + 8 + 2,
			  .data_bytes = 2 * BLOCK_BYTES};
	struct le32 crc = to_le32(crc32c(block_data, BLOCK_BYTES));

	memcpy(ac.body + sizeof(h), &crc, 4);
	memcpy(ac.body + sizeof(h) + 4, &crc, 4);
	memset(ac.body + sizeof(h) + 8, BLOCK_DATA, 2);
	switch (ac.how) {
	case 1:
		ac.body[sizeof(h) + 9] = BLOCK_DATA + 1;
		break;
	case 2:
		h.blocks_n = to_le16(3);
		break;
	case 3: /* a wrong checksum of the second block */
		ac.body[sizeof(h) + 5] ^= 1;
		break;
	case 4:
		h.flags |= 0x40;
		break;
	case 5:
		h.reserved[4] = 1;
		break;
	case 6:
		h.status = to_le32(2 * ERR_BASE + 1);
		break;
	case 7:
		h.present_n = to_le32(CHUNK_BLOCKS_MAX + 1);
		break;
	case 8: /* no states, though they were asked for */
		h.flags &= (uint8_t)~CHUNK_REPLY_STATES;
		f.body_bytes -= 2;
		break;
	case 9: /* no checksums */
		h.flags &= (uint8_t)~CHUNK_REPLY_CRCS;
		memset(ac.body + sizeof(h), BLOCK_DATA, 2);
		f.body_bytes -= 8;
		break;
	case 10:
		f.data_bytes -= BLOCK_BYTES;
		break;
	case 11:
		f.type = CHUNK_MSG_HELLO;
		break;
	}
	ac.how = 0;
	memcpy(ac.body, &h, sizeof(h));
	link_send(&ac.conn.link, &ac.out, &f, ac.body, block_data, ac_sent);
}

static void ac_answer_write(uint64_t id)
{
	struct chunk_msg_reply h = {.incarnation = to_le64(3), .blocks_n = to_le16(BIG)};

	memcpy(ac.body, &h, sizeof(h));
	link_send(&ac.conn.link, &ac.out,
		  &(struct frame){.type = CHUNK_MSG_REQUEST,
				  .flags = FRAME_F_REPLY,
				  .id = id,
				  .body_bytes = sizeof(h)},
		  ac.body, NULL, ac_sent);
}

static void ac_up(struct conn *c)
{
	(void)c;
}

static int ac_request(struct conn *c, const struct frame *f, const void *body, void **ret_data)
{
	(void)c;
	(void)ret_data;
	if (f->type == CHUNK_MSG_HELLO) {
		struct chunk_msg_hello_reply h = {.node = to_le32(ac.node)};
		struct link_copy *copy = link_copy_new(sizeof(h));

		memcpy(copy->body, &h, sizeof(h));
		link_copy_send(&ac.conn.link, copy,
			       &(struct frame){.type = CHUNK_MSG_HELLO,
					       .flags = FRAME_F_REPLY,
					       .id = f->id,
					       .body_bytes = sizeof(h)});
		return 0;
	}
	memcpy(&ac.last, body, sizeof(ac.last));
	ac.order[ac.requests_n++ % 1024] = get_le32(ac.last.chunk);
	if (f->data_bytes)
		*ret_data = ac.rx;
	if (ac.hasty) { /* answers before it has read what it is to write, and reads no further */
		ac_answer_write(f->id);
		link_pause(&ac.conn.link);
	} else if (ac.quiet)
		ac.ids[ac.ids_n++ % 64] = f->id;
	else
		ac_answer(f->id);
	return 0;
}

static int ac_data(struct conn *c)
{
	(void)c;
	return 0;
}

static void ac_closed(void *arg)
{
	(void)arg;
	ac.open = false;
}

static void ac_down(struct conn *c, int status)
{
	(void)status;
	conn_close(c, ac_closed, NULL);
}

static const struct conn_ops ac_ops = {ac_up, ac_request, ac_data, ac_down};

static void ac_accepted(struct listener *l, struct ioe_sock *sock)
{
	struct conn_config cfg = {.ioe = fx.a,
				  .ops = &ac_ops,
				  .body_max = 65536,
				  .data_max = BIG * BLOCK_BYTES};

	(void)l;
	if (ac.open) { /* the last one is not gone yet: the dialer comes again */
		ioe_sock_close(fx.a, sock);
		return;
	}
	assert_int_equal(conn_open(&ac.conn, &cfg, sock), 0);
	ac.open = true;
	ac.links++;
	ac.ids_n = 0;
}

static struct peers *dialing(uint64_t wait_ns)
{
	struct peers_config cfg = {.cluster = cluster, .start = {{4}}, .node = 1, .wait_ns = wait_ns};
	const char *addr = ADDR;
	char errmsg[ERRMSG_LEN];
	struct peers *p;

	begin();
	memset(&ac, 0, sizeof(ac));
	ac.node = NODE;
	ac.rx = mem_alloc(BIG * BLOCK_BYTES);
	cfg.ioe = fx.a;
	assert_int_equal(listener_open(&ac.l, fx.a, ADDR, ac_accepted, errmsg), 0);
	assert_int_equal(peers_new(&cfg, &p), 0);
	assert_int_equal(peers_set(p, NODE, &addr, 1), 0);
	return p;
}

static void dialing_end(struct peers *p)
{
	bool closed = false, quiet = false;

	peers_close(p, set, &closed);
	while (!closed)
		assert_true(sim_step(fx.w));
	if (ac.open)
		conn_break(&ac.conn, -ESHUTDOWN);
	listener_close(&ac.l, set, &quiet);
	while (!quiet || ac.open)
		assert_true(sim_step(fx.w));
	mem_free(ac.rx);
	end();
}

struct ask {
	struct chunk_req req;
	bool done;
	uint8_t *buf, states[8];
	uint32_t crcs[8];
};

static void ask_done(struct chunk_req *r)
{
	container_of(r, struct ask, req)->done = true;
}

static void ask(struct peers *p, struct ask *a, uint32_t chunk)
{
	*a = (struct ask){.buf = a->buf ? a->buf : mem_alloc_aligned(BLOCK_BYTES, 2 * BLOCK_BYTES)};
	memset(a->buf, 0xee, 2 * BLOCK_BYTES);
	a->req = (struct chunk_req){.op = CHUNK_READ,
				    .dev = DEV,
				    .volume = 0x11,
				    .slot = 0x12,
				    .cgen = 0x1300000000,
				    .epoch = 0x1400000000,
				    .layer = 0x15,
				    .chunk = chunk,
				    .block = 6,
				    .blocks_n = 2,
				    .incarnation = 0x1600000000,
				    .buf = a->buf,
				    .crcs = a->crcs,
				    .states = a->states,
				    .done = ask_done};
	peers_submit(p, NODE, &a->req);
}

static void a_wrong_answer_is_asked_for_again(void **state)
{
	(void)state;
	for (int how = 1; how < HOW_MAX; how++) {
		struct peers *p = dialing(0);
		struct ask a = {.done = false};

		ac.how = how;
		ask(p, &a, 1);
		run(5 * SEC);
		if (!a.done || ac.links != 2)
			fail_msg("case %d: done %d, %u links", how, a.done, ac.links);
		assert_int_equal(a.req.status, 0);
		assert_int_equal(a.req.present_n, 2);
		assert_int_equal(a.req.incarnation, 3);
		assert_memory_equal(a.buf, block_data, 2 * BLOCK_BYTES);
		assert_int_equal(a.states[1], BLOCK_DATA);
		assert_int_equal(a.crcs[1], crc32c(block_data, BLOCK_BYTES));
		mem_free(a.buf);
		dialing_end(p);
	}
}

static void every_field_is_sent(void **state)
{
	struct peers *p = dialing(0);
	struct ask a = {.done = false};
	uint32_t crc = crc32c(block_data, BLOCK_BYTES);
	uint32_t crcs[2] = {crc, crc};

	(void)state;
	ask(p, &a, 0x17);
	run(SEC);
	assert_true(a.done);
	assert_int_equal(ac.last.op, CHUNK_READ);
	assert_int_equal(ac.last.want, CHUNK_WANT_CRCS | CHUNK_WANT_STATES);
	assert_int_equal(get_le16(ac.last.dev), DEV);
	assert_int_equal(get_le32(ac.last.flags), 0);
	assert_int_equal(get_le32(ac.last.volume), 0x11);
	assert_int_equal(get_le32(ac.last.slot), 0x12);
	assert_int_equal(get_le64(ac.last.cgen), 0x1300000000);
	assert_int_equal(get_le64(ac.last.epoch), 0x1400000000);
	assert_int_equal(get_le32(ac.last.layer), 0x15);
	assert_int_equal(get_le32(ac.last.chunk), 0x17);
	assert_int_equal(get_le16(ac.last.block), 6);
	assert_int_equal(get_le16(ac.last.blocks_n), 2);
	assert_int_equal(get_le64(ac.last.incarnation), 0x1600000000);
	ac.quiet = true;
	a.done = false;
	a.req.op = CHUNK_WRITE;
	a.req.flags = CHUNK_F_STABLE;
	a.req.crcs = crcs;
	a.req.states = NULL;
	memcpy(a.buf, block_data, 2 * BLOCK_BYTES);
	peers_submit(p, NODE, &a.req);
	run(SEC);
	assert_int_equal(ac.last.op, CHUNK_WRITE);
	assert_int_equal(get_le32(ac.last.flags), CHUNK_F_STABLE);
	assert_memory_equal(ac.rx, block_data, 2 * BLOCK_BYTES);
	conn_break(&ac.conn, -ECONNRESET);
	peers_give_up(p);
	run(SEC);
	assert_true(a.done);
	mem_free(a.buf);
	dialing_end(p);
}

/* What was sent and not answered comes again first, in its order, and then what came meanwhile. */
static void the_order_is_kept(void **state)
{
	enum { N = PEER_IN_FLIGHT_MAX + 40 }; /* some wait while others are sent */
	struct peers *p = dialing(0);
	struct ask *a = mem_zalloc_array(N, sizeof(*a));

	(void)state;
	ac.quiet = true;
	for (uint32_t i = 0; i < N - 5; i++)
		ask(p, &a[i], i);
	run(SEC);
	assert_int_equal(ac.requests_n, PEER_IN_FLIGHT_MAX);
	conn_break(&ac.conn, -ECONNRESET);
	run(SEC / 100); /* noticed, and not dialled again yet */
	for (uint32_t i = N - 5; i < N; i++)
		ask(p, &a[i], i);
	run(SEC);
	assert_int_equal(ac.links, 2);
	assert_int_equal(ac.requests_n, 2 * PEER_IN_FLIGHT_MAX);
	for (uint32_t i = 0; i < PEER_IN_FLIGHT_MAX; i++)
		assert_int_equal(ac.order[PEER_IN_FLIGHT_MAX + i], i);
	conn_break(&ac.conn, -ECONNRESET);
	peers_give_up(p);
	run(SEC);
	for (uint32_t i = 0; i < N; i++) {
		assert_true(a[i].done);
		assert_int_equal(a[i].req.status, -E_DEVICE_GONE);
		mem_free(a[i].buf);
	}
	mem_free(a);
	dialing_end(p);
}

/* The data of a write is still on its way out when its answer comes: until it has gone, the buffer is not given back. */
static void a_hasty_answer_waits_for_the_send(void **state)
{
	struct peers *p = dialing(0);
	struct ask a = {.buf = block_data};
	uint32_t *crcs = mem_zalloc_array(BIG, sizeof(*crcs));

	(void)state;
	ac.hasty = true;
	a.req = (struct chunk_req){.op = CHUNK_WRITE,
				   .dev = DEV,
				   .blocks_n = BIG,
				   .buf = block_data,
				   .crcs = crcs,
				   .done = ask_done};
	peers_submit(p, NODE, &a.req);
	run(SEC);
	assert_int_equal(ac.requests_n, 1);
	assert_false(a.done);
	link_resume(&ac.conn.link);
	run(SEC);
	assert_true(a.done);
	assert_int_equal(a.req.status, 0);
	assert_int_equal(ac.links, 1);
	mem_free(crcs);
	dialing_end(p);
}

/* Another node has the address now: it is not asked for anything. */
static void another_node_is_not_asked(void **state)
{
	struct peers *p = dialing(3 * SEC);
	struct ask a = {.done = false};

	(void)state;
	ac.node = NODE + 1;
	ask(p, &a, 1);
	run(10 * SEC);
	assert_true(a.done);
	assert_int_equal(a.req.status, -E_DEVICE_GONE);
	assert_int_equal(ac.requests_n, 0);
	mem_free(a.buf);
	dialing_end(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_field_arrives),
	    cmocka_unit_test(an_error_tells_no_old_states),
	    cmocka_unit_test(who_breaks_the_rules_is_cut_off),
	    cmocka_unit_test(a_damaged_write_is_not_executed),
	    cmocka_unit_test(hellos_that_are_refused),
	    cmocka_unit_test(other_devices_are_gone),
	    cmocka_unit_test(what_a_peer_makes_us_hold_is_bounded),
	    cmocka_unit_test(a_wrong_answer_is_asked_for_again),
	    cmocka_unit_test(every_field_is_sent),
	    cmocka_unit_test(the_order_is_kept),
	    cmocka_unit_test(another_node_is_not_asked),
	    cmocka_unit_test(a_hasty_answer_waits_for_the_send),
	};

	block_data = mem_alloc_aligned(BLOCK_BYTES, BIG * BLOCK_BYTES);
	memset(block_data, 1, BIG * BLOCK_BYTES);
	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
