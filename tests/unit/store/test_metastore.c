/* SPDX-License-Identifier: Apache-2.0 */
/* The contract of the metastore, the same tests on each backend. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "src/base/math.h"
#include "src/base/mem.h"
#include "tests/lib/store_fixture.h"

/* ---- fixture -------------------------------------------------------------------------------------------------------------- */

static int setup_mem(void **state)
{
	struct store_fixture *fx = calloc(1, sizeof(*fx));

	store_fixture_init(fx, STORE_MEM, 1);
	*state = fx;
	return 0;
}

static int setup_rocksdb(void **state)
{
	struct store_fixture *fx = calloc(1, sizeof(*fx));

	store_fixture_init(fx, STORE_ROCKSDB, 1);
	*state = fx;
	return 0;
}

static int teardown(void **state)
{
	store_fixture_free(*state);
	free(*state);
	assert_int_equal(mem_live(), 0);
	return 0;
}

struct scan_wait {
	struct metastore_scan r;
	bool is_done;
	struct metastore_item items[64];
	char buf[4096];
};

static void scan_done(struct metastore_scan *r)
{
	container_of(r, struct scan_wait, r)->is_done = true;
}

static void scan(struct store_fixture *fx, struct scan_wait *w, struct metastore_bytes prefix,
		 struct metastore_bytes after, uint32_t items_max)
{
	w->r = (struct metastore_scan){.prefix = prefix,
				       .after = after,
				       .buf = w->buf,
				       .buf_max = w->r.buf_max ? w->r.buf_max : sizeof(w->buf),
				       .items = w->items,
				       .items_max = items_max,
				       .done = scan_done};
	w->is_done = false;
	metastore_scan(fx->s, &w->r);
	sim_run_until(fx->sim.w, &w->is_done);
}

static bool item_is(const struct metastore_item *i, const char *key, const char *value)
{
	return i->key.len == strlen(key) && memcmp(i->key.data, key, i->key.len) == 0 &&
	       i->value.len == strlen(value) && memcmp(i->value.data, value, i->value.len) == 0;
}

/* ---- values --------------------------------------------------------------------------------------------------------------- */

static void test_put_get_delete(void **state)
{
	struct store_fixture *fx = *state;

	assert_int_equal(store_expect(fx, "a", NULL), 0);
	assert_int_equal(store_put(fx, "a", "1"), 0);
	assert_int_equal(store_expect(fx, "a", "1"), 0);
	assert_int_equal(store_put(fx, "a", "two"), 0);
	assert_int_equal(store_expect(fx, "a", "two"), 0);
	assert_int_equal(store_put(fx, "empty", ""), 0);
	assert_int_equal(store_expect(fx, "empty", ""), 0);
	assert_int_equal(store_delete(fx, "a"), 0);
	assert_int_equal(store_delete(fx, "never there"), 0);
	assert_int_equal(store_expect(fx, "a", NULL), 0);
	assert_int_equal(metastore_last_commit(fx->s), 5);
}

static void test_everything_survives(void **state)
{
	struct store_fixture *fx = *state;

	assert_int_equal(store_put(fx, "a", "1"), 0);
	assert_int_equal(store_put(fx, "b", "2"), 0);
	assert_int_equal(store_delete(fx, "a"), 0);
	store_fixture_reopen(fx);
	assert_int_equal(metastore_last_commit(fx->s), 3);
	assert_int_equal(store_expect(fx, "a", NULL), 0);
	assert_int_equal(store_expect(fx, "b", "2"), 0);
	assert_int_equal(store_put(fx, "c", "3"), 0);
	store_fixture_crash(fx);
	assert_int_equal(metastore_last_commit(fx->s), 4);
	assert_int_equal(store_expect(fx, "c", "3"), 0);
}

