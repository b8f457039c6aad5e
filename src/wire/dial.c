/* SPDX-License-Identifier: Apache-2.0 */
#include "src/wire/dial.h"

#include <string.h>

#include "src/base/log.h"
#include "src/base/math.h"

#define BACKOFF_MIN_NS 20000000ULL
#define BACKOFF_MAX_NS 1000000000ULL
/* A machine that is off answers nothing, and the kernel would go on asking it for two minutes, at ever longer intervals. */
#define CONNECT_NS 5000000000ULL

static void dial_wait(struct dialer *d, uint64_t ns);
static void dial_wait_done(struct ioe_req *r);
static void dial_connect(struct dialer *d);
static void dial_connect_done(struct ioe_req *r);
static void limit_set(struct dialer *d);
static void limit_done(struct ioe_req *r);
static void conn_up(struct conn *c);
static int conn_request(struct conn *c, const struct frame *f, const void *body, void **ret_data);
static int conn_data(struct conn *c);
static void conn_down(struct conn *c, int status);
static void dial_clear(struct dialer *d);
static void dial_clear_done(void *arg);
static void dial_retry(struct dialer *d, int status);
static void dial_finish(struct dialer *d);

static const struct conn_ops conn_ops = {.up = conn_up,
					 .request = conn_request,
					 .data = conn_data,
					 .down = conn_down};

int dialer_open(struct dialer *d, const struct dialer_config *cfg)
{
	if (cfg->addrs_n < 1 || cfg->addrs_n > DIALER_ADDRS_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < cfg->addrs_n; i++)
		if (strlen(cfg->addrs[i]) >= IOE_ADDR_MAX)
			return -EINVAL;
	*d = (struct dialer){.cfg = *cfg};
	for (uint32_t i = 0; i < cfg->addrs_n; i++)
		memcpy(d->addrs[i], cfg->addrs[i], strlen(cfg->addrs[i]) + 1);
	d->cfg.addrs = NULL;
	if (!d->cfg.backoff_min_ns)
		d->cfg.backoff_min_ns = BACKOFF_MIN_NS;
	if (!d->cfg.backoff_max_ns)
		d->cfg.backoff_max_ns = BACKOFF_MAX_NS;
	d->backoff_ns = d->cfg.backoff_min_ns;
	d->last_error = -ENOTCONN;
	dial_connect(d);
	return 0;
}

void dialer_settled(struct dialer *d)
{
	d->backoff_ns = d->cfg.backoff_min_ns;
	memset(d->told, 0, sizeof(d->told));
}

static void dial_wait(struct dialer *d, uint64_t ns)
{
	d->state = DIALER_WAITING;
	d->busy = true;
	ioe_timer(d->cfg.ioe, &d->req, ioe_now_ns(d->cfg.ioe) + ns, dial_wait_done);
}

static void dial_wait_done(struct ioe_req *r)
{
	struct dialer *d = container_of(r, struct dialer, req);

	d->busy = false;
	if (d->closed)
		dial_finish(d);
	else
		dial_connect(d);
}

static void dial_connect(struct dialer *d)
{
	d->state = DIALER_CONNECTING;
	d->busy = true;
	d->connect_until_ns = ioe_now_ns(d->cfg.ioe) + CONNECT_NS;
	limit_set(d);
	ioe_connect(d->cfg.ioe, &d->req, d->addrs[d->next], dial_connect_done);
}

/* One timer, which may still run for an earlier attempt: then it is set anew when it is back. */
static void limit_set(struct dialer *d)
{
	if (d->limiting)
		return;
	d->limiting = true;
	ioe_timer(d->cfg.ioe, &d->limit, d->connect_until_ns, limit_done);
}

static void limit_done(struct ioe_req *r)
{
	struct dialer *d = container_of(r, struct dialer, limit);

	d->limiting = false;
	if (d->finishing)
		dial_finish(d);
	else if (d->state == DIALER_CONNECTING && ioe_now_ns(d->cfg.ioe) < d->connect_until_ns)
		limit_set(d);
	else if (d->state == DIALER_CONNECTING)
		ioe_cancel(d->cfg.ioe, &d->req);
}

