/* SPDX-License-Identifier: Apache-2.0 */
/* http.c - the command line as a client of the REST API (docs/openapi.yaml), by libcurl. */
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/base/check.h"
#include "src/base/mem.h"
#include "tools/cli/cli.h"

enum { SOCKET_PATH_MAX = 107, HTTP_UNAUTHORIZED = 401 };
enum { ANSWER_BYTES_MAX = 64 << 20, LIST_PAGE = 1000, JOB_POLL_MS = 100, JOB_POLL_MS_MAX = 2000 };

/* Where `strata up` of the current directory serves. */
#define DEFAULT_SOCKET "strata-data/run/api.sock"

struct answer {
	char *data;
	size_t len;
};

static size_t collect(char *data, size_t size, size_t n, void *arg)
{
	struct answer *a = arg;
	size_t len = size * n;
	char *grown;

	if (len > ANSWER_BYTES_MAX - a->len)
		return 0;
	grown = mem_realloc(a->data, a->len + len + 1, 1);
	if (!grown)
		return 0;
	memcpy(grown + a->len, data, len);
	a->data = grown;
	a->len += len;
	a->data[a->len] = '\0';
	return len;
}

static void set_server(CURL *h, const char *server, const char *path, char *url, size_t url_len)
{
	if (!strncmp(server, "unix:", 5)) {
		curl_easy_setopt(h, CURLOPT_UNIX_SOCKET_PATH, server + 5);
		snprintf(url, url_len, "http://strata%s", path);
	} else {
		snprintf(url, url_len, "%s%s%s", strstr(server, "://") ? "" : "http://", server,
			 path);
	}
	curl_easy_setopt(h, CURLOPT_URL, url);
}

/* A repeated POST must not be done twice: the key is the same for curl's own retries on a reused connection. */
static struct curl_slist *headers(const char *method, bool has_body)
{
	struct curl_slist *list = NULL;
	const char *token = getenv("STRATA_TOKEN");
	char line[128], *bearer;
	struct timespec ts;

	if (has_body)
		list = curl_slist_append(list, "Content-Type: application/json");
	list = curl_slist_append(list, "Expect:");
	if (!strcmp(method, "POST")) {
		clock_gettime(CLOCK_REALTIME, &ts);
		snprintf(line, sizeof(line), "Idempotency-Key: cli-%d-%lld-%ld", (int)getpid(),
			 (long long)ts.tv_sec, ts.tv_nsec);
		list = curl_slist_append(list, line);
	}
	if (token) {
		bearer = mem_printf("Authorization: Bearer %s", token);
		check(bearer);
		list = curl_slist_append(list, bearer);
		mem_free(bearer);
	}
	return list;
}

/* What went wrong below HTTP, in words that say what to look at. */
static void explain(CURL *h, CURLcode rc, const char *server, long timeout_secs,
		    struct api_error *why)
{
	enum { ROOM = sizeof(why->message) };
	char *m = why->message;
	long os = 0;

	snprintf(why->hint, sizeof(why->hint),
		 "Is the cluster running? 'strata up --data DIR' starts one; --server "
		 "unix:DIR/run/api.sock or $STRATA_SERVER says where it is.");
	curl_easy_getinfo(h, CURLINFO_OS_ERRNO, &os);
	if (rc == CURLE_OPERATION_TIMEDOUT)
		snprintf(m, ROOM, "%s did not answer within %ld s", server, timeout_secs);
	else if (!strncmp(server, "unix:", 5) && strlen(server + 5) > SOCKET_PATH_MAX)
		snprintf(m, ROOM, "the path of a unix socket has at most %d bytes, not %zu",
			 SOCKET_PATH_MAX, strlen(server + 5));
	else if (rc == CURLE_COULDNT_CONNECT && (os == EACCES || os == EPERM))
		snprintf(m, ROOM,
			 "%s: permission denied: only the user who runs the server, and root, may "
			 "use its socket",
			 server);
	else if (rc == CURLE_COULDNT_CONNECT)
		snprintf(m, ROOM, "nobody serves at %s", server);
	else if (rc == CURLE_COULDNT_RESOLVE_HOST)
		snprintf(m, ROOM, "%s: no such host; write host:port or unix:PATH", server);
	else
		snprintf(m, ROOM, "%s: %s", server, curl_easy_strerror(rc));
}

