/* SPDX-License-Identifier: Apache-2.0 */
/* Transmission: every command with its good and bad arguments, what the volume is asked, and how it is answered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "src/base/math.h"
#include "src/base/mem.h"
#include "tests/lib/nbd/nbd_peer.h"

enum { KIB = 1 << 10, MIB = 1 << 20, SIZE = 72 * MIB, IO_MAX = 32 * MIB };

struct fx {
	struct nbd_fixture f;
	struct nbd_peer p;
	struct mock_volume *v;
	struct mock_rules *rules;
	const uint8_t *a; /* IO_MAX + MIB each */
	uint8_t *b;
};
static uint8_t pattern[IO_MAX + MIB], answer[IO_MAX + MIB];

static int setup_config(void **state, const struct sim_config *cfg)
{
	static struct fx fx;

	memset(&fx, 0, sizeof(fx));
	nbd_fixture_init_config(&fx.f, cfg, NULL);
	fx.v = mock_volume_add(fx.f.vs, "vol", SIZE);
	fx.rules = mock_rules(fx.f.vs);
	fx.a = pattern;
	fx.b = answer;
	*state = &fx;
	return 0;
}

static int setup(void **state)
{
	return setup_config(state, &(struct sim_config){.seed = 2});
}

/* Receives get part of what is there. */
static int setup_pieces(void **state)
{
	return setup_config(state, &(struct sim_config){.seed = 3, .recv_split_percent = 60});
}

static int teardown(void **state)
{
	struct fx *fx = *state;

	nbd_peer_close(&fx->p);
	nbd_fixture_free(&fx->f);
	return 0;
}

static void go(struct fx *fx, bool structured)
{
	nbd_peer_close(&fx->p);
	nbd_peer_go(&fx->p, &fx->f, "vol", structured);
}

static void assert_last(struct fx *fx, enum volume_op op, uint32_t flags, uint64_t off, uint64_t len)
{
	uint64_t i = (fx->v->seen_n - 1) % MOCK_SEEN_MAX;

	assert_true(fx->v->seen_n > 0);
	assert_int_equal(fx->v->seen[i].op, op);
	assert_int_equal(fx->v->seen[i].flags, flags);
	if (op == VOLUME_FLUSH)
		return;
	assert_int_equal(fx->v->seen[i].off, off);
	assert_int_equal(fx->v->seen[i].len, len);
}

/* ---- data ------------------------------------------------------------------------------------------------------------- */

static void write_and_read(struct fx *fx, uint64_t off, uint32_t len)
{
	assert_int_equal(nbd_peer_do_write(&fx->p, 0, off, fx->a, len), 0);
	assert_memory_equal(fx->v->data + off, fx->a, len);
	memset(fx->b, 0xee, len);
	assert_int_equal(nbd_peer_do_read(&fx->p, 0, off, fx->b, len), 0);
	assert_memory_equal(fx->a, fx->b, len);
}

static void data_of_every_size_and_alignment(void **state)
{
	static const uint32_t lens[] = {512,	   1024,      3584,	4096,
					4608,	   8192,      64 * KIB, 128 * KIB - 512,
					128 * KIB, 129 * KIB, MIB + 512};
	struct fx *fx = *state;

	for (int structured = 0; structured < 2; structured++) {
		go(fx, structured);
		for (size_t i = 0; i < ARRAY_LEN(lens); i++)
			for (uint64_t off = 0; off <= 4096; off += 512)
				write_and_read(fx, 3 * MIB + off, lens[i]);
		write_and_read(fx, 0, IO_MAX);
		write_and_read(fx, 512, IO_MAX);
		write_and_read(fx, SIZE - 512, 512);
		write_and_read(fx, SIZE - IO_MAX, IO_MAX);
	}
}

