/* SPDX-License-Identifier: Apache-2.0 */
/* Links, connections and dialers between two machines of a simulated world. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/mem.h"
#include "src/wire/dial.h"
#include "src/wire/listen.h"
#include "tests/lib/sim_fixture.h"

#define SEC ((uint64_t)1000000000)
enum { ECHO = FRAME_TYPE_NODE, SILENCE, BODY_MAX = 100000, DATA_MAX = 1 << 20, SESSIONS = 64 };

/* An echo server: answers ECHO with the same body and data, and SILENCE never. */
struct session {
	struct conn conn;
	struct server *server;
	bool open, down;
	uint8_t *data;
	struct frame f;
	uint8_t *body;
	struct link_out out;
	int status;
};

struct server {
	struct sim_fixture *fx;
	struct ioe *e;
	struct listener l;
	const struct auth_key *key;
	struct session sessions[SESSIONS];
	int sessions_n, open_n;
	int ups;
	bool listening;
};

struct world {
	struct sim_fixture fx; /* the client's machine and process */
	struct sim_machine *m2;
	struct server server;
	struct dialer dialer;
	int ups, downs, last_status;
	bool closed;
};

static void session_up(struct conn *c)
{
	container_of(c, struct session, conn)->server->ups++;
}

static void echo_sent(struct link_out *o, int status)
{
	struct session *s = container_of(o, struct session, out);

	(void)status;
	mem_free(s->body);
	mem_free(s->data);
	s->body = s->data = NULL;
	link_resume(&s->conn.link);
}

static void echo(struct session *s)
{
	s->f.flags = FRAME_F_REPLY;
	link_pause(&s->conn.link);
	link_send(&s->conn.link, &s->out, &s->f, s->body, s->data, echo_sent);
}

static int session_request(struct conn *c, const struct frame *f, const void *body, void **ret_data)
{
	struct session *s = container_of(c, struct session, conn);

	if (f->type == SILENCE)
		return 0;
	if (f->type != ECHO)
		return -E_PROTOCOL;
	s->f = *f;
	s->body = mem_alloc(f->body_bytes);
	memcpy(s->body, body, f->body_bytes);
	if (!f->data_bytes) {
		echo(s);
		return 0;
	}
	*ret_data = s->data = mem_alloc(f->data_bytes);
	return 0;
}

static int session_data(struct conn *c)
{
	echo(container_of(c, struct session, conn));
	return 0;
}

static void session_closed(void *arg)
{
	struct session *s = arg;

	link_resume(&s->conn.link); /* whoever owes an answer may do so late; it does nothing */
	s->open = false;
	s->server->open_n--;
	mem_free(s->body);
	mem_free(s->data);
}

static void session_down(struct conn *c, int status)
{
	struct session *s = container_of(c, struct session, conn);

	s->down = true;
	s->status = status;
	conn_close(c, session_closed, s);
}

static const struct conn_ops session_ops = {session_up, session_request, session_data, session_down};

static void accepted(struct listener *l, struct ioe_sock *sock)
{
	struct server *v = container_of(l, struct server, l);
	struct session *s = &v->sessions[v->sessions_n++];
	struct conn_config cfg = {.ioe = v->e,
				  .ops = &session_ops,
				  .key = v->key,
				  .body_max = BODY_MAX,
				  .data_max = DATA_MAX};

	assert_true(v->sessions_n <= SESSIONS);
	s->server = v;
	if (conn_open(&s->conn, &cfg, sock)) { /* a test without memory */
		ioe_sock_close(v->e, sock);
		v->sessions_n--;
		return;
	}
	s->open = true;
	v->open_n++;
}

/* ---- client ---------------------------------------------------------------------------------------------------------------- */

static void client_up(struct dialer *d)
{
	container_of(d, struct world, dialer)->ups++;
}

static int client_request(struct dialer *d, const struct frame *f, const void *body, void **ret_data)
{
	(void)d;
	(void)f;
	(void)body;
	(void)ret_data;
	return -E_PROTOCOL;
}

static int client_data(struct dialer *d)
{
	(void)d;
	return 0;
}

