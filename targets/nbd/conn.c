/* SPDX-License-Identifier: Apache-2.0 */
/* conn.c - the life of a connection: from accept to the moment nothing of it is left (states in conn.h). */
#include "targets/nbd/conn.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/base/log.h"
#include "src/base/mem.h"

#define TRIM_NS 10000000000ULL

static void conn_hook(struct ioe_hook *h);
static void conn_volume_changed(struct nbd_conn *c);
static void conn_deadline_passed(struct ioe_req *t);
static void conn_time_is_up(struct nbd_conn *c);
static void conn_trim(struct nbd_conn *c);
static bool conn_is_answered(const struct nbd_conn *c);
static void conn_volume_closed(void *arg);
static void conn_end(struct nbd_conn *c);
static void conn_free(struct nbd_conn *c);

int conn_new(struct nbd_server *s, struct ioe_sock *sock, struct nbd_conn **ret_c)
{
	struct nbd_conn *c = mem_zalloc(sizeof(*c));

	if (!c) {
		ioe_sock_close(s->ioe, sock);
		return -ENOMEM;
	}
	c->server = s;
	c->ioe = s->ioe;
	c->sock = sock;
	c->id = ++s->last_id;
	c->since_wall_ns = ioe_wall_ns(c->ioe);
	ioe_sock_peer(sock, c->peer);
	list_init(&c->link);
	list_init(&c->greet_link);
	list_init(&c->line_link);
	ioe_hook_init(&c->hook, conn_hook);
	queue_init(&c->finished);
	queue_init(&c->sent);
	c->rx = mem_alloc(RX_BYTES);
	if (!c->rx || handshake_new(c) < 0) {
		conn_free(c);
		return -ENOMEM;
	}
	list_push(&s->greeting, &c->greet_link);
	conn_deadline(c, ioe_now_ns(c->ioe) + s->limits.handshake_ns);
	handshake_begin(c);
	*ret_c = c;
	return 0;
}

/* ---- every turn ------------------------------------------------------------------------------------------------------- */

static void conn_hook(struct ioe_hook *h)
{
	struct nbd_conn *c = container_of(h, struct nbd_conn, hook);

	if (c->changed && c->handle)
		conn_volume_changed(c);
	reply_send(c);
	conn_settle(c);
}

/* Not in the volume's own callback: closing the handle from in there would pull the rug from under it. */
static void conn_volume_changed(struct nbd_conn *c)
{
	c->changed = false;
	if (c->change_status == 0) {
		/* NBD cannot tell the client; but what is there now may be used, and what is gone is refused cleanly. */
		volume_geometry(c->handle, &c->geo);
		return;
	}
	log_info("nbd export lost", "export=%s peer=%s reason=%s", c->geo.name, c->peer,
		 err_name(c->change_status));
	conn_drain(c);
}

void conn_deadline(struct nbd_conn *c, uint64_t deadline_ns)
{
	c->deadline_ns = deadline_ns;
	if (c->timer_busy) {
		ioe_cancel(c->ioe, &c->timer); /* its callback sets the new one */
	} else if (deadline_ns) {
		c->timer_busy = true;
		c->pending++;
		ioe_timer(c->ioe, &c->timer, deadline_ns, conn_deadline_passed);
	}
}

static void conn_deadline_passed(struct ioe_req *t)
{
	struct nbd_conn *c = container_of(t, struct nbd_conn, timer);

	c->timer_busy = false;
	c->pending--;
	if (c->deadline_ns && ioe_now_ns(c->ioe) < c->deadline_ns) {
		conn_deadline(c, c->deadline_ns); /* it was moved */
	} else if (c->deadline_ns) {
		c->deadline_ns = 0;
		conn_time_is_up(c);
	}
	conn_settle(c);
}

static void conn_time_is_up(struct nbd_conn *c)
{
	switch (c->state) {
	case CONN_HANDSHAKE:
		conn_drop(c, "the handshake takes too long");
		break;
	case CONN_SERVING:
		conn_trim(c);
		break;
	case CONN_DRAINING:
		conn_shut(c);
		break;
	case CONN_CLOSING:
		break;
	}
}

/* A burst leaves memory behind in the pool: when it is over, the pages go back. Not at once, for the next burst may be near. */
static void conn_trim(struct nbd_conn *c)
{
	budget_return(c);
	if (pool_is_grown(&c->pool))
		conn_trim_later(c);
}

void conn_trim_later(struct nbd_conn *c)
{
	if (c->state == CONN_SERVING && !c->deadline_ns)
		conn_deadline(c, ioe_now_ns(c->ioe) + TRIM_NS);
}

/* ---- the end ---------------------------------------------------------------------------------------------------------- */

