/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/config.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "src/base/check.h"
#include "src/base/math.h"
#include "src/base/mem.h"
#include "src/base/units.h"

enum { OPTIONS_MAX = 64, HELP_BYTES = 8192, HELP_COLUMN = 28, LINES_MAX = 10000 };
/* getopt's values: an index of the table is told from its '?' and ':' by OPT_FIRST */
enum { OPT_FIRST = 256, OPT_CONFIG = OPT_FIRST + OPTIONS_MAX, OPT_HELP, OPT_VERSION };

struct parse {
	const struct config *c;
	char *errmsg;
	bool given[OPTIONS_MAX]; /* by a flag: the file's does not count */
	bool in_file[OPTIONS_MAX];
	bool bad;
	/* the file */
	FILE *f;
	int line;
	const char *line_error;
};

static int flags(struct parse *p, int argc, char **argv, bool apply, const char **file);
static int file_option(void *arg, const char *section, const char *name, const char *value);
static int file_read(struct parse *p, const char *path);
static int set(struct parse *p, size_t i, const char *text);
static int required(struct parse *p);

static int bad(struct parse *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int bad(struct parse *p, const char *fmt, ...)
{
	va_list ap;

	if (!p->bad) {
		va_start(ap, fmt);
		vsnprintf(p->errmsg, ERRMSG_LEN, fmt, ap);
		va_end(ap);
	}
	p->bad = true;
	return -EINVAL;
}

/* The flags are read twice: first to find the file and to see what they set, then, after the file, to set it. */
enum config_verdict config_parse(const struct config *c, int argc, char **argv,
				 char errmsg[ERRMSG_LEN])
{
	struct parse p = {.c = c, .errmsg = errmsg};
	const char *file = NULL;
	int r;

	check(c->options_n <= OPTIONS_MAX);
	errmsg[0] = '\0';
	r = flags(&p, argc, argv, false, &file);
	if (r > 0)
		return CONFIG_DONE;
	if (r < 0 || (file && file_read(&p, file)) || flags(&p, argc, argv, true, &file) < 0 ||
	    required(&p)) {
		config_free(c);
		return CONFIG_BAD;
	}
	return CONFIG_GO;
}

static void print_help(const struct config *c)
{
	char text[HELP_BYTES];

	config_help(c, text, sizeof(text));
	fputs(text, stdout);
}

/* Or one that is known, and is none that takes a value. */
static int unknown_option(struct parse *p, const struct option *longs, const char *word)
{
	size_t n = strcspn(word, "=");

	for (; longs->name; longs++)
		if (!strncmp(word, "--", 2) && word[n] && strlen(longs->name) == n - 2 &&
		    !strncmp(longs->name, word + 2, n - 2))
			return bad(p, "option '--%s' takes no value", longs->name);
	return bad(p, "unknown option '%s'; --help lists them", word);
}

static int flag_given(struct parse *p, size_t i)
{
	if (p->given[i] && p->c->options[i].type != CONFIG_LIST)
		return bad(p, "option '--%s' is given twice", p->c->options[i].name);
	p->given[i] = true;
	return 0;
}

/* 1: answered, 0, or -EINVAL */
static int flags(struct parse *p, int argc, char **argv, bool apply, const char **file)
{
	struct option longs[OPTIONS_MAX + 4] = {{0}};
	size_t n = p->c->options_n;
	int o, r = 0;

	for (size_t i = 0; i < n; i++)
		longs[i] = (struct option){p->c->options[i].name,
					   p->c->options[i].type == CONFIG_FLAG ? no_argument
										: required_argument,
					   NULL, OPT_FIRST + (int)i};
	longs[n++] = (struct option){"config", required_argument, NULL, OPT_CONFIG};
	longs[n++] = (struct option){"help", no_argument, NULL, OPT_HELP};
	longs[n++] = (struct option){"version", no_argument, NULL, OPT_VERSION};
	optind = 0; /* begin anew */
	opterr = 0;
	while (!r && (o = getopt_long(argc, argv, ":", longs, NULL)) != -1) {
		/* among short ones, of which there are none, getopt has not moved on */
		bool is_short = o == '?' && optopt && optopt < OPT_FIRST;
		const char *word = is_short ? argv[optind] : argv[optind - 1];

		if (o == '?')
			return unknown_option(p, longs, word ? word : argv[optind - 1]);
		if (o == ':')
			return bad(p, "option '%s' needs a value", word);
		if (o == OPT_CONFIG && *file && !apply)
			return bad(p, "option '--config' is given twice");
		if (o == OPT_CONFIG) {
			*file = optarg;
		} else if (o == OPT_HELP) {
			print_help(p->c);
			return 1;
		} else if (o == OPT_VERSION) {
			printf("%s %s\n", p->c->program, STRATA_VERSION);
			return 1;
		} else if (apply) {
			r = set(p, (size_t)o - OPT_FIRST, optarg ? optarg : "yes");
		} else if (flag_given(p, (size_t)o - OPT_FIRST)) {
			return -EINVAL;
		}
	}
	if (!r && optind < argc)
		return bad(p, "unexpected argument '%s'; --help shows the usage", argv[optind]);
	return r;
}

/* ---- the file ----------------------------------------------------------------------------------------------------------- */

static int file_option(void *arg, const char *section, const char *name, const char *value)
{
	struct parse *p = arg;

	if (*section && p->c->neighbour && !strcmp(section, p->c->neighbour))
		return 1;
	if (*section && strcmp(section, p->c->program)) {
		bad(p, "there is no section [%s], only [%s]%s%s%s", section, p->c->program,
		    p->c->neighbour ? " and [" : "", p->c->neighbour ? p->c->neighbour : "",
		    p->c->neighbour ? "]" : "");
		return 0;
	}
	for (size_t i = 0; i < p->c->options_n; i++) {
		if (strcmp(name, p->c->options[i].name))
			continue;
		if (p->in_file[i] && p->c->options[i].type != CONFIG_LIST) {
			bad(p, "'%s' is there twice", name);
			return 0;
		}
		p->in_file[i] = true;
		return p->given[i] || set(p, i, value) == 0;
	}
	bad(p, "there is no option '%s'", name);
	return 0;
}

/* The library takes a line that is longer than its buffer for two, and what cannot be read for the end; so each line is looked at first. */
static char *file_line(char *to, int room, void *arg)
{
	struct parse *p = arg;
	char *got;

	if (p->line_error)
		return NULL;
	memset(to, '\n', (size_t)room); /* to see where it ends if it has zeros */
	got = fgets(to, room, p->f);
	if (!got) {
		if (ferror(p->f))
			p->line_error = "cannot be read";
		return NULL;
	}
	p->line++;
	if (p->line > LINES_MAX)
		p->line_error = "a configuration file ends before this";
	else if (memchr(to, '\0', (size_t)room) != memrchr(to, '\0', (size_t)room))
		p->line_error = "holds a zero byte: this is no text";
	else if (!strchr(to, '\n') && !feof(p->f))
		p->line_error = "is too long: at most 198 characters";
	return p->line_error ? NULL : got;
}

static int file_read(struct parse *p, const char *path)
{
	char what[ERRMSG_LEN];
	int line;

	p->f = fopen(path, "re"); /* check-calls: allow, there is no engine yet */
	if (!p->f)
		return bad(p, "cannot read the configuration file %s: %s", path, strerror(errno));
	line = ini_parse_stream(file_line, p, file_option, p);
	fclose(p->f); /* check-calls: allow */
	if (p->line_error && !p->bad)
		return bad(p, "%s, line %d: %s", path, MAX(p->line, 1), p->line_error);
	if (line == 0)
		return 0;
	if (line < 0)
		return bad(p, "memory is short while reading %s", path);
	snprintf(what, sizeof(what), "%s",
		 p->bad ? p->errmsg : "neither a section nor name = value");
	snprintf(p->errmsg, ERRMSG_LEN, "%s, line %d: %.180s", path, line, what);
	p->bad = true;
	return -EINVAL;
}

/* ---- values -------------------------------------------------------------------------------------------------------------- */

static int set_string(struct parse *p, char **value, const char *text)
{
	char *copy = mem_strdup(text);

	if (!copy)
		return bad(p, "memory is short");
	mem_free(*value);
	*value = copy;
	return 0;
}

static int set_list(struct parse *p, size_t i, const char *text)
{
	struct config_list *list = p->c->options[i].value;

	if (list->n == CONFIG_LIST_MAX)
		return bad(p, "more than %d of '%s'", CONFIG_LIST_MAX, p->c->options[i].name);
	list->items[list->n] = NULL;
	if (set_string(p, &list->items[list->n], text))
		return -EINVAL;
	list->n++;
	return 0;
}

static int set_flag(struct parse *p, const struct config_option *o, const char *text)
{
	static const char *const yes[] = {"yes", "true", "on", "1"};
	static const char *const no[] = {"no", "false", "off", "0"};

	for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
		if (!strcasecmp(text, yes[i]) || !strcasecmp(text, no[i])) {
			*(bool *)o->value = !strcasecmp(text, yes[i]);
			return 0;
		}
	}
	return bad(p, "'%s' is yes or no, not '%s'", o->name, text);
}

