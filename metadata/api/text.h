/* SPDX-License-Identifier: Apache-2.0 */
/* text.h - a text that grows. Running out of memory is remembered and told once, by text_take(). Zeroed to begin with. */
#ifndef STRATA_METADATA_API_TEXT_H
#define STRATA_METADATA_API_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct text {
	char *s;
	size_t len, cap;
	bool failed;
};

void text_add(struct text *t, const char *s, size_t len);
void text_adds(struct text *t, const char *s);
/* The text, NUL-terminated, for mem_free(); t is empty afterwards. NULL: memory was short. */
char *text_take(struct text *t, size_t *ret_len);

/* Makes s fit for people, logs and JSON: what is no UTF-8, and control characters, become '?'. */
void text_clean(char *s);
/* Bytes of the UTF-8 character at s (of a NUL-terminated text), 0 if there is none. */
size_t text_char_len(const char *s);

#endif