static void zeros_are_not_sent(void **state)
{
	struct fx *fx = *state;
	uint32_t len = 256 * KIB, chunks;
	/* data, zeros, data */
	static const struct {
		uint32_t at, len;
	} data[][3] = {
	    {{0}},
	    {{0, 4 * KIB}},
	    {{252 * KIB, 4 * KIB}},
	    {{0, 64 * KIB}, {128 * KIB, 64 * KIB}},
	    {{4 * KIB, 4 * KIB}, {12 * KIB, 4 * KIB}},
	    {{0, 512}},
	    {{255 * KIB + 512, 512}},
	};
	static const uint32_t expect_chunks[] = {1, 2, 2, 4, 2, 2, 2};

	go(fx, true);
	for (size_t i = 0; i < ARRAY_LEN(data); i++) {
		bool done = false;
		uint64_t covered = 0;

		memset(fx->v->data, 0, len);
		for (size_t k = 0; k < 3; k++)
			memset(fx->v->data + data[i][k].at, 0x77, data[i][k].len);
		nbd_peer_request(&fx->p, NBD_CMD_READ, 0, i, 0, len);
		for (chunks = 0; !done; chunks++) {
			struct nbd_peer_answer a = nbd_peer_answer(&fx->p, 0);

			assert_int_equal(a.cookie, i);
			if (a.type == NBD_REPLY_TYPE_OFFSET_HOLE) {
				assert_true(bytes_are_zero(fx->v->data + a.off, a.len));
			} else {
				assert_int_equal(a.type, NBD_REPLY_TYPE_OFFSET_DATA);
				assert_memory_equal(a.data, fx->v->data + a.off, a.len);
			}
			covered += a.len;
			done = a.done;
		}
		assert_int_equal(covered, len);
		assert_int_equal(chunks, expect_chunks[i]);
		/* DF: one chunk, whatever is in it */
		memset(fx->b, 0xee, len);
		assert_int_equal(nbd_peer_do_read(&fx->p, NBD_CMD_FLAG_DF, 0, fx->b, len), 0);
		assert_memory_equal(fx->b, fx->v->data, len);
	}
	/* more runs than a reply has chunks */
	memset(fx->v->data, 0, MIB);
	for (uint32_t at = 0; at < MIB; at += 32 * KIB)
		fx->v->data[at + 100] = 1;
	assert_int_equal(nbd_peer_do_read(&fx->p, 0, 0, fx->b, MIB), 0);
	assert_memory_equal(fx->b, fx->v->data, MIB);
	assert_int_equal(nbd_peer_do_read(&fx->p, 0, 512, fx->b, MIB - 1024), 0);
	assert_memory_equal(fx->b, fx->v->data + 512, MIB - 1024);
}

/* Random patterns of zeros, offsets and lengths, against the data itself. */
static void zeros_at_random(void **state)
{
	struct fx *fx = *state;

	go(fx, true);
	for (int i = 0; i < 400; i++) {
		uint64_t x = sim_rand(fx->f.w);
		uint32_t off = (uint32_t)(x % 64) * 512,
			 len = (uint32_t)(x >> 8 & 0x1ff) * 512 + 512;

		for (uint32_t block = 0; block < 320; block++) {
			if (block % 8 == 0)
				x = sim_rand(fx->f.w);
			memset(fx->v->data + block * KIB,
			       (x >> (block % 8 + 8 * (x & 3))) & 1 || x & 4 ? 0 : 9, KIB);
		}
		assert_int_equal(nbd_peer_do_read(&fx->p, i & 1 ? NBD_CMD_FLAG_DF : 0, off, fx->b,
						  len),
				 0);
		assert_memory_equal(fx->b, fx->v->data + off, len);
	}
}

/* ---- what reaches the volume ------------------------------------------------------------------------------------------ */

static void flags_reach_the_volume(void **state)
{
	struct fx *fx = *state;

	go(fx, true);
	nbd_peer_do_write(&fx->p, NBD_CMD_FLAG_FUA, 512, fx->a, 512);
	assert_last(fx, VOLUME_WRITE, VOLUME_F_FUA, 512, 512);
	nbd_peer_do_write(&fx->p, 0, 512, fx->a, 512);
	assert_last(fx, VOLUME_WRITE, 0, 512, 512);
	assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, 4096, 8192), 0);
	assert_last(fx, VOLUME_DISCARD, VOLUME_F_FUA, 4096, 8192);
	assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_WRITE_ZEROES,
				     NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE |
					 NBD_CMD_FLAG_FAST_ZERO,
				     0, 8192),
			 0);
	assert_last(fx, VOLUME_WRITE_ZEROES, VOLUME_F_FUA | VOLUME_F_NO_HOLE | VOLUME_F_FAST_ZERO,
		    0, 8192);
	assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_WRITE_ZEROES, 0, 0, 8192), 0);
	assert_last(fx, VOLUME_WRITE_ZEROES, 0, 0, 8192);
	/* FUA goes with everything, and means nothing to what does not write */
	assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_FLUSH, NBD_CMD_FLAG_FUA, 0, 0), 0);
	assert_last(fx, VOLUME_FLUSH, 0, 0, 0);
	assert_int_equal(nbd_peer_do_read(&fx->p, NBD_CMD_FLAG_FUA, 0, fx->b, 512), 0);
	assert_last(fx, VOLUME_READ, 0, 0, 512);
	nbd_peer_request(&fx->p, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE, 1,
			 0, 4096);
	assert_int_equal(nbd_peer_answer(&fx->p, 0).type, NBD_REPLY_TYPE_BLOCK_STATUS);
	assert_last(fx, VOLUME_STATUS, VOLUME_F_ONE_EXTENT, 0, 4096);
}

