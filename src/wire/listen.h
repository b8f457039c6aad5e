/* SPDX-License-Identifier: Apache-2.0 */
/* listen.h - accepts connections on one address, for ever: a failed accept (no file descriptors left) is tried again after a while. */
#ifndef STRATA_WIRE_LISTEN_H
#define STRATA_WIRE_LISTEN_H

#include "src/ioe/ioe.h"

struct listener {
	struct ioe *ioe;
	struct ioe_sock *sock;
	bool is_unix;
	char addr[IOE_ADDR_MAX]; /* its own, in the form ioe_connect() takes */
	/* The socket is the callee's; it may close the listener. */
	void (*accepted)(struct listener *l, struct ioe_sock *s);
	void *arg;	    /* the owner's */
	struct ioe_req req; /* the accept, or the timer before the next one */
	void (*closed)(void *arg);
	void *closed_arg;
};

int listener_open(struct listener *l, struct ioe *e, const char *addr,
		  void (*accepted)(struct listener *l, struct ioe_sock *s), char *errmsg);
/* Two-phase. */
void listener_close(struct listener *l, void (*done)(void *arg), void *arg);

#endif
