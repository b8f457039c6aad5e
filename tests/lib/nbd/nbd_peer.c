/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/nbd/nbd_peer.h"

#include <string.h>

#include "src/base/check.h"
#include "src/base/mem.h"

enum { SECOND_NS = 1000000000 };

/* ---- fixture ---------------------------------------------------------------------------------------------------------- */

void nbd_fixture_init(struct nbd_fixture *fx, uint64_t seed, const struct nbd_limits *limits)
{
	nbd_fixture_init_config(fx, &(struct sim_config){.seed = seed}, limits);
}

void nbd_fixture_init_config(struct nbd_fixture *fx, const struct sim_config *cfg,
			     const struct nbd_limits *limits)
{
	struct nbd_config config = {0};

	*fx = (struct nbd_fixture){.mem_live = mem_live()};
	fx->w = sim_world_new(cfg);
	fx->m = sim_machine_new(fx->w, "m");
	fx->e = sim_process_new(fx->m, "server", NULL, NULL);
	fx->client = sim_process_new(fx->m, "client", NULL, NULL);
	fx->vs = mock_volumes_new(fx->e);
	mock_rules(fx->vs)->check = true;
	config.ioe = fx->e;
	config.volumes = fx->vs;
	if (limits)
		config.limits = *limits;
	check(nbd_server_new(&config, &fx->server) == 0);
	check(nbd_server_listen(fx->server, NBD_FIXTURE_ADDR, NULL) == 0);
	check(nbd_server_listen(fx->server, NBD_FIXTURE_TCP, NULL) == 0);
}

static void fixture_closed(void *arg)
{
	struct nbd_fixture *fx = arg;

	fx->closed = true;
	fx->server = NULL;
}

void nbd_fixture_close_begin(struct nbd_fixture *fx)
{
	nbd_server_close(fx->server, fixture_closed, fx);
}

void nbd_fixture_free(struct nbd_fixture *fx)
{
	if (fx->server)
		nbd_fixture_close_begin(fx);
	check(sim_run(fx->w, sim_now_ns(fx->w) + 3600ULL * SECOND_NS));
	check(fx->closed);
	mock_volumes_free(fx->vs);
	ioe_free(fx->e);
	ioe_free(fx->client);
	sim_world_free(fx->w);
	check(mem_live() == fx->mem_live);
}

void nbd_fixture_run(struct nbd_fixture *fx, uint64_t ns)
{
	sim_run(fx->w, sim_now_ns(fx->w) + ns);
}

uint32_t nbd_fixture_conns(struct nbd_fixture *fx)
{
	struct nbd_server_info info;

	nbd_server_info(fx->server, &info);
	return info.connections;
}

/* ---- bytes ------------------------------------------------------------------------------------------------------------ */

static void peer_recv(struct nbd_peer *p);
static void peer_push(struct nbd_peer *p);

static void reserve(uint8_t **buf, size_t *cap, size_t need)
{
	if (need <= *cap)
		return;
	*cap = need * 2 + 4096;
	*buf = mem_realloc(*buf, *cap, 1);
	check(*buf);
}

static void connect_done(struct ioe_req *r)
{
	struct nbd_peer *p = container_of(r, struct nbd_peer, connect);

	p->connecting = false;
	p->connect_status = r->status;
	if (r->status < 0) {
		p->eof = p->broken = true;
		return;
	}
	p->sock = r->ret_sock;
	peer_recv(p);
	peer_push(p);
}

void nbd_peer_connect_begin(struct nbd_peer *p, struct sim_world *w, struct ioe *e, const char *addr)
{
	*p = (struct nbd_peer){.w = w, .e = e, .connecting = true, .reading = true};
	ioe_connect(e, &p->connect, addr, connect_done);
}

void nbd_peer_connect(struct nbd_peer *p, struct nbd_fixture *fx)
{
	nbd_peer_connect_begin(p, fx->w, fx->client, NBD_FIXTURE_ADDR);
	while (p->connecting)
		check(sim_step(p->w));
}

static void recv_done(struct ioe_req *r)
{
	struct nbd_peer *p = container_of(r, struct nbd_peer, recv);

	p->recv_busy = false;
	if (r->status < 0)
		p->broken = true;
	if (r->status < 0 || r->got == 0)
		p->eof = true;
	p->in_len += r->got;
	peer_recv(p);
}

