/* SPDX-License-Identifier: Apache-2.0 */
/* meta_client.h - meta.h over the control connection: what the volume runtime asks the metadata server.
 *
 * A call goes out at once while the node is joined, else when it is; after a lost connection all that are unanswered go out again, in their
 * order (each is idempotent, or guarded by epoch). A call with a timeout that passes ends with -E_META_AWAY; its late answer is dropped.
 *
 * One consequence of sending again is dealt with here: the answer to an open that was lost may have been answered before, which is harmless, as
 * asking again gives the same epoch. */
#ifndef STRATA_IO_PATH_NODE_META_CLIENT_H
#define STRATA_IO_PATH_NODE_META_CLIENT_H

#include "io-path/node/control.h"
#include "io-path/node/meta.h"

struct meta_client {
	struct meta meta; /* what the volume runtime gets */
	struct control *control;
	struct list calls; /* unanswered, in the order they were made; sent or waiting */
	struct ioe_req timer;
	uint64_t timer_at_ns;
	bool timing, closing;
	struct list failing; /* to end at the end of the turn */
	struct ioe_hook hook;
	uint64_t calls_n, sent_n, timeouts_n; /* counters */
	void (*closed)(void *arg);
	void *closed_arg;
};

void meta_client_init(struct meta_client *m, struct control *c);
/* Every waiting call, and every later one, ends with -E_META_AWAY: how a node that must end while the metadata server is away gets its volumes
 * to close. */
void meta_client_give_up(struct meta_client *m);
/* No call may be under way. */
void meta_client_close(struct meta_client *m, void (*done)(void *arg), void *arg);

/* control.c's: the session was joined; is lost; the server says that a volume changed. */
void meta_client_joined(struct meta_client *m);
void meta_client_volume_changed(struct meta_client *m, const Strata__VolumeChanged *msg);

#endif
