/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - finds the command in the table, parses its options, runs it.
 *
 * Global options are accepted before and after the command; "--" ends the options. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/check.h"
#include "src/base/units.h"
#include "tools/cli/cli.h"

const struct cli_option cli_global_options[] = {
    {"server", "ADDR",
     "the metadata server: unix:PATH or host:port (default: $STRATA_SERVER, else ./strata-data)"},
    {"json", NULL, "print the answer as JSON, and errors too"},
    {"timeout", "SECS", "how long to wait for an answer of the server (60)"},
    {"help", NULL, "show help"},
    {"version", NULL, "show the version"},
    {0},
};

bool cli_size(const struct cli *c, const char *what, const char *text, uint64_t max_bytes,
	      uint64_t *ret_bytes)
{
	char most[UNITS_TEXT_LEN];
	uint64_t bytes = 0;
	int r = units_parse_size(text, &bytes);

	if (r == 0 && bytes <= max_bytes) {
		*ret_bytes = bytes;
		return true;
	}
	units_format_size(max_bytes, most);
	if (r == 0 || r == -ERANGE)
		cli_usage(c, "%s: '%s' is more than %s", what, text, most);
	else
		cli_usage(c,
			  "%s: '%s' is not a size; write bytes or a binary suffix, for example "
			  "512M, 10G or 1.5T",
			  what, text);
	return false;
}

bool cli_duration(const struct cli *c, const char *what, const char *text, uint64_t min_ns)
{
	char least[UNITS_TEXT_LEN];
	uint64_t ns = 0;
	int r = units_parse_duration(text, &ns);

	units_format_duration(min_ns, least);
	if (r)
		cli_usage(c, "%s: '%s' is not a duration; write for example 500ms, 30s or 2m", what,
			  text);
	else if (ns < min_ns)
		cli_usage(c, "%s: '%s' is less than %s", what, text, least);
	return !r && ns >= min_ns;
}

bool cli_number(const struct cli *c, const char *what, const char *text, uint64_t max,
		uint64_t *ret_n)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (*text >= '0' && *text <= '9' && !*end && !errno && n <= max) {
		*ret_n = n;
		return true;
	}
	cli_usage(c, "%s: '%s' is not a number up to %llu", what, text, (unsigned long long)max);
	return false;
}

static int option_row(const struct cli *c, const char *name)
{
	for (int i = 0; i < CLI_OPTIONS_MAX && c->cmd->options[i].name; i++)
		if (!strcmp(c->cmd->options[i].name, name))
			return i;
	return -1;
}

int cli_option_values(const struct cli *c, const char *name, const char *const **ret_values)
{
	int row = option_row(c, name);

	check(row >= 0);
	*ret_values = c->given[row].values;
	return c->given[row].n;
}

const char *cli_option(const struct cli *c, const char *name)
{
	const char *const *values;
	int n = cli_option_values(c, name, &values);

	return n ? values[n - 1] : NULL;
}

/* How many words of argv (options aside) the longest matching command name takes; 0: none matches. */
static int match_command(int words_n, const char **words, const struct cli_command **ret_cmd)
{
	char joined[128];
	int best = 0;

	for (int n = 1; n <= 2 && n <= words_n; n++) {
		snprintf(joined, sizeof(joined), n == 1 ? "%s" : "%s %s", words[0],
			 n == 1 ? "" : words[1]);
		for (const struct cli_command *cmd = cli_commands; cmd->name; cmd++)
			if (!strcmp(cmd->name, joined)) {
				best = n;
				*ret_cmd = cmd;
			}
	}
	return best;
}

static bool takes_value(const struct cli_option *o)
{
	return o->arg != NULL;
}

static bool takes_many(const struct cli_option *o)
{
	return o->arg && strstr(o->arg, "...");
}

/* Which option --name is: a global one, or one of any command (what the words mean is known only once all are collected). */
static const struct cli_option *find_global(const char *name, size_t len)
{
	for (const struct cli_option *o = cli_global_options; o->name; o++)
		if (strlen(o->name) == len && !strncmp(o->name, name, len))
			return o;
	return NULL;
}

struct parse {
	struct cli *c;
	int argc;
	char **argv;
	bool help, version;
	bool given[8]; /* of the global options */
};

