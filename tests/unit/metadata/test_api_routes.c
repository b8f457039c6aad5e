/* SPDX-License-Identifier: Apache-2.0 */
/* The table against docs/openapi.yaml, routing, validation, hostile text, metrics, keys. No sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "metadata/api/idem.h"
#include "metadata/api/metrics.h"
#include "metadata/api/routes.h"
#include "metadata/api/text.h"
#include "src/base/mem.h"
#include "src/base/rand.h"
#include "tests/lib/env.h"
#include "tests/lib/skip.h"

/* ---- docs/openapi.yaml ------------------------------------------------------------------------------------------------------------------ */

static json_t *spec_load(void)
{
	FILE *f =
	    popen("/usr/bin/python3 -c 'import yaml,json;print(json.dumps(yaml.safe_load(open("
		  "\"docs/openapi.yaml\"))))' 2>/dev/null",
		  "r");
	json_t *spec = json_loadf(f, 0, NULL);

	pclose(f);
	if (!spec)
		skip_because("needs python3-yaml, and the top of the tree as directory");
	return spec;
}

static json_t *at(json_t *j, const char *a, const char *b)
{
	return json_object_get(json_object_get(j, a), b);
}

static json_t *resolve(json_t *spec, json_t *j)
{
	const char *ref = json_string_value(json_object_get(j, "$ref"));

	return ref ? json_object_get(at(spec, "components", "parameters"), strrchr(ref, '/') + 1)
		   : j;
}

static void same_int(json_t *schema, const char *key, int64_t value, int64_t absent)
{
	json_t *v = json_object_get(schema, key);

	assert_int_equal(v ? json_integer_value(v) : absent, value);
}

static void same_choices(json_t *schema, const char *choices)
{
	json_t *list = json_object_get(schema, "enum");
	char text[256] = "";
	size_t n;

	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *v = json_array_get(list, i);

		n = strlen(text);
		if (json_is_integer(v))
			snprintf(text + n, sizeof(text) - n, "%s%d", n ? "|" : "",
				 (int)json_integer_value(v));
		else
			snprintf(text + n, sizeof(text) - n, "%s%s", n ? "|" : "",
				 json_string_value(v));
	}
	assert_string_equal(text, choices ? choices : "");
}

static void same_schema(const struct admin_param *p, json_t *schema)
{
	static const char *const types[] = {"string", "string",	 "string",
					    NULL,     "integer", "boolean"};
	const char *type = json_string_value(json_object_get(schema, "type"));
	json_t *fallback = p->fallback ? json_loads(p->fallback, JSON_DECODE_ANY, NULL) : NULL;

	if (types[p->type])
		assert_string_equal(type, types[p->type]);
	else
		assert_non_null(json_object_get(schema, "oneOf"));
	if (p->type == ADMIN_INT && !p->choices) {
		same_int(schema, "minimum", p->min, INT64_MIN);
		same_int(schema, "maximum", p->max, INT64_MAX);
		same_int(schema, "multipleOf", p->unit, 0);
	}
	same_choices(schema, p->choices);
	assert_int_equal(json_equal(fallback, json_object_get(schema, "default")), fallback != NULL);
	if (!fallback)
		assert_null(json_object_get(schema, "default"));
	json_decref(fallback);
}

static uint32_t same_params(json_t *spec, json_t *list, enum admin_verb verb)
{
	uint32_t n = 0;

	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *p = resolve(spec, json_array_get(list, i));
		const char *name = json_string_value(json_object_get(p, "name"));
		const char *in = json_string_value(json_object_get(p, "in"));
		const struct admin_param *row = admin_param(verb, name);

		if (!strcmp(in, "header"))
			continue;
		assert_non_null(row);
		assert_int_equal(row->in, strcmp(in, "path") ? ADMIN_IN_QUERY : ADMIN_IN_PATH);
		assert_int_equal(row->required, json_is_true(json_object_get(p, "required")));
		same_schema(row, json_object_get(p, "schema"));
		n++;
	}
	return n;
}