static void peer_recv(struct nbd_peer *p)
{
	if (!p->reading || p->eof || p->recv_busy || !p->sock)
		return;
	if (p->in_at) {
		memmove(p->in, p->in + p->in_at, p->in_len - p->in_at);
		p->in_len -= p->in_at;
		p->in_at = 0;
	}
	reserve(&p->in, &p->in_cap, p->in_len + (64 << 10));
	p->recv_iov = (struct iovec){p->in + p->in_len, p->in_cap - p->in_len - 1};
	p->recv_busy = true;
	ioe_recv(p->e, &p->recv, p->sock, &p->recv_iov, 1, recv_done);
}

void nbd_peer_read(struct nbd_peer *p, bool on)
{
	p->reading = on;
	peer_recv(p);
}

static void send_done(struct ioe_req *r)
{
	struct nbd_peer *p = container_of(r, struct nbd_peer, send);

	p->send_busy = false;
	mem_free(p->sending);
	p->sending = NULL;
	if (r->status < 0)
		p->broken = true;
	peer_push(p);
}

static void peer_push(struct nbd_peer *p)
{
	if (p->send_busy || !p->sock || p->broken || p->out_len == 0)
		return;
	p->sending = p->out;
	p->send_iov = (struct iovec){p->out, p->out_len};
	p->out = NULL;
	p->out_len = p->out_cap = 0;
	p->send_busy = true;
	ioe_send(p->e, &p->send, p->sock, &p->send_iov, 1, send_done);
}

void nbd_peer_send(struct nbd_peer *p, const void *data, size_t len)
{
	if (len == 0)
		return;
	reserve(&p->out, &p->out_cap, p->out_len + len);
	memcpy(p->out + p->out_len, data, len);
	p->out_len += len;
	peer_push(p);
}

bool nbd_peer_has(struct nbd_peer *p, size_t n)
{
	uint64_t end_ns = sim_now_ns(p->w) + 120ULL * SECOND_NS;

	while (p->in_len - p->in_at < n)
		if ((p->eof && !p->recv_busy) || sim_now_ns(p->w) > end_ns || !sim_step(p->w))
			return false;
	return true;
}

const uint8_t *nbd_peer_take(struct nbd_peer *p, size_t n)
{
	check(nbd_peer_has(p, n));
	p->in_at += n;
	return p->in + p->in_at - n;
}

bool nbd_peer_is_eof(struct nbd_peer *p)
{
	uint64_t end_ns = sim_now_ns(p->w) + SECOND_NS;

	while (!p->eof && sim_now_ns(p->w) < end_ns)
		if (!sim_step(p->w))
			break;
	return p->eof;
}

void nbd_peer_close(struct nbd_peer *p)
{
	while (p->connecting)
		check(sim_step(p->w));
	if (p->sock) {
		p->reading = false;
		p->broken = true;
		ioe_sock_shutdown(p->e, p->sock);
		while (p->recv_busy || p->send_busy)
			check(sim_step(p->w));
		ioe_sock_close(p->e, p->sock);
	}
	mem_free(p->in);
	mem_free(p->out);
	*p = (struct nbd_peer){.w = p->w, .e = p->e};
}

/* ---- handshake -------------------------------------------------------------------------------------------------------- */

void nbd_peer_greet(struct nbd_peer *p, uint32_t client_flags)
{
	struct nbd_greeting g;
	struct be32 flags = to_be32(client_flags);

	memcpy(&g, nbd_peer_take(p, sizeof(g)), sizeof(g));
	check(get_be64(g.magic) == NBD_MAGIC && get_be64(g.option_magic) == NBD_OPTION_MAGIC);
	check(get_be16(g.flags) == (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES));
	nbd_peer_send(p, &flags, sizeof(flags));
}

void nbd_peer_option(struct nbd_peer *p, uint32_t option, const void *data, size_t len)
{
	struct nbd_option o = {to_be64(NBD_OPTION_MAGIC), to_be32(option), to_be32((uint32_t)len)};

	nbd_peer_send(p, &o, sizeof(o));
	if (len)
		nbd_peer_send(p, data, len);
}

struct nbd_peer_reply nbd_peer_reply(struct nbd_peer *p)
{
	struct nbd_option_reply h;
	struct nbd_peer_reply r;

	memcpy(&h, nbd_peer_take(p, sizeof(h)), sizeof(h));
	check(get_be64(h.magic) == NBD_REP_MAGIC);
	r = (struct nbd_peer_reply){get_be32(h.option), get_be32(h.type), get_be32(h.len), NULL};
	check(r.len <= 64 << 10);
	r.data = nbd_peer_take(p, r.len);
	return r;
}

uint32_t nbd_peer_ask(struct nbd_peer *p, uint32_t option, const void *data, size_t len)
{
	struct nbd_peer_reply r;

	nbd_peer_option(p, option, data, len);
	r = nbd_peer_reply(p);
	check(r.option == option);
	return r.type;
}

