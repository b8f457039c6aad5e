/* SPDX-License-Identifier: Apache-2.0 */
/* outlive.c - children of a supervisor that was killed. They were told to end when it died, which may take them a while, and hold the database and the
 * devices until then: the next supervisor waits for them before it starts its own. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "src/base/check.h"
#include "tools/cli/cli.h"
#include "tools/cli/supervise.h"

static ssize_t read_proc(pid_t pid, const char *name, char *text, size_t room)
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, room - 1);
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* What follows "--data" in `n` bytes of arguments; "" when nothing does. */
static const char *data_of(const char *args, ssize_t n)
{
	for (const char *at = args; at < args + n; at += strlen(at) + 1)
		if (!strcmp(at, "--data") && at + strlen(at) + 1 < args + n)
			return at + strlen(at) + 1;
	return "";
}

/* Is that process this child, or somebody else who got its number? One that is about to be gone has no arguments any more, only a name. */
static bool is_child(const struct child *c, pid_t pid)
{
	char args[8192], name[64];
	ssize_t n = read_proc(pid, "cmdline", args, sizeof(args));

	if (n <= 0)
		return read_proc(pid, "comm", name, sizeof(name)) > 1 &&
		       !strncmp(name, base_name(c->argv[0]), strcspn(name, "\n"));
	if (strcmp(base_name(args), base_name(c->argv[0])))
		return false;
	for (int i = 0; i + 1 < c->argv_n; i++)
		if (!strcmp(c->argv[i], "--data"))
			return !strcmp(data_of(args, n), c->argv[i + 1]);
	return false;
}

/* The process of an earlier supervisor, as a descriptor that no other process can take over; -1: it has ended. */
static int find_left(const struct child *c, int *ret_pid)
{
	FILE *f = fopen(c->pid_path, "re");
	int pid = 0, fd, got = f ? fscanf(f, "%d", &pid) : 0;

	if (f)
		fclose(f);
	if (got != 1 || pid <= 1)
		return -1;
	fd = pidfd_open(pid, 0);
	if (fd >= 0 && !is_child(c, pid)) {
		close(fd);
		fd = -1;
	}
	*ret_pid = pid;
	return fd;
}

static bool left_ended(struct supervisor *s, int fd, uint64_t deadline)
{
	struct pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = s->signal_fd, .events = POLLIN}};
	uint64_t now;

	while (!fds[0].revents && !s->stopping && (now = cli_now_ms()) < deadline) {
		if (poll(fds, ARRAY_LEN(fds), (int)(deadline - now)) < 0 && errno != EINTR)
			break;
		supervisor_look(s);
	}
	return fds[0].revents;
}

int supervisor_outlive(struct supervisor *s)
{
	uint64_t deadline = cli_now_ms() + SUPERVISOR_STOP_MS;

	for (int i = 0; i < s->children_n && !s->stopping; i++) {
		const struct child *c = &s->children[i];
		int pid = 0, fd = find_left(c, &pid);

		if (fd < 0)
			continue;
		fprintf(stderr, "strata: waiting for %s, pid %d, of an earlier 'strata up'\n",
			c->name, pid);
		if (!left_ended(s, fd, deadline) && !s->stopping) {
			fprintf(stderr, "strata: it did not end within %d s: killed\n",
				SUPERVISOR_STOP_MS / 1000);
			pidfd_send_signal(fd, SIGKILL, NULL, 0);
			left_ended(s, fd, cli_now_ms() + SUPERVISOR_KILL_MS);
		}
		close(fd);
	}
	return s->stopping ? -EINTR : 0;
}
