/* SPDX-License-Identifier: Apache-2.0 */
/* Limits and ends: back-pressure, clients that do not read, clients that vanish at any point, a server that closes at any point. The
 * fixture checks at the end of each test that no connection, no handle and no memory is left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/log.h"
#include "src/base/mem.h"
#include "tests/lib/nbd/nbd_peer.h"

enum { KIB = 1 << 10, MIB = 1 << 20, SIZE = 64 * MIB };
#ifdef STRATA_ASAN
enum { MOMENTS_STEP = 4 }; /* a quarter of the moments: each connection is slow under a sanitizer */
#else
enum { MOMENTS_STEP = 1 };
#endif

struct fx {
	struct nbd_fixture f;
	struct nbd_peer p;
	struct mock_volume *v;
	struct mock_rules *rules;
};
static struct fx fx;
/* for what connects thousands of times: pools of 36 MiB are slow under a sanitizer */
static const struct nbd_limits small = {.pool_bytes = MIB + 8 * KIB};
static uint8_t data[8 * MIB];

static void start(uint64_t seed, const struct nbd_limits *limits)
{
	memset(&fx, 0, sizeof(fx));
	nbd_fixture_init(&fx.f, seed, limits);
	fx.v = mock_volume_add(fx.f.vs, "vol", SIZE);
	fx.rules = mock_rules(fx.f.vs);
}

static void stop(void)
{
	fx.rules->hold = false;
	mock_release_all(fx.f.vs);
	nbd_peer_close(&fx.p);
	nbd_fixture_free(&fx.f);
}

static void run_ms(uint64_t ms)
{
	nbd_fixture_run(&fx.f, ms * 1000000);
}

/* ---- back-pressure ---------------------------------------------------------------------------------------------------- */

static void requests_beyond_the_limit_wait(void **state)
{
	(void)state;
	start(1, &(struct nbd_limits){.requests = 7});
	nbd_peer_go(&fx.p, &fx.f, "vol", true);
	fx.rules->hold = true;
	for (uint64_t i = 0; i < 30; i++)
		nbd_peer_request(&fx.p, NBD_CMD_FLUSH, 0, i, 0, 0);
	run_ms(100);
	assert_int_equal(mock_held(fx.f.vs), 7);
	for (uint64_t i = 0; i < 30; i++) { /* each answer lets one more in, in order */
		mock_release(fx.f.vs, 0);
		assert_int_equal(nbd_peer_answer(&fx.p, 0).cookie, i);
		run_ms(100);
		assert_int_equal(mock_held(fx.f.vs), i + 7 < 30 ? 7 : 29 - i);
	}
	stop();
}

/* Also requests that are refused take a place until they are answered. */
static void nonsense_waits_too(void **state)
{
	(void)state;
	start(1, &(struct nbd_limits){.requests = 2});
	nbd_peer_go(&fx.p, &fx.f, "vol", true);
	nbd_peer_read(&fx.p, false);
	for (uint64_t i = 0; i < 50000; i++)
		nbd_peer_request(&fx.p, NBD_CMD_CACHE, 0, i, 0, 0);
	run_ms(1000);
	assert_true(fx.p.send_busy); /* stuck: its answers are not read */
	nbd_peer_read(&fx.p, true);
	for (uint64_t i = 0; i < 50000; i++) {
		struct nbd_peer_answer a = nbd_peer_answer(&fx.p, 0);

		assert_int_equal(a.cookie, i);
		assert_int_equal(a.error, NBD_EINVAL);
	}
	stop();
}

