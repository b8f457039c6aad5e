/* SPDX-License-Identifier: Apache-2.0 */
/* notify.c - tells whoever started this process that it serves. */
#include "src/ioe/notify.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "src/base/log.h"

/* systemd's sd_notify(3): one datagram to $NOTIFY_SOCKET; '@' begins an abstract name. */
static void tell_systemd(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	size_t len = path ? strlen(path) : 0;
	int fd;

	if (!len || len >= sizeof(a.sun_path))
		return;
	memcpy(a.sun_path, path, len);
	if (a.sun_path[0] == '@')
		a.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&a,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		log_warn("systemd could not be told how we are", "socket=%s", path);
	close(fd);
}

static void tell_starter(int fd, const char *word, const char *text)
{
	if (fd >= 0 && dprintf(fd, "%s %s\n", word, text) < 0)
		log_warn("whoever started us could not be told how we are", "fd=%d", fd);
}

void notify_refused(int fd, const char *text)
{
	char line[512];

	snprintf(line, sizeof(line), "STATUS=refused: %s", text);
	for (char *at = line; *at; at++)
		if (*at == '\n')
			*at = ' ';
	tell_starter(fd, "refused", line + strlen("STATUS=refused: "));
	tell_systemd(line);
}

void notify_ready(int fd, const char *json)
{
	tell_starter(fd, "ready", json);
	if (fd > STDERR_FILENO)
		close(fd);
	tell_systemd("READY=1\nSTATUS=serving");
}