struct watching {
	struct api_watch *watch;
	char *errmsg;
};

/* libcurl calls it about once a second while nothing comes. */
static int look(void *arg, curl_off_t down_all, curl_off_t down, curl_off_t up_all, curl_off_t up)
{
	struct watching *w = arg;

	(void)down_all;
	(void)down;
	(void)up_all;
	(void)up;
	w->watch->gave_up = !w->watch->go_on(w->watch, w->errmsg);
	return w->watch->gave_up;
}

/* The HTTP status, and the body in ret_answer (NULL: it is empty); 0 when there is none, *why says why. */
static long exchange(const struct api_target *to, const char *method, const char *path,
		     const char *body, struct answer *ret_answer, struct api_error *why)
{
	CURL *h = curl_easy_init();
	struct watching w = {.watch = to->watch, .errmsg = why->message};
	struct curl_slist *list;
	char url[4096];
	long http = 0;
	CURLcode rc;

	*why = (struct api_error){.code = "unreachable"};
	if (!h) {
		snprintf(why->message, sizeof(why->message), "out of memory");
		return 0;
	}
	list = headers(method, body != NULL);
	set_server(h, to->server, path, url, sizeof(url));
	curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(h, CURLOPT_HTTPHEADER, list);
	curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(h, CURLOPT_PROXY, "");
	curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, 10L);
	curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, collect);
	curl_easy_setopt(h, CURLOPT_WRITEDATA, ret_answer);
	if (to->watch) {
		curl_easy_setopt(h, CURLOPT_NOPROGRESS, 0L);
		curl_easy_setopt(h, CURLOPT_XFERINFOFUNCTION, look);
		curl_easy_setopt(h, CURLOPT_XFERINFODATA, &w);
	} else {
		curl_easy_setopt(h, CURLOPT_TIMEOUT, to->timeout_secs);
	}
	if (body || !strcmp(method, "POST"))
		curl_easy_setopt(h, CURLOPT_POSTFIELDS, body ? body : "");
	rc = curl_easy_perform(h);
	curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &http);
	curl_slist_free_all(list);
	if (rc != CURLE_OK && !(to->watch && to->watch->gave_up))
		explain(h, rc, to->server, to->timeout_secs, why);
	curl_easy_cleanup(h);
	return rc == CURLE_OK ? http : 0;
}

/* {code, message, hint}, as far as the server said them. */
static void take_error(long http, json_t *answer, struct api_error *ret_why)
{
	const char *code = json_string_value(json_object_get(answer, "code")),
		   *message = json_string_value(json_object_get(answer, "message")),
		   *hint = json_string_value(json_object_get(answer, "hint"));

	if (http == HTTP_UNAUTHORIZED)
		hint = "Set $STRATA_TOKEN to the token in the file that the server's "
		       "--api-token-file names.";
	snprintf(ret_why->code, sizeof(ret_why->code), "%s", code ?: "internal");
	snprintf(ret_why->message, sizeof(ret_why->message), "%s",
		 message ?: "refused without a message");
	snprintf(ret_why->hint, sizeof(ret_why->hint), "%s", hint ?: "");
}

