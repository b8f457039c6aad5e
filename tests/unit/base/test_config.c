/* SPDX-License-Identifier: Apache-2.0 */
/* Options of a daemon: flags, file, and what is said about mistakes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/check.h"
#include "src/base/config.h"
#include "src/base/mem.h"
#include "src/base/rand.h"

#define X50  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define X250 X50 X50 X50 X50 X50

static char *data, *engine;
static struct config_list api;
static bool verbose;
static uint64_t cache, timeout, depth;

static const struct config_option options[] = {
    {"data", CONFIG_STRING, &data, "DIR", .help = "where the database is", .required = true},
    {"api", CONFIG_LIST, &api, "ADDR", .help = "addresses of the REST interface"},
    {"verbose", CONFIG_FLAG, &verbose, NULL, .help = "say more"},
    {"engine", CONFIG_WORD, &engine, "NAME", .help = "I/O engine", .words = "uring|aio"},
    {"cache", CONFIG_SIZE, &cache, "SIZE", .help = "memory", .min = 4096},
    {"timeout", CONFIG_DURATION, &timeout, "TIME", .help = "patience", .min = 1000000},
    {"depth", CONFIG_NUMBER, &depth, "N", .help = "queue depth", .min = 1, .max = 1024},
};
static const struct config config = {"strata-test", "A test.", options, ARRAY_LEN(options),
				     "neighbour"};

static char path[] = "/tmp/strata-config.XXXXXX";

static int setup(void **state)
{
	(void)state;
	snprintf(path, sizeof(path), "%s", "/tmp/strata-config.XXXXXX");
	close(mkstemp(path));
	verbose = false;
	cache = timeout = depth = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	config_free(&config);
	unlink(path);
	return mem_live() != 0;
}

static void file(const char *text)
{
	FILE *f = fopen(path, "w");

	fputs(text, f);
	fclose(f);
}

static enum config_verdict parse(char errmsg[ERRMSG_LEN], const char *line)
{
	char copy[512], *argv[32] = {"strata-test"};
	int argc = 1;

	snprintf(copy, sizeof(copy), "%s", line);
	for (char *at = copy, *w; (w = strsep(&at, " "));)
		if (*w)
			argv[argc++] = w;
	return config_parse(&config, argc, argv, errmsg);
}

static void flags_are_read(void **state)
{
	char errmsg[ERRMSG_LEN];

	(void)state;
	assert_int_equal(parse(errmsg,
			       "--data /x --api a --api=b --verbose --engine aio --cache 1G "
			       "--timeout 250ms --depth 7"),
			 CONFIG_GO);
	assert_string_equal(data, "/x");
	assert_int_equal(api.n, 2);
	assert_string_equal(api.items[1], "b");
	assert_true(verbose);
	assert_string_equal(engine, "aio");
	assert_int_equal(cache, 1 << 30);
	assert_int_equal(timeout, 250000000);
	assert_int_equal(depth, 7);
}

static void the_file_is_read_and_flags_override_it(void **state)
{
	char errmsg[ERRMSG_LEN], line[128];

	(void)state;
	file("# comment\ndata = /from/file\n[neighbour]\nwhatever = 1\n[strata-test]\napi = a\napi "
	     "= b\n"
	     "cache = 8K\nverbose = yes\n");
	snprintf(line, sizeof(line), "--cache 16K --api c --config %s", path);
	assert_int_equal(parse(errmsg, line), CONFIG_GO);
	assert_string_equal(data, "/from/file");
	assert_int_equal(api.n, 1);
	assert_string_equal(api.items[0], "c");
	assert_int_equal(cache, 16384);
	assert_true(verbose);
}

static void mistakes_are_named(void **state)
{
	static const struct {
		const char *line, *text;
	} cases[] = {
	    {"", "--data DIR is missing"},
	    {"--data", "option '--data' needs a value"},
	    {"--dara x", "unknown option '--dara'"},
	    {"--data x y", "unexpected argument 'y'"},
	    {"--data x --engine epoll", "'engine' is one of uring|aio, not 'epoll'"},
	    {"--data x --engine u", "'engine' is one of"},
	    {"--data x --cache 12Q", "'cache' is a size, as 64M or 10G, not '12Q'"},
	    {"--data x --cache 1K", "out of range: '1K'; at least 4 KiB"},
	    {"--data x --depth 1025", "out of range: '1025'; from 1 to 1024"},
	    {"--data x --depth 0", "out of range"},
	    {"--data x --depth 4x", "is a number"},
	    {"--data x --cache -4K", "is a size"},
	    {"--data x --cache 99999999999999999999G", "is a size"},
	    {"--data x --data y", "option '--data' is given twice"},
	    {"--data x --config /a --config /b", "option '--config' is given twice"},
	    {"--data x --verbose=yes", "option '--verbose' takes no value"},
	    {"--verbose=yes --data x", "option '--verbose' takes no value"},
	    {"--data=", "'data' is empty"},
	    {"-xyz", "unknown option '-xyz'"},
	    {"--data x -v", "unknown option '-v'"},
	    {"--config /", "cannot be read"},
	    {"--data x --depth -1", "'depth' is a number, not '-1'"},
	    {"--data x --depth 99999999999999999999999", "is a number"},
	    {"--data x --timeout soon", "'timeout' is a duration"},
	    {"--data x --timeout 0", "out of range: '0'; at least 1ms"},
	    {"--data x --config /does/not/exist", "cannot read the configuration file"},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char errmsg[ERRMSG_LEN];

		assert_int_equal(parse(errmsg, cases[i].line), CONFIG_BAD);
		if (!strstr(errmsg, cases[i].text))
			fail_msg("'%s' gave: %s", cases[i].line, errmsg);
	}
}

static void mistakes_in_the_file_are_named_with_their_line(void **state)
{
	static const struct {
		const char *text, *expect;
	} cases[] = {
	    {"data = /x\n\ncolour = red\n", "line 3: there is no option 'colour'"},
	    {"data = /x\ncache = much\n", "line 2: 'cache' is a size"},
	    {"data = /x\nverbose = perhaps\n", "line 2: 'verbose' is yes or no"},
	    {"data = /x\nnonsense\n", "line 2: neither a section nor name = value"},
	    {"[strata-test\ndata = /x\n", "line 1: neither"},
	    {"[strata-tests]\ndata = /x\n",
	     "line 2: there is no section [strata-tests], only [strata-test] and [neighbour]"},
	    {"data = /x\ndata = /y\n", "line 2: 'data' is there twice"},
	    {"data = /x\ndepth =\n", "line 2: 'depth' is a number"},
	    {"data =\n", "line 1: 'data' is empty"},
	    {"data = /x\n; " X250 "\n", "line 2: is too long"},
	    {"data = /" X250 "\n", "line 1: is too long"},
	    {"\x7f\x45LF\xff\xfe\n", "line 1: neither"},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char errmsg[ERRMSG_LEN], line[128];

		file(cases[i].text);
		snprintf(line, sizeof(line), "--config %s", path);
		assert_int_equal(parse(errmsg, line), CONFIG_BAD);
		if (!strstr(errmsg, cases[i].expect))
			fail_msg("gave: %s", errmsg);
	}
}

/* Bytes of any kind, ten thousand lines, a device that never ends. */
static void whatever_the_file_is_it_ends_with_a_verdict(void **state)
{
	char errmsg[ERRMSG_LEN], line[128];
	struct rand rng;
	FILE *f;

	(void)state;
	assert_int_equal(parse(errmsg, "--config /dev/zero"), CONFIG_BAD);
	assert_non_null(strstr(errmsg, "line 1: holds a zero byte"));
	f = fopen(path, "w");
	for (int i = 0; i < 20000; i++)
		fputs("\n", f);
	fclose(f);
	snprintf(line, sizeof(line), "--config %s", path);
	assert_int_equal(parse(errmsg, line), CONFIG_BAD);
	assert_non_null(strstr(errmsg, "line 10001"));
	rand_seed(&rng, 3);
	for (int i = 0; i < 2000; i++) {
		static const char *const words[] = {"data", "=",    "[strata-test]", "\n",    " ",
						    ";",    "api",  "yes",	     "cache", "8K",
						    "\"",   "\xff", "verbose"};
		enum config_verdict v;

		f = fopen(path, "w");
		for (uint64_t n = rand_below(&rng, 30); n > 0; n--) {
			fputs(words[rand_below(&rng, ARRAY_LEN(words))], f);
			if (rand_percent(&rng, 10))
				fputc((int)rand_below(&rng, 256), f);
		}
		fclose(f);
		v = parse(errmsg, line);
		assert_true(v == CONFIG_GO || (v == CONFIG_BAD && errmsg[0]));
		config_free(&config);
		assert_int_equal(mem_live(), 0);
	}
}

