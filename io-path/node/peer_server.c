/* SPDX-License-Identifier: Apache-2.0 */
/* peer_server.c
 *
 *   accept -> HELLO -> (earlier links of the node are quiet) -> HELLO_REPLY -> requests
 *   request -> [data] -> verify -> local store -> reply, with the data of a read -> sent -> job free
 *
 * A link outlives its connection while requests of it are in the devices. */
#include "io-path/node/peer_server.h"

#include <stdio.h>

#include "src/base/crc.h"
#include "src/base/log.h"
#include "src/base/mem.h"
#include "src/ioe/ioe.h"
#include "src/wire/chunk_msg.h"
#include "src/wire/conn.h"
#include "src/wire/listen.h"

enum {
	LISTENERS_MAX = 8,
	SMALL_BYTES = 16 << 10,
	LEAVING_MAX = 64, /* links that gave way and are not gone yet */
};

struct job {
	struct list link; /* of peer_link.unused, or of nothing */
	struct peer_link *of;
	struct chunk_req req;
	uint64_t id; /* of the frame */
	bool want_crcs, want_states, in_device;
	uint32_t bytes; /* of the buffer, which this job counts for */
	void *small; /* a buffer that stays with the job from its first short request on: most are */
	struct link_out out;
	uint32_t crcs[CHUNK_BLOCKS_MAX];
	uint8_t states[CHUNK_BLOCKS_MAX];
	uint8_t body[CHUNK_MSG_REPLY_MAX];
};

struct peer_link {
	struct list link; /* of peer_server.links */
	struct peer_server *server;
	struct conn conn;
	bool conn_open, joined;
	node_no node; /* 0 before HELLO */
	struct uuid start;
	uint64_t session, hello_id;
	bool hello_waits;
	uint32_t in_device; /* requests under way in the local store */
	uint32_t jobs_n;    /* not in unused */
	uint64_t bytes;
	struct job *jobs, *receiving;
	struct list unused;
};

struct peer_server {
	struct peer_server_config cfg;
	struct uuid cluster;
	node_no node; /* 0: not known yet */
	struct listener listeners[LISTENERS_MAX];
	uint32_t listeners_n, listeners_open;
	struct list links;
	uint32_t links_n;
	struct peer_server_stats stats;
	struct ioe_req close_nop;
	bool refusing, closing, close_nop_busy;
	void (*closed)(void *arg);
	void *closed_arg;
};

static void accepted(struct listener *l, struct ioe_sock *sock);
static bool make_room(struct peer_server *s);
static void listener_closed(void *arg);
static int link_new(struct peer_server *s, struct ioe_sock *sock, bool tcp);
static void link_up(struct conn *c);
static int link_request(struct conn *c, const struct frame *f, const void *body, void **ret_data);
static int hello(struct peer_link *l, const struct frame *f, const void *body);
static void hello_answer_if_quiet(struct peer_link *l);
static int request(struct peer_link *l, const struct frame *f, const void *body, void **ret_data);
static int link_data(struct conn *c);
static void job_run(struct job *j);
static void job_done(struct chunk_req *r);
static void job_reply(struct job *j);
static void job_sent(struct link_out *o, int status);
static void job_free(struct job *j);
static void link_down(struct conn *c, int status);
static void jobs_take_back(struct peer_link *l);
static void link_closed(void *arg);
static void link_free_if_quiet(struct peer_link *l);
static void server_free_if_closed(struct peer_server *s);

static const struct conn_ops link_conn_ops = {.up = link_up,
					      .request = link_request,
					      .data = link_data,
					      .down = link_down};

/* ---- listening --------------------------------------------------------------------------------- */

