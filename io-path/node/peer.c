/* SPDX-License-Identifier: Apache-2.0 */
/* peer.c - sends chunk requests to other nodes.
 *
 *   submit -> waiting -> SENT -> (reply and the send's own completion) -> done
 *                ^          |
 *                +--- link broke
 *
 * A request holds a `struct peer_call` from the time it is sent; the pool of them is what bounds a link. The buffer of a request is the engine's until its
 * send has completed, so a reply that is faster waits for that. */
#include "io-path/node/peer.h"

#include "src/base/crc.h"
#include "src/base/hash.h"
#include "src/base/log.h"
#include "src/base/math.h"
#include "src/base/mem.h"
#include "src/ioe/ioe.h"
#include "src/wire/chunk_msg.h"
#include "src/wire/conn.h"

enum { DEVICES_KNOWN_MAX = CHUNK_MSG_DEVICES_MAX, STATUS_MAX = 2 * ERR_BASE };
#define WAIT_NS_DEFAULT	 (120ULL * 1000000000)
#define BACKOFF_NS_FIRST 20000000ULL
#define BACKOFF_NS_MAX	 2000000000ULL
#define DIAL_NS		 (5ULL * 1000000000)
#define JOIN_NS		 (10ULL * 1000000000)

enum peer_state { PEER_IDLE, PEER_DIALING, PEER_JOINING, PEER_UP, PEER_BACKOFF };

struct peer_call {
	struct conn_call call;
	struct link_out out;
	struct list link; /* of peer.sent, or peer.unused */
	struct peer *peer;
	struct chunk_req *req;
	bool sending, answered;
	int status;			     /* of the answer */
	uint8_t body[CHUNK_MSG_REQUEST_MAX]; /* of the request: the engine's while sending */
	struct le32 crcs[CHUNK_BLOCKS_MAX];  /* of the answer */
};

struct peer {
	struct hnode node; /* key: node_no */
	struct peers *all;
	enum peer_state state;
	char addrs[PEER_ADDRS_MAX][IOE_ADDR_MAX];
	int addrs_n, addr_at;
	char dialled[IOE_ADDR_MAX]; /* now, or last */
	struct ioe_req dial, timer;
	bool timing;
	uint64_t timer_ns; /* what the timer is armed for */
	uint64_t until_ns; /* DIALING, BACKOFF: when that ends */
	uint64_t backoff_ns;
	struct conn conn;
	struct conn_call hello;
	bool conn_open, closing;
	struct list waiting; /* struct chunk_req, oldest first */
	struct list sent;    /* struct peer_call, oldest first */
	struct list unused;
	struct peer_call *receiving; /* whose data is on its way */
	struct peer_call *calls;     /* the pool, made with the first dial */
	uint32_t devices_n;
	struct {
		device_no number;
		bool is_stable;
	} devices[DEVICES_KNOWN_MAX];
	struct peer_stats stats;
};

struct peers {
	struct peers_config cfg;
	struct htab table;
	uint64_t session;
	bool closing;
	uint32_t open_n; /* closing: who must still let go */
	struct ioe_req close_nop;
	void (*closed)(void *arg);
	void *closed_arg;
};

static bool addrs_are(const struct peer *p, const char *const *addrs);
static void peer_moved(struct peer *p);
static void peer_tick(struct peer *p);
static void peer_dial(struct peer *p);
static void dial_done(struct ioe_req *r);
static void conn_up(struct conn *c);
static int hello_reply(struct conn_call *call, int status, const struct frame *f, const void *body,
		       void **ret_data);
static void peer_send(struct peer *p);
static void call_sent(struct link_out *o, int status);
static int call_reply(struct conn_call *call, int status, const struct frame *f, const void *body,
		      void **ret_data);
static int call_data(struct conn *c);
static void call_finish(struct peer_call *call);
static void conn_down(struct conn *c, int status);
static void conn_closed(void *arg);
static void peer_closed_step(struct peer *p);
static void close_nop_done(struct ioe_req *r);
static void peers_free_if_closed(struct peers *all);
static void timer_done(struct ioe_req *r);
static int conn_request(struct conn *c, const struct frame *f, const void *body, void **ret_data);

