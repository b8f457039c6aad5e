/* SPDX-License-Identifier: Apache-2.0 */
/* exchange.h - one request of a client and its answer, and what the two sides of the server share. Private to http.c and exchange.c. */
#ifndef STRATA_METADATA_API_EXCHANGE_H
#define STRATA_METADATA_API_EXCHANGE_H

#include <microhttpd.h>
#include <pthread.h>

#include "metadata/api/http.h"
#include "metadata/api/idem.h"
#include "metadata/api/routes.h"

struct exchange {
	struct http *http;
	struct MHD_Connection *conn;
	/* the HTTP thread's, while it receives */
	char *uri;
	bool begun;
	char *body;
	size_t body_len, body_cap, body_dropped;
	/* the loop's, from exchange_arrive() to MHD_resume_connection() */
	struct ioe_msg msg;
	struct route route;
	char key[IDEM_KEY_MAX + 1]; /* "": none */
	uint64_t request;	    /* hash of what the key stands for */
	struct idem_entry *entry;
	struct list waiting; /* on an entry's list */
	struct admin_req req;
	/* the HTTP thread's again */
	bool answered;
	struct reply reply;
};

/* Who may pass to the loop, and what a close waits for. */
struct http_gate {
	pthread_mutex_t lock;
	bool shut;	  /* nothing passes any more */
	bool told;	  /* drained_msg was posted, or must not be any more */
	uint32_t waiting; /* exchanges that are the loop's, or on their way there */
	uint32_t open; /* all: from the request line until the answer is out or the connection gone */
};

struct http_listener {
	struct http *http;
	struct ioe_sock *sock; /* owns the address */
	int fd; /* of the same listener; libmicrohttpd's from its start on, ours again once it is quiesced */
	bool needs_token, quiesced;
	struct MHD_Daemon *daemon;
};

struct http {
	struct http_config cfg;
	char *token;
	struct http_listener listeners[HTTP_ADDRS_MAX];
	struct http_gate gate;
	struct idem idem; /* the loop's */
	/* closing */
	struct ioe_msg drained_msg;
	struct ioe_req timer, work;
	bool timer_running, overdue, ending;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* On the loop. */
void exchange_arrive(struct ioe_msg *m);
void http_all_answered(struct http *h); /* http.c: an answer has gone out while the close is overdue */

#endif
