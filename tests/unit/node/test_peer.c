/* SPDX-License-Identifier: Apache-2.0 */
/* Chunk requests between two simulated nodes, over links that stall, break and come back: each request is answered once, data arrives as it was sent,
 * and nothing that an earlier link brought is still in the device when a later one is served. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "io-path/node/peer.h"
#include "io-path/node/peer_server.h"
#include "src/base/crc.h"
#include "src/base/math.h"
#include "src/base/mem.h"
#include "src/ioe/ioe_sim.h"
#include "src/wire/chunk_msg.h"

enum { BLOCKS = 64, REQS = 48, RUN_MAX = 8, DEV = 7, SERVER_NODE = 2, CLIENT_NODE = 1 };
#define MS  1000000ULL
#define SEC 1000000000ULL

struct fixture;

/* ---- a device that takes its time ------------------------------------------------------------------------------------------- */

struct pending {
	struct ioe_req timer;
	struct fixture *f;
	struct chunk_req *req;
};

struct fixture {
	struct sim_world *w;
	struct sim_machine *ma, *mb;
	struct ioe *ea, *eb;
	struct peers *peers;
	struct peer_server *server;
	struct chunk_store store;
	uint8_t *disk; /* BLOCKS blocks */
	uint8_t present[BLOCKS];
	uint32_t in_device[BLOCKS];
	uint64_t slowest_ns;
	int fail_next;
	struct list held; /* requests that wait for the device */
	bool hold;
	unsigned overlaps, executed;
	/* the client's requests */
	struct client_req {
		struct chunk_req req;
		struct fixture *f;
		bool busy;
		uint32_t crcs[RUN_MAX];
		uint8_t states[RUN_MAX];
		uint8_t *buf;
	} reqs[REQS];
	bool locked[BLOCKS];
	uint8_t *model;
	uint8_t model_present[BLOCKS];
	unsigned answered, errors, wrong;
	bool closed;
};

static void execute(struct ioe_req *t)
{
	struct pending *p = container_of(t, struct pending, timer);
	struct fixture *f = p->f;
	struct chunk_req *r = p->req;
	uint32_t i;

	r->status = 0;
	r->incarnation = 3;
	r->present_n = 1;
	for (i = 0; i < r->blocks_n; i++) {
		uint32_t b = r->block + i;
		uint8_t *at = f->disk + (size_t)b * BLOCK_BYTES,
			*buf = r->buf ? (uint8_t *)r->buf + (size_t)i * BLOCK_BYTES : NULL;

		f->in_device[b]--;
		if (r->op == CHUNK_WRITE) {
			memcpy(at, buf, BLOCK_BYTES);
			f->present[b] = BLOCK_DATA;
		} else if (r->op == CHUNK_CLEAR) {
			memset(at, 0, BLOCK_BYTES);
			f->present[b] = BLOCK_HOLE;
		} else if (r->op == CHUNK_READ) {
			memcpy(buf, at, BLOCK_BYTES);
			r->crcs[i] = f->present[b] == BLOCK_DATA ? crc32c(at, BLOCK_BYTES) : 0;
		}
		if (r->states)
			r->states[i] = f->present[b];
	}
	if (f->fail_next) {
		r->status = f->fail_next;
		f->fail_next = 0;
	}
	f->executed++;
	mem_free(p);
	r->done(r);
}

static void store_submit(struct chunk_store *s, struct chunk_req *r)
{
	struct fixture *f = container_of(s, struct fixture, store);
	struct pending *p;

	if (f->hold) {
		list_push(&f->held, &r->link);
		return;
	}
	p = mem_zalloc(sizeof(*p));
	p->f = f;
	p->req = r;
	for (uint32_t i = 0; i < r->blocks_n; i++)
		if (f->in_device[r->block + i]++)
			f->overlaps++;
	ioe_timer(f->eb, &p->timer, ioe_now_ns(f->eb) + sim_rand(f->w) % f->slowest_ns, execute);
}

static bool take_back(void *arg, struct chunk_req *r)
{
	struct fixture *f = arg;

	list_for_each (l, &f->held) {
		if (list_entry(l, struct chunk_req, link) != r)
			continue;
		list_del(l);
		return true;
	}
	return false;
}