static const struct conn_ops peer_conn_ops = {.up = conn_up,
					      .request = conn_request,
					      .data = call_data,
					      .down = conn_down};

/* A waiting request remembers when it came; nothing else of the carrier's space is used. */
static uint64_t *came_ns(struct chunk_req *r)
{
	return &r->priv[0];
}

/* ---- the set of peers ----------------------------------------------------------------------------------------------------- */

int peers_new(const struct peers_config *cfg, struct peers **ret_p)
{
	struct peers *all = mem_zalloc(sizeof(*all));

	if (!all || htab_init(&all->table, 8)) {
		mem_free(all);
		return -ENOMEM;
	}
	all->cfg = *cfg;
	if (!all->cfg.wait_ns)
		all->cfg.wait_ns = WAIT_NS_DEFAULT;
	*ret_p = all;
	return 0;
}

static struct peer *peer_find(struct peers *all, node_no no)
{
	struct hnode *n = htab_find(&all->table, no);

	return n ? container_of(n, struct peer, node) : NULL;
}

static struct peer *peer_get(struct peers *all, node_no no)
{
	struct peer *p = peer_find(all, no);

	if (p || all->table.count == PEERS_MAX)
		return p;
	p = mem_zalloc(sizeof(*p));
	if (!p)
		return NULL;
	p->all = all;
	p->stats.node = no;
	list_init(&p->waiting);
	list_init(&p->sent);
	list_init(&p->unused);
	htab_add(&all->table, &p->node, no);
	return p;
}

int peers_set(struct peers *all, node_no node, const char *const *addrs, int addrs_n)
{
	struct peer *p;

	if (addrs_n > PEER_ADDRS_MAX)
		return -EINVAL;
	for (int i = 0; i < addrs_n; i++)
		if (strlen(addrs[i]) >= IOE_ADDR_MAX)
			return -EINVAL;
	p = peer_get(all, node);
	if (!p)
		return -ENOMEM;
	if (p->addrs_n == addrs_n && addrs_are(p, addrs))
		return 0;
	for (int i = 0; i < addrs_n; i++)
		memcpy(p->addrs[i], addrs[i], strlen(addrs[i]) + 1);
	p->addrs_n = addrs_n;
	peer_moved(p);
	return 0;
}

static bool addrs_are(const struct peer *p, const char *const *addrs)
{
	for (int i = 0; i < p->addrs_n; i++)
		if (strcmp(p->addrs[i], addrs[i]))
			return false;
	return true;
}

static bool is_an_address_of(const struct peer *p, const char *addr)
{
	for (int i = 0; i < p->addrs_n; i++)
		if (!strcmp(p->addrs[i], addr))
			return true;
	return false;
}

/* The node is elsewhere: whoever waits need not wait for what the old address will say, which may be nothing at all. */
static void peer_moved(struct peer *p)
{
	p->addr_at = 0;
	p->backoff_ns = 0;
	if (p->closing)
		return;
	if (p->state == PEER_BACKOFF)
		p->state = PEER_IDLE;
	else if (p->state == PEER_DIALING && !is_an_address_of(p, p->dialled))
		ioe_cancel(p->all->cfg.ioe, &p->dial);
	else if (p->conn_open && !is_an_address_of(p, p->dialled))
		conn_break(&p->conn, -ECONNRESET);
	peer_tick(p);
}

void peers_submit(struct peers *all, node_no node, struct chunk_req *r)
{
	struct peer *p = peer_find(all, node);

	check(p && !all->closing);
	r->status = 0;
	*came_ns(r) = ioe_now_ns(all->cfg.ioe);
	list_push(&p->waiting, &r->link);
	p->stats.waiting++;
	peer_tick(p);
}

void peers_reroute(struct peers *all,
		   bool (*is_there)(void *arg, node_no node, const struct chunk_req *r),
		   void (*resubmit)(void *arg, struct chunk_req *r), void *arg)
{
	struct list elsewhere;

	list_init(&elsewhere);
	htab_for_each (n, &all->table) {
		struct peer *p = container_of(n, struct peer, node);

		list_for_each_safe (l, next, &p->waiting) {
			if (is_there(arg, p->stats.node, list_entry(l, struct chunk_req, link)))
				continue;
			list_del(l);
			list_push(&elsewhere, l);
			p->stats.waiting--;
		}
	}
	for (struct list *l; (l = list_pop(&elsewhere));)
		resubmit(arg, list_entry(l, struct chunk_req, link));
}

