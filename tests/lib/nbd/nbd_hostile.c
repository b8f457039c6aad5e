/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/nbd/nbd_hostile.h"

#include <string.h>

#include "src/base/check.h"
#include "src/base/math.h"

enum { KIB = 1 << 10, MIB = 1 << 20, VOLUME_BYTES = 4 * MIB };

/* ---- the world -------------------------------------------------------------------------------------------------------- */

static int fault(void *arg, const struct volume_req *r)
{
	(void)arg;
	return r->off == 64 * KIB ? -ENOSPC : r->off == 128 * KIB ? -E_CHECKSUM : 0;
}

void nbd_hostile_init(struct nbd_hostile *h, uint64_t seed)
{
	struct nbd_limits limits = {.requests = 16, .pool_bytes = MIB + 64 * KIB, .connections = 4};
	struct mock_rules *rules;

	*h = (struct nbd_hostile){0};
	nbd_fixture_init(&h->fx, seed, &limits);
	mock_volume_add(h->fx.vs, "vol", VOLUME_BYTES);
	mock_volume_add(h->fx.vs, "vol@snap", MIB);
	rules = mock_rules(h->fx.vs);
	rules->delay_ns_max = 50000;
	rules->fault = fault;
}

void nbd_hostile_free(struct nbd_hostile *h)
{
	nbd_peer_close(&h->p);
	nbd_fixture_free(&h->fx);
}

/* ---- a case ----------------------------------------------------------------------------------------------------------- */

