/* SPDX-License-Identifier: Apache-2.0 */
/* Which journal blocks are still needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "io-path/device/pins.h"

enum { RING = 2048, STRETCH = RING / PINS_STRETCHES };

static struct pins pins;
static struct pin a, b;

static int setup(void **state)
{
	(void)state;
	pins_init(&pins, RING, 1000);
	pin_init(&a, PIN_TABLE);
	pin_init(&b, PIN_SLOTS);
	return 0;
}

static void the_tail_follows_the_oldest_pin(void **state)
{
	(void)state;
	assert_int_equal(pins_tail(&pins, 1100), 1100);
	pin_need(&pins, &a, 1100);
	pin_need(&pins, &b, 1100 + 3 * STRETCH);
	assert_true(pins_tail(&pins, 1100 + 4 * STRETCH) <= 1100);
	pin_move(&pins, &a, 0);
	assert_true(pins_tail(&pins, 1100 + 4 * STRETCH) > 1100);
	assert_true(pins_tail(&pins, 1100 + 4 * STRETCH) <= 1100 + 3 * STRETCH);
	pin_move(&pins, &b, 0);
	assert_int_equal(pins_tail(&pins, 1100 + 4 * STRETCH), 1100 + 4 * STRETCH);
}

static void an_older_need_is_kept(void **state)
{
	(void)state;
	pin_need(&pins, &a, 1200);
	pin_need(&pins, &a, 1100);
	pin_need(&pins, &a, 1300);
	assert_int_equal(a.lsn, 1100);
	pin_move(&pins, &a, 1250);
	assert_int_equal(a.lsn, 1250);
}

/* A page that was copied while blocks before its first record were still being written: the tail may be past those. */
static void a_pin_never_moves_back(void **state)
{
	(void)state;
	assert_int_equal(pins_tail(&pins, 1100), 1100);
	pin_need(&pins, &a, 1101);
	pin_move(&pins, &a, 1098);
	assert_int_equal(a.lsn, 1101);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(the_tail_follows_the_oldest_pin, setup),
	    cmocka_unit_test_setup(an_older_need_is_kept, setup),
	    cmocka_unit_test_setup(a_pin_never_moves_back, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
