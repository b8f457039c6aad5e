/* SPDX-License-Identifier: Apache-2.0 */
/* block_pattern.h - block contents that say where they come from, sector by sector.
 *
 * Each 512-byte sector carries the id of the write that made it, the place it was written to, and bytes that follow from both. So a
 * reader can tell for every sector: whose it is, or that it is zeros, or that nobody wrote it. */
#ifndef STRATA_TESTS_LIB_BLOCK_PATTERN_H
#define STRATA_TESTS_LIB_BLOCK_PATTERN_H

#include <stdint.h>

#include "src/model/ids.h"

enum { PATTERN_SECTORS = BLOCK_BYTES / SECTOR_BYTES };

/* id: of the write, from 1; place: of the block, any number that the caller can take apart again. */
void pattern_fill(void *block, uint64_t id, uint64_t place);

/* ids: for each sector the id of its write, 0 for zeros, PATTERN_FOREIGN for bytes that are neither or that belong to another place; those of
 * other places leave a trace in the last two arguments. */
#define PATTERN_FOREIGN UINT64_MAX
struct pattern_ids {
	uint64_t sector[PATTERN_SECTORS];
	uint64_t foreign_id, foreign_place; /* of a sector that belongs elsewhere; 0 id: none */
};
void pattern_identify(const void *block, uint64_t place, struct pattern_ids *ret_ids);

#endif
