/* SPDX-License-Identifier: Apache-2.0 */
/* The histories of the simulation refuse what must not be read, and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/model/ids.h"
#include "tests/sim/check_ledger.h"

enum { SECTORS = 64, AT = 3, NODE_A = 1, NODE_B = 2, PROC = 7, OTHER_PROC = 8 };

static struct ledger *h;
static uint64_t moment, last_id;

static int setup(void **state)
{
	(void)state;
	h = ledger_new(1, SECTORS, true);
	moment = last_id = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	ledger_free(h);
	return 0;
}

static struct ledger_op begin(bool zeros)
{
	struct ledger_op op = {.id = ++last_id,
			       .sector = AT,
			       .sectors_n = 1,
			       .lo = ++moment,
			       .proc = PROC,
			       .machine = NODE_A,
			       .zeros = zeros};

	ledger_begin(h, &op);
	return op;
}

static void finish(const struct ledger_op *op, enum ledger_end end)
{
	ledger_finish(h, op, end, end == LEDGER_STABLE ? 0 : 1u << NODE_A, ++moment);
}

static uint64_t written(enum ledger_end end)
{
	struct ledger_op op = begin(false);

	finish(&op, end);
	return op.id;
}

static bool reads_since(uint64_t id, uint64_t lo)
{
	uint8_t data[SECTOR_BYTES] = {0};
	uint64_t at;

	if (id)
		ledger_fill(h, id, AT, 1, data);
	ledger_oldest(h, lo);
	return ledger_read(h, AT, 1, data, lo, ++moment, &at);
}

static bool accepts(uint64_t sector, const void *data)
{
	uint64_t lo = ++moment, at;

	return ledger_read(h, sector, 1, data, lo, ++moment, &at);
}

static bool reads(uint64_t id)
{
	return reads_since(id, ++moment);
}

static void flush(uint32_t proc)
{
	uint64_t lo = ++moment;

	ledger_flushed(h, proc, lo, ++moment);
}

static void power_loss(uint32_t node)
{
	ledger_power_loss(h, node, ++moment);
}

static void what_nobody_wrote_is_refused(void **state)
{
	struct ledger *other = ledger_new(2, SECTORS, true);
	uint8_t data[SECTOR_BYTES] = {0};
	uint64_t id = written(LEDGER_DONE);

	(void)state;
	assert_true(accepts(AT + 1, data));
	memset(data, 0x55, sizeof(data));
	assert_false(accepts(AT, data));
	ledger_fill(h, id, AT + 1, 1, data); /* of another place */
	assert_false(accepts(AT, data));
	ledger_fill(other, id, AT, 1, data); /* of another volume */
	assert_false(accepts(AT, data));
	ledger_fill(h, id, AT, 1, data);
	data[300] ^= 1;
	assert_false(accepts(AT, data));
	data[300] ^= 1;
	assert_true(accepts(AT, data));
	ledger_free(other);
}

static void an_acknowledged_write_replaces_what_was(void **state)
{
	uint64_t first, second;

	(void)state;
	assert_true(reads(0));
	first = written(LEDGER_DONE);
	assert_false(reads(0));
	assert_true(reads(first));
	second = written(LEDGER_DONE);
	assert_false(reads(first));
	assert_true(reads(second));
}

static void a_write_in_flight_may_be_seen_and_then_stays(void **state)
{
	uint64_t old = written(LEDGER_DONE), early;
	struct ledger_op op = begin(false);

	(void)state;
	assert_true(reads(old));
	early = ++moment;
	assert_true(reads(op.id));
	assert_false(reads(old));
	assert_true(
	    reads_since(old, early)); /* that one was asked for before the new one was seen */
	finish(&op, LEDGER_FAILED);
	assert_true(reads(op.id));
	assert_false(reads(old));
}

static void two_at_once_may_come_in_any_order(void **state)
{
	struct ledger_op a = begin(false), b = begin(false);

	(void)state;
	finish(&b, LEDGER_DONE);
	finish(&a, LEDGER_DONE);
	assert_false(reads(0));
	assert_true(reads(b.id));
	assert_false(reads(a.id));
}

static void what_failed_may_be_there_but_not_come_later(void **state)
{
	struct ledger_op op = begin(false);
	uint64_t next;

	(void)state;
	finish(&op, LEDGER_FAILED);
	assert_true(reads(0));
	assert_false(reads(op.id)); /* it had ended before zeros were seen */
	next = written(LEDGER_DONE);
	assert_false(reads(op.id));
	assert_true(reads(next));
}

static void what_is_still_executed_may_come_late(void **state)
{
	struct ledger_op op = begin(false);
	uint64_t next = written(LEDGER_DONE);

	(void)state;
	assert_true(reads(next));
	assert_true(reads(op.id));
	finish(&op, LEDGER_FAILED);
	assert_false(reads(next));
}

static void a_trim_may_do_nothing(void **state)
{
	uint64_t old = written(LEDGER_DONE);
	struct ledger_op op = begin(true);

	(void)state;
	finish(&op, LEDGER_MAYBE);
	assert_true(reads(0));
	assert_false(reads(old));
	old = written(LEDGER_DONE);
	op = begin(true);
	finish(&op, LEDGER_MAYBE);
	assert_true(reads(old));
	assert_false(reads(0));
}

