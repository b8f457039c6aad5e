/* SPDX-License-Identifier: Apache-2.0 */
/* The memory that all connections share: it is never exceeded, nobody waits who stays within its share, who waits is served in line, and a
 * client cannot keep others waiting for ever. */
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

/* pools are smaller than usual, so that a test takes little time: 9 MiB */
enum { KIB = 1 << 10, MIB = 1 << 20, SIZE = 16 * MIB, CONNS = 4, POOL_MIB = 9 };

struct fx {
	struct nbd_fixture f;
	struct nbd_peer p[CONNS];
	struct mock_volume *v;
	struct mock_rules *rules;
};
static struct fx fx;
static uint8_t data[10 * MIB];

/* `more` is what there is beyond what there must be: one largest pool in common, and everybody's share. */
static void start(uint64_t seed, uint64_t more)
{
	struct nbd_limits limits = {.connections = CONNS, .pool_bytes = POOL_MIB * MIB};

	limits.memory_bytes = nbd_memory_least(&limits) + more;
	memset(&fx, 0, sizeof(fx));
	nbd_fixture_init(&fx.f, seed, &limits);
	fx.v = mock_volume_add(fx.f.vs, "vol", SIZE);
	memset(fx.v->data, 1, SIZE);
	fx.rules = mock_rules(fx.f.vs);
	fx.rules->check = false; /* what others test, and slow */
	for (int i = 0; i < CONNS; i++)
		nbd_peer_go(&fx.p[i], &fx.f, "vol", true);
}

static void run_ms(uint64_t ms)
{
	nbd_fixture_run(&fx.f, ms * 1000000);
}

static struct nbd_server_info info(void)
{
	struct nbd_server_info i;

	nbd_server_info(fx.f.server, &i);
	assert_true(i.memory_used_bytes <= i.memory_bytes);
	return i;
}

static void stop(void)
{
	fx.rules->hold = false;
	mock_release_all(fx.f.vs);
	for (int i = 0; i < CONNS; i++)
		nbd_peer_close(&fx.p[i]);
	run_ms(1000);
	assert_int_equal(info().memory_used_bytes, 0);
	nbd_fixture_free(&fx.f);
}

/* Takes all that is common: its requests stay with the volume. */
static void hog_in_the_volume(struct nbd_peer *p, uint32_t mib)
{
	fx.rules->hold = true;
	for (uint64_t i = 0; i < mib; i++)
		nbd_peer_request(p, NBD_CMD_READ, 0, i, i * MIB, MIB);
	run_ms(100);
	fx.rules->hold = false;
}

/* The same, by not reading what comes back. */
static void hog_unread(struct nbd_peer *p)
{
	nbd_peer_read(p, false);
	for (uint64_t i = 0; i < POOL_MIB; i++)
		nbd_peer_request(p, NBD_CMD_READ, 0, i, i * MIB, MIB);
	run_ms(100);
}

static bool arrives(struct nbd_peer *p, uint64_t within_ms)
{
	uint64_t until = sim_now_ns(fx.f.w) + within_ms * 1000000;

	while (p->in_len == p->in_at && sim_now_ns(fx.f.w) < until)
		if (!sim_step(fx.f.w))
			break;
	return p->in_len > p->in_at;
}

static void within_its_share_nobody_waits(void **state)
{
	(void)state;
	start(1, 0);
	hog_in_the_volume(&fx.p[0], POOL_MIB);
	nbd_peer_request(&fx.p[1], NBD_CMD_READ, 0, 7, 0, 4 * MIB); /* and somebody waits in line */
	run_ms(100);
	assert_int_equal(info().memory_waiting, 1);
	for (int i = 0; i < 20; i++) {
		uint64_t began = sim_now_ns(fx.f.w);

		assert_int_equal(nbd_peer_do_read(&fx.p[2], 0, 512, data, MIB), 0);
		assert_int_equal(nbd_peer_do_write(&fx.p[3], 0, 3584, data, MIB), 0);
		assert_true(sim_now_ns(fx.f.w) - began < 1000000000);
	}
	assert_false(arrives(&fx.p[1], 100));
	mock_release_all(fx.f.vs);
	assert_true(arrives(&fx.p[1], 1000));
	assert_int_equal(nbd_peer_answer(&fx.p[1], 0).len, 4 * MIB);
	assert_int_equal(info().memory_waiting, 0);
	stop();
}

