/* SPDX-License-Identifier: Apache-2.0 */
/* The timer heap against the plainest model: a list that is searched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "src/base/mem.h"
#include "src/ioe/timers.h"

enum { N = 500, STEPS = 20000 };

struct model {
	struct ioe_req req;
	bool is_set;
	uint64_t order; /* of setting */
};

static struct model *earliest(struct model *m)
{
	struct model *best = NULL;

	for (int i = 0; i < N; i++)
		if (m[i].is_set &&
		    (!best || m[i].req.deadline_ns < best->req.deadline_ns ||
		     (m[i].req.deadline_ns == best->req.deadline_ns && m[i].order < best->order)))
			best = &m[i];
	return best;
}

static void the_heap_agrees_with_a_list(void **state)
{
	struct model *m = mem_zalloc_array(N, sizeof(*m));
	struct timers t = {0};
	unsigned seed = 1;

	(void)state;
	for (uint64_t step = 1; step <= STEPS; step++) {
		struct model *x = &m[rand_r(&seed) % N], *best;

		if (!x->is_set) {
			x->req.deadline_ns = (uint64_t)(rand_r(&seed) % 1000);
			x->order = step;
			x->is_set = true;
			timers_add(&t, &x->req);
		} else if (rand_r(&seed) % 2) {
			timers_del(&t, &x->req);
			x->is_set = false;
		}
		best = earliest(m);
		assert_int_equal(timers_next_ns(&t), best ? best->req.deadline_ns : UINT64_MAX);
		if (best && rand_r(&seed) % 4 == 0) {
			if (best->req.deadline_ns > 0)
				assert_null(timers_take_due(&t, best->req.deadline_ns - 1));
			assert_ptr_equal(timers_take_due(&t, best->req.deadline_ns), &best->req);
			best->is_set = false;
		}
	}
	while (t.root) {
		struct model *best = earliest(m);

		assert_ptr_equal(timers_take_due(&t, UINT64_MAX), &best->req);
		best->is_set = false;
	}
	assert_null(earliest(m));
	assert_null(timers_take_due(&t, UINT64_MAX));
	mem_free(m);
}

/* Deadlines that only grow or only shrink make the worst shapes; taking them must neither recurse nor take quadratic time. */
static void a_hundred_thousand_in_a_row(void **state)
{
	enum { MANY = 100000 };
	struct ioe_req *r = mem_zalloc_array(MANY, sizeof(*r));
	struct timers t = {0};

	(void)state;
	for (int down = 0; down < 2; down++) {
		for (int i = 0; i < MANY; i++) {
			r[i].deadline_ns = (uint64_t)(down ? MANY - i : i + 1);
			timers_add(&t, &r[i]);
		}
		for (int i = 1; i <= MANY; i++)
			assert_int_equal(timers_take_due(&t, UINT64_MAX)->deadline_ns, i);
		assert_null(t.root);
	}
	mem_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_heap_agrees_with_a_list),
	    cmocka_unit_test(a_hundred_thousand_in_a_row),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
