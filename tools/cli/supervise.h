/* SPDX-License-Identifier: Apache-2.0 */
/* supervise.h - a few child processes, kept running.
 *
 * Each child gets the write end of a pipe by `--ready-fd N` and writes lines there: "refused TEXT" while somebody does not let it serve, as often as the reason
 * changes, and one "ready {...}" when it serves. A child that dies is started again after 100 ms, doubling up to 5 s while it keeps dying before it serves.
 * All children end with this process (PR_SET_PDEATHSIG) and run in its process group; what a terminal sends to the whole group (SIGINT, SIGHUP) they
 * leave to this process, which ends them in their order. Their pids are kept in files, so that scripts find them after a restart, and the next supervisor
 * those whose own was killed. */
#ifndef STRATA_TOOLS_CLI_SUPERVISE_H
#define STRATA_TOOLS_CLI_SUPERVISE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { CHILD_ARGS_MAX = 48 };
enum {
	SUPERVISOR_STOP_MS = 30000, /* from SIGTERM to SIGKILL */
	SUPERVISOR_KILL_MS =
	    10000, /* after SIGKILL; what lives on waits for a disk that does not answer */
};

struct child {
	char name[32];
	char *argv[CHILD_ARGS_MAX]; /* mem_*; the supervisor appends --ready-fd */
	int argv_n;
	char *log_path, *pid_path;
	int stop_group; /* those with the highest number are stopped first, those with the same together */
	/* the supervisor's */
	pid_t pid; /* 0: not running */
	int ready_fd;
	json_t *ready; /* what it said when it first served; NULL before */
	uint64_t started_ms, restart_at_ms, backoff_ms, told_ms;
	bool serving, refused;
	char line[4096]; /* of the pipe, so far */
	size_t line_n;
};

struct supervisor {
	struct child *children;
	int children_n;
	int signal_fd;
	bool stopping;
	bool hurry; /* SIGINT came once more: nobody is waited for */
	uint64_t stopping_since_ms;
};

int supervisor_init(struct supervisor *s, struct child *children,
		    int children_n); /* blocks the signals it waits for */
void child_arg(struct child *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Children of an earlier supervisor that was killed, found by their pid files: each was told to end when that one died, and is given 30 s for it, then
 * killed. 0, or -EINTR when this process is to end, too. */
int supervisor_outlive(struct supervisor *s);
/* 0, or -errno after printing why it cannot be; it is tried again as one that died. */
int child_start(struct child *c);
/* Waits, with a message now and then, until a child that was started serves: 0. -EPERM: it is refused, which was printed, and will go on asking. -ECHILD: it ended before,
 * which was printed with the end of its log. -EINTR: this process is to end. Others that die meanwhile are started again. */
int supervisor_await(struct supervisor *s, struct child *c);
/* While the caller waits for something else, about once a second: starts again what has died. False: this process is to end. */
bool supervisor_look(struct supervisor *s);
/* Waits until something has happened. 0, -EINTR when this process is to end (SIGTERM, SIGINT or SIGHUP), -errno on failure. */
int supervisor_wait(struct supervisor *s);
/* Group by group: SIGTERM to all of it, up to 30 s for them together, then SIGKILL. A second SIGINT kills what is left at once. */
void supervisor_stop(struct supervisor *s);

#endif
