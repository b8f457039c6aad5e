/* SPDX-License-Identifier: Apache-2.0 */
#include "targets/nbd/budget.h"

#include "src/base/math.h"
#include "targets/nbd/handshake.h"

/* More than is needed now, so that a connection that is getting busy asks a few times and not for each page. */
enum { STEP_PAGES = (1 << 20) / BLOCK_BYTES };
#define MEMORY_BYTES (1ULL << 30)

static void budget_serve(struct ioe_hook *h);
static bool grant(struct nbd_conn *c, uint32_t end);
static void reclaim(struct nbd_server *s);
static void watch(struct nbd_server *s);
static void watch_done(struct ioe_req *r);
static void look_for_stalled(struct nbd_server *s, bool drop);

/* ---- how much there is ------------------------------------------------------------------------------------------------ */

static uint32_t share_of(const struct nbd_limits *l)
{
	return (uint32_t)MIN((uint64_t)POOL_SHARE_PAGES, l->pool_bytes / BLOCK_BYTES);
}

static uint64_t conn_bytes(const struct nbd_limits *l)
{
	return sizeof(struct nbd_conn) + RX_BYTES + sizeof(struct handshake) +
	       l->requests * sizeof(struct nbd_request) + IOE_IOV_MAX * sizeof(struct iovec) +
	       HEADS_BYTES + (uint64_t)share_of(l) * BLOCK_BYTES;
}

/* The connections' parts, and the buffers of those that gave way and are not gone yet. */
static bool set_aside(const struct nbd_limits *l, uint64_t *ret_bytes)
{
	uint64_t leaving =
		     LEAVING_MAX * (sizeof(struct nbd_conn) + RX_BYTES + sizeof(struct handshake)),
		 conns;

	return mul_ok(l->connections, conn_bytes(l), &conns) && add_ok(conns, leaving, ret_bytes);
}

uint64_t nbd_memory_least(const struct nbd_limits *limits)
{
	struct nbd_limits l = *limits;
	uint64_t bytes, common;

	nbd_limits_fill(&l);
	common = (l.pool_bytes / BLOCK_BYTES - share_of(&l)) * BLOCK_BYTES;
	return set_aside(&l, &bytes) && add_ok(bytes, common, &bytes) ? bytes : UINT64_MAX;
}

uint64_t nbd_memory_usual(const struct nbd_limits *limits)
{
	return MAX(MEMORY_BYTES, nbd_memory_least(limits));
}

void budget_init(struct nbd_server *s)
{
	struct budget *b = &s->budget;
	uint64_t bytes;

	check(set_aside(&s->limits, &bytes) && bytes <= s->limits.memory_bytes);
	b->conn_bytes = conn_bytes(&s->limits);
	b->pages_n =
	    (uint32_t)MIN((s->limits.memory_bytes - bytes) / BLOCK_BYTES, (uint64_t)UINT32_MAX);
	b->pages_free = b->pages_n;
	list_init(&b->waiting);
	ioe_hook_init(&b->hook, budget_serve);
}

/* ---- asking and waiting ----------------------------------------------------------------------------------------------- */

void budget_join(struct nbd_conn *c)
{
	c->pool.pages_allowed = share_of(&c->server->limits);
}

bool budget_ask(struct nbd_conn *c, uint32_t n)
{
	struct nbd_server *s = c->server;
	struct budget *b = &s->budget;
	uint32_t end = pool_needs(&c->pool, n);

	if (!end) /* its own requests have it all: their answers wake it */
		return false;
	if (!budget_is_short(b)) {
		if (grant(c, end))
			return true;
		reclaim(s);
		if (grant(c, end))
			return true;
	}
	c->wanted_n = n;
	if (c->in_line)
		return false;
	c->in_line = true;
	list_push(&b->waiting, &c->line_link);
	b->waiting_n++;
	b->waits++;
	if (!b->timing) {
		look_for_stalled(s, false);
		watch(s);
	}
	return false;
}

