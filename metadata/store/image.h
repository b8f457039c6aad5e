/* SPDX-License-Identifier: Apache-2.0 */
/* image.h - an ordered map of bytes in memory: what the mem backend keeps, and what survives a simulated restart. Private to metadata/store.
 *
 * A skip list; the height of a key comes from its hash, so the same contents have the same shape in every run. */
#ifndef STRATA_METADATA_STORE_IMAGE_H
#define STRATA_METADATA_STORE_IMAGE_H

#include "metadata/store/metastore.h"

enum { IMAGE_LEVELS = 16 };

struct image_node {
	struct metastore_bytes key, value; /* in the same allocation */
	uint32_t levels;
	struct image_node *next[];
};

struct metastore_image {
	struct image_node *first[IMAGE_LEVELS];
	uint64_t commit; /* how many took effect */
	uint64_t keys_n;
};

/* The node with this key, or NULL. */
const struct image_node *image_find(const struct metastore_image *m, struct metastore_bytes key);
/* The first node with a key above (or, if `equal`, at) this one; NULL at the end. */
const struct image_node *image_above(const struct metastore_image *m, struct metastore_bytes key,
				     bool equal);
bool image_guard_holds(const struct metastore_image *m, const struct metastore_guard *g);
/* All changes or, with -ENOMEM, none. */
int image_apply(struct metastore_image *m, const struct metastore_change *changes, uint32_t n);

#endif
