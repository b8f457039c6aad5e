/* SPDX-License-Identifier: Apache-2.0 */
/* budget.h - the memory of all connections of a server together. Private to targets/nbd.
 *
 * Of limits.memory_bytes every connection that there may be has its part set aside: its buffers, its requests, and a share of data pages that is
 * enough for 1 MiB at any offset (POOL_SHARE_PAGES). What is left is common. A pool that would grow beyond its share asks for common pages;
 * when there are not enough, those that other pools have and do not use are taken back; when there are still not enough, the
 * connection waits in line, which is: its input is not read.
 *
 * Why nobody waits for ever:
 *  1. While anybody waits, common pages go to the first in line and to nobody else, and every connection gives back what it does not use as
 *     often as a send of its answers is done.
 *  2. Requests that have pages never wait for pages. They end by themselves, so every page comes back.
 *  3. The common part is as large as any one pool can want, so the first in line gets what it waits for when enough has come back.
 *  4. A client can only keep pages by not taking answers, or not sending a payload that it announced. One that does either for limits.stall_ns
 *     while others wait loses its connection.
 * What fits a connection's share never waits for others at all.
 *
 * Invariant: pages_free + the sum of (pool.pages_allowed - share) over all connections == pages_n. */
#ifndef STRATA_TARGETS_NBD_BUDGET_H
#define STRATA_TARGETS_NBD_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/list.h"
#include "src/ioe/ioe.h"

struct nbd_conn;
struct nbd_server;

struct budget {
	uint64_t conn_bytes;	      /* set aside for one connection */
	uint32_t pages_n, pages_free; /* the common part */
	struct list waiting;	      /* struct nbd_conn, who came first first */
	uint32_t waiting_n;
	uint64_t waits;	      /* since start */
	struct ioe_hook hook; /* pages came back while somebody waits */
	struct ioe_req timer; /* who keeps others waiting, while somebody waits */
	bool timing;
};

void budget_init(struct nbd_server *s);
/* The pool is new: it has its share. */
void budget_join(struct nbd_conn *c);
/* pool_take(n) of c found nothing. True: now it will. False: c's input goes on when it may be worth trying again. */
bool budget_ask(struct nbd_conn *c, uint32_t n);
/* c got what it waited for in another way, or takes no requests any more. */
void budget_forget(struct nbd_conn *c);
/* Gives back what c does not use. */
void budget_return(struct nbd_conn *c);
/* The pool is about to go. */
void budget_leave(struct nbd_conn *c);

static inline bool budget_is_short(const struct budget *b)
{
	return !list_empty(&b->waiting);
}

#endif