/* The device is there: what waited for it goes on. */
static void release(struct fixture *f)
{
	struct list *l;

	f->hold = false;
	while ((l = list_pop(&f->held)))
		store_submit(&f->store, list_entry(l, struct chunk_req, link));
}

static bool device_info_of(void *arg, uint32_t nth, struct peer_server_device *d)
{
	(void)arg;
	*d = (struct peer_server_device){.number = DEV,
					 .incarnation = 3,
					 .lsn = 9,
					 .is_stable = true};
	return nth == 0;
}

static bool is_ours(void *arg, device_no dev)
{
	(void)arg;
	return dev == DEV;
}

static const struct uuid cluster = {{1, 2, 3}};

static void server_start_as(struct fixture *f, struct uuid its_cluster, const char *addr,
			    node_no node)
{
	struct peer_server_config cfg = {.ioe = f->eb,
					 .start = ioe_uuid(f->eb),
					 .local = &f->store,
					 .ours = is_ours,
					 .device = device_info_of,
					 .take_back = take_back,
					 .arg = f};
	struct auth_key key = {.bytes = "0123456789abcdef0123", .len = 20};
	static struct auth_key kept;
	char errmsg[ERRMSG_LEN];

	kept = key;
	cfg.key = &kept;
	assert_int_equal(peer_server_new(&cfg, &f->server), 0);
	peer_server_identify(f->server, &its_cluster, node);
	assert_int_equal(peer_server_listen(f->server, addr, errmsg), 0);
}

static void server_start_at(struct fixture *f, struct uuid its_cluster, const char *addr)
{
	server_start_as(f, its_cluster, addr, SERVER_NODE);
}

static void server_start(struct fixture *f, struct uuid its_cluster)
{
	server_start_at(f, its_cluster, "10.0.0.2:7000");
}

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

static void server_stop(struct fixture *f)
{
	bool done = false;

	peer_server_close(f->server, set_flag, &done);
	while (!done)
		assert_true(sim_step(f->w));
}

static struct fixture *setup(uint64_t seed, uint64_t wait_ns)
{
	static struct auth_key key = {.bytes = "0123456789abcdef0123", .len = 20};
	struct fixture *f = calloc(1, sizeof(*f));
	struct sim_config sc = {.seed = seed, .recv_split_percent = 30};
	struct peers_config cfg;
	const char *addr = "10.0.0.2:7000";

	f->w = sim_world_new(&sc);
	f->ma = sim_machine_new(f->w, "a");
	f->mb = sim_machine_new(f->w, "b");
	f->ea = sim_process_new(f->ma, "owner", NULL, NULL);
	f->eb = sim_process_new(f->mb, "device", NULL, NULL);
	f->disk = calloc(BLOCKS, BLOCK_BYTES);
	f->model = calloc(BLOCKS, BLOCK_BYTES);
	f->slowest_ns = 20 * MS;
	f->store.submit = store_submit;
	list_init(&f->held);
	server_start(f, cluster);
	cfg = (struct peers_config){.ioe = f->ea,
				    .cluster = cluster,
				    .start = ioe_uuid(f->ea),
				    .node = CLIENT_NODE,
				    .key = &key,
				    .wait_ns = wait_ns};
	assert_int_equal(peers_new(&cfg, &f->peers), 0);
	assert_int_equal(peers_set(f->peers, SERVER_NODE, &addr, 1), 0);
	for (int i = 0; i < REQS; i++) {
		f->reqs[i].f = f;
		f->reqs[i].buf = mem_alloc_aligned(BLOCK_BYTES, RUN_MAX * BLOCK_BYTES);
	}
	return f;
}

static void teardown(struct fixture *f)
{
	bool done = false;

	peers_close(f->peers, set_flag, &done);
	while (!done)
		assert_true(sim_step(f->w));
	server_stop(f);
	for (int i = 0; i < REQS; i++)
		mem_free(f->reqs[i].buf);
	ioe_free(f->ea);
	ioe_free(f->eb);
	sim_world_free(f->w);
	free(f->disk);
	free(f->model);
	free(f);
}

/* ---- a client that knows what it should get ------------------------------------------------------------------------------------ */