static void fast_zero_that_is_not_fast(void **state)
{
	struct fx *fx = *state;

	fx->rules->no_fast_zero = true;
	for (int structured = 0; structured < 2; structured++) {
		go(fx, structured);
		assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO,
					     0, 4096),
				 NBD_ENOTSUP);
		assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_WRITE_ZEROES, 0, 0, 4096), 0);
	}
}

/* Zeroing and trimming have no payload, so no maximum; the volume gets them in pieces, one after the other. */
static void long_zeroes_go_in_pieces(void **state)
{
	struct fx *fx = *state;

	go(fx, true);
	memset(fx->v->data, 1, SIZE);
	memset(fx->v->states, MOCK_DATA, SIZE / BLOCK_BYTES);
	fx->rules->delay_ns_min = 1000;
	fx->v->seen_n = 0;
	assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FUA, 512,
				     SIZE - 1024),
			 0);
	assert_int_equal(fx->v->seen_n, 3);
	assert_last(fx, VOLUME_WRITE_ZEROES, VOLUME_F_FUA, 512 + 2ULL * IO_MAX,
		    SIZE - 1024 - 2 * IO_MAX);
	assert_true(bytes_are_zero(fx->v->data + 512, SIZE - 1024));
	assert_int_equal(fx->v->data[511], 1);
	assert_int_equal(fx->v->data[SIZE - 512], 1);
	assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_TRIM, 0, 0, SIZE), 0);
	assert_int_equal(fx->v->seen_n, 6);
	assert_int_equal(fx->v->states[0], MOCK_HOLE);
}

static int fail_far(void *arg, const struct volume_req *r)
{
	(void)arg;
	return r->off >= IO_MAX ? -ENOSPC : 0;
}

static void a_piece_that_fails_ends_it(void **state)
{
	struct fx *fx = *state;

	go(fx, true);
	fx->rules->fault = fail_far;
	fx->v->seen_n = 0;
	assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_WRITE_ZEROES, 0, 0, SIZE), NBD_ENOSPC);
	assert_int_equal(fx->v->seen_n, 2);
}

/* ---- what is refused -------------------------------------------------------------------------------------------------- */

