/* SPDX-License-Identifier: Apache-2.0 */
#include "metadata/api/metrics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "metadata/api/text.h"
#include "src/base/mem.h"

static int by_name(const void *a, const void *b)
{
	const struct metric *x = *(const struct metric *const *)a;
	const struct metric *y = *(const struct metric *const *)b;
	int r = strcmp(x->name, y->name);

	return r ? r : (x > y) - (x < y); /* as they were given */
}

/* [a-zA-Z_:][a-zA-Z0-9_:]*, labels without the colon */
static void add_name(struct text *t, const char *name, bool colon)
{
	for (const char *s = name; *s; s++) {
		bool alpha = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || *s == '_';
		bool digit = *s >= '0' && *s <= '9' && s != name;

		text_add(t, alpha || digit || (colon && *s == ':') ? s : "_", 1);
	}
}

/* Backslash and line feed are escaped, quotes in label values too; what is no UTF-8 becomes '?'. */
static void add_escaped(struct text *t, const char *s, bool quotes)
{
	size_t len;

	for (; *s; s += len ? len : 1) {
		len = text_char_len(s);
		if (!len)
			text_adds(t, "?");
		else if (*s == '\\')
			text_adds(t, "\\\\");
		else if (*s == '\n')
			text_adds(t, "\\n");
		else if (*s == '"' && quotes)
			text_adds(t, "\\\"");
		else
			text_add(t, s, len);
	}
}

static void add_head(struct text *t, const struct metric *m)
{
	text_adds(t, "# HELP ");
	add_name(t, m->name, true);
	text_adds(t, " ");
	add_escaped(t, m->help, false);
	text_adds(t, "\n# TYPE ");
	add_name(t, m->name, true);
	text_adds(t, m->gauge ? " gauge\n" : " counter\n");
}

static void add_value(struct text *t, double value)
{
	char number[32];

	if (isnan(value))
		snprintf(number, sizeof(number), " NaN\n");
	else if (isinf(value))
		snprintf(number, sizeof(number), value < 0 ? " -Inf\n" : " +Inf\n");
	else
		snprintf(number, sizeof(number), " %.17g\n", value);
	text_adds(t, number);
}

static void add_sample(struct text *t, const struct metric *m)
{
	add_name(t, m->name, true);
	for (uint32_t i = 0; i < m->labels_n; i++) {
		text_adds(t, i ? "," : "{");
		add_name(t, m->labels[i].name, false);
		text_adds(t, "=\"");
		add_escaped(t, m->labels[i].value, true);
		text_adds(t, "\"");
	}
	if (m->labels_n)
		text_adds(t, "}");
	add_value(t, m->value);
}

char *metrics_render(const struct metric *list, size_t n)
{
	const struct metric **order = mem_zalloc_array(n + 1, sizeof(*order));
	struct text t = {0};

	if (!order)
		return NULL;
	for (size_t i = 0; i < n; i++)
		order[i] = &list[i];
	qsort(order, n, sizeof(struct metric *), by_name);
	for (size_t i = 0; i < n; i++) {
		if (i == 0 || strcmp(order[i - 1]->name, order[i]->name) != 0)
			add_head(&t, order[i]);
		add_sample(&t, order[i]);
	}
	mem_free(order);
	return text_take(&t, NULL);
}
