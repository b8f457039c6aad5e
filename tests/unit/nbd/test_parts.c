/* SPDX-License-Identifier: Apache-2.0 */
/* The parts that need no connection: the table of errors, the page pool, URIs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "targets/nbd/error.h"
#include "targets/nbd/nbd.h"
#include "targets/nbd/pool.h"

static bool is_nbd_errno(uint32_t e)
{
	static const uint32_t allowed[] = {NBD_EPERM,  NBD_EIO,	      NBD_ENOMEM,  NBD_EINVAL,
					   NBD_ENOSPC, NBD_EOVERFLOW, NBD_ENOTSUP, NBD_ESHUTDOWN};

	for (size_t i = 0; i < ARRAY_LEN(allowed); i++)
		if (allowed[i] == e)
			return true;
	return false;
}

/* Every status there can be maps to an error NBD knows, and only success to success. */
static void every_status_has_an_error(void **state)
{
	(void)state;
	for (int e = 1; e <= 4095; e++) {
		assert_true(is_nbd_errno(nbd_error_of(-e, false)));
		assert_int_not_equal(nbd_error_of(-e, false), NBD_ENOTSUP);
		assert_true(is_nbd_errno(nbd_error_of(-e, true)));
	}
	for (int e = ERR_FIRST_ + 1; e < ERR_END_; e++) {
		assert_true(is_nbd_errno(nbd_error_of(-e, false)));
		/* ours show as the errno of their row */
		assert_int_equal(nbd_error_of(-e, false), nbd_error_of(-err_errno(-e), false));
		assert_true(nbd_rep_of(-e) & 0x80000000u);
	}
	assert_int_equal(nbd_error_of(0, false), NBD_OK);
	assert_int_equal(nbd_error_of(0, true), NBD_OK);
}

