/* SPDX-License-Identifier: Apache-2.0 */
/* flush.h - device flushes: one at a time, shared by everybody who waits, each moving stable_lsn (docs/device-format.md).
 *
 *   IDLE -> DRAIN* -> WRITE* -> SYNC* -> IDLE       (* suspends)
 *
 *   DRAIN  waits for data writes in flight over blocks that became present after the last flush ("risky" ones): this flush would cover the
 *          record that made such a block present, so it has to cover the newer record too. New ones wait until DRAIN is over.
 *   WRITE  closes the open block; its lsn is the target, and from now on "covered". Waits until complete_lsn reaches it.
 *   SYNC   the device flush. Then stable_lsn is the target, and what its block said about stable_lsn and tail is published. */
#ifndef STRATA_IO_PATH_DEVICE_FLUSH_H
#define STRATA_IO_PATH_DEVICE_FLUSH_H

#include <stdbool.h>

#include "io-path/device/waiter.h"
#include "src/ioe/ioe.h"

struct device;

enum flush_kind {
	FLUSH_STABLE,	 /* stable_lsn reaches lsn */
	FLUSH_PUBLISHED, /* published_lsn reaches lsn */
	FLUSH_MEDIUM,	 /* what is written now is on the medium: a flush submitted from now on */
};

struct flusher {
	enum { FLUSHER_IDLE, FLUSHER_DRAIN, FLUSHER_WRITE, FLUSHER_SYNC } state;
	uint64_t target_lsn, said_stable, said_tail;
	uint64_t covered_lsn; /* by the last completed flush or by the one that is running */
	uint64_t submitted_n, done_n;
	uint32_t risky_n; /* data writes in flight, see DRAIN */
	struct list waiters;
	struct list drain_waiters;
	struct ioe_req io;
};

void flush_init(struct device *dev);
void flush_start(struct device *dev); /* once the journal has started */
bool flush_has(const struct device *dev, enum flush_kind kind, uint64_t lsn);
/* fn is called when it is so, or with an error when the device failed. Not to be called when flush_has() is true. */
void flush_wait(struct device *dev, struct waiter *w, enum flush_kind kind, uint64_t lsn,
		void (*fn)(struct waiter *w, int status));
/* True when a risky write may not start now. */
static inline bool flush_is_draining(const struct flusher *f)
{
	return f->state == FLUSHER_DRAIN;
}
void flush_wait_drained(struct device *dev, struct waiter *w,
			void (*fn)(struct waiter *w, int status));
void flush_risky_begin(struct device *dev);
void flush_risky_end(struct device *dev); /* its record is in the journal */

void flush_kick(struct device *dev); /* at the end of a turn, and when complete_lsn moved */
void flush_fail(struct device *dev);
static inline bool flush_is_idle(const struct flusher *f)
{
	return f->state == FLUSHER_IDLE && list_empty(&f->waiters);
}

#endif
