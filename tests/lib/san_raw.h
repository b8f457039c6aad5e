/* SPDX-License-Identifier: Apache-2.0 */
/* san_raw.h - the SAN's invariants, checked on the bare database by other code than the product's own check. */
#ifndef STRATA_TESTS_LIB_SAN_RAW_H
#define STRATA_TESTS_LIB_SAN_RAW_H

#include "metadata/san/schema.h"
#include "tests/lib/store_fixture.h"

/* Every slot is in exactly one of {free, used by exactly one map entry, freeing with an intent}; the usage records are right; no entry
 * belongs to a layer that is not there. Fails the test otherwise. */
void san_raw_check(struct store_fixture *st);

struct san_raw_value {
	size_t len;
	uint8_t bytes[SCHEMA_PAGE_MAX];
};
/* The value of a key that must be there. */
void san_raw_get(struct store_fixture *st, const struct schema_key *k, struct san_raw_value *ret_v);

#endif
