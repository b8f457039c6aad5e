/* SPDX-License-Identifier: Apache-2.0 */
/* close.c - the orderly end of a device.
 *
 *   requests in flight* -> everything checkpointed, all slots retired but the doubtful ones* -> superblock* -> CLEAN, stable* -> quiet*
 *         -> freed, done
 *
 * A device that failed, or was only looked at, goes straight to quiet. CLEAN is the journal's last word: the next open trusts every record, and
 * of slots that are active it knows that they were doubtful already. Without CLEAN the restart ring stays, and the next open uses it.
 *
 * Whoever ends something calls close_step(); close_look() runs from the loop and does what can be done next. */
#include "io-path/device/dev.h"
#include "src/base/mem.h"

enum { ROUNDS_IN_VAIN_MAX = 3 };

static void close_look(struct ioe_req *io);
static void close_tidy(struct device *dev);
static void close_superblock(struct device *dev);
static void close_superblock_done(struct control *sb, int status);
static void close_clean(struct device *dev);
static void close_clean_reserved(struct waiter *w, int status);
static void close_clean_stable(struct waiter *w, int status);
static void close_quiet(struct device *dev);

void device_close(struct device *dev, void (*done)(void *arg, int status), void *arg)
{
	check(dev->state == DEVICE_SERVING);
	dev->state = DEVICE_CLOSING;
	dev->close = (struct closing){.done = done, .arg = arg};
	waiter_init(&dev->close.wait);
	verify_stop(dev);
	close_step(dev);
}

void close_step(struct device *dev)
{
	struct closing *c = &dev->close;

	if (c->is_scheduled)
		return;
	c->is_scheduled = true;
	ioe_nop(dev->ioe, &c->io, close_look);
}

static bool requests_are_over(const struct device *dev)
{
	const struct ops *o = &dev->ops;

	return o->busy_n == 0 && list_empty(&o->submitted) && list_empty(&o->queued) &&
	       list_empty(&o->submitted_epochs) && list_empty(&o->finished) &&
	       list_empty(&o->finished_epochs) && list_empty(&dev->controls) &&
	       dev->slots.punching_n == 0 && verify_is_idle(dev);
}

static void close_look(struct ioe_req *io)
{
	struct device *dev = container_of(io, struct device, close.io);
	struct closing *c = &dev->close;

	c->is_scheduled = false;
	if (dev->failed && !c->status)
		c->status = -E_DEVICE_FAILED;
	if (c->step == CLOSE_REQUESTS) {
		if (!requests_are_over(dev))
			return;
		c->step = CLOSE_TIDY;
	}
	if (dev->failed || dev->read_only)
		c->step = CLOSE_QUIET;
	if (c->is_waiting) /* it ends also when the device failed */
		return;
	if (c->step == CLOSE_TIDY)
		close_tidy(dev);
	else if (c->step == CLOSE_SUPERBLOCK)
		close_superblock(dev);
	else if (c->step == CLOSE_CLEAN)
		close_clean(dev);
	else if (c->step == CLOSE_QUIET)
		close_quiet(dev);
}

static void close_to(struct device *dev, int step)
{
	dev->close.step = step;
	close_step(dev);
}

/* Each round of maintenance ends with a close_step(), and so does each table page that was read, without which its changes cannot be
 * checkpointed. Rounds that achieve nothing (no memory, a page that cannot be read) are not repeated for ever: then CLEAN is not written. */
static void close_tidy(struct device *dev)
{
	struct closing *c = &dev->close;

	if (dev->maint.step != MAINT_IDLE || dev->maint.wanted || !tables_are_loaded(dev))
		return;
	if (maint_is_tidy(dev)) {
		close_to(dev, CLOSE_SUPERBLOCK);
	} else if (c->rounds_in_vain == ROUNDS_IN_VAIN_MAX) {
		c->status = dev->tables.unreadable_n ? -EIO : -ENOMEM;
		close_to(dev, CLOSE_QUIET);
	} else {
		c->rounds_in_vain = dev->maint.did ? 0 : c->rounds_in_vain + 1;
		maint_everything(dev);
	}
}

/* Its count of unresolved blocks is for whoever looks at the superblock alone. */
static void close_superblock(struct device *dev)
{
	struct closing *c = &dev->close;

	if (get_le64(dev->sb->unresolved_blocks) == dev->journal.unresolved_blocks) {
		close_to(dev, CLOSE_CLEAN);
		return;
	}
	c->is_waiting = true;
	c->sb.dev = dev;
	dev->sb->unresolved_blocks = to_le64(dev->journal.unresolved_blocks);
	superblock_write(&c->sb, close_superblock_done);
}

static void close_superblock_done(struct control *sb, int status)
{
	struct device *dev = sb->dev;

	(void)status; /* the device failed then */
	dev->close.is_waiting = false;
	close_to(dev, CLOSE_CLEAN);
}

static void close_clean(struct device *dev)
{
	struct closing *c = &dev->close;

	c->is_waiting = true;
	if (journal_reserve(dev, JOURNAL_MAINT, sizeof(struct fmt_rec_clean)))
		close_clean_reserved(&c->wait, 0);
	else
		journal_wait_room(dev, &c->wait, JOURNAL_MAINT, sizeof(struct fmt_rec_clean),
				  close_clean_reserved);
}

static void close_clean_reserved(struct waiter *w, int status)
{
	struct device *dev = container_of(w, struct device, close.wait);
	struct fmt_rec_clean rec = {
	    .h = {.type = FMT_REC_CLEAN, .len_bytes = to_le16(sizeof(rec))},
	};

	if (status) {
		close_clean_stable(w, status);
		return;
	}
	check(dev->tables.dirty_n == 0 && dev->slots.pinned_n == 0 && dev->registry.pin.lsn == 0);
	journal_add(dev, &rec, sizeof(rec));
	flush_wait(dev, w, FLUSH_STABLE, dev->journal.record_lsn, close_clean_stable);
}

static void close_clean_stable(struct waiter *w, int status)
{
	struct device *dev = container_of(w, struct device, close.wait);

	dev->close.is_waiting = false;
	if (!status)
		ring_remove(dev);
	close_to(dev, CLOSE_QUIET);
}

/* ---- quiet ------------------------------------------------------------------------------------------------------------ */

bool device_is_quiet(const struct device *dev)
{
	const struct ops *o = &dev->ops;

	if (!o->all) /* an open that failed early */
		return true;
	return o->busy_n == 0 && !o->delivering && journal_is_idle(dev) &&
	       flush_is_idle(&dev->flusher) && tables_are_idle(dev) && maint_is_idle(dev) &&
	       list_empty(&dev->controls);
}

static void close_quiet(struct device *dev)
{
	void (*done)(void *arg, int status) = dev->close.done;
	void *arg = dev->close.arg;
	int status = dev->close.status;

	if (!device_is_quiet(dev)) {
		journal_stop(dev);
		maint_stop(dev);
		return; /* what ends calls close_step() */
	}
	check(!dev->close.is_scheduled);
	device_free(dev);
	done(arg, status);
}