static void client_done(struct chunk_req *r)
{
	struct client_req *c = container_of(r, struct client_req, req);
	struct fixture *f = c->f;

	f->answered++;
	c->busy = false;
	if (r->status)
		f->errors++;
	for (uint32_t i = 0; i < r->blocks_n; i++) {
		uint32_t b = r->block + i;
		uint8_t *buf = c->buf + (size_t)i * BLOCK_BYTES,
			*model = f->model + (size_t)b * BLOCK_BYTES;

		f->locked[b] = false;
		if (r->status)
			continue;
		if (r->op == CHUNK_WRITE) {
			memcpy(model, buf, BLOCK_BYTES);
			f->model_present[b] = BLOCK_DATA;
		} else if (r->op == CHUNK_CLEAR) {
			memset(model, 0, BLOCK_BYTES);
			f->model_present[b] = BLOCK_HOLE;
		} else if (r->op == CHUNK_READ && memcmp(buf, model, BLOCK_BYTES)) {
			f->wrong++;
		}
		if (r->states && r->states[i] != f->model_present[b])
			f->wrong++;
	}
}

static bool client_submit(struct fixture *f, struct client_req *c)
{
	static const enum chunk_op ops[] = {CHUNK_READ, CHUNK_WRITE, CHUNK_WRITE, CHUNK_CLEAR,
					    CHUNK_STATUS};
	struct chunk_req *r = &c->req;
	uint32_t first = (uint32_t)(sim_rand(f->w) % BLOCKS),
		 n = (uint32_t)(1 + sim_rand(f->w) % RUN_MAX);

	n = MIN(n, BLOCKS - first);
	for (uint32_t i = 0; i < n; i++)
		if (f->locked[first + i])
			return false;
	*r = (struct chunk_req){.op = ops[sim_rand(f->w) % ARRAY_LEN(ops)],
				.dev = DEV,
				.volume = 5,
				.slot = 11,
				.cgen = 1ULL << 40,
				.epoch = 2,
				.layer = 6,
				.chunk = 77,
				.block = first,
				.blocks_n = n,
				.done = client_done,
				.crcs = c->crcs,
				.states = c->states};
	if (r->op == CHUNK_WRITE || r->op == CHUNK_READ)
		r->buf = c->buf;
	if (r->op == CHUNK_WRITE || r->op == CHUNK_CLEAR)
		r->states = NULL;
	for (uint32_t i = 0; r->op == CHUNK_WRITE && i < n; i++) {
		uint8_t *block = c->buf + (size_t)i * BLOCK_BYTES;

		for (uint32_t k = 0; k < BLOCK_BYTES; k += 8)
			memcpy(block + k, &(uint64_t){sim_rand(f->w)}, 8);
		c->crcs[i] = crc32c(block, BLOCK_BYTES);
	}
	for (uint32_t i = 0; i < n; i++)
		f->locked[first + i] = true;
	c->busy = true;
	peers_submit(f->peers, SERVER_NODE, r);
	return true;
}

static void keep_busy(struct fixture *f, unsigned requests)
{
	unsigned until = f->answered + requests;

	while (f->answered < until) {
		for (int i = 0; i < REQS; i++)
			if (!f->reqs[i].busy)
				client_submit(f, &f->reqs[i]);
		assert_true(sim_step(f->w));
	}
}

static void drain(struct fixture *f)
{
	for (int i = 0; i < REQS; i++)
		while (f->reqs[i].busy)
			assert_true(sim_step(f->w));
}

static void run_for(struct fixture *f, uint64_t ns)
{
	sim_run(f->w, sim_now_ns(f->w) + ns);
}

static void expect_clean(struct fixture *f)
{
	assert_int_equal(f->errors, 0);
	assert_int_equal(f->wrong, 0);
	assert_int_equal(f->overlaps, 0);
	assert_memory_equal(f->disk, f->model, BLOCKS * BLOCK_BYTES);
}

static void test_requests_arrive(void **state)
{
	struct fixture *f = setup(1, 0);

	(void)state;
	keep_busy(f, 5000);
	drain(f);
	expect_clean(f);
	assert_true(peers_is_stable(f->peers, SERVER_NODE, DEV));
	assert_false(peers_is_stable(f->peers, SERVER_NODE, DEV + 1));
	teardown(f);
}

