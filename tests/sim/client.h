/* SPDX-License-Identifier: Apache-2.0 */
/* client.h - NBD clients: connections that ask for what workload.c tells them, and hold every answer against the volume's ledger.
 *
 *   IDLE --(due)--> CONNECTING -> GREETING -> GOING -> READY --(lost, or given up)--> IDLE
 *
 * A connection that was lost leaves its line behind. What was asked for over it may still be executed until the other end is gone, and the ledger is
 * told so only then. A client's process dies with the power of its machine; then its connections begin anew with the next one. */
#ifndef STRATA_TESTS_SIM_CLIENT_H
#define STRATA_TESTS_SIM_CLIENT_H

#include "targets/nbd/proto.h"
#include "tests/sim/world.h"

enum { LINE_BYTES = 64 << 10, CLIENT_USERS_MAX = VOLUMES_MAX * USERS_MAX };

/* A request: READ, WRITE, WRITE_ZEROES, TRIM, FLUSH. */
struct op {
	struct list link; /* in line.ops */
	struct list send_link;
	struct user *user;
	uint16_t cmd, flags;
	uint64_t cookie, sector, sectors_n;
	uint64_t lo; /* the moment it was asked for */
	uint64_t since_ns;
	struct ledger_op change; /* of those that change something */
	struct nbd_request_header header;
	struct iovec iov[2];
	uint8_t *data;
	uint64_t got; /* READ: bytes */
	uint32_t error;
};

enum line_state {
	LINE_CONNECTING,
	LINE_GREETING,
	LINE_STRUCTURED,
	LINE_GOING,
	LINE_READY,
	LINE_OVER
};

/* One TCP or unix connection. */
struct line {
	struct list zombie; /* in user.zombies */
	struct user *user;
	enum line_state state;
	uint32_t k, proc;      /* who is at the other end */
	uint32_t owner_serial; /* the volume's when it was opened */
	uint64_t size_bytes;   /* that it was told */
	uint64_t since_ns;
	struct ioe_sock *sock;
	struct ioe_req connect, recv, send;
	struct iovec recv_iov, send_iov[1];
	bool connecting, receiving, broken;
	struct op *sending;
	struct list ops, to_send; /* all that are not answered; those not yet sent */
	uint8_t hello[256];
	size_t hello_len;
	bool hello_sending;
	uint8_t in[LINE_BYTES];
	size_t in_at, in_len;
	struct op *filling; /* the payload that comes next is of its data */
	uint8_t *fill_at;
	uint64_t fill_left;
	bool fill_ends; /* and then it is answered */
};

struct user {
	struct client *c;
	struct world_volume *v;
	uint32_t n; /* for people */
	bool remote;
	uint32_t target;   /* node to try */
	struct line *line; /* NULL: IDLE */
	struct list zombies;
	uint64_t due_ns; /* IDLE: to connect */
	uint32_t in_flight;
	uint64_t done; /* requests answered well */
	struct ioe_req tick;
	bool ticking;
};

struct client {
	struct world *w;
	struct world_node *node; /* NULL: remote */
	struct sim_machine *m;
	struct ioe *e; /* NULL: dead */
	struct user *users[CLIENT_USERS_MAX];
	uint32_t users_n;
};

void clients_make(struct world *w);
/* Volumes are there: connections begin. */
void clients_start(struct world *w);
void client_up(struct client *c); /* its machine has power: starts the process if need be */
/* All of all clients; fn returns false to stop, and so does this. */
bool clients_each(struct world *w, bool (*fn)(struct user *c, void *arg), void *arg);

/* Asks for something: data for a WRITE is made, op->data is there for a READ. The connection is READY. */
void user_submit(struct user *c, uint16_t cmd, uint16_t flags, uint64_t sector, uint64_t sectors_n);
bool user_is_ready(const struct user *c);
void user_leave(struct user *c); /* in good order; connects again later */

/* ---- between client.c and client_input.c ---- */
void line_recv(struct line *l); /* it is connected, or may have more */
void line_send(struct line *l); /* what is to be sent, the greeting's part first */
void line_answered(struct line *l, struct op *op); /* judges the answer and frees op */
void line_break(struct line *l, const char *why);
void line_wrong(struct line *l, const char *what); /* ends the run */

/* ---- workload.c ---- */
void workload_go(struct user *c); /* asks for as much as the depth allows */
/* Judges the answer of op, with what it got. */
void workload_may_be_bad(struct user *c, const struct op *op);
void workload_answered(struct user *c, struct op *op);

#endif
