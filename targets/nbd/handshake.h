/* SPDX-License-Identifier: Apache-2.0 */
/* handshake.h - what the files of the handshake share. Private to targets/nbd.
 *
 *   greeting -> client flags -> { option -> its replies }* -> transmission
 *
 * An option is worked on by one function, which ends on every path in option_finish() (its replies are sent, then the next option), in
 * handshake_leave() (then transmission), or in conn_shut()/conn_drop(). Until then input is paused, so the option's data stays where
 * it is in the input buffer. */
#ifndef STRATA_TARGETS_NBD_HANDSHAKE_H
#define STRATA_TARGETS_NBD_HANDSHAKE_H

#include "targets/nbd/conn.h"

enum {
	LIST_NAMES = 256, /* of a page of LIST */
	REPLIES_BYTES =
	    24 << 10,	/* a page of them with their headers; INFO and errors take far less */
	TEXT_LEN = 512, /* of an error reply */
};
static_assert(LIST_NAMES * (sizeof(struct nbd_option_reply) + 4 + NAME_LEN_MAX) + 1024 <=
		  REPLIES_BYTES,
	      "a page fits");

struct handshake {
	struct nbd_conn *conn;
	bool flags_known, fixed, no_zeroes;
	uint32_t options_n; /* so far */
	uint32_t option;    /* the one being worked on */
	struct cursor data; /* its data */

	/* metadata contexts chosen by the last SET_META_CONTEXT, and for which export */
	uint32_t contexts;
	char contexts_export[EXPORT_NAME_LEN];

	/* replies on their way */
	uint8_t replies[REPLIES_BYTES];
	uint32_t replies_len;
	struct iovec iov;
	void (*sent)(struct nbd_conn *c);

	/* export.c */
	struct volume_open open;
	struct volume_list list;
	char names[LIST_NAMES][NAME_LEN_MAX + 1];
	char wanted[EXPORT_NAME_LEN];
	char text[TEXT_LEN]; /* why it failed */
	void (*opened)(struct nbd_conn *c, int status);
};

/* ---- handshake.c ------------------------------------------------------------------------------------------------------ */

/* Appends a reply to the current option and returns where its `len` bytes of payload go. */
uint8_t *reply_put(struct nbd_conn *c, uint32_t type, uint32_t len);
void reply_text(struct nbd_conn *c, uint32_t type, const char *text);
/* Sends what was put, then calls `sent`. */
void reply_flush(struct nbd_conn *c, void (*sent)(struct nbd_conn *c));

/* One last reply (ACK or an error, with text or NULL), and on to the next option. */
void option_finish(struct nbd_conn *c, uint32_t type, const char *text);
/* What was put is sent and transmission begins; transmission_new() was called. */
void handshake_leave(struct nbd_conn *c);

/* ---- option.c --------------------------------------------------------------------------------------------------------- */

void option_run(struct nbd_conn *c);

/* ---- meta.c ----------------------------------------------------------------------------------------------------------- */

void option_meta_context(struct nbd_conn *c); /* LIST_META_CONTEXT, SET_META_CONTEXT */

/* ---- export.c --------------------------------------------------------------------------------------------------------- */

/* A string of the option's data that is an export name: 0, or -EINVAL when it cannot be one (too long, a NUL in it). Such a name
 * could not exist; the difference to a name that just does not exist is the syntax error of data that ends too early: -EBADMSG. */
int export_name_take(struct cursor *data, uint32_t len, char ret_name[EXPORT_NAME_LEN]);
/* Opens the export `name` for this connection, unless it is open; then `opened`, perhaps at once. On failure hs->text says why. */
void export_open(struct nbd_conn *c, const char *name,
		 void (*opened)(struct nbd_conn *c, int status));
/* Transmission flags of the open export, as far as negotiated now. */
uint16_t export_flags(const struct nbd_conn *c);

#endif
