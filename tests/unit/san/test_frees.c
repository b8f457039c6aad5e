/* SPDX-License-Identifier: Apache-2.0 */
/* Two-phase free: intents are told, handed out once, survive everything, and only the right answer ends them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "metadata/san/schema.h"
#include "src/base/mem.h"
#include "tests/lib/san_fixture.h"

enum { SLOTS = 3000 };

struct frees {
	struct san_fixture fx;
	device_no dev;
	struct san_volume v;
	uint64_t epoch;
	struct san_free frees[SAN_FREES_MAX];
	struct san_frees_pull pull;
	struct san_frees_done done;
};

static int setup(void **state)
{
	struct frees *f = calloc(1, sizeof(*f));

	san_fixture_init(&f->fx, STORE_MEM, 1);
	f->dev = fx_device(&f->fx, SLOTS);
	f->v = fx_volume(&f->fx, "a", SLOTS * 2);
	f->epoch = fx_open(&f->fx, "a");
	f->pull =
	    (struct san_frees_pull){.dev = f->dev, .frees = f->frees, .frees_max = SAN_FREES_MAX};
	f->done = (struct san_frees_done){.dev = f->dev, .frees = f->frees};
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct frees *f = *state;

	san_fixture_free(&f->fx);
	free(f);
	assert_int_equal(mem_live(), 0);
	return 0;
}

static void alloc(struct frees *f, uint32_t first, uint32_t n)
{
	for (; n > 0; n -= n < 1000 ? n : 1000, first += 1000)
		assert_int_equal(fx_alloc(&f->fx, &f->v, f->epoch, first, n < 1000 ? n : 1000, NULL),
				 0);
}

static void unmap(struct frees *f, uint32_t first, uint32_t n)
{
	for (uint32_t i = first; i < first + n; i++) {
		struct map_entry e = fx_lookup(&f->fx, &f->v, i);

		assert_int_equal(fx_update(&f->fx, &f->v, f->epoch, i, SAN_UNMAP,
					   e.replicas[0].cgen),
				 0);
	}
}

static uint32_t pull(struct frees *f)
{
	struct san_fixture *fx = &f->fx;

	assert_int_equal(SAN_CALL(fx, san_frees_pull, &f->pull), 0);
	return f->pull.frees_n;
}

static void done(struct frees *f, uint32_t n)
{
	struct san_fixture *fx = &f->fx;

	f->done.n = n;
	assert_int_equal(SAN_CALL(fx, san_frees_done, &f->done), 0);
}

static uint32_t freeing(struct frees *f)
{
	struct san_device d;

	assert_int_equal(san_device_get(f->fx.san, f->dev, &d), 0);
	return d.freeing_n;
}

static void settle(struct frees *f)
{
	sim_sleep(&f->fx.st.sim, 10 * 1000 * 1000);
}

/* ---- the usual way ---------------------------------------------------------------------------------------------------------- */

static void test_told_pulled_done(void **state)
{
	struct frees *f = *state;

	alloc(f, 0, 10);
	settle(f);
	assert_int_equal(f->fx.told_frees_n, 0);
	unmap(f, 3, 2);
	settle(f);
	assert_int_equal(f->fx.told_frees_n, 1); /* once, though there were two */
	assert_int_equal(f->fx.told_frees[0], f->dev);
	assert_int_equal(pull(f), 2);
	/* not handed out twice */
	unmap(f, 0, 1);
	settle(f);
	assert_int_equal(f->fx.told_frees_n, 2);
	f->pull.frees = &f->frees[2];
	assert_int_equal(pull(f), 1);
	assert_int_equal(pull(f), 0);
	fx_check(&f->fx);
	done(f, 3);
	assert_int_equal(freeing(f), 0);
	fx_check(&f->fx);
	/* an answer that comes twice */
	done(f, 3);
	fx_check(&f->fx);
	san_fixture_crash(&f->fx);
	settle(f);
	assert_int_equal(f->fx.told_frees_n, 0);
	assert_int_equal(pull(f), 0);
	fx_check(&f->fx);
}

