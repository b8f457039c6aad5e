/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/cluster/openapi.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char mark[] = "x-seen";
enum { WHERE_LEN = 256 };

/* Where we are, for messages: "Job.result.problems[]" */
struct where {
	char text[WHERE_LEN];
};

static void value(struct openapi *o, json_t *schema, const json_t *v, const struct where *at);
static void object(struct openapi *o, json_t *schema, const json_t *v, const struct where *at);
static void unseen(struct openapi *o, json_t *schema, const struct where *at,
		   const char *const *but, int *misses);

bool openapi_load(struct openapi *o)
{
	FILE *f = popen("/usr/bin/python3 -c 'import yaml,json;print(json.dumps(yaml.safe_load("
			"open(\"docs/openapi.yaml\"))))' 2>/dev/null",
			"r");

	o->spec = json_loadf(f, 0, NULL);
	pclose(f);
	return o->spec != NULL;
}

static json_t *get(json_t *j, const char *a, const char *b)
{
	return json_object_get(json_object_get(j, a), b);
}

/* What "#/components/schemas/Job" names; and then it says so itself in messages. */
static json_t *resolve(struct openapi *o, json_t *j, struct where *at)
{
	const char *ref = json_string_value(json_object_get(j, "$ref"));
	char copy[WHERE_LEN], *next = copy, *word;

	if (!ref)
		return j;
	snprintf(copy, sizeof(copy), "%s", ref);
	j = o->spec;
	while ((word = strsep(&next, "/"))) {
		if (strcmp(word, "#"))
			j = json_object_get(j, word);
		if (at)
			snprintf(at->text, sizeof(at->text), "%s", word);
	}
	if (!j)
		fail_msg("the document has no %s", ref);
	return j;
}

static struct where below(const struct where *at, const char *between, const char *name)
{
	struct where w = *at;
	size_t n = strlen(w.text);

	snprintf(w.text + n, sizeof(w.text) - n, "%s%s", between, name);
	return w;
}

static void seen(json_t *j)
{
	json_object_set_new(j, mark, json_true());
}

static json_t *response(struct openapi *o, enum admin_verb verb, int status, struct where *ret_at)
{
	const struct admin_verb_info info = admin_verb(verb);
	char method[16], code[8];
	json_t *responses, *r;

	snprintf(method, sizeof(method), "%s", info.method);
	for (char *c = method; *c; c++)
		*c = (char)(*c | 0x20);
	snprintf(code, sizeof(code), "%d", status);
	snprintf(ret_at->text, sizeof(ret_at->text), "%s %s %d", info.method, info.path, status);
	responses = json_object_get(get(get(o->spec, "paths", info.path), method, "responses"),
				    status < 400 ? code : "default");
	if (!responses)
		fail_msg("not documented: %s", ret_at->text);
	seen(responses);
	r = resolve(o, responses, NULL);
	return r;
}

void openapi_compare(struct openapi *o, enum admin_verb verb, int status, const json_t *answer)
{
	struct where at;
	json_t *r = response(o, verb, status, &at);
	json_t *schema = get(json_object_get(r, "content"), "application/json", "schema");

	if (!answer != !schema)
		fail_msg("%s: JSON is %s, and is %s", at.text, schema ? "documented" : "not",
			 answer ? "there" : "not");
	if (answer)
		value(o, schema, answer, &at);
}

/* ---- one value ---------------------------------------------------------------------------------------------------------------- */

static bool is_of_type(const json_t *v, const char *type)
{
	if (!strcmp(type, "object"))
		return json_is_object(v);
	if (!strcmp(type, "array"))
		return json_is_array(v);
	if (!strcmp(type, "string"))
		return json_is_string(v);
	if (!strcmp(type, "integer"))
		return json_is_integer(v);
	if (!strcmp(type, "boolean"))
		return json_is_boolean(v);
	return false;
}

static bool is_listed(json_t *list, const json_t *v)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		if (json_equal(json_array_get(list, i), v))
			return true;
	return !list;
}

static void value(struct openapi *o, json_t *schema, const json_t *v, const struct where *where)
{
	struct where at = *where, item;
	const char *type;
	json_t *all_of;

	if (json_is_null(v)) {
		if (!json_is_true(json_object_get(schema, "nullable")))
			fail_msg("%s is null", at.text);
		return;
	}
	seen(schema);
	all_of = json_object_get(schema, "allOf");
	if (json_array_size(all_of) > 1) {
		if (!json_is_object(v))
			fail_msg("%s is no object", at.text);
		object(o, all_of, v, &at);
		return;
	}
	schema = resolve(o, all_of ? json_array_get(all_of, 0) : schema, &at);
	type = json_string_value(json_object_get(schema, "type"));
	if (!type || !is_of_type(v, type))
		fail_msg("%s is no %s", at.text, type ? type : "thing of a documented type");
	if (!is_listed(json_object_get(schema, "enum"), v))
		fail_msg("%s is a value that is not documented: %s", at.text, json_string_value(v));
	if (json_is_object(v)) {
		object(o, schema, v, &at);
		return;
	}
	item = below(&at, "", "[]");
	for (size_t i = 0; json_is_array(v) && i < json_array_size(v); i++)
		value(o, json_object_get(schema, "items"), json_array_get(v, i), &item);
}

