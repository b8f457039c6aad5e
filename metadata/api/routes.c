/* SPDX-License-Identifier: Apache-2.0 */
/* routes.c - route_parse: path -> verb and subject, query and body -> arguments, then the table's checks. */
#include "metadata/api/routes.h"

#include <stdio.h>
#include <string.h>

#include "src/base/check.h"
#include "src/base/mem.h"

enum { SEGMENTS_MAX = 8 };

struct parse {
	struct route *route;
	struct admin_error *error;
	char *path; /* a copy of path and query, cut up and decoded in place */
	char *query;
	char *segments[SEGMENTS_MAX];
	uint32_t segments_n;
};

static int parse_copy(struct parse *p, const char *uri);
static int parse_path(struct parse *p);
static int parse_verb(struct parse *p, const char *method);
static int parse_subject(struct parse *p);
static int parse_query(struct parse *p);
static int parse_body(struct parse *p, const char *body, size_t len);

static int decode(char *s, bool plus_is_space);
static bool path_matches(const struct parse *p, const char *pattern);
static int arg_from_text(struct parse *p, const struct admin_param *param, const char *value);

static int no_memory(struct parse *p)
{
	admin_error_set(p->error, ADMIN_E_INTERNAL, "Try again later.",
			"the metadata server is short of memory");
	return -ENOMEM;
}

int route_parse(const char *method, const char *uri, const char *body, size_t body_len,
		struct route *ret_route, struct admin_error *ret_error)
{
	struct parse p = {.route = ret_route, .error = ret_error};
	int r;

	memset(ret_route, 0, sizeof(*ret_route));
	ret_route->args = json_object();
	r = ret_route->args ? parse_copy(&p, uri) : no_memory(&p);
	if (!r)
		r = parse_path(&p);
	if (!r)
		r = parse_verb(&p, method);
	if (!r)
		r = parse_query(&p);
	if (!r)
		r = parse_body(&p, body, body_len);
	if (!r)
		r = parse_subject(&p); /* after the body, which might name a member like it */
	if (!r)
		r = admin_args_complete(ret_route->verb, ret_route->args, ret_error);
	mem_free(p.path);
	if (r)
		route_free(ret_route);
	return r;
}

void route_free(struct route *r)
{
	mem_free(r->subject);
	json_decref(r->args);
	r->subject = NULL;
	r->args = NULL;
}

static int parse_copy(struct parse *p, const char *uri)
{
	if (strlen(uri) > ROUTE_URI_MAX) {
		admin_error_set(p->error, ADMIN_E_TOO_LARGE, "",
				"the address of the request is longer than %d bytes", ROUTE_URI_MAX);
		return -EINVAL;
	}
	p->path = mem_strdup(uri);
	if (!p->path)
		return no_memory(p);
	p->query = strchr(p->path, '?');
	if (p->query)
		*p->query++ = '\0';
	return 0;
}

/* ---- path ------------------------------------------------------------------------------------------------------------------------- */

static int not_found(struct parse *p)
{
	admin_error_set(p->error, ADMIN_E_NOT_FOUND, "The API begins at /v1/status.",
			"there is nothing at this path");
	return -EINVAL;
}

/* Cut first, decoded then: an encoded slash is part of a name. */
static int parse_path(struct parse *p)
{
	char *s = p->path, *slash;

	if (*s != '/')
		return not_found(p);
	while (s) {
		if (p->segments_n == SEGMENTS_MAX)
			return not_found(p);
		*s++ = '\0';
		slash = strchr(s, '/');
		p->segments[p->segments_n++] = s;
		s = slash;
	}
	for (uint32_t i = 0; i < p->segments_n; i++) {
		if (decode(p->segments[i], false)) {
			admin_error_set(p->error, ADMIN_E_INVALID, "",
					"the path has a percent sign that encodes nothing");
			return -EINVAL;
		}
	}
	return 0;
}

static int parse_verb(struct parse *p, const char *method)
{
	const char *wanted = strcmp(method, "HEAD") ? method : "GET";
	struct route *route = p->route;
	size_t used;

	for (enum admin_verb v = 0; v < ADMIN_VERBS_N; v++) {
		const struct admin_verb_info info = admin_verb(v);

		if (!path_matches(p, info.path))
			continue;
		if (!strcmp(info.method, wanted)) {
			route->verb = v;
			return 0;
		}
		used = strlen(route->allow);
		snprintf(route->allow + used, sizeof(route->allow) - used, "%s%s", used ? ", " : "",
			 strcmp(info.method, "GET") ? info.method : "GET, HEAD");
	}
	if (!route->allow[0])
		return not_found(p);
	admin_error_set(p->error, ADMIN_E_METHOD_NOT_ALLOWED, "", "this path takes %s",
			route->allow);
	return -EINVAL;
}

static bool path_matches(const struct parse *p, const char *pattern)
{
	size_t len;

	for (uint32_t i = 0; i < p->segments_n; i++) {
		if (*pattern++ != '/')
			return false;
		len = strcspn(pattern, "/");
		if (*pattern == '{' ? !p->segments[i][0]
				    : strlen(p->segments[i]) != len ||
					  memcmp(p->segments[i], pattern, len) != 0)
			return false;
		pattern += len;
	}
	return !*pattern;
}