bool peers_knows(struct peers *all, node_no node)
{
	return peer_find(all, node) != NULL;
}

bool peers_is_stable(struct peers *all, node_no node, device_no dev)
{
	struct peer *p = peer_find(all, node);

	for (uint32_t i = 0; p && i < p->devices_n; i++)
		if (p->devices[i].number == dev)
			return p->devices[i].is_stable;
	return false;
}

int peers_stats_next(struct peers *all, node_no after, struct peer_stats *ret_stats)
{
	struct peer *best = NULL;

	htab_for_each (n, &all->table) {
		struct peer *p = container_of(n, struct peer, node);

		if (p->stats.node > after && (!best || p->stats.node < best->stats.node))
			best = p;
	}
	if (!best)
		return -ENOENT;
	*ret_stats = best->stats;
	ret_stats->up = best->state == PEER_UP;
	return 0;
}

/* ---- the link --------------------------------------------------------------------------------------------------------------- */

/* The oldest waiting request decides when the next one is given up. */
static uint64_t oldest_expires_ns(struct peer *p)
{
	struct chunk_req *r = list_first(&p->waiting, struct chunk_req, link);

	return list_empty(&p->waiting) ? UINT64_MAX : *came_ns(r) + p->all->cfg.wait_ns;
}

/* When the peer must look again if nothing else happens. */
static uint64_t next_wake_ns(struct peer *p)
{
	switch (p->state) {
	case PEER_IDLE:
	case PEER_JOINING: /* its HELLO waits for what earlier links left in the devices; till it is up the connection has a limit of its own */
		return oldest_expires_ns(p);
	case PEER_DIALING:
	case PEER_BACKOFF:
		return MIN(p->until_ns, oldest_expires_ns(p));
	case PEER_UP:
		break;
	}
	return UINT64_MAX;
}

static void timer_update(struct peer *p)
{
	uint64_t at = p->closing ? UINT64_MAX : next_wake_ns(p);

	if (p->timing && at < p->timer_ns)
		ioe_cancel(p->all->cfg.ioe, &p->timer); /* timer_done arms it anew */
	if (p->timing || at == UINT64_MAX)
		return;
	p->timing = true;
	p->timer_ns = at;
	ioe_timer(p->all->cfg.ioe, &p->timer, at, timer_done);
}

static void fail_waiting(struct peer *p, uint64_t came_before_ns, int status)
{
	struct list gone;

	list_init(&gone);
	while (!list_empty(&p->waiting)) {
		struct chunk_req *r = list_first(&p->waiting, struct chunk_req, link);

		if (*came_ns(r) > came_before_ns)
			break;
		list_del(&r->link);
		list_push(&gone, &r->link);
		p->stats.waiting--;
	}
	for (struct list *l; (l = list_pop(&gone));) {
		struct chunk_req *r = list_entry(l, struct chunk_req, link);

		r->status = status;
		r->done(r);
	}
}

static int pool_make(struct peer *p)
{
	if (p->calls)
		return 0;
	p->calls = mem_zalloc_array(PEER_IN_FLIGHT_MAX, sizeof(p->calls[0]));
	if (!p->calls)
		return -ENOMEM;
	for (int i = 0; i < PEER_IN_FLIGHT_MAX; i++) {
		p->calls[i].peer = p;
		list_push(&p->unused, &p->calls[i].link);
	}
	return 0;
}

/* Wakes: submit, a connection that came up or went down, the timer. */
static void peer_tick(struct peer *p)
{
	if (p->state == PEER_IDLE && !list_empty(&p->waiting) && p->addrs_n && !p->closing)
		peer_dial(p);
	else if (p->state == PEER_UP)
		peer_send(p);
	timer_update(p);
}