long api_raw(const struct api_target *to, const char *method, const char *path, json_t *body,
	     json_t **ret_answer, struct api_error *ret_why)
{
	char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	struct answer a = {0};
	json_t *answer = NULL;
	json_error_t error;
	long http;

	check(!body || text);
	http = exchange(to, method, path, text, &a, ret_why);
	if (http)
		answer = a.len ? json_loads(a.data, JSON_DECODE_ANY, &error) : json_null();
	if (http && !answer) {
		snprintf(
		    ret_why->message, sizeof(ret_why->message),
		    "%s answered HTTP %ld with what is not JSON; is it a Strata metadata server?",
		    to->server, http);
		http = 0;
	}
	if (http >= 400)
		take_error(http, answer, ret_why);
	*ret_answer = answer;
	mem_free(a.data);
	free(text);
	return http;
}

char *api_text(const struct api_target *to, const char *path)
{
	struct api_error why;
	struct answer a = {0};

	if (exchange(to, "GET", path, NULL, &a, &why) == 200)
		return a.data;
	mem_free(a.data);
	return NULL;
}

const char *api_server(struct cli *c)
{
	if (!c->server && access(DEFAULT_SOCKET, F_OK) == 0)
		c->server = "unix:" DEFAULT_SOCKET;
	return c->server;
}

/* The server speaks of members of the request; who reads this wrote options. */
static void name_options(const struct cli *c, struct api_error *why)
{
	static const struct {
		const char *member, *option;
	} names[] = {
	    {"size_bytes", "size"},	      {"sector_bytes", "sector-size"},
	    {"write_cache", "write-cache"},   {"block_bytes", "block-size"},
	    {"stride_bytes", "stride"},	      {"flush_every", "flush-every"},
	    {"read_percent", "read-percent"}, {"seconds", "secs"},
	};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		size_t len = strlen(names[i].member);
		char rest[sizeof(why->message)];
		bool has = false;

		for (const struct cli_option *o = c->cmd->options; o->name; o++)
			has |= !strcmp(o->name, names[i].option);
		if (!has || strncmp(why->message, names[i].member, len) || why->message[len] != ' ')
			continue;
		snprintf(rest, sizeof(rest), "%s", why->message + len);
		snprintf(why->message, sizeof(why->message), "--%s%.480s", names[i].option, rest);
		return;
	}
}

/* EXIT_OK, or the exit code that goes with *ret_why. */
static int call(struct cli *c, struct api_watch *watch, const char *method, const char *path,
		json_t *body, json_t **ret_answer, struct api_error *ret_why)
{
	struct api_target to = {.timeout_secs = c->timeout_secs, .watch = watch};
	json_t *answer;
	long http;

	to.server = api_server(c);
	if (!to.server) {
		*ret_why = (struct api_error){
		    "unreachable",
		    "no server: start one with 'strata up --data DIR', or name one with --server "
		    "unix:DIR/run/api.sock or $STRATA_SERVER",
		    ""};
		return EXIT_UNREACHABLE;
	}
	http = api_raw(&to, method, path, body, &answer, ret_why);
	if (http == 0)
		return EXIT_UNREACHABLE;
	if (http < 400) {
		*ret_answer = answer;
		return EXIT_OK;
	}
	json_decref(answer);
	name_options(c, ret_why);
	return strcmp(ret_why->code, "invalid") ? EXIT_FAILED : EXIT_USAGE;
}

int api_call(struct cli *c, const char *method, const char *path, json_t *body, json_t **ret_answer)
{
	return api_call_watched(c, NULL, method, path, body, ret_answer);
}

int api_call_watched(struct cli *c, struct api_watch *watch, const char *method, const char *path,
		     json_t *body, json_t **ret_answer)
{
	struct api_error why;
	int r = call(c, watch, method, path, body, ret_answer, &why);

	return r ? cli_error(r, why.code, why.hint, "%s", why.message) : EXIT_OK;
}

/* ---- jobs ---------------------------------------------------------------------------------------------------------------------- */

static void show_progress(json_t *job, bool end)
{
	json_int_t done = json_integer_value(json_object_get(job, "done")),
		   total = json_integer_value(json_object_get(job, "total"));

	if (!isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "\r%s: %" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT "%s",
		json_string_value(json_object_get(job, "kind")) ?: "job", done, total,
		end ? "\n" : "   ");
}