static void test_told_again_after_restart(void **state)
{
	struct frees *f = *state;

	alloc(f, 0, 10);
	unmap(f, 0, 4);
	assert_int_equal(pull(f), 4);
	f->done.frees = &f->frees[1];
	done(f, 1);
	f->done.frees = f->frees;
	san_fixture_crash(&f->fx);
	settle(f);
	assert_int_equal(f->fx.told_frees_n, 1);
	assert_int_equal(freeing(f), 3);
	fx_check(&f->fx);
	assert_int_equal(pull(f), 3);
	done(f, 3);
	assert_int_equal(freeing(f), 0);
	fx_check(&f->fx);
}

static void test_forget(void **state)
{
	struct frees *f = *state;

	alloc(f, 0, 10);
	unmap(f, 0, 4);
	assert_int_equal(pull(f), 4);
	san_frees_forget(f->fx.san, f->dev);
	/* an answer over the lost link does not count any more */
	done(f, 4);
	assert_int_equal(freeing(f), 4);
	assert_int_equal(pull(f), 4);
	done(f, 4);
	assert_int_equal(freeing(f), 0);
	fx_check(&f->fx);
}

/* ---- what must not happen --------------------------------------------------------------------------------------------------- */

/* The slot was freed, used again and unmapped again: the answer to the first time must not end the second. */
static void test_old_answer(void **state)
{
	struct frees *f = *state;
	struct san_free old;
	uint64_t cgen;

	alloc(f, 0, SLOTS); /* all of them, so that the slot comes back */
	unmap(f, 7, 1);
	assert_int_equal(pull(f), 1);
	old = f->frees[0];
	done(f, 1);
	alloc(f, SLOTS, 1);
	unmap(f, SLOTS, 1);
	assert_int_equal(pull(f), 1);
	assert_int_equal(f->frees[0].slot, old.slot);
	cgen = f->frees[0].cgen;
	assert_true(cgen > old.cgen);
	f->frees[0].cgen = old.cgen;
	done(f, 1);
	assert_int_equal(freeing(f), 1);
	f->frees[0].cgen = cgen;
	done(f, 1);
	assert_int_equal(freeing(f), 0);
	fx_check(&f->fx);
}

/* A freed slot is not used again before that is durable. */
static void test_not_reused_in_the_same_batch(void **state)
{
	struct frees *f = *state;
	struct san_fixture *fx = &f->fx;
	struct san_map_item item;
	uint32_t chunk = SLOTS;
	struct san_alloc op = {.req.done = san_waited,
			       .volume = f->v.id,
			       .epoch = f->epoch,
			       .layer = f->v.head,
			       .chunks = &chunk,
			       .n = 1,
			       .items = &item};

	alloc(f, 0, SLOTS);
	unmap(f, 7, 1);
	assert_int_equal(pull(f), 1);
	f->done.n = 1;
	f->done.req.done = san_waited;
	san_frees_done(fx->san, &f->done);
	san_alloc(fx->san, &op);
	san_wait(fx, &op.req);
	assert_int_equal(op.req.status, -ENOSPC);
	assert_int_equal(SAN_CALL(fx, san_alloc, &op), 0);
	fx_check(fx);
}

