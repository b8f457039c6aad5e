/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/device/flush.h"

#include "io-path/device/dev.h"

static void flush_begin(struct device *dev);
static void flush_target(struct device *dev);
static void flush_submit(struct device *dev);
static void flush_done(struct ioe_req *io);

void flush_init(struct device *dev)
{
	list_init(&dev->flusher.waiters);
	list_init(&dev->flusher.drain_waiters);
}

void flush_start(struct device *dev)
{
	dev->flusher.covered_lsn = dev->journal.stable_lsn;
}

/* ---- who waits -------------------------------------------------------------------------------------------------------- */

bool flush_has(const struct device *dev, enum flush_kind kind, uint64_t lsn)
{
	switch (kind) {
	case FLUSH_STABLE:
		return dev->journal.stable_lsn >= lsn;
	case FLUSH_PUBLISHED:
		return dev->journal.published_lsn >= lsn;
	case FLUSH_MEDIUM:
		return dev->flusher.done_n >= lsn; /* there the number of a flush */
	}
	check_unreachable("flush kind");
}

void flush_wait(struct device *dev, struct waiter *w, enum flush_kind kind, uint64_t lsn,
		void (*fn)(struct waiter *w, int status))
{
	struct flusher *f = &dev->flusher;

	w->kind = (uint8_t)kind;
	w->lsn = kind == FLUSH_MEDIUM ? f->submitted_n + 1 : lsn;
	check(!flush_has(dev, kind, w->lsn) && lsn <= dev->journal.open_lsn);
	waiter_push(&f->waiters, w, fn);
	device_turn_end(dev);
}

void flush_wait_drained(struct device *dev, struct waiter *w,
			void (*fn)(struct waiter *w, int status))
{
	check(flush_is_draining(&dev->flusher));
	waiter_push(&dev->flusher.drain_waiters, w, fn);
}

void flush_risky_begin(struct device *dev)
{
	check(!flush_is_draining(&dev->flusher));
	dev->flusher.risky_n++;
}

void flush_risky_end(struct device *dev)
{
	check(dev->flusher.risky_n > 0);
	if (--dev->flusher.risky_n == 0 && flush_is_draining(&dev->flusher))
		device_turn_end(dev);
}

/* ---- the cycle -------------------------------------------------------------------------------------------------------- */

/* Nobody may ever flush. What a power loss can take back, and has to be corrected in the journal then, is bounded by this. */
static bool much_is_unstable(const struct device *dev)
{
	const struct journal *j = &dev->journal;

	return dev->journal_started && j->record_lsn > j->stable_lsn + j->ring_blocks / 16;
}

void flush_kick(struct device *dev)
{
	struct flusher *f = &dev->flusher;

	if (dev->failed)
		return;
	if (f->state == FLUSHER_IDLE && (!list_empty(&f->waiters) || much_is_unstable(dev)))
		flush_begin(dev);
	if (f->state == FLUSHER_DRAIN && f->risky_n == 0)
		flush_target(dev);
	if (f->state == FLUSHER_WRITE && dev->journal.complete_lsn >= f->target_lsn)
		flush_submit(dev);
}

static void flush_begin(struct device *dev)
{
	dev->flusher.state = FLUSHER_DRAIN;
}

static bool wants_published(const struct flusher *f)
{
	list_for_each (l, &f->waiters)
		if (list_entry(l, struct waiter, link)->kind == FLUSH_PUBLISHED)
			return true;
	return false;
}

static void flush_target(struct device *dev)
{
	struct flusher *f = &dev->flusher;
	struct journal *j = &dev->journal;

	if (!journal_open_is_empty(dev) || wants_published(f))
		journal_close_block(dev);
	f->target_lsn = j->open_lsn - 1;
	f->said_stable = j->said_stable;
	f->said_tail = j->said_tail;
	f->covered_lsn = f->target_lsn;
	f->state = FLUSHER_WRITE;
	waiters_wake(&f->drain_waiters, 0);
}

static void flush_submit(struct device *dev)
{
	struct flusher *f = &dev->flusher;

	f->state = FLUSHER_SYNC;
	f->submitted_n++;
	ioe_fsync(dev->ioe, &f->io, dev->file, flush_done);
}

static void flush_done(struct ioe_req *io)
{
	struct device *dev = container_of(io, struct device, flusher.io);
	struct flusher *f = &dev->flusher;
	struct list now = LIST_INIT(now);

	check(f->state == FLUSHER_SYNC);
	f->state = FLUSHER_IDLE;
	if (io->status)
		device_fail(dev, "device flush", io->status);
	if (dev->failed) {
		device_turn_end(dev); /* a close may have waited for this */
		return;
	}
	f->done_n++;
	dev->info.flushes++;
	journal_flushed(dev, f->target_lsn, f->said_stable, f->said_tail);
	list_for_each_safe (l, tmp, &f->waiters) {
		struct waiter *w = list_entry(l, struct waiter, link);

		if (flush_has(dev, w->kind, w->lsn)) {
			list_del(l);
			list_push(&now, l);
		}
	}
	waiters_wake(&now, 0);
	maint_flushed(dev);
	device_turn_end(dev);
}

void flush_fail(struct device *dev)
{
	if (dev->flusher.state != FLUSHER_SYNC)
		dev->flusher.state = FLUSHER_IDLE;
	waiters_wake(&dev->flusher.waiters, -E_DEVICE_FAILED);
	waiters_wake(&dev->flusher.drain_waiters, -E_DEVICE_FAILED);
}