static size_t put_be32(uint8_t *out, uint32_t v)
{
	struct be32 wire = to_be32(v);

	memcpy(out, &wire, sizeof(wire));
	return sizeof(wire);
}

static size_t put_be16(uint8_t *out, uint16_t v)
{
	struct be16 wire = to_be16(v);

	memcpy(out, &wire, sizeof(wire));
	return sizeof(wire);
}

static size_t put_string(uint8_t *out, const char *s)
{
	size_t n = put_be32(out, (uint32_t)strlen(s));

	memcpy(out + n, s, strlen(s));
	return n + strlen(s);
}

size_t nbd_peer_info_data(uint8_t *out, const char *name, const uint16_t *infos, uint16_t infos_n)
{
	size_t n = put_string(out, name);

	n += put_be16(out + n, infos_n);
	for (uint16_t i = 0; i < infos_n; i++)
		n += put_be16(out + n, infos[i]);
	return n;
}

size_t nbd_peer_meta_data(uint8_t *out, const char *name, const char *const *queries)
{
	size_t n = put_string(out, name), count_at = n;
	uint32_t count = 0;

	n += sizeof(struct be32);
	for (; queries[count]; count++)
		n += put_string(out + n, queries[count]);
	put_be32(out + count_at, count);
	return n;
}