static void nonsense_is_refused_and_the_connection_lives(void **state)
{
	static const struct {
		uint16_t cmd, flags;
		uint64_t off;
		uint32_t len, error;
	} rows[] = {
	    {NBD_CMD_READ, 0, 0, 0, NBD_EINVAL},
	    {NBD_CMD_READ, 0, 1, 512, NBD_EINVAL},
	    {NBD_CMD_READ, 0, 0, 511, NBD_EINVAL},
	    {NBD_CMD_READ, 0, SIZE, 512, NBD_EINVAL},
	    {NBD_CMD_READ, 0, SIZE - 512, 1024, NBD_EINVAL},
	    {NBD_CMD_READ, 0, UINT64_MAX - 511, 512, NBD_EINVAL},
	    {NBD_CMD_READ, 0, UINT64_MAX - 511, 1024, NBD_EINVAL},
	    {NBD_CMD_READ, 0, 0, IO_MAX + 512, NBD_EINVAL},
	    {NBD_CMD_READ, 0, 0, 0xfffffe00, NBD_EINVAL},
	    {NBD_CMD_READ, NBD_CMD_FLAG_REQ_ONE, 0, 512, NBD_EINVAL},
	    {NBD_CMD_READ, NBD_CMD_FLAG_NO_HOLE, 0, 512, NBD_EINVAL},
	    {NBD_CMD_READ, 0x8000, 0, 512, NBD_EINVAL},
	    {NBD_CMD_WRITE, 0, 0, 0, NBD_EINVAL},
	    {NBD_CMD_WRITE, 0, 1, 512, NBD_EINVAL},
	    {NBD_CMD_WRITE, 0, 0, 100, NBD_EINVAL},
	    {NBD_CMD_WRITE, 0, SIZE, 512, NBD_ENOSPC},
	    {NBD_CMD_WRITE, 0, SIZE - 512, 4096, NBD_ENOSPC},
	    {NBD_CMD_WRITE, 0, 0, IO_MAX + 512, NBD_EINVAL},
	    {NBD_CMD_WRITE, NBD_CMD_FLAG_DF, 0, 512, NBD_EINVAL},
	    {NBD_CMD_WRITE, NBD_CMD_FLAG_FAST_ZERO, 0, 512, NBD_EINVAL},
	    {NBD_CMD_WRITE_ZEROES, 0, 0, 0, NBD_EINVAL},
	    {NBD_CMD_WRITE_ZEROES, 0, 0, 100, NBD_EINVAL},
	    {NBD_CMD_WRITE_ZEROES, 0, SIZE, 512, NBD_ENOSPC},
	    {NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_DF, 0, 512, NBD_EINVAL},
	    {NBD_CMD_TRIM, 0, 0, 0, NBD_EINVAL},
	    {NBD_CMD_TRIM, 0, 0, SIZE + 512, NBD_EINVAL},
	    {NBD_CMD_TRIM, NBD_CMD_FLAG_NO_HOLE, 0, 512, NBD_EINVAL},
	    {NBD_CMD_FLUSH, 0, 0, 512, NBD_EINVAL},
	    {NBD_CMD_FLUSH, 0, 512, 0, NBD_EINVAL},
	    {NBD_CMD_FLUSH, NBD_CMD_FLAG_DF, 0, 0, NBD_EINVAL},
	    {NBD_CMD_CACHE, 0, 0, 4096, NBD_EINVAL},
	    {NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_DF, 0, 4096, NBD_EINVAL},
	    {NBD_CMD_BLOCK_STATUS, 0, 0, 0, NBD_EINVAL},
	    {NBD_CMD_BLOCK_STATUS, 0, 0, SIZE + 512, NBD_EINVAL},
	    {NBD_CMD_BLOCK_STATUS, 0, 7, 512, NBD_EINVAL},
	    {8, 0, 0, 512, NBD_EINVAL},
	    {0xffff, 0, 0, 0, NBD_EINVAL},
	};
	struct fx *fx = *state;

	for (int structured = 0; structured < 2; structured++) {
		go(fx, structured);
		fx->v->seen_n = 0;
		for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
			struct nbd_peer_answer a;

			nbd_peer_request(&fx->p, rows[i].cmd, rows[i].flags, i, rows[i].off,
					 rows[i].len);
			if (rows[i].cmd == NBD_CMD_WRITE)
				nbd_peer_send(&fx->p, fx->a, rows[i].len);
			a = nbd_peer_answer(&fx->p, 0);
			assert_int_equal(a.cookie, i);
			assert_int_equal(a.error, rows[i].error);
			assert_int_equal(a.type, structured ? NBD_REPLY_TYPE_ERROR : -1);
			assert_true(!structured || a.len > 0); /* it says why */
		}
		assert_int_equal(fx->v->seen_n, 0);
		/* DF depends on the negotiation */
		assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, IO_MAX + 512),
				 structured ? NBD_EOVERFLOW : NBD_EINVAL);
		assert_int_equal(nbd_peer_do_read(&fx->p, structured ? NBD_CMD_FLAG_DF : 0, 0,
						  fx->b, IO_MAX),
				 0);
		write_and_read(fx, 4096, 4096);
	}
}

static void a_bad_magic_ends_that_connection_only(void **state)
{
	struct fx *fx = *state;
	struct nbd_request_header h = nbd_peer_header(NBD_CMD_READ, 0, 1, 0, 512);
	struct nbd_peer other;

	nbd_peer_go(&other, &fx->f, "vol", true);
	go(fx, true);
	h.magic = to_be32(NBD_REQUEST_MAGIC + 1);
	nbd_peer_send(&fx->p, &h, sizeof(h));
	assert_true(nbd_peer_is_eof(&fx->p));
	assert_int_equal(nbd_fixture_conns(&fx->f), 1);
	assert_int_equal(nbd_peer_do(&other, NBD_CMD_FLUSH, 0, 0, 0), 0);
	nbd_peer_close(&other);
}