static bool take_global(struct parse *p, const char *name, const char *value)
{
	struct cli *c = p->c;
	uint64_t secs;

	if (!strcmp(name, "server")) {
		c->server = value;
		if (!*value) {
			cli_usage(c, "--server is empty; write host:port or unix:PATH");
			return false;
		}
	} else if (!strcmp(name, "json")) {
		c->json = true;
	} else if (!strcmp(name, "help")) {
		p->help = true;
	} else if (!strcmp(name, "version")) {
		p->version = true;
	} else {
		if (!cli_number(c, "--timeout", value, TIMEOUT_SECS_MAX, &secs))
			return false;
		if (!secs) {
			cli_usage(c, "--timeout: at least one second");
			return false;
		}
		c->timeout_secs = (long)secs;
	}
	return true;
}

/* Takes the option at argv[i]; returns how many elements it used, or -1 after printing what is wrong. */
static int take_option(struct parse *p, int i)
{
	struct cli *c = p->c;
	const char *name = p->argv[i] + 2, *eq = strchr(name, '='), *value = eq ? eq + 1 : NULL;
	size_t len = eq ? (size_t)(eq - name) : strlen(name);
	const struct cli_option *o = find_global(name, len);
	int row = -1, used = 1;

	for (int k = 0; !o && c->cmd && k < CLI_OPTIONS_MAX && c->cmd->options[k].name; k++)
		if (strlen(c->cmd->options[k].name) == len &&
		    !strncmp(c->cmd->options[k].name, name, len)) {
			o = &c->cmd->options[k];
			row = k;
		}
	if (!o) {
		cli_usage(c, "there is no option --%.*s%s%s", (int)len, name, c->cmd ? " in " : "",
			  c->cmd ? c->cmd->name : "");
		return -1;
	}
	if (takes_value(o) && !value) {
		if (i + 1 >= p->argc) {
			cli_usage(c, "--%s needs a value: %s", o->name, o->arg);
			return -1;
		}
		value = p->argv[i + 1];
		used = 2;
	} else if (!takes_value(o) && value) {
		cli_usage(c, "--%s takes no value", o->name);
		return -1;
	}
	if (row < 0 ? p->given[o - cli_global_options] : c->given[row].n && !takes_many(o)) {
		cli_usage(c, "--%s is given twice", o->name);
		return -1;
	}
	if (row < 0) {
		p->given[o - cli_global_options] = true;
		return take_global(p, o->name, value) ? used : -1;
	}
	if (c->given[row].n == CLI_REPEAT_MAX) {
		cli_usage(c, "--%s was given more than %d times", o->name, CLI_REPEAT_MAX);
		return -1;
	}
	c->given[row].values[c->given[row].n++] = value ? value : "";
	return used;
}

/* Says which commands begin with the first word, if any. */
static void no_command(const struct cli *c, int words_n, const char **words)
{
	size_t len = strlen(words[0]), n = 0;
	char list[1024] = "", hint[128];

	for (const struct cli_command *cmd = cli_commands; cmd->name; cmd++)
		if (!strncmp(cmd->name, words[0], len) && cmd->name[len] == ' ')
			n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", n ? ", " : "",
					      cmd->name);
	check(n < sizeof(list));
	snprintf(hint, sizeof(hint), "Try: strata help %.80s", words[0]);
	if (!n)
		cli_usage(c, "there is no command '%s'", words[0]);
	else if (words_n > 1)
		cli_error(EXIT_USAGE, "invalid", hint, "there is no command '%s %s'; there are %s",
			  words[0], words[1], list);
	else
		cli_error(EXIT_USAGE, "invalid", hint, "'%s' what? %s", words[0], list);
}

/* The command is the first one or two words that are not options. Only global options with a value can stand before it, so that what
 * is a word can be told without knowing the command. */
static void find_command(struct parse *p, int *ret_words)
{
	const char *words[2];
	int n = 0;

	for (int i = 1; i < p->argc && n < 2; i++) {
		const char *a = p->argv[i];

		if (!strcmp(a, "--"))
			break;
		if (!strncmp(a, "--", 2)) {
			const struct cli_option *o = find_global(a + 2, strcspn(a + 2, "="));

			if (o && takes_value(o) && !strchr(a, '='))
				i++;
			else if (!o && n)
				break;
			continue;
		}
		words[n++] = a;
	}
	*ret_words = match_command(n, words, &p->c->cmd);
	if (!*ret_words && n)
		no_command(p->c, n, words);
	else if (!*ret_words)
		*ret_words = -1;
}

