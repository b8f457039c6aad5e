/* SPDX-License-Identifier: Apache-2.0 */
/* http.c - libmicrohttpd: the life of the server, and a request while it is received and answered. */
#include "metadata/api/exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"

enum {
	/* of a connection: request line, headers, and the buffer that answers go through */
	CONNECTION_BYTES = 32 * 1024,
	/* what is read of a body that is too long, so that its sender gets to see the answer */
	DROPPED_MAX = 1024 * 1024,
	OUTSTANDING_MAX = 128,
	CONNECTIONS_MAX = 256,
	IDLE_TIMEOUT_S = 30,
};
#define CLOSE_TIMEOUT_NS 3000000000ULL

/* opening (loop) */
static int listener_open(struct http *h, uint32_t i, char *errmsg);
static int listener_start(struct http_listener *l, char *errmsg);
/* a request (HTTP thread) */
static void *on_uri(void *cls, const char *uri, struct MHD_Connection *conn);
static enum MHD_Result on_request(void *cls, struct MHD_Connection *conn, const char *url,
				  const char *method, const char *version, const char *part,
				  size_t *part_len, void **req_cls);
static enum MHD_Result request_begin(struct http_listener *l, struct exchange *x);
static enum MHD_Result request_part(struct exchange *x, const char *part, size_t *len);
static enum MHD_Result request_whole(struct exchange *x, const char *method);
static enum MHD_Result request_pass(struct exchange *x);
static enum MHD_Result request_reply(struct exchange *x);
static void on_completed(void *cls, struct MHD_Connection *conn, void **req_cls,
			 enum MHD_RequestTerminationCode why);
/* closing (loop, but for close_stop) */
static void close_drained(struct ioe_msg *m);
static void close_overdue(struct ioe_req *r);
static void close_end(struct http *h);
static void close_stop(struct ioe_req *r);
static void close_stopped(struct ioe_req *r);
static void http_free(struct http *h);

/* ---- opening ------------------------------------------------------------------------------------------------------------------------ */

static void fill_defaults(struct http_config *c)
{
	c->outstanding_max = c->outstanding_max ? c->outstanding_max : OUTSTANDING_MAX;
	c->connections_max = c->connections_max ? c->connections_max : CONNECTIONS_MAX;
	c->idle_timeout_s = c->idle_timeout_s ? c->idle_timeout_s : IDLE_TIMEOUT_S;
	c->idem_max = c->idem_max ? c->idem_max : IDEM_ENTRIES_MAX;
	c->close_timeout_ns = c->close_timeout_ns ? c->close_timeout_ns : CLOSE_TIMEOUT_NS;
}

int http_open(const struct http_config *cfg, struct http **ret_h, char *errmsg)
{
	struct http *h;
	int r;

	errmsg[0] = '\0';
	if (cfg->addrs_n == 0 || cfg->addrs_n > HTTP_ADDRS_MAX) {
		snprintf(errmsg, ERRMSG_LEN, "the API takes 1 to %d addresses", HTTP_ADDRS_MAX);
		return -EINVAL;
	}
	if (cfg->token && !cfg->token[0]) {
		snprintf(errmsg, ERRMSG_LEN, "the API token is empty");
		return -EINVAL;
	}
	h = mem_zalloc(sizeof(*h));
	if (!h)
		return -ENOMEM;
	h->cfg = *cfg;
	fill_defaults(&h->cfg);
	pthread_mutex_init(&h->gate.lock, NULL);
	h->drained_msg.fn = close_drained;
	for (uint32_t i = 0; i < HTTP_ADDRS_MAX; i++)
		h->listeners[i].fd = -1;
	r = idem_init(&h->idem, h->cfg.idem_max);
	if (!r && cfg->token) {
		h->token = mem_strdup(cfg->token);
		r = h->token ? 0 : -ENOMEM;
	}
	/* All are bound before the first is served, and none passes a request to the loop before all are: so that a failure has nothing to wait for. */
	for (uint32_t i = 0; !r && i < cfg->addrs_n; i++)
		r = listener_open(h, i, errmsg);
	pthread_mutex_lock(&h->gate.lock);
	for (uint32_t i = 0; !r && i < cfg->addrs_n; i++)
		r = listener_start(&h->listeners[i], errmsg);
	h->gate.shut = h->gate.told = r != 0;
	pthread_mutex_unlock(&h->gate.lock);
	if (!r) {
		*ret_h = h;
		return 0;
	}
	if (!errmsg[0])
		snprintf(errmsg, ERRMSG_LEN, "the API cannot be opened: %s", err_text(r));
	close_stop(&h->work);
	http_free(h);
	return r;
}