static void test_errors_travel(void **state)
{
	struct fixture *f = setup(2, 0);

	(void)state;
	while (!client_submit(f, &f->reqs[0]))
		;
	drain(f);
	f->reqs[0].req.dev = DEV + 1;
	f->reqs[0].busy = true;
	peers_submit(f->peers, SERVER_NODE, &f->reqs[0].req);
	drain(f);
	assert_int_equal(f->reqs[0].req.status, -E_DEVICE_GONE);
	f->fail_next = -E_STALE_CGEN;
	while (!client_submit(f, &f->reqs[0]))
		;
	drain(f);
	assert_int_equal(f->reqs[0].req.status, -E_STALE_CGEN);
	teardown(f);
}

/* Stalls longer than the keepalive: both sides break the link; what was unanswered is sent again, and never meets its older self. */
static void test_links_that_stall(void **state)
{
	(void)state;
	for (uint64_t seed = 10; seed < 22; seed++) {
		struct fixture *f =
		    setup(seed, 3600 * SEC); /* a request given up may still be executed */

		f->slowest_ns = seed % 2 ? 40 * SEC : 30 * MS;
		for (int round = 0; round < 4; round++) {
			keep_busy(f, 20);
			sim_net_cut(f->w, f->ma, f->mb, true);
			run_for(f, sim_rand(f->w) % (40 * SEC));
			sim_net_cut(f->w, f->ma, f->mb, false);
		}
		drain(f);
		expect_clean(f);
		teardown(f);
	}
}

static void test_server_restarts(void **state)
{
	struct peer_stats st;

	(void)state;
	for (uint64_t seed = 30; seed < 40; seed++) {
		struct fixture *f = setup(seed, 0);

		for (int round = 0; round < 6; round++) {
			keep_busy(f, 30);
			server_stop(f);
			run_for(f, sim_rand(f->w) % (3 * SEC));
			server_start(f, cluster);
		}
		drain(f);
		expect_clean(f);
		assert_int_equal(peers_stats_next(f->peers, 0, &st), 0);
		assert_true(st.links >= 6 && st.resent > 0);
		teardown(f);
	}
}

/* Requests that only wait for their device neither keep a new link of their sender from being served nor are executed besides what it sends again. */
static void test_waiting_ones_are_dropped(void **state)
{
	struct peer_stats before, after;

	(void)state;
	for (uint64_t seed = 80; seed < 84; seed++) {
		struct fixture *f = setup(seed, 0);

		keep_busy(f, 50);
		drain(f);
		f->hold = true;
		for (int i = 0; i < 10; i++)
			client_submit(f, &f->reqs[i]);
		run_for(f, SEC);
		assert_false(list_empty(&f->held));
		assert_int_equal(peers_stats_next(f->peers, 0, &before), 0);
		sim_net_cut(f->w, f->ma, f->mb, true);
		run_for(f, 30 * SEC);
		assert_true(list_empty(&f->held));
		sim_net_cut(f->w, f->ma, f->mb, false);
		run_for(f, 5 * SEC);
		assert_int_equal(peers_stats_next(f->peers, 0, &after), 0);
		assert_true(after.up && after.links == before.links + 1);
		release(f);
		drain(f);
		expect_clean(f);
		f->hold = true; /* and a server that ends does not wait for them either */
		for (int i = 0; i < 10; i++)
			client_submit(f, &f->reqs[i]);
		run_for(f, SEC);
		assert_false(list_empty(&f->held));
		server_stop(f);
		assert_true(list_empty(&f->held));
		server_start(f, cluster);
		release(f);
		drain(f);
		expect_clean(f);
		teardown(f);
	}
}

static void test_nobody_there(void **state)
{
	struct fixture *f = setup(50, 5 * SEC);
	uint64_t began;

	(void)state;
	server_stop(f);
	began = sim_now_ns(f->w);
	while (!client_submit(f, &f->reqs[0]))
		;
	drain(f);
	assert_int_equal(f->reqs[0].req.status, -E_DEVICE_GONE);
	assert_in_range(sim_now_ns(f->w) - began, 5 * SEC, 8 * SEC);
	while (!client_submit(f, &f->reqs[0]))
		;
	run_for(f, 100 * MS);
	assert_true(f->reqs[0].busy);
	peers_give_up(f->peers);
	drain(f);
	assert_int_equal(f->reqs[0].req.status, -E_DEVICE_GONE);
	server_start(f, cluster);
	teardown(f);
}

