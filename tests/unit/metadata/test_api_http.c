/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP server over real sockets, with an executor that answers at once or when it is told to. Clients are threads with plain sockets; the loop
 * is the test's thread, which alone asserts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "metadata/api/http.h"
#include "src/base/mem.h"

enum { HELD_MAX = 64, REPLY_MAX = 4096, CLIENTS_MAX = 64 };
#define TOKEN "s3cret"

struct fixture {
	struct ioe *ioe;
	char dir[64], unix_addr[96], tcp_addr[IOE_ADDR_MAX];
	struct http *http;
	bool hold;
	struct admin_req *held[HELD_MAX];
	int held_n, submits;
	bool closing, closed;
	uint64_t live;
};

/* ---- executor ---------------------------------------------------------------------------------------------------------------------------- */

static void answer(struct fixture *fx, struct admin_req *r)
{
	if (r->verb == ADMIN_METRICS)
		admin_answer_text(r, mem_strdup("a 1\n"));
	else if (r->verb == ADMIN_VOLUME_SHOW)
		admin_fail(r, ADMIN_E_NOT_FOUND, "strata volume list", "there is no volume %s",
			   r->subject);
	else if (r->verb == ADMIN_POOL_LIST)
		admin_answer(r, 200, json_pack("{s:o}", "items", NULL)); /* short of memory */
	else
		admin_answer(r, r->verb == ADMIN_VOLUME_CREATE ? 201 : 200,
			     json_pack("{s:i, s:O}", "n", fx->submits, "args", r->args));
}

static void fake_submit(void *arg, struct admin_req *r)
{
	struct fixture *fx = arg;

	fx->submits++;
	if (fx->hold && fx->held_n < HELD_MAX)
		fx->held[fx->held_n++] = r;
	else
		answer(fx, r);
}

static void release(struct fixture *fx)
{
	for (int i = 0; i < fx->held_n; i++)
		answer(fx, fx->held[i]);
	fx->held_n = 0;
}

/* ---- server ------------------------------------------------------------------------------------------------------------------------------- */

static int open_on(struct fixture *fx, const char *const *addrs, uint32_t n, const char *token,
		   char *errmsg)
{
	const struct http_config cfg = {.ioe = fx->ioe,
					.addrs = addrs,
					.addrs_n = n,
					.token = token,
					.submit = fake_submit,
					.submit_arg = fx,
					.outstanding_max = 16,
					.close_timeout_ns = 300000000};

	return http_open(&cfg, &fx->http, errmsg);
}

static int setup(void **state)
{
	struct fixture *fx = calloc(1, sizeof(*fx));
	const char *addrs[] = {fx->unix_addr, "127.0.0.1:0", "0.0.0.0:0"};
	char errmsg[ERRMSG_LEN];

	fx->live = mem_live();
	snprintf(fx->dir, sizeof(fx->dir), "/tmp/strata-api-XXXXXX");
	if (!mkdtemp(fx->dir) || ioe_new(&(struct ioe_config){.kind = IOE_AUTO}, &fx->ioe))
		return -1;
	snprintf(fx->unix_addr, sizeof(fx->unix_addr), "unix:%s/api", fx->dir);
	if (open_on(fx, addrs, 3, TOKEN, errmsg))
		return -1;
	http_addr(fx->http, 1, fx->tcp_addr);
	*state = fx;
	return 0;
}

static void on_closed(void *arg)
{
	((struct fixture *)arg)->closed = true;
}

static void poll_for(struct fixture *fx, uint64_t ns)
{
	uint64_t end = ioe_now_ns(fx->ioe) + ns;

	while (ioe_now_ns(fx->ioe) < end)
		ioe_poll(fx->ioe, end);
}

