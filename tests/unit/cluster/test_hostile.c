/* SPDX-License-Identifier: Apache-2.0 */
/* Who holds the cluster's key and misbehaves all the same: the server gives errors or hangs up, and goes on serving the others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/mem.h"
#include "src/base/rand.h"
#include "tests/lib/cluster/cluster_world.h"

enum { MIB = 1 << 20 };

static struct cworld w;

/* A dialer that says what it likes. */
struct rogue {
	struct dialer d;
	struct ioe *e;
	int ups, answers;
	bool welcomed, closed;
	struct conn_call calls[64];
	uint32_t calls_n;
};

static void rogue_up(struct dialer *d)
{
	struct rogue *r = container_of(d, struct rogue, d);

	r->ups++;
	r->calls_n = 0;
	r->welcomed = false;
}

static int rogue_request(struct dialer *d, const struct frame *f, const void *body, void **ret_data)
{
	(void)d;
	(void)f;
	(void)body;
	(void)ret_data;
	return 0; /* never answers */
}

static void rogue_down(struct dialer *d, int status)
{
	(void)d;
	(void)status;
}

static const struct dialer_ops rogue_ops = {.up = rogue_up,
					    .request = rogue_request,
					    .down = rogue_down};

static void rogue_open(struct rogue *r, int machine)
{
	static const char *const addrs[] = {"10.0.0.1:7000"};
	static const struct auth_key key = {.bytes = "a key of the cluster", .len = 20};
	struct dialer_config cfg = {.ops = &rogue_ops,
				    .addrs = addrs,
				    .addrs_n = 1,
				    .key = &key,
				    .body_max = FRAME_BODY_MAX};

	memset(r, 0, sizeof(*r));
	r->e = sim_process_new(w.nodes[machine].m, "rogue", NULL, NULL);
	cfg.ioe = r->e;
	assert_int_equal(dialer_open(&r->d, &cfg), 0);
	cworld_until(&w, r->ups == 1);
}

static void set(void *arg)
{
	*(bool *)arg = true;
}

static void rogue_close(struct rogue *r)
{
	dialer_close(&r->d, set, &r->closed);
	cworld_until(&w, r->closed);
	ioe_free(r->e);
}

static int rogue_reply(struct conn_call *call, int status, const struct frame *f, const void *body,
		       void **ret_data)
{
	(void)call;
	(void)status;
	(void)f;
	(void)body;
	(void)ret_data;
	return 0;
}

/* Sends raw bytes as the body of a request. */
static void rogue_say(struct rogue *r, uint16_t type, const void *body, size_t n)
{
	struct conn *c = &r->d.conn;
	struct link_copy *copy;
	struct frame f = {.type = type, .body_bytes = (uint32_t)n};

	if (!dialer_is_up(&r->d) || r->calls_n == ARRAY_LEN(r->calls))
		return;
	f.id = conn_call_begin(c, &r->calls[r->calls_n++], rogue_reply);
	copy = link_copy_new(n);
	memcpy(copy->body, body, n);
	link_copy_send(&c->link, copy, &f);
}

static void rogue_message(struct rogue *r, uint16_t type, const ProtobufCMessage *m)
{
	uint8_t buf[4096];
	size_t n = protobuf_c_message_get_packed_size(m);

	assert_true(n <= sizeof(buf));
	protobuf_c_message_pack(m, buf);
	rogue_say(r, type, buf, n);
}

static void rogue_hello(struct rogue *r, const char *name, uint8_t id, uint64_t commit)
{
	struct uuid node = {{id}}, process = {{id, 1}}, dev = {{id, 2}};
	Strata__Hello m = STRATA__HELLO__INIT;
	Strata__DeviceInfo d = STRATA__DEVICE_INFO__INIT, *list[] = {&d};

	node.b[5] = process.b[5] = dev.b[5] = 1;
	m.version = "x";
	m.name = (char *)(uintptr_t)name;
	m.node = control_uuid(&node);
	m.process = control_uuid(&process);
	d.uuid = control_uuid(&dev);
	d.path = "/nowhere";
	d.chunk_shift = CHUNK_SHIFT_FLASH;
	d.slots = 10;
	d.commit = commit;
	m.devices = list;
	m.n_devices = 1;
	rogue_message(r, CONTROL_HELLO, &m.base);
}

static void begin(void)
{
	cworld_init(&w, 1);
	cworld_metad_start(&w);
	cworld_node_start(&w, 1);
	cworld_device_add(&w, 1, 1);
	cworld_volume_create(&w, "vm1", 64 * MIB);
}

static void expect_service(void)
{
	struct cworld_call *v = cworld_call_new(), *a = cworld_call_new();

	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 5, a), 0);
	for (int i = 0; i < 5; i++)
		assert_int_equal(a->items[i].entry.replicas[0].dev, 1);
	mem_free(v);
	mem_free(a);
}

static void who_does_not_say_hello_first_is_cut_off(void **state)
{
	struct rogue r;
	Strata__Names m = STRATA__NAMES__INIT;

	(void)state;
	begin();
	rogue_open(&r, 2);
	m.max = 10;
	rogue_message(&r, CONTROL_NAMES, &m.base);
	cworld_until(&w, r.ups == 2);
	rogue_hello(&r, "rogue", 9, 0);
	cworld_run(&w, SEC);
	rogue_hello(&r, "rogue", 9, 0); /* twice */
	cworld_until(&w, r.ups == 3);
	expect_service();
	rogue_close(&r);
	cworld_free(&w);
}

