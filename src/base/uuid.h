/* SPDX-License-Identifier: Apache-2.0 */
/* uuid.h - 16 bytes that name a cluster, node, device, volume or process start. Random ones (RFC 4122, version 4) are made from
 * bytes the engine gives (ioe_uuid). */
#ifndef STRATA_BASE_UUID_H
#define STRATA_BASE_UUID_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct uuid {
	uint8_t b[16];
};

enum { UUID_TEXT_LEN = 37 }; /* with the final NUL */

void uuid_format(const struct uuid *u, char text[UUID_TEXT_LEN]);
int uuid_parse(const char *text, struct uuid *ret_u); /* 0 or -EINVAL */

static inline bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

static inline bool uuid_is_zero(const struct uuid *u)
{
	static const struct uuid zero;

	return uuid_equal(u, &zero);
}

#endif
