/* SPDX-License-Identifier: Apache-2.0 */
/* session_private.h - what server.c, session.c and calls.c share. */
#ifndef STRATA_METADATA_RPC_SESSION_PRIVATE_H
#define STRATA_METADATA_RPC_SESSION_PRIVATE_H

#include "metadata/rpc/server.h"
#include "metadata/rpc/session.h"

int session_new(struct server *v, struct ioe_sock *sock, const struct auth_key *key);

/* Executes a request of the node (calls.c). msg is taken. */
void call_begin(struct session *s, uint16_t type, uint64_t id, ProtobufCMessage *msg);
/* A request was answered, or never will be. */
void session_request_end(struct session *s);

#endif
