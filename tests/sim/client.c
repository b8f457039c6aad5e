/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/client.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/math.h"

#define TICK_NS (20 * MS)
#define IDLE_NS (500 * MS) /* nobody works, and nothing is to be repaired */

/* connecting */
static void user_tick(struct ioe_req *r);
static void user_connect(struct user *c);
static void line_connected(struct ioe_req *r);
/* out */
static void line_sent(struct ioe_req *r);
/* ends */
static bool line_bury(struct line *l);
static void line_drop_ops(struct line *l);

/* ---- clients ---------------------------------------------------------------------------------------------------------- */

static struct client *client_new(struct world *w, struct world_node *node, struct sim_machine *m)
{
	struct client *c = calloc(1, sizeof(*c));

	check(c);
	c->w = w;
	c->node = node;
	c->m = m;
	return c;
}

void clients_make(struct world *w)
{
	w->remote = client_new(w, NULL, sim_machine_new(w->sim, "clients"));
	for (uint32_t k = 1; k <= w->s.nodes_n; k++)
		w->nodes[k].client = client_new(w, &w->nodes[k], w->nodes[k].m);
}

static void user_new(struct client *client, struct world_volume *v, uint32_t target)
{
	struct user *c = calloc(1, sizeof(*c));

	check(c && client->users_n < CLIENT_USERS_MAX);
	c->c = client;
	c->v = v;
	c->n = v->n * 10 + client->users_n;
	c->remote = !client->node;
	c->target = target;
	list_init(&c->zombies);
	client->users[client->users_n++] = c;
}

/* A volume's local clients are all on one machine, for one node owns it. */
void clients_start(struct world *w)
{
	for (uint32_t v = 0; v < w->s.volumes_n; v++) {
		uint32_t home = 1 + (uint32_t)rand_below(&w->rand, w->s.nodes_n);

		for (uint32_t i = 0; i < w->s.users_n[v]; i++)
			user_new(rand_percent(&w->rand, w->s.remote_percent) ? w->remote
									     : w->nodes[home].client,
				 &w->volumes[v], home);
	}
	client_up(w->remote);
	for (uint32_t k = 1; k <= w->s.nodes_n; k++)
		client_up(w->nodes[k].client);
}

bool clients_each(struct world *w, bool (*fn)(struct user *c, void *arg), void *arg)
{
	for (uint32_t k = 0; k <= w->s.nodes_n; k++) {
		struct client *c = k ? w->nodes[k].client : w->remote;

		for (uint32_t i = 0; i < c->users_n; i++)
			if (!fn(c->users[i], arg))
				return false;
	}
	return true;
}

static void line_free(struct line *l)
{
	list_del(&l->zombie);
	free(l);
}

/* Power is gone: nothing of it will ever be called again, and nobody executes anything for it any more. */
static void client_killed(void *arg)
{
	struct client *client = arg;

	client->e = NULL;
	for (uint32_t i = 0; i < client->users_n; i++) {
		struct user *c = client->users[i];

		if (c->line) {
			list_push(&c->zombies, &c->line->zombie);
			c->line = NULL;
		}
		while (!list_empty(&c->zombies)) {
			struct line *l = list_first(&c->zombies, struct line, zombie);

			line_drop_ops(l);
			line_free(l);
		}
		c->in_flight = 0;
	}
}

void client_up(struct client *c)
{
	if (c->e || c->users_n == 0)
		return;
	c->e = sim_process_new(c->m, "client", client_killed, c);
	for (uint32_t i = 0; i < c->users_n; i++) {
		struct user *u = c->users[i];

		u->due_ns = 0;
		ioe_timer(c->e, &u->tick, ioe_now_ns(c->e) + rand_below(&c->w->rand, TICK_NS),
			  user_tick);
	}
}

/* ---- connecting ------------------------------------------------------------------------------------------------------- */

bool user_is_ready(const struct user *c)
{
	return c->line && c->line->state == LINE_READY;
}

static uint64_t user_now(const struct user *c)
{
	return world_now(c->c->w);
}

static bool is_out_of_patience(const struct user *c)
{
	const struct line *l = c->line;
	uint64_t patience_ns = c->c->w->s.patience_ns;

	if (l->state != LINE_READY)
		return user_now(c) > l->since_ns + patience_ns;
	return !list_empty(&l->ops) &&
	       user_now(c) > list_first(&l->ops, struct op, link)->since_ns + patience_ns;
}