static void who_asked_first_is_served_first(void **state)
{
	(void)state;
	start(2, 0);
	hog_in_the_volume(&fx.p[0], POOL_MIB);
	nbd_peer_request(&fx.p[1], NBD_CMD_READ, 0, 1, 0, 8 * MIB);
	run_ms(100);
	nbd_peer_request(&fx.p[2], NBD_CMD_READ, 0, 2, 0, 2 * MIB);
	run_ms(100);
	assert_int_equal(info().memory_waiting, 2);
	assert_int_equal(info().memory_waits, 2);
	/* much comes back, from the top; not enough for the first: the second must not overtake */
	for (int i = 0; i < 3; i++)
		mock_release(fx.f.vs, mock_held(fx.f.vs) - 1);
	run_ms(1000);
	assert_int_equal(info().memory_waiting, 2);
	assert_int_equal(fx.p[2].in_len, fx.p[2].in_at);
	mock_release_all(fx.f.vs);
	assert_int_equal(nbd_peer_answer(&fx.p[1], 0).len, 8 * MIB);
	assert_int_equal(nbd_peer_answer(&fx.p[2], 0).len, 2 * MIB);
	assert_int_equal(info().memory_waiting, 0);
	stop();
}

/* What a burst left behind is there for others at once, not only when the burst is forgotten. */
static void what_nobody_uses_is_taken_back(void **state)
{
	(void)state;
	start(3, 0);
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < CONNS; i++) {
			uint64_t began = sim_now_ns(fx.f.w);

			assert_int_equal(nbd_peer_do_read(&fx.p[i], 0, 512, data, 8 * MIB), 0);
			assert_true(sim_now_ns(fx.f.w) - began < 2000000000);
		}
	assert_int_equal(info().memory_waits, 0);
	stop();
}

static void who_keeps_others_waiting_is_cut_off(void **state)
{
	(void)state;
	for (int how = 0; how < 2; how++) {
		uint64_t began;

		start(4, 0);
		if (how == 0) {
			hog_unread(&fx.p[0]);
		} else {
			struct nbd_request_header h =
			    nbd_peer_header(NBD_CMD_WRITE, 0, 1, 0, 8 * MIB);

			nbd_peer_send(&fx.p[0], &h, sizeof(h));
			nbd_peer_send(&fx.p[0], data, 5 * MIB);
		}
		run_ms(300000); /* as long as nobody wants it, it may */
		assert_int_equal(info().connections, CONNS);
		began = sim_now_ns(fx.f.w);
		nbd_peer_request(&fx.p[1], NBD_CMD_READ, 0, 1, 0, 8 * MIB);
		run_ms(29000);
		assert_int_equal(info().connections, CONNS);
		assert_int_equal(info().memory_waiting, 1);
		if (how == 1) /* moving is not enough: it is to be finished */
			nbd_peer_send(&fx.p[0], data, MIB);
		assert_true(arrives(&fx.p[1], 10000));
		assert_true(sim_now_ns(fx.f.w) - began < 40000000000);
		assert_int_equal(nbd_peer_answer(&fx.p[1], 0).len, 8 * MIB);
		assert_int_equal(info().connections, CONNS - 1);
		assert_int_equal(info().broken, 1);
		stop();
	}
}

/* Who is slow because the volume is, or because the answers are many, is not cut off. */
static void who_is_not_to_blame_stays(void **state)
{
	(void)state;
	start(5, 0);
	hog_in_the_volume(&fx.p[0], POOL_MIB);
	nbd_peer_request(&fx.p[1], NBD_CMD_READ, 0, 1, 0, 8 * MIB);
	run_ms(200000);
	assert_int_equal(info().connections, CONNS);
	assert_int_equal(info().memory_waiting, 1);
	mock_release_all(fx.f.vs);
	assert_int_equal(nbd_peer_answer(&fx.p[1], 0).len, 8 * MIB);
	for (int i = 0; i < POOL_MIB; i++)
		assert_int_equal(nbd_peer_answer(&fx.p[0], 0).len, MIB);
	/* takes an answer now and then */
	hog_unread(&fx.p[0]);
	nbd_peer_request(&fx.p[1], NBD_CMD_READ, 0, 1, 0, 8 * MIB);
	for (int i = 0; i < POOL_MIB; i++) {
		nbd_peer_read(&fx.p[0], true);
		assert_int_equal(nbd_peer_answer(&fx.p[0], 0).len, MIB);
		nbd_peer_read(&fx.p[0], false);
		run_ms(10000);
	}
	assert_int_equal(info().connections, CONNS);
	assert_int_equal(nbd_peer_answer(&fx.p[1], 0).len, 8 * MIB);
	stop();
}

