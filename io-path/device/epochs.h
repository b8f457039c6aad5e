/* SPDX-License-Identifier: Apache-2.0 */
/* epochs.h - which owner's requests are executed: the epoch and the head layer of each volume that this device ever heard of.
 *
 * An epoch only grows. Raising it: the EPOCH record is stable, then every request that was admitted before has finished in the kernel,
 * then it counts. From the moment the raise begins, older requests are refused and newer ones wait. */
#ifndef STRATA_IO_PATH_DEVICE_EPOCHS_H
#define STRATA_IO_PATH_DEVICE_EPOCHS_H

#include <stdbool.h>

#include "io-path/device/device.h"
#include "io-path/device/waiter.h"
#include "src/base/hash.h"

struct op;

struct volume_mark {
	uint64_t epoch, commit;
	layer_id head; /* 0: unknown, any layer may be written */
};

struct volume {
	struct hnode node; /* in volumes.by_id */
	struct device *dev;
	volume_id id;
	struct volume_mark now;
	uint32_t inflight_n; /* requests admitted and not finished */
	/* the raise that is going on */
	bool raising, recorded, stable, for_req; /* recorded: its EPOCH is in the journal */
	struct volume_mark next;
	struct waiter wait;
	struct list ops; /* struct op.wait: until it is over */
	struct list
	    reqs; /* struct device_epoch_req: to be looked at when it is over; with for_req the first is the one going on */
};

/* What the volume's youngest record says, whether or not that is stable. */
static inline const struct volume_mark *volume_recorded(const struct volume *v)
{
	return v->raising && v->recorded ? &v->next : &v->now;
}

struct volumes {
	struct htab by_id;
	struct volume *last; /* found; the next request is likely for the same */
};

int epochs_init(struct device *dev);
void epochs_free(struct device *dev);
struct volume *volume_get(struct device *dev, volume_id id); /* made if new; NULL: no memory */

/* 0: admitted, op->vol is set. 1: waits, and op_admitted() is called later. Else the request is refused. */
int volume_admit(struct device *dev, struct op *op);
void volume_leave(struct volume *v);
void epochs_begin(struct device *dev); /* what was submitted in this turn */
/* Replay: the newest counts. 0 or -ENOMEM */
int volume_replay(struct device *dev, volume_id id, const struct volume_mark *m);

#endif