static void peer_backoff(struct peer *p)
{
	p->backoff_ns = p->backoff_ns ? MIN(p->backoff_ns + p->backoff_ns / 2, BACKOFF_NS_MAX)
				      : BACKOFF_NS_FIRST;
	p->until_ns = ioe_now_ns(p->all->cfg.ioe) + p->backoff_ns;
	if (is_an_address_of(p, p->dialled)) /* else it has moved, and the first is as good as any */
		p->addr_at = (p->addr_at + 1) % p->addrs_n;
	p->state = PEER_BACKOFF;
	timer_update(p);
}

static void timer_done(struct ioe_req *r)
{
	struct peer *p = container_of(r, struct peer, timer);
	uint64_t now = ioe_now_ns(p->all->cfg.ioe);

	p->timing = false;
	if (p->closing) {
		peer_closed_step(p);
		return;
	}
	if (p->state == PEER_DIALING && now >= p->until_ns)
		ioe_cancel(p->all->cfg.ioe, &p->dial);
	if (p->state == PEER_BACKOFF && now >= p->until_ns)
		p->state = PEER_IDLE;
	if (p->state != PEER_UP && now >= p->all->cfg.wait_ns)
		fail_waiting(p, now - p->all->cfg.wait_ns, -E_DEVICE_GONE);
	peer_tick(p);
}

static void peer_dial(struct peer *p)
{
	if (pool_make(p)) {
		peer_backoff(p);
		return;
	}
	p->state = PEER_DIALING;
	memcpy(p->dialled, p->addrs[p->addr_at], sizeof(p->dialled));
	p->until_ns = ioe_now_ns(p->all->cfg.ioe) + DIAL_NS;
	ioe_connect(p->all->cfg.ioe, &p->dial, p->dialled, dial_done);
}

static void dial_done(struct ioe_req *r)
{
	struct peer *p = container_of(r, struct peer, dial);
	bool tcp = strncmp(p->dialled, "unix:", 5) != 0;
	struct conn_config cfg = {
	    .ioe = p->all->cfg.ioe,
	    .ops = &peer_conn_ops,
	    .key = tcp ? p->all->cfg.key : NULL,
	    .dialer = true,
	    .join_ns = JOIN_NS,
	    .body_max = sizeof(struct chunk_msg_hello_reply) +
			CHUNK_MSG_DEVICES_MAX * sizeof(struct chunk_msg_device) +
			CHUNK_MSG_REPLY_MAX,
	    .data_max = CHUNK_BLOCKS_MAX * BLOCK_BYTES,
	    .buf_bytes = 128 << 10,
	};

	if (p->closing) {
		if (!r->status)
			ioe_sock_close(p->all->cfg.ioe, r->ret_sock);
		p->state = PEER_IDLE;
		peer_closed_step(p);
		return;
	}
	if (!r->status && !is_an_address_of(p, p->dialled)) { /* it moved meanwhile */
		ioe_sock_close(cfg.ioe, r->ret_sock);
		r->status = -ECONNRESET;
	} else if (!r->status && tcp && !p->all->cfg.key) {
		log_limited(LOG_ERROR, ioe_now_ns(cfg.ioe),
			    "a peer is reached over TCP, but there is no key: give --key-file",
			    "node=%u", p->stats.node);
		ioe_sock_close(cfg.ioe, r->ret_sock);
		r->status = -EKEYREJECTED;
	} else if (!r->status) {
		r->status = conn_open(&p->conn, &cfg, r->ret_sock);
		if (r->status)
			ioe_sock_close(cfg.ioe, r->ret_sock);
	}
	if (r->status) {
		peer_backoff(p);
		return;
	}
	p->conn_open = true;
	p->state = PEER_JOINING;
}

static void conn_up(struct conn *c)
{
	struct peer *p = container_of(c, struct peer, conn);
	struct chunk_msg_hello h = {
	    .version = to_le32(CHUNK_MSG_VERSION),
	    .node = to_le32(p->all->cfg.node),
	    .cluster = p->all->cfg.cluster,
	    .start = p->all->cfg.start,
	    .session = to_le64(++p->all->session),
	};
	struct frame f = {.type = CHUNK_MSG_HELLO, .body_bytes = sizeof(h)};
	struct link_copy *copy = link_copy_new(sizeof(h));

	if (!copy) {
		conn_break(c, -ENOMEM);
		return;
	}
	memcpy(copy->body, &h, sizeof(h));
	f.id = conn_call_begin(c, &p->hello, hello_reply);
	link_copy_send(&c->link, copy, &f);
}