/* Pulls and answers in flight at once, over and over: everything is freed once. */
static void test_overlapping(void **state)
{
	struct frees *f = *state;
	struct san_fixture *fx = &f->fx;
	static struct san_free first[100];
	struct san_frees_pull again = {.dev = f->dev, .frees = first, .frees_max = 100};
	uint32_t n = 0;

	alloc(f, 0, 1000);
	unmap(f, 0, 600);
	f->pull.frees_max = 50;
	assert_int_equal(pull(f), 50);
	while (f->pull.frees_n) {
		n += f->pull.frees_n;
		f->done.n = f->pull.frees_n;
		memcpy(first, f->frees, f->done.n * sizeof(first[0]));
		f->done.frees = first;
		f->done.req.done = f->pull.req.done = again.req.done = san_waited;
		san_frees_done(fx->san, &f->done);
		san_frees_pull(fx->san, &f->pull); /* may read what the done has not deleted yet */
		san_frees_pull(fx->san, &again);
		san_wait(fx, &f->pull.req);
		assert_int_equal(again.req.status, -EBUSY);
		if (f->done.req.commit == 0)
			san_wait(fx, &f->done.req);
		assert_int_equal(f->done.req.status, 0);
	}
	assert_int_equal(n, 600);
	assert_int_equal(freeing(f), 0);
	fx_check(fx);
}

/* More are out than a scan reads at once: a pull that finds nothing else must notice that it has been everywhere. */
static void test_all_are_out(void **state)
{
	struct frees *f = *state;
	struct san_fixture *fx = &f->fx;
	struct san_free more[8];
	struct san_frees_pull again = {.dev = f->dev, .frees = more, .frees_max = 8};

	alloc(f, 0, 100);
	unmap(f, 0, 100);
	assert_int_equal(pull(f), 100);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(SAN_CALL(fx, san_frees_pull, &again), 0);
		assert_int_equal(again.frees_n, 0);
	}
	alloc(f, 200, 1);
	unmap(f, 200, 1);
	assert_int_equal(SAN_CALL(fx, san_frees_pull, &again), 0);
	assert_int_equal(again.frees_n, 1);
}

/* Nor does it stay for ever with records that it cannot read. */
static void test_damaged_intents(void **state)
{
	struct frees *f = *state;
	struct san_fixture *fx = &f->fx;
	struct san_frees_pull few = {.dev = f->dev, .frees = f->frees, .frees_max = 2};

	alloc(f, 0, 10);
	unmap(f, 0, 10);
	for (uint32_t slot = 0; slot < 9; slot++) {
		struct schema_key k = schema_key_dev_32(SCHEMA_INTENT, f->dev, slot);
		struct metastore_change c = {schema_key_bytes(&k), {"bad", 3}};

		assert_int_equal(store_commit(&fx->st, NULL, 0, &c, 1, NULL), 0);
	}
	assert_int_equal(SAN_CALL(fx, san_frees_pull, &few), 0);
	assert_int_equal(few.frees_n, 1);
	assert_int_equal(SAN_CALL(fx, san_frees_pull, &few), 0);
	assert_int_equal(few.frees_n, 0);
}

static void test_limit(void **state)
{
	struct frees *f = *state;
	struct san_fixture *fx = &f->fx;

	alloc(f, 0, 2000);
	unmap(f, 0, 1500);
	assert_int_equal(pull(f), SAN_FREES_MAX);
	f->pull.frees = calloc(100, sizeof(f->frees[0]));
	f->pull.frees_max = 100;
	assert_int_equal(pull(f), 0); /* enough are out */
	fx->told_frees_n = 0;
	done(f, SAN_FREES_MAX);
	settle(f);
	assert_int_equal(fx->told_frees_n, 1);
	assert_int_equal(pull(f), 100);
	free(f->pull.frees);
	f->pull.dev = 99;
	assert_int_equal(SAN_CALL(fx, san_frees_pull, &f->pull), -ENOENT);
	f->done.dev = 99;
	assert_int_equal(SAN_CALL(fx, san_frees_done, &f->done), -ENOENT);
	fx_check(fx);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(test_told_pulled_done),
	    T(test_told_again_after_restart),
	    T(test_forget),
	    T(test_old_answer),
	    T(test_not_reused_in_the_same_batch),
	    T(test_overlapping),
	    T(test_all_are_out),
	    T(test_damaged_intents),
	    T(test_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
