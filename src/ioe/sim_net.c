/* SPDX-License-Identifier: Apache-2.0 */
/* sim_net.c - connections: two streams of bytes between two ends.
 *
 *   sent      bytes are taken into the pipe as far as its window goes, as one piece with a time of arrival not before that of the piece
 *             before it
 *   arrived   the piece waits at the other end to be received; receiving makes room in the window
 *
 * The end of the stream (FIN) and the reset travel in the same order as pieces of their own. Between machines that are cut off from
 * each other the first piece just does not arrive: its event is gone until the cut is healed. */
#include "src/ioe/sim.h"

#include <string.h>

#include "src/base/math.h"

enum piece_kind { DATA, FIN, RESET };

struct piece {
	struct list link;
	uint64_t at_ns;
	enum piece_kind kind;
	size_t from, to; /* bytes of data not yet received */
	uint8_t data[];
};

struct cut {
	struct list link;
	const struct sim_machine *a, *b;
};

static void pipe_arrive(struct sim_world *w, struct sim_event *ev);
static void piece_free(struct sim_pipe *pipe, struct piece *pc);

/* ---- life ------------------------------------------------------------------------------------------------------------- */

void sim_net_init(struct sim_world *w)
{
	list_init(&w->conns);
	list_init(&w->addrs);
	list_init(&w->cuts);
	w->last_port = 32767;
}

struct sim_conn *sim_conn_new(struct sim_machine *client, struct sim_machine *server)
{
	struct sim_conn *c = sim_zalloc(sizeof(*c));

	c->w = client->w;
	c->end[0].m = client;
	c->end[1].m = server;
	for (int i = 0; i < 2; i++) {
		c->pipe[i].conn = c;
		c->pipe[i].ev.fire = pipe_arrive;
		list_init(&c->pipe[i].under_way);
		list_init(&c->pipe[i].arrived);
	}
	list_init(&c->backlog_link);
	list_init(&c->link);
	list_push(&c->w->conns, &c->link);
	return c;
}

static void pieces_free(struct sim_pipe *pipe, struct list *pieces)
{
	while (!list_empty(pieces))
		piece_free(pipe, list_first(pieces, struct piece, link));
}

static void conn_free(struct sim_conn *c)
{
	for (int i = 0; i < 2; i++) {
		sim_unschedule(c->w, &c->pipe[i].ev);
		pieces_free(&c->pipe[i], &c->pipe[i].under_way);
		pieces_free(&c->pipe[i], &c->pipe[i].arrived);
	}
	list_del(&c->backlog_link);
	list_del(&c->link);
	sim_free(c);
}

void sim_net_free(struct sim_world *w)
{
	struct list *l;

	while (!list_empty(&w->conns))
		conn_free(list_first(&w->conns, struct sim_conn, link));
	while ((l = list_pop(&w->addrs)))
		sim_free(list_entry(l, struct sim_addr, link));
	while ((l = list_pop(&w->cuts)))
		sim_free(list_entry(l, struct cut, link));
}

static bool end_is_gone(const struct sim_end *end)
{
	return end->state == SIM_END_CLOSED || end->state == SIM_END_SILENT;
}

static void conn_free_if_over(struct sim_conn *c)
{
	if (end_is_gone(&c->end[0]) && end_is_gone(&c->end[1]))
		conn_free(c);
}

/* ---- pieces under way ------------------------------------------------------------------------------------------------- */

uint64_t sim_net_latency(const struct sim_machine *a, const struct sim_machine *b)
{
	const struct sim_config *cfg = &a->w->cfg;
	uint64_t max_ns =
	    a == b ? cfg->net_ns_min + (cfg->net_ns_max - cfg->net_ns_min) / 8 : cfg->net_ns_max;

	return sim_latency(a->w, cfg->net_ns_min, max_ns);
}

static void piece_free(struct sim_pipe *pipe, struct piece *pc)
{
	list_del(&pc->link);
	pipe->bytes -= pc->to - pc->from;
	sim_free(pc);
}

/* Puts a piece on its way; the caller fills in its data. */
static struct piece *pipe_put(struct sim_conn *c, int side, enum piece_kind kind, size_t len)
{
	struct sim_pipe *pipe = &c->pipe[side];
	struct piece *pc = sim_alloc(sizeof(*pc) + len);
	bool is_first = list_empty(&pipe->under_way);

	pc->at_ns = MAX(pipe->last_at_ns, c->w->now_ns + sim_net_latency(c->end[0].m, c->end[1].m));
	pc->kind = kind;
	pc->from = 0;
	pc->to = len;
	list_init(&pc->link);
	list_push(&pipe->under_way, &pc->link);
	pipe->bytes += len;
	pipe->last_at_ns = pc->at_ns;
	if (is_first)
		sim_schedule(c->w, &pipe->ev, pc->at_ns);
	return pc;
}