static bool is_listed(json_t *list, const char *name)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		if (!strcmp(json_string_value(json_array_get(list, i)), name))
			return true;
	return false;
}

static uint32_t same_body(json_t *op, enum admin_verb verb)
{
	json_t *schema =
	    json_object_get(at(at(op, "requestBody", "content"), "application/json", "schema"),
			    "properties");
	json_t *required =
	    json_object_get(at(at(op, "requestBody", "content"), "application/json", "schema"),
			    "required");
	const char *name;
	json_t *member;

	json_object_foreach (schema, name, member) {
		const struct admin_param *row = admin_param(verb, name);

		assert_non_null(row);
		assert_int_equal(row->in, ADMIN_IN_BODY);
		assert_int_equal(row->required, is_listed(required, name));
		same_schema(row, member);
	}
	return (uint32_t)json_object_size(schema);
}

static void table_is_what_openapi_says(void **state)
{
	json_t *spec = spec_load(), *path, *op, *codes;
	uint32_t verbs_n = 0, n;
	const char *pattern, *method;

	(void)state;
	json_object_foreach (json_object_get(spec, "paths"), pattern, path) {
		json_object_foreach (path, method, op) {
			enum admin_verb v = 0;

			if (!strcmp(method, "parameters"))
				continue;
			while (v < ADMIN_VERBS_N && (strcasecmp(admin_verb(v).method, method) ||
						     strcmp(admin_verb(v).path, pattern)))
				v++;
			if (v == ADMIN_VERBS_N)
				fail_msg("the table has no %s %s", method, pattern);
			n = same_params(spec, json_object_get(path, "parameters"), v) +
			    same_params(spec, json_object_get(op, "parameters"), v) +
			    same_body(op, v);
			assert_int_equal(n, admin_verb(v).params_n);
			verbs_n++;
		}
	}
	assert_int_equal(verbs_n, ADMIN_VERBS_N);

	codes = at(at(at(spec, "components", "schemas"), "Error", "properties"), "code", "enum");
	assert_int_equal(json_array_size(codes), ADMIN_CODES_N - 1);
	for (enum admin_code c = 1; c < ADMIN_CODES_N; c++)
		assert_true(is_listed(codes, admin_code_word(c)));
	json_decref(spec);
}

