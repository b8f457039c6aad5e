/* SPDX-License-Identifier: Apache-2.0 */
/* routes.h - from the text of a request to a verb with its arguments. No state, no I/O: any thread. */
#ifndef STRATA_METADATA_API_ROUTES_H
#define STRATA_METADATA_API_ROUTES_H

#include "metadata/api/admin.h"

enum { ROUTE_URI_MAX = 8192, ROUTE_BODY_MAX = 64 * 1024 };

struct route {
	enum admin_verb verb;
	char *subject; /* decoded; NULL when the path has none */
	json_t *args;
	char allow[64]; /* METHOD_NOT_ALLOWED: what is */
};

/* uri as it came: path and query, still percent-encoded. 0; -EINVAL or -ENOMEM with the error filled (and `allow`). */
int route_parse(const char *method, const char *uri, const char *body, size_t body_len,
		struct route *ret_route, struct admin_error *ret_error);
void route_free(struct route *r);

#endif