static void client_down(struct dialer *d, int status)
{
	struct world *w = container_of(d, struct world, dialer);

	w->downs++;
	w->last_status = status;
}

static const struct dialer_ops client_ops = {client_up, client_request, client_data, client_down};

struct call {
	struct conn_call call;
	struct link_out out;
	uint8_t *body, *data, *back;
	size_t body_n, data_n;
	bool done, sent;
	int status;
	struct world *closes; /* the dialer, when it was sent */
};

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

static void call_sent(struct link_out *o, int status)
{
	struct call *c = container_of(o, struct call, out);

	(void)status;
	c->sent = true;
	if (c->closes)
		dialer_close(&c->closes->dialer, set_flag, &c->closes->closed);
}

static int call_reply(struct conn_call *call, int status, const struct frame *f, const void *body,
		      void **ret_data)
{
	struct call *c = container_of(call, struct call, call);

	c->done = true;
	c->status = status;
	if (status)
		return 0;
	if (f->body_bytes != c->body_n || memcmp(body, c->body, c->body_n))
		c->status = -EBADMSG;
	if (f->data_bytes != c->data_n)
		return -E_PROTOCOL;
	if (c->data_n)
		*ret_data = c->back;
	return 0;
}

static void call_begin(struct world *w, struct call *c, uint16_t type, size_t body_n, size_t data_n)
{
	struct frame f = {.type = type,
			  .body_bytes = (uint32_t)body_n,
			  .data_bytes = (uint32_t)data_n};

	*c = (struct call){.body_n = body_n, .data_n = data_n};
	c->body = mem_alloc(body_n);
	c->data = mem_alloc(data_n);
	c->back = mem_zalloc(data_n);
	memset(c->body, (int)body_n, body_n);
	memset(c->data, (int)body_n + 1, data_n);
	f.id = conn_call_begin(&w->dialer.conn, &c->call, call_reply);
	link_send(&w->dialer.conn.link, &c->out, &f, c->body, c->data, call_sent);
}

static void call_free(struct call *c)
{
	assert_true(c->done && c->sent);
	mem_free(c->body);
	mem_free(c->data);
	mem_free(c->back);
}

/* ---- the world ------------------------------------------------------------------------------------------------------------- */

static const struct auth_key key = {.bytes = "0123456789abcdef0123456789abcdef", .len = 32};
static const struct auth_key wrong = {.bytes = "0123456789abcdef0123456789abcdeX", .len = 32};

static void server_start(struct world *w)
{
	struct server *v = &w->server;
	char errmsg[ERRMSG_LEN];

	*v = (struct server){.key = v->key};
	v->e = sim_process_new(w->m2, "server", NULL, NULL);
	assert_int_equal(listener_open(&v->l, v->e, "10.0.0.2:7", accepted, errmsg), 0);
	v->listening = true;
}

/* A killed server's memory: its sessions never close. */
static void server_kill(struct world *w)
{
	struct server *v = &w->server;

	sim_kill(v->e);
	for (int i = 0; i < v->sessions_n; i++) {
		if (!v->sessions[i].open)
			continue;
		mem_free(v->sessions[i].body);
		mem_free(v->sessions[i].data);
		mem_free(v->sessions[i].conn.link.buf);
		htab_free(&v->sessions[i].conn.calls);
	}
	v->listening = false;
}

static void world_open(struct world *w, uint64_t seed, const struct auth_key *theirs,
		       const struct auth_key *ours)
{
	struct sim_config cfg = {.seed = seed, .recv_split_percent = 30};
	static const char *const addrs[] = {"10.0.0.2:7"};
	struct dialer_config d = {.ops = &client_ops,
				  .addrs = addrs,
				  .addrs_n = 1,
				  .key = ours,
				  .body_max = BODY_MAX,
				  .data_max = DATA_MAX};

	memset(w, 0, sizeof(*w));
	sim_fixture_init_config(&w->fx, &cfg);
	w->m2 = sim_machine_new(w->fx.w, "m2");
	w->server.key = theirs;
	server_start(w);
	d.ioe = w->fx.e;
	assert_int_equal(dialer_open(&w->dialer, &d), 0);
}