static void test_limits(void **state)
{
	struct store_fixture *fx = *state;
	char *big = malloc(METASTORE_VALUE_MAX + 1);
	char key[METASTORE_KEY_MAX + 1];
	struct metastore_change c = {{key, METASTORE_KEY_MAX}, {big, METASTORE_VALUE_MAX}};
	struct metastore_change many[METASTORE_BATCH_MAX + 1];
	struct scan_wait w = {.r = {.buf_max = 8}};
	char names[METASTORE_BATCH_MAX + 1][16];

	memset(big, 'x', METASTORE_VALUE_MAX + 1);
	memset(key, 'k', sizeof(key));
	assert_int_equal(store_commit(fx, NULL, 0, &c, 1, NULL), 0);
	c.key.len++;
	assert_int_equal(store_commit(fx, NULL, 0, &c, 1, NULL), -EINVAL);
	c.key.len = 0;
	assert_int_equal(store_commit(fx, NULL, 0, &c, 1, NULL), -EINVAL);
	c.key.len = 5;
	c.value.len++;
	assert_int_equal(store_commit(fx, NULL, 0, &c, 1, NULL), -EINVAL);
	c.value.len = 1;
	key[0] = 0;
	assert_int_equal(store_commit(fx, NULL, 0, &c, 1, NULL), -EINVAL);

	for (int i = 0; i <= METASTORE_BATCH_MAX; i++) {
		snprintf(names[i], sizeof(names[i]), "m%04d", i);
		many[i] = (struct metastore_change){bytes_of(names[i]), {big, 1000}};
	}
	assert_int_equal(store_commit(fx, NULL, 0, many, METASTORE_BATCH_MAX + 1, NULL), -EINVAL);
	assert_int_equal(store_commit(fx, NULL, 0, many, METASTORE_BATCH_MAX, NULL), 0);

	/* a buffer too small for even one item, and a value longer than the buffer for it */
	scan(fx, &w, bytes_of("m"), bytes_of(NULL), 4);
	assert_int_equal(w.r.status, -EMSGSIZE);
	assert_int_equal(store_expect(fx, "m0000", "x"), -EMSGSIZE);
	free(big);
}

/* ---- guards and atomicity ------------------------------------------------------------------------------------------------- */

static void test_guards(void **state)
{
	struct store_fixture *fx = *state;
	struct metastore_guard absent = {bytes_of("a"), {NULL, 0}};
	struct metastore_guard is_1 = {bytes_of("a"), bytes_of("1")};
	struct metastore_guard is_empty = {bytes_of("e"), bytes_of("")};
	struct metastore_change to_1[] = {{bytes_of("a"), bytes_of("1")},
					  {bytes_of("b"), bytes_of("x")}};
	struct metastore_change to_2[] = {{bytes_of("a"), bytes_of("2")},
					  {bytes_of("b"), {NULL, 0}}};
	uint64_t commit = 77;

	assert_int_equal(store_commit(fx, &is_1, 1, to_2, 2, &commit), -E_GUARD);
	assert_int_equal(store_commit(fx, &absent, 1, to_1, 2, &commit), 0);
	assert_int_equal(commit, 1);
	assert_int_equal(store_commit(fx, &absent, 1, to_2, 2, NULL), -E_GUARD);
	assert_int_equal(store_expect(fx, "b", "x"), 0);
	assert_int_equal(store_commit(fx, &is_1, 1, to_2, 2, &commit), 0);
	assert_int_equal(commit, 2); /* the refused one took no number */
	assert_int_equal(store_expect(fx, "a", "2"), 0);
	assert_int_equal(store_expect(fx, "b", NULL), 0);
	/* an empty value is not an absent key */
	assert_int_equal(store_commit(fx, &is_empty, 1, NULL, 0, NULL), -E_GUARD);
	assert_int_equal(store_put(fx, "e", ""), 0);
	assert_int_equal(store_commit(fx, &is_empty, 1, NULL, 0, &commit), 0);
	assert_int_equal(commit, 4); /* a batch without changes is one all the same */
}

struct many {
	struct metastore_commit r;
	struct metastore_guard guard;
	struct metastore_change change;
	char from[16], to[16];
	uint32_t *done_n;
	uint32_t order;
};

static void many_done(struct metastore_commit *r)
{
	struct many *m = container_of(r, struct many, r);

	m->order = (*m->done_n)++;
}

