/* SPDX-License-Identifier: Apache-2.0 */
/* What people read and write: sizes, durations, uuids, errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/check.h"
#include "src/base/err.h"
#include "src/base/log.h"
#include "src/base/units.h"
#include "src/base/uuid.h"

#define KIB    1024ULL
#define MIB    (1024 * KIB)
#define GIB    (1024 * MIB)
#define TIB    (1024 * GIB)
#define PIB    (1024 * TIB)
#define SECOND 1000000000ULL

static void sizes_are_parsed(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
	    {"0", 0},
	    {"1", 1},
	    {"4096", 4096},
	    {"64K", 64 * KIB},
	    {"64k", 64 * KIB},
	    {"64KiB", 64 * KIB},
	    {"64kb", 64 * KIB},
	    {"10GiB", 10 * GIB},
	    {"10gib", 10 * GIB},
	    {"1.5T", TIB + TIB / 2},
	    {"0.5K", 512},
	    {"1.500000P", PIB + PIB / 2},
	    {"512b", 512},
	    {"512B", 512},
	    {"1.0", 1},
	    {"8191P", 8191 * PIB},
	    {"7E", 7 * 1024 * PIB},
	    {"9223372036854775807", INT64_MAX},
	    {"007", 7},
	};
	static const struct {
		const char *text;
		int err;
	} bad[] = {
	    {"", -EINVAL},
	    {" 1", -EINVAL},
	    {"1 ", -EINVAL},
	    {"-1", -EINVAL},
	    {"+1", -EINVAL},
	    {"K", -EINVAL},
	    {".5K", -EINVAL},
	    {"1.", -EINVAL},
	    {"1.K", -EINVAL},
	    {"1.5", -EINVAL},
	    {"0.3K", -EINVAL},
	    {"0.000001P", -EINVAL},
	    {"1X", -EINVAL},
	    {"1KK", -EINVAL},
	    {"1Ki", -EINVAL},
	    {"1KiBB", -EINVAL},
	    {"0x10", -EINVAL},
	    {"1e3", -EINVAL},
	    {"1.0000000000K", -EINVAL},
	    {"8192P", -ERANGE},
	    {"8E", -ERANGE},
	    {"1E3", -EINVAL},
	    {"9223372036854775808", -ERANGE},
	    {"18446744073709551616", -ERANGE},
	    {"99999999999999999999999K", -ERANGE},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		uint64_t bytes = 77;
		int r = units_parse_size(good[i].text, &bytes);

		if (r || bytes != good[i].bytes)
			fail_msg("\"%s\" is %d, %llu", good[i].text, r, (unsigned long long)bytes);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		uint64_t bytes = 77;
		int r = units_parse_size(bad[i].text, &bytes);

		if (r != bad[i].err || bytes != 77)
			fail_msg("\"%s\" is %d", bad[i].text, r);
	}
}

static void sizes_are_formatted(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} rows[] = {
	    {0, "0 B"},
	    {1023, "1023 B"},
	    {KIB, "1 KiB"},
	    {KIB + 512, "1.5 KiB"},
	    {MIB - 1, "1023.9 KiB"},
	    {10 * GIB, "10 GiB"},
	    {TIB + TIB / 2, "1.5 TiB"},
	    {PIB, "1 PiB"},
	    {UINT64_MAX, "15.9 EiB"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char text[UNITS_TEXT_LEN];

		units_format_size(rows[i].bytes, text);
		assert_string_equal(text, rows[i].text);
	}
}

static void durations_are_parsed(void **state)
{
	static const struct {
		const char *text;
		uint64_t ns;
	} good[] = {{"0", 0},
		    {"5", 5 * SECOND},
		    {"1.5", SECOND + SECOND / 2},
		    {"30s", 30 * SECOND},
		    {"250ms", SECOND / 4},
		    {"10us", 10000},
		    {"5m", 300 * SECOND},
		    {"2h", 7200 * SECOND},
		    {"0.5h", 1800 * SECOND}};
	static const char *const bad[] = {"",	 "s",  "5d",	 "5 s",
					  "-1s", "5S", "1.5.5s", "0.0000001s"};
	uint64_t ns;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		assert_int_equal(units_parse_duration(good[i].text, &ns), 0);
		assert_int_equal(ns, good[i].ns);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(units_parse_duration(bad[i], &ns), -EINVAL);
	assert_int_equal(units_parse_duration("9999999999h", &ns), -ERANGE);
}

static void durations_are_formatted(void **state)
{
	static const struct {
		uint64_t ns;
		const char *text;
	} rows[] = {{0, "0ns"},
		    {1, "1ns"},
		    {1000, "1us"},
		    {1000000, "1ms"},
		    {SECOND / 4, "250ms"},
		    {SECOND, "1s"},
		    {90 * SECOND, "90s"},
		    {120 * SECOND, "2m"},
		    {7200 * SECOND, "2h"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char text[UNITS_TEXT_LEN];

		units_format_duration(rows[i].ns, text);
		assert_string_equal(text, rows[i].text);
	}
}

static void uuids_survive_text(void **state)
{
	static const char text[] = "00112233-4455-6677-8899-aabbccddeeff";
	static const char *const bad[] = {
	    "",
	    "00112233-4455-6677-8899-aabbccddeef",
	    "00112233-4455-6677-8899-aabbccddeeff0",
	    "00112233445566778899aabbccddeeff",
	    "00112233-4455-6677-8899-aabbccddeefg",
	    "0011223-34455-6677-8899-aabbccddeeff",
	    "{0112233-4455-6677-8899-aabbccddeeff",
	};
	struct uuid u, v, zero = {0};
	char back[UUID_TEXT_LEN];

	(void)state;
	assert_int_equal(uuid_parse(text, &u), 0);
	for (int i = 0; i < 16; i++)
		assert_int_equal(u.b[i], i * 0x11);
	uuid_format(&u, back);
	assert_string_equal(back, text);
	assert_int_equal(uuid_parse("00112233-4455-6677-8899-AABBCCDDEEFF", &v), 0);
	assert_true(uuid_equal(&u, &v));
	assert_false(uuid_is_zero(&u));
	assert_true(uuid_is_zero(&zero));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(uuid_parse(bad[i], &v), -EINVAL);
	assert_true(uuid_equal(&u, &v));
}

static void every_error_has_a_name_a_text_and_an_errno(void **state)
{
	(void)state;
	for (int err = ERR_FIRST_ + 1; err < ERR_END_; err++) {
		assert_int_equal(strncmp(err_name(-err), "E_", 2), 0);
		assert_true(strlen(err_text(-err)) > 3);
		assert_true(err_errno(-err) > 0 && err_errno(-err) < 134);
		assert_int_equal(err_by_name(err_name(-err)), -err);
		for (int other = ERR_FIRST_ + 1; other < err; other++)
			assert_string_not_equal(err_name(-err), err_name(-other));
	}
	assert_string_equal(err_name(-E_STALE_EPOCH), "E_STALE_EPOCH");
	assert_int_equal(err_errno(-E_IN_USE), EBUSY);
}

/* Nodes of different versions tell one another the numbers: an old one never means something else, and a new one gets the next. */
static void numbers_of_errors_stay(void **state)
{
	static const char *const names[] = {"E_STALE_EPOCH", "E_STALE_CGEN",	"E_CHECKSUM",
					    "E_BAD_BLOCK",   "E_LOST",		"E_UNFLUSHED_LOST",
					    "E_NOT_OWNER",   "E_DEVICE_FAILED", "E_DEVICE_GONE",
					    "E_FORMAT",	     "E_VERSION",	"E_FOREIGN",
					    "E_WENT_BACK",   "E_PROTOCOL",	"E_GUARD",
					    "E_FROZEN",	     "E_IN_USE",	"E_META_AWAY"};

	(void)state;
	for (int i = 0; i < (int)ARRAY_LEN(names); i++)
		assert_string_equal(err_name(-(5001 + i)), names[i]);
	assert_int_equal(ERR_END_, 5001 + ARRAY_LEN(names)); /* a new one belongs into this list */
}