static void a_write_of_a_hostile_length_ends_it(void **state)
{
	struct fx *fx = *state;

	go(fx, true);
	nbd_peer_request(&fx->p, NBD_CMD_WRITE, 0, 1, 0, 64 * MIB + 1);
	assert_true(nbd_peer_is_eof(&fx->p));
	go(fx, true);
	nbd_peer_request(&fx->p, NBD_CMD_WRITE, 0, 1, 0, 0xffffffff);
	assert_true(nbd_peer_is_eof(&fx->p));
	go(fx, true); /* one that is merely too long is skipped */
	nbd_peer_request(&fx->p, NBD_CMD_WRITE, 0, 5, 0, 64 * MIB);
	nbd_peer_send(&fx->p, fx->a, 32 * MIB);
	nbd_peer_send(&fx->p, fx->a, 32 * MIB);
	assert_int_equal(nbd_peer_answer(&fx->p, 0).error, NBD_EINVAL);
	write_and_read(fx, 0, 4096);
}

/* ---- errors ----------------------------------------------------------------------------------------------------------- */

static int fail_with(void *arg, const struct volume_req *r)
{
	(void)r;
	return *(int *)arg;
}

static void errors_of_the_volume_come_through(void **state)
{
	static const struct {
		int status;
		uint32_t error;
	} rows[] = {{-EIO, NBD_EIO},	     {-ENOSPC, NBD_ENOSPC},	 {-E_CHECKSUM, NBD_EIO},
		    {-E_META_AWAY, NBD_EIO}, {-EROFS, NBD_EPERM},	 {-EINVAL, NBD_EINVAL},
		    {-ENOMEM, NBD_ENOMEM},   {-EOPNOTSUPP, NBD_EINVAL},	 {-E_FROZEN, NBD_EPERM},
		    {-E_BAD_BLOCK, NBD_EIO}, {-ESHUTDOWN, NBD_ESHUTDOWN}};
	struct fx *fx = *state;
	int status;

	fx->rules->fault_arg = &status;
	for (int structured = 0; structured < 2; structured++) {
		status = 0;
		fx->rules->fault = fail_with;
		go(fx, structured);
		for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
			status = rows[i].status;
			assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_READ, 0, 0, 4096),
					 rows[i].error);
			assert_int_equal(nbd_peer_do_write(&fx->p, 0, 0, fx->a, 4096),
					 rows[i].error);
			assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_FLUSH, 0, 0, 0), rows[i].error);
			assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_TRIM, 0, 0, 4096),
					 rows[i].error);
			assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_WRITE_ZEROES, 0, 0, 4096),
					 rows[i].error);
			if (structured)
				assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_BLOCK_STATUS, 0, 0,
							     4096),
						 rows[i].error);
		}
		status = 0;
		write_and_read(fx, 0, 4096);
	}
}

static void an_error_has_a_text(void **state)
{
	struct fx *fx = *state;
	int status = -E_CHECKSUM;
	struct nbd_peer_answer a;

	go(fx, true);
	fx->rules->fault = fail_with;
	fx->rules->fault_arg = &status;
	nbd_peer_request(&fx->p, NBD_CMD_READ, 0, 1, 0, 4096);
	a = nbd_peer_answer(&fx->p, 0);
	assert_non_null(memmem(a.data, a.len, "checksum", 8));
}

/* Who has lost the volume does not answer: the client connects again, and is told where it is. */
static void a_taken_volume_ends_the_connection_without_an_answer(void **state)
{
	static const int statuses[] = {-E_NOT_OWNER, -E_STALE_EPOCH};
	struct fx *fx = *state;
	int status;

	fx->rules->fault_arg = &status;
	for (size_t i = 0; i < ARRAY_LEN(statuses); i++) {
		fx->rules->fault = NULL;
		go(fx, true);
		fx->rules->fault = fail_with;
		status = statuses[i];
		nbd_peer_request(&fx->p, NBD_CMD_READ, 0, 1, 0, 4096);
		assert_true(nbd_peer_is_eof(&fx->p));
		assert_int_equal(fx->p.in_len, fx->p.in_at);
		nbd_fixture_run(&fx->f, 1000000000);
		assert_int_equal(fx->v->handles_n, 0);
	}
}

static void a_volume_taken_away_ends_the_connection(void **state)
{
	struct fx *fx = *state;

	go(fx, true);
	fx->rules->hold = true;
	nbd_peer_write(&fx->p, 0, 1, 0, fx->a, 4096);
	nbd_peer_write(&fx->p, 0, 2, 4096, fx->a, 4096);
	nbd_fixture_run(&fx->f, 10000000);
	assert_int_equal(mock_held(fx->f.vs), 2);
	mock_volume_take_away(fx->v, -E_NOT_OWNER);
	nbd_fixture_run(&fx->f, 10000000);
	assert_int_equal(fx->v->handles_n, 1);
	mock_release_all(fx->f.vs); /* what succeeded before is answered */
	assert_int_equal(nbd_peer_answer(&fx->p, 0).error, 0);
	assert_int_equal(nbd_peer_answer(&fx->p, 0).error, 0);
	assert_true(nbd_peer_is_eof(&fx->p));
	fx->rules->hold = false;
	nbd_fixture_run(&fx->f, 10000000);
	assert_int_equal(fx->v->handles_n, 0);
}