/* It says hello with a device and then never answers: its device is never used, and openers of volumes wait only until it is cut off. */
static void who_never_answers_holds_nobody_up_for_ever(void **state)
{
	struct rogue r;
	json_t *answer;

	(void)state;
	begin();
	rogue_open(&r, 2);
	rogue_hello(&r, "rogue", 9, 0);
	cworld_run(&w, SEC);
	expect_service();
	assert_int_equal(cworld_admin(&w, ADMIN_DEVICE_SHOW, "2", NULL, &answer), 200);
	assert_string_equal(cworld_text(answer, "state"), "away");
	json_decref(answer);
	assert_int_equal(cworld_admin(&w, ADMIN_METRICS, NULL, NULL, NULL), 200);
	cworld_run(&w, 50 * SEC);
	assert_int_equal(r.ups, 2); /* cut off */
	rogue_close(&r);
	cworld_free(&w);
}

static void a_name_is_one_nodes_only(void **state)
{
	struct rogue r;

	(void)state;
	begin();
	rogue_open(&r, 2);
	rogue_hello(&r, "node-1", 9, 0);
	cworld_run(&w, SEC);
	assert_int_equal(w.metad->cluster.nodes_n, 1);
	expect_service();
	rogue_close(&r);
	cworld_free(&w);
}

/* A lie about commits stops the server, as it must: it cannot tell it from the truth. */
static void a_device_from_the_future_stops_the_server(void **state)
{
	struct rogue r;

	(void)state;
	begin();
	rogue_open(&r, 2);
	rogue_hello(&r, "rogue", 9, 1ULL << 60);
	cworld_run(&w, SEC);
	assert_int_equal(w.metad->cluster.state, CLUSTER_REFUSING);
	rogue_close(&r);
	cworld_free(&w);
}

static void random_requests_do_no_harm(void **state)
{
	static const uint16_t types[] = {CONTROL_DEVICE_REPORT, CONTROL_HAPPENED,
					 CONTROL_VOLUME_OPEN,	CONTROL_VOLUME_CLOSE,
					 CONTROL_MAP,		CONTROL_ALLOC,
					 CONTROL_UPDATE,	CONTROL_NAMES,
					 CONTROL_RECORDS,	77};
	struct rogue r;
	struct rand rng;

	(void)state;
	begin();
	rand_seed(&rng, 5);
	rogue_open(&r, 2);
	for (int i = 0; i < 3000; i++) {
		uint8_t body[64];
		size_t n = 0;

		if (dialer_is_up(&r.d) && !r.welcomed) {
			rogue_hello(&r, "rogue", 9, 0);
			r.welcomed = true;
			cworld_run(&w, SEC / 100);
		}
		/* fields with small numbers: now and then it is a message, with values that mean something */
		for (uint64_t k = rand_below(&rng, 6); k > 0; k--) {
			body[n++] = (uint8_t)(rand_between(&rng, 1, 6) << 3);
			body[n++] = (uint8_t)rand_below(&rng, 4);
		}
		if (rand_percent(&rng, 20))
			rand_fill(&rng, body, n = rand_below(&rng, sizeof(body)));
		rogue_say(&r, types[rand_below(&rng, ARRAY_LEN(types))], body, n);
		cworld_run(&w, SEC / 200);
	}
	assert_true(r.ups > 10);
	expect_service();
	rogue_close(&r);
	cworld_run(&w, SEC);
	w.killed = true; /* what it had open is not given back by itself */
	cworld_free(&w);
}

/* The other way round: a server that pushes nonsense. The node hangs up and tries again. */
static void a_node_survives_a_mad_server(void **state)
{
	struct rand rng;

	(void)state;
	begin();
	rand_seed(&rng, 6);
	for (int i = 0; i < 300; i++) {
		struct session *s;
		struct link_copy *copy;
		struct frame f = {.id = 1000000 + (uint64_t)i};

		cworld_until(&w, (s = w.metad->cluster.nodes.next == &w.metad->cluster.nodes
					  ? NULL
					  : list_first(&w.metad->cluster.nodes, struct cluster_node,
						       link)
						->session) != NULL);
		f.type = (uint16_t)(rand_percent(&rng, 80) ? rand_between(&rng, 64, 73)
							   : rand_between(&rng, 0, 300));
		f.body_bytes = (uint32_t)rand_below(&rng, 40);
		f.flags = rand_percent(&rng, 10) ? FRAME_F_REPLY : 0;
		copy = link_copy_new(f.body_bytes);
		for (uint32_t k = 0; k < f.body_bytes; k++)
			copy->body[k] =
			    (uint8_t)(k % 2 ? rand_below(&rng, 4) : rand_between(&rng, 1, 4) << 3);
		link_copy_send(&s->conn.link, copy, &f);
		cworld_run(&w, SEC / 50);
	}
	cworld_run(&w, 5 * SEC);
	expect_service();
	cworld_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(who_does_not_say_hello_first_is_cut_off),
	    cmocka_unit_test(who_never_answers_holds_nobody_up_for_ever),
	    cmocka_unit_test(a_name_is_one_nodes_only),
	    cmocka_unit_test(a_device_from_the_future_stops_the_server),
	    cmocka_unit_test(random_requests_do_no_harm),
	    cmocka_unit_test(a_node_survives_a_mad_server),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