static void data_beyond_the_pool_waits(void **state)
{
	(void)state;
	start(1, &(struct nbd_limits){.pool_bytes = 2 * MIB + 8 * KIB});
	nbd_peer_go(&fx.p, &fx.f, "vol", true);
	fx.rules->hold = true;
	for (uint64_t i = 0; i < 10; i++) {
		nbd_peer_request(&fx.p, NBD_CMD_READ, 0, 2 * i, i * MIB, 512 * KIB);
		nbd_peer_write(&fx.p, 0, 2 * i + 1, i * MIB + 512, data, 512 * KIB);
	}
	run_ms(100);
	assert_int_equal(mock_held(fx.f.vs), 4); /* 128 + 129 + 128 + 129 of 514 pages */
	for (uint64_t i = 0; i < 20; i++) {
		assert_in_range(mock_held(fx.f.vs), 1, 4);
		mock_release(fx.f.vs, mock_held(fx.f.vs) - 1);
		assert_int_equal(nbd_peer_answer(&fx.p, 0).error, 0);
		run_ms(100);
	}
	/* the largest request is what the pool allows, and is told so */
	fx.rules->hold = false;
	assert_int_equal(nbd_peer_do_read(&fx.p, 0, 512, data, 2 * MIB), 0);
	assert_int_equal(nbd_peer_do(&fx.p, NBD_CMD_READ, 0, 0, 2 * MIB + 512), NBD_EINVAL);
	stop();
}

static void who_does_not_read_stops_only_itself(void **state)
{
	struct nbd_peer other;

	(void)state;
	start(1, NULL);
	nbd_peer_go(&fx.p, &fx.f, "vol", true);
	nbd_peer_go(&other, &fx.f, "vol", true);
	memset(fx.v->data, 1, SIZE);
	nbd_peer_read(&fx.p, false);
	for (uint64_t i = 0; i < 1000; i++)
		nbd_peer_request(&fx.p, NBD_CMD_READ, 0, i, 0, MIB);
	run_ms(1000);
	assert_in_range(fx.v->seen_n, 1, 128);
	for (int i = 0; i < 100; i++)
		assert_int_equal(nbd_peer_do_read(&other, 0, 0, data, 4096), 0);
	nbd_peer_close(&other);
	nbd_peer_read(&fx.p, true);
	for (uint64_t i = 0; i < 1000; i++)
		assert_int_equal(nbd_peer_answer(&fx.p, 0).len, MIB);
	stop();
}

/* A burst, a pause in which its memory goes back, and again; also while something is in flight. */
static void a_burst_leaves_no_memory_behind(void **state)
{
	(void)state;
	start(1, NULL);
	nbd_peer_go(&fx.p, &fx.f, "vol", true);
	for (int i = 0; i < 4; i++) {
		for (uint64_t k = 0; k < 8; k++)
			nbd_peer_write(&fx.p, 0, k, k * MIB, data, MIB);
		for (uint64_t k = 0; k < 8; k++)
			assert_int_equal(nbd_peer_answer(&fx.p, 0).error, 0);
		fx.rules->hold = i == 2;
		nbd_peer_request(&fx.p, NBD_CMD_READ, 0, 1, 0, 4096);
		run_ms(i == 1 ? 9000 : 25000);
		fx.rules->hold = false;
		mock_release_all(fx.f.vs);
		assert_int_equal(nbd_peer_answer(&fx.p, 0).error, 0);
	}
	stop();
}

static void connections_beyond_the_limit_are_closed(void **state)
{
	struct nbd_peer peers[3], extra;
	struct nbd_server_info info;

	(void)state;
	start(1, &(struct nbd_limits){.connections = 3});
	for (int i = 0; i < 3; i++)
		nbd_peer_go(&peers[i], &fx.f, "vol", true);
	for (int i = 0; i < 5; i++) {
		nbd_peer_connect(&extra, &fx.f);
		assert_true(nbd_peer_is_eof(&extra));
		nbd_peer_close(&extra);
	}
	nbd_server_info(fx.f.server, &info);
	assert_int_equal(info.refused, 5);
	assert_int_equal(info.connections, 3);
	nbd_peer_close(&peers[1]);
	run_ms(100);
	nbd_peer_go(&peers[1], &fx.f, "vol", true);
	for (int i = 0; i < 3; i++)
		nbd_peer_close(&peers[i]);
	stop();
}

