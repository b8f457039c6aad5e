/* SPDX-License-Identifier: Apache-2.0 */
/* config.h - the options of a daemon: flags, and an INI file with the same names.
 *
 * A program describes its options in one table; help text, flags and the file all follow from it. `--config FILE` names the file; what it
 * says is overridden by flags, whatever their order. In the file options stand in the section [<program>] or in none; the section of the neighbour, which one
 * file can serve too, is passed over, and any other is a mistake. A list option may be given several times; given as flags it replaces that of the file.
 *
 *   static const struct config_option options[] = {
 *           {"data", CONFIG_STRING, &data, "DIR", .help = "where the database is", .required = true},
 *           {"api", CONFIG_LIST, &api, "ADDR", .help = "..."},
 *           {"quiet", CONFIG_FLAG, &quiet, NULL, .help = "..."},
 *   };
 *
 * --help and --version are answered here. */
#ifndef STRATA_BASE_CONFIG_H
#define STRATA_BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/err.h"

enum config_type {
	CONFIG_FLAG,	 /* bool: --name, or name = yes|no */
	CONFIG_STRING,	 /* char *: mem_*; NULL when not given */
	CONFIG_LIST,	 /* struct config_list */
	CONFIG_SIZE,	 /* uint64_t, bytes: units_parse_size() */
	CONFIG_DURATION, /* uint64_t, ns: units_parse_duration() */
	CONFIG_NUMBER,	 /* uint64_t */
	CONFIG_WORD,	 /* char *: one of `words` */
};

enum { CONFIG_LIST_MAX = 64 };

struct config_list {
	char *items[CONFIG_LIST_MAX]; /* mem_* */
	uint32_t n;
};

struct config_option {
	const char *name;
	enum config_type type;
	void *value; /* where it goes; holds the default before */
	const char *arg, *help;
	const char *words; /* CONFIG_WORD: "uring|aio" */
	/* STRING and LIST: NULL when the text is well-formed, else what it should be, as "unix:PATH or HOST:PORT" */
	const char *(*wrong)(const char *text);
	uint64_t min, max; /* SIZE, DURATION, NUMBER; max 0: no limit */
	bool required;
};

struct config {
	const char *program, *summary;
	const struct config_option *options;
	size_t options_n;
	const char *neighbour; /* whose section may be in the same file; NULL: nobody's */
};

enum config_verdict {
	CONFIG_GO,
	CONFIG_DONE, /* --help or --version was answered on stdout: exit 0 */
	CONFIG_BAD,  /* errmsg says what and where: exit 2 */
};

enum config_verdict config_parse(const struct config *c, int argc, char **argv,
				 char errmsg[ERRMSG_LEN]);
/* What a list holds when nobody gave any: `item` (mem_*, taken over; NULL: -ENOMEM). */
int config_list_default(struct config_list *list, char *item);
/* Frees strings and lists, and zeroes them. */
void config_free(const struct config *c);
/* What --help prints. */
void config_help(const struct config *c, char *text, size_t room);

#endif
