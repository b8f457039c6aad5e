/* SPDX-License-Identifier: Apache-2.0 */
/* args.c - checking arguments against the table of their verb. Messages name the member and say what it may be. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "metadata/api/admin.h"
#include "metadata/api/text.h"
#include "src/model/ids.h"

static int args_known(enum admin_verb verb, json_t *args, struct admin_error *e);
static int param_complete(const struct admin_param *p, json_t *args, struct admin_error *e);
static bool value_fits(const struct admin_param *p, const json_t *v);
static bool text_fits(const struct admin_param *p, const char *s);
static bool int_fits(const struct admin_param *p, int64_t v);
static void expected(const struct admin_param *p, char *text, size_t len);

static int fail(struct admin_error *e, const char *what, const char *why)
{
	admin_error_set(e, ADMIN_E_INVALID, "", "%s %s", what, why);
	return -EINVAL;
}

static int no_memory(struct admin_error *e)
{
	admin_error_set(e, ADMIN_E_INTERNAL, "Try again later.",
			"the metadata server is short of memory");
	return -ENOMEM;
}

int admin_args_complete(enum admin_verb verb, json_t *args, struct admin_error *ret_error)
{
	const struct admin_verb_info info = admin_verb(verb);
	int r = args_known(verb, args, ret_error);

	for (uint32_t i = 0; !r && i < info.params_n; i++)
		r = param_complete(&info.params[i], args, ret_error);
	return r;
}

static int args_known(enum admin_verb verb, json_t *args, struct admin_error *e)
{
	const char *name;
	json_t *value;

	json_object_foreach (args, name, value) {
		if (!admin_param(verb, name))
			return fail(e, name, "is not known here");
	}
	return 0;
}

static int param_complete(const struct admin_param *p, json_t *args, struct admin_error *e)
{
	const json_t *v = json_object_get(args, p->name);
	char why[256], what[200];

	if (!v && p->required)
		return fail(e, p->name, "is missing");
	if (!v) {
		if (p->fallback &&
		    json_object_set_new(args, p->name,
					json_loads(p->fallback, JSON_DECODE_ANY, NULL)))
			return no_memory(e);
		return 0;
	}
	if (p->excludes && json_object_get(args, p->excludes)) {
		snprintf(why, sizeof(why), "cannot be given together with %s", p->excludes);
		return fail(e, p->name, why);
	}
	if (!value_fits(p, v)) {
		expected(p, what, sizeof(what));
		snprintf(why, sizeof(why), "must be %s", what);
		return fail(e, p->name, why);
	}
	return 0;
}

static bool value_fits(const struct admin_param *p, const json_t *v)
{
	switch (p->type) {
	case ADMIN_BOOL:
		return json_is_boolean(v);
	case ADMIN_INT:
		return json_is_integer(v) && int_fits(p, json_integer_value(v));
	case ADMIN_NUMBER_NAME:
		if (json_is_integer(v))
			return json_integer_value(v) >= 1 && json_integer_value(v) <= UINT32_MAX;
		return json_is_string(v) && text_fits(p, json_string_value(v));
	case ADMIN_TEXT:
	case ADMIN_NAME:
	case ADMIN_ABS_PATH:
		return json_is_string(v) && text_fits(p, json_string_value(v));
	}
	return false;
}

static bool is_choice(const char *choices, const char *s)
{
	size_t len = strlen(s), n;

	for (const char *c = choices;; c += n + 1) {
		n = strcspn(c, "|");
		if (n == len && !memcmp(c, s, n))
			return true;
		if (!c[n])
			return false;
	}
}

static bool text_fits(const struct admin_param *p, const char *s)
{
	if (!*s || strlen(s) > (uint64_t)p->max || (p->choices && !is_choice(p->choices, s)))
		return false;
	if (p->type == ADMIN_NAME)
		return name_is_valid(s);
	if (p->type == ADMIN_ABS_PATH && *s != '/')
		return false;
	for (size_t len; *s; s += len) {
		len = text_char_len(s);
		if (len == 0 || (len == 1 && ((unsigned char)*s < 0x20 || *s == 0x7f)))
			return false;
	}
	return true;
}

static bool int_fits(const struct admin_param *p, int64_t v)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRId64, v);
	return v >= p->min && v <= p->max && (!p->unit || v % p->unit == 0) &&
	       (!p->choices || is_choice(p->choices, text));
}

static void expected(const struct admin_param *p, char *text, size_t len)
{
	char unit[48] = "";

	if (p->choices) {
		snprintf(text, len, "one of %s", p->choices);
		return;
	}
	switch (p->type) {
	case ADMIN_BOOL:
		snprintf(text, len, "true or false");
		return;
	case ADMIN_INT:
		if (p->unit)
			snprintf(unit, sizeof(unit), " and a multiple of %" PRId64, p->unit);
		if (p->max == INT64_MAX)
			snprintf(text, len, "an integer of at least %" PRId64 "%s", p->min, unit);
		else
			snprintf(text, len, "an integer between %" PRId64 " and %" PRId64 "%s",
				 p->min, p->max, unit);
		return;
	case ADMIN_NAME:
		snprintf(text, len,
			 "a name: 1 to %d letters, digits, '.', '_' and '-', beginning with a "
			 "letter or digit",
			 NAME_LEN_MAX);
		return;
	case ADMIN_ABS_PATH:
		snprintf(text, len, "an absolute path");
		return;
	case ADMIN_NUMBER_NAME:
		snprintf(text, len, "a number or a name");
		return;
	case ADMIN_TEXT:
		snprintf(text, len, "a text of 1 to %" PRId64 " bytes without control characters",
			 p->max);
		return;
	}
}