void conn_drain(struct nbd_conn *c)
{
	if (c->state == CONN_HANDSHAKE)
		conn_shut(c);
	if (c->state != CONN_SERVING)
		return;
	c->state = CONN_DRAINING;
	budget_forget(c);
	c->skip = 0; /* `filling` stays: a receive into it may be under way */
	conn_deadline(c, 0);
	rx_run(c);
}

void conn_drop(struct nbd_conn *c, const char *why)
{
	if (c->state == CONN_CLOSING)
		return;
	c->server->past.broken++;
	log_limited(LOG_WARN, ioe_now_ns(c->ioe), "nbd connection broken off", "peer=%s why=\"%s\"",
		    c->peer, why);
	conn_shut(c);
}

void conn_shut(struct nbd_conn *c)
{
	if (c->state == CONN_CLOSING)
		return;
	c->state = CONN_CLOSING;
	if (c->handle)
		volume_left(c->handle);
	list_del(&c->greet_link);
	budget_forget(c);
	conn_deadline(c, 0);
	ioe_sock_shutdown(c->ioe, c->sock);
}

void conn_give_way(struct nbd_conn *c)
{
	struct nbd_server *s = c->server;

	check(c->state == CONN_HANDSHAKE);
	c->left = true;
	s->conns_n--;
	s->leaving_n++;
	s->past.gave_way++;
	log_limited(LOG_WARN, ioe_now_ns(c->ioe), "nbd connection gave way to a newer one",
		    "peer=%s limit=%u", c->peer, s->limits.connections);
	conn_shut(c);
}

void conn_settle(struct nbd_conn *c)
{
	if (c->state == CONN_DRAINING && conn_is_answered(c))
		conn_shut(c);
	else if (c->state == CONN_DRAINING && c->in_flight == 0 && !c->deadline_ns)
		/* only the client has something left to do */
		conn_deadline(c, ioe_now_ns(c->ioe) + c->server->limits.drain_ns);
	if (c->state == CONN_CLOSING && c->pending == 0)
		conn_end(c);
}

static bool conn_is_answered(const struct nbd_conn *c)
{
	return c->in_flight == 0 && !c->finished.first && !c->send_busy;
}

/* Nothing is pending: requests are with nobody but us, and the volume is the last thing to let go of. */
static void conn_end(struct nbd_conn *c)
{
	struct volume_handle *h = c->handle;
	struct nbd_request *r;

	ioe_hook_disarm(&c->hook);
	if (c->filling)
		request_release(c->filling);
	c->filling = NULL;
	while ((r = queue_pop(&c->finished)))
		request_release(r);
	check(!c->sent.first && c->in_flight == 0);
	if (!h) {
		struct nbd_server *s = c->server;
		bool left = c->left;

		conn_count(c, &s->past);
		list_del(&c->link);
		conn_free(c);
		server_conn_gone(s, left);
		return;
	}
	c->handle = NULL;
	c->pending++;
	volume_on_change(h, NULL, NULL);
	volume_close(h, conn_volume_closed, c);
}

static void conn_volume_closed(void *arg)
{
	struct nbd_conn *c = arg;

	c->pending--;
	conn_settle(c);
}

static void conn_free(struct nbd_conn *c)
{
	transmission_free(c);
	handshake_free(c);
	ioe_sock_close(c->ioe, c->sock);
	mem_free(c->rx);
	mem_free(c);
}

/* ---- status ----------------------------------------------------------------------------------------------------------- */

void conn_count(const struct nbd_conn *c, struct nbd_server_info *sum)
{
	sum->requests += c->answered;
	sum->errors += c->errors;
	sum->read_bytes += c->read_bytes;
	sum->written_bytes += c->written_bytes;
}

void conn_info(const struct nbd_conn *c, struct nbd_conn_info *ret_info)
{
	*ret_info = (struct nbd_conn_info){
	    .id = c->id,
	    .phase = c->state == CONN_HANDSHAKE ? NBD_CONN_HANDSHAKE
		     : c->state == CONN_SERVING ? NBD_CONN_TRANSMISSION
						: NBD_CONN_ENDING,
	    .since_wall_ns = c->since_wall_ns,
	    .in_flight = c->in_flight,
	    .requests = c->answered,
	    .errors = c->errors,
	    .read_bytes = c->read_bytes,
	    .written_bytes = c->written_bytes,
	};
	memcpy(ret_info->peer, c->peer, sizeof(ret_info->peer));
	if (c->state != CONN_HANDSHAKE) {
		snprintf(ret_info->export_name, sizeof(ret_info->export_name), "%s", c->geo.name);
		ret_info->read_only = c->geo.read_only;
		ret_info->structured = c->structured;
	}
}