/* All that is needed, or nothing. */
static bool grant(struct nbd_conn *c, uint32_t end)
{
	struct budget *b = &c->server->budget;
	struct pool *p = &c->pool;
	uint32_t step = MIN((uint32_t)round_up(end, STEP_PAGES), p->pages_n);

	if (end <= p->pages_allowed)
		return true;
	if (end - p->pages_allowed > b->pages_free)
		return false;
	if (!budget_is_short(b) && step - p->pages_allowed <= b->pages_free)
		end = step;
	b->pages_free -= end - p->pages_allowed;
	p->pages_allowed = end;
	return true;
}

static void reclaim(struct nbd_server *s)
{
	list_for_each (pos, &s->conns)
		budget_return(list_entry(pos, struct nbd_conn, link));
}

void budget_forget(struct nbd_conn *c)
{
	struct budget *b = &c->server->budget;

	if (!c->in_line)
		return;
	c->in_line = false;
	list_del(&c->line_link);
	b->waiting_n--;
	if (budget_is_short(b)) /* it may have been the one in front of somebody modest */
		ioe_hook_arm(c->ioe, &b->hook);
}

/* ---- giving back ------------------------------------------------------------------------------------------------------ */

static void give_back(struct nbd_conn *c, uint32_t keep)
{
	struct budget *b = &c->server->budget;

	if (c->pool.pages_allowed <= keep)
		return;
	b->pages_free += c->pool.pages_allowed - keep;
	check(b->pages_free <= b->pages_n);
	c->pool.pages_allowed = keep;
	if (budget_is_short(b))
		ioe_hook_arm(c->ioe, &b->hook);
}

void budget_return(struct nbd_conn *c)
{
	uint32_t share = share_of(&c->server->limits), keep;

	if (c->pool.pages_allowed <= share)
		return;
	keep = MAX(share, pool_high(&c->pool));
	pool_shrink(&c->pool, keep);
	give_back(c, keep);
}

void budget_leave(struct nbd_conn *c)
{
	budget_forget(c);
	give_back(c, share_of(&c->server->limits));
}

/* Pages came back: to the first in line, as long as they last. */
static void budget_serve(struct ioe_hook *h)
{
	struct budget *b = container_of(h, struct budget, hook);

	while (budget_is_short(b)) {
		struct nbd_conn *c = list_first(&b->waiting, struct nbd_conn, line_link);
		uint32_t end = pool_needs(&c->pool, c->wanted_n);

		check(end); /* there was a run when it asked, and it has taken nothing since */
		if (!grant(c, end))
			return;
		budget_forget(c);
		c->paused = false;
		rx_run(c);
		conn_settle(c);
	}
}

/* ---- who keeps others waiting ------------------------------------------------------------------------------------------ */

static void watch(struct nbd_server *s)
{
	s->budget.timing = true;
	ioe_timer(s->ioe, &s->budget.timer, ioe_now_ns(s->ioe) + s->limits.stall_ns, watch_done);
}

static void watch_done(struct ioe_req *r)
{
	struct budget *b = container_of(r, struct budget, timer);
	struct nbd_server *s = container_of(b, struct nbd_server, budget);

	b->timing = false;
	if (s->closing) {
		server_close_step(s);
		return;
	}
	if (!budget_is_short(b))
		return;
	look_for_stalled(s, true);
	watch(s);
}

/* Is a send or a payload still the one that it was when we looked last? It is the client's turn then, and has been all that time. */
static void look_for_stalled(struct nbd_server *s, bool drop)
{
	uint32_t share = share_of(&s->limits);

	list_for_each_safe (pos, next, &s->conns) {
		struct nbd_conn *c = list_entry(pos, struct nbd_conn, link);
		bool stalled = (c->send_busy && c->sends_n == c->sends_seen) ||
			       (c->filling && c->fills_n == c->fills_seen);

		c->sends_seen = c->sends_n;
		c->fills_seen = c->fills_n;
		if (!drop || !stalled || c->pool.pages_allowed <= share)
			continue;
		conn_drop(c, "it does not take its answers, or send its data, and others wait for "
			     "the memory");
		conn_settle(c);
	}
}
