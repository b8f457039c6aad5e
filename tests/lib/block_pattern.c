/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/block_pattern.h"

#include <string.h>

#include "src/base/bytes.h"

enum { WORDS = SECTOR_BYTES / 8 };
#define PATTERN_MAGIC 0x7365637461747331ULL

static void fill_sector(uint64_t w[WORDS], uint64_t id, uint64_t place, uint64_t sector)
{
	uint64_t x = id * 0x9e3779b97f4a7c15ULL ^ place * 0xbf58476d1ce4e5b9ULL ^ sector;

	w[0] = PATTERN_MAGIC + sector;
	w[1] = id;
	w[2] = place;
	for (int i = 3; i < WORDS; i++) {
		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		w[i] = x ^ (x >> 29);
	}
}

void pattern_fill(void *block, uint64_t id, uint64_t place)
{
	uint64_t w[WORDS];

	for (uint64_t s = 0; s < PATTERN_SECTORS; s++) {
		fill_sector(w, id, place, s);
		memcpy((uint8_t *)block + s * SECTOR_BYTES, w, sizeof(w));
	}
}

void pattern_identify(const void *block, uint64_t place, struct pattern_ids *ret_ids)
{
	memset(ret_ids, 0, sizeof(*ret_ids));
	for (uint64_t s = 0; s < PATTERN_SECTORS; s++) {
		uint64_t got[WORDS], want[WORDS];

		memcpy(got, (const uint8_t *)block + s * SECTOR_BYTES, sizeof(got));
		if (got[0] != PATTERN_MAGIC + s) {
			if (!bytes_are_zero(got, sizeof(got)))
				ret_ids->sector[s] = PATTERN_FOREIGN;
			continue;
		}
		fill_sector(want, got[1], got[2], s);
		if (got[2] == place && memcmp(got, want, sizeof(got)) == 0) {
			ret_ids->sector[s] = got[1];
			continue;
		}
		ret_ids->sector[s] = PATTERN_FOREIGN;
		if (memcmp(got, want, sizeof(got)) == 0) {
			ret_ids->foreign_id = got[1];
			ret_ids->foreign_place = got[2];
		}
	}
}
