/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/hash.h"
#include "src/base/list.h"
#include "src/base/mem.h"

/* ---- list ------------------------------------------------------------------------------------------------------------- */

struct item {
	int value;
	struct list link;
};

static int values(struct list *head, int *ret_values)
{
	int n = 0;

	list_for_each (l, head)
		ret_values[n++] = list_entry(l, struct item, link)->value;
	return n;
}

static void a_list_keeps_its_order(void **state)
{
	struct list head = LIST_INIT(head), other = LIST_INIT(other);
	struct item x[5];
	int v[5];

	(void)state;
	assert_true(list_empty(&head));
	assert_null(list_pop(&head));
	for (int i = 0; i < 5; i++) {
		x[i].value = i;
		list_init(&x[i].link);
	}
	list_push(&head, &x[1].link);
	list_push(&head, &x[2].link);
	list_push_front(&head, &x[0].link);
	list_push(&other, &x[3].link);
	list_push(&other, &x[4].link);
	list_splice(&head, &other);
	assert_true(list_empty(&other));
	list_splice(&head, &other);
	assert_int_equal(values(&head, v), 5);
	for (int i = 0; i < 5; i++)
		assert_int_equal(v[i], i);
	list_del(&x[2].link);
	list_del(&x[2].link); /* in no list: nothing happens */
	assert_true(list_empty(&x[2].link));
	assert_int_equal(values(&head, v), 4);
	assert_int_equal(v[2], 3);
	assert_ptr_equal(list_first(&head, struct item, link), &x[0]);
	assert_ptr_equal(list_pop(&head), &x[0].link);
	list_for_each_safe (l, next, &head)
		list_del(l);
	assert_true(list_empty(&head));
}

/* ---- hash ------------------------------------------------------------------------------------------------------------- */

struct entry {
	struct hnode node;
	int value;
};

static void a_table_finds_what_was_added(void **state)
{
	enum { N = 5000 };
	struct entry *e = mem_zalloc_array(N, sizeof(*e));
	struct htab t;
	uint64_t seen = 0;

	(void)state;
	assert_int_equal(htab_init(&t, 0), 0);
	assert_null(htab_find(&t, 7));
	for (uint64_t i = 0; i < N; i++)
		htab_add(&t, &e[i].node, i << 20); /* keys that differ in few bits */
	assert_int_equal(t.count, N);
	assert_true(t.mask + 1 >= N / 2); /* it grew */
	for (uint64_t i = 0; i < N; i++)
		assert_ptr_equal(htab_find(&t, i << 20), &e[i].node);
	assert_null(htab_find(&t, 1));
	for (uint64_t i = 0; i < N; i += 2)
		htab_del(&t, &e[i].node);
	htab_for_each (n, &t) {
		assert_int_equal((n->key >> 20) % 2, 1);
		seen++;
		htab_del(&t, n);
	}
	assert_int_equal(seen, N / 2);
	assert_int_equal(t.count, 0);
	htab_free(&t);
	mem_free(e);
}

static void equal_keys_live_side_by_side(void **state)
{
	struct entry e[4] = {{.value = 1}, {.value = 2}, {.value = 4}, {.value = 8}};
	struct htab t;
	int sum = 0;

	(void)state;
	assert_int_equal(htab_init(&t, 1), 0);
	for (int i = 0; i < 3; i++)
		htab_add(&t, &e[i].node, 5);
	htab_add(&t, &e[3].node, 6);
	htab_for_each_key (n, &t, 5)
		sum += container_of(n, struct entry, node)->value;
	assert_int_equal(sum, 7);
	htab_free(&t);
}

static void a_table_that_cannot_grow_still_works(void **state)
{
	enum { N = 100 };
	struct entry e[N];
	struct htab t;

	(void)state;
	mem_fail_at(0, UINT64_MAX);
	assert_int_equal(htab_init(&t, 8), -ENOMEM);
	mem_fail_at(1, UINT64_MAX);
	assert_int_equal(htab_init(&t, 8), 0);
	for (uint64_t i = 0; i < N; i++)
		htab_add(&t, &e[i].node, i);
	assert_int_equal(t.mask, 7);
	mem_fail_at(UINT64_MAX, 0);
	for (uint64_t i = 0; i < N; i++)
		assert_ptr_equal(htab_find(&t, i), &e[i].node);
	htab_free(&t);
}

static void a_table_of_impossible_size_is_refused(void **state)
{
	struct htab t;

	(void)state;
	assert_int_equal(htab_init(&t, UINT64_MAX), -ENOMEM);
	assert_int_equal(htab_init(&t, (1ULL << 63) + 1), -ENOMEM);
	assert_int_equal(htab_init(&t, 1ULL << 62), -ENOMEM);
}

static void hashes_of_bytes_tell_apart(void **state)
{
	(void)state;
	assert_true(hash_bytes("a", 1) != hash_bytes("b", 1));
	assert_true(hash_bytes("ab", 2) != hash_bytes("ba", 2));
	assert_true(hash_bytes("", 0) != hash_bytes("\0", 1));
	assert_true(hash_bytes("abc", 3) == hash_bytes("abcd", 3));
}

/* ---- check ------------------------------------------------------------------------------------------------------------ */

static void a_failed_check_ends_the_program(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	check(1 + 1 == 2);
	pid = fork();
	if (pid == 0) {
		if (!freopen("/dev/null", "w", stderr))
			_exit(1);
		check(1 + 1 == 3);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_list_keeps_its_order),
	    cmocka_unit_test(a_table_finds_what_was_added),
	    cmocka_unit_test(equal_keys_live_side_by_side),
	    cmocka_unit_test(a_table_that_cannot_grow_still_works),
	    cmocka_unit_test(a_table_of_impossible_size_is_refused),
	    cmocka_unit_test(hashes_of_bytes_tell_apart),
	    cmocka_unit_test(a_failed_check_ends_the_program),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