static int listener_open(struct http *h, uint32_t i, char *errmsg)
{
	struct http_listener *l = &h->listeners[i];
	int r = ioe_listen(h->cfg.ioe, h->cfg.addrs[i], &l->sock, errmsg);

	if (r)
		return r;
	l->http = h;
	l->needs_token = !ioe_sock_is_local(l->sock);
	if (l->needs_token && !h->token) {
		snprintf(errmsg, ERRMSG_LEN,
			 "%s can be reached from other machines: give the API a token "
			 "(--api-token-file), or a loopback address or unix:PATH",
			 h->cfg.addrs[i]);
		return -EACCES;
	}
	return ioe_sock_dup(l->sock, &l->fd);
}

static int listener_start(struct http_listener *l, char *errmsg)
{
	const struct http_config *c = &l->http->cfg;
	char addr[IOE_ADDR_MAX];

	l->daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_SUSPEND_RESUME, 0,
				     NULL, NULL, on_request, l, MHD_OPTION_LISTEN_SOCKET, l->fd,
				     MHD_OPTION_URI_LOG_CALLBACK, on_uri, l->http,
				     MHD_OPTION_NOTIFY_COMPLETED, on_completed, l->http,
				     MHD_OPTION_CONNECTION_LIMIT, (unsigned)c->connections_max,
				     MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)c->idle_timeout_s,
				     MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
				     MHD_OPTION_END);
	if (l->daemon)
		return 0;
	l->fd = -1; /* it may have been closed or not: better to lose one */
	ioe_sock_addr(l->sock, addr);
	snprintf(errmsg, ERRMSG_LEN, "the HTTP server does not start on %s", addr);
	return -EIO;
}

void http_addr(const struct http *h, uint32_t i, char ret_addr[IOE_ADDR_MAX])
{
	check(i < h->cfg.addrs_n);
	ioe_sock_addr(h->listeners[i].sock, ret_addr);
}

/* ---- a request is received ------------------------------------------------------------------------------------------------------------ */

/* The request line has come: the raw address is kept, because libmicrohttpd's decoding loses what %2F and %00 were. NULL (no memory) ends the
 * connection in on_request. */
static void *on_uri(void *cls, const char *uri, struct MHD_Connection *conn)
{
	struct exchange *x = mem_zalloc(sizeof(*x));

	if (!x)
		return NULL;
	x->http = cls;
	x->conn = conn;
	x->uri = mem_strdup(uri);
	if (!x->uri) {
		mem_free(x);
		return NULL;
	}
	pthread_mutex_lock(&x->http->gate.lock);
	x->http->gate.open++;
	pthread_mutex_unlock(&x->http->gate.lock);
	return x;
}

/* Called when the headers are there, for each part of the body, at its end, and after the connection was resumed. */
static enum MHD_Result on_request(void *cls, struct MHD_Connection *conn, const char *url,
				  const char *method, const char *version, const char *part,
				  size_t *part_len, void **req_cls)
{
	struct exchange *x = *req_cls;

	(void)conn;
	(void)url;
	(void)version;
	if (!x)
		return MHD_NO;
	if (x->answered)
		return request_reply(x);
	if (!x->begun)
		return request_begin(cls, x);
	if (*part_len > 0)
		return request_part(x, part, part_len);
	return request_whole(x, method);
}

static enum MHD_Result refuse(struct exchange *x, enum admin_code code, const char *hint,
			      const char *message)
{
	reply_error(&x->reply, code, hint, message);
	return request_reply(x);
}

static const char *header(struct exchange *x, const char *name)
{
	return MHD_lookup_connection_value(x->conn, MHD_HEADER_KIND, name);
}

/* Takes as long for any text of this length, right or wrong. */
static bool token_matches(const char *token, const char *text)
{
	size_t n = strlen(token), m = strlen(text);
	volatile unsigned char different = n != m;

	for (size_t i = 0; i < m; i++)
		different |= (unsigned char)(text[i] ^ token[i % n]);
	return !different;
}

static bool is_authorized(const struct http_listener *l, struct exchange *x)
{
	static const char scheme[] = "Bearer ";
	const char *text = header(x, MHD_HTTP_HEADER_AUTHORIZATION);

	return !l->needs_token || (text && !strncasecmp(text, scheme, sizeof(scheme) - 1) &&
				   token_matches(l->http->token, text + sizeof(scheme) - 1));
}