static void a_size_that_changes_is_noticed(void **state)
{
	struct fx *fx = *state;

	mock_volume_resize(fx->v, 8 * MIB);
	go(fx, true);
	assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_READ, 0, 8 * MIB, 4096), NBD_EINVAL);
	mock_volume_resize(fx->v, 16 * MIB);
	nbd_fixture_run(&fx->f, 1000000);
	write_and_read(fx, 8 * MIB, 4096);
	mock_volume_resize(fx->v, 4 * MIB);
	nbd_fixture_run(&fx->f, 1000000);
	assert_int_equal(nbd_peer_do_write(&fx->p, 0, 8 * MIB, fx->a, 4096), NBD_ENOSPC);
	write_and_read(fx, 0, 4096);
	mock_volume_resize(fx->v, SIZE);
}

/* ---- BLOCK_STATUS ----------------------------------------------------------------------------------------------------- */

static void block_status_says_what_is_there(void **state)
{
	struct fx *fx = *state;
	struct nbd_peer_answer a;
	static const struct {
		uint32_t len, flags;
	} expect[] = {{4096, NBD_STATE_HOLE | NBD_STATE_ZERO},
		      {8192, 0},
		      {4096, NBD_STATE_ZERO},
		      {4096, NBD_STATE_HOLE | NBD_STATE_ZERO}};

	go(fx, true);
	nbd_peer_do_write(&fx->p, 0, 4096, fx->a, 12288);
	nbd_peer_do(&fx->p, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE, 12288, 4096);
	nbd_peer_request(&fx->p, NBD_CMD_BLOCK_STATUS, 0, 9, 0, 20480);
	a = nbd_peer_answer(&fx->p, 0);
	assert_true(a.done);
	assert_int_equal(a.cookie, 9);
	assert_int_equal(a.off, 1); /* the id SET_META_CONTEXT gave */
	assert_int_equal(a.len, 4);
	for (uint32_t i = 0; i < 4; i++) {
		struct nbd_extent e = nbd_peer_extent(&a, i);

		assert_int_equal(get_be32(e.len), expect[i].len);
		assert_int_equal(get_be32(e.flags), expect[i].flags);
	}
	/* one of them, from the middle of a block, and no further than asked */
	nbd_peer_request(&fx->p, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 10, 4608, 1024);
	a = nbd_peer_answer(&fx->p, 0);
	assert_int_equal(a.len, 1);
	assert_int_equal(get_be32(nbd_peer_extent(&a, 0).len), 1024);
	nbd_peer_request(&fx->p, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 10, 4608, 65536);
	a = nbd_peer_answer(&fx->p, 0);
	assert_int_equal(a.len, 1);
	assert_int_equal(get_be32(nbd_peer_extent(&a, 0).len), 8192 - 512);
	nbd_peer_request(&fx->p, NBD_CMD_BLOCK_STATUS, 0, 10, 0, SIZE);
	a = nbd_peer_answer(&fx->p, 0);
	assert_int_equal(a.len, 4);
	assert_int_equal(get_be32(nbd_peer_extent(&a, 3).len), SIZE - 16384);
}

/* More extents than a reply has room for: the client goes on where the reply ends. */
static void block_status_of_a_fragmented_volume(void **state)
{
	static const uint32_t flags[] = {NBD_STATE_HOLE | NBD_STATE_ZERO, NBD_STATE_ZERO, 0};
	struct fx *fx = *state;
	uint64_t at = 0, replies = 0, extents = 0;

	go(fx, true);
	for (uint32_t i = 0; i < SIZE / BLOCK_BYTES; i++)
		fx->v->states[i] = (uint8_t)(i % 3);
	for (; at < SIZE; replies++) {
		struct nbd_peer_answer a;

		nbd_peer_request(&fx->p, NBD_CMD_BLOCK_STATUS, 0, at, at, (uint32_t)(SIZE - at));
		a = nbd_peer_answer(&fx->p, 0);
		assert_in_range(a.len, 1, 1024);
		for (uint32_t i = 0; i < a.len; i++, extents++) {
			struct nbd_extent e = nbd_peer_extent(&a, i);

			assert_int_equal(get_be32(e.len), BLOCK_BYTES);
			assert_int_equal(get_be32(e.flags), flags[fx->v->states[at / BLOCK_BYTES]]);
			at += get_be32(e.len);
		}
	}
	assert_int_equal(extents, SIZE / BLOCK_BYTES);
	assert_int_equal(replies, div_up(SIZE / BLOCK_BYTES, 1024));
}

