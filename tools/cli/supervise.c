/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cli/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "src/base/check.h"
#include "src/base/mem.h"
#include "tools/cli/cli.h"

enum {
	RESTART_MS = 100,
	RESTART_MS_MAX = 5000,
	START_MS_MAX = 60000,
	STOP_MS_MAX = 30000,
	LOG_TAIL_BYTES = 2000,
};

static int child_spawn(struct child *c);
static void child_died(struct child *c, int wait_status, bool stopping);
static int wait_event(struct supervisor *s, uint64_t until_ms);

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

int supervisor_init(struct supervisor *s, struct child *children, int children_n)
{
	sigset_t set;

	*s = (struct supervisor){.children = children, .children_n = children_n};
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE,
	       SIG_IGN); /* whoever read our messages went away: no reason to take the cluster down */
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signal_fd < 0 ? -errno : 0;
}

void child_arg(struct child *c, const char *fmt, ...)
{
	va_list ap;
	char text[4096];

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	check(c->argv_n < CHILD_ARGS_MAX - 3); /* room for --ready-fd N and NULL */
	c->argv[c->argv_n] = mem_strdup(text);
	check(c->argv[c->argv_n]);
	c->argv_n++;
}

static void print_log_tail(const struct child *c)
{
	char tail[LOG_TAIL_BYTES + 1];
	int fd = open(c->log_path, O_RDONLY | O_CLOEXEC);
	off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
	ssize_t n = fd < 0 ? 0
			   : pread(fd, tail, LOG_TAIL_BYTES,
				   end > LOG_TAIL_BYTES ? end - LOG_TAIL_BYTES : 0);

	if (n > 0)
		fprintf(stderr, "the end of %s:\n%.*s", c->log_path, (int)n, tail);
	if (fd >= 0)
		close(fd);
}

static void write_pid(const struct child *c)
{
	FILE *f = fopen(c->pid_path, "we");

	if (!f)
		return; /* only a convenience for scripts */
	fprintf(f, "%d\n", (int)c->pid);
	fclose(f);
}

/* In the child: only calls that are safe after fork. */
static void __attribute__((noreturn)) child_exec(struct child *c, int ready_fd, pid_t parent)
{
	char number[16];
	sigset_t none;
	int log = open(c->log_path, O_WRONLY | O_CREAT | O_APPEND, 0600),
	    null = open("/dev/null", O_RDWR);

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (log < 0 || null < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
		_exit(126);
	snprintf(number, sizeof(number), "%d", ready_fd);
	c->argv[c->argv_n] = "--ready-fd";
	c->argv[c->argv_n + 1] = number;
	c->argv[c->argv_n + 2] = NULL;
	fcntl(ready_fd, F_SETFD, 0);
	execvp(c->argv[0], c->argv);
	dprintf(2, "cannot run %s: %s\n", c->argv[0], strerror(errno));
	_exit(127);
}

static int child_spawn(struct child *c)
{
	int ends[2];
	pid_t pid, parent = getpid();

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid == 0)
		child_exec(c, ends[1], parent);
	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		return -errno;
	}
	c->pid = pid;
	c->ready_fd = ends[0];
	c->started_ms = now_ms();
	c->serving = false;
	c->line_n = 0;
	write_pid(c);
	return 0;
}

static void close_ready(struct child *c)
{
	if (c->ready_fd >= 0)
		close(c->ready_fd);
	c->ready_fd = -1;
}