static int teardown(void **state)
{
	struct fixture *fx = *state;
	int leaked;

	release(fx);
	fx->hold = false;
	if (fx->http && !fx->closing)
		http_close(fx->http, on_closed, fx);
	while (fx->http && !fx->closed)
		ioe_poll(fx->ioe, ioe_now_ns(fx->ioe) + 100000000);
	ioe_free(fx->ioe);
	leaked = mem_live() != fx->live;
	if (leaked)
		print_message("%d allocations leaked\n", (int)(mem_live() - fx->live));
	rmdir(fx->dir);
	free(fx);
	return leaked ? -1 : 0;
}

static void close_begin(struct fixture *fx)
{
	fx->closing = true;
	http_close(fx->http, on_closed, fx);
}

/* ---- clients ------------------------------------------------------------------------------------------------------------------------------- */

struct client {
	const char *addr;
	char request[2048];
	const char *body; /* sent after it */
	size_t body_len;
	char reply[REPLY_MAX];
	bool leave; /* does not read the answer */
	pthread_t thread;
	atomic_bool over;
};

static int dial(const char *addr)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct timeval limit = {.tv_sec = 10};
	bool local = !strncmp(addr, "unix:", 5);
	int fd = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM, 0);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", addr + 5);
	in.sin_port = htons((in_port_t)strtoul(strrchr(addr, ':') + 1, NULL, 10));
	inet_pton(AF_INET, "127.0.0.1", &in.sin_addr);
	if (local ? connect(fd, (struct sockaddr *)&un, sizeof(un))
		  : connect(fd, (struct sockaddr *)&in, sizeof(in))) {
		close(fd);
		return -1;
	}
	return fd;
}

static void *client_run(void *arg)
{
	struct client *c = arg;
	int fd = dial(c->addr);
	size_t got = 0;
	ssize_t n = 0;

	if (fd >= 0) {
		(void)!send(fd, c->request, strlen(c->request), MSG_NOSIGNAL);
		if (c->body)
			(void)!send(fd, c->body, c->body_len, MSG_NOSIGNAL);
		while (!c->leave && (n = recv(fd, c->reply + got, REPLY_MAX - 1 - got, 0)) > 0)
			got += (size_t)n;
		close(fd);
	}
	c->reply[got] = '\0';
	atomic_store(&c->over, true);
	return NULL;
}

static struct client *client_new(const char *addr, const char *method, const char *uri,
				 const char *headers, const char *body)
{
	struct client *c = calloc(1, sizeof(*c));

	c->addr = addr;
	c->body = body;
	c->body_len = body ? strlen(body) : 0;
	snprintf(c->request, sizeof(c->request),
		 "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n",
		 method, uri, headers, c->body_len);
	return c;
}

static void client_start(struct client *c)
{
	pthread_create(&c->thread, NULL, client_run, c);
}

static void client_wait(struct fixture *fx, struct client *c)
{
	while (!atomic_load(&c->over))
		ioe_poll(fx->ioe, ioe_now_ns(fx->ioe) + 5000000);
	pthread_join(c->thread, NULL);
}

/* The reply, in a static buffer. */
static const char *ask(struct fixture *fx, const char *addr, const char *method, const char *uri,
		       const char *headers, const char *body)
{
	static char reply[REPLY_MAX];
	struct client *c = client_new(addr, method, uri, headers, body);

	client_start(c);
	client_wait(fx, c);
	memcpy(reply, c->reply, sizeof(reply));
	free(c);
	return reply;
}

static void has(const char *reply, int status, const char *text)
{
	char head[32];

	snprintf(head, sizeof(head), "HTTP/1.1 %d ", status);
	if (strncmp(reply, head, strlen(head)) != 0 || !strstr(reply, text))
		fail_msg("expected %d and '%s' in: %s", status, text, reply);
}

static void poll_until_held(struct fixture *fx, int n)
{
	for (int i = 0; i < 2000 && fx->held_n < n; i++)
		ioe_poll(fx->ioe, ioe_now_ns(fx->ioe) + 5000000);
	assert_int_equal(fx->held_n, n);
}

/* ---- tests ---------------------------------------------------------------------------------------------------------------------------------- */

#define VOLUME "{\"name\":\"v\",\"size_bytes\":4096}"

