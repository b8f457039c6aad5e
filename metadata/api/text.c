/* SPDX-License-Identifier: Apache-2.0 */
#include "metadata/api/text.h"

#include <stdint.h>
#include <string.h>

#include "src/base/mem.h"

static bool text_reserve(struct text *t, size_t more)
{
	size_t cap = t->cap ? t->cap : 256;
	char *s;

	if (t->failed || more > SIZE_MAX / 4 - t->len)
		return false;
	while (cap < t->len + more + 1)
		cap *= 2;
	if (cap == t->cap)
		return true;
	s = mem_realloc(t->s, cap, 1);
	if (!s)
		return false;
	t->s = s;
	t->cap = cap;
	return true;
}

void text_add(struct text *t, const char *s, size_t len)
{
	if (!text_reserve(t, len)) {
		t->failed = true;
		return;
	}
	memcpy(t->s + t->len, s, len);
	t->len += len;
	t->s[t->len] = '\0';
}

void text_adds(struct text *t, const char *s)
{
	text_add(t, s, strlen(s));
}

char *text_take(struct text *t, size_t *ret_len)
{
	char *s;

	text_add(t, "", 0); /* an empty text is a text */
	s = t->s;
	if (t->failed) {
		mem_free(s);
		s = NULL;
	} else if (ret_len) {
		*ret_len = t->len;
	}
	memset(t, 0, sizeof(*t));
	return s;
}

size_t text_char_len(const char *s)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	const unsigned char *u = (const unsigned char *)s;
	size_t len = u[0] < 0x80	     ? 1
		     : (u[0] & 0xe0) == 0xc0 ? 2
		     : (u[0] & 0xf0) == 0xe0 ? 3
		     : (u[0] & 0xf8) == 0xf0 ? 4
					     : 0;
	uint32_t c;

	if (len <= 1)
		return u[0] ? len : 0;
	c = u[0] & (0xffu >> (len + 1));
	for (size_t i = 1; i < len; i++) {
		if ((u[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (u[i] & 0x3f);
	}
	return c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : len;
}

void text_clean(char *s)
{
	size_t len;

	for (; *s; s += len) {
		len = text_char_len(s);
		if (len <= 1 && (len == 0 || (unsigned char)*s < 0x20 || *s == 0x7f)) {
			*s = '?';
			len = 1;
		}
	}
}