/* Who connects and says nothing keeps nobody out, however often it comes; who is served stays, and so does who waits for us. */
static void the_silent_give_way(void **state)
{
	enum { LIMIT = 4, FLOOD = 100 };
	static struct nbd_peer silent[FLOOD];
	struct nbd_peer served;
	struct nbd_server_info info;

	(void)state;
	start(7, &(struct nbd_limits){.connections = LIMIT, .pool_bytes = small.pool_bytes});
	nbd_peer_go(&served, &fx.f, "vol", true);
	for (int i = 0; i < LIMIT; i++) { /* one more than fits: the first goes */
		nbd_peer_connect(&silent[i], &fx.f);
		run_ms(10);
		if (i == 1)
			nbd_peer_greet(&silent[i], NBD_FLAG_C_FIXED_NEWSTYLE);
	}
	assert_true(silent[0].eof);
	assert_false(silent[1].eof || silent[2].eof || silent[3].eof);
	nbd_server_info(fx.f.server, &info);
	assert_int_equal(info.gave_way, 1);
	assert_int_equal(info.connections, LIMIT);
	nbd_peer_go(&fx.p, &fx.f, "vol", true); /* a real client, and the next oldest goes */
	run_ms(10);
	assert_true(silent[1].eof);
	assert_false(silent[2].eof || silent[3].eof);
	for (int i = 0; i < LIMIT; i++)
		nbd_peer_close(&silent[i]);
	for (int i = 0; i < FLOOD; i++) {
		nbd_peer_connect_begin(&silent[i], fx.f.w, fx.f.client,
				       i & 1 ? NBD_FIXTURE_ADDR : NBD_FIXTURE_TCP);
		if (i % 10 == 0) {
			nbd_peer_close(&fx.p);
			nbd_peer_go(&fx.p, &fx.f, "vol", true);
		}
		assert_int_equal(nbd_peer_do_read(&served, 0, 0, data, 4096), 0);
		assert_int_equal(nbd_peer_do_read(&fx.p, 0, 0, data, 4096), 0);
	}
	run_ms(100);
	nbd_server_info(fx.f.server, &info);
	assert_int_equal(info.refused, 0);
	assert_int_equal(info.connections, LIMIT);
	assert_in_range(info.gave_way, FLOOD - LIMIT, FLOOD + 10);
	for (int i = 0; i < FLOOD; i++)
		nbd_peer_close(&silent[i]);
	nbd_peer_close(&served);
	stop();
}

static void who_waits_for_us_does_not_give_way(void **state)
{
	struct nbd_peer opening[2], extra;
	struct nbd_server_info info;
	uint8_t option[64];

	(void)state;
	start(8, &(struct nbd_limits){.connections = 2, .pool_bytes = small.pool_bytes});
	fx.rules->open_delay_ns = 5000000000;
	for (int i = 0; i < 2; i++) {
		nbd_peer_connect(&opening[i], &fx.f);
		nbd_peer_greet(&opening[i], NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
		nbd_peer_option(&opening[i], NBD_OPT_GO, option,
				nbd_peer_info_data(option, "vol", NULL, 0));
	}
	run_ms(100);
	nbd_peer_connect(&extra, &fx.f);
	assert_true(nbd_peer_is_eof(&extra));
	nbd_peer_close(&extra);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(nbd_peer_reply(&opening[i]).type, NBD_REP_INFO);
		assert_int_equal(nbd_peer_reply(&opening[i]).type, NBD_REP_ACK);
		assert_int_equal(nbd_peer_do_read(&opening[i], 0, 0, data, 4096), 0);
		nbd_peer_close(&opening[i]);
	}
	nbd_server_info(fx.f.server, &info);
	assert_int_equal(info.refused, 1);
	assert_int_equal(info.gave_way, 0);
	fx.rules->open_delay_ns = 0;
	stop();
}

/* ---- clients that go -------------------------------------------------------------------------------------------------- */

