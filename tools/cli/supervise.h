/* SPDX-License-Identifier: Apache-2.0 */
/* supervise.h - a few child processes, kept running.
 *
 * Each child gets the write end of a pipe by `--ready-fd N` and writes one line there when it serves: "ready {...}". A child that dies is started again after
 * 100 ms, doubling up to 5 s while it keeps dying before it serves. All children end with this process (PR_SET_PDEATHSIG) and run in its process
 * group. Their pids are kept in files so that scripts find them after a restart. */
#ifndef STRATA_TOOLS_CLI_SUPERVISE_H
#define STRATA_TOOLS_CLI_SUPERVISE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { CHILD_ARGS_MAX = 48 };

struct child {
	char name[32];
	char *argv[CHILD_ARGS_MAX]; /* mem_*; the supervisor appends --ready-fd */
	int argv_n;
	char *log_path, *pid_path;
	/* the supervisor's */
	pid_t pid; /* 0: not running */
	int ready_fd;
	json_t *ready; /* what it said when it first served; NULL before */
	uint64_t started_ms, restart_at_ms, backoff_ms;
	bool serving;
	char line[4096];
	size_t line_n;
};

struct supervisor {
	struct child *children;
	int children_n;
	int signal_fd;
	bool stopping;
};

int supervisor_init(struct supervisor *s, struct child *children,
		    int children_n); /* blocks the signals it waits for */
void child_arg(struct child *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Starts the child and waits until it serves. 0, or -errno after printing what happened (with the end of its log). */
int supervisor_start(struct supervisor *s, struct child *c);
/* Runs until SIGTERM or SIGINT; then stops the children, last one first, and returns 0. -errno on failure. */
int supervisor_run(struct supervisor *s);
/* SIGTERM, up to 30 s, then SIGKILL. */
void supervisor_stop(struct supervisor *s);

#endif