/* ---- requests ---------------------------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *method, *uri, *body; /* of a request */
	const char *args;		 /* compact, sorted; NULL: an error, whose message has */
	const char *message;
	enum admin_code code;
} cases[] = {
    {"GET", "/v1/status", "", "{}", NULL, 0},
    {"HEAD", "/v1/status", "", "{}", NULL, 0},
    {"POST", "/v1/check", "{}", "{}", NULL, 0},
    {"GET", "/v1/nodes", "", "{\"limit\":100}", NULL, 0},
    {"GET", "/v1/nodes?&limit=7&&after=a%2Bb+c&", "", "{\"after\":\"a+b c\",\"limit\":7}", NULL, 0},
    {"GET", "/v1/devices?all=true", "", "{\"all\":true,\"limit\":100}", NULL, 0},
    {"GET", "/v1/volumes/a%2fb", "", "{\"volume\":\"a/b\"}", NULL, 0},
    {"GET", "/%761/volumes/%C3%BC", "", "{\"volume\":\"\xc3\xbc\"}", NULL, 0},
    {"GET", "/v1/jobs/9223372036854775807", "", "{\"job\":9223372036854775807}", NULL, 0},
    {"DELETE", "/v1/devices/3?lost=true", "", "{\"device\":\"3\",\"lost\":true}", NULL, 0},
    {"POST", "/v1/devices", "{\"node\":1,\"path\":\"/dev/x\"}",
     "{\"force\":false,\"node\":1,\"path\":\"/dev/x\",\"pool\":\"default\"}", NULL, 0},
    {"PATCH", "/v1/volumes/v", "{\"size_bytes\":8192}", "{\"size_bytes\":8192,\"volume\":\"v\"}",
     NULL, 0},
    {"PATCH", "/v1/volumes/v", "{\"size_bytes\":8192,\"shrink\":true}", NULL, "shrink",
     ADMIN_E_INVALID},

    {"GET", "/", "", NULL, "nothing at this path", ADMIN_E_NOT_FOUND},
    {"GET", "", "", NULL, "nothing at this path", ADMIN_E_NOT_FOUND},
    {"GET", "*", "", NULL, "nothing at this path", ADMIN_E_NOT_FOUND},
    {"GET", "/v1/status/", "", NULL, "nothing at this path", ADMIN_E_NOT_FOUND},
    {"GET", "/v1/volumes/", "", NULL, "nothing at this path", ADMIN_E_NOT_FOUND},
    {"GET", "//v1/status", "", NULL, "nothing at this path", ADMIN_E_NOT_FOUND},
    {"GET", "/v1/volumes/../status", "", NULL, "nothing at this path", ADMIN_E_NOT_FOUND},
    {"GET", "/a/b/c/d/e/f/g/h/i/j", "", NULL, "nothing at this path", ADMIN_E_NOT_FOUND},
    {"PUT", "/v1/volumes/v", "", NULL, "takes GET, HEAD, PATCH, DELETE", ADMIN_E_METHOD_NOT_ALLOWED},
    {"get", "/v1/status", "", NULL, "takes GET, HEAD", ADMIN_E_METHOD_NOT_ALLOWED},
    {"GET", "/v1/volumes/%", "", NULL, "percent", ADMIN_E_INVALID},
    {"GET", "/v1/volumes/%4", "", NULL, "percent", ADMIN_E_INVALID},
    {"GET", "/v1/volumes/%00", "", NULL, "percent", ADMIN_E_INVALID},
    {"GET", "/v1/volumes/%ff", "", NULL, "volume is not UTF-8", ADMIN_E_INVALID},
    {"GET", "/v1/volumes/a%0ab", "", NULL, "volume must be a text", ADMIN_E_INVALID},
    {"GET", "/v1/jobs/0", "", NULL, "job must be an integer", ADMIN_E_INVALID},
    {"GET", "/v1/jobs/01", "", NULL, "job must be an integer", ADMIN_E_INVALID},
    {"GET", "/v1/jobs/-1", "", NULL, "job must be an integer", ADMIN_E_INVALID},
    {"GET", "/v1/jobs/9223372036854775808", "", NULL, "job must be an integer", ADMIN_E_INVALID},
    {"GET", "/v1/nodes?limit=0", "", NULL, "limit must be an integer between 1 and 1000",
     ADMIN_E_INVALID},
    {"GET", "/v1/nodes?limit=1001", "", NULL, "limit must be", ADMIN_E_INVALID},
    {"GET", "/v1/nodes?limit=1e2", "", NULL, "limit must be", ADMIN_E_INVALID},
    {"GET", "/v1/nodes?limit", "", NULL, "limit must be", ADMIN_E_INVALID},
    {"GET", "/v1/nodes?limit=1&limit=1", "", NULL, "limit is given twice", ADMIN_E_INVALID},
    {"GET", "/v1/nodes?x=1", "", NULL, "x is not known in this query", ADMIN_E_INVALID},
    {"GET", "/v1/nodes?%", "", NULL, "percent", ADMIN_E_INVALID},
    {"GET", "/v1/nodes?after=%80", "", NULL, "after is not UTF-8", ADMIN_E_INVALID},
    {"GET", "/v1/devices?all=1", "", NULL, "all must be true or false", ADMIN_E_INVALID},
    {"GET", "/v1/events?last=1&after=x", "", NULL, "last cannot be given together with after",
     ADMIN_E_INVALID},
    {"GET", "/v1/volumes/v?volume=w", "", NULL, "volume is not known in this query",
     ADMIN_E_INVALID},
    {"GET", "/v1/nodes?limit=1", "{\"after\":\"x\"}", NULL, "after is not known in this body",
     ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "", NULL, "the body is missing", ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "[]", NULL, "must be a JSON object", ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "7", NULL, "not JSON", ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "{\"name\":\"a\"", NULL, "not JSON, line 1", ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "{\"name\":\"a\"} x", NULL, "not JSON", ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "{\"name\":\"a\",\"name\":\"b\"}", NULL, "not JSON", ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "{\"name\":\"a\\u0000\"}", NULL, "not JSON", ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "{\"name\":\"\xff\"}", NULL, "not JSON", ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "{\"name\":\"a\"}", NULL, "size_bytes is missing", ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "{\"name\":\"a\",\"size_bytes\":4097}", NULL,
     "size_bytes must be an integer", ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "{\"name\":\"a\",\"size_bytes\":4096.0}", NULL,
     "size_bytes must be an integer", ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "{\"name\":\"a\",\"size_bytes\":\"4096\"}", NULL,
     "size_bytes must be an integer", ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "{\"name\":\"a\",\"size_bytes\":null}", NULL,
     "size_bytes must be an integer", ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "{\"name\":\"a\",\"size_bytes\":-4096}", NULL,
     "size_bytes must be an integer", ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "{\"name\":\"a\",\"size_bytes\":99999999999999999999}", NULL,
     "not JSON", ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "{\"name\":\"a\",\"size_bytes\":1125899906846720}", NULL,
     "size_bytes must be", ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "{\"name\":\"-a\",\"size_bytes\":4096}", NULL, "name must be a name",
     ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "{\"name\":\"\",\"size_bytes\":4096}", NULL, "name must be a name",
     ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "{\"name\":\"a\",\"size_bytes\":4096,\"sector_bytes\":1024}", NULL,
     "sector_bytes must be one of 512|4096", ADMIN_E_INVALID},
    {"POST", "/v1/volumes",
     "{\"name\":\"a\",\"size_bytes\":4096,\"write_cache\":\"auto|writeback\"}", NULL,
     "write_cache must be one of", ADMIN_E_INVALID},
    {"POST", "/v1/volumes", "{\"name\":\"a\",\"size_bytes\":4096,\"\\u001b[1m\":1}", NULL,
     "?[1m is not known in this body", ADMIN_E_INVALID},
    {"POST", "/v1/devices", "{\"node\":0,\"path\":\"/x\"}", NULL, "node must be a number or a name",
     ADMIN_E_INVALID},
    {"POST", "/v1/devices", "{\"node\":1,\"path\":\"x\"}", NULL, "path must be an absolute path",
     ADMIN_E_INVALID},
    {"POST", "/v1/devices", "{\"node\":1,\"path\":\"/x\",\"force\":1}", NULL,
     "force must be true or false", ADMIN_E_INVALID},
    {"PATCH", "/v1/volumes/v", "{\"size_bytes\":4096,\"volume\":\"w\"}", NULL,
     "volume is not known in this body", ADMIN_E_INVALID},
};