static int hello_reply(struct conn_call *call, int status, const struct frame *f, const void *body,
		       void **ret_data)
{
	struct peer *p = container_of(call, struct peer, hello);
	struct chunk_msg_hello_reply h;
	struct cursor c;
	const void *head;
	uint32_t n;

	(void)ret_data;
	if (status)
		return 0; /* conn_down follows */
	c = cursor_of(body, f->body_bytes);
	head = cursor_take(&c, sizeof(h));
	if (!head || f->data_bytes || f->type != CHUNK_MSG_HELLO)
		return -E_PROTOCOL;
	memcpy(&h, head, sizeof(h));
	n = get_le32(h.devices_n);
	if (get_le32(h.status) > STATUS_MAX || n > CHUNK_MSG_DEVICES_MAX ||
	    cursor_left(&c) != n * sizeof(struct chunk_msg_device))
		return -E_PROTOCOL;
	if (get_le32(h.status) == EAGAIN) /* it is only starting */
		return -EAGAIN;
	if (get_le32(h.status)) {
		log_limited(LOG_WARN, ioe_now_ns(p->all->cfg.ioe), "a peer refuses us",
			    "node=%u why=\"%s\"", p->stats.node, err_text(-(int)get_le32(h.status)));
		return -EACCES;
	}
	if (get_le32(h.reserved))
		return -E_PROTOCOL;
	if (get_le32(h.node) != p->stats.node)
		return -EACCES; /* somebody else has that address now */
	p->devices_n = n;
	for (uint32_t i = 0; i < n; i++) {
		struct chunk_msg_device d;

		memcpy(&d, cursor_take(&c, sizeof(d)), sizeof(d));
		p->devices[i].number = get_le16(d.number);
		p->devices[i].is_stable = d.is_stable;
	}
	p->state = PEER_UP;
	p->backoff_ns = 0;
	p->stats.links++;
	peer_send(p);
	return 0;
}

/* ---- requests ----------------------------------------------------------------------------------------------------------------- */

static uint32_t encode(struct peer_call *call)
{
	const struct chunk_req *r = call->req;
	struct chunk_msg_request m = {
	    .op = (uint8_t)r->op,
	    .want = (uint8_t)((r->crcs && r->op == CHUNK_READ ? CHUNK_WANT_CRCS : 0) |
			      (r->states ? CHUNK_WANT_STATES : 0)),
	    .dev = to_le16(r->dev),
	    .flags = to_le32(r->flags),
	    .volume = to_le32(r->volume),
	    .layer = to_le32(r->layer),
	    .chunk = to_le32(r->chunk),
	    .slot = to_le32(r->slot),
	    .cgen = to_le64(r->cgen),
	    .epoch = to_le64(r->epoch),
	    .incarnation = to_le64(r->incarnation),
	    .block = to_le16((uint16_t)r->block),
	    .blocks_n = to_le16((uint16_t)r->blocks_n),
	};
	uint32_t len = sizeof(m);

	memcpy(call->body, &m, sizeof(m));
	for (uint32_t i = 0; r->op == CHUNK_WRITE && i < r->blocks_n; i++, len += 4) {
		struct le32 crc = to_le32(r->crcs[i]);

		memcpy(call->body + len, &crc, sizeof(crc));
	}
	return len;
}

static void peer_send(struct peer *p)
{
	while (conn_is_up(&p->conn) && !list_empty(&p->waiting) && !list_empty(&p->unused)) {
		struct peer_call *call = list_entry(list_pop(&p->unused), struct peer_call, link);
		struct chunk_req *r = list_entry(list_pop(&p->waiting), struct chunk_req, link);
		struct frame f = {.type = CHUNK_MSG_REQUEST};

		call->req = r;
		call->sending = true;
		call->answered = false;
		f.body_bytes = encode(call);
		f.data_bytes = r->op == CHUNK_WRITE ? r->blocks_n * (uint32_t)BLOCK_BYTES : 0;
		f.id = conn_call_begin(&p->conn, &call->call, call_reply);
		list_push(&p->sent, &call->link);
		p->stats.waiting--;
		p->stats.sent++;
		link_send(&p->conn.link, &call->out, &f, call->body, f.data_bytes ? r->buf : NULL,
			  call_sent);
	}
}

