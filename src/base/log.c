/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/log.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_MAX_BYTES = 1024, LIMIT_NS = 1000000000 };

static int level_min = -1;
static uint64_t (*clock_ns)(void *arg);
static void *clock_arg;
static char name_word[32];
static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_set_level(enum log_level min)
{
	level_min = (int)min;
}

void log_set_clock(uint64_t (*wall_ns)(void *arg), void *arg)
{
	clock_ns = wall_ns;
	clock_arg = arg;
}

void log_set_name(const char *name)
{
	snprintf(name_word, sizeof(name_word), "%s ", name);
}

static void read_environment(void)
{
	const char *want = getenv("STRATA_LOG");

	level_min = LOG_INFO;
	for (int i = 0; want && i <= LOG_ERROR; i++)
		if (!strcmp(want, level_names[i]))
			level_min = i;
}

int log_limit_pass(struct log_limit *l, uint64_t now_ns)
{
	if (l->last_ns && now_ns - l->last_ns < LIMIT_NS) {
		l->swallowed++;
		return 0;
	}
	if (l->swallowed)
		log_line(LOG_INFO, "lines like the next were left out", "count=%" PRIu64,
			 l->swallowed);
	l->last_ns = now_ns ? now_ns : 1;
	l->swallowed = 0;
	return 1;
}

void log_line(enum log_level level, const char *msg, const char *fmt, ...)
{
	char line[LINE_MAX_BYTES], stamp[32] = "";
	int n;
	va_list ap;

	if (level_min < 0)
		read_environment();
	if ((int)level < level_min)
		return;
	if (clock_ns) {
		uint64_t ns = clock_ns(clock_arg);

		snprintf(stamp, sizeof(stamp), "%" PRIu64 ".%06" PRIu64 " ", ns / 1000000000,
			 ns / 1000 % 1000000);
	}
	n = snprintf(line, sizeof(line), "%s%s%s: %s%s", stamp, name_word, level_names[level], msg,
		     *fmt ? " " : "");
	if (n > 0 && (size_t)n < sizeof(line)) {
		va_start(ap, fmt);
		vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
		va_end(ap);
	}
	for (char *p = line; *p; p++)
		if (iscntrl((
			unsigned char)*p)) /* of a name that a peer chose: it must not look like a line of ours */
			*p = '?';
	fprintf(stderr, "%s\n", line); /* one call: lines of several threads do not mix */
}
