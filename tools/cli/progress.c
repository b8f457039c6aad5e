/* SPDX-License-Identifier: Apache-2.0 */
/* progress.c - how far something is that takes long, on stderr: each second on a terminal, else a line now and then. */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "tools/cli/cli.h"

enum {
	SHOW_AFTER_MS = 2000, /* most things are done before that */
	SHOW_MS = 500,
	SHOW_LINE_MS = 10000,
};

uint64_t cli_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void progress_show(struct progress *p, const char *what, uint64_t done, uint64_t all)
{
	uint64_t now = cli_now_ms();
	bool terminal = isatty(STDERR_FILENO);

	if (!p->began_ms)
		p->began_ms = p->told_ms = now;
	if (!all || now - p->began_ms < SHOW_AFTER_MS ||
	    now - p->told_ms < (terminal ? (uint64_t)SHOW_MS : SHOW_LINE_MS))
		return;
	p->told_ms = now;
	p->line_open = terminal;
	fprintf(stderr, terminal ? "\r%s: %.1f %% " : "strata: %s: %.1f %%\n", what,
		100 * ((double)done / (double)all));
}

void progress_end(struct progress *p)
{
	if (p->line_open)
		fprintf(stderr, "\n");
	p->line_open = false;
}