static void call_sent(struct link_out *o, int status)
{
	struct peer_call *call = container_of(o, struct peer_call, out);

	(void)status; /* a send that failed breaks the link; the call is answered by that */
	call->sending = false;
	call_finish(call);
}

/* What the answer says of the request, into it. */
static int take_reply(struct peer_call *call, const struct frame *f, const void *body)
{
	struct chunk_req *r = call->req;
	struct chunk_msg_reply h;
	struct cursor c = cursor_of(body, f->body_bytes);
	const void *head = cursor_take(&c, sizeof(h));
	const struct le32 *crcs = NULL;
	const uint8_t *states = NULL;
	bool data;

	if (!head || f->type != CHUNK_MSG_REQUEST)
		return -E_PROTOCOL;
	memcpy(&h, head, sizeof(h));
	if (get_le32(h.status) > STATUS_MAX || (h.flags & ~CHUNK_REPLY_FLAGS) ||
	    !bytes_are_zero(h.reserved, sizeof(h.reserved)))
		return -E_PROTOCOL;
	data = r->op == CHUNK_READ && !get_le32(h.status) && !(h.flags & CHUNK_REPLY_ALL_ZERO);
	if (h.flags & CHUNK_REPLY_CRCS)
		crcs = cursor_take(&c, 4 * (size_t)r->blocks_n);
	if (h.flags & CHUNK_REPLY_STATES)
		states = cursor_take(&c, r->blocks_n);
	if (c.failed || cursor_left(&c) || get_le16(h.blocks_n) != r->blocks_n || (data && !crcs) ||
	    f->data_bytes != (data ? r->blocks_n * (uint32_t)BLOCK_BYTES : 0))
		return -E_PROTOCOL;
	if (r->states && !get_le32(h.status) && !states)
		return -E_PROTOCOL;
	for (uint32_t i = 0; states && i < r->blocks_n; i++)
		if (states[i] > BLOCK_DATA)
			return -E_PROTOCOL;
	if (get_le32(h.present_n) > CHUNK_BLOCKS_MAX)
		return -E_PROTOCOL;
	call->status = -(int)get_le32(h.status);
	r->present_n = get_le32(h.present_n);
	r->volatile_ack = h.flags & CHUNK_REPLY_VOLATILE;
	r->incarnation = get_le64(h.incarnation);
	if (states && r->states)
		memcpy(r->states, states, r->blocks_n);
	if (crcs) /* kept: the data is verified when it is there */
		memcpy(call->crcs, crcs, 4 * (size_t)r->blocks_n);
	if (r->op == CHUNK_READ && !call->status && !data) {
		memset(r->buf, 0, (size_t)r->blocks_n * BLOCK_BYTES);
		if (r->crcs)
			memset(r->crcs, 0, 4 * (size_t)r->blocks_n);
	}
	return 0;
}

static int call_reply(struct conn_call *cc, int status, const struct frame *f, const void *body,
		      void **ret_data)
{
	struct peer_call *call = container_of(cc, struct peer_call, call);
	int r;

	if (status)
		return 0; /* the link broke: conn_down takes care of everything that was sent */
	r = take_reply(call, f, body);
	if (r)
		return r;
	call->peer->stats.received++;
	if (f->data_bytes) {
		call->peer->receiving = call;
		*ret_data = call->req->buf;
		return 0;
	}
	call->answered = true;
	call_finish(call);
	return 0;
}

/* The data of a READ is there: verified against the table that came with it. A hole's CRC is 0 and its bytes are zeros. */
static int verify(struct peer_call *call)
{
	struct chunk_req *r = call->req;

	for (uint32_t i = 0; i < r->blocks_n; i++) {
		const uint8_t *block = (const uint8_t *)r->buf + (size_t)i * BLOCK_BYTES;
		uint32_t crc = get_le32(call->crcs[i]);

		if (crc != crc32c(block, BLOCK_BYTES) &&
		    (crc || !bytes_are_zero(block, BLOCK_BYTES)))
			return -E_CHECKSUM;
		if (r->crcs)
			r->crcs[i] = crc;
	}
	return 0;
}