/* A device that does not finish an old request keeps the new link waiting, but not for ever those who want something. */
static void test_a_stuck_device(void **state)
{
	struct fixture *f = setup(65, 60 * SEC);
	uint64_t began;

	(void)state;
	f->slowest_ns = 4000 * SEC;
	while (!client_submit(f, &f->reqs[0]))
		;
	run_for(f, SEC);
	began = sim_now_ns(f->w);
	sim_net_cut(f->w, f->ma, f->mb, true);
	run_for(f, 40 * SEC);
	sim_net_cut(f->w, f->ma, f->mb, false);
	drain(f);
	assert_int_equal(f->reqs[0].req.status, -E_DEVICE_GONE);
	assert_in_range(sim_now_ns(f->w) - began, 50 * SEC, 70 * SEC);
	teardown(f);
}

/* An accept that fails would fail again at once, for as long as somebody knocks: it is tried again after a while. */
static void test_an_accept_that_fails(void **state)
{
	struct fixture *f = setup(70, 60 * SEC);
	uint64_t before;

	(void)state;
	while (!client_submit(f, &f->reqs[0]))
		;
	mem_fail_at(0, UINT64_MAX);
	before = sim_events(f->w);
	run_for(f, 2 * SEC);
	mem_fail_at(UINT64_MAX, 0);
	assert_in_range(sim_events(f->w) - before, 1, 2000);
	drain(f);
	expect_clean(f);
	teardown(f);
}

static void test_other_cluster_is_refused(void **state)
{
	struct fixture *f = setup(60, 3 * SEC);
	struct uuid other = {{9}};

	(void)state;
	server_stop(f);
	server_start(f, other);
	while (!client_submit(f, &f->reqs[0]))
		;
	drain(f);
	assert_int_equal(f->reqs[0].req.status, -E_DEVICE_GONE);
	assert_int_equal(f->executed, 0);
	teardown(f);
}

/* A node that comes back elsewhere is found there at once: whether its old address refuses, says nothing, or has a link that nobody has noticed is dead. */
static void test_a_node_that_moves(void **state)
{
	(void)state;
	for (int how = 0; how < 3; how++) {
		struct fixture *f = setup(90 + (uint64_t)how, 0);
		const char *old[] = {"10.0.0.2:7000", "10.0.0.2:7005"}, *moved = "10.0.0.3:7000";
		struct sim_machine *mc = sim_machine_new(f->w, "c");
		uint64_t began;
		struct peer_stats st;

		assert_int_equal(peers_set(f->peers, SERVER_NODE, old, 2), 0);
		keep_busy(f, 20);
		drain(f);
		if (how == 2)
			sim_net_cut(f->w, f->ma, f->mb, true);
		server_stop(f);
		if (how)
			sim_net_cut(f->w, f->ma, f->mb, true);
		for (int i = 0; i < 10; i++)
			client_submit(f, &f->reqs[i]);
		run_for(f, how == 2 ? 100 * MS : 8 * SEC);
		f->eb = sim_process_new(mc, "device", NULL, NULL);
		server_start_at(f, cluster, moved);
		began = sim_now_ns(f->w);
		assert_int_equal(peers_set(f->peers, SERVER_NODE, &moved, 1), 0);
		drain(f);
		assert_true(sim_now_ns(f->w) - began < SEC);
		expect_clean(f);
		/* told again what it knows already: nothing happens */
		assert_int_equal(peers_stats_next(f->peers, 0, &st), 0);
		assert_int_equal(peers_set(f->peers, SERVER_NODE, &moved, 1), 0);
		/* one address more, and the one in use stays */
		assert_int_equal(peers_set(f->peers, SERVER_NODE, (const char *[]){old[0], moved},
					   2),
				 0);
		keep_busy(f, 20);
		drain(f);
		assert_int_equal(peers_stats_next(f->peers, 0, &st), 0);
		assert_int_equal(st.links, 2);
		sim_net_cut(f->w, f->ma, f->mb, false);
		teardown(f);
	}
}

static bool is_at_3(void *arg, node_no node, const struct chunk_req *r)
{
	(void)arg;
	return node == SERVER_NODE + 1 || r->dev != DEV;
}

static void submit_to_3(void *arg, struct chunk_req *r)
{
	struct fixture *f = arg;

	peers_submit(f->peers, SERVER_NODE + 1, r);
}