static void a_power_loss_takes_what_was_not_flushed(void **state)
{
	uint64_t first = written(LEDGER_DONE), second, third;

	(void)state;
	flush(PROC);
	second = written(LEDGER_DONE);
	third = written(LEDGER_DONE);
	assert_false(reads(second));
	power_loss(NODE_B); /* not the one that has it */
	assert_false(reads(second));
	power_loss(NODE_A);
	assert_false(reads(0)); /* that was replaced for good */
	assert_true(reads(second));
	assert_false(reads(first)); /* what was seen stays */
	assert_false(reads(third));
	power_loss(NODE_A);
	assert_true(reads(second));
}

static void a_power_loss_spares_what_is_stable(void **state)
{
	uint64_t old = written(LEDGER_DONE), stable = written(LEDGER_STABLE);

	(void)state;
	power_loss(NODE_A);
	assert_false(reads(old));
	assert_true(reads(stable));
	old = stable;
	stable = written(LEDGER_DONE);
	flush(PROC);
	power_loss(NODE_A);
	assert_false(reads(old));
	assert_true(reads(stable));
}

static void a_flush_covers_what_was_acknowledged_before_it(void **state)
{
	uint64_t old = written(LEDGER_STABLE), lo = ++moment;
	uint64_t late = written(LEDGER_DONE);

	(void)state;
	ledger_flushed(h, PROC, lo, ++moment);
	power_loss(NODE_A);
	assert_true(reads(old));
	assert_false(reads(late));
}

static void a_flush_must_tell_of_losses(void **state)
{
	uint64_t old = written(LEDGER_STABLE), lost = written(LEDGER_DONE);

	(void)state;
	power_loss(NODE_A);
	flush(PROC); /* who acknowledged it says that it is stable */
	assert_false(reads(old));
	assert_true(reads(lost));
	old = lost;
	lost = written(LEDGER_DONE);
	power_loss(NODE_A);
	flush(OTHER_PROC); /* who knows nothing of it */
	assert_true(reads(old));
	lost = written(LEDGER_DONE);
	power_loss(NODE_A);
	ledger_flush_failed(h, PROC);
	flush(PROC);
	assert_true(reads(old));
	assert_false(reads(lost));
}

static void another_machine_s_power_loss_does_not_end_what_is_in_flight(void **state)
{
	uint64_t old = written(LEDGER_STABLE);
	struct ledger_op op = begin(false);

	(void)state;
	power_loss(NODE_B);
	assert_true(reads(old));
	finish(&op, LEDGER_DONE); /* only NODE_A could have lost it */
	assert_false(reads(old));
	assert_true(reads(op.id));
	op = begin(false);
	power_loss(NODE_B);
	ledger_finish(h, &op, LEDGER_DONE, LEDGER_ALL_MACHINES, ++moment);
	assert_true(reads(old = op.id));
	op = begin(false);
	power_loss(NODE_A); /* its own: nobody executes it any more */
	assert_true(reads(old));
	assert_false(reads(op.id));
}

/* Nobody but the product knows which machine has what was written back to any of them. */
static void what_one_machine_did_not_lose_another_still_can(void **state)
{
	struct ledger_op op = begin(false);

	(void)state;
	ledger_finish(h, &op, LEDGER_DONE, LEDGER_ALL_MACHINES, ++moment);
	power_loss(NODE_A);
	assert_true(reads(op.id));
	power_loss(NODE_B);
	assert_true(reads(0));
	op = begin(false);
	finish(&op, LEDGER_DONE);
	power_loss(NODE_A);
	assert_true(reads(op.id));
	power_loss(NODE_A);
	assert_false(reads(0));
}

static void nothing_is_forgotten_too_early(void **state)
{
	uint64_t ids[200], asked = ++moment;

	(void)state;
	for (int i = 0; i < 200; i++) {
		ledger_oldest(h, asked);
		ids[i] = written(LEDGER_DONE);
	}
	for (int i = 0; i < 200; i++)
		assert_true(reads_since(ids[i], asked));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(what_nobody_wrote_is_refused),
	    TEST(an_acknowledged_write_replaces_what_was),
	    TEST(a_write_in_flight_may_be_seen_and_then_stays),
	    TEST(two_at_once_may_come_in_any_order),
	    TEST(what_failed_may_be_there_but_not_come_later),
	    TEST(what_is_still_executed_may_come_late),
	    TEST(a_trim_may_do_nothing),
	    TEST(a_power_loss_takes_what_was_not_flushed),
	    TEST(a_power_loss_spares_what_is_stable),
	    TEST(a_flush_covers_what_was_acknowledged_before_it),
	    TEST(a_flush_must_tell_of_losses),
	    TEST(another_machine_s_power_loss_does_not_end_what_is_in_flight),
	    TEST(what_one_machine_did_not_lose_another_still_can),
	    TEST(nothing_is_forgotten_too_early),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
