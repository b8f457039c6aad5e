/* SPDX-License-Identifier: Apache-2.0 */
/* http.c - the command line as a client of the REST API (docs/openapi.yaml), by libcurl. */
#include <curl/curl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/base/check.h"
#include "src/base/mem.h"
#include "tools/cli/cli.h"

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
	char line[512];
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
		snprintf(line, sizeof(line), "Authorization: Bearer %s", token);
		list = curl_slist_append(list, line);
	}
	return list;
}

/* What went wrong below HTTP, in words that say what to look at. */
static void explain(CURLcode rc, const char *server, long timeout_secs, char errmsg[256])
{
	if (rc == CURLE_OPERATION_TIMEDOUT)
		snprintf(errmsg, 256, "%s did not answer within %ld s", server, timeout_secs);
	else if (rc == CURLE_COULDNT_CONNECT)
		snprintf(errmsg, 256, "nobody serves at %s", server);
	else if (rc == CURLE_COULDNT_RESOLVE_HOST)
		snprintf(errmsg, 256, "%s: no such host; write host:port or unix:PATH", server);
	else
		snprintf(errmsg, 256, "%s: %s", server, curl_easy_strerror(rc));
}

long api_raw(const char *server, long timeout_secs, const char *method, const char *path,
	     json_t *body, json_t **ret_answer, char errmsg[256])
{
	CURL *h = curl_easy_init();
	struct answer a = {0};
	struct curl_slist *list;
	char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	char url[4096];
	long http = 0;
	CURLcode rc;
	json_t *answer = NULL;
	json_error_t why;

	*ret_answer = NULL;
	if (!h || (body && !text)) {
		snprintf(errmsg, 256, "out of memory");
		goto out;
	}
	list = headers(method, text != NULL);
	set_server(h, server, path, url, sizeof(url));
	curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(h, CURLOPT_HTTPHEADER, list);
	curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(h, CURLOPT_PROXY, "");
	curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, 10L);
	curl_easy_setopt(h, CURLOPT_TIMEOUT, timeout_secs);
	curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, collect);
	curl_easy_setopt(h, CURLOPT_WRITEDATA, &a);
	if (text)
		curl_easy_setopt(h, CURLOPT_POSTFIELDS, text);
	else if (!strcmp(method, "POST"))
		curl_easy_setopt(h, CURLOPT_POSTFIELDS, "");
	rc = curl_easy_perform(h);
	curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &http);
	curl_slist_free_all(list);
	if (rc != CURLE_OK) {
		explain(rc, server, timeout_secs, errmsg);
		http = 0;
		goto out;
	}
	answer = a.len ? json_loads(a.data, JSON_DECODE_ANY, &why) : json_null();
	if (!answer) {
		snprintf(
		    errmsg, 256,
		    "%s answered HTTP %ld with what is not JSON; is it a Strata metadata server?",
		    server, http);
		http = 0;
		goto out;
	}
	if (http >= 400) {
		const char *message = json_string_value(json_object_get(answer, "message"));

		snprintf(errmsg, 256, "%s", message ? message : "refused without a message");
	}
	*ret_answer = answer;
out:
	curl_easy_cleanup(h);
	mem_free(a.data);
	free(text);
	return http;
}

static const char *find_server(struct cli *c)
{
	if (!c->server && access(DEFAULT_SOCKET, F_OK) == 0)
		c->server = "unix:" DEFAULT_SOCKET;
	return c->server;
}

int api_call(struct cli *c, const char *method, const char *path, json_t *body, json_t **ret_answer)
{
	char errmsg[256];
	json_t *answer;
	const char *hint;
	long http;

	if (!find_server(c)) {
		cli_fail("no server: start one with 'strata up --data DIR', or name one with "
			 "--server or $STRATA_SERVER");
		return EXIT_UNREACHABLE;
	}
	http = api_raw(c->server, c->timeout_secs, method, path, body, &answer, errmsg);
	if (http == 0) {
		cli_fail("%s", errmsg);
		fprintf(stderr,
			"Is the cluster running? 'strata up --data DIR' starts one; --server "
			"and $STRATA_SERVER say where it is.\n");
		return EXIT_UNREACHABLE;
	}
	if (http < 400) {
		*ret_answer = answer;
		return EXIT_OK;
	}
	cli_fail("%s", errmsg);
	hint = json_string_value(json_object_get(answer, "hint"));
	if (hint && *hint)
		fprintf(stderr, "%s\n", hint);
	json_decref(answer);
	return EXIT_FAILED;
}

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

static int follow_job(struct cli *c, json_int_t id, json_t **ret_job)
{
	char path[64];
	long wait_ms = JOB_POLL_MS;
	json_t *job;
	const char *state;
	int r;

	snprintf(path, sizeof(path), "/v1/jobs/%" JSON_INTEGER_FORMAT, id);
	for (;;) {
		bool ended;

		r = api_call(c, "GET", path, NULL, &job);
		if (r)
			return r;
		state = json_string_value(json_object_get(job, "state")) ?: "";
		ended = !strcmp(state, "done") || !strcmp(state, "failed") ||
			!strcmp(state, "cancelled");
		show_progress(job, ended);
		if (ended)
			break;
		json_decref(job);
		usleep((useconds_t)(wait_ms * 1000));
		wait_ms = wait_ms * 3 / 2 < JOB_POLL_MS_MAX ? wait_ms * 3 / 2 : JOB_POLL_MS_MAX;
	}
	if (strcmp(state, "done")) {
		const char *why =
		    json_string_value(json_object_get(json_object_get(job, "error"), "message"));

		r = cli_fail("job %" JSON_INTEGER_FORMAT " %s%s%s", id, state, why ? ": " : "",
			     why ? why : "");
		json_decref(job);
		return r;
	}
	*ret_job = job;
	return EXIT_OK;
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
