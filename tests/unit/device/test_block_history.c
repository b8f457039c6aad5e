/* SPDX-License-Identifier: Apache-2.0 */
/* What a block may hold: the history that the model of a device is made of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/block_history.h"

static struct block_history h;
static uint64_t seq;

static int setup(void **state)
{
	(void)state;
	history_reset(&h);
	seq = 0;
	return 0;
}

static void acked(uint64_t id)
{
	history_begin(&h, BLOCK_DATA, id);
	history_ack(&h, ++seq, false);
}

static void flush(void)
{
	seq++;
	history_flush(&h, seq);
}

static bool reads(uint64_t id)
{
	struct pattern_ids ids = {0};

	for (size_t s = 0; s < PATTERN_SECTORS; s++)
		ids.sector[s] = id;
	return history_see(&h, ++seq, BLOCK_DATA, &ids);
}

/* The first half of the block is a's, the second b's. */
static bool reads_torn(uint64_t a, uint64_t b)
{
	struct pattern_ids ids = {0};

	for (size_t s = 0; s < PATTERN_SECTORS; s++)
		ids.sector[s] = s < PATTERN_SECTORS / 2 ? a : b;
	return history_see(&h, ++seq, BLOCK_DATA, &ids);
}

static bool is(enum block_state state)
{
	return history_see(&h, ++seq, state, NULL);
}

static void without_a_crash_only_the_last_version_is_there(void **state)
{
	(void)state;
	assert_true(is(BLOCK_HOLE));
	assert_false(is(BLOCK_DATA));
	acked(1);
	acked(2);
	assert_false(reads(1));
	assert_false(is(BLOCK_HOLE));
	assert_true(reads(2));
	assert_int_equal(history_present(&h), 1);
}

static void a_kill_loses_nothing_that_was_acknowledged(void **state)
{
	(void)state;
	acked(1);
	history_begin(&h, BLOCK_DATA, 2);
	history_kill(&h);
	assert_false(is(BLOCK_HOLE));
	assert_int_equal(history_present(&h), 1);
	assert_true(reads(2));
	assert_false(reads(1)); /* it was decided */
}

static void a_kill_decides_once(void **state)
{
	(void)state;
	acked(1);
	history_begin(&h, BLOCK_DATA, 2);
	history_kill(&h);
	assert_true(reads(1));
	assert_false(reads(2));
	history_lose(&h);
	assert_false(reads(2));
	assert_true(is(BLOCK_HOLE));
}

static void power_loss_goes_back_to_what_was_flushed_at_most(void **state)
{
	(void)state;
	acked(1);
	acked(2);
	flush();
	acked(3);
	history_lose(&h);
	assert_false(reads(1));
	assert_false(is(BLOCK_HOLE));
	assert_true(reads(2));
	history_lose(&h);
	assert_false(reads(3)); /* what was read after the loss lasts */
	assert_true(reads(2));
}

static void a_flush_does_not_cover_what_came_later(void **state)
{
	uint64_t at;

	(void)state;
	acked(1);
	at = ++seq;
	acked(2);
	history_flush(&h, at);
	history_lose(&h);
	assert_false(is(BLOCK_HOLE));
	assert_true(reads(1));
}

static void a_stable_write_needs_no_flush(void **state)
{
	(void)state;
	acked(1);
	history_begin(&h, BLOCK_DATA, 2);
	history_ack(&h, ++seq, true);
	history_lose(&h);
	assert_false(reads(1));
	assert_true(reads(2));
}

static void an_overwritten_block_may_be_torn_and_then_stays_so(void **state)
{
	(void)state;
	acked(1);
	flush();
	acked(2);
	history_lose(&h);
	assert_false(reads_torn(1, 3));
	assert_false(reads_torn(1, 0));
	assert_true(reads_torn(1, 2));
	assert_true(history_is_torn(&h));
	assert_false(reads(1));
	assert_false(reads_torn(2, 1));
	assert_true(reads_torn(1, 2));
}

static void a_fresh_block_is_never_torn(void **state)
{
	(void)state;
	acked(1);
	history_lose(&h);
	assert_false(reads_torn(1, 0));
	assert_true(is(BLOCK_HOLE));
	assert_false(reads(1));
}

static void a_status_narrows_what_a_read_may_find(void **state)
{
	(void)state;
	acked(1);
	acked(2);
	history_lose(&h);
	assert_true(is(BLOCK_DATA));
	assert_false(is(BLOCK_HOLE));
	assert_int_equal(history_present(&h), 1);
	assert_true(reads(1));
	assert_false(reads(2));
}

static void a_failed_write_is_old_new_or_bad(void **state)
{
	(void)state;
	for (int what = 0; what < 3; what++) {
		setup(NULL);
		acked(1);
		history_begin(&h, BLOCK_DATA, 2);
		history_doubt(&h, true);
		assert_false(is(BLOCK_HOLE));
		if (what == 2)
			assert_true(is(BLOCK_BAD));
		else
			assert_true(reads(what == 0 ? 1 : 2));
		assert_int_equal(is(BLOCK_BAD), what == 2);
	}
}

static void what_was_refused_did_not_happen(void **state)
{
	(void)state;
	acked(1);
	history_begin(&h, BLOCK_HOLE, 0);
	history_cancel(&h);
	assert_false(is(BLOCK_HOLE));
	assert_true(reads(1));
}

static void two_losses_keep_what_the_first_left_open(void **state)
{
	(void)state;
	acked(1);
	flush();
	acked(2);
	history_lose(&h);
	acked(3); /* over 1 or 2: nobody looked */
	assert_false(reads(2));
	history_lose(&h);
	assert_true(reads_torn(2, 3));
}

static void a_flush_after_a_loss_does_not_know_which(void **state)
{
	(void)state;
	acked(1);
	flush();
	acked(2);
	history_lose(&h);
	flush();
	assert_true(reads(1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(without_a_crash_only_the_last_version_is_there, setup),
	    cmocka_unit_test_setup(a_kill_loses_nothing_that_was_acknowledged, setup),
	    cmocka_unit_test_setup(a_kill_decides_once, setup),
	    cmocka_unit_test_setup(power_loss_goes_back_to_what_was_flushed_at_most, setup),
	    cmocka_unit_test_setup(a_flush_does_not_cover_what_came_later, setup),
	    cmocka_unit_test_setup(a_stable_write_needs_no_flush, setup),
	    cmocka_unit_test_setup(an_overwritten_block_may_be_torn_and_then_stays_so, setup),
	    cmocka_unit_test_setup(a_fresh_block_is_never_torn, setup),
	    cmocka_unit_test_setup(a_status_narrows_what_a_read_may_find, setup),
	    cmocka_unit_test_setup(a_failed_write_is_old_new_or_bad, setup),
	    cmocka_unit_test_setup(what_was_refused_did_not_happen, setup),
	    cmocka_unit_test_setup(two_losses_keep_what_the_first_left_open, setup),
	    cmocka_unit_test_setup(a_flush_after_a_loss_does_not_know_which, setup),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	history_reset(&h);
	return failed;
}