/* A chain of guarded batches submitted at once: each must see the one before it, group or not. */
static void test_guards_see_earlier_batches(void **state)
{
	enum { N = 300 };
	struct store_fixture *fx = *state;
	struct many *m = calloc(N, sizeof(*m));
	uint32_t done_n = 0, value = 0;

	for (uint32_t i = 0; i < N; i++) {
		bool wrong = i % 10 == 9;
		uint32_t from = wrong ? 1000 : value++;

		snprintf(m[i].from, sizeof(m[i].from), "%u", from);
		snprintf(m[i].to, sizeof(m[i].to), "%u", from + 1);
		m[i].guard = (struct metastore_guard){bytes_of("n"),
						      from == 0 ? (struct metastore_bytes){NULL, 0}
								: bytes_of(m[i].from)};
		m[i].change = (struct metastore_change){bytes_of("n"), bytes_of(m[i].to)};
		m[i].r = (struct metastore_commit){.guards = &m[i].guard,
						   .guards_n = 1,
						   .changes = &m[i].change,
						   .changes_n = 1,
						   .done = many_done};
		m[i].done_n = &done_n;
		metastore_commit(fx->s, &m[i].r);
	}
	assert_int_equal(done_n, 0);
	while (done_n < N && sim_step(fx->sim.w))
		;
	assert_int_equal(done_n, N);
	for (uint32_t i = 0; i < N; i++) {
		assert_int_equal(m[i].order, i);
		assert_int_equal(m[i].r.status, i % 10 == 9 ? -E_GUARD : 0);
		if (i % 10 != 9)
			assert_int_equal(m[i].r.commit, i - i / 10 + 1);
	}
	assert_int_equal(store_expect(fx, "n", "270"), 0);
	free(m);
}

/* ---- scans ---------------------------------------------------------------------------------------------------------------- */

static void test_scan_pages(void **state)
{
	struct store_fixture *fx = *state;
	struct scan_wait w = {0};
	struct metastore_bytes after = {NULL, 0};
	char key[16], value[16], last[16];
	uint32_t seen = 0;

	assert_int_equal(store_put(fx, "j", "before"), 0);
	assert_int_equal(store_put(fx, "l", "behind"), 0);
	for (int i = 49; i >= 0; i--) {
		snprintf(key, sizeof(key), "k%02d", i * 2);
		snprintf(value, sizeof(value), "v%d", i * 2);
		assert_int_equal(store_put(fx, key, value), 0);
	}
	do {
		scan(fx, &w, bytes_of("k"), after, 7);
		assert_int_equal(w.r.status, 0);
		for (uint32_t i = 0; i < w.r.items_n; i++, seen++) {
			snprintf(key, sizeof(key), "k%02u", seen * 2);
			snprintf(value, sizeof(value), "v%u", seen * 2);
			assert_true(item_is(&w.items[i], key, value));
		}
		memcpy(last, w.items[w.r.items_n - 1].key.data, 3);
		after = (struct metastore_bytes){last, 3};
	} while (w.r.more);
	assert_int_equal(seen, 50);

	/* an `after` that does not exist, one before the prefix, one behind the last */
	scan(fx, &w, bytes_of("k"), bytes_of("k03"), 1);
	assert_true(item_is(&w.items[0], "k04", "v4"));
	scan(fx, &w, bytes_of("k"), bytes_of("a"), 1);
	assert_true(item_is(&w.items[0], "k00", "v0"));
	scan(fx, &w, bytes_of("k"), bytes_of("k98"), 5);
	assert_int_equal(w.r.items_n, 0);
	assert_false(w.r.more);
	/* everything: the store's own keys are not shown */
	scan(fx, &w, bytes_of(""), bytes_of(NULL), 64);
	assert_int_equal(w.r.items_n, 52);
	assert_false(w.r.more);
	assert_true(item_is(&w.items[0], "j", "before"));
	assert_true(item_is(&w.items[51], "l", "behind"));
	/* the page is as full as the buffer allows */
	w.r.buf_max = 3 * 5;
	scan(fx, &w, bytes_of("k"), bytes_of(NULL), 64);
	assert_int_equal(w.r.items_n, 3);
	assert_true(w.r.more);
}

static void test_scan_binary_prefix(void **state)
{
	struct store_fixture *fx = *state;
	static const char prefix[] = {'p', (char)0xff, (char)0xff};
	static const char key_in[] = {'p', (char)0xff, (char)0xff, 0, 1};
	static const char key_out[] = {'q'};
	struct metastore_change c[] = {{{key_in, sizeof(key_in)}, bytes_of("in")},
				       {{key_out, sizeof(key_out)}, bytes_of("out")}};
	struct scan_wait w = {0};

	assert_int_equal(store_commit(fx, NULL, 0, c, 2, NULL), 0);
	scan(fx, &w, (struct metastore_bytes){prefix, sizeof(prefix)}, bytes_of(NULL), 8);
	assert_int_equal(w.r.items_n, 1);
	assert_memory_equal(w.items[0].key.data, key_in, sizeof(key_in));
	assert_memory_equal(w.items[0].value.data, "in", 2);
}

