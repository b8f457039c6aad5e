/* SPDX-License-Identifier: Apache-2.0 */
/* lock.c - who has a cluster's directory: the file `lock` in it is locked by `strata up`, by fsck and by restore, and holds the pid of the first. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "tools/cli/cli.h"

int cli_lock_data(const char *dir, char holder[CLI_PID_LEN])
{
	char path[PATH_MAX + 16];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/lock", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return fd;
	n = pread(fd, holder, CLI_PID_LEN - 1, 0);
	holder[n > 0 ? n : 0] = '\0';
	holder[strcspn(holder, "\n")] = '\0';
	if (!*holder)
		snprintf(holder, CLI_PID_LEN, "unknown");
	close(fd);
	return -EWOULDBLOCK;
}
