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
static void tell_systemd(const char *path)
{
	static const char text[] = "READY=1";
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	size_t len = strlen(path);
	int fd;

	if (len >= sizeof(a.sun_path))
		return;
	memcpy(a.sun_path, path, len);
	if (a.sun_path[0] == '@')
		a.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, text, sizeof(text) - 1, MSG_NOSIGNAL, (struct sockaddr *)&a,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		log_warn("systemd could not be told that we serve", "socket=%s", path);
	close(fd);
}

void notify_ready(int fd, const char *json)
{
	const char *systemd = getenv("NOTIFY_SOCKET");

	if (fd >= 0) {
		if (dprintf(fd, "ready %s\n", json) < 0)
			log_warn("whoever started us could not be told that we serve", "fd=%d", fd);
		if (fd > STDERR_FILENO)
			close(fd);
	}
	if (systemd && *systemd)
		tell_systemd(systemd);
}
