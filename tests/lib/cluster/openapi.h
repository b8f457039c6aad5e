/* SPDX-License-Identifier: Apache-2.0 */
/* openapi.h - answers of the administration against docs/openapi.yaml, both ways: an answer has no member that is not in the document, each of the type
 * and among the words that stand there; and whatever is documented has been seen in an answer by the end. */
#ifndef STRATA_TESTS_LIB_CLUSTER_OPENAPI_H
#define STRATA_TESTS_LIB_CLUSTER_OPENAPI_H

#include "metadata/api/admin.h"

struct openapi {
	json_t *spec; /* what has been seen is marked in it */
};

/* False: python3-yaml is not installed. */
bool openapi_load(struct openapi *o);
/* Fails the test when the answer is not what the document says of this verb and status. answer: NULL when it is text. */
void openapi_compare(struct openapi *o, enum admin_verb verb, int status, const json_t *answer);
/* Fails the test when a response of 200 to 299 or a member of one was in no answer. but: "GET /v1/jobs 200" or "Job.error", ends with NULL; one that has been seen
 * fails it too. */
void openapi_complete(struct openapi *o, const char *const *but);

#endif