/* Those who wait go away, or the server does. */
static void ends_while_waiting(void **state)
{
	(void)state;
	for (int how = 0; how < 6; how++) {
		start(6, 0);
		hog_in_the_volume(&fx.p[0], POOL_MIB);
		nbd_peer_request(&fx.p[1], NBD_CMD_READ, 0, 1, 0, 8 * MIB);
		run_ms(100);
		nbd_peer_request(&fx.p[2], NBD_CMD_READ, 0, 2, 0, 3 * MIB);
		run_ms(100);
		assert_int_equal(info().memory_waiting, 2);
		if (how == 0) { /* the first in line: its turn is soon over */
			nbd_peer_close(&fx.p[1]);
			run_ms(100);
			mock_release_all(fx.f.vs);
			assert_int_equal(nbd_peer_answer(&fx.p[2], 0).len, 3 * MIB);
			run_ms(1000);
			assert_int_equal(info().connections, CONNS - 1);
		} else if (how == 1) { /* the one who has it all */
			nbd_peer_close(&fx.p[0]);
			mock_release_all(fx.f.vs);
			assert_int_equal(nbd_peer_answer(&fx.p[1], 0).len, 8 * MIB);
			assert_int_equal(nbd_peer_answer(&fx.p[2], 0).len, 3 * MIB);
		} else if (how == 2) {
			mock_volume_take_away(fx.v, -E_NOT_OWNER);
			run_ms(100);
			mock_release_all(fx.f.vs);
			run_ms(10000);
			assert_int_equal(info().connections, 0);
		} else if (how < 5) {
			nbd_fixture_close_begin(&fx.f);
			run_ms(how == 3 ? 0 : 40000);
			mock_release_all(fx.f.vs);
			run_ms(40000);
			assert_true(fx.f.closed);
			for (int i = 0; i < CONNS; i++)
				nbd_peer_close(&fx.p[i]);
			nbd_fixture_free(&fx.f);
			continue;
		}
		stop();
	}
}

struct asked {
	uint64_t off;
	uint32_t len;
};

/* Everybody asks for anything, with hardly any memory: every answer comes, and the limit holds at every moment. */
static void many_with_little(void **state)
{
	enum { ROUNDS = 2, DEPTH = 8 };

	(void)state;
	for (uint64_t seed = 10; seed < 12; seed++) {
		struct asked asked[CONNS][DEPTH];
		uint64_t waits;

		start(seed, (seed & 1) * 3 * MIB);
		fx.rules->delay_ns_max = 3000000;
		for (int round = 0; round < ROUNDS; round++) {
			for (int i = 0; i < CONNS; i++)
				for (uint64_t k = 0; k < DEPTH; k++) {
					uint64_t r = sim_rand(fx.f.w);
					uint32_t len = (r >> 60) < 2   ? 5 * MIB
						       : (r >> 60) < 5 ? 2 * MIB
								       : 4 * KIB;

					len += (uint32_t)(r % 64) * 512;
					asked[i][k] = (struct asked){r / 64 % 10 * MIB, len};
					if (r & 1 << 20)
						nbd_peer_write(&fx.p[i], 0, k, asked[i][k].off,
							       data, len);
					else
						nbd_peer_request(&fx.p[i], NBD_CMD_READ, 0, k,
								 asked[i][k].off, len);
				}
			for (int i = 0; i < CONNS; i++)
				for (int left = DEPTH; left > 0;) {
					struct nbd_peer_answer a = nbd_peer_answer(&fx.p[i], 0);

					assert_int_equal(a.error, 0);
					left -= a.done || a.type < 0;
					info();
				}
		}
		waits = info().memory_waits;
		assert_true(waits > 2);
		assert_int_equal(info().broken, 0);
		assert_int_equal(info().memory_waiting, 0);
		stop();
	}
}

static void the_least_is_checked(void **state)
{
	struct nbd_limits limits = {.connections = 10};
	uint64_t least = nbd_memory_least(&limits);
	struct nbd_config cfg = {.limits = limits};
	struct nbd_server *s = NULL;

	(void)state;
	assert_in_range(least, 10 * 6 * MIB / 5 + 35 * MIB, 10 * 3 * MIB / 2 + 50 * MIB);
	cfg.limits.memory_bytes = least - 1;
	assert_int_equal(nbd_server_new(&cfg, &s), -EINVAL);
	limits.connections = 65536;
	assert_true(nbd_memory_least(&limits) > 65536ULL * 6 * MIB / 5);
	limits.requests = UINT32_MAX;
	limits.connections = UINT32_MAX;
	assert_int_equal(nbd_memory_least(&limits), UINT64_MAX);
	cfg.limits = limits;
	assert_int_equal(nbd_server_new(&cfg, &s), -EINVAL);
	assert_null(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(within_its_share_nobody_waits),
	    cmocka_unit_test(who_asked_first_is_served_first),
	    cmocka_unit_test(what_nobody_uses_is_taken_back),
	    cmocka_unit_test(who_keeps_others_waiting_is_cut_off),
	    cmocka_unit_test(who_is_not_to_blame_stays),
	    cmocka_unit_test(ends_while_waiting),
	    cmocka_unit_test(many_with_little),
	    cmocka_unit_test(the_least_is_checked),
	};

	memset(data, 1, sizeof(data));
	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