void nbd_peer_go(struct nbd_peer *p, struct nbd_fixture *fx, const char *name, bool structured)
{
	static const char *const queries[] = {"base:allocation", NULL};
	uint16_t infos[] = {NBD_INFO_BLOCK_SIZE};
	uint8_t data[1024];
	struct nbd_peer_reply r;

	nbd_peer_connect(p, fx);
	nbd_peer_greet(p, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
	p->structured = structured;
	if (structured) {
		check(nbd_peer_ask(p, NBD_OPT_STRUCTURED_REPLY, NULL, 0) == NBD_REP_ACK);
		nbd_peer_option(p, NBD_OPT_SET_META_CONTEXT, data,
				nbd_peer_meta_data(data, name, queries));
		r = nbd_peer_reply(p);
		check(r.type == NBD_REP_META_CONTEXT);
		r = nbd_peer_reply(p);
		check(r.type == NBD_REP_ACK);
	}
	nbd_peer_option(p, NBD_OPT_GO, data, nbd_peer_info_data(data, name, infos, 1));
	while ((r = nbd_peer_reply(p)).type == NBD_REP_INFO) {
		struct cursor c = cursor_of(r.data, r.len);

		if (cursor_be16(&c) == NBD_INFO_EXPORT) {
			p->size_bytes = cursor_be64(&c);
			p->flags = cursor_be16(&c);
		}
	}
	check(r.type == NBD_REP_ACK);
}

/* ---- transmission ----------------------------------------------------------------------------------------------------- */

struct nbd_request_header nbd_peer_header(uint16_t cmd, uint16_t flags, uint64_t cookie,
					  uint64_t off, uint32_t len)
{
	struct nbd_request_header h = {
	    .magic = to_be32(NBD_REQUEST_MAGIC),
	    .flags = to_be16(flags),
	    .cmd = to_be16(cmd),
	    .off = to_be64(off),
	    .len = to_be32(len),
	};

	memcpy(&h.cookie, &cookie, sizeof(cookie));
	return h;
}

void nbd_peer_request(struct nbd_peer *p, uint16_t cmd, uint16_t flags, uint64_t cookie,
		      uint64_t off, uint32_t len)
{
	struct nbd_request_header h = nbd_peer_header(cmd, flags, cookie, off, len);

	nbd_peer_send(p, &h, sizeof(h));
}

void nbd_peer_write(struct nbd_peer *p, uint16_t flags, uint64_t cookie, uint64_t off,
		    const void *data, uint32_t len)
{
	nbd_peer_request(p, NBD_CMD_WRITE, flags, cookie, off, len);
	nbd_peer_send(p, data, len);
}

static struct nbd_peer_answer take_chunk(struct nbd_peer *p)
{
	struct nbd_peer_answer a = {0};
	struct nbd_chunk h;
	struct cursor c;
	uint32_t len;

	memcpy(&h, nbd_peer_take(p, sizeof(h)), sizeof(h));
	memcpy(&a.cookie, &h.cookie, sizeof(a.cookie));
	check((get_be16(h.flags) & ~NBD_REPLY_FLAG_DONE) == 0);
	a.done = get_be16(h.flags) & NBD_REPLY_FLAG_DONE;
	a.type = get_be16(h.type);
	len = get_be32(h.len);
	check(len <= 33 << 20);
	c = cursor_of(nbd_peer_take(p, len), len);
	switch (a.type) {
	case NBD_REPLY_TYPE_NONE:
		check(len == 0 && a.done);
		break;
	case NBD_REPLY_TYPE_OFFSET_DATA:
		a.off = cursor_be64(&c);
		a.len = (uint32_t)cursor_left(&c);
		check(a.len > 0);
		break;
	case NBD_REPLY_TYPE_OFFSET_HOLE:
		a.off = cursor_be64(&c);
		a.len = cursor_be32(&c);
		check(a.len > 0 && cursor_left(&c) == 0);
		break;
	case NBD_REPLY_TYPE_BLOCK_STATUS:
		a.off = cursor_be32(&c); /* the context */
		a.len = (uint32_t)(cursor_left(&c) / sizeof(struct nbd_extent));
		check(a.len > 0 && cursor_left(&c) % sizeof(struct nbd_extent) == 0);
		break;
	case NBD_REPLY_TYPE_ERROR:
		a.error = cursor_be32(&c);
		a.len = cursor_be16(&c);
		check(a.error && a.len == cursor_left(&c));
		break;
	default:
		check_unreachable("a chunk type the server should not use");
	}
	check(!c.failed);
	a.data = c.at;
	return a;
}

struct nbd_peer_answer nbd_peer_answer(struct nbd_peer *p, uint32_t read_len)
{
	struct nbd_peer_answer a = {.type = -1, .done = true};
	struct nbd_simple_reply h;
	struct be32 magic;

	check(nbd_peer_has(p, sizeof(magic)));
	memcpy(&magic, p->in + p->in_at, sizeof(magic));
	if (get_be32(magic) == NBD_STRUCTURED_REPLY_MAGIC) {
		check(p->structured);
		return take_chunk(p);
	}
	check(get_be32(magic) == NBD_SIMPLE_REPLY_MAGIC);
	memcpy(&h, nbd_peer_take(p, sizeof(h)), sizeof(h));
	memcpy(&a.cookie, &h.cookie, sizeof(a.cookie));
	a.error = get_be32(h.error);
	if (!a.error && read_len) {
		check(!p->structured);
		a.data = nbd_peer_take(p, read_len);
		a.len = read_len;
	}
	return a;
}

struct nbd_extent nbd_peer_extent(const struct nbd_peer_answer *a, uint32_t i)
{
	struct nbd_extent e;

	check(i < a->len);
	memcpy(&e, a->data + i * sizeof(e), sizeof(e));
	return e;
}

static const uint64_t COOKIE = 0x1122334455667788ULL;

uint32_t nbd_peer_do(struct nbd_peer *p, uint16_t cmd, uint16_t flags, uint64_t off, uint32_t len)
{
	struct nbd_peer_answer a;

	nbd_peer_request(p, cmd, flags, COOKIE, off, len);
	a = nbd_peer_answer(p, 0);
	check(a.cookie == COOKIE && a.done);
	return a.error;
}

uint32_t nbd_peer_do_write(struct nbd_peer *p, uint16_t flags, uint64_t off, const void *data,
			   uint32_t len)
{
	struct nbd_peer_answer a;

	nbd_peer_write(p, flags, COOKIE, off, data, len);
	a = nbd_peer_answer(p, 0);
	check(a.cookie == COOKIE && a.done);
	return a.error;
}

uint32_t nbd_peer_do_read(struct nbd_peer *p, uint16_t flags, uint64_t off, void *data, uint32_t len)
{
	uint64_t covered = 0;
	uint32_t error = 0, contents = 0;
	bool done;

	nbd_peer_request(p, NBD_CMD_READ, flags, COOKIE, off, len);
	do {
		struct nbd_peer_answer a = nbd_peer_answer(p, len);

		check(a.cookie == COOKIE);
		done = a.done;
		if (a.error) {
			error = a.error;
			continue;
		}
		if (a.type == NBD_REPLY_TYPE_NONE)
			continue;
		if (a.type == -1)
			a.off = off;
		check(a.off >= off && a.off + a.len <= off + len);
		if (a.type == NBD_REPLY_TYPE_OFFSET_HOLE)
			memset((uint8_t *)data + (a.off - off), 0, a.len);
		else
			memcpy((uint8_t *)data + (a.off - off), a.data, a.len);
		covered += a.len;
		contents++;
	} while (!done);
	check(error || covered == len);
	check(!(flags & NBD_CMD_FLAG_DF) || contents <= 1);
	return error;
}