/* Now and then each connection looks whether there is something to do that nobody tells it. */
static void user_tick(struct ioe_req *r)
{
	struct user *c = container_of(r, struct user, tick);

	list_for_each_safe (l, tmp, &c->zombies)
		line_bury(list_entry(l, struct line, zombie));
	if (c->line && is_out_of_patience(c))
		line_break(c->line, "out of patience");
	if (!c->line && user_now(c) >= c->due_ns && c->v->state == VOLUME_NORMAL)
		user_connect(c);
	else if (c->line && c->v->state == VOLUME_LEAVING && c->in_flight == 0)
		line_break(c->line, "the volume is to be deleted");
	if (user_is_ready(c))
		workload_go(c);
	ioe_timer(c->c->e, &c->tick,
		  ioe_now_ns(c->c->e) +
		      (c->c->w->working || !c->line || !list_empty(&c->zombies) ? TICK_NS : IDLE_NS),
		  user_tick);
}

static void user_connect(struct user *c)
{
	struct world *w = c->c->w;
	struct line *l = calloc(1, sizeof(*l));

	check(l);
	l->user = c;
	l->k = c->remote ? c->target : c->c->node->k;
	l->state = LINE_CONNECTING;
	l->since_ns = user_now(c);
	list_init(&l->zombie);
	list_init(&l->ops);
	list_init(&l->to_send);
	c->line = l;
	l->connecting = true;
	ioe_connect(c->c->e, &l->connect, c->remote ? w->nodes[l->k].tcp : w->nodes[l->k].local,
		    line_connected);
}