static bool is_length_over(const char *text)
{
	size_t digits = text ? strlen(text) : 0;

	/* libmicrohttpd has checked that it is a number */
	return digits > 10 || (digits > 0 && strtoull(text, NULL, 10) > ROUTE_BODY_MAX);
}

/* A browser says which page a request comes from. None of ours makes any, and on a local address, where there is no token, another one's page
 * could administer the cluster of whoever looks at it. */
static bool is_from_a_web_page(struct exchange *x)
{
	return header(x, MHD_HTTP_HEADER_ORIGIN) != NULL;
}

static enum MHD_Result request_begin(struct http_listener *l, struct exchange *x)
{
	x->begun = true;
	if (!is_authorized(l, x))
		return refuse(
		    x, ADMIN_E_UNAUTHORIZED,
		    "Send 'Authorization: Bearer TOKEN' with the contents of the server's "
		    "--api-token-file.",
		    "this address wants a token");
	if (is_from_a_web_page(x))
		return refuse(x, ADMIN_E_UNAUTHORIZED, "",
			      "requests from web pages are not accepted");
	if (is_length_over(header(x, MHD_HTTP_HEADER_CONTENT_LENGTH)))
		return refuse(x, ADMIN_E_TOO_LARGE, "", "the body is longer than 65536 bytes");
	return MHD_YES;
}

static enum MHD_Result request_part(struct exchange *x, const char *part, size_t *len)
{
	size_t cap = x->body_cap ? x->body_cap : 1024;
	char *body;

	if (x->body_dropped || *len > ROUTE_BODY_MAX - x->body_len) {
		x->body_dropped += *len;
		*len = 0;
		return x->body_dropped > DROPPED_MAX ? MHD_NO : MHD_YES;
	}
	while (cap < x->body_len + *len)
		cap *= 2;
	if (cap != x->body_cap) {
		body = mem_realloc(x->body, cap, 1);
		if (!body)
			return MHD_NO;
		x->body = body;
		x->body_cap = cap;
	}
	memcpy(x->body + x->body_len, part, *len);
	x->body_len += *len;
	*len = 0;
	return MHD_YES;
}

static bool take_key(struct exchange *x, const char *method)
{
	const char *key = strcmp(method, "POST") ? NULL : header(x, "Idempotency-Key");

	if (!key)
		return true;
	if (!idem_key_is_valid(key))
		return false;
	memcpy(x->key, key, strlen(key) + 1);
	/* it may be compared with one in the database: no seeds */
	x->request = hash_u64(hash_u64(hash_bytes(method, strlen(method))) +
			      hash_bytes(x->uri, strlen(x->uri))) +
		     hash_bytes(x->body ? x->body : "", x->body_len);
	return true;
}

static enum MHD_Result request_whole(struct exchange *x, const char *method)
{
	struct admin_error error = {0};

	if (x->body_dropped)
		return refuse(x, ADMIN_E_TOO_LARGE, "", "the body is longer than 65536 bytes");
	if (!take_key(x, method))
		return refuse(x, ADMIN_E_INVALID, "",
			      "Idempotency-Key must be 1 to 64 printable characters");
	if (route_parse(method, x->uri, x->body, x->body_len, &x->route, &error)) {
		reply_from_error(&x->reply, &error);
		memcpy(x->reply.allow, x->route.allow, sizeof(x->reply.allow));
		return request_reply(x);
	}
	return request_pass(x);
}

/* To the loop. Suspended first: the answer may come before this returns. */
static enum MHD_Result request_pass(struct exchange *x)
{
	struct http_gate *g = &x->http->gate;
	bool shut, full;

	pthread_mutex_lock(&g->lock);
	shut = g->shut;
	full = g->waiting >= x->http->cfg.outstanding_max;
	if (!shut && !full)
		g->waiting++;
	pthread_mutex_unlock(&g->lock);
	if (shut)
		return refuse(x, ADMIN_E_STOPPING, "Try again when it has been started.",
			      "the metadata server is stopping");
	if (full)
		return refuse(x, ADMIN_E_BUSY, "Try again in a moment.",
			      "too many requests are under way");
	MHD_suspend_connection(x->conn);
	x->msg.fn = exchange_arrive;
	ioe_post(x->http->cfg.ioe, &x->msg);
	return MHD_YES;
}

/* ---- and answered ---------------------------------------------------------------------------------------------------------------------- */

static enum MHD_Result request_reply(struct exchange *x)
{
	struct reply *r = &x->reply;
	enum MHD_Result result;
	struct MHD_Response *response;