static void world_close(struct world *w)
{
	bool closed = false;

	if (!w->dialer.closed)
		dialer_close(&w->dialer, set_flag, &w->closed);
	sim_run_until(w->fx.w, &w->closed);
	if (w->server.listening) {
		listener_close(&w->server.l, set_flag, &closed);
		sim_run_until(w->fx.w, &closed);
		sim_run(w->fx.w, sim_now_ns(w->fx.w) + SEC);
		assert_int_equal(w->server.open_n, 0);
		ioe_free(w->server.e);
	}
	ioe_free(w->fx.e);
	assert_true(sim_run(w->fx.w, UINT64_MAX)); /* no timer is left behind */
	sim_world_free(w->fx.w);
}

static void run(struct world *w, uint64_t ns)
{
	sim_run(w->fx.w, sim_now_ns(w->fx.w) + ns);
}

/* ---- tests ------------------------------------------------------------------------------------------------------------------ */

static void frames_of_every_size_arrive_whole(void **state)
{
	static const size_t sizes[][2] = {{0, 0},	 {1, 0},	{40000, 0},  {64, 4096},
					  {BODY_MAX, 1}, {0, DATA_MAX}, {17, 65536}, {1000, 512}};
	uint64_t live = mem_live();

	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct world w;
		struct call calls[ARRAY_LEN(sizes)];

		world_open(&w, seed, NULL, NULL);
		run(&w, SEC);
		assert_int_equal(w.ups, 1);
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
			call_begin(&w, &calls[i], ECHO, sizes[i][0], sizes[i][1]);
		run(&w, SEC);
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
			assert_true(calls[i].done);
			assert_int_equal(calls[i].status, 0);
			assert_memory_equal(calls[i].back, calls[i].data, calls[i].data_n);
			call_free(&calls[i]);
		}
		world_close(&w);
	}
	assert_int_equal(mem_live(), live);
}

static void both_hold_the_key(void **state)
{
	struct world w;
	struct call c;

	(void)state;
	world_open(&w, 3, &key, &key);
	run(&w, SEC);
	assert_int_equal(w.ups, 1);
	assert_int_equal(w.server.ups, 1);
	call_begin(&w, &c, ECHO, 100, 100);
	run(&w, SEC);
	assert_int_equal(c.status, 0);
	call_free(&c);
	world_close(&w);
}

static void a_wrong_key_gets_nowhere(void **state)
{
	static const struct {
		const struct auth_key *theirs, *ours;
	} cases[] = {{&key, &wrong}, {&wrong, &key}, {&key, NULL}};
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct world w;

		world_open(&w, 3, cases[i].theirs, cases[i].ours);
		run(&w, 3 * SEC);
		assert_int_equal(w.server.ups, 0);
		if (cases[i].ours)
			assert_int_equal(w.ups, 0);
		else /* asks for no proof, and is cut off when it gives none */
			assert_true(w.server.sessions_n >= 1);
		world_close(&w);
	}
}

static void who_proves_nothing_is_cut_off(void **state)
{
	struct world w;

	(void)state;
	world_open(&w, 4, &key, NULL);
	run(&w, 11 * SEC);
	assert_true(w.downs >= 1);
	assert_int_equal(w.server.sessions[0].status, -ETIMEDOUT);
	assert_int_equal(w.server.ups, 0);
	world_close(&w);
}

static void a_lost_server_is_found_again(void **state)
{
	uint64_t live = mem_live();

	(void)state;
	for (uint64_t seed = 1; seed <= 30; seed++) {
		struct world w;
		struct call c[3];

		world_open(&w, seed, &key, &key);
		run(&w, SEC);
		dialer_settled(&w.dialer);
		for (int i = 0; i < 3; i++)
			call_begin(&w, &c[i], i == 2 ? SILENCE : ECHO, 5000, i == 2 ? 0 : 20000);
		run(&w, seed * 100000);
		server_kill(&w);
		run(&w, SEC / 10);
		for (int i = 0; i < 3; i++) {
			assert_true(c[i].done);
			assert_true(c[i].status == 0 || c[i].status == -ENOTCONN);
			call_free(&c[i]);
		}
		assert_int_equal(c[2].status, -ENOTCONN);
		assert_int_equal(w.downs, 1);
		server_start(&w);
		run(&w, 2 * SEC);
		assert_int_equal(w.ups, 2);
		call_begin(&w, &c[0], ECHO, 1, 1);
		run(&w, SEC);
		assert_int_equal(c[0].status, 0);
		call_free(&c[0]);
		world_close(&w);
	}
	assert_int_equal(mem_live(), live);
}