static void requests_are_understood_or_refused_by_name(void **state)
{
	uint64_t before = mem_live();

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct admin_error e = {0};
		struct route route;
		char *args;
		int r = route_parse(cases[i].method, cases[i].uri, cases[i].body,
				    strlen(cases[i].body), &route, &e);

		if (!cases[i].args) {
			if (r != -EINVAL || e.code != cases[i].code ||
			    !strstr(e.message, cases[i].message))
				fail_msg("%s %s %s: %d %s", cases[i].method, cases[i].uri,
					 cases[i].body, r, e.message);
			continue;
		}
		if (r)
			fail_msg("%s %s: %s", cases[i].method, cases[i].uri, e.message);
		args = json_dumps(route.args, JSON_COMPACT | JSON_SORT_KEYS);
		assert_string_equal(args, cases[i].args);
		free(args);
		route_free(&route);
	}
	assert_int_equal(mem_live(), before);
}

static void arguments_are_read_by_type(void **state)
{
	struct admin_error e = {0};
	struct route route;
	struct admin_req r = {.verb = ADMIN_DEVICE_ADD};
	static const char body[] = "{\"node\":\"n\",\"path\":\"/x\"}";

	(void)state;
	assert_int_equal(route_parse("POST", "/v1/devices", body, strlen(body), &route, &e), 0);
	r.args = route.args;
	assert_string_equal(admin_text(&r, "node"), "n");
	assert_int_equal(admin_int(&r, "node"), 0);
	assert_false(admin_has(&r, "size_bytes"));
	assert_false(admin_bool(&r, "force"));
	assert_string_equal(admin_text(&r, "pool"), "default");
	route_free(&route);
}