/* What a member is to be; NULL: there is none of that name. A schema, or several of which it has the members of all. */
static json_t *member_of(struct openapi *o, json_t *schema, const char *name)
{
	json_t *others = json_object_get(schema, "additionalProperties"), *s = NULL;

	for (size_t i = 0; !s && i < json_array_size(schema); i++)
		s = member_of(o, resolve(o, json_array_get(schema, i), NULL), name);
	if (!s)
		s = get(schema, "properties", name);
	return s ? s : json_is_object(others) ? others : NULL;
}

static void object(struct openapi *o, json_t *schema, const json_t *v, const struct where *at)
{
	const char *name;
	json_t *member;

	json_object_foreach ((json_t *)(uintptr_t)v, name, member) {
		json_t *s = member_of(o, schema, name);
		struct where w = below(at, ".", name);

		if (!s)
			fail_msg("not documented: %s", w.text);
		value(o, s, member, &w);
	}
}

/* ---- what was never there ------------------------------------------------------------------------------------------------------- */

static void miss(const char *what, bool is_seen, const char *const *but, int *misses)
{
	bool excepted = false;

	for (; *but; but++)
		excepted = excepted || !strcmp(*but, what);
	if (is_seen == excepted) {
		print_message("%s: %s\n", is_seen ? "was in an answer after all" : "in no answer",
			      what);
		(*misses)++;
	}
}

static void members_unseen(struct openapi *o, json_t *schema, const struct where *at,
			   const char *const *but, int *misses)
{
	const char *name;
	json_t *s;

	json_object_foreach (json_object_get(schema, "properties"), name, s) {
		struct where w = below(at, ".", name);
		bool is_seen = json_object_get(s, mark) != NULL;

		miss(w.text, is_seen, but, misses);
		if (is_seen)
			unseen(o, s, &w, but, misses);
	}
}

/* What is defined elsewhere is looked at there, once. */
static void unseen(struct openapi *o, json_t *schema, const struct where *at,
		   const char *const *but, int *misses)
{
	json_t *items = json_object_get(schema, "items"),
	       *all_of = json_object_get(schema, "allOf");
	struct where w = below(at, "", "[]");

	if (json_object_get(schema, "$ref"))
		return;
	for (size_t i = 0; i < json_array_size(all_of); i++)
		unseen(o, json_array_get(all_of, i), at, but, misses);
	members_unseen(o, schema, at, but, misses);
	if (!items)
		return;
	miss(w.text, json_object_get(items, mark) != NULL, but, misses);
	if (json_object_get(items, mark))
		unseen(o, items, &w, but, misses);
}

static void responses_unseen(struct openapi *o, json_t *op, const struct where *at,
			     const char *const *but, int *misses)
{
	const char *code;
	json_t *r;

	json_object_foreach (json_object_get(op, "responses"), code, r) {
		struct where w = below(at, " ", code);

		if (code[0] != '2')
			continue;
		miss(w.text, json_object_get(r, mark) != NULL, but, misses);
		r = get(json_object_get(resolve(o, r, NULL), "content"), "application/json",
			"schema");
		if (json_object_get(r, mark))
			unseen(o, r, &w, but, misses);
	}
}

void openapi_complete(struct openapi *o, const char *const *but)
{
	const char *path, *method, *name;
	json_t *ops, *op, *schema;
	int misses = 0;

	json_object_foreach (json_object_get(o->spec, "paths"), path, ops) {
		json_object_foreach (ops, method, op) {
			struct where at = {""};

			for (size_t i = 0; method[i] && i < 8; i++)
				at.text[i] = (char)(method[i] & ~0x20);
			at = below(&at, " ", path);
			responses_unseen(o, op, &at, but, &misses);
		}
	}
	json_object_foreach (get(o->spec, "components", "schemas"), name, schema) {
		struct where at = {""};

		at = below(&at, "", name);
		unseen(o, schema, &at, but, &misses);
	}
	json_decref(o->spec);
	o->spec = NULL;
	if (misses)
		fail_msg("%d differences between docs/openapi.yaml and the answers", misses);
}