static void line_connected(struct ioe_req *r)
{
	struct line *l = container_of(r, struct line, connect);

	l->connecting = false;
	if (r->status == 0)
		l->sock = r->ret_sock;
	if (l->state == LINE_OVER) { /* given up meanwhile */
		if (l->sock)
			ioe_sock_shutdown(l->user->c->e, l->sock);
		return;
	}
	if (r->status) {
		line_break(l, err_name(r->status));
		return;
	}
	l->proc = l->user->c->w->nodes[l->k].serial;
	l->state = LINE_GREETING;
	line_recv(l);
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

static bool changes(const struct op *op)
{
	return op->cmd == NBD_CMD_WRITE || op->cmd == NBD_CMD_WRITE_ZEROES ||
	       op->cmd == NBD_CMD_TRIM;
}

static void op_free(struct op *op)
{
	list_del(&op->link);
	list_del(&op->send_link);
	free(op->data);
	free(op);
}

void user_submit(struct user *c, uint16_t cmd, uint16_t flags, uint64_t sector, uint64_t sectors_n)
{
	struct world *w = c->c->w;
	struct op *op = calloc(1, sizeof(*op));
	uint64_t bytes = sectors_n * SECTOR_BYTES;

	check(op && user_is_ready(c));
	op->user = c;
	op->cmd = cmd;
	op->flags = flags;
	op->cookie = ++w->last_op;
	op->sector = sector;
	op->sectors_n = sectors_n;
	op->lo = world_moment(w);
	op->since_ns = user_now(c);
	op->header = (struct nbd_request_header){
	    .magic = to_be32(NBD_REQUEST_MAGIC),
	    .flags = to_be16(flags),
	    .cmd = to_be16(cmd),
	    .off = to_be64(sector * SECTOR_BYTES),
	    .len = to_be32((uint32_t)bytes),
	};
	memcpy(op->header.cookie.b, &op->cookie, sizeof(op->cookie));
	op->iov[0] = (struct iovec){&op->header, sizeof(op->header)};
	if (cmd == NBD_CMD_READ || cmd == NBD_CMD_WRITE) {
		op->data = malloc(bytes);
		check(op->data);
	}
	if (cmd == NBD_CMD_WRITE) {
		ledger_fill(c->v->ledger, op->cookie, sector, sectors_n, op->data);
		op->iov[1] = (struct iovec){op->data, bytes};
	}
	op->change = (struct ledger_op){.id = op->cookie,
					.sector = sector,
					.sectors_n = sectors_n,
					.lo = op->lo,
					.proc = c->line->proc,
					.machine = c->line->k,
					.zeros = cmd != NBD_CMD_WRITE};
	if (changes(op))
		ledger_begin(c->v->ledger, &op->change);
	c->in_flight++;
	list_init(&op->link);
	list_init(&op->send_link);
	list_push(&c->line->ops, &op->link);
	list_push(&c->line->to_send, &op->send_link);
	line_send(c->line);
}

/* What earlier requests still in flight may yet see must be kept. */
static void note_oldest(struct user *c)
{
	uint64_t oldest = UINT64_MAX;

	for (uint32_t k = 0; k <= c->c->w->s.nodes_n; k++) {
		struct client *client = k ? c->c->w->nodes[k].client : c->c->w->remote;

		for (uint32_t i = 0; i < client->users_n; i++) {
			const struct line *l = client->users[i]->line;

			if (client->users[i]->v == c->v && l && !list_empty(&l->ops))
				oldest = MIN(oldest, list_first(&l->ops, struct op, link)->lo);
		}
	}
	ledger_oldest(c->v->ledger, oldest);
}

void line_answered(struct line *l, struct op *op)
{
	struct user *c = l->user;

	if (!list_empty(&op->send_link))
		line_wrong(l, "an answer before the question");
	if (op == l->sending)
		line_wrong(l, "an answer before the whole question");
	note_oldest(c);
	c->in_flight--;
	workload_answered(c, op);
	op_free(op);
}

void line_send(struct line *l)
{
	struct ioe *e = l->user->c->e;

	if (l->hello_sending || l->sending || l->state == LINE_OVER)
		return;
	if (l->hello_len) {
		l->hello_sending = true;
		l->send_iov[0] = (struct iovec){l->hello, l->hello_len};
		ioe_send(e, &l->send, l->sock, l->send_iov, 1, line_sent);
		return;
	}
	if (list_empty(&l->to_send))
		return;
	l->sending = list_first(&l->to_send, struct op, send_link);
	list_del(&l->sending->send_link);
	ioe_send(e, &l->send, l->sock, l->sending->iov, l->sending->iov[1].iov_len ? 2 : 1,
		 line_sent);
}

static void line_sent(struct ioe_req *r)
{
	struct line *l = container_of(r, struct line, send);

	if (l->hello_sending)
		l->hello_len = 0;
	l->hello_sending = false;
	l->sending = NULL;
	if (l->state == LINE_OVER)
		return;
	if (r->status)
		line_break(l, err_name(r->status));
	else
		line_send(l);
}

/* ---- ends ------------------------------------------------------------------------------------------------------------- */

/* Nobody will answer, and nobody will execute them any more. */
static void line_drop_ops(struct line *l)
{
	struct user *c = l->user;

	note_oldest(c);
	while (!list_empty(&l->ops)) {
		struct op *op = list_first(&l->ops, struct op, link);

		if (op->cmd == NBD_CMD_WRITE && (c->c->w->disk_full || c->c->w->disk_errors))
			workload_may_be_bad(c, op);
		if (changes(op))
			ledger_finish(c->v->ledger, &op->change, LEDGER_FAILED, 0,
				      world_moment(c->c->w));
		op_free(op);
	}
}

static uint64_t pause_ns(struct world *w)
{
	return rand_percent(&w->rand, 70) ? rand_below(&w->rand, 50 * MS)
					  : rand_below(&w->rand, 2 * SEC);
}

void line_break(struct line *l, const char *why)
{
	struct user *c = l->user;
	struct world *w = c->c->w;

	world_say(w, "connection %u of %s to %s is over, %u requests open: %s", c->n, c->v->name,
		  w->nodes[l->k].name, c->in_flight, why);
	if (l->connecting)
		ioe_cancel(c->c->e, &l->connect);
	if (l->sock)
		ioe_sock_shutdown(c->c->e, l->sock);
	if (l->state != LINE_READY && rand_percent(&w->rand, 50))
		c->target = 1 + (uint32_t)rand_below(&w->rand, w->s.nodes_n);
	l->state = LINE_OVER;
	list_push(&c->zombies, &l->zombie);
	c->line = NULL;
	c->in_flight = 0;
	c->due_ns = user_now(c) + pause_ns(w);
}

/* True: it is gone, and with it everybody who could still do what it asked for. */
static bool line_bury(struct line *l)
{
	struct ioe *e = l->user->c->e;

	if (l->connecting || l->receiving || l->sending || l->hello_sending)
		return false;
	if (l->sock && !sim_net_peer_is_gone(l->sock))
		return false;
	if (l->sock)
		ioe_sock_close(e, l->sock);
	line_drop_ops(l);
	line_free(l);
	return true;
}

void user_leave(struct user *c)
{
	struct line *l = c->line;

	check(user_is_ready(c) && c->in_flight == 0);
	line_break(l, "left");
	if (c->remote)
		c->target = 1 + (uint32_t)rand_below(&c->c->w->rand, c->c->w->s.nodes_n);
}
