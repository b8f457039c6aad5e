/* SPDX-License-Identifier: Apache-2.0 */
/* bytes.h - integers of a fixed byte order, and a cursor over untrusted bytes.
 *
 * Disk structures use leNN, network structures of foreign protocols beNN: one-member structs without alignment needs, so that a
 * host integer cannot slip in unconverted and a wire struct may start at any address. */
#ifndef STRATA_BASE_BYTES_H
#define STRATA_BASE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BYTES_DEFINE(order, bits)                                            \
	struct order##bits {                                                 \
		uint8_t b[bits / 8];                                         \
	};                                                                   \
	static inline uint##bits##_t get_##order##bits(struct order##bits v) \
	{                                                                    \
		uint##bits##_t x;                                            \
		memcpy(&x, v.b, sizeof(x));                                  \
		return order##bits##toh(x);                                  \
	}                                                                    \
	static inline struct order##bits to_##order##bits(uint##bits##_t x)  \
	{                                                                    \
		struct order##bits v;                                        \
		x = hto##order##bits(x);                                     \
		memcpy(v.b, &x, sizeof(x));                                  \
		return v;                                                    \
	}
BYTES_DEFINE(le, 16)
BYTES_DEFINE(le, 32)
BYTES_DEFINE(le, 64)
BYTES_DEFINE(be, 16)
BYTES_DEFINE(be, 32)
BYTES_DEFINE(be, 64)
#undef BYTES_DEFINE

/* Reads front to back; after the first overrun every further take fails too, so one test at the end is enough. */
struct cursor {
	const uint8_t *at, *end;
	bool failed;
};

static inline struct cursor cursor_of(const void *data, size_t len_bytes)
{
	return (struct cursor){.at = data, .end = (const uint8_t *)data + len_bytes};
}

static inline size_t cursor_left(const struct cursor *c)
{
	return c->failed ? 0 : (size_t)(c->end - c->at);
}

/* The next len bytes, or NULL past the end. */
static inline const void *cursor_take(struct cursor *c, size_t len_bytes)
{
	const void *p = c->at;

	if (c->failed || len_bytes > (size_t)(c->end - c->at)) {
		c->failed = true;
		return NULL;
	}
	c->at += len_bytes;
	return p;
}

#define CURSOR_GET(order, bits)                                             \
	static inline uint##bits##_t cursor_##order##bits(struct cursor *c) \
	{                                                                   \
		struct order##bits v;                                       \
		const void *p = cursor_take(c, sizeof(v));                  \
		if (!p)                                                     \
			return 0;                                           \
		memcpy(&v, p, sizeof(v));                                   \
		return get_##order##bits(v);                                \
	}
CURSOR_GET(le, 16)
CURSOR_GET(le, 32)
CURSOR_GET(le, 64)
CURSOR_GET(be, 16)
CURSOR_GET(be, 32)
CURSOR_GET(be, 64)
#undef CURSOR_GET

static inline bool bytes_are_zero(const void *p, size_t len_bytes)
{
	const uint8_t *b = p;

	return len_bytes == 0 || (b[0] == 0 && memcmp(b, b + 1, len_bytes - 1) == 0);
}

#endif