static void disc_lets_what_is_in_flight_finish(void **state)
{
	(void)state;
	start(1, NULL);
	nbd_peer_go(&fx.p, &fx.f, "vol", true);
	fx.rules->hold = true;
	nbd_peer_write(&fx.p, 0, 1, 0, data, 4096);
	nbd_peer_request(&fx.p, NBD_CMD_READ, 0, 2, 4096, 4096);
	nbd_peer_request(&fx.p, NBD_CMD_DISC, 0, 0, 0, 0);
	nbd_peer_request(&fx.p, NBD_CMD_READ, 0, 3, 4096, 4096); /* after it there is nothing */
	run_ms(100);
	assert_int_equal(mock_held(fx.f.vs), 2);
	assert_false(fx.p.eof);
	mock_release_all(fx.f.vs);
	assert_int_equal(nbd_peer_answer(&fx.p, 0).error, 0);
	assert_int_equal(nbd_peer_answer(&fx.p, 0).error, 0);
	assert_true(nbd_peer_is_eof(&fx.p));
	assert_int_equal(fx.p.in_at, fx.p.in_len);
	stop();
}

static void a_vanished_client_leaves_nothing(void **state)
{
	(void)state;
	start(1, NULL);
	nbd_peer_go(&fx.p, &fx.f, "vol", true);
	fx.rules->hold = true;
	for (uint64_t i = 0; i < 20; i++)
		nbd_peer_write(&fx.p, 0, i, i * 4096, data, 4096);
	nbd_peer_request(&fx.p, NBD_CMD_WRITE, 0, 99, 0, 8 * MIB); /* half a payload */
	nbd_peer_send(&fx.p, data, 4 * MIB);
	run_ms(100);
	nbd_peer_close(&fx.p);
	run_ms(100);
	assert_int_equal(mock_held(fx.f.vs), 20);
	assert_int_equal(fx.v->handles_n, 1); /* not closed before what is in flight is done */
	mock_release_all(fx.f.vs);
	run_ms(100);
	assert_int_equal(fx.v->handles_n, 0);
	assert_int_equal(nbd_fixture_conns(&fx.f), 0);
	assert_int_equal(fx.v->seen_n, 20);
	stop();
}