static void silence_breaks_the_connection_on_both_sides(void **state)
{
	struct world w;
	struct call c;

	(void)state;
	world_open(&w, 5, NULL, NULL);
	run(&w, 60 * SEC);
	assert_int_equal(w.downs, 0); /* pings keep it */
	call_begin(&w, &c, SILENCE, 1, 0);
	sim_net_cut(w.fx.w, w.fx.m, w.m2, true);
	run(&w, 30 * SEC);
	assert_true(c.done);
	assert_int_equal(c.status, -ENOTCONN);
	assert_int_equal(w.last_status, -ETIMEDOUT);
	assert_int_equal(w.server.sessions[0].status, -ETIMEDOUT);
	sim_net_cut(w.fx.w, w.fx.m, w.m2, false);
	run(&w, 30 * SEC);
	assert_int_equal(w.ups, 2);
	call_free(&c);
	world_close(&w);
}

static void a_pause_is_not_silence(void **state)
{
	struct world w;
	struct call c;

	(void)state;
	world_open(&w, 6, NULL, NULL);
	run(&w, SEC);
	link_pause(&w.server.sessions[0].conn.link);
	run(&w, 100 * SEC);
	call_begin(&w, &c, ECHO, 100, 0);
	run(&w, 100 * SEC);
	assert_false(c.done);
	assert_int_equal(w.downs, 0);
	link_resume(&w.server.sessions[0].conn.link);
	run(&w, SEC);
	assert_true(c.done);
	assert_int_equal(c.status, 0);
	call_free(&c);
	world_close(&w);
}

static void what_breaks_the_protocol_ends_that_connection_only(void **state)
{
	static const struct frame bad[] = {
	    {.type = 9999, .id = 1},			      /* unknown to this server */
	    {.type = FRAME_AUTH_PROOF},			      /* out of place */
	    {.type = FRAME_PING, .flags = FRAME_F_REPLY},     /* no such thing */
	    {.type = ECHO, .flags = FRAME_F_REPLY, .id = 77}, /* answer to nothing */
	    {.type = 7, .id = 1},			      /* reserved */
	};
	struct world w;

	(void)state;
	world_open(&w, 6, NULL, NULL);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct link_copy *copy = link_copy_new(0);

		run(&w, 2 * SEC);
		dialer_settled(&w.dialer);
		assert_int_equal(w.ups, (int)i + 1);
		assert_int_equal(link_copy_send(&w.dialer.conn.link, copy, &bad[i]), 0);
		run(&w, 2 * SEC);
		assert_int_equal(w.server.sessions[i].status, -E_PROTOCOL);
	}
	world_close(&w);
}

/* A peer that does not read: what may be queued for it is bounded. */
static void too_much_queued_cuts_the_peer_off(void **state)
{
	struct world w;
	int r = 0;

	(void)state;
	world_open(&w, 8, NULL, NULL);
	run(&w, SEC);
	sim_stall(w.server.e, 4 * SEC);
	for (int i = 0; i < 1000 && !r; i++) {
		struct link_copy *copy = link_copy_new(BODY_MAX);
		struct frame f = {.type = SILENCE, .id = 1, .body_bytes = BODY_MAX};

		memset(copy->body, 0, BODY_MAX);
		r = link_copy_send(&w.dialer.conn.link, copy, &f);
	}
	assert_int_equal(r, -ENOBUFS);
	assert_true(w.dialer.conn.link.queued_bytes < (17 << 20));
	run(&w, SEC);
	assert_int_equal(w.last_status, -ENOBUFS);
	world_close(&w);
}

