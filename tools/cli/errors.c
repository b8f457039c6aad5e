/* SPDX-License-Identifier: Apache-2.0 */
/* errors.c - what is said when a command fails: text for people, or JSON for programs. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "metadata/api/text.h"
#include "tools/cli/cli.h"

enum { MESSAGE_LEN = 2048 };

static bool as_json;

void cli_errors_as_json(bool yes)
{
	as_json = yes;
}

static void say_json(const char *code, const char *hint, const char *message)
{
	json_t *j = json_pack("{s:s, s:s, s:s}", "code", code, "message", message, "hint",
			      hint ? hint : "");

	json_dumpf(j, stderr, JSON_COMPACT);
	fprintf(stderr, "\n");
	json_decref(j);
}

static int vsay(int exit_code, const char *code, const char *hint, const char *fmt, va_list ap)
{
	char message[MESSAGE_LEN];

	vsnprintf(message, sizeof(message), fmt, ap);
	text_clean(message); /* names of files may be anything, and a long text was cut */
	if (as_json)
		say_json(code, hint, message);
	else
		fprintf(stderr, "strata: %s\n%s%s", message, hint ? hint : "",
			hint && *hint ? "\n" : "");
	return exit_code;
}

int cli_error(int exit_code, const char *code, const char *hint, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsay(exit_code, code, hint, fmt, ap);
	va_end(ap);
	return exit_code;
}

int cli_fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsay(EXIT_FAILED, "failed", NULL, fmt, ap);
	va_end(ap);
	return EXIT_FAILED;
}

int cli_usage(const struct cli *c, const char *fmt, ...)
{
	const struct cli_command *cmd = c->cmd;
	char hint[512] = "Try: strata --help";
	va_list ap;

	if (cmd)
		snprintf(hint, sizeof(hint), "usage: strata %s%s%s\nTry: strata help %s", cmd->name,
			 *cmd->usage ? " " : "", cmd->usage, cmd->name);
	va_start(ap, fmt);
	vsay(EXIT_USAGE, "invalid", hint, fmt, ap);
	va_end(ap);
	return EXIT_USAGE;
}
