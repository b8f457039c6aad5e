/* SPDX-License-Identifier: Apache-2.0 */
/* client_input.c - what comes in over a connection: the handshake, answers. */
#include <stdlib.h>
#include <string.h>

#include "src/base/math.h"
#include "tests/sim/client.h"

static void line_received(struct ioe_req *r);
static bool line_input(struct line *l);
static bool input_greeting(struct line *l);
static bool input_option(struct line *l);
static bool input_reply(struct line *l);
static bool input_chunk(struct line *l);
static bool input_fill(struct line *l);

static size_t have(const struct line *l)
{
	return l->in_len - l->in_at;
}

static const uint8_t *take(struct line *l, size_t n)
{
	l->in_at += n;
	return l->in + l->in_at - n;
}

void line_wrong(struct line *l, const char *what)
{
	world_fail(l->user->c->w, "%s breaks the protocol: %s", l->user->c->w->nodes[l->k].name,
		   what);
}

void line_recv(struct line *l)
{
	if (l->in_at) {
		memmove(l->in, l->in + l->in_at, have(l));
		l->in_len = have(l);
		l->in_at = 0;
	}
	l->recv_iov = (struct iovec){l->in + l->in_len, sizeof(l->in) - l->in_len};
	l->receiving = true;
	ioe_recv(l->user->c->e, &l->recv, l->sock, &l->recv_iov, 1, line_received);
}

static void line_received(struct ioe_req *r)
{
	struct line *l = container_of(r, struct line, recv);

	l->receiving = false;
	if (l->state == LINE_OVER)
		return;
	if (r->status || r->got == 0) {
		line_break(l, r->status ? err_name(r->status) : "closed by the other end");
		return;
	}
	l->in_len += r->got;
	while (l->state != LINE_OVER && line_input(l))
		;
	if (l->state == LINE_OVER)
		return;
	line_recv(l);
	if (l->state == LINE_READY)
		workload_go(l->user);
}

/* True: something was used up, there may be more. */
static bool line_input(struct line *l)
{
	struct be32 magic;

	switch (l->state) {
	case LINE_GREETING:
		return input_greeting(l);
	case LINE_STRUCTURED:
	case LINE_GOING:
		return input_option(l);
	case LINE_READY:
		if (l->fill_left)
			return input_fill(l);
		if (have(l) < sizeof(struct nbd_simple_reply))
			return false;
		memcpy(&magic, l->in + l->in_at, sizeof(magic));
		return get_be32(magic) == NBD_STRUCTURED_REPLY_MAGIC ? input_chunk(l)
								     : input_reply(l);
	case LINE_CONNECTING:
	case LINE_OVER:
		break;
	}
	check_unreachable("input in this state");
}

/* ---- the handshake ---------------------------------------------------------------------------------------------------- */

static void hello_put(struct line *l, const void *data, size_t len)
{
	check(l->hello_len + len <= sizeof(l->hello));
	memcpy(l->hello + l->hello_len, data, len);
	l->hello_len += len;
}

static void hello_option(struct line *l, uint32_t option, const void *data, size_t len)
{
	struct nbd_option o = {to_be64(NBD_OPTION_MAGIC), to_be32(option), to_be32((uint32_t)len)};

	hello_put(l, &o, sizeof(o));
	hello_put(l, data, len);
}

static void hello_go(struct line *l)
{
	const char *name = l->user->v->name;
	struct be32 name_len = to_be32((uint32_t)strlen(name));
	struct be16 infos_n = to_be16(0);
	uint8_t data[64];
	size_t n = 0;

	memcpy(data, &name_len, sizeof(name_len));
	n += sizeof(name_len);
	memcpy(data + n, name, strlen(name));
	n += strlen(name);
	memcpy(data + n, &infos_n, sizeof(infos_n));
	n += sizeof(infos_n);
	hello_option(l, NBD_OPT_GO, data, n);
}