static bool has_ended(json_t *job)
{
	const char *state = json_string_value(json_object_get(job, "state")) ?: "";

	return !strcmp(state, "done") || !strcmp(state, "failed") || !strcmp(state, "cancelled");
}

/* Looks until it has ended; *ret_job is then what it has become. */
static int await_job(struct cli *c, json_int_t id, json_t **ret_job)
{
	long wait_ms = JOB_POLL_MS;
	struct api_error why;
	char path[64];

	snprintf(path, sizeof(path), "/v1/jobs/%" JSON_INTEGER_FORMAT, id);
	for (;;) {
		json_t *job;
		int r = call(c, NULL, "GET", path, NULL, &job, &why);
		bool ended;

		if (r) {
			snprintf(why.hint, sizeof(why.hint),
				 "The work goes on without this command: 'strata job show "
				 "%" JSON_INTEGER_FORMAT "' tells how far it is.",
				 id);
			return cli_error(r, why.code, why.hint, "%s", why.message);
		}
		ended = has_ended(job);
		show_progress(job, ended);
		if (ended) {
			*ret_job = job;
			return EXIT_OK;
		}
		json_decref(job);
		usleep((useconds_t)(wait_ms * 1000));
		wait_ms = wait_ms * 3 / 2 < JOB_POLL_MS_MAX ? wait_ms * 3 / 2 : JOB_POLL_MS_MAX;
	}
}

static int follow_job(struct cli *c, json_int_t id, json_t **ret_job)
{
	const char *state, *code, *message, *hint;
	json_t *job, *error;
	int r = await_job(c, id, &job);

	if (r)
		return r;
	state = json_string_value(json_object_get(job, "state")) ?: "";
	if (!strcmp(state, "done")) {
		*ret_job = job;
		return EXIT_OK;
	}
	error = json_object_get(job, "error");
	code = json_string_value(json_object_get(error, "code"));
	message = json_string_value(json_object_get(error, "message"));
	hint = json_string_value(json_object_get(error, "hint"));
	r = cli_error(EXIT_FAILED, code ?: "cancelled", hint, "job %" JSON_INTEGER_FORMAT " %s%s%s",
		      id, state, message ? ": " : "", message ?: "");
	json_decref(job);
	return r;
}

int api_call_job(struct cli *c, const char *method, const char *path, json_t *body, bool async,
		 json_t **ret_answer)
{
	json_t *answer, *id;
	int r = api_call(c, method, path, body, &answer);

	if (r)
		return r;
	id = json_object_get(answer, "job");
	if (json_is_integer(id) && !async) {
		r = follow_job(c, json_integer_value(id), ret_answer);
		json_decref(answer);
		return r;
	}
	*ret_answer = answer;
	return EXIT_OK;
}

int api_list(struct cli *c, const char *path, json_t **ret_items)
{
	json_t *all = json_array(), *answer, *items;
	char *after = NULL;

	for (;;) {
		char *page = mem_printf("%s?limit=%d%s%s", path, LIST_PAGE, after ? "&after=" : "",
					after ? after : "");
		const char *next;
		int r;

		check(page);
		r = api_call(c, "GET", page, NULL, &answer);
		mem_free(page);
		mem_free(after);
		after = NULL;
		if (r) {
			json_decref(all);
			return r;
		}
		items = json_object_get(answer, "items");
		json_array_extend(all, items);
		next = json_string_value(json_object_get(answer, "next"));
		if (next && json_array_size(items))
			after = api_escape(next);
		json_decref(answer);
		if (!after)
			break;
	}
	*ret_items = all;
	return EXIT_OK;
}

char *api_escape(const char *name)
{
	char *e = curl_easy_escape(NULL, name, 0), *copy = e ? mem_strdup(e) : NULL;

	curl_free(e);
	check(copy);
	return copy;
}
