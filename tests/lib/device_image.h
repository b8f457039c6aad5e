/* SPDX-License-Identifier: Apache-2.0 */
/* device_image.h - a small device on a simulated disk, filled through the device itself, one call after the other; and ways to look into its
 * structures and to damage them. */
#ifndef STRATA_TESTS_LIB_DEVICE_IMAGE_H
#define STRATA_TESTS_LIB_DEVICE_IMAGE_H

#include "io-path/device/codec.h"
#include "io-path/device/device.h"
#include "io-path/device/geometry.h"
#include "tests/lib/mem_arena.h"
#include "tests/lib/sim_fixture.h"

#define IMAGE_PATH  "disk"
#define IMAGE_BYTES ((uint64_t)128 << 20)

struct image {
	struct sim_fixture fx;
	struct mem_arena arena; /* of the process that serves it */
	struct device *dev;
	struct geometry geo;
	struct uuid uuid, cluster;
	uint8_t page[FMT_PAGE]; /* scratch */
};

/* Formatted, closed, with its geometry known. */
void image_init(struct image *im, uint64_t seed, uint32_t chunk_shift);
void image_free(struct image *im);

void image_open(struct image *im, const char *ring);
void image_close(struct image *im);
void image_kill(struct image *im); /* and a new process is there */

struct image_chunk {
	uint32_t slot;
	uint64_t cgen;
	volume_id volume;
	layer_id layer;
	uint32_t chunk;
};
/* Fails the test unless it succeeds. Contents are block_pattern.h's, id 1. */
void image_write(struct image *im, const struct image_chunk *c, uint32_t block, uint32_t n,
		 uint32_t flags);
void image_clear(struct image *im, const struct image_chunk *c, uint32_t block, uint32_t n,
		 uint32_t flags);
void image_free_slot(struct image *im, const struct image_chunk *c);
void image_flush(struct image *im);

/* Raw bytes. */
void image_peek(struct image *im, uint64_t off, void *buf, size_t len);
void image_poke(struct image *im, uint64_t off, const void *buf, size_t len);
void image_flip(struct image *im, uint64_t off); /* one bit of this byte */

/* The home that counts, or the other one. */
uint8_t image_slot_page_home(struct image *im, uint32_t page);
void image_slot_page_get(struct image *im, uint32_t page, uint8_t home, struct fmt_slot_page *ret_p);
void image_slot_page_put(struct image *im, uint32_t page, uint8_t home, struct fmt_slot_page *p);

#endif