/* Keeps the first `keep` bytes of what is under way. */
static void pipe_truncate(struct sim_pipe *pipe, uint64_t keep)
{
	list_for_each_safe (l, tmp, &pipe->under_way) {
		struct piece *pc = list_entry(l, struct piece, link);
		size_t len = pc->to - pc->from, cut = len - MIN(len, keep);

		pc->to -= cut;
		pipe->bytes -= cut;
		keep -= len - cut;
		if (pc->to == pc->from)
			piece_free(pipe, pc);
	}
	if (list_empty(&pipe->under_way))
		sim_unschedule(pipe->conn->w, &pipe->ev);
}

/* What a dying sender had under way: up to a random byte. */
static void pipe_cut_short(struct sim_pipe *pipe, struct rand *rnd)
{
	uint64_t bytes = 0;

	list_for_each (l, &pipe->under_way) {
		struct piece *pc = list_entry(l, struct piece, link);

		bytes += pc->to - pc->from;
	}
	pipe_truncate(pipe, rand_below(rnd, bytes + 1));
}

void sim_conn_reset(struct sim_conn *c, int side)
{
	struct sim_pipe *pipe = &c->pipe[side];

	if (pipe->has_reset || c->end[side].state == SIM_END_SILENT)
		return;
	pipe->has_reset = true;
	pipe_cut_short(pipe, &c->w->rand);
	pipe_put(c, side, RESET, 0);
}

/* ---- arrival ---------------------------------------------------------------------------------------------------------- */

/* True: the piece stays, at the receiving end. */
static bool piece_arrives(struct sim_conn *c, int to, const struct piece *pc)
{
	struct sim_end *end = &c->end[to];

	if (pc->kind == RESET) {
		end->is_reset = true;
		return false;
	}
	if (end->state == SIM_END_CLOSED || end->is_shut) {
		if (pc->kind == DATA)
			sim_conn_reset(c, to); /* nobody will read this */
		return false;
	}
	end->at_eof |= pc->kind == FIN;
	return pc->kind == DATA;
}

static void pipe_arrive(struct sim_world *w, struct sim_event *ev)
{
	struct sim_pipe *pipe = container_of(ev, struct sim_pipe, ev);
	struct sim_conn *c = pipe->conn;
	struct piece *pc = list_first(&pipe->under_way, struct piece, link);
	int to = pipe == &c->pipe[0];

	if (c->end[to].state == SIM_END_SILENT || sim_net_is_cut(c->end[0].m, c->end[1].m))
		return; /* the pipe stands still until there is power, or the cut is healed */
	sim_note(w, "arrive", c->end[to].sock ? c->end[to].sock->p : NULL, NULL, pc->kind,
		 pc->to - pc->from, 0);
	if (piece_arrives(c, to, pc)) {
		list_del(&pc->link);
		list_push(&pipe->arrived, &pc->link);
		pipe->arrived_bytes += pc->to - pc->from;
	} else {
		piece_free(pipe, pc);
	}
	if (!list_empty(&pipe->under_way))
		sim_schedule(w, &pipe->ev, list_first(&pipe->under_way, struct piece, link)->at_ns);
	sim_sock_progress(c->end[to].sock);
}

/* ---- what sockets do -------------------------------------------------------------------------------------------------- */

size_t sim_conn_room(const struct sim_conn *c, int side)
{
	return SIM_WINDOW - c->pipe[side].bytes;
}

void *sim_conn_send(struct sim_conn *c, int side, size_t len)
{
	check(!c->pipe[side].has_fin && !c->pipe[side].has_reset && len <= sim_conn_room(c, side));
	return pipe_put(c, side, DATA, len)->data;
}

uint64_t sim_conn_arrived(const struct sim_conn *c, int side)
{
	return c->pipe[1 - side].arrived_bytes;
}

size_t sim_conn_recv(struct sim_conn *c, int side, void *buf, size_t len)
{
	struct sim_pipe *pipe = &c->pipe[1 - side];
	size_t got = 0;

	while (got < len && !list_empty(&pipe->arrived)) {
		struct piece *pc = list_first(&pipe->arrived, struct piece, link);
		size_t n = MIN(len - got, pc->to - pc->from);

		memcpy((uint8_t *)buf + got, pc->data + pc->from, n);
		got += n;
		pc->from += n;
		pipe->bytes -= n;
		pipe->arrived_bytes -= n;
		if (pc->from == pc->to)
			piece_free(pipe, pc);
	}
	return got;
}

void sim_conn_shutdown(struct sim_conn *c, int side)
{
	struct sim_pipe *pipe = &c->pipe[side];

	c->end[side].is_shut = true;
	if (pipe->has_fin || pipe->has_reset)
		return;
	pipe->has_fin = true;
	pipe_put(c, side, FIN, 0);
}