static void answers_and_errors_are_json(void **state)
{
	struct fixture *fx = *state;
	const char *addrs[] = {fx->unix_addr, fx->tcp_addr};

	for (int i = 0; i < 2; i++) {
		has(ask(fx, addrs[i], "GET", "/v1/nodes?limit=3", "", NULL), 200,
		    "\"args\":{\"limit\":3}");
		has(ask(fx, addrs[i], "POST", "/v1/volumes", "", VOLUME), 201,
		    "Content-Type: application/json\r\n");
		has(ask(fx, addrs[i], "GET", "/metrics", "", NULL), 200, "\r\n\r\na 1\n");
		has(ask(fx, addrs[i], "GET", "/v1/volumes/x", "", NULL), 404,
		    "{\"code\":\"not_found\",\"message\":\"there is no volume "
		    "x\",\"hint\":\"strata "
		    "volume list\"}");
		has(ask(fx, addrs[i], "GET", "/v1/pools", "", NULL), 500, "internal");
		has(ask(fx, addrs[i], "GET", "/v2", "", NULL), 404, "\"code\":\"not_found\"");
		has(ask(fx, addrs[i], "PUT", "/v1/check", "", NULL), 405, "\r\nAllow: POST\r\n");
		has(ask(fx, addrs[i], "POST", "/v1/volumes", "", "{"), 400, "invalid");
		has(ask(fx, addrs[i], "HEAD", "/v1/status", "", NULL), 200, "\r\n");
	}
}