static int parse_number(const char *text, uint64_t *ret_n)
{
	uint64_t n = 0;

	if (!*text)
		return -EINVAL;
	for (; *text; text++) {
		if (!isdigit((unsigned char)*text))
			return -EINVAL;
		if (__builtin_mul_overflow(n, 10, &n) ||
		    __builtin_add_overflow(n, (uint64_t)(*text - '0'), &n))
			return -ERANGE;
	}
	*ret_n = n;
	return 0;
}

static void format_u64(const struct config_option *o, uint64_t v, char text[UNITS_TEXT_LEN])
{
	if (o->type == CONFIG_SIZE)
		units_format_size(v, text);
	else if (o->type == CONFIG_DURATION)
		units_format_duration(v, text);
	else
		snprintf(text, UNITS_TEXT_LEN, "%llu", (unsigned long long)v);
}

static int out_of_range(struct parse *p, const struct config_option *o, const char *text)
{
	char min[UNITS_TEXT_LEN], max[UNITS_TEXT_LEN];

	format_u64(o, o->min, min);
	format_u64(o, o->max, max);
	return bad(p, "'%s' is out of range: '%s'; %s %s%s%s", o->name, text,
		   o->max ? "from" : "at least", min, o->max ? " to " : "", o->max ? max : "");
}

