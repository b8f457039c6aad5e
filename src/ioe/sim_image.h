/* SPDX-License-Identifier: Apache-2.0 */
/* sim_image.h - the contents of one simulated file: what readers see, and what would be left after a power loss. Private to src/ioe/sim*.
 *
 * Two states of each 4 KiB page exist: *current* (every write that landed) and *durable*. They share one buffer until a write that
 * is not yet durable touches the page; then the durable one gets a copy of its own, which goes away when the last such write of the
 * page has become durable. Each such write is kept as a record, in the order of landing and with its data, because a power loss
 * decides about each one separately.
 *
 *   write lands   current changes, a record with the next landing number is appended
 *   fsync(n)      the records up to landing number n are applied to the durable state and forgotten
 *   power loss    each record left, in order, is kept, dropped or torn; then the durable state becomes the current one
 *
 * Applying the kept ones in order of landing is one legal outcome of a cache that writes back in any order, and all legal outcomes of
 * a sector are among them: its durable contents or any later write's, whichever was the last to be written back.
 *
 * Memory follows the data written: pages hang on groups of 64, groups on a radix tree. Space is accounted by page: a page is allocated
 * by a write or by a reservation and freed by a punch that covers it. */
#ifndef STRATA_IOE_SIM_IMAGE_H
#define STRATA_IOE_SIM_IMAGE_H

#include "src/base/list.h"
#include "src/base/rand.h"

enum { SIM_PAGE = 4096, SIM_SECTOR = 512 };
#define SIM_FILE_MAX ((uint64_t)1 << 48) /* what the tree can address */

struct sim_image {
	void *root[64];	      /* the tree's top node */
	struct list unsynced; /* struct record, in order of landing */
	uint64_t landed;      /* landing number of the latest write or punch */
	uint64_t size_bytes;
	uint64_t used_pages; /* allocated */
};

/* A write (data) or a punch (data NULL). */
struct sim_change {
	uint64_t off, len;
	const void *data;
};

void sim_image_init(struct sim_image *img);
void sim_image_free(struct sim_image *img);

void sim_image_read(const struct sim_image *img, uint64_t off, void *buf, uint64_t len);
/* Pages of the range that have no space yet. */
uint64_t sim_image_missing(const struct sim_image *img, uint64_t off, uint64_t len);
/* Lands a change: volatile, numbered img->landed, or durable at once. */
void sim_image_change(struct sim_image *img, const struct sim_change *c, bool durable);
void sim_image_reserve(struct sim_image *img, uint64_t off, uint64_t len);
/* Cuts or extends, durably; what is cut off is gone from both states. */
void sim_image_resize(struct sim_image *img, uint64_t size_bytes);

/* Makes durable what landed up to number `upto`. With `lose`, the fsync failed: each of those changes is, at the flip of a coin, never made
 * durable by any later fsync although readers see it (what Linux does with dirty pages after a write-back error). */
void sim_image_fsync(struct sim_image *img, uint64_t upto);
void sim_image_fsync_failed(struct sim_image *img, uint64_t upto, struct rand *rnd);

/* `in_flight`: changes that had not landed, in the order to try them. */
void sim_image_power_loss(struct sim_image *img, struct rand *rnd,
			  const struct sim_change *in_flight, size_t n);

#endif
