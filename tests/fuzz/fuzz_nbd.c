/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer harness of the NBD target: `make fuzz-nbd`. An input is one connection (nbd_hostile.h): a byte that selects the prefix and where
 * the bytes are cut in two, then the bytes. Runs in one process on the simulated engine, so an input does the same thing each time. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "src/base/log.h"
#include "tests/lib/nbd/nbd_hostile.h"

enum { CASES_PER_WORLD = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct nbd_hostile h;
static int is_open;

static void close_world(void)
{
	if (is_open)
		nbd_hostile_free(&h);
	is_open = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	if (!is_open) {
		log_set_level(LOG_ERROR);
		atexit(close_world);
	}
	if (h.cases >= CASES_PER_WORLD)
		close_world();
	if (!is_open) {
		nbd_hostile_init(&h, 1);
		is_open = 1;
	}
	nbd_hostile_feed(&h, (enum nbd_hostile_prefix)(data[0] % NBD_HOSTILE_PREFIXES_N), data + 1,
			 size - 1, (size - 1) * (data[0] / NBD_HOSTILE_PREFIXES_N) / 64 + 1);
	return 0;
}
