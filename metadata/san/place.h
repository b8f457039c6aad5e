/* SPDX-License-Identifier: Apache-2.0 */
/* place.h - which device the next chunk goes to: a pure function.
 *
 * The devices' free slots lie behind one another on a line; a chunk falls on a point of it, so devices fill in proportion to their free space, and
 * full ones (or those not to be used: free 0) are never hit. Consecutive chunks of a layer step along the line by the golden ratio, which
 * spreads any run of them about as evenly as can be: a sequential stream keeps all devices busy. */
#ifndef STRATA_METADATA_SAN_PLACE_H
#define STRATA_METADATA_SAN_PLACE_H

#include <stdint.h>

/* The point of a chunk, as a fraction of 2^64 of the line. */
uint64_t place_point(uint64_t seed, uint32_t layer, uint32_t chunk);
/* The index of the device that has the point; -ENOSPC when none has a free slot. */
int place_pick(const uint32_t *free_n, uint32_t n, uint64_t point);

#endif
