/* SPDX-License-Identifier: Apache-2.0 */
/* sock_addr.c - addresses as text: "unix:PATH", "1.2.3.4:PORT", "[::1]:PORT". No names are looked up: that would block. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "src/ioe/sock.h"

static int parse_unix(const char *path, struct sock_addr *ret_a)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&ret_a->ss;
	size_t len = strlen(path);

	if (len == 0)
		return -EINVAL;
	if (len >= sizeof(un->sun_path))
		return -ENAMETOOLONG;
	memset(ret_a, 0, sizeof(*ret_a));
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, len + 1);
	ret_a->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
	return 0;
}

static int parse_port(const char *text, in_port_t *ret_port)
{
	unsigned port = 0;

	if (!*text)
		return -EINVAL;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		port = port * 10 + (unsigned)(*text - '0');
		if (port > 65535)
			return -EINVAL;
	}
	*ret_port = htons((in_port_t)port);
	return 0;
}

static int parse_inet(const char *text, struct sock_addr *ret_a)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&ret_a->ss;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ret_a->ss;
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN];
	bool v6 = text[0] == '[';
	size_t len;

	if (!colon || (v6 && colon[-1] != ']'))
		return -EINVAL;
	len = (size_t)(colon - text) - (v6 ? 2 : 0);
	if (len == 0 || len >= sizeof(host))
		return -EINVAL;
	memcpy(host, text + v6, len);
	host[len] = '\0';
	memset(ret_a, 0, sizeof(*ret_a));
	if (v6) {
		in6->sin6_family = AF_INET6;
		ret_a->len = sizeof(*in6);
		if (inet_pton(AF_INET6, host, &in6->sin6_addr) != 1)
			return -EINVAL;
		return parse_port(colon + 1, &in6->sin6_port);
	}
	in->sin_family = AF_INET;
	ret_a->len = sizeof(*in);
	if (inet_pton(AF_INET, host, &in->sin_addr) != 1)
		return -EINVAL;
	return parse_port(colon + 1, &in->sin_port);
}

int sock_addr_parse(const char *text, struct sock_addr *ret_a)
{
	if (!strncmp(text, "unix:", 5))
		return parse_unix(text + 5, ret_a);
	return parse_inet(text, ret_a);
}

bool ioe_addr_is_local(const char *addr)
{
	struct sock_addr a;

	return sock_addr_parse(addr, &a) == 0 && sock_addr_is_local(&a);
}

const char *ioe_addr_wrong(const char *addr)
{
	struct sock_addr a;
	int r = sock_addr_parse(addr, &a);

	if (r == -ENAMETOOLONG)
		return "unix:PATH with at most 107 bytes of path";
	return r ? "unix:PATH, or HOST:PORT where HOST is an IPv4 or [IPv6] address" : NULL;
}

void sock_addr_format(const struct sock_addr *a, char text[IOE_ADDR_MAX])
{
	const struct sockaddr_un *un = (const struct sockaddr_un *)&a->ss;
	const struct sockaddr_in *in = (const struct sockaddr_in *)&a->ss;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&a->ss;
	char host[INET6_ADDRSTRLEN];

	switch (a->ss.ss_family) {
	case AF_UNIX:
		snprintf(text, IOE_ADDR_MAX, "unix:%.*s", (int)sizeof(un->sun_path), un->sun_path);
		return;
	case AF_INET:
		snprintf(text, IOE_ADDR_MAX, "%s:%u",
			 inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host)), ntohs(in->sin_port));
		return;
	case AF_INET6:
		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
			snprintf(text, IOE_ADDR_MAX, "%s:%u", strrchr(host, ':') + 1,
				 ntohs(in6->sin6_port));
		else
			snprintf(text, IOE_ADDR_MAX, "[%s]:%u", host, ntohs(in6->sin6_port));
		return;
	default:
		snprintf(text, IOE_ADDR_MAX, "unknown");
	}
}

bool sock_addr_is_local(const struct sock_addr *a)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)&a->ss;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&a->ss;

	switch (a->ss.ss_family) {
	case AF_UNIX:
		return true;
	case AF_INET:
		return (ntohl(in->sin_addr.s_addr) >> 24) == IN_LOOPBACKNET;
	case AF_INET6:
		if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
			return in6->sin6_addr.s6_addr[12] == IN_LOOPBACKNET;
		return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
	default:
		return false;
	}
}