/* Random bytes on a raw socket: the server cuts us off, and serves others. */
static void noise_is_survived(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 50; seed++) {
		struct world w;
		struct sim_wait c = {0}, s = {0};
		struct ioe_sock *sock;
		uint8_t noise[300];
		struct iovec iov = {noise, sizeof(noise)};

		world_open(&w, seed, seed % 2 ? &key : NULL, seed % 2 ? &key : NULL);
		for (size_t i = 0; i < sizeof(noise); i++)
			noise[i] = (uint8_t)sim_rand(w.fx.w);
		if (seed % 3 == 0) { /* a good header first */
			struct frame f = {.type = ECHO, .body_bytes = 200, .data_bytes = 1 << 20};
			struct frame_header h;

			frame_encode(&h, &f, noise + sizeof(h));
			memcpy(noise, &h, sizeof(h));
		}
		ioe_connect(w.fx.e, &c.req, "10.0.0.2:7", sim_wait_done);
		assert_int_equal(sim_wait(&w.fx, &c), 0);
		sock = c.req.ret_sock;
		ioe_send(w.fx.e, &s.req, sock, &iov, 1, sim_wait_done);
		sim_wait(&w.fx, &s);
		run(&w, 20 * SEC);
		ioe_sock_close(w.fx.e, sock);
		run(&w, SEC);
		assert_int_equal(w.server.open_n, 1); /* our dialer's */
		world_close(&w);
	}
}

/* Closing at any moment: everything ends, nothing leaks. */
static void closing_at_any_moment(void **state)
{
	uint64_t live = mem_live();

	(void)state;
	for (uint64_t us = 0; us < 4000; us += 37) {
		struct world w;
		struct call c = {.done = true, .sent = true};

		world_open(&w, us + 1, us % 2 ? &key : NULL, us % 2 ? &key : NULL);
		run(&w, us * 1000);
		if (dialer_is_up(&w.dialer))
			call_begin(&w, &c, ECHO, 5000, 50000);
		run(&w, us % 700 * 1000);
		world_close(&w);
		call_free(&c);
	}
	assert_int_equal(mem_live(), live);
}

/* Each way in which a header can be wrong ends the connection with the error that says so, before anything is made of the frame. */
static void wrong_headers_end_the_connection(void **state)
{
	static const int expected[] = {-E_CHECKSUM, -E_CHECKSUM, -E_PROTOCOL, -E_VERSION,
				       -E_PROTOCOL, -E_PROTOCOL, -EMSGSIZE,   -EMSGSIZE};
	struct world w;

	(void)state;
	world_open(&w, 13, NULL, NULL);
	for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
		struct frame_header *h;
		struct call c;

		run(&w, 2 * SEC);
		dialer_settled(&w.dialer);
		assert_int_equal(w.ups, (int)i + 1);
		call_begin(&w, &c, ECHO, 100, 0);
		h = &c.out.header;
		switch (i) {
		case 0:
			h->crc = to_le32(get_le32(h->crc) ^ 1);
			break;
		case 1:
			c.body[99] ^= 1;
			break;
		case 2:
			h->magic = to_le32(FRAME_MAGIC + 1);
			break;
		case 3:
			h->version++;
			break;
		case 4:
			h->flags = 2;
			break;
		case 5:
			h->reserved = to_le32(1);
			break;
		case 6:
			h->body_bytes = to_le32(BODY_MAX + 1);
			break;
		case 7:
			h->data_bytes = to_le32(DATA_MAX + 1);
			break;
		}
		run(&w, 2 * SEC);
		if (w.server.sessions[i].status != expected[i])
			fail_msg("case %zu: %s", i, err_name(w.server.sessions[i].status));
		assert_int_equal(c.status, -ENOTCONN);
		call_free(&c);
	}
	world_close(&w);
}

/* A dialer that proves what it likes. */
struct raw {
	struct link link;
	struct ioe_req dial;
	struct ioe *e;
	bool open, down;
	uint8_t answer[AUTH_NONCE_BYTES + AUTH_PROOF_BYTES];
};

