/* SPDX-License-Identifier: Apache-2.0 */
/* registry.h - the EPOCH and LAYER records: in memory whole, on the device in the registry halves and in the journal since.
 *
 * The record of a layer that is gone is dropped: LAYER_DROP in the journal, and the next checkpoint of the registry does not have it any more. So what the
 * registry holds is bounded by the layers that there are. Replay may find the dropped record once more, older than its LAYER_DROP, which follows
 * then: both are in the journal or none is, for the tail never stops between records and passes a prefix only. */
#ifndef STRATA_IO_PATH_DEVICE_REGISTRY_H
#define STRATA_IO_PATH_DEVICE_REGISTRY_H

#include <stdbool.h>

#include "io-path/device/device.h"
#include "io-path/device/format.h"
#include "io-path/device/pins.h"
#include "io-path/device/waiter.h"

struct registry {
	struct fmt_rec_layer **layers; /* sorted by layer id; one allocation each */
	uint32_t layers_n, layers_room;
	uint64_t layers_bytes, epochs_bytes; /* of all records */
	struct pin pin;
	uint64_t last_lsn; /* of its youngest record */
	/* the half that was written first, or that alone was good */
	uint64_t seq;
	uint32_t half;
	bool is_alone; /* the other one does not say the same: written again soon */
};

int registry_init(struct device *dev);
void registry_free(struct device *dev);

/* Is there room for a record more in a half? Layers may take three quarters of it, so that epochs always find some. */
bool registry_has_room(const struct device *dev, enum fmt_record_type type, uint32_t bytes);
/* The record is in the journal at lsn. */
void registry_touch(struct device *dev, uint64_t lsn);
/* The newest record (by commit) of a layer counts. 0 or -ENOMEM */
int registry_put_layer(struct device *dev, const struct fmt_rec_layer *rec);

/* Is there a record of the layer that is no younger than this commit? */
bool registry_has_layer(const struct device *dev, layer_id layer, uint64_t commit);
void registry_drop_layer(struct device *dev, layer_id layer, uint64_t commit); /* if there is */

/* The pages of the older half with everything there is now, in memory that is the caller's. 0, -ENOMEM, -E_FORMAT (too much) */
int registry_encode(struct device *dev, uint64_t from_lsn, uint8_t **ret_buf, uint32_t *ret_pages_n);
/* Makes them those of what is the older half now, with the same sequence. */
void registry_turn(struct device *dev, uint8_t *buf, uint32_t pages_n);
/* Takes over what a half holds. 0, -E_FORMAT, -ENOMEM */
int registry_apply(struct device *dev, const struct fmt_record *rec);
uint32_t registry_pages_max(const struct device *dev);

#endif