/* A volume that does not merge its extents, and says more than was asked. */
static void block_status_merges_and_cuts(void **state)
{
	struct fx *fx = *state;
	struct nbd_peer_answer a;

	go(fx, true);
	fx->rules->sloppy_extents = true;
	memset(fx->v->states, MOCK_DATA, 8);
	nbd_peer_request(&fx->p, NBD_CMD_BLOCK_STATUS, 0, 1, 512, 64 * KIB);
	a = nbd_peer_answer(&fx->p, 0);
	assert_int_equal(a.len, 2);
	assert_int_equal(get_be32(nbd_peer_extent(&a, 0).len), 32 * KIB - 512);
	assert_int_equal(get_be32(nbd_peer_extent(&a, 0).flags), 0);
	assert_int_equal(get_be32(nbd_peer_extent(&a, 1).len), 32 * KIB + 512);
	nbd_peer_request(&fx->p, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 1, 512, 1024);
	a = nbd_peer_answer(&fx->p, 0);
	assert_int_equal(a.len, 1);
	assert_int_equal(get_be32(nbd_peer_extent(&a, 0).len), 1024);
}

static void block_status_without_contexts_is_refused(void **state)
{
	struct fx *fx = *state;

	go(fx, false);
	assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_BLOCK_STATUS, 0, 0, 4096), NBD_EINVAL);
}

/* ---- many at once ----------------------------------------------------------------------------------------------------- */

static void replies_come_in_the_order_of_completion(void **state)
{
	struct fx *fx = *state;

	go(fx, true);
	fx->rules->hold = true;
	for (uint64_t i = 0; i < 5; i++)
		nbd_peer_request(&fx->p, NBD_CMD_FLUSH, 0, i, 0, 0);
	nbd_fixture_run(&fx->f, 10000000);
	assert_int_equal(mock_held(fx->f.vs), 5);
	mock_release(fx->f.vs, 3);
	assert_int_equal(nbd_peer_answer(&fx->p, 0).cookie, 3);
	mock_release(fx->f.vs, 0);
	assert_int_equal(nbd_peer_answer(&fx->p, 0).cookie, 0);
	assert_false(nbd_peer_is_eof(&fx->p));
	assert_int_equal(fx->p.in_len, fx->p.in_at);
	mock_release_all(fx->f.vs);
	for (uint64_t i = 0; i < 3; i++)
		assert_int_equal(nbd_peer_answer(&fx->p, 0).error, 0);
	fx->rules->hold = false;
}

/* A client with everything in flight that may be, random requests, random delays, input in random pieces; a shadow says what is right. */
static void pipelined_at_random(void **state)
{
	enum { SLOTS = 200, AREA = 64 * KIB, ROUNDS = 1000 };
	struct fx *fx = *state;
	struct {
		bool busy, write;
		uint8_t fill;
		uint32_t off, len;
	} *slots = mem_zalloc(SLOTS * sizeof(*slots));
	uint8_t shadow[SLOTS] = {0};
	uint32_t flying = 0;

	for (int structured = 0; structured < 2; structured++) {
		go(fx, structured);
		memset(fx->v->data, 0, SIZE);
		memset(shadow, 0, sizeof(shadow));
		fx->rules->delay_ns_min = 0;
		fx->rules->delay_ns_max = 300000;
		for (uint32_t sent = 0, answered = 0; answered < ROUNDS;) {
			uint64_t x = sim_rand(fx->f.w);
			uint32_t i = (uint32_t)(x % SLOTS);

			if (sent < ROUNDS && !slots[i].busy && flying < 150) {
				/* each slot has an area of its own, written whole with one value */
				uint32_t len = AREA;

				slots[i].busy = true;
				slots[i].write = x & 1 << 20;
				if (slots[i].write) {
					shadow[i]++;
					memset(fx->b, shadow[i], len);
					nbd_peer_write(&fx->p, 0, i, (uint64_t)i * AREA, fx->b, len);
				} else {
					len = (uint32_t)((x >> 32) % (AREA / 512) + 1) * 512;
					nbd_peer_request(&fx->p, NBD_CMD_READ, 0, i,
							 (uint64_t)i * AREA, len);
				}
				slots[i].len = len;
				sent++;
				flying++;
				continue;
			}
			for (bool done = false; !done;) {
				struct nbd_simple_reply h;
				struct nbd_peer_answer a;
				uint64_t cookie;

				assert_true(nbd_peer_has(&fx->p, sizeof(h)));
				memcpy(&cookie, fx->p.in + fx->p.in_at + 8, sizeof(cookie));
				assert_true(cookie < SLOTS && slots[cookie].busy);
				a = nbd_peer_answer(&fx->p,
						    slots[cookie].write ? 0 : slots[cookie].len);
				assert_int_equal(a.error, 0);
				if (a.type == NBD_REPLY_TYPE_OFFSET_HOLE) {
					assert_int_equal(shadow[cookie], 0);
				} else if (!slots[cookie].write) {
					assert_int_equal(a.len, slots[cookie].len);
					for (uint32_t k = 0; k < a.len; k++)
						if (a.data[k] != shadow[cookie])
							fail();
				}
				done = a.done;
				if (done)
					slots[cookie].busy = false;
			}
			answered++;
			flying--;
		}
	}
	mem_free(slots);
}