static void help_names_every_option(void **state)
{
	char text[8192];

	(void)state;
	config_help(&config, text, sizeof(text));
	for (size_t i = 0; i < ARRAY_LEN(options); i++)
		assert_non_null(strstr(text, options[i].name));
	assert_non_null(strstr(text, "--config FILE"));
}

/* getopt answers with the index of the option, or with '?' and ':' for mistakes: no table is so long that the two mix. */
static void a_table_may_be_as_long_as_tables_may_be(void **state)
{
	enum { N = 64 };
	static uint64_t values[N];
	static char names[N][16];
	struct config_option many[N];
	struct config c = {"strata-test", "A test.", many, N, NULL};
	char errmsg[ERRMSG_LEN], name[16];

	(void)state;
	for (int i = 0; i < N; i++) {
		snprintf(names[i], sizeof(names[0]), "n%d", i);
		many[i] = (struct config_option){names[i], CONFIG_NUMBER, &values[i], "N",
						 .help = "a number"};
	}
	for (int i = 0; i < N; i++) {
		char *argv[] = {"strata-test", name, "7", NULL};

		snprintf(name, sizeof(name), "--n%d", i);
		assert_int_equal(config_parse(&c, 3, argv, errmsg), CONFIG_GO);
		assert_int_equal(values[i], 7);
	}
}

static void short_memory_is_an_error(void **state)
{
	char errmsg[ERRMSG_LEN];

	(void)state;
	for (uint64_t at = 0; at < 3; at++) {
		mem_fail_at(at, 1);
		assert_int_equal(parse(errmsg, "--data /x --api a --engine aio"), CONFIG_BAD);
		mem_fail_at(UINT64_MAX, 0);
		assert_int_equal(mem_live(), 0);
	}
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(flags_are_read),
	    T(the_file_is_read_and_flags_override_it),
	    T(mistakes_are_named),
	    T(mistakes_in_the_file_are_named_with_their_line),
	    T(whatever_the_file_is_it_ends_with_a_verdict),
	    T(help_names_every_option),
	    T(a_table_may_be_as_long_as_tables_may_be),
	    T(short_memory_is_an_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