static void the_errors_that_matter(void **state)
{
	static const struct {
		int status;
		enum nbd_errno error;
	} rows[] = {
	    {-ENOSPC, NBD_ENOSPC},	 {-EDQUOT, NBD_ENOSPC},	    {-EFBIG, NBD_ENOSPC},
	    {-EROFS, NBD_EPERM},	 {-E_FROZEN, NBD_EPERM},    {-EACCES, NBD_EPERM},
	    {-EINVAL, NBD_EINVAL},	 {-EIO, NBD_EIO},	    {-E_CHECKSUM, NBD_EIO},
	    {-E_BAD_BLOCK, NBD_EIO},	 {-E_LOST, NBD_EIO},	    {-E_UNFLUSHED_LOST, NBD_EIO},
	    {-E_DEVICE_FAILED, NBD_EIO}, {-E_DEVICE_GONE, NBD_EIO}, {-E_META_AWAY, NBD_EIO},
	    {-E_STALE_EPOCH, NBD_EIO},	 {-E_NOT_OWNER, NBD_EPERM}, {-ENOMEM, NBD_ENOMEM},
	    {-ESHUTDOWN, NBD_ESHUTDOWN}, {-EOVERFLOW, NBD_EINVAL},  {-EOPNOTSUPP, NBD_EINVAL},
	    {-ECANCELED, NBD_EIO},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_int_equal(nbd_error_of(rows[i].status, false), rows[i].error);
	assert_int_equal(nbd_error_of(-EOPNOTSUPP, true), NBD_ENOTSUP);
	assert_int_equal(nbd_rep_of(-ENOENT), NBD_REP_ERR_UNKNOWN);
	assert_int_equal(nbd_rep_of(-E_NOT_OWNER), NBD_REP_ERR_POLICY);
	assert_int_equal(nbd_rep_of(-E_IN_USE), NBD_REP_ERR_POLICY);
	assert_int_equal(nbd_rep_of(-ESHUTDOWN), NBD_REP_ERR_SHUTDOWN);
	assert_int_equal(nbd_rep_of(-E_META_AWAY), NBD_REP_ERR_UNKNOWN);
	assert_true(nbd_is_taken_over(-E_STALE_EPOCH) && nbd_is_taken_over(-E_NOT_OWNER));
	assert_false(nbd_is_taken_over(-EIO) || nbd_is_taken_over(0));
}

static void pool_gives_the_lowest_run(void **state)
{
	struct pool p;
	uint8_t *a, *b, *c;

	(void)state;
	assert_int_equal(pool_init(&p, 100 * BLOCK_BYTES + 17), 0);
	assert_int_equal(p.pages_n, 100);
	a = pool_take(&p, 1);
	b = pool_take(&p, 70);
	c = pool_take(&p, 29);
	assert_ptr_equal(a, p.mem);
	assert_ptr_equal(b, a + BLOCK_BYTES);
	assert_ptr_equal(c, b + 70 * BLOCK_BYTES);
	assert_null(pool_take(&p, 1));
	pool_give(&p, b, 70);
	assert_null(pool_take(&p, 71));
	assert_ptr_equal(pool_take(&p, 69), b);
	assert_null(pool_take(&p, 2));
	assert_ptr_equal(pool_take(&p, 1), b + 69 * BLOCK_BYTES);
	pool_give(&p, a, 1);
	assert_null(pool_take(&p, 2));
	assert_ptr_equal(pool_take(&p, 1), a);
	pool_give(&p, a, 1);
	pool_give(&p, b, 70);
	pool_give(&p, c, 29);
	assert_ptr_equal(pool_take(&p, 100), a);
	pool_give(&p, a, 100);
	pool_free(&p);
}

/* Against a plain model: nothing is given twice, and nothing is refused that first fit would find. */
static void pool_agrees_with_a_model(void **state)
{
	enum { PAGES = 200, RUNS = 64 };
	struct pool p;
	bool used[PAGES] = {false};
	struct {
		uint8_t *mem;
		uint32_t n;
	} runs[RUNS] = {{0}};
	uint64_t x = 88172645463325252ULL;

	(void)state;
	assert_int_equal(pool_init(&p, PAGES * BLOCK_BYTES), 0);
	for (int step = 0; step < 200000; step++) {
		uint32_t i, n, at, fit = PAGES;

		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		i = (uint32_t)(x % RUNS);
		if (runs[i].mem) {
			at = (uint32_t)((runs[i].mem - p.mem) / BLOCK_BYTES);
			memset(used + at, false, runs[i].n);
			pool_give(&p, runs[i].mem, runs[i].n);
			runs[i].mem = NULL;
			continue;
		}
		n = (uint32_t)(x >> 32) % ((x >> 60) ? 4 : 80) + 1;
		for (uint32_t from = 0; from + n <= PAGES && fit == PAGES; from++)
			if (!memchr(used + from, true, n))
				fit = from;
		runs[i].mem = pool_take(&p, n);
		runs[i].n = n;
		if (fit == PAGES) {
			assert_null(runs[i].mem);
		} else {
			assert_ptr_equal(runs[i].mem, p.mem + fit * BLOCK_BYTES);
			memset(used + fit, true, n);
		}
	}
	for (uint32_t i = 0; i < RUNS; i++)
		if (runs[i].mem)
			pool_give(&p, runs[i].mem, runs[i].n);
	pool_free(&p);
}

static void pool_gives_memory_back(void **state)
{
	struct pool p;
	uint8_t *a, *b;

	(void)state;
	for (uint32_t n = 1000; n < 1100; n += 33) { /* with and without bits past the end */
		assert_int_equal(pool_init(&p, (uint64_t)n * BLOCK_BYTES), 0);
		assert_int_equal(pool_high(&p), 0);
		a = pool_take(&p, POOL_SHARE_PAGES);
		assert_int_equal(pool_high(&p), POOL_SHARE_PAGES);
		assert_false(pool_is_grown(&p));
		b = pool_take(&p, n - POOL_SHARE_PAGES);
		assert_int_equal(pool_high(&p), n);
		memset(a, 7, (size_t)n * BLOCK_BYTES);
		pool_give(&p, b, n - POOL_SHARE_PAGES);
		assert_true(pool_is_grown(&p));
		assert_int_equal(pool_high(&p), POOL_SHARE_PAGES);
		pool_shrink(&p, POOL_SHARE_PAGES + 10);
		assert_true(pool_is_grown(&p));
		assert_int_equal(b[10 * BLOCK_BYTES - 1], 7);
		assert_int_equal(b[10 * BLOCK_BYTES], 0); /* not kept */
		pool_shrink(&p, POOL_SHARE_PAGES);
		assert_false(pool_is_grown(&p));
		assert_int_equal(a[POOL_SHARE_PAGES * BLOCK_BYTES - 1], 7);
		assert_int_equal(b[0], 0);
		pool_give(&p, a, POOL_SHARE_PAGES);
		a = pool_take(&p, n);
		assert_ptr_equal(a, p.mem);
		pool_give(&p, a, n);
		pool_free(&p);
	}
}

static void pool_keeps_to_what_is_allowed(void **state)
{
	struct pool p;
	uint8_t *a, *b;

	(void)state;
	assert_int_equal(pool_init(&p, 100 * BLOCK_BYTES), 0);
	p.pages_allowed = 20;
	a = pool_take(&p, 15);
	assert_ptr_equal(a, p.mem);
	assert_null(pool_take(&p, 6));
	assert_int_equal(pool_needs(&p, 6), 21);
	assert_int_equal(pool_needs(&p, 85), 100);
	assert_int_equal(pool_needs(&p, 86), 0);
	b = pool_take(&p, 5);
	assert_ptr_equal(b, a + 15 * BLOCK_BYTES);
	assert_null(pool_take(&p, 1));
	assert_int_equal(pool_needs(&p, 1), 21);
	pool_give(&p, a, 15);
	assert_int_equal(pool_needs(&p, 15), 15);
	assert_int_equal(pool_needs(&p, 16), 36);
	assert_int_equal(pool_needs(&p, 81), 0); /* enough pages, but in no run */
	p.pages_allowed = 36;
	assert_ptr_equal(pool_take(&p, 16), a + 20 * BLOCK_BYTES);
	pool_give(&p, a + 20 * BLOCK_BYTES, 16);
	pool_give(&p, b, 5);
	pool_free(&p);
}

static void pool_without_memory(void **state)
{
	struct pool p;

	(void)state;
	for (uint64_t n = 0; n < 2; n++) {
		mem_fail_at(n, 1);
		assert_int_equal(pool_init(&p, 1 << 20), -ENOMEM);
		mem_fail_at(UINT64_MAX, 0);
	}
}

static void uris_can_be_pasted(void **state)
{
	char uri[NBD_URI_LEN], long_path[IOE_ADDR_MAX];

	(void)state;
	nbd_uri("unix:/run/a b/x%.sock", "vm-1@monday", uri);
	assert_string_equal(uri, "nbd+unix:///vm-1@monday?socket=/run/a%20b/x%25.sock");
	nbd_uri("127.0.0.1:10809", "vm-1", uri);
	assert_string_equal(uri, "nbd://127.0.0.1:10809/vm-1");
	nbd_uri("[::1]:10809", "", uri);
	assert_string_equal(uri, "nbd://[::1]:10809/");
	memset(long_path, '%', sizeof(long_path) - 1);
	memcpy(long_path, "unix:", 5);
	long_path[sizeof(long_path) - 1] = '\0';
	nbd_uri(long_path, "v", uri);
	assert_int_equal(strlen(uri), strlen("nbd+unix:///v?socket=") + 3 * (sizeof(long_path) - 6));
}

static void limits_are_checked(void **state)
{
	struct nbd_config cfg = {.limits.pool_bytes = 4096};
	struct nbd_server *s = NULL;

	(void)state;
	assert_int_equal(nbd_server_new(&cfg, &s), -EINVAL);
	assert_null(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_status_has_an_error),
	    cmocka_unit_test(the_errors_that_matter),
	    cmocka_unit_test(pool_gives_the_lowest_run),
	    cmocka_unit_test(pool_agrees_with_a_model),
	    cmocka_unit_test(pool_gives_memory_back),
	    cmocka_unit_test(pool_without_memory),
	    cmocka_unit_test(pool_keeps_to_what_is_allowed),
	    cmocka_unit_test(uris_can_be_pasted),
	    cmocka_unit_test(limits_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