static int raw_frame(struct link *l, const struct frame *f, const void *body, void **ret_data)
{
	struct raw *r = container_of(l, struct raw, link);

	(void)ret_data;
	if (f->type == FRAME_AUTH_ANSWER)
		memcpy(r->answer, body, sizeof(r->answer));
	return 0;
}

static void raw_down(struct link *l, int status)
{
	(void)status;
	container_of(l, struct raw, link)->down = true;
}

static const struct link_ops raw_ops = {.frame = raw_frame, .down = raw_down};

static void raw_dialled(struct ioe_req *req)
{
	struct raw *r = container_of(req, struct raw, dial);
	struct link_config cfg = {.ioe = r->e, .ops = &raw_ops, .body_max = BODY_MAX};

	assert_int_equal(req->status, 0);
	assert_int_equal(link_open(&r->link, &cfg, req->ret_sock), 0);
	r->open = true;
}

static void raw_say(struct raw *r, uint16_t type, const void *body, uint32_t n)
{
	struct link_copy *copy = link_copy_new(n);

	memcpy(copy->body, body, n);
	assert_int_equal(link_copy_send(&r->link, copy,
					&(struct frame){.type = type, .body_bytes = n}),
			 0);
}

static void who_proves_the_wrong_thing_is_refused(void **state)
{
	enum { NONSENSE, REFLECTED, BIG, SILENT, RIGHT, REPLAYED, CASES };
	static const int expected[CASES] = {-EKEYREJECTED, -EKEYREJECTED, -EMSGSIZE, -ETIMEDOUT, 0,
					    -EKEYREJECTED};
	static uint8_t big[BODY_MAX];
	uint8_t nonce[AUTH_NONCE_BYTES], ours[AUTH_NONCE_BYTES], proof[AUTH_PROOF_BYTES] = {1};
	struct world w;

	(void)state;
	world_open(&w, 14, &key, &key);
	run(&w, SEC);
	memset(nonce, 3, sizeof(nonce));
	memcpy(ours, w.dialer.conn.nonce_d, sizeof(ours));
	for (int i = 0; i < CASES; i++) {
		struct raw r = {.e = w.fx.e};
		bool closed = false;

		ioe_connect(w.fx.e, &r.dial, "10.0.0.2:7", raw_dialled);
		run(&w, SEC / 10);
		assert_true(r.open);
		if (i == BIG)
			raw_say(&r, FRAME_AUTH_CHALLENGE, big, sizeof(big));
		else if (i != SILENT)
			raw_say(&r, FRAME_AUTH_CHALLENGE, nonce, sizeof(nonce));
		run(&w, SEC / 10);
		if (i == REFLECTED)
			memcpy(proof, r.answer + AUTH_NONCE_BYTES, sizeof(proof));
		if (i == RIGHT)
			auth_proof(&key, AUTH_DIALER, nonce, r.answer, proof);
		if (i != BIG && i != SILENT)
			raw_say(&r, FRAME_AUTH_PROOF, proof, sizeof(proof));
		run(&w, i == SILENT ? 9 * SEC : SEC / 10);
		if (i == SILENT)
			assert_false(w.server.sessions[i + 1].down);
		run(&w, i == SILENT ? SEC : SEC / 10);
		if (w.server.sessions[i + 1].status != expected[i])
			fail_msg("case %d: %s", i, err_name(w.server.sessions[i + 1].status));
		assert_int_equal(w.server.ups, i < RIGHT ? 1 : 2);
		link_close(&r.link, set_flag, &closed);
		run(&w, SEC / 10);
		assert_true(closed);
	}
	/* and what we ask is new each time */
	conn_break(&w.dialer.conn, -ECONNRESET);
	run(&w, SEC);
	assert_true(dialer_is_up(&w.dialer));
	assert_memory_not_equal(ours, w.dialer.conn.nonce_d, sizeof(ours));
	world_close(&w);
}