void sim_conn_close(struct sim_conn *c, int side)
{
	struct sim_pipe *in = &c->pipe[1 - side];

	c->end[side].sock = NULL;
	if (end_is_gone(&c->end[side]))
		return;
	if (list_empty(&in->arrived))
		sim_conn_shutdown(c, side);
	else
		sim_conn_reset(c, side);
	c->end[side].state = SIM_END_CLOSED;
	pieces_free(in, &in->arrived);
	in->arrived_bytes = 0;
	conn_free_if_over(c);
}

/* ---- cuts, resets, power ---------------------------------------------------------------------------------------------- */

static struct cut *cut_find(const struct sim_machine *a, const struct sim_machine *b)
{
	list_for_each (l, &a->w->cuts) {
		struct cut *cut = list_entry(l, struct cut, link);

		if ((cut->a == a && cut->b == b) || (cut->a == b && cut->b == a))
			return cut;
	}
	return NULL;
}

bool sim_net_is_cut(const struct sim_machine *a, const struct sim_machine *b)
{
	return a != b && cut_find(a, b);
}

/* The network between the two is back: what it held goes on. */
static void conn_heal(struct sim_conn *c)
{
	for (int i = 0; i < 2; i++) {
		struct sim_pipe *pipe = &c->pipe[i];

		uint64_t at_ns = c->w->now_ns + sim_net_latency(c->end[0].m, c->end[1].m);

		if (list_empty(&pipe->under_way) || sim_is_scheduled(&pipe->ev))
			continue;
		at_ns = MAX(at_ns, list_first(&pipe->under_way, struct piece, link)->at_ns);
		pipe->last_at_ns = MAX(pipe->last_at_ns, at_ns);
		sim_schedule(c->w, &pipe->ev, at_ns);
	}
	for (int i = 0; i < 2; i++)
		sim_sock_progress(c->end[i].sock);
}

static bool conn_is_between(const struct sim_conn *c, const struct sim_machine *a,
			    const struct sim_machine *b)
{
	return (c->end[0].m == a && c->end[1].m == b) || (c->end[0].m == b && c->end[1].m == a);
}

void sim_net_cut(struct sim_world *w, struct sim_machine *a, struct sim_machine *b, bool cut)
{
	struct cut *old = cut_find(a, b);

	check(a != b);
	if (cut && !old) {
		struct cut *new = sim_zalloc(sizeof(*new));

		new->a = a;
		new->b = b;
		list_init(&new->link);
		list_push(&w->cuts, &new->link);
	}
	if (cut || !old)
		return;
	list_del(&old->link);
	sim_free(old);
	list_for_each (l, &w->conns) {
		struct sim_conn *c = list_entry(l, struct sim_conn, link);

		if (conn_is_between(c, a, b))
			conn_heal(c);
	}
}

void sim_net_reset(struct ioe *e, struct ioe_sock *s)
{
	struct sim_conn *c = sim_sock_of(s)->conn;

	check(c && sim_proc_of(e) == sim_sock_of(s)->p);
	sim_conn_reset(c, 0);
	sim_conn_reset(c, 1);
}

bool sim_net_reset_any(struct sim_world *w, struct sim_machine *a, struct sim_machine *b)
{
	struct sim_conn *chosen = NULL;
	uint64_t n = 0;

	list_for_each (l, &w->conns) {
		struct sim_conn *c = list_entry(l, struct sim_conn, link);

		if (conn_is_between(c, a, b) && !end_is_gone(&c->end[0]) &&
		    !end_is_gone(&c->end[1]) && rand_below(&w->rand, ++n) == 0)
			chosen = c;
	}
	if (!chosen)
		return false;
	sim_conn_reset(chosen, 0);
	sim_conn_reset(chosen, 1);
	return true;
}

bool sim_net_peer_is_gone(struct ioe_sock *s)
{
	const struct sim_conn *c = sim_sock_of(s)->conn;

	return !c || end_is_gone(&c->end[1 - sim_sock_of(s)->side]);
}

void sim_net_power_loss(struct sim_machine *m)
{
	list_for_each_safe (l, tmp, &m->w->conns) {
		struct sim_conn *c = list_entry(l, struct sim_conn, link);

		for (int i = 0; i < 2; i++) {
			if (c->end[i].m != m || c->end[i].state == SIM_END_CLOSED)
				continue;
			c->end[i].state = SIM_END_SILENT;
			pipe_cut_short(&c->pipe[i], &m->w->rand);
			pieces_free(&c->pipe[1 - i], &c->pipe[1 - i].arrived);
			c->pipe[1 - i].arrived_bytes = 0;
		}
	}
}

void sim_net_power_on(struct sim_machine *m)
{
	list_for_each_safe (l, tmp, &m->w->conns) {
		struct sim_conn *c = list_entry(l, struct sim_conn, link);

		for (int i = 0; i < 2; i++) {
			if (c->end[i].m != m || c->end[i].state != SIM_END_SILENT)
				continue;
			c->end[i].state = SIM_END_CLOSED;
			sim_conn_reset(c, i);
		}
		conn_free_if_over(c);
	}
}