static int parse_subject(struct parse *p)
{
	const struct admin_verb_info info = admin_verb(p->route->verb);

	for (uint32_t i = 0; i < info.params_n; i++) {
		if (info.params[i].in != ADMIN_IN_PATH)
			continue;
		/* of all patterns it is the third: /v1/things/{thing} */
		p->route->subject = mem_strdup(p->segments[2]);
		if (!p->route->subject)
			return no_memory(p);
		return arg_from_text(p, &info.params[i], p->segments[2]);
	}
	return 0;
}

/* ---- query ------------------------------------------------------------------------------------------------------------------------ */

static int query_item(struct parse *p, char *item)
{
	char *value = strchr(item, '=');
	const struct admin_param *param;

	if (value)
		*value++ = '\0';
	if (decode(item, true) || (value && decode(value, true))) {
		admin_error_set(p->error, ADMIN_E_INVALID, "",
				"the query has a percent sign that encodes nothing");
		return -EINVAL;
	}
	param = admin_param(p->route->verb, item);
	if (!param || param->in != ADMIN_IN_QUERY) {
		admin_error_set(p->error, ADMIN_E_INVALID, "", "%s is not known in this query",
				item);
		return -EINVAL;
	}
	if (json_object_get(p->route->args, param->name)) {
		admin_error_set(p->error, ADMIN_E_INVALID, "", "%s is given twice", param->name);
		return -EINVAL;
	}
	return arg_from_text(p, param, value ? value : "");
}

static int parse_query(struct parse *p)
{
	char *next;
	int r = 0;

	for (char *item = p->query; item && !r; item = next) {
		next = strchr(item, '&');
		if (next)
			*next++ = '\0';
		if (*item)
			r = query_item(p, item);
	}
	return r;
}

/* What the text means where the table wants a number or a truth value; else the text itself, which the table's check refuses by name. */
static json_t *value_of_text(enum admin_type type, const char *s)
{
	size_t digits = strspn(s, "0123456789");
	json_t *v;

	if (type == ADMIN_BOOL && !strcmp(s, "true"))
		return json_true();
	if (type == ADMIN_BOOL && !strcmp(s, "false"))
		return json_false();
	if (type == ADMIN_INT && digits && !s[digits]) {
		v = json_loads(s, JSON_DECODE_ANY,
			       NULL); /* NULL: beyond 63 bits, or leading zeros */
		if (v)
			return v;
	}
	return json_string(s);
}

static int arg_from_text(struct parse *p, const struct admin_param *param, const char *value)
{
	json_t *v = value_of_text(param->type, value);

	if (!v) { /* also memory, but far more likely this */
		admin_error_set(p->error, ADMIN_E_INVALID, "", "%s is not UTF-8", param->name);
		return -EINVAL;
	}
	return json_object_set_new(p->route->args, param->name, v) ? no_memory(p) : 0;
}

/* ---- body ------------------------------------------------------------------------------------------------------------------------- */

static bool takes_body(enum admin_verb verb)
{
	const struct admin_verb_info info = admin_verb(verb);

	for (uint32_t i = 0; i < info.params_n; i++)
		if (info.params[i].in == ADMIN_IN_BODY)
			return true;
	return false;
}

static int body_members(struct parse *p, json_t *members)
{
	const struct admin_param *param;
	const char *name;
	json_t *value;

	json_object_foreach (members, name, value) {
		param = admin_param(p->route->verb, name);
		if (!param || param->in != ADMIN_IN_BODY) {
			admin_error_set(p->error, ADMIN_E_INVALID, "",
					"%s is not known in this body", name);
			return -EINVAL;
		}
		if (json_object_set(p->route->args, name, value))
			return no_memory(p);
	}
	return 0;
}

static int parse_body(struct parse *p, const char *body, size_t len)
{
	json_error_t why;
	json_t *members;
	int r;

	if (len == 0 && !takes_body(p->route->verb))
		return 0;
	if (len > ROUTE_BODY_MAX) {
		admin_error_set(p->error, ADMIN_E_TOO_LARGE, "", "the body is longer than %d bytes",
				ROUTE_BODY_MAX);
		return -EINVAL;
	}
	if (len == 0) {
		admin_error_set(p->error, ADMIN_E_INVALID, "",
				"the body is missing: a JSON object is expected");
		return -EINVAL;
	}
	members = json_loadb(body, len, JSON_REJECT_DUPLICATES, &why);
	if (!members) {
		admin_error_set(p->error, ADMIN_E_INVALID, "",
				"the body is not JSON, line %d column %d: %s", why.line, why.column,
				why.text);
		return -EINVAL;
	}
	if (json_is_object(members)) {
		r = body_members(p, members);
	} else {
		admin_error_set(p->error, ADMIN_E_INVALID, "", "the body must be a JSON object");
		r = -EINVAL;
	}
	json_decref(members);
	return r;
}

/* ---- percent-encoding -------------------------------------------------------------------------------------------------------------- */

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place. -EINVAL for a broken sequence and for %00, which would end the text. */
static int decode(char *s, bool plus_is_space)
{
	char *to = s;
	int high, low;

	for (; *s; s++) {
		if (*s == '+' && plus_is_space) {
			*to++ = ' ';
		} else if (*s != '%') {
			*to++ = *s;
		} else {
			high = hex(s[1]);
			low = high < 0 ? -1 : hex(s[2]);
			if (low < 0 || (high == 0 && low == 0))
				return -EINVAL;
			*to++ = (char)(high << 4 | low);
			s += 2;
		}
	}
	*to = '\0';
	return 0;
}
