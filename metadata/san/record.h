/* SPDX-License-Identifier: Apache-2.0 */
/* record.h - the head that every value of the SAN begins with. Private to keys.c, records.c and pages.c. */
#ifndef STRATA_METADATA_SAN_RECORD_H
#define STRATA_METADATA_SAN_RECORD_H

#include "metadata/san/schema.h"
#include "src/base/bytes.h"

struct record_head {
	struct le32 crc; /* of the key and of everything behind this field */
	uint8_t version;
	uint8_t reserved[3];
};

/* Fills in the head of a value that is len long, head included. */
void record_seal(struct record_head *h, uint8_t version, const struct schema_key *k, size_t len);
/* Checks length, crc, version and reserved bytes: 0, -E_FORMAT or -E_VERSION. */
int record_open(struct metastore_bytes key, struct metastore_bytes value, uint8_t version,
		size_t len_min, size_t len_max);

#endif