static int call_data(struct conn *c)
{
	struct peer *p = container_of(c, struct peer, conn);
	struct peer_call *call = p->receiving;

	p->receiving = NULL;
	if (verify(call))
		return -E_CHECKSUM; /* damaged on the way, not on the device: a new link brings it again */
	call->answered = true;
	call_finish(call);
	return 0;
}

static void call_finish(struct peer_call *call)
{
	struct peer *p = call->peer;
	struct chunk_req *r = call->req;

	if (call->sending || !call->answered)
		return;
	list_del(&call->link);
	list_push_front(&p->unused, &call->link); /* the next one finds warm memory */
	call->req = NULL;
	r->status = call->status;
	if (p->state == PEER_UP && !list_empty(&p->waiting))
		peer_send(p);
	r->done(r);
}

/* A node asks nothing over the link that we dialled. */
static int conn_request(struct conn *c, const struct frame *f, const void *body, void **ret_data)
{
	(void)c;
	(void)f;
	(void)body;
	(void)ret_data;
	return -E_PROTOCOL;
}

/* ---- when it breaks, and the end -------------------------------------------------------------------------------------------- */

/* Everything unanswered goes back to the front of the waiting, in its order. Every send has let go of its buffers by now (link.h). */
static void conn_down(struct conn *c, int status)
{
	struct peer *p = container_of(c, struct peer, conn);
	struct list again;

	if (p->state == PEER_UP)
		log_info("a peer's link broke", "node=%u why=\"%s\" unanswered=%d", p->stats.node,
			 err_text(status), !list_empty(&p->sent));
	p->receiving = NULL;
	list_init(&again);
	for (struct list *l; (l = list_pop(&p->sent));) {
		struct peer_call *call = list_entry(l, struct peer_call, link);

		check(!call->sending && !call->answered);
		list_push(&again, &call->req->link);
		call->req = NULL;
		list_push(&p->unused, &call->link);
		p->stats.resent++;
		p->stats.waiting++;
	}
	list_splice(&again, &p->waiting);
	list_splice(&p->waiting, &again);
	conn_close(&p->conn, conn_closed, p);
}

static void conn_closed(void *arg)
{
	struct peer *p = arg;

	p->conn_open = false;
	if (p->closing) {
		p->state = PEER_IDLE;
		peer_closed_step(p);
		return;
	}
	peer_backoff(p);
}

void peers_give_up(struct peers *all)
{
	all->cfg.wait_ns = 0;
	htab_for_each (n, &all->table)
		timer_update(container_of(n, struct peer, node));
}

void peers_close(struct peers *all, void (*done)(void *arg), void *arg)
{
	all->closing = true;
	all->closed = done;
	all->closed_arg = arg;
	all->open_n = 1; /* this function's own */
	htab_for_each (n, &all->table) {
		struct peer *p = container_of(n, struct peer, node);

		check(list_empty(&p->waiting) && list_empty(&p->sent));
		p->closing = true;
		all->open_n++;
		if (p->timing)
			ioe_cancel(all->cfg.ioe, &p->timer);
		if (p->state == PEER_DIALING)
			ioe_cancel(all->cfg.ioe, &p->dial);
		if (p->conn_open)
			conn_break(&p->conn, -ESHUTDOWN);
		if (!p->timing && !p->conn_open && p->state != PEER_DIALING)
			all->open_n--;
	}
	ioe_nop(all->cfg.ioe, &all->close_nop, close_nop_done);
}

static void close_nop_done(struct ioe_req *r)
{
	peers_free_if_closed(container_of(r, struct peers, close_nop));
}

static void peer_closed_step(struct peer *p)
{
	if (!p->timing && !p->conn_open && p->state != PEER_DIALING)
		peers_free_if_closed(p->all);
}

static void peers_free_if_closed(struct peers *all)
{
	void (*done)(void *arg) = all->closed;
	void *arg = all->closed_arg;

	if (--all->open_n)
		return;
	htab_for_each (n, &all->table) {
		struct peer *gone = container_of(n, struct peer, node);

		htab_del(&all->table, n);
		mem_free(gone->calls);
		mem_free(gone);
	}
	htab_free(&all->table);
	mem_free(all);
	done(arg);
}