/* A session that ends while it is paused, with its answers still owed. */
static void a_late_resume_is_harmless(void **state)
{
	struct world w;

	(void)state;
	world_open(&w, 9, NULL, NULL);
	run(&w, SEC);
	link_pause(&w.server.sessions[0].conn.link);
	conn_break(&w.server.sessions[0].conn, -ESHUTDOWN);
	run(&w, SEC);
	assert_true(w.server.sessions[0].down && !w.server.sessions[0].open);
	link_resume(&w.server.sessions[0].conn.link);
	run(&w, SEC);
	assert_int_equal(w.ups, 2);
	assert_int_equal(w.server.open_n, 1);
	world_close(&w);
}

/* Each allocation of a connection that is being made fails once: it is made later. */
static void memory_is_short_while_joining(void **state)
{
	uint64_t live = mem_live();

	(void)state;
	for (uint64_t n = 0; n < 24; n++) {
		struct world w;

		world_open(&w, 3, &key, &key);
		mem_fail_at(n, 1);
		run(&w, 30 * SEC);
		mem_fail_at(UINT64_MAX, 0);
		assert_true(dialer_is_up(&w.dialer));
		world_close(&w);
	}
	assert_int_equal(mem_live(), live);
}

/* An acceptor that answers before it was asked, with a proof for the nonce of zeros that it got from somebody else. */
static struct link early;

static int early_frame(struct link *l, const struct frame *f, const void *body, void **ret_data)
{
	(void)l;
	(void)f;
	(void)body;
	(void)ret_data;
	return 0;
}

static void early_down(struct link *l, int status)
{
	(void)l;
	(void)status;
}

static void early_accepted(struct listener *l, struct ioe_sock *sock)
{
	static const struct link_ops ops = {.frame = early_frame, .down = early_down};
	struct server *v = container_of(l, struct server, l);
	struct link_config cfg = {.ioe = v->e, .ops = &ops, .body_max = 64};
	struct frame f = {.type = FRAME_AUTH_ANSWER,
			  .body_bytes = AUTH_NONCE_BYTES + AUTH_PROOF_BYTES};
	uint8_t zeros[AUTH_NONCE_BYTES] = {0};
	struct link_copy *copy = link_copy_new(f.body_bytes);

	if (v->sessions_n++) {
		mem_free(copy);
		ioe_sock_close(v->e, sock);
		return;
	}
	memset(copy->body, 5, AUTH_NONCE_BYTES);
	assert_int_equal(auth_proof(&key, AUTH_ACCEPTOR, zeros, copy->body,
				    copy->body + AUTH_NONCE_BYTES),
			 0);
	assert_int_equal(link_open(&early, &cfg, sock), 0);
	link_copy_send(&early, copy, &f);
}

static void an_answer_before_the_challenge_is_none(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct world w;

		world_open(&w, seed, &key, &key);
		w.server.l.accepted = early_accepted;
		run(&w, SEC / 2);
		assert_int_equal(w.ups, 0);
		sim_kill(w.server.e); /* and its raw link with it */
		mem_free(early.buf);
		w.server.listening = false;
		world_close(&w);
	}
}

/* Pings are answered, but not each with memory of its own. */
static void a_flood_of_pings_takes_no_memory(void **state)
{
	struct world w;

	(void)state;
	world_open(&w, 10, NULL, NULL);
	run(&w, SEC);
	link_pause(&w.dialer.conn.link);
	for (int i = 0; i < 40; i++) {
		for (int k = 0; k < 1000; k++) {
			struct link_copy *copy = link_copy_new(0);

			assert_int_equal(link_copy_send(&w.dialer.conn.link, copy,
							&(struct frame){.type = FRAME_PING}),
					 0);
		}
		run(&w, SEC / 10);
		assert_true(w.server.sessions[0].conn.link.queued_bytes <= 64);
	}
	assert_true(dialer_is_up(&w.dialer));
	link_resume(&w.dialer.conn.link);
	run(&w, 30 * SEC);
	assert_int_equal(w.ups, 1);
	world_close(&w);
}

