/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/check.h"
#include "src/model/ids.h"

static void names_are_judged(void **state)
{
	static const char *const good[] = {"a",	    "Z",  "0",	 "vm-1", "vm_1.disk",
					   "a.b.c", "a-", "0-9", "CON"};
	static const char *const bad[] = {"",	       "-a",  ".a",  "_a",   " a",  "a b",
					  "a/b",       "a@b", "a\n", "a:b",  "a%b", "\xc3\xa9",
					  "a\xc3\xa9", "..",  "a*",  "a\"b", "a'b", "a\\b"};
	char longest[NAME_LEN_MAX + 2];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		assert_true(name_is_valid(good[i]));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (name_is_valid(bad[i]))
			fail_msg("\"%s\" is no name", bad[i]);
	memset(longest, 'x', sizeof(longest));
	longest[NAME_LEN_MAX] = '\0';
	assert_true(name_is_valid(longest));
	longest[NAME_LEN_MAX] = 'x';
	longest[NAME_LEN_MAX + 1] = '\0';
	assert_false(name_is_valid(longest));
}

static void names_are_split(void **state)
{
	static const char *const bad[] = {"", "@", "v@", "@s", "v@s@t", "-v", "v@-s", "v s"};
	char volume[NAME_LEN_MAX + 1], snapshot[NAME_LEN_MAX + 1], text[2 * NAME_LEN_MAX + 4];

	(void)state;
	assert_int_equal(name_split("vol", volume, snapshot), 0);
	assert_string_equal(volume, "vol");
	assert_string_equal(snapshot, "");
	assert_int_equal(name_split("vol.1@before-upgrade", volume, snapshot), 0);
	assert_string_equal(volume, "vol.1");
	assert_string_equal(snapshot, "before-upgrade");
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(name_split(bad[i], volume, snapshot), -EINVAL);
	assert_string_equal(volume, "vol.1"); /* untouched */
	memset(text, 'x', sizeof(text));
	text[NAME_LEN_MAX] = '@';
	text[2 * NAME_LEN_MAX + 1] = '\0';
	assert_int_equal(name_split(text, volume, snapshot), 0);
	assert_int_equal(strlen(volume), NAME_LEN_MAX);
	assert_int_equal(strlen(snapshot), NAME_LEN_MAX);
	text[2 * NAME_LEN_MAX + 1] = 'x';
	text[2 * NAME_LEN_MAX + 2] = '\0';
	assert_int_equal(name_split(text, volume, snapshot), -EINVAL);
	text[NAME_LEN_MAX] = 'x';
	assert_int_equal(name_split(text, volume, snapshot), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(names_are_judged),
	    cmocka_unit_test(names_are_split),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
