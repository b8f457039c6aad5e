/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/uuid.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>

static bool dash_before(int byte)
{
	return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

void uuid_format(const struct uuid *u, char text[UUID_TEXT_LEN])
{
	char *p = text;

	for (int i = 0; i < 16; i++) {
		if (dash_before(i))
			*p++ = '-';
		p += snprintf(p, 3, "%02x", u->b[i]);
	}
}

static int hex(char c)
{
	if (!isxdigit((unsigned char)c))
		return -1;
	return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

int uuid_parse(const char *text, struct uuid *ret_u)
{
	struct uuid u;

	for (int i = 0; i < 16; i++) {
		int hi, lo;

		if (dash_before(i) && *text++ != '-')
			return -EINVAL;
		hi = hex(text[0]);
		lo = hi < 0 ? -1 : hex(text[1]);
		if (lo < 0)
			return -EINVAL;
		u.b[i] = (uint8_t)(hi << 4 | lo);
		text += 2;
	}
	if (*text)
		return -EINVAL;
	*ret_u = u;
	return 0;
}