static void child_died(struct child *c, int wait_status, bool stopping)
{
	bool served = c->serving;

	close_ready(c);
	c->pid = 0;
	c->serving = false;
	if (stopping)
		return;
	if (WIFSIGNALED(wait_status))
		fprintf(stderr, "strata: %s was ended by signal %d (%s)\n", c->name,
			WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
	else
		fprintf(stderr, "strata: %s ended with exit code %d, see %s\n", c->name,
			WEXITSTATUS(wait_status), c->log_path);
	c->backoff_ms = served || !c->backoff_ms ? RESTART_MS : c->backoff_ms * 2;
	if (c->backoff_ms > RESTART_MS_MAX)
		c->backoff_ms = RESTART_MS_MAX;
	c->restart_at_ms = now_ms() + c->backoff_ms;
}

/* "ready {...}" on the pipe: the child serves. */
static void read_ready(struct child *c)
{
	ssize_t n = read(c->ready_fd, c->line + c->line_n, sizeof(c->line) - 1 - c->line_n);
	char *end;

	if (n <= 0 || c->line_n + (size_t)n == sizeof(c->line) - 1) {
		close_ready(c);
		return;
	}
	c->line_n += (size_t)n;
	c->line[c->line_n] = '\0';
	end = strchr(c->line, '\n');
	if (!end)
		return;
	*end = '\0';
	close_ready(c);
	if (strncmp(c->line, "ready", 5))
		return;
	c->serving = true;
	json_decref(c->ready);
	c->ready = json_loads(c->line + 5, 0, NULL);
	if (c->restart_at_ms)
		fprintf(stderr, "strata: %s serves again, pid %d\n", c->name, (int)c->pid);
	c->restart_at_ms = 0;
}

static void reap(struct supervisor *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (int i = 0; i < s->children_n; i++)
			if (s->children[i].pid == pid)
				child_died(&s->children[i], status, s->stopping);
}

static void read_signals(struct supervisor *s)
{
	struct signalfd_siginfo info;

	while (read(s->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		if (info.ssi_signo != SIGCHLD)
			s->stopping = true;
	reap(s);
}

/* One wait: signals, ready lines, or the time. */
static int wait_event(struct supervisor *s, uint64_t until_ms)
{
	struct pollfd fds[1 + 64];
	struct child *of[1 + 64];
	uint64_t now = now_ms();
	nfds_t n = 1;

	fds[0] = (struct pollfd){.fd = s->signal_fd, .events = POLLIN};
	for (int i = 0; i < s->children_n && n < 65; i++)
		if (s->children[i].pid && s->children[i].ready_fd >= 0) {
			of[n] = &s->children[i];
			fds[n++] = (struct pollfd){.fd = s->children[i].ready_fd, .events = POLLIN};
		}
	if (poll(fds, n,
		 until_ms == UINT64_MAX ? -1
		 : until_ms > now	? (int)(until_ms - now)
					: 0) < 0 &&
	    errno != EINTR)
		return -errno;
	for (nfds_t k = 1; k < n; k++)
		if (fds[k].revents)
			read_ready(of[k]);
	read_signals(s);
	return 0;
}

int supervisor_start(struct supervisor *s, struct child *c)
{
	uint64_t deadline = now_ms() + START_MS_MAX;
	int r;

	c->ready_fd = -1;
	r = child_spawn(c);
	if (r) {
		cli_fail("cannot start %s: %s", c->name, strerror(-r));
		return r;
	}
	while (c->pid && !c->serving && !s->stopping && now_ms() < deadline) {
		r = wait_event(s, deadline);
		if (r)
			return r;
	}
	if (c->serving)
		return 0;
	if (s->stopping)
		return -EINTR;
	cli_fail("%s did not start%s", c->name, c->pid ? " in time" : "");
	print_log_tail(c);
	return -ECHILD;
}

int supervisor_run(struct supervisor *s)
{
	while (!s->stopping) {
		uint64_t next = UINT64_MAX, now = now_ms();
		int r;

		for (int i = 0; i < s->children_n; i++) {
			struct child *c = &s->children[i];

			if (!c->pid && c->restart_at_ms <= now && child_spawn(c))
				c->restart_at_ms = now + RESTART_MS_MAX;
			if (!c->pid && c->restart_at_ms < next)
				next = c->restart_at_ms;
		}
		r = wait_event(s, next);
		if (r)
			return r;
	}
	supervisor_stop(s);
	return 0;
}

void supervisor_stop(struct supervisor *s)
{
	s->stopping = true;
	for (int i = s->children_n - 1; i >= 0; i--) {
		struct child *c = &s->children[i];
		uint64_t deadline = now_ms() + STOP_MS_MAX;

		if (c->pid)
			kill(c->pid, SIGTERM);
		while (c->pid && now_ms() < deadline)
			wait_event(s, deadline);
		if (c->pid) {
			fprintf(stderr, "strata: %s did not stop in %d s and is killed\n", c->name,
				STOP_MS_MAX / 1000);
			kill(c->pid, SIGKILL);
		}
		while (c->pid)
			wait_event(s, UINT64_MAX);
		unlink(c->pid_path);
	}
}
