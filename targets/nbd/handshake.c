/* SPDX-License-Identifier: Apache-2.0 */
/* handshake.c - the frame of the handshake: greeting, client flags, option headers, replies (order in handshake.h). */
#include "targets/nbd/handshake.h"

#include <string.h>

#include "src/base/log.h"
#include "src/base/mem.h"

static bool input_client_flags(struct nbd_conn *c);
static bool input_option(struct nbd_conn *c);
static void option_next(struct nbd_conn *c);
static void replies_sent(struct ioe_req *r);
static void transmission_begin(struct nbd_conn *c);

int handshake_new(struct nbd_conn *c)
{
	c->hs = mem_alloc(sizeof(*c->hs));
	if (!c->hs)
		return -ENOMEM;
	/* the big arrays need no zeroing */
	c->hs->conn = c;
	c->hs->flags_known = c->hs->fixed = c->hs->no_zeroes = false;
	c->hs->options_n = c->hs->option = 0;
	c->hs->contexts = 0;
	c->hs->contexts_export[0] = '\0';
	c->hs->replies_len = 0;
	c->hs->text[0] = '\0';
	return 0;
}

void handshake_free(struct nbd_conn *c)
{
	mem_free(c->hs);
	c->hs = NULL;
}

void handshake_begin(struct nbd_conn *c)
{
	struct nbd_greeting g = {
	    .magic = to_be64(NBD_MAGIC),
	    .option_magic = to_be64(NBD_OPTION_MAGIC),
	    .flags = to_be16(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES),
	};

	memcpy(c->hs->replies, &g, sizeof(g));
	c->hs->replies_len = sizeof(g);
	c->paused = true;
	reply_flush(c, option_next);
}

bool handshake_input(struct nbd_conn *c)
{
	if (c->paused)
		return false;
	return c->hs->flags_known ? input_option(c) : input_client_flags(c);
}

static bool input_client_flags(struct nbd_conn *c)
{
	struct be32 raw;
	uint32_t flags;

	if (rx_have(c) < sizeof(raw))
		return false;
	memcpy(&raw, c->rx + c->rx_at, sizeof(raw));
	c->rx_at += sizeof(raw);
	flags = get_be32(raw);
	if (flags & ~(uint32_t)(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES)) {
		conn_drop(c, "unknown client flags");
		return true;
	}
	c->hs->no_zeroes = flags & NBD_FLAG_C_NO_ZEROES;
	c->hs->fixed = flags & NBD_FLAG_C_FIXED_NEWSTYLE;
	c->hs->flags_known = true;
	return true;
}

static bool input_option(struct nbd_conn *c)
{
	struct handshake *hs = c->hs;
	struct nbd_option o;
	uint32_t len;

	if (rx_have(c) < sizeof(o))
		return false;
	memcpy(&o, c->rx + c->rx_at, sizeof(o));
	len = get_be32(o.len);
	if (get_be64(o.magic) != NBD_OPTION_MAGIC) {
		conn_drop(c, "bad option magic");
		return true;
	}
	if (len <= OPTION_BYTES_MAX && rx_have(c) < sizeof(o) + len)
		return false;
	hs->option = get_be32(o.option);
	if (++hs->options_n > OPTIONS_MAX) {
		conn_drop(c, "too many options");
	} else if (!hs->fixed && hs->option != NBD_OPT_EXPORT_NAME) {
		conn_drop(c, "an option before fixed newstyle");
	} else if (len > OPTION_SKIP_MAX ||
		   (len > OPTION_BYTES_MAX && hs->option == NBD_OPT_EXPORT_NAME)) {
		conn_drop(c, "option of a hostile length");
	} else {
		c->paused = true;
		c->rx_at += sizeof(o);
		if (len > OPTION_BYTES_MAX) {
			c->skip = len;
			option_finish(c, NBD_REP_ERR_TOO_BIG, "the option is too long");
		} else {
			hs->data = cursor_of(c->rx + c->rx_at, len);
			c->rx_at += len;
			option_run(c);
		}
	}
	return true;
}

/* ---- replies ---------------------------------------------------------------------------------------------------------- */

uint8_t *reply_put(struct nbd_conn *c, uint32_t type, uint32_t len)
{
	struct handshake *hs = c->hs;
	struct nbd_option_reply h = {
	    .magic = to_be64(NBD_REP_MAGIC),
	    .option = to_be32(hs->option),
	    .type = to_be32(type),
	    .len = to_be32(len),
	};
	uint8_t *payload = hs->replies + hs->replies_len + sizeof(h);

	check(sizeof(h) + len <= REPLIES_BYTES - hs->replies_len);
	memcpy(payload - sizeof(h), &h, sizeof(h));
	hs->replies_len += (uint32_t)sizeof(h) + len;
	return payload;
}

void reply_text(struct nbd_conn *c, uint32_t type, const char *text)
{
	uint32_t len = text ? (uint32_t)strlen(text) : 0;

	memcpy(reply_put(c, type, len), text ? text : "", len);
}

void reply_flush(struct nbd_conn *c, void (*sent)(struct nbd_conn *c))
{
	struct handshake *hs = c->hs;

	check(!c->send_busy && c->paused);
	if (c->state != CONN_HANDSHAKE)
		return;
	hs->sent = sent;
	hs->iov = (struct iovec){hs->replies, hs->replies_len};
	c->send_busy = true;
	c->pending++;
	ioe_send(c->ioe, &c->send, c->sock, &hs->iov, 1, replies_sent);
}

static void replies_sent(struct ioe_req *r)
{
	struct nbd_conn *c = container_of(r, struct nbd_conn, send);

	c->send_busy = false;
	c->pending--;
	c->hs->replies_len = 0;
	if (r->status < 0)
		conn_shut(c);
	if (c->state == CONN_HANDSHAKE)
		c->hs->sent(c);
	conn_settle(c);
}

/* ---- on from here ----------------------------------------------------------------------------------------------------- */

void option_finish(struct nbd_conn *c, uint32_t type, const char *text)
{
	reply_text(c, type, text);
	reply_flush(c, option_next);
}

static void option_next(struct nbd_conn *c)
{
	c->paused = false;
	rx_run(c);
}

void handshake_leave(struct nbd_conn *c)
{
	reply_flush(c, transmission_begin);
}

/* What the client sent behind its last option is its first requests. */
static void transmission_begin(struct nbd_conn *c)
{
	/* A choice of contexts counts for the export that it was made for. */
	c->contexts = strcmp(c->hs->contexts_export, c->requested) == 0 ? c->hs->contexts : 0;
	handshake_free(c);
	conn_deadline(c, 0);
	list_del(&c->greet_link);
	c->state = CONN_SERVING;
	c->paused = false;
	rx_run(c);
}