static void dial_connect_done(struct ioe_req *r)
{
	struct dialer *d = container_of(r, struct dialer, req);
	struct conn_config cfg = {
	    .ioe = d->cfg.ioe,
	    .ops = &conn_ops,
	    .key = strncmp(d->addrs[d->next], "unix:", 5) ? d->cfg.key : NULL,
	    .dialer = true,
	    .keepalive_ns = d->cfg.keepalive_ns,
	    .body_max = d->cfg.body_max,
	    .data_max = d->cfg.data_max,
	    .buf_bytes = d->cfg.buf_bytes,
	};
	int status = r->status;

	d->busy = false;
	ioe_cancel(d->cfg.ioe, &d->limit);
	if (status == -ECANCELED)
		status = -ETIMEDOUT;
	if (!status && d->closed)
		status = -ESHUTDOWN;
	else if (!status)
		status = conn_open(&d->conn, &cfg, r->ret_sock);
	if (status && r->ret_sock)
		ioe_sock_close(d->cfg.ioe, r->ret_sock);
	if (status)
		dial_retry(d, status);
	else
		d->state = DIALER_OPEN;
}

static void conn_up(struct conn *c)
{
	struct dialer *d = container_of(c, struct dialer, conn);

	d->last_error = 0;
	d->cfg.ops->up(d);
}

static int conn_request(struct conn *c, const struct frame *f, const void *body, void **ret_data)
{
	struct dialer *d = container_of(c, struct dialer, conn);

	return d->cfg.ops->request(d, f, body, ret_data);
}

static int conn_data(struct conn *c)
{
	struct dialer *d = container_of(c, struct dialer, conn);

	return d->cfg.ops->data(d);
}

static void conn_down(struct conn *c, int status)
{
	struct dialer *d = container_of(c, struct dialer, conn);
	bool was_up = d->last_error == 0;

	d->last_error = status;
	if (was_up)
		d->cfg.ops->down(d, status); /* may close the dialer */
	if (d->state == DIALER_OPEN)
		dial_clear(d);
}

static void dial_clear(struct dialer *d)
{
	d->state = DIALER_CLEARING;
	conn_close(&d->conn, dial_clear_done, d);
}

static void dial_clear_done(void *arg)
{
	struct dialer *d = arg;

	dial_retry(d, d->last_error);
}

static void dial_retry(struct dialer *d, int status)
{
	uint64_t ns = d->backoff_ns;

	d->last_error = status ? status : -ENOTCONN;
	if (d->closed) {
		dial_finish(d);
		return;
	}
	if (d->last_error != d->told[d->next])
		log_warn("no connection", "addr=%s error=%s%s", d->addrs[d->next],
			 err_name(d->last_error),
			 d->last_error == -EKEYREJECTED
			     ? " hint=\"the two have different keys: compare their key files\""
			     : "");
	d->told[d->next] = d->last_error;
	d->next = (d->next + 1) % d->cfg.addrs_n;
	d->backoff_ns = MIN(d->backoff_ns + d->backoff_ns / 2, d->cfg.backoff_max_ns);
	dial_wait(d, ns - ns / 4 + ioe_rand64(d->cfg.ioe) % (ns / 2 + 1));
}

void dialer_close(struct dialer *d, void (*done)(void *arg), void *arg)
{
	check(!d->closed);
	d->closed = done;
	d->closed_arg = arg;
	if (d->busy)
		ioe_cancel(d->cfg.ioe, &d->req);
	else if (d->state == DIALER_OPEN)
		dial_clear(d);
}

static void dial_finish(struct dialer *d)
{
	check(!d->busy && d->state != DIALER_CLOSED);
	d->finishing = true;
	if (d->limiting) {
		ioe_cancel(d->cfg.ioe, &d->limit);
		return;
	}
	d->state = DIALER_CLOSED;
	d->closed(d->closed_arg);
}