	if (!r->body)
		return MHD_NO;
	response = MHD_create_response_from_buffer_with_free_callback(r->len, r->body, mem_free);
	if (!response)
		return MHD_NO;
	r->body = NULL;
	(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, r->type);
	(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (r->allow[0])
		(void)MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, r->allow);
	if (r->status == 401)
		(void)MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
	result = MHD_queue_response(x->conn, (unsigned)r->status, response);
	MHD_destroy_response(response);
	return result;
}

/* The answer is out, or the connection is gone. */
static void on_completed(void *cls, struct MHD_Connection *conn, void **req_cls,
			 enum MHD_RequestTerminationCode why)
{
	struct exchange *x = *req_cls;
	struct http *h = cls;

	(void)conn;
	(void)why;
	if (!x)
		return;
	*req_cls = NULL;
	route_free(&x->route);
	reply_free(&x->reply);
	mem_free(x->body);
	mem_free(x->uri);
	mem_free(x);
	pthread_mutex_lock(&h->gate.lock);
	check(h->gate.open > 0);
	h->gate.open--;
	if (h->gate.shut && !h->gate.told && !h->gate.open) {
		h->gate.told = true;
		ioe_post(h->cfg.ioe, &h->drained_msg);
	}
	pthread_mutex_unlock(&h->gate.lock);
}

/* ---- closing ------------------------------------------------------------------------------------------------------------------------------ */

/* SHUT: wait until no exchange is open (drained), or until the time is over and none is waiting (overdue): a suspended connection cannot be ended. Then
 * END: the threads are stopped by a worker. */
void http_close(struct http *h, void (*done)(void *arg), void *arg)
{
	struct http_gate *g = &h->gate;

	h->closed = done;
	h->closed_arg = arg;
	for (uint32_t i = 0; i < h->cfg.addrs_n; i++)
		h->listeners[i].quiesced =
		    MHD_quiesce_daemon(h->listeners[i].daemon) != MHD_INVALID_SOCKET;
	pthread_mutex_lock(&g->lock);
	check(!g->shut);
	g->shut = true;
	if (!g->open) {
		g->told = true;
		ioe_post(h->cfg.ioe, &h->drained_msg);
	}
	pthread_mutex_unlock(&g->lock);
	h->timer_running = true;
	ioe_timer(h->cfg.ioe, &h->timer, ioe_now_ns(h->cfg.ioe) + h->cfg.close_timeout_ns,
		  close_overdue);
}

static void close_drained(struct ioe_msg *m)
{
	struct http *h = container_of(m, struct http, drained_msg);

	h->overdue = false;
	close_end(h);
}

static void close_overdue(struct ioe_req *r)
{
	struct http *h = container_of(r, struct http, timer);

	h->timer_running = false;
	if (h->ending) {
		close_end(h);
		return;
	}
	h->overdue = true;
	http_all_answered(h);
}

/* Clients had their time: those that still have not taken their answers lose them. */
void http_all_answered(struct http *h)
{
	bool end;

	pthread_mutex_lock(&h->gate.lock);
	end = !h->gate.waiting && !h->gate.told;
	if (end)
		h->gate.told = true;
	pthread_mutex_unlock(&h->gate.lock);
	if (!end)
		return;
	h->overdue = false;
	close_end(h);
}

static void close_end(struct http *h)
{
	h->ending = true;
	if (h->timer_running) {
		ioe_cancel(h->cfg.ioe, &h->timer); /* its completion comes back here */
		return;
	}
	ioe_work(h->cfg.ioe, &h->work, close_stop, close_stopped);
}

static void close_stop(struct ioe_req *r)
{
	struct http *h = container_of(r, struct http, work);

	for (uint32_t i = 0; i < h->cfg.addrs_n; i++) {
		struct http_listener *l = &h->listeners[i];

		if (!l->daemon)
			continue;
		if (!l->quiesced)
			l->fd = -1; /* the library closes it */
		MHD_stop_daemon(l->daemon);
	}
}

static void close_stopped(struct ioe_req *r)
{
	struct http *h = container_of(r, struct http, work);
	void (*closed)(void *arg) = h->closed;
	void *arg = h->closed_arg;

	http_free(h);
	closed(arg);
}

static void http_free(struct http *h)
{
	for (uint32_t i = 0; i < h->cfg.addrs_n; i++) {
		if (h->listeners[i].fd >= 0)
			ioe_fd_close(h->listeners[i].fd);
		if (h->listeners[i].sock)
			ioe_sock_close(h->cfg.ioe, h->listeners[i].sock);
	}
	idem_free(&h->idem);
	pthread_mutex_destroy(&h->gate.lock);
	mem_free(h->token);
	mem_free(h);
}