/* The device has moved to another node: what waits for the old one, which is away, goes there. */
static void test_a_device_that_moves(void **state)
{
	struct fixture *f = setup(95, 3600 * SEC);
	const char *third = "10.0.0.3:7000";
	struct sim_machine *mc = sim_machine_new(f->w, "c");
	struct peer_stats st;
	uint64_t began;

	(void)state;
	keep_busy(f, 20);
	server_stop(f); /* with requests unanswered */
	for (int i = 0; i < REQS; i++)
		if (!f->reqs[i].busy)
			client_submit(f, &f->reqs[i]);
	run_for(f, 5 * SEC);
	assert_int_equal(peers_stats_next(f->peers, 0, &st), 0);
	assert_true(st.waiting > 3);
	f->eb = sim_process_new(mc, "device", NULL, NULL);
	server_start_as(f, cluster, third, SERVER_NODE + 1);
	assert_int_equal(peers_set(f->peers, SERVER_NODE + 1, &third, 1), 0);
	began = sim_now_ns(f->w);
	peers_reroute(f->peers, is_at_3, submit_to_3, f);
	assert_int_equal(peers_stats_next(f->peers, 0, &st), 0);
	assert_int_equal(st.waiting, 0);
	drain(f);
	assert_true(sim_now_ns(f->w) - began < SEC);
	expect_clean(f);
	teardown(f);
}

static void nothing_done(struct ioe_req *r)
{
	(void)r;
}

/* Whoever can connect, but has not the key, keeps no node out. */
static void test_the_silent_give_way(void **state)
{
	enum { CROWD = PEER_LINKS_MAX + 100 };
	struct fixture *f = setup(97, 0);
	struct ioe *crowd = sim_process_new(f->ma, "crowd", NULL, NULL);
	struct ioe_req *dials = calloc(CROWD, sizeof(*dials));
	struct peer_server_stats st;
	uint64_t began;

	(void)state;
	for (int i = 0; i < CROWD; i++)
		ioe_connect(crowd, &dials[i], "10.0.0.2:7000", nothing_done);
	run_for(f, 5 * SEC);
	peer_server_stats(f->server, &st);
	assert_int_equal(st.links, CROWD);
	assert_int_equal(st.refused, 0);
	began = sim_now_ns(f->w);
	keep_busy(f, 100);
	assert_true(sim_now_ns(f->w) - began < 2 * SEC);
	drain(f);
	expect_clean(f);
	ioe_free(crowd);
	free(dials);
	teardown(f);
}

static bool odd_has_data(uint8_t op)
{
	return op & 1;
}

/* Whatever the bytes are, the decoder says yes only to what is consistent. */
static void test_decode_random(void **state)
{
	uint8_t body[sizeof(struct chunk_msg_request) + 64];
	struct sim_world *w = sim_world_new(&(struct sim_config){.seed = 70});
	struct chunk_msg m;

	(void)state;
	for (int i = 0; i < 200000; i++) {
		uint32_t len = (uint32_t)(sim_rand(w) % sizeof(body)),
			 data = (uint32_t)(sim_rand(w) % 4) * BLOCK_BYTES;

		for (uint32_t k = 0; k < len; k++)
			body[k] = sim_rand(w) % 3 ? 0 : (uint8_t)sim_rand(w);
		if (!chunk_msg_decode(body, len, data, odd_has_data, &m)) {
			assert_true(m.block + m.blocks_n <= CHUNK_BLOCKS_MAX);
			assert_int_equal(data, (m.op & 1) ? m.blocks_n * BLOCK_BYTES : 0);
			assert_int_equal(len, sizeof(struct chunk_msg_request) +
						  ((m.op & 1) ? 4 * m.blocks_n : 0));
		}
	}
	sim_world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_requests_arrive),
	    cmocka_unit_test(test_errors_travel),
	    cmocka_unit_test(test_links_that_stall),
	    cmocka_unit_test(test_server_restarts),
	    cmocka_unit_test(test_waiting_ones_are_dropped),
	    cmocka_unit_test(test_nobody_there),
	    cmocka_unit_test(test_a_stuck_device),
	    cmocka_unit_test(test_an_accept_that_fails),
	    cmocka_unit_test(test_other_cluster_is_refused),
	    cmocka_unit_test(test_a_node_that_moves),
	    cmocka_unit_test(test_a_device_that_moves),
	    cmocka_unit_test(test_the_silent_give_way),
	    cmocka_unit_test(test_decode_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