/* All of it ends up in JSON sooner or later, which knows nothing else. */
static bool is_utf8(const char *text)
{
	json_t *j = json_string(text);

	json_decref(j);
	return j;
}

/* Said already when the command line itself is wrong. */
static bool wants_json(const struct parse *p)
{
	for (int i = 1; i < p->argc && strcmp(p->argv[i], "--"); i++)
		if (!strcmp(p->argv[i], "--json"))
			return true;
	return false;
}

static int parse(struct parse *p)
{
	int skip, r;
	bool literal = false;

	cli_errors_as_json(wants_json(p));
	for (int i = 1; i < p->argc; i++)
		if (!is_utf8(p->argv[i]))
			return cli_usage(p->c, "argument %d, '%s', is not UTF-8", i, p->argv[i]);
	find_command(p, &skip);
	if (skip == 0)
		return EXIT_USAGE;
	if (skip < 0)
		skip = 0;
	for (int i = 1; i < p->argc; i += r) {
		const char *a = p->argv[i];

		r = 1;
		if (!literal && !strcmp(a, "--")) {
			literal = true;
		} else if (!literal && !strcmp(a, "-h")) {
			p->help = true;
		} else if (!literal && a[0] == '-' && a[1] == '-') {
			r = take_option(p, i);
			if (r < 0)
				return EXIT_USAGE;
		} else if (!literal && a[0] == '-' && a[1]) {
			return cli_usage(p->c, "options are written with two dashes: %s", a);
		} else if (skip > 0) {
			skip--;
		} else if (p->c->args_n == CLI_ARGS_MAX) {
			return cli_usage(p->c, "too many arguments");
		} else {
			p->c->args[p->c->args_n++] = a;
		}
	}
	return EXIT_OK;
}

/* The word of the command's usage that stands for its n-th argument: "NAME --size SIZE". */
static void argument_name(const struct cli_command *cmd, int n, char *name, size_t room)
{
	const char *at = cmd->usage;
	size_t len = strcspn(at, " ");

	for (; n > 0 && at[len]; n--) {
		at += len + 1;
		len = strcspn(at, " ");
	}
	snprintf(name, room, "%.*s", (int)len, at);
}

/* What was printed has arrived: a full disk at the other end is no success. Whoever closed standard output misses nothing when nothing was said. */
static int end(int r)
{
	bool failed = ferror(stdout);

	errno = 0;
	failed = fflush(stdout) || failed;
	if (failed || (fclose(stdout) && errno != EBADF)) {
		cli_fail("cannot write to standard output%s%s", errno ? ": " : "",
			 errno ? strerror(errno) : "");
		return r ? r : EXIT_FAILED;
	}
	return r;
}

static int run(struct parse *p)
{
	struct cli *c = p->c;
	int r = parse(p);

	if (r)
		return r;
	if (p->version) {
		printf("strata %s\n", STRATA_VERSION);
		return EXIT_OK;
	}
	if (p->help || !c->cmd) {
		if (c->cmd) {
			c->args_n = 0;
			c->args[c->args_n++] = c->cmd->name;
		}
		cmd_help(c);
		return p->help ? EXIT_OK : EXIT_USAGE;
	}
	if (c->args_n < c->cmd->args_min) {
		char name[32];

		argument_name(c->cmd, c->args_n, name, sizeof(name));
		return cli_usage(c, "%s: an argument is missing: %s", c->cmd->name, name);
	}
	if (c->args_n > c->cmd->args_max)
		return cli_usage(c, "%s: there is one argument too many: '%s'", c->cmd->name,
				 c->args[c->cmd->args_max]);
	return c->cmd->run(c);
}

int main(int argc, char **argv)
{
	const char *server = getenv("STRATA_SERVER");
	struct cli c = {.server = server && *server ? server : NULL, .timeout_secs = TIMEOUT_SECS};
	struct parse p = {.c = &c, .argc = argc, .argv = argv};

	return end(run(&p));
}