/* STRATA_FUZZ_CASES=N: so many requests */
static void noise_is_survived(void **state)
{
	uint64_t requests_n = env_number("STRATA_FUZZ_CASES", 200000);
	static const char alphabet[] = "/v1volumesjbda{}[]\":,%0f2?&=+-.\\u\x80\xc3\xff\x01 ";
	struct rand rnd;
	char *deep = mem_alloc(ROUTE_BODY_MAX);
	char uri[200], body[200];

	(void)state;
	rand_seed(&rnd, 7);
	for (uint64_t i = 0; i < requests_n; i++) {
		struct admin_error e = {0};
		struct route route;
		size_t n = rand_below(&rnd, sizeof(uri) - 20), m = rand_below(&rnd, sizeof(body));

		snprintf(uri, sizeof(uri), "%s", i % 2 ? "/v1/volumes" : "");
		for (size_t k = strlen(uri), end = k + n; k < end; k++) {
			uri[k] = alphabet[rand_below(&rnd, sizeof(alphabet) - 1)];
			uri[k + 1] = '\0';
		}
		for (size_t k = 0; k < m; k++)
			body[k] = i % 3 ? alphabet[rand_below(&rnd, sizeof(alphabet) - 1)]
					: (char)rand_below(&rnd, 256);
		if (!route_parse(i % 5 ? "GET" : "POST", i % 4 ? uri : "/v1/volumes", body, m,
				 &route, &e)) {
			route_free(&route);
			continue;
		}
		assert_true(e.code != ADMIN_OK && e.message[0]);
		json_decref(admin_error_json(&e));
	}
	for (int kind = 0; kind < 2; kind++) {
		struct admin_error e = {0};
		struct route route;

		memset(deep, kind ? '[' : '1', ROUTE_BODY_MAX);
		assert_int_equal(route_parse("POST", "/v1/check", deep, ROUTE_BODY_MAX, &route, &e),
				 -EINVAL);
	}
	mem_free(deep);
}

static void shortage_of_memory_is_an_error(void **state)
{
	static const char body[] = "{\"size_bytes\":4096}";
	uint64_t before = mem_live();
	int r = -ENOMEM;

	(void)state;
	for (uint64_t n = 0; r; n++) {
		struct admin_error e = {0};
		struct route route;

		mem_fail_at(n, 1);
		r = route_parse("PATCH", "/v1/volumes/a", body, strlen(body), &route, &e);
		mem_fail_at(UINT64_MAX, 0);
		if (!r) {
			route_free(&route);
			break;
		}
		assert_int_equal(r, -ENOMEM);
		assert_int_equal(e.code, ADMIN_E_INTERNAL);
		assert_int_equal(mem_live(), before);
	}
	assert_int_equal(mem_live(), before);
}

/* ---- metrics, keys, text ----------------------------------------------------------------------------------------------------------------- */