static void errno_passes_through(void **state)
{
	(void)state;
	assert_string_equal(err_name(-ENOSPC), "ENOSPC");
	assert_string_equal(err_text(-ENOSPC), strerror(ENOSPC));
	assert_int_equal(err_errno(-ENOSPC), ENOSPC);
	assert_int_equal(err_by_name("ENOSPC"), -ENOSPC);
	assert_string_equal(err_name(0), "OK");
	assert_int_equal(err_errno(0), 0);
	assert_int_equal(err_by_name("OK"), 0);
	assert_int_equal(err_by_name(""), 0);
	assert_int_equal(err_by_name("E_OF_TOMORROW"), -EPROTO);
	assert_string_equal(err_name(-4000), "EUNKNOWN");
	assert_non_null(err_text(-4000));
	assert_string_equal(err_name(-ERR_END_), "EUNKNOWN");
	assert_non_null(err_text(-ERR_END_));
}

static void a_limited_line_passes_once_a_second(void **state)
{
	struct log_limit l = {0};

	(void)state;
	log_set_level(LOG_ERROR); /* the line about lines left out is not for the test's output */
	assert_true(log_limit_pass(&l, 100));
	for (uint64_t i = 0; i < 10; i++)
		assert_false(log_limit_pass(&l, 100 + i * SECOND / 10));
	assert_int_equal(l.swallowed, 10);
	assert_true(log_limit_pass(&l, 100 + SECOND));
	assert_int_equal(l.swallowed, 0);
	log_set_level(LOG_INFO);
}

/* What log_line() writes about this name. */
static void logged(const char *name, char *text, size_t room)
{
	int ends[2], kept = dup(STDERR_FILENO);
	ssize_t n;

	assert_int_equal(pipe(ends), 0);
	dup2(ends[1], STDERR_FILENO);
	log_info("a client came", "name=%s", name);
	dup2(kept, STDERR_FILENO);
	n = read(ends[0], text, room - 1);
	assert_true(n > 0);
	text[n] = '\0';
	close(ends[0]);
	close(ends[1]);
	close(kept);
}

static void a_name_cannot_forge_a_line(void **state)
{
	char text[2048];

	(void)state;
	logged("x\nerror: disk lost\r\x1b[2J", text, sizeof(text));
	assert_string_equal(text, "info: a client came name=x?error: disk lost??[2J\n");
	logged("sch\xc3\xb6n", text, sizeof(text));
	assert_string_equal(text, "info: a client came name=sch\xc3\xb6n\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(sizes_are_parsed),
	    cmocka_unit_test(sizes_are_formatted),
	    cmocka_unit_test(durations_are_parsed),
	    cmocka_unit_test(durations_are_formatted),
	    cmocka_unit_test(uuids_survive_text),
	    cmocka_unit_test(every_error_has_a_name_a_text_and_an_errno),
	    cmocka_unit_test(numbers_of_errors_stay),
	    cmocka_unit_test(errno_passes_through),
	    cmocka_unit_test(a_limited_line_passes_once_a_second),
	    cmocka_unit_test(a_name_cannot_forge_a_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