static void send_prefix(struct nbd_peer *p, enum nbd_hostile_prefix prefix)
{
	static const char *const queries[] = {"base:allocation", NULL};
	struct be32 flags = to_be32(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
	uint8_t data[256];

	if (prefix == NBD_HOSTILE_NOTHING)
		return;
	nbd_peer_send(p, &flags, sizeof(flags));
	if (prefix == NBD_HOSTILE_STRUCTURED) {
		nbd_peer_option(p, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
		nbd_peer_option(p, NBD_OPT_SET_META_CONTEXT, data,
				nbd_peer_meta_data(data, "vol", queries));
		nbd_peer_option(p, NBD_OPT_GO, data, nbd_peer_info_data(data, "vol", NULL, 0));
	} else if (prefix == NBD_HOSTILE_SIMPLE) {
		nbd_peer_option(p, NBD_OPT_EXPORT_NAME, "vol", 3);
	}
}

/* Every whole message from the greeting on, as far as the stream says where one ends: not after EXPORT_NAME, and not after the simple reply
 * to a READ. The last message may be cut where the connection ended. */
static void answers_check(struct nbd_hostile *h, enum nbd_hostile_prefix prefix)
{
	struct cursor c = cursor_of(h->p.in + h->p.in_at, h->p.in_len - h->p.in_at), start;
	struct nbd_greeting g;
	const void *p = cursor_take(&c, sizeof(g));

	if (!p)
		return;
	memcpy(&g, p, sizeof(g));
	check(get_be64(g.magic) == NBD_MAGIC && get_be64(g.option_magic) == NBD_OPTION_MAGIC);
	if (prefix == NBD_HOSTILE_SIMPLE)
		return;
	for (;; h->answers++) {
		uint32_t first;

		start = c;
		first = cursor_be32(&c);
		if (c.failed)
			return;
		c = start;
		if (first == NBD_REP_MAGIC >> 32) {
			uint32_t type;

			check(cursor_be64(&c) == NBD_REP_MAGIC || c.failed);
			cursor_be32(&c);
			type = cursor_be32(&c);
			check(c.failed || (type >= NBD_REP_ACK && type <= NBD_REP_META_CONTEXT) ||
			      (type >= NBD_REP_ERR_UNSUP && type <= NBD_REP_ERR_TOO_BIG));
			cursor_take(&c, cursor_be32(&c));
		} else if (first == NBD_STRUCTURED_REPLY_MAGIC) {
			cursor_take(&c, 16);
			cursor_take(&c, cursor_be32(&c));
		} else if (first == NBD_SIMPLE_REPLY_MAGIC) {
			if (prefix != NBD_HOSTILE_STRUCTURED)
				return;
			cursor_take(&c, sizeof(struct nbd_simple_reply));
		} else {
			check(
			    prefix !=
			    NBD_HOSTILE_STRUCTURED); /* an answer to EXPORT_NAME: nothing can be told of the rest */
			return;
		}
		if (c.failed)
			return;
	}
}

void nbd_hostile_feed(struct nbd_hostile *h, enum nbd_hostile_prefix prefix, const uint8_t *bytes,
		      size_t len, size_t cut)
{
	struct nbd_fixture *fx = &h->fx;
	struct nbd_server_info info;

	nbd_peer_connect(&h->p, fx);
	send_prefix(&h->p, prefix);
	cut = MIN(cut, len);
	nbd_peer_send(&h->p, bytes, cut);
	if (cut < len) {
		nbd_fixture_run(fx, 2000000);
		nbd_peer_send(&h->p, bytes + cut, len - cut);
	}
	nbd_fixture_run(fx, 10000000);
	answers_check(h, prefix);
	nbd_peer_close(&h->p);
	for (int i = 0; i < 100 && nbd_fixture_conns(fx) > 0; i++)
		nbd_fixture_run(fx, 5000000);
	nbd_server_info(fx->server, &info);
	check(info.connections == 0 && info.accepted == ++h->cases);
	check(mock_in_flight(fx->vs) == 0);
	check(mock_volume_find(fx->vs, "vol")->handles_n == 0 &&
	      mock_volume_find(fx->vs, "vol@snap")->handles_n == 0);
}

/* ---- the generator ---------------------------------------------------------------------------------------------------- */

struct gen {
	uint64_t x;
	uint8_t *out;
	size_t n;
};

static uint64_t rnd(struct gen *g, uint64_t below)
{
	g->x ^= g->x << 13, g->x ^= g->x >> 7, g->x ^= g->x << 17;
	return (g->x * 0x2545f4914f6cdd1dULL >> 11) % below;
}

static void put(struct gen *g, const void *p, size_t len)
{
	len = MIN(len, NBD_HOSTILE_BYTES_MAX - g->n);
	memcpy(g->out + g->n, p, len);
	g->n += len;
}

static void put_random(struct gen *g, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		uint8_t b = (uint8_t)rnd(g, 256);

		put(g, &b, 1);
	}
}

/* Numbers at which things break. */
static uint64_t number(struct gen *g)
{
	static const uint64_t edges[] = {0,
					 1,
					 511,
					 512,
					 513,
					 4095,
					 4096,
					 4097,
					 8192,
					 65535,
					 65536,
					 65537,
					 MIB,
					 VOLUME_BYTES - 512,
					 VOLUME_BYTES,
					 VOLUME_BYTES + 1,
					 32 * MIB,
					 32 * MIB + 1,
					 64 * MIB,
					 64 * MIB + 1,
					 0x7fffffff,
					 0x80000000,
					 0xfffffe00,
					 0xffffffff,
					 1ULL << 32,
					 1ULL << 63,
					 UINT64_MAX - 511,
					 UINT64_MAX};

	switch (rnd(g, 4)) {
	case 0:
		return rnd(g, 64) * 512;
	case 1:
		return rnd(g, 300);
	default:
		return edges[rnd(g, ARRAY_LEN(edges))];
	}
}

static void put_be32(struct gen *g, uint64_t v)
{
	struct be32 wire = to_be32((uint32_t)v);

	put(g, &wire, sizeof(wire));
}

/* A length-prefixed string: usually a name that means something, usually with its true length. */
static void put_string(struct gen *g)
{
	static const char *const words[] = {"vol",   "vol@snap", "",	 "nope", "base:allocation",
					    "base:", "qemu:",	 "vol@", "x:"};
	const char *word = words[rnd(g, ARRAY_LEN(words))];

	put_be32(g, rnd(g, 10) ? strlen(word) : number(g));
	put(g, word, strlen(word));
	if (rnd(g, 20) == 0)
		put_random(g, rnd(g, 300));
}

static void put_option(struct gen *g)
{
	struct gen data = *g;
	uint8_t bytes[NBD_HOSTILE_BYTES_MAX];
	uint32_t option = rnd(g, 20) ? (uint32_t)rnd(g, 13) : (uint32_t)number(g);
	struct nbd_option o = {to_be64(rnd(g, 60) ? NBD_OPTION_MAGIC : number(g)), to_be32(option),
			       to_be32(0)};

	data.out = bytes;
	data.n = 0;
	data.x = g->x;
	switch (option) {
	case NBD_OPT_EXPORT_NAME:
		put(&data, "vol", rnd(g, 4));
		break;
	case NBD_OPT_INFO:
	case NBD_OPT_GO: {
		struct be16 n = to_be16((uint16_t)(rnd(g, 5) ? rnd(g, 4) : number(g)));

		put_string(&data);
		put(&data, &n, sizeof(n));
		for (uint32_t i = 0; i < get_be16(n) && i < 8; i++)
			put(&data, (const uint8_t[]){0, (uint8_t)rnd(g, 5)}, 2);
		break;
	}
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT: {
		uint64_t n = rnd(g, 5) ? rnd(g, 4) : number(g);

		put_string(&data);
		put_be32(&data, n);
		for (uint64_t i = 0; i < n && i < 8; i++)
			put_string(&data);
		break;
	}
	default:
		put_random(&data, rnd(g, 3) ? 0 : rnd(g, 100));
	}
	g->x = data.x ^ g->x << 1 ^ 1;
	o.len = to_be32((uint32_t)(rnd(g, 30) ? data.n : number(g)));
	put(g, &o, sizeof(o));
	put(g, bytes, data.n);
}

static void put_request(struct gen *g)
{
	uint64_t cmd = rnd(g, 10) ? rnd(g, 9) : number(g), flags = 0;
	struct nbd_request_header h;

	if (rnd(g, 3) == 0)
		flags = rnd(g, 5) ? 1ULL << rnd(g, 6) : number(g);
	h = nbd_peer_header((uint16_t)cmd, (uint16_t)flags, rnd(g, 8), number(g),
			    (uint32_t)number(g));
	if (rnd(g, 60) == 0)
		h.magic = to_be32((uint32_t)number(g));
	put(g, &h, sizeof(h));
	if (get_be16(h.cmd) == NBD_CMD_WRITE && rnd(g, 20) && get_be32(h.len) <= 8192)
		put_random(g, get_be32(h.len));
}

/* Bits, bytes and pieces changed in place. */
static void mutate(struct gen *g)
{
	for (uint64_t i = rnd(g, 4); i > 0 && g->n > 0; i--) {
		size_t at = rnd(g, g->n);

		switch (rnd(g, 3)) {
		case 0:
			g->out[at] ^= (uint8_t)(1 << rnd(g, 8));
			break;
		case 1:
			g->out[at] = (uint8_t)rnd(g, 256);
			break;
		default:
			g->n = at;
		}
	}
}

size_t nbd_hostile_generate(uint64_t seed, uint8_t out[NBD_HOSTILE_BYTES_MAX],
			    enum nbd_hostile_prefix *ret_prefix, size_t *ret_cut)
{
	struct gen g = {.x = (seed + 1) * 0x9e3779b97f4a7c15ULL, .out = out};
	enum nbd_hostile_prefix prefix = (enum nbd_hostile_prefix)rnd(&g, NBD_HOSTILE_PREFIXES_N);

	if (prefix == NBD_HOSTILE_NOTHING)
		put_be32(&g, rnd(&g, 4) ? rnd(&g, 5) : number(&g));
	if (rnd(&g, 20) == 0)
		put_random(&g, rnd(&g, 2000));
	for (uint64_t i = rnd(&g, 10); i > 0; i--) {
		if (prefix <= NBD_HOSTILE_FLAGS)
			put_option(&g);
		else
			put_request(&g);
	}
	if (rnd(&g, 3) == 0)
		mutate(&g);
	*ret_prefix = prefix;
	*ret_cut = rnd(&g, 4) ? g.n : rnd(&g, g.n + 1);
	return g.n;
}