static size_t script(uint8_t *out)
{
	static const char *const queries[] = {"base:allocation", NULL};
	uint16_t infos[] = {NBD_INFO_BLOCK_SIZE};
	struct be32 flags = to_be32(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
	struct nbd_request_header h;
	uint8_t buf[256];
	size_t n = 0, len;

#define PUT(p, l) (memcpy(out + n, p, l), n += (l))
	PUT(&flags, sizeof(flags));
	for (int i = 0; i < 3; i++) {
		static const uint32_t options[] = {NBD_OPT_STRUCTURED_REPLY,
						   NBD_OPT_SET_META_CONTEXT, NBD_OPT_GO};
		struct nbd_option o;

		len = i == 0   ? 0
		      : i == 1 ? nbd_peer_meta_data(buf, "vol", queries)
			       : nbd_peer_info_data(buf, "vol", infos, 1);
		o = (struct nbd_option){to_be64(NBD_OPTION_MAGIC), to_be32(options[i]),
					to_be32((uint32_t)len)};
		PUT(&o, sizeof(o));
		PUT(buf, len);
	}
	for (uint64_t i = 0; i < 3; i++) {
		h = nbd_peer_header(NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, i, i * 512, 512);
		PUT(&h, sizeof(h));
		PUT(data, 512);
		h = nbd_peer_header(NBD_CMD_READ, 0, i, i * 4096, 4096);
		PUT(&h, sizeof(h));
		h = nbd_peer_header(NBD_CMD_BLOCK_STATUS, 0, i, 0, SIZE);
		PUT(&h, sizeof(h));
	}
	h = nbd_peer_header(NBD_CMD_DISC, 0, 0, 0, 0);
	PUT(&h, sizeof(h));
#undef PUT
	return n;
}

/* The client goes after each byte of its script, at once or when everything has settled, in good order or by reset. */
static void clients_that_go_after_each_byte(void **state)
{
	uint8_t bytes[4096];
	size_t len = script(bytes);

	(void)state;
	start(3, &small);
	fx.rules->delay_ns_max = 500000;
	fx.rules->open_delay_ns = 20000;
	/* each byte up to the first request, then some of each kind */
	for (size_t cut = 0; cut <= len; cut += cut < 200 || len - cut < 40 ? 1 : 13) {
		for (int how = (int)cut % MOMENTS_STEP; how < 4; how += MOMENTS_STEP) {
			nbd_peer_connect(&fx.p, &fx.f);
			nbd_peer_send(&fx.p, bytes, cut);
			if (how & 1)
				run_ms(sim_rand(fx.f.w) % 3);
			if (how & 2 && fx.p.sock)
				sim_net_reset(fx.f.client, fx.p.sock);
			nbd_peer_close(&fx.p);
		}
		if (cut % 5 == 0) {
			run_ms(10000);
			assert_int_equal(nbd_fixture_conns(&fx.f), 0);
			assert_int_equal(fx.v->handles_n, 0);
			assert_int_equal(mock_in_flight(fx.f.vs), 0);
		}
	}
	stop();
}

/* The connection breaks at a random moment of a busy life, in any state of things in flight. */
static void resets_at_random_moments(void **state)
{
	(void)state;
	start(4, &small);
	fx.rules->delay_ns_max = 300000;
	for (int i = 0; i < 100 / MOMENTS_STEP; i++) {
		nbd_peer_go(&fx.p, &fx.f, "vol", i & 1);
		for (uint64_t k = 0; k < 40; k++) {
			nbd_peer_write(&fx.p, 0, k, k * 64 * KIB, data, 16 * KIB);
			nbd_peer_request(&fx.p, NBD_CMD_READ, 0, k, k * 64 * KIB, 32 * KIB);
		}
		nbd_fixture_run(&fx.f, sim_rand(fx.f.w) % 5000000);
		if (!fx.p.broken)
			sim_net_reset(fx.f.client, fx.p.sock);
		nbd_peer_close(&fx.p);
	}
	run_ms(1000);
	assert_int_equal(nbd_fixture_conns(&fx.f), 0);
	stop();
}

static void requests_before_the_end_of_the_stream_take_effect(void **state)
{
	(void)state;
	start(5, NULL);
	nbd_peer_go(&fx.p, &fx.f, "vol", true);
	for (uint64_t i = 0; i < 10; i++)
		nbd_peer_write(&fx.p, 0, i, i * 4096, data, 4096);
	while (fx.p.send_busy || fx.p.out_len)
		sim_step(fx.f.w);
	nbd_peer_close(&fx.p);
	run_ms(1000);
	assert_int_equal(fx.v->seen_n, 10);
	assert_int_equal(nbd_fixture_conns(&fx.f), 0);
	stop();
}

/* ---- a server that closes --------------------------------------------------------------------------------------------- */

static void closing_answers_what_is_in_flight(void **state)
{
	(void)state;
	start(1, NULL);
	nbd_peer_go(&fx.p, &fx.f, "vol", true);
	fx.rules->hold = true;
	for (uint64_t i = 0; i < 10; i++)
		nbd_peer_write(&fx.p, 0, i, i * 4096, data, 4096);
	run_ms(100);
	nbd_fixture_close_begin(&fx.f);
	nbd_peer_write(&fx.p, 0, 77, 0, data, 4096); /* too late */
	run_ms(100);
	assert_false(fx.f.closed);
	assert_int_equal(mock_held(fx.f.vs), 10);
	mock_release_all(fx.f.vs);
	for (uint64_t i = 0; i < 10; i++) {
		struct nbd_peer_answer a = nbd_peer_answer(&fx.p, 0);

		assert_int_equal(a.error, 0);
		assert_int_equal(a.cookie, i);
	}
	assert_true(nbd_peer_is_eof(&fx.p));
	run_ms(100);
	assert_true(fx.f.closed);
	assert_int_equal(fx.v->seen_n, 10);
	stop();
}

static void closing_waits_for_a_slow_volume(void **state)
{
	(void)state;
	start(1, NULL);
	nbd_peer_go(&fx.p, &fx.f, "vol", true);
	fx.rules->hold = true;
	nbd_peer_request(&fx.p, NBD_CMD_FLUSH, 0, 1, 0, 0);
	run_ms(100);
	nbd_fixture_close_begin(&fx.f);
	run_ms(60000);
	assert_false(fx.f.closed);
	mock_release_all(fx.f.vs);
	assert_int_equal(nbd_peer_answer(&fx.p, 0).error, 0);
	assert_true(nbd_peer_is_eof(&fx.p));
	stop();
}

static void closing_does_not_wait_for_ever_for_a_reader(void **state)
{
	(void)state;
	start(1, NULL);
	nbd_peer_go(&fx.p, &fx.f, "vol", false);
	nbd_peer_read(&fx.p, false);
	for (uint64_t i = 0; i < 8; i++)
		nbd_peer_request(&fx.p, NBD_CMD_READ, 0, i, 0, 4 * MIB);
	run_ms(1000);
	nbd_fixture_close_begin(&fx.f);
	run_ms(4000);
	assert_false(fx.f.closed);
	run_ms(2000);
	assert_true(fx.f.closed);
	stop();
}

static void closing_an_idle_server(void **state)
{
	struct nbd_peer greeting;

	(void)state;
	start(1, NULL);
	nbd_peer_go(&fx.p, &fx.f, "vol", true);
	nbd_peer_connect(&greeting, &fx.f);
	run_ms(100);
	nbd_fixture_close_begin(&fx.f);
	assert_false(fx.f.closed); /* never inline */
	run_ms(100);
	assert_true(fx.f.closed);
	assert_true(nbd_peer_is_eof(&fx.p));
	assert_true(nbd_peer_is_eof(&greeting));
	nbd_peer_close(&greeting);
	stop();
	start(1, NULL);
	stop();
}

/* Closing at every moment of a script, with slow opens and slow requests. */
static void closing_at_every_moment(void **state)
{
	uint8_t bytes[4096];
	size_t len = script(bytes);

	(void)state;
	for (uint64_t seed = 1; seed <= 150; seed += MOMENTS_STEP) {
		struct nbd_peer other;

		start(seed, &small);
		fx.rules->delay_ns_max = 200000;
		fx.rules->open_delay_ns = seed & 1 ? 100000 : 0;
		nbd_peer_connect_begin(&fx.p, fx.f.w, fx.f.client, NBD_FIXTURE_ADDR);
		nbd_peer_connect_begin(&other, fx.f.w, fx.f.client, NBD_FIXTURE_TCP);
		nbd_peer_send(&fx.p, bytes, len);
		nbd_peer_send(&other, bytes, seed % len);
		for (uint64_t i = 0; i < seed; i++)
			sim_step(fx.f.w);
		nbd_fixture_close_begin(&fx.f);
		run_ms(10000);
		assert_true(fx.f.closed);
		nbd_peer_close(&other);
		stop();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(requests_beyond_the_limit_wait),
	    cmocka_unit_test(nonsense_waits_too),
	    cmocka_unit_test(data_beyond_the_pool_waits),
	    cmocka_unit_test(who_does_not_read_stops_only_itself),
	    cmocka_unit_test(a_burst_leaves_no_memory_behind),
	    cmocka_unit_test(connections_beyond_the_limit_are_closed),
	    cmocka_unit_test(the_silent_give_way),
	    cmocka_unit_test(who_waits_for_us_does_not_give_way),
	    cmocka_unit_test(disc_lets_what_is_in_flight_finish),
	    cmocka_unit_test(a_vanished_client_leaves_nothing),
	    cmocka_unit_test(clients_that_go_after_each_byte),
	    cmocka_unit_test(resets_at_random_moments),
	    cmocka_unit_test(requests_before_the_end_of_the_stream_take_effect),
	    cmocka_unit_test(closing_answers_what_is_in_flight),
	    cmocka_unit_test(closing_waits_for_a_slow_volume),
	    cmocka_unit_test(closing_does_not_wait_for_ever_for_a_reader),
	    cmocka_unit_test(closing_an_idle_server),
	    cmocka_unit_test(closing_at_every_moment),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
