/* SPDX-License-Identifier: Apache-2.0 */
/* http.h - the HTTP server of the administration (docs/openapi.yaml).
 *
 * libmicrohttpd runs one thread per address. It receives, checks the token, parses and validates; a request that is fit to be executed is posted to the
 * loop, its connection suspended; the loop runs it (idempotency, submit), renders the answer and resumes the connection, whose thread sends it.
 *
 *   HTTP thread   READING --(whole, valid)--> WAITING                ANSWERED --> gone
 *   loop                                      WAITING --(answer)---> ANSWERED
 *
 * An exchange belongs to one side at a time; it changes hands by ioe_post() and MHD_resume_connection(), which order memory. What both touch is
 * struct http_gate, under its lock. What is not fit is answered without the loop. */
#ifndef STRATA_METADATA_API_HTTP_H
#define STRATA_METADATA_API_HTTP_H

#include "metadata/api/admin.h"
#include "src/ioe/ioe.h"

enum { HTTP_ADDRS_MAX = 8 };

struct http_config {
	struct ioe *ioe;	  /* a real engine */
	const char *const *addrs; /* "unix:PATH", "HOST:PORT" */
	uint32_t addrs_n;
	const char *
	    token; /* wanted on addresses that are not local; NULL: there is none, and they are refused. Copied */
	void (*submit)(void *arg, struct admin_req *r); /* admin_submit() */
	void *submit_arg;
	uint32_t outstanding_max; /* requests on the loop at once; further ones are 503 busy. 0: 128 */
	uint32_t connections_max; /* per address; 0: 256 */
	uint32_t idle_timeout_s;  /* of a connection that does not send or take anything; 0: 30 */
	uint32_t idem_max;	  /* keys remembered; 0: IDEM_ENTRIES_MAX */
	uint64_t close_timeout_ns; /* how long a close waits for clients to take their answers; 0: 3 s */
};

struct http;

/* -EINVAL, -EACCES (an address that is not local, without a token), -EADDRINUSE...; errmsg (ERRMSG_LEN) says which address and what to do. */
int http_open(const struct http_config *cfg, struct http **ret_h, char *errmsg);
/* The address that was bound (port 0 was given: this has the real one). */
void http_addr(const struct http *h, uint32_t i, char ret_addr[IOE_ADDR_MAX]);
/* Stops accepting; requests under way are answered, new ones on open connections get 503 `stopping`; then `done`, from the loop, with h gone.
 * Whoever executes requests must go on completing them. */
void http_close(struct http *h, void (*done)(void *arg), void *arg);

#endif
