/* SPDX-License-Identifier: Apache-2.0 */
/* dial.h - keeps one connection to a peer: dials, and dials again when it is lost.
 *
 *   WAITING --(back-off is over)--> CONNECTING --> OPEN (conn joining, then up) --(lost)--> CLEARING --> WAITING ...
 *
 * The back-off grows by half with each attempt, with some jitter: a peer that comes back is found within half of the time that it was away. It begins
 * anew after dialer_settled(): a peer that accepts connections only to drop them is not hammered. Of several addresses the next one is tried after each
 * failure; one that says nothing at all is given up after 5 s. dialer_close() is two-phase. */
#ifndef STRATA_WIRE_DIAL_H
#define STRATA_WIRE_DIAL_H

#include "src/wire/conn.h"

struct dialer;

struct dialer_ops {
	void (*up)(struct dialer *d);
	int (*request)(struct dialer *d, const struct frame *f, const void *body, void **ret_data);
	int (*data)(struct dialer *d);		    /* NULL when data_max is 0 */
	void (*down)(struct dialer *d, int status); /* after up; outstanding calls were answered */
};

enum { DIALER_ADDRS_MAX = 16 };

struct dialer_config {
	struct ioe *ioe;
	const struct dialer_ops *ops;
	const char *const *addrs; /* copied */
	uint32_t addrs_n;
	const struct auth_key *key; /* for TCP addresses; must live as long as the dialer */
	uint64_t backoff_min_ns, backoff_max_ns; /* 0: 20 ms, 1 s */
	uint64_t keepalive_ns;			 /* as conn_config */
	uint32_t body_max, data_max, buf_bytes;
};

struct dialer {
	struct dialer_config cfg;
	char addrs[DIALER_ADDRS_MAX][IOE_ADDR_MAX];
	uint32_t next;
	enum {
		DIALER_WAITING,
		DIALER_CONNECTING,
		DIALER_OPEN,
		DIALER_CLEARING,
		DIALER_CLOSED
	} state;
	struct conn conn; /* valid while OPEN */
	struct conn_ops conn_ops;
	struct ioe_req req;
	bool busy;	      /* req is in flight */
	struct ioe_req limit; /* of a connect */
	bool limiting, finishing;
	uint64_t connect_until_ns;
	uint64_t backoff_ns;
	int last_error; /* why there is no connection; 0 while up */
	int told[DIALER_ADDRS_MAX]; /* by address, the error that the log has: an outage is a line, not one each second */
	void (*closed)(void *arg);
	void *closed_arg;
};

/* -EINVAL: no address, too many, or too long */
int dialer_open(struct dialer *d, const struct dialer_config *cfg);
void dialer_settled(struct dialer *d);
void dialer_close(struct dialer *d, void (*done)(void *arg), void *arg);

static inline bool dialer_is_up(const struct dialer *d)
{
	return d->state == DIALER_OPEN && conn_is_up(&d->conn);
}

#endif