int peer_server_new(const struct peer_server_config *cfg, struct peer_server **ret_s)
{
	struct peer_server *s = mem_zalloc(sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->cfg = *cfg;
	list_init(&s->links);
	*ret_s = s;
	return 0;
}

void peer_server_identify(struct peer_server *s, const struct uuid *cluster, node_no node)
{
	s->cluster = *cluster;
	s->node = node;
}

int peer_server_listen(struct peer_server *s, const char *addr, char errmsg[ERRMSG_LEN])
{
	struct listener *l = &s->listeners[s->listeners_n];
	int r;

	if (s->listeners_n == LISTENERS_MAX) {
		snprintf(errmsg, ERRMSG_LEN, "more than %d addresses for other nodes",
			 LISTENERS_MAX);
		return -E2BIG;
	}
	r = listener_open(l, s->cfg.ioe, addr, accepted, errmsg);
	if (r)
		return r;
	l->arg = s;
	s->listeners_n++;
	s->listeners_open++;
	return 0;
}

bool peer_server_addr(struct peer_server *s, uint32_t nth, char addr[128])
{
	static_assert(IOE_ADDR_MAX == 128, "the length in the header");

	if (nth >= s->listeners_n)
		return false;
	ioe_sock_addr(s->listeners[nth].sock, addr);
	return true;
}

static void accepted(struct listener *l, struct ioe_sock *sock)
{
	struct peer_server *s = l->arg;

	if (s->closing || s->refusing || (s->links_n >= PEER_LINKS_MAX && !make_room(s)) ||
	    link_new(s, sock, !l->is_unix)) {
		s->stats.refused++;
		ioe_sock_close(s->cfg.ioe, sock);
	}
}

/* Who has not proved yet that it belongs to the cluster, the one that came first first, gives way: whoever can only connect keeps no node out. */
static bool make_room(struct peer_server *s)
{
	if (s->links_n >= PEER_LINKS_MAX + LEAVING_MAX)
		return false;
	list_for_each (pos, &s->links) {
		struct peer_link *l = list_entry(pos, struct peer_link, link);

		if (!l->conn_open || !conn_is_joining(&l->conn))
			continue;
		conn_break(&l->conn, -ECONNABORTED);
		return true;
	}
	return false;
}

static int link_new(struct peer_server *s, struct ioe_sock *sock, bool tcp)
{
	struct conn_config cfg = {
	    .ioe = s->cfg.ioe,
	    .ops = &link_conn_ops,
	    .key = tcp ? s->cfg.key : NULL,
	    .body_max = CHUNK_MSG_REQUEST_MAX,
	    .data_max = CHUNK_BLOCKS_MAX * BLOCK_BYTES,
	    .buf_bytes = 128 << 10,
	};
	struct peer_link *l;
	int r;

	if (tcp && !s->cfg.key)
		return -EACCES;
	l = mem_zalloc(sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->server = s;
	list_init(&l->unused);
	r = conn_open(&l->conn, &cfg, sock);
	if (r) {
		mem_free(l);
		return r;
	}
	l->conn_open = true;
	list_push(&s->links, &l->link);
	s->links_n++;
	s->stats.links++;
	return 0;
}

static void link_up(struct conn *c)
{
	(void)c; /* the dialer speaks first */
}

/* ---- joining ------------------------------------------------------------------------------------- */

static int link_request(struct conn *c, const struct frame *f, const void *body, void **ret_data)
{
	struct peer_link *l = container_of(c, struct peer_link, conn);

	if (f->type == CHUNK_MSG_HELLO && !l->node)
		return hello(l, f, body);
	if (f->type == CHUNK_MSG_REQUEST && l->joined)
		return request(l, f, body, ret_data);
	return -E_PROTOCOL;
}

static int jobs_make(struct peer_link *l)
{
	l->jobs = mem_zalloc_array(PEER_JOBS_MAX, sizeof(l->jobs[0]));
	if (!l->jobs)
		return -ENOMEM;
	for (int i = 0; i < PEER_JOBS_MAX; i++) {
		l->jobs[i].of = l;
		list_push(&l->unused, &l->jobs[i].link);
	}
	return 0;
}

static int hello_send(struct peer_link *l, int status)
{
	struct peer_server *s = l->server;
	struct peer_server_device d;
	struct chunk_msg_hello_reply h = {.status = to_le32((uint32_t)-status),
					  .node = to_le32(s->node),
					  .start = s->cfg.start};
	struct frame f = {.type = CHUNK_MSG_HELLO, .flags = FRAME_F_REPLY, .id = l->hello_id};
	struct link_copy *copy;
	uint32_t n = 0;

	while (!status && n < CHUNK_MSG_DEVICES_MAX && s->cfg.device(s->cfg.arg, n, &d))
		n++;
	h.devices_n = to_le32(n);
	f.body_bytes = (uint32_t)(sizeof(h) + n * sizeof(struct chunk_msg_device));
	copy = link_copy_new(f.body_bytes);
	if (!copy)
		return -ENOMEM;
	memcpy(copy->body, &h, sizeof(h));
	for (uint32_t i = 0; i < n && s->cfg.device(s->cfg.arg, i, &d); i++) {
		struct chunk_msg_device w = {.uuid = d.uuid,
					     .incarnation = to_le64(d.incarnation),
					     .lsn = to_le64(d.lsn),
					     .number = to_le16(d.number),
					     .is_stable = d.is_stable};

		memcpy(copy->body + sizeof(h) + i * sizeof(w), &w, sizeof(w));
	}
	return link_copy_send(&l->conn.link, copy, &f);
}

static int hello(struct peer_link *l, const struct frame *f, const void *body)
{
	struct chunk_msg_hello h;
	int r;

	if (f->body_bytes != sizeof(h) || f->data_bytes)
		return -E_PROTOCOL;
	memcpy(&h, body, sizeof(h));
	l->hello_id = f->id;
	if (get_le32(h.version) != CHUNK_MSG_VERSION)
		return hello_send(l, -E_VERSION);
	if (!l->server->node)
		return hello_send(l, -EAGAIN);
	if (!uuid_equal(&h.cluster, &l->server->cluster))
		return hello_send(l, -EPERM);
	if (!get_le32(h.node))
		return -E_PROTOCOL;
	r = jobs_make(l);
	if (r)
		return r;
	l->node = get_le32(h.node);
	l->start = h.start;
	l->session = get_le64(h.session);
	l->hello_waits = true;
	list_for_each_safe (pos, tmp, &l->server->links) {
		struct peer_link *other = list_entry(pos, struct peer_link, link);

		if (other == l || other->node != l->node)
			continue;
		if (uuid_equal(&other->start, &l->start) && other->session > l->session)
			return -E_PROTOCOL; /* a newer link of the same process exists */
		other->joined = false;
		if (other->conn_open)
			conn_break(&other->conn, -ECONNRESET);
	}
	hello_answer_if_quiet(l);
	return 0;
}

/* Wakes: a request of an earlier link has left the device. */
static void hello_answer_if_quiet(struct peer_link *l)
{
	list_for_each (pos, &l->server->links) {
		struct peer_link *other = list_entry(pos, struct peer_link, link);

		if (other != l && other->node == l->node && other->in_device)
			return;
	}
	l->hello_waits = false;
	l->joined = true;
	if (hello_send(l, 0))
		conn_break(&l->conn, -ENOMEM);
}

static void wake_hellos(struct peer_server *s, node_no node)
{
	list_for_each (pos, &s->links) {
		struct peer_link *l = list_entry(pos, struct peer_link, link);

		if (l->node == node && l->hello_waits && conn_is_up(&l->conn))
			hello_answer_if_quiet(l);
	}
}

/* ---- requests -------------------------------------------------------------------------------------- */

static bool op_has_data(uint8_t op)
{
	return op == CHUNK_WRITE;
}

static bool op_is_known(const struct chunk_msg *m)
{
	static const struct {
		uint32_t flags;
		bool blocks;
	} known[] = {
	    [CHUNK_READ] = {0, true},
	    [CHUNK_WRITE] = {CHUNK_F_STABLE, true},
	    [CHUNK_CLEAR] = {CHUNK_F_STABLE | CHUNK_F_ZERO, true},
	    [CHUNK_STATUS] = {0, true},
	    [CHUNK_FLUSH] = {0, false},
	    [CHUNK_FREE] = {CHUNK_F_IF_EMPTY, false},
	};

	return m->op < ARRAY_LEN(known) && !(m->flags & ~known[m->op].flags) &&
	       (known[m->op].blocks ? m->blocks_n > 0 : m->blocks_n == 0);
}

static bool is_full(const struct peer_link *l)
{
	return list_empty(&l->unused) || l->bytes >= PEER_BYTES_MAX;
}

static void *buffer_get(struct job *j)
{
	if (j->bytes > SMALL_BYTES)
		return mem_alloc_aligned(BLOCK_BYTES, j->bytes);
	if (!j->small)
		j->small = mem_alloc_aligned(BLOCK_BYTES, SMALL_BYTES);
	return j->small;
}

static void buffer_put(struct job *j)
{
	if (j->req.buf != j->small)
		mem_free(j->req.buf);
	j->req.buf = NULL;
}

static int request(struct peer_link *l, const struct frame *f, const void *body, void **ret_data)
{
	struct chunk_msg m;
	struct job *j;
	int r = chunk_msg_decode(body, f->body_bytes, f->data_bytes, op_has_data, &m);

	if (r || !op_is_known(&m))
		return -E_PROTOCOL;
	check(!list_empty(&l->unused)); /* the link is paused before it comes to that */
	j = list_first(&l->unused, struct job, link);
	j->bytes =
	    m.op == CHUNK_WRITE || m.op == CHUNK_READ ? m.blocks_n * (uint32_t)BLOCK_BYTES : 0;
	j->req = (struct chunk_req){
	    .op = (enum chunk_op)m.op,
	    .flags = m.flags,
	    .dev = m.dev,
	    .volume = m.volume,
	    .slot = m.slot,
	    .cgen = m.cgen,
	    .epoch = m.epoch,
	    .layer = m.layer,
	    .chunk = m.chunk,
	    .block = m.block,
	    .blocks_n = m.blocks_n,
	    .incarnation = m.incarnation,
	    .crcs = j->crcs,
	    .states = m.op == CHUNK_READ || m.op == CHUNK_STATUS ? j->states : NULL,
	    .done = job_done,
	};
	if (j->bytes && !(j->req.buf = buffer_get(j)))
		return -ENOMEM;
	list_del(&j->link);
	l->jobs_n++;
	l->bytes += j->bytes;
	j->id = f->id;
	j->want_crcs = m.want_crcs;
	j->want_states = m.want_states;
	memset(j->states, BLOCK_HOLE,
	       m.blocks_n); /* what an error leaves of them is not an earlier request's */
	l->server->stats.requests++;
	if (is_full(l))
		link_pause(&l->conn.link);
	if (m.op != CHUNK_WRITE) {
		job_run(j);
		return 0;
	}
	for (uint32_t i = 0; i < m.blocks_n; i++)
		j->crcs[i] = get_le32(m.crcs[i]);
	l->receiving = j;
	*ret_data = j->req.buf;
	return 0;
}

static int link_data(struct conn *c)
{
	struct peer_link *l = container_of(c, struct peer_link, conn);
	struct job *j = l->receiving;

	l->receiving = NULL;
	if (!l->joined) { /* a later link of the node has been promised that nothing more comes */
		job_free(j);
		return -ECONNRESET;
	}
	for (uint32_t i = 0; i < j->req.blocks_n; i++) {
		if (crc32c((uint8_t *)j->req.buf + (size_t)i * BLOCK_BYTES, BLOCK_BYTES) !=
		    j->crcs[i]) {
			job_free(j);
			return -E_CHECKSUM; /* damaged on the way: the dialer sends it again */
		}
	}
	job_run(j);
	return 0;
}

static void job_run(struct job *j)
{
	if (!j->of->server->cfg.ours(j->of->server->cfg.arg, j->req.dev)) {
		j->req.status = -E_DEVICE_GONE;
		job_reply(j);
		return;
	}
	j->in_device = true;
	j->of->in_device++;
	chunk_store_submit(j->of->server->cfg.local, &j->req);
}

static void job_done(struct chunk_req *r)
{
	struct job *j = container_of(r, struct job, req);
	struct peer_link *l = j->of;

	j->in_device = false;
	l->in_device--;
	if (conn_is_up(&l->conn) && l->joined) {
		job_reply(j);
		return;
	}
	job_free(j);
	wake_hellos(l->server, l->node);
	link_free_if_quiet(l);
}

static void job_reply(struct job *j)
{
	struct chunk_req *r = &j->req;
	struct peer_link *l = j->of;
	struct frame f = {.type = CHUNK_MSG_REQUEST, .flags = FRAME_F_REPLY, .id = j->id};
	struct chunk_msg_reply h = {
	    .status = to_le32((uint32_t)-r->status),
	    .present_n = to_le32(r->present_n),
	    .incarnation = to_le64(r->incarnation),
	    .blocks_n = to_le16((uint16_t)r->blocks_n),
	};
	uint32_t len = sizeof(h);
	bool data = r->op == CHUNK_READ && !r->status, any = false;

	for (uint32_t i = 0; data && i < r->blocks_n; i++)
		any |= j->states[i] == BLOCK_DATA;
	if (data && !any) {
		h.flags |= CHUNK_REPLY_ALL_ZERO;
		data = false;
	}
	if (r->volatile_ack)
		h.flags |= CHUNK_REPLY_VOLATILE;
	if (data) {
		h.flags |= CHUNK_REPLY_CRCS;
		for (uint32_t i = 0; i < r->blocks_n; i++, len += 4) {
			struct le32 crc = to_le32(j->crcs[i]);

			memcpy(j->body + len, &crc, sizeof(crc));
		}
	}
	if (j->want_states && r->states) {
		h.flags |= CHUNK_REPLY_STATES;
		memcpy(j->body + len, j->states, r->blocks_n);
		len += r->blocks_n;
	}
	memcpy(j->body, &h, sizeof(h));
	f.body_bytes = len;
	f.data_bytes = data ? j->bytes : 0;
	l->server->stats.bytes_read += f.data_bytes;
	l->server->stats.bytes_written += r->op == CHUNK_WRITE && !r->status ? j->bytes : 0;
	link_send(&l->conn.link, &j->out, &f, j->body, data ? r->buf : NULL, job_sent);
}

static void job_sent(struct link_out *o, int status)
{
	struct job *j = container_of(o, struct job, out);
	struct peer_link *l = j->of;

	(void)status;
	job_free(j);
	link_free_if_quiet(l);
}

static void job_free(struct job *j)
{
	struct peer_link *l = j->of;
	bool was_full = is_full(l);

	buffer_put(j);
	l->bytes -= j->bytes;
	l->jobs_n--;
	list_push_front(&l->unused, &j->link); /* the next one finds warm memory */
	if (was_full && !is_full(l) && conn_is_up(&l->conn))
		link_resume(&l->conn.link);
}

/* ---- ending ------------------------------------------------------------------------------------------ */

static void link_down(struct conn *c, int status)
{
	struct peer_link *l = container_of(c, struct peer_link, conn);

	if (l->node)
		log_info("a node's link ended", "node=%u why=\"%s\" in_device=%u", l->node,
			 err_text(status), l->in_device);
	l->joined = false;
	if (l->receiving)
		job_free(l->receiving);
	l->receiving = NULL;
	jobs_take_back(l);
	conn_close(&l->conn, link_closed, l);
}

/* Nobody will see their answers, and the node's next link waits until they have ended. */
static void jobs_take_back(struct peer_link *l)
{
	for (int i = 0; l->jobs && l->server->cfg.take_back && i < PEER_JOBS_MAX; i++) {
		struct job *j = &l->jobs[i];

		if (!j->in_device || !l->server->cfg.take_back(l->server->cfg.arg, &j->req))
			continue;
		j->in_device = false;
		l->in_device--;
		job_free(j);
	}
	wake_hellos(l->server, l->node);
}

static void link_closed(void *arg)
{
	struct peer_link *l = arg;

	l->conn_open = false;
	link_free_if_quiet(l);
}

static void link_free_if_quiet(struct peer_link *l)
{
	struct peer_server *s = l->server;

	if (l->conn_open || l->jobs_n)
		return;
	list_del(&l->link);
	s->links_n--;
	for (int i = 0; l->jobs && i < PEER_JOBS_MAX; i++)
		mem_free(l->jobs[i].small);
	mem_free(l->jobs);
	mem_free(l);
	server_free_if_closed(s);
}

static void close_nop_done(struct ioe_req *r)
{
	struct peer_server *s = container_of(r, struct peer_server, close_nop);

	s->close_nop_busy = false;
	server_free_if_closed(s);
}

void peer_server_refuse(struct peer_server *s)
{
	s->refusing = true;
	list_for_each (pos, &s->links) {
		struct peer_link *l = list_entry(pos, struct peer_link, link);

		if (l->conn_open)
			conn_break(&l->conn, -ESHUTDOWN);
	}
}

void peer_server_close(struct peer_server *s, void (*done)(void *arg), void *arg)
{
	s->closing = true;
	s->closed = done;
	s->closed_arg = arg;
	for (uint32_t i = 0; i < s->listeners_n; i++)
		listener_close(&s->listeners[i], listener_closed, s);
	peer_server_refuse(s);
	s->close_nop_busy = true;
	ioe_nop(s->cfg.ioe, &s->close_nop, close_nop_done);
}

static void listener_closed(void *arg)
{
	struct peer_server *s = arg;

	s->listeners_open--;
	server_free_if_closed(s);
}

static void server_free_if_closed(struct peer_server *s)
{
	void (*done)(void *arg) = s->closed;
	void *arg = s->closed_arg;

	if (!s->closing || s->close_nop_busy || s->links_n || s->listeners_open)
		return;
	mem_free(s);
	done(arg);
}

void peer_server_stats(struct peer_server *s, struct peer_server_stats *ret_stats)
{
	*ret_stats = s->stats;
}
