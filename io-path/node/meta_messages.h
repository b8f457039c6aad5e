/* SPDX-License-Identifier: Apache-2.0 */
/* meta_messages.h - the calls of meta.h as messages of the control protocol: how each is sent, and what its answer means. Private to
 * meta_client.c. */
#ifndef STRATA_IO_PATH_NODE_META_MESSAGES_H
#define STRATA_IO_PATH_NODE_META_MESSAGES_H

#include "io-path/node/meta.h"
#include "src/wire/control.h"

struct meta_message {
	uint16_t type;
	/* What control_send() says; -ENOMEM with the connection still up: it could not be put together. */
	int (*send)(struct meta_req *r, struct conn *c, uint64_t id);
	/* Fills in the results: the status of the call. */
	int (*answer)(struct meta_req *r, const ProtobufCMessage *msg, uint64_t *ret_commit);
};
extern const struct meta_message meta_message_open, meta_message_close, meta_message_map,
    meta_message_alloc, meta_message_update, meta_message_names;

/* errmsg of a failed call: the server's sentence, or what the code means. Returns status. */
int meta_message_error(struct meta_req *r, int status, const char *errmsg);

#endif