/* ---- a model -------------------------------------------------------------------------------------------------------------- */

/* Random batches over a few keys, with reopens and crashes between, against an array. */
static void test_random_against_model(void **state)
{
	enum { KEYS = 40, ROUNDS = 400 };
	struct store_fixture *fx = *state;
	char model[KEYS][32] = {{0}}; /* "": absent */
	char keys[KEYS][16], values[8][32];
	struct metastore_change c[8];
	struct scan_wait w = {0};
	unsigned rnd = 12345;

	for (int i = 0; i < KEYS; i++)
		snprintf(keys[i], sizeof(keys[i]), "r%02d", i);
	for (int round = 0; round < ROUNDS; round++) {
		uint32_t n = 1 + (uint32_t)rand_r(&rnd) % 8;
		uint32_t at = 0;

		for (uint32_t i = 0; i < n; i++) {
			int k = rand_r(&rnd) % KEYS;
			bool delete = rand_r(&rnd) % 3 == 0;

			snprintf(values[i], sizeof(values[i]), "%d.%u", round, i);
			c[i] = (struct metastore_change){bytes_of(keys[k]),
							 bytes_of(delete ? NULL : values[i])};
			memcpy(model[k], delete ? "" : values[i], delete ? 1 : sizeof(values[i]));
		}
		assert_int_equal(store_commit(fx, NULL, 0, c, n, NULL), 0);
		if (rand_r(&rnd) % 50 == 0)
			store_fixture_reopen(fx);
		if (rand_r(&rnd) % 50 == 0)
			store_fixture_crash(fx);
		scan(fx, &w, bytes_of("r"), bytes_of(NULL), 64);
		for (int k = 0; k < KEYS; k++)
			if (model[k][0])
				assert_true(item_is(&w.items[at++], keys[k], model[k]));
		assert_int_equal(at, w.r.items_n);
		assert_int_equal(metastore_last_commit(fx->s), round + 1);
	}
}

/* ---- close ---------------------------------------------------------------------------------------------------------------- */

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

static void test_close_waits(void **state)
{
	struct store_fixture *fx = *state;
	struct many m[3] = {{.change = {bytes_of("a"), bytes_of("1")}}};
	uint32_t done_n = 0;
	bool closed = false;

	for (int i = 0; i < 3; i++) {
		m[i].change = m[0].change;
		m[i].done_n = &done_n;
		m[i].r = (struct metastore_commit){.changes = &m[i].change,
						   .changes_n = 1,
						   .done = many_done};
	}
	metastore_commit(fx->s, &m[0].r);
	metastore_commit(fx->s, &m[1].r);
	metastore_close(fx->s, set_flag, &closed);
	metastore_commit(fx->s, &m[2].r);
	assert_int_equal(done_n, 0);
	assert_false(closed);
	sim_run_until(fx->sim.w, &closed);
	assert_int_equal(done_n, 3);
	assert_int_equal(m[0].r.status, 0);
	assert_int_equal(m[1].r.status, 0);
	assert_int_equal(m[2].r.status, -ESHUTDOWN);
	fx->s = NULL;
}

#define SUITE(setup)                                                                           \
	cmocka_unit_test_setup_teardown(test_put_get_delete, setup, teardown),                 \
	    cmocka_unit_test_setup_teardown(test_everything_survives, setup, teardown),        \
	    cmocka_unit_test_setup_teardown(test_limits, setup, teardown),                     \
	    cmocka_unit_test_setup_teardown(test_guards, setup, teardown),                     \
	    cmocka_unit_test_setup_teardown(test_guards_see_earlier_batches, setup, teardown), \
	    cmocka_unit_test_setup_teardown(test_scan_pages, setup, teardown),                 \
	    cmocka_unit_test_setup_teardown(test_scan_binary_prefix, setup, teardown),         \
	    cmocka_unit_test_setup_teardown(test_random_against_model, setup, teardown),       \
	    cmocka_unit_test_setup_teardown(test_close_waits, setup, teardown)

int main(void)
{
	const struct CMUnitTest mem[] = {SUITE(setup_mem)};
	const struct CMUnitTest rocksdb[] = {SUITE(setup_rocksdb)};
	int failed = cmocka_run_group_tests_name("mem", mem, NULL, NULL);

	return failed + cmocka_run_group_tests_name("rocksdb", rocksdb, NULL, NULL);
}
