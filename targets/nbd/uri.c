/* SPDX-License-Identifier: Apache-2.0 */
/* uri.c - NBD URIs, as doc/uri.md of the NetworkBlockDevice project has them. */
#include <stdio.h>
#include <string.h>

#include "targets/nbd/nbd.h"

/* Percent-encodes what has a meaning in a URI, or none. Text that does not fit is cut. */
static void encode(char *out, size_t cap, const char *text)
{
	static const char plain[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/@";
	static const char hex[] = "0123456789ABCDEF";

	for (; *text && cap > 3; text++) {
		unsigned char ch = (unsigned char)*text;

		if (strchr(plain, ch)) {
			*out++ = (char)ch;
			cap--;
		} else {
			*out++ = '%';
			*out++ = hex[ch >> 4];
			*out++ = hex[ch & 15];
			cap -= 3;
		}
	}
	*out = '\0';
}

void nbd_uri(const char *addr, const char *export_name, char ret_uri[NBD_URI_LEN])
{
	char name[3 * 2 * (NAME_LEN_MAX + 1) + 4], path[3 * IOE_ADDR_MAX + 4];

	encode(name, sizeof(name), export_name);
	if (strncmp(addr, "unix:", 5) == 0) {
		encode(path, sizeof(path), addr + 5);
		snprintf(ret_uri, NBD_URI_LEN, "nbd+unix:///%s?socket=%s", name, path);
	} else {
		snprintf(ret_uri, NBD_URI_LEN, "nbd://%s/%s", addr, name);
	}
}
