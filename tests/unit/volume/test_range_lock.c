/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "io-path/volume/range_lock.h"
#include "src/base/check.h"

struct taker {
	struct range_entry e;
	uint64_t seq; /* order of taking; 0: not in the lock */
	bool granted;
};

static void on_granted(struct range_entry *e)
{
	container_of(e, struct taker, e)->granted = true;
}

static bool take(struct range_lock *l, struct taker *t, uint64_t first, uint64_t last, bool excl)
{
	t->granted = range_lock_take(l, &t->e, first, last, excl, on_granted);
	return t->granted;
}

static void readers_share_and_writers_do_not(void **state)
{
	struct range_lock l;
	struct taker r1, r2, w1, r3, w2;

	(void)state;
	range_lock_init(&l);
	assert_true(take(&l, &r1, 0, 9, false));
	assert_true(take(&l, &r2, 5, 20, false));
	assert_false(take(&l, &w1, 8, 8, true));
	assert_false(take(&l, &r3, 8, 30, false)); /* not past the waiting writer */
	assert_true(take(&l, &w2, 31, 31, true));
	range_lock_release(&l, &r1.e);
	assert_false(w1.granted);
	range_lock_release(&l, &r2.e);
	assert_true(w1.granted);
	assert_false(r3.granted);
	range_lock_release(&l, &w1.e);
	assert_true(r3.granted);
	range_lock_release(&l, &r3.e);
	range_lock_release(&l, &w2.e);
	assert_int_equal(l.entries_n, 0);
	assert_null(l.root);
}

static void same_range_goes_in_order(void **state)
{
	enum { N = 100 };
	struct range_lock l;
	struct taker t[N];

	(void)state;
	range_lock_init(&l);
	for (int i = 0; i < N; i++)
		assert_int_equal(take(&l, &t[i], 7, 7, true), i == 0);
	for (int i = 0; i < N; i++) {
		assert_true(t[i].granted);
		assert_true(i + 1 == N || !t[i + 1].granted);
		range_lock_release(&l, &t[i].e);
	}
	assert_null(l.root);
}

static void trying_leaves_no_trace(void **state)
{
	struct range_lock l;
	struct taker r, w;

	(void)state;
	range_lock_init(&l);
	assert_true(take(&l, &r, 0, 9, false));
	assert_false(range_lock_try(&l, &w.e, 9, 12, true));
	assert_int_equal(l.entries_n, 1);
	assert_true(range_lock_try(&l, &w.e, 9, 12, false));
	range_lock_release(&l, &w.e);
	range_lock_release(&l, &r.e);
	assert_true(range_lock_try(&l, &w.e, 0, UINT64_MAX, true));
	range_lock_release(&l, &w.e);
	assert_null(l.root);
}

/* Against the definition: granted exactly when no earlier conflicting entry is in the lock. */
static void matches_the_definition(void **state)
{
	enum { N = 60, STEPS = 60000 };
	static struct taker t[N];
	struct range_lock l;
	uint64_t seq = 0, x = 88172645463325252ULL;

	(void)state;
	range_lock_init(&l);
	memset(t, 0, sizeof(t));
	for (int step = 0; step < STEPS; step++) {
		struct taker *p;

		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		p = &t[x % N];
		if (p->seq && p->granted) {
			p->seq = 0;
			range_lock_release(&l, &p->e);
		} else if (!p->seq) {
			uint64_t first = (x >> 8) % 200;

			p->seq = ++seq;
			take(&l, p, first, first + (x >> 20) % ((x >> 40) % 8 ? 4 : 100),
			     (x >> 30) % 2);
		}
		for (int i = 0; i < N; i++) {
			bool blocked = false;

			for (int j = 0; t[i].seq && j < N; j++)
				blocked |= t[j].seq && t[j].seq < t[i].seq &&
					   (t[i].e.exclusive || t[j].e.exclusive) &&
					   t[i].e.first <= t[j].e.last &&
					   t[j].e.first <= t[i].e.last;
			assert_true(!t[i].seq || t[i].granted == !blocked);
		}
	}
	for (bool again = true; again;) {
		again = false;
		for (int i = 0; i < N; i++)
			if (t[i].seq && t[i].granted) {
				t[i].seq = 0;
				range_lock_release(&l, &t[i].e);
				again = true;
			}
	}
	assert_null(l.root);
	assert_int_equal(l.entries_n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(readers_share_and_writers_do_not),
	    cmocka_unit_test(same_range_goes_in_order),
	    cmocka_unit_test(trying_leaves_no_trace),
	    cmocka_unit_test(matches_the_definition),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
