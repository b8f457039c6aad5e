/* SPDX-License-Identifier: Apache-2.0 */
/* reply.h - an answer as HTTP carries it. */
#ifndef STRATA_METADATA_API_REPLY_H
#define STRATA_METADATA_API_REPLY_H

#include "metadata/api/admin.h"

struct reply {
	int status;
	const char *type; /* of the contents; static */
	char *body; /* owned (mem_free); NULL: there was no memory for it, the connection is closed instead */
	size_t len;
	char allow[64]; /* 405: the methods there are; else "" */
};

void reply_from_req(struct reply *ret_r, const struct admin_req *req);
void reply_from_error(struct reply *ret_r, const struct admin_error *e);
void reply_error(struct reply *ret_r, enum admin_code code, const char *hint, const char *message);
void reply_copy(struct reply *ret_r, const struct reply *from);
void reply_free(struct reply *r);

#endif