static void unix_socket_is_private(void **state)
{
	struct fixture *fx = *state;
	struct stat st;

	assert_int_equal(stat(fx->unix_addr + 5, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void others_machines_need_the_token(void **state)
{
	struct fixture *fx = *state;
	char addr[IOE_ADDR_MAX];

	http_addr(fx->http, 2, addr);
	has(ask(fx, addr, "GET", "/v1/status", "", NULL), 401, "WWW-Authenticate: Bearer");
	has(ask(fx, addr, "GET", "/v1/status", "Authorization: Bearer s3creT\r\n", NULL), 401,
	    "unauthorized");
	has(ask(fx, addr, "GET", "/v1/status", "Authorization: Bearer " TOKEN TOKEN "\r\n", NULL),
	    401, "unauthorized");
	has(ask(fx, addr, "GET", "/v1/status", "Authorization: Bearer \r\n", NULL), 401,
	    "unauthorized");
	has(ask(fx, addr, "GET", "/v1/status", "Authorization: Basic " TOKEN "\r\n", NULL), 401,
	    "unauthorized");
	assert_int_equal(fx->submits, 0);
	has(ask(fx, addr, "GET", "/v1/status", "Authorization: bearer " TOKEN "\r\n", NULL), 200,
	    "args");
	has(ask(fx, fx->tcp_addr, "POST", "/v1/check", "Origin: http://evil\r\n", NULL), 401,
	    "web pages");
}

static void opening_refuses_clearly(void **state)
{
	struct fixture *fx = *state, other = *fx;
	const char *open_addr[] = {"127.0.0.1:0", "0.0.0.0:0"}, *taken[] = {fx->unix_addr};
	const char *nonsense[] = {"localhost"};
	char errmsg[ERRMSG_LEN];

	assert_int_equal(open_on(&other, open_addr, 2, NULL, errmsg), -EACCES);
	assert_non_null(strstr(errmsg, "0.0.0.0:0 can be reached from other machines"));
	assert_int_equal(open_on(&other, taken, 1, NULL, errmsg), -EADDRINUSE);
	assert_int_equal(open_on(&other, nonsense, 1, NULL, errmsg), -EINVAL);
	assert_non_null(strstr(errmsg, "localhost"));
	assert_int_equal(open_on(&other, open_addr, 2, "", errmsg), -EINVAL);
	assert_int_equal(open_on(&other, open_addr, 0, NULL, errmsg), -EINVAL);
	for (uint64_t n = 0; n < 12; n++) {
		mem_fail_at(n, 1);
		if (!open_on(&other, open_addr, 1, NULL, errmsg)) {
			mem_fail_at(UINT64_MAX, 0);
			other.closed = false;
			http_close(other.http, on_closed, &other);
			while (!other.closed)
				ioe_poll(fx->ioe, ioe_now_ns(fx->ioe) + 5000000);
			return;
		}
		mem_fail_at(UINT64_MAX, 0);
	}
	fail();
}

static void limits_hold(void **state)
{
	struct fixture *fx = *state;
	char *big = calloc(1, 400000), uri[16000];
	struct client *c;

	memset(big, ' ', 70000);
	has(ask(fx, fx->unix_addr, "POST", "/v1/check", "", big), 413, "too_large");
	big[65536 - 2] = '\0';
	strncat(big, "{}", 3);
	has(ask(fx, fx->unix_addr, "POST", "/v1/check", "", big), 200, "args");

	/* chunked: no length is known before */
	c = client_new(fx->unix_addr, "POST", "/v1/check", "", NULL);
	snprintf(c->request, sizeof(c->request),
		 "POST /v1/check HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
		 "Transfer-Encoding: chunked\r\n\r\n20000\r\n");
	memset(big, ' ', 0x20000);
	memcpy(big + 0x20000, "\r\n0\r\n\r\n", 8);
	c->body = big;
	c->body_len = 0x20000 + 7;
	client_start(c);
	client_wait(fx, c);
	has(c->reply, 413, "too_large");
	free(c);

	memset(uri, 'a', sizeof(uri));
	uri[0] = '/';
	uri[1900] = '\0';
	has(ask(fx, fx->unix_addr, "GET", uri, "", NULL), 404, "not_found");
	free(big);
}

static int over_n(struct client *const c[], size_t n)
{
	int over = 0;

	for (size_t i = 0; i < n; i++)
		over += atomic_load(&c[i]->over);
	return over;
}

static void too_many_are_busy(void **state)
{
	struct fixture *fx = *state;
	struct client *c[20];
	int busy = 0, ok = 0;

	fx->hold = true;
	for (size_t i = 0; i < ARRAY_LEN(c); i++)
		client_start(c[i] = client_new(fx->unix_addr, "GET", "/v1/status", "", NULL));
	poll_until_held(fx, 16);
	for (int i = 0; i < 2000 && over_n(c, ARRAY_LEN(c)) < 4; i++)
		ioe_poll(fx->ioe, ioe_now_ns(fx->ioe) + 5000000);
	release(fx);
	for (size_t i = 0; i < ARRAY_LEN(c); i++) {
		client_wait(fx, c[i]);
		busy += strstr(c[i]->reply, "503") && strstr(c[i]->reply, "\"busy\"");
		ok += strstr(c[i]->reply, "200") != NULL;
		free(c[i]);
	}
	assert_int_equal(ok, 16);
	assert_int_equal(busy, 4);
}

static void keys_give_the_first_answer(void **state)
{
	struct fixture *fx = *state;
	struct client *c[3];
	char first[REPLY_MAX];

	snprintf(first, sizeof(first), "%s",
		 ask(fx, fx->unix_addr, "POST", "/v1/volumes", "Idempotency-Key: k\r\n", VOLUME));
	has(first, 201, "\"n\":1");
	has(ask(fx, fx->tcp_addr, "POST", "/v1/volumes", "idempotency-key: k\r\n", VOLUME), 201,
	    "\"n\":1");
	has(ask(fx, fx->tcp_addr, "POST", "/v1/volumes", "idempotency-key: k\r\n", VOLUME " "), 422,
	    "key_reused");
	has(ask(fx, fx->tcp_addr, "POST", "/v1/check", "idempotency-key: k\r\n", NULL), 422,
	    "key_reused");
	has(ask(fx, fx->tcp_addr, "GET", "/v1/status", "idempotency-key: k\r\n", NULL), 200,
	    "\"n\":2");
	has(ask(fx, fx->tcp_addr, "POST", "/v1/check", "idempotency-key: \r\n", NULL), 400,
	    "Idempotency-Key must be");
	assert_int_equal(fx->submits, 2);

	/* while the first is under way the others wait for its answer */
	fx->hold = true;
	for (size_t i = 0; i < ARRAY_LEN(c); i++)
		client_start(c[i] = client_new(fx->unix_addr, "POST", "/v1/volumes",
					       "Idempotency-Key: k2\r\n", VOLUME));
	poll_until_held(fx, 1);
	poll_for(fx, 50000000);
	assert_int_equal(fx->submits, 3);
	release(fx);
	for (size_t i = 0; i < ARRAY_LEN(c); i++) {
		client_wait(fx, c[i]);
		has(c[i]->reply, 201, "\"n\":3");
		free(c[i]);
	}
}

static void noise_on_the_socket_is_survived(void **state)
{
	static const char *const noise[] = {
	    "\r\n\r\n\r\n\r\n",
	    "GET",
	    "GET / HTTP/9.9\r\n\r\n",
	    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	    "GET /v1/status HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
	    "GET /v1/status HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
	    "POST /v1/check HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
	    "POST /v1/check HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{}",
	    "GET http://x/v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
	};

	struct fixture *fx = *state;

	for (size_t i = 0; i < ARRAY_LEN(noise); i++) {
		struct client *c = client_new(fx->unix_addr, "", "", "", NULL);

		snprintf(c->request, sizeof(c->request), "%s", noise[i]);
		c->leave = true;
		client_start(c);
		client_wait(fx, c);
		free(c);
	}
	has(ask(fx, fx->unix_addr, "GET", "/v1/status", "", NULL), 200, "args");
}

/* Errors do not end a connection: what follows on it is understood. */
static void a_connection_goes_on_after_errors(void **state)
{
	static const char requests[] =
	    "GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n"
	    "POST /v1/volumes HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n{"
	    "PUT /v1/check HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
	    "HEAD /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"
	    "OPTIONS /v1/volumes HTTP/1.1\r\nHost: x\r\n\r\n"
	    "POST /v1/check HTTP/1.1\r\nHost: x\r\nIdempotency-Key:\r\nContent-Length: 0\r\n\r\n"
	    "POST /v1/volumes HTTP/1.1\r\nHost: x\r\nContent-Length: 44\r\n\r\n"
	    "{\"name\":\"v\",\"name\":\"w\",   \"size_bytes\":4096}"
	    "GET /v1/volumes/%zz HTTP/1.1\r\nHost: x\r\n\r\n"
	    "GET /v1/volumes/a%2fb%c3 HTTP/1.1\r\nHost: x\r\n\r\n"
	    "POST /v1/volumes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
	    "a\r\n{\"name\":\"v\r\n14\r\n\",\"size_bytes\":4096}\r\n0\r\n\r\n"
	    "GET /v1/nodes?limit=3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
	static const int expected[] = {404, 400, 405, 200, 405, 400, 400, 400, 400, 201, 200};
	struct fixture *fx = *state;
	struct client *c = client_new(fx->tcp_addr, "", "", "", NULL);
	const char *at = c->reply;

	snprintf(c->request, sizeof(c->request), "%s", requests);
	client_start(c);
	client_wait(fx, c);
	for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
		at = strstr(at, "HTTP/1.1 ");
		if (!at)
			fail_msg("%zu answers only: %s", i, c->reply);
		at += 9;
		if (strtol(at, NULL, 10) != expected[i])
			fail_msg("answer %zu: %.300s", i, at);
	}
	assert_non_null(strstr(c->reply, "\r\nAllow: GET, HEAD, POST\r\n"));
	assert_null(strstr(at, "HTTP/1.1 ")); /* one each */
	assert_non_null(strstr(at, "\"limit\":3"));
	free(c);
}

static void clients_that_left_are_forgotten(void **state)
{
	static const char request[] = "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n";
	struct fixture *fx = *state;
	int fd;

	fx->hold = true;
	for (int i = 0; i < 8; i++) {
		fd = dial(fx->unix_addr);
		assert_int_equal(send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL),
				 sizeof(request) - 1);
		poll_until_held(fx, i + 1);
		close(fd);
	}
	release(fx);
	fx->hold = false;
	has(ask(fx, fx->unix_addr, "GET", "/v1/status", "", NULL), 200, "args");
}

static void close_answers_what_is_under_way(void **state)
{
	struct fixture *fx = *state;
	struct client *c[4];

	fx->hold = true;
	for (size_t i = 0; i < ARRAY_LEN(c); i++)
		client_start(c[i] = client_new(fx->unix_addr, "POST", "/v1/check", "", NULL));
	poll_until_held(fx, ARRAY_LEN(c));
	close_begin(fx);
	poll_for(fx, 400000000); /* longer than close_timeout_ns */
	assert_false(fx->closed);
	release(fx);
	for (size_t i = 0; i < ARRAY_LEN(c); i++) {
		client_wait(fx, c[i]);
		free(c[i]);
	}
	for (int i = 0; i < 100 && !fx->closed; i++)
		poll_for(fx, 10000000);
	assert_true(fx->closed);
	assert_int_equal(access(fx->unix_addr + 5, F_OK), -1);
}

static void close_in_time_gives_the_answers(void **state)
{
	struct fixture *fx = *state;
	struct client *c = client_new(fx->unix_addr, "POST", "/v1/check", "", NULL);

	fx->hold = true;
	client_start(c);
	poll_until_held(fx, 1);
	close_begin(fx);
	release(fx);
	client_wait(fx, c);
	has(c->reply, 200, "args");
	free(c);
}

static void close_does_not_wait_for_ever(void **state)
{
	struct fixture *fx = *state;
	int fd = dial(fx->unix_addr);
	static const char half[] =
	    "POST /v1/check HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{";

	assert_true(fd >= 0);
	assert_int_equal(send(fd, half, sizeof(half) - 1, MSG_NOSIGNAL), sizeof(half) - 1);
	poll_for(fx, 50000000);
	close_begin(fx);
	for (int i = 0; i < 200 && !fx->closed; i++)
		poll_for(fx, 10000000);
	assert_true(fx->closed);
	close(fd);
}

static void *hammer(void *arg)
{
	struct client *c = arg;

	for (int i = 0; i < 200; i++) {
		atomic_store(&c->over, false);
		client_run(c);
		if (!c->reply[0])
			break; /* nobody there any more */
	}
	atomic_store(&c->over, true);
	return NULL;
}

static void close_under_load(void **state)
{
	struct fixture *fx = *state;
	struct client *c[8];

	for (size_t i = 0; i < ARRAY_LEN(c); i++) {
		c[i] = client_new(i % 2 ? fx->unix_addr : fx->tcp_addr, "POST", "/v1/volumes",
				  i % 3 ? "" : "Idempotency-Key: same\r\n", VOLUME);
		pthread_create(&c[i]->thread, NULL, hammer, c[i]);
	}
	poll_for(fx, 100000000);
	close_begin(fx);
	for (int i = 0; i < 200 && !fx->closed; i++)
		poll_for(fx, 10000000);
	for (size_t i = 0; i < ARRAY_LEN(c); i++) {
		pthread_join(c[i]->thread, NULL);
		free(c[i]);
	}
	assert_true(fx->closed);
	assert_true(fx->submits > 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(answers_and_errors_are_json),
	    T(unix_socket_is_private),
	    T(others_machines_need_the_token),
	    T(opening_refuses_clearly),
	    T(limits_hold),
	    T(too_many_are_busy),
	    T(keys_give_the_first_answer),
	    T(noise_on_the_socket_is_survived),
	    T(a_connection_goes_on_after_errors),
	    T(clients_that_left_are_forgotten),
	    T(close_answers_what_is_under_way),
	    T(close_in_time_gives_the_answers),
	    T(close_does_not_wait_for_ever),
	    T(close_under_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