static int set_u64(struct parse *p, const struct config_option *o, const char *text)
{
	static const char *const kinds[] = {[CONFIG_SIZE] = "a size, as 64M or 10G",
					    [CONFIG_DURATION] = "a duration, as 500ms or 30s",
					    [CONFIG_NUMBER] = "a number"};
	uint64_t v;
	int r;

	if (o->type == CONFIG_SIZE)
		r = units_parse_size(text, &v);
	else if (o->type == CONFIG_DURATION)
		r = units_parse_duration(text, &v);
	else
		r = parse_number(text, &v);
	if (r)
		return bad(p, "'%s' is %s, not '%s'", o->name, kinds[o->type], text);
	if (v < o->min || (o->max && v > o->max))
		return out_of_range(p, o, text);
	*(uint64_t *)o->value = v;
	return 0;
}

static int set_word(struct parse *p, const struct config_option *o, const char *text)
{
	size_t n = strlen(text);

	for (const char *w = o->words; w; w = strchr(w, '|') ? strchr(w, '|') + 1 : NULL)
		if (strcspn(w, "|") == n && n && !strncmp(w, text, n))
			return set_string(p, o->value, text);
	return bad(p, "'%s' is one of %s, not '%s'", o->name, o->words, text);
}

static int set(struct parse *p, size_t i, const char *text)
{
	const struct config_option *o = &p->c->options[i];

	if (*text && o->wrong && o->wrong(text))
		return bad(p, "'%s' is %s, not '%.100s'", o->name, o->wrong(text), text);
	switch (o->type) {
	case CONFIG_FLAG:
		return set_flag(p, o, text);
	case CONFIG_STRING:
		return *text ? set_string(p, o->value, text) : bad(p, "'%s' is empty", o->name);
	case CONFIG_LIST:
		return *text ? set_list(p, i, text) : bad(p, "'%s' is empty", o->name);
	case CONFIG_SIZE:
	case CONFIG_DURATION:
	case CONFIG_NUMBER:
		return set_u64(p, o, text);
	case CONFIG_WORD:
		return set_word(p, o, text);
	}
	check_unreachable("type of an option");
}

static int required(struct parse *p)
{
	for (size_t i = 0; i < p->c->options_n; i++) {
		const struct config_option *o = &p->c->options[i];
		bool there = true;

		if (o->type == CONFIG_STRING || o->type == CONFIG_WORD)
			there = *(char **)o->value != NULL;
		if (o->type == CONFIG_LIST)
			there = ((struct config_list *)o->value)->n > 0;
		if (o->required && !there)
			return bad(p, "--%s %s is missing: %s", o->name, o->arg, o->help);
	}
	return 0;
}

int config_list_default(struct config_list *list, char *item)
{
	if (list->n) {
		mem_free(item);
		return 0;
	}
	list->items[0] = item;
	list->n = item ? 1 : 0;
	return item ? 0 : -ENOMEM;
}

void config_free(const struct config *c)
{
	for (size_t i = 0; i < c->options_n; i++) {
		const struct config_option *o = &c->options[i];

		if (o->type == CONFIG_STRING || o->type == CONFIG_WORD) {
			mem_free(*(char **)o->value);
			*(char **)o->value = NULL;
		}
		if (o->type == CONFIG_LIST) {
			struct config_list *list = o->value;

			while (list->n)
				mem_free(list->items[--list->n]);
		}
	}
}

void config_help(const struct config *c, char *text, size_t room)
{
	size_t n = 0;
	char left[64];

#define ADD(...)                                                      \
	do {                                                          \
		int add_ = snprintf(text + n, room - n, __VA_ARGS__); \
		check(add_ >= 0 && (size_t)add_ < room - n);          \
		n += (size_t)add_;                                    \
	} while (0)
	ADD("usage: %s [OPTION]...\n%s\n\n", c->program, c->summary);
	for (size_t i = 0; i < c->options_n; i++) {
		const struct config_option *o = &c->options[i];

		snprintf(left, sizeof(left), "--%s%s%s%s", o->name, o->arg ? " " : "",
			 o->arg ? o->arg : "", o->type == CONFIG_LIST ? " ..." : "");
		ADD("  %-*s %s\n", HELP_COLUMN, left, o->help);
	}
	ADD("  %-*s %s\n", HELP_COLUMN, "--config FILE",
	    "read options from an INI file; flags override it");
	ADD("  %-*s %s\n", HELP_COLUMN, "--help", "this text");
	ADD("  %-*s %s\n", HELP_COLUMN, "--version", "the version");
#undef ADD
}