/* A machine that is off keeps nobody from trying the next address. */
static void who_says_nothing_is_given_up(void **state)
{
	static const char *const addrs[] = {"10.0.0.3:7", "10.0.0.2:7"};
	struct dialer_config d = {.ops = &client_ops,
				  .addrs = addrs,
				  .addrs_n = 2,
				  .body_max = BODY_MAX,
				  .data_max = DATA_MAX};
	struct sim_machine *off;
	struct ioe_sock *sock;
	struct world w;

	(void)state;
	memset(&w, 0, sizeof(w));
	sim_fixture_init(&w.fx, 11);
	w.m2 = sim_machine_new(w.fx.w, "m2");
	off = sim_machine_new(w.fx.w, "off");
	assert_int_equal(ioe_listen(sim_process_new(off, "gone", NULL, NULL), addrs[0], &sock, NULL),
			 0);
	sim_power_loss(off);
	server_start(&w);
	d.ioe = w.fx.e;
	assert_int_equal(dialer_open(&w.dialer, &d), 0);
	run(&w, 4 * SEC);
	assert_int_equal(w.ups, 0);
	run(&w, 2 * SEC);
	assert_int_equal(w.ups, 1);
	/* and the other way: while it waits for the one that is off, it can be closed at once */
	server_kill(&w);
	run(&w, 2 * SEC);
	assert_false(dialer_is_up(&w.dialer));
	dialer_close(&w.dialer, set_flag, &w.closed);
	run(&w, SEC);
	assert_true(w.closed);
	world_close(&w);
}

static bool listener_was_closed;

static void close_listener(struct listener *l, struct ioe_sock *sock)
{
	ioe_sock_close(l->ioe, sock);
	listener_close(l, set_flag, &listener_was_closed);
}

static void a_listener_may_close_itself(void **state)
{
	struct world w;

	(void)state;
	listener_was_closed = false;
	world_open(&w, 12, NULL, NULL);
	w.server.l.accepted = close_listener;
	sim_run_until(w.fx.w, &listener_was_closed);
	w.server.listening = false;
	ioe_free(w.server.e);
	world_close(&w);
}

/* Closed by the `sent` of a frame that the breaking link drops: nothing but the end of the close is told after that. */
static void closed_while_it_breaks(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 10; seed++) {
		struct world w;
		struct call c[2];

		world_open(&w, seed, NULL, NULL);
		run(&w, SEC);
		call_begin(&w, &c[0], ECHO, 1000, DATA_MAX); /* on its way */
		run(&w, 100000);
		call_begin(&w, &c[1], ECHO, 1000, 0); /* still queued */
		c[1].closes = &w;
		conn_break(&w.dialer.conn, -ECONNRESET);
		run(&w, SEC);
		assert_true(w.closed);
		assert_int_equal(w.downs, 0);
		call_free(&c[0]);
		call_free(&c[1]);
		world_close(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(frames_of_every_size_arrive_whole),
	    cmocka_unit_test(both_hold_the_key),
	    cmocka_unit_test(a_wrong_key_gets_nowhere),
	    cmocka_unit_test(who_proves_nothing_is_cut_off),
	    cmocka_unit_test(a_lost_server_is_found_again),
	    cmocka_unit_test(silence_breaks_the_connection_on_both_sides),
	    cmocka_unit_test(a_pause_is_not_silence),
	    cmocka_unit_test(what_breaks_the_protocol_ends_that_connection_only),
	    cmocka_unit_test(too_much_queued_cuts_the_peer_off),
	    cmocka_unit_test(noise_is_survived),
	    cmocka_unit_test(closing_at_any_moment),
	    cmocka_unit_test(wrong_headers_end_the_connection),
	    cmocka_unit_test(who_proves_the_wrong_thing_is_refused),
	    cmocka_unit_test(a_late_resume_is_harmless),
	    cmocka_unit_test(memory_is_short_while_joining),
	    cmocka_unit_test(an_answer_before_the_challenge_is_none),
	    cmocka_unit_test(a_flood_of_pings_takes_no_memory),
	    cmocka_unit_test(who_says_nothing_is_given_up),
	    cmocka_unit_test(a_listener_may_close_itself),
	    cmocka_unit_test(closed_while_it_breaks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