static bool input_greeting(struct line *l)
{
	struct be32 flags = to_be32(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
	struct nbd_greeting g;

	if (have(l) < sizeof(g))
		return false;
	memcpy(&g, take(l, sizeof(g)), sizeof(g));
	if (get_be64(g.magic) != NBD_MAGIC || get_be64(g.option_magic) != NBD_OPTION_MAGIC)
		line_wrong(l, "a greeting");
	hello_put(l, &flags, sizeof(flags));
	if (l->user->c->w->s.structured)
		hello_option(l, NBD_OPT_STRUCTURED_REPLY, "", 0);
	hello_go(l);
	l->state = l->user->c->w->s.structured ? LINE_STRUCTURED : LINE_GOING;
	line_send(l);
	return true;
}

/* Refused: maybe somebody else has it, and says who. */
static void refused(struct line *l, uint32_t type, const char *text)
{
	struct world *w = l->user->c->w;
	const char *uri = strstr(text, "//10.0.1.");
	uint32_t target = uri ? (uint32_t)strtoul(uri + strlen("//10.0.1."), NULL, 10) : 0;

	world_say(w, "connection %u of %s is refused by %s: 0x%x %s", l->user->n, l->user->v->name,
		  w->nodes[l->k].name, type, text);
	if (type == NBD_REP_ERR_POLICY && target >= 1 && target <= w->s.nodes_n)
		l->user->target = target;
	line_break(l, "refused");
}

static void export_is(struct line *l, const uint8_t *data, size_t len)
{
	struct cursor c = cursor_of(data, len);
	uint16_t flags;

	if (cursor_be16(&c) != NBD_INFO_EXPORT)
		return;
	l->size_bytes = cursor_be64(&c);
	/* that it grew is known at the node a little later than to who asked for it */
	if (l->size_bytes < l->user->v->created_bytes || l->size_bytes > l->user->v->want_bytes)
		line_wrong(l, "another size than the volume has");
	flags = cursor_be16(&c);
	if (c.failed || !(flags & NBD_FLAG_SEND_FLUSH) || !(flags & NBD_FLAG_SEND_FUA) ||
	    flags & NBD_FLAG_READ_ONLY)
		line_wrong(l, "not the flags a volume has");
}

/* Everything before this moment was done by earlier owners. */
static void line_ready(struct line *l)
{
	struct world_volume *v = l->user->v;

	l->state = LINE_READY;
	if (v->owner_proc != l->proc) {
		v->owner_proc = l->proc;
		v->owner_serial++;
	}
	l->owner_serial = v->owner_serial;
	l->user->target = l->k;
	world_say(v->w, "connection %u of %s to %s", l->user->n, v->name, v->w->nodes[l->k].name);
	workload_go(l->user);
}

static bool input_option(struct line *l)
{
	struct nbd_option_reply h;
	const uint8_t *data;
	uint32_t type, len;

	if (have(l) < sizeof(h))
		return false;
	memcpy(&h, l->in + l->in_at, sizeof(h));
	type = get_be32(h.type);
	len = get_be32(h.len);
	if (get_be64(h.magic) != NBD_REP_MAGIC || len > 4096)
		line_wrong(l, "an option's reply");
	if (have(l) < sizeof(h) + len)
		return false;
	data = take(l, sizeof(h) + len) + sizeof(h);
	if (l->state == LINE_STRUCTURED && type == NBD_REP_ACK) {
		l->state = LINE_GOING;
	} else if (l->state == LINE_GOING && type == NBD_REP_INFO) {
		export_is(l, data, len);
	} else if (l->state == LINE_GOING && type == NBD_REP_ACK) {
		line_ready(l);
	} else {
		char text[4097];

		memcpy(text, data, len);
		text[len] = '\0';
		refused(l, type, text);
		return false;
	}
	return true;
}

/* ---- answers ---------------------------------------------------------------------------------------------------------- */

static struct op *op_of(struct line *l, struct nbd_cookie cookie)
{
	uint64_t number;

	memcpy(&number, cookie.b, sizeof(number));
	list_for_each (i, &l->ops) {
		struct op *op = list_entry(i, struct op, link);

		if (op->cookie == number)
			return op;
	}
	line_wrong(l, "an answer to what nobody asked, or a second one");
	return NULL;
}

static bool input_reply(struct line *l)
{
	struct nbd_simple_reply h;
	struct op *op;

	memcpy(&h, take(l, sizeof(h)), sizeof(h));
	if (get_be32(h.magic) != NBD_SIMPLE_REPLY_MAGIC)
		line_wrong(l, "a reply's magic number");
	op = op_of(l, h.cookie);
	op->error = get_be32(h.error);
	if (op->cmd != NBD_CMD_READ || op->error) {
		line_answered(l, op);
		return true;
	}
	if (l->user->c->w->s.structured)
		line_wrong(l, "a simple reply to a read");
	l->filling = op;
	l->fill_at = op->data;
	l->fill_left = op->sectors_n * SECTOR_BYTES;
	l->fill_ends = true;
	op->got = l->fill_left;
	return true;
}

static bool input_fill(struct line *l)
{
	size_t n = MIN(have(l), l->fill_left);

	memcpy(l->fill_at, take(l, n), n);
	l->fill_at += n;
	l->fill_left -= n;
	if (l->fill_left)
		return false;
	if (l->fill_ends)
		line_answered(l, l->filling);
	return true;
}

static uint64_t inside(struct line *l, const struct op *op, uint64_t off, uint64_t len)
{
	uint64_t from = op->sector * SECTOR_BYTES;

	if (off < from || !range_inside(off - from, len, op->sectors_n * SECTOR_BYTES))
		line_wrong(l, "data that were not asked for");
	return off - from;
}

static bool input_chunk(struct line *l)
{
	struct nbd_chunk h;
	struct op *op;
	struct cursor c;
	uint32_t len, fixed;
	uint16_t type;
	bool ends;

	if (have(l) < sizeof(h))
		return false;
	memcpy(&h, l->in + l->in_at, sizeof(h));
	len = get_be32(h.len);
	type = get_be16(h.type);
	ends = get_be16(h.flags) & NBD_REPLY_FLAG_DONE;
	fixed = type == NBD_REPLY_TYPE_OFFSET_DATA ? 8 : len;
	if (len < fixed || fixed > 4096)
		line_wrong(l, "a chunk's length");
	if (have(l) < sizeof(h) + fixed)
		return false;
	c = cursor_of(take(l, sizeof(h) + fixed) + sizeof(h), fixed);
	op = op_of(l, h.cookie);
	if (type == NBD_REPLY_TYPE_OFFSET_DATA) {
		uint64_t off = cursor_be64(&c);

		l->filling = op;
		l->fill_left = len - fixed;
		l->fill_at = op->data + inside(l, op, off, l->fill_left);
		l->fill_ends = ends;
		op->got += l->fill_left;
		if (l->fill_left == 0)
			line_wrong(l, "an empty chunk");
		return true;
	}
	if (type == NBD_REPLY_TYPE_OFFSET_HOLE) {
		uint64_t off = cursor_be64(&c);
		uint32_t n = cursor_be32(&c);

		memset(op->data + inside(l, op, off, n), 0, n);
		op->got += n;
	} else if (type == NBD_REPLY_TYPE_ERROR || type == NBD_REPLY_TYPE_ERROR_OFFSET) {
		op->error = cursor_be32(&c);
	} else if (type != NBD_REPLY_TYPE_NONE || len) {
		line_wrong(l, "a chunk's type");
	}
	if (ends)
		line_answered(l, op);
	return true;
}
