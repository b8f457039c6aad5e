/* SPDX-License-Identifier: Apache-2.0 */
/* verify.h - after a power loss: reads the blocks of slots that were active, in the background, until none is doubtful. */
#ifndef STRATA_IO_PATH_DEVICE_VERIFY_H
#define STRATA_IO_PATH_DEVICE_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "io-path/device/waiter.h"

struct device;
struct op;

enum { VERIFY_BLOCKS = 64 }; /* in one read */

struct verify {
	bool running;
	struct op *op;
	void *buf;
	/* a stretch that could not be read whole, up to block single_to of the slot; and tries of the block that is read alone */
	bool one_by_one;
	uint32_t single_slot, single_to, tries;
	struct waiter wait;
	uint64_t verified_n;
};

/* A doubtful block holds something that no record says: an unfinished write. Its bytes count from now on; room for the record is reserved. */
void verify_accept(struct op *op, uint32_t block, uint32_t value);
void verify_start(struct device *dev);
void verify_stop(struct device *dev); /* for good; what is under way finishes */
void verify_free(struct device *dev);
bool verify_is_idle(const struct device *dev);

#endif