static void metrics_are_grouped_and_escaped(void **state)
{
	static const struct metric_label labels[] = {{"vol", "a\"b\\c\nd\xff"}, {"x:y", ""}};
	static const struct metric list[] = {
	    {"s_b", "B", false, NULL, 0, 1},
	    {"s_a", "A\\\n", true, labels, 2, 0.5},
	    {"s_b", "other", true, labels, 1, 1e18},
	    {"9-\xc3", "N", true, NULL, 0, -1},
	};
	char *text = metrics_render(list, ARRAY_LEN(list));

	(void)state;
	assert_string_equal(text, "# HELP ___ N\n# TYPE ___ gauge\n___ -1\n"
				  "# HELP s_a A\\\\\\n\n# TYPE s_a gauge\n"
				  "s_a{vol=\"a\\\"b\\\\c\\nd?\",x_y=\"\"} 0.5\n"
				  "# HELP s_b B\n# TYPE s_b counter\ns_b 1\n"
				  "s_b{vol=\"a\\\"b\\\\c\\nd?\"} 1e+18\n");
	mem_free(text);
	text = metrics_render(NULL, 0);
	assert_string_equal(text, "");
	mem_free(text);
	for (uint64_t n = 0; n < 2; n++) {
		mem_fail_at(n, 1);
		text = metrics_render(list, ARRAY_LEN(list));
		mem_fail_at(UINT64_MAX, 0);
		assert_null(text);
	}
}

static void keys_are_remembered_within_bounds(void **state)
{
	struct idem_entry *a, *b, *e;
	struct reply ok = {.status = 201, .body = mem_strdup("x"), .len = 1}, bad = ok;
	struct idem t;

	(void)state;
	bad.status = 503;
	assert_int_equal(idem_init(&t, 2), 0);
	assert_int_equal(idem_ask(&t, "a", 1, &a), IDEM_FIRST);
	assert_int_equal(idem_ask(&t, "b", 2, &b), IDEM_FIRST);
	assert_int_equal(idem_ask(&t, "c", 3, &e), IDEM_FULL);
	assert_int_equal(idem_ask(&t, "a", 1, &e), IDEM_RUNNING);
	assert_ptr_equal(e, a);
	assert_int_equal(idem_ask(&t, "a", 9, &e), IDEM_REUSED);
	idem_settle(&t, a, &ok);
	idem_settle(&t, b, &bad);
	assert_int_equal(idem_ask(&t, "a", 1, &e), IDEM_ANSWERED);
	assert_string_equal(e->reply.body, "x");
	assert_int_equal(idem_ask(&t, "a", 9, &e), IDEM_REUSED);
	assert_int_equal(idem_ask(&t, "b", 2, &b), IDEM_FIRST); /* 503 is not kept */
	idem_settle(&t, b, &ok);
	assert_int_equal(idem_ask(&t, "a", 1, &e), IDEM_ANSWERED); /* b is the older now */
	assert_int_equal(idem_ask(&t, "c", 3, &e), IDEM_FIRST);
	idem_settle(&t, e, &ok);
	assert_int_equal(idem_ask(&t, "a", 1, &e), IDEM_ANSWERED);
	assert_int_equal(idem_ask(&t, "b", 7, &e), IDEM_FIRST);
	idem_settle(&t, e, &ok);
	idem_free(&t);
	mem_free(ok.body);
}

static void text_is_cleaned(void **state)
{
	char s[] = "a\x01\xc3\xbc\xc0\x80\xed\xa0\x80\xf0\x9f\x98\x80\xf5\x7f\xe2\x82";

	(void)state;
	text_clean(s);
	assert_string_equal(s, "a?\xc3\xbc?????\xf0\x9f\x98\x80????");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(table_is_what_openapi_says),
	    cmocka_unit_test(requests_are_understood_or_refused_by_name),
	    cmocka_unit_test(arguments_are_read_by_type),
	    cmocka_unit_test(noise_is_survived),
	    cmocka_unit_test(shortage_of_memory_is_an_error),
	    cmocka_unit_test(metrics_are_grouped_and_escaped),
	    cmocka_unit_test(keys_are_remembered_within_bounds),
	    cmocka_unit_test(text_is_cleaned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