static void connections_share_a_volume(void **state)
{
	struct fx *fx = *state;
	struct nbd_peer other;
	struct nbd_conn_info info;
	struct nbd_server_info total;
	uint64_t id = 0, requests = 0, n = 0;

	go(fx, true);
	nbd_peer_go(&other, &fx->f, "vol", false);
	assert_true(other.flags & NBD_FLAG_CAN_MULTI_CONN);
	assert_int_equal(nbd_peer_do_write(&fx->p, 0, 0, fx->a, 4096), 0);
	assert_int_equal(nbd_peer_do_read(&other, 0, 0, fx->b, 4096), 0);
	assert_memory_equal(fx->a, fx->b, 4096);
	assert_int_equal(nbd_peer_do(&other, NBD_CMD_FLUSH, 0, 0, 0), 0);
	assert_int_equal(nbd_peer_do(&other, NBD_CMD_FLUSH, 0, 1, 0), NBD_EINVAL);
	while (nbd_server_conn_next(fx->f.server, id, &info) == 0) {
		assert_string_equal(info.export_name, "vol");
		assert_int_equal(info.phase, NBD_CONN_TRANSMISSION);
		assert_int_equal(info.in_flight, 0);
		assert_true(info.id > id);
		id = info.id;
		requests += info.requests;
		n++;
	}
	assert_int_equal(n, 2);
	assert_int_equal(requests, 4);
	nbd_peer_close(&other);
	nbd_fixture_run(&fx->f, 1000000000);
	nbd_server_info(fx->f.server, &total);
	assert_int_equal(total.requests, 4); /* past connections count too */
	assert_int_equal(total.errors, 1);
	assert_int_equal(total.read_bytes, 4096);
	assert_int_equal(total.written_bytes, 4096);
	assert_int_equal(total.listeners, 2);
	assert_int_equal(total.connections, 1);
	assert_int_equal(total.accepted, 2);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(data_of_every_size_and_alignment),
	    T(zeros_are_not_sent),
	    T(zeros_at_random),
	    T(flags_reach_the_volume),
	    T(fast_zero_that_is_not_fast),
	    T(long_zeroes_go_in_pieces),
	    T(a_piece_that_fails_ends_it),
	    T(nonsense_is_refused_and_the_connection_lives),
	    T(a_bad_magic_ends_that_connection_only),
	    T(a_write_of_a_hostile_length_ends_it),
	    T(errors_of_the_volume_come_through),
	    T(an_error_has_a_text),
	    T(a_taken_volume_ends_the_connection_without_an_answer),
	    T(a_volume_taken_away_ends_the_connection),
	    T(a_size_that_changes_is_noticed),
	    T(block_status_says_what_is_there),
	    T(block_status_of_a_fragmented_volume),
	    T(block_status_merges_and_cuts),
	    T(block_status_without_contexts_is_refused),
	    T(replies_come_in_the_order_of_completion),
	    T(pipelined_at_random),
	    cmocka_unit_test_setup_teardown(pipelined_at_random, setup_pieces, teardown),
	    T(connections_share_a_volume),
	};

	for (uint32_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)(i * 2654435761u >> 24 | 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
