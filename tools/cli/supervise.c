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
#include <unistd.h>

#include "src/base/check.h"
#include "src/base/mem.h"
#include "tools/cli/cli.h"

enum {
	RESTART_MS = 100,
	RESTART_MS_MAX = 5000,
	PATIENCE_MS =
	    30000, /* a child that is started: between two messages that it is waited for */
	STOP_NOTICE_MS = 2000, /* whoever waits longer is told for what */
	HURRY_MS_MIN = 300,    /* two signals within this time are one that came twice */
	LOG_TAIL_BYTES = 2000,
	TOLD_MS = 60000, /* a child that cannot be kept running: between two messages */
	NAMES_LEN = 256,
};

static int child_spawn(struct child *c);
static void child_died(struct child *c, int wait_status, bool stopping);
static int wait_event(struct supervisor *s, uint64_t until_ms);

/* nohup, and shells for what runs in the background, have a signal ignored that is not meant for us. */
static bool is_ignored(int signal_no)
{
	struct sigaction sa;

	return sigaction(signal_no, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN;
}

int supervisor_init(struct supervisor *s, struct child *children, int children_n)
{
	sigset_t set;

	*s = (struct supervisor){.children = children, .children_n = children_n};
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	if (!is_ignored(SIGINT))
		sigaddset(&set, SIGINT);
	if (!is_ignored(SIGHUP))
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
		return; /* scripts do not find it, and a next supervisor does not wait for it */
	fprintf(f, "%d\n", (int)c->pid);
	fclose(f);
}

/* In the child: only calls that are safe after fork. */
static void __attribute__((noreturn))
child_exec(struct child *c, int ready_fd, int log, pid_t parent)
{
	char number[16];
	sigset_t none;
	int null = open("/dev/null", O_RDWR);

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (null < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
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

static int child_fork(struct child *c, int log)
{
	pid_t pid, parent = getpid();
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid == 0)
		child_exec(c, ends[1], log, parent);
	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		return -errno;
	}
	c->pid = pid;
	c->ready_fd = ends[0];
	return 0;
}

/* What is wrong with a child is said, but not each time it is tried again. */
static bool may_tell(struct child *c)
{
	uint64_t now = cli_now_ms();

	if (c->told_ms && now - c->told_ms < TOLD_MS)
		return false;
	c->told_ms = now;
	return true;
}

static int child_spawn(struct child *c)
{
	int log = open(c->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	int r = log < 0 ? -errno : child_fork(c, log);

	c->started_ms = cli_now_ms();
	c->serving = c->refused = false;
	c->line_n = 0;
	if (log >= 0)
		close(log);
	if (!r)
		write_pid(c);
	else if (may_tell(c))
		fprintf(stderr, "strata: %s cannot be started: %s%s%s\n", c->name,
			log < 0 ? c->log_path : "", log < 0 ? ": " : "", strerror(-r));
	return r;
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
	c->serving = c->refused = false;
	if (stopping)
		return;
	if (served)
		c->told_ms = 0;
	if (!may_tell(c))
		;
	else if (WIFSIGNALED(wait_status))
		fprintf(stderr, "strata: %s was ended by signal %d (%s)\n", c->name,
			WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
	else
		fprintf(stderr, "strata: %s ended with exit code %d, see %s\n", c->name,
			WEXITSTATUS(wait_status), c->log_path);
	c->backoff_ms = served || !c->backoff_ms ? RESTART_MS : c->backoff_ms * 2;
	if (c->backoff_ms > RESTART_MS_MAX)
		c->backoff_ms = RESTART_MS_MAX;
	c->restart_at_ms = cli_now_ms() + c->backoff_ms;
}

static void take_line(struct child *c, const char *line)
{
	if (!strncmp(line, "refused ", 8)) {
		fprintf(stderr, "strata: %s is refused: %s\n", c->name, line + 8);
		c->refused = true;
		return;
	}
	close_ready(c);
	if (strncmp(line, "ready", 5))
		return;
	c->serving = true;
	c->refused = false;
	json_decref(c->ready);
	c->ready = json_loads(line + 5, 0, NULL);
	if (c->restart_at_ms)
		fprintf(stderr, "strata: %s serves again, pid %d\n", c->name, (int)c->pid);
	c->restart_at_ms = 0;
}

static void read_ready(struct child *c)
{
	ssize_t n = read(c->ready_fd, c->line + c->line_n, sizeof(c->line) - 1 - c->line_n);
	char *line = c->line, *end;

	if (n <= 0 || c->line_n + (size_t)n == sizeof(c->line) - 1) {
		close_ready(c);
		return;
	}
	c->line_n += (size_t)n;
	c->line[c->line_n] = '\0';
	while (c->ready_fd >= 0 && (end = strchr(line, '\n'))) {
		*end = '\0';
		take_line(c, line);
		line = end + 1;
	}
	c->line_n -= (size_t)(line - c->line);
	memmove(c->line, line, c->line_n + 1);
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

static void stop_asked(struct supervisor *s, uint32_t signal_no)
{
	if (!s->stopping) {
		s->stopping = true;
		s->stopping_since_ms = cli_now_ms();
	} else if (signal_no == SIGINT && cli_now_ms() - s->stopping_since_ms >= HURRY_MS_MIN) {
		s->hurry = true;
	}
}

static void read_signals(struct supervisor *s)
{
	struct signalfd_siginfo info;

	while (read(s->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		if (info.ssi_signo != SIGCHLD)
			stop_asked(s, info.ssi_signo);
	reap(s);
}

/* One wait: signals, ready lines, or the time. */
static int wait_event(struct supervisor *s, uint64_t until_ms)
{
	struct pollfd fds[1 + 64];
	struct child *of[1 + 64];
	uint64_t now = cli_now_ms();
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

/* ---- running ---------------------------------------------------------------------------------------------------------------- */

/* Starts again what has died and is due. Returns when the next one is. */
static uint64_t restart_due(struct supervisor *s, const struct child *except)
{
	uint64_t next = UINT64_MAX, now = cli_now_ms();

	for (int i = 0; i < s->children_n; i++) {
		struct child *c = &s->children[i];

		if (c->pid || c == except || !c->started_ms)
			continue;
		if (c->restart_at_ms <= now && child_spawn(c))
			c->restart_at_ms = now + RESTART_MS_MAX;
		if (!c->pid && c->restart_at_ms < next)
			next = c->restart_at_ms;
	}
	return next;
}

int child_start(struct child *c)
{
	c->ready_fd = -1;
	return child_spawn(c);
}

int supervisor_await(struct supervisor *s, struct child *c)
{
	uint64_t began = cli_now_ms(), notice = began + PATIENCE_MS;

	while (c->pid && !c->serving && !c->refused && !s->stopping) {
		uint64_t due = restart_due(s, c);
		int r = wait_event(s, due < notice ? due : notice);

		if (r)
			return r;
		if (cli_now_ms() < notice)
			continue;
		fprintf(stderr,
			"strata: %s has not begun to serve for %llu s and is waited for; what it "
			"does is in %s\n",
			c->name, (unsigned long long)(cli_now_ms() - began) / 1000, c->log_path);
		notice += PATIENCE_MS;
	}
	if (s->stopping)
		return -EINTR;
	if (c->serving || c->refused)
		return c->serving ? 0 : -EPERM;
	print_log_tail(c);
	return -ECHILD;
}

bool supervisor_look(struct supervisor *s)
{
	restart_due(s, NULL);
	return wait_event(s, 0) == 0 && !s->stopping;
}

int supervisor_wait(struct supervisor *s)
{
	int r = s->stopping ? 0 : wait_event(s, restart_due(s, NULL));

	return r ? r : s->stopping ? -EINTR : 0;
}

/* ---- the end ----------------------------------------------------------------------------------------------------------------- */

/* The names of the group's children that still run, "" when none does. */
static const char *still_run(const struct supervisor *s, int group, char text[NAMES_LEN])
{
	size_t n = 0;

	text[0] = '\0';
	for (int i = 0; i < s->children_n; i++) {
		const struct child *c = &s->children[i];

		if (c->pid && c->stop_group == group && n < NAMES_LEN)
			n += (size_t)snprintf(text + n, NAMES_LEN - n, "%s%s", n ? ", " : "",
					      c->name);
	}
	return text;
}

static void tell_group(struct supervisor *s, int group, int signal_no)
{
	for (int i = 0; i < s->children_n; i++)
		if (s->children[i].pid && s->children[i].stop_group == group)
			kill(s->children[i].pid, signal_no);
}

/* Waits until all of the group have ended (true), the time is over or, where that counts, somebody is in a hurry. */
static bool group_ended(struct supervisor *s, int group, uint64_t deadline_ms, bool may_hurry)
{
	char names[NAMES_LEN];

	while (*still_run(s, group, names) && cli_now_ms() < deadline_ms && !(may_hurry && s->hurry))
		if (wait_event(s, deadline_ms))
			break;
	return !*still_run(s, group, names);
}

static void stop_group(struct supervisor *s, int group)
{
	uint64_t began = cli_now_ms();
	char names[NAMES_LEN];

	tell_group(s, group, SIGTERM);
	if (group_ended(s, group, began + STOP_NOTICE_MS, true))
		return;
	if (!s->hurry) {
		fprintf(stderr,
			"strata: waiting up to %d s for %s to end; Ctrl-C (SIGINT) ends that, and "
			"loses nothing that was acknowledged\n",
			SUPERVISOR_STOP_MS / 1000, still_run(s, group, names));
		if (group_ended(s, group, began + SUPERVISOR_STOP_MS, true))
			return;
	}
	still_run(s, group, names);
	if (s->hurry)
		fprintf(stderr, "strata: not waiting for %s: killed\n", names);
	else
		fprintf(stderr, "strata: %s did not end within %d s: killed\n", names,
			SUPERVISOR_STOP_MS / 1000);
	tell_group(s, group, SIGKILL);
	if (!group_ended(s, group, cli_now_ms() + SUPERVISOR_KILL_MS, false))
		fprintf(stderr,
			"strata: %s cannot even be killed: it waits for a disk or filesystem that "
			"does not answer (see the kernel's log)\n",
			still_run(s, group, names));
}

void supervisor_stop(struct supervisor *s)
{
	int last = 0;

	if (!s->stopping)
		stop_asked(s, SIGTERM);
	for (int i = 0; i < s->children_n; i++)
		if (s->children[i].stop_group > last)
			last = s->children[i].stop_group;
	for (int group = last; group >= 0; group--)
		stop_group(s, group);
	for (int i = 0; i < s->children_n; i++)
		if (!s->children[i].pid)
			unlink(s->children[i].pid_path);
}
